//! Whether a lineage's source still lives: the only look at anything that is not on this node, by
//! name and one at a time. A lineage whose source lives may be taken by nobody.

use super::call::{Call, node_path, pod_path};
use super::{Cluster, ClusterError};
use crate::pods::containers::{has_finished, have_ended};
use evacuation::moment::Moment;
use evacuation::pod::PodUid;
use k8s_openapi::api::core::v1::{Node, Pod};

/// The pod that bears a name now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPod {
    /// Its uid: another one means that the pod in question is gone.
    pub uid: PodUid,
    /// Its node, once it is bound.
    pub node: Option<String>,
    /// It is being deleted.
    pub terminating: bool,
    /// It runs nothing any more: Succeeded, Failed, or deleted with all of its containers ended.
    pub finished: bool,
}

impl Cluster {
    /// The pod of this name; `None` if there is none.
    ///
    /// # Errors
    /// As the API server answers; 403 means that the account may not read pods of that namespace.
    pub async fn named_pod(
        &self,
        namespace: &str,
        name: &str,
        deadline: Moment,
    ) -> Result<Option<NamedPod>, ClusterError> {
        let call = Call::get(pod_path(namespace, name)?, format!("pod {namespace}/{name}"));
        let pod: Pod = match self.send(call, deadline).await {
            Ok(pod) => pod,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        // A finalizer may keep its name for as long as it likes.
        let finished = has_finished(&pod) || have_ended(&pod);
        Ok(Some(NamedPod {
            uid: PodUid(pod.metadata.uid.unwrap_or_default()),
            node: pod.spec.and_then(|spec| spec.node_name),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            finished,
        }))
    }

    /// Whether a node is ready; `None` if there is no such node.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn node_ready(&self, name: &str, deadline: Moment) -> Result<Option<bool>, ClusterError> {
        let node: Node = match self.send(Call::get(node_path(name)?, format!("node {name}")), deadline).await
        {
            Ok(node) => node,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(Some(conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")))
    }
}
