//! What the bytes in the packs mean: the document that a generation names.

use std::collections::HashSet;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    bounded,
    document::{self, DocumentError},
    fingerprint::Fingerprint,
    hash::{ContentHash, Crc64},
    key::{GenerationNumber, LineageId, Workload},
    path,
};

mod mac;
pub use mac::MacKey;

/// The version that this lifeboat writes and knows.
pub const FORMAT: u64 = 1;
/// The largest manifest, in bytes: about 250,000 extents.
pub const BYTES_MAX: u64 = 64 * crate::MIB;
/// The most files in one manifest.
pub const FILES_MAX: usize = 100_000;
/// The longest extent, in bytes; a fetch holds at least one in memory.
pub const EXTENT_MAX: u64 = 16 * crate::MIB;
/// The largest pack, in bytes.
pub const PACK_MAX: u64 = 1024 * crate::MIB;
/// The most values in the engine's own facts (a 256 K token context has as many).
const ENGINE_VALUES_MAX: usize = 1_000_000;
const KIND: &str = "manifest";

/// One whole state of one replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`]; the first field of the document.
    pub format: u64,
    /// Whose state this is.
    pub workload: Workload,
    /// Of which replica.
    pub lineage: LineageId,
    /// The pod it was saved from.
    pub source: Source,
    /// The revision of the workload that the pod belonged to, as its controller calls it.
    pub revision: String,
    /// Digest of the distilled pod template: chooses what to prefetch before the engine runs.
    pub spec_key: String,
    /// What must match before the state is handed over.
    pub fingerprint: Fingerprint,
    /// The notice under which it was saved, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice_id: Option<String>,
    /// The generation this one was built on: its packs may be named here again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// When it was written, by the writer's clock: for people. No decision is made on it.
    pub created: Timestamp,
    /// Not all of the state: the engine can use what is here.
    pub partial: bool,
    /// The engine adapter's own facts (slots, tokens). Opaque to this crate.
    #[serde(default, deserialize_with = "bounded::object::<_, ENGINE_VALUES_MAX>")]
    pub engine: Map<String, Value>,
    /// The files.
    #[serde(deserialize_with = "bounded::list::<_, _, FILES_MAX>")]
    pub files: Vec<FileEntry>,
    /// Keyed hash over everything before it; filled in by [`Manifest::encode`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// The pod that a state was saved from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Uid of the pod.
    pub uid: String,
    /// The node it ran on.
    pub node: String,
}

/// The generation that another one was built on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// Its lineage (another one, where a new pod of a Deployment took over).
    pub lineage: LineageId,
    /// Its place there.
    pub generation: GenerationNumber,
}

/// One file of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path below the state volume.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits (the low nine).
    pub mode: u32,
    /// Where its bytes are, in order and without gaps.
    pub extents: Vec<Extent>,
}

/// A run of a file's bytes in a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// The pack that holds it.
    pub pack: ContentHash,
    /// Offset in the pack, in bytes.
    pub pack_offset: u64,
    /// Checksum of these bytes.
    pub crc64: Crc64,
    /// Name of these bytes, by which a later generation recognises them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<ContentHash>,
}

impl Extent {
    /// Whether `bytes` are this extent's bytes.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.len
            && Crc64::of(bytes) == self.crc64
            && self.blake3.is_none_or(|hash| ContentHash::of(bytes) == hash)
    }
}

/// A manifest that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Its version, shape or size.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A path in it.
    #[error("the manifest is refused: {0}")]
    Path(#[from] path::BadPath),
    /// An extent in it, or how they fit together.
    #[error("the manifest is refused: {path:?}: {why}")]
    Layout {
        /// Which file.
        path: String,
        /// What does not fit.
        why: &'static str,
    },
    /// The operator's key does not vouch for it.
    #[error("the manifest is refused: {0}")]
    Mac(&'static str),
}

impl Manifest {
    /// The bytes to store, signed if there is a key, and their name.
    ///
    /// # Errors
    /// What [`Manifest::parse`] would refuse is not written either.
    pub fn encode(&self, key: Option<&MacKey>) -> Result<(Bytes, ContentHash), ManifestError> {
        self.check()?;
        let unsigned = Self { mac: None, ..self.clone() };
        let mut bytes = document::encode(KIND, BYTES_MAX - mac::LENGTH, &unsigned)?;
        if let Some(key) = key {
            bytes = key.sign(&bytes);
        }
        let name = ContentHash::of(&bytes);
        Ok((bytes, name))
    }

    /// Reads a manifest that may be hostile.
    ///
    /// # Errors
    /// [`ManifestError`]: an unknown version, another shape, a path or an extent that leads elsewhere, or, if there is a
    /// key, a missing or wrong MAC.
    pub fn parse(bytes: &[u8], key: Option<&MacKey>) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > BYTES_MAX {
            let message = format!("{} bytes, at most {BYTES_MAX} are allowed", bytes.len());
            return Err(DocumentError::TooLarge { kind: KIND, message }.into());
        }
        if let Some(key) = key {
            key.verify(bytes).map_err(ManifestError::Mac)?;
        }
        let manifest: Self = document::parse(KIND, FORMAT, bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The sum of the files' sizes, in bytes.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }

    /// The packs that this manifest needs, each once.
    #[must_use]
    pub fn packs(&self) -> HashSet<ContentHash> {
        self.files.iter().flat_map(|file| &file.extents).map(|extent| extent.pack).collect()
    }

    /// Leaves out the files that lie on these packs, if only in part, and says that it is partial if there are any.
    /// Returns how many there were.
    pub fn leave_out(&mut self, packs: &[ContentHash]) -> usize {
        let (all, packs) = (self.files.len(), packs.iter().collect::<HashSet<_>>());
        self.files.retain(|file| file.extents.iter().all(|extent| !packs.contains(&extent.pack)));
        let left_out = all - self.files.len();
        self.partial |= left_out > 0;
        left_out
    }

    fn check(&self) -> Result<(), ManifestError> {
        if self.files.len() > FILES_MAX {
            let message = format!("{} files, at most {FILES_MAX} are allowed", self.files.len());
            return Err(DocumentError::TooLarge { kind: KIND, message }.into());
        }
        let mut paths = HashSet::with_capacity(self.files.len());
        let mut total = 0_u64;
        for file in &self.files {
            path::check_state(&file.path)?;
            let refuse = |why| ManifestError::Layout { path: file.path.chars().take(120).collect(), why };
            if !paths.insert(file.path.as_str()) {
                return Err(refuse("it is named twice"));
            }
            total = total.checked_add(file.size).ok_or_else(|| refuse("the sizes overflow"))?;
            file.check().map_err(refuse)?;
        }
        for file in &self.files {
            let mut parent = file.path.as_str();
            while let Some((above, _)) = parent.rsplit_once('/') {
                if paths.contains(above) {
                    let path = file.path.chars().take(120).collect();
                    return Err(ManifestError::Layout {
                        path,
                        why: "a folder above it is also named as a file",
                    });
                }
                parent = above;
            }
        }
        Ok(())
    }
}

impl FileEntry {
    fn check(&self) -> Result<(), &'static str> {
        if self.mode > 0o777 {
            return Err("its mode has more than permission bits");
        }
        let mut at = 0_u64;
        for extent in &self.extents {
            if extent.offset != at {
                return Err("its extents have a gap or overlap");
            }
            if extent.len == 0 || extent.len > EXTENT_MAX {
                return Err("an extent is empty or longer than 16 MiB");
            }
            match extent.pack_offset.checked_add(extent.len) {
                Some(end) if end <= PACK_MAX => {}
                _ => return Err("an extent lies outside its pack"),
            }
            at = at.checked_add(extent.len).ok_or("its size overflows")?;
        }
        if at != self.size {
            return Err("its extents do not add up to its size");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
