//! A storm (level 4): many agents' cluster side against one real control plane, all noticed in the same second.
//!
//! Real: etcd, API server, controllers, scheduler, the shipped rights and policies, each agent's own pod-bound token,
//! its watches, patches, impersonated evictions, disruption budgets and replacements. Not real: the nodes. kwok stands
//! for their kubelets, so a pod runs at once and is gone at once; no engine, no state; all agents share one process
//! and one metadata service, and the machine's two cores are shared by all of it.

mod measured;

use crate::bed::{Options, Testbed, condition};
use crate::layout::NodeOptions;
use crate::parts;
use anyhow::{Context, Result, ensure};
use clap::Parser as _;
use fakes::imds::{Identity, Imds};
use jiff::Timestamp;
use lifeboat::runtime::config::RunArgs;
use measured::{Usage, measure};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Pods of each node that is noticed.
pub const PODS: usize = 10;

/// Those of which a disruption budget lets only a tenth be away at a time.
const BUDGETED: [&str; 2] = ["app-0", "app-1"];

/// From the notice's appearance to the end of the instance, as on EC2.
const NOTICE: Duration = Duration::from_secs(120);

/// The agent's own flags, read as `lifeboat run` reads them.
#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    run: RunArgs,
}

/// Runs one and prints what came of it, as text and as JSON.
///
/// # Errors
/// The control plane or an agent does not come up, or a pod was lost.
pub fn run(agents: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(storm(agents))
}

async fn storm(agents: usize) -> Result<()> {
    let name = format!("storm-{}", std::process::id());
    let bed = Testbed::start(Options { name, nodes: Vec::<NodeOptions>::new(), stay: false }).await?;
    // This thread is in the control plane's network now, and so is everything that it starts.
    let kwok = kwok(&bed)?;
    let spare = agents.div_ceil(20).max(1);
    for index in 0..agents + spare {
        let limit = if index < agents { PODS + 1 } else { 1000 };
        bed.create("/api/v1/nodes", &node(index, limit, index >= agents)).await?;
    }
    bed.install_manifests(&json!({}))?;
    let apps: Vec<String> = (0..PODS).map(|index| format!("app-{index}")).collect();
    for app in &apps {
        bed.create("/apis/apps/v1/namespaces/default/deployments", &deployment(app, agents)).await?;
        if BUDGETED.contains(&app.as_str()) {
            bed.create("/apis/policy/v1/namespaces/default/poddisruptionbudgets", &budget(app)).await?;
        }
    }
    let all = Duration::from_secs(60 + agents as u64);
    let before = bed
        .until("the pods to run", all, async |bed| {
            let pods = bed.list("/api/v1/namespaces/default/pods").await?;
            let ready = pods.iter().filter(|pod| condition(pod, "Ready") == Some("True")).count();
            Ok((ready == agents * PODS).then_some(pods))
        })
        .await?;
    let daemons = bed
        .until("the agents' pods", all, async |bed| {
            let pods = bed.agents().await?;
            let running: Vec<Value> =
                pods.into_iter().filter(|pod| pod["status"]["phase"] == "Running").collect();
            Ok((running.len() >= agents).then_some(running))
        })
        .await?;

    let imds = Imds::start(Identity { instance: "i-storm".into(), zone: "storm-1a".into(), spot: true }, &[])
        .await?;
    let folder = bed.folder().path("agents");
    std::fs::create_dir_all(folder.join("store"))?;
    let mut runs = Vec::new();
    for index in 0..agents {
        let node = node_name(index);
        let pod = daemons.iter().find(|pod| pod["spec"]["nodeName"] == node.as_str());
        let pod = pod.with_context(|| format!("no agent's pod on {node}"))?;
        let config = config(&bed, &folder, &node, pod, &imds.url()).await?;
        runs.push(config);
    }
    // Their own threads, so that the agents have both cores as the API server has.
    let pods_of_spare: Vec<String> = (agents..agents + spare).map(node_name).collect();
    let agents_runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for config in runs {
        agents_runtime.spawn(async move {
            if let Err(error) = lifeboat::node::run(config).await {
                tracing::error!(%error, "an agent could not start");
            }
        });
    }
    bed.until("the agents to watch", Duration::from_secs(60), async |_| {
        let asked = imds.polls().iter().filter(|poll| poll.path.ends_with("/api/token")).count();
        Ok((asked >= agents).then_some(()))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for node in &pods_of_spare {
        bed.kubectl(&["uncordon", node])?;
    }

    let usage = Usage::now()?;
    let notice = Timestamp::now();
    imds.interrupt(
        evacuation::notice::InstanceAction::Terminate,
        notice + jiff::SignedDuration::try_from(NOTICE)?,
        None,
    );
    let old: std::collections::BTreeSet<String> =
        before.iter().filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned)).collect();
    let emptied = bed
        .until("the nodes to be empty", NOTICE, async |bed| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let pods = bed.list("/api/v1/namespaces/default/pods").await?;
            let left = pods
                .iter()
                .filter(|pod| pod["metadata"]["uid"].as_str().is_some_and(|uid| old.contains(uid)));
            let left = left.count();
            Ok((left == 0).then_some(Timestamp::now()))
        })
        .await;
    let reports = bed
        .until("the reports", Duration::from_secs(60), async |_| {
            let count = count_files(&folder.join("store"), "/report/");
            Ok((count >= agents).then_some(count))
        })
        .await;
    let result = measure(&bed, agents, notice, &emptied, &usage)?;
    println!("{}", serde_json::to_string_pretty(&result)?);
    println!("{}", result.text());
    agents_runtime.shutdown_background();
    drop(kwok);
    let lost = emptied.map(drop).and(reports.map(drop));
    lost.context("not every pod had left, or not every report was written")
}

/// A process that ends with its handle.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// kwok as every node's kubelet; ends with this process's testbed.
fn kwok(bed: &Testbed) -> Result<Ended> {
    let program = parts::prepare("kwok")?;
    let stages = program.with_file_name("stages.yaml");
    let log = std::fs::File::create(bed.folder().log("kwok"))?;
    let child = std::process::Command::new(program)
        .arg(format!("--kubeconfig={}", bed.folder().kubeconfig("admin").display()))
        .arg(format!("--config={}", stages.display()))
        .args([
            "--manage-all-nodes=true",
            "--node-ip=10.0.0.2",
            "--cidr=10.90.0.0/16",
            "--node-lease-duration-seconds=40",
        ])
        .args(["--server-address=127.0.0.1:10247"])
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start kwok")?;
    Ok(Ended(child))
}

fn node_name(index: usize) -> String {
    format!("storm-{index:04}")
}

fn node(index: usize, pods: usize, spare: bool) -> Value {
    let capacity = json!({"cpu": "64", "memory": "256Gi", "pods": pods.to_string()});
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node_name(index), "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/os": "linux", "kubernetes.io/hostname": node_name(index)}},
        "spec": {"unschedulable": spare},
        "status": {"capacity": capacity, "allocatable": capacity}})
}

fn deployment(app: &str, replicas: usize) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": {
            "metadata": {"labels": {"app": app}},
            "spec": {"terminationGracePeriodSeconds": 5, "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": "registry.local/busybox:1"}]}}}})
}

/// A tenth may be away at a time: most evictions of these are refused at first.
fn budget(app: &str) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": app, "namespace": "default"},
        "spec": {"maxUnavailable": "10%", "selector": {"matchLabels": {"app": app}}}})
}

/// One agent's settings, with a token bound to its own pod as the kubelet would mount it.
async fn config(
    bed: &Testbed,
    folder: &Path,
    node: &str,
    pod: &Value,
    imds: &str,
) -> Result<lifeboat::runtime::config::Config> {
    let (name, uid) = (pod["metadata"]["name"].as_str(), pod["metadata"]["uid"].as_str());
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}});
    let path = "/api/v1/namespaces/lifeboat-system/serviceaccounts/lifeboat-agent/token";
    let token = bed.create(path, &request).await?;
    let token = token.pointer("/status/token").and_then(Value::as_str).context("no token was made")?;
    let own = folder.join(node);
    std::fs::create_dir_all(own.join("state"))?;
    let mut kubeconfig: Value = serde_json::from_slice(&std::fs::read(bed.folder().kubeconfig("admin"))?)?;
    kubeconfig["users"][0]["user"] = json!({"token": token});
    std::fs::write(own.join("kubeconfig"), kubeconfig.to_string())?;
    std::fs::write(own.join("boot_id"), format!("{node}\n"))?;
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    let path = |below: &str| own.join(below).display().to_string();
    let flags = Flags::try_parse_from([
        "storm".to_owned(),
        flag("node-name", node),
        flag("pod-name", name.unwrap_or_default()),
        flag("kubelet-root", &path("kubelet")),
        flag("state-dir", &path("state")),
        flag("boot-id-file", &path("boot_id")),
        flag("admin-addr", "127.0.0.1:0"),
        flag("imds-endpoint", imds),
        flag("imds-poll", "1s"),
        flag("store", &format!("dir:{}", folder.join("store").display())),
        flag("kubeconfig", &path("kubeconfig")),
        "--impersonate-node".to_owned(),
    ])?;
    let config = flags.run.validate()?;
    ensure!(config.impersonate_node, "the agent is to evict as its node");
    Ok(config)
}

fn count_files(folder: &Path, part: &str) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            count += count_files(&path, part);
        } else if path.to_string_lossy().contains(part) && path.extension().is_some_and(|end| end == "json") {
            count += 1;
        }
    }
    count
}
