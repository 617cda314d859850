//! Buffers for packs, used again and again.
//!
//! A fresh buffer of some mebibytes costs a page fault for each of its pages, a fifth of all that a save computes
//! (facts/store.md §4.1). How many there are at once is not decided here: a pack is filled only by who holds a slot of the
//! [`crate::dispatcher`], and so memory has one bound.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Buffers that wait for their next use. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer that goes back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) bytes: Vec<u8>,
    home: Weak<Mutex<Vec<Vec<u8>>>>,
}

impl Pool {
    /// An empty buffer with room for `size` bytes.
    pub(crate) fn take(&self, size: usize) -> Buffer {
        let mut bytes = lock(&self.0).pop().unwrap_or_default();
        bytes.clear();
        // Exactly: a buffer is never larger than the largest pack.
        bytes.reserve_exact(size);
        Buffer { bytes, home: Arc::downgrade(&self.0) }
    }

    /// Gives the memory back to the system: nobody is saving.
    pub(crate) fn release(&self) {
        lock(&self.0).clear();
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            lock(&home).push(std::mem::take(&mut self.bytes));
        }
    }
}

fn lock(free: &Mutex<Vec<Vec<u8>>>) -> MutexGuard<'_, Vec<Vec<u8>>> {
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_buffer_comes_back_when_the_last_of_its_bytes_is_dropped() {
        let pool = Pool::default();
        let mut first = pool.take(100);
        first.bytes.extend_from_slice(b"pack");
        let place = first.bytes.as_ptr();
        let bytes = Bytes::from_owner(first);
        let part = bytes.slice(1..3);
        drop(bytes);
        assert!(lock(&pool.0).is_empty(), "a part of it is still being sent");
        drop(part);
        let second = pool.take(100);
        assert_eq!(second.bytes.as_ptr(), place);
        assert!(second.bytes.is_empty());
        drop(second);
        pool.release();
        assert!(lock(&pool.0).is_empty());
    }
}
