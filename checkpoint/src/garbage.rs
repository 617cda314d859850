//! Garbage collection: what no kept generation names goes, and nothing else.
//!
//! ```text
//!   look   ── clock, tombstones, packs, manifests, lineages: documents read, nothing written ──►  Inventory
//!   plan   ── pure: what stays, what goes, what waits, each with its reason ─────────────────────►  Plan  (the dry run ends here)
//!   sweep  ── withdraw ─► lineages, generations ─► mark ─► remove ─► bury ───────────────────────►  Collected
//! ```
//!
//! A pass never sleeps. What it marks, a later pass removes when the store's clock says that the grace is over:
//!
//! 1. Generations beyond the last K of their lineage go, and lineages that were restored, superseded or forgotten. They go
//!    by name and version: a generation is written once, with a nonce, so nothing else can be meant. A whole lineage is
//!    claimed first, like for a restore, so that nobody restores what is vanishing; oldest generations go first, so
//!    that what a dead collector leaves behind is a shorter lineage and no broken one.
//! 2. A pack or manifest that nothing names gets a [`tombstone`].
//! 3. After the grace a pass looks again. If something names it now, the tombstone is withdrawn; else the tombstone is
//!    written anew (only if unchanged: of two collectors one goes on), then the object is removed.
//! 4. The tombstone stays for the burial: a removal that is still on its way somewhere must not meet a new object of that
//!    name. S3 refuses requests that were signed more than 15 minutes ago.
//!
//! Why a running save is safe: [`crate::reuse`]. Why two collectors are: every step compares a version that no other write
//! brings back, and what one removes the other finds removed. Why a crash is: generations go before what they name, and
//! what remains unnamed is found by the next pass.
//!
//! What cannot be read is no garbage: a generation or manifest that is unreadable keeps all packs of its workload until it
//! goes itself, and a lineage that a newer lifeboat wrote is left alone.

mod look;
mod plan;
mod sweep;

use std::time::Duration;

use tokio::time::Instant;

pub use self::plan::{Action, GarbageStep, Plan, Retention, Waiting};
pub use self::sweep::{Collected, SkippedStep};
#[cfg(doc)]
use crate::tombstone;
use crate::{
    key::Workload,
    reuse::GRACE_MIN,
    store::{Remover, Store, StoreError},
};

const DAY: Duration = Duration::from_secs(86_400);

/// How long a pass over one workload may take. It may end at any point; the next one goes on.
pub const PASS: Duration = Duration::from_secs(1_800);

/// What stays and for how long. All ages are told by the store's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Generations kept per lineage; the newest whole one in addition if all of these are partial.
    pub keep: usize,
    /// A lineage that nobody took goes so long after its last write.
    pub retention: Duration,
    /// One whose state was handed over, lives on in another lineage, or never came goes so long after its last write.
    pub restored: Duration,
    /// What is not named stays at least so long: unmarked while it is young, and marked before it is removed.
    pub grace: Duration,
    /// The name of what was removed stays out of use so long.
    pub burial: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            keep: 3,
            retention: 7 * DAY,
            restored: DAY,
            grace: GRACE_MIN,
            burial: Duration::from_secs(3600),
        }
    }
}

/// A policy under which something could be lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Nothing would be kept.
    #[error("keep must be at least 1: the newest generation always stays")]
    KeepsNothing,
    /// Shorter than saves rely on.
    #[error("the grace must be at least {} s: a save relies on it", GRACE_MIN.as_secs())]
    GraceTooShort,
    /// A save that is awaited would be forgotten.
    #[error("retention must not be shorter than the grace")]
    RetentionTooShort,
}

impl Policy {
    /// Whether running saves and restores are safe under it.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn check(&self) -> Result<(), PolicyError> {
        match self {
            Self { keep: 0, .. } => Err(PolicyError::KeepsNothing),
            Self { grace, .. } if *grace < GRACE_MIN => Err(PolicyError::GraceTooShort),
            Self { grace, retention, restored, .. } if retention.min(restored) < grace => {
                Err(PolicyError::RetentionTooShort)
            }
            _ => Ok(()),
        }
    }
}

/// What a pass over `workload` would do now. Needs the rights to read and list only.
///
/// # Errors
/// Store errors.
pub async fn preview(
    store: &Store,
    workload: &Workload,
    policy: &Policy,
    deadline: Instant,
) -> Result<Plan, StoreError> {
    let inventory = look::look(store, workload, deadline).await?;
    Ok(plan::plan(&inventory, policy))
}

/// One pass over `workload`. `collector` says who, for people. Repeat it at least every grace; it may end at any point.
///
/// # Errors
/// Store errors while looking. What fails later is in [`Collected::failed`], beside what was done.
pub async fn collect(
    store: &Remover,
    workload: &Workload,
    policy: &Policy,
    collector: &str,
    deadline: Instant,
) -> Result<Collected, StoreError> {
    let reader: Store = store.clone();
    let inventory = look::look(&reader, workload, deadline).await?;
    let plan = plan::plan(&inventory, policy);
    Ok(sweep::sweep(store.as_ref(), workload, &inventory, plan, policy, collector, deadline).await)
}

#[cfg(test)]
mod tests;
