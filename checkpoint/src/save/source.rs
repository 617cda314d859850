//! One file that is being read: a window moves over it, and it must be the same at the end as at the beginning.

use std::{
    os::unix::fs::FileExt,
    time::{Instant, SystemTime},
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::saved_files::SavedBlock;
use super::{FileProblem, Progress, SourceFile};
use crate::chunk::Cut;

/// Read at once, in bytes, at least. Larger would leave the cache before it is hashed and copied.
const READ: usize = 1024 * 1024;
/// What the kernel is asked to read ahead: a disk is busy while the bytes before are hashed.
const AHEAD: u64 = 8 * 1024 * 1024;

/// The file that is being read. `start..end` of the window are read and not yet cut.
pub(super) struct Open {
    pub(super) source: SourceFile,
    pub(super) start: usize,
    pub(super) blocks: Vec<SavedBlock>,
    cut: Cut,
    written: Option<SystemTime>,
    end: usize,
    read: u64,
    asked: u64,
}

impl Open {
    /// Begins behind the blocks that are `kept` from an earlier save.
    pub(super) fn new(source: SourceFile, kept: Vec<SavedBlock>) -> Self {
        let cut = source.chunking.plan(source.size);
        let written = source.file.metadata().and_then(|meta| meta.modified()).ok();
        let read = kept.iter().map(|block| block.place.len).sum();
        Self { source, start: 0, blocks: kept, cut, written, end: 0, read, asked: read }
    }

    /// The size of the window that it needs, in bytes.
    pub(super) fn window(&self) -> usize {
        let least = if self.cut.is_fixed() { self.cut.longest() } else { 2 * self.cut.longest() };
        least.max(READ).min(usize::try_from(self.source.size).unwrap_or(usize::MAX))
    }

    /// The length of the next block, if its place is fixed and nothing of it was read yet; otherwise 0.
    pub(super) fn aligned(&self) -> usize {
        if !self.cut.is_fixed() || self.start < self.end {
            return 0;
        }
        self.cut.longest().min(usize::try_from(self.source.size - self.read).unwrap_or(usize::MAX))
    }

    /// Reads the next block, of [`Open::aligned`] bytes.
    pub(super) fn read_block(&mut self, block: &mut [u8], progress: &Progress) -> Result<(), FileProblem> {
        let began = Instant::now();
        self.read_ahead();
        self.source.file.read_exact_at(block, self.read).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                let now = self.source.file.metadata().map_or(self.read, |meta| meta.len());
                FileProblem::Shrank { expected: self.source.size, now }
            }
            _ => FileProblem::Unreadable(error.to_string()),
        })?;
        self.read += block.len() as u64;
        progress.reading(block.len() as u64, began.elapsed());
        Ok(())
    }

    /// The length of the next block, which is at `start` of the window; 0 at the end of a file that did not change.
    pub(super) fn next(&mut self, window: &mut [u8], progress: &Progress) -> Result<usize, FileProblem> {
        if self.end - self.start < self.cut.longest() && self.read < self.source.size {
            window.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let before = (Instant::now(), self.read);
            self.refill(window)?;
            progress.reading(self.read - before.1, before.0.elapsed());
        }
        if self.start == self.end {
            self.unchanged()?;
            return Ok(0);
        }
        Ok(self.cut.first(&window[self.start..self.end]))
    }

    fn read_ahead(&mut self) {
        if self.asked < self.source.size && self.asked < self.read + AHEAD / 2 {
            self.asked = self.read + AHEAD;
            if let (Ok(from), Ok(len)) = (i64::try_from(self.read), i64::try_from(AHEAD)) {
                // Advice: on a file system that takes none, reading is as slow as it is.
                let _ = posix_fadvise(&self.source.file, from, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
            }
        }
    }

    fn refill(&mut self, window: &mut [u8]) -> Result<(), FileProblem> {
        self.read_ahead();
        // A window may be longer than this file needs.
        let most = self.window().min(window.len());
        while self.end < most && self.read < self.source.size {
            let room =
                (most - self.end).min(usize::try_from(self.source.size - self.read).unwrap_or(usize::MAX));
            let buffer = &mut window[self.end..self.end + room];
            match self.source.file.read_at(buffer, self.read) {
                Ok(0) => return Err(FileProblem::Shrank { expected: self.source.size, now: self.read }),
                Ok(count) => {
                    self.end += count;
                    self.read += count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FileProblem::Unreadable(error.to_string())),
            }
        }
        Ok(())
    }

    /// A file that was changed may have been read half before and half after.
    fn unchanged(&self) -> Result<(), FileProblem> {
        let meta = self.source.file.metadata().map_err(|error| FileProblem::Unreadable(error.to_string()))?;
        let expected = self.source.size;
        match meta.len() {
            now if now < expected => Err(FileProblem::Shrank { expected, now }),
            now if now > expected => Err(FileProblem::Grew { expected, now }),
            _ if meta.modified().ok() != self.written => Err(FileProblem::Written),
            _ => Ok(()),
        }
    }
}
