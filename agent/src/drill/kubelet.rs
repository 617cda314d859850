//! A stand-in kubelet: the life of the pods of one node, as the real one lives it (facts/testbed.md §4).
//!
//! What it proves: that state volumes are found under the kubelet's root, that holds are kept and released in time,
//! that graces are what they were at the eviction, and that gates open. What it does not prove: containers,
//! mounts, cgroups, probes, or the kubelet's own shutdown. Those are proven on real nodes (tests/testbed).

mod life;
mod status;

use super::apiserver::storage::Storage;
use super::cast::Addresses;
use super::chronicle::Chronicle;
use super::engines::{EngineRoom, Place};
use super::trail::Trails;
use evacuation::moment::Moment;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::JoinSet;

/// What the life of a pod needs of its node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: &'static str,
    /// Sources or replacements.
    pub place: Place,
    /// The kubelet's root directory.
    pub root: PathBuf,
    /// The objects.
    pub storage: Arc<Storage>,
    /// The containers.
    pub engines: Arc<EngineRoom>,
    /// The port of every engine.
    pub port: u16,
    /// Where pods get their addresses.
    pub addresses: Arc<Addresses>,
    /// The evidence.
    pub trails: Arc<Trails>,
    /// Where the story goes.
    pub chronicle: Arc<Chronicle>,
    /// How long an image is pulled.
    pub pull: Duration,
    /// When the notice appeared.
    pub zero: Arc<OnceLock<Moment>>,
    /// Sabotage: a byte of what was restored is changed.
    pub flip_restored: bool,
}

/// A running kubelet. Dropping it ends all its pods at once, as the node's end does.
#[derive(Debug)]
pub struct Kubelet {
    main: tokio::task::JoinHandle<()>,
}

impl Kubelet {
    /// Registers the node and begins to run what is bound to it.
    pub fn start(node: Node) -> Self {
        let node = Arc::new(node);
        Self { main: tokio::spawn(run(node)) }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.main.abort();
    }
}

/// The Node object.
pub fn node_object(name: &str, capacity: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "annotations": {}, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": "us-east-1a", "eks.amazonaws.com/capacityType": capacity}},
        "spec": {"providerID": format!("aws:///us-east-1a/i-{name}")},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"kubeletVersion": "v1.33.6", "architecture": "amd64", "operatingSystem": "linux", "bootID": "",
                "containerRuntimeVersion": "containerd://2.1.4", "kernelVersion": "6.12", "kubeProxyVersion": "",
                "machineID": "", "osImage": "drill", "systemUUID": ""}},
    })
}

async fn run(node: Arc<Node>) {
    let mut versions = node.storage.subscribe();
    let mut known = BTreeSet::new();
    // A JoinSet aborts its tasks when it is dropped: no pod outlives its node.
    let mut lives = JoinSet::new();
    loop {
        for pod in node.storage.list("pods").0 {
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            if pod["spec"]["nodeName"] == node.name && known.insert(uid) {
                lives.spawn(life::live(Arc::clone(&node), Arc::clone(&pod)));
            }
        }
        while lives.try_join_next().is_some() {}
        if versions.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
