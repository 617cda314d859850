//! The place of a transfer among those of its class, which may change while it is under way.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A rank: the lowest goes first. Clones are the same rank: who keeps one can move the transfer that was given another.
#[derive(Debug, Clone, Default)]
pub struct Rank(Arc<AtomicU64>);

impl Rank {
    /// Moves the transfer. It counts from the next pack on.
    pub fn set(&self, rank: u64) {
        self.0.store(rank, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl From<u64> for Rank {
    fn from(rank: u64) -> Self {
        Self(Arc::new(AtomicU64::new(rank)))
    }
}
