use super::super::finding::Severity;
use super::*;
use crate::commands::doctor::cluster_reads::{Unread, Who};
use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::{Value, json};

fn unread<T>() -> Result<T, Unread> {
    Err(Unread { why: "403".into(), forbidden: true })
}

fn sight(pods: Value, nodes: Value, daemon_set: Option<DaemonSet>) -> ClusterReads {
    ClusterReads {
        who: Ok(Who::default()),
        version: unread(),
        ahead: None,
        groups: unread(),
        pods: Ok(serde_json::from_value(pods).unwrap()),
        nodes: Ok(serde_json::from_value(nodes).unwrap()),
        budgets: unread(),
        daemon_set: Ok(daemon_set),
        fleet: Ok(None),
    }
}

/// The DaemonSet's template as the base has it, as far as it counts here.
fn template() -> Value {
    json!({"priorityClassName": "system-node-critical", "terminationGracePeriodSeconds": 110,
        "tolerations": [{"operator": "Exists", "effect": "NoExecute"},
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [{"name": "agent", "volumeMounts": [
            {"name": "pods", "mountPath": "/var/lib/kubelet/pods", "mountPropagation": "HostToContainer"}]}]})
}

fn daemon_set(template: Value) -> Option<DaemonSet> {
    serde_json::from_value(json!({"spec": {"selector": {}, "template": {"spec": template}}})).unwrap()
}

fn node(name: &str, taints: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

fn agent(node: &str, ready: &str) -> Value {
    json!({"metadata": {"namespace": "lifeboat-system", "name": format!("lifeboat-{node}"),
            "labels": {"app.kubernetes.io/name": "lifeboat", "app.kubernetes.io/component": "agent"}},
        "spec": {"nodeName": node, "containers": []}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

fn engine(node: &str, tolerations: Value) -> Value {
    json!({"metadata": {"namespace": "chat", "name": "a", "annotations": {"lifeboat.dev/engine": "http"}},
        "spec": {"nodeName": node, "containers": [], "tolerations": tolerations}})
}

#[test]
fn a_node_whose_taint_the_agent_does_not_tolerate_is_named_with_the_toleration() {
    let tainted = json!([{"key": "example.com/inference", "effect": "NoSchedule"}]);
    let tolerates = json!([{"key": "example.com/inference", "operator": "Exists"}]);
    let nodes = json!([node("a", json!([])), node("b", tainted)]);
    for (at, severity) in [("b", Severity::Failure), ("a", Severity::Warning)] {
        let pods = json!([agent("a", "True"), engine(at, tolerates.clone())]);
        let found = missing(&sight(pods, nodes.clone(), daemon_set(template())), None);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].severity, found[0].about.clone()), (severity, vec!["b".to_owned()]));
        assert!(
            found[0].fix.contains("{key: example.com/inference, operator: Exists, effect: NoSchedule}"),
            "{found:?}"
        );
    }
}

#[test]
fn a_node_that_no_opted_in_pod_can_reach_needs_no_agent() {
    let nodes = json!([node("a", json!([])), node("b", json!([{"key": "other", "effect": "NoSchedule"}]))]);
    let found = missing(
        &sight(json!([agent("a", "True"), engine("a", json!([]))]), nodes, daemon_set(template())),
        None,
    );
    assert_eq!(found[0].severity, Severity::Ok, "{found:?}");
}

#[test]
fn an_agent_that_is_not_ready_counts_as_missing_and_its_log_is_named() {
    let pods = json!([agent("a", "False"), engine("a", json!([]))]);
    let found = missing(&sight(pods, json!([node("a", json!([]))]), None), None);
    assert_eq!(found[0].severity, Severity::Failure);
    assert!(found[0].fix.contains("logs lifeboat-a"), "{found:?}");
}

#[test]
fn an_agent_beside_a_container_that_is_down_is_not_missing() {
    let mut agent = agent("a", "False");
    agent["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "ContainersReady", "status": "False"}));
    agent["status"]["containerStatuses"] = json!([{"name": "agent", "image": "i", "imageID": "i", "ready": true,
        "restartCount": 0, "state": {"running": {}}}]);
    let pods = json!([agent, engine("a", json!([]))]);
    let found = missing(&sight(pods, json!([node("a", json!([]))]), None), None);
    assert_eq!(found[0].severity, Severity::Ok, "{found:?}");
}

#[test]
fn a_node_that_is_not_ready_or_not_ec2_is_left_out() {
    let mut down = node("a", json!([]));
    down["status"]["conditions"][0]["status"] = json!("Unknown");
    let mut fargate = node("b", json!([]));
    fargate["metadata"]["labels"] = json!({"eks.amazonaws.com/compute-type": "fargate"});
    let found = missing(&sight(json!([engine("a", json!([]))]), json!([down, fargate]), None), None);
    assert_eq!(found[0].severity, Severity::Ok, "{found:?}");
}

#[test]
fn the_template_of_the_base_is_as_it_should_be_and_each_change_is_named() {
    let judge = |change: &dyn Fn(&mut Value)| {
        let mut spec = template();
        change(&mut spec);
        judge_template(&serde_json::from_value(spec).unwrap()).remove(0)
    };
    assert_eq!(judge(&|_| ()).severity, Severity::Ok);
    for (pointer, value, word) in [
        ("/priorityClassName", json!("high"), "system-node-critical"),
        ("/terminationGracePeriodSeconds", json!(30), "grace"),
        ("/tolerations", json!([{"operator": "Exists"}]), "karpenter.sh/disrupted"),
        ("/containers/0/volumeMounts/0/mountPropagation", json!("None"), "HostToContainer"),
    ] {
        let found = judge(&|spec| *spec.pointer_mut(pointer).unwrap() = value.clone());
        assert!(found.severity < Severity::Note && found.what.contains(word), "{pointer}: {found:?}");
    }
}

#[test]
fn without_a_daemonset_nothing_is_installed_and_without_the_fleet_role_gates_may_stay_closed() {
    let nothing = sight(json!([]), json!([]), None);
    assert_eq!(installed(&nothing, None)[0].severity, Severity::Failure);
    assert_eq!(fleet(&nothing).severity, Severity::Warning);
}

#[test]
fn an_agent_is_asked_only_where_a_pod_opted_in() {
    let pods = json!([agent("a", "True"), agent("b", "True"), engine("b", json!([]))]);
    let sight = sight(pods, json!([]), None);
    let asked: Vec<String> = to_ask(&sight).into_iter().map(name).collect();
    assert_eq!(asked, ["lifeboat-system/lifeboat-b"]);
}
