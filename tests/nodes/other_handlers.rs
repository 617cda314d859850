//! Another handler on the same node: Cluster Autoscaler takes the node away, or aws-node-termination-handler answers the
//! same notice. Whatever they put onto the node stays theirs, and no state is lost to their evictions.
//!
//! The API server, the kubelets and the controllers are real. The handlers are the requests that theirs make: labels, taints,
//! cordon and evictions, by the names in their sources (aws-node-termination-handler pkg/node/node.go, cluster-autoscaler
//! utils/taints/taints.go, k8s.io/api core/v1 well_known_labels.go). Neither of the two programs runs here, nor does a load
//! balancer: what its controllers go by is the label that excludes a node, the endpoints, and the taints.

use crate::cast::{name, node};
use crate::marks::{
    describe_node, is_cordoned, is_marked_hard, node_is, node_object, removals, standing, taint,
};
use crate::others_drain::{ended, restored, saved, sources};
use anyhow::{Result, bail, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;
use testbed::audit::Entry;
use testbed::metadata::Say;

/// What Cluster Autoscaler puts onto a node: one that it considers, and one that it takes.
const AUTOSCALER: [(&str, &str); 2] = [
    ("DeletionCandidateOfClusterAutoscaler", "PreferNoSchedule"),
    ("ToBeDeletedByClusterAutoscaler", "NoSchedule"),
];

/// What aws-node-termination-handler puts onto a node on a Spot notice.
const HANDLER: (&str, &str) = ("aws-node-termination-handler/spot-itn", "NoSchedule");
const LABELS: [(&str, &str); 2] = [
    ("aws-node-termination-handler/event-id", "spot-itn-0123456789abcdef"),
    // Service controllers and the AWS Load Balancer Controller take such a node's instance out of their targets.
    ("node.kubernetes.io/exclude-from-external-load-balancers", "aws-node-termination-handler"),
];

const UNDO: &str = "5s";

/// Adds to the node what a handler does, with its taints as they are.
async fn put(bed: &Testbed, taints: &[(&str, &str)], labels: &[(&str, &str)], cordon: bool) -> Result<()> {
    let before = node_object(bed, "node-a").await?;
    let mut list = before["spec"]["taints"].as_array().cloned().unwrap_or_default();
    list.extend(taints.iter().map(|(key, effect)| json!({"key": key, "effect": effect})));
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let body = json!({
        "metadata": {"resourceVersion": before["metadata"]["resourceVersion"], "labels": labels},
        "spec": {"taints": list, "unschedulable": cordon},
    });
    bed.patch("/api/v1/nodes/node-a", &body).await.map(drop)
}

async fn evict(bed: &Testbed, pod: &Value, grace: Option<u64>) -> Result<()> {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": name(pod), "namespace": "default"},
        "deleteOptions": grace.map(|grace| json!({"gracePeriodSeconds": grace}))});
    let path = format!("/api/v1/namespaces/default/pods/{}/eviction", name(pod));
    bed.create(&path, &eviction).await.map(drop)
}

/// All that others put onto the node is there.
fn has_theirs(node: &Value, taints: &[(&str, &str)], labels: &[(&str, &str)]) -> bool {
    taints.iter().all(|(key, effect)| taint(node, key) == Some(effect))
        && labels.iter().all(|(key, value)| node["metadata"]["labels"][*key] == *value)
}

#[tokio::test]
async fn what_an_autoscaler_and_another_handler_put_on_a_node_stays_and_their_evictions_lose_no_state()
-> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent_with(json!({"LIFEBOAT_UNDO_AFTER": UNDO})).await?;
    let sources = sources(&bed, &["scaled", "handled", "alike"]).await?;
    let [scaled, handled, alike] = sources.as_slice() else { bail!("three are asked for") };

    // The autoscaler evicts with the pod's grace, and with --max-graceful-termination-sec (600) where that is less.
    put(&bed, &AUTOSCALER, &[], false).await?;
    evict(&bed, &scaled.pod, Some(30)).await?;
    let new = restored(&bed, "scaled", scaled).await?;
    ensure!(node(&new) == "node-b", "scaled is on {}", node(&new));
    ended(&bed, &scaled.pod).await?;
    let now = node_object(&bed, "node-a").await?;
    let untouched = standing(&now).is_none() && taint(&now, "lifeboat.dev/interruption").is_none();
    ensure!(untouched && !is_cordoned(&now), "an eviction is no notice: {}", describe_node(&now));

    // The other handler has seen the notice first, and evicts everything at once while our agent evacuates.
    let since = Timestamp::now();
    put(&bed, &[HANDLER], &LABELS, true).await?;
    bed.metadata("node-a")?.interrupt(Duration::from_secs(90)).await?;
    tokio::try_join!(evict(&bed, &handled.pod, None), evict(&bed, &alike.pod, None))?;
    let taints = [AUTOSCALER[0], AUTOSCALER[1], HANDLER];
    let marked = node_is(&bed, "node-a", "marked", Duration::from_secs(20), is_marked_hard).await?;
    ensure!(has_theirs(&marked, &taints, &LABELS), "{}", describe_node(&marked));
    for (app, source) in [("handled", handled), ("alike", alike)] {
        let new = restored(&bed, app, source).await?;
        ensure!(node(&new) == "node-b", "{app} is on {}", node(&new));
        ended(&bed, &source.pod).await?;
    }
    let audit = bed.audit()?;
    for source in &sources {
        saved(&bed, &audit, &source.pod)?;
    }
    // A pod that is ending is not evicted again.
    for pod in [&handled.pod, &alike.pod] {
        let accepted = |entry: &&Entry| entry.is_eviction() && entry.succeeded() && entry.name == name(pod);
        let accepted: Vec<_> = audit.iter().filter(accepted).collect();
        ensure!(
            accepted.iter().any(|entry| !entry.by_agent()),
            "the other handler did not evict {}",
            name(pod)
        );
        let ours = removals(&bed, since)?;
        let ours = ours.iter().filter(|entry| entry.name == name(pod) && entry.succeeded()).count();
        ensure!(ours <= 1, "{} was removed {ours} times by us", name(pod));
    }

    // The notice came to nothing: our mark goes, and theirs, with the cordon that was there before ours, stays.
    bed.metadata("node-a")?.say(&Say::Withdraw).await?;
    let undone = |node: &Value| {
        standing(node).is_none() && taint(node, "lifeboat.dev/interruption").is_none() && is_cordoned(node)
    };
    let left = node_is(&bed, "node-a", "without our mark", Duration::from_secs(60), undone).await?;
    ensure!(has_theirs(&left, &taints, &LABELS), "{}", describe_node(&left));
    Ok(())
}
