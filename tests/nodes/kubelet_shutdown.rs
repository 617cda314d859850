//! The kubelet's graceful shutdown beside us: after an evacuation, and where the system shuts down with no notice.
//!
//! The kubelet and the message bus are real; what announces the shutdown is ours (tests/testbed/logind.py) and speaks
//! logind's protocol. It does not prove that a real system waits for as long as the kubelet asks.

use crate::asked::{deletions, evictions};
use crate::cast::{
    Template, counters, forget_seed, gate, generations, name, node, ready, replacement, report, seed, text,
    uid,
};
use crate::marks::{is_marked_hard, node_object};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testbed::Testbed;
use testbed::layout::{NodeOptions, SHUTDOWN};
use testbed::request::Request;

const MINUTE: Duration = Duration::from_secs(60);

/// Announces it; how long the kubelet held it up.
async fn shut_down(bed: &Testbed, node: &str) -> Result<Duration> {
    let began = Instant::now();
    bed.ask(&Request::ShutDown { node: node.to_owned() })?;
    let released = bed.folder().node(node).join("logind/released");
    let limit = Duration::from_secs(SHUTDOWN.0 + 20);
    bed.until("the shutdown to go on", limit, async |_| Ok(released.exists().then_some(()))).await?;
    Ok(began.elapsed())
}

fn template(app: &str, on: &str) -> Template {
    Template::engine(app, 0, 0).seeded().prefers(on).annotated("lifeboat.dev/interval", "4s")
}

async fn digest(pod: &Value) -> Result<String> {
    Ok(text(&counters(pod).await?, "/digest").to_owned())
}

#[tokio::test]
async fn a_shutdown_finds_an_evacuated_node_and_one_without_notice_leaves_the_last_pre_copied_generation()
-> Result<()> {
    let holds = |name: &str| NodeOptions { holds_shutdown: true, ..NodeOptions::new(name) };
    let bed = Testbed::with(vec![holds("node-a"), NodeOptions::new("node-b"), holds("node-c")]).await?;
    bed.install_agent().await?;
    bed.apply(&[seed("told", 7, 4 << 20), seed("untold", 8, 4 << 20)])?;
    bed.apply(&[template("told", "node-a").deployment(1), template("untold", "node-c").deployment(1)])?;
    let told = ready(&bed, "told", 1, Some("node-a")).await?.remove(0);
    let untold = ready(&bed, "untold", 1, Some("node-c")).await?.remove(0);
    forget_seed(&bed, "told")?;
    forget_seed(&bed, "untold")?;
    let (first, second) = (digest(&told).await?, digest(&untold).await?);

    // With a notice it comes when nothing of ours is left but what the DaemonSets run.
    bed.metadata("node-a")?.interrupt(Duration::from_secs(40)).await?;
    let new = replacement(&bed, "told", &told).await?;
    ensure!(digest(&new).await? == first, "{}", gate(&new)?);
    let before = report(&bed, "node-a", MINUTE).await?;
    ensure!(before["complete"] == true, "{before}");
    let took = shut_down(&bed, "node-a").await?;
    eprintln!("after an evacuation the kubelet held the shutdown up for {took:?}");
    ensure!(took < Duration::from_secs(SHUTDOWN.0 - SHUTDOWN.1), "ordinary pods were waited for: {took:?}");
    let after = report(&bed, "node-a", MINUTE).await?;
    ensure!(after["complete"] == true && after["pods"] == before["pods"], "{before}\n{after}");
    ensure!(is_marked_hard(&node_object(&bed, "node-a").await?), "it gave a node back that goes");

    // Without one nobody is told: the kubelet ends pods by itself and asks the API server for nothing.
    bed.until("two generations", MINUTE, async |bed| {
        Ok((generations(bed, uid(&untold))?.len() >= 2).then_some(()))
    })
    .await?;
    let took = shut_down(&bed, "node-c").await?;
    eprintln!("without notice the kubelet held the shutdown up for {took:?}");
    // The agent is not told, and moves the hold ahead: the pod takes all that ordinary pods get, and no more.
    let (ordinary, whole) = (SHUTDOWN.0 - SHUTDOWN.1, SHUTDOWN.0 + 5);
    let range = Duration::from_secs(ordinary - 2)..Duration::from_secs(whole);
    ensure!(range.contains(&took), "the shutdown took {took:?}");
    let ended = bed
        .until("the end of the pod", MINUTE, async |bed| {
            let pods = bed.pods("untold").await?;
            let ended = |pod: &Value| ["Failed", "Succeeded"].contains(&text(pod, "/status/phase"));
            Ok(pods.into_iter().find(|pod| uid(pod) == uid(&untold) && ended(pod)))
        })
        .await?;
    let conditions = ended["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let by_kubelet = json!("TerminationByKubelet");
    ensure!(conditions.iter().any(|one| one["reason"] == by_kubelet), "{ended:#}");
    let audit = bed.audit()?;
    let asked = evictions(&audit, name(&untold)).len() + deletions(&audit, name(&untold)).len();
    ensure!(asked == 0, "{asked} evictions or deletions of {}", name(&untold));
    let new = replacement(&bed, "untold", &untold).await?;
    ensure!(node(&new) == "node-b", "{}", node(&new));
    ensure!(digest(&new).await? == second, "it began cold: {}", gate(&new)?);
    ensure!(gate(&new)?["reason"] == "Restored", "{}", gate(&new)?);
    Ok(())
}
