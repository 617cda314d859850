//! `list`: every lineage, newest first.

use super::catalog::{Catalog, explain, soon};
use super::standing::{self, LineageStatus};
use super::target::Place;
use super::{CheckpointsFailure, CommandOutput};
use crate::commands::page::{Page, count, short, size};
use crate::runtime::config::StoreArgs;
use checkpoint::key::Workload;
use checkpoint::lineage::{self, LINEAGES_MAX, LineageState};
use checkpoint::restore;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;

/// Manifests read at the same time: each may have 64 MiB.
const MANIFESTS: usize = 4;

/// What `list` answers.
#[derive(Debug, Serialize)]
pub(super) struct Listing {
    store: String,
    cluster: String,
    pub(super) lineages: Vec<Line>,
    /// Workloads that have more lineages than are shown.
    truncated: Vec<String>,
}

/// One lineage.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    namespace: String,
    workload: String,
    pub(super) lineage: String,
    /// The newest generation that can be read, `EPOCH-N`; `null` before the first commit.
    generation: Option<String>,
    /// By its writer's clock.
    created: Option<Timestamp>,
    pub(super) age_seconds: Option<u64>,
    files: Option<usize>,
    bytes: Option<u64>,
    partial: bool,
    #[serde(flatten)]
    pub(super) standing: LineageStatus,
    pod: Option<String>,
    node: Option<String>,
    /// What cannot be read, each with its reason.
    pub(super) unreadable: Vec<String>,
}

/// Looks at a workload, a namespace or the whole cluster.
pub(super) async fn list(args: &StoreArgs, place: Option<&Place>) -> Result<Listing, CheckpointsFailure> {
    let catalog = Catalog::open(args).await?;
    let workloads: Vec<Workload> = match place {
        Some(Place { namespace, workload: Some(name) }) => vec![catalog.workload(namespace, name)?],
        Some(Place { namespace, workload: None }) => {
            let all = catalog.workloads().await?;
            let here: Vec<Workload> = all.iter().filter(|w| w.namespace() == namespace).cloned().collect();
            if here.is_empty() && !all.is_empty() {
                let mut known: Vec<&str> = all.iter().map(Workload::namespace).collect();
                known.dedup();
                known.truncate(10);
                let known = known.join(", ");
                return Err(CheckpointsFailure::Failed(format!(
                    "namespace {namespace} has no checkpoints; these have: {known}"
                )));
            }
            here
        }
        None => catalog.workloads().await?.into_iter().collect(),
    };
    let now = Timestamp::now();
    let (mut lines, mut truncated) = (Vec::new(), Vec::new());
    for workload in &workloads {
        let found = lineage::survey(catalog.store.as_ref(), &catalog.claims(), workload, soon()).await;
        let found = found.map_err(|error| catalog.failed(&error))?;
        if found.is_empty() && place.is_some_and(|place| place.workload.is_some()) {
            return Err(catalog.unknown(workload).await?);
        }
        if found.len() >= LINEAGES_MAX {
            truncated.push(format!("{}/{}", workload.namespace(), workload.name()));
        }
        let looked =
            stream::iter(found).map(|state| line(&catalog, workload, state, now)).buffered(MANIFESTS);
        lines.extend(looked.collect::<Vec<_>>().await);
    }
    // What has no age was never committed nor announced in a way that can be read.
    lines.sort_by_key(|line| line.age_seconds.unwrap_or(u64::MAX));
    Ok(Listing { store: catalog.store.describe(), cluster: catalog.cluster, lineages: lines, truncated })
}

async fn line(catalog: &Catalog, workload: &Workload, state: LineageState, now: Timestamp) -> Line {
    let LineageState { id, head, intent, claim, mut unreadable, .. } = state;
    let manifest = match &head {
        Some(head) => {
            let key = catalog.mac_key.as_ref();
            Some(restore::load_manifest(&catalog.store, workload, head.manifest, key, soon()).await)
        }
        None => None,
    };
    let size = match manifest {
        Some(Ok(manifest)) => Some((manifest.files.len(), manifest.bytes_total())),
        Some(Err(error)) => {
            unreadable.push(explain(&error));
            None
        }
        None => None,
    };
    let committed = head.as_ref().map(|head| age(head.created, now));
    let announced = intent.as_ref().map(|intent| intent.age);
    let source = head.as_ref().map(|head| &head.source).or(intent.as_ref().map(|found| &found.intent.source));
    Line {
        namespace: workload.namespace().to_owned(),
        workload: workload.name().to_owned(),
        lineage: id.to_string(),
        generation: head.as_ref().map(|head| super::target::short(head.number)),
        created: head.as_ref().map(|head| head.created),
        age_seconds: committed.or(announced).map(|age| age.as_secs()),
        files: size.map(|(files, _)| files),
        bytes: size.map(|(_, bytes)| bytes),
        partial: head.as_ref().is_some_and(|head| head.partial),
        standing: standing::judge(head.as_ref(), intent.as_ref(), claim.as_ref()),
        pod: source.map(|source| source.name.clone()),
        node: source.map(|source| source.node.clone()),
        unreadable,
    }
}

/// Time since `then`; zero if that lies ahead, as another machine's clock may have it.
pub(super) fn age(then: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(then).try_into().unwrap_or_default()
}

impl CommandOutput for Listing {
    fn page(&self, page: &mut Page) {
        if self.lineages.is_empty() {
            page.line(&format!(
                "cluster {:?} has no checkpoints in {} (another one: --cluster-name)",
                self.cluster, self.store
            ));
            return;
        }
        let rows: Vec<Vec<String>> = self.lineages.iter().map(Line::row).collect();
        page.table(
            &["WORKLOAD", "LINEAGE", "GENERATION", ">AGE", ">BYTES", ">FILES", "STATE", "NOTE"],
            &rows,
        );
        for line in &self.lineages {
            for why in &line.unreadable {
                page.line(&format!("{}/{}/{}: {why}", line.namespace, line.workload, line.lineage));
            }
        }
        for workload in &self.truncated {
            page.line(&format!("{workload}: only its newest {} are shown", count(LINEAGES_MAX, "lineage")));
        }
    }
}

impl Line {
    fn row(&self) -> Vec<String> {
        let none = || "-".to_owned();
        let generation = self.generation.clone().unwrap_or_else(none);
        vec![
            format!("{}/{}", self.namespace, self.workload),
            self.lineage.clone(),
            if self.partial { format!("{generation} (partial)") } else { generation },
            self.age_seconds.map_or_else(none, |seconds| short(Duration::from_secs(seconds))),
            self.bytes.map_or_else(none, size),
            self.files.map_or_else(none, |files| files.to_string()),
            self.standing.state.as_str().to_owned(),
            self.standing.note.clone(),
        ]
    }
}
