//! Finds in the store what the command line names, or says what is near it.

use super::CheckpointsFailure;
use super::near::{nearest, unknown_generation, unknown_lineage};
use super::target::{Place, Target, short};
use crate::runtime::config::StoreArgs;
use checkpoint::claim::Claims;
use checkpoint::generation::{self, Generation};
use checkpoint::key::{GenerationNumber, LineageId, Workload};
use checkpoint::manifest::Manifest;
use checkpoint::restore::{self, RestoreError};
use checkpoint::store::{self, Remover, Store, StoreError};
use checkpoint::{lineage, retry, workloads};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long one look (a listing, a document) may take, with its retries.
const LOOK: Duration = Duration::from_secs(45);
/// Listings at the same time when a whole cluster is looked at.
const LISTINGS: usize = 8;
/// The most unreadable generations that are passed over on the way to one that can be read.
const PASSED_OVER_MAX: usize = 16;

/// A store, and the part of it that belongs to one cluster.
pub(super) struct Catalog {
    pub(super) store: Store,
    pub(super) cluster: String,
    /// Vouches for manifests, where the agents have one too.
    pub(super) mac_key: Option<checkpoint::manifest::MacKey>,
}

/// One generation that was named, or chosen because nothing more exact was.
pub(super) struct Chosen {
    pub(super) workload: Workload,
    pub(super) lineage: LineageId,
    pub(super) generation: Generation,
    pub(super) manifest: Manifest,
    /// The other generations of the lineage, newest first.
    pub(super) others: Vec<GenerationNumber>,
    /// Newer ones that cannot be read, each with its reason.
    pub(super) unreadable: Vec<String>,
}

impl Chosen {
    /// Its name in full, as the command line takes it.
    pub(super) fn name(&self) -> String {
        let Self { workload, lineage, generation, .. } = self;
        format!("{}/{}/{lineage}/{}", workload.namespace(), workload.name(), short(generation.number))
    }
}

/// Why a manifest could not be read.
pub(super) fn explain(error: &RestoreError) -> String {
    match error {
        RestoreError::OutOfTime { .. } => {
            format!(
                "the store did not answer in {} s; is --store-endpoint right, and reachable?",
                LOOK.as_secs()
            )
        }
        RestoreError::Store(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// The deadline of one look that begins now.
pub(super) fn soon() -> Instant {
    Instant::now() + LOOK
}

impl Catalog {
    /// Opens the store. It is not asked to prove what only a writer needs.
    pub(super) async fn open(args: &StoreArgs) -> Result<Self, CheckpointsFailure> {
        let url = args.url().ok_or_else(|| {
            CheckpointsFailure::Usage(
                "--store is missing: give s3://bucket/prefix or dir:/absolute/path, or set LIFEBOAT_STORE"
                    .into(),
            )
        })?;
        // The cluster's name becomes part of keys: said with its flag, before anything is asked.
        Workload::new(&args.cluster_name, "any", "any")
            .map_err(|error| CheckpointsFailure::Usage(format!("--cluster-name: {error}")))?;
        let mac_key = args.mac_key().map_err(CheckpointsFailure::Usage)?;
        // To open a directory store makes it one; looking must not.
        let folder = url.strip_prefix("dir:").or_else(|| url.strip_prefix("file://"));
        if let Some(path) = folder.map(Path::new)
            && path.is_dir()
            && !path.join("objects").is_dir()
        {
            return Err(CheckpointsFailure::Failed(format!(
                "--store {url}: there is no store in this folder; name the one that the agents have"
            )));
        }
        let store = store::open(&url, args.options())
            .await
            .map_err(|error| CheckpointsFailure::Failed(format!("--store {url}: {error}")))?;
        Ok(Self { store, cluster: args.cluster_name.clone(), mac_key })
    }

    /// The same failure for every verb: the store by name, and what it said.
    pub(super) fn failed(&self, error: &StoreError) -> CheckpointsFailure {
        CheckpointsFailure::Failed(format!("--store {}: {error}", self.store.describe()))
    }

    /// The key of a workload of this cluster.
    pub(super) fn workload(&self, namespace: &str, name: &str) -> Result<Workload, CheckpointsFailure> {
        Workload::new(&self.cluster, namespace, name)
            .map_err(|error| CheckpointsFailure::Usage(error.to_string()))
    }

    /// Every workload that has a lineage, by namespace and name: one listing per shard, a few at a time.
    pub(super) async fn workloads(&self) -> Result<BTreeSet<Workload>, CheckpointsFailure> {
        let shards = stream::iter(0..=u8::MAX).map(|shard| async move {
            let prefix = format!("v1/{}/{shard:02x}/", self.cluster);
            let listed = retry::list(self.store.as_ref(), &prefix, soon())
                .await
                .map_err(|error| self.failed(&error))?;
            let workload = |key: &str| {
                let mut parts = key.strip_prefix(&prefix)?.split('/');
                let (namespace, name) = (parts.next()?, parts.next()?);
                if parts.next()? != "lineage" {
                    return None;
                }
                // What lies where no workload of this name would is nobody's.
                Workload::new(&self.cluster, namespace, name)
                    .ok()
                    .filter(|workload| key.starts_with(&workload.prefix()))
            };
            Ok::<BTreeSet<Workload>, CheckpointsFailure>(
                listed.iter().filter_map(|object| workload(&object.key)).collect(),
            )
        });
        let found = shards.buffer_unordered(LISTINGS);
        found
            .try_fold(BTreeSet::new(), |mut all, some| async {
                all.extend(some);
                Ok(all)
            })
            .await
    }

    /// The workloads of a place that have anything, also those of which only remains are left. A workload that is named
    /// need not be there.
    pub(super) async fn remains(
        &self,
        place: Option<&Place>,
    ) -> Result<BTreeSet<Workload>, CheckpointsFailure> {
        if let Some(Place { namespace, workload: Some(name) }) = place {
            return Ok(BTreeSet::from([self.workload(namespace, name)?]));
        }
        let namespace = place.map(|place| place.namespace.as_str());
        let found = workloads::find(self.store.as_ref(), &self.cluster, namespace, soon()).await;
        found.map_err(|error| self.failed(&error))
    }

    /// The same store, opened by one who may remove.
    pub(super) async fn for_removal(&self, args: &StoreArgs) -> Result<Remover, CheckpointsFailure> {
        let url = args.url().unwrap_or_default();
        store::open_for_removal(&url, args.options()).await.map_err(|error| self.failed(&error))
    }

    /// The generations of every lineage of a workload, newest first: one listing. A lineage that has only announced
    /// a checkpoint has none.
    pub(super) async fn history(
        &self,
        workload: &Workload,
    ) -> Result<BTreeMap<LineageId, Vec<GenerationNumber>>, CheckpointsFailure> {
        let prefix = workload.lineages();
        let listed =
            retry::list(self.store.as_ref(), &prefix, soon()).await.map_err(|error| self.failed(&error))?;
        let mut history: BTreeMap<LineageId, Vec<GenerationNumber>> = BTreeMap::new();
        for object in &listed {
            let rest = object.key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/'));
            let Some((Ok(id), rest)) = rest.map(|(id, rest)| (LineageId::new(id), rest)) else { continue };
            let generations = history.entry(id).or_default();
            generations.extend(rest.strip_prefix("gen/").and_then(GenerationNumber::parse));
        }
        for generations in history.values_mut() {
            generations.sort_unstable_by(|a, b| b.cmp(a));
        }
        if history.is_empty() {
            return Err(self.unknown(workload).await?);
        }
        Ok(history)
    }

    /// What is said of a workload that is not there.
    pub(super) async fn unknown(
        &self,
        workload: &Workload,
    ) -> Result<CheckpointsFailure, CheckpointsFailure> {
        let (cluster, store) = (&self.cluster, self.store.describe());
        let wanted = format!("{}/{}", workload.namespace(), workload.name());
        let known = self.workloads().await?;
        let names: Vec<String> = known.iter().map(|w| format!("{}/{}", w.namespace(), w.name())).collect();
        if names.is_empty() {
            return Ok(CheckpointsFailure::Failed(format!(
                "{wanted} is unknown: cluster {cluster:?} has nothing in {store}; correct --cluster-name or --store"
            )));
        }
        let near = nearest(&wanted, &names).join(", ");
        Ok(CheckpointsFailure::Failed(format!(
            "{wanted} is unknown in cluster {cluster:?}; the nearest: {near} (all: `list`)"
        )))
    }

    /// The one generation that `target` names. Without a lineage the one with the newest commit, without a generation
    /// the newest that can be read.
    pub(super) async fn choose(&self, target: &Target) -> Result<Chosen, CheckpointsFailure> {
        let workload = self.workload(&target.namespace, &target.workload)?;
        let mut history = self.history(&workload).await?;
        let lineage = match &target.lineage {
            Some(lineage) => lineage.clone(),
            None => self.newest(&workload).await?,
        };
        let Some(mut others) = history.remove(&lineage) else {
            return Err(unknown_lineage(target, &lineage, history.keys()));
        };
        let (generation, unreadable) = match target.generation {
            Some(number) if !others.contains(&number) => return Err(unknown_generation(target, &others)),
            Some(number) => {
                let read = generation::read(self.store.as_ref(), &workload, &lineage, number, soon()).await;
                (read.map_err(|error| CheckpointsFailure::Failed(format!("{target}: {error}")))?, Vec::new())
            }
            None => self.head(&workload, &lineage, &others).await?,
        };
        others.retain(|number| *number != generation.number);
        let manifest = restore::load_manifest(
            &self.store,
            &workload,
            generation.manifest,
            self.mac_key.as_ref(),
            soon(),
        )
        .await
        .map_err(|error| {
            let why = explain(&error);
            let (older, number) = (others.iter().find(|n| **n < generation.number), short(generation.number));
            let offer = older.map(|n| format!("; before it there is {}", short(*n))).unwrap_or_default();
            CheckpointsFailure::Failed(format!(
                "{target}: generation {number} of lineage {lineage}: {why}{offer}"
            ))
        })?;
        Ok(Chosen { workload, lineage, generation, manifest, others, unreadable })
    }

    /// The claims that are in the store. Where it ignores conditional writes they are Leases, which are not shown here.
    pub(super) fn claims(&self) -> Claims {
        Claims::in_store(Arc::clone(&self.store))
    }

    async fn newest(&self, workload: &Workload) -> Result<LineageId, CheckpointsFailure> {
        let states = lineage::survey(self.store.as_ref(), &self.claims(), workload, soon())
            .await
            .map_err(|error| self.failed(&error))?;
        let heads = states.into_iter().filter_map(|state| Some((state.head?.created, state.id)));
        heads.max().map(|(_, id)| id).ok_or_else(|| {
            let name = format!("{}/{}", workload.namespace(), workload.name());
            CheckpointsFailure::Failed(format!(
                "{name}: no generation of it can be read; `list {name}` says how its lineages stand"
            ))
        })
    }

    /// The newest generation that can be read, and why newer ones cannot.
    async fn head(
        &self,
        workload: &Workload,
        lineage: &LineageId,
        numbers: &[GenerationNumber],
    ) -> Result<(Generation, Vec<String>), CheckpointsFailure> {
        let mut unreadable = Vec::new();
        for number in numbers.iter().take(PASSED_OVER_MAX) {
            match generation::read(self.store.as_ref(), workload, lineage, *number, soon()).await {
                Ok(generation) => return Ok((generation, unreadable)),
                Err(generation::ReadError::Store(error)) if !matches!(error, StoreError::NotFound { .. }) => {
                    return Err(self.failed(&error));
                }
                Err(error) => unreadable.push(format!("generation {}: {error}", short(*number))),
            }
        }
        let why = unreadable.first().map_or("nothing was committed yet", String::as_str);
        let name = format!("{}/{}/{lineage}", workload.namespace(), workload.name());
        Err(CheckpointsFailure::Failed(format!("{name}: no generation of it can be read: {why}")))
    }
}
