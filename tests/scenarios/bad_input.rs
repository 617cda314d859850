//! What is configured or answered wrongly is named once, with the fix, and the node's other pods are helped all the same.

use anyhow::Result;
use fakes::sidecar::Behaviour;
use lifeboat_tests::{World, http_get, interrupted_node};
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// The notes of the Events of one reason.
fn events(world: &World, reason: &str) -> Vec<String> {
    let (events, _) = world.storage.list("events");
    let of = |event: &Value| {
        event["reason"] == reason || event["message"].as_str().is_some_and(|m| m.contains(reason))
    };
    let text =
        |event: &Value| event["message"].as_str().or(event["note"].as_str()).unwrap_or_default().to_owned();
    events.iter().filter(|event| of(event)).map(|event| text(event)).collect()
}

fn evicted(world: &World) -> usize {
    world.requests("evict", "pods").iter().filter(|request| request.granted()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_is_named_and_every_pod_still_leaves() -> Result<()> {
    let (world, imds) = interrupted_node(20).await?;
    world.stateless_pod("web")?;
    let _engine = world.stateful_pod("model", 1 << 20).await?;
    let _agent = world.agent(&imds.url(), &["--store", "dir:/nowhere/at/all"])?;
    world.eventually("both pods are evicted", LIMIT, |w| evicted(w) == 2).await?;
    world.eventually("the loss is told", LIMIT, |w| !events(w, "StateNotSaved").is_empty()).await?;
    let told = events(&world, "StateNotSaved").join("\n");
    assert!(told.contains("/nowhere/at/all"), "{told}");
    assert_eq!(world.agent_log().matches("the store cannot be used").count(), 1, "{}", world.agent_log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_claims_must_be_in_the_store_one_that_ignores_conditional_writes_is_refused_by_name()
-> Result<()> {
    let (world, imds) = interrupted_node(20).await?;
    let _engine = world.stateful_pod("model", 1 << 20).await?;
    let _agent = world.agent(&imds.url(), &["--store-fault", "put=unconditional", "--claims", "store"])?;
    world.eventually("the pod is evicted", LIMIT, |w| evicted(w) == 1).await?;
    assert!(world.agent_log().contains("the store cannot be used"), "{}", world.agent_log());
    assert_eq!(world.stored("/gen/"), 0, "something was committed to a store that cannot fence");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_ignores_conditional_writes_is_saved_to_and_the_place_of_claims_is_told() -> Result<()> {
    let (world, imds) = interrupted_node(20).await?;
    let _engine = world.stateful_pod("model", 1 << 20).await?;
    let agent = world.agent(&imds.url(), &["--store-fault", "put=unconditional"])?;
    world.eventually("the pod is evicted", LIMIT, |w| evicted(w) == 1).await?;
    assert_eq!(world.stored("/gen/"), 1, "{}", world.agent_log());
    let port = agent.admin_port(&world, LIMIT).await?;
    let told =
        "\"claims\":\"Leases in namespace lifeboat-system: the store does not decide conditional writes: ";
    let mut status = String::new();
    // It follows the loop's beat, once a second.
    for _ in 0..50 {
        status = http_get(port, "/status").await?;
        if status.contains(told) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(status.contains(told), "{status}");
    let metrics = http_get(port, "/metrics").await?;
    let claims: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("lifeboat_claims_info{")).collect();
    assert_eq!(claims, ["lifeboat_claims_info{place=\"lease\",reason=\"ignored\"} 1.0"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_answers_html_is_named_and_its_pod_leaves_in_time() -> Result<()> {
    let (world, imds) = interrupted_node(20).await?;
    let engine = world.stateful_pod("model", 1 << 20).await?;
    engine.set_behaviour(Behaviour::Html);
    let _agent = world.agent(&imds.url(), &[])?;
    world.eventually("the pod is evicted", LIMIT, |w| evicted(w) == 1).await?;
    world.eventually("the loss is told", LIMIT, |w| !events(w, "StateNotSaved").is_empty()).await?;
    let told = events(&world, "StateNotSaved").join("\n");
    assert!(told.contains("lifeboat.dev/port"), "the message names what to check: {told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_annotation_is_an_event_on_the_pod_and_the_pod_leaves_as_stateless() -> Result<()> {
    let (world, imds) = interrupted_node(20).await?;
    world.annotated_pod(
        "typo",
        serde_json::json!({"lifeboat.dev/engine": "llama-sever", "lifeboat.dev/prot": "1"}),
    )?;
    let _agent = world.agent(&imds.url(), &[])?;
    world.eventually("the pod is evicted", LIMIT, |w| evicted(w) == 1).await?;
    world.eventually("the Event is there", LIMIT, |w| !events(w, "lifeboat.dev/engine").is_empty()).await?;
    let told = events(&world, "lifeboat.dev/prot").join("\n");
    assert!(told.contains("lifeboat.dev/port"), "the nearest known annotation is offered: {told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_that_cannot_be_read_is_one_error_that_names_the_file() -> Result<()> {
    let world = World::start().await?;
    std::fs::write(world.folder.path().join("kubeconfig"), "{ not yaml: [")?;
    let mut agent = world.agent("http://127.0.0.1:9", &[])?;
    world.eventually("the agent has ended", LIMIT, |_| agent.has_ended()).await?;
    let log = world.agent_log();
    let errors: Vec<&str> = log.lines().filter(|line| line.starts_with("lifeboat:")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert!(errors[0].contains("kubeconfig") && errors[0].contains("--kubeconfig"), "{log}");
    Ok(())
}
