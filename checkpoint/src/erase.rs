//! Erasure: everything of a workload, or of a whole namespace, because somebody asked for it.
//!
//! ```text
//!   is a checkpoint coming? ── yes ─► refused, unless forced
//!            │ no
//!   record: who, when, what ─► generations ─► claims, intents ─► manifests, packs, tombstones, all else ─► look again
//!                              (from here on nothing can be found)                                           │
//!   record: how many objects and bytes ◄─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! * The record lies beside the workloads, in `erased/<namespace>/`, so it survives, and it is written before anything is
//!   removed: an erasure that died is one that has no end. Asking again removes the rest.
//! * Nothing waits here, unlike in [`crate::garbage`]: what is named goes too. A save that began before and was not seen
//!   (or the erasure was forced) may commit after its packs were removed. Then `verify` names what is missing, no restore
//!   accepts it, and the next erasure removes it. If it sends everything after the erasure it is a new state of a pod that
//!   still runs: end the pod first, or erase again when it has gone.
//! * A bucket with versioning keeps what it is told to remove: its lifecycle rule must expire noncurrent versions.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    bounded,
    document::{self, DocumentError},
    generation::ReadError,
    hash,
    intent::{Intent, IntentState},
    key::{self, KeyError, LineageId, Workload},
    retry,
    store::{Condition, Listed, ObjectStore, Removal, StoreError},
    workloads,
};

/// The version that this lifeboat writes and knows.
pub const FORMAT: u64 = 1;
/// The largest record, in bytes.
pub const BYTES_MAX: u64 = 4 * crate::MIB;
/// The most workloads that one record names.
pub const WORKLOADS_MAX: usize = 10_000;
const KIND: &str = "erasure record";
/// Objects removed at the same time.
const PARALLEL: usize = 16;
/// How often is looked again for what was written meanwhile.
const ROUNDS_MAX: usize = 4;

/// What is to be erased, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// Only this workload of it.
    pub workload: Option<String>,
    /// Who asks.
    pub by: String,
    /// Also while a checkpoint is coming.
    pub force: bool,
}

/// The record of an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    /// [`FORMAT`]; the first field of the document.
    pub format: u64,
    /// The cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The workload, if it was one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Who asked.
    pub by: String,
    /// Although a checkpoint was coming.
    pub forced: bool,
    /// When it began, by the store's clock.
    pub began: Timestamp,
    /// When it ended, likewise; absent if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Unlike in any other.
    pub nonce: String,
    /// The workloads.
    #[serde(deserialize_with = "bounded::list::<_, _, WORKLOADS_MAX>")]
    pub workloads: Vec<String>,
    /// How many objects were removed; zero until the end.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What there is to erase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EraseScope {
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// How many objects they have.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lineages to which a checkpoint is coming, or of which that cannot be told, each with its reason.
    pub under_way: Vec<String>,
}

/// An erasure that did not happen, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// A checkpoint is coming.
    #[error("an evacuation is under way: {}; ask again when it is over, or force it", .0.join("; "))]
    UnderWay(Vec<String>),
    /// Something is written as fast as it is removed.
    #[error("{0} objects were written while everything was removed: somebody still saves there; ask again")]
    Remains(u64),
    /// A name that cannot be part of a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The record would break its own rules.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks at what [`erase`] would remove. Needs the rights to read and list only.
///
/// # Errors
/// [`EraseError::Key`] and [`EraseError::Store`].
pub async fn extent(
    store: &dyn ObjectStore,
    request: &Request,
    deadline: Instant,
) -> Result<EraseScope, EraseError> {
    let Request { cluster, namespace, .. } = request;
    let found: Vec<Workload> = match &request.workload {
        Some(name) => vec![Workload::new(cluster, namespace, name)?],
        None => {
            Workload::new(cluster, namespace, "any")?;
            workloads::find(store, cluster, Some(namespace), deadline).await?.into_iter().collect()
        }
    };
    let mut extent = EraseScope::default();
    for workload in found {
        let listed = retry::list(store, &workload.prefix(), deadline).await?;
        if listed.is_empty() {
            continue;
        }
        extent.objects += listed.len() as u64;
        extent.bytes += listed.iter().map(|object| object.size).sum::<u64>();
        for object in &listed {
            extent.under_way.extend(coming(store, &workload, &object.key, deadline).await?);
        }
        extent.workloads.push(workload);
    }
    Ok(extent)
}

/// What the object at `key` says of a checkpoint that is coming, if it is an intent.
async fn coming(
    store: &dyn ObjectStore,
    workload: &Workload,
    key: &str,
    deadline: Instant,
) -> Result<Option<String>, StoreError> {
    let id = key.strip_prefix(&workload.lineages()).and_then(|rest| rest.strip_suffix("/intent"));
    let Some(Ok(lineage)) = id.map(LineageId::new) else { return Ok(None) };
    let name = format!("{}/{}/{lineage}", workload.namespace(), workload.name());
    Ok(match Intent::read(store, workload, &lineage, deadline).await {
        Ok(Some(found)) if found.intent.state == IntentState::Coming => found.time_left().map(|left| {
            let source = &found.intent.source;
            format!("{name} from pod {} on node {}, {} s left", source.name, source.node, left.as_secs())
        }),
        Ok(_) => None,
        Err(ReadError::Store(error)) => return Err(error),
        Err(ReadError::Document(error @ DocumentError::UnknownFormat { .. })) => {
            Some(format!("{name}: {error}"))
        }
        // Nobody can read it, so nobody waits for it.
        Err(_) => None,
    })
}

/// Erases. `None` if there was nothing.
///
/// # Errors
/// [`EraseError`]. After a failure some of it may be gone; asking again removes the rest.
pub async fn erase(
    store: &dyn Removal,
    request: &Request,
    deadline: Instant,
) -> Result<Option<Erasure>, EraseError> {
    let extent = extent(store, request, deadline).await?;
    if extent.workloads.is_empty() {
        return Ok(None);
    }
    let forced = !extent.under_way.is_empty();
    if forced && !request.force {
        return Err(EraseError::UnderWay(extent.under_way));
    }
    let mut erasure = Erasure {
        format: FORMAT,
        cluster: request.cluster.clone(),
        namespace: request.namespace.clone(),
        workload: request.workload.clone(),
        by: request.by.chars().take(500).collect(),
        forced,
        began: retry::now(store, deadline).await?,
        ended: None,
        nonce: hash::nonce(),
        workloads: extent.workloads.iter().map(|w| w.name().to_owned()).take(WORKLOADS_MAX).collect(),
        objects: 0,
        bytes: 0,
    };
    let id = format!("{}-{}", erasure.began.as_second(), erasure.nonce);
    let key = key::erasure(&request.cluster, &request.namespace, &id)?;
    let body = document::encode(KIND, BYTES_MAX, &erasure)?;
    let version = retry::put(store, &key, body, Condition::IfAbsent, deadline).await?;
    for workload in &extent.workloads {
        let (objects, bytes) = empty(store, workload, deadline).await?;
        erasure.objects += objects;
        erasure.bytes += bytes;
    }
    erasure.ended = Some(retry::now(store, deadline).await?);
    let body = document::encode(KIND, BYTES_MAX, &erasure)?;
    retry::put(store, &key, body, Condition::IfMatch(version), deadline).await?;
    Ok(Some(erasure))
}

/// Removes everything of one workload, and what is written meanwhile. Returns the objects and their bytes.
async fn empty(
    store: &dyn Removal,
    workload: &Workload,
    deadline: Instant,
) -> Result<(u64, u64), EraseError> {
    let (mut objects, mut removed_bytes) = (0, 0);
    let mut left = 0;
    for _ in 0..ROUNDS_MAX {
        let mut listed = retry::list(store, &workload.prefix(), deadline).await?;
        left = listed.len() as u64;
        if listed.is_empty() {
            return Ok((objects, removed_bytes));
        }
        listed.sort_by_key(|object| turn(workload, &object.key));
        for turn in listed.chunk_by(|a, b| turn(workload, &a.key) == turn(workload, &b.key)) {
            let mut removals = stream::iter(turn)
                .map(|object: &Listed| async move {
                    (object.size, retry::delete(store, &object.key, &object.version, deadline).await)
                })
                .buffer_unordered(PARALLEL);
            while let Some((bytes, removed)) = removals.next().await {
                match removed {
                    Ok(()) => {
                        objects += 1;
                        removed_bytes += bytes;
                    }
                    // Written anew: the next round has it.
                    Err(StoreError::ConditionFailed { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Err(EraseError::Remains(left))
}

/// What can be found goes first, so that whoever looks meanwhile finds nothing rather than something broken.
fn turn(workload: &Workload, key: &str) -> u8 {
    match key.strip_prefix(&workload.lineages()) {
        Some(rest) if rest.contains("/gen/") => 0,
        Some(_) => 1,
        None => 2,
    }
}

impl Erasure {
    /// Reads a record.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        document::parse(KIND, FORMAT, bytes)
    }

    /// How long it took; `None` if it did not end.
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        self.ended.map(|ended| ended.duration_since(self.began).try_into().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
