//! What tests of several modules need: a store in a folder, a state to save, and a replica that saves it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::chunk::Chunking;
use crate::claim::Claims;
use crate::dispatcher::{Class, Dispatcher, Limits as Slots};
use crate::fingerprint::Fingerprint;
use crate::folder::{Folder, WalkLimits};
use crate::generation::{self, CommitError, Generation};
use crate::key::{LineageId, Workload};
use crate::manifest::{self, FileEntry, Manifest, Source};
use crate::preflight::Conditions;
use crate::restore::{self, FetchProgress, FetchRequest, RestoreError, Verify};
use crate::save::{self, Identity, Progress, SaveError, SaveRequest, Saved, SourceFile};
use crate::store::Store;
use crate::store::directory::DirectoryStore;
use crate::store::faulty::{FaultPlan, FaultyStore};

pub(crate) struct World {
    pub(crate) root: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) workload: Workload,
    pub(crate) lineage: LineageId,
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub(crate) fn within_ms(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

impl World {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["store", "state", "restored"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let store = Arc::new(DirectoryStore::open(root.path().join("store")).unwrap());
        let workload = Workload::new("cluster", "chat", "llama").unwrap();
        Self { root, store, workload, lineage: LineageId::new("llama-0").unwrap() }
    }

    /// The same world, where a part of it is broken from now on.
    pub(crate) fn break_store(&mut self, plan: &str) -> Arc<FaultyStore> {
        let faulty = Arc::new(FaultyStore::new(Arc::clone(&self.store), FaultPlan::parse(plan).unwrap()));
        self.store = faulty.clone();
        faulty
    }

    /// Claims beside the checkpoints.
    pub(crate) fn claims(&self) -> Claims {
        Claims::in_store(Arc::clone(&self.store))
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub(crate) fn restored(&self) -> PathBuf {
        self.root.path().join("restored")
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.state().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn sources(&self, chunking: Chunking) -> Vec<SourceFile> {
        let folder = Folder::open(&self.state()).unwrap();
        let found = folder.files(&WalkLimits::default()).unwrap().files;
        let open = |file: crate::folder::FoundFile| SourceFile {
            file: folder.read(&file.path).unwrap(),
            path: file.path,
            mode: file.mode,
            size: file.size,
            chunking,
        };
        found.into_iter().map(open).collect()
    }

    pub(crate) fn request<'a>(&'a self, chunking: Chunking, parent: Option<&'a Manifest>) -> SaveRequest<'a> {
        SaveRequest {
            workload: &self.workload,
            files: self.sources(chunking),
            parent,
            known_packs: None,
            condemned: Default::default(),
            round: None,
            remember: false,
            identity: Identity::Blake3,
            pack_size: 4 << 20,
            class: Class::Drain,
            rank: 0.into(),
            deadline: soon(),
        }
    }

    pub(crate) async fn save(&self, request: SaveRequest<'_>) -> Result<Saved, SaveError> {
        save::save(&self.store, request, &Dispatcher::new(Slots::slots(2)), &Arc::new(Progress::default()))
            .await
    }

    pub(crate) fn manifest(&self, files: Vec<FileEntry>) -> Manifest {
        Manifest {
            format: manifest::FORMAT,
            workload: self.workload.clone(),
            lineage: self.lineage.clone(),
            source: Source {
                namespace: "chat".into(),
                name: "llama-0".into(),
                uid: "uid-0".into(),
                node: "node-a".into(),
            },
            revision: "r1".into(),
            spec_key: "spec".into(),
            fingerprint: Fingerprint::default(),
            notice_id: None,
            parent: None,
            created: "2026-11-22T10:00:00Z".parse().unwrap(),
            partial: false,
            engine: serde_json::Map::new(),
            files,
            mac: None,
        }
    }

    pub(crate) async fn commit(
        &self,
        manifest: &Manifest,
        epoch: u64,
        writer: &str,
    ) -> Result<Generation, CommitError> {
        let decided = Conditions::Decided;
        generation::commit(self.store.as_ref(), manifest, epoch, writer, None, &decided, soon()).await
    }

    /// Saves and commits the state as it is.
    pub(crate) async fn checkpoint(
        &self,
        chunking: Chunking,
        parent: Option<&Manifest>,
    ) -> (Manifest, Saved) {
        let saved = self.save(self.request(chunking, parent)).await.unwrap();
        assert!(saved.is_whole(), "{:?}", saved.failed);
        let manifest = self.manifest(saved.files.clone());
        self.commit(&manifest, 1, "uid-0").await.unwrap();
        (manifest, saved)
    }

    pub(crate) async fn fetch(
        &self,
        manifest: &Manifest,
        deadline: Instant,
    ) -> Result<Arc<FetchProgress>, RestoreError> {
        let folder = Folder::open(&self.restored()).unwrap();
        let progress = Arc::new(FetchProgress::default());
        let request = FetchRequest {
            manifest,
            folder: &folder,
            into: ".lifeboat/restore/1",
            earlier: None,
            verify: Verify::Names,
            rank: 0,
            deadline,
        };
        restore::fetch(&self.store, request, &Dispatcher::new(Slots::slots(4)), &progress).await?;
        Ok(progress)
    }

    pub(crate) async fn restore(&self, manifest: &Manifest) -> Result<(), RestoreError> {
        self.fetch(manifest, soon()).await?;
        let folder = Folder::open(&self.restored()).unwrap();
        restore::install(&folder, ".lifeboat/restore/1", manifest).await
    }

    /// Panics unless the restored folder holds the same files with the same bytes and modes.
    pub(crate) fn assert_same(&self) {
        let listing = |root: &Path| {
            let files = Folder::open(root).unwrap().files(&WalkLimits::default()).unwrap().files;
            let read = |file: &crate::folder::FoundFile| fs::read(root.join(&file.path)).unwrap();
            files.iter().map(|file| (file.path.clone(), file.mode, read(file))).collect::<Vec<_>>()
        };
        assert!(listing(&self.state()) == listing(&self.restored()), "the restored state is another one");
    }

    /// The files of the directory store whose path contains `part`.
    pub(crate) fn objects(&self, part: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.path().join("store/objects")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.to_str().unwrap().contains(part) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}
