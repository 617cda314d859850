//! What would happen to a real node, before it happens: `lifeboat plan --node`, as a person with a kubeconfig runs it.
//!
//! Before there is an agent it knows the pods; with one, the agent's own figures come through the API server's proxy, as
//! `kubectl port-forward` would get them. Then the notice comes, and what was said happens.

use crate::cast::{Template, name, priority_classes, ready, report, text};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;
use testbed::Testbed;
use testbed::parts;

const STATE_BYTES: u64 = 40_000_000;

/// `lifeboat plan --node NODE`, as JSON.
fn plan(bed: &Testbed, node: &str, more: &[&str]) -> Result<Value> {
    let output = Command::new(parts::agent()?)
        .args(["plan", "--output", "json", "--node", node, "--kubeconfig"])
        .arg(bed.folder().kubeconfig("admin"))
        .args(more)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "lifeboat plan: {said}");
    serde_json::from_slice(&output.stdout).context("lifeboat plan wrote no JSON")
}

fn entry<'a>(plan: &'a Value, pod: &Value) -> Result<&'a Value> {
    let pods = plan["pods"].as_array().context("the plan names no pods")?;
    let found = pods.iter().find(|entry| entry["name"] == name(pod));
    found.with_context(|| format!("{} is not in the plan {plan}", name(pod)))
}

#[tokio::test]
async fn a_plan_of_a_live_node_says_what_its_agent_would_do_and_that_is_what_it_does() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.apply(&priority_classes())?;
    let gold = Template::engine("gold", 1, STATE_BYTES).priority("gold").prefers("node-a");
    bed.apply(&[gold.deployment(1)])?;
    // Its gate is closed until there is an agent.
    let before = bed
        .until("gold on node-a", Duration::from_secs(60), async |bed| {
            let before = plan(bed, "node-a", &[])?;
            let found = before["pods"]
                .as_array()
                .and_then(|pods| pods.iter().find(|pod| text(pod, "/name").starts_with("gold")).cloned());
            Ok(found)
        })
        .await?;
    ensure!(before["bytes"].is_null() && before["priority"] == 1000, "without an agent: {before}");

    bed.install_agent().await?;
    let gold = ready(&bed, "gold", 1, Some("node-a")).await?.remove(0);
    let known = bed
        .until("the agent's look at gold", Duration::from_secs(60), async |bed| {
            let known = plan(bed, "node-a", &["--link-rate", "10MB"])?;
            let bytes = entry(&known, &gold)?["bytes"].as_u64().unwrap_or(0);
            Ok((bytes >= STATE_BYTES).then_some(known))
        })
        .await?;
    let pod = entry(&known, &gold)?;
    ensure!(pod["state"] == "safe", "40 MB at 10 MB/s: {pod}");
    let headroom = known["headroom"].as_i64().context("no headroom")?;
    ensure!((60_000..115_000).contains(&headroom), "headroom {headroom} ms: {known}");
    let slow = plan(&bed, "node-a", &["--link-rate", "100kB"])?;
    ensure!(entry(&slow, &gold)?["state"] == "at_risk" && slow["headroom"].as_i64() < Some(0), "{slow}");
    ensure!(slow["advice"]["what"].is_string(), "no advice: {slow}");

    bed.metadata("node-a")?.interrupt(Duration::from_secs(120)).await?;
    let report = report(&bed, "node-a", Duration::from_secs(60)).await?;
    let pods = report["pods"].as_array().context("the report names no pods")?;
    let told = pods.iter().find(|entry| entry["name"] == name(&gold)).context("gold is not in the report")?;
    ensure!(told["state"] == "saved", "it was to be safe: {told}");
    Ok(())
}
