//! The process that owns a testbed: it starts everything, does what it is asked, and takes everything with it.
//!
//! `testbed init` is the first process of a PID namespace of its own. It starts `testbed supervise` and collects what
//! is left of others. When either ends, the kernel ends everything else in the namespace, and with the last process
//! the mount and network namespaces go too.

mod control_plane;
mod logind;
mod network;
mod node;
mod pki;
mod process;
mod s3;
mod store;

use crate::layout::{Folder, INSIDE, NodeOptions};
use crate::parts::Parts;
use crate::request::{Answer, Request};
use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};
use process::Processes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

/// What a testbed is to be. It lies in its folder as `plan.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Its name: unique on the machine.
    pub name: String,
    /// The real parts.
    pub parts: Parts,
    /// The `testbed` binary.
    pub testbed: PathBuf,
    /// docker-archives that every node gets.
    pub images: Vec<PathBuf>,
    /// The nodes to begin with.
    pub nodes: Vec<NodeOptions>,
    /// It stays when the process that started it ends.
    pub stay: bool,
}

impl Plan {
    fn read(folder: &Folder) -> Result<Self> {
        let path = folder.path("plan.json");
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// The first process of the namespace: starts the supervisor, collects the dead, ends with it.
///
/// # Errors
/// The supervisor cannot be started.
pub fn init(outside: &Path) -> Result<()> {
    let plan = Plan::read(&Folder(outside.to_owned()))?;
    let child = Command::new(&plan.testbed).arg("supervise").arg(outside).spawn()?;
    let supervisor = i32::try_from(child.id())?;
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _))
                if pid.as_raw() == supervisor =>
            {
                return Ok(());
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => bail!("wait: {error}"),
        }
    }
}

/// Everything that runs.
#[derive(Debug)]
struct World {
    plan: Plan,
    folder: Folder,
    processes: Processes,
    network: network::Network,
    nodes: Mutex<BTreeMap<String, node::Node>>,
}

/// Brings the testbed up and serves requests until it is told to end, or the process that started it has ended.
///
/// # Errors
/// It could not be brought up.
pub fn supervise(outside: &Path) -> Result<()> {
    let plan = Plan::read(&Folder(outside.to_owned()))?;
    mounts(outside)?;
    let folder = Folder::inside();
    std::env::set_current_dir(INSIDE)?;
    if !plan.stay {
        // The other end is the test process: when it ends, however it ends, so does this.
        std::thread::spawn(|| {
            let _ = std::io::stdin().read(&mut [0]);
            std::process::exit(0);
        });
    }
    let world = Arc::new(World {
        processes: Processes::new(folder.clone()),
        network: network::Network::new()?,
        nodes: Mutex::default(),
        folder,
        plan,
    });
    let listener = UnixListener::bind(world.folder.socket())?;
    match world.begin() {
        Ok(()) => std::fs::write(world.folder.path("ready"), "")?,
        Err(error) => std::fs::write(world.folder.path("failed"), format!("{error:#}"))?,
    }
    for stream in listener.incoming() {
        let world = Arc::clone(&world);
        let stream = stream?;
        std::thread::spawn(move || serve(&world, stream));
    }
    Ok(())
}

fn serve(world: &World, stream: UnixStream) {
    let mut line = String::new();
    let mut reader = BufReader::new(&stream);
    if reader.read_line(&mut line).is_err() {
        return;
    }
    let answer = match serde_json::from_str(&line)
        .map_err(anyhow::Error::from)
        .and_then(|asked| world.answer(asked))
    {
        Ok(value) => Answer::Ok(value),
        Err(error) => Answer::Error(format!("{error:#}")),
    };
    if let Ok(text) = serde_json::to_string(&answer) {
        // Whoever asked may be gone.
        let _ = writeln!(&stream, "{text}");
    }
}

/// What is written below these is seen by this testbed only, and gone with it.
fn mounts(outside: &Path) -> Result<()> {
    for path in ["/run/netns", "/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers"] {
        std::fs::create_dir_all(path)?;
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .with_context(|| format!("cannot mount on {path}"))?;
    }
    std::fs::create_dir_all(INSIDE)?;
    let none = None::<&str>;
    mount(Some(outside), INSIDE, none, MsFlags::MS_BIND, none)?;
    // Shared, or a pod with HostToContainer would never see the memory-backed volumes that come later.
    mount(none, INSIDE, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none)?;
    Ok(())
}

impl World {
    fn begin(&self) -> Result<()> {
        std::fs::create_dir_all(self.folder.path("log"))?;
        let names: Vec<&str> = self.plan.nodes.iter().map(|node| node.name.as_str()).collect();
        pki::write(&self.folder, &names)?;
        self.network.host("cp", crate::layout::CONTROL_PLANE)?;
        self.network.host("s3", crate::layout::S3)?;
        s3::start(self)?;
        // The nodes' containers start while the API server does.
        std::thread::scope(|scope| {
            let nodes: Vec<_> = self
                .plan
                .nodes
                .iter()
                .map(|options| scope.spawn(|| self.add_node(options.clone())))
                .collect();
            control_plane::start(self)?;
            for node in nodes {
                node.join().map_err(|_| anyhow::anyhow!("a node's thread panicked"))??;
            }
            anyhow::Ok(())
        })
    }

    fn add_node(&self, options: NodeOptions) -> Result<()> {
        let name = options.name.clone();
        let node = {
            let mut nodes = self.nodes();
            if nodes.contains_key(&name) {
                bail!("there is a node {name} already");
            }
            let taken = |place: u8| nodes.values().any(|node| node.place.0 == place);
            let place = (10..=250).find(|place| !taken(*place)).context("no address is left")?;
            let node = node::Node { options, place: crate::layout::Place(place) };
            nodes.insert(name.clone(), node.clone());
            node
        };
        node::install(self, &node)?;
        node::boot(self, &node)
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, node::Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, name: &str) -> Result<node::Node> {
        let nodes = self.nodes();
        let names = || nodes.keys().cloned().collect::<Vec<_>>().join(", ");
        nodes.get(name).cloned().with_context(|| format!("there is no node {name}: there are {}", names()))
    }

    fn answer(&self, request: Request) -> Result<Value> {
        match request {
            Request::Status => {
                let nodes: Vec<Value> = self
                    .nodes()
                    .values()
                    .map(|node| json!({"name": node.options.name, "address": node.place.address()}))
                    .collect();
                return Ok(json!({"nodes": nodes, "processes": self.processes.alive()}));
            }
            Request::AddNode(options) => {
                pki::node(&self.folder, &options.name)?;
                self.add_node(options)?;
            }
            Request::KillNode { node } => node::kill(self, &self.node(&node)?)?,
            Request::BootNode { node } => node::boot(self, &self.node(&node)?)?,
            Request::ShutDown { node } => {
                self.processes.signal(&format!("logind-{node}"), Signal::SIGUSR1)?
            }
            Request::Link { host, up } => self.network.link(&host, up)?,
            Request::Uplink { host, rate } => self.network.uplink(&host, rate)?,
            Request::Stop { process } => self.processes.signal(&process, Signal::SIGKILL)?,
            Request::Start { process } => self.processes.again(&process)?,
            Request::Pause { process } => self.processes.signal(&process, Signal::SIGSTOP)?,
            Request::Resume { process } => self.processes.signal(&process, Signal::SIGCONT)?,
            Request::KillContainer { node, id, signal } => {
                node::kill_container(&self.folder, &self.node(&node)?, &id, signal)?;
            }
            Request::Publish { node, image, name } => {
                node::publish(self, &self.node(&node)?, &image, &name)?;
            }
            Request::Down => std::process::exit(0),
        }
        Ok(Value::Null)
    }
}
