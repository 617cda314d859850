//! A testbed as a test holds it.

mod agents;

use crate::layout::{API, BUCKET, Folder, NodeOptions, OUTSIDE, S3, S3_PORT};
use crate::metadata::Metadata;
use crate::parts::{self, Parts};
use crate::request::{Request, ask};
use crate::supervisor::Plan;
use crate::{audit, image, s3_log};
use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Where the API server's audit log lies in the testbed's folder.
const AUDIT_LOG: &str = "log/audit.jsonl";

/// What a testbed is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Unique on this machine.
    pub name: String,
    /// The nodes to begin with.
    pub nodes: Vec<NodeOptions>,
    /// It stays when this process ends.
    pub stay: bool,
}

/// A running testbed. The thread that brought it up is in the control plane's network namespace from then on, so its
/// sockets and its child processes reach the API server, S3, nodes and pods. Dropping it ends it.
pub struct Testbed {
    folder: Folder,
    supervisor: Option<Child>,
    client: kube::Client,
    kubectl: PathBuf,
    /// When the scenario takes the accounts' rights away, if it does.
    ends: OnceLock<jiff::Timestamp>,
}

impl std::fmt::Debug for Testbed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Testbed").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Testbed {
    /// Spot nodes of these names, ready, with no agent yet.
    ///
    /// # Errors
    /// Not root, a part is missing, or a process did not come up.
    pub async fn up(nodes: &[&str]) -> Result<Self> {
        Self::with(nodes.iter().map(|name| NodeOptions::new(name)).collect()).await
    }

    /// These nodes, ready, with no agent yet.
    ///
    /// # Errors
    /// See [`Testbed::up`].
    pub async fn with(nodes: Vec<NodeOptions>) -> Result<Self> {
        let name = format!("t{}-{:06x}", std::process::id(), fastrand::u32(..0x100_0000));
        let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
        let bed = Self::start(Options { name, nodes, stay: false }).await?;
        for node in names {
            bed.node_ready(&node).await?;
        }
        Ok(bed)
    }

    /// Starts one; returns when its API server is ready and its kubelets run.
    ///
    /// # Errors
    /// See [`Testbed::up`].
    pub async fn start(options: Options) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("a testbed needs root: it makes network namespaces and runs kubelets");
        }
        sweep();
        let parts = Parts::prepare()?;
        let bins = parts::binaries()?;
        let images = image::all(&bins)?.into_iter().map(|image| image.tar).collect();
        let folder = Folder::outside(&options.name);
        if folder.0.exists() {
            bail!("there is a testbed {}: end it with `testbed down`", options.name);
        }
        std::fs::create_dir_all(&folder.0)?;
        let plan = Plan {
            name: options.name,
            parts: parts.clone(),
            testbed: bins.join("testbed"),
            images,
            nodes: options.nodes,
            stay: options.stay,
        };
        std::fs::write(folder.path("plan.json"), serde_json::to_vec_pretty(&plan)?)?;
        let log = File::create(folder.path("supervisor.log"))?;
        let mut command = Command::new("unshare");
        // --kill-child: nothing in it outlives this process, however it ends.
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
            ])
            .arg(&plan.testbed)
            .arg("init")
            .arg(&folder.0)
            .stdin(if options.stay { Stdio::null() } else { Stdio::piped() })
            .stdout(log.try_clone()?)
            .stderr(log);
        if options.stay {
            use std::os::unix::process::CommandExt as _;
            command.process_group(0);
        }
        let child = command.spawn().context("cannot run unshare (util-linux)")?;
        let supervisor = Some(child);
        let began = Instant::now();
        while !folder.path("ready").exists() {
            if let Ok(error) = std::fs::read_to_string(folder.path("failed")) {
                bail!("the testbed did not come up: {error} (logs in {})", folder.path("log").display());
            }
            if began.elapsed() > Duration::from_secs(180) {
                bail!("the testbed was not up after 180 s: logs in {}", folder.path("log").display());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Self::attached(folder, supervisor, &parts.kubernetes).await
    }

    /// The running testbed of this name.
    ///
    /// # Errors
    /// There is none.
    pub async fn attach(name: &str) -> Result<Self> {
        let folder = Folder::outside(name);
        let plan: Plan = serde_json::from_slice(
            &std::fs::read(folder.path("plan.json"))
                .with_context(|| format!("there is no testbed {name}: start one with `testbed up`"))?,
        )?;
        Self::attached(folder, None, &plan.parts.kubernetes).await
    }

    async fn attached(folder: Folder, supervisor: Option<Child>, kubernetes: &Path) -> Result<Self> {
        enter(&folder, "cp")?;
        // There may be one already: it's the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = kube::config::Kubeconfig::read_from(folder.kubeconfig("admin"))?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        config.read_timeout = Some(Duration::from_secs(30));
        let client = kube::Client::try_from(config)?;
        Ok(Self { folder, supervisor, client, kubectl: kubernetes.join("kubectl"), ends: OnceLock::new() })
    }

    /// Its folder.
    pub const fn folder(&self) -> &Folder {
        &self.folder
    }

    /// kubectl of the cluster's own version.
    pub fn kubectl_path(&self) -> &Path {
        &self.kubectl
    }

    /// A client of the API server, as an administrator.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Asks the supervisor.
    ///
    /// # Errors
    /// What went wrong there.
    pub fn ask(&self, request: &Request) -> Result<Value> {
        ask(&self.folder, request)
    }

    /// Runs kubectl as an administrator; its own words are the error.
    ///
    /// # Errors
    /// It failed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, b"")
    }

    /// The same, with something on its standard input.
    ///
    /// # Errors
    /// It failed.
    pub fn kubectl_with(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let mut child = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(self.folder.kubeconfig("admin"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input)?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Applies objects, one JSON document each.
    ///
    /// # Errors
    /// The API server refused one.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl_with(&["apply", "--server-side", "-f", "-"], list.to_string().as_bytes()).map(drop)
    }

    /// A request to the API server; `None` where it answers 404.
    ///
    /// # Errors
    /// Any other failure.
    pub async fn get(&self, path: &str) -> Result<Option<Value>> {
        let request = http::Request::get(path).body(Vec::new())?;
        match self.client.request::<Value>(request).await {
            Ok(value) => Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates an object; what the API server made of it.
    ///
    /// # Errors
    /// It was refused.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(object)?)?;
        Ok(self.client.request(request).await?)
    }

    /// A merge patch; what the API server made of it.
    ///
    /// # Errors
    /// It was refused.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        let request = http::Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(serde_json::to_vec(body)?)?;
        Ok(self.client.request(request).await?)
    }

    /// The items of a list.
    ///
    /// # Errors
    /// The request failed.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let list = self.get(path).await?.unwrap_or_default();
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The pods of namespace `default` that carry `app=NAME`, oldest first.
    ///
    /// # Errors
    /// The request failed.
    pub async fn pods(&self, app: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/namespaces/default/pods?labelSelector=app%3D{app}");
        let mut pods = self.list(&path).await?;
        pods.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].as_str().map(str::to_owned));
        Ok(pods)
    }

    /// Asks until it is so.
    ///
    /// # Errors
    /// It was not so within the limit; the last error or "it did not happen".
    pub async fn until<T, F>(&self, what: &str, limit: Duration, mut check: F) -> Result<T>
    where
        F: AsyncFnMut(&Self) -> Result<Option<T>>,
    {
        let began = Instant::now();
        loop {
            let last = match check(self).await {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => "it did not happen".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            if began.elapsed() > limit {
                bail!("waited {} s for {what}: {last}", limit.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a node is Ready and takes pods.
    ///
    /// The two are not one: `node.kubernetes.io/not-ready` stays on a node that is Ready until the node lifecycle controller
    /// has seen it, and a pod that is created in between goes to whichever node was seen first, whatever it prefers.
    ///
    /// # Errors
    /// It is not within a minute and a half.
    pub async fn node_ready(&self, name: &str) -> Result<()> {
        let path = format!("/api/v1/nodes/{name}");
        self.until(&format!("{name} to be ready"), Duration::from_secs(90), async |bed| {
            let node = bed.get(&path).await?.unwrap_or_default();
            let taints = node.pointer("/spec/taints").and_then(Value::as_array);
            let held = taints.into_iter().flatten().any(|taint| {
                let key = taint["key"].as_str();
                matches!(key, Some("node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable"))
            });
            Ok((condition(&node, "Ready") == Some("True") && !held).then_some(()))
        })
        .await
    }

    /// A node's address.
    ///
    /// # Errors
    /// There is no such node.
    pub fn address(&self, node: &str) -> Result<Ipv4Addr> {
        let status = self.ask(&Request::Status)?;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let found = nodes
            .iter()
            .find(|one| one["name"] == node)
            .with_context(|| format!("there is no node {node}"))?;
        Ok(found["address"].as_str().unwrap_or_default().parse()?)
    }

    /// A node's metadata service.
    ///
    /// # Errors
    /// There is no such node.
    pub fn metadata(&self, node: &str) -> Result<Metadata> {
        Ok(Metadata::of(self.address(node)?))
    }

    /// What the API server was asked for so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn audit(&self) -> Result<Vec<audit::Entry>> {
        audit::read(&self.folder.path(AUDIT_LOG))
    }

    /// What the S3 server was asked for so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn s3_requests(&self) -> Result<Vec<s3_log::Entry>> {
        s3_log::read(&self.folder.path("log/s3-access.log"))
    }

    /// What lies in the bucket.
    ///
    /// # Errors
    /// Its folder cannot be read.
    pub fn objects(&self) -> Result<Vec<s3_log::Object>> {
        s3_log::objects(&self.folder.objects().join(BUCKET))
    }

    /// A pod's volume on its node, from outside. Memory-backed ones are mounted inside only.
    pub fn volume(&self, node: &str, uid: &str, volume: &str) -> PathBuf {
        self.folder.node(node).join(format!("kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/{volume}"))
    }

    /// Installs the agent as its manifests say, with the testbed's store, and waits until it runs on every node.
    ///
    /// # Errors
    /// The API server refuses a manifest, or an agent does not become ready.
    pub async fn install_agent(&self) -> Result<()> {
        self.install_agent_with(json!({})).await
    }

    /// The same with more settings (environment variables of `lifeboat run`).
    ///
    /// # Errors
    /// See [`Testbed::install_agent`].
    pub async fn install_agent_with(&self, settings: Value) -> Result<()> {
        self.install_manifests(&settings)?;
        self.agents_ready().await
    }

    /// What the agents need of the testbed to reach its store, in their namespace.
    ///
    /// # Errors
    /// The API server refuses one of it.
    pub fn install_credentials(&self) -> Result<()> {
        let ca = std::fs::read_to_string(self.folder.path("pki/ca.crt"))?;
        let namespace = "lifeboat-system";
        self.apply(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "testbed-ca", "namespace": namespace},
                "data": {"ca.crt": ca}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "testbed-s3", "namespace": namespace},
                "stringData": {"AWS_ACCESS_KEY_ID": crate::layout::ACCESS_KEY,
                    "AWS_SECRET_ACCESS_KEY": crate::layout::SECRET_KEY, "AWS_EC2_METADATA_DISABLED": "true"}}),
        ])
    }

    /// From here on the accounts may be refused: the scenario takes their roles away.
    pub fn takes_rights_away(&self) {
        let _ = self.ends.set(jiff::Timestamp::now());
    }

    /// The manifests alone.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn install_manifests(&self, settings: &Value) -> Result<()> {
        self.install_credentials()?;
        let namespace = "lifeboat-system";
        // Kustomize takes a base by a relative path only.
        let folder = self.folder.path("agent");
        std::fs::create_dir_all(&folder)?;
        let up = "../".repeat(folder.components().count().saturating_sub(1));
        let overlay = parts::repository().join("tests/testbed/manifests");
        let overlay = format!("{up}{}", overlay.display().to_string().trim_start_matches('/'));
        let literals: Vec<String> = settings
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| {
                format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            })
            .collect();
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [overlay],
            "configMapGenerator": [{"name": "lifeboat", "namespace": namespace, "behavior": "merge",
                "literals": literals}],
        });
        std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string())?;
        self.kubectl(&["apply", "--server-side", "-k", &folder.display().to_string()]).map(drop)
    }

    /// What the agents' S3 endpoint is.
    pub fn s3_endpoint() -> String {
        format!("https://{S3}:{S3_PORT}")
    }

    /// What the API server's address is.
    pub fn api_endpoint() -> String {
        format!("https://{API}:443")
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        let Some(mut child) = self.supervisor.take() else { return };
        if child.stdin.is_none() {
            return; // it is to stay
        }
        drop(child.stdin.take());
        let _ = child.wait();
        let name = self.folder.0.file_name().unwrap_or_default();
        if let Err(error) =
            audit::keep(&self.folder.path(AUDIT_LOG), &name.to_string_lossy(), self.ends.get().copied())
        {
            eprintln!("what the agents asked is lost: {error:#}");
        }
        if std::env::var_os("LIFEBOAT_KEEP").is_some() {
            eprintln!("the testbed's folder: {}", self.folder.0.display());
            return;
        }
        // A test that failed shows this line; what it says is kept for a while.
        let logs = keep_logs(&self.folder, name);
        eprintln!("the testbed's logs: {}", logs.display());
        remove(&self.folder.0);
    }
}

/// Moves a testbed's logs out of its folder, and removes those of all but the newest testbeds.
fn keep_logs(folder: &Folder, name: &std::ffi::OsStr) -> PathBuf {
    const KEPT: usize = 40;
    let all = Path::new(OUTSIDE).with_file_name("lifeboat-testbed-logs");
    let kept = all.join(name);
    let moved = std::fs::create_dir_all(&all).and_then(|()| std::fs::rename(folder.path("log"), &kept));
    let mut old: Vec<_> = std::fs::read_dir(&all).into_iter().flatten().flatten().collect();
    old.sort_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok());
    for entry in old.iter().rev().skip(KEPT) {
        // Another test may remove it too.
        let _ = std::fs::remove_dir_all(entry.path());
    }
    if moved.is_ok() { kept } else { folder.path("log") }
}

/// A condition's status.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

/// Takes this thread, and what it starts, into the network of one of the testbed's hosts. On a node's, kube-proxy finds
/// its Services.
///
/// # Errors
/// There is no such host, or this is not root.
pub fn enter(folder: &Folder, host: &str) -> Result<()> {
    // The namespaces are mounted where only the supervisor sees them: the way there leads through its own root.
    let stream = UnixStream::connect(folder.socket()).context("the supervisor does not listen")?;
    let pid = getsockopt(&stream, PeerCredentials)?.pid();
    let path = format!("/proc/{pid}/root/run/netns/{host}");
    let space = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    setns(space, CloneFlags::CLONE_NEWNET).context("cannot enter the testbed's network: are you root?")
}

/// Removes what dead testbeds left: files, and cgroup folders, which no namespace takes with it.
pub fn sweep() {
    for entry in std::fs::read_dir(OUTSIDE).into_iter().flatten().flatten() {
        let folder = Folder(entry.path());
        let lives = UnixStream::connect(folder.socket()).is_ok();
        let fresh = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age < Duration::from_secs(300)));
        if !lives && !fresh {
            remove(&folder.0);
        }
    }
}

/// Removes a testbed that has ended.
pub fn discard(folder: &Folder) {
    remove(&folder.0);
}

fn remove(folder: &Path) {
    if let Some(name) = folder.file_name().and_then(|name| name.to_str()) {
        for root in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroups(&root.path().join("lifeboat-testbed").join(name));
        }
    }
    if let Err(error) = std::fs::remove_dir_all(folder) {
        eprintln!("cannot remove {}: {error}", folder.display());
    }
}

fn remove_cgroups(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    // Not there, or a process has not quite ended: the next sweep finds it.
    let _ = std::fs::remove_dir(folder);
}
