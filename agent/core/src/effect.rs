//! Everything the core may ask for. Each effect is idempotent (a restart may repeat it), carries a
//! deadline, and is answered exactly once.
//!
//! Decides nothing: words only. It must not know how any of it is done.

use crate::moment::{Moment, Span};
use crate::notice::ActiveNotice;
use crate::pod::PodUid;
use crate::report::Report;
use serde::{Deserialize, Serialize};

/// Names one effect within one life of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EffectId(pub u64);

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Its id: the answer carries it.
    pub id: EffectId,
    /// When the shell must have answered, with `TimedOut` if nothing else.
    pub deadline: Moment,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// What to do.
    pub action: Action,
}

/// Ranks of saves from here on are of what does not fit: behind all that does, in the same order.
pub const FIRST_DROPPED_RANK: u64 = 1 << 32;

/// Whether the engine goes on serving after the flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlushKind {
    /// While it serves: idle state only, nothing is cut.
    PreCopy,
    /// The last one: what is running is cut.
    Final,
}

/// What the hold file of a pod says: the file `.lifeboat/hold` in its state volume, which its preStop reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// The pod should not end before this moment.
    Until(Moment),
    /// The pod may end.
    Released,
}

/// How a restore ended: the reason of the condition `lifeboat.dev/restored`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
pub enum RestoreOutcome {
    /// The state is in the engine, and the engine showed that it uses it.
    Restored,
    /// The engine took the state; it could not be shown that it uses it.
    RestoredUnverified,
    /// No lineage of this workload could be taken.
    NothingToRestore,
    /// The state does not fit this engine: the message names the first difference.
    Refused,
    /// Nothing that was saved could be read whole.
    Corrupt,
    /// It took too long.
    TimedOut,
    /// The store did not answer at all: nobody knows whether there was something to restore.
    StoreUnreachable,
    /// The claim was lost to another pod.
    Fenced,
    /// The store or the engine failed.
    Failed,
    /// The engine already had state of its own.
    HadState,
}

impl RestoreOutcome {
    /// Every outcome, for coverage.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The condition's reason and the metric's label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A Kubernetes Event, about the node or the pod of the action that carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeEvent {
    /// `reason`: a word in CamelCase.
    pub reason: String,
    /// `note`: one sentence for people.
    pub note: String,
    /// `type: Warning` instead of `Normal`.
    pub warning: bool,
}

impl KubeEvent {
    /// Nothing is wrong.
    pub fn normal(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self { reason: reason.into(), note: note.into(), warning: false }
    }

    /// Somebody should look at it.
    pub fn warning(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self { reason: reason.into(), note: note.into(), warning: true }
    }
}

/// What to do, by what it is about: the executor needs nothing else to find who does it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Something about the own node.
    Node(NodeAction),
    /// Something about a pod that serves or leaves.
    Pod {
        /// The pod.
        uid: PodUid,
        /// What.
        action: PodAction,
    },
    /// Something about a pod whose engine is to get state back: from the store, or from its own volume.
    Restore {
        /// The pod.
        uid: PodUid,
        /// What.
        action: RestoreAction,
    },
    /// Ends the work of an effect; it is still answered.
    Cancel {
        /// Which.
        effect: EffectId,
    },
    /// Something that should not happen did: log and count it.
    Anomaly {
        /// What, in one sentence.
        what: String,
    },
}

/// What to do about the own node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[derive(strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum NodeAction {
    /// One PATCH of the own node: annotation and taint; for a hard notice also unschedulable.
    MarkNode(ActiveNotice),
    /// Takes back our taints, our annotation and, where we cordoned, the cordon.
    ClearNodeMark {
        /// Make the node schedulable again.
        uncordon: bool,
        /// The ids of the scheduled events that are over, and that IMDS may show for a while: they are noted for later lives.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        over: Vec<String>,
    },
    /// The report goes to the store, the journal and a Node Event.
    WriteReport(Box<Report>),
    /// A Kubernetes Event about the node.
    Publish(KubeEvent),
}

/// What to do about a pod that serves or leaves.
#[allow(missing_docs, reason = "each variant's line names its fields")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[derive(strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum PodAction {
    /// Writes the hold file of the pod.
    SetHold { hold: Hold },
    /// Asks the engine what it is and has (its fingerprint is made ready before it is needed).
    InspectEngine,
    /// Writes the intent: a checkpoint is coming, by `by`, in this departure (the notice's id, or
    /// `deleted`).
    WriteIntent { departure: String, by: Moment },
    /// Takes the intent back: nothing will come.
    AbandonIntent { why: String },
    /// The engine admits nothing new.
    Quiesce,
    /// The engine serves again.
    Resume,
    /// The engine writes its state to its volume.
    Flush { kind: FlushKind },
    /// The engine shows its weights, which it had no time for before, in a part of it whose content was just flushed.
    ProbeEngine,
    /// What was flushed goes to the store, before everything of a higher `rank`.
    Save { kind: FlushKind, rank: u64 },
    /// The save of the pod that is under way goes on under another `rank`.
    Reprioritise { rank: u64 },
    /// The manifest and its generation are written: from here on the state can be found. Files on packs that are being
    /// removed as garbage are an [`FailureKind::Endangered`](crate::event::FailureKind::Endangered) failure, or left out
    /// of it with `without_endangered`.
    Commit { kind: FlushKind, partial: bool, without_endangered: bool },
    /// Evicts with a uid precondition and this grace.
    Evict { grace: Span },
    /// Sets the condition DisruptionTarget, so that a Job does not count what follows as a failure.
    MarkDisrupted,
    /// Deletes with a uid precondition and this grace: the last resort.
    DeletePod { grace: Span },
    /// A Kubernetes Event about the pod.
    Publish(KubeEvent),
}

/// What to do about a pod whose engine is to get state back.
#[allow(missing_docs, reason = "each variant's line names its fields")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[derive(strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum RestoreAction {
    /// Looks for lineages of this pod's workload.
    FindLineage,
    /// Claims a lineage for this pod.
    Claim { lineage: String },
    /// Renews the claim.
    RenewClaim { lineage: String },
    /// While an announced checkpoint is waited for: fetches the generation before it, of which most will be in it again.
    Prefetch { lineage: String, generation: String },
    /// Fetches and verifies a generation into the pod's volume, apart from the engine's files.
    Fetch { lineage: String, generation: String },
    /// Waits for the engine to answer, and compares its fingerprint with the fetched one.
    CheckFingerprint,
    /// Moves the files into place and has the engine take them.
    ImportState,
    /// Has the engine show that it uses what it took.
    Verify,
    /// The claim is done: nobody else may restore this lineage.
    FinishClaim { lineage: String },
    /// The claim is given back: its state was given to no engine, and another pod may have it at once.
    GiveBackClaim { lineage: String },
    /// What the engine showed of the state is noted for whoever saves one like it: whether it uses it, and else why not.
    RecordVerdict { not_used: Option<String> },
    /// The engine was restarted in its pod: reads what its own last flush left in the pod's volume.
    ReloadLocal,
    /// Sets the condition `lifeboat.dev/restored`.
    OpenGate { outcome: RestoreOutcome, message: String },
}

/// The names of actions that are about nothing.
const OTHER_NAMES: [&str; 2] = ["cancel", "anomaly"];

impl Action {
    /// Every name that [`Action::name`] gives, each once: for metric labels, coverage and fault plans.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let of_pods = <PodAction as strum::VariantNames>::VARIANTS;
        <NodeAction as strum::VariantNames>::VARIANTS
            .iter()
            // Events are published about both.
            .filter(|name| !of_pods.contains(name))
            .chain(of_pods)
            .chain(<RestoreAction as strum::VariantNames>::VARIANTS)
            .chain(&OTHER_NAMES)
            .copied()
    }

    /// The action's name, for spans, metrics and coverage.
    pub fn name(&self) -> &'static str {
        let [cancel, anomaly] = OTHER_NAMES;
        match self {
            Action::Node(action) => action.into(),
            Action::Pod { action, .. } => action.into(),
            Action::Restore { action, .. } => action.into(),
            Action::Cancel { .. } => cancel,
            Action::Anomaly { .. } => anomaly,
        }
    }

    /// The Kubernetes Event that it publishes.
    pub const fn event(&self) -> Option<&KubeEvent> {
        match self {
            Action::Node(NodeAction::Publish(event))
            | Action::Pod { action: PodAction::Publish(event), .. } => Some(event),
            Action::Node(_) | Action::Pod { .. } | Action::Restore { .. } => None,
            Action::Cancel { .. } | Action::Anomaly { .. } => None,
        }
    }

    /// The pod it is about.
    pub const fn pod(&self) -> Option<&PodUid> {
        match self {
            Action::Pod { uid, .. } | Action::Restore { uid, .. } => Some(uid),
            Action::Node(_) | Action::Cancel { .. } | Action::Anomaly { .. } => None,
        }
    }
}
