//! What a pod's status says of its containers, one by one.
//!
//! A phase and a condition speak of all containers together. Where one container is meant, its own status is read: a
//! neighbour that crashes again and again must not hide an engine that serves.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// The status of one container, ordinary or native sidecar (KEP-753): names are unique within a pod.
pub(crate) fn container_status<'p>(pod: &'p Pod, name: &str) -> Option<&'p ContainerStatus> {
    statuses(pod).find(|status| status.name == name)
}

/// This container runs, whatever its neighbours do. A phase that says that nothing runs any more is the newer word: it is
/// also written by others than the kubelet, who leave the containers' statuses as they were.
pub(crate) fn is_running(pod: &Pod, name: &str) -> bool {
    !has_finished(pod) && container_status(pod, name).is_some_and(runs)
}

/// This container runs and has passed its readiness probe.
pub(crate) fn is_ready(pod: &Pod, name: &str) -> bool {
    is_running(pod, name) && container_status(pod, name).is_some_and(|status| status.ready)
}

/// Succeeded or Failed: no container runs any more, and none is started again.
pub(crate) fn has_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The pod is being deleted and none of its containers runs: what is left of it is its object. A kubelet starts no
/// container of such a pod again, so also one that waits for a restart has ended.
pub(crate) fn have_ended(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
        && !statuses(pod).any(runs)
        && (has_finished(pod) || all_are_told(pod))
}

/// Every ordinary container has a status: the kubelet has looked at this pod.
fn all_are_told(pod: &Pod) -> bool {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.all(|container| container_status(pod, &container.name).is_some())
}

fn runs(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// Those of ordinary, init and debug containers.
fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        let ordinary = status.container_statuses.iter().flatten();
        let init = status.init_container_statuses.iter().flatten();
        let debug = status.ephemeral_container_statuses.iter().flatten();
        ordinary.chain(init).chain(debug)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn running() -> Value {
        json!({ "running": {} })
    }

    fn ended() -> Value {
        json!({ "terminated": { "exitCode": 0 } })
    }

    fn crashing() -> Value {
        json!({ "waiting": { "reason": "CrashLoopBackOff" } })
    }

    fn status(name: &str, state: Value) -> Value {
        json!({ "name": name, "image": "i", "imageID": "i", "ready": true, "restartCount": 0, "state": state })
    }

    /// A pod that is being deleted, with an engine and a proxy in these states.
    fn leaving(engine: Value, proxy: Value, change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": { "name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "containers": [{ "name": "engine" }, { "name": "proxy" }] },
            "status": { "phase": "Running",
                "containerStatuses": [status("engine", engine), status("proxy", proxy)] },
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_container_runs_or_not_whatever_its_neighbours_do() {
        let pod = leaving(running(), crashing(), |_| ());
        assert!(is_running(&pod, "engine") && is_ready(&pod, "engine"));
        assert!(!is_running(&pod, "proxy") && !is_ready(&pod, "proxy"));
        assert!(!is_running(&pod, "another"));
        let failed = leaving(running(), running(), |pod| pod["status"]["phase"] = json!("Failed"));
        assert!(!is_running(&failed, "engine"));
    }

    #[test]
    fn a_pod_has_ended_when_it_is_deleted_and_no_container_runs() {
        let pod = |engine, proxy| leaving(engine, proxy, |_| ());
        assert!(have_ended(&pod(ended(), ended())));
        assert!(have_ended(&pod(ended(), crashing())), "what waits for a restart is not started again");
        assert!(!have_ended(&pod(running(), ended())));
        assert!(!have_ended(&pod(ended(), running())));
        let alive =
            |pod: &mut Value| drop(pod["metadata"].as_object_mut().unwrap().remove("deletionTimestamp"));
        assert!(!have_ended(&leaving(ended(), ended(), alive)), "they may be started again");
    }

    #[test]
    fn a_native_sidecar_and_a_debug_container_keep_a_pod_from_having_ended() {
        for list in ["initContainerStatuses", "ephemeralContainerStatuses"] {
            let with = |state: Value| {
                leaving(ended(), ended(), |pod| pod["status"][list] = json!([status("other", state)]))
            };
            assert!(!have_ended(&with(running())), "{list}");
            assert!(have_ended(&with(ended())), "{list}");
        }
    }

    #[test]
    fn a_pod_of_which_the_kubelet_said_nothing_has_not_ended() {
        let silent = |phase: &str| leaving(ended(), ended(), |pod| pod["status"] = json!({ "phase": phase }));
        assert!(!have_ended(&silent("Pending")));
        assert!(have_ended(&silent("Failed")));
        let half = leaving(ended(), ended(), |pod| {
            drop(pod["status"]["containerStatuses"].as_array_mut().unwrap().pop())
        });
        assert!(!have_ended(&half));
    }
}
