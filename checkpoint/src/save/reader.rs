//! Reads, cuts, hashes and fills packs: everything of a save that blocks.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use super::saved_files::{BlockPlace, Draft, Pack, SavedBlock, SavedFiles};
use super::source::Open;
use super::{FileProblem, Identity, Progress, SaveRequest, SourceFile, block_index};
use crate::{
    chunk::Chunking,
    hash::{ContentHash, Crc64, Crc64Sum, PackName},
    manifest::{Extent, FileEntry},
    pool::Buffer,
    reuse,
};

/// What the reader wants next.
pub(super) enum ReadStep {
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
    pub(super) crc64: Crc64,
    pub(super) bytes: Bytes,
}

/// The blocks that are in the store, or on their way.
struct KnownBlocks {
    by_name: HashMap<ContentHash, BlockPlace>,
    /// By the fast hash and the length, where rounds are compared.
    by_fast: HashMap<(u128, u64), (Option<ContentHash>, BlockPlace)>,
    rounds: bool,
    identity: Identity,
}

/// The fast hash of a block, its name, and where it is if it is known.
type Looked = (Option<u128>, Option<ContentHash>, Option<BlockPlace>);

impl KnownBlocks {
    fn look(&self, block: &[u8]) -> Looked {
        let len = block.len() as u64;
        let fast = self.rounds.then(|| block_index::fast(block));
        if let Some((name, place)) = fast.and_then(|fast| self.by_fast.get(&(fast, len)).copied()) {
            return (fast, name, Some(place));
        }
        let name = (self.identity == Identity::Blake3).then(|| ContentHash::of(block));
        let place = name.and_then(|name| self.by_name.get(&name)).filter(|place| place.len == len);
        (fast, name, place.copied())
    }

    fn remember(&mut self, block: &SavedBlock) {
        if let Some(name) = block.name {
            self.by_name.insert(name, block.place);
        }
        if let Some(fast) = block.fast {
            self.by_fast.insert((fast, block.place.len), (block.name, block.place));
        }
    }
}

/// A pack that is being filled.
struct Filling {
    buffer: Buffer,
    size: usize,
    name: PackName,
    crc64: Crc64Sum,
}

pub(super) struct Reader {
    waiting: VecDeque<SourceFile>,
    current: Option<Open>,
    window: Vec<u8>,
    seen: KnownBlocks,
    /// The parent's files that may be recognised by their names alone.
    earlier: HashMap<String, FileEntry>,
    /// What is known of the block in the window that waits for a pack.
    hashed: Option<Looked>,
    pack: Option<Filling>,
    packs_filled: usize,
    condemned: HashSet<ContentHash>,
    ledger: Arc<SavedFiles>,
    progress: Arc<Progress>,
}

impl Reader {
    pub(super) fn new(
        request: &mut SaveRequest<'_>,
        ledger: Arc<SavedFiles>,
        progress: Arc<Progress>,
    ) -> Self {
        // The keys of another workload's packs are not ours.
        let parent = request.parent.filter(|parent| parent.workload == *request.workload);
        let there = |pack: &ContentHash, end: u64| {
            request
                .known_packs
                .as_ref()
                .is_none_or(|stored| stored.get(pack).is_some_and(|size| end <= *size))
        };
        let stored = |extent: &Extent| there(&extent.pack, extent.pack_offset + extent.len);
        let mut by_name = HashMap::new();
        for extent in parent.iter().flat_map(|parent| &parent.files).flat_map(|file| &file.extents) {
            if let Some(name) = extent.blake3.filter(|_| stored(extent)) {
                by_name.insert(name, place_of(extent));
            }
        }
        let mut by_fast = HashMap::new();
        if let (Some(parent), Some(round)) = (parent, request.round) {
            for (&(fast, len), block) in round.kept_by(parent) {
                if there(&block.pack, block.offset + len) {
                    let pack = Pack::Stored(block.pack);
                    let place = BlockPlace { pack, offset: block.offset, len, crc64: block.crc64 };
                    by_fast.insert((fast, len), (block.name, place));
                }
            }
        }
        let unread = |file: &&FileEntry| file.extents.iter().all(stored);
        let earlier = parent
            .iter()
            .flat_map(|parent| parent.files.iter().filter(unread))
            .map(|file| (file.path.clone(), file.clone()))
            .collect();
        let rounds = request.round.is_some() || request.remember || request.identity == Identity::Fast;
        Self {
            waiting: std::mem::take(&mut request.files).into(),
            current: None,
            window: Vec::new(),
            seen: KnownBlocks { by_name, by_fast, rounds, identity: request.identity },
            earlier,
            hashed: None,
            pack: None,
            packs_filled: 0,
            condemned: std::mem::take(&mut request.condemned),
            ledger,
            progress,
        }
    }

    /// Allows one more pack of `size` bytes in memory.
    pub(super) fn grant(&mut self, buffer: Buffer, size: usize) {
        let (name, crc64) = (PackName::default(), Crc64Sum::default());
        self.pack = Some(Filling { buffer, size, name, crc64 });
    }

    /// Reads on until something is needed.
    pub(super) fn step(&mut self, stop: &AtomicBool) -> ReadStep {
        loop {
            if stop.load(Ordering::Relaxed) {
                return ReadStep::End(None);
            }
            let Some(open) = &mut self.current else {
                match self.waiting.pop_front() {
                    Some(source) => self.open(source),
                    None => return ReadStep::End(self.fill()),
                }
                continue;
            };
            let wanted = open.aligned();
            let done = match &mut self.pack {
                Some(pack) if wanted > 0 && pack.has_room(wanted) => self.read_into_pack(wanted),
                Some(_) if wanted > 0 => return self.fill().map_or(ReadStep::NeedsSlot, ReadStep::Full),
                _ => self.read_into_window(),
            };
            match done {
                Ok(None) => {}
                Ok(Some(step)) => return step,
                Err(problem) => {
                    if let Some(open) = self.current.take() {
                        self.ledger.failed(open.source.path, problem);
                    }
                }
            }
        }
    }

    /// A block at a fixed place is read where it will be sent from: most are new, and nothing is copied. One that is known
    /// is overwritten by the next.
    fn read_into_pack(&mut self, len: usize) -> Result<Option<ReadStep>, FileProblem> {
        let (Some(open), Some(pack)) = (&mut self.current, &mut self.pack) else { return Ok(None) };
        let Some(block) = pack.buffer.spare(len) else { return self.read_into_window() };
        open.read_block(block, &self.progress)?;
        let (fast, name, old) = self.seen.look(block);
        let place = match old {
            Some(place) => place,
            None => pack.take(self.packs_filled, len, name, fast),
        };
        self.note(SavedBlock { name, fast, place }, old.is_some());
        Ok(None)
    }

    /// Everything else is read into the window: there may be no pack, or nobody knows yet where the block ends.
    fn read_into_window(&mut self) -> Result<Option<ReadStep>, FileProblem> {
        let Some(open) = &mut self.current else { return Ok(None) };
        let len = open.next(&mut self.window, &self.progress)?;
        if len == 0 {
            if let Some(open) = self.current.take() {
                let SourceFile { path, size, mode, .. } = open.source;
                self.ledger.read(Draft { path, size, mode, blocks: open.blocks });
            }
            return Ok(None);
        }
        let block = &self.window[open.start..open.start + len];
        let (fast, name, old) = match self.hashed.take() {
            Some(hashed) => hashed,
            None => self.seen.look(block),
        };
        let place = match (old, &mut self.pack) {
            (Some(place), _) => place,
            (None, None) => {
                self.hashed = Some((fast, name, old));
                return Ok(Some(ReadStep::NeedsSlot));
            }
            (None, Some(pack)) if !pack.has_room(len) => {
                self.hashed = Some((fast, name, old));
                return Ok(Some(self.fill().map_or(ReadStep::NeedsSlot, ReadStep::Full)));
            }
            (None, Some(pack)) => {
                pack.copy(block);
                pack.take(self.packs_filled, len, name, fast)
            }
        };
        open.start += len;
        self.note(SavedBlock { name, fast, place }, old.is_some());
        Ok(None)
    }

    /// A block has its place.
    fn note(&mut self, block: SavedBlock, old: bool) {
        if !old {
            self.seen.remember(&block);
        }
        self.progress.block(block.place.len, old);
        if let Some(open) = &mut self.current {
            open.blocks.push(block);
        }
    }

    fn open(&mut self, source: SourceFile) {
        let earlier = self.earlier.get(&source.path);
        let kept: &[Extent] = match (source.chunking, earlier) {
            // Its name is its content: nothing to read.
            (Chunking::Immutable, Some(file)) if file.size == source.size => &file.extents,
            // What it had is as it was; its last block may have been a short one.
            (Chunking::AppendOnly, Some(file)) if file.size <= source.size => {
                let whole = file.extents.iter().take_while(|extent| extent.len == crate::chunk::FIXED_BLOCK);
                &file.extents[..whole.count()]
            }
            _ => &[],
        };
        let kept: Vec<_> = kept
            .iter()
            .map(|extent| SavedBlock { name: extent.blake3, fast: None, place: place_of(extent) })
            .collect();
        for block in &kept {
            self.progress.unread(block.place.len);
        }
        let open = Open::new(source, kept);
        if self.window.len() < open.window() {
            self.window.resize(open.window(), 0);
        }
        self.current = Some(open);
    }

    /// Takes the pack that is being filled, if it holds anything.
    fn fill(&mut self) -> Option<Filled> {
        let mut pack = self.pack.take().filter(|pack| pack.buffer.len() > 0)?;
        if self.condemned.contains(&pack.name.finish()) {
            pack.salt(reuse::salt().as_bytes());
        }
        let Filling { buffer, name, crc64, .. } = pack;
        let index = self.packs_filled;
        self.packs_filled += 1;
        Some(Filled { index, hash: name.finish(), crc64: crc64.finish(), bytes: Bytes::from_owner(buffer) })
    }
}

impl Filling {
    /// Whether `len` bytes more may go into it. An empty one takes any block.
    fn has_room(&self, len: usize) -> bool {
        self.buffer.len() == 0 || self.buffer.len() + len <= self.size
    }

    fn copy(&mut self, block: &[u8]) {
        match self.buffer.spare(block.len()) {
            Some(spare) => spare.copy_from_slice(block),
            None => self.buffer.make_room(block),
        }
    }

    /// Gives it another name.
    fn salt(&mut self, salt: &[u8]) {
        self.copy(salt);
        self.buffer.keep(salt.len());
        self.crc64.update(salt);
        self.name.salt(salt);
    }

    /// The block of `len` bytes behind those it holds belongs to the pack that will have the number `index`.
    fn take(
        &mut self,
        index: usize,
        len: usize,
        name: Option<ContentHash>,
        fast: Option<u128>,
    ) -> BlockPlace {
        let offset = self.buffer.len();
        self.buffer.keep(len);
        let block = &self.buffer.as_ref()[offset..];
        let crc64 = Crc64::of(block);
        // Twice, while it is in the cache: to put checksums together costs ten times as much.
        self.crc64.update(block);
        let (offset, len) = (offset as u64, len as u64);
        match name {
            Some(name) => self.name.block(name, len),
            None => self.name.unhashed(fast.unwrap_or_default(), crc64, len),
        }
        BlockPlace { pack: Pack::Own(index), offset, len, crc64 }
    }
}

fn place_of(extent: &Extent) -> BlockPlace {
    BlockPlace {
        pack: Pack::Stored(extent.pack),
        offset: extent.pack_offset,
        len: extent.len,
        crc64: extent.crc64,
    }
}
