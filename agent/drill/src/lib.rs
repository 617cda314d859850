//! `lifeboat drill`: a rehearsed evacuation on one machine, with a verdict.
//!
//! ```text
//!   this process                                             two child processes of the same binary
//!   ┌───────────────────────────────────────────────┐        ┌──────────────────────────┐
//!   │ imds ── the notice of node-a (and its faults) │◄──poll─│ lifeboat run, node-a     │──┐
//!   │ apiserver ── nodes, pods, evictions, audit    │◄──kube─│                          │  │ store
//!   │ kubelet ×2 ── pods, volumes, holds, gates     │        └──────────────────────────┘  │ (a directory,
//!   │ controllers ── replacements                   │        ┌──────────────────────────┐  │  or S3)
//!   │ engines ── real sidecars or llama-servers     │◄──http─│ lifeboat run, node-b     │──┘
//!   └───────────────────────────────────────────────┘        └──────────────────────────┘
//!        │ play: notice, faults, the end as soon as everything is decided
//!        ▼
//!   observation (audit, journals, trails of state, store) ─► verdict: a pure function ─► exit code
//! ```
//! The agents are the released binary with its production code paths: real sockets, files, signals and
//! processes. What stands in for the world says in its own file what it proves and what it does not.

pub mod agent;
pub mod arguments;
pub mod cast;
pub mod chronicle;
pub mod controllers;
pub mod engine_room;
pub mod follower;
pub mod inventory;
pub mod kubelet;
pub mod llama;
pub mod observation;
pub mod play;
pub mod progress;
pub mod recording;
pub mod scene;
pub mod stage;
pub mod story;
pub mod talk;
pub mod timeline;
pub mod trail;
pub mod verdict;

use arguments::{DrillArgs, OutputKind};
use checkpoint::store::StoreOptions;
use chronicle::Chronicle;
use host::{clock, exit};
use observation::Observation;
use progress::Progress;
use scene::Scene;
use stage::Stage;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// No drill takes longer, whatever hangs: the longest window, the set-up and the look at the store.
const LONGEST: Duration = Duration::from_secs(240);

/// How long the store may take to show that it does what the protocol needs.
const STORE_PROOF: Duration = Duration::from_secs(8);

/// Holds a drill and returns the exit code: 0 if every guarantee held.
pub async fn run(args: DrillArgs) -> u8 {
    if args.list_faults {
        match args.output {
            OutputKind::Text => print(&fault_plan::drill::listing()),
            OutputKind::Json => print(&format!("{:#}\n", fault_plan::drill::document())),
        }
        return 0;
    }
    let scene = match Scene::new(&args) {
        Ok(scene) => scene,
        Err(error) => {
            eprintln!("lifeboat drill: {error}");
            return exit::USAGE;
        }
    };
    if let Some(code) = refuse_store(&args).await {
        return code;
    }
    let folder = match tempfile::Builder::new().prefix("lifeboat-drill-").tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!(
                "lifeboat drill: no temporary directory: {error}: set TMPDIR to a folder that can be written"
            );
            return exit::NO;
        }
    };
    // Dropping `hold` drops the stage, and with it every child process.
    let code = tokio::select! {
        code = tokio::time::timeout(LONGEST, hold(&args, scene, folder.path())) => code.unwrap_or_else(|_| {
            eprintln!("lifeboat drill: not over after {LONGEST:?}: given up");
            exit::NO
        }),
        () = interrupted() => {
            eprintln!("lifeboat drill: interrupted");
            exit::INTERRUPTED
        }
    };
    if args.keep {
        eprintln!("kept: {}", folder.keep().display());
    }
    code
}

/// The drill itself.
async fn hold(args: &DrillArgs, scene: Scene, folder: &Path) -> u8 {
    let heard = Arc::new(OnceLock::new());
    let progress = Arc::new(Progress::new(Arc::clone(&heard)));
    let listener = Arc::clone(&progress);
    let chronicle = Arc::new(Chronicle::new(Box::new(move |happening| listener.hear(happening))));
    let mut stage = match Stage::set(args, scene, folder, Arc::clone(&chronicle), heard).await {
        Ok(stage) => stage,
        Err(error) => {
            eprintln!("lifeboat drill: {error}");
            return exit::NO;
        }
    };
    let countdown = progress.count_down(stage.scene.window);
    let played = stage.play(args.sabotage).await;
    countdown.abort();
    progress.rest();
    let ended = clock::now();
    let scene = stage.scene.clone();
    let (store, cluster) = (stage.store.clone(), stage.cluster.clone());
    let struck = stage.strike_set().await;
    let observation = Observation {
        scene,
        struck: struck.faults,
        shown: played.shown,
        times_up: played.times_up,
        ended,
        requests: struck.requests,
        source: struck.source,
        target: struck.target,
        source_lives: struck.source_lives,
        target_lives: struck.target_lives,
        trails: struck.trails,
        store: look_into(args, &store, &cluster, folder).await,
        node: played.node,
        rebooted: played.rebooted,
    };
    let checks = verdict::judge(&observation);
    let story = story::whole(&chronicle, &observation);
    match args.output {
        OutputKind::Text => print(&timeline::text(&observation, &story, &checks)),
        OutputKind::Json => print(&format!("{:#}\n", timeline::document(&observation, &story, &checks))),
    }
    if verdict::held(&checks) { 0 } else { exit::NO }
}

/// What the store's flags say; the agents' faults are not for the drill itself.
fn store_options(args: &DrillArgs) -> StoreOptions {
    StoreOptions {
        region: args.store_region.clone(),
        endpoint: args.store_endpoint.clone(),
        path_style: args.store_path_style,
        ..StoreOptions::default()
    }
}

/// A store that cannot be used is one clear error before anything starts: the exit code.
async fn refuse_store(args: &DrillArgs) -> Option<u8> {
    let url = args.store.as_deref()?;
    let opened = match checkpoint::store::open(url, store_options(args)).await {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("lifeboat drill: --store: {error}");
            return Some(exit::USAGE);
        }
    };
    let proven = checkpoint::preflight::prove(&opened, tokio::time::Instant::now() + STORE_PROOF).await;
    let error = proven.err()?;
    eprintln!("lifeboat drill: --store: {error}");
    Some(exit::NO)
}

/// Looks at everything that is in the store at the end.
async fn look_into(args: &DrillArgs, store: &str, cluster: &str, folder: &Path) -> inventory::Inventory {
    match checkpoint::store::open(store, store_options(args)).await {
        Ok(opened) => inventory::take(&opened, cluster, &folder.join("verify")).await,
        Err(error) => {
            inventory::Inventory { unreadable: Some(error.to_string()), ..inventory::Inventory::default() }
        }
    }
}

/// Ctrl-C, or what a supervisor sends.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut waits = futures::stream::FuturesUnordered::new();
    for kind in kinds {
        if let Ok(mut stream) = signal(kind) {
            waits.push(async move { stream.recv().await });
        }
    }
    use futures::StreamExt;
    if waits.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Standard output may be a closed pipe: that is the reader's choice, not a panic.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
