//! What a set of manifests needs of the packs: every extent once, with the files that it is part of.

use checkpoint::hash::{ContentHash, Crc64};
use checkpoint::manifest::{Extent, Manifest};
use std::collections::{BTreeMap, HashMap};

/// An extent, and who needs it.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Where it lies in its pack, and its checksums.
    pub(super) extent: Extent,
    /// Indices into [`Names`].
    pub(super) users: Vec<u32>,
}

/// Place, length and checksums: what makes two extents of one pack the same.
type Key = (u64, u64, Crc64, Option<ContentHash>);

/// The extents of some manifests by pack, each once.
#[derive(Debug, Default)]
pub(super) struct WantedExtents {
    packs: BTreeMap<ContentHash, HashMap<Key, Piece>>,
    names: Names,
    entries: usize,
}

/// Files by number, as people read them: `LINEAGE/GENERATION PATH`.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<String>);

impl WantedExtents {
    /// Notes what a generation needs.
    pub(super) fn add(&mut self, generation: &str, manifest: &Manifest) {
        for file in &manifest.files {
            let user = u32::try_from(self.names.0.len()).unwrap_or(u32::MAX);
            self.entries += 1;
            self.names.0.push(format!("{generation} {}", file.path));
            for extent in &file.extents {
                let key = (extent.pack_offset, extent.len, extent.crc64, extent.blake3);
                let piece = self
                    .packs
                    .entry(extent.pack)
                    .or_default()
                    .entry(key)
                    .or_insert_with(|| Piece { extent: extent.clone(), users: Vec::new() });
                if piece.users.last() != Some(&user) {
                    piece.users.push(user);
                    self.entries += 1;
                }
            }
        }
    }

    /// How much is remembered: files, and extents by the files that need them.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// The packs with their pieces in the order in which they lie there, and the files' names.
    pub(super) fn into_parts(self) -> (Vec<(ContentHash, Vec<Piece>)>, Names) {
        let in_order = |pieces: HashMap<Key, Piece>| {
            let mut pieces: Vec<Piece> = pieces.into_values().collect();
            pieces.sort_unstable_by_key(|piece| piece.extent.pack_offset);
            pieces
        };
        let packs = self.packs.into_iter().map(|(pack, pieces)| (pack, in_order(pieces))).collect();
        (packs, self.names)
    }
}

impl Names {
    /// The names of these files, each once, in order.
    pub(super) fn of<'a>(&self, users: impl IntoIterator<Item = &'a u32>) -> Vec<String> {
        let mut users: Vec<u32> = users.into_iter().copied().collect();
        users.sort_unstable();
        users.dedup();
        users.into_iter().filter_map(|user| self.0.get(user as usize).cloned()).collect()
    }
}
