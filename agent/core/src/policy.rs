//! Every figure and choice the core works with. The shell fills it from validated flags.
//!
//! Decides nothing. It must not know what the figures are used for.

use crate::moment::Span;
use serde::{Deserialize, Serialize};

/// Which tier is evicted first (`--evict-order`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvictOrder {
    /// A replacement is requested the moment its pod is evicted, and time is scarce.
    #[default]
    HighestFirst,
    /// The kubelet's graceful-shutdown order: a tier waits for the lower one, up to its share.
    LowestFirst,
}

/// What a rebalance recommendation does (`--rebalance`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RebalancePolicy {
    /// Nothing.
    Off,
    /// Soft taint and pre-copy; no eviction.
    #[default]
    Precopy,
    /// Evacuate as for an interruption, within the rebalance window.
    Drain,
}

/// How far a PodDisruptionBudget is respected (`--respect-pdb`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RespectPdb {
    /// Until the pod's last safe second. EC2 does not respect PDBs.
    #[default]
    UntilDeadline,
    /// Always: a refused pod dies with the node.
    Always,
}

/// The core's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Kept between the end of everything and the time in the notice.
    pub margin: Span,
    /// The window given to a notice whose time has passed or is too near.
    pub minimum_window: Span,
    /// The window of an evacuation that has no time of its own (`--rebalance drain`).
    pub drain_window: Span,
    /// The grace a pod needs after its state is safe.
    pub grace_after_save: Span,
    /// Kept at the end of a save for its commit.
    pub commit_reserve: Span,
    /// How long before the deadline a StatefulSet's pod must be gone.
    pub named_lead: Span,
    /// How long before the deadline late DaemonSets leave.
    pub late_lead: Span,
    /// How long before the deadline the report is written, whatever happened.
    pub report_lead: Span,
    /// How long an intent is waited for before the eviction goes on without it.
    pub intent_timeout: Span,
    /// The longest gap between two attempts at a refused eviction.
    pub eviction_retry: Span,
    /// Evictions in flight at once.
    pub eviction_slots: usize,
    /// Engines flushing at once.
    pub flush_slots: usize,
    /// For so long a flush takes one of the slots, and is waited for by those of lower PriorityClass values, which share
    /// the disk with it (but for no more than a sixth of what they have left until their cut-off).
    pub flush_turn: Span,
    /// Order of eviction.
    pub evict_order: EvictOrder,
    /// Pods of a lower priority than this are shed.
    pub shed_below: i32,
    /// PodDisruptionBudgets.
    pub respect_pdb: RespectPdb,
    /// Rebalance recommendations.
    pub rebalance: RebalancePolicy,
    /// How long a rebalance, a withdrawn notice or a pre-copy lasts before it is undone.
    pub undo_after: Span,
    /// Between two pre-copies of one pod under a rebalance.
    pub precopy_interval: Span,
    /// The most that pre-copies take of the link over time, percent: a pod's next round waits until the last one has been
    /// no more than this.
    pub precopy_share: u64,
    /// How far ahead a living agent keeps the hold of a pod that has something to lose.
    pub hold_ahead: Span,
    /// How often it moves it.
    pub hold_every: Span,
    /// The longest a replacement's gate stays closed.
    pub restore_timeout: Span,
    /// How long a replacement whose looks nobody answers keeps its gate closed. A store that has answered nobody for so
    /// long is taken for away.
    pub find_timeout: Span,
    /// The same where the store is known to be away.
    pub find_timeout_known_away: Span,
    /// How long a replacement keeps its gate closed that is answered "later", and finds nothing that it may take.
    pub find_patience: Span,
    /// How long a replacement that has its claim waits while nothing of its state comes.
    pub restore_stall: Span,
    /// After how long a replacement that found nothing looks once more.
    pub second_look: Span,
    /// How often a replacement looks whether the announced checkpoint has come.
    pub intent_poll: Span,
    /// How often a claim is renewed.
    pub claim_renewal: Span,
    /// The longest any single call to the API server may take.
    pub call_timeout: Span,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            margin: Span::from_secs(5),
            minimum_window: Span::from_secs(30),
            drain_window: Span::from_secs(120),
            grace_after_save: Span::from_secs(15),
            commit_reserve: Span::from_secs(2),
            named_lead: Span::from_secs(15),
            late_lead: Span::from_secs(10),
            report_lead: Span::from_millis(1500),
            intent_timeout: Span::from_secs(1),
            eviction_retry: Span::from_secs(1),
            eviction_slots: 8,
            flush_slots: 4,
            flush_turn: Span::from_secs(5),
            evict_order: EvictOrder::default(),
            shed_below: 0,
            respect_pdb: RespectPdb::default(),
            rebalance: RebalancePolicy::default(),
            undo_after: Span::from_secs(30 * 60),
            precopy_interval: Span::from_secs(30),
            precopy_share: 10,
            hold_ahead: Span::from_secs(5),
            hold_every: Span::from_secs(1),
            restore_timeout: Span::from_secs(900),
            find_timeout: Span::from_secs(30),
            find_timeout_known_away: Span::from_secs(5),
            find_patience: Span::from_secs(120),
            restore_stall: Span::from_secs(60),
            second_look: Span::from_secs(2),
            intent_poll: Span::from_millis(500),
            claim_renewal: Span::from_secs(10),
            call_timeout: Span::from_secs(3),
        }
    }
}
