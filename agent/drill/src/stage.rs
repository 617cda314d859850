//! The stage: two nodes, their services and their agents, and the play itself.

use super::agent::{Agent, AgentPlan};
use super::arguments::{DrillArgs, EngineKind, OrderKind, Sabotage};
use super::cast::{Addresses, CAST, EngineTemplate, GATE, Member, NAMESPACE, Part};
use super::chronicle::Chronicle;
use super::controllers::Controllers;
use super::follower::Follower;
use super::kubelet::{Kubelet, Node};
use super::llama::{LlamaOptions, pod_command};
use super::observation::{SOURCE, TARGET, agent_user};
use super::scene::Scene;
use super::talk::Controls;
use super::trail::Trails;
use crate::cast::Place;
use crate::engine_room::{EngineChoice, EngineRoom};
use evacuation::moment::{Moment, Span};
use fakes::apiserver::ApiServer;
use fakes::apiserver::admission::User;
use fakes::apiserver::deletion::{Budget, Refuses};
use fakes::apiserver::misconduct::Misconduct;
use fakes::apiserver::storage::{Storage, wire_time};
use fakes::imds::{Identity, Imds};
use fakes::node_object;
use fault_plan::{Fault, Start};
use host::clock;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long the sources' engines may take to come up.
const ENGINES_UP: Duration = Duration::from_secs(60);

/// How long the agents may take to become ready.
const AGENTS_READY: Duration = Duration::from_secs(20);

/// Everything that runs, and where it lies.
#[derive(Debug)]
pub struct Stage {
    /// The scene.
    pub scene: Scene,
    /// The drill's folder.
    pub folder: PathBuf,
    /// The story.
    pub chronicle: Arc<Chronicle>,
    /// The objects.
    pub api: ApiServer,
    /// The evidence.
    pub trails: Arc<Trails>,
    /// When the notice appeared.
    pub zero: Arc<OnceLock<Moment>>,
    /// The metadata service of the leaving node.
    pub imds: Imds,
    /// The other node's.
    pub other_imds: Imds,
    /// The leaving node's kubelet.
    pub source_kubelet: Option<Kubelet>,
    /// The other node's.
    pub target_kubelet: Kubelet,
    /// The controllers.
    pub controllers: Controllers,
    /// The leaving node's agent.
    pub source: Agent,
    /// The other node's.
    pub target: Agent,
    /// Follows the leaving node's journal.
    pub source_journal: Follower,
    /// Follows the other's.
    pub target_journal: Follower,
    /// The store's address.
    pub store: String,
    /// The cluster's name in the store.
    pub cluster: String,
    /// When the agents were started.
    pub agents_began: Moment,
    /// Time after the agents' start at which the notice comes, where the store's faults need it.
    pub lead: Option<Span>,
}

/// Why the curtain does not rise.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The machine.
    #[error("the drill's {what} cannot be set up: {source}")]
    Setup {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The sources' engines.
    #[error("the engines of {0} did not come up within 60 s: see above")]
    Engines(String),
    /// An agent.
    #[error("the agent of {node} did not become ready within 20 s; the end of its log ({log}):\n{tail}", log = log.display())]
    Agent {
        /// Which node.
        node: &'static str,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
}

fn setup(what: &'static str) -> impl FnOnce(io::Error) -> StageError {
    move |source| StageError::Setup { what, source }
}

impl Stage {
    /// Sets everything up and waits until both agents are ready.
    ///
    /// # Errors
    /// [`StageError`].
    pub async fn set(
        args: &DrillArgs,
        scene: Scene,
        folder: &Path,
        chronicle: Arc<Chronicle>,
        zero: Arc<OnceLock<Moment>>,
    ) -> Result<Self, StageError> {
        let storage = Arc::new(Storage::default());
        let trails = Arc::new(Trails::default());
        let addresses = Arc::new(Addresses::new());
        let port = free_port().map_err(setup("port"))?;
        for (node, capacity) in [(SOURCE, "SPOT"), (TARGET, "ON_DEMAND")] {
            // A fresh storage has no such node.
            let _ = storage.create("nodes", "", node_object(node, capacity));
        }
        let identity =
            |node: &str, spot| Identity { instance: format!("i-{node}"), zone: "us-east-1a".into(), spot };
        let imds = Imds::start(identity(SOURCE, true), &scene.faults).await.map_err(setup("IMDS"))?;
        let other_imds = Imds::start(identity(TARGET, false), &[]).await.map_err(setup("IMDS"))?;
        let confined = |node: &str| User { name: agent_user(node), node: Some(node.to_owned()) };
        let users = vec![confined(SOURCE), confined(TARGET), User { name: "drainer".to_owned(), node: None }];
        let api =
            ApiServer::start(Arc::clone(&storage), budgets(&scene), Misconduct::new(&scene.faults), users);
        let api = api.await.map_err(setup("API server"))?;

        let template = template(args, port);
        let engines = Arc::new(EngineRoom { engine: choice(args, folder), faults: scene.faults.clone() });
        let kubelet = |name, place, pull, flip_restored| {
            Kubelet::start(Node {
                name,
                place,
                root: folder.join(name).join("kubelet"),
                storage: Arc::clone(&storage),
                engines: Arc::clone(&engines),
                port,
                addresses: Arc::clone(&addresses),
                trails: Arc::clone(&trails),
                chronicle: Arc::clone(&chronicle),
                pull: Duration::from_millis(pull),
                zero: Arc::clone(&zero),
                flip_restored,
            })
        };
        let source_kubelet = Some(kubelet(SOURCE, Place::Source, 0, false));
        let target_kubelet =
            kubelet(TARGET, Place::Replacement, 300, args.sabotage == Some(Sabotage::FlipByte));
        raise(&storage, &template);
        up(&trails).await?;
        let controllers =
            Controllers::start(Arc::clone(&storage), template, Arc::clone(&chronicle), SOURCE, TARGET);

        let timed = |fault: &Fault| {
            fault.kind.target == "store" && (fault.start != Start::Notice || fault.name() == "store-gone")
        };
        let lead = scene.faults.iter().any(timed);
        let lead = lead.then_some(Span::from_secs(4));
        let store = args.store.clone().unwrap_or_else(|| format!("dir:{}", folder.join("store").display()));
        if args.store.is_none() {
            std::fs::create_dir_all(folder.join("store")).map_err(setup("store"))?;
        }
        // A bucket may be used for many drills at once.
        let cluster = format!("drill-{}-{}", std::process::id(), clock::now().as_millis());
        let host = Host {
            args,
            scene: &scene,
            folder,
            store: &store,
            cluster: &cluster,
            api: &api,
            zero: &zero,
            lead,
        };
        let (source_plan, source_admin) = host.agent(SOURCE, &imds).map_err(setup("agents"))?;
        let (target_plan, target_admin) = host.agent(TARGET, &other_imds).map_err(setup("agents"))?;
        let agents_began = clock::now();
        let logs = (source_plan.log.clone(), target_plan.log.clone());
        let source = Agent::start(source_plan, Arc::clone(&chronicle));
        let target = Agent::start(target_plan, Arc::clone(&chronicle));
        let follow = |node: &'static str| {
            let journal = folder.join(node).join("state").join(trace::journal::NAME);
            Follower::start(node, journal, Arc::clone(&chronicle), Arc::clone(&zero))
        };
        let (source_journal, target_journal) = (follow(SOURCE), follow(TARGET));
        tokio::try_join!(ready(SOURCE, &source_admin, &logs.0), ready(TARGET, &target_admin, &logs.1))?;
        chronicle.say("stage", "both agents are ready");
        Ok(Self {
            scene,
            folder: folder.to_owned(),
            chronicle,
            api,
            trails,
            zero,
            imds,
            other_imds,
            source_kubelet,
            target_kubelet,
            controllers,
            source,
            target,
            source_journal,
            target_journal,
            store,
            cluster,
            agents_began,
            lead,
        })
    }
}

/// What the agents' command lines are made of.
struct Host<'a> {
    args: &'a DrillArgs,
    scene: &'a Scene,
    folder: &'a Path,
    store: &'a str,
    cluster: &'a str,
    api: &'a ApiServer,
    zero: &'a Arc<OnceLock<Moment>>,
    lead: Option<Span>,
}

impl Host<'_> {
    /// The plan for a node's agent, and its admin address.
    fn agent(&self, node: &'static str, imds: &Imds) -> io::Result<(AgentPlan, String)> {
        let home = self.folder.join(node);
        std::fs::create_dir_all(home.join("kubelet/pods"))?;
        std::fs::create_dir_all(home.join("state"))?;
        let kubeconfig = home.join("kubeconfig");
        self.api.write_kubeconfig(&kubeconfig, &agent_user(node))?;
        let boot = home.join("boot_id");
        std::fs::write(&boot, format!("{node}-boot-1\n"))?;
        let admin = format!("127.0.0.1:{}", free_port()?);
        let order = match (self.args.sabotage, self.args.evict_order) {
            (Some(Sabotage::WrongOrder), OrderKind::HighestFirst) => OrderKind::LowestFirst,
            (Some(Sabotage::WrongOrder), OrderKind::LowestFirst) => OrderKind::HighestFirst,
            (_, order) => order,
        };
        let path = |path: &Path| path.display().to_string();
        let mut args: Vec<String> = vec!["run".into(), "--allow-loopback-pods".into()];
        let mut flag = |name: &str, value: &str| args.extend([format!("--{name}"), value.to_owned()]);
        flag("node-name", node);
        flag("kubeconfig", &path(&kubeconfig));
        flag("imds-endpoint", &imds.url());
        flag("store", self.store);
        for (name, value) in
            [("store-endpoint", &self.args.store_endpoint), ("store-region", &self.args.store_region)]
        {
            if let Some(value) = value {
                flag(name, value);
            }
        }
        flag("cluster-name", self.cluster);
        flag("kubelet-root", &path(&home.join("kubelet")));
        flag("state-dir", &path(&home.join("state")));
        flag("boot-id-file", &path(&boot));
        flag("admin-addr", &admin);
        flag("evict-order", order.as_str());
        flag("rebalance", "precopy");
        let policy = self.scene.policy();
        for (name, span) in [
            ("undo-after", policy.undo_after),
            ("precopy-interval", policy.precopy_interval),
            ("margin", policy.margin),
            ("restore-timeout", policy.restore_timeout),
            ("find-timeout", policy.find_timeout),
        ] {
            flag(name, &fault_plan::drill::show_span(span));
        }
        if self.args.sabotage == Some(Sabotage::SkipSave) && node == SOURCE {
            // Half a document is stored and success is reported: committed, and not to be found.
            flag("store-fault", "put:gen=torn");
        }
        if self.args.store_path_style {
            args.push("--store-path-style".to_owned());
        }
        args.extend(self.args.agent_args.iter().cloned());
        let program = match &self.args.agent {
            Some(program) => program.clone(),
            None => std::env::current_exe()?,
        };
        let store_faults = self.scene.faults.iter().filter(|fault| fault.kind.target == "store");
        // What is torn, lost or refused is what the leaving node writes; the rest is the store's nature, for both.
        let nature = ["slow", "gone", "unconditional"];
        let store_faults =
            store_faults.filter(|fault| node == SOURCE || nature.contains(&fault.kind.outcome));
        let plan = AgentPlan {
            node,
            program,
            args,
            log: home.join("agent.log"),
            store_faults: store_faults.cloned().collect(),
            lead: self.lead.unwrap_or_default(),
            zero: Arc::clone(self.zero),
        };
        Ok((plan, admin))
    }
}

/// web's budget: refuses twice, or as the plan says.
fn budgets(scene: &Scene) -> Vec<Budget> {
    let refuses = match scene.fault("pdb-stuck") {
        None => Refuses::Times(2),
        // Where it does not last for ever, the play ends it.
        Some(_) => Refuses::Always,
    };
    vec![Budget {
        name: "web".to_owned(),
        namespace: NAMESPACE.to_owned(),
        label: ("app".to_owned(), "web".to_owned()),
        refuses: Mutex::new(refuses),
    }]
}

fn template(args: &DrillArgs, port: u16) -> EngineTemplate {
    let restore = match args.restore {
        super::arguments::RestoreKind::Gate => "gate",
        super::arguments::RestoreKind::Off => "off",
    };
    match args.engine {
        EngineKind::Http => EngineTemplate {
            engine: "http",
            command: vec!["/engine".to_owned(), "--state=/state".to_owned()],
            port,
            restore,
        },
        EngineKind::LlamaServer => EngineTemplate {
            engine: "llama-server",
            command: pod_command(port, &args.llama_args),
            port,
            restore,
        },
    }
}

fn choice(args: &DrillArgs, folder: &Path) -> EngineChoice {
    match (&args.llama_server, &args.model) {
        (Some(server), Some(model)) if args.engine == EngineKind::LlamaServer => {
            EngineChoice::Llama(LlamaOptions {
                server: server.clone(),
                model: model.clone(),
                other: args.other_weights.clone(),
                args: args.llama_args.clone(),
                folder: folder.join("models"),
                controls: Controls::default(),
            })
        }
        _ => EngineChoice::Http { bytes: args.state_size, seed: args.seed },
    }
}

/// Creates the cast on the leaving node, as pods that have served for long: their restores were decided then.
fn raise(storage: &Storage, template: &EngineTemplate) {
    for (n, member) in (0_u32..).zip(CAST) {
        let mut pod = member.pod(n * 2, Some(SOURCE), template);
        if member.has_state() {
            pod["status"]["conditions"] = json!([{"type": GATE, "status": "True", "reason": "NothingToRestore",
                "message": "it was the first", "lastTransitionTime": wire_time(Timestamp::now())}]);
        }
        // The names are the cast's own and differ.
        let _ = storage.create("pods", NAMESPACE, pod);
        if member.part == Part::Daemon {
            let _ = storage.create("pods", NAMESPACE, member.pod(n * 2 + 1, Some(TARGET), template));
        }
    }
}

async fn up(trails: &Trails) -> Result<(), StageError> {
    let missing = || -> Vec<&str> {
        let all = trails.all();
        let runs = |member: &Member| {
            all.iter().any(|trail| {
                trail.member == member.name && trail.place == Place::Source && trail.started.is_some()
            })
        };
        CAST.iter().filter(|member| !runs(member)).map(|member| member.name).collect()
    };
    let end = tokio::time::Instant::now() + ENGINES_UP;
    while !missing().is_empty() {
        if tokio::time::Instant::now() >= end {
            return Err(StageError::Engines(missing().join(", ")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn ready(node: &'static str, admin: &str, log: &Path) -> Result<(), StageError> {
    let url = format!("http://{admin}/readyz");
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build().ok();
    let end = tokio::time::Instant::now() + AGENTS_READY;
    while tokio::time::Instant::now() < end {
        if let Some(client) = &client
            && client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(12)..].join("\n");
    Err(StageError::Agent { node, log: log.to_owned(), tail })
}

/// A port that was free a moment ago, on every loopback address.
fn free_port() -> io::Result<u16> {
    std::net::TcpListener::bind(("0.0.0.0", 0))?.local_addr().map(|addr| addr.port())
}
