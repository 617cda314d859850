//! The files of a tree, by their paths from its root.
//!
//! Reads everything once. It does not know what a file means.

use crate::StructureError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The variable that names another tree to judge.
pub const ROOT: &str = "LIFEBOAT_STRUCTURE_ROOT";

/// The text files of a checkout, or of a tree that a test has planted.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// A tree that exists only here.
    pub fn planted<const N: usize>(files: [(&str, &str); N]) -> Self {
        Self { files: files.map(|(path, text)| (path.to_owned(), text.to_owned())).into() }
    }

    /// This checkout, or the one that [`ROOT`] names.
    pub fn of_checkout() -> Result<Self, StructureError> {
        let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Self::read(&std::env::var_os(ROOT).map_or_else(here, PathBuf::from))
    }

    /// Every text file below `root`, without hidden ones and without what cargo has built.
    pub fn read(root: &Path) -> Result<Self, StructureError> {
        let mut tree = Self::default();
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    fn read_folder(&mut self, folder: &Path, name: &str) -> Result<(), StructureError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StructureError::Read { path, source }
        };
        for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
            let entry = entry.map_err(failed(folder))?;
            let path = entry.path();
            // A name that is not UTF-8 is no source of ours.
            let Ok(file) = entry.file_name().into_string() else { continue };
            if file.starts_with('.') {
                continue;
            }
            let below = if name.is_empty() { file } else { format!("{name}/{file}") };
            let kind = entry.file_type().map_err(failed(&path))?;
            if kind.is_dir() {
                // `target`, or whatever else CARGO_TARGET_DIR names: cargo puts this file into it.
                if !path.join("CACHEDIR.TAG").exists() {
                    self.read_folder(&path, &below)?;
                }
            } else if kind.is_file()
                && let Ok(text) = String::from_utf8(std::fs::read(&path).map_err(failed(&path))?)
            {
                self.files.insert(below, text);
            }
        }
        Ok(())
    }

    /// One file.
    pub fn file(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// All files, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The files at `place` and below it.
    pub fn below<'a>(&'a self, place: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files().filter(move |(path, _)| is_below(path, place))
    }
}

/// Is `path` the file or folder `place`, or in it?
pub fn is_below(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
