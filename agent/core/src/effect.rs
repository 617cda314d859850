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

/// What a Kubernetes Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// This node.
    Node,
    /// One of its pods.
    Pod(PodUid),
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

/// What to do.
#[allow(missing_docs, reason = "each variant's line names its fields; `pod` is always the pod it is about")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[derive(strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// One PATCH of the own node: annotation and taint; for a hard notice also unschedulable.
    MarkNode(ActiveNotice),
    /// Takes back our taints, our annotation and, where we cordoned, the cordon.
    ClearNodeMark {
        /// Make the node schedulable again.
        uncordon: bool,
    },
    /// Writes the hold file of a pod.
    SetHold { pod: PodUid, hold: Hold },
    /// Asks the engine what it is and has (its fingerprint is made ready before it is needed).
    InspectEngine { pod: PodUid },
    /// Writes the intent: a checkpoint is coming, by `by`, in this departure (the notice's id, or
    /// `deleted`).
    WriteIntent { pod: PodUid, departure: String, by: Moment },
    /// Takes the intent back: nothing will come.
    AbandonIntent { pod: PodUid, why: String },
    /// The engine admits nothing new; with `cut`, what runs is ended.
    Quiesce { pod: PodUid },
    /// The engine serves again.
    Resume { pod: PodUid },
    /// The engine writes its state to its volume.
    Flush { pod: PodUid, kind: FlushKind },
    /// What was flushed goes to the store, before everything of a higher `rank`.
    Save { pod: PodUid, kind: FlushKind, rank: u64 },
    /// The save of a pod that is under way goes on under another `rank`.
    Reprioritise { pod: PodUid, rank: u64 },
    /// The manifest and its generation are written: from here on the state can be found.
    Commit { pod: PodUid, kind: FlushKind, partial: bool },
    /// Evicts with a uid precondition and this grace.
    Evict { pod: PodUid, grace: Span },
    /// Sets the condition DisruptionTarget, so that a Job does not count what follows as a failure.
    MarkDisrupted { pod: PodUid },
    /// Deletes with a uid precondition and this grace: the last resort.
    DeletePod { pod: PodUid, grace: Span },
    /// The report goes to the store, the journal and a Node Event.
    WriteReport(Box<Report>),
    /// A Kubernetes Event.
    Publish { about: Subject, reason: String, note: String, warning: bool },

    /// Looks for lineages of this pod's workload.
    FindLineage { pod: PodUid },
    /// Claims a lineage for this pod.
    Claim { pod: PodUid, lineage: String },
    /// Renews the claim.
    RenewClaim { pod: PodUid, lineage: String },
    /// While an announced checkpoint is waited for: fetches the generation before it, of which most will be in it again.
    Prefetch { pod: PodUid, lineage: String, generation: String },
    /// Fetches and verifies a generation into the pod's volume, apart from the engine's files.
    Fetch { pod: PodUid, lineage: String, generation: String },
    /// Waits for the engine to answer, and compares its fingerprint with the fetched one.
    CheckFingerprint { pod: PodUid },
    /// Moves the files into place and has the engine take them.
    ImportState { pod: PodUid },
    /// Has the engine show that it uses what it took.
    Verify { pod: PodUid },
    /// The claim is done: nobody else may restore this lineage.
    FinishClaim { pod: PodUid, lineage: String },
    /// The engine was restarted in its pod: reads what its own last flush left in the pod's volume.
    ReloadLocal { pod: PodUid },
    /// Sets the condition `lifeboat.dev/restored`.
    OpenGate { pod: PodUid, outcome: RestoreOutcome, message: String },

    /// Ends the work of an effect; it is still answered.
    Cancel { effect: EffectId },
    /// Something that should not happen did: log and count it.
    Anomaly { what: String },
}

impl Action {
    /// Every name that [`Action::name`] gives: for metric labels, coverage and fault plans.
    pub const NAMES: &'static [&'static str] = <Self as strum::VariantNames>::VARIANTS;

    /// The action's name, for spans, metrics and coverage.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// The pod it is about.
    pub const fn pod(&self) -> Option<&PodUid> {
        match self {
            Action::SetHold { pod, .. }
            | Action::InspectEngine { pod }
            | Action::WriteIntent { pod, .. }
            | Action::AbandonIntent { pod, .. }
            | Action::Quiesce { pod }
            | Action::Resume { pod }
            | Action::Flush { pod, .. }
            | Action::Save { pod, .. }
            | Action::Reprioritise { pod, .. }
            | Action::Commit { pod, .. }
            | Action::Evict { pod, .. }
            | Action::MarkDisrupted { pod }
            | Action::DeletePod { pod, .. }
            | Action::FindLineage { pod }
            | Action::Claim { pod, .. }
            | Action::RenewClaim { pod, .. }
            | Action::Prefetch { pod, .. }
            | Action::Fetch { pod, .. }
            | Action::CheckFingerprint { pod }
            | Action::ImportState { pod }
            | Action::Verify { pod }
            | Action::FinishClaim { pod, .. }
            | Action::ReloadLocal { pod }
            | Action::OpenGate { pod, .. }
            | Action::Publish { about: Subject::Pod(pod), .. } => Some(pod),
            Action::MarkNode(_)
            | Action::ClearNodeMark { .. }
            | Action::WriteReport(_)
            | Action::Publish { about: Subject::Node, .. }
            | Action::Cancel { .. }
            | Action::Anomaly { .. } => None,
        }
    }
}
