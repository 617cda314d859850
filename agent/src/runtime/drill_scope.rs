//! How much of an evacuation a drill rehearses.

use serde::{Deserialize, Serialize};

/// What may be rehearsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillScope {
    /// Every engine is flushed and saved while it serves; nothing is evicted, the node is not touched.
    Save,
    /// The whole evacuation: cordon, save, evict; the node is given back afterwards.
    Full,
}
