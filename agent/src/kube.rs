//! The agent's Kubernetes side: the own node, its pods, and nothing of any other node but a GET of
//! one named pod or node where it is in question whether the pod that wrote a lineage still lives.
//!
//! Every method takes the moment by which it returns, and makes its request at most until then.
//! Retrying is the core's business, so the client's own retries are off: kube 4 and later repeat a
//! 429 for minutes, and a PodDisruptionBudget's refusal is a 429. The one exception is a lost
//! resourceVersion race on the own node, which [`Cluster::mark`] settles itself, because a cordon
//! must not wait for another turn of the loop.

mod access;
pub(crate) mod call;
mod conditions;
pub mod drill_request;
mod ended_pods;
mod events;
mod evict;
pub mod failure;
pub(crate) mod follow;
mod leases;
mod missing_node;
mod named;
mod needless_gate;
mod node;
mod node_report;
mod watch;

use crate::pods::daemonset::DaemonRules;
use crate::runtime::metrics::Metrics;
use k8s_openapi::api::core::v1::Node;
use parking_lot::{Mutex, MutexGuard};
use std::path::PathBuf;
use std::sync::Arc;

pub use events::About;
pub use failure::ClusterError;
pub use leases::LeaseBoard;
pub use named::NamedPod;
pub use node_report::NodeReport;
pub use watch::ClusterEvent;

/// The agent's pods, as the manifests label them. (The fleet role's pods carry the first of the two.)
pub(crate) const AGENT_LABELS: [(&str, &str); 2] =
    [("app.kubernetes.io/name", "lifeboat"), ("app.kubernetes.io/component", "agent")];

/// The agent's container in those pods, as the manifests name it. Admission may have put others beside it.
pub(crate) const AGENT_CONTAINER: &str = "agent";

/// What the agent needs to know to reach its cluster as its node's agent.
#[derive(Clone, Debug)]
pub struct Options {
    /// A kubeconfig file; without one, the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// The own node's name (`spec.nodeName`).
    pub node: String,
    /// The agent's own pod, or host, as the reporting instance of Events.
    pub instance: String,
    /// Evict as `system:node:<own>` by constrained impersonation (Kubernetes 1.36, KEP-5284), so that
    /// the account itself needs no right to evict.
    pub evict_as_node: bool,
    /// Which DaemonSets leave.
    pub daemons: DaemonRules,
    /// Pods without a controller may go even where they do not say so.
    pub bare_may_go: bool,
}

/// A connection to the API server; clones share it.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    options: Arc<Options>,
    metrics: Metrics,
    /// The own node as last seen, so that a cordon is one request and not two.
    seen: Arc<Mutex<Option<Node>>>,
}

impl Cluster {
    /// Reads the kubeconfig or the service account and builds the client. Nothing is sent yet.
    ///
    /// # Errors
    /// Names the file or the field that cannot be used.
    pub async fn connect(options: Options, metrics: Metrics) -> Result<Cluster, ClusterError> {
        let config = access::config(options.kubeconfig.as_deref()).await?;
        Self::with_config(config, options, metrics)
    }

    fn with_config(
        config: kube::Config,
        options: Options,
        metrics: Metrics,
    ) -> Result<Cluster, ClusterError> {
        if !call::is_name(&options.node) {
            return Err(ClusterError::NodeName { name: options.node });
        }
        let client = kube::Client::try_from(access::bounded(config))
            .map_err(|source| ClusterError::Client { source: Box::new(source) })?;
        Ok(Cluster { client, options: Arc::new(options), metrics, seen: Arc::new(Mutex::new(None)) })
    }

    /// The own node's name.
    pub fn node_name(&self) -> &str {
        &self.options.node
    }

    /// The client itself, for watches.
    pub(crate) fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// What counts the requests.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The namespace of the service account, or of the kubeconfig's context.
    pub(crate) fn own_namespace(&self) -> &str {
        self.client.default_namespace()
    }

    fn seen(&self) -> MutexGuard<'_, Option<Node>> {
        // Held for a clone or an assignment only.
        self.seen.lock()
    }
}

#[cfg(test)]
mod tests;
