//! Conditions of a pod, read from its object.

use evacuation::names::RESTORED_CONDITION;
use k8s_openapi::api::core::v1::Pod;

/// The pod waits for its gate: it has the readiness gate, and the condition is not True.
pub(crate) fn is_gated(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    gates.iter().any(|gate| gate.condition_type == RESTORED_CONDITION) && !is_true(pod, RESTORED_CONDITION)
}

/// The condition stands in the pod's status, and is True.
pub(crate) fn is_true(pod: &Pod, condition: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|found| found.type_ == condition && found.status == "True")
}
