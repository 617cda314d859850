//! The kubelet's graceful shutdown beside our deadline.

use super::control_plane::not_read;
use super::finding::Finding;
use crate::commands::doctor::cluster_reads::{ClusterReads, PATIENCE, ReadResult, opted_in, unread};
use crate::kube::Cluster;
use crate::kube::call::Call;
use futures::{StreamExt, stream};
use host::clock;
use serde_json::Value;
use std::collections::BTreeSet;

const CHECK: &str = "kubelet-shutdown";
/// Nodes that are asked: those of one group are alike.
const NODES: usize = 20;
/// Of them at once.
const AT_ONCE: usize = 4;

/// Asks the kubelets of nodes with opted-in pods.
pub async fn check(cluster: &Cluster, sight: &ClusterReads, node: Option<&str>) -> Vec<Finding> {
    let with_pods = sight
        .pods
        .iter()
        .flatten()
        .filter(|pod| opted_in(pod))
        .filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref());
    let names: BTreeSet<&str> =
        node.map_or_else(|| with_pods.take(10_000).collect(), |node| BTreeSet::from([node]));
    let asked = names.iter().take(NODES).copied().filter(|name| crate::kube::call::is_name(name));
    let ask = |name: &str| {
        let name = name.to_owned();
        async move {
            let path = format!("/api/v1/nodes/{name}/proxy/configz");
            let call = Call::get(path, format!("the kubelet's configuration of {name}"));
            let answer = cluster.send::<Value>(call, clock::now() + PATIENCE).await;
            (name, answer.map_err(|error| unread(&error)))
        }
    };
    let answers: Vec<(String, ReadResult<Value>)> =
        stream::iter(asked).map(ask).buffered(AT_ONCE).collect().await;
    let mut found: Vec<Finding> = Vec::new();
    for (name, answer) in &answers {
        match answer {
            Ok(configz) => found.push(judge(configz).about(name)),
            Err(unread) if unread.forbidden => {
                return vec![not_read(CHECK, "the kubelet's shutdown settings", unread)];
            }
            Err(unread) => found
                .push(Finding::skipped(CHECK, "the kubelet's shutdown settings", &unread.why).about(name)),
        }
    }
    if names.len() > NODES {
        let why = format!("{} of {} nodes with opted-in pods were asked", NODES, names.len());
        found.push(Finding::skipped(CHECK, "the other kubelets", why));
    }
    found
}

fn judge(configz: &Value) -> Finding {
    let config = &configz["kubeletconfig"];
    let time = |name: &str| config[name].as_str().map_or(0, seconds);
    let (all, critical) = (time("shutdownGracePeriod"), time("shutdownGracePeriodCriticalPods"));
    let by_priority =
        config["shutdownGracePeriodByPodPriority"].as_array().is_some_and(|list| !list.is_empty());
    if by_priority {
        return Finding::ok(
            CHECK,
            "it ends pods by priority when the system shuts down; that begins after lifeboat's deadline",
        );
    }
    if all == 0 {
        return Finding::note(CHECK, "it has no graceful shutdown")
            .because(
                "what is left at the time in the notice (DaemonSets, pods that were let go) is killed at once, and so is everything on a \
                 reboot that nobody announced; lifeboat's own deadline is before that",
            )
            .mend("set shutdownGracePeriod: 150s and shutdownGracePeriodCriticalPods: 30s in the kubelet's configuration (AL2023 for 1.34 and newer has it)");
    }
    if critical >= all {
        return Finding::warning(
            CHECK,
            format!("shutdownGracePeriodCriticalPods is {critical} s of shutdownGracePeriod {all} s"),
        )
        .because("ordinary pods, and engines among them, are killed at once when the system shuts down")
        .mend("set shutdownGracePeriod greater than shutdownGracePeriodCriticalPods");
    }
    let pods = all - critical;
    Finding::ok(
        CHECK,
        format!(
            "when the system shuts down it gives pods {pods} s and critical ones {critical} s; that begins after lifeboat's deadline"
        ),
    )
}

/// Go's durations, as the kubelet writes them: `2m30s`, `30s`, `0s`.
fn seconds(text: &str) -> u64 {
    crate::runtime::values::span(text).map_or(0, evacuation::moment::Span::as_secs)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use serde_json::json;

    fn found(config: Value) -> Finding {
        judge(&json!({ "kubeletconfig": config }))
    }

    #[test]
    fn the_settings_are_read_as_the_kubelet_writes_them() {
        let al2023 = found(json!({"shutdownGracePeriod": "2m30s", "shutdownGracePeriodCriticalPods": "30s"}));
        assert!(al2023.severity == Severity::Ok && al2023.what.contains("pods 120 s"), "{al2023:?}");
        assert_eq!(
            found(json!({"shutdownGracePeriod": "0s", "shutdownGracePeriodCriticalPods": "0s"})).severity,
            Severity::Note
        );
        assert_eq!(found(json!({})).severity, Severity::Note);
    }

    #[test]
    fn a_period_that_critical_pods_have_for_themselves_is_a_warning() {
        let found = found(json!({"shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "30s"}));
        assert_eq!(found.severity, Severity::Warning);
    }

    #[test]
    fn periods_by_priority_replace_both() {
        let by = json!([{"priority": 0, "shutdownGracePeriodSeconds": 60}]);
        assert_eq!(found(json!({"shutdownGracePeriodByPodPriority": by})).severity, Severity::Ok);
    }
}
