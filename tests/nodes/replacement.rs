//! A replacement that does not live to the end of its restore: the state is there for the next one, whole.
//!
//! The S3 server sends slowly, so that a restore has a middle. The engine is ours (tests/testbed/src/engine.rs): random
//! bytes, compared by their digest. What it does not prove: an engine that dies while it takes a state in; the state
//! that a real one then has is the next pod's fetch all the same.

use crate::cast::{
    Template, claimants, claimed_by, counters, describe, forget_seed, gate, generations, name, node, ready,
    replacement_within, seed, uid,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use testbed::Testbed;
use testbed::request::Request;

const STATE: u64 = 24 << 20;
/// What the S3 server may send, bits per second: the state takes 25 seconds, so that there is a middle on a busy machine.
const RATE: u64 = 8_000_000;
/// A dead holder's claim runs out after half a minute.
const LONG: Duration = Duration::from_secs(90);

/// A pod on node-a with a state, in a bed where restores are slow; its digest.
async fn up(nodes: &[&str]) -> Result<(Testbed, Value, Value)> {
    let bed = Testbed::up(nodes).await?;
    bed.install_agent().await?;
    let template = Template::engine("model", 0, 0).seeded().prefers("node-a");
    bed.apply(&[seed("model", 7, STATE), template.deployment(1)])?;
    let old = ready(&bed, "model", 1, Some("node-a")).await?.remove(0);
    forget_seed(&bed, "model")?;
    let digest = counters(&old).await?["digest"].clone();
    bed.ask(&Request::Uplink { host: "s3".into(), rate: Some(RATE) })?;
    Ok((bed, old, digest))
}

/// Bytes of files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Waits for a pod, none of `known`, that holds the claim on the state of `old` and has begun to fetch what was committed.
async fn restoring(bed: &Testbed, old: &Value, known: &[&Value]) -> Result<Value> {
    let found = bed
        .until("a replacement in the middle of its restore", LONG, async |bed| {
            let pods = bed.pods("model").await?;
            let is_new = |pod: &&Value| known.iter().all(|known| uid(known) != uid(pod));
            let Some(pod) = pods.iter().find(is_new) else { bail!("there is none: {}", pods.len()) };
            let staging = bed.volume(node(pod), uid(pod), "state").join(".lifeboat/restore");
            let begun = !generations(bed, uid(old))?.is_empty() && bytes_below(&staging) > 0;
            let holder = claimed_by(bed, uid(old))?;
            if begun && holder == uid(pod) {
                return Ok(Some(pod.clone()));
            }
            bail!("{holder} holds the claim; {}", describe(pod))
        })
        .await?;
    ensure!(
        testbed::bed::condition(&found, "Ready") != Some("True"),
        "it was too late: {}",
        describe(&found)
    );
    eprintln!("{} restores on {}", name(&found), node(&found));
    Ok(found)
}

/// It has the whole state, and it alone.
async fn has_it_whole(bed: &Testbed, old: &Value, new: &Value, digest: &Value) -> Result<()> {
    let holds = counters(new).await?["digest"].clone();
    let why = gate(new)?;
    ensure!(holds == *digest && why["reason"] == "Restored", "it holds {holds}, not {digest}: {why}");
    let claims = claimants(bed)?;
    ensure!(claims == [(uid(old).to_owned(), uid(new).to_owned())], "claims: {claims:?}");
    Ok(())
}

/// The pod is gone at once, in the middle of its restore.
fn force(bed: &Testbed, pod: &Value) -> Result<()> {
    bed.kubectl(&["delete", "pod", name(pod), "--force", "--grace-period=0"])?;
    let claim = bed.objects()?.into_iter().find(|object| object.key.ends_with("/claim"));
    let claim: Value = serde_json::from_slice(&std::fs::read(claim.context("there is no claim")?.path)?)?;
    ensure!(claim["state"] == "restoring", "{} died too late: {claim}", name(pod));
    Ok(())
}

#[tokio::test]
async fn when_two_replacements_die_in_the_middle_of_their_restore_the_third_gets_it_whole() -> Result<()> {
    let (bed, old, digest) = up(&["node-a", "node-b", "node-c"]).await?;
    bed.metadata("node-a")?.interrupt(Duration::from_secs(60)).await?;
    let first = restoring(&bed, &old, &[&old]).await?;
    force(&bed, &first)?;

    let second = restoring(&bed, &old, &[&old, &first]).await?;
    // Its node with its agent: nobody is left to say anything.
    bed.ask(&Request::KillNode { node: node(&second).into() })?;
    bed.kubectl(&["cordon", node(&second)])?;
    force(&bed, &second)?;

    let third = restoring(&bed, &old, &[&old, &first, &second]).await?;
    bed.ask(&Request::Uplink { host: "s3".into(), rate: None })?;
    let new = replacement_within(&bed, "model", &old, LONG).await?;
    ensure!(uid(&new) == uid(&third), "{} came after {}", name(&new), name(&third));
    has_it_whole(&bed, &old, &new, &digest).await
}

#[tokio::test]
#[ignore = "a minute and a half: LIFEBOAT_LONG=1 tests/run nodes"]
async fn a_replacement_whose_node_reboots_in_the_middle_of_its_restore_gets_it_whole() -> Result<()> {
    let (bed, old, digest) = up(&["node-a", "node-b"]).await?;
    bed.metadata("node-a")?.interrupt(Duration::from_secs(60)).await?;
    let before = restoring(&bed, &old, &[&old]).await?;
    bed.ask(&Request::KillNode { node: "node-b".into() })?;
    bed.ask(&Request::BootNode { node: "node-b".into() })?;
    bed.ask(&Request::Uplink { host: "s3".into(), rate: None })?;
    bed.node_ready("node-b").await?;

    let new = replacement_within(&bed, "model", &old, LONG).await?;
    ensure!(uid(&new) == uid(&before), "{} took the place of {}", name(&new), name(&before));
    has_it_whole(&bed, &old, &new, &digest).await
}

#[tokio::test]
#[ignore = "a minute: LIFEBOAT_LONG=1 tests/run nodes"]
async fn a_store_that_goes_away_in_the_middle_of_a_restore_does_not_keep_the_gate_closed() -> Result<()> {
    const TIMEOUT: u64 = 25;
    let (bed, old, _) = up(&["node-a", "node-b"]).await?;
    bed.install_agent_with(json!({"LIFEBOAT_RESTORE_TIMEOUT": format!("{TIMEOUT}s")})).await?;
    bed.kubectl(&["-n", "lifeboat-system", "rollout", "status", "daemonset/lifeboat", "--timeout=90s"])?;
    bed.metadata("node-a")?.interrupt(Duration::from_secs(60)).await?;
    let restoring = restoring(&bed, &old, &[&old]).await?;
    bed.ask(&Request::Stop { process: "versitygw".into() })?;

    let new = replacement_within(&bed, "model", &old, Duration::from_secs(TIMEOUT + 10)).await?;
    ensure!(uid(&new) == uid(&restoring), "{} took the place of {}", name(&new), name(&restoring));
    let why = gate(&new)?;
    let message = why["message"].as_str().context("the gate says nothing")?;
    ensure!(why["reason"] == "TimedOut" && message.contains("the state was not fetched in time"), "{why}");
    let holds = counters(&new).await?;
    ensure!(holds["bytes"] == 0, "a part of a state is in its engine: {holds}");
    Ok(())
}
