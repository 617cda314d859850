//! The API server's semantics, as the real kube client meets them.

use super::admission::User;
use super::deletion::{Budget, Refuses};
use super::misconduct::{Instead, Misconduct};
use super::status::Refusal;
use super::storage::Storage;
use super::{ApiServer, routes};
use crate::node_object;
use drill::cast::{CAST, EngineTemplate};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, Config};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

struct World {
    server: ApiServer,
    storage: Arc<Storage>,
}

impl World {
    async fn new(refuses: Refuses, faults: &[&str]) -> Self {
        let storage = Arc::new(Storage::default());
        for node in ["node-a", "node-b"] {
            storage.create("nodes", "", node_object(node, "SPOT")).unwrap();
        }
        let template = EngineTemplate { engine: "http", command: vec![], port: 80, restore: "gate" };
        for member in CAST {
            let mut pod = member.pod(1, Some("node-a"), &template);
            pod["status"]["phase"] = json!("Running");
            storage.create("pods", "chat", pod).unwrap();
        }
        let label = ("app".to_owned(), "web".to_owned());
        let budget = |name: &str, refuses| Budget {
            name: name.into(),
            namespace: "chat".into(),
            label: label.clone(),
            refuses: Mutex::new(refuses),
        };
        let faults: Vec<_> = faults.iter().map(|text| text.parse().unwrap()).collect();
        let users = vec![
            User { name: "agent".into(), node: Some("node-a".into()) },
            User { name: "drainer".into(), node: None },
        ];
        let server = ApiServer::start(
            Arc::clone(&storage),
            vec![budget("web", refuses)],
            Misconduct::new(&faults),
            users,
        )
        .await;
        Self { server: server.unwrap(), storage }
    }

    /// The real client, through a kubeconfig, without its own retries.
    async fn client(&self, user: &str) -> Client {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        self.server.write_kubeconfig(&path, user).unwrap();
        let kubeconfig = kube::config::Kubeconfig::read_from(&path).unwrap();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    fn name(&self, member: &str) -> String {
        CAST.iter().find(|one| one.name == member).unwrap().pod_name(1)
    }

    fn uid(&self, member: &str) -> String {
        let pod = self.storage.get("pods", "chat", &self.name(member)).unwrap();
        pod["metadata"]["uid"].as_str().unwrap().to_owned()
    }
}

fn status(error: kube::Error) -> kube::core::Status {
    match error {
        kube::Error::Api(status) => *status,
        other => panic!("not an answer of the API server: {other}"),
    }
}

async fn evict(client: &Client, pod: &str, options: Value) -> Result<Value, kube::Error> {
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}, "deleteOptions": options});
    let request = http::Request::post(format!("/api/v1/namespaces/chat/pods/{pod}/eviction"))
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())
        .unwrap();
    client.request(request).await
}

#[tokio::test]
async fn lists_are_selected_by_field_and_a_watch_goes_on_from_there() {
    let world = World::new(Refuses::Times(0), &[]).await;
    let client = world.client("agent").await;
    let pods: Api<Pod> = Api::all(client);
    let here = ListParams::default().fields("spec.nodeName=node-a");
    let list = pods.list(&here).await.unwrap();
    assert_eq!(list.items.len(), CAST.len());
    assert!(pods.list(&ListParams::default().fields("spec.nodeName=node-b")).await.unwrap().items.is_empty());

    let version = list.metadata.resource_version.unwrap();
    let only = WatchParams::default().fields("spec.nodeName=node-a");
    let mut events = pods.watch(&only, &version).await.unwrap().boxed();
    let uid = world.uid("mirror");
    world.storage.remove("pods", "chat", &world.name("mirror"), &uid);
    let template = EngineTemplate { engine: "http", command: vec![], port: 80, restore: "gate" };
    world.storage.create("pods", "chat", CAST[0].pod(2, Some("node-b"), &template)).unwrap();
    world.storage.create("pods", "chat", CAST[0].pod(3, Some("node-a"), &template)).unwrap();
    match events.try_next().await.unwrap().unwrap() {
        WatchEvent::Deleted(pod) => assert_eq!(pod.metadata.uid.unwrap(), uid),
        other => panic!("{other:?}"),
    }
    match events.try_next().await.unwrap().unwrap() {
        WatchEvent::Added(pod) => {
            assert_eq!(pod.metadata.name.unwrap(), CAST[0].pod_name(3), "node-b's is not seen")
        }
        other => panic!("{other:?}"),
    }
    match tokio::time::timeout(Duration::from_secs(5), events.try_next()).await.unwrap().unwrap().unwrap() {
        WatchEvent::Bookmark(_) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_is_gone() {
    let world = World::new(Refuses::Times(0), &[]).await;
    world.storage.compact();
    let pods: Api<Pod> = Api::all(world.client("agent").await);
    let mut events = pods.watch(&WatchParams::default(), "1001").await.unwrap().boxed();
    match events.try_next().await.unwrap().unwrap() {
        WatchEvent::Error(status) => assert_eq!((status.code, status.reason.as_str()), (410, "Expired")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_real_watcher_lists_watches_and_lists_again_after_a_410() {
    let world = World::new(Refuses::Times(0), &[]).await;
    let pods: Api<Pod> = Api::all(world.client("agent").await);
    // The server ends each watch after a second, so that the watcher comes back with its old version.
    let config = watcher::Config::default().fields("spec.nodeName=node-a").timeout(1);
    let mut events = watcher::watcher(pods, config).boxed();
    let mut lists = 0;
    let mut listed = 0;
    let all = async {
        while lists < 2 {
            match events.next().await.unwrap() {
                Ok(watcher::Event::InitDone) => {
                    lists += 1;
                    // A change that is then forgotten: the watcher's version is too old.
                    let name = world.name("gold");
                    let touch = |old: &Value| {
                        let mut new = old.clone();
                        new["metadata"]["labels"]["touched"] = json!(lists.to_string());
                        Ok(Some(new))
                    };
                    world.storage.update("pods", "chat", &name, touch).unwrap();
                    world
                        .storage
                        .update("nodes", "", "node-a", |old| {
                            let mut new = old.clone();
                            new["metadata"]["labels"]["touched"] = json!(lists.to_string());
                            Ok(Some(new))
                        })
                        .unwrap();
                    world.storage.compact();
                }
                Ok(watcher::Event::InitApply(_)) => listed += 1,
                Ok(_) | Err(_) => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    assert_eq!(listed, 2 * CAST.len());
}

#[tokio::test]
async fn a_patch_with_an_old_resource_version_is_a_conflict() {
    let world = World::new(Refuses::Times(0), &[]).await;
    let nodes: Api<Node> = Api::all(world.client("agent").await);
    let version = nodes.get("node-a").await.unwrap().metadata.resource_version.unwrap();
    let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"unschedulable": true,
        "taints": [{"key": "lifeboat.dev/interruption", "effect": "NoSchedule"}]}});
    let cordoned = nodes.patch("node-a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(cordoned.spec.as_ref().unwrap().unschedulable, Some(true));
    let error = nodes.patch("node-a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap_err();
    assert_eq!(status(error).code, 409);
}

#[tokio::test]
async fn the_conflict_fault_is_a_real_conflict_with_a_taint_that_must_survive() {
    let world = World::new(Refuses::Times(0), &["api=conflict*1"]).await;
    world.server.begin(host::clock::now());
    let nodes: Api<Node> = Api::all(world.client("agent").await);
    let attempt = || async {
        let node = nodes.get("node-a").await.unwrap();
        let mut taints = serde_json::to_value(node.spec.unwrap().taints.unwrap_or_default()).unwrap();
        taints.as_array_mut().unwrap().push(json!({"key": "lifeboat.dev/x", "effect": "NoSchedule"}));
        let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
        nodes.patch("node-a", &PatchParams::default(), &Patch::Merge(&patch)).await
    };
    assert_eq!(status(attempt().await.unwrap_err()).code, 409);
    let keys: Vec<String> =
        attempt().await.unwrap().spec.unwrap().taints.unwrap().into_iter().map(|taint| taint.key).collect();
    assert_eq!(keys, [routes::FOREIGN_TAINT, "lifeboat.dev/x"]);
}

#[tokio::test]
async fn an_eviction_carries_its_precondition_and_its_grace() {
    let world = World::new(Refuses::Times(0), &[]).await;
    let client = world.client("agent").await;
    let (name, uid) = (world.name("gold"), world.uid("gold"));
    let wrong = json!({"preconditions": {"uid": "another"}, "gracePeriodSeconds": 40});
    assert_eq!(status(evict(&client, &name, wrong).await.unwrap_err()).code, 409);
    let right = json!({"preconditions": {"uid": uid}, "gracePeriodSeconds": 40});
    evict(&client, &name, right).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "chat");
    let pod = pods.get(&name).await.unwrap();
    assert_eq!(pod.metadata.deletion_grace_period_seconds, Some(40), "more than the pod's own 5 s");
    let conditions = pod.status.unwrap().conditions.unwrap();
    assert!(
        conditions
            .iter()
            .any(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")
    );
    let error = evict(&client, "nobody", json!({})).await.unwrap_err();
    assert_eq!(status(error).code, 404);
    let request = world.server.audit().into_iter().find(|request| request.code == 201).unwrap();
    assert_eq!(
        (request.user.as_str(), request.verb, request.uid.as_deref()),
        ("agent", "evict", Some(uid.as_str()))
    );
}

#[tokio::test]
async fn kube_s_own_evict_loses_its_options_here_as_on_the_real_server() {
    // kube sends `delete_options`, which is an unknown field.
    let world = World::new(Refuses::Times(0), &[]).await;
    let pods: Api<Pod> = Api::namespaced(world.client("agent").await, "chat");
    let options = DeleteParams { grace_period_seconds: Some(40), ..DeleteParams::default() };
    let params = kube::api::EvictParams { delete_options: Some(options), ..Default::default() };
    pods.evict(&world.name("gold"), &params).await.unwrap();
    let pod = pods.get(&world.name("gold")).await.unwrap();
    assert_eq!(pod.metadata.deletion_grace_period_seconds, Some(5));
}

#[tokio::test]
async fn a_budget_refuses_with_its_cause_and_throttling_has_none() {
    let world = World::new(Refuses::Times(1), &["api=429*1"]).await;
    let client = world.client("agent").await;
    let refused = status(evict(&client, &world.name("web"), json!({})).await.unwrap_err());
    assert_eq!(refused.code, 429);
    let causes = refused.details.unwrap().causes;
    assert_eq!(causes[0].reason, "DisruptionBudget");
    world.server.begin(host::clock::now());
    let throttled = status(evict(&client, &world.name("web"), json!({})).await.unwrap_err());
    assert_eq!((throttled.code, throttled.details.unwrap().causes.len()), (429, 0));
    evict(&client, &world.name("web"), json!({})).await.unwrap();
}

#[tokio::test]
async fn a_deletion_that_has_begun_is_only_made_shorter_in_the_object() {
    let world = World::new(Refuses::Times(0), &[]).await;
    let pods: Api<Pod> = Api::namespaced(world.client("drainer").await, "chat");
    let name = world.name("gold");
    let with = |seconds| DeleteParams { grace_period_seconds: Some(seconds), ..DeleteParams::default() };
    for (asked, stands) in [(20, 20), (30, 20), (2, 2)] {
        pods.delete(&name, &with(asked)).await.unwrap();
        assert_eq!(pods.get(&name).await.unwrap().metadata.deletion_grace_period_seconds, Some(stands));
    }
    pods.delete(&name, &with(0)).await.unwrap();
    assert!(pods.get_opt(&name).await.unwrap().is_none(), "grace 0 removes the object without a kubelet");
}

#[tokio::test]
async fn a_pods_condition_is_patched_under_status_only() {
    let world = World::new(Refuses::Times(0), &[]).await;
    let pods: Api<Pod> = Api::namespaced(world.client("agent").await, "chat");
    let patch = json!({"status": {"conditions": [{"type": "lifeboat.dev/restored", "status": "True"}]}});
    let name = world.name("gold");
    let has = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == "lifeboat.dev/restored")
    };
    let unchanged = pods.patch(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    assert!(!has(&unchanged));
    let changed = pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    assert!(has(&changed));
}

#[tokio::test]
async fn an_agent_may_change_its_own_node_only() {
    let world = World::new(Refuses::Times(0), &[]).await;
    let nodes: Api<Node> = Api::all(world.client("agent").await);
    let patch = json!({"spec": {"unschedulable": true}});
    let error = nodes.patch("node-b", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap_err();
    assert_eq!(status(error).code, 403);
    nodes.get("node-b").await.unwrap();
    let events: Api<Event> = Api::namespaced(world.client("agent").await, "default");
    let event = json!({"metadata": {"generateName": "e."}, "involvedObject": {"kind": "Node", "name": "node-a"},
        "reason": "Noticed", "type": "Normal"});
    events.create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_request_without_a_known_token_is_unauthorized() {
    let world = World::new(Refuses::Times(0), &[]).await;
    let nodes: Api<Node> = Api::all(world.client("nobody").await);
    assert_eq!(status(nodes.get("node-a").await.unwrap_err()).code, 401);
}

#[tokio::test]
async fn two_budgets_on_one_pod_are_an_internal_error() {
    let world = World::new(Refuses::Times(0), &[]).await;
    let budget = |name: &str| Budget {
        name: name.into(),
        namespace: "chat".into(),
        label: ("app".into(), "web".into()),
        refuses: Mutex::new(Refuses::Times(0)),
    };
    let both = [budget("one"), budget("two")];
    let refusal =
        super::deletion::evict(&world.storage, &both, "chat", &world.name("web"), &json!({})).unwrap_err();
    assert_eq!(refusal.code.as_u16(), 500);
    assert!(refusal.message.contains("more than one PodDisruptionBudget"));
}

#[tokio::test]
async fn a_script_strikes_one_request_and_the_audit_has_those_of_strangers_too() {
    let world = World::new(Refuses::Times(0), &[]).await;
    let nodes: Api<Node> = Api::all(world.client("agent").await);
    world.server.script("get", "/nodes/node-a", Instead::Refuse(Refusal::unavailable()));
    nodes.get("node-b").await.unwrap();
    assert_eq!(status(nodes.get("node-a").await.unwrap_err()).code, 503);
    nodes.get("node-a").await.unwrap();
    let elsewhere = http::Request::get("/api/v1/configmaps").body(Vec::new()).unwrap();
    let error = world.client("agent").await.request::<Value>(elsewhere).await.unwrap_err();
    assert_eq!(status(error).code, 404);
    Api::<Node>::all(world.client("nobody").await).get("node-a").await.unwrap_err();
    let seen: Vec<_> = world.server.audit().into_iter().map(|one| (one.user, one.path, one.code)).collect();
    let expected = [
        ("agent", "/api/v1/nodes/node-b", 200),
        ("agent", "/api/v1/nodes/node-a", 503),
        ("agent", "/api/v1/nodes/node-a", 200),
        ("agent", "/api/v1/configmaps", 404),
        ("", "/api/v1/nodes/node-a", 401),
    ];
    assert_eq!(seen, expected.map(|(user, path, code)| (user.to_owned(), path.to_owned(), code)));
}
