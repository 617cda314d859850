//! A pod's status as the kubelet writes it.

use fakes::apiserver::storage::wire_time;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Sets a condition; the transition time moves only if its status does.
pub fn set_condition(pod: &mut Value, kind: &str, holds: bool) {
    let status = if holds { "True" } else { "False" };
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(condition) if condition["status"] == status => return,
        Some(condition) => {
            condition["status"] = json!(status);
            condition["lastTransitionTime"] = json!(wire_time(Timestamp::now()));
        }
        None => conditions.push(json!({"type": kind, "status": status,
            "lastTransitionTime": wire_time(Timestamp::now())})),
    }
    pod["status"]["conditions"] = json!(conditions);
}

/// The status of a condition, and its reason.
pub fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Every readiness gate's condition is True.
pub fn gates_open(pod: &Value) -> bool {
    let gates = pod["spec"]["readinessGates"].as_array();
    gates.into_iter().flatten().all(|gate| {
        let kind = gate["conditionType"].as_str().unwrap_or_default();
        condition(pod, kind).is_some_and(|condition| condition["status"] == "True")
    })
}

/// Ready follows from the containers and the gates.
pub fn refresh_ready(pod: &mut Value) {
    let containers = condition(pod, "ContainersReady").is_some_and(|condition| condition["status"] == "True");
    let ready = containers && gates_open(pod);
    set_condition(pod, "Ready", ready);
}

/// Its containers run.
pub fn running(pod: &mut Value, ip: &str, restarts: u32) {
    let name = pod["spec"]["containers"][0]["name"].clone();
    let image = pod["spec"]["containers"][0]["image"].clone();
    let digest = blake3::hash(image.as_str().unwrap_or_default().as_bytes()).to_hex();
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let id = blake3::hash(format!("{uid}/{restarts}").as_bytes()).to_hex();
    let now = wire_time(Timestamp::now());
    let status = &mut pod["status"];
    status["phase"] = json!("Running");
    status["podIP"] = json!(ip);
    status["podIPs"] = json!([{"ip": ip}]);
    status["hostIP"] = json!("127.0.0.1");
    if status["startTime"].is_null() {
        status["startTime"] = json!(now);
    }
    status["containerStatuses"] = json!([{
        "name": name, "image": image, "imageID": format!("registry.drill/image@sha256:{digest}"),
        "containerID": format!("containerd://{id}"), "ready": true, "started": true, "restartCount": restarts,
        "state": {"running": {"startedAt": now}},
    }]);
    for kind in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady"] {
        set_condition(pod, kind, true);
    }
    refresh_ready(pod);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_ready_when_its_containers_are_and_its_gates_are_open() {
        let mut pod = json!({"metadata": {"uid": "u"}, "status": {}, "spec": {"containers": [{"name": "c", "image": "i"}],
            "readinessGates": [{"conditionType": "lifeboat.dev/restored"}]}});
        running(&mut pod, "127.0.0.1", 0);
        assert_eq!(condition(&pod, "Ready").unwrap()["status"], "False");
        set_condition(&mut pod, "lifeboat.dev/restored", true);
        refresh_ready(&mut pod);
        assert_eq!(condition(&pod, "Ready").unwrap()["status"], "True");
    }
}
