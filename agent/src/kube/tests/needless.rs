//! Gates that no restore will open.

use super::*;

fn gated(annotations: Value) -> Value {
    let mut pod = pod("a", "u1");
    pod["metadata"]["annotations"] = annotations;
    pod["spec"]["readinessGates"] = json!([{ "conditionType": "lifeboat.dev/restored" }]);
    pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 8080 }]);
    pod
}

/// What was written to the status of the pod, once that has had time to happen.
async fn patches(pod: Value, world: &World) -> Vec<Value> {
    world.replace_pods(vec![pod]);
    let mut watched = Watched::of(world.cluster());
    watched.until(|event| *event == ClusterEvent::PodsListed).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.requests("patch", "/a/status").into_iter().map(|seen| seen.body).collect()
}

#[tokio::test]
async fn a_gate_of_a_pod_whose_annotation_cannot_be_followed_is_opened_with_what_is_wrong() {
    let world = World::start(node(), vec![]).await;
    let sent = patches(gated(json!({ "lifeboat.dev/engine": "vllm" })), &world).await;
    assert_eq!(sent.len(), 1, "{sent:#?}");
    assert_eq!(sent[0]["metadata"]["uid"], "u1");
    let condition = &sent[0]["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("lifeboat.dev/restored"), &json!("True")));
    assert_eq!(condition["reason"], "Refused");
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains("lifeboat.dev/engine") && message.contains("vllm"), "{message}");
}

#[tokio::test]
async fn a_gate_of_a_pod_that_did_not_opt_in_is_opened_and_the_annotation_named() {
    let world = World::start(node(), vec![]).await;
    let sent = patches(gated(json!({})), &world).await;
    assert_eq!(sent.len(), 1, "{sent:#?}");
    let message = sent[0]["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("no annotation lifeboat.dev/engine"), "{message}");
}

#[tokio::test]
async fn a_gate_that_waits_for_a_restore_and_one_that_is_open_are_left_alone() {
    let world = World::start(node(), vec![]).await;
    assert_eq!(patches(gated(json!({ "lifeboat.dev/engine": "http" })), &world).await, Vec::<Value>::new());
    let mut open = gated(json!({}));
    open["status"]["conditions"] = json!([{ "type": "lifeboat.dev/restored", "status": "True" }]);
    assert_eq!(patches(open, &world).await, Vec::<Value>::new());
    let mut none = gated(json!({ "lifeboat.dev/engine": "vllm" }));
    none["spec"]["readinessGates"] = json!([{ "conditionType": "other" }]);
    assert_eq!(patches(none, &world).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_gate_that_could_not_be_opened_is_tried_again() {
    let world = World::start(node(), vec![]).await;
    world.script("patch", "/a/status", Instead::Refuse(Refusal::unavailable()));
    world.replace_pods(vec![gated(json!({}))]);
    let mut watched = Watched::of(world.cluster());
    watched.until(|event| *event == ClusterEvent::PodsListed).await;
    let twice = async {
        while world.requests("patch", "/a/status").len() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(10), twice).await.unwrap();
}
