//! The hold: a pod waits inside its own eviction until its state is saved, and never for ever.
//!
//! The engine is ours (tests/testbed/src/engine.rs): random bytes behind contract v1, so that a state can be as large
//! as a scenario needs. The kubelet, the preStop, the signals and the store are real. What it does not prove: how long
//! a real engine's flush takes.

use crate::cast::{
    Template, claimants, claimed_by, counters, eviction, forget_seed, gate, generations, gone, leaves, name,
    node, ready, replacement, seed, text, uid,
};
use anyhow::{Context, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;
use testbed::request::Request;
use testbed::timings::Timings;

const MIB: u64 = 1024 * 1024;

/// The grace of the pods here: so long would they stay if anything hung.
const GRACE: u64 = 90;

fn patient(template: Template) -> Template {
    template.edit(|spec| spec["terminationGracePeriodSeconds"] = GRACE.into())
}

/// When the kubelet took the pod's object away: its containers had ended.
fn ended(bed: &Testbed, pod: &Value) -> Result<Timestamp> {
    let by_kubelet = format!("system:node:{}", node(pod));
    let audit = bed.audit()?;
    let last =
        audit.iter().rfind(|one| one.is_pod_deletion() && one.user == by_kubelet && one.name == name(pod));
    Ok(last.with_context(|| format!("{by_kubelet} did not delete {}", name(pod)))?.at)
}

/// What the hold file says.
fn hold(bed: &Testbed, pod: &Value) -> Result<Timestamp> {
    let file = bed.volume(node(pod), uid(pod), "state").join(".lifeboat/hold");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Timestamp::from_second(text.trim().parse()?)?)
}

/// The agent on this node dies at once and is not started again.
async fn end_agent(bed: &Testbed, on: &str, stays_on: &str) -> Result<()> {
    let agents = bed.agents().await?;
    let agent = agents.iter().find(|pod| node(pod) == on).context("there is no agent")?;
    let id =
        text(agent, "/status/containerStatuses/0/containerID").trim_start_matches("containerd://").to_owned();
    // Its pod terminates from now on, and may save on for its 110 s: what is killed now is not started again.
    let only =
        json!({"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": stays_on}}}}});
    bed.kubectl(&["-n", "lifeboat-system", "patch", "daemonset", "lifeboat", "-p", &only.to_string()])?;
    let path = format!("/api/v1/namespaces/lifeboat-system/pods/{}", name(agent));
    bed.until("the agent to be sent away", Duration::from_secs(30), async |bed| {
        Ok(bed.get(&path).await?.is_none_or(|pod| leaves(&pod)).then_some(()))
    })
    .await?;
    // One that had nothing to save has ended by itself.
    let _ = bed.ask(&Request::KillContainer { node: on.into(), id, signal: 9 });
    bed.until("the agent to be gone", Duration::from_secs(30), async |bed| {
        Ok(bed.get(&path).await?.is_none().then_some(()))
    })
    .await
}

#[tokio::test]
async fn the_replacement_runs_before_the_save_ends_and_takes_the_commit_when_it_comes() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let template = Template::engine("chat", 0, 0).seeded().prefers("node-a");
    bed.apply(&[seed("chat", 7, 24 * MIB), template.deployment(1)])?;
    let old = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    forget_seed(&bed, "chat")?;
    let digest = counters(&old).await?["digest"].clone();
    // 2 MB/s: some twelve seconds.
    bed.ask(&Request::Uplink { host: "node-a".into(), rate: Some(16_000_000) })?;

    let notice = Timestamp::now();
    bed.metadata("node-a")?.interrupt(Duration::from_secs(90)).await?;
    let running = bed
        .until("a replacement to run", Duration::from_secs(40), async |bed| {
            let pods = bed.pods("chat").await?;
            let started = "/status/containerStatuses/0/state/running/startedAt";
            Ok(pods.into_iter().find(|pod| uid(pod) != uid(&old) && !text(pod, started).is_empty()))
        })
        .await?;
    // The same moment, seen from all sides.
    ensure!(generations(&bed, uid(&old))?.is_empty(), "the save was over when the replacement began to run");
    counters(&old).await.context("the old engine had ended when the replacement began to run")?;
    ensure!(
        gate(&running).is_err() || text(gate(&running)?, "/status") != "True",
        "its gate opened: {}",
        gate(&running)?
    );
    ensure!(
        eviction(&bed, name(&old))?.grace() > Some(30),
        "the eviction's grace is no longer than the pod's own"
    );

    let new = replacement(&bed, "chat", &old).await?;
    let serving = Timestamp::now();
    ensure!(uid(&new) == uid(&running), "another pod took its place");
    gone(&bed, &old, Duration::from_secs(60)).await?;
    let committed = generations(&bed, uid(&old))?.first().context("nothing was committed")?.at;
    let ended = ended(&bed, &old)?;
    ensure!(committed < ended, "the old pod ended at {ended}, before its commit at {committed}");
    ensure!(
        ended.duration_since(committed) < SignedDuration::from_secs(15),
        "committed at {committed}, and let go only at {ended}"
    );
    ensure!(claimed_by(&bed, uid(&old))? == uid(&new), "claims: {:?}", claimants(&bed)?);
    let holds = counters(&new).await?;
    ensure!(holds["digest"] == digest, "it holds {holds}, not {digest}; gate: {}", gate(&new)?);
    let scenario = "24 MiB over 16 Mbit/s, evict-first";
    Timings::of(&bed, scenario, "node-a", notice)?.serving_at(notice, serving).write()
}

#[tokio::test]
async fn without_an_agent_a_pod_with_the_hold_goes_at_once() -> Result<()> {
    let bed = Testbed::up(&["node-a"]).await?;
    bed.apply(&[patient(Template::engine("chat", 7, MIB)).pod()])?;
    let pod = bed
        .until("the engine to run", Duration::from_secs(60), async |bed| {
            let pods = bed.pods("chat").await?;
            let ready = |pod: &Value| testbed::bed::condition(pod, "ContainersReady") == Some("True");
            Ok(pods.into_iter().find(ready))
        })
        .await?;
    bed.kubectl(&["delete", "pod", "chat", "--wait=false"])?;
    gone(&bed, &pod, Duration::from_secs(GRACE / 3)).await
}

#[tokio::test]
async fn when_the_agent_died_before_somebody_deletes_the_pod_it_goes_without_waiting() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    // With a state from the start: its agent holds it.
    bed.apply(&[patient(Template::engine("chat", 7, MIB)).prefers("node-a").deployment(1)])?;
    let pod = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    bed.until("a hold that is kept ahead", Duration::from_secs(60), async |bed| {
        Ok((hold(bed, &pod)? > Timestamp::now()).then_some(()))
    })
    .await?;
    end_agent(&bed, "node-a", "node-b").await?;
    let last = hold(&bed, &pod)?;
    ensure!(last <= Timestamp::now() + SignedDuration::from_secs(7), "the dead agent holds it until {last}");

    bed.kubectl(&["delete", "pod", name(&pod), "--wait=false"])?;
    gone(&bed, &pod, Duration::from_secs(GRACE / 3)).await
}

#[tokio::test]
async fn when_the_agent_dies_in_a_departure_the_pod_goes_when_its_hold_has_passed() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let template = patient(Template::engine("chat", 0, 0)).seeded().prefers("node-a");
    bed.apply(&[seed("chat", 7, 48 * MIB), template.deployment(1)])?;
    let old = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    forget_seed(&bed, "chat")?;
    // 1 MB/s: the save is far from its end when the agent dies.
    bed.ask(&Request::Uplink { host: "node-a".into(), rate: Some(8_000_000) })?;

    let terminated = bed.metadata("node-a")?.interrupt(Duration::from_secs(45)).await?;
    bed.until("the eviction", Duration::from_secs(20), async |bed| Ok(eviction(bed, name(&old)).ok()))
        .await?;
    end_agent(&bed, "node-a", "node-b").await?;
    let until = hold(&bed, &old)?;
    ensure!(until <= terminated, "it is held until {until}, and its node ends at {terminated}");
    let left = until.duration_since(Timestamp::now()) - SignedDuration::from_secs(5);
    if left < SignedDuration::from_secs(1) {
        bail!("the agent died too late for this: its hold ends at {until}");
    }
    tokio::time::sleep(left.unsigned_abs()).await;
    counters(&old).await.context("it ended before its hold had passed")?;

    gone(&bed, &old, Duration::from_secs(40)).await?;
    let ended = ended(&bed, &old)?;
    // The grace of its eviction ends with the hold, but in whole seconds, rounded down.
    ensure!(ended >= until - SignedDuration::from_secs(2), "held until {until}, ended at {ended}");
    ensure!(generations(&bed, uid(&old))?.is_empty(), "the save was over before the agent died");
    // Nobody tells the replacement that nothing comes: what was announced is overdue.
    let new = replacement(&bed, "chat", &old).await?;
    let why = gate(&new)?;
    ensure!(text(why, "/reason") == "NothingToRestore", "the gate says {why}");
    Ok(())
}
