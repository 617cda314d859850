//! What an init container (`lifeboat wait`) reads in its pod's volume: that a restore is under way, and how it ended.

use serde::{Deserialize, Serialize};

/// The agent of this node is at it.
pub(crate) const RESTORING: &str = ".lifeboat/restoring";
/// It is decided: [`RestoreDecision`].
pub(crate) const RESTORED: &str = ".lifeboat/restored";

/// How a restore ended, for whoever waits inside the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RestoreDecision {
    /// As the reason of the pod's condition.
    pub(crate) outcome: String,
    /// As its message.
    pub(crate) message: String,
}
