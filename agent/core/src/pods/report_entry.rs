//! One pod's entry in the report.
//!
//! Decides in which words its departure is told. It must not change anything.

use super::TrackedPod;
use crate::moment::Moment;
use crate::pod_eviction::EvictionState;
use crate::pod_save::{NO_EVIDENCE, SaveStep};
use crate::report::{DepartureOutcome, PodReport, StateOutcome};

impl TrackedPod {
    /// Its entry in the report.
    pub(crate) fn report(&self, now: Moment) -> PodReport {
        let facts = &self.facts;
        let mut report = PodReport {
            uid: facts.uid.0.clone(),
            namespace: facts.namespace.clone(),
            name: facts.name.clone(),
            priority: facts.priority,
            departure: DepartureOutcome::Stays,
            reason: None,
            state: StateOutcome::None,
            state_reason: None,
            generation: None,
            bytes: 0,
            sent: 0,
            refusals: 0,
            evicted: None,
            committed: None,
            gone: None,
        };
        let Some(departure) = &self.departure else { return report };
        let eviction = &departure.eviction;
        report.refusals = eviction.refusals;
        report.evicted = eviction.evicted;
        report.gone = eviction.gone;
        (report.departure, report.reason) = match &eviction.state {
            EvictionState::Stays(why) => (DepartureOutcome::Stays, Some(why.clone())),
            EvictionState::Waiting | EvictionState::Disrupting | EvictionState::Deleting => {
                (DepartureOutcome::Pending, None)
            }
            EvictionState::Leaving if eviction.deleted_at_cut_off.is_none() => {
                (DepartureOutcome::Leaving, None)
            }
            EvictionState::Leaving => {
                (DepartureOutcome::DeletedAtCutOff, eviction.deleted_at_cut_off.clone())
            }
            EvictionState::Gone => (DepartureOutcome::Gone, eviction.deleted_at_cut_off.clone()),
            EvictionState::Abandoned(why) => (DepartureOutcome::Abandoned, Some(why.clone())),
        };
        report.sent = departure.save.sent;
        let earlier = self.precopy.committed.as_ref();
        match &departure.save.step {
            SaveStep::Nothing => {}
            SaveStep::Safe { generation, bytes, at } => {
                report.state_reason.clone_from(&departure.save.partial);
                report.state = match (departure.save.lacks_evidence(), &departure.save.partial) {
                    (true, _) => StateOutcome::SavedWithoutEvidence,
                    (false, Some(_)) => StateOutcome::Partial,
                    (false, None) => StateOutcome::Saved,
                };
                if departure.save.lacks_evidence() {
                    report.state_reason.get_or_insert_with(|| NO_EVIDENCE.to_owned());
                }
                if let Some(why) = self.inspection.doubt.as_ref().filter(|_| report.state_reason.is_none()) {
                    report.state_reason = Some(format!("saved after all others: {why}"));
                }
                report.generation = Some(generation.clone());
                report.bytes = *bytes;
                report.committed = Some(*at);
            }
            unfinished => {
                let late = now >= departure.times.deadline;
                report.state_reason = match unfinished {
                    SaveStep::Lost { why } => Some(why.clone()),
                    _ if late => Some("not committed by the deadline".into()),
                    _ => None,
                };
                let given_up = report.state_reason.is_some();
                let had_none = departure.save.had_no_state() && self.inspection.state_bytes() == 0;
                report.state = match (given_up, earlier) {
                    (false, _) => StateOutcome::Pending,
                    (true, None) if had_none => StateOutcome::None,
                    (true, Some(_)) => StateOutcome::Earlier,
                    (true, None) => StateOutcome::Lost,
                };
                if given_up && let Some((generation, bytes)) = earlier {
                    report.generation = Some(generation.clone());
                    report.bytes = *bytes;
                }
            }
        }
        report
    }
}
