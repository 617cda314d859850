//! Others who act on a node that is taken back, and what each means (docs/beside-others.md). They are known by their
//! pods, by labels of nodes, and by Karpenter's API group.

use super::finding::Finding;
use crate::commands::doctor::cluster_reads::{ReadResult, name};
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use std::collections::BTreeSet;

const CHECK: &str = "others";
const NODE_GROUP: &str = "eks.amazonaws.com/nodegroup";

/// Somebody who also evicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    TerminationHandler,
    Karpenter,
    Descheduler,
    Autoscaler,
}

impl Other {
    const ALL: [Other; 4] =
        [Other::TerminationHandler, Other::Karpenter, Other::Descheduler, Other::Autoscaler];

    /// In the name of its image, or its label `app.kubernetes.io/name`.
    const fn mark(self) -> &'static str {
        match self {
            Other::TerminationHandler => "aws-node-termination-handler",
            Other::Karpenter => "karpenter",
            Other::Descheduler => "descheduler",
            Other::Autoscaler => "cluster-autoscaler",
        }
    }

    fn of(pod: &Pod) -> Option<Self> {
        let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/name"));
        let label = label.map(String::as_str);
        Self::ALL.into_iter().find(|other| {
            let is_image = |image: &str| image.split(['/', ':', '@']).any(|part| part == other.mark());
            label == Some(other.mark())
                || containers(pod).filter_map(|one| one.image.as_deref()).any(is_image)
        })
    }
}

/// The pod is one of theirs.
pub fn is_one(pod: &Pod) -> bool {
    Other::of(pod).is_some()
}

/// Says who is there. `groups` are the API's.
pub fn check(
    pods: &ReadResult<Vec<Pod>>,
    nodes: &ReadResult<Vec<Node>>,
    groups: &ReadResult<Vec<String>>,
    all: bool,
) -> Vec<Finding> {
    let Ok(pods) = pods else { return vec![] };
    let mut found: Vec<Finding> =
        pods.iter().filter_map(|pod| Some(judge(Other::of(pod)?, pod).about(name(pod)))).collect();
    let seen = |other| pods.iter().any(|pod| Other::of(pod) == Some(other));
    let karpenter = groups.as_ref().is_ok_and(|groups| groups.iter().any(|group| group == "karpenter.sh"));
    if karpenter && !seen(Other::Karpenter) {
        let where_ = if all { "is not among the pods that can be seen" } else { "runs on another node" };
        found.push(
            Finding::note(CHECK, format!("Karpenter's API is there, and its controller {where_}: its interruption queue was not looked at"))
                .because("lifeboat saves and evicts, Karpenter asks for new capacity; it needs the queue for that")
                .mend("look at settings.interruptionQueue of its chart"),
        );
    }
    let groups: BTreeSet<&str> = nodes
        .iter()
        .flatten()
        .filter_map(|node| node.metadata.labels.as_ref()?.get(NODE_GROUP).map(String::as_str))
        .collect();
    if !groups.is_empty() {
        let mut finding = Finding::note(CHECK, "nodes of managed node groups").because(
            "on a rebalance recommendation the group itself drains a node once another is ready: departures may begin minutes before a \
             notice, each with its pod's own grace",
        );
        finding = finding.mend(
            "nothing has to be turned off; give opted-in pods a grace in which their state can be saved",
        );
        found.push(groups.into_iter().fold(finding, Finding::about));
    }
    if found.is_empty() {
        let place = if all { "in the cluster" } else { "on this node" };
        found.push(Finding::ok(CHECK, format!("no other handler of interruptions is seen {place}")));
    }
    found
}

fn judge(other: Other, pod: &Pod) -> Finding {
    match other {
        Other::TerminationHandler => termination_handler(pod),
        Other::Karpenter => karpenter(pod),
        Other::Descheduler => Finding::note(CHECK, "a descheduler evicts pods")
            .because("each eviction starts a departure of the pod, within its own grace: state moves more often than it must")
            .mend("annotate what should stay, or exclude its PriorityClass: descheduler.alpha.kubernetes.io/prefer-no-eviction"),
        Other::Autoscaler => Finding::note(CHECK, "Cluster Autoscaler evicts pods of nodes that it removes")
            .because("each eviction starts a departure; it waits for a pod's grace, 600 s at most unless told otherwise")
            .mend("--max-graceful-termination-sec must be as long as the grace of opted-in pods"),
    }
}

fn termination_handler(pod: &Pod) -> Finding {
    let off = |names: [&str; 2]| setting(pod, names).is_some_and(|value| value.eq_ignore_ascii_case("false"));
    let spot_off = off(["ENABLE_SPOT_INTERRUPTION_DRAINING", "enable-spot-interruption-draining"]);
    let queue = setting(pod, ["ENABLE_SQS_TERMINATION_DRAINING", "enable-sqs-termination-draining"]);
    if queue.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Finding::warning(CHECK, "aws-node-termination-handler drains by its queue")
            .because("on the same notice it evicts everything at once, in no order: each pod departs within its own grace")
            .mend("leave interruption messages out of its EventBridge rules, or remove it (docs/migration.md)");
    }
    if spot_off {
        return Finding::ok(CHECK, "aws-node-termination-handler leaves Spot interruptions alone");
    }
    Finding::warning(CHECK, "aws-node-termination-handler drains on the same notice")
        .because("it evicts everything at once, in no order: states are saved within each pod's own grace instead of the whole notice")
        .mend("helm upgrade … --set enableSpotInterruptionDraining=false (docs/migration.md), or remove it")
}

fn karpenter(pod: &Pod) -> Finding {
    let queue = setting(pod, ["INTERRUPTION_QUEUE", "interruption-queue"]);
    match queue.filter(|queue| !queue.is_empty()) {
        Some(_) => Finding::ok(CHECK, "Karpenter has an interruption queue: it asks for new capacity on the same notice and drains the node itself; an opted-in pod with a hold is kept until its state is safe"),
        None => Finding::note(CHECK, "Karpenter has no interruption queue")
            .because("nobody asks for new capacity when the notice comes: replacements wait until their pods are pending")
            .mend("set settings.interruptionQueue of its chart, with the queue and rules of its documentation"),
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| &spec.containers)
}

/// A setting as a variable or as a flag; `None` also where its value comes from elsewhere.
fn setting<'p>(pod: &'p Pod, [variable, flag]: [&str; 2]) -> Option<&'p str> {
    containers(pod).find_map(|container| {
        let set = container.env.iter().flatten().find(|one| one.name == variable);
        let given = container.command.iter().chain(&container.args).flatten();
        let given = given
            .into_iter()
            .find_map(|word| word.trim_start_matches('-').strip_prefix(flag)?.strip_prefix('='));
        set.and_then(|one| one.value.as_deref()).or(given)
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use serde_json::{Value, json};

    fn pod(image: &str, env: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"namespace": "kube-system", "name": "x"},
            "spec": {"containers": [{"name": "x", "image": image, "env": env}]}}))
        .unwrap()
    }

    fn found(image: &str, env: Value) -> Finding {
        check(&Ok(vec![pod(image, env)]), &Ok(vec![]), &Ok(vec![]), true).remove(0)
    }

    const HANDLER: &str = "public.ecr.aws/aws-ec2/aws-node-termination-handler:v1.25";
    const KARPENTER: &str = "public.ecr.aws/karpenter/controller:1.6@sha256:ab";

    #[test]
    fn a_handler_that_drains_on_the_notice_is_one_too_many_unless_told_otherwise() {
        assert_eq!(found(HANDLER, json!([])).severity, Severity::Warning);
        let off = json!([{"name": "ENABLE_SPOT_INTERRUPTION_DRAINING", "value": "false"}]);
        assert_eq!(found(HANDLER, off).severity, Severity::Ok);
        let queue = found(HANDLER, json!([{"name": "ENABLE_SQS_TERMINATION_DRAINING", "value": "true"}]));
        assert!(queue.severity == Severity::Warning && queue.what.contains("queue"), "{queue:?}");
    }

    #[test]
    fn karpenter_is_to_have_its_queue() {
        assert_eq!(found(KARPENTER, json!([])).severity, Severity::Note);
        assert_eq!(
            found(KARPENTER, json!([{"name": "INTERRUPTION_QUEUE", "value": "q"}])).severity,
            Severity::Ok
        );
        let api = check(&Ok(vec![]), &Ok(vec![]), &Ok(vec!["karpenter.sh".into()]), false);
        assert!(api[0].severity == Severity::Note && api[0].what.contains("another node"), "{api:?}");
    }

    #[test]
    fn what_only_sounds_like_one_is_none() {
        assert!(!is_one(&pod("registry/karpenter-dashboard:1", json!([]))));
        assert!(is_one(&pod("registry.k8s.io/descheduler/descheduler:v0.34", json!([]))));
        assert_eq!(found("registry/my-app:1", json!([])).severity, Severity::Ok);
    }

    #[test]
    fn managed_node_groups_are_named_once_each() {
        let node = |group: &str| {
            serde_json::from_value::<Node>(json!({"metadata": {"name": "n", "labels": {NODE_GROUP: group}}}))
                .unwrap()
        };
        let found = check(&Ok(vec![]), &Ok(vec![node("a"), node("b"), node("a")]), &Ok(vec![]), true);
        assert_eq!(found[0].about, ["a", "b"]);
    }
}
