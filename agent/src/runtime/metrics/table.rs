//! The table: every metric there is.

use evacuation::effect::Action;
use evacuation::event::Event;

/// A Prometheus type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
    /// A gauge that is always 1, with facts as labels; its name ends in `_info`.
    Info,
}

impl MetricKind {
    /// As Prometheus names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge | MetricKind::Info => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// What a metric is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds; the name carries `_seconds`.
    Seconds,
    /// Bytes; the name carries `_bytes`.
    Bytes,
    /// A count of what the name says.
    None,
}

impl Unit {
    /// The name's suffix.
    pub const fn as_str(self) -> &'static str {
        match self {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::None => "",
        }
    }
}

/// A label and its closed set of values; a value outside it becomes `other`.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values, without `other`; none at all: whatever is told, as it is ([`Label::is_open`]).
    pub values: &'static [&'static str],
}

impl Label {
    /// It takes any value. Only what is taken away again may have such a label.
    pub const fn is_open(&self) -> bool {
        self.values.is_empty()
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its place in the table.
    pub id: Id,
    /// Its name, without prefix, unit and suffix.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// Its unit.
    pub unit: Unit,
    /// Its labels.
    pub labels: &'static [Label],
    /// One sentence, without the full stop.
    pub help: &'static str,
}

impl Row {
    /// The name under which Prometheus shows it.
    pub fn full_name(&self) -> String {
        let unit = match self.unit {
            Unit::Seconds | Unit::Bytes => format!("_{}", self.unit.as_str()),
            Unit::None => String::new(),
        };
        let suffix = match self.kind {
            MetricKind::Counter => "_total",
            MetricKind::Info => "_info",
            MetricKind::Gauge | MetricKind::Histogram => "",
        };
        format!("lifeboat_{}{unit}{suffix}", self.name)
    }
}

/// Names a row; its discriminant is the row's place in [`TABLE`].
#[allow(missing_docs, reason = "the row's help says it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    ImdsPolls,
    ImdsErrors,
    ImdsReachable,
    Notices,
    NoticeAge,
    NoticeLeft,
    NoticeToCordon,
    Evacuating,
    PodDisrupted,
    Evacuations,
    EvacuationSeconds,
    Drills,
    Evictions,
    Departures,
    States,
    SaveSeconds,
    CommitSeconds,
    SavedBytes,
    SentBytes,
    FetchedBytes,
    RestoredBytes,
    Restores,
    RestoreSeconds,
    Tokens,
    Link,
    Headroom,
    PlanState,
    Read,
    Pods,
    AnnotationErrors,
    EngineErrors,
    Effects,
    EffectSeconds,
    LateAnswers,
    Anomalies,
    Events,
    KubeRequests,
    KubeSeconds,
    WatchRestarts,
    StoreUsable,
    Claims,
    FleetLeader,
    FleetWaiting,
    FleetGatesOpened,
    FleetReports,
    FleetReportsWaiting,
    FleetRounds,
    FleetEvacuations,
    FleetEvacuationSeconds,
    FleetNoticeToCordon,
    FleetNoticeToCommit,
    FleetNoticeToGone,
    FleetDepartures,
    FleetStates,
    FleetStateBytes,
    FleetSentBytes,
    FleetRefusals,
    FleetNodesGone,
    FleetNodesMissing,
    FleetGarbagePasses,
    FleetGarbageSeconds,
    FleetGarbageFreed,
    FleetGarbageKept,
    Build,
}

pub(super) const OUTCOME: Label = Label {
    name: "outcome",
    values: &[
        "done",
        "refused",
        "throttled",
        "transient",
        "permanent",
        "not_found",
        "mismatch",
        "timed_out",
        "panicked",
    ],
};
const ACTION: Label = Label { name: "action", values: Action::NAMES };
const VERB: Label =
    Label { name: "verb", values: &["get", "list", "watch", "create", "update", "patch", "delete"] };
const CODE: Label = Label {
    name: "code",
    values: &[
        "200",
        "201",
        "400",
        "401",
        "403",
        "404",
        "405",
        "409",
        "410",
        "415",
        "422",
        "429",
        "500",
        "502",
        "503",
        "504",
        "timeout",
        "transport",
    ],
};

const fn row(
    id: Id,
    name: &'static str,
    kind: MetricKind,
    unit: Unit,
    labels: &'static [Label],
    help: &'static str,
) -> Row {
    Row { id, name, kind, unit, labels, help }
}

/// Every metric, in the order of the documentation.
pub const TABLE: [Row; 64] = [
    row(
        Id::ImdsPolls,
        "imds_polls",
        MetricKind::Counter,
        Unit::None,
        &[],
        "Polls of the instance metadata service",
    ),
    row(
        Id::ImdsErrors,
        "imds_errors",
        MetricKind::Counter,
        Unit::None,
        &[Label {
            name: "kind",
            values: &[
                "refused",
                "timeout",
                "broken",
                "unauthorized",
                "forbidden",
                "throttled",
                "server_error",
                "garbage",
            ],
        }],
        "Polls of the instance metadata service that failed",
    ),
    row(
        Id::ImdsReachable,
        "imds_reachable",
        MetricKind::Gauge,
        Unit::None,
        &[],
        "1 if the last poll was answered",
    ),
    row(
        Id::Notices,
        "notices",
        MetricKind::Counter,
        Unit::None,
        &[Label {
            name: "kind",
            values: &["terminate", "stop", "hibernate", "rebalance", "maintenance", "drill"],
        }],
        "Notices seen for the first time",
    ),
    row(
        Id::NoticeAge,
        "notice_age",
        MetricKind::Histogram,
        Unit::Seconds,
        &[],
        "How long a notice may have stood before it was seen",
    ),
    row(
        Id::NoticeLeft,
        "notice_left",
        MetricKind::Histogram,
        Unit::Seconds,
        &[],
        "Time left to the moment that a notice names, when it was first seen",
    ),
    row(
        Id::NoticeToCordon,
        "notice_to_cordon",
        MetricKind::Histogram,
        Unit::Seconds,
        &[],
        "From the first sight of a notice to the acknowledged cordon",
    ),
    row(
        Id::Evacuating,
        "evacuating",
        MetricKind::Gauge,
        Unit::None,
        &[],
        "1 while this node is being evacuated",
    ),
    row(
        Id::PodDisrupted,
        "pod_disrupted",
        MetricKind::Gauge,
        Unit::None,
        &[
            // Not `namespace` and `pod`: those are the agent's own wherever Prometheus finds it as a pod.
            Label { name: "target_namespace", values: &[] },
            Label { name: "target_pod", values: &[] },
            Label {
                name: "reason",
                values: &["terminate", "stop", "hibernate", "rebalance", "maintenance", "drill"],
            },
        ],
        "1 for each pod that leaves with this node, by the kind of the notice; there only while the node is being \
         evacuated",
    ),
    row(
        Id::Evacuations,
        "evacuations",
        MetricKind::Counter,
        Unit::None,
        &[Label { name: "outcome", values: &["complete", "incomplete"] }],
        "Evacuations that have ended; complete if everything that was to happen has",
    ),
    row(
        Id::EvacuationSeconds,
        "evacuation",
        MetricKind::Histogram,
        Unit::Seconds,
        &[],
        "From the first sight of a notice to the end of its evacuation",
    ),
    row(
        Id::Drills,
        "drills",
        MetricKind::Counter,
        Unit::None,
        &[Label { name: "outcome", values: &["complete", "incomplete"] }],
        "Evacuations that were rehearsed on this node (lifeboat drill --node); in no other metric of evacuations or pods",
    ),
    row(
        Id::Evictions,
        "evictions",
        MetricKind::Counter,
        Unit::None,
        &[OUTCOME],
        "Attempts to evict; refused by a PodDisruptionBudget is not throttled by the API server",
    ),
    row(
        Id::Departures,
        "departures",
        MetricKind::Counter,
        Unit::None,
        &[Label {
            name: "outcome",
            values: &["stays", "pending", "leaving", "deleted_at_cut_off", "gone", "abandoned"],
        }],
        "Pods of evacuations, by what became of them",
    ),
    row(
        Id::States,
        "states",
        MetricKind::Counter,
        Unit::None,
        &[Label { name: "outcome", values: &["none", "pending", "saved", "partial", "earlier", "lost"] }],
        "Pods of departures, by what became of their state",
    ),
    row(
        Id::SaveSeconds,
        "save",
        MetricKind::Histogram,
        Unit::Seconds,
        &[OUTCOME],
        "Time to bring a flushed state into the store",
    ),
    row(
        Id::CommitSeconds,
        "commit",
        MetricKind::Histogram,
        Unit::Seconds,
        &[OUTCOME],
        "Time to write a manifest and its generation",
    ),
    row(
        Id::SavedBytes,
        "state_saved",
        MetricKind::Counter,
        Unit::Bytes,
        &[],
        "State held by checkpoints that were saved",
    ),
    row(
        Id::SentBytes,
        "state_sent",
        MetricKind::Counter,
        Unit::Bytes,
        &[],
        "Bytes sent to the store for them",
    ),
    row(
        Id::FetchedBytes,
        "state_fetched",
        MetricKind::Counter,
        Unit::Bytes,
        &[Label { name: "when", values: &["announced", "committed"] }],
        "Bytes of state that came from the store: while a checkpoint was still announced, and after its commit",
    ),
    row(
        Id::RestoredBytes,
        "state_restored",
        MetricKind::Counter,
        Unit::Bytes,
        &[],
        "State put back into engines",
    ),
    row(
        Id::Restores,
        "restores",
        MetricKind::Counter,
        Unit::None,
        &[Label {
            name: "reason",
            values: &[
                "Restored",
                "RestoredUnverified",
                "NothingToRestore",
                "Refused",
                "Corrupt",
                "TimedOut",
                "Fenced",
                "Failed",
                "HadState",
            ],
        }],
        "Restores decided, by the reason of the pod's condition lifeboat.dev/restored",
    ),
    row(
        Id::RestoreSeconds,
        "restore",
        MetricKind::Histogram,
        Unit::Seconds,
        &[],
        "From the first sight of a pod to its decided restore",
    ),
    row(
        Id::Tokens,
        "tokens",
        MetricKind::Counter,
        Unit::None,
        &[Label { name: "stage", values: &["saved", "restored", "verified", "found"] }],
        "Tokens in committed checkpoints, taken by engines, shown to be used by them, and found in their cache by the first \
         request of each restored conversation",
    ),
    row(
        Id::Link,
        "link_bytes_per_second",
        MetricKind::Gauge,
        Unit::None,
        &[],
        "The uplink to the store as last measured",
    ),
    row(
        Id::Headroom,
        "headroom",
        MetricKind::Gauge,
        Unit::Seconds,
        &[],
        "Time to spare if a notice came now: negative on a node that would not make it; NaN with nothing to save",
    ),
    row(
        Id::PlanState,
        "plan_state",
        MetricKind::Gauge,
        Unit::Bytes,
        &[Label { name: "fate", values: &["safe", "at_risk", "unknown"] }],
        "State by what would become of it if a notice came now, as `lifeboat plan` says it: whole in the store by its \
         cut-off or not, or a link that was never measured; state that nobody has looked at is not in it",
    ),
    row(
        Id::Read,
        "state_read_bytes_per_second",
        MetricKind::Gauge,
        Unit::None,
        &[],
        "How fast the last state was read from its volume: the disk, or the page cache",
    ),
    row(
        Id::Pods,
        "pods",
        MetricKind::Gauge,
        Unit::None,
        &[Label { name: "kind", values: &["stateful", "stateless"] }],
        "Pods of this node; stateful are those that opted in with valid annotations",
    ),
    row(
        Id::AnnotationErrors,
        "annotation_errors",
        MetricKind::Counter,
        Unit::None,
        &[],
        "Annotations that could not be followed, each counted once for each pod and value",
    ),
    row(
        Id::EngineErrors,
        "engine_errors",
        MetricKind::Counter,
        Unit::None,
        &[
            Label { name: "engine", values: &["http", "llama-server", "files"] },
            Label {
                name: "kind",
                values: &["refused", "throttled", "transient", "permanent", "not_found", "mismatch"],
            },
        ],
        "Calls to engines that failed",
    ),
    row(
        Id::Effects,
        "effects",
        MetricKind::Counter,
        Unit::None,
        &[ACTION, OUTCOME],
        "Effects that were answered",
    ),
    row(
        Id::EffectSeconds,
        "effect",
        MetricKind::Histogram,
        Unit::Seconds,
        &[ACTION],
        "Time from an effect's start to its answer",
    ),
    row(
        Id::LateAnswers,
        "late_answers",
        MetricKind::Counter,
        Unit::None,
        &[],
        "Answers that came after their effect had been answered",
    ),
    row(
        Id::Anomalies,
        "anomalies",
        MetricKind::Counter,
        Unit::None,
        &[],
        "Things that should not happen and did; the log names them",
    ),
    row(
        Id::Events,
        "events",
        MetricKind::Counter,
        Unit::None,
        &[Label { name: "event", values: Event::NAMES }],
        "Events handed to the core",
    ),
    row(
        Id::KubeRequests,
        "kube_requests",
        MetricKind::Counter,
        Unit::None,
        &[VERB, CODE],
        "Requests to the API server, but for the watches",
    ),
    row(
        Id::KubeSeconds,
        "kube_request",
        MetricKind::Histogram,
        Unit::Seconds,
        &[VERB],
        "Time to the answer of the API server",
    ),
    row(
        Id::WatchRestarts,
        "watch_restarts",
        MetricKind::Counter,
        Unit::None,
        &[Label { name: "resource", values: &["nodes", "pods", "agents"] }],
        "Watches that failed and were started again",
    ),
    row(
        Id::StoreUsable,
        "store_usable",
        MetricKind::Gauge,
        Unit::None,
        &[],
        "1 once the store has proven what it must be able to do, 0 until then; not there without --store",
    ),
    row(
        Id::Claims,
        "claims",
        MetricKind::Info,
        Unit::None,
        &[
            Label { name: "place", values: &["store", "lease"] },
            Label { name: "reason", values: &["proven", "ignored", "asked"] },
        ],
        "Where it is decided who restores a state, and why there: the store has proven that it decides conditional \
         writes, or it ignores them, or `--claims` says so",
    ),
    row(
        Id::FleetLeader,
        "fleet_leader",
        MetricKind::Gauge,
        Unit::None,
        &[],
        "1 on the replica of the fleet role that acts, 0 on the others; no agent has it",
    ),
    row(
        Id::FleetWaiting,
        "fleet_pods_without_agent",
        MetricKind::Gauge,
        Unit::None,
        &[],
        "Pods whose readiness gate is closed on a node where no agent is ready, as the acting replica of the fleet role sees them",
    ),
    row(
        Id::FleetGatesOpened,
        "fleet_gates_opened",
        MetricKind::Counter,
        Unit::None,
        &[],
        "Readiness gates that the fleet role opened, since no agent was there to do it",
    ),
    row(
        Id::FleetReports,
        "fleet_reports",
        MetricKind::Counter,
        Unit::None,
        &[Label { name: "outcome", values: &["adopted", "drill", "unreadable"] }],
        "Reports in the store that the fleet role has taken in, each once: of evacuations, which are in the next metrics; \
         of rehearsals, which are in no other; and what cannot be read, which its log names",
    ),
    row(
        Id::FleetReportsWaiting,
        "fleet_reports_waiting",
        MetricKind::Gauge,
        Unit::None,
        &[],
        "Reports that are not taken in yet, as the acting replica last saw it: they may still be written to, or the \
         store fails",
    ),
    row(
        Id::FleetRounds,
        "fleet_adoptions",
        MetricKind::Counter,
        Unit::None,
        &[Label { name: "outcome", values: &["done", "failed"] }],
        "Times the acting replica looked for reports; failed if the store did not answer as it should",
    ),
    row(
        Id::FleetEvacuations,
        "fleet_evacuations",
        MetricKind::Counter,
        Unit::None,
        &[
            Label { name: "kind", values: &["terminate", "stop", "hibernate", "rebalance", "maintenance"] },
            Label { name: "outcome", values: &["complete", "late", "incomplete", "withdrawn"] },
        ],
        "Evacuations by their reports, which outlive their nodes: complete by the deadline, complete after it, not \
         complete, or of a notice that was withdrawn",
    ),
    row(
        Id::FleetEvacuationSeconds,
        "fleet_evacuation",
        MetricKind::Histogram,
        Unit::Seconds,
        &[],
        "By the reports: from the first sight of a notice to the last report of its evacuation",
    ),
    row(
        Id::FleetNoticeToCordon,
        "fleet_notice_to_cordon",
        MetricKind::Histogram,
        Unit::Seconds,
        &[],
        "By the reports: from the first sight of a notice to the acknowledged cordon",
    ),
    row(
        Id::FleetNoticeToCommit,
        "fleet_notice_to_commit",
        MetricKind::Histogram,
        Unit::Seconds,
        &[],
        "By the reports: from the first sight of a notice to the commit of a pod's state",
    ),
    row(
        Id::FleetNoticeToGone,
        "fleet_notice_to_gone",
        MetricKind::Histogram,
        Unit::Seconds,
        &[],
        "By the reports: from the first sight of a notice to the end of a pod",
    ),
    row(
        Id::FleetDepartures,
        "fleet_departures",
        MetricKind::Counter,
        Unit::None,
        &[Label {
            name: "outcome",
            values: &["stays", "pending", "leaving", "deleted_at_cut_off", "gone", "abandoned"],
        }],
        "Pods of the reports, by what became of them",
    ),
    row(
        Id::FleetStates,
        "fleet_states",
        MetricKind::Counter,
        Unit::None,
        &[Label { name: "outcome", values: &["none", "pending", "saved", "partial", "earlier", "lost"] }],
        "Pods of the reports, by what became of their state",
    ),
    row(
        Id::FleetStateBytes,
        "fleet_state",
        MetricKind::Counter,
        Unit::Bytes,
        &[Label { name: "outcome", values: &["saved", "partial", "earlier"] }],
        "State that the reports say is in the store; of lost state no report knows the size",
    ),
    row(
        Id::FleetSentBytes,
        "fleet_state_sent",
        MetricKind::Counter,
        Unit::Bytes,
        &[],
        "Bytes sent under a notice, by the reports",
    ),
    row(
        Id::FleetRefusals,
        "fleet_evictions_refused",
        MetricKind::Counter,
        Unit::None,
        &[],
        "Evictions that a PodDisruptionBudget refused, by the reports",
    ),
    row(
        Id::FleetNodesGone,
        "fleet_spot_nodes_gone",
        MetricKind::Counter,
        Unit::None,
        &[Label { name: "how", values: &["with_report", "without_report", "without_notice"] }],
        "Spot nodes with an agent that were taken away: a report is in the store; their agent had seen a notice and none \
         is; or nobody had said anything (gone without notice). Nodes that somebody meant to go are not counted",
    ),
    row(
        Id::FleetNodesMissing,
        "fleet_spot_nodes_missing",
        MetricKind::Gauge,
        Unit::None,
        &[],
        "Spot nodes with an agent that are under a notice, or fell silent, or are gone and not counted yet, as the acting \
         replica sees them",
    ),
    row(
        Id::FleetGarbagePasses,
        "fleet_garbage_passes",
        MetricKind::Counter,
        Unit::None,
        &[Label { name: "outcome", values: &["done", "failed"] }],
        "Passes of garbage collection over the cluster's part of the store; failed if any workload's ended early",
    ),
    row(
        Id::FleetGarbageSeconds,
        "fleet_garbage_pass",
        MetricKind::Histogram,
        Unit::Seconds,
        &[],
        "Time that a pass of garbage collection took",
    ),
    row(
        Id::FleetGarbageFreed,
        "fleet_garbage_freed",
        MetricKind::Counter,
        Unit::Bytes,
        &[],
        "Bytes that garbage collection removed from the store",
    ),
    row(
        Id::FleetGarbageKept,
        "fleet_garbage_kept",
        MetricKind::Gauge,
        Unit::Bytes,
        &[],
        "Bytes of packs and manifests that kept generations name, by the last pass of garbage collection",
    ),
    row(
        Id::Build,
        "build",
        MetricKind::Info,
        Unit::None,
        &[Label { name: "version", values: &[env!("CARGO_PKG_VERSION")] }],
        "This build of lifeboat",
    ),
];
