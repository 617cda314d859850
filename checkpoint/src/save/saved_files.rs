//! What is read, what is acknowledged, and so which files are whole.
//!
//! Shared between the reader and the uploads, so that the account is right at any moment the deadline may come, even
//! when the reader is stuck in a file system.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::block_index;
use super::{BlockIndex, SourceFile};
use crate::{
    hash::{ContentHash, Crc64},
    manifest::{Extent, FileEntry},
};

/// What a save achieved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// The files that are whole in the store, in the order given.
    pub files: Vec<FileEntry>,
    /// The files that could not be read as they were announced.
    pub failed: Vec<FailedFile>,
    /// How many files were asked for.
    pub files_total: usize,
    /// Bytes in all files that were asked for.
    pub bytes_total: u64,
    /// Bytes that were sent and acknowledged.
    pub bytes_sent: u64,
    /// Packs that were sent and acknowledged.
    pub packs_sent: usize,
    /// Packs that the whole files need and that were there already.
    pub packs_reused: usize,
    /// The packs of this save that are in the store, also those of files that are not whole, with their sizes in bytes.
    pub acknowledged: Vec<(ContentHash, u64)>,
    /// What was seen, if [`super::SaveRequest::remember`] asked for it.
    pub round: BlockIndex,
    /// It was set back behind other work, because at the measured rate it would not have been over by its deadline.
    pub set_back: bool,
}

impl Saved {
    /// Whether every file is whole: what is not must be committed as partial, or not at all.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.files.len() == self.files_total
    }
}

/// A file that is not in the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct FailedFile {
    /// Its path below the state volume.
    pub path: String,
    /// What happened to it.
    pub problem: FileProblem,
}

/// What can happen to a file while it is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// It became shorter.
    #[error("it shrank to {now} bytes while it was read, it had {expected}")]
    Shrank {
        /// Bytes when it was listed.
        expected: u64,
        /// Bytes that could be read.
        now: u64,
    },
    /// It became longer.
    #[error("it grew to {now} bytes while it was read, it had {expected}")]
    Grew {
        /// Bytes when it was listed.
        expected: u64,
        /// Bytes now.
        now: u64,
    },
    /// It was written to.
    #[error("it was written to while it was read")]
    Written,
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

/// A pack by its content, or the one of this save that will get a name when it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Pack {
    Stored(ContentHash),
    Own(usize),
}

/// Where a block lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockPlace {
    pub(super) pack: Pack,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) crc64: Crc64,
}

/// A block of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct SavedBlock {
    pub(super) name: Option<ContentHash>,
    /// Known where rounds are compared.
    pub(super) fast: Option<u128>,
    pub(super) place: BlockPlace,
}

/// A file that was read to its end.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) blocks: Vec<SavedBlock>,
}

#[derive(Debug)]
pub(super) struct SavedFiles(Mutex<Account>);

#[derive(Debug, Default)]
struct Account {
    saved: Saved,
    drafts: Vec<Draft>,
    /// The packs of this save that are acknowledged, and whether they were sent.
    packs: HashMap<usize, (ContentHash, bool)>,
}

impl SavedFiles {
    pub(super) fn new(files: &[SourceFile]) -> Self {
        let bytes_total = files.iter().map(|file| file.size).fold(0, u64::saturating_add);
        let saved = Saved { files_total: files.len(), bytes_total, ..Saved::default() };
        Self(Mutex::new(Account { saved, ..Account::default() }))
    }

    pub(super) fn read(&self, draft: Draft) {
        self.account().drafts.push(draft);
    }

    pub(super) fn failed(&self, path: String, problem: FileProblem) {
        self.account().saved.failed.push(FailedFile { path, problem });
    }

    /// A pack of this save is in the store: it was sent, or it was there.
    pub(super) fn acknowledge(&self, index: usize, hash: ContentHash, size: u64, sent: bool) {
        let mut account = self.account();
        account.packs.insert(index, (hash, sent));
        account.saved.acknowledged.push((hash, size));
        if sent {
            account.saved.bytes_sent += size;
            account.saved.packs_sent += 1;
        }
    }

    /// Counts up: a file is whole if every pack it needs is in the store.
    pub(super) fn close(&self) -> Saved {
        let mut account = self.account();
        let Account { saved, drafts, packs } = std::mem::take(&mut *account);
        let (mut reused, mut round) = (HashSet::new(), BlockIndex::default());
        let files =
            drafts.into_iter().filter_map(|draft| draft.entry(&packs, &mut reused, &mut round)).collect();
        Saved { files, packs_reused: reused.len(), round, ..saved }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Draft {
    fn entry(
        self,
        packs: &HashMap<usize, (ContentHash, bool)>,
        reused: &mut HashSet<ContentHash>,
        round: &mut BlockIndex,
    ) -> Option<FileEntry> {
        let mut extents = Vec::with_capacity(self.blocks.len());
        let mut offset = 0;
        let mut old = Vec::new();
        for SavedBlock { name, fast, place } in &self.blocks {
            let (pack, sent) = match place.pack {
                Pack::Stored(hash) => (hash, false),
                Pack::Own(index) => *packs.get(&index)?,
            };
            if !sent {
                old.push(pack);
            }
            let BlockPlace { offset: pack_offset, len, crc64, .. } = *place;
            extents.push(Extent { offset, len, pack, pack_offset, crc64, blake3: *name });
            if let Some(fast) = fast {
                round.note(*fast, len, block_index::Block { name: *name, crc64, pack, offset: pack_offset });
            }
            offset += len;
        }
        reused.extend(old);
        Some(FileEntry { path: self.path, size: self.size, mode: self.mode & 0o777, extents })
    }
}
