//! llama-server's state moves: a conversation goes on from the cache of another node.

use crate::cast::{Template, gate, name, node, ready, replacement, talk};
use anyhow::{Result, ensure};
use lifeboat::drill::talk::Controls;
use std::time::Duration;
use testbed::Testbed;

#[tokio::test]
async fn a_deployment_s_conversation_goes_on_from_its_cache_on_the_other_node() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    bed.apply(&[Template::llama("chat").prefers("node-a").deployment(1)])?;
    let old = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    let controls = Controls::default();
    talk(&old, "chat", &controls)?.begin_all().await?;

    bed.metadata("node-a")?.interrupt(Duration::from_secs(120)).await?;
    let new = replacement(&bed, "chat", &old).await?;
    ensure!(node(&new) == "node-b", "{} runs on {}", name(&new), node(&new));
    let said = talk(&new, "chat", &controls)?.continue_all().await?;
    ensure!(
        said.same && said.cached * 100 >= said.saved * 99,
        "{} of {} tokens came from the cache, the same continuation: {}; gate: {}",
        said.cached,
        said.saved,
        said.same,
        gate(&new)?
    );
    Ok(())
}
