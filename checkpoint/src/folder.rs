//! A directory opened so that nothing leads outside.
//!
//! A state volume belongs to a pod, and the pod may be hostile: it can plant symlinks, FIFOs, devices and hard links,
//! and swap any of them while we look. So every path is resolved by the kernel beneath the opened directory
//! (`openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV`), a file is looked at
//! through a descriptor that cannot block before it is opened to be read, and what was opened is checked again.

mod walk;

use std::{
    fs::File,
    io::Write,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2, renameat},
    sys::{
        stat::{Mode, fchmod, mkdirat},
        statvfs::fstatvfs,
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat},
};

use crate::{
    hash,
    path::{self, BadPath, OURS},
};

pub use self::walk::{Contents, FoundFile, SkippedEntry, WalkLimits};

/// Everything beneath, and nothing through a link or into another file system.
fn beneath() -> ResolveFlag {
    ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV
}

/// An opened directory. Clones share the descriptor.
#[derive(Debug, Clone)]
pub struct Folder {
    root: Arc<File>,
    /// For messages only.
    shown: Arc<str>,
    owner: (Uid, Gid),
    /// Permission bits of the directory itself: what is made beneath is never wider.
    mode: u32,
}

/// What could not be done in a folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FolderError {
    /// The path breaks the rules before the file system is asked.
    #[error(transparent)]
    Path(#[from] BadPath),
    /// The path leads through a symlink, outside, or into another file system.
    #[error("{path}: it leads through a link or outside the folder, and is left alone")]
    Outside {
        /// Folder and path.
        path: String,
    },
    /// Not a regular file, or one with a second name.
    #[error("{path}: {why}, and is left alone")]
    NotPlain {
        /// Folder and path.
        path: String,
        /// What it is.
        why: &'static str,
    },
    /// There is no such file or folder.
    #[error("{path}: it does not exist")]
    Missing {
        /// Folder and path.
        path: String,
    },
    /// The disk or the quota is full.
    #[error("{path}: no space left; {needed} bytes were needed")]
    DiskFull {
        /// Folder and path.
        path: String,
        /// Bytes that were to be written.
        needed: u64,
    },
    /// The kernel lacks `openat2`.
    #[error(
        "this kernel has no openat2, without which a volume cannot be opened safely: Linux 5.6 or newer is needed"
    )]
    Kernel,
    /// Anything else.
    #[error("{path}: {message}")]
    Io {
        /// Folder and path.
        path: String,
        /// What the system said.
        message: String,
    },
}

impl Folder {
    /// Opens the directory at `path`; its last component must not be a symlink.
    ///
    /// # Errors
    /// [`FolderError`]; [`FolderError::Kernel`] on kernels before 5.6.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let shown = path.display().to_string();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| failed(errno, &shown, 0))?;
        Self::around(root, shown)
    }

    /// Opens the directory `relative` beneath `root`: `root` is trusted (the kubelet's own folder), what is beneath is not.
    /// Mount points on the way are entered, as a volume may be one.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn open_beneath(root: &Path, relative: &str) -> Result<Self, FolderError> {
        path::check(relative)?;
        let shown = format!("{}/{relative}", root.display());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let trusted =
            nix::fcntl::open(root, flags, Mode::empty()).map_err(|errno| failed(errno, &shown, 0))?;
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags).resolve(resolve);
        let opened = openat2(&trusted, relative, how).map_err(|errno| failed(errno, &shown, 0))?;
        Self::around(opened, shown)
    }

    fn around(root: OwnedFd, shown: String) -> Result<Self, FolderError> {
        let root = File::from(root);
        let meta = root.metadata().map_err(|error| io(&error, &shown, 0))?;
        let folder = Self {
            root: Arc::new(root),
            shown: shown.into(),
            owner: (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid())),
            mode: meta.mode() & 0o777,
        };
        // Asked here, so that an old kernel is named at once and not at the first file.
        folder.at(".", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        Ok(folder)
    }

    /// The folder in words, for messages.
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.shown
    }

    /// Bytes that are free on its file system for us.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn free(&self) -> Result<u64, FolderError> {
        let stat = fstatvfs(&*self.root).map_err(|errno| self.failed(errno, "."))?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// The regular files beneath, without `.lifeboat/`, and what was left out and why. Blocks: not for an async task.
    ///
    /// # Errors
    /// If the folder itself cannot be listed. What is beneath is skipped with a reason instead.
    pub fn files(&self, limits: &WalkLimits) -> Result<Contents, FolderError> {
        walk::files(self, limits)
    }

    /// Opens a regular file with a single name to be read.
    ///
    /// # Errors
    /// [`FolderError::NotPlain`] for anything else; nothing here can hang on a FIFO.
    pub fn read(&self, path: &str) -> Result<File, FolderError> {
        self.open_plain(path, OFlag::O_RDONLY)
    }

    /// Opens an existing regular file with a single name to be read and written.
    ///
    /// # Errors
    /// As [`Folder::read`].
    pub fn write(&self, path: &str) -> Result<File, FolderError> {
        self.open_plain(path, OFlag::O_RDWR)
    }

    /// Creates a file that must not exist, with `mode` (nine bits) and the folder's owner. It can be read and written.
    ///
    /// # Errors
    /// [`FolderError::NotPlain`] if something has that name.
    pub fn create(&self, path: &str, mode: u32) -> Result<File, FolderError> {
        path::check(path)?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // Nobody but us until it has its owner.
        let how = OpenHow::new().flags(flags).mode(Mode::from_bits_truncate(0o600)).resolve(beneath());
        let file =
            openat2(&*self.root, path, how).map(File::from).map_err(|errno| self.failed(errno, path))?;
        self.give(&file, mode).map_err(|errno| self.failed(errno, path))?;
        Ok(file)
    }

    /// Creates a directory and those above it, with the folder's own mode and owner.
    ///
    /// # Errors
    /// [`FolderError::Outside`] if one of them is a link.
    pub fn create_dir_all(&self, path: &str) -> Result<(), FolderError> {
        path::check(path)?;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let (folder, name) = self.parent(&path[..end])?;
            match mkdirat(&folder, name, Mode::from_bits_truncate(0o700)) {
                Ok(()) => {
                    let made = self.at(&path[..end], OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                    self.give(&made, self.mode | 0o700).map_err(|errno| self.failed(errno, path))?;
                }
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(self.failed(errno, path)),
            }
        }
        Ok(())
    }

    /// Renames a file beneath this folder, in place of one that may be there.
    ///
    /// # Errors
    /// [`FolderError`] that names `to`.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), FolderError> {
        path::check(from)?;
        path::check(to)?;
        let (old, old_name) = self.parent(from)?;
        let (new, new_name) = self.parent(to)?;
        renameat(&old, old_name, &new, new_name).map_err(|errno| self.failed(errno, to))
    }

    /// Writes a small file of ours so that a reader sees the old one or the new one. It is not synced: the hold is
    /// rewritten every second and means nothing after a power cut.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn write_small_atomically(&self, path: &str, bytes: &[u8]) -> Result<(), FolderError> {
        path::check(path)?;
        let staged = format!("{path}.{}", &hash::nonce()[..12]);
        let mut file = self.create(&staged, 0o644)?;
        let written = file
            .write_all(bytes)
            .map_err(|error| io(&error, &self.show(path), bytes.len() as u64))
            .and_then(|()| self.rename(&staged, path));
        if written.is_err() {
            let _ = self.unlink(&staged, UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    /// Removes a tree of ours, beneath `.lifeboat/`. One that does not exist is removed already.
    ///
    /// # Errors
    /// [`FolderError`]; a path outside `.lifeboat/` is refused.
    pub fn remove_tree(&self, path: &str) -> Result<(), FolderError> {
        path::check(path)?;
        if !path.starts_with(&format!("{OURS}/")) {
            let why = "only what lies beneath .lifeboat/ is ours to remove";
            return Err(BadPath { path: path.to_owned(), why }.into());
        }
        walk::remove(self, path)
    }

    /// Syncs a directory beneath, so that names in it survive a power cut; `None` is the folder itself.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn sync_dir(&self, path: Option<&str>) -> Result<(), FolderError> {
        let folder = self.at(path.unwrap_or("."), OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        folder.sync_all().map_err(|error| io(&error, &self.show(path.unwrap_or(".")), 0))
    }

    /// Gives `file` the folder's owner (if we may) and `mode`.
    fn give(&self, file: &File, mode: u32) -> Result<(), Errno> {
        if geteuid().is_root() {
            fchown(file, Some(self.owner.0), Some(self.owner.1))?;
        }
        fchmod(file, Mode::from_bits_truncate(mode & 0o777))
    }

    /// Sets `mode` of an opened file (nine bits).
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn set_mode(&self, file: &File, path: &str, mode: u32) -> Result<(), FolderError> {
        fchmod(file, Mode::from_bits_truncate(mode & 0o777)).map_err(|errno| self.failed(errno, path))
    }

    /// Looks first, through a descriptor that neither blocks nor has side effects, then opens, then makes sure that
    /// it is the same file.
    fn open_plain(&self, path: &str, access: OFlag) -> Result<File, FolderError> {
        path::check(path)?;
        let refuse = |why| FolderError::NotPlain { path: self.show(path), why };
        let stat = |file: &File| file.metadata().map_err(|error| io(&error, &self.show(path), 0));
        let seen = stat(&self.at(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?)?;
        walk::plain(seen.mode(), seen.nlink()).map_err(refuse)?;
        let file = self.at(path, access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        let opened = stat(&file)?;
        walk::plain(opened.mode(), opened.nlink()).map_err(refuse)?;
        if (seen.dev(), seen.ino()) != (opened.dev(), opened.ino()) {
            return Err(refuse("it was swapped while it was opened"));
        }
        Ok(file)
    }

    /// Opens beneath the root; `path` is checked, or `.`.
    fn at(&self, path: &str, flags: OFlag) -> Result<File, FolderError> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(beneath());
        openat2(&*self.root, path, how).map(File::from).map_err(|errno| self.failed(errno, path))
    }

    /// The directory above `path`, and its last component.
    fn parent<'a>(&self, path: &'a str) -> Result<(File, &'a str), FolderError> {
        let (above, name) = path.rsplit_once('/').unwrap_or((".", path));
        Ok((self.at(above, OFlag::O_PATH | OFlag::O_DIRECTORY)?, name))
    }

    fn unlink(&self, path: &str, flag: UnlinkatFlags) -> Result<(), FolderError> {
        let (folder, name) = self.parent(path)?;
        unlinkat(folder.as_fd(), name, flag).map_err(|errno| self.failed(errno, path))
    }

    fn show(&self, path: &str) -> String {
        format!("{}/{path}", self.shown)
    }

    fn failed(&self, errno: Errno, path: &str) -> FolderError {
        failed(errno, &self.show(path), 0)
    }
}

fn failed(errno: Errno, path: &str, needed: u64) -> FolderError {
    let path = path.to_owned();
    match errno {
        Errno::ENOSYS => FolderError::Kernel,
        Errno::ELOOP | Errno::EXDEV => FolderError::Outside { path },
        Errno::ENOENT => FolderError::Missing { path },
        Errno::EEXIST => FolderError::NotPlain { path, why: "something has that name already" },
        Errno::ENXIO => FolderError::NotPlain { path, why: "it is a FIFO or a socket" },
        Errno::EISDIR => FolderError::NotPlain { path, why: "it is a directory" },
        Errno::ENOTDIR => FolderError::NotPlain { path, why: "something above it is not a directory" },
        Errno::ENOSPC | Errno::EDQUOT => FolderError::DiskFull { path, needed },
        other => FolderError::Io { path, message: other.desc().to_owned() },
    }
}

/// An I/O error of a file beneath, with the same names.
pub(crate) fn io(error: &std::io::Error, path: &str, needed: u64) -> FolderError {
    match error.raw_os_error() {
        Some(code) => failed(Errno::from_raw(code), path, needed),
        None => FolderError::Io { path: path.to_owned(), message: error.to_string() },
    }
}

fn modified(seconds: i64, nanoseconds: i64) -> Timestamp {
    i32::try_from(nanoseconds)
        .ok()
        .and_then(|nanos| Timestamp::new(seconds, nanos).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
