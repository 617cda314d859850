//! The metadata service fails, or has another clock than the node, or is AWS's own mock of it.
//!
//! In the first two the service is the drill's IMDS on 169.254.169.254 in the node's namespace. All nodes share the
//! machine's clock, so it's AWS's clock that is shifted: what counts is the difference. In the third it is the real
//! amazon-ec2-metadata-mock: AWS's own idea of tokens, documents and times. None of them shows EC2's timing, its
//! packet limits or its hop limit.

use crate::cast::{Template, counters, describe, gone, name, node, ready, replacement, uid};
use crate::marks::{
    describe_removals, is_clean, is_marked_hard, millis, node_is, node_object, removals, standing, stored,
};
use anyhow::{Context, Result, ensure};
use evacuation::moment::Moment;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use testbed::metadata::Say;
use testbed::request::Request;
use testbed::timings::Timings;
use testbed::{NodeOptions, Testbed};

const MINUTE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

#[tokio::test]
async fn imds_that_is_down_before_or_during_a_notice_delays_it_and_undoes_nothing() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    fail(&bed, "node-a", "imds=down@0s+10m").await?;
    // Not until they are ready: the agent of node-a is not, as long as it knows no IMDS.
    bed.install_manifests(&json!({"LIFEBOAT_UNDO_AFTER": "3s"}))?;
    tokio::try_join!(
        async { down_before_the_agent(&bed, "node-a").await.context("down before the agent starts") },
        async { down_during_the_notice(&bed, "node-b").await.context("down during the notice") },
    )?;
    Ok(())
}

#[tokio::test]
async fn the_time_left_is_counted_by_the_clock_of_aws() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    tokio::try_join!(
        async { another_clock(&bed, "node-a", 60).await.context("AWS is a minute ahead") },
        async { another_clock(&bed, "node-b", -60).await.context("AWS is a minute behind") },
    )?;
    Ok(())
}

#[tokio::test]
async fn a_notice_of_amazon_ec2_metadata_mock_leads_to_the_whole_evacuation() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("aemm.json");
    write_config(&config, Timestamp::now() + SignedDuration::from_mins(30), 1800)?;
    let arguments = ["spot", "-c", &config.display().to_string()].map(str::to_owned).to_vec();
    let mocked = NodeOptions { mock: Some(arguments), ..NodeOptions::new("node-a") };
    let bed = Testbed::with(vec![mocked, NodeOptions::new("node-b")]).await?;
    bed.install_agent().await?;
    let model = Template::engine("model", 7, 16 * MIB).born_on("node-a").prefers("node-a");
    let web = Template::plain("web").prefers("node-a");
    bed.apply(&[model.deployment(1), web.deployment(1)])?;
    let old = ready(&bed, "model", 1, Some("node-a")).await?.remove(0);
    let web = ready(&bed, "web", 1, Some("node-a")).await?.remove(0);
    let digest = counters(&old).await?["digest"].clone();

    // Its delay counts from its start, so it starts again: its tokens are then void, as IMDS's may be at any time.
    let process = || "metadata-node-a".to_owned();
    let began = Timestamp::now();
    bed.ask(&Request::Stop { process: process() })?;
    let time = Timestamp::now() + SignedDuration::from_secs(60);
    write_config(&config, time, 1)?;
    bed.ask(&Request::Start { process: process() })?;

    let marked = node_is(&bed, "node-a", "cordoned", MINUTE, is_marked_hard).await?;
    ends_before(&marked, time)?;
    let new = replacement(&bed, "model", &old).await?;
    let restored = counters(&new).await?["digest"].clone();
    ensure!(node(&new) == "node-b" && restored == digest, "{restored} on {}: {}", node(&new), describe(&new));
    let serving = Timestamp::now();
    ensure!(node(&replacement(&bed, "web", &web).await?) == "node-b", "web is on a node that leaves");
    gone(&bed, &old, MINUTE).await?;
    let late = Timestamp::now().duration_since(time - SignedDuration::from_secs(5));
    ensure!(late.is_negative(), "it took {late} longer than until the deadline");
    let audit = bed.audit()?;
    let writes: Vec<_> =
        audit.iter().filter(|entry| entry.by_agent() && entry.writes_node("node-a")).collect();
    ensure!(writes.len() == 1, "cordon, taint and deadline are one PATCH: {writes:#?}");
    let removals = removals(&bed, began)?;
    ensure!(
        removals.len() == 2 && removals.iter().all(|entry| entry.is_eviction() && entry.at >= writes[0].at),
        "cordoned at {}, and then: {}",
        writes[0].at,
        describe_removals(&removals)
    );
    // From the mock's start: it shows the notice a second later.
    let scenario = "amazon-ec2-metadata-mock (up to 1 s), 16 MiB";
    Timings::of(&bed, scenario, "node-a", began)?.serving_at(began, serving).write()
}

/// The agent starts on a node whose metadata service refuses connections; a notice stands when it comes back.
async fn down_before_the_agent(bed: &Testbed, on: &str) -> Result<()> {
    bed.apply(&[Template::engine("before", 7, 8 * MIB).on(on).deployment(1)])?;
    let pod = ready(bed, "before", 1, Some(on)).await?.remove(0);
    let time = bed.metadata(on)?.interrupt(MINUTE).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(is_clean(&node_object(bed, on).await?), "a notice was seen that nobody told");
    fail(bed, on, "").await?;
    leaves_in_time(bed, on, "before", &pod, time).await
}

/// The metadata service goes down with the notice, comes back, and answers 503 when the notice is known.
async fn down_during_the_notice(bed: &Testbed, on: &str) -> Result<()> {
    // It flushes for six seconds.
    bed.apply(&[Template::engine("during", 7, 12 * MIB).rate(2 * MIB).on(on).deployment(1)])?;
    let pod = ready(bed, "during", 1, Some(on)).await?.remove(0);
    let metadata = bed.metadata(on)?;
    bed.until("the agent's polls", MINUTE, async |_| {
        let polls = metadata.polls().await?;
        let asked =
            |poll: &Value| poll["path"] == "/latest/meta-data/spot/instance-action" && poll["code"] == 404;
        Ok(polls.iter().any(asked).then_some(()))
    })
    .await?;
    fail(bed, on, "imds=down@0s+5s").await?;
    let time = metadata.interrupt(MINUTE).await?;
    node_is(bed, on, "cordoned", MINUTE, is_marked_hard).await?;
    ensure!(stored(bed, "during", "/gen/")?.is_empty(), "it was saved before anything could go wrong");
    fail(bed, on, "imds=503@0s+30s").await?;
    leaves_in_time(bed, on, "during", &pod, time).await
}

/// A notice that leaves a minute, by a service whose clock is so many seconds ahead of the node's.
async fn another_clock(bed: &Testbed, on: &str, seconds: i64) -> Result<()> {
    let app = format!("clock-{on}");
    bed.apply(&[Template::engine(&app, 7, 8 * MIB).on(on).deployment(1)])?;
    let pod = ready(bed, &app, 1, Some(on)).await?.remove(0);
    let began = Timestamp::now();
    let metadata = bed.metadata(on)?;
    metadata.say(&Say::Ahead { seconds }).await?;
    let time = metadata.interrupt(MINUTE).await?;
    leaves_in_time(bed, on, &app, &pod, time).await?;
    let evictions = removals(bed, began)?;
    let eviction = evictions.iter().find(|entry| entry.is_eviction() && entry.name == name(&pod));
    let eviction = eviction.with_context(|| format!("not evicted: {}", describe_removals(&evictions)))?;
    // A held pod gets all that is left.
    let grace = i64::try_from(eviction.grace().context("an eviction has a grace")?)?;
    let left = time.duration_since(eviction.at).as_secs() - 5;
    ensure!((left - 2..=left + 1).contains(&grace), "{grace} s of grace where {left} s were left");
    Ok(())
}

/// The node is marked with the notice's own deadline, the pod's state is committed, the pod is gone by then, and the
/// mark stays.
async fn leaves_in_time(bed: &Testbed, on: &str, app: &str, pod: &Value, time: Timestamp) -> Result<()> {
    let marked = node_is(bed, on, "cordoned", MINUTE, is_marked_hard).await?;
    ends_before(&marked, time)?;
    gone(bed, pod, MINUTE).await?;
    let late = Timestamp::now().duration_since(time - SignedDuration::from_secs(5));
    ensure!(late.is_negative(), "{} was there {late} after the deadline", describe(pod));
    ensure!(!stored(bed, app, "/gen/")?.is_empty(), "the state of {} was not committed", uid(pod));
    ensure!(is_marked_hard(&node_object(bed, on).await?), "the mark was taken back under a notice");
    Ok(())
}

/// The deadline on the node is the notice's time less the margin of 5 s, and whole seconds are lost on the way.
fn ends_before(marked: &Value, time: Timestamp) -> Result<()> {
    let stands = standing(marked).context("a standing is on the node")?;
    let deadline = host::clock::unix_millis(Moment::from_millis(millis(&stands, "deadline")?));
    let early = time.as_millisecond() - deadline;
    ensure!(
        (3_500..=6_500).contains(&early),
        "the deadline is {early} ms before the notice's time: {stands}"
    );
    Ok(())
}

async fn fail(bed: &Testbed, on: &str, plan: &str) -> Result<()> {
    bed.metadata(on)?.say(&Say::Fail { plan: plan.to_owned() }).await
}

/// An interruption at an absolute time: its default is a new one at every poll. Its default instance is on-demand,
/// and such a node is not asked for interruptions.
fn write_config(path: &Path, time: Timestamp, delay_seconds: u64) -> Result<()> {
    let config = json!({
        "imdsv2": true,
        "mock-delay-sec": delay_seconds,
        "mock-ip-count": -1,
        "rebalance-delay-sec": 1800,
        "spot": {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()},
        "metadata": {"values": {"instance-life-cycle": "spot"}},
    });
    Ok(std::fs::write(path, config.to_string())?)
}
