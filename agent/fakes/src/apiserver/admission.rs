//! Own node only: what the ValidatingAdmissionPolicy in manifests/base/admission.yaml and constrained impersonation enforce.
//! A node's agent may change its own node and the pods on it; another's it may only read by name.

use super::AGENT_NAMESPACE;
use super::path::Target;
use super::status::Refusal;
use super::storage::Storage;

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name in the audit log.
    pub name: String,
    /// The node it is confined to; `None` for a drainer with rights over the cluster.
    pub node: Option<String>,
}

/// # Errors
/// 403 where the policy forbids it.
pub fn admit(storage: &Storage, user: &User, verb: &str, target: &Target) -> Result<(), Refusal> {
    let Some(node) = &user.node else { return Ok(()) };
    if target.resource == "leases" {
        return leases(user, verb, target);
    }
    if !["create", "patch", "update", "delete", "evict"].contains(&verb) {
        return Ok(());
    }
    let name = target.name.as_deref().unwrap_or_default();
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let of_node = match target.resource {
        "nodes" => Some(name.to_owned()),
        "pods" => {
            let pod = storage.get("pods", namespace, name);
            pod.and_then(|pod| pod["spec"]["nodeName"].as_str().map(str::to_owned))
        }
        "events" => return Ok(()),
        _ => None,
    };
    match of_node {
        // An object that is not there is answered with 404 by what follows.
        None if target.resource == "pods" => Ok(()),
        Some(of) if of == *node => Ok(()),
        _ => Err(Refusal::forbidden(format!(
            "{} \"{name}\" is forbidden: ValidatingAdmissionPolicy 'own-node-only' denied request: \
             {} may only {verb} what belongs to node {node}",
            target.resource, user.name
        ))),
    }
}

/// The Role of the agent's own namespace: to read, create and update Leases there, one by one.
fn leases(user: &User, verb: &str, target: &Target) -> Result<(), Refusal> {
    let namespace = target.namespace.as_deref().unwrap_or_default();
    if namespace == AGENT_NAMESPACE && ["get", "create", "update"].contains(&verb) {
        return Ok(());
    }
    Err(Refusal::forbidden(format!(
        "leases.coordination.k8s.io is forbidden: User \"{}\" cannot {verb} resource \"leases\" in API group \
         \"coordination.k8s.io\" in the namespace \"{namespace}\"",
        user.name
    )))
}
