//! The same semantics on a folder: for drills, tests, and a file system that nodes share.
//!
//! ```text
//! <root>/objects/<key>      an object, whole, as its bytes
//! <root>/tmp/<nonce>        being written; linked or renamed into place when it is complete and synced
//! <root>/lock/<two hex>     flock: held only between comparing a version and moving the new file into place
//! ```
//!
//! * If-absent is `link(2)`, which fails if the name exists: atomic across processes and, on NFS, across machines.
//! * If-match compares under the lock and renames.
//! * A version is the file's modification time, inode and size. Whoever replaces an object makes its time later than
//!   the one before, under the lock, so that a version never comes again.
//! * Removing compares under the same lock. The folders stay: one that was found empty may be just about to be written
//!   into, and a writer that finds its folder gone would fail.
//! * The store's clock is the file system's: a file is made and its time stamp is read.

use std::{
    fs::{self, File, FileTimes},
    io::{self, ErrorKind, Read, Write},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::{
    Body, ByteStream, Condition, LIST_MAX, Listed, Object, ObjectStore, Removal, StoreError, Version,
    body::too_large,
};
use crate::hash::{ContentHash, nonce};

/// What a crashed writer left behind is removed after this time.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);
/// No file system that a store lies on tells time more coarsely (a kernel tick; NFS and ext4 have it so).
const TICK: Duration = Duration::from_millis(20);
/// A range is read in steps of so many bytes.
const STEP: usize = 1024 * 1024;

/// A store in a folder. See the module.
#[derive(Debug, Clone)]
pub struct DirectoryStore {
    root: PathBuf,
}

impl DirectoryStore {
    /// Opens the store in `root`, which must exist.
    ///
    /// # Errors
    /// [`StoreError::NoSuchBucket`] if it does not, [`StoreError::Denied`] if it cannot be written to.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        if !root.is_dir() {
            return Err(StoreError::NoSuchBucket { bucket: root.display().to_string() });
        }
        for folder in ["objects", "tmp", "lock"] {
            fs::create_dir_all(root.join(folder))
                .map_err(|error| classify(&error, &root.display().to_string()))?;
        }
        let store = Self { root };
        store.sweep();
        Ok(store)
    }

    /// Removes what crashed writers left. Failing to is no reason not to start.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.root.join("tmp")) else { return };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|meta| meta.modified()).map(|modified| modified.elapsed());
            if matches!(age, Ok(Ok(age)) if age > LEFT_BEHIND) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn object(&self, key: &str) -> Result<PathBuf, StoreError> {
        // A component that begins with a dot is never part of a key, and could be "..".
        let plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains('\0');
        if !key.split('/').all(plain) {
            return Err(StoreError::permanent(format!(
                "{key:?} is not a key: a component is empty or begins with '.'"
            )));
        }
        Ok(self.root.join("objects").join(key))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(done) => done.map_err(|error| classify(&error, key)),
            Err(error) => Err(StoreError::transient(format!("{key}: {error}"))),
        }
    }

    /// Writes the bytes where no reader looks, complete and synced.
    fn stage(&self, body: &[u8]) -> io::Result<Staged> {
        let path = self.root.join("tmp").join(nonce());
        let mut file = File::create_new(&path)?;
        // From here on the file is removed whatever happens.
        let staged = Staged { path, file: file.try_clone()? };
        file.write_all(body)?;
        file.sync_all()?;
        Ok(staged)
    }

    fn lock(&self, key: &str) -> io::Result<File> {
        let stripe = &ContentHash::of(key.as_bytes()).to_string()[..2];
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.root.join("lock").join(stripe))?;
        file.lock()?;
        Ok(file)
    }

    fn write(&self, key: &str, path: &Path, body: &[u8], condition: &Condition) -> io::Result<Put> {
        let staged = self.stage(body)?;
        let parent = path.parent().unwrap_or(&self.root);
        create_folders(&self.root, parent)?;
        let put = match condition {
            Condition::IfAbsent => match fs::hard_link(&staged.path, path) {
                Ok(()) => Put::Done(version(&staged.file.metadata()?)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Put::Refused,
                Err(error) => return Err(error),
            },
            Condition::Always | Condition::IfMatch(_) => {
                let _lock = self.lock(key)?;
                let present = match fs::metadata(path) {
                    Ok(meta) => Some(meta),
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    Err(error) => return Err(error),
                };
                if let Condition::IfMatch(expected) = condition
                    && present.as_ref().map(version).as_ref() != Some(expected)
                {
                    return Ok(Put::Refused);
                }
                if let Some(before) = present.map(|meta| meta.modified()).transpose()? {
                    staged.be_later_than(before)?;
                }
                fs::rename(&staged.path, path)?;
                Put::Done(version(&staged.file.metadata()?))
            }
        };
        File::open(parent)?.sync_all()?;
        Ok(put)
    }

    fn remove(&self, key: &str, path: &Path, expected: &Version) -> io::Result<bool> {
        let _lock = self.lock(key)?;
        let present = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        if version(&present) != *expected {
            return Ok(false);
        }
        // The next file may get this one's inode. Removed a tick later, it cannot get its time too, so the version
        // never comes again.
        let written = present.modified()?;
        if self.stage(b"")?.file.metadata()?.modified()?.duration_since(written).is_ok_and(|age| age < TICK) {
            std::thread::sleep(TICK);
        }
        fs::remove_file(path)?;
        File::open(path.parent().unwrap_or(&self.root))?.sync_all()?;
        Ok(true)
    }

    /// The file system's clock: on a shared one, its server's.
    fn clock(&self) -> io::Result<Timestamp> {
        let staged = self.stage(b"")?;
        modified(&staged.file.metadata()?)
    }
}

enum Put {
    Done(Version),
    Refused,
}

/// A file in `tmp/` that is removed unless it was renamed away.
struct Staged {
    path: PathBuf,
    file: File,
}

impl Staged {
    fn be_later_than(&self, before: SystemTime) -> io::Result<()> {
        if self.file.metadata()?.modified()? <= before {
            self.file.set_times(FileTimes::new().set_modified(before + Duration::from_micros(1)))?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[async_trait]
impl ObjectStore for DirectoryStore {
    async fn put(&self, key: &str, body: Body, condition: Condition) -> Result<Version, StoreError> {
        let path = self.object(key)?;
        let name = key.to_owned();
        match self.blocking(key, move |store| store.write(&name, &path, &body.bytes, &condition)).await? {
            Put::Done(version) => Ok(version),
            Put::Refused => Err(StoreError::ConditionFailed { key: key.to_owned() }),
        }
    }

    async fn get(&self, key: &str, at_most: u64) -> Result<Object, StoreError> {
        let path = self.object(key)?;
        let read = self.blocking(key, move |store| {
            let file = File::open(path)?;
            let meta = file.metadata()?;
            if meta.len() > at_most {
                return Ok(Err(meta.len()));
            }
            let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
            file.take(at_most).read_to_end(&mut bytes)?;
            Ok(Ok(Object {
                bytes: bytes.into(),
                version: version(&meta),
                modified: modified(&meta)?,
                store_now: store.clock()?,
            }))
        });
        read.await?.map_err(|size| too_large(key, size, at_most))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let path = self.object(key)?;
        let opened = self.blocking(key, move |_| {
            let file = File::open(path)?;
            let end = range.end.min(file.metadata()?.len());
            Ok((Arc::new(file), range.start..end))
        });
        let (file, range) = opened.await?;
        let (store, name) = (self.clone(), key.to_owned());
        let steps = (range.start..range.end).step_by(STEP).map(move |start| (start, range.end));
        let frames = stream::iter(steps).then(move |(start, end)| {
            let (store, name, file) = (store.clone(), name.clone(), Arc::clone(&file));
            async move {
                let read = store.blocking(&name, move |_| {
                    let len = usize::try_from(end - start).map_or(STEP, |left| left.min(STEP));
                    let mut bytes = vec![0; len];
                    file.read_exact_at(&mut bytes, start)?;
                    Ok(Bytes::from(bytes))
                });
                read.await
            }
        });
        Ok(frames.into_stream().boxed())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        // Prefixes end at a component, as all of ours do; the last component may be cut short.
        let (folder, _) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let start = if folder.is_empty() { self.root.join("objects") } else { self.object(folder)? };
        let wanted = prefix.to_owned();
        let mut listed = self
            .blocking(prefix, move |store| {
                let objects = store.root.join("objects");
                let mut listed = Vec::new();
                let mut folders = vec![start];
                while let Some(folder) = folders.pop() {
                    let entries = match fs::read_dir(&folder) {
                        Ok(entries) => entries,
                        Err(error) if error.kind() == ErrorKind::NotFound => continue,
                        Err(error) => return Err(error),
                    };
                    for entry in entries {
                        let path = entry?.path();
                        let Some(key) = path.strip_prefix(&objects).ok().and_then(Path::to_str) else {
                            continue;
                        };
                        let meta = match fs::symlink_metadata(&path) {
                            Ok(meta) => meta,
                            Err(error) if error.kind() == ErrorKind::NotFound => continue,
                            Err(error) => return Err(error),
                        };
                        if meta.is_dir() {
                            folders.push(path);
                        } else if meta.is_file() && key.starts_with(&wanted) {
                            if listed.len() == LIST_MAX {
                                return Ok(Err(()));
                            }
                            let (version, modified) = (version(&meta), modified(&meta)?);
                            listed.push(Listed { key: key.to_owned(), size: meta.len(), version, modified });
                        }
                    }
                }
                Ok(Ok(listed))
            })
            .await?
            .map_err(|()| too_many(prefix))?;
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.blocking("the clock", Self::clock).await
    }

    fn describe(&self) -> String {
        format!("dir:{}", self.root.display())
    }
}

#[async_trait]
impl Removal for DirectoryStore {
    async fn delete(&self, key: &str, version: &Version) -> Result<(), StoreError> {
        let path = self.object(key)?;
        let (name, version) = (key.to_owned(), version.clone());
        if self.blocking(key, move |store| store.remove(&name, &path, &version)).await? {
            Ok(())
        } else {
            Err(StoreError::ConditionFailed { key: key.to_owned() })
        }
    }
}

pub(super) fn too_many(prefix: &str) -> StoreError {
    StoreError::permanent(format!(
        "more than {LIST_MAX} objects begin with {prefix}: garbage is not collected there, or a lifecycle rule is missing (docs/garbage.md)"
    ))
}

/// Creates `folder` below `root` so that it is there after a power cut too.
fn create_folders(root: &Path, folder: &Path) -> io::Result<()> {
    if folder == root || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(root);
    create_folders(root, parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => File::open(parent)?.sync_all(),
    }
}

fn version(meta: &fs::Metadata) -> Version {
    Version(format!("{:x}.{:x}-{:x}-{:x}", meta.mtime(), meta.mtime_nsec(), meta.ino(), meta.len()))
}

fn modified(meta: &fs::Metadata) -> io::Result<Timestamp> {
    Timestamp::try_from(meta.modified()?).map_err(io::Error::other)
}

fn classify(error: &io::Error, key: &str) -> StoreError {
    match error.kind() {
        ErrorKind::NotFound => StoreError::NotFound { key: key.to_owned() },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            StoreError::Denied { key: key.to_owned(), message: error.to_string() }
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::permanent(format!(
            "the store's file system is full: {error}; free some space or enlarge it"
        )),
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidFilename => {
            StoreError::permanent(format!("{key} cannot be a file: {error}"))
        }
        _ => StoreError::transient(format!("{key}: {error}")),
    }
}

#[cfg(test)]
mod tests;
