//! Packs back to files: fetched into a staging folder, every extent verified, then renamed into place.
//!
//! ```text
//!   manifest ─► extents by pack ─► runs of neighbours ─► ranged GET ─► CRC64 + BLAKE3 ─► pwrite
//!                                                                          │
//!                               .lifeboat/restore/<generation>/<path>  ◄───┘   fetch: may be repeated, keeps what is good
//!                               <path>                                 ◄─────  install: mode, owner, rename
//! ```
//!
//! The folder belongs to a pod that may be hostile and the manifest to whoever can write to the bucket, so paths are
//! resolved beneath the folder and sizes are bounded by the manifest's rules.

mod plan;
mod source;

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use nix::fcntl::{FallocateFlags, fallocate};
use tokio::time::{Instant, timeout_at};

use self::plan::Run;
use crate::{
    folder::{Folder, FolderError, io},
    hash::ContentHash,
    key::Workload,
    manifest::{BYTES_MAX, Extent, FileEntry, MacKey, Manifest, ManifestError},
    path::OURS,
    retry,
    store::{Store, StoreError},
};

/// The longest single GET, in bytes.
pub const RANGE_MAX: u64 = 8 * crate::MIB;
/// GETs at the same time, unless the caller says otherwise. Together with [`RANGE_MAX`] this bounds memory (an
/// extent alone may have 16 MiB).
pub const PARALLEL: usize = 8;

/// What a fetch has done so far, in bytes.
#[derive(Debug, Default)]
pub struct FetchProgress {
    total: AtomicU64,
    kept: AtomicU64,
    fetched: AtomicU64,
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

/// The staging folder of a generation, beneath `.lifeboat/`.
#[must_use]
pub fn staging(generation: crate::key::GenerationNumber) -> String {
    format!("{OURS}/restore/{generation}")
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

/// Fetches every file of `manifest` into `into`, a folder beneath `.lifeboat/` (see [`staging`]). What an
/// earlier fetch left there is kept as far as it verifies.
///
/// # Errors
/// [`RestoreError`]; the bytes that did arrive stay for the next try.
pub async fn fetch(
    store: &Store,
    manifest: &Manifest,
    folder: &Folder,
    into: &str,
    parallel: usize,
    deadline: Instant,
    progress: &Arc<FetchProgress>,
) -> Result<(), RestoreError> {
    let total = manifest.bytes_total();
    progress.total.store(total, Relaxed);
    progress.kept.store(0, Relaxed);
    progress.fetched.store(0, Relaxed);
    let out_of_time =
        || RestoreError::OutOfTime { done: progress.bytes_kept() + progress.bytes_fetched(), total };

    // Staging: one file after another, as it reads what is there.
    let mut missing = Vec::new();
    for (index, file) in manifest.files.iter().enumerate() {
        let (folder, staged, file) = (folder.clone(), format!("{into}/{}", file.path), file.clone());
        let extents = timeout_at(deadline, blocking(move || stage(&folder, &staged, &file)))
            .await
            .map_err(|_| out_of_time())??;
        let absent: u64 = extents.iter().map(|at| manifest.files[index].extents[*at].len).sum();
        progress.kept.fetch_add(manifest.files[index].size - absent, Relaxed);
        missing.extend(extents.into_iter().map(|extent| (index, extent)));
    }

    let runs = plan::runs(manifest, &missing, RANGE_MAX);
    let work = stream::iter(runs)
        .map(|run| one_run(store, manifest, folder, into, run, deadline, progress))
        .buffer_unordered(parallel.max(1))
        .try_collect::<()>();
    match timeout_at(deadline, work).await {
        Ok(Err(RestoreError::Store(StoreError::TimedOut { .. }))) | Err(_) => return Err(out_of_time()),
        Ok(done) => done?,
    }

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
        folder.remove_tree(&staging)?;
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

/// Fetches one run of a pack, verifies it, and writes its extents.
async fn one_run(
    store: &Store,
    manifest: &Manifest,
    folder: &Folder,
    into: &str,
    run: Run,
    deadline: Instant,
    progress: &Arc<FetchProgress>,
) -> Result<(), RestoreError> {
    let pieces: Vec<(String, Extent)> = run
        .extents
        .iter()
        .map(|(file, extent)| {
            (manifest.files[*file].path.clone(), manifest.files[*file].extents[*extent].clone())
        })
        .collect();
    let bytes = source::verified(store, &manifest.workload, &run, pieces.clone(), deadline).await?;
    let (folder, into, progress) = (folder.clone(), into.to_owned(), Arc::clone(progress));
    blocking(move || {
        for (path, extent) in pieces {
            let staged = format!("{into}/{path}");
            let piece = slice(&bytes, &run, &extent);
            let file = folder.write(&staged)?;
            file.write_all_at(&piece, extent.offset).map_err(|error| {
                RestoreError::Folder(io(&error, &format!("{}/{staged}", folder.describe()), extent.len))
            })?;
            progress.fetched.fetch_add(extent.len, Relaxed);
        }
        Ok(())
    })
    .await
}

/// The bytes of an extent in a run that is complete.
fn slice(bytes: &Bytes, run: &Run, extent: &Extent) -> Bytes {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(
        at(extent.pack_offset - run.range.start)..at(extent.pack_offset + extent.len - run.range.start),
    )
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
