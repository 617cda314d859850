//! The commit: one small object that makes a manifest findable.
//!
//! Everything a generation names was acknowledged before it is written, and it is written only if its key is absent.
//! So a reader finds the old generation or the new one, never a mix, and a writer that lost its lineage to a
//! higher epoch finds out here.
//!
//! Where the store ignores conditions ([`Conditions::Ignored`]) it does not decide between two that write one number at
//! once. Claims (kept elsewhere then) leave one writer per lineage and epoch, and the commit reads what it wrote, so
//! a second writer is noticed by whoever reads last. What is weaker: the first of two may have been told "committed"
//! before its bytes were replaced. Two agents of one pod can do that; a source that was cut off cannot, since its
//! successor writes under a higher epoch, and readers take that.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    document::{self, DocumentError},
    hash::{self, ContentHash},
    key::{GenerationNumber, LineageId, Workload},
    manifest::{MacKey, Manifest, ManifestError, Parent, Source},
    preflight::Conditions,
    retry,
    store::{Condition, ObjectStore, StoreError},
};

/// The version that this lifeboat writes and knows.
pub const FORMAT: u64 = 1;
/// The largest generation document, in bytes.
pub const BYTES_MAX: u64 = 64 * 1024;
const KIND: &str = "generation";
/// How often another commit of the same writer may be in the way before something is wrong.
const RACES_MAX: u32 = 16;

/// A committed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// [`FORMAT`]; the first field of the document.
    pub format: u64,
    /// The lineage it belongs to, so that a copy elsewhere is recognised.
    pub lineage: LineageId,
    /// Its place there; the same as in its key.
    pub number: GenerationNumber,
    /// The manifest it names.
    pub manifest: ContentHash,
    /// Who wrote it: a pod uid, or whatever identifies one writer for the length of an epoch.
    pub writer: String,
    /// Unlike in any other commit.
    pub nonce: String,
    /// When it was written, by the writer's clock: for people.
    pub created: Timestamp,
    /// Not all of the state.
    pub partial: bool,
    /// As in the manifest: to choose by, before the manifest is read.
    pub spec_key: String,
    /// As in the manifest.
    pub source: Source,
    /// As in the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
}

/// A commit that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another writer holds the lineage: stop writing to it.
    #[error(
        "fenced: lineage {lineage} belongs to epoch {by} now, this writer has epoch {epoch}; what it saves is no longer used"
    )]
    Fenced {
        /// The lineage.
        lineage: LineageId,
        /// This writer's epoch.
        epoch: u64,
        /// The epoch found in the store.
        by: u64,
    },
    /// The manifest breaks its own rules.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The generation document breaks its own rules.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The store.
    #[error("commit: {0}")]
    Store(#[from] StoreError),
}

/// Commits `manifest` as the next generation of its lineage under `epoch`. Its packs must be acknowledged already.
///
/// `writer` identifies this writer among all that could hold the same epoch. An answer that was lost is found out
/// by the commit's nonce, so repeating a commit that returned a store error is safe: at worst the same
/// manifest is committed twice. `conditions` is what the preflight found the store to do.
///
/// # Errors
/// [`CommitError::Fenced`] if a higher epoch, or another writer of this epoch, has committed; store errors, above
/// all [`StoreError::TimedOut`] at `deadline`.
pub async fn commit(
    store: &dyn ObjectStore,
    manifest: &Manifest,
    epoch: u64,
    writer: &str,
    mac_key: Option<&MacKey>,
    conditions: &Conditions,
    deadline: Instant,
) -> Result<Generation, CommitError> {
    let (workload, lineage) = (&manifest.workload, &manifest.lineage);
    let (bytes, name) = manifest.encode(mac_key)?;
    retry::put(store, &workload.manifest(name), bytes, Condition::Always, deadline).await?;

    let mut newest = newest(store, workload, lineage, deadline).await?;
    for _ in 0..RACES_MAX {
        let fenced = |by| CommitError::Fenced { lineage: lineage.clone(), epoch, by };
        if let Some(number) = newest {
            if number.epoch > epoch {
                return Err(fenced(number.epoch));
            }
            if number.epoch == epoch {
                match read(store, workload, lineage, number, deadline).await {
                    Ok(found) if found.writer != writer => return Err(fenced(epoch)),
                    Ok(_) => {}
                    // A collector is removing this lineage, which was silent for days: it takes what it saw, and no more.
                    Err(ReadError::Store(StoreError::NotFound { .. })) => {
                        newest = self::newest(store, workload, lineage, deadline).await?;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let generation = Generation {
            format: FORMAT,
            lineage: lineage.clone(),
            number: GenerationNumber { epoch, n: newest.map_or(1, |number| number.n.saturating_add(1)) },
            manifest: name,
            writer: writer.to_owned(),
            nonce: hash::nonce(),
            created: manifest.created,
            partial: manifest.partial,
            spec_key: manifest.spec_key.clone(),
            source: manifest.source.clone(),
            parent: manifest.parent.clone(),
        };
        let body = document::encode(KIND, BYTES_MAX, &generation)?;
        let key = workload.generation(lineage, generation.number);
        match create(store, &key, body, conditions, deadline).await {
            Ok(()) => return Ok(generation),
            // Somebody took this number: look who, and either stop or take the next.
            Err(StoreError::ConditionFailed { .. }) => {
                newest = self::newest(store, workload, lineage, deadline).await?
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::permanent(format!(
        "lineage {lineage}: {RACES_MAX} numbers were taken by other commits of {writer}; two agents serve one pod"
    ))
    .into())
}

/// Writes `body` where nothing is yet.
///
/// # Errors
/// [`StoreError::ConditionFailed`] if somebody else's bytes are there.
async fn create(
    store: &dyn ObjectStore,
    key: &str,
    body: Bytes,
    conditions: &Conditions,
    deadline: Instant,
) -> Result<(), StoreError> {
    // Also where conditions are ignored: some stores do check them, and only let two at once through.
    retry::put(store, key, body.clone(), Condition::IfAbsent, deadline).await?;
    match conditions {
        Conditions::Decided => Ok(()),
        Conditions::Ignored { .. } => {
            match retry::get(store, key, BYTES_MAX, deadline).await?.bytes == body {
                true => Ok(()),
                false => Err(StoreError::ConditionFailed { key: key.to_owned() }),
            }
        }
    }
}

/// The highest generation number of a lineage, whatever its object contains.
///
/// # Errors
/// Store errors.
pub async fn newest(
    store: &dyn ObjectStore,
    workload: &Workload,
    lineage: &LineageId,
    deadline: Instant,
) -> Result<Option<GenerationNumber>, StoreError> {
    let prefix = workload.generations(lineage);
    let listed = retry::list(store, &prefix, deadline).await?;
    Ok(listed.iter().filter_map(|object| GenerationNumber::parse(object.key.strip_prefix(&prefix)?)).max())
}

/// Why a document of a lineage could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its content.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It says that it is another object: a copy, or a swap.
    #[error("the object at {key} says it is {says}")]
    Misplaced {
        /// Where it lies.
        key: String,
        /// What it says.
        says: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads one generation and checks that it is the one its key says.
///
/// # Errors
/// [`ReadError`].
pub async fn read(
    store: &dyn ObjectStore,
    workload: &Workload,
    lineage: &LineageId,
    number: GenerationNumber,
    deadline: Instant,
) -> Result<Generation, ReadError> {
    let key = workload.generation(lineage, number);
    let object = retry::get(store, &key, BYTES_MAX, deadline).await?;
    let generation: Generation = document::parse(KIND, FORMAT, &object.bytes)?;
    if generation.number != number || generation.lineage != *lineage {
        let says = format!("{} of lineage {}", generation.number, generation.lineage);
        return Err(ReadError::Misplaced { key, says });
    }
    Ok(generation)
}

impl From<ReadError> for CommitError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Document(error) => Self::Document(error),
            ReadError::Store(error) => Self::Store(error),
            misplaced @ ReadError::Misplaced { .. } => {
                Self::Store(StoreError::permanent(misplaced.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
