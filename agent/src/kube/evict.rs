//! How a pod is made to leave.

use super::call::{Call, pod_path};
use super::{Cluster, ClusterError};
use crate::pods::PodRef;
use evacuation::moment::{Moment, Span};
use serde_json::{Value, json};

impl Cluster {
    /// Evicts a pod with this grace, which replaces its own: the kubelet does not shorten a
    /// termination that has begun, but an eviction may ask for more or less than the pod did.
    ///
    /// # Errors
    /// `Refused` where a PodDisruptionBudget forbids it, `NotFound` where this very pod is no more.
    pub async fn evict(&self, pod: &PodRef, grace: Span, deadline: Moment) -> Result<(), ClusterError> {
        let path = format!("{}/eviction", pod_path(&pod.namespace, &pod.name)?);
        let body = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "namespace": pod.namespace, "name": pod.name },
            "deleteOptions": options(pod, grace),
        });
        let call = Call::create(path, format!("the eviction of pod {}/{}", pod.namespace, pod.name), body)
            .impersonating(self.options.evict_as_node);
        self.send::<Value>(call, deadline).await.map(|_| ())
    }

    /// Deletes a pod with this grace, whatever any budget says.
    ///
    /// # Errors
    /// `NotFound` where this very pod is no more.
    pub async fn delete(&self, pod: &PodRef, grace: Span, deadline: Moment) -> Result<(), ClusterError> {
        let path = pod_path(&pod.namespace, &pod.name)?;
        let call = Call::delete(path, format!("pod {}/{}", pod.namespace, pod.name), options(pod, grace));
        self.send::<Value>(call, deadline).await.map(|_| ())
    }
}

/// DeleteOptions. A grace of 0 would remove the object at once, with its containers still running:
/// a StatefulSet would then start the same name twice. So it is one second at least.
fn options(pod: &PodRef, grace: Span) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": grace.as_secs().max(1),
        "preconditions": { "uid": pod.uid.0 },
    })
}
