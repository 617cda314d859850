//! Opening one gate: a last look for an agent, the condition, and an Event that says why.

use crate::fleet::cluster_watch::{agent_selector, ready_agent};
use crate::fleet::orphaned_gates::{GateOpening, Open};
use crate::kube::call::{Call, is_name};
use crate::kube::{About, Cluster, ClusterError};
use evacuation::moment::Span;
use evacuation::names::RESTORED_CONDITION;
use host::clock;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;

/// The condition's reason.
pub const REASON: &str = "NoAgent";
/// The Event's.
pub const EVENT: &str = "GateOpenedByFleet";

/// For one request.
const PATIENCE: Span = Span::from_secs(5);

/// Opens the gate, unless an agent is there after all.
pub async fn open(cluster: &Cluster, namespace: &str, open: &Open) -> GateOpening {
    let pod = &open.gated.pod;
    let shown = format!("{}/{}", pod.namespace, pod.name);
    match agent_lives(cluster, namespace, &open.gated.node).await {
        Ok(false) => {}
        Ok(true) => {
            tracing::info!(pod = shown, node = open.gated.node, "an agent is there: the gate is left to it");
            return GateOpening::AgentThere;
        }
        Err(error) => return failed(&shown, &error),
    }
    let message = message(namespace, open);
    match cluster.set_condition(pod, RESTORED_CONDITION, REASON, &message, clock::now() + PATIENCE).await {
        Ok(()) => {
            tracing::warn!(pod = shown, node = open.gated.node, why = %message, "gate opened");
            cluster.metrics().fleet_gate_opened();
            // It is news, and its failure is logged: the condition says the same.
            let _ = cluster.publish(About::Pod(pod), EVENT, &message, true, clock::now() + PATIENCE).await;
            GateOpening::Done
        }
        Err(error) if error.is_not_found() => GateOpening::Done,
        Err(error) => failed(&shown, &error),
    }
}

fn failed(pod: &str, error: &ClusterError) -> GateOpening {
    tracing::warn!(pod, error = error as &dyn std::error::Error, "gate was not opened; it is tried again");
    GateOpening::Failed
}

/// Asks the API server itself: a watch that was interrupted may show what was.
async fn agent_lives(cluster: &Cluster, namespace: &str, node: &str) -> Result<bool, ClusterError> {
    if !is_name(node) {
        return Err(ClusterError::Name { name: node.to_owned() });
    }
    let labels = agent_selector().replace('/', "%2F").replace('=', "%3D").replace(',', "%2C");
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods?labelSelector={labels}&fieldSelector=spec.nodeName%3D{node}"
    );
    let call = Call::get(path, format!("the agent of node {node}"));
    let agents: List<Pod> = cluster.send(call, clock::now() + PATIENCE).await?;
    Ok(agents.items.iter().any(|pod| ready_agent(pod).is_some()))
}

/// For people: what happened, and what to do about it.
fn message(namespace: &str, open: &Open) -> String {
    let node = &open.gated.node;
    format!(
        "no lifeboat agent was ready on node {node} for {} s: the pod serves without its earlier state. If the DaemonSet \
         lifeboat does not run there, tolerate the node's taints in it; if its pod fails, describe it: kubectl -n {namespace} \
         get pods -l app.kubernetes.io/component=agent --field-selector spec.nodeName={node}",
        open.without_agent.as_secs()
    )
}
