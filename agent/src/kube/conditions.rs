//! Conditions of a pod's status.

use super::call::{Call, PatchType, pod_path};
use super::{Cluster, ClusterError};
use crate::pods::PodRef;
use evacuation::effect::RestoreOutcome;
use evacuation::moment::Moment;
use evacuation::names::RESTORED_CONDITION;
use serde_json::{Value, json};

/// Longest message that is written; the API server takes 32 KiB.
const MESSAGE: usize = 1024;

impl Cluster {
    /// Sets the condition DisruptionTarget: a Job whose podFailurePolicy ignores it does not count
    /// what follows as a failure of the pod.
    ///
    /// # Errors
    /// `NotFound` where this very pod is no more.
    pub async fn mark_disrupted(
        &self,
        pod: &PodRef,
        message: &str,
        deadline: Moment,
    ) -> Result<(), ClusterError> {
        self.set_condition(pod, "DisruptionTarget", "SpotInterruption", message, deadline).await
    }

    /// Sets the condition `lifeboat.dev/restored` to True, whatever the outcome: the pod may serve.
    ///
    /// # Errors
    /// `NotFound` where this very pod is no more.
    pub async fn open_gate(
        &self,
        pod: &PodRef,
        outcome: RestoreOutcome,
        message: &str,
        deadline: Moment,
    ) -> Result<(), ClusterError> {
        self.set_condition(pod, RESTORED_CONDITION, outcome.as_str(), message, deadline).await
    }

    /// Sets a condition to True. The uid is the precondition: a namesake created later is not meant.
    ///
    /// # Errors
    /// `NotFound` where this very pod is no more.
    pub(crate) async fn set_condition(
        &self,
        pod: &PodRef,
        condition: &str,
        reason: &str,
        message: &str,
        deadline: Moment,
    ) -> Result<(), ClusterError> {
        let path = format!("{}/status", pod_path(&pod.namespace, &pod.name)?);
        let message: String = message.chars().take(MESSAGE).collect();
        // The uid is the precondition. A strategic merge goes by the condition's type and leaves the
        // kubelet's conditions alone; a plain merge would replace the list.
        let body = json!({
            "metadata": { "uid": pod.uid.0 },
            "status": { "conditions": [{
                "type": condition,
                "status": "True",
                "reason": reason,
                "message": message,
                // For people; rounded, since the API's Time has whole seconds.
                "lastTransitionTime": crate::kube::events::wall_clock(),
            }] },
        });
        let what = format!("condition {condition} of pod {}/{}", pod.namespace, pod.name);
        self.send::<Value>(Call::patch(path, what, PatchType::Strategic, body), deadline).await.map(|_| ())
    }
}
