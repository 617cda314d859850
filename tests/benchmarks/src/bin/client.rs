//! The `checkpoint` crate as a client of its own: saves a folder as one generation, or restores the newest one, as the
//! agent does it, and prints one line of JSON.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use checkpoint::chunk::Chunking;
use checkpoint::dispatcher::{Class, Dispatcher, Limits as Slots};
use checkpoint::fingerprint::Fingerprint;
use checkpoint::folder::{Folder, WalkLimits};
use checkpoint::generation::{self, Generation};
use checkpoint::key::{LineageId, Workload};
use checkpoint::manifest::{self, Manifest, Source};
use checkpoint::preflight::Conditions;
use checkpoint::restore::{self, FetchProgress, FetchRequest, Verify};
use checkpoint::save::{self, Identity, Progress, SaveRequest, SourceFile};
use checkpoint::store::{self, Store, StoreOptions};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tokio::time::Instant;

/// No benchmark takes longer.
const TIME: Duration = Duration::from_secs(3600);
const WRITER: &str = "tests-bench";

/// The checkpoint crate as a client.
#[derive(Parser)]
struct Command {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    what: What,
}

#[derive(Args)]
struct Place {
    /// The store: s3://bucket or dir:/path.
    #[arg(long)]
    store: String,
    /// Another endpoint than AWS's.
    #[arg(long)]
    endpoint: Option<String>,
    /// A certificate authority to trust (PEM).
    #[arg(long)]
    ca: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Saves a folder and commits it.
    Save {
        /// The folder.
        folder: PathBuf,
        /// Send only what the newest generation does not have.
        #[arg(long)]
        delta: bool,
        /// How its files change between saves.
        #[arg(long, value_enum, default_value = "fixed")]
        chunking: Cut,
        /// Packs on their way at the same time.
        #[arg(long, default_value_t = 8)]
        slots: usize,
        /// The size of a pack, in MiB.
        #[arg(long, default_value_t = 32)]
        pack_mib: usize,
        /// Name blocks by their BLAKE3 hash, or only tell them apart by a fast one.
        #[arg(long, value_enum, default_value = "blake3")]
        identity: Names,
    },
    /// Restores the newest generation.
    Restore {
        /// An empty folder.
        folder: PathBuf,
        /// GETs at the same time.
        #[arg(long, default_value_t = 8)]
        parallel: usize,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Cut {
    Fixed,
    ContentDefined,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Names {
    Blake3,
    Fast,
}

/// The store, and whose state it is.
struct Desk {
    store: Store,
    workload: Workload,
    lineage: LineageId,
    deadline: Instant,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Command { place, what } = Command::parse();
    let options = StoreOptions {
        endpoint: place.endpoint,
        path_style: true,
        ca_file: place.ca,
        ..StoreOptions::default()
    };
    let desk = Desk {
        store: store::open(&place.store, options).await?,
        workload: Workload::new("bench", "bench", "state")?,
        lineage: LineageId::new("state-0")?,
        deadline: Instant::now() + TIME,
    };
    let answer = match what {
        What::Save { folder, delta, chunking, slots, pack_mib, identity } => {
            let chunking = match chunking {
                Cut::Fixed => Chunking::Fixed,
                Cut::ContentDefined => Chunking::ContentDefined,
            };
            let named = identity == Names::Blake3;
            desk.save(&Folder::open(&folder)?, delta, chunking, slots, pack_mib << 20, named).await?
        }
        What::Restore { folder, parallel } => desk.restore(&Folder::open(&folder)?, parallel).await?,
    };
    println!("{answer}");
    Ok(())
}

impl Desk {
    async fn save(
        &self,
        folder: &Folder,
        delta: bool,
        chunking: Chunking,
        slots: usize,
        pack_size: usize,
        named: bool,
    ) -> Result<Value> {
        let parent = match delta {
            true => Some(self.newest().await?),
            false => None,
        };
        let mut files = Vec::new();
        for found in folder.files(&WalkLimits::default())?.files {
            let file = folder.read(&found.path)?;
            files.push(SourceFile { path: found.path, mode: found.mode, size: found.size, file, chunking });
        }
        let request = SaveRequest {
            workload: &self.workload,
            files,
            parent: parent.as_ref().map(|(_, manifest)| manifest),
            known_packs: None,
            condemned: Default::default(),
            round: None,
            remember: false,
            identity: if named { Identity::Blake3 } else { Identity::Fast },
            pack_size,
            class: Class::Drain,
            rank: 0.into(),
            deadline: self.deadline,
        };
        let progress = Arc::new(Progress::default());
        let began = Instant::now();
        let saved =
            save::save(&self.store, request, &Dispatcher::new(Slots::slots(slots)), &progress).await?;
        let sent = Instant::now();
        ensure!(saved.is_whole(), "files are missing: {:?}", saved.failed);
        let parent = parent.map(|(generation, _)| manifest::Parent {
            lineage: generation.lineage,
            generation: generation.number,
        });
        let manifest = self.manifest(saved.files.clone(), parent);
        generation::commit(
            self.store.as_ref(),
            &manifest,
            1,
            WRITER,
            None,
            &Conditions::Decided,
            self.deadline,
        )
        .await?;
        Ok(json!({
            "bytes": saved.bytes_total,
            "bytes_sent": saved.bytes_sent,
            "packs_sent": saved.packs_sent,
            "seconds": began.elapsed().as_secs_f64(),
            "last_pack_to_commit": sent.elapsed().as_secs_f64(),
        }))
    }

    async fn restore(&self, folder: &Folder, parallel: usize) -> Result<Value> {
        let began = Instant::now();
        let (generation, manifest) = self.newest().await?;
        let staging = restore::staging(generation.number);
        let progress = Arc::new(FetchProgress::default());
        let Self { store, deadline, .. } = self;
        let request = FetchRequest {
            manifest: &manifest,
            folder,
            into: &staging,
            earlier: None,
            verify: Verify::Checksums,
            rank: 0,
            deadline: *deadline,
        };
        restore::fetch(store, request, &Dispatcher::new(Slots::slots(parallel)), &progress).await?;
        restore::install(folder, &staging, &manifest).await?;
        Ok(json!({
            "bytes": progress.bytes_total(),
            "bytes_fetched": progress.bytes_fetched(),
            "seconds": began.elapsed().as_secs_f64(),
        }))
    }

    async fn newest(&self) -> Result<(Generation, Manifest)> {
        let Self { store, workload, lineage, deadline } = self;
        let number = generation::newest(store.as_ref(), workload, lineage, *deadline).await?;
        let number = number.context("nothing was saved here")?;
        let newest = generation::read(store.as_ref(), workload, lineage, number, *deadline).await?;
        let manifest = restore::load_manifest(store, workload, newest.manifest, None, *deadline).await?;
        Ok((newest, manifest))
    }

    fn manifest(&self, files: Vec<manifest::FileEntry>, parent: Option<manifest::Parent>) -> Manifest {
        Manifest {
            format: manifest::FORMAT,
            workload: self.workload.clone(),
            lineage: self.lineage.clone(),
            source: Source {
                namespace: "bench".into(),
                name: "state-0".into(),
                uid: WRITER.into(),
                node: "this".into(),
            },
            revision: "1".into(),
            spec_key: "bench".into(),
            fingerprint: Fingerprint::default(),
            notice_id: None,
            parent,
            created: jiff::Timestamp::now(),
            partial: false,
            engine: serde_json::Map::new(),
            files,
            mac: None,
        }
    }
}
