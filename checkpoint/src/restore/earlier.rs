//! What an earlier fetch left of another generation of the same state: extents that both have are copied from there.
//!
//! A replacement fetches its source's last committed generation while the next one is still being saved. Extents are the
//! same if they lie at the same place of the same pack; where in the file they were does not matter, as content-defined
//! chunks move. Each is verified like one that comes from the store, so that folder is not trusted either.

use std::{collections::BTreeMap, os::unix::fs::FileExt};

use crate::{
    folder::{Folder, FolderError, io},
    hash::ContentHash,
    manifest::{Extent, FileEntry, Manifest},
};

/// A generation that was fetched before, whole or in part.
#[derive(Debug, Clone, Copy)]
pub struct Earlier<'a> {
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Its staging folder. Its files are removed one by one as they are copied from: two copies of a state may be more
    /// than its volume may hold.
    pub staging: &'a str,
}

/// Where the extents of an earlier generation are, by their place in the store.
#[derive(Debug, Default)]
pub(super) struct Kept {
    staging: String,
    extents: BTreeMap<(ContentHash, u64, u64), (usize, u64)>,
    files: Vec<String>,
}

const fn place(extent: &Extent) -> (ContentHash, u64, u64) {
    (extent.pack, extent.pack_offset, extent.len)
}

impl Kept {
    pub(super) fn of(earlier: Earlier<'_>) -> Self {
        let mut kept = Self { staging: earlier.staging.to_owned(), ..Self::default() };
        for (index, file) in earlier.manifest.files.iter().enumerate() {
            kept.files.push(file.path.clone());
            kept.extents.extend(file.extents.iter().map(|extent| (place(extent), (index, extent.offset))));
        }
        kept
    }

    /// Copies what it has of the `missing` extents into the staged file, and returns the others. The file of the same
    /// name goes.
    pub(super) fn copy(
        &self,
        folder: &Folder,
        staged: &str,
        file: &FileEntry,
        missing: Vec<usize>,
    ) -> Result<Vec<usize>, FolderError> {
        let to = folder.write(staged)?;
        let mut open: BTreeMap<usize, Option<std::fs::File>> = BTreeMap::new();
        let (mut absent, mut buffer) = (Vec::new(), Vec::new());
        for index in missing {
            let extent = &file.extents[index];
            let at = self.extents.get(&place(extent));
            let from = at.and_then(|(of, offset)| {
                let from = open
                    .entry(*of)
                    .or_insert_with(|| folder.read(&format!("{}/{}", self.staging, self.files[*of])).ok());
                from.as_ref().map(|from| (from, *offset))
            });
            // Bounded: an extent has at most 16 MiB.
            buffer.resize(usize::try_from(extent.len).unwrap_or(usize::MAX), 0);
            let copied = from.is_some_and(|(from, offset)| {
                from.read_exact_at(&mut buffer, offset).is_ok() && extent.holds(&buffer)
            });
            if copied {
                to.write_all_at(&buffer, extent.offset).map_err(|error| io(&error, staged, file.size))?;
            } else {
                absent.push(index);
            }
        }
        drop(open);
        if self.files.contains(&file.path) {
            folder.remove_tree(&format!("{}/{}", self.staging, file.path))?;
        }
        Ok(absent)
    }
}
