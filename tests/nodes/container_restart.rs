//! A container is restarted in its pod: the engine goes on from its own last flush, which is still in the pod's volume.
//!
//! The S3 server stands still meanwhile, so nothing can come from there.

use crate::cast::{Template, claimants, describe, generations, name, ready, talk, text, uid};
use anyhow::{Context, Result, ensure};
use drill::talk::Controls;
use serde_json::Value;
use std::time::Duration;
use testbed::Testbed;
use testbed::request::Request;

#[tokio::test]
async fn a_restarted_engine_goes_on_from_its_own_volume_while_the_store_is_away() -> Result<()> {
    let bed = Testbed::up(&["node-a"]).await?;
    bed.install_agent().await?;
    bed.apply(&[Template::llama("chat").annotated("lifeboat.dev/interval", "2s").deployment(1)])?;
    let pod = ready(&bed, "chat", 1, None).await?.remove(0);
    let controls = Controls::default();
    talk(&pod, "chat", &controls)?.begin_all().await?;
    // A round that began after the conversation did is committed.
    let before = generations(&bed, uid(&pod))?.len();
    bed.until("two pre-copies", Duration::from_secs(60), async |bed| {
        Ok((generations(bed, uid(&pod))?.len() >= before + 2).then_some(()))
    })
    .await?;

    bed.ask(&Request::Pause { process: "versitygw".into() })?;
    let id =
        text(&pod, "/status/containerStatuses/0/containerID").trim_start_matches("containerd://").to_owned();
    bed.ask(&Request::KillContainer { node: "node-a".into(), id, signal: 9 })?;
    let told = bed.until("the word that its state is back", Duration::from_secs(60), async |bed| {
        let events = bed.list("/api/v1/namespaces/default/events").await?;
        let about = |event: &&Value| event["involvedObject"]["uid"] == uid(&pod);
        let told = events.iter().filter(about).find(|event| text(event, "/reason").ends_with("Reloaded"));
        Ok(told.map(|event| format!("{}: {}", text(event, "/reason"), text(event, "/message"))))
    });
    let told = told.await?;
    ensure!(told.starts_with("StateReloaded"), "{told}");
    let now = bed.pods("chat").await?.into_iter().find(|now| uid(now) == uid(&pod));
    let now = now.with_context(|| format!("{} is gone", name(&pod)))?;
    ensure!(now["status"]["containerStatuses"][0]["restartCount"] == 1, "{}", describe(&now));

    let said = talk(&now, "chat", &controls)?.continue_all().await?;
    ensure!(
        said.same && said.cached * 100 >= said.saved * 99,
        "{} of {} tokens came from the cache, the same continuation: {}; {told}",
        said.cached,
        said.saved,
        said.same
    );
    bed.ask(&Request::Resume { process: "versitygw".into() })?;
    let claims = claimants(&bed)?;
    ensure!(claims.is_empty(), "a container's restart is no restore: {claims:?}");
    Ok(())
}
