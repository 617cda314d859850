//! A look at one node from outside, by a person: the agent's own facts where one runs, its pods where none does.

use super::call::{Call, node_path, pod_path};
use super::{AGENT_CONTAINER, AGENT_LABELS, Cluster, ClusterError, Options, access};
use crate::kube::drill_request;
use crate::pods::containers::{have_ended, is_running};
use crate::pods::daemonset::DaemonRules;
use crate::pods::reader::PodReader;
use crate::runtime::metrics::Metrics;
use evacuation::facts::{Facts, PodState};
use evacuation::moment::Moment;
use evacuation::names::EVACUATION_ANNOTATION;
use evacuation::policy::Policy;
use host::clock;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// Their admin port, as the manifests set it.
const ADMIN_PORT: u16 = 9188;

/// What was found of a node.
#[derive(Debug)]
pub struct NodeReport {
    /// The facts.
    pub facts: Facts,
    /// The agent that told them, `namespace/name`; `None` where they are the API server's, which knows neither
    /// states nor rates.
    pub agent: Option<String>,
}

impl Cluster {
    /// A connection by which a person asks about a node: theirs, not the agent's.
    ///
    /// # Errors
    /// Names the file or the field that cannot be used.
    pub async fn outside(kubeconfig: Option<&Path>, node: &str) -> Result<Self, ClusterError> {
        let config = access::personal(kubeconfig).await?;
        let options = Options {
            kubeconfig: None,
            node: node.to_owned(),
            instance: String::new(),
            evict_as_node: false,
            daemons: DaemonRules::default(),
            bare_may_go: false,
        };
        Self::with_config(config, options, Metrics::new())
    }

    async fn pods_of_node(&self, deadline: Moment) -> Result<List<Pod>, ClusterError> {
        let node = self.node_name();
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
        self.send(Call::get(path, format!("pods of node {node}")), deadline).await
    }

    async fn ask_agent<T: DeserializeOwned>(
        &self,
        agent: &Pod,
        what: &str,
        deadline: Moment,
    ) -> Result<T, ClusterError> {
        let (namespace, name) = (named(&agent.metadata.namespace), named(&agent.metadata.name));
        let path = format!("{}:{ADMIN_PORT}/proxy/{what}", pod_path(&namespace, &name)?);
        self.send(Call::get(path, format!("the {what} of agent {namespace}/{name}")), deadline).await
    }

    /// What this agent's pod says of its node (`/facts`).
    ///
    /// # Errors
    /// As the API server answers; 403 where `pods/proxy` may not be read.
    pub async fn facts_of(&self, agent: &Pod, deadline: Moment) -> Result<Facts, ClusterError> {
        self.ask_agent(agent, "facts", deadline).await
    }

    /// What the agent of the node says of itself (`/status`).
    ///
    /// # Errors
    /// As the API server answers; 404 where no agent runs.
    pub async fn agent_status(&self, deadline: Moment) -> Result<Value, ClusterError> {
        let pods = self.pods_of_node(deadline).await?;
        let node = self.node_name().to_owned();
        let agent = pods.items.iter().find(|pod| is_agent(pod)).ok_or(ClusterError::NoAgent { node })?;
        self.ask_agent(agent, "status", deadline).await
    }

    /// The Events that agents wrote, of the whole cluster.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn lifeboat_events(&self, deadline: Moment) -> Result<Vec<Value>, ClusterError> {
        let path = "/api/v1/events?fieldSelector=reportingComponent%3Dlifeboat".to_owned();
        let mut list: Value = self.send(Call::get(path, "the Events of lifeboat"), deadline).await?;
        Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// A drill is asked of the node, and no agent has taken the request.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn asks_for_rehearsal(&self, deadline: Moment) -> Result<bool, ClusterError> {
        Ok(drill_request::raw(&self.whole_node(deadline).await?).is_some())
    }

    /// An evacuation stands on the node.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn stands(&self, deadline: Moment) -> Result<bool, ClusterError> {
        let node = self.whole_node(deadline).await?;
        Ok(node.metadata.annotations.is_some_and(|all| all.contains_key(EVACUATION_ANNOTATION)))
    }

    async fn whole_node(&self, deadline: Moment) -> Result<Node, ClusterError> {
        let node = self.node_name();
        self.send(Call::get(node_path(node)?, format!("node {node}")), deadline).await
    }

    /// Looks at a node.
    ///
    /// # Errors
    /// As the API server answers: 404 where there is no such node, 403 names the right that is missing.
    pub async fn survey(
        kubeconfig: Option<&Path>,
        node: &str,
        deadline: Moment,
    ) -> Result<NodeReport, ClusterError> {
        let path = node_path(node)?;
        let cluster = Self::outside(kubeconfig, node).await?;
        // A name that no node has must not look like a node without pods.
        let _: Node = cluster.send(Call::get(path, format!("node {node}")), deadline).await?;
        let pods = cluster.pods_of_node(deadline).await?;
        if let Some(agent) = pods.items.iter().find(|pod| is_agent(pod)) {
            let (namespace, name) = (named(&agent.metadata.namespace), named(&agent.metadata.name));
            let facts = cluster.ask_agent(agent, "facts", deadline).await?;
            return Ok(NodeReport { facts, agent: Some(format!("{namespace}/{name}")) });
        }
        let mut distiller = PodReader::new(DaemonRules::default(), false);
        let state = |pod: &Pod| {
            let (record, _) = distiller.distil(pod, clock::now())?;
            Some(PodState {
                pod: record.facts,
                bytes: None,
                send: None,
                flush: None,
                copied: None,
                doubt: None,
                outcome: None,
            })
        };
        let facts = Facts {
            format: 1,
            node: node.to_owned(),
            notice: None,
            since: evacuation::moment::Span::ZERO,
            left: None,
            announcements: Vec::new(),
            link: None,
            policy: Policy::default(),
            // What has ended leaves no more.
            pods: pods.items.iter().filter(|pod| !have_ended(pod)).filter_map(state).collect(),
        };
        Ok(NodeReport { facts, agent: None })
    }
}

fn named(name: &Option<String>) -> String {
    name.clone().unwrap_or_default()
}

fn is_agent(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let labelled = |(name, value): &(&str, &str)| {
        labels.and_then(|labels| labels.get(*name)).is_some_and(|found| found == value)
    };
    let runs = is_running(pod, AGENT_CONTAINER);
    AGENT_LABELS.iter().all(labelled) && runs && pod.metadata.deletion_timestamp.is_none()
}
