//! What the fleet role counts: gates, reports of nodes that are no more, nodes that vanished, garbage.

use crate::fleet::reports::{Reading, Summary};
use crate::runtime::metrics::kinds::Went;
use crate::runtime::metrics::labels::{AdoptedAs, PassOutcome, StoredState};
use crate::runtime::metrics::table::{
    AdoptionLabels, FleetDepartureLabels, FleetEvacuationLabels, FleetStateLabels, FleetStoredLabels,
    GarbagePassLabels, NodesGoneLabels, ReportLabels,
};
use crate::runtime::metrics::{CountedAt, Metrics, seconds};
use evacuation::moment::Span;

impl Metrics {
    /// This replica of the fleet role acts, or not.
    pub fn fleet_leader(&self, leads: bool) {
        self.series.fleet_leader.get_or_create(&[]).set(f64::from(leads));
    }

    /// Pods with a closed gate on nodes without an agent.
    pub fn fleet_waiting(&self, pods: usize) {
        self.series.fleet_pods_without_agent.get_or_create(&[]).set(pods as f64);
    }

    /// The fleet role opened a gate.
    pub fn fleet_gate_opened(&self) {
        self.series.fleet_gates_opened.inc();
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
            for how in nodes {
                self.series.fleet_spot_nodes_gone.get_or_create(&NodesGoneLabels { how }).inc();
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
        let outcome = PassOutcome::of(done);
        self.series.fleet_adoptions.get_or_create(&AdoptionLabels { outcome }).inc();
    }

    /// Reports that are not counted yet, and Spot nodes of which it is not known how they went.
    pub fn fleet_behind(&self, reports: usize, nodes: usize) {
        self.series.fleet_reports_waiting.get_or_create(&[]).set(reports as f64);
        self.series.fleet_spot_nodes_missing.get_or_create(&[]).set(nodes as f64);
    }

    /// A pass of garbage collection ended: what it removed, and what it found to stay.
    pub fn fleet_garbage(&self, done: bool, took: Span, freed: u64, kept: u64) {
        let outcome = PassOutcome::of(done);
        self.series.fleet_garbage_passes.get_or_create(&GarbagePassLabels { outcome }).inc();
        self.series.fleet_garbage_pass_seconds.observe(seconds(took));
        self.series.fleet_garbage_freed_bytes.inc_by(freed);
        if done {
            self.series.fleet_garbage_kept_bytes.get_or_create(&[]).set(kept as f64);
        }
    }

    fn report(&self, reading: &Reading) {
        let outcome = match reading {
            Reading::Evacuation(_) => AdoptedAs::Evacuation,
            Reading::Drill => AdoptedAs::Drill,
            Reading::Unreadable(_) => AdoptedAs::Unreadable,
            // It is left to a newer fleet role.
            Reading::Newer(_) => return,
        };
        self.series.fleet_reports.get_or_create(&ReportLabels { outcome }).inc();
        if let Reading::Evacuation(summary) = reading {
            self.evacuation(summary);
        }
    }

    fn evacuation(&self, summary: &Summary) {
        let Summary { kind, end, took, cordoned, pods } = summary;
        let labels = FleetEvacuationLabels { kind: (*kind).into(), outcome: *end };
        self.series.fleet_evacuations.get_or_create(&labels).inc();
        self.series.fleet_evacuation_seconds.observe(seconds(*took));
        if let Some(cordoned) = cordoned {
            self.series.fleet_notice_to_cordon_seconds.observe(seconds(*cordoned));
        }
        for pod in pods {
            self.series
                .fleet_departures
                .get_or_create(&FleetDepartureLabels { outcome: pod.departure })
                .inc();
            self.series.fleet_states.get_or_create(&FleetStateLabels { outcome: pod.state }).inc();
            if let Some(outcome) = StoredState::of(pod.state) {
                self.series.fleet_state_bytes.get_or_create(&FleetStoredLabels { outcome }).inc_by(pod.bytes);
            }
            self.series.fleet_state_sent_bytes.inc_by(pod.sent);
            self.series.fleet_evictions_refused.inc_by(pod.refusals.into());
            if let Some(committed) = pod.committed {
                self.series.fleet_notice_to_commit_seconds.observe(seconds(committed));
            }
            if let Some(gone) = pod.gone {
                self.series.fleet_notice_to_gone_seconds.observe(seconds(gone));
            }
        }
    }
}
