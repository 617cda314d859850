//! One pod leaving: why, when each part of it must be done, its save and its eviction, side by side.
//!
//! Decides nothing: what makes the one ready for the other is in `pods.rs`. It must not know any pod.

use crate::moment::Moment;
use crate::pod_eviction::PodEviction;
use crate::pod_save::{PodSave, Times};

/// Why a pod leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The node leaves.
    Notice,
    /// Somebody deleted the pod: a rollout, Karpenter, a scale-down.
    Deleted,
}

/// One pod leaving.
#[derive(Clone, Debug)]
pub(crate) struct Departure {
    pub(crate) cause: Cause,
    pub(crate) times: Times,
    pub(crate) save: PodSave,
    pub(crate) eviction: PodEviction,
    pub(crate) began: Moment,
    /// What became of its state is told.
    pub(crate) announced: bool,
}
