//! What was saved is damaged in the store, or cannot be proven to fit: it is refused by name, what is left of it is
//! taken, and the pod starts whatever comes of it.
//!
//! The damage is done to the S3 server's own files. The engine is ours (tests/testbed/src/engine.rs): random bytes,
//! compared by their digest. Engines that refuse are in docs/guarantees.md.

use crate::cast::{
    Template, counters, describe, forget_seed, gate, generations, gone, name, ready, replacement, seed, tell,
    text, uid,
};
use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use testbed::Testbed;

/// Three packs of the testbed's 4 MiB.
const STATE: u64 = 12 << 20;
const SOON: Duration = Duration::from_secs(60);

/// The packs of `app` that were put since then.
fn packs(bed: &Testbed, app: &str, since: Timestamp) -> Result<Vec<PathBuf>> {
    let mut found = bed.objects()?;
    found.retain(|object| object.key.contains(&format!("/{app}/pack/")) && object.at >= since);
    found.sort_by_key(|object| (std::cmp::Reverse(object.size), object.key.clone()));
    ensure!(found.len() >= 2, "{} packs of {app}", found.len());
    Ok(found.into_iter().map(|object| object.path).collect())
}

/// The second half of a pack is missing.
fn tear(packs: &[PathBuf]) -> Result<()> {
    let file = std::fs::File::options().write(true).open(&packs[0])?;
    Ok(file.set_len(file.metadata()?.len() / 2)?)
}

/// Two packs hold what the other should.
fn swap(packs: &[PathBuf]) -> Result<()> {
    let (one, other) = (std::fs::read(&packs[0])?, std::fs::read(&packs[1])?);
    ensure!(one.len() == other.len() && one != other, "these two cannot be swapped");
    std::fs::write(&packs[0], other)?;
    Ok(std::fs::write(&packs[1], one)?)
}

/// The note of an Event about this pod.
async fn event(bed: &Testbed, pod: &Value, reason: &str) -> Result<String> {
    bed.until(&format!("the Event {reason} of {}", name(pod)), SOON, async |bed| {
        let events = bed.list("/api/v1/namespaces/default/events").await?;
        let about = |event: &&Value| event["involvedObject"]["uid"] == uid(pod) && event["reason"] == reason;
        Ok(events.iter().find(about).map(|event| text(event, "/message").to_owned()))
    })
    .await
}

#[tokio::test]
async fn a_torn_and_a_swapped_pack_are_refused_and_their_parent_taken_and_without_evidence_nothing_is()
-> Result<()> {
    let bed = Testbed::up(&["node-a"]).await?;
    bed.install_agent().await?;
    let apps = ["torn", "swapped", "unproven"];
    let mut objects = Vec::new();
    for (number, app) in (1..).zip(apps) {
        // Copied ahead once, when it begins: that is the parent.
        let template = Template::engine(app, 0, 0).annotated("lifeboat.dev/interval", "1h").seeded();
        let template = match app {
            "unproven" => template.edit(|spec| {
                if let Some(env) = spec["containers"][0]["env"].as_array_mut() {
                    env.retain(|variable| variable["name"] != "WEIGHTS");
                }
            }),
            _ => template,
        };
        objects.extend([seed(app, number, STATE), template.deployment(1)]);
    }
    bed.apply(&objects)?;
    let mut sources = Vec::new();
    for app in apps {
        let pod = ready(&bed, app, 1, None).await?.remove(0);
        forget_seed(&bed, app)?;
        bed.until(&format!("the copy of {app}"), SOON, async |bed| {
            Ok((!generations(bed, uid(&pod))?.is_empty()).then_some(()))
        })
        .await?;
        let copied = counters(&pod).await?["digest"].clone();
        tell(&pod, "touch/1.0").await?;
        sources.push((app, pod, copied));
    }
    let touched = Timestamp::now();
    bed.kubectl(&["scale", "deployment", "--all", "--replicas=0"])?;
    for (_, pod, _) in &sources {
        gone(&bed, pod, SOON).await?;
        let committed = generations(&bed, uid(pod))?.len();
        ensure!(committed == 2, "{} has {committed} generations", name(pod));
    }
    tear(&packs(&bed, "torn", touched)?)?;
    swap(&packs(&bed, "swapped", touched)?)?;
    bed.kubectl(&["scale", "deployment", "--all", "--replicas=1"])?;

    for (app, old, copied) in &sources {
        let new = replacement(&bed, app, old).await?;
        let (holds, why) = (counters(&new).await?, gate(&new)?);
        if *app == "unproven" {
            let message = text(why, "/message");
            ensure!(why["reason"] == "Refused" && message.contains("evidence"), "{app}: {why}");
            ensure!(holds["bytes"] == 0, "{app} holds {holds}");
            continue;
        }
        let newest = generations(&bed, uid(old))?.pop().context("it had two")?.key;
        let newest = newest.rsplit('/').next().context("a key has parts")?;
        let told = event(&bed, &new, "CheckpointRefused").await?;
        eprintln!("{app}: {told}; {why}");
        ensure!(told.contains(newest), "{app}: {newest} is not named: {told}");
        if why["reason"] != "Restored" || holds["digest"] != *copied {
            bail!("{app} holds {}, not {copied}: {why}: {}", holds["digest"], describe(&new));
        }
    }
    Ok(())
}
