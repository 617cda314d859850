use super::*;
use evacuation::pod::{DaemonDrain, EvictWhen, Role};
use serde_json::{Value, json};

fn base() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "chat", "name": "llm-7d4b9c-x2x4z", "uid": "u1",
            "labels": { "pod-template-hash": "7d4b9c" },
            "annotations": { "lifeboat.dev/engine": "llama-server", "lifeboat.dev/state-volume": "state" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "llm-7d4b9c", "uid": "r", "controller": true }],
        },
        "spec": {
            "nodeName": "node-a", "priority": 1000, "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "engine", "image": "ghcr.io/x/llama:1", "command": ["llama-server"], "args": ["-m", "/m/a.gguf"],
                "env": [{ "name": "B", "value": "2" }, { "name": "A", "value": "1" }],
                "ports": [{ "containerPort": 8080 }],
                "volumeMounts": [{ "name": "state", "mountPath": "/state" }, { "name": "models", "mountPath": "/m" }],
                "lifecycle": { "preStop": { "exec": { "command": ["sh", "-c", "until [ \"$(cat /state/.lifeboat/hold)\" -le 0 ]; do sleep 0.2; done"] } } },
            }],
            "volumes": [
                { "name": "state", "emptyDir": {} },
                { "name": "models", "persistentVolumeClaim": { "claimName": "models" } },
            ],
        },
        "status": {
            "phase": "Running", "podIP": "10.88.0.7",
            "containerStatuses": [{
                "name": "engine", "image": "x", "imageID": "ghcr.io/x/llama@sha256:ab", "ready": true, "restartCount": 2,
                "state": { "running": {} },
            }],
        },
    })
}

fn with(change: impl FnOnce(&mut Value)) -> PodRecord {
    let mut pod = base();
    change(&mut pod);
    distilled(&pod)
}

fn distilled(pod: &Value) -> PodRecord {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    let (record, errors) = PodReader::default().distil(&pod, Moment::from_millis(0)).unwrap();
    assert_eq!(errors, []);
    record
}

fn owner(change: impl FnOnce(&mut Value)) -> Owner {
    with(change).facts.owner
}

fn owned_by(pod: &mut Value, kind: &str, name: &str) {
    pod["metadata"]["ownerReferences"][0]["kind"] = json!(kind);
    pod["metadata"]["ownerReferences"][0]["name"] = json!(name);
}

/// A DaemonSet's pod: without an engine.
fn daemon(pod: &mut Value, name: &str) {
    owned_by(pod, "DaemonSet", name);
    pod["metadata"]["annotations"] = json!({});
}

#[test]
fn everything_the_core_needs_is_taken_from_the_pod() {
    let record = with(|_| {});
    let facts = &record.facts;
    assert_eq!(
        (facts.uid.0.as_str(), facts.namespace.as_str(), facts.name.as_str()),
        ("u1", "chat", "llm-7d4b9c-x2x4z")
    );
    assert_eq!((facts.priority, facts.role, facts.owner), (1000, Role::Active, Owner::Replicated));
    assert_eq!((facts.grace, facts.terminating, facts.running), (Span::from_secs(5), None, true));
    let engine = facts.engine.as_ref().unwrap();
    assert_eq!((engine.holds, engine.evict), (true, EvictWhen::Auto));
    assert!(!facts.restore_decided);
    assert_eq!(record.pod_ip, Some("10.88.0.7".parse().unwrap()));
    assert_eq!(record.image_id.as_deref(), Some("ghcr.io/x/llama@sha256:ab"));
    assert_eq!((record.restarts, record.node.as_str()), (2, "node-a"));
}

#[test]
fn a_pod_that_says_nothing_has_the_defaults_of_kubernetes() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "uid": "u", "name": "p", "namespace": "n" }, "spec": { "containers": [{ "name": "c" }] },
    }))
    .unwrap();
    let (record, _) = PodReader::default().distil(&pod, Moment::from_millis(0)).unwrap();
    assert_eq!((record.facts.priority, record.facts.grace), (0, Span::from_secs(30)));
    assert_eq!(record.facts.owner, Owner::Bare { may_go: false });
    assert!(!record.facts.running);
}

#[test]
fn who_owns_a_pod_decides_how_it_leaves() {
    let mirror = |pod: &mut Value| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x");
    assert_eq!(owner(mirror), Owner::Static);
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(owner(|pod| pod["status"]["phase"] = json!(phase)), Owner::Finished);
    }
    assert_eq!(owner(|pod| owned_by(pod, "StatefulSet", "llm")), Owner::Named);
    assert_eq!(owner(|pod| owned_by(pod, "Job", "llm")), Owner::Replicated);
    assert_eq!(owner(|pod| owned_by(pod, "LeaderWorkerSet", "llm")), Owner::Replicated);
    let mere = |pod: &mut Value| pod["metadata"]["ownerReferences"][0]["controller"] = json!(false);
    assert_eq!(owner(mere), Owner::Bare { may_go: false });
    let willing = |pod: &mut Value| {
        pod["metadata"]["ownerReferences"] = json!([]);
        pod["metadata"]["annotations"]["lifeboat.dev/drain"] = json!("true");
    };
    assert_eq!(owner(willing), Owner::Bare { may_go: true });
}

fn daemon_drain(change: impl FnOnce(&mut Value), name: &str) -> DaemonDrain {
    match owner(|pod| {
        daemon(pod, name);
        change(pod);
    }) {
        Owner::Daemon { drain, .. } => drain,
        other => panic!("{other:?}"),
    }
}

#[test]
fn log_shippers_leave_late_and_other_daemons_stay() {
    assert_eq!(daemon_drain(|_| {}, "node-exporter"), DaemonDrain::Stay);
    assert_eq!(daemon_drain(|_| {}, "cluster-fluent-bit"), DaemonDrain::Late);
    let by_image =
        |pod: &mut Value| pod["spec"]["containers"][0]["image"] = json!("registry:5000/timberio/vector:0.40");
    assert_eq!(daemon_drain(by_image, "logs"), DaemonDrain::Late);
    let said = |pod: &mut Value| pod["metadata"]["annotations"]["lifeboat.dev/drain"] = json!("early");
    assert_eq!(daemon_drain(said, "cluster-fluent-bit"), DaemonDrain::Early);
}

#[test]
fn what_the_node_needs_stays_whatever_it_says() {
    let critical = |pod: &mut Value| {
        pod["spec"]["priorityClassName"] = json!("system-node-critical");
        pod["spec"]["priority"] = json!(2_000_001_000);
        pod["metadata"]["annotations"]["lifeboat.dev/drain"] = json!("early");
    };
    assert_eq!(daemon_drain(critical, "fluent-bit"), DaemonDrain::Stay);
}

#[test]
fn a_daemon_that_tolerates_our_taint_would_come_straight_back() {
    let tolerates = |tolerations: Value| {
        let owner = owner(|pod| {
            daemon(pod, "x");
            pod["spec"]["tolerations"] = tolerations;
        });
        matches!(owner, Owner::Daemon { tolerates_all: true, .. })
    };
    assert!(tolerates(json!([{ "operator": "Exists" }])));
    assert!(tolerates(json!([{ "operator": "Exists", "effect": "NoSchedule" }])));
    assert!(tolerates(json!([{ "key": "lifeboat.dev/interruption", "operator": "Exists" }])));
    // What the DaemonSet controller itself adds.
    assert!(!tolerates(
        json!([{ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule" }])
    ));
    assert!(!tolerates(json!([{ "operator": "Exists", "effect": "NoExecute" }])));
}

#[test]
fn a_termination_ends_when_it_was_first_seen_to_end() {
    let mut distiller = PodReader::default();
    let mut look = |now: u64, grace: Option<i64>| {
        let mut pod = base();
        if let Some(grace) = grace {
            // Long ago by the API server's clock, which must not matter.
            pod["metadata"]["deletionTimestamp"] = json!("2001-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        }
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let (record, _) = distiller.distil(&pod, Moment::from_millis(now)).unwrap();
        record.facts.terminating.map(Moment::as_millis)
    };
    assert_eq!(look(1_000, None), None);
    assert_eq!(look(2_000, Some(40)), Some(42_000));
    assert_eq!(look(10_000, Some(40)), Some(42_000));
    assert_eq!(look(11_000, Some(5)), Some(16_000));
    assert_eq!(look(12_000, Some(600)), Some(16_000));
}

#[test]
fn only_a_pod_whose_every_container_waits_holds() {
    let holds = |change: fn(&mut Value)| with(change).facts.engine.unwrap().holds;
    assert!(holds(|pod| {
        pod["spec"]["containers"][0]["lifecycle"]["preStop"] =
            json!({ "httpGet": { "path": "/lifeboat/hold", "port": 9 } });
    }));
    assert!(!holds(
        |pod| pod["spec"]["containers"][0]["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": 9 } } })
    ));
    assert!(!holds(|pod| pod["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": "proxy" }))));
    // A native sidecar ends after the others by itself.
    assert!(holds(|pod| pod["spec"]["initContainers"] = json!([{ "name": "s", "restartPolicy": "Always" }])));
}

fn crashing() -> Value {
    json!({ "waiting": { "reason": "CrashLoopBackOff" } })
}

/// A container beside the engine, in this state.
fn neighbour(pod: &mut Value, state: Value) {
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": "proxy", "image": "p:1" }));
    pod["status"]["containerStatuses"].as_array_mut().unwrap().insert(
        0,
        json!({ "name": "proxy", "image": "p", "imageID": "p@sha256:cd", "ready": false, "restartCount": 9,
            "state": state }),
    );
}

#[test]
fn an_engine_runs_whatever_the_containers_beside_it_do() {
    let beside_a_crash = with(|pod| neighbour(pod, crashing()));
    assert!(beside_a_crash.facts.running);
    assert_eq!((beside_a_crash.facts.restarts, beside_a_crash.restarts), (2, 2));
    assert_eq!(beside_a_crash.image_id.as_deref(), Some("ghcr.io/x/llama@sha256:ab"));
    // Whether the pod waits for its hold is still said by all of its containers.
    assert!(!beside_a_crash.facts.engine.unwrap().holds);
    // The pod's phase is Pending until the image of each container was pulled once.
    let pulling = with(|pod| {
        neighbour(pod, json!({ "waiting": { "reason": "ImagePullBackOff" } }));
        pod["status"]["phase"] = json!("Pending");
    });
    assert!(pulling.facts.running);
}

#[test]
fn an_engine_that_is_down_does_not_run_whatever_the_containers_beside_it_do() {
    let down = |pod: &mut Value| pod["status"]["containerStatuses"][0]["state"] = crashing();
    assert!(!with(down).facts.running);
    let beside = |pod: &mut Value| {
        down(pod);
        neighbour(pod, json!({ "running": {} }));
    };
    assert!(!with(beside).facts.running);
    let not_started =
        |pod: &mut Value| pod["status"] = json!({ "phase": "Running", "containerStatuses": [] });
    assert!(!with(not_started).facts.running);
    assert!(!with(|pod| pod["status"]["phase"] = json!("Failed")).facts.running);
}

#[test]
fn an_engine_that_is_a_native_sidecar_runs_by_its_own_status() {
    let sidecar = |state: Value, other: Value| {
        with(|pod| {
            let mut engine = pod["spec"]["containers"][0].clone();
            engine["restartPolicy"] = json!("Always");
            pod["spec"]["initContainers"] = json!([engine]);
            pod["spec"]["containers"] = json!([{ "name": "app", "image": "a:1" }]);
            pod["metadata"]["annotations"]["lifeboat.dev/container"] = json!("engine");
            let mut status = pod["status"]["containerStatuses"][0].clone();
            status["state"] = state;
            pod["status"]["initContainerStatuses"] = json!([status]);
            pod["status"]["containerStatuses"] = json!([{ "name": "app", "image": "a", "imageID": "a", "ready": true,
                "restartCount": 0, "state": other }]);
        })
    };
    let engine = sidecar(json!({ "running": {} }), crashing());
    assert!(engine.facts.running);
    assert_eq!(engine.facts.restarts, 2);
    assert!(!sidecar(crashing(), json!({ "running": {} })).facts.running);
}

#[test]
fn only_a_true_condition_decides_a_restore() {
    let decided = |status: &str| {
        with(|pod| {
            pod["status"]["conditions"] = json!([{ "type": "lifeboat.dev/restored", "status": status }])
        })
        .facts
        .restore_decided
    };
    assert!(decided("True"));
    assert!(!decided("False"));
}

#[test]
fn a_workload_is_what_all_revisions_share() {
    assert_eq!(with(|_| {}).workload.name, "llm");
    assert_eq!(with(|_| {}).workload.lineage, "u1");
    let rollout =
        |pod: &mut Value| pod["metadata"]["labels"] = json!({ "rollouts-pod-template-hash": "7d4b9c" });
    assert_eq!(with(rollout).workload.name, "llm");
    let stateful = with(|pod| {
        owned_by(pod, "StatefulSet", "llm");
        pod["metadata"]["name"] = json!("llm-0");
    });
    assert_eq!(
        (stateful.workload.name.as_str(), stateful.workload.named, stateful.workload.lineage.as_str()),
        ("llm", true, "llm-0")
    );
    assert_eq!(with(|pod| owned_by(pod, "Job", "nightly")).workload.name, "nightly");
    assert_eq!(
        with(|pod| pod["metadata"]["annotations"]["lifeboat.dev/state-key"] = json!("shared")).workload.name,
        "shared"
    );
    let bare = |pod: &mut Value| pod["metadata"]["ownerReferences"] = json!([]);
    assert_eq!(with(bare).workload.name, "llm-7d4b9c-x2x4z");
}

#[test]
fn every_owner_chain_leads_to_what_its_next_pod_leads_to() {
    let named = |kind: &str, owner: &str, pod: &str, labels: Value| {
        let record = with(|it| {
            owned_by(it, kind, owner);
            it["metadata"]["name"] = json!(pod);
            it["metadata"]["labels"] = labels;
        });
        (record.workload.name, record.workload.lineage)
    };
    // KServe, raw: a Deployment of its predictor. Flagger: its copy of the Deployment.
    let kserve = named(
        "ReplicaSet",
        "llm-predictor-5f6d",
        "llm-predictor-5f6d-x",
        json!({"pod-template-hash": "5f6d"}),
    );
    assert_eq!(kserve, ("llm-predictor".into(), "u1".into()));
    // KServe, serverless: one Deployment per Knative revision.
    for revision in ["00001", "00002"] {
        let labels =
            json!({"pod-template-hash": "5f6d", "serving.knative.dev/configuration": "llm-predictor"});
        let owner = format!("llm-predictor-{revision}-deployment-5f6d");
        assert_eq!(named("ReplicaSet", &owner, "x", labels).0, "llm-predictor");
    }
    // LeaderWorkerSet: leaders of one StatefulSet, workers of one for each leader.
    assert_eq!(named("StatefulSet", "lws", "lws-0", json!({})), ("lws".into(), "lws-0".into()));
    assert_eq!(named("StatefulSet", "lws-0", "lws-0-1", json!({})), ("lws-0".into(), "lws-0-1".into()));
    // Two indexes of a Job never share a state.
    for index in ["0", "1"] {
        let labels = json!({"batch.kubernetes.io/job-completion-index": index});
        assert_eq!(named("Job", "tune", "x", labels).0, format!("tune-{index}"));
    }
    // A kind that nobody knows.
    assert_eq!(named("InferencePool", "pool", "x", json!({})).0, "pool");
}

fn key(change: impl FnOnce(&mut Value)) -> String {
    with(change).workload.spec_key
}

#[test]
fn what_admission_adds_does_not_change_the_spec_key() {
    let plain = key(|_| {});
    assert_eq!(plain.len(), 64);
    let injected = key(|pod| {
        pod["metadata"]["name"] = json!("llm-7d4b9c-other");
        pod["metadata"]["uid"] = json!("u2");
        pod["spec"]["nodeName"] = json!("node-b");
        pod["spec"]["tolerations"] =
            json!([{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute" }]);
        pod["spec"]["serviceAccountName"] = json!("default");
        let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
        volumes.push(json!({ "name": "kube-api-access-abcde", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }));
        let container = &mut pod["spec"]["containers"][0];
        container["volumeMounts"].as_array_mut().unwrap()
            .push(json!({ "name": "kube-api-access-abcde", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true }));
        let env = container["env"].as_array_mut().unwrap();
        env.reverse();
        env.push(json!({ "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }));
        env.push(json!({ "name": "AWS_ROLE_ARN", "value": "arn:aws:iam::1:role/x" }));
        container["imagePullPolicy"] = json!("Always");
        container["terminationMessagePath"] = json!("/dev/termination-log");
        pod["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "name": "istio-proxy", "image": "istio/proxyv2" }));
        pod["status"] = json!({ "phase": "Pending" });
    });
    assert_eq!(injected, plain);
}

#[test]
fn what_an_engine_is_told_changes_the_spec_key() {
    let mut keys = vec![
        key(|_| {}),
        key(|pod| pod["spec"]["containers"][0]["image"] = json!("ghcr.io/x/llama:2")),
        key(|pod| pod["spec"]["containers"][0]["command"] = json!(["other"])),
        key(|pod| pod["spec"]["containers"][0]["args"] = json!(["-m", "/m/b.gguf"])),
        key(|pod| pod["spec"]["containers"][0]["env"][0]["value"] = json!("3")),
        key(|pod| pod["spec"]["volumes"][1]["persistentVolumeClaim"]["claimName"] = json!("models-v2")),
    ];
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 6);
}

#[test]
fn the_spec_key_of_this_version_is_this_one() {
    // Written into manifests: if it changes, nothing saved before the change is found again. Raise the
    // distilled template's version together with it.
    assert_eq!(key(|_| {}), "1cce02369a15331c7be74d2122a6f05425b5b2ef680916ca5817bba9f99c8e3d");
}
