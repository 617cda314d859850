//! What an evacuation did, pod by pod: the one document that outlives the node.
//!
//! Decides nothing: words only. It must not know how it came to that.

use crate::moment::Moment;
use crate::notice::NoticeKind;
use serde::{Deserialize, Serialize};

/// The report of one evacuation. Moments are on the node's boot clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this document.
    pub format: u32,
    /// The node.
    pub node: String,
    /// The boot the moments belong to.
    pub boot: String,
    /// The notice's id.
    pub notice: String,
    /// Its kind.
    pub kind: NoticeKind,
    /// The notice's time had passed, or was nearer than the minimum window.
    pub short: bool,
    /// The notice was withdrawn in the meantime.
    pub withdrawn: bool,
    /// When the notice was first seen.
    pub noticed: Moment,
    /// The deadline.
    pub deadline: Moment,
    /// When the cordon was acknowledged.
    pub cordoned: Option<Moment>,
    /// When this was written.
    pub written: Moment,
    /// Everything that was to happen has happened.
    pub complete: bool,
    /// One entry for each pod, in the order of eviction.
    pub pods: Vec<PodReport>,
}

/// One pod of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodReport {
    /// Its uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: i32,
    /// What became of the pod.
    pub departure: DepartureOutcome,
    /// Why, where it is not the ordinary way.
    pub reason: Option<String>,
    /// What became of its state.
    pub state: StateOutcome,
    /// Why the state is not whole, or worth less than others.
    pub state_reason: Option<String>,
    /// The generation that holds it.
    pub generation: Option<String>,
    /// Bytes of state in that generation.
    pub bytes: u64,
    /// Bytes sent in the final round.
    pub sent: u64,
    /// Evictions a PodDisruptionBudget refused.
    pub refusals: u32,
    /// When the eviction was accepted.
    pub evicted: Option<Moment>,
    /// When its state was committed.
    pub committed: Option<Moment>,
    /// When it was gone.
    pub gone: Option<Moment>,
}

/// What became of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[derive(strum::VariantArray, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum DepartureOutcome {
    /// Was never to leave.
    Stays,
    /// Not decided yet.
    Pending,
    /// Evicted, still terminating.
    Leaving,
    /// Not evicted by its cut-off, and deleted with the grace that was left; still terminating.
    DeletedAtCutOff,
    /// Gone.
    Gone,
    /// Given up, with a reason.
    Abandoned,
}

impl DepartureOutcome {
    /// Every outcome, for coverage.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// A metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What became of a pod's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[derive(strum::VariantArray, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum StateOutcome {
    /// It has none, or is shed.
    None,
    /// Not decided yet.
    Pending,
    /// Committed whole.
    Saved,
    /// Committed in part.
    Partial,
    /// Committed, whole or in part, and nothing shows with which weights it was made: no engine is given it.
    SavedWithoutEvidence,
    /// Only an earlier generation is in the store.
    Earlier,
    /// Nothing of it is in the store.
    Lost,
}

impl StateOutcome {
    /// Every outcome, for coverage.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// A metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
