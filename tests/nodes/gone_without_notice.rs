//! A node that vanishes with no notice at all: what a periodic pre-copy (`lifeboat.dev/interval`) saved is what is left.
//!
//! The engine is ours (tests/testbed/src/engine.rs): its state is random bytes with a digest, so that one generation
//! can be told from the next. The power cut is real for everything around it: silence on the network, then SIGKILL for
//! every process of the node. What it does not prove: a disk or an instance that dies halfway.

use crate::cast::{
    Template, claimed_by, counters, forget_seed, gate, generations, node, ready, replacement, seed, tell,
    text, uid,
};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;
use testbed::request::Request;

/// Waits for a generation that was flushed after now: the next but one that is committed.
async fn copied_again(bed: &Testbed, pod: &Value) -> Result<()> {
    let before = generations(bed, uid(pod))?.len();
    bed.until("two more generations", Duration::from_secs(60), async |bed| {
        Ok((generations(bed, uid(pod))?.len() >= before + 2).then_some(()))
    })
    .await
}

async fn digest(pod: &Value) -> Result<String> {
    Ok(text(&counters(pod).await?, "/digest").to_owned())
}

#[tokio::test]
async fn when_a_node_vanishes_the_replacement_gets_the_last_periodic_generation() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    // Two ways in which the cluster learns of it: a person or a controller that knows takes the pod away by force, and
    // the node controller, which believes it after 50 s.
    let template = |app: &str| {
        let unreachable = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 1}]);
        Template::engine(app, 0, 0)
            .seeded()
            .prefers("node-a")
            .annotated("lifeboat.dev/interval", "4s")
            .edit(|spec| spec["tolerations"] = unreachable)
            .deployment(1)
    };
    let seeds = [("forced", 7), ("found", 8)].map(|(app, number)| seed(app, number, 4 * 1024 * 1024));
    bed.apply(&seeds)?;
    bed.apply(&[template("forced"), template("found")])?;
    let mut old = Vec::new();
    for app in ["forced", "found"] {
        let pod = ready(&bed, app, 1, Some("node-a")).await?.remove(0);
        forget_seed(&bed, app)?;
        let first = digest(&pod).await?;
        old.push((app, pod, first));
    }
    for (_, pod, _) in &old {
        copied_again(&bed, pod).await?;
        // It serves on: the generations that follow are others.
        tell(pod, "touch/0.2").await?;
    }
    let mut last = Vec::new();
    for (app, pod, first) in &old {
        copied_again(&bed, pod).await?;
        let copied = digest(pod).await?;
        ensure!(copied != *first, "{app} was not touched");
        last.push(copied);
    }
    // And this is never copied.
    for (_, pod, _) in &old {
        tell(pod, "touch/0.2").await?;
    }
    bed.ask(&Request::KillNode { node: "node-a".into() })?;

    bed.kubectl(&["delete", "pod", "-l", "app=forced", "--force", "--grace-period=0"])?;
    for ((app, pod, _), copied) in old.iter().zip(last) {
        let new = replacement(&bed, app, pod).await?;
        ensure!(node(&new) == "node-b" && claimed_by(&bed, uid(pod))? == uid(&new), "{app}: {}", gate(&new)?);
        let holds = counters(&new).await?;
        ensure!(
            holds["digest"] == copied.as_str(),
            "{app} holds {holds}, not {copied}; gate: {}",
            gate(&new)?
        );
    }
    let evictions = bed.audit()?.iter().filter(|one| one.is_eviction()).count();
    ensure!(evictions == 0, "nobody had notice, and {evictions} evictions were asked for");
    Ok(())
}
