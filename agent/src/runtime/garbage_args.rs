//! What garbage collection leaves in the store: the same flags for `lifeboat checkpoints gc` and for the fleet role.

use super::values::time;
use checkpoint::garbage::{Policy, PolicyError};
use clap::Args;
use std::time::Duration;

/// What stays.
#[derive(Args, Clone, Debug)]
pub struct GarbageArgs {
    /// Generations kept per lineage
    #[arg(
        long,
        env = "LIFEBOAT_GARBAGE_KEEP",
        value_name = "K",
        default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..),
        help_heading = "Garbage"
    )]
    keep: u16,
    /// How long a lineage that nobody took stays after its last write
    #[arg(long, env = "LIFEBOAT_GARBAGE_RETENTION", value_name = "TIME", default_value = "7d", value_parser = time, help_heading = "Garbage")]
    retention: Duration,
    /// The same for a lineage that was restored, that another one continues, or that has no generation
    #[arg(long, env = "LIFEBOAT_GARBAGE_RESTORED", value_name = "TIME", default_value = "1d", value_parser = time, help_heading = "Garbage")]
    restored: Duration,
    /// How long what nothing names stays marked before it is removed: the longest evacuation, at least 10m
    #[arg(long, env = "LIFEBOAT_GARBAGE_GRACE", value_name = "TIME", default_value = "10m", value_parser = time, help_heading = "Garbage")]
    grace: Duration,
}

impl GarbageArgs {
    /// What the flags say.
    ///
    /// # Errors
    /// Something could be lost under it.
    pub(crate) fn policy(&self) -> Result<Policy, PolicyError> {
        let Self { keep, retention, restored, grace } = *self;
        let policy = Policy { keep: keep.into(), retention, restored, grace, ..Policy::default() };
        policy.check()?;
        Ok(policy)
    }
}
