//! A stand-in kubelet: the life of the pods of one node. A termination that has begun is never shortened: so does the
//! real one (measured with kubelet 1.34.4; the scenarios in tests/nodes run with real kubelets).
//!
//! What it proves: that state volumes are found under the kubelet's root, that holds are kept and released in time,
//! that graces are what they were at the eviction, and that gates open. What it does not prove: containers,
//! mounts, cgroups, probes, or the kubelet's own shutdown. Those are proven on real nodes (tests/testbed).

mod life;
mod status;

use super::cast::Addresses;
use super::chronicle::Chronicle;
use super::trail::Trails;
use crate::cast::Place;
use crate::engine_room::EngineRoom;
use evacuation::moment::Moment;
use fakes::apiserver::storage::Storage;

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
