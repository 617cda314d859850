//! The same methods against the drill's API server, whose author read the protocol for himself: what
//! one of us misunderstood shows here.

use super::*;
use evacuation::names::INTERRUPTION_TAINT;
use fakes::apiserver::ApiServer;
use fakes::apiserver::admission::User;
use fakes::apiserver::deletion::{Budget, Refuses};
use fakes::apiserver::misconduct::Misconduct;
use fakes::apiserver::storage::Storage;
use std::sync::{Arc, Mutex};

struct World {
    server: ApiServer,
    _folder: tempfile::TempDir,
    cluster: Cluster,
}

async fn world(budgets: Vec<Budget>) -> World {
    let storage = Arc::new(Storage::default());
    storage.create("nodes", "", node()).unwrap();
    storage.create("pods", "chat", pod("a", "u1")).unwrap();
    let mut elsewhere = pod("far", "u9");
    elsewhere["spec"]["nodeName"] = json!("node-b");
    storage.create("pods", "chat", elsewhere).unwrap();
    let agent = User { name: "agent-a".into(), node: Some(NODE.into()) };
    let server = ApiServer::start(storage, budgets, Misconduct::default(), vec![agent]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    server.write_kubeconfig(&kubeconfig, "agent-a").unwrap();
    let options = Options { kubeconfig: Some(kubeconfig), ..options(false) };
    let cluster = Cluster::connect(options, Metrics::new()).await.unwrap();
    World { server, _folder: folder, cluster }
}

#[tokio::test]
async fn a_pods_whole_departure_is_understood_by_another_server() {
    let world = world(vec![]).await;
    let (cluster, storage) = (&world.cluster, world.server.storage());
    let mut watched = Watched::of(cluster.clone());
    watched.until(|event| *event == ClusterEvent::PodsListed).await;

    cluster.mark(&active_notice(TERMINATE), soon()).await.unwrap();
    assert_eq!(keys(&storage.get("nodes", "", NODE).unwrap()), ["others", INTERRUPTION_TAINT]);
    let marked = |event: &ClusterEvent| matches!(event, ClusterEvent::Node(facts) if facts.tainted && facts.unschedulable && facts.active_notice == Some(active_notice(TERMINATE)));
    watched.until(marked).await;

    let it = pod_ref("a", "u1");
    cluster.open_gate(&it, RestoreOutcome::NothingToRestore, "first of its kind", soon()).await.unwrap();
    watched.until(|event| matches!(event, ClusterEvent::Pod(record) if record.facts.restore_decided)).await;
    cluster.mark_disrupted(&it, "spot", soon()).await.unwrap();
    cluster.publish(About::Node, "SpotInterruption", "x", true, soon()).await.unwrap();
    cluster.publish(About::Pod(&it), "Saved", "x", false, soon()).await.unwrap();
    let conditions = storage.get("pods", "chat", "a").unwrap()["status"]["conditions"].clone();
    assert_eq!(conditions.as_array().unwrap().len(), 2, "{conditions}");

    cluster.evict(&it, Span::from_secs(40), soon()).await.unwrap();
    assert_eq!(storage.get("pods", "chat", "a").unwrap()["metadata"]["deletionGracePeriodSeconds"], 40);
    let leaving = watched
        .until(|event| matches!(event, ClusterEvent::Pod(record) if record.facts.terminating.is_some()))
        .await;
    let Some(ClusterEvent::Pod(record)) = leaving.last() else { panic!("{leaving:#?}") };
    let left = record.facts.terminating.unwrap().left(clock::now());
    assert!(left > Span::from_secs(38) && left <= Span::from_secs(40), "{left}");

    storage.remove("pods", "chat", "a", "u1").unwrap();
    watched.until(|event| *event == ClusterEvent::PodGone(PodUid("u1".into()))).await;
    let gone = cluster.evict(&it, Span::from_secs(40), soon()).await.unwrap_err();
    assert_eq!(gone.failure_kind(), FailureKind::NotFound);
    cluster.unmark(true, soon()).await.unwrap();
    assert_eq!(keys(&storage.get("nodes", "", NODE).unwrap()), ["others"]);
}

#[tokio::test]
async fn another_servers_refusals_are_told_apart() {
    let budget = |name: &str| Budget {
        name: name.into(),
        namespace: "chat".into(),
        label: ("app".into(), "b".into()),
        refuses: Mutex::new(Refuses::Always),
    };
    let one = world(vec![budget("one")]).await;
    let two = world(vec![budget("one"), budget("two")]).await;
    for world in [&one, &two] {
        let mut guarded = pod("b", "u2");
        guarded["metadata"]["labels"] = json!({ "app": "b" });
        world.server.storage().create("pods", "chat", guarded).unwrap();
        let error = world.cluster.evict(&pod_ref("b", "u2"), Span::from_secs(9), soon()).await.unwrap_err();
        assert_eq!(error.failure_kind(), FailureKind::Refused, "{error}");
        world.cluster.delete(&pod_ref("b", "u2"), Span::from_secs(9), soon()).await.unwrap();
    }
    // A pod of another node, and a namesake.
    let far = one.cluster.delete(&pod_ref("far", "u9"), Span::from_secs(9), soon()).await.unwrap_err();
    assert_eq!(far.failure_kind(), FailureKind::Permanent, "{far}");
    let namesake = one.cluster.delete(&pod_ref("a", "u0"), Span::from_secs(9), soon()).await.unwrap_err();
    assert_eq!(namesake.failure_kind(), FailureKind::NotFound, "{namesake}");
    let namesake =
        one.cluster.open_gate(&pod_ref("a", "u0"), RestoreOutcome::Failed, "x", soon()).await.unwrap_err();
    assert_eq!(namesake.failure_kind(), FailureKind::NotFound, "{namesake}");
}
