//! The names by which lifeboat is known in a cluster: annotations, conditions and taints.
//!
//! Decides nothing: words only. Users, policies and objects that outlive an agent hold them, so none of them changes.

/// What every annotation of ours begins with.
pub const PREFIX: &str = "lifeboat.dev/";

/// The node's annotation that carries the mark as JSON.
pub const EVACUATION_ANNOTATION: &str = "lifeboat.dev/evacuation";

/// The node's annotation that lists the ids of the scheduled events that are over, as a JSON array: the node was emptied
/// for each of them before its instance began to run again, and IMDS may show them for a while.
pub const OVER_ANNOTATION: &str = "lifeboat.dev/over";

/// The node's annotation that asks for a drill.
pub const DRILL_ANNOTATION: &str = "lifeboat.dev/drill";

/// Key of the node's hard taint, effect NoSchedule: DaemonSets do not bring their pods back while it stands, which a
/// cordon alone does not achieve.
pub const INTERRUPTION_TAINT: &str = "lifeboat.dev/interruption";

/// Key of the node's soft taint, effect PreferNoSchedule.
pub const REBALANCE_TAINT: &str = "lifeboat.dev/rebalance";

/// The readiness gate of a pod that waits for its restore, and the record of how that ended.
pub const RESTORED_CONDITION: &str = "lifeboat.dev/restored";

/// A Lease's annotation that holds the claim on a lineage.
pub const CLAIM_ANNOTATION: &str = "lifeboat.dev/claim";

/// A Lease's annotation that names the lineage: the claim's key in a store.
pub const LINEAGE_ANNOTATION: &str = "lifeboat.dev/lineage";
