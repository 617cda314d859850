//! A look at one node from outside, by a person: the agent's own facts where one runs, its pods where none does.

use super::call::{Call, node_path, pod_path};
use super::daemon::DaemonRules;
use super::distill::Distiller;
use super::{AGENT_LABELS, Cluster, ClusterError, Options, access};
use crate::clock;
use crate::metrics::Metrics;
use evacuation::facts::{Facts, PodState};
use evacuation::moment::Moment;
use evacuation::policy::Policy;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Node, Pod};
use std::path::Path;

/// Their admin port, as the manifests set it.
const ADMIN_PORT: u16 = 9188;

/// What was found of a node.
#[derive(Debug)]
pub struct Survey {
    /// The facts.
    pub facts: Facts,
    /// The agent that told them, `namespace/name`; `None` where they are the API server's, which knows neither
    /// states nor rates.
    pub agent: Option<String>,
}

impl Cluster {
    /// Looks at a node.
    ///
    /// # Errors
    /// As the API server answers: 404 where there is no such node, 403 names the right that is missing.
    pub async fn survey(
        kubeconfig: Option<&Path>,
        node: &str,
        deadline: Moment,
    ) -> Result<Survey, ClusterError> {
        let path = node_path(node)?;
        let config = access::personal(kubeconfig).await?;
        let options = Options {
            kubeconfig: None,
            node: node.to_owned(),
            boot: String::new(),
            instance: String::new(),
            evict_as_node: false,
            daemons: DaemonRules::default(),
            bare_may_go: false,
        };
        let cluster = Self::with_config(config, options, Metrics::new())?;
        // A name that no node has must not look like a node without pods.
        let _: Node = cluster.send(Call::get(path, format!("node {node}")), deadline).await?;
        let pods: List<Pod> = cluster
            .send(
                Call::get(
                    format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"),
                    format!("pods of node {node}"),
                ),
                deadline,
            )
            .await?;
        if let Some(agent) = pods.items.iter().find(|pod| is_agent(pod)) {
            let (namespace, name) = (named(&agent.metadata.namespace), named(&agent.metadata.name));
            let path = format!("{}:{ADMIN_PORT}/proxy/facts", pod_path(&namespace, &name)?);
            let call = Call::get(path, format!("the facts of agent {namespace}/{name}"));
            let facts = cluster.send(call, deadline).await?;
            return Ok(Survey { facts, agent: Some(format!("{namespace}/{name}")) });
        }
        let mut distiller = Distiller::new(DaemonRules::default(), false);
        let state = |pod: &Pod| {
            let (record, _) = distiller.distil(pod, clock::now())?;
            Some(PodState {
                pod: record.facts,
                bytes: None,
                send: None,
                flush: None,
                copied: None,
                outcome: None,
            })
        };
        let facts = Facts {
            format: 1,
            node: node.to_owned(),
            notice: None,
            since: evacuation::moment::Span::ZERO,
            left: None,
            link: None,
            policy: Policy::default(),
            pods: pods.items.iter().filter_map(state).collect(),
        };
        Ok(Survey { facts, agent: None })
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
    let running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    AGENT_LABELS.iter().all(labelled) && running && pod.metadata.deletion_timestamp.is_none()
}
