//! Reads, cuts, hashes and fills packs: everything of a save that blocks.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use super::{
    Identity, Progress, SaveRequest, SourceFile,
    ledger::{Block, Draft, Ledger, Pack, Place},
    round,
    source::Open,
};
use crate::{
    chunk::Chunking,
    hash::{ContentHash, Crc64, PackName},
    manifest::{Extent, FileEntry},
    pool::Buffer,
};

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
    pub(super) crc64: Crc64,
    pub(super) bytes: Bytes,
}

/// A pack that is being filled.
struct Filling {
    buffer: Buffer,
    size: usize,
    name: PackName,
    crc64: Option<Crc64>,
}

pub(super) struct Reader {
    waiting: VecDeque<SourceFile>,
    current: Option<Open>,
    window: Vec<u8>,
    by_name: HashMap<ContentHash, Place>,
    /// By the fast hash and the length, where rounds are compared.
    by_fast: HashMap<(u128, u64), (Option<ContentHash>, Place)>,
    /// The parent's files that may be recognised by their names alone.
    earlier: HashMap<String, FileEntry>,
    rounds: bool,
    identity: Identity,
    /// The hashes of the block that waits for a pack.
    hashed: Option<(Option<u128>, Option<ContentHash>)>,
    pack: Option<Filling>,
    packs_filled: usize,
    ledger: Arc<Ledger>,
    progress: Arc<Progress>,
}

impl Reader {
    pub(super) fn new(request: &mut SaveRequest<'_>, ledger: Arc<Ledger>, progress: Arc<Progress>) -> Self {
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
                    let place = Place { pack, offset: block.offset, len, crc64: block.crc64 };
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
        Self {
            waiting: std::mem::take(&mut request.files).into(),
            current: None,
            window: Vec::new(),
            by_name,
            by_fast,
            earlier,
            rounds: request.round.is_some() || request.remember,
            identity: request.identity,
            hashed: None,
            pack: None,
            packs_filled: 0,
            ledger,
            progress,
        }
    }

    /// Allows one more pack of `size` bytes in memory.
    pub(super) fn grant(&mut self, buffer: Buffer, size: usize) {
        self.pack = Some(Filling { buffer, size, name: PackName::default(), crc64: None });
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
            match open.next(&mut self.window, &self.progress) {
                Ok(0) => {
                    if let Some(open) = self.current.take() {
                        let SourceFile { path, size, mode, .. } = open.source;
                        self.ledger.read(Draft { path, size, mode, blocks: open.blocks });
                    }
                }
                Ok(len) => {
                    let block = &self.window[open.start..open.start + len];
                    let len = len as u64;
                    let hashed = self.hashed.take();
                    let fast = match hashed {
                        Some((fast, _)) => fast,
                        None => (self.rounds || self.identity == Identity::Fast).then(|| round::fast(block)),
                    };
                    let seen = fast.and_then(|fast| self.by_fast.get(&(fast, len)).copied());
                    let name = match (hashed, seen, self.identity) {
                        (Some((_, name)), ..) | (None, Some((name, _)), _) => name,
                        (None, None, Identity::Blake3) => Some(ContentHash::of(block)),
                        (None, None, Identity::Fast) => None,
                    };
                    let named =
                        || name.and_then(|name| self.by_name.get(&name)).filter(|place| place.len == len);
                    let old = seen.map(|(_, place)| place).or_else(|| named().copied());
                    let place = match old {
                        Some(place) => place,
                        None => {
                            let Some(pack) = &mut self.pack else {
                                self.hashed = Some((fast, name));
                                return Step::NeedsSlot;
                            };
                            let filled = pack.buffer.bytes.len();
                            if filled > 0 && filled + block.len() > pack.size {
                                self.hashed = Some((fast, name));
                                match self.fill() {
                                    Some(full) => return Step::Full(full),
                                    None => continue,
                                }
                            }
                            pack.take(self.packs_filled, block, name, fast)
                        }
                    };
                    if old.is_none() {
                        if let Some(name) = name {
                            self.by_name.insert(name, place);
                        }
                        if let Some(fast) = fast {
                            self.by_fast.insert((fast, len), (name, place));
                        }
                    }
                    self.progress.block(len, old.is_some());
                    open.start += block.len();
                    open.blocks.push(Block { name, fast, place });
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
            .map(|extent| Block { name: extent.blake3, fast: None, place: place_of(extent) })
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
        let Filling { buffer, name, crc64, .. } = self.pack.take()?;
        let crc64 = crc64?;
        let index = self.packs_filled;
        self.packs_filled += 1;
        Some(Filled { index, hash: name.finish(), crc64, bytes: Bytes::from_owner(buffer) })
    }
}

impl Filling {
    /// Adds a block to the pack that will have the number `index`.
    fn take(&mut self, index: usize, block: &[u8], name: Option<ContentHash>, fast: Option<u128>) -> Place {
        let (len, crc64) = (block.len() as u64, Crc64::of(block));
        let offset = self.buffer.bytes.len() as u64;
        self.buffer.bytes.extend_from_slice(block);
        match name {
            Some(name) => self.name.block(name, len),
            None => self.name.unhashed(fast.unwrap_or_default(), crc64, len),
        }
        self.crc64 = Some(self.crc64.map_or(crc64, |before| before.then(crc64, len)));
        Place { pack: Pack::Own(index), offset, len, crc64 }
    }
}

fn place_of(extent: &Extent) -> Place {
    Place {
        pack: Pack::Stored(extent.pack),
        offset: extent.pack_offset,
        len: extent.len,
        crc64: extent.crc64,
    }
}
