//! One pod's entry in the report.
//!
//! Decides in which words its departure is told. It must not change anything.

use super::Pod;
use crate::keep::Step;
use crate::leave::Way;
use crate::moment::Moment;
use crate::report::{DepartureOutcome, PodReport, StateOutcome};

impl Pod {
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
        let leave = &departure.leave;
        report.refusals = leave.refusals;
        report.evicted = leave.evicted;
        report.gone = leave.gone;
        (report.departure, report.reason) = match &leave.way {
            Way::Stays(why) => (DepartureOutcome::Stays, Some(why.clone())),
            Way::Waiting | Way::Disrupting | Way::LettingGo => (DepartureOutcome::Pending, None),
            Way::Leaving if leave.let_go.is_none() => (DepartureOutcome::Leaving, None),
            Way::Leaving => (DepartureOutcome::LetGo, leave.let_go.clone()),
            Way::Gone => (DepartureOutcome::Gone, leave.let_go.clone()),
            Way::Abandoned(why) => (DepartureOutcome::Abandoned, Some(why.clone())),
        };
        report.sent = departure.keep.sent;
        let earlier = self.precopy.committed.as_ref();
        match &departure.keep.step {
            Step::Nothing => {}
            Step::Safe { generation, bytes, at } => {
                report.state_reason.clone_from(&departure.keep.partial);
                let whole = departure.keep.partial.is_none();
                report.state = if whole { StateOutcome::Saved } else { StateOutcome::Partial };
                report.generation = Some(generation.clone());
                report.bytes = *bytes;
                report.committed = Some(*at);
            }
            unfinished => {
                let late = now >= departure.times.deadline;
                report.state_reason = match unfinished {
                    Step::Lost { why } => Some(why.clone()),
                    _ if late => Some("not committed by the deadline".into()),
                    _ => None,
                };
                let given_up = report.state_reason.is_some();
                let had_none = departure.keep.had_no_state() && self.look.state_bytes() == 0;
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
