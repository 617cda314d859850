//! Reads, cuts, hashes and fills packs: everything of a save that blocks.

use std::{
    collections::{HashMap, VecDeque},
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;

use super::{
    FileProblem, Progress, SourceFile,
    ledger::{Draft, Ledger, Pack, Place},
};
use crate::{
    chunk::Cut,
    hash::{ContentHash, Crc64},
    manifest::Manifest,
};

/// Read at once, in bytes, at least; large reads are what keeps a disk busy.
const READ: usize = 4 * 1024 * 1024;

/// What the reader wants next.
pub(super) enum Step {
    /// A block is new and there is no pack to put it into: [`Reader::grant`] one.
    NeedsSlot,
    /// A pack is full. For the next block there must be another grant.
    Full(Filled),
    /// All files were read, or nobody listens any more; the last pack, if it holds anything.
    End(Option<Filled>),
}

/// A pack to send.
pub(super) struct Filled {
    pub(super) index: usize,
    pub(super) hash: ContentHash,
    pub(super) bytes: Bytes,
}

pub(super) struct Reader {
    waiting: VecDeque<SourceFile>,
    current: Option<Open>,
    window: Vec<u8>,
    known: HashMap<ContentHash, Place>,
    pack: Option<Vec<u8>>,
    packs_filled: usize,
    pack_size: usize,
    ledger: Arc<Ledger>,
    progress: Arc<Progress>,
}

/// The file that is being read. `start..end` of the window are read and not yet cut.
struct Open {
    source: SourceFile,
    cut: Cut,
    written: Option<SystemTime>,
    start: usize,
    end: usize,
    read: u64,
    blocks: Vec<(ContentHash, Place)>,
}

impl Reader {
    pub(super) fn new(
        files: Vec<SourceFile>,
        parent: Option<&Manifest>,
        stored: Option<&HashMap<ContentHash, u64>>,
        pack_size: usize,
        ledger: Arc<Ledger>,
        progress: Arc<Progress>,
    ) -> Self {
        let mut known = HashMap::new();
        for extent in parent.iter().flat_map(|parent| &parent.files).flat_map(|file| &file.extents) {
            let there = stored.is_none_or(|stored| {
                stored.get(&extent.pack).is_some_and(|size| extent.pack_offset + extent.len <= *size)
            });
            if let Some(hash) = extent.blake3.filter(|_| there) {
                let pack = Pack::Stored(extent.pack);
                known.insert(
                    hash,
                    Place { pack, offset: extent.pack_offset, len: extent.len, crc64: extent.crc64 },
                );
            }
        }
        Self {
            waiting: files.into(),
            current: None,
            window: Vec::new(),
            known,
            pack: None,
            packs_filled: 0,
            pack_size,
            ledger,
            progress,
        }
    }

    /// Allows one more pack in memory.
    pub(super) fn grant(&mut self) {
        self.pack = Some(Vec::new());
    }

    /// Reads on until something is needed.
    pub(super) fn step(&mut self, stop: &AtomicBool) -> Step {
        loop {
            if stop.load(Ordering::Relaxed) {
                return Step::End(None);
            }
            let Some(open) = &mut self.current else {
                match self.waiting.pop_front() {
                    Some(source) => self.open(source),
                    None => return Step::End(self.fill()),
                }
                continue;
            };
            match open.next(&mut self.window) {
                Ok(0) => {
                    if let Some(open) = self.current.take() {
                        let SourceFile { path, size, mode, .. } = open.source;
                        self.ledger.read(Draft { path, size, mode, blocks: open.blocks });
                    }
                }
                Ok(len) => {
                    let block = &self.window[open.start..open.start + len];
                    let hash = ContentHash::of(block);
                    let len = len as u64;
                    let old = self.known.get(&hash).filter(|place| place.len == len).copied();
                    let place = match old {
                        Some(place) => place,
                        None => {
                            let Some(pack) = &mut self.pack else { return Step::NeedsSlot };
                            if !pack.is_empty() && pack.len() + block.len() > self.pack_size {
                                match self.fill() {
                                    Some(full) => return Step::Full(full),
                                    None => continue,
                                }
                            }
                            if pack.capacity() == 0 {
                                // Small states get small packs; the first block says nothing, the file does.
                                pack.reserve_exact(self.pack_size.min(block.len().max(open.left())));
                            }
                            let place = Place {
                                pack: Pack::Own(self.packs_filled),
                                offset: pack.len() as u64,
                                len,
                                crc64: Crc64::of(block),
                            };
                            pack.extend_from_slice(block);
                            self.known.insert(hash, place);
                            place
                        }
                    };
                    self.progress.block(len, old.is_some());
                    open.start += block.len();
                    open.blocks.push((hash, place));
                }
                Err(problem) => {
                    if let Some(open) = self.current.take() {
                        self.ledger.failed(open.source.path, problem);
                    }
                }
            }
        }
    }

    fn open(&mut self, source: SourceFile) {
        let cut = source.chunking.plan(source.size);
        let window = (2 * cut.longest()).max(READ).min(usize::try_from(source.size).unwrap_or(usize::MAX));
        if self.window.len() < window {
            self.window.resize(window, 0);
        }
        let written = source.file.metadata().and_then(|meta| meta.modified()).ok();
        self.current = Some(Open { source, cut, written, start: 0, end: 0, read: 0, blocks: Vec::new() });
    }

    /// Takes the pack that is being filled, if it holds anything.
    fn fill(&mut self) -> Option<Filled> {
        let bytes = self.pack.take().filter(|pack| !pack.is_empty())?;
        let index = self.packs_filled;
        self.packs_filled += 1;
        Some(Filled { index, hash: ContentHash::of(&bytes), bytes: bytes.into() })
    }
}

impl Open {
    /// The length of the next block, which is at `start` of the window; 0 at the end of a file that did not change.
    fn next(&mut self, window: &mut [u8]) -> Result<usize, FileProblem> {
        if self.end - self.start < self.cut.longest() && self.read < self.source.size {
            window.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            self.refill(window)?;
        }
        if self.start == self.end {
            self.unchanged()?;
            return Ok(0);
        }
        Ok(self.cut.first(&window[self.start..self.end]))
    }

    fn refill(&mut self, window: &mut [u8]) -> Result<(), FileProblem> {
        while self.end < window.len() && self.read < self.source.size {
            let room = (window.len() - self.end)
                .min(usize::try_from(self.source.size - self.read).unwrap_or(usize::MAX));
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

    fn left(&self) -> usize {
        let unread = usize::try_from(self.source.size - self.read).unwrap_or(usize::MAX);
        unread.saturating_add(self.end - self.start)
    }
}
