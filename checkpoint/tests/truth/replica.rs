//! How a checkpoint is made and read: the one file here that knows the crate's signatures.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use checkpoint::chunk::Chunking;
use checkpoint::claim::{ClaimError, ClaimRequest, Claims, HeldClaim, Holder};
use checkpoint::dispatcher::{Class, Dispatcher, Limits as Slots};
use checkpoint::fingerprint::Fingerprint;
use checkpoint::folder::{Folder, WalkLimits};
use checkpoint::generation::{self, CommitError, Generation};
use checkpoint::hash::{self, ContentHash};
use checkpoint::intent::{self, Intent, IntentState};
use checkpoint::key::{LineageId, Workload};
use checkpoint::lineage::{self, LineageState};
use checkpoint::manifest::{self, FileEntry, Manifest, Parent, Source};
use checkpoint::preflight::Conditions;
use checkpoint::restore::{self, FetchProgress, FetchRequest, RestoreError, Verify};
use checkpoint::save::{self, Identity, Progress, SaveError, SaveRequest, Saved, SourceFile};
use checkpoint::store::{Store, StoreError, StoreOptions, open};
use tokio::time::Instant;

/// The smallest pack that a save makes: the more packs, the more moments to be struck at.
pub const PACK: usize = 4 << 20;
/// The lease of every claim here.
pub const LEASE: Duration = Duration::from_secs(30);
/// The age at which a claim that was not renewed has run out, whatever the stamps are rounded to.
pub const EXPIRED: Duration = Duration::from_secs(35);
/// Transfers at the same time.
const SLOTS: usize = 3;

/// A state: bytes by path.
pub type Files = BTreeMap<String, Vec<u8>>;

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Makes `folder` hold exactly `files`.
pub fn lay_out(folder: &Path, files: &Files) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).unwrap();
    for (path, bytes) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }
}

/// What `folder` holds, without `.lifeboat/`.
pub fn contents(folder: &Path) -> Files {
    let opened = Folder::open(folder).unwrap();
    let found = opened.files(&WalkLimits::default()).unwrap();
    assert!(found.skipped.is_empty(), "{:?}", found.skipped);
    found.files.iter().map(|file| (file.path.clone(), fs::read(folder.join(&file.path)).unwrap())).collect()
}

/// The bucket that `tests/run s3` made, under a prefix of its own, through `endpoint` if it is not the server's.
pub async fn bucket(prefix: &str, endpoint: Option<&str>) -> Store {
    let endpoint = endpoint.map_or_else(server, str::to_owned);
    let options = StoreOptions {
        region: Some("us-east-1".into()),
        endpoint: Some(endpoint),
        path_style: true,
        ..StoreOptions::default()
    };
    open(&format!("s3://{}/{prefix}", variable("LIFEBOAT_S3_BUCKET")), options).await.unwrap()
}

/// The endpoint of the real server.
pub fn server() -> String {
    variable("LIFEBOAT_S3_ENDPOINT")
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `tests/run s3`, which starts the server"))
}

/// The one workload of all replicas here.
pub fn workload() -> Workload {
    Workload::new("cluster", "chat", "llama").unwrap()
}

/// How a save goes about it.
pub struct How<'a> {
    pub chunking: Chunking,
    /// What it builds on.
    pub parent: Option<&'a Manifest>,
    pub known: Option<HashMap<ContentHash, u64>>,
    pub deadline: Instant,
}

impl Default for How<'_> {
    fn default() -> Self {
        Self { chunking: Chunking::Fixed, parent: None, known: None, deadline: soon() }
    }
}

/// One pod with its lineage, on one store.
#[derive(Clone)]
pub struct Replica {
    pub store: Store,
    pub workload: Workload,
    pub lineage: LineageId,
    pub uid: String,
}

impl Replica {
    pub fn new(store: Store, uid: &str) -> Self {
        Self { store, workload: workload(), lineage: LineageId::new("llama-0").unwrap(), uid: uid.to_owned() }
    }

    /// Another pod, or the same one, on another way to the store.
    pub fn on(&self, store: Store, uid: &str) -> Self {
        Self { store, uid: uid.to_owned(), ..self.clone() }
    }

    pub async fn save(&self, state: &Path, how: How<'_>) -> Result<Saved, SaveError> {
        let folder = Folder::open(state).unwrap();
        let found = folder.files(&WalkLimits::default()).unwrap().files;
        let files = found.into_iter().map(|file| SourceFile {
            file: folder.read(&file.path).unwrap(),
            path: file.path,
            mode: file.mode,
            size: file.size,
            chunking: how.chunking,
        });
        let request = SaveRequest {
            workload: &self.workload,
            files: files.collect(),
            parent: how.parent,
            known_packs: how.known,
            condemned: Default::default(),
            round: None,
            remember: false,
            identity: Identity::Blake3,
            pack_size: PACK,
            class: Class::Drain,
            rank: 0.into(),
            deadline: how.deadline,
        };
        let dispatcher = Dispatcher::new(Slots::slots(SLOTS));
        save::save(&self.store, request, &dispatcher, &Arc::new(Progress::default())).await
    }

    pub async fn known_packs(&self) -> Result<HashMap<ContentHash, u64>, StoreError> {
        save::known_packs(&self.store, &self.workload, soon()).await
    }

    pub fn manifest(&self, files: Vec<FileEntry>, partial: bool, parent: Option<&Generation>) -> Manifest {
        let of = |one: &Generation| Parent { lineage: one.lineage.clone(), generation: one.number };
        Manifest {
            format: manifest::FORMAT,
            workload: self.workload.clone(),
            lineage: self.lineage.clone(),
            source: self.source(),
            revision: "r1".into(),
            spec_key: "spec".into(),
            fingerprint: Fingerprint::default(),
            notice_id: None,
            parent: parent.map(of),
            created: jiff::Timestamp::now(),
            partial,
            engine: serde_json::Map::new(),
            files,
            mac: None,
        }
    }

    pub async fn commit(
        &self,
        manifest: &Manifest,
        epoch: u64,
        by: Instant,
    ) -> Result<Generation, CommitError> {
        let decided = Conditions::Decided;
        generation::commit(self.store.as_ref(), manifest, epoch, &self.uid, None, &decided, by).await
    }

    /// Saves and commits the state as it is, on top of `parent`.
    pub async fn checkpoint(
        &self,
        state: &Path,
        parent: Option<(&Manifest, &Generation)>,
    ) -> (Manifest, Generation) {
        let how = How { parent: parent.map(|(manifest, _)| manifest), ..How::default() };
        let saved = self.save(state, how).await.unwrap();
        assert!(saved.is_whole(), "{:?}", saved.failed);
        let manifest = self.manifest(saved.files, false, parent.map(|(_, generation)| generation));
        let generation = self.commit(&manifest, 1, soon()).await.unwrap();
        (manifest, generation)
    }

    pub async fn announce(&self, state: IntentState) -> Result<(), generation::ReadError> {
        let mut intent = Intent {
            format: intent::FORMAT,
            lineage: self.lineage.clone(),
            source: self.source(),
            writer: self.uid.clone(),
            nonce: hash::nonce(),
            notice_id: None,
            time_left_ms: 60_000,
            spec_key: "spec".into(),
            packs: vec![],
            state,
        };
        intent.put(self.store.as_ref(), &self.workload, soon()).await.map(drop)
    }

    pub fn claims(&self) -> Claims {
        Claims::in_store(self.store.clone())
    }

    pub async fn claim(&self, named: bool) -> Result<HeldClaim, ClaimError> {
        let holder = Holder { pod_uid: self.uid.clone(), pod_name: "llama-0".into(), node: "node-b".into() };
        let request = ClaimRequest { lineage: self.lineage.clone(), holder, lease: LEASE, named };
        self.claims().take(self.store.as_ref(), &self.workload, &request, soon()).await
    }

    /// This lineage as a reader finds it; `None` if nothing of it is there.
    pub async fn survey(&self) -> Option<LineageState> {
        let found =
            lineage::survey(self.store.as_ref(), &self.claims(), &self.workload, soon()).await.unwrap();
        found.into_iter().find(|lineage| lineage.id == self.lineage)
    }

    pub async fn load(&self, generation: &Generation) -> Result<Manifest, RestoreError> {
        restore::load_manifest(&self.store, &self.workload, generation.manifest, None, soon()).await
    }

    /// Fetches one generation and puts it into `folder`.
    pub async fn restore(&self, generation: &Generation, folder: &Path) -> Result<Manifest, RestoreError> {
        let manifest = self.load(generation).await?;
        let folder = Folder::open(folder).unwrap();
        let staging = restore::staging(generation.number);
        let progress = Arc::new(FetchProgress::default());
        let request = FetchRequest {
            manifest: &manifest,
            folder: &folder,
            into: &staging,
            earlier: None,
            verify: Verify::Checksums,
            rank: 0,
            deadline: soon(),
        };
        restore::fetch(&self.store, request, &Dispatcher::new(Slots::slots(SLOTS)), &progress).await?;
        restore::install(&folder, &staging, &manifest).await?;
        Ok(manifest)
    }

    /// Restores the newest generation that verifies, as an agent does: the head, and if it is refused the one before.
    pub async fn restore_newest(&self, folder: &Path) -> Found {
        let lineage = self.survey().await;
        let mut refused = lineage.as_ref().map_or_else(Vec::new, |lineage| lineage.unreadable.clone());
        for generation in lineage.iter().flat_map(|lineage| lineage.head.iter().chain(&lineage.older)) {
            match self.restore(generation, folder).await {
                Ok(_) => return Found { generation: Some(generation.clone()), refused },
                Err(error @ (RestoreError::Corrupt { .. } | RestoreError::Manifest { .. })) => {
                    refused.push(error.to_string());
                }
                Err(error) => panic!("generation {}: {error}", generation.number),
            }
        }
        Found { generation: None, refused }
    }

    fn source(&self) -> Source {
        Source {
            namespace: "chat".into(),
            name: "llama-0".into(),
            uid: self.uid.clone(),
            node: "node-a".into(),
        }
    }
}

/// What a reader could restore, and what it refused on the way, each with its reason.
#[derive(Debug)]
pub struct Found {
    pub generation: Option<Generation>,
    pub refused: Vec<String>,
}
