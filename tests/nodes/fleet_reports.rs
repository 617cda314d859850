//! What outlives a node: the report of an evacuation is in the fleet role's metrics after its node is gone, and a node that
//! vanishes without notice is counted as that.
//!
//! The power cut is real for everything around it, and so is the node controller that finds the node silent. There is no
//! cloud here whose controller would delete the Node objects: the scenario does it in its place.

use crate::asked::wait_for;
use crate::cast::{Template, forget_seed, gone, name, node, ready, seed, text};
use anyhow::{Context, Result, ensure};
use evacuation::notice::InstanceAction;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::metadata::Say;
use testbed::request::Request;
use testbed::{NodeOptions, Testbed};

const MINUTE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// The sum of a series over the replicas, as Prometheus would have it.
async fn sum(fleet: &[Value], series: &str) -> Result<f64> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let mut sum = 0.0;
    for pod in fleet {
        let url = format!("http://{}:9188/metrics", text(pod, "/status/podIP"));
        let metrics = client.get(url).send().await?.text().await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        sum += line.with_context(|| format!("{series} is not in\n{metrics}"))?.parse::<f64>()?;
    }
    Ok(sum)
}

async fn until(bed: &Testbed, fleet: &[Value], series: &str, limit: Duration) -> Result<()> {
    bed.until(series, limit, async |_| {
        let sum = sum(fleet, series).await?;
        ensure!(sum <= 1.0, "{series} is counted more than once: {sum}");
        Ok((sum == 1.0).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_report_is_counted_after_its_node_is_gone_and_a_node_that_vanishes_without_notice_too() -> Result<()>
{
    let keeps = NodeOptions { on_demand: true, ..NodeOptions::new("node-a") };
    let bed = Testbed::with(vec![keeps, NodeOptions::new("node-b"), NodeOptions::new("node-c")]).await?;
    // The fleet role is not on what goes; the agents do not mind.
    for node in ["node-b", "node-c"] {
        bed.kubectl(&["cordon", node])?;
    }
    bed.install_agent().await?;
    let fleet = bed.start_fleet(MINUTE).await?;
    ensure!(
        fleet.iter().all(|pod| node(pod) == "node-a"),
        "{:?}",
        fleet.iter().map(name).collect::<Vec<_>>()
    );
    for node in ["node-b", "node-c"] {
        bed.kubectl(&["uncordon", node])?;
    }
    bed.apply(&[
        seed("chat", 7, 8 * MIB),
        Template::engine("chat", 0, 0).seeded().prefers("node-b").deployment(1),
    ])?;
    let pod = ready(&bed, "chat", 1, Some("node-b")).await?.remove(0);
    forget_seed(&bed, "chat")?;

    let time = Timestamp::now() + SignedDuration::from_secs(40);
    bed.metadata("node-b")?.say(&Say::Interrupt { action: InstanceAction::Terminate, time }).await?;
    gone(&bed, &pod, MINUTE).await?;
    // To its end, so that the report is.
    wait_for(time, 0).await;
    for node in ["node-b", "node-c"] {
        bed.ask(&Request::KillNode { node: node.into() })?;
    }
    bed.kubectl(&["delete", "node", "node-b"])?;
    let complete = "lifeboat_fleet_evacuations_total{kind=\"terminate\",outcome=\"complete\"}";
    until(&bed, &fleet, complete, MINUTE).await?;
    until(&bed, &fleet, "lifeboat_fleet_spot_nodes_gone_total{how=\"with_report\"}", MINUTE).await?;
    ensure!(
        sum(&fleet, "lifeboat_fleet_states_total{outcome=\"saved\"}").await? == 1.0,
        "the state was saved"
    );
    let bytes = sum(&fleet, "lifeboat_fleet_state_bytes_total{outcome=\"saved\"}").await?;
    ensure!(bytes >= 8.0 * 1024.0 * 1024.0, "{bytes} bytes");
    ensure!(sum(&fleet, "lifeboat_fleet_notice_to_cordon_seconds_count").await? == 1.0, "its cordon");

    // The node controller believes it after 50 s.
    bed.until("node-c to be found silent", 2 * MINUTE, async |bed| {
        let node = bed.get("/api/v1/nodes/node-c").await?.unwrap_or(json!(null));
        Ok((testbed::bed::condition(&node, "Ready") == Some("Unknown")).then_some(()))
    })
    .await?;
    until(&bed, &fleet, "lifeboat_fleet_spot_nodes_missing", MINUTE).await?;
    bed.kubectl(&["delete", "node", "node-c"])?;
    until(&bed, &fleet, "lifeboat_fleet_spot_nodes_gone_total{how=\"without_notice\"}", MINUTE).await?;
    Ok(())
}
