//! Conditions of a pod, read from its object.

use crate::pods::containers::is_ready;
use evacuation::names::RESTORED_CONDITION;
use k8s_openapi::api::core::v1::Pod;

/// The pod waits for its gate: it has the readiness gate, and the condition is not True.
pub(crate) fn is_gated(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    gates.iter().any(|gate| gate.condition_type == RESTORED_CONDITION) && !is_true(pod, RESTORED_CONDITION)
}

/// The condition stands in the pod's status, and is True.
pub(crate) fn is_true(pod: &Pod, condition: &str) -> bool {
    says(pod, condition, "True")
}

/// This container of the pod is ready, and its node is heard of.
///
/// A container beside it that is down makes the whole pod not ready, and `ContainersReady` with it. Of a node that has
/// fallen silent the node controller makes `Ready` False and nothing else: then the container's own word is an old one.
pub(crate) fn serves(pod: &Pod, container: &str) -> bool {
    is_true(pod, "Ready") || (says(pod, "ContainersReady", "False") && is_ready(pod, container))
}

fn says(pod: &Pod, condition: &str, status: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|found| found.type_ == condition && found.status == status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A pod whose container `agent` is ready or not, with these conditions `Ready` and `ContainersReady`.
    fn pod(agent: bool, ready: &str, containers_ready: &str) -> Pod {
        serde_json::from_value(json!({
            "spec": { "containers": [{ "name": "agent" }, { "name": "proxy" }] },
            "status": {
                "phase": "Running",
                "conditions": [{ "type": "Ready", "status": ready },
                    { "type": "ContainersReady", "status": containers_ready }],
                "containerStatuses": [{ "name": "agent", "image": "i", "imageID": "i", "ready": agent, "restartCount": 0,
                    "state": { "running": {} } }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_container_serves_while_one_beside_it_is_down() {
        assert!(serves(&pod(true, "True", "True"), "agent"));
        assert!(serves(&pod(true, "False", "False"), "agent"));
        assert!(!serves(&pod(false, "False", "False"), "agent"));
    }

    #[test]
    fn a_container_of_a_silent_node_does_not_serve() {
        assert!(!serves(&pod(true, "False", "True"), "agent"));
    }
}
