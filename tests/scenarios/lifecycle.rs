//! The agent's own life: probes, signals, another drainer.

use anyhow::{Context, Result};
use evacuation::notice::InstanceAction;
use lifeboat_tests::{World, http_get, interrupted_node, quiet_node};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn probes_metrics_and_status_tell_what_the_agent_does() -> Result<()> {
    let (world, imds) = quiet_node().await?;
    world.stateless_pod("web")?;
    let agent = world.agent(&imds.url(), &[])?;
    let port = agent.admin_port(&world, LIMIT).await?;
    let mut ready = String::new();
    for _ in 0..100 {
        ready = http_get(port, "/readyz").await?;
        if ready.contains("200 OK") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(ready.contains("200 OK"), "{ready}\n{}", world.agent_log());
    assert!(http_get(port, "/livez").await?.contains("200 OK"));
    let wanted = ["lifeboat_imds_reachable 1", "lifeboat_pods{kind=\"stateless\"} 1", "lifeboat_build_info"];
    let mut metrics = String::new();
    // Gauges follow the loop's beat, once a second.
    for _ in 0..50 {
        metrics = http_get(port, "/metrics").await?;
        if wanted.iter().all(|metric| metrics.contains(metric)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for metric in wanted {
        assert!(metrics.contains(metric), "{metric} is missing in:\n{metrics}");
    }
    let status = http_get(port, "/status").await?;
    assert!(status.contains("\"name\":\"web\"") && status.contains("\"finished\":false"), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sigterm_does_not_stop_a_save() -> Result<()> {
    let (world, imds) = interrupted_node(40).await?;
    let _engine = world.stateful_pod("model", 8 << 20).await?;
    // Slow enough that the signal comes in the middle of it.
    let mut agent = world.agent(&imds.url(), &["--store-fault", "put:pack=slow:2MiB/s"])?;
    world.eventually("the flush is over", LIMIT, |w| w.journal().contains("\"flushed\"")).await?;
    agent.terminate()?;
    world.eventually("the state is committed all the same", LIMIT, |w| w.stored("/gen/") == 1).await?;
    let deleted = |w: &World| w.requests("evict", "pods").iter().any(|request| request.granted());
    world.eventually("and the pod is evicted after it", LIMIT, deleted).await?;
    assert!(!agent.has_ended() || world.agent_log().contains("\"stopped\""), "{}", world.agent_log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_ends_at_once_when_it_is_told_to() -> Result<()> {
    let (world, imds) = quiet_node().await?;
    let mut agent = world.agent(&imds.url(), &[])?;
    agent.admin_port(&world, LIMIT).await?;
    agent.terminate()?;
    world.eventually("it has ended", Duration::from_secs(5), |_| agent.has_ended()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_somebody_else_deletes_is_saved_within_its_own_grace_and_nothing_else_is_touched()
-> Result<()> {
    let (world, imds) = quiet_node().await?;
    world.stateless_pod("web")?;
    let _engine = world.stateful_pod("model", 1 << 20).await?;
    let _agent = world.agent(&imds.url(), &[])?;
    world.eventually("the engine was looked at", LIMIT, |w| w.journal().contains("\"inspected\"")).await?;
    let pod = world.storage.get("pods", lifeboat_tests::NAMESPACE, "model").context("the pod")?;
    world
        .storage
        .update("pods", lifeboat_tests::NAMESPACE, "model", |pod| {
            let mut pod = pod.clone();
            pod["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(20);
            Ok(Some(pod))
        })
        .map_err(|refusal| anyhow::anyhow!("{refusal:?} for {pod}"))?;
    world.eventually("its state is committed", LIMIT, |w| w.stored("/gen/") == 1).await?;
    assert_eq!(world.requests("patch", "nodes").len(), 0, "the node is not touched");
    assert_eq!(world.requests("evict", "pods").len() + world.requests("delete", "pods").len(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_was_withdrawn_while_no_agent_lived_is_undone() -> Result<()> {
    let (world, imds) = quiet_node().await?;
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(600);
    imds.interrupt(InstanceAction::Terminate, at, None);
    let first = world.agent(&imds.url(), &["--undo-after", "2s"])?;
    world.eventually("the node is cordoned", LIMIT, |w| w.node()["spec"]["unschedulable"] == true).await?;
    // Killed: it takes nothing back itself.
    drop(first);
    imds.withdraw();
    // It says nothing of the interruption.
    imds.recommend_rebalance();
    let _second = world.agent(&imds.url(), &["--undo-after", "2s"])?;
    world.eventually("the node is as before", LIMIT, |w| w.node()["spec"]["unschedulable"] != true).await?;
    assert!(!world.taints().contains_key("lifeboat.dev/interruption"), "{:?}", world.taints());
    assert!(world.taints().contains_key("example.com/other"), "another's taint was dropped");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_still_stands_keeps_its_deadline_over_a_restart() -> Result<()> {
    let (world, imds) = quiet_node().await?;
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(600);
    imds.interrupt(InstanceAction::Terminate, at, None);
    let first = world.agent(&imds.url(), &[])?;
    world.eventually("the node is cordoned", LIMIT, |w| w.node()["spec"]["unschedulable"] == true).await?;
    let annotation = |w: &World| w.node()["metadata"]["annotations"]["lifeboat.dev/evacuation"].clone();
    let before = annotation(&world);
    drop(first);
    let second = world.agent(&imds.url(), &[])?;
    second.admin_port(&world, LIMIT).await?;
    // Longer than a notice may stay unconfirmed.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(annotation(&world), before);
    assert_eq!(world.node()["spec"]["unschedulable"], true);
    Ok(())
}

/// Changes a pod as its kubelet or a controller would.
fn change_pod(world: &World, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
    let written = world.storage.update("pods", lifeboat_tests::NAMESPACE, name, |pod| {
        let mut pod = pod.clone();
        change(&mut pod);
        Ok(Some(pod))
    });
    written.map(drop).map_err(|refusal| anyhow::anyhow!("{refusal:?} for {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_beside_a_crashing_container_is_saved_on_deletion() -> Result<()> {
    let (world, imds) = quiet_node().await?;
    let _engine = world.stateful_pod("model", 1 << 20).await?;
    change_pod(&world, "model", |pod| {
        let proxy = json!({"name": "proxy", "image": "registry.example/proxy:1"});
        let crashing = json!({"name": "proxy", "ready": false, "restartCount": 9, "image": "registry.example/proxy:1",
            "imageID": "", "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
            containers.push(proxy);
        }
        if let Some(statuses) = pod["status"]["containerStatuses"].as_array_mut() {
            statuses.push(crashing);
        }
    })?;
    let _agent = world.agent(&imds.url(), &[])?;
    world.eventually("the engine was looked at", LIMIT, |w| w.journal().contains("\"inspected\"")).await?;
    change_pod(&world, "model", |pod| {
        pod["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(20);
    })?;
    world.eventually("its state is committed", LIMIT, |w| w.stored("/gen/") == 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_name_a_finalizer_keeps_is_gone_in_the_report() -> Result<()> {
    let (world, imds) = interrupted_node(60).await?;
    world.stateless_pod("web")?;
    change_pod(&world, "web", |pod| pod["metadata"]["finalizers"] = json!(["example.com/backup"]))?;
    let _agent = world.agent(&imds.url(), &[])?;
    let evicted = |w: &World| w.requests("evict", "pods").iter().any(|request| request.granted());
    world.eventually("it is evicted", LIMIT, evicted).await?;
    // What its kubelet does, as far as the finalizer lets it.
    change_pod(&world, "web", |pod| {
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        pod["status"]["phase"] = json!("Succeeded");
        pod["status"]["containerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 0}});
    })?;
    world.eventually("the report is complete", LIMIT, |w| w.journal().contains("\"complete\":true")).await?;
    assert!(world.journal().contains("\"departure\":\"gone\""), "{}", world.journal());
    assert!(world.storage.get("pods", lifeboat_tests::NAMESPACE, "web").is_some(), "its name is still there");
    assert!(world.agent_log().contains("finalizer example.com/backup"), "{}", world.agent_log());
    Ok(())
}
