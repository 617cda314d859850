//! Removal: a port of its own, so that a node's code cannot even name it.
//!
//! A node writes and reads through [`super::ObjectStore`], and its role in the bucket may do no more. What collects garbage
//! or erases a namespace runs under another account and opens the store with [`super::open_for_removal`].

use std::sync::Arc;

use async_trait::async_trait;

use super::{ObjectStore, StoreError, Version};

/// A shared handle to a store that objects can be removed from.
pub type Remover = Arc<dyn Removal>;

/// A store that objects can be removed from.
#[async_trait]
pub trait Removal: ObjectStore {
    /// Removes the object at `key` if it still has `version` (`DeleteObject` with `If-Match`). One that is not there is no
    /// error.
    ///
    /// The comparison protects documents, which carry a nonce. It does not protect a pack that was sent again: the same
    /// bytes may have the same version (an ETag is often their MD5). [`crate::tombstone`] does.
    ///
    /// # Errors
    /// [`StoreError::ConditionFailed`] if another version is there; some stores also answer so if nothing is
    /// ([`crate::retry::delete`] tells the two apart).
    async fn delete(&self, key: &str, version: &Version) -> Result<(), StoreError>;
}
