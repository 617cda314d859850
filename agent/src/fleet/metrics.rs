//! What the fleet role counts: gates, reports of nodes that are no more, nodes that vanished, garbage.

use crate::fleet::report_index::Went;
use crate::fleet::reports::{Reading, Summary};
use crate::runtime::metrics::table::Id;
use crate::runtime::metrics::{CountedAt, Metrics, departure_label, seconds, state_label};
use evacuation::moment::Span;
use evacuation::report::StateOutcome;

impl Metrics {
    /// This replica of the fleet role acts, or not.
    pub fn fleet_leader(&self, leads: bool) {
        self.series.set(Id::FleetLeader, &[], f64::from(u8::from(leads)));
    }

    /// Pods with a closed gate on nodes without an agent.
    pub fn fleet_waiting(&self, pods: usize) {
        self.series.set(Id::FleetWaiting, &[], pods as f64);
    }

    /// The fleet role opened a gate.
    pub fn fleet_gate_opened(&self) {
        self.series.count(Id::FleetGatesOpened, &[], 1);
    }

    /// Counts what one write to the ledger promised, all of it in the same scrape. Whether any has seen it is told by
    /// [`Metrics::seen`].
    pub fn fleet_counts<'a>(
        &self,
        reports: impl IntoIterator<Item = &'a Reading>,
        nodes: impl IntoIterator<Item = Went>,
    ) -> CountedAt {
        self.scrapes.between(|| {
            for reading in reports {
                self.report(reading);
            }
            for went in nodes {
                self.series.count(Id::FleetNodesGone, &[went.as_str()], 1);
            }
        })
    }

    /// Whether anybody has been told of what was counted then.
    pub fn seen(&self, counted: CountedAt) -> bool {
        self.scrapes.seen(counted)
    }

    /// Nobody is told anything any more: what was [seen](Self::seen) by now is all that will be.
    pub fn close(&self) {
        self.scrapes.close();
    }

    /// One round of adoption ended.
    pub fn fleet_round(&self, done: bool) {
        self.series.count(Id::FleetRounds, &[if done { "done" } else { "failed" }], 1);
    }

    /// Reports that are not counted yet, and Spot nodes of which it is not known how they went.
    pub fn fleet_behind(&self, reports: usize, nodes: usize) {
        self.series.set(Id::FleetReportsWaiting, &[], reports as f64);
        self.series.set(Id::FleetNodesMissing, &[], nodes as f64);
    }

    /// A pass of garbage collection ended: what it removed, and what it found to stay.
    pub fn fleet_garbage(&self, done: bool, took: Span, freed: u64, kept: u64) {
        self.series.count(Id::FleetGarbagePasses, &[if done { "done" } else { "failed" }], 1);
        self.series.observe(Id::FleetGarbageSeconds, &[], seconds(took));
        self.series.count(Id::FleetGarbageFreed, &[], freed);
        if done {
            self.series.set(Id::FleetGarbageKept, &[], kept as f64);
        }
    }

    fn report(&self, reading: &Reading) {
        let outcome = match reading {
            Reading::Evacuation(_) => "adopted",
            Reading::Drill => "drill",
            Reading::Unreadable(_) => "unreadable",
            // It is left to a newer fleet role.
            Reading::Newer(_) => return,
        };
        self.series.count(Id::FleetReports, &[outcome], 1);
        if let Reading::Evacuation(summary) = reading {
            self.evacuation(summary);
        }
    }

    fn evacuation(&self, summary: &Summary) {
        let Summary { kind, end, took, cordoned, pods } = summary;
        self.series.count(Id::FleetEvacuations, &[kind.as_str(), end.as_str()], 1);
        self.series.observe(Id::FleetEvacuationSeconds, &[], seconds(*took));
        if let Some(cordoned) = cordoned {
            self.series.observe(Id::FleetNoticeToCordon, &[], seconds(*cordoned));
        }
        for pod in pods {
            self.series.count(Id::FleetDepartures, &[departure_label(pod.departure)], 1);
            self.series.count(Id::FleetStates, &[state_label(pod.state)], 1);
            if let StateOutcome::Saved | StateOutcome::Partial | StateOutcome::Earlier = pod.state {
                self.series.count(Id::FleetStateBytes, &[state_label(pod.state)], pod.bytes);
            }
            self.series.count(Id::FleetSentBytes, &[], pod.sent);
            self.series.count(Id::FleetRefusals, &[], pod.refusals.into());
            if let Some(committed) = pod.committed {
                self.series.observe(Id::FleetNoticeToCommit, &[], seconds(committed));
            }
            if let Some(gone) = pod.gone {
                self.series.observe(Id::FleetNoticeToGone, &[], seconds(gone));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::reports::End;
    use crate::runtime::metrics::TABLE;

    #[test]
    fn every_end_is_in_its_metrics_set() {
        let has = |id: Id, label: usize, value: &str| {
            assert!(TABLE[id as usize].labels[label].values.contains(&value), "{value}");
        };
        for &end in End::ALL {
            has(Id::FleetEvacuations, 1, end.as_str());
        }
        for &went in Went::ALL {
            has(Id::FleetNodesGone, 0, went.as_str());
        }
    }
}
