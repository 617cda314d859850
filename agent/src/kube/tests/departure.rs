//! A pod's whole departure, step by step against one API server, and the refusals on its way.

use super::*;

#[tokio::test]
async fn a_pods_whole_departure_is_understood() {
    let world = World::start(node(), vec![pod("a", "u1")]).await;
    let (cluster, storage) = (world.cluster(), world.storage());
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
    cluster.unmark(true, &[], soon()).await.unwrap();
    assert_eq!(keys(&storage.get("nodes", "", NODE).unwrap()), ["others"]);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let mut guarded = pod("b", "u2");
    guarded["metadata"]["labels"] = json!({ "app": "b" });
    let mut elsewhere = pod("far", "u9");
    elsewhere["spec"]["nodeName"] = json!("node-b");
    let pods = vec![pod("a", "u1"), guarded, elsewhere];
    let one = World::with_budgets(node(), pods.clone(), vec![budget("one")]).await;
    let two = World::with_budgets(node(), pods, vec![budget("one"), budget("two")]).await;
    for world in [&one, &two] {
        let cluster = world.cluster();
        let error = cluster.evict(&pod_ref("b", "u2"), Span::from_secs(9), soon()).await.unwrap_err();
        assert_eq!(error.failure_kind(), FailureKind::Refused, "{error}");
        cluster.delete(&pod_ref("b", "u2"), Span::from_secs(9), soon()).await.unwrap();
    }
    let one = one.cluster();
    // A pod of another node, and a namesake.
    let far = one.delete(&pod_ref("far", "u9"), Span::from_secs(9), soon()).await.unwrap_err();
    assert_eq!(far.failure_kind(), FailureKind::Permanent, "{far}");
    let namesake = one.delete(&pod_ref("a", "u0"), Span::from_secs(9), soon()).await.unwrap_err();
    assert_eq!(namesake.failure_kind(), FailureKind::NotFound, "{namesake}");
    let namesake = one.open_gate(&pod_ref("a", "u0"), RestoreOutcome::Failed, "x", soon()).await.unwrap_err();
    assert_eq!(namesake.failure_kind(), FailureKind::NotFound, "{namesake}");
}
