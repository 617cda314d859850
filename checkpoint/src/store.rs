//! The port: what lifeboat needs of an object store, and nothing more.
//!
//! There is no delete: nodes may not delete (docs/garbage.md says who may). Whoever may opens the store as a
//! [`removal::Removal`]. Operations here try once; [`crate::retry`] tries again. Every implementation keeps the same promises:
//!
//! * a `put` is atomic: a reader sees the whole old object or the whole new one;
//! * [`Condition`]s are decided atomically against every other writer;
//! * a read that follows an acknowledged write sees it (S3 has been strongly consistent since 2020);
//! * the same key with other bytes never has the same [`Version`] again.

mod body;
pub mod directory;
mod error;
#[cfg(any(test, feature = "faults"))]
pub mod faulty;
pub mod location;
pub mod removal;
pub mod s3;

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

pub use self::{
    body::{Body, ByteStream, collect},
    error::StoreError,
    location::StoreOptions,
    location::{open, open_for_removal},
    removal::{Removal, Remover},
};

/// A shared handle to a store.
pub type Store = Arc<dyn ObjectStore>;

/// The most keys one [`ObjectStore::list`] returns, so that a hostile prefix cannot fill memory.
pub const LIST_MAX: usize = 100_000;

/// An object store. See the module for what every implementation promises.
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug {
    /// Writes `body` at `key` if `condition` holds, and returns the version it got.
    ///
    /// # Errors
    /// [`StoreError::ConditionFailed`] if the condition does not hold (also `IfMatch` on a missing key).
    async fn put(&self, key: &str, body: Body, condition: Condition) -> Result<Version, StoreError>;

    /// Reads a small object whole. An object larger than `at_most` bytes is refused before it is read.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or [`StoreError::Permanent`] if it is too large.
    async fn get(&self, key: &str, at_most: u64) -> Result<Object, StoreError>;

    /// Reads the bytes of `range` (offsets in bytes) that exist, as they arrive: a short object gives a short answer,
    /// and the caller counts. Never more bytes than asked for.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such object.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError>;

    /// Every object whose key begins with `prefix`, in key order.
    ///
    /// # Errors
    /// [`StoreError::Permanent`] for more than [`LIST_MAX`] objects.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError>;

    /// The store's clock. Ages are told by it alone: whoever asks may have another time.
    ///
    /// # Errors
    /// [`StoreError::Permanent`] if the store does not tell the time.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// The store in words for logs and messages: no credentials.
    fn describe(&self) -> String;
}

/// When a `put` may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// In any case.
    Always,
    /// Only if the key does not exist (`If-None-Match: *`).
    IfAbsent,
    /// Only if the object still has this version (`If-Match`).
    IfMatch(Version),
}

/// An opaque version of an object (S3: its ETag). It is no content hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(pub(crate) String);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object that was read whole.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its content.
    pub bytes: Bytes,
    /// Its version, for [`Condition::IfMatch`].
    pub version: Version,
    /// When it was written, by the store's clock (S3 gives whole seconds).
    pub modified: Timestamp,
    /// The store's clock when it answered.
    pub store_now: Timestamp,
}

impl Object {
    /// How long ago it was written, by the store's clock alone; zero if that clock stepped back.
    #[must_use]
    pub fn age(&self) -> std::time::Duration {
        self.store_now.duration_since(self.modified).try_into().unwrap_or_default()
    }
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The whole key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Its version.
    pub version: Version,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}
