//! What a save has done so far, for whoever watches it.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::hash::ContentHash;

/// Counters of one save; all in bytes unless they say otherwise.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    read: AtomicU64,
    reused: AtomicU64,
    sent: AtomicU64,
    packs: Mutex<Vec<ContentHash>>,
}

impl Progress {
    /// Bytes in all files.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Bytes read and hashed.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Bytes that were found in the store or in this save already.
    #[must_use]
    pub fn bytes_reused(&self) -> u64 {
        self.reused.load(Relaxed)
    }

    /// Bytes that the store has acknowledged in this save.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// The packs that are in the store, in the order of their acknowledgement: for the intent.
    #[must_use]
    pub fn acknowledged_packs(&self) -> Vec<ContentHash> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn begin(&self, total: u64) {
        self.total.fetch_add(total, Relaxed);
    }

    pub(super) fn block(&self, bytes: u64, reused: bool) {
        self.read.fetch_add(bytes, Relaxed);
        if reused {
            self.reused.fetch_add(bytes, Relaxed);
        }
    }

    pub(super) fn pack(&self, hash: ContentHash, sent: u64) {
        self.sent.fetch_add(sent, Relaxed);
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).push(hash);
    }
}
