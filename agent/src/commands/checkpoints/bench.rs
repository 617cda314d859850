//! What the tests look at: a directory store with checkpoints that were saved and committed as the agent does it.

use super::target::Target;
use super::{CommandOutput, render};
use crate::commands::page::Output;
use crate::runtime::config::StoreArgs;
use checkpoint::chunk::Chunking;
use checkpoint::claim::{ClaimRequest, Claims, HeldClaim, Holder};
use checkpoint::dispatcher::{self, Class, Dispatcher};
use checkpoint::fingerprint::Fingerprint;
use checkpoint::folder::{Folder, WalkLimits};
use checkpoint::generation;
use checkpoint::intent::{self, Intent, IntentState};
use checkpoint::key::{LineageId, Workload};
use checkpoint::manifest::{self, Manifest, Parent, Source};
use checkpoint::preflight::Conditions;
use checkpoint::save::{self, Identity, SaveRequest, SourceFile};
use checkpoint::store::{self, Store, StoreOptions};
use clap::Parser;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    store: StoreArgs,
}

/// A store, and the state folder that is saved to it.
pub(super) struct StoreBench {
    pub(super) root: tempfile::TempDir,
    pub(super) args: StoreArgs,
    store: Store,
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub(super) fn args(url: &str) -> StoreArgs {
    Flags::try_parse_from(["lifeboat", "--store", url, "--cluster-name", "c"]).unwrap().store
}

pub(super) fn target(text: &str) -> Target {
    text.parse().unwrap()
}

/// The answer as JSON, read back from the text that is printed.
pub(super) fn json<T: CommandOutput>(answer: &T) -> Value {
    serde_json::from_str(&render(Output::Json, answer).unwrap()).unwrap()
}

/// The answer for people.
pub(super) fn text<T: CommandOutput>(answer: &T) -> String {
    render(Output::Text, answer).unwrap()
}

impl StoreBench {
    pub(super) async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["store", "state"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let url = format!("dir:{}/store", root.path().display());
        let store = store::open(&url, StoreOptions::default()).await.unwrap();
        Self { args: args(&url), root, store }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Puts noise into a file of the state.
    pub(super) fn write(&self, path: &str, len: usize, seed: u64) {
        let mut bytes = vec![0; len];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        let path = self.path("state").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Saves and commits the state as it is, in namespace `chat`, as the next generation of `lineage`.
    pub(super) async fn checkpoint(
        &self,
        workload: &str,
        lineage: &str,
        parent: Option<&Manifest>,
    ) -> Manifest {
        self.checkpoint_as(workload, lineage, parent, |_| {}).await
    }

    pub(super) async fn checkpoint_as(
        &self,
        workload: &str,
        lineage: &str,
        parent: Option<&Manifest>,
        change: impl FnOnce(&mut Manifest),
    ) -> Manifest {
        let workload = Workload::new("c", "chat", workload).unwrap();
        let folder = Folder::open(&self.path("state")).unwrap();
        let files = folder.files(&WalkLimits::default()).unwrap().files.into_iter();
        let open = |file: checkpoint::folder::FoundFile| SourceFile {
            file: folder.read(&file.path).unwrap(),
            path: file.path,
            mode: file.mode,
            size: file.size,
            chunking: Chunking::Fixed,
        };
        let request = SaveRequest {
            workload: &workload,
            files: files.map(open).collect(),
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
        };
        let saved =
            save::save(&self.store, request, &Dispatcher::new(dispatcher::Limits::slots(2)), &Arc::default())
                .await
                .unwrap();
        let lineage = LineageId::new(lineage).unwrap();
        let number = generation::newest(self.store.as_ref(), &workload, &lineage, soon()).await.unwrap();
        let mut manifest = Manifest {
            format: manifest::FORMAT,
            source: source(lineage.as_str()),
            workload,
            revision: "r1".into(),
            spec_key: "spec".into(),
            fingerprint: Fingerprint {
                facts: [("kv-type", "f16"), ("weights", "w")].map(|(k, v)| (k.into(), v.into())).into(),
                ..Fingerprint::default()
            },
            notice_id: Some("notice-1".into()),
            parent: number.map(|generation| Parent { lineage: lineage.clone(), generation }),
            lineage,
            created: jiff::Timestamp::now(),
            partial: false,
            engine: serde_json::Map::new(),
            files: saved.files,
            mac: None,
        };
        change(&mut manifest);
        let decided = Conditions::Decided;
        generation::commit(self.store.as_ref(), &manifest, 1, "writer", None, &decided, soon())
            .await
            .unwrap();
        manifest
    }

    /// Announces a checkpoint of `lineage`, or takes it back.
    pub(super) async fn announce(
        &self,
        workload: &str,
        lineage: &str,
        time_left_ms: u64,
        state: IntentState,
    ) {
        let workload = Workload::new("c", "chat", workload).unwrap();
        let mut intent = Intent {
            format: intent::FORMAT,
            lineage: LineageId::new(lineage).unwrap(),
            source: source(lineage),
            writer: "writer".into(),
            nonce: String::new(),
            notice_id: None,
            time_left_ms,
            spec_key: "spec".into(),
            packs: Vec::new(),
            state,
        };
        intent.put(self.store.as_ref(), &workload, soon()).await.unwrap();
    }

    /// Takes the claim on `lineage` for a pod named `replacement`.
    pub(super) async fn claim(&self, workload: &str, lineage: &str) -> HeldClaim {
        let workload = Workload::new("c", "chat", workload).unwrap();
        let holder =
            Holder { pod_uid: "uid-r".into(), pod_name: "replacement".into(), node: "node-b".into() };
        let lineage = LineageId::new(lineage).unwrap();
        let request = ClaimRequest { lineage, holder, lease: Duration::from_secs(60), named: true };
        let claims = Claims::in_store(Arc::clone(&self.store));
        claims.take(self.store.as_ref(), &workload, &request, soon()).await.unwrap()
    }

    pub(super) async fn finish(&self, mut claim: HeldClaim) {
        claim.finish(soon()).await.unwrap();
    }

    /// The files of the store whose path contains `part`.
    pub(super) fn objects(&self, part: &str) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.path("store/objects")]);
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

/// Changes one bit in the middle of a file, and nothing else of it.
pub(super) fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn source(lineage: &str) -> Source {
    Source {
        namespace: "chat".into(),
        name: lineage.to_owned(),
        uid: format!("uid-{lineage}"),
        node: "node-a".into(),
    }
}
