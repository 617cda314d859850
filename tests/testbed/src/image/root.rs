//! The file system of an image: names, and where their contents come from.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use tar::{Builder, EntryType, Header};

/// A file system tree. Folders that only lead to something come by themselves.
#[derive(Debug, Default)]
pub(super) struct Root {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    Directory {
        mode: u32,
    },
    Link {
        target: String,
    },
    File {
        /// Opened when it was hashed: a build that replaces it meanwhile does not change what goes into the image.
        content: File,
        digest: blake3::Hash,
        mode: u32,
        without_symbols: bool,
    },
}

impl Root {
    /// An empty folder, or one with this mode.
    pub(super) fn directory(&mut self, path: &str, mode: u32) {
        self.entries.insert(relative(path), Entry::Directory { mode });
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.entries.insert(relative(path), Entry::Link { target: target.to_owned() });
    }

    /// A file of this machine. Links are followed; of its mode only whether it can be executed is kept.
    pub(super) fn file(&mut self, path: &str, source: &Path) -> Result<()> {
        self.add(path, source, false)
    }

    /// The same without its debug information, most of what a test build is made of.
    pub(super) fn program(&mut self, path: &str, source: &Path) -> Result<()> {
        self.add(path, source, true)
    }

    fn add(&mut self, path: &str, source: &Path, without_symbols: bool) -> Result<()> {
        let open = || -> io::Result<Entry> {
            let content = File::open(source)?;
            let executable = content.metadata()?.permissions().mode() & 0o111 != 0;
            let digest = blake3::Hasher::new().update_reader(&content)?.finalize();
            let mode = if executable { 0o755 } else { 0o644 };
            Ok(Entry::File { content, digest, mode, without_symbols })
        };
        let entry = open().with_context(|| format!("{} cannot be read for {path}", source.display()))?;
        self.entries.insert(relative(path), entry);
        Ok(())
    }

    /// Everything that the contents of the image depend on, as text.
    pub(super) fn inputs(&self) -> String {
        let mut inputs = String::new();
        for (path, entry) in &self.entries {
            let _ = match entry {
                Entry::Directory { mode } => writeln!(inputs, "directory {path:?} {mode:o}"),
                Entry::Link { target } => writeln!(inputs, "link {path:?} {target:?}"),
                Entry::File { digest, mode, without_symbols, .. } => {
                    writeln!(inputs, "file {path:?} {digest} {mode:o} {without_symbols}")
                }
            };
        }
        inputs
    }

    /// Writes it as a layer: sorted, with no time and no owner but root.
    pub(super) fn write(&self, out: impl Write) -> Result<()> {
        let mut layer = Builder::new(out);
        for (path, entry) in &self.with_parents() {
            let kind = match entry {
                Entry::Directory { .. } => EntryType::Directory,
                Entry::Link { .. } => EntryType::Symlink,
                Entry::File { .. } => EntryType::Regular,
            };
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            match entry {
                Entry::Directory { mode } => {
                    header.set_mode(*mode);
                    layer.append_data(&mut header, path, io::empty())?;
                }
                Entry::Link { target } => {
                    header.set_mode(0o777);
                    layer.append_link(&mut header, path, target)?;
                }
                Entry::File { content, mode, without_symbols, .. } => {
                    header.set_mode(*mode);
                    let stripped = if *without_symbols { strip(content)? } else { None };
                    let mut content = stripped.as_ref().unwrap_or(content);
                    content.rewind()?;
                    let bytes = content.metadata()?.len();
                    header.set_size(bytes);
                    layer
                        .append_data(&mut header, path, content.take(bytes))
                        .with_context(|| format!("cannot pack {path}"))?;
                }
            }
        }
        layer.finish()?;
        Ok(())
    }

    /// The entries and the folders that lead to them.
    fn with_parents(&self) -> BTreeMap<&str, &Entry> {
        const FOLDER: &Entry = &Entry::Directory { mode: 0o755 };
        let mut entries = BTreeMap::new();
        for (path, entry) in &self.entries {
            for (at, _) in path.match_indices('/') {
                entries.entry(&path[..at]).or_insert(FOLDER);
            }
            entries.insert(path.as_str(), entry);
        }
        entries
    }
}

/// A name as a layer has it.
fn relative(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// The program without its debug information, `None` where there is no `strip`: the image is only larger then.
fn strip(program: &File) -> Result<Option<File>> {
    use std::os::fd::AsRawFd as _;
    let out = tempfile::NamedTempFile::new()?;
    let opened = format!("/proc/{}/fd/{}", std::process::id(), program.as_raw_fd());
    let status = Command::new("strip")
        .arg("--strip-debug")
        .arg("-o")
        .args([out.path(), Path::new(&opened)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // By its path: `strip` may have put another file there.
    Ok(if status.is_ok_and(|status| status.success()) { Some(File::open(out.path())?) } else { None })
}
