//! Buffers for packs, used again and again.
//!
//! A fresh buffer of some mebibytes costs a page fault for each of its pages, up to a fifth of all that a save computes
//! (measured with 8 MiB: 0.1 to 0.2 of about 1 CPU second per GB). How many there are at once is not
//! decided here: a pack is filled only by who holds a slot of the [`crate::dispatcher`], and so memory has one bound.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Buffers that wait for their next use. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer that goes back when it is dropped. Its bytes are always initialised, so that a file can be read into it.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
    home: Weak<Mutex<Vec<Vec<u8>>>>,
}

impl Pool {
    /// An empty buffer with room for `size` bytes.
    pub(crate) fn take(&self, size: usize) -> Buffer {
        let mut bytes = lock(&self.0).pop().unwrap_or_default();
        // Exactly: a buffer is never larger than the largest pack.
        bytes.reserve_exact(size.saturating_sub(bytes.len()));
        if bytes.len() < size {
            bytes.resize(size, 0);
        }
        Buffer { bytes, filled: 0, home: Arc::downgrade(&self.0) }
    }

    /// Gives the memory back to the system: nobody is saving.
    pub(crate) fn release(&self) {
        lock(&self.0).clear();
    }
}

impl Buffer {
    /// How many bytes it holds.
    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    /// The next `len` bytes behind those it holds, to be written to; `None` if there is no room.
    pub(crate) fn spare(&mut self, len: usize) -> Option<&mut [u8]> {
        self.bytes.get_mut(self.filled..self.filled.checked_add(len)?)
    }

    /// The `len` bytes that were written to [`Buffer::spare`] are held from now on.
    pub(crate) fn keep(&mut self, len: usize) {
        self.filled = (self.filled + len).min(self.bytes.len());
    }

    /// Puts `bytes` behind those it holds, where there was no room for them.
    pub(crate) fn make_room(&mut self, bytes: &[u8]) {
        self.bytes.truncate(self.filled);
        self.bytes.extend_from_slice(bytes);
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
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
        first.spare(4).unwrap().copy_from_slice(b"pack");
        assert_eq!(first.as_ref(), b"", "what is not kept is not there");
        first.keep(4);
        assert!(first.spare(97).is_none());
        let place = first.as_ref().as_ptr();
        let bytes = Bytes::from_owner(first);
        let part = bytes.slice(1..3);
        drop(bytes);
        assert!(lock(&pool.0).is_empty(), "a part of it is still being sent");
        drop(part);
        let mut second = pool.take(100);
        assert_eq!((second.as_ref().as_ptr(), second.len()), (place, 0));
        second.make_room(&[7; 200]);
        second.keep(200);
        assert_eq!(second.as_ref(), [7; 200]);
        drop(second);
        pool.release();
        assert!(lock(&pool.0).is_empty());
    }
}
