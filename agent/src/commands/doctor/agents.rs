//! The agents themselves: how they are installed, and where one is missing that an opted-in pod needs.
//!
//! Where a pod can land is told by its nodeSelector and tolerations, and where an agent can by those of the DaemonSet and
//! its required node affinity. Not evaluated: a pod's affinities and topology spread (it may land on fewer nodes than is
//! said here), and the nodes that an autoscaler has yet to make.

mod placement;

use super::control_plane::not_read;
use super::finding::Finding;
use crate::commands::doctor::cluster_reads::{ClusterReads, is_ours, name, opted_in};
use crate::kube::AGENT_CONTAINER;
use crate::pods::conditions::serves;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use placement::{Land, lands, tolerates_key};
use std::collections::BTreeSet;

const AGENTS: &str = "agents";
const INSTALLED: &str = "daemonset";
const FLEET: &str = "fleet";
/// What a SIGTERM leaves to a save (manifests/base/daemonset.yaml).
const GRACE: i64 = 110;
/// Fargate's nodes take no DaemonSets, and no Spot notice.
const FARGATE: (&str, &str) = ("eks.amazonaws.com/compute-type", "fargate");

/// How it is installed, by its DaemonSet or, where that cannot be read, by the pod of this node.
pub fn installed(sight: &ClusterReads, node: Option<&str>) -> Vec<Finding> {
    let own = sight.pods.iter().flatten().find(|pod| is_ours(pod, "agent")).and_then(|pod| pod.spec.as_ref());
    let template = match &sight.daemon_set {
        Ok(Some(set)) => set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()),
        Ok(None) if node.is_none() => {
            return vec![
                Finding::failure(INSTALLED, "there is no DaemonSet lifeboat")
                    .because("without agents nothing is saved")
                    .mend("kubectl apply -k manifests/overlays/YOURS (docs/install.md), or name its namespace with --namespace"),
            ];
        }
        Ok(None) => None,
        Err(unread) if own.is_none() => return vec![not_read(INSTALLED, "DaemonSet lifeboat", unread)],
        Err(_) => None,
    };
    match template.or(own) {
        Some(spec) => judge_template(spec),
        None => {
            vec![Finding::skipped(INSTALLED, "how the agent is installed", "no agent's pod is on this node")]
        }
    }
}

fn judge_template(spec: &PodSpec) -> Vec<Finding> {
    let mut found = Vec::new();
    if spec.priority_class_name.as_deref() != Some("system-node-critical") {
        found.push(
            Finding::warning(INSTALLED, "the agent is not system-node-critical")
                .because("it can be evicted or preempted before the pods that it saves, and Karpenter drains it among the first")
                .mend("set priorityClassName: system-node-critical in its DaemonSet"),
        );
    }
    if spec.termination_grace_period_seconds.unwrap_or(30) < GRACE {
        found.push(
            Finding::warning(INSTALLED, format!("the agent has less than {GRACE} s of grace"))
                .because("a save that is under way when the agent is told to go is cut off")
                .mend(format!("set terminationGracePeriodSeconds: {GRACE} in its DaemonSet")),
        );
    }
    if tolerates_key(spec, "karpenter.sh/disrupted", "NoSchedule") {
        found.push(
            Finding::warning(INSTALLED, "the agent tolerates karpenter.sh/disrupted")
                .because("Karpenter does not drain pods that tolerate its taint and ends the instance without waiting for them")
                .mend("name the tolerations of the DaemonSet one by one (manifests/base/daemonset.yaml), never `operator: Exists` without a key for NoSchedule"),
        );
    }
    let mounts = spec.containers.iter().flat_map(|container| container.volume_mounts.iter().flatten());
    let pods = mounts.filter(|mount| mount.mount_propagation.as_deref() == Some("HostToContainer")).count();
    if pods == 0 {
        found.push(
            Finding::failure(INSTALLED, "the kubelet's pods directory is not mounted with HostToContainer")
                .because(
                    "volumes in memory that are mounted after the agent started are empty directories to it",
                )
                .mend("set mountPropagation: HostToContainer on the mount of /var/lib/kubelet/pods"),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok(
            INSTALLED,
            "the agent is system-node-critical, has its grace, and sees the volumes",
        ));
    }
    found
}

/// Where an agent is missing.
pub fn missing(sight: &ClusterReads, node: Option<&str>) -> Vec<Finding> {
    let (Ok(pods), Ok(nodes)) = (&sight.pods, &sight.nodes) else {
        let unread = [sight.pods.as_ref().err(), sight.nodes.as_ref().err()].into_iter().flatten().next();
        return unread.map(|unread| not_read(AGENTS, "pods and nodes", unread)).into_iter().collect();
    };
    let opted: Vec<&Pod> = pods.iter().filter(|pod| opted_in(pod)).collect();
    let agent = |node: &str| pods.iter().find(|pod| is_ours(pod, "agent") && on(pod) == Some(node));
    let template = match &sight.daemon_set {
        Ok(Some(set)) => set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()),
        _ => None,
    };
    let mut found: Vec<Finding> = Vec::new();
    for one in nodes.iter().filter(|one| counts(one)) {
        let called = one.metadata.name.as_deref().unwrap_or_default();
        let here = opted.iter().filter(|pod| on(pod) == Some(called)).count();
        let may = opted.iter().any(|pod| pod.spec.as_ref().is_some_and(|spec| lands(spec, one) == Land::Yes));
        if agent(called).is_some_and(|pod| serves(pod, AGENT_CONTAINER)) || (here == 0 && !may) {
            continue;
        }
        found.push(judge_missing(one, here > 0, agent(called), template).about(called));
    }
    if found.is_empty() {
        let place = node.map_or_else(
            || "every node that opted-in pods can reach".to_owned(),
            |node| format!("node {node}"),
        );
        found.push(Finding::ok(AGENTS, format!("a ready agent is on {place}")));
    }
    found
}

fn judge_missing(node: &Node, occupied: bool, agent: Option<&Pod>, template: Option<&PodSpec>) -> Finding {
    let (place, finding): (_, fn(&'static str, String) -> Finding) = match occupied {
        true => ("on which opted-in pods run", Finding::failure),
        false => ("on which opted-in pods can land", Finding::warning),
    };
    const WHY: &str = "what runs there is not saved, not held and not restored; its gates are opened by the fleet role only";
    if let Some(agent) = agent {
        let agent = name(agent);
        let (namespace, pod) = agent.split_once('/').unwrap_or(("lifeboat-system", &agent));
        return finding(AGENTS, format!("the agent is not ready on a node {place}")).because(WHY).mend(
            format!(
                "kubectl -n {namespace} logs {pod}; kubectl -n {namespace} exec {pod} -- lifeboat doctor"
            ),
        );
    }
    let fix = match template.map(|template| lands(template, node)) {
        Some(Land::Taint { key, effect }) => {
            format!(
                "add the toleration {{key: {key}, operator: Exists, effect: {effect}}} to the DaemonSet in your overlay"
            )
        }
        Some(Land::Labels) => {
            "its nodeSelector or node affinity leaves the node out: change it in your overlay".to_owned()
        }
        Some(Land::Yes) | None => {
            "look why it is not there: kubectl -n lifeboat-system describe daemonset lifeboat".to_owned()
        }
    };
    finding(AGENTS, format!("no agent is on a node {place}")).because(WHY).mend(fix)
}

fn on(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Nodes that are ready, and that DaemonSets run on.
fn counts(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let fargate = labels.and_then(|labels| labels.get(FARGATE.0)).is_some_and(|kind| kind == FARGATE.1);
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True");
    ready && !fargate
}

/// The fleet role: only where the whole cluster is looked at.
pub fn fleet(sight: &ClusterReads) -> Finding {
    const WHY: &str = "where an agent is missing, a pod with our readiness gate never gets traffic";
    match &sight.fleet {
        Err(unread) => not_read(FLEET, "Deployment lifeboat-fleet", unread),
        Ok(None) => Finding::warning(FLEET, "there is no Deployment lifeboat-fleet")
            .because(WHY)
            .mend("apply manifests/base/fleet.yaml"),
        Ok(Some(fleet)) => {
            match fleet.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0) {
                0 => Finding::warning(FLEET, "no replica of the fleet role is ready").because(WHY).mend(
                    "kubectl -n lifeboat-system describe deployment lifeboat-fleet; give it two replicas",
                ),
                1 => Finding::note(FLEET, "one replica of the fleet role is ready")
                    .because("on a Spot node it may be gone when it is needed")
                    .mend("kubectl -n lifeboat-system scale deployment lifeboat-fleet --replicas 2"),
                ready => Finding::ok(FLEET, format!("{ready} replicas of the fleet role are ready")),
            }
        }
    }
}

/// The agents of nodes with opted-in pods: whom to ask for facts.
pub fn to_ask(sight: &ClusterReads) -> Vec<&Pod> {
    let Ok(pods) = &sight.pods else { return vec![] };
    let wanted: BTreeSet<&str> = pods.iter().filter(|pod| opted_in(pod)).filter_map(on).collect();
    pods.iter()
        .filter(|pod| is_ours(pod, "agent") && on(pod).is_some_and(|node| wanted.contains(node)))
        .collect()
}

#[cfg(test)]
mod tests;
