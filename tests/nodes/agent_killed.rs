//! The agent is killed at each step of an evacuation, by SIGKILL to its container: the kubelet starts it again, it goes on
//! with the original deadline, no pack that the store has is sent twice, and the state arrives.
//!
//! Each step has a node and a pod of its own; all pods move to one node that nobody interrupts. So that the kill hits the
//! step it is meant for, the step is made long: the engine hangs or writes slowly, the link is short, a budget refuses,
//! or the S3 server is paused. After some kills the metadata service is silent: then only what the agent wrote to its
//! node can tell it that there is a notice, and until when.
//!
//! The engine is ours (tests/testbed/src/engine.rs): random bytes, compared by their digest.

mod scene;

use crate::cast::{Template, budget, gone, name, tell, uid};
use anyhow::{Result, ensure};
use scene::{Killed, Scene};
use serde_json::json;
use std::time::Duration;
use testbed::Testbed;
use testbed::audit::Entry;
use testbed::request::Request;

const MIB: u64 = 1 << 20;
/// Of every pod: six packs of the testbed's 4 MiB.
const STATE: u64 = 24 * MIB;
/// Where everything goes.
const SHELTER: &str = "shelter";
const SOON: Duration = Duration::from_secs(60);

/// A pod for this node that leaves it for the shelter.
fn pod(app: &str, node: &str) -> Template {
    Template::engine(app, 7, STATE).born_on(node).prefers(node).edit(|spec| {
        spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!({"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node, SHELTER]}]}]});
    })
}

/// Takes the five seconds of its grace to end.
fn lingering(pod: Template) -> Template {
    pod.edit(|spec| {
        spec["terminationGracePeriodSeconds"] = 5.into();
        if let Some(env) = spec["containers"][0]["env"].as_array_mut() {
            env.push(json!({"name": "IGNORE_SIGTERM", "value": "1"}));
        }
    })
}

async fn up(nodes: &[&str], pods: &[Template]) -> Result<Testbed> {
    let bed = Testbed::up(&[nodes, &[SHELTER]].concat()).await?;
    // Two packs at a time: there is a middle of an upload.
    bed.install_agent_with(json!({"LIFEBOAT_TRANSFER_MEMORY": "8MiB"})).await?;
    bed.apply(&pods.iter().map(|pod| pod.deployment(1)).collect::<Vec<_>>())?;
    Ok(bed)
}

/// After the node is marked, and before anything is announced: the store does not answer. From then on nobody but the
/// node tells of the notice.
async fn after_the_mark(scene: Scene<'_>) -> Result<()> {
    scene.pause_s3()?;
    scene.interrupt(90).await?;
    scene.marked().await?;
    scene.kill()?;
    scene.silence_metadata().await?;
    let killed = Killed { standing: scene.standing().await?, packs: Vec::new() };
    ensure!(scene.stored("/intent")?.is_empty() && scene.flushes().await? == 0, "it was too late");
    scene.resume_s3()?;
    scene.arrives(&killed).await
}

/// After the intent: the engine hangs, so that nothing can follow.
async fn after_the_intent(scene: Scene<'_>) -> Result<()> {
    tell(&scene.pod, "behaviour/hang").await?;
    scene.interrupt(90).await?;
    scene.until("the intent", || Ok(!scene.stored("/intent")?.is_empty())).await?;
    let killed = scene.strike().await?;
    ensure!(scene.flushes().await? == 0 && scene.evictions(201)? == 0, "it was too late");
    tell(&scene.pod, "behaviour/normal").await?;
    scene.arrives(&killed).await
}

/// While the engine writes, which takes six seconds.
async fn during_the_flush(scene: Scene<'_>) -> Result<()> {
    scene.interrupt(90).await?;
    scene.bed.until("the flush", SOON, async |_| Ok((scene.flushes().await? > 0).then_some(()))).await?;
    let killed = scene.strike().await?;
    ensure!(killed.packs.is_empty(), "it was too late: {:?}", killed.packs);
    scene.arrives(&killed).await
}

/// After the first packs: at 20 Mbit/s six take ten seconds.
async fn in_the_middle_of_the_upload(scene: Scene<'_>) -> Result<()> {
    scene.bed.ask(&Request::Uplink { host: scene.node.into(), rate: Some(20_000_000) })?;
    scene.interrupt(90).await?;
    scene.until("two packs", || Ok(scene.stored("/pack/")?.len() >= 2)).await?;
    let killed = scene.strike().await?;
    ensure!(
        killed.packs.len() < 6 && scene.stored("/gen/")?.is_empty(),
        "it was too late: {:?}",
        killed.packs
    );
    scene.arrives(&killed).await
}

/// After the commit, while a budget refuses the eviction: nothing is flushed again, and when nobody but the node tells of
/// the notice the pod is let go by its deadline.
async fn after_the_commit(scene: Scene<'_>) -> Result<()> {
    scene.bed.apply(&[budget("never", scene.app, 0)])?;
    scene.interrupt(45).await?;
    scene.until("a refusal", || Ok(scene.evictions(429)? > 0)).await?;
    let killed = scene.strike().await?;
    let refused = scene.evictions(429)?;
    scene.silence_metadata().await?;
    scene.restarted().await?;
    scene.until("a refusal of the new agent", || Ok(scene.evictions(429)? > refused)).await?;
    ensure!(scene.flushes().await? == 1 && scene.evictions(201)? == 0, "it began anew");
    scene.arrives(&killed).await?;
    let deleted =
        |entry: &Entry| entry.is_pod_deletion() && entry.name == name(&scene.pod) && entry.succeeded();
    ensure!(scene.asked(deleted)?.len() == 1, "it was not let go");
    ensure!(scene.stored("/gen/")?.iter().filter(|key| key.contains(uid(&scene.pod))).count() == 1);
    Ok(())
}

/// After the eviction of a pod that waits inside it: the engine hangs, so that nothing is flushed yet.
async fn after_the_eviction(scene: Scene<'_>) -> Result<()> {
    tell(&scene.pod, "behaviour/hang").await?;
    scene.interrupt(90).await?;
    scene.until("the eviction", || Ok(scene.evictions(201)? > 0)).await?;
    let killed = scene.strike().await?;
    ensure!(scene.flushes().await? == 0, "it was too late");
    tell(&scene.pod, "behaviour/normal").await?;
    scene.arrives(&killed).await?;
    ensure!(scene.evictions(201)? == 1, "it was evicted twice");
    Ok(())
}

/// Before the report, which the store does not take: the pod is gone already.
async fn before_the_report(scene: Scene<'_>) -> Result<()> {
    scene.interrupt(90).await?;
    scene.until("the eviction", || Ok(scene.evictions(201)? > 0)).await?;
    scene.pause_s3()?;
    gone(scene.bed, &scene.pod, SOON).await?;
    let journal = scene.bed.folder().node(scene.node).join("lifeboat/journal.jsonl");
    let written = || Ok(std::fs::read_to_string(&journal)?.contains("\"write_report\""));
    scene.until("the report in the journal", written).await?;
    let killed = scene.strike().await?;
    ensure!(
        scene.bed.objects()?.iter().all(|object| !object.key.contains("testbed/report/node-a/")),
        "it was too late"
    );
    scene.resume_s3()?;
    scene.arrives(&killed).await?;
    let report = scene.report(&killed.standing).await?;
    let pods = report["pods"].as_array().cloned().unwrap_or_default();
    let told = pods.iter().find(|told| told["uid"] == uid(&scene.pod));
    ensure!(told.is_some_and(|told| told["state"] == "saved"), "its state is not in the report: {report:#}");
    Ok(())
}

#[tokio::test]
async fn an_agent_that_is_killed_on_the_way_to_the_store_goes_on_by_its_original_deadline() -> Result<()> {
    let bed = up(
        &["node-a", "node-b", "node-c", "node-d"],
        &[
            pod("mark", "node-a"),
            pod("intent", "node-b").not_held(),
            pod("flush", "node-c").not_held().rate(4 * MIB),
            pod("upload", "node-d"),
        ],
    )
    .await?;
    after_the_mark(Scene::begin(&bed, "node-a", "mark").await?).await?;
    after_the_intent(Scene::begin(&bed, "node-b", "intent").await?).await?;
    during_the_flush(Scene::begin(&bed, "node-c", "flush").await?).await?;
    in_the_middle_of_the_upload(Scene::begin(&bed, "node-d", "upload").await?).await
}

#[tokio::test]
async fn an_agent_that_is_killed_after_a_commit_or_an_eviction_repeats_nothing() -> Result<()> {
    let bed = up(
        &["node-a", "node-b", "node-c"],
        &[
            lingering(pod("last", "node-a").not_held()),
            pod("eviction", "node-b"),
            pod("commit", "node-c").not_held(),
        ],
    )
    .await?;
    after_the_eviction(Scene::begin(&bed, "node-b", "eviction").await?).await?;
    after_the_commit(Scene::begin(&bed, "node-c", "commit").await?).await?;
    before_the_report(Scene::begin(&bed, "node-a", "last").await?).await
}
