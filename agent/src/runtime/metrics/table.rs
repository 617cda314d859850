//! The table: every metric there is.
//!
//! A metric's comment is its help, its name as in Prometheus, but for `lifeboat_` before it and a counter's `_total` after
//! it; `_seconds` and `_bytes` are units. What stands in braces is the type of its labels, which only it has.

use super::labels::{
    ActionName, AdoptedAs, AnnouncedKind, BuildVersion, Completeness, EffectOutcome, EventName, FetchedWhen,
    LabelValue, PassOutcome, PodKind, RequestCode, RequestVerb, StateFate, StoredState, TokenStage,
    WatchedResource,
};
use super::series::{Counters, Gauge, Gauges, Histograms, LabelSet, digit, register, table, without_unit};
use crate::runtime::claims::{ClaimsPlace, Reason};
use crate::runtime::metrics::kinds::{End, FaultKind, Went};
use engines::EngineKind;
use evacuation::effect::RestoreOutcome;
use evacuation::event::FailureKind;
use evacuation::notice::NoticeKind;
use evacuation::report::{DepartureOutcome, StateOutcome};
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

/// One metric, for the documentation.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name in the table.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricType,
    /// Its labels.
    pub labels: Vec<Label>,
    /// One sentence, without the full stop.
    pub help: &'static str,
}

impl Row {
    /// The name under which Prometheus shows it.
    pub fn full_name(&self) -> String {
        let suffix = if let MetricType::Counter = self.kind { "_total" } else { "" };
        format!("lifeboat_{}{suffix}", self.name)
    }

    /// Its unit, if it has one.
    pub fn unit(&self) -> Option<Unit> {
        without_unit(self.name).1
    }

    /// It is always 1, with facts as labels.
    pub fn is_info(&self) -> bool {
        self.name.ends_with("_info")
    }
}

/// A label.
#[derive(Clone, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values, without `other`; none at all: whatever is told, as it is ([`Label::is_open`]).
    pub values: Vec<String>,
}

impl Label {
    fn of<V: LabelValue>(name: &'static str) -> Self {
        Self { name, values: V::every().iter().map(|value| value.text().to_owned()).collect() }
    }

    /// It takes any value. Only what is taken away again may have such a label.
    pub const fn is_open(&self) -> bool {
        self.values.is_empty()
    }
}

table! {
    /// Polls of the instance metadata service
    imds_polls: Counter,
    /// Polls of the instance metadata service that failed
    imds_errors: Counters<ImdsErrorLabels { kind: FaultKind }>,
    /// 1 if the last poll was answered
    imds_reachable: Gauge,
    /// Notices seen for the first time
    notices: Counters<NoticeLabels { kind: NoticeKind }>,
    /// Notices that stand now: more than one can, and what ends the instance first rules
    announcements: Gauges<AnnouncementLabels { kind: NoticeKind }>,
    /// How long a notice may have stood before it was seen
    notice_age_seconds: Histogram,
    /// Time left to the moment that a notice names, when it was first seen
    notice_left_seconds: Histogram,
    /// From the first sight of a notice to the acknowledged cordon
    notice_to_cordon_seconds: Histogram,
    /// 1 while this node is being evacuated
    evacuating: Gauge,
    /// 1 for each pod that leaves with this node, by the kind of the notice; there only while the node is being
    /// evacuated
    pod_disrupted: Gauges<DisruptedLabels { target_namespace: String, target_pod: String, reason: NoticeKind }>,
    /// Evacuations that have ended; complete if everything that was to happen has
    evacuations: Counters<EvacuationLabels { outcome: Completeness }>,
    /// From the first sight of a notice to the end of its evacuation
    evacuation_seconds: Histogram,
    /// Evacuations that were rehearsed on this node (lifeboat drill --node); in no other metric of evacuations or pods
    drills: Counters<DrillLabels { outcome: Completeness }>,
    /// Attempts to evict; refused by a PodDisruptionBudget is not throttled by the API server
    evictions: Counters<EvictionLabels { outcome: EffectOutcome }>,
    /// Pods of evacuations, by what became of them
    departures: Counters<DepartureLabels { outcome: DepartureOutcome }>,
    /// Pods of departures, by what became of their state
    states: Counters<StateLabels { outcome: StateOutcome }>,
    /// Time to bring a flushed state into the store
    save_seconds: Histograms<SaveLabels { outcome: EffectOutcome }>,
    /// Time to write a manifest and its generation
    commit_seconds: Histograms<CommitLabels { outcome: EffectOutcome }>,
    /// State held by checkpoints that were saved
    state_saved_bytes: Counter,
    /// Bytes sent to the store for them
    state_sent_bytes: Counter,
    /// Bytes of state that came from the store: while a checkpoint was still announced, and after its commit
    state_fetched_bytes: Counters<FetchedLabels { when: FetchedWhen }>,
    /// State put back into engines
    state_restored_bytes: Counter,
    /// Restores decided, by the reason of the pod's condition lifeboat.dev/restored
    restores: Counters<RestoreLabels { reason: RestoreOutcome }>,
    /// From the first sight of a pod to its decided restore
    restore_seconds: Histogram,
    /// Tokens in committed checkpoints, taken by engines, shown to be used by them, and found in their cache by the
    /// first request of each restored conversation
    tokens: Counters<TokenLabels { stage: TokenStage }>,
    /// The uplink to the store as last measured
    link_bytes_per_second: Gauge,
    /// Time to spare if a notice came now: negative on a node that would not make it; NaN with nothing to save
    headroom_seconds: Gauge,
    /// State by what would become of it if a notice came now, as `lifeboat plan` says it: whole in the store by its
    /// cut-off or not, or a link that was never measured; state that nobody has looked at is not in it
    plan_state_bytes: Gauges<PlanStateLabels { fate: StateFate }>,
    /// How fast the last state was read from its volume: the disk, or the page cache
    state_read_bytes_per_second: Gauge,
    /// Pods of this node; stateful are those that opted in with valid annotations
    pods: Gauges<PodLabels { kind: PodKind }>,
    /// Annotations that could not be followed, each counted once for each pod and value
    annotation_errors: Counter,
    /// Calls to engines that failed
    engine_errors: Counters<EngineErrorLabels { engine: EngineKind, kind: FailureKind }>,
    /// Effects that were answered
    effects: Counters<EffectLabels { action: ActionName, outcome: EffectOutcome }>,
    /// Time from an effect's start to its answer
    effect_seconds: Histograms<EffectTimeLabels { action: ActionName }>,
    /// Answers that came after their effect had been answered
    late_answers: Counter,
    /// Things that should not happen and did; the log names them
    anomalies: Counter,
    /// 1 while every line of the journal is on the node's disk, 0 while the disk takes none and after lines were lost
    journal_written: Gauge,
    /// Lines of the journal for which the disk had no room, or no answer, for too long: they are in no file
    journal_lines_lost: Counter,
    /// Events handed to the core
    events: Counters<EventLabels { event: EventName }>,
    /// Requests to the API server, but for the watches
    kube_requests: Counters<RequestLabels { verb: RequestVerb, code: RequestCode }>,
    /// Time to the answer of the API server
    kube_request_seconds: Histograms<RequestTimeLabels { verb: RequestVerb }>,
    /// Watches that failed and were started again
    watch_restarts: Counters<WatchRestartLabels { resource: WatchedResource }>,
    /// 1 once the store has proven what it must be able to do, 0 until then; not there without --store
    store_usable: Gauge,
    /// Where it is decided who restores a state, and why there: the store has proven that it decides conditional
    /// writes, or it ignores them, or `--claims` says so
    claims_info: Gauges<ClaimsLabels { place: ClaimsPlace, reason: Reason }>,
    /// 1 on the replica of the fleet role that acts, 0 on the others; no agent has it
    fleet_leader: Gauge,
    /// Pods whose readiness gate is closed on a node where no agent is ready, as the acting replica of the fleet role
    /// sees them
    fleet_pods_without_agent: Gauge,
    /// Readiness gates that the fleet role opened, since no agent was there to do it
    fleet_gates_opened: Counter,
    /// Reports in the store that the fleet role has taken in, each once: of evacuations, which are in the next metrics;
    /// of rehearsals, which are in no other; and what cannot be read, which its log names
    fleet_reports: Counters<ReportLabels { outcome: AdoptedAs }>,
    /// Reports that are not taken in yet, as the acting replica last saw it: they may still be written to, or the store
    /// fails
    fleet_reports_waiting: Gauge,
    /// Times the acting replica looked for reports; failed if the store did not answer as it should
    fleet_adoptions: Counters<AdoptionLabels { outcome: PassOutcome }>,
    /// Evacuations by their reports, which outlive their nodes: complete by the deadline, complete after it, not
    /// complete, or of a notice that was withdrawn
    fleet_evacuations: Counters<FleetEvacuationLabels { kind: AnnouncedKind, outcome: End }>,
    /// By the reports: from the first sight of a notice to the last report of its evacuation
    fleet_evacuation_seconds: Histogram,
    /// By the reports: from the first sight of a notice to the acknowledged cordon
    fleet_notice_to_cordon_seconds: Histogram,
    /// By the reports: from the first sight of a notice to the commit of a pod's state
    fleet_notice_to_commit_seconds: Histogram,
    /// By the reports: from the first sight of a notice to the end of a pod
    fleet_notice_to_gone_seconds: Histogram,
    /// Pods of the reports, by what became of them
    fleet_departures: Counters<FleetDepartureLabels { outcome: DepartureOutcome }>,
    /// Pods of the reports, by what became of their state
    fleet_states: Counters<FleetStateLabels { outcome: StateOutcome }>,
    /// State that the reports say is in the store; of lost state no report knows the size
    fleet_state_bytes: Counters<FleetStoredLabels { outcome: StoredState }>,
    /// Bytes sent under a notice, by the reports
    fleet_state_sent_bytes: Counter,
    /// Evictions that a PodDisruptionBudget refused, by the reports
    fleet_evictions_refused: Counter,
    /// Spot nodes with an agent that were taken away: a report is in the store; their agent had seen a notice and none
    /// is; or nobody had said anything (gone without notice). Nodes that somebody meant to go are not counted
    fleet_spot_nodes_gone: Counters<NodesGoneLabels { how: Went }>,
    /// Spot nodes with an agent that are under a notice, or fell silent, or are gone and not counted yet, as the acting
    /// replica sees them
    fleet_spot_nodes_missing: Gauge,
    /// Passes of garbage collection over the cluster's part of the store; failed if any workload's ended early
    fleet_garbage_passes: Counters<GarbagePassLabels { outcome: PassOutcome }>,
    /// Time that a pass of garbage collection took
    fleet_garbage_pass_seconds: Histogram,
    /// Bytes that garbage collection removed from the store
    fleet_garbage_freed_bytes: Counter,
    /// Bytes of packs and manifests that kept generations name, by the last pass of garbage collection
    fleet_garbage_kept_bytes: Gauge,
    /// This build of lifeboat
    build_info: Gauges<BuildLabels { version: BuildVersion }>,
}
