//! The mark on a pack or a manifest that nothing names any more, for as long as it may not be named again.
//!
//! ```text
//!            marked                  a grace later                    a burial later
//!   object   ─────────────────────── removed
//!   tombstone ├──── nobody names it ────┤ written anew, ├── the name stays ──┤ removed
//!             │     any more            │ then the      │   out of use: a    │
//!                                         object goes       late DELETE finds nothing
//! ```
//!
//! One rule binds every writer: **a name that bears a tombstone is not given to anything, and no new manifest names it**
//! ([`crate::reuse`]). So once a tombstone has stood for longer than the longest evacuation, whoever was about to name
//! the object without having seen it has committed, and the collector's look finds that commit; nobody else can come. Two
//! collectors that look at different moments therefore find the same.
//!
//! Conditional deletes cannot give this: a pack that is sent again has the same bytes, and on S3 so the same ETag.
//!
//! The document, format 1, is at `tombstone/pack-<blake3>` or `tombstone/manifest-<blake3>`:
//!
//! ```text
//! {"format":1, "subject":"pack-<blake3>", "collector":"<who>", "nonce":"<unlike in any other>"}
//! ```
//!
//! Its age by the store's clock is what counts. A reader needs its key alone.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    document,
    generation::ReadError,
    hash::{self, ContentHash},
    key::Workload,
    retry,
    store::{Condition, ObjectStore, StoreError, Version},
};

/// The version that this lifeboat writes and knows.
pub const FORMAT: u64 = 1;
/// The largest tombstone document, in bytes.
pub const BYTES_MAX: u64 = 4 * 1024;
const KIND: &str = "tombstone";

/// What a tombstone stands for: an object that is named by its content and shared by a workload's lineages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// A pack.
    Pack(ContentHash),
    /// A manifest.
    Manifest(ContentHash),
}

/// A text that names no pack and no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither pack-<blake3> nor manifest-<blake3>")]
pub struct BadSubject(String);

impl Subject {
    /// Where the object lies.
    #[must_use]
    pub fn key(self, workload: &Workload) -> String {
        match self {
            Self::Pack(hash) => workload.pack(hash),
            Self::Manifest(hash) => workload.manifest(hash),
        }
    }

    /// Where its tombstone lies.
    #[must_use]
    pub fn tombstone(self, workload: &Workload) -> String {
        format!("{}{self}", workload.tombstones())
    }

    /// What lies at `key`, if it is a pack or a manifest of `workload`.
    #[must_use]
    pub fn at(key: &str, workload: &Workload) -> Option<Self> {
        if let Some(pack) = key.strip_prefix(&workload.packs()) {
            return pack.parse().ok().map(Self::Pack);
        }
        key.strip_prefix(&workload.manifests())?.strip_suffix(".json")?.parse().ok().map(Self::Manifest)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pack(hash) => write!(f, "pack-{hash}"),
            Self::Manifest(hash) => write!(f, "manifest-{hash}"),
        }
    }
}

impl FromStr for Subject {
    type Err = BadSubject;

    fn from_str(text: &str) -> Result<Self, BadSubject> {
        let subject = match text.split_once('-') {
            Some(("pack", hash)) => hash.parse().map(Self::Pack).ok(),
            Some(("manifest", hash)) => hash.parse().map(Self::Manifest).ok(),
            _ => None,
        };
        subject.ok_or_else(|| BadSubject(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Subject {
    type Error = BadSubject;

    fn try_from(text: String) -> Result<Self, BadSubject> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}

/// The tombstone document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// [`FORMAT`]; the first field of the document.
    pub format: u64,
    /// What it stands for; the same as in its key.
    pub subject: Subject,
    /// Who wrote it last, for people.
    pub collector: String,
    /// Unlike in any other, so that no version ever comes again.
    pub nonce: String,
}

/// A tombstone as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TombstoneState {
    /// Its version.
    pub version: Version,
    /// When it was written last, by the store's clock.
    pub modified: Timestamp,
}

impl Tombstone {
    /// A new one.
    #[must_use]
    pub fn new(subject: Subject, collector: &str) -> Self {
        Self { format: FORMAT, subject, collector: collector.to_owned(), nonce: hash::nonce() }
    }

    /// Reads a tombstone that may be hostile.
    ///
    /// # Errors
    /// [`ReadError::Document`]: an unknown version, or another shape.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        Ok(document::parse(KIND, FORMAT, bytes)?)
    }

    /// Writes it under `condition`.
    ///
    /// # Errors
    /// Store errors, [`StoreError::ConditionFailed`] above all.
    pub async fn put(
        &self,
        store: &dyn ObjectStore,
        workload: &Workload,
        condition: Condition,
        deadline: Instant,
    ) -> Result<Version, ReadError> {
        let body = document::encode(KIND, BYTES_MAX, self)?;
        Ok(retry::put(store, &self.subject.tombstone(workload), body, condition, deadline).await?)
    }

    /// Reads the one of `subject` with its version; `None` if there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(
        store: &dyn ObjectStore,
        workload: &Workload,
        subject: Subject,
        deadline: Instant,
    ) -> Result<Option<(Self, Version)>, ReadError> {
        let key = subject.tombstone(workload);
        let object = match retry::get(store, &key, BYTES_MAX, deadline).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let tombstone = Self::parse(&object.bytes)?;
        if tombstone.subject != subject {
            return Err(ReadError::Misplaced { key, says: format!("of {}", tombstone.subject) });
        }
        Ok(Some((tombstone, object.version)))
    }
}

/// Every tombstone of a workload: one LIST.
///
/// # Errors
/// Store errors.
pub async fn list(
    store: &dyn ObjectStore,
    workload: &Workload,
    deadline: Instant,
) -> Result<BTreeMap<Subject, TombstoneState>, StoreError> {
    let prefix = workload.tombstones();
    let listed = retry::list(store, &prefix, deadline).await?;
    let standing = |object: crate::store::Listed| {
        let subject = object.key.strip_prefix(&prefix)?.parse().ok()?;
        Some((subject, TombstoneState { version: object.version, modified: object.modified }))
    };
    Ok(listed.into_iter().filter_map(standing).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_spelling_and_is_found_by_its_key() {
        let workload = Workload::new("cluster", "chat", "llama").unwrap();
        let hash = ContentHash::of(b"x");
        for subject in [Subject::Pack(hash), Subject::Manifest(hash)] {
            assert_eq!(subject.to_string().parse::<Subject>().unwrap(), subject);
            assert_eq!(Subject::at(&subject.key(&workload), &workload), Some(subject));
            assert_eq!(Subject::at(&subject.tombstone(&workload), &workload), None);
        }
        for bad in
            ["", "pack-", "pack-x", &format!("gen-{hash}"), &format!("pack-{hash}0"), &hash.to_string()]
        {
            assert!(bad.parse::<Subject>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tombstone_that_is_none_is_refused() {
        let tombstone = Tombstone::new(Subject::Pack(ContentHash::of(b"x")), "c");
        let bytes = document::encode(KIND, BYTES_MAX, &tombstone).unwrap();
        assert_eq!(Tombstone::parse(&bytes).unwrap(), tombstone);
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        for (bad, why) in [
            (text.replace("\"format\":1", "\"format\":2"), "upgrade the agent"),
            (text.replace("pack-", "lineage-"), "neither pack"),
            (text.replace("\"nonce\"", "\"also\":1,\"nonce\""), "unknown field"),
            ("[".repeat(1_000), "malformed"),
        ] {
            let said = Tombstone::parse(bad.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }
}
