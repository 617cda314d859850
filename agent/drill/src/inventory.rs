//! What is in the store at the end: every checkpoint that can be found is fetched and verified, every byte of it.

use checkpoint::dispatcher::{Dispatcher, Limits};
use checkpoint::folder::Folder;
use checkpoint::generation;
use checkpoint::key::{GenerationNumber, LineageId, Workload};
use checkpoint::restore::{self, FetchProgress, FetchRequest, Verify};
use checkpoint::store::Store;
use evacuation::report::Report;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the whole look may take.
const LIMIT: Duration = Duration::from_secs(20);

/// What the store holds for one cluster.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Inventory {
    /// Every generation.
    pub generations: Vec<Stored>,
    /// Reports, as they were written.
    pub reports: Vec<Report>,
    /// Objects in all, and their bytes.
    pub objects: usize,
    /// Bytes in all.
    pub bytes: u64,
    /// Why the store could not be looked into.
    pub unreadable: Option<String>,
}

/// One generation.
#[derive(Clone, Debug, Serialize)]
pub struct Stored {
    /// The pod's namespace.
    pub namespace: String,
    /// The workload.
    pub workload: String,
    /// The lineage.
    pub lineage: String,
    /// `epoch-n`.
    pub number: String,
    /// Not all of the state.
    pub partial: bool,
    /// The pod that it was saved from.
    pub source_uid: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// The digest over all files as the drill's own engines compute it; why not, if it does not verify.
    pub content: Result<String, String>,
}

/// Looks at everything under `cluster`.
pub async fn take(store: &Store, cluster: &str, scratch: &Path) -> Inventory {
    let deadline = Instant::now() + LIMIT;
    let prefix = format!("v1/{cluster}/");
    let listed = match tokio::time::timeout_at(deadline, store.list(&prefix)).await {
        Ok(Ok(listed)) => listed,
        Ok(Err(error)) => return Inventory { unreadable: Some(error.to_string()), ..Inventory::default() },
        Err(_) => {
            return Inventory { unreadable: Some("it does not answer".to_owned()), ..Inventory::default() };
        }
    };
    let mut inventory = Inventory {
        objects: listed.len(),
        bytes: listed.iter().map(|object| object.size).sum(),
        ..Inventory::default()
    };
    for object in &listed {
        let parts: Vec<&str> = object.key[prefix.len()..].split('/').collect();
        match parts.as_slice() {
            [_, namespace, workload, "lineage", lineage, "gen", number] => {
                let found = Found { cluster, namespace, workload, lineage, number };
                inventory.generations.push(found.verify(store, scratch, deadline).await);
            }
            ["report", ..] => match store.get(&object.key, 4 << 20).await {
                Ok(report) => inventory.reports.extend(serde_json::from_slice::<Report>(&report.bytes)),
                Err(error) => inventory.unreadable = Some(error.to_string()),
            },
            _ => {}
        }
    }
    inventory
}

/// A generation's key, taken apart.
struct Found<'a> {
    cluster: &'a str,
    namespace: &'a str,
    workload: &'a str,
    lineage: &'a str,
    number: &'a str,
}

impl Found<'_> {
    async fn verify(&self, store: &Store, scratch: &Path, deadline: Instant) -> Stored {
        let mut stored = Stored {
            namespace: self.namespace.to_owned(),
            workload: self.workload.to_owned(),
            lineage: self.lineage.to_owned(),
            number: self.number.to_owned(),
            partial: false,
            source_uid: String::new(),
            bytes: 0,
            content: Err(String::new()),
        };
        stored.content = self.content(store, scratch, deadline, &mut stored).await;
        stored
    }

    async fn content(
        &self,
        store: &Store,
        scratch: &Path,
        deadline: Instant,
        stored: &mut Stored,
    ) -> Result<String, String> {
        let workload =
            Workload::new(self.cluster, self.namespace, self.workload).map_err(|error| error.to_string())?;
        let lineage = LineageId::new(self.lineage).map_err(|error| error.to_string())?;
        let number = GenerationNumber::parse(self.number).ok_or("its number is none")?;
        let generation = generation::read(store.as_ref(), &workload, &lineage, number, deadline).await;
        let generation = generation.map_err(|error| error.to_string())?;
        stored.partial = generation.partial;
        stored.source_uid.clone_from(&generation.source.uid);
        let manifest = restore::load_manifest(store, &workload, generation.manifest, None, deadline).await;
        let manifest = manifest.map_err(|error| error.to_string())?;
        stored.bytes = manifest.files.iter().map(|file| file.size).sum();
        let place = scratch.join(format!("{}-{}", self.lineage, self.number));
        std::fs::create_dir_all(&place).map_err(|error| error.to_string())?;
        let folder = Folder::open(&place).map_err(|error| error.to_string())?;
        let progress = Arc::new(FetchProgress::default());
        let request = FetchRequest {
            manifest: &manifest,
            folder: &folder,
            into: "all",
            earlier: None,
            verify: Verify::Names,
            rank: 0,
            deadline,
        };
        let fetched = restore::fetch(store, request, &Dispatcher::new(Limits::slots(4)), &progress).await;
        fetched.map_err(|error| error.to_string())?;
        let names = manifest.files.iter().map(|file| file.path.as_str());
        digest(&place.join("all"), names).map_err(|error| error.to_string())
    }
}

/// The digest that the drill's engines give of their state: over names and bytes, in the order of the names.
fn digest<'a>(folder: &Path, names: impl Iterator<Item = &'a str>) -> std::io::Result<String> {
    let files: BTreeMap<&str, std::path::PathBuf> = names.map(|name| (name, folder.join(name))).collect();
    let mut hasher = blake3::Hasher::new();
    for (name, path) in files {
        let mut content = Vec::new();
        std::fs::File::open(path)?.read_to_end(&mut content)?;
        for part in [name.as_bytes(), &content] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    Ok(hasher.finalize().to_hex().as_str().to_owned())
}
