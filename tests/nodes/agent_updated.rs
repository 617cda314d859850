//! The agents of both nodes are updated in the middle of an evacuation: SIGTERM does not stop a save, and the agent that is
//! restoring goes away as well and comes back. The pod waits inside its own eviction meanwhile.
//!
//! The engine is ours (tests/testbed/src/engine.rs) and takes twelve seconds to write its state, so that the update comes
//! between the eviction and the commit.

use crate::cast::{Template, counters, describe, gate, gone, leaves, name, node, ready, replacement, uid};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;

const MIB: u64 = 1 << 20;

async fn agents(bed: &Testbed) -> Result<Vec<Value>> {
    bed.agents().await
}

fn is_committed(bed: &Testbed, pod: &Value) -> Result<bool> {
    let lineage = format!("/lineage/{}/gen/", uid(pod));
    Ok(bed.objects()?.iter().any(|object| object.key.contains(&lineage)))
}

async fn flushes(pod: &Value) -> Result<usize> {
    let counters = counters(pod).await?;
    let calls = counters["calls"].as_array().cloned().unwrap_or_default();
    Ok(calls.iter().filter(|call| call["path"] == "/lifeboat/v1/flush").count())
}

#[tokio::test]
async fn an_update_of_the_agents_does_not_stop_a_save() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let template = Template::engine("chat", 1, 24 * MIB).rate(2 * MIB).born_on("node-a").prefers("node-a");
    bed.apply(&[template.deployment(1)])?;
    let old = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    let state = counters(&old).await?["digest"].clone();
    let saving = agents(&bed).await?.into_iter().find(|agent| node(agent) == "node-a").context("no agent")?;

    bed.metadata("node-a")?.interrupt(Duration::from_secs(100)).await?;
    bed.until("the eviction", Duration::from_secs(30), async |bed| {
        let audit = bed.audit()?;
        Ok(audit.iter().any(|entry| entry.is_eviction() && entry.succeeded()).then_some(()))
    })
    .await?;
    // Both at once, as nobody should: with one after the other it is chance which one is in the middle.
    let update = json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}, "template": {"spec":
        {"containers": [{"name": "agent", "env": [{"name": "UPDATED", "value": "1"}]}]}}}});
    bed.kubectl(&["-n", "lifeboat-system", "patch", "daemonset", "lifeboat", "-p", &update.to_string()])?;
    bed.until("the agent to be told to go", Duration::from_secs(30), async |bed| {
        let agents = agents(bed).await?;
        Ok(agents.iter().any(|agent| uid(agent) == uid(&saving) && leaves(agent)).then_some(()))
    })
    .await?;
    ensure!(!is_committed(&bed, &old)?, "the update came too late to show anything");

    let mut flushed = 0;
    // Well before the deadline: it does not wait for itself.
    bed.until("the old agent to be gone", Duration::from_secs(60), async |bed| {
        flushed = flushes(&old).await.unwrap_or(flushed);
        let agents = agents(bed).await?;
        match agents.iter().any(|agent| uid(agent) == uid(&saving)) {
            true => bail!("it is still there"),
            false => Ok(Some(())),
        }
    })
    .await?;
    ensure!(is_committed(&bed, &old)?, "the agent went before it had saved");
    ensure!(flushed == 1, "flushed {flushed} times");

    let new = replacement(&bed, "chat", &old).await?;
    let gate = gate(&new)?;
    ensure!(gate["reason"] == "Restored", "{gate}");
    ensure!(counters(&new).await?["digest"] == state && node(&new) == "node-b", "{}", describe(&new));
    gone(&bed, &old, Duration::from_secs(30)).await?;
    bed.agents_ready().await?;
    let audit = bed.audit()?;
    let evictions = audit.iter().filter(|entry| entry.is_eviction() && entry.name == name(&old));
    ensure!(evictions.count() == 1, "evicted more than once");
    let node = bed.get("/api/v1/nodes/node-a").await?.unwrap_or_default();
    ensure!(node["spec"]["unschedulable"] == true, "the new agent took the cordon back");
    Ok(())
}
