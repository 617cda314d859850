//! State volumes that are no plain folder without end: one with a `sizeLimit`, and one in memory.
//!
//! The node with local storage isolation is a real kubelet that measures its emptyDirs and evicts a pod over its limit.

use crate::cast::{
    Template, counters, describe, forget_seed, gone, name, node, ready, replacement, report, seed, text, uid,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::{NodeOptions, Testbed};
use tokio::time::Instant;

/// The limit of the state volume, as in `sizeLimit: 8Mi`.
const LIMIT: u64 = 8 << 20;
/// The kubelet measures volumes once a minute and looks every ten seconds: it has seen the volume then.
const MEASURED: Duration = Duration::from_secs(85);

/// What the report says of a pod.
fn entry<'a>(report: &'a Value, pod: &Value) -> Result<&'a Value> {
    let pods = report["pods"].as_array().context("the report names no pods")?;
    let found = pods.iter().find(|entry| entry["uid"] == uid(pod));
    found.with_context(|| format!("{} is not in the report", name(pod)))
}

#[tokio::test]
async fn a_flush_over_the_size_limit_is_refused_and_the_kubelet_has_no_reason_to_evict() -> Result<()> {
    let isolated = NodeOptions { isolation: true, ..NodeOptions::new("node-a") };
    let bed = Testbed::with(vec![isolated, NodeOptions::new("node-b")]).await?;
    bed.install_agent().await?;
    // It serves with more state than its volume may hold, and is copied ahead every few seconds.
    let template = Template::engine("full", 1, 3 * LIMIT).prefers("node-a");
    let limited = template
        .annotated("lifeboat.dev/interval", "5s")
        .edit(|spec| spec["volumes"] = json!([{"name": "state", "emptyDir": {"sizeLimit": "8Mi"}}]));
    bed.apply(&[limited.deployment(1)])?;
    let pod = ready(&bed, "full", 1, Some("node-a")).await?.remove(0);

    let serves_until = Instant::now() + MEASURED;
    let mut most = 0;
    while Instant::now() < serves_until {
        let now = bed.pods("full").await?.into_iter().find(|now| uid(now) == uid(&pod));
        let now = now.with_context(|| format!("{} is gone", name(&pod)))?;
        ensure!(text(&now, "/status/phase") == "Running", "{} {}", describe(&now), now["status"]["message"]);
        most = most.max(used(&bed.volume("node-a", uid(&pod), "state")));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    ensure!(most <= LIMIT, "{most} bytes were in a volume that may hold {LIMIT}");

    bed.metadata("node-a")?.interrupt(Duration::from_secs(30)).await?;
    let report = report(&bed, "node-a", Duration::from_secs(45)).await?;
    let told = entry(&report, &pod)?;
    ensure!(told["state"] == "lost", "{told}");
    ensure!(text(told, "/state_reason").contains("sizeLimit"), "the reason does not name the limit: {told}");
    Ok(())
}

/// Bytes of the files below a folder.
fn used(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => used(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test]
async fn a_state_volume_in_memory_moves_and_its_pod_goes_away_afterwards() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let in_memory = Template::engine("memory", 0, 0)
        .seeded()
        .prefers("node-a")
        .edit(|spec| spec["volumes"] = json!([{"name": "state", "emptyDir": {"medium": "Memory"}}]));
    bed.apply(&[seed("memory", 7, 4 << 20), in_memory.deployment(1)])?;
    let old = ready(&bed, "memory", 1, Some("node-a")).await?.remove(0);
    let mounted = bed.kubectl(&["exec", name(&old), "--", "stat", "-f", "-c", "%T", "/state"])?;
    ensure!(mounted.trim() == "tmpfs", "the state volume is on {mounted}");
    forget_seed(&bed, "memory")?;
    let digest = counters(&old).await?["digest"].clone();

    bed.metadata("node-a")?.interrupt(Duration::from_secs(40)).await?;
    let new = replacement(&bed, "memory", &old).await?;
    ensure!(node(&new) == "node-b", "{}", describe(&new));
    ensure!(counters(&new).await?["digest"] == digest, "another state came back");
    // Ours keeps a volume open for as long as it knows the pod: a mount that is open is not unmounted.
    gone(&bed, &old, Duration::from_secs(60)).await
}
