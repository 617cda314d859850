//! The methods of [`Cluster`] over real HTTP.

mod departure;
mod ended;
mod needless;
mod world;

use super::*;
use crate::pods::PodRef;
use evacuation::effect::RestoreOutcome;
use evacuation::event::FailureKind;
use evacuation::moment::{Moment, Span};
use evacuation::names::{EVACUATION_ANNOTATION, INTERRUPTION_TAINT, OVER_ANNOTATION, REBALANCE_TAINT};
use evacuation::notice::{ActiveNotice, InstanceAction, NoticeKind};
use evacuation::pod::PodUid;
use fakes::apiserver::deletion::{Budget, Refuses};
use fakes::apiserver::misconduct::Instead;
use fakes::apiserver::routes::FOREIGN_TAINT;
use fakes::apiserver::status::Refusal;
use host::clock;
use http::StatusCode;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;
use world::World;

const NODE: &str = "node-a";

fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": NODE, "uid": "n1", "resourceVersion": "5" },
        "spec": { "taints": [{ "key": "others", "effect": "NoExecute", "value": "x" }] },
    })
}

fn pod(name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": "chat", "name": name, "uid": uid, "resourceVersion": "5" },
        "spec": { "nodeName": NODE, "containers": [{ "name": "engine", "image": "e:1" }] },
        "status": { "phase": "Running" },
    })
}

fn pod_ref(name: &str, uid: &str) -> PodRef {
    PodRef { namespace: "chat".into(), name: name.into(), uid: PodUid(uid.into()) }
}

fn options(evict_as_node: bool) -> Options {
    Options {
        kubeconfig: None,
        node: NODE.into(),
        instance: "lifeboat-x".into(),
        evict_as_node,
        daemons: DaemonRules::default(),
        bare_may_go: false,
    }
}

/// A budget over the pods with the label `app: b` that never lets one go.
fn budget(name: &str) -> Budget {
    Budget {
        name: name.into(),
        namespace: "chat".into(),
        label: ("app".into(), "b".into()),
        refuses: Mutex::new(Refuses::Always),
    }
}

fn soon() -> Moment {
    clock::now() + Span::from_secs(5)
}

fn active_notice(kind: NoticeKind) -> ActiveNotice {
    ActiveNotice {
        notice: "n-1".into(),
        kind,
        boot: "boot-1".into(),
        began: Moment::from_millis(1000),
        deadline: Moment::from_millis(116_000),
        hard: matches!(kind, NoticeKind::Interruption(_)),
        was_schedulable: true,
    }
}

const TERMINATE: NoticeKind = NoticeKind::Interruption(InstanceAction::Terminate);

fn keys(node: &Value) -> Vec<&str> {
    node["spec"]["taints"].as_array().unwrap().iter().map(|taint| taint["key"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_notice_cordons_taints_and_annotates_in_one_patch() {
    let world = World::start(node(), vec![]).await;
    let version = world.node()["metadata"]["resourceVersion"].clone();
    let written = world.cluster().mark(&active_notice(TERMINATE), soon()).await.unwrap();
    assert!(written.was_schedulable);
    let patches = world.requests("patch", NODE);
    assert_eq!(patches.len(), 1);
    assert_eq!(patches[0].headers["content-type"], "application/merge-patch+json");
    assert_eq!(patches[0].body["metadata"]["resourceVersion"], version);
    let node = world.node();
    assert_eq!(node["spec"]["unschedulable"], true);
    assert_eq!(keys(&node), ["others", INTERRUPTION_TAINT]);
    assert_eq!(node["spec"]["taints"][1]["effect"], "NoSchedule");
    let raw = node["metadata"]["annotations"][EVACUATION_ANNOTATION].as_str().unwrap();
    assert_eq!(serde_json::from_str::<ActiveNotice>(raw).unwrap(), active_notice(TERMINATE));
}

#[tokio::test]
async fn a_rebalance_taints_softly_and_does_not_cordon() {
    let world = World::start(node(), vec![]).await;
    world.cluster().mark(&active_notice(NoticeKind::Rebalance), soon()).await.unwrap();
    let node = world.node();
    assert_eq!(node["spec"]["unschedulable"], Value::Null);
    assert_eq!(keys(&node), ["others", REBALANCE_TAINT]);
    assert_eq!(node["spec"]["taints"][1]["effect"], "PreferNoSchedule");
}

#[tokio::test]
async fn a_taint_that_another_adds_in_between_survives() {
    let world = World::start(node(), vec![]).await;
    world.script("patch", NODE, Instead::ForeignWrite);
    world.cluster().mark(&active_notice(TERMINATE), soon()).await.unwrap();
    assert_eq!(keys(&world.node()), ["others", FOREIGN_TAINT, INTERRUPTION_TAINT]);
    assert_eq!(world.requests("patch", NODE).len(), 2);
}

#[tokio::test]
async fn a_cordon_of_somebody_else_is_not_taken_for_ours() {
    let mut cordoned = node();
    cordoned["spec"]["unschedulable"] = json!(true);
    let world = World::start(cordoned, vec![]).await;
    let cluster = world.cluster();
    let written = cluster.mark(&active_notice(TERMINATE), soon()).await.unwrap();
    assert!(!written.was_schedulable);
    // An agent that starts anew over its own cordon keeps what the first one knew.
    let again = ActiveNotice { deadline: Moment::from_millis(90_000), ..active_notice(TERMINATE) };
    assert!(!cluster.mark(&again, soon()).await.unwrap().was_schedulable);

    let world = World::start(node(), vec![]).await;
    let cluster = world.cluster();
    cluster.mark(&active_notice(TERMINATE), soon()).await.unwrap();
    let again = ActiveNotice {
        was_schedulable: false,
        deadline: Moment::from_millis(90_000),
        ..active_notice(TERMINATE)
    };
    assert!(cluster.mark(&again, soon()).await.unwrap().was_schedulable);
}

#[tokio::test]
async fn marking_twice_changes_the_node_once() {
    let world = World::start(node(), vec![]).await;
    let cluster = world.cluster();
    cluster.mark(&active_notice(TERMINATE), soon()).await.unwrap();
    cluster.mark(&active_notice(TERMINATE), soon()).await.unwrap();
    assert_eq!(world.requests("patch", NODE).len(), 1);
}

#[tokio::test]
async fn unmarking_leaves_only_what_others_put_there() {
    let world = World::start(node(), vec![]).await;
    let cluster = world.cluster();
    cluster.mark(&active_notice(TERMINATE), soon()).await.unwrap();
    cluster.unmark(true, &[], soon()).await.unwrap();
    let node = world.node();
    assert_eq!(keys(&node), ["others"]);
    assert_eq!(node["spec"].get("unschedulable"), None);
    assert_eq!(node["metadata"]["annotations"].get(EVACUATION_ANNOTATION), None);
    cluster.mark(&active_notice(TERMINATE), soon()).await.unwrap();
    cluster.unmark(false, &[], soon()).await.unwrap();
    assert_eq!(world.node()["spec"]["unschedulable"], true);
}

#[tokio::test]
async fn events_that_are_over_are_noted_beside_the_mark_and_read_back() {
    let world = World::start(node(), vec![]).await;
    let cluster = world.cluster();
    let over = ["event-1".to_owned(), "event-2".to_owned()];
    cluster.unmark(false, &over, soon()).await.unwrap();
    assert_eq!(world.node()["metadata"]["annotations"][OVER_ANNOTATION], r#"["event-1","event-2"]"#);
    cluster.mark(&active_notice(TERMINATE), soon()).await.unwrap();
    assert_eq!(cluster.read_node(soon()).await.unwrap().over, over, "a mark leaves them");
    cluster.unmark(true, &[], soon()).await.unwrap();
    assert_eq!(world.node()["metadata"]["annotations"].get(OVER_ANNOTATION), None);
    assert!(cluster.read_node(soon()).await.unwrap().over.is_empty());
}

#[tokio::test]
async fn an_eviction_names_the_uid_and_the_grace() {
    let world = World::start(node(), vec![pod("a", "u1")]).await;
    world.cluster().evict(&pod_ref("a", "u1"), Span::from_secs(40), soon()).await.unwrap();
    let sent = &world.requests("evict", "/eviction")[0];
    assert_eq!(sent.body["apiVersion"], "policy/v1");
    assert_eq!(sent.body["deleteOptions"]["gracePeriodSeconds"], 40);
    assert_eq!(sent.body["deleteOptions"]["preconditions"]["uid"], "u1");
    assert_eq!(sent.headers.get("impersonate-user"), None);
}

#[tokio::test]
async fn an_eviction_can_be_made_as_the_own_node_and_nothing_else_is() {
    let world = World::start(node(), vec![pod("a", "u1")]).await;
    let cluster = world.cluster_with(options(true));
    cluster.evict(&pod_ref("a", "u1"), Span::from_secs(40), soon()).await.unwrap();
    cluster.delete(&pod_ref("a", "u1"), Span::from_secs(40), soon()).await.unwrap();
    assert_eq!(world.requests("evict", "/eviction")[0].headers["impersonate-user"], "system:node:node-a");
    assert_eq!(world.requests("delete", "/a")[0].headers.get("impersonate-user"), None);
}

#[tokio::test]
async fn a_budgets_refusal_comes_back_at_once_and_is_asked_once() {
    let mut guarded = pod("a", "u1");
    guarded["metadata"]["labels"] = json!({ "app": "b" });
    let world = World::with_budgets(node(), vec![guarded], vec![budget("one")]).await;
    let began = Instant::now();
    let error = world.cluster().evict(&pod_ref("a", "u1"), Span::from_secs(40), soon()).await.unwrap_err();
    assert_eq!(error.failure_kind(), FailureKind::Refused);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(world.requests("evict", "/eviction").len(), 1);
}

#[tokio::test]
async fn a_pod_that_was_created_anew_is_not_evicted_in_its_namesakes_place() {
    let world = World::start(node(), vec![pod("a", "u2")]).await;
    let cluster = world.cluster();
    for error in [
        cluster.evict(&pod_ref("a", "u1"), Span::from_secs(9), soon()).await.unwrap_err(),
        cluster.delete(&pod_ref("a", "u1"), Span::from_secs(9), soon()).await.unwrap_err(),
        cluster.open_gate(&pod_ref("a", "u1"), RestoreOutcome::Restored, "x", soon()).await.unwrap_err(),
        cluster.delete(&pod_ref("b", "u1"), Span::from_secs(9), soon()).await.unwrap_err(),
    ] {
        assert_eq!(error.failure_kind(), FailureKind::NotFound, "{error}");
    }
}

#[tokio::test]
async fn a_grace_of_nothing_is_one_second_because_zero_would_orphan_the_containers() {
    let world = World::start(node(), vec![pod("a", "u1")]).await;
    world.cluster().delete(&pod_ref("a", "u1"), Span::from_millis(300), soon()).await.unwrap();
    assert_eq!(world.requests("delete", "/a")[0].body["gracePeriodSeconds"], 1);
}

#[tokio::test]
async fn an_api_server_that_never_answers_costs_no_more_than_the_deadline() {
    let world = World::start(node(), vec![pod("a", "u1")]).await;
    world.script("evict", "/eviction", Instead::Stall(None));
    world.script("get", NODE, Instead::Stall(None));
    let cluster = world.cluster();
    let began = Instant::now();
    let deadline = clock::now() + Span::from_millis(300);
    let pod = pod_ref("a", "u1");
    let target = active_notice(TERMINATE);
    let (evicted, marked) =
        tokio::join!(cluster.evict(&pod, Span::from_secs(9), deadline), cluster.mark(&target, deadline));
    assert!(evicted.unwrap_err().is_timeout());
    assert!(marked.unwrap_err().is_timeout());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // The hung connections are not used again.
    cluster.evict(&pod, Span::from_secs(9), soon()).await.unwrap();
}

#[tokio::test]
async fn a_proxys_page_is_not_taken_for_an_answer() {
    let world = World::start(node(), vec![pod("a", "u1")]).await;
    let page = |code, page| Instead::Answer(code, json!(page));
    world.script("evict", "/eviction", page(StatusCode::OK, "<html>login</html>"));
    world.script("delete", "/a", page(StatusCode::BAD_GATEWAY, "<html>bad gateway</html>"));
    let cluster = world.cluster();
    let pod = pod_ref("a", "u1");
    let page = cluster.evict(&pod, Span::from_secs(9), soon()).await.unwrap_err();
    assert!(matches!(page, ClusterError::Malformed { .. }), "{page:?}");
    let gateway = cluster.delete(&pod, Span::from_secs(9), soon()).await.unwrap_err();
    assert_eq!(gateway.failure_kind(), FailureKind::Transient);
    assert!(gateway.to_string().contains("bad gateway"), "{gateway}");
}

#[tokio::test]
async fn a_gate_is_opened_by_one_condition_of_that_very_pod() {
    let world = World::start(node(), vec![pod("a", "u1")]).await;
    let cluster = world.cluster();
    cluster.open_gate(&pod_ref("a", "u1"), RestoreOutcome::TimedOut, "took too long", soon()).await.unwrap();
    cluster.mark_disrupted(&pod_ref("a", "u1"), "spot", soon()).await.unwrap();
    let sent = world.requests("patch", "/status");
    assert_eq!(sent[0].headers["content-type"], "application/strategic-merge-patch+json");
    assert_eq!(sent[0].body["metadata"]["uid"], "u1");
    let condition = &sent[0].body["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("lifeboat.dev/restored"), &json!("True")));
    assert_eq!((&condition["reason"], &condition["message"]), (&json!("TimedOut"), &json!("took too long")));
    assert_eq!(sent[1].body["status"]["conditions"][0]["type"], "DisruptionTarget");
}

#[tokio::test]
async fn an_event_stands_where_kubectl_describe_looks() {
    let world = World::start(node(), vec![]).await;
    let cluster = world.cluster();
    cluster.publish(About::Node, "SpotInterruption", &"n".repeat(3000), true, soon()).await.unwrap();
    cluster.publish(About::Pod(&pod_ref("a", "u1")), "Saved", "42 MiB", false, soon()).await.unwrap();
    let sent = world.requests("create", "/events");
    assert_eq!(sent[0].path, "/api/v1/namespaces/default/events");
    assert_eq!(sent[0].body["involvedObject"]["name"], NODE);
    assert_eq!(sent[0].body["type"], "Warning");
    assert_eq!(sent[0].body["message"].as_str().unwrap().len(), 1024);
    assert_eq!(sent[1].path, "/api/v1/namespaces/chat/events");
    assert_eq!(sent[1].body["involvedObject"]["uid"], "u1");
    assert_eq!(sent[1].body["reportingInstance"], "lifeboat-x");
}

/// What describes an Event to people and tools, byte for byte but for its name, which is random.
#[tokio::test]
async fn an_event_holds_what_kubectl_and_its_successors_read() {
    let world = World::start(node(), vec![]).await;
    let cluster = world.cluster();
    cluster.publish(About::Node, "SpotInterruption", "soon", true, soon()).await.unwrap();
    cluster.publish(About::Pod(&pod_ref("a", "u1")), "Saved", "42 MiB", false, soon()).await.unwrap();
    let about_node = json!({ "apiVersion": "v1", "kind": "Node", "name": NODE, "uid": NODE });
    let about_pod =
        json!({ "apiVersion": "v1", "kind": "Pod", "namespace": "chat", "name": "a", "uid": "u1" });
    for (sent, namespace, stem, involved, reason, message, kind) in [
        (0, "default", NODE, about_node, "SpotInterruption", "soon", "Warning"),
        (1, "chat", "a", about_pod, "Saved", "42 MiB", "Normal"),
    ] {
        let sent = &world.requests("create", "/events")[sent].body;
        let name = sent["metadata"]["name"].as_str().unwrap();
        let random = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.')).unwrap();
        assert!(random.len() == 16 && u64::from_str_radix(random, 16).is_ok(), "{name}");
        let now = sent["firstTimestamp"].as_str().unwrap();
        assert!(now.len() == "2026-11-23T08:00:00Z".len() && now.parse::<jiff::Timestamp>().is_ok(), "{now}");
        let whole = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "namespace": namespace, "name": name },
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": kind,
            "source": { "component": "lifeboat", "host": NODE },
            "reportingComponent": "lifeboat",
            "reportingInstance": "lifeboat-x",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        assert_eq!(*sent, whole);
    }
}

#[tokio::test]
async fn a_source_is_looked_at_by_name_and_a_name_cannot_lead_elsewhere() {
    let world = World::start(node(), vec![pod("a", "u1")]).await;
    let cluster = world.cluster();
    let found = cluster.named_pod("chat", "a", soon()).await.unwrap().unwrap();
    assert_eq!((found.uid.0.as_str(), found.node.as_deref(), found.terminating), ("u1", Some(NODE), false));
    assert_eq!(cluster.named_pod("chat", "b", soon()).await.unwrap(), None);
    assert_eq!(cluster.node_ready("node-b", soon()).await.unwrap(), None);
    assert_eq!(cluster.node_ready(NODE, soon()).await.unwrap(), Some(false));
    let error = cluster.named_pod("chat", "../secrets/x", soon()).await.unwrap_err();
    assert!(matches!(error, ClusterError::Name { .. }), "{error}");
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_named() {
    let missing = Options { kubeconfig: Some("/nonexistent/kubeconfig".into()), ..options(false) };
    let error = Cluster::connect(missing, Metrics::new()).await.err().unwrap();
    assert!(error.to_string().contains("/nonexistent/kubeconfig"), "{error}");
    let unnamed = Options { node: String::new(), ..options(false) };
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let error = Cluster::with_config(config, unnamed, Metrics::new()).err().unwrap();
    assert!(error.to_string().contains("--node-name"), "{error}");
}

#[tokio::test]
async fn an_audit_log_tells_the_agent_from_a_person_who_asks_by_the_same_binary() {
    let world = World::start(node(), vec![]).await;
    let (_folder, path) = world.kubeconfig();
    let agent =
        Cluster::connect(Options { kubeconfig: Some(path.clone()), ..options(false) }, Metrics::new());
    let person = Cluster::outside(Some(&path), NODE);
    for cluster in [agent.await.unwrap(), person.await.unwrap()] {
        cluster.node_ready(NODE, soon()).await.unwrap();
    }
    let audit = world.server.audit();
    let names: Vec<_> = audit.iter().map(|one| one.headers["user-agent"].to_str().unwrap()).collect();
    let itself = concat!("lifeboat/", env!("CARGO_PKG_VERSION"));
    assert_eq!(names, [itself.to_owned(), format!("{itself} (by hand)")]);
}

struct Watched {
    events: mpsc::Receiver<ClusterEvent>,
    task: tokio::task::JoinHandle<()>,
}

impl Watched {
    fn of(cluster: Cluster) -> Watched {
        let (sender, events) = mpsc::channel(64);
        Watched { events, task: tokio::spawn(cluster.watch(sender)) }
    }

    async fn until(&mut self, wanted: impl Fn(&ClusterEvent) -> bool) -> Vec<ClusterEvent> {
        let mut all = Vec::new();
        loop {
            let next = timeout(Duration::from_secs(10), self.events.recv()).await;
            let event = next.unwrap_or_else(|_| panic!("nothing more after {all:#?}")).unwrap();
            let done = wanted(&event);
            all.push(event);
            if done {
                return all;
            }
        }
    }
}

fn name(event: &ClusterEvent) -> String {
    match event {
        ClusterEvent::Node(_) => "node".into(),
        ClusterEvent::Pod(record) => format!("pod {}", record.facts.name),
        ClusterEvent::PodGone(uid) => format!("gone {uid}"),
        ClusterEvent::PodsListed => "listed".into(),
        ClusterEvent::Rehearsal(asked) => format!("drill {asked}"),
        ClusterEvent::Reachable(reachable) => format!("reachable {reachable}"),
    }
}

fn pods_only(events: &[ClusterEvent]) -> Vec<String> {
    events
        .iter()
        .map(name)
        .filter(|name| name.starts_with("pod ") || name.starts_with("gone") || name == "listed")
        .collect()
}

#[tokio::test]
async fn the_watch_tells_what_changes_on_this_node_and_asks_for_nothing_else() {
    let mut elsewhere = pod("c", "u3");
    elsewhere["spec"]["nodeName"] = json!("node-b");
    let world = World::start(node(), vec![pod("a", "u1")]).await;
    // A list that holds more than was asked for.
    let version = world.storage().list("pods").1.to_string();
    let list = json!({ "apiVersion": "v1", "kind": "PodList", "metadata": { "resourceVersion": version },
        "items": [pod("a", "u1"), elsewhere] });
    world.script("list", "/pods", Instead::Answer(StatusCode::OK, list));
    let mut watched = Watched::of(world.cluster());
    let begun = watched.until(|event| *event == ClusterEvent::PodsListed).await;
    assert_eq!(pods_only(&begun), ["pod a", "listed"]);
    world.storage().create("pods", "chat", pod("b", "u2")).unwrap();
    // As it was, but for what nobody needs to know.
    let mut same = pod("a", "u1");
    same["metadata"]["labels"] = json!({ "x": "y" });
    world.change_pod(&same);
    world.storage().remove("pods", "chat", "a", "u1").unwrap();
    let later = watched.until(|event| matches!(event, ClusterEvent::PodGone(_))).await;
    assert_eq!(pods_only(&later), ["pod b", "gone u1"]);
    for seen in world.server.audit() {
        let selected = seen.query.contains("fieldSelector=metadata.name%3Dnode-a")
            && seen.path == "/api/v1/nodes"
            || seen.query.contains("fieldSelector=spec.nodeName%3Dnode-a") && seen.path == "/api/v1/pods";
        assert!(selected, "{} {}?{}", seen.verb, seen.path, seen.query);
    }
}

#[tokio::test]
async fn pods_that_vanished_while_nobody_watched_are_gone_after_the_next_list() {
    let world = World::start(node(), vec![pod("a-0", "u1"), pod("b", "u2")]).await;
    let mut watched = Watched::of(world.cluster());
    watched.until(|event| *event == ClusterEvent::PodsListed).await;
    // The StatefulSet's pod has the same name and is another pod.
    world.replace_pods(vec![pod("a-0", "u9"), pod("b", "u2")]);
    world.storage().compact();
    world.storage().hang_up();
    let later = watched.until(|event| *event == ClusterEvent::PodsListed).await;
    assert_eq!(pods_only(&later), ["pod a-0", "gone u1", "listed"]);
}

#[tokio::test]
async fn a_list_that_hangs_is_begun_anew_and_a_server_that_is_back_is_reachable() {
    let world = World::start(node(), vec![pod("a", "u1")]).await;
    world.script("list", "/pods", Instead::Stall(None));
    let mut watched = Watched::of(world.cluster());
    let begun = watched.until(|event| *event == ClusterEvent::PodsListed).await;
    assert_eq!(pods_only(&begun), ["pod a", "listed"]);
    assert!(begun.contains(&ClusterEvent::Reachable(false)), "{begun:#?}");
    let last = begun.iter().rev().find(|event| matches!(event, ClusterEvent::Reachable(_)));
    assert_eq!(last, Some(&ClusterEvent::Reachable(true)));
}

#[tokio::test]
async fn a_server_that_is_back_is_reachable_even_if_nothing_happens_on_the_node() {
    let world = World::start(node(), vec![pod("a", "u1")]).await;
    let mut watched = Watched::of(world.cluster());
    watched.until(|event| *event == ClusterEvent::PodsListed).await;
    world.script("watch", "/pods", Instead::Refuse(Refusal::unavailable()));
    world.storage().hang_up();
    watched.until(|event| *event == ClusterEvent::Reachable(false)).await;
    watched.until(|event| *event == ClusterEvent::Reachable(true)).await;
}

#[tokio::test]
async fn a_wrong_annotation_is_told_to_its_pod_once() {
    let mut wrong = pod("a", "u1");
    wrong["metadata"]["annotations"] = json!({ "lifeboat.dev/rolle": "shadow" });
    let world = World::start(node(), vec![wrong.clone()]).await;
    let mut watched = Watched::of(world.cluster());
    watched.until(|event| *event == ClusterEvent::PodsListed).await;
    wrong["status"]["phase"] = json!("Pending");
    world.change_pod(&wrong);
    wrong["spec"]["priority"] = json!(7);
    world.change_pod(&wrong);
    watched.until(|event| matches!(event, ClusterEvent::Pod(record) if record.facts.priority == 7)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let told = world.requests("create", "/events");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].body["type"], "Warning");
    let message = told[0].body["message"].as_str().unwrap();
    assert!(message.contains("lifeboat.dev/rolle") && message.contains("lifeboat.dev/role"), "{message}");
}

/// That something does not happen in the time of two probes: there is nothing to wait for.
async fn some_probes() {
    tokio::time::sleep(watch::PROBE * 5 / 2).await;
}

/// Watches as the agent of this node, which may be missing for half a second, until there is an Event.
async fn told_of_missing_node(world: &World, node: &str) -> fakes::apiserver::audit::Request {
    let cluster = world.cluster_with(Options { node: node.into(), ..options(false) });
    let (events, _seen) = mpsc::channel(64);
    let watch = tokio::spawn(cluster.watch_missing(events, Span::from_millis(500)));
    world.first_events().await;
    some_probes().await;
    watch.abort();
    let mut told = world.requests("create", "/events");
    assert_eq!(told.len(), 1, "it is said once");
    told.remove(0)
}

#[tokio::test]
async fn a_wrong_node_name_is_an_event_on_the_agents_own_pod() {
    let world = World::start(node(), vec![]).await;
    let mut own = pod("lifeboat-x", "own");
    own["metadata"]["namespace"] = json!("default");
    world.storage().create("pods", "default", own).unwrap();
    let told = told_of_missing_node(&world, "node-typo").await;
    assert_eq!(told.path, "/api/v1/namespaces/default/events");
    assert_eq!((&told.body["type"], &told.body["reason"]), (&json!("Warning"), &json!("NodeNotFound")));
    assert_eq!(told.body["involvedObject"]["uid"], "own");
    assert_eq!(told.body["source"]["host"], NODE, "the policy compares it with the token's node");
    let message = told.body["message"].as_str().unwrap();
    for part in ["node-typo", "--node-name", "NODE_NAME", NODE] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[tokio::test]
async fn a_wrong_node_name_is_said_where_the_agents_own_pod_is_not_known_either() {
    let world = World::start(node(), vec![]).await;
    let told = told_of_missing_node(&world, "node-typo").await;
    assert_eq!(told.path, "/api/v1/namespaces/default/events");
    assert_eq!(told.body["involvedObject"]["name"], "node-typo");
}

#[tokio::test]
async fn a_node_that_is_there_is_never_said_to_be_missing() {
    let world = World::start(node(), vec![]).await;
    let (events, _seen) = mpsc::channel(64);
    let watch = tokio::spawn(world.cluster().watch_missing(events, Span::ZERO));
    some_probes().await;
    watch.abort();
    assert!(world.requests("create", "/events").is_empty());
    assert!(world.requests("get", NODE).is_empty(), "nor is it asked for");
}

#[tokio::test]
async fn the_watch_ends_when_nobody_listens() {
    let world = World::start(node(), vec![]).await;
    let mut watched = Watched::of(world.cluster());
    watched.until(|event| *event == ClusterEvent::PodsListed).await;
    drop(watched.events);
    timeout(Duration::from_secs(5), watched.task).await.unwrap().unwrap();
}
