//! What the scenario tests share: a small cluster of stand-ins around one real `lifeboat run`.
//!
//! The agent is the real binary in a process of its own. The API server is the drill's stand-in: it
//! speaks real Kubernetes HTTP, and what it does not prove is written beside it. The engine is the
//! reference sidecar. The IMDS is the caller's: a real amazon-ec2-metadata-mock where it is to be
//! somebody else's idea of IMDS.

use anyhow::{Context, Result, bail};
use evacuation::notice::InstanceAction;
use fakes::apiserver::ApiServer;
use fakes::apiserver::admission::User;
use fakes::apiserver::audit::Request;
use fakes::apiserver::misconduct::Misconduct;
use fakes::apiserver::storage::Storage;
use fakes::imds::{Identity, Imds};
use fakes::node_object;
use fakes::sidecar::{Sidecar, SidecarOptions, StateSeed};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The node of these tests.
pub const NODE: &str = "node-a";

/// The namespace of their pods.
pub const NAMESPACE: &str = "default";

/// The binary under test: built beside this test by `tests/run`, or named by `LIFEBOAT_BIN`.
pub fn lifeboat() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LIFEBOAT_BIN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    // target/<profile>/deps/<test> → target/<profile>/lifeboat
    let profile = test.parent().and_then(Path::parent).context("the test lies in no target folder")?;
    let path = profile.join("lifeboat");
    if !path.exists() {
        bail!("{} is not built: run tests/run, or cargo build --release --workspace", path.display());
    }
    Ok(path)
}

/// A process that ends with its handle.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it, with its output in a file.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let out = std::fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Sends it SIGTERM, as the kubelet does.
    pub fn terminate(&self) -> Result<()> {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)?)
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its admin port, once its log tells it.
    pub async fn admin_port(&self, world: &World, limit: Duration) -> Result<u16> {
        let told = |log: &str| {
            let line = log.lines().find(|line| line.contains("probes and metrics"))?;
            let line: Value = serde_json::from_str(line).ok()?;
            line["address"].as_str()?.rsplit_once(':')?.1.parse().ok()
        };
        world.eventually("it tells its admin address", limit, |_| told(&self.log()).is_some()).await?;
        told(&self.log()).context("the admin address")
    }

    /// It has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One node's small world.
pub struct World {
    /// Its folder: logs, volumes, store.
    pub folder: TempDir,
    /// The API server.
    pub api: ApiServer,
    /// The objects.
    pub storage: Arc<Storage>,
}

impl World {
    /// A node with another's taint on it, and no pods.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let storage = Arc::new(Storage::default());
        let mut node = node_object(NODE, "SPOT");
        node["spec"]["taints"] =
            json!([{"key": "example.com/other", "value": "kept", "effect": "NoSchedule"}]);
        create(&storage, "nodes", "", node)?;
        let agent = User { name: "agent".into(), node: Some(NODE.into()) };
        let fleet = User { name: "fleet".into(), node: None };
        let api =
            ApiServer::start(Arc::clone(&storage), Vec::new(), Misconduct::default(), vec![agent, fleet])
                .await?;
        api.write_kubeconfig(&folder.path().join("kubeconfig"), "agent")?;
        api.write_kubeconfig(&folder.path().join("kubeconfig-fleet"), "fleet")?;
        std::fs::create_dir(folder.path().join("store"))?;
        std::fs::write(folder.path().join("boot_id"), "00000000-0000-4000-8000-000000000001\n")?;
        Ok(Self { folder, api, storage })
    }

    /// A pod of a Deployment that holds no state.
    pub fn stateless_pod(&self, name: &str) -> Result<()> {
        create(&self.storage, "pods", NAMESPACE, pod(name, json!({}), json!([]), "127.0.0.1"))
    }

    /// A pod with the reference sidecar as its engine, running and restored.
    pub async fn stateful_pod(&self, name: &str, bytes: u64) -> Result<Sidecar> {
        let volume = self.folder.path().join("volume");
        std::fs::create_dir_all(&volume)?;
        let options = SidecarOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            state_dir: volume.clone(),
            state: Some(StateSeed { seed: 7, bytes, files: 3 }),
            token: None,
            facts: BTreeMap::from([
                ("engine".into(), "reference".into()),
                ("weights".into(), "blake3:0001".into()),
            ]),
            bytes_per_second: None,
        };
        let sidecar = Sidecar::start(options).await?;
        let annotations = json!({
            "lifeboat.dev/engine": "http",
            "lifeboat.dev/port": sidecar.addr().port().to_string(),
            "lifeboat.dev/state-volume": "state",
        });
        let volumes = json!([{"name": "state", "emptyDir": {}}]);
        create(&self.storage, "pods", NAMESPACE, pod(name, annotations, volumes, "127.0.0.1"))?;
        let made = self.storage.get("pods", NAMESPACE, name).context("the pod was not created")?;
        let uid = made["metadata"]["uid"].as_str().context("the pod has no uid")?;
        let place = self.folder.path().join(format!("kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir"));
        std::fs::create_dir_all(&place)?;
        // The uid is known only now. The engine keeps its way in; the agent goes by the kubelet's path, where nothing is a
        // link.
        std::fs::rename(&volume, place.join("state"))?;
        std::os::unix::fs::symlink(place.join("state"), &volume)?;
        Ok(sidecar)
    }

    /// A new pod with an engine and a closed gate. Nobody listens there: its state is looked for all the same.
    pub fn new_pod(&self, name: &str) -> Result<()> {
        let annotations = json!({
            "lifeboat.dev/engine": "http",
            "lifeboat.dev/port": "1",
            "lifeboat.dev/state-volume": "state",
        });
        let mut made = pod(name, annotations, json!([{"name": "state", "emptyDir": {}}]), "127.0.0.1");
        made["spec"]["readinessGates"] = json!([{"conditionType": "lifeboat.dev/restored"}]);
        made["status"]["conditions"] = json!([]);
        create(&self.storage, "pods", NAMESPACE, made)
    }

    /// The condition by which a pod's gate is open.
    pub fn gate(&self, name: &str) -> Option<Value> {
        let pod = self.storage.get("pods", NAMESPACE, name)?;
        let conditions = pod["status"]["conditions"].as_array()?;
        conditions.iter().find(|condition| condition["type"] == "lifeboat.dev/restored").cloned()
    }

    /// The agent, with these arguments besides the ordinary ones.
    pub fn agent(&self, imds: &str, arguments: &[&str]) -> Result<Process> {
        self.agent_in(imds, arguments, &[])
    }

    /// The same with these variables in its environment.
    pub fn agent_in(&self, imds: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Process> {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(lifeboat()?);
        command
            .arg("run")
            .args(["--node-name", NODE, "--imds-endpoint", imds])
            .arg("--kubeconfig")
            .arg(at("kubeconfig"))
            .arg("--kubelet-root")
            .arg(at("kubelet"))
            .arg("--boot-id-file")
            .arg(at("boot_id"))
            .arg("--allow-loopback-pods")
            .args(arguments)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(environment.iter().copied());
        for (flag, ordinary) in [
            ("--admin-addr", "127.0.0.1:0".to_owned()),
            ("--state-dir", at("state").display().to_string()),
            ("--store", format!("dir:{}", at("store").display())),
        ] {
            if !arguments.contains(&flag) {
                command.args([flag, &ordinary]);
            }
        }
        Process::start(&mut command, &at("agent.log"))
    }

    /// A replica of the fleet role, with these arguments besides the ordinary ones.
    pub fn fleet(&self, identity: &str, arguments: &[&str]) -> Result<Process> {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(lifeboat()?);
        command
            .args(["fleet", "--identity", identity, "--node-name", "node-f", "--admin-addr", "127.0.0.1:0"])
            .arg("--kubeconfig")
            .arg(at("kubeconfig-fleet"))
            .args(arguments)
            .env("AWS_ACCESS_KEY_ID", "none")
            .env("AWS_SECRET_ACCESS_KEY", "none")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        Process::start(&mut command, &at(&format!("{identity}.log")))
    }

    /// The address of the agents' store.
    pub fn store(&self) -> String {
        format!("dir:{}", self.folder.path().join("store").display())
    }

    /// A pod without state but with these annotations.
    pub fn annotated_pod(&self, name: &str, annotations: Value) -> Result<()> {
        create(&self.storage, "pods", NAMESPACE, pod(name, annotations, json!([]), "127.0.0.1"))
    }

    /// The agent's journal.
    pub fn journal(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("state/journal.jsonl")).unwrap_or_default()
    }

    /// What the agent wrote.
    pub fn agent_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("agent.log")).unwrap_or_default()
    }

    /// The node as it is.
    pub fn node(&self) -> Arc<Value> {
        self.storage.get("nodes", "", NODE).unwrap_or_default()
    }

    /// The effects of our taint on the node, by key.
    pub fn taints(&self) -> BTreeMap<String, String> {
        let node = self.node();
        let text = |taint: &Value, field: &str| taint[field].as_str().unwrap_or_default().to_owned();
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.iter().map(|taint| (text(taint, "key"), text(taint, "effect"))).collect()
    }

    /// The requests of one verb on one resource.
    pub fn requests(&self, verb: &str, resource: &str) -> Vec<Request> {
        let wanted = |request: &Request| request.verb == verb && request.resource == resource;
        self.api.audit().into_iter().filter(wanted).collect()
    }

    /// Objects in the store whose key contains `part`.
    pub fn stored(&self, part: &str) -> usize {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => walk(&entry.path(), found),
                    Ok(_) => found.push(entry.path().to_string_lossy().into_owned()),
                    Err(_) => {}
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.folder.path().join("store"), &mut found);
        found.iter().filter(|key| key.contains(part)).count()
    }

    /// Waits until `what` is true.
    pub async fn eventually(
        &self,
        what: &str,
        limit: Duration,
        mut is: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let until = tokio::time::Instant::now() + limit;
        while !is(self) {
            if tokio::time::Instant::now() > until {
                bail!(
                    "not within {limit:?}: {what}\nnode: {:#}\nthe agent said:\n{}",
                    self.node(),
                    self.agent_log()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// A node on Spot whose IMDS shows nothing.
pub async fn quiet_node() -> Result<(World, Imds)> {
    let identity = Identity { instance: "i-0a".into(), zone: "us-east-1a".into(), spot: true };
    Ok((World::start().await?, Imds::start(identity, &[]).await?))
}

/// A node whose IMDS shows an interruption in so many seconds.
pub async fn interrupted_node(seconds: i64) -> Result<(World, Imds)> {
    let (world, imds) = quiet_node().await?;
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    imds.interrupt(InstanceAction::Terminate, at, None);
    Ok((world, imds))
}

/// The whole answer to one GET, head and body.
pub async fn http_get(port: u16, path: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: lifeboat\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}

fn create(storage: &Storage, resource: &'static str, namespace: &str, object: Value) -> Result<()> {
    storage.create(resource, namespace, object).map(drop).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))
}

fn pod(name: &str, annotations: Value, volumes: Value, ip: &str) -> Value {
    let mount = volumes.as_array().is_some_and(|volumes| !volumes.is_empty());
    let mounts = if mount { json!([{"name": "state", "mountPath": "/state"}]) } else { json!([]) };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "annotations": annotations,
            "labels": {"pod-template-hash": "5d8f"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-5d8f"),
                "controller": true, "uid": "owner"}],
        },
        "spec": {
            "nodeName": NODE, "priority": 100, "terminationGracePeriodSeconds": 5, "volumes": volumes,
            "containers": [{"name": "engine", "image": "registry.example/engine:1", "volumeMounts": mounts}],
        },
        "status": {
            "phase": "Running", "podIP": ip,
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "lifeboat.dev/restored", "status": "True", "reason": "NothingToRestore"},
            ],
            "containerStatuses": [{"name": "engine", "ready": true, "started": true, "restartCount": 0,
                "image": "registry.example/engine:1", "imageID": "", "state": {"running": {}}}],
        },
    })
}
