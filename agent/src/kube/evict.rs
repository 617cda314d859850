//! How a pod is made to leave.

use super::call::{Call, pod_path};
use super::{Cluster, ClusterError};
use crate::pods::PodRef;
use evacuation::moment::{Moment, Span};
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use serde_json::Value;

impl Cluster {
    /// Evicts a pod with this grace, which replaces its own: the kubelet does not shorten a
    /// termination that has begun, but an eviction may ask for more or less than the pod did.
    ///
    /// # Errors
    /// `Refused` where a PodDisruptionBudget forbids it, `NotFound` where this very pod is no more.
    pub async fn evict(&self, pod: &PodRef, grace: Span, deadline: Moment) -> Result<(), ClusterError> {
        let path = format!("{}/eviction", pod_path(&pod.namespace, &pod.name)?);
        let what = format!("the eviction of pod {}/{}", pod.namespace, pod.name);
        let call = Call::create(path, what, eviction(pod, grace)).impersonating(self.options.evict_as_node);
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

fn eviction(pod: &PodRef, grace: Span) -> Eviction {
    Eviction {
        metadata: ObjectMeta {
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            ..ObjectMeta::default()
        },
        delete_options: Some(options(pod, grace)),
    }
}

/// A grace of 0 would remove the object at once, with its containers still running:
/// a StatefulSet would then start the same name twice. So it is one second at least.
fn options(pod: &PodRef, grace: Span) -> DeleteOptions {
    DeleteOptions {
        api_version: Some("v1".to_owned()),
        kind: Some("DeleteOptions".to_owned()),
        grace_period_seconds: Some(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX).max(1)),
        preconditions: Some(Preconditions { uid: Some(pod.uid.0.clone()), ..Preconditions::default() }),
        ..DeleteOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evacuation::pod::PodUid;
    use serde_json::json;

    #[test]
    fn an_eviction_has_its_options_under_the_name_that_the_server_reads() {
        let pod = PodRef { namespace: "chat".into(), name: "a".into(), uid: PodUid("u1".into()) };
        let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 40,
            "preconditions": { "uid": "u1" } });
        assert_eq!(json!(super::options(&pod, Span::from_secs(40))), options);
        assert_eq!(
            json!(eviction(&pod, Span::from_secs(40))),
            json!({ "apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": { "namespace": "chat", "name": "a" }, "deleteOptions": options })
        );
    }
}
