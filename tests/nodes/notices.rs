//! What each kind of notice means: the rows of the table "Notices" in docs/architecture.md, one node each. Terminate is in
//! every other scenario.
//!
//! The notices come from the drill's IMDS. "Stop" is a node that loses its power and boots with another boot id, its
//! disk as it was; "hibernate" is the notice alone: nothing here freezes a machine with its memory.

use crate::cast::{Template, counters, describe, forget_seed, gone, ready, seed, tell, text, uid};
use crate::marks::{
    describe_removals, is_clean, is_marked_hard, is_marked_soft, millis, node_is, node_object, removals,
    standing, stored,
};
use anyhow::{Context, Result, ensure};
use evacuation::notice::InstanceAction;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::audit::Entry;
use testbed::metadata::Say;
use testbed::request::Request;
use testbed::{NodeOptions, Testbed};

const MINUTE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_stop_a_hibernation_and_a_maintenance_mean_what_they_should() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b", "node-c"]).await?;
    bed.install_agent().await?;
    tokio::try_join!(
        async { stop(&bed, "node-a").await.context("stop") },
        async { hibernate(&bed, "node-b").await.context("hibernate") },
        async { maintenance(&bed, "node-c").await.context("maintenance") },
    )?;
    Ok(())
}

#[tokio::test]
async fn a_notice_that_is_past_withdrawn_or_outlived_means_what_it_should() -> Result<()> {
    let bed = Testbed::with(["node-a", "node-b", "node-c"].map(NodeOptions::new).to_vec()).await?;
    bed.install_agent_with(json!({"LIFEBOAT_UNDO_AFTER": "20s"})).await?;
    tokio::try_join!(
        async { past(&bed, "node-a").await.context("a time that has passed") },
        async { withdrawn(&bed, "node-b").await.context("withdrawn") },
        async { outlived(&bed, "node-c").await.context("outlived") },
    )?;
    Ok(())
}

/// Like terminate; after the next boot everything is taken back, and the state comes back too.
async fn stop(bed: &Testbed, node: &str) -> Result<()> {
    let template = Template::engine("stopped", 0, 0).seeded().on(node);
    bed.apply(&[seed("stopped", 7, 8 * MIB), template.deployment(1)])?;
    let old = ready(bed, "stopped", 1, Some(node)).await?.remove(0);
    forget_seed(bed, "stopped")?;
    tell(&old, "touch/0.1").await?;
    let digest = counters(&old).await?["digest"].clone();

    say(bed, node, InstanceAction::Stop, 40).await?;
    gone(bed, &old, MINUTE).await?;
    let marked = node_is(bed, node, "evacuated", MINUTE, is_marked_hard).await?;
    let stands = standing(&marked).unwrap_or_default();
    ensure!(stands["kind"]["interruption"] == "stop", "{stands}");
    ensure!(!stored(bed, "stopped", "/gen/")?.is_empty(), "its state was not committed");

    bed.ask(&Request::KillNode { node: node.to_owned() })?;
    let off = Timestamp::now();
    ensure!(is_marked_hard(&node_object(bed, node).await?), "it was taken back before the boot");
    bed.ask(&Request::BootNode { node: node.to_owned() })?;
    node_is(bed, node, "as it was", 2 * MINUTE, is_clean).await?;
    let audit = bed.audit()?;
    let undone = |entry: &&Entry| entry.by_agent_of(node) && entry.writes_node(node) && entry.at > off;
    ensure!(audit.iter().filter(undone).any(Entry::succeeded), "another than its agent took it back");
    let back = ready(bed, "stopped", 1, Some(node)).await?.remove(0);
    let restored = counters(&back).await?["digest"].clone();
    ensure!(restored == digest, "after the boot: {restored} instead of {digest}; {}", describe(&back));
    Ok(())
}

/// What is flushed is committed, nothing more is flushed, nothing is evicted.
async fn hibernate(bed: &Testbed, node: &str) -> Result<()> {
    let began = Timestamp::now();
    // Four MB/s: the bytes of the pre-copy are on their way for some seconds.
    bed.ask(&Request::Uplink { host: node.to_owned(), rate: Some(32_000_000) })?;
    let template = Template::engine("frozen", 7, 32 * MIB).annotated("lifeboat.dev/interval", "5s").on(node);
    bed.apply(&[template.deployment(1), Template::plain("beside").on(node).deployment(1)])?;
    let frozen = ready(bed, "frozen", 1, Some(node)).await?.remove(0);
    let beside = ready(bed, "beside", 1, Some(node)).await?.remove(0);
    bed.until("a pre-copy on its way to the store", MINUTE, async |bed| {
        Ok((!stored(bed, "frozen", "/pack/")?.is_empty()).then_some(()))
    })
    .await?;
    ensure!(stored(bed, "frozen", "/gen/")?.is_empty(), "the link is too fast for this");
    say(bed, node, InstanceAction::Hibernate, 0).await?;
    let marked = node_is(bed, node, "cordoned", MINUTE, is_marked_hard).await?;
    let stands = standing(&marked).unwrap_or_default();
    ensure!(stands["kind"]["interruption"] == "hibernate", "{stands}");
    let flushes = flushes(&frozen).await?;
    bed.until("what is flushed to be committed", MINUTE, async |bed| {
        Ok((!stored(bed, "frozen", "/gen/")?.is_empty()).then_some(()))
    })
    .await?;
    bed.ask(&Request::Uplink { host: node.to_owned(), rate: None })?;

    // Two of its pre-copies would be due.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let removals = of_node(removals(bed, began)?, node);
    ensure!(removals.is_empty(), "pods were removed: {}", describe_removals(&removals));
    let later = self::flushes(&frozen).await?;
    ensure!(later == flushes, "a freezing engine was asked for {later} flushes instead of {flushes}");
    let calls = counters(&frozen).await?;
    ensure!(calls["quiesced"] == false, "an engine that comes back was quiesced");
    bed.metadata(node)?.say(&Say::Withdraw).await?;
    node_is(bed, node, "as it was", MINUTE, is_clean).await?;
    for pod in [&frozen, &beside] {
        let now = ready(bed, text(pod, "/metadata/labels/app"), 1, Some(node)).await?.remove(0);
        ensure!(uid(&now) == uid(pod) && restarts(&now) == 0, "it was ended: {}", describe(&now));
    }
    Ok(())
}

/// Like a rebalance until two minutes before its NotBefore, then like terminate.
async fn maintenance(bed: &Testbed, node: &str) -> Result<()> {
    bed.apply(&[Template::engine("mended", 7, 8 * MIB).on(node).deployment(1)])?;
    let pod = ready(bed, "mended", 1, Some(node)).await?.remove(0);
    let began = Timestamp::now();
    // Scheduled events are asked for every 5 s.
    let not_before = began + SignedDuration::from_secs(140);
    let say = Say::Maintenance { code: "instance-stop".to_owned(), not_before };
    bed.metadata(node)?.say(&say).await?;
    let soft = node_is(bed, node, "tainted softly", MINUTE, is_marked_soft).await?;
    let stands = standing(&soft).unwrap_or_default();
    ensure!(stands["kind"] == "maintenance", "{stands}");
    bed.until("the pre-copy", MINUTE, async |bed| Ok(stored(bed, "mended", "/gen/")?.first().map(|_| ())))
        .await?;
    node_is(bed, node, "cordoned", MINUTE, is_marked_hard).await?;
    gone(bed, &pod, MINUTE).await?;

    let audit = bed.audit()?;
    let writes =
        audit.iter().filter(|entry| entry.by_agent_of(node) && entry.writes_node(node) && entry.at >= began);
    let cordons: Vec<&Entry> = writes.filter(|entry| entry.body["spec"]["unschedulable"] == true).collect();
    let cordon = cordons.first().context("a cordon is in the audit log")?.at;
    let ahead = not_before.duration_since(cordon).as_secs_f64();
    ensure!((110.0..=121.5).contains(&ahead), "it began {ahead} s before its NotBefore, not 120 s");
    let removals = of_node(removals(bed, began)?, node);
    ensure!(
        removals.iter().any(|entry| entry.succeeded()) && removals.iter().all(|entry| entry.at >= cordon),
        "cordoned at {cordon}, and then: {}",
        describe_removals(&removals)
    );
    Ok(())
}

/// A time that has passed leaves the minimum window, and that is said.
async fn past(bed: &Testbed, node: &str) -> Result<()> {
    bed.apply(&[Template::engine("late", 7, 8 * MIB).on(node).deployment(1)])?;
    let pod = ready(bed, "late", 1, Some(node)).await?.remove(0);
    let began = Timestamp::now();
    say(bed, node, InstanceAction::Terminate, -20).await?;
    let marked = node_is(bed, node, "cordoned", MINUTE, is_marked_hard).await?;
    let stands = standing(&marked).unwrap_or_default();
    let window = millis(&stands, "deadline")? - millis(&stands, "began")?;
    // It counts from the moment at which the agent takes the notice in, a few ms after its sight.
    ensure!((30_000..30_500).contains(&window), "a window of {window} ms: {stands}");
    gone(bed, &pod, MINUTE).await?;
    let removals = of_node(removals(bed, began)?, node);
    let evicted =
        removals.iter().find(|entry| entry.is_eviction() && entry.name == text(&pod, "/metadata/name"));
    let grace = evicted.and_then(Entry::grace).context("it was evicted with a grace")?;
    ensure!((1..=30).contains(&grace), "evicted with a grace of {grace} s");
    ensure!(!stored(bed, "late", "/gen/")?.is_empty(), "its state was not committed");
    bed.until("an Event that says so", MINUTE, async |bed| {
        let events = bed.list("/api/v1/namespaces/default/events").await?;
        let of_node = events.iter().filter(|event| event["involvedObject"]["name"] == node);
        let said = |event: &&Value| {
            event["reason"] == "EvacuationStarted" && text(event, "/message").contains("minimum window")
        };
        Ok(of_node.filter(said).map(|_| ()).next())
    })
    .await
}

/// What has begun is finished, nothing more begins, and the node is given back after its time.
async fn withdrawn(bed: &Testbed, node: &str) -> Result<()> {
    // It flushes for eight seconds. The log shipper is to leave in the last quarter of 25 s.
    let shipper = Template::plain("shipper").annotated("lifeboat.dev/drain", "late").on(node);
    let begun = Template::engine("begun", 7, 24 * MIB).rate(3 * MIB).on(node);
    bed.apply(&[begun.deployment(1), shipper.daemon_set()])?;
    let pod = ready(bed, "begun", 1, Some(node)).await?.remove(0);
    let shipper = ready(bed, "shipper", 1, Some(node)).await?.remove(0);
    let began = Timestamp::now();
    say(bed, node, InstanceAction::Terminate, 30).await?;
    bed.until("its flush", MINUTE, async |_| Ok((flushes(&pod).await? > 0).then_some(()))).await?;
    bed.metadata(node)?.say(&Say::Withdraw).await?;
    let withdrawn = Timestamp::now();
    ensure!(stored(bed, "begun", "/gen/")?.is_empty(), "it was saved before the notice was withdrawn");

    gone(bed, &pod, MINUTE).await?;
    ensure!(!stored(bed, "begun", "/gen/")?.is_empty(), "what had begun was not finished");
    node_is(bed, node, "as it was", MINUTE, is_clean).await?;
    let after = Timestamp::now().duration_since(withdrawn).as_secs_f64();
    ensure!(after >= 20.0, "it was uncordoned {after} s after the notice was withdrawn, not 20 s");
    ensure!(Timestamp::now() > began + SignedDuration::from_secs(20), "too early to tell of the log shipper");
    let now = ready(bed, "shipper", 1, Some(node)).await?.remove(0);
    ensure!(uid(&now) == uid(&shipper) && restarts(&now) == 0, "it was ended: {}", describe(&now));
    let removals = of_node(removals(bed, began)?, node);
    let others: Vec<Entry> =
        removals.into_iter().filter(|entry| entry.name != text(&pod, "/metadata/name")).collect();
    ensure!(others.is_empty(), "more was begun: {}", describe_removals(&others));
    Ok(())
}

/// A node that outlives its notice by a minute takes the next one as a new one.
async fn outlived(bed: &Testbed, node: &str) -> Result<()> {
    let tolerates = json!([{"key": "lifeboat.dev/interruption", "operator": "Exists"},
        {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]);
    let stubborn = Template::plain("stubborn").on(node).edit(|spec| spec["tolerations"] = tolerates);
    bed.apply(&[stubborn.deployment(1)])?;
    ready(bed, "stubborn", 1, Some(node)).await?;
    // The shortest that is not the minimum window: six seconds without the margin.
    say(bed, node, InstanceAction::Terminate, 11).await?;
    let marked = node_is(bed, node, "cordoned", MINUTE, is_marked_hard).await?;
    let first = standing(&marked).unwrap_or_default();
    let again = millis(&first, "deadline")? + 62_000;
    let left = again.saturating_sub(host::clock::now().as_millis());
    tokio::time::sleep(Duration::from_millis(left)).await;

    let survivor = ready(bed, "stubborn", 1, Some(node)).await?.remove(0);
    let began = Timestamp::now();
    say(bed, node, InstanceAction::Terminate, 40).await?;
    let marked = node_is(bed, node, "evacuated anew", MINUTE, |node| {
        standing(node).is_some_and(|standing| standing["notice"] != first["notice"])
    })
    .await?;
    let second = standing(&marked).unwrap_or_default();
    let window = millis(&second, "deadline")? - millis(&second, "began")?;
    ensure!(is_marked_hard(&marked) && (33_000..=36_000).contains(&window), "{second}");
    gone(bed, &survivor, MINUTE).await?;
    let removals = of_node(removals(bed, began)?, node);
    let evicted =
        removals.iter().any(|entry| entry.is_eviction() && entry.name == text(&survivor, "/metadata/name"));
    ensure!(evicted, "{} was not evicted again: {}", describe(&survivor), describe_removals(&removals));
    Ok(())
}

async fn say(bed: &Testbed, node: &str, action: InstanceAction, seconds_ahead: i64) -> Result<()> {
    let time = Timestamp::now() + SignedDuration::from_secs(seconds_ahead);
    bed.metadata(node)?.say(&Say::Interrupt { action, time }).await
}

/// How often our engine was asked for its state.
async fn flushes(pod: &Value) -> Result<usize> {
    let counters = counters(pod).await?;
    let calls = counters["calls"].as_array().context("calls are listed")?;
    Ok(calls.iter().filter(|call| text(call, "/path").ends_with("/flush")).count())
}

fn restarts(pod: &Value) -> u64 {
    pod.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_u64).unwrap_or(0)
}

fn of_node(mut entries: Vec<Entry>, node: &str) -> Vec<Entry> {
    entries.retain(|entry| entry.by_agent_of(node));
    entries
}
