//! Going through a folder: to list it, and to remove what is ours.

use std::{ffi::CStr, fmt};

use jiff::Timestamp;
use nix::{
    dir::Dir,
    fcntl::{AtFlags, OFlag},
    sys::stat::fstatat,
    unistd::UnlinkatFlags,
};

use super::{Folder, FolderError, modified};
use crate::path::{DEPTH_MAX, OURS};

/// The most entries that are told as skipped; more are only counted.
const SKIPPED_MAX: usize = 1000;

/// How much of a folder is taken.
#[derive(Debug, Clone)]
pub struct WalkLimits {
    /// The most files.
    pub files: usize,
    /// The most bytes in all files together.
    pub bytes: u64,
    /// The largest single file, in bytes.
    pub file_bytes: u64,
}

impl Default for WalkLimits {
    fn default() -> Self {
        Self { files: 10_000, bytes: 1 << 40, file_bytes: 1 << 40 }
    }
}

/// What a folder holds.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The files, by path.
    pub files: Vec<FoundFile>,
    /// What was left out, at most 1000 of them.
    pub skipped: Vec<SkippedEntry>,
    /// How many were left out.
    pub skipped_total: usize,
}

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Its path below the folder.
    pub path: String,
    /// Its size in bytes when it was listed.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// When it was last written, by the node's file system.
    pub modified: Timestamp,
}

/// Something that is not saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedEntry {
    /// Its path, as far as it can be shown.
    pub path: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for SkippedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

impl Contents {
    fn skip(&mut self, path: String, why: impl Into<String>) {
        self.skipped_total += 1;
        if self.skipped.len() < SKIPPED_MAX {
            self.skipped.push(SkippedEntry { path, why: why.into() });
        }
    }
}

/// Whether a mode and link count are those of a plain file; if not, what it is.
pub(super) fn plain(mode: u32, links: u64) -> Result<(), &'static str> {
    use nix::libc;
    match mode & libc::S_IFMT {
        libc::S_IFREG if links == 1 => Ok(()),
        // A hard link may name a file that the pod could not read by itself.
        libc::S_IFREG => Err("it has a second name (hard link)"),
        libc::S_IFDIR => Err("it is a directory"),
        libc::S_IFLNK => Err("it is a symlink"),
        libc::S_IFIFO => Err("it is a FIFO"),
        libc::S_IFSOCK => Err("it is a socket"),
        libc::S_IFCHR | libc::S_IFBLK => Err("it is a device"),
        _ => Err("it is of an unknown kind"),
    }
}

pub(super) fn files(root: &Folder, limits: &WalkLimits) -> Result<Contents, FolderError> {
    let mut contents = Contents::default();
    let mut bytes = 0_u64;
    // Entries of any kind are counted: a million directories must end somewhere too.
    let mut entries_left = limits.files.saturating_mul(4).saturating_add(SKIPPED_MAX);
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let shown = if folder.is_empty() { "." } else { folder.as_str() };
        let opened = match root.at(shown, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW) {
            Ok(opened) => opened,
            Err(error) if folder.is_empty() => return Err(error),
            Err(error) => {
                contents.skip(folder, error.to_string());
                continue;
            }
        };
        let mut listing = Dir::from_fd(opened.into()).map_err(|errno| root.failed(errno, shown))?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            match entry {
                Ok(entry) if !matches!(entry.file_name().to_bytes(), b"." | b"..") => {
                    if entries_left == 0 {
                        contents
                            .skip(folder.clone(), "there are too many entries; the rest was not looked at");
                        folders.clear();
                        break;
                    }
                    entries_left -= 1;
                    names.push(entry.file_name().to_owned());
                }
                Ok(_) => {}
                Err(errno) => contents.skip(folder.clone(), errno.desc()),
            }
        }
        // Same files, same order, same packs: an interrupted save finds its own packs again.
        names.sort_unstable();
        for name in names {
            let Ok(path) = join(&folder, &name) else {
                contents.skip(format!("{folder}/{}", name.to_string_lossy()), "its name is not UTF-8");
                continue;
            };
            if path == OURS {
                continue;
            }
            let stat = match fstatat(&listing, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(errno) => {
                    contents.skip(path, errno.desc());
                    continue;
                }
            };
            if stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR {
                if path.split('/').count() < DEPTH_MAX {
                    folders.push(path);
                } else {
                    contents.skip(path, "it is nested too deep");
                }
                continue;
            }
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            if let Err(why) = plain(stat.st_mode, stat.st_nlink as u64) {
                contents.skip(path, why);
            } else if contents.files.len() == limits.files {
                contents.skip(path, format!("there are more than {} files", limits.files));
            } else if size > limits.file_bytes {
                contents
                    .skip(path, format!("it has {size} bytes, at most {} are allowed", limits.file_bytes));
            } else if bytes.saturating_add(size) > limits.bytes {
                contents
                    .skip(path, format!("together with the others it is more than {} bytes", limits.bytes));
            } else {
                bytes += size;
                let modified = modified(stat.st_mtime, stat.st_mtime_nsec);
                contents.files.push(FoundFile { path, size, mode: stat.st_mode & 0o777, modified });
            }
        }
    }
    contents.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(contents)
}

/// Removes a tree from the bottom up. Links in it are removed, never followed.
pub(super) fn remove(root: &Folder, path: &str) -> Result<(), FolderError> {
    match root.unlink(path, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(FolderError::Missing { .. }) => return Ok(()),
        Err(FolderError::NotPlain { .. }) => {}
        Err(error) => return Err(error),
    }
    let opened = root.at(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)?;
    let mut listing = Dir::from_fd(opened.into()).map_err(|errno| root.failed(errno, path))?;
    let names: Vec<_> = listing.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
    drop(listing);
    for name in names {
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let below = join(path, &name).map_err(|()| FolderError::NotPlain {
            path: root.show(path),
            why: "a name in it is not UTF-8: it was not written by us",
        })?;
        crate::path::check(&below)?;
        remove(root, &below)?;
    }
    root.unlink(path, UnlinkatFlags::RemoveDir)
}

fn join(folder: &str, name: &CStr) -> Result<String, ()> {
    let name = name.to_str().map_err(|_| ())?;
    Ok(if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") })
}
