//! What a save has done so far, for whoever watches it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::hash::ContentHash;

/// Counters of one save; all in bytes unless they say otherwise.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    read: AtomicU64,
    reused: AtomicU64,
    sent: AtomicU64,
    unread: AtomicU64,
    reading_bytes: AtomicU64,
    reading_micros: AtomicU64,
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

    /// Bytes that were not looked at yet: at most so many are still to be sent.
    #[must_use]
    pub fn bytes_left(&self) -> u64 {
        self.bytes_total().saturating_sub(self.bytes_read()).saturating_sub(self.bytes_unread())
    }

    /// Bytes that are probably still to be sent: of what was not looked at yet the share that was new so far. Before
    /// anything was looked at it is `unseen`.
    #[must_use]
    pub fn bytes_expected(&self, unseen: f64) -> u64 {
        let looked = self.bytes_read();
        let share = match looked {
            0 => unseen,
            _ => {
                1.0 - self.bytes_reused().saturating_sub(self.bytes_unread()).min(looked) as f64
                    / looked as f64
            }
        };
        (self.bytes_left() as f64 * share) as u64
    }

    /// Bytes that the store has acknowledged in this save.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Bytes that were recognised without being read.
    #[must_use]
    pub fn bytes_unread(&self) -> u64 {
        self.unread.load(Relaxed)
    }

    /// How fast the files are read, in bytes per second: the disk, or the page cache. `None` before anything was read.
    #[must_use]
    pub fn read_rate(&self) -> Option<f64> {
        let (bytes, micros) = (self.reading_bytes.load(Relaxed), self.reading_micros.load(Relaxed));
        (bytes > 0).then(|| bytes as f64 * 1e6 / micros.max(1) as f64)
    }

    /// The packs that are in the store, in the order of their acknowledgement: for the intent.
    #[must_use]
    pub fn acknowledged_packs(&self) -> Vec<ContentHash> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn begin(&self, total: u64) {
        self.total.fetch_add(total, Relaxed);
    }

    pub(super) fn reading(&self, bytes: u64, took: Duration) {
        self.reading_bytes.fetch_add(bytes, Relaxed);
        self.reading_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn unread(&self, bytes: u64) {
        self.unread.fetch_add(bytes, Relaxed);
        self.reused.fetch_add(bytes, Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_to_be_sent_follows_what_was_new_so_far() {
        let progress = Progress::default();
        progress.begin(1000);
        assert_eq!((progress.bytes_expected(0.0), progress.bytes_expected(1.0)), (0, 1000));
        progress.unread(200);
        assert_eq!(progress.bytes_expected(1.0), 800);
        progress.block(100, true);
        progress.block(100, false);
        assert_eq!(progress.bytes_expected(1.0), 300, "half of the 600 that are left");
    }
}
