//! What a pod is a replica of, and what identifies its history.
//!
//! Known without asking anybody: a restore must not wait for the objects above a pod, and the agent has no right to read
//! them. What the direct owner and the pod's own labels do not say is not looked for:
//!
//! | owner chain | the workload's name | its lineages |
//! |---|---|---|
//! | Deployment, Argo Rollout (KServe, Flagger, Helm above them) | the ReplicaSet's name without its hash | each pod |
//! | Knative revision (KServe serverless) | its configuration, which all revisions share | each pod |
//! | StatefulSet, LeaderWorkerSet (a StatefulSet of leaders, and one of workers for each leader) | the StatefulSet | the pod's name |
//! | Job, JobSet, any other controller | the owner | each pod |
//! | Job with indexes, which are not interchangeable | the Job and the index | each pod |

use crate::pods::annotations::EngineSettings;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// Labels whose value ends a ReplicaSet's name: of a Deployment, and of an Argo Rollout.
const HASH_LABELS: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];

/// Knative's name for what all revisions of a service have in common.
const KNATIVE: &str = "serving.knative.dev/configuration";
/// The index of a pod of a Job with `completionMode: Indexed`.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// A pod's workload and lineage: the first parts of the keys of its state in the store (`checkpoint/src/key.rs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The name its replicas share within the namespace: the Deployment, StatefulSet, Job or whatever
    /// owns the pod, or `lifeboat.dev/state-key`.
    pub name: String,
    /// Its replicas have stable names (StatefulSet): a lineage belongs to one of them.
    pub named: bool,
    /// The lineage this pod writes: its name where that is stable, its uid otherwise.
    pub lineage: String,
    /// Digest of the distilled template: what may be restored into what, as far as it is known when a
    /// pod is bound.
    pub spec_key: String,
}

/// The workload of a pod.
pub(super) fn workload(pod: &Pod, settings: Option<&EngineSettings>) -> Workload {
    let owner = controller(pod);
    let named = owner.is_some_and(|owner| owner.kind == "StatefulSet");
    let pod_name = pod.metadata.name.clone().unwrap_or_default();
    let name = match (settings.and_then(|settings| settings.state_key.clone()), owner) {
        (Some(key), _) => key,
        (None, Some(owner)) => owner_name(pod, owner),
        (None, None) => pod_name.clone(),
    };
    let lineage = if named { pod_name } else { pod.metadata.uid.clone().unwrap_or_default() };
    Workload { name, named, lineage, spec_key: super::spec_key::spec_key(pod, settings) }
}

/// The owner that would create the pod again.
pub(crate) fn controller(pod: &Pod) -> Option<&OwnerReference> {
    pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// A ReplicaSet is one revision of its Deployment: the Deployment's name is what all revisions share.
fn owner_name(pod: &Pod, owner: &OwnerReference) -> String {
    let labels = pod.metadata.labels.as_ref();
    let label = |name: &str| labels.and_then(|labels| labels.get(name));
    match owner.kind.as_str() {
        // One Deployment per revision.
        "ReplicaSet" if let Some(configuration) = label(KNATIVE) => return configuration.clone(),
        // Another index is other work.
        "Job" if let Some(index) = label(INDEX) => return format!("{}-{index}", owner.name),
        _ => {}
    }
    let hash = HASH_LABELS.iter().find_map(|label| labels?.get(*label));
    let stem = match (owner.kind.as_str(), hash) {
        ("ReplicaSet", Some(hash)) => {
            owner.name.strip_suffix(hash.as_str()).and_then(|stem| stem.strip_suffix('-'))
        }
        _ => None,
    };
    stem.filter(|stem| !stem.is_empty()).unwrap_or(&owner.name).to_owned()
}
