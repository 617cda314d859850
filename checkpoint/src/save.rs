//! Files to packs: only what the store does not have yet, in the order of importance, until the deadline.
//!
//! ```text
//!  blocking thread                                    async
//!  ───────────────                                    ─────
//!  pread → cut → XXH3, BLAKE3 ─ known? ─ yes ─► extent
//!                                 │ no
//!                                 ▼
//!                     a slot is needed ─────────────► Job::queue, a place by class, rank and cut-off
//!                     fill a pack      ◄───────────── permit
//!                     full, or the end ─────────────► PUT pack/<name> under the permit, with retries
//! ```
//!
//! * Memory: a pack is filled only under a permit, so there are never more packs in memory than slots, plus one
//!   read window per save; their buffers are used again.
//! * Bytes are looked at once, while they are in the cache: read into the pack, told from the round before by a fast hash,
//!   named and summed, in steps of 1 MiB. (What is cut by its content is read into a window first, and copied.)
//! * A file is never mapped: the pod may truncate it under us, and a mapping would kill the agent. A file that
//!   changes while it is read fails by name; the others go on.
//! * The same files against the same parent give the same packs with the same names, so a save that is repeated after
//!   a restart finds what it sent before ([`crate::reuse::list`]).
//! * Dropping the future stops the reader at the next block and aborts the uploads; what was acknowledged stays.

mod block_index;
mod progress;
mod reader;
mod saved_files;
mod source;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

pub use self::block_index::BlockIndex;
pub use self::progress::Progress;
use self::reader::{Filled, ReadStep, Reader};
use self::saved_files::SavedFiles;
pub use self::saved_files::{FailedFile, FileProblem, Saved};
use crate::chunk::Chunking;
use crate::dispatcher::forecast::Work;
use crate::dispatcher::{Class, Dispatcher, Job, PackPatience, Permit, QueuePlace, Rank};
use crate::hash::ContentHash;
use crate::key::Workload;
use crate::manifest::{Manifest, PACK_MAX};
use crate::retry;
use crate::store::{Body, Condition, Store, StoreError};

/// The usual size of a pack, in bytes.
pub const PACK_SIZE: usize = 32 * 1024 * 1024;

/// The smallest pack: it must hold the longest block.
const PACK_SIZE_MIN: usize = 4 * 1024 * 1024;

/// A pack should not take more than this share of the time that is left: one that is under way at the deadline is lost.
const SHARE_OF_TIME_LEFT: u32 = 8;

/// A file to save, opened already: its bytes survive the volume's removal.
#[derive(Debug)]
pub struct SourceFile {
    /// Its path below the state volume.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its size in bytes; not more and not less is saved.
    pub size: u64,
    /// Opened for reading.
    pub file: File,
    /// How its content changes between saves.
    pub chunking: Chunking,
}

/// What to save, and how.
#[derive(Debug)]
pub struct SaveRequest<'a> {
    /// Whose state.
    pub workload: &'a Workload,
    /// The files, most important first.
    pub files: Vec<SourceFile>,
    /// The newest manifest of this workload that is worth comparing with: what it names is not sent again.
    pub parent: Option<&'a Manifest>,
    /// The packs that the store has, if they were listed ([`crate::reuse::list`]): one that is about to be sent is skipped, and the
    /// parent's blocks count only if their pack is among them. `None`: not listed; the parent is trusted.
    pub known_packs: Option<HashMap<ContentHash, u64>>,
    /// Packs that garbage collection is removing: what is sent gets other names ([`crate::reuse`]).
    pub condemned: HashSet<ContentHash>,
    /// The last round's memory of the same state, if `parent` is the manifest that was committed of it.
    pub round: Option<&'a BlockIndex>,
    /// There will be another round: remember this one.
    pub remember: bool,
    /// How blocks are named.
    pub identity: Identity,
    /// Size of a pack in bytes: [`PACK_SIZE`]; near the deadline it becomes less by itself. Kept between 4 MiB and 1 GiB.
    pub pack_size: usize,
    /// What the bytes are for.
    pub class: Class,
    /// Lower goes first; whoever keeps a clone can move the save while it is under way.
    pub rank: Rank,
    /// When it must be over.
    pub deadline: Instant,
}

/// How blocks are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identity {
    /// By their BLAKE3 hash: recognised in every later generation, and verified against forgery where a MAC vouches for
    /// the manifest.
    #[default]
    Blake3,
    /// Not: only by a fast hash within this process, and by CRC64. A fifth less CPU; nothing is recognised after a restart.
    Fast,
}

/// A save that is not whole. What was acknowledged is in `partial`: whole files that can be committed as partial.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The deadline came first.
    #[error("out of time: {} files of {} were saved whole, {} bytes sent", .partial.files.len(), .partial.files_total, .partial.bytes_sent)]
    OutOfTime {
        /// What is whole.
        partial: Box<Saved>,
    },
    /// The store refused.
    #[error("save: {source}")]
    Store {
        /// Why.
        source: StoreError,
        /// What is whole.
        partial: Box<Saved>,
    },
}

impl SaveError {
    /// What can be committed as partial.
    #[must_use]
    pub fn into_partial(self) -> Saved {
        match self {
            Self::OutOfTime { partial } | Self::Store { partial, .. } => *partial,
        }
    }
}

/// The packs of a workload with their sizes in bytes, for [`SaveRequest::known_packs`]: one LIST.
///
/// # Errors
/// Store errors.
pub async fn known_packs(
    store: &Store,
    workload: &Workload,
    deadline: Instant,
) -> Result<HashMap<ContentHash, u64>, StoreError> {
    let prefix = workload.packs();
    let listed = retry::list(store.as_ref(), &prefix, deadline).await?;
    let pack = |key: &str| key.strip_prefix(&prefix)?.parse::<ContentHash>().ok();
    Ok(listed.iter().filter_map(|object| Some((pack(&object.key)?, object.size))).collect())
}

/// Saves `request.files`.
///
/// # Errors
/// [`SaveError`], with the files that are whole nevertheless. A file that changed under the reader is no error of the
/// save: it is in [`Saved::failed`], and what is committed must be marked partial.
pub async fn save(
    store: &Store,
    mut request: SaveRequest<'_>,
    dispatcher: &Dispatcher,
    progress: &Arc<Progress>,
) -> Result<Saved, SaveError> {
    let ledger = Arc::new(SavedFiles::new(&request.files));
    let bytes = request.files.iter().map(|file| file.size).fold(0, u64::saturating_add);
    progress.begin(bytes);
    let reader = Reader::new(&mut request, Arc::clone(&ledger), Arc::clone(progress));
    let mut run = SaveRun {
        store,
        workload: request.workload,
        dispatcher,
        progress,
        ledger: Arc::clone(&ledger),
        known: request.known_packs.unwrap_or_default(),
        job: Arc::new(dispatcher.enlist(
            request.class,
            request.rank,
            Work { bytes: if request.parent.is_some() { 0 } else { bytes }, cut_off: request.deadline },
        )),
        unseen: if request.parent.is_some() { 0.0 } else { 1.0 },
        pack_size: request.pack_size.clamp(PACK_SIZE_MIN, PACK_MAX as usize),
        class: request.class,
        deadline: request.deadline,
        ahead: None,
        uploads: JoinSet::new(),
    };
    let outcome = run.drive(reader).await;
    let set_back = run.job.is_set_back();
    drop(run);
    let saved = Saved { set_back: set_back && outcome.is_err(), ..ledger.close() };
    match outcome {
        Ok(()) => Ok(saved),
        Err(StoreError::TimedOut { .. }) => Err(SaveError::OutOfTime { partial: Box::new(saved) }),
        Err(source) => Err(SaveError::Store { source, partial: Box::new(saved) }),
    }
}

/// One save under way.
struct SaveRun<'a> {
    store: &'a Store,
    workload: &'a Workload,
    dispatcher: &'a Dispatcher,
    progress: &'a Arc<Progress>,
    ledger: Arc<SavedFiles>,
    known: HashMap<ContentHash, u64>,
    job: Arc<Job>,
    /// The share of what was not looked at yet that is taken for new: with a parent little has changed, until it shows
    /// otherwise. A save that could still be in time must not be set back for bytes that the store has.
    unseen: f64,
    pack_size: usize,
    class: Class,
    deadline: Instant,
    /// The place in the queue for the pack after the one that is being filled.
    ahead: Option<QueuePlace>,
    /// Aborted when dropped.
    uploads: JoinSet<Result<(), StoreError>>,
}

impl SaveRun<'_> {
    async fn drive(&mut self, mut reader: Reader) -> Result<(), StoreError> {
        let stop = StopOnDrop::default();
        let mut permit = None;
        loop {
            let flag = Arc::clone(&stop.0);
            let stepping = tokio::task::spawn_blocking(move || {
                let step = reader.step(&flag);
                (reader, step)
            });
            let (back, step) =
                self.in_time(stepping).await?.map_err(|error| StoreError::permanent(error.to_string()))?;
            reader = back;
            match step {
                ReadStep::NeedsSlot => {
                    permit = Some(self.slot().await?);
                    self.grant(&mut reader);
                }
                ReadStep::Full(pack) => permit = self.dispose(pack, permit, &mut reader),
                ReadStep::End(last) => {
                    self.ahead = None;
                    if let Some(pack) = last {
                        drop(self.dispose(pack, permit, &mut reader));
                    }
                    break;
                }
            }
            while let Some(done) = self.uploads.try_join_next() {
                settle(done)?;
            }
        }
        let deadline = self.deadline;
        while let Some(done) =
            timeout_at(deadline, self.uploads.join_next()).await.map_err(|_| out_of_time())?
        {
            settle(done)?;
        }
        Ok(())
    }

    /// Waits for a slot, and meanwhile for uploads that fail.
    async fn slot(&mut self) -> Result<Permit, StoreError> {
        self.job.left(self.progress.bytes_expected(self.unseen));
        let (job, place) = (Arc::clone(&self.job), self.ahead.take());
        let acquiring = async move {
            job.paced().await;
            place.unwrap_or_else(|| job.queue()).granted().await
        };
        tokio::pin!(acquiring);
        loop {
            tokio::select! {
                permit = &mut acquiring => {
                    // A pre-copy has one slot at most, and yields.
                    self.ahead = (self.class == Class::Drain).then(|| self.job.queue());
                    return permit.ok_or_else(|| StoreError::permanent("the dispatcher has forgotten this save"));
                }
                Some(done) = self.uploads.join_next() => settle(done)?,
                () = tokio::time::sleep_until(self.deadline) => return Err(out_of_time()),
            }
        }
    }

    /// Sends a full pack under its permit; if the store has it already, the permit is kept for the next one.
    fn dispose(&mut self, pack: Filled, permit: Option<Permit>, reader: &mut Reader) -> Option<Permit> {
        let size = pack.bytes.len() as u64;
        if self.known.get(&pack.hash) == Some(&size) {
            self.ledger.acknowledge(pack.index, pack.hash, size, false);
            self.progress.pack(pack.hash, 0);
            self.grant(reader);
            return permit;
        }
        let (store, key) = (Arc::clone(self.store), self.workload.pack(pack.hash));
        let (ledger, progress, job) = (self.ledger.clone(), self.progress.clone(), self.job.clone());
        let deadline = self.deadline;
        self.uploads.spawn(async move {
            // Always, not if-absent: the name is the content, so this can only heal a pack that was torn, and it makes
            // an old one young again for the bucket's lifecycle.
            let attempts = PackPatience { job: &job, longest: retry::attempt_limit(size) };
            let (began, body) = (Instant::now(), Body::summed(pack.bytes, pack.crc64));
            retry::put_of(store.as_ref(), &key, body, Condition::Always, deadline, &attempts).await?;
            ledger.acknowledge(pack.index, pack.hash, size, true);
            progress.pack(pack.hash, size);
            job.acknowledged(size, began.elapsed());
            drop(permit);
            Ok(())
        });
        None
    }

    /// Allows another pack, as large as the time that is left allows.
    fn grant(&self, reader: &mut Reader) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let size = match self.class {
            Class::Drain => pack_size(self.pack_size, left, |bytes| self.job.pack_takes(bytes)),
            Class::Fetch | Class::PreCopy => self.pack_size,
        };
        // Small states take small buffers: no more than what is left to read.
        let room = usize::try_from(self.progress.bytes_left()).unwrap_or(usize::MAX);
        reader.grant(self.dispatcher.pool().take(size.min(room)), size);
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, StoreError> {
        timeout_at(self.deadline, work).await.map_err(|_| out_of_time())
    }
}

/// The size of the next pack: at most `most`, and small enough that it is over long before the deadline.
fn pack_size(most: usize, left: Duration, takes: impl Fn(u64) -> Duration) -> usize {
    let mut size = most;
    while size > PACK_SIZE_MIN && takes(size as u64) > left / SHARE_OF_TIME_LEFT {
        size = (size / 2).max(PACK_SIZE_MIN);
    }
    size
}

fn settle(done: Result<Result<(), StoreError>, tokio::task::JoinError>) -> Result<(), StoreError> {
    done.unwrap_or_else(|error| Err(StoreError::permanent(error.to_string())))
}

fn out_of_time() -> StoreError {
    StoreError::TimedOut { what: "save".to_owned(), waited: Duration::ZERO, last: None, answered: false }
}

/// Tells the reader that nobody listens any more.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
