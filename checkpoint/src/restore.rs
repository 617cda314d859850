//! Packs back to files: fetched into a staging folder, every extent verified, then renamed into place.
//!
//! ```text
//!   manifest ─► extents by pack ─► runs of neighbours ─► ranged GET ─► frames: pwrite, CRC64, BLAKE3
//!                                                                       │
//!                               .lifeboat/restore/<generation>/<path> ◄─┘      fetch: may be repeated, keeps what is good
//!                               <path>                                 ◄─────  install: mode, owner, rename
//! ```
//!
//! The folder belongs to a pod that may be hostile and the manifest to whoever can write to the bucket, so paths are
//! resolved beneath the folder and sizes are bounded by the manifest's rules.

mod assembly;
mod earlier;
mod plan;
mod source;

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use nix::fcntl::{FallocateFlags, fallocate};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

pub use self::earlier::Earlier;
use self::{
    assembly::{Assembly, Piece, Wrong},
    earlier::Kept,
    source::ReadFailure,
};
use crate::{
    dispatcher::{Class, Dispatcher, Job, forecast::Work},
    folder::{Folder, FolderError, io},
    hash::ContentHash,
    key::Workload,
    manifest::{BYTES_MAX, Extent, FileEntry, MacKey, Manifest, ManifestError},
    retry,
    store::{Store, StoreError},
};

/// The longest single GET, in bytes.
pub const RANGE_MAX: u64 = 16 * crate::MIB;

/// What a fetch has done so far, in bytes.
#[derive(Debug, Default)]
pub struct FetchProgress {
    total: AtomicU64,
    kept: AtomicU64,
    fetched: AtomicU64,
    came: AtomicU64,
    /// What is being done needs the disk, and nothing of the store.
    on_disk: AtomicBool,
    /// No request is under way: others have all slots.
    queued: AtomicBool,
}

impl FetchProgress {
    /// Bytes in all files.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Bytes that an earlier fetch had left in the staging folder and that verified.
    #[must_use]
    pub fn bytes_kept(&self) -> u64 {
        self.kept.load(Relaxed)
    }

    /// Bytes that came from the store, also of what is not whole or verified yet.
    #[must_use]
    pub fn bytes_that_came(&self) -> u64 {
        self.came.load(Relaxed)
    }

    /// Nothing is asked of the store at present: what was fetched before is verified, or all of it is written down.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        self.on_disk.load(Relaxed)
    }

    /// Nothing is asked of the store at present: other transfers have all slots.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        self.queued.load(Relaxed)
    }

    fn came(&self, bytes: u64) {
        self.came.fetch_add(bytes, Relaxed);
    }

    fn arrived(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Relaxed);
    }

    /// Bytes that came from the store, verified.
    #[must_use]
    pub fn bytes_fetched(&self) -> u64 {
        self.fetched.load(Relaxed)
    }
}

/// A restore that did not happen. Nothing of it is visible to the engine.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store holds other bytes than were saved: offer an older generation.
    #[error("{path} cannot be restored: {what} (pack {pack})")]
    Corrupt {
        /// The file that needs the bytes.
        path: String,
        /// The pack that should hold them.
        pack: ContentHash,
        /// What is wrong.
        what: String,
    },
    /// The manifest is not what its name says, or breaks the rules.
    #[error("manifest {hash}: {what}")]
    Manifest {
        /// Its name.
        hash: ContentHash,
        /// What is wrong.
        what: String,
    },
    /// The folder: disk full, a planted link, no permission.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The deadline came first. What was fetched stays and counts when it is tried again.
    #[error("out of time: {done} of {total} bytes are there")]
    OutOfTime {
        /// Bytes that are in the staging folder and verified.
        done: u64,
        /// Bytes in all files.
        total: u64,
    },
    /// The store.
    #[error("restore: {0}")]
    Store(StoreError),
}

/// Where generations are staged.
const STAGING: &str = ".lifeboat/restore";

/// The staging folder of a generation, beneath `.lifeboat/`.
#[must_use]
pub fn staging(generation: crate::key::GenerationNumber) -> String {
    format!("{STAGING}/{generation}")
}

/// Reads a manifest and verifies its name, its workload and, if there is a key, its MAC.
///
/// # Errors
/// [`RestoreError::Manifest`] for anything that is not as it should be; store errors.
pub async fn load_manifest(
    store: &Store,
    workload: &Workload,
    hash: ContentHash,
    mac_key: Option<&MacKey>,
    deadline: Instant,
) -> Result<Manifest, RestoreError> {
    let refuse = |what: String| RestoreError::Manifest { hash, what };
    let object = match retry::get(store.as_ref(), &workload.manifest(hash), BYTES_MAX, deadline).await {
        Ok(object) => object,
        Err(StoreError::NotFound { .. }) => return Err(refuse("it is not in the store".to_owned())),
        Err(StoreError::TimedOut { .. }) => return Err(RestoreError::OutOfTime { done: 0, total: 0 }),
        Err(error) => return Err(RestoreError::Store(error)),
    };
    if ContentHash::of(&object.bytes) != hash {
        return Err(refuse(format!("its {} bytes are not the ones it is named after", object.bytes.len())));
    }
    let manifest =
        Manifest::parse(&object.bytes, mac_key).map_err(|error: ManifestError| refuse(error.to_string()))?;
    if manifest.workload != *workload {
        return Err(refuse(format!("it belongs to {}", manifest.workload)));
    }
    Ok(manifest)
}

/// How fetched bytes are verified; always before anything of them is visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// By the CRC64 of each extent: what was damaged, cut off or swapped is found.
    Checksums,
    /// By the BLAKE3 names too, about a tenth of the CPU of a fetch: what was forged is found, if a MAC vouches for the manifest.
    /// Without one whoever can forge a pack can forge its manifest as well.
    Names,
}

/// What to fetch, and where to.
#[derive(Debug)]
pub struct FetchRequest<'a> {
    /// What: every file of it.
    pub manifest: &'a Manifest,
    /// The state volume, opened.
    pub folder: &'a Folder,
    /// A folder beneath `.lifeboat/` in it (see [`staging`]). What an earlier fetch left there is kept as far as it
    /// verifies.
    pub into: &'a str,
    /// What may have been fetched of another generation already: it is not fetched again.
    pub earlier: Option<Earlier<'a>>,
    /// How its bytes are verified.
    pub verify: Verify,
    /// Among several fetches the lower goes first.
    pub rank: u64,
    /// When it must be over.
    pub deadline: Instant,
}

/// Fetches every file of a manifest into the staging folder. Memory: for each slot of the `dispatcher` about 2 MiB.
///
/// # Errors
/// [`RestoreError`]; the bytes that did arrive stay for the next try.
pub async fn fetch(
    store: &Store,
    request: FetchRequest<'_>,
    dispatcher: &Dispatcher,
    progress: &Arc<FetchProgress>,
) -> Result<(), RestoreError> {
    let FetchRequest { manifest, folder, into, earlier, verify: _, rank, deadline } = request;
    let total = manifest.bytes_total();
    progress.total.store(total, Relaxed);
    progress.kept.store(0, Relaxed);
    progress.fetched.store(0, Relaxed);
    let out_of_time =
        || RestoreError::OutOfTime { done: progress.bytes_kept() + progress.bytes_fetched(), total };

    // Staging: one file after another, as it reads what is there.
    progress.on_disk.store(true, Relaxed);
    let mut missing = Vec::new();
    let kept = earlier.filter(|earlier| earlier.staging != into).map(|earlier| Arc::new(Kept::of(earlier)));
    for (index, file) in manifest.files.iter().enumerate() {
        let (folder, staged, file) = (folder.clone(), format!("{into}/{}", file.path), file.clone());
        let kept = kept.clone();
        let staging = blocking(move || {
            let missing = stage(&folder, &staged, &file)?;
            Ok(match kept {
                Some(kept) if !missing.is_empty() => kept.copy(&folder, &staged, &file, missing)?,
                _ => missing,
            })
        });
        let extents = timeout_at(deadline, staging).await.map_err(|_| out_of_time())??;
        let absent: u64 = extents.iter().map(|at| manifest.files[index].extents[*at].len).sum();
        progress.kept.fetch_add(manifest.files[index].size - absent, Relaxed);
        missing.extend(extents.into_iter().map(|extent| (index, extent)));
    }

    progress.on_disk.store(false, Relaxed);
    let work = Work { bytes: total - progress.bytes_kept(), cut_off: deadline };
    let job = Arc::new(dispatcher.enlist(Class::Fetch, rank, work));
    match timeout_at(deadline, fetch_runs(store, &request, &missing, &job, progress)).await {
        Ok(Err(RestoreError::Store(StoreError::TimedOut { .. }))) | Err(_) => return Err(out_of_time()),
        Ok(done) => done?,
    }

    progress.on_disk.store(true, Relaxed);
    let (folder, into, paths) = (folder.clone(), into.to_owned(), paths(manifest));
    let syncing = blocking(move || {
        for path in paths {
            let staged = format!("{into}/{path}");
            folder.read(&staged)?.sync_all().map_err(|error| io(&error, &staged, 0))?;
        }
        Ok(())
    });
    timeout_at(deadline, syncing).await.map_err(|_| out_of_time())?
}

/// Fetches what is missing, each run in a task of its own: what arrives is decrypted where it is polled, and one task would
/// use one core. Dropping this aborts them.
async fn fetch_runs(
    store: &Store,
    request: &FetchRequest<'_>,
    missing: &[(usize, usize)],
    job: &Arc<Job>,
    progress: &Arc<FetchProgress>,
) -> Result<(), RestoreError> {
    let mut running = JoinSet::new();
    let settle = |done: Result<Result<(), RestoreError>, tokio::task::JoinError>| {
        done.unwrap_or_else(|error| Err(RestoreError::Store(StoreError::permanent(error.to_string()))))
    };
    // Each path once: a hostile manifest has a long one and hundreds of thousands of extents.
    let paths: Vec<Arc<str>> = request.manifest.files.iter().map(|file| file.path.as_str().into()).collect();
    for run in plan::runs(request.manifest, missing, RANGE_MAX) {
        let granted = job.queue().granted();
        tokio::pin!(granted);
        let permit = loop {
            progress.queued.store(running.is_empty(), Relaxed);
            tokio::select! {
                permit = &mut granted => break permit,
                Some(done) = running.join_next() => settle(done)?,
            }
        };
        progress.queued.store(false, Relaxed);
        let (store, job, progress) = (Arc::clone(store), Arc::clone(job), Arc::clone(progress));
        let (folder, into) = (request.folder.clone(), request.into.to_owned());
        let key = request.manifest.workload.pack(run.pack);
        let files = &request.manifest.files;
        let pieces: Vec<(Arc<str>, Extent)> = run
            .extents
            .iter()
            .map(|(file, extent)| (Arc::clone(&paths[*file]), files[*file].extents[*extent].clone()))
            .collect();
        let (verify, deadline) = (request.verify, request.deadline);
        running.spawn(async move {
            let _permit = permit;
            one_run(&store, &key, (folder, into, verify), (run.pack, pieces), &job, deadline, &progress).await
        });
    }
    while let Some(done) = running.join_next().await {
        settle(done)?;
    }
    Ok(())
}

/// Renames the fetched files into place, with their mode and the folder's owner, and removes the staging folder.
/// Blocks for as long as renames and syncs take.
///
/// # Errors
/// [`RestoreError::Folder`] that names the file. What was renamed before it stays.
pub async fn install(folder: &Folder, staging: &str, manifest: &Manifest) -> Result<(), RestoreError> {
    let (folder, staging) = (folder.clone(), staging.to_owned());
    let files: Vec<(String, u32)> =
        manifest.files.iter().map(|file| (file.path.clone(), file.mode)).collect();
    blocking(move || {
        let mut folders = std::collections::BTreeSet::new();
        for (path, mode) in &files {
            if let Some((above, _)) = path.rsplit_once('/') {
                folder.create_dir_all(above)?;
                folders.insert(above.to_owned());
            }
            let staged = format!("{staging}/{path}");
            let file = folder.read(&staged)?;
            folder.set_mode(&file, &staged, *mode)?;
            folder.rename(&staged, path)?;
        }
        for above in &folders {
            folder.sync_dir(Some(above))?;
        }
        folder.sync_dir(None)?;
        // Ours whole, and what was fetched of other generations with it.
        let all = staging.rsplit_once('/').map(|(above, _)| above).filter(|above| *above == STAGING);
        folder.remove_tree(all.unwrap_or(&staging))?;
        Ok(())
    })
    .await
}

/// Makes sure that the staged file exists with its full size, and says which extents are not there yet.
fn stage(folder: &Folder, staged: &str, file: &FileEntry) -> Result<Vec<usize>, RestoreError> {
    match folder.write(staged) {
        Ok(present) if present.metadata().map_err(|error| io(&error, staged, 0))?.len() == file.size => {
            return missing_extents(&present, staged, file);
        }
        Ok(_) => folder.remove_tree(staged)?,
        Err(FolderError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if let Some((above, _)) = staged.rsplit_once('/') {
        folder.create_dir_all(above)?;
    }
    let created = folder.create(staged, 0o600)?;
    reserve(&created, file.size)
        .map_err(|error| io(&error, &format!("{}/{staged}", folder.describe()), file.size))?;
    Ok((0..file.extents.len()).collect())
}

/// Takes the space now: a disk that is too small is named before anything is fetched.
fn reserve(file: &File, size: u64) -> std::io::Result<()> {
    let length = i64::try_from(size).map_err(std::io::Error::other)?;
    if length == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        // Not every file system can; then the disk speaks up when it is written to.
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => file.set_len(size),
        other => other.map_err(std::io::Error::from),
    }
}

fn missing_extents(present: &File, staged: &str, file: &FileEntry) -> Result<Vec<usize>, RestoreError> {
    let mut missing = Vec::new();
    let mut buffer = Vec::new();
    for (index, extent) in file.extents.iter().enumerate() {
        // Bounded: an extent has at most 16 MiB.
        buffer.resize(usize::try_from(extent.len).unwrap_or(usize::MAX), 0);
        present.read_exact_at(&mut buffer, extent.offset).map_err(|error| io(&error, staged, 0))?;
        if !extent.holds(&buffer) {
            missing.push(index);
        }
    }
    Ok(missing)
}

/// Fetches one run of a pack into the files that its pieces belong to.
async fn one_run(
    store: &Store,
    key: &str,
    (folder, into, verify): (Folder, String, Verify),
    (pack, pieces): (ContentHash, Vec<(Arc<str>, Extent)>),
    job: &Job,
    deadline: Instant,
    progress: &Arc<FetchProgress>,
) -> Result<(), RestoreError> {
    let first = pieces.first().map_or_else(String::new, |(path, _)| path.to_string());
    let bytes = pieces.iter().map(|(_, extent)| extent.len).sum();
    let (within, under) = (folder.clone(), into.clone());
    let assembly = blocking(move || assemble(&within, &under, verify, pieces)).await?;
    source::read(store, key, assembly, job, deadline, progress).await.map_err(|failure| match failure {
        ReadFailure::Store(StoreError::NotFound { .. }) => {
            RestoreError::Corrupt { path: first, pack, what: "the pack is not in the store".to_owned() }
        }
        ReadFailure::Wrong(Wrong { path, what }) => {
            RestoreError::Corrupt { path: path.to_string(), pack, what }
        }
        ReadFailure::Folder(error) => {
            RestoreError::Folder(io(&error, &format!("{}/{into}/{first}", folder.describe()), bytes))
        }
        ReadFailure::Store(error) => RestoreError::Store(error),
    })
}

/// Opens the staged files of a run, each once.
fn assemble(
    folder: &Folder,
    into: &str,
    verify: Verify,
    pieces: Vec<(Arc<str>, Extent)>,
) -> Result<Assembly, RestoreError> {
    let mut files: BTreeMap<Arc<str>, Arc<File>> = BTreeMap::new();
    let mut opened = Vec::with_capacity(pieces.len());
    for (path, mut extent) in pieces {
        extent.blake3 = extent.blake3.filter(|_| verify == Verify::Names);
        let file = match files.get(&path) {
            Some(file) => Arc::clone(file),
            None => Arc::new(folder.write(&format!("{into}/{path}"))?),
        };
        files.insert(Arc::clone(&path), Arc::clone(&file));
        opened.push(Piece::new(path, file, extent));
    }
    Ok(Assembly::new(opened))
}

fn paths(manifest: &Manifest) -> Vec<String> {
    manifest.files.iter().map(|file| file.path.clone()).collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(RestoreError::Store(StoreError::Permanent { message: error.to_string() })),
    }
}

#[cfg(test)]
mod tests;
