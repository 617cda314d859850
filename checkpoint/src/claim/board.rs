//! Where claims are kept: read, and write if nobody else has written meanwhile.
//!
//! ```text
//!                ┌ StoreBoard   If-None-Match: *, If-Match      LastModified, Date      (a store that decides)
//!   claims ──────┤
//!                └ a Lease      create, resourceVersion         managedFields, Date     (lifeboat's agent)
//! ```

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{BYTES_MAX, Claim};
use crate::{
    retry,
    store::{Condition, Store, StoreError, Version},
};

/// A place for claims. Operations try once; the protocol tries again.
///
/// Every implementation keeps the promises of [`crate::store`] for these documents: conditions are decided atomically
/// against every other writer, a read sees every acknowledged write, and no version comes twice. It has one clock,
/// its own, by which it says how old a claim is.
#[async_trait]
pub trait ClaimBoard: Send + Sync + fmt::Debug {
    /// The claim under `key`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    async fn read(&self, key: &str, deadline: Instant) -> Result<Posted, StoreError>;

    /// Puts a claim up if `condition` (never [`Condition::Always`]) holds, and returns the version it got.
    ///
    /// # Errors
    /// [`StoreError::ConditionFailed`] if the condition does not hold.
    async fn write(
        &self,
        posting: &Posting<'_>,
        condition: &Condition,
        deadline: Instant,
    ) -> Result<Version, StoreError>;

    /// Whether a LIST of the store shows which claims there are.
    fn is_listed(&self) -> bool {
        false
    }

    /// The place in words for logs and messages.
    fn describe(&self) -> String;
}

/// A claim as it hangs there.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The document.
    pub bytes: Bytes,
    /// Its version, for [`Condition::IfMatch`].
    pub version: Version,
    /// How long ago it was written, by the place's own clock alone.
    pub age: Duration,
}

/// A claim to put up.
#[derive(Debug)]
pub struct Posting<'a> {
    /// The claim's key, unlike any other lineage's: [`crate::key::Workload::claim`].
    pub key: &'a str,
    /// The claim, for what a place shows of it to people.
    pub claim: &'a Claim,
    /// The document: what is read again.
    pub body: Bytes,
    /// When its holder took it, by this node's clock: for people.
    pub since: Timestamp,
}

impl From<String> for Version {
    /// A version of another place than a store.
    fn from(version: String) -> Self {
        Self(version)
    }
}

/// Reads a claim, with retries.
pub(super) async fn posted(
    board: &dyn ClaimBoard,
    key: &str,
    deadline: Instant,
) -> Result<Posted, StoreError> {
    let what = format!("reading the claim {key}");
    retry::with_retries(&what, deadline, |_| board.read(key, deadline)).await
}

/// Puts a claim up, with retries. A write whose answer was lost meets its own work when it is repeated; the nonce in
/// the document tells it from another's.
pub(super) async fn post(
    board: &dyn ClaimBoard,
    posting: &Posting<'_>,
    condition: &Condition,
    deadline: Instant,
) -> Result<Version, StoreError> {
    let what = format!("writing the claim {}", posting.key);
    let written = retry::with_retries(&what, deadline, |_| board.write(posting, condition, deadline)).await;
    match written {
        Err(StoreError::ConditionFailed { key }) => match posted(board, posting.key, deadline).await {
            Ok(found) if found.bytes == posting.body => Ok(found.version),
            Err(error @ StoreError::TimedOut { .. }) => Err(error),
            _ => Err(StoreError::ConditionFailed { key }),
        },
        other => other,
    }
}

/// Claims as objects beside the checkpoints.
#[derive(Debug)]
pub(super) struct StoreBoard(pub(super) Store);

#[async_trait]
impl ClaimBoard for StoreBoard {
    async fn read(&self, key: &str, _deadline: Instant) -> Result<Posted, StoreError> {
        let object = self.0.get(key, BYTES_MAX).await?;
        Ok(Posted { age: object.age(), bytes: object.bytes, version: object.version })
    }

    async fn write(
        &self,
        posting: &Posting<'_>,
        condition: &Condition,
        _deadline: Instant,
    ) -> Result<Version, StoreError> {
        self.0.put(posting.key, posting.body.clone().into(), condition.clone()).await
    }

    fn is_listed(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}
