//! Everything of a workload, read once and in the order that the collector's proof needs.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::claim::{Claims, FoundClaim};
use crate::document::DocumentError;
use crate::generation::{self, Generation, ReadError};
use crate::hash::ContentHash;
use crate::intent::{FoundIntent, Intent};
use crate::key::{GenerationNumber, LineageId, Workload};
use crate::restore::{self, RestoreError};
use crate::retry;
use crate::store::{Listed, Store, StoreError, Version};
use crate::tombstone::{self, Subject, TombstoneState};

/// Lineages read at the same time, and their generations.
const PARALLEL: usize = 8;
/// Manifests read at the same time: each may have 64 MiB.
const MANIFESTS: usize = 4;

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedObject {
    pub(super) size: u64,
    pub(super) version: Version,
    pub(super) modified: Timestamp,
}

impl From<Listed> for ListedObject {
    fn from(listed: Listed) -> Self {
        Self { size: listed.size, version: listed.version, modified: listed.modified }
    }
}

/// What a document says, or why it cannot be read.
pub(super) type Read<T> = Result<T, String>;

/// A generation and what it names.
#[derive(Debug, Clone)]
pub(super) struct FoundGeneration {
    pub(super) number: GenerationNumber,
    pub(super) seen: ListedObject,
    pub(super) document: Read<Generation>,
    /// The packs that its manifest names.
    pub(super) packs: Read<Arc<HashSet<ContentHash>>>,
}

/// A lineage, its generations newest first.
#[derive(Debug, Clone)]
pub(super) struct FoundLineage {
    pub(super) id: LineageId,
    pub(super) generations: Vec<FoundGeneration>,
    pub(super) intent: Option<(ListedObject, Read<FoundIntent>)>,
    pub(super) claim: Option<(ListedObject, Read<FoundClaim>)>,
    /// A newer lifeboat wrote to it.
    pub(super) newer: bool,
}

/// A workload at one moment.
#[derive(Debug, Clone)]
pub(super) struct Inventory {
    /// The store's clock before anything was looked at, so that no age is taken for more than it was at the look.
    pub(super) now: Timestamp,
    pub(super) tombstones: BTreeMap<Subject, TombstoneState>,
    pub(super) objects: BTreeMap<Subject, ListedObject>,
    pub(super) lineages: Vec<FoundLineage>,
}

impl Inventory {
    pub(super) fn age(&self, modified: Timestamp) -> Duration {
        self.now.duration_since(modified).try_into().unwrap_or_default()
    }
}

/// Looks. The tombstones come first: one that is seen is older than the look at the generations, and what is not there
/// after it was removed earlier. The generations come last: whoever commits in time is seen.
pub(super) async fn look(
    store: &Store,
    workload: &Workload,
    deadline: Instant,
) -> Result<Inventory, StoreError> {
    let now = retry::now(store.as_ref(), deadline).await?;
    let tombstones = tombstone::list(store.as_ref(), workload, deadline).await?;
    let mut objects = BTreeMap::new();
    for prefix in [workload.packs(), workload.manifests()] {
        for object in retry::list(store.as_ref(), &prefix, deadline).await? {
            // What has no name of ours is not ours to remove.
            if let Some(subject) = Subject::at(&object.key, workload) {
                objects.insert(subject, object.into());
            }
        }
    }
    let lineages = lineages(store, workload, deadline).await?;
    Ok(Inventory { now, tombstones, objects, lineages })
}

#[derive(Default)]
struct Listing {
    generations: Vec<(GenerationNumber, ListedObject)>,
    intent: Option<ListedObject>,
    claim: Option<ListedObject>,
}

async fn lineages(
    store: &Store,
    workload: &Workload,
    deadline: Instant,
) -> Result<Vec<FoundLineage>, StoreError> {
    let prefix = workload.lineages();
    let mut listings: BTreeMap<LineageId, Listing> = BTreeMap::new();
    for object in retry::list(store.as_ref(), &prefix, deadline).await? {
        let Some((id, rest)) = object.key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/')) else {
            continue;
        };
        let (Ok(id), rest) = (LineageId::new(id), rest.to_owned()) else { continue };
        let listing = listings.entry(id).or_default();
        match rest.strip_prefix("gen/").map(GenerationNumber::parse) {
            Some(Some(number)) => listing.generations.push((number, object.into())),
            None if rest == "intent" => listing.intent = Some(object.into()),
            None if rest == "claim" => listing.claim = Some(object.into()),
            _ => {}
        }
    }
    let mut lineages: Vec<FoundLineage> = stream::iter(listings)
        .map(|(id, listing)| lineage(store, workload, id, listing, deadline))
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    let names = name_packs(store, workload, &lineages, deadline).await?;
    for generation in lineages.iter_mut().flat_map(|lineage| &mut lineage.generations) {
        if let Ok(document) = &generation.document
            && let Some(packs) = names.get(&document.manifest)
        {
            generation.packs = packs.clone();
        }
    }
    Ok(lineages)
}

async fn lineage(
    store: &Store,
    workload: &Workload,
    id: LineageId,
    listing: Listing,
    deadline: Instant,
) -> Result<FoundLineage, StoreError> {
    let mut newer = false;
    let mut generations = Vec::with_capacity(listing.generations.len());
    for (number, seen) in listing.generations {
        let read = generation::read(store.as_ref(), workload, &id, number, deadline).await;
        // Removed since it was listed.
        let Some(document) = known(read.map(Some), &mut newer)? else { continue };
        let packs = Err("its generation cannot be read".to_owned());
        generations.push(FoundGeneration { number, seen, document, packs });
    }
    generations.sort_by_key(|generation| std::cmp::Reverse(generation.number));
    let intent = match listing.intent {
        Some(seen) => {
            let read = Intent::read(store.as_ref(), workload, &id, deadline).await;
            known(read, &mut newer)?.map(|read| (seen, read))
        }
        None => None,
    };
    let claim = match listing.claim {
        Some(seen) => {
            let read = Claims::in_store(Arc::clone(store)).read(workload, &id, deadline).await;
            known(read, &mut newer)?.map(|read| (seen, read))
        }
        None => None,
    };
    Ok(FoundLineage { id, generations, intent, claim, newer })
}

/// Tells what is gone (`None`) from what cannot be understood, and that from a store that does not answer.
fn known<T>(read: Result<Option<T>, ReadError>, newer: &mut bool) -> Result<Option<Read<T>>, StoreError> {
    match read {
        Ok(found) => Ok(found.map(Ok)),
        Err(ReadError::Store(StoreError::NotFound { .. })) => Ok(None),
        // Too large to be one of ours.
        Err(ReadError::Store(StoreError::Permanent { message })) => Ok(Some(Err(message))),
        Err(ReadError::Store(error)) => Err(error),
        Err(error) => {
            *newer |= matches!(error, ReadError::Document(DocumentError::UnknownFormat { .. }));
            Ok(Some(Err(error.to_string())))
        }
    }
}

/// The packs of every manifest that a generation names.
async fn name_packs(
    store: &Store,
    workload: &Workload,
    lineages: &[FoundLineage],
    deadline: Instant,
) -> Result<BTreeMap<ContentHash, Read<Arc<HashSet<ContentHash>>>>, StoreError> {
    let generations = lineages.iter().flat_map(|lineage| &lineage.generations);
    let named: std::collections::BTreeSet<ContentHash> =
        generations.filter_map(|generation| Some(generation.document.as_ref().ok()?.manifest)).collect();
    stream::iter(named)
        .map(|manifest| async move {
            // Whether the operator's key vouches for it does not matter here: at worst it keeps something.
            let packs = match restore::load_manifest(store, workload, manifest, None, deadline).await {
                Ok(read) => Ok(Arc::new(read.packs())),
                Err(RestoreError::Store(error)) => return Err(error),
                Err(RestoreError::OutOfTime { .. }) => {
                    let what = format!("manifest {manifest}");
                    return Err(StoreError::TimedOut {
                        what,
                        waited: Duration::ZERO,
                        last: None,
                        answered: false,
                    });
                }
                Err(error) => Err(error.to_string()),
            };
            Ok((manifest, packs))
        })
        .buffer_unordered(MANIFESTS)
        .try_collect()
        .await
}
