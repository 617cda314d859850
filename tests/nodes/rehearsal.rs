//! `lifeboat drill --node`, as a person with a kubeconfig runs it: the agent of a live node rehearses, where it may.

use crate::cast::{Template, generations, name, node, ready, replacement, text, uid};
use crate::marks::{everything_of_node, removals};
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::process::Command;
use testbed::{Testbed, parts};

const STATE: u64 = 8 << 20;

/// Its exit code, its JSON and what it said on standard error.
fn drill(bed: &Testbed, node: &str, more: &[&str]) -> Result<(i32, Value, String)> {
    let output = Command::new(parts::agent()?)
        .args(["drill", "--output", "json", "--node", node, "--kubeconfig"])
        .arg(bed.folder().kubeconfig("admin"))
        .args(more)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok((output.status.code().unwrap_or(-1), document, said))
}

/// A figure of the agent's own, through the API server.
fn metric(bed: &Testbed, node: &str, line: &str) -> Result<Option<f64>> {
    let agents = bed.kubectl(&[
        "-n",
        "lifeboat-system",
        "get",
        "pods",
        "-o",
        "json",
        "-l",
        "app.kubernetes.io/component=agent",
    ])?;
    let agents: Value = serde_json::from_str(&agents)?;
    let items = agents["items"].as_array().context("no agents")?;
    let agent = items.iter().find(|pod| pod["spec"]["nodeName"] == node).context("no agent there")?;
    let path = format!("/api/v1/namespaces/lifeboat-system/pods/{}:9188/proxy/metrics", name(agent));
    let text = bed.kubectl(&["get", "--raw", &path])?;
    Ok(text.lines().find_map(|told| told.strip_prefix(line)?.trim().parse().ok()))
}

#[tokio::test]
async fn a_node_s_agent_rehearses_only_what_its_operator_allows_and_leaves_the_node_as_it_was() -> Result<()>
{
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent_with(json!({"LIFEBOAT_DRILLS": "save"})).await?;
    bed.apply(&[Template::engine("chat", 7, STATE).born_on("node-a").prefers("node-a").deployment(1)])?;
    let old = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    let began = Timestamp::now();
    let before = everything_of_node(&bed, "node-a").await?;

    // The plan, and nothing else.
    let (code, plan, said) = drill(&bed, "node-a", &["--dry-run"])?;
    ensure!(code == 0 && plan["pods"].is_array(), "{code}: {said}");
    // Saved while it serves.
    let (code, saved, said) = drill(&bed, "node-a", &["--save-only"])?;
    ensure!(code == 0 && saved["complete"] == true, "{code}: {saved} {said}");
    ensure!(!generations(&bed, uid(&old))?.is_empty(), "nothing was committed: {saved}");
    // More it may not.
    let (code, _, said) = drill(&bed, "node-a", &["--left", "30s"])?;
    ensure!(code == 2 && said.contains("LIFEBOAT_DRILLS"), "{code}: {said}");
    let gone = removals(&bed, began)?;
    ensure!(gone.is_empty(), "a drill that may only save removed a pod");
    ensure!(everything_of_node(&bed, "node-a").await? == before, "a trace is left on the node");
    let still = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    ensure!(uid(&still) == uid(&old), "its pod is another one");
    Ok(())
}

#[tokio::test]
async fn a_whole_drill_evacuates_reports_as_a_drill_and_gives_the_node_back() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent_with(json!({"LIFEBOAT_DRILLS": "full"})).await?;
    bed.apply(&[Template::engine("chat", 7, STATE).born_on("node-a").prefers("node-a").deployment(1)])?;
    let old = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    let before = everything_of_node(&bed, "node-a").await?;

    let (code, told, said) = drill(&bed, "node-a", &["--left", "60s"])?;
    ensure!(code == 0 && told["complete"] == true, "{code}: {told:#} {said}");
    let new = replacement(&bed, "chat", &old).await?;
    ensure!(node(&new) == "node-b", "it runs on {}", node(&new));
    let gate = crate::cast::gate(&new)?;
    ensure!(text(gate, "/reason") == "Restored", "{gate}");
    ensure!(everything_of_node(&bed, "node-a").await? == before, "a trace is left on the node");
    let reports = bed.objects()?.into_iter().filter(|object| object.key.contains("/report/"));
    let reports = reports.map(|object| Ok(serde_json::from_slice(&std::fs::read(&object.path)?)?));
    let reports = reports.collect::<Result<Vec<Value>>>()?;
    ensure!(reports.len() == 1 && reports[0]["kind"] == "drill", "{reports:#?}");
    let drills = metric(&bed, "node-a", "lifeboat_drills_total{outcome=\"complete\"}")?;
    let interruptions = metric(&bed, "node-a", "lifeboat_evacuations_total{outcome=\"complete\"}")?;
    ensure!(drills == Some(1.0) && interruptions.unwrap_or(0.0) == 0.0, "{drills:?} {interruptions:?}");
    Ok(())
}
