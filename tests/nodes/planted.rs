//! Hostile state volumes: what a pod planted in its own is not followed, not opened, not waited for and not sent.
//!
//! The canaries lie in another pod's volume and on the host, where links of the planting pods lead if they are followed
//! from the agent's side. The engine that names planted paths (`NAMES` in tests/testbed/src/engine.rs) lies as an
//! attacker's would; it shows nothing about honest engines. The packs in the store are plain bytes: they are searched.

use crate::cast::{
    Template, counters, describe, forget_seed, name, node, ready, replacement, report, seed, text, uid,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;

/// What must not be in the store.
const CANARY: &str = "canary-2f61c9a07b";
/// Where a link of a pod of node-a leads to, seen from the agent.
const PODS: &str = "/var/lib/lifeboat-testbed/node-a/kubelet/pods";

/// A pod on node-a whose engine runs after this line of shell.
fn planting(app: &str, plant: &str) -> Template {
    let begin = format!("{plant}\nexec /usr/bin/engine");
    Template::engine(app, 0, 0)
        .prefers("node-a")
        .edit(|spec| spec["containers"][0]["command"] = json!(["/bin/sh", "-c", begin]))
}

/// The same with an engine that names these paths in its flush.
fn naming(app: &str, names: &str, plant: &str) -> Template {
    planting(app, plant).edit(|spec| {
        if let Some(env) = spec["containers"][0]["env"].as_array_mut() {
            env.push(json!({"name": "NAMES", "value": names}));
        }
    })
}

/// No object in the store contains a canary.
fn nothing_of_it_is_in_the_store(bed: &Testbed) -> Result<()> {
    for object in bed.objects()? {
        let bytes = std::fs::read(&object.path)?;
        let found = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
        ensure!(!found, "{} contains what another pod or the host keeps", object.key);
    }
    Ok(())
}

/// The app of a pod.
fn app(pod: &Value) -> &str {
    text(pod, "/metadata/labels/app")
}

/// What the report says of a pod.
fn entry<'a>(report: &'a Value, pod: &Value) -> Result<&'a Value> {
    let pods = report["pods"].as_array().context("the report names no pods")?;
    let found = pods.iter().find(|entry| entry["uid"] == uid(pod));
    found.with_context(|| format!("{} is not in the report", name(pod)))
}

/// A pod whose state is a canary, and the way to it below the folder of the kubelet's pods.
async fn victim(bed: &Testbed) -> Result<(Value, String)> {
    bed.apply(&[planting("victim", &format!("echo {CANARY} > /state/secret")).deployment(1)])?;
    let pod = ready(bed, "victim", 1, Some("node-a")).await?.remove(0);
    let below = format!("{}/volumes/kubernetes.io~empty-dir/state", uid(&pod));
    ensure!(
        std::fs::read_to_string(bed.volume("node-a", uid(&pod), "state").join("secret"))?.contains(CANARY)
    );
    Ok((pod, below))
}

#[tokio::test]
async fn what_is_planted_beside_a_state_is_left_alone_and_the_state_moves() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let (_, secret) = victim(&bed).await?;
    let plant = format!(
        "mkdir -p /state/state /state/.lifeboat; cd /state/state
        ln -s {PODS}/{secret}/secret absolute; ln -s ../../../../../{secret}/secret relative
        ln -s {PODS}/{secret} folder; ln -s /etc/passwd ../passwd; ln -s .. ../.lifeboat/up
        mkfifo fifo; mknod zero c 1 5; echo mine > one; ln one two
        mkdir many; cd many; i=0; while [ $i -lt 1000 ]; do mkdir $i; i=$((i+1)); done
        n=$(seq 100); for d in *; do (cd $d; touch $n); done"
    );
    bed.apply(&[seed("planter", 7, 4 << 20), planting("planter", &plant).seeded().deployment(1)])?;
    let old = ready(&bed, "planter", 1, Some("node-a")).await?.remove(0);
    forget_seed(&bed, "planter")?;
    let planted = bed.volume("node-a", uid(&old), "state").join("state");
    ensure!(std::fs::read_to_string(planted.join("relative"))?.contains(CANARY), "the link leads nowhere");
    let many = std::fs::read_dir(planted.join("many"))?;
    let files: usize =
        many.flatten().map(|one| std::fs::read_dir(one.path()).map_or(0, Iterator::count)).sum();
    ensure!(files == 100_000, "only {files} small files are planted");
    let digest = counters(&old).await?["digest"].clone();

    bed.metadata("node-a")?.interrupt(Duration::from_secs(40)).await?;
    let new = replacement(&bed, "planter", &old).await?;
    ensure!(node(&new) == "node-b", "{}", describe(&new));
    ensure!(counters(&new).await?["digest"] == digest, "another state came back");
    let report = report(&bed, "node-a", Duration::from_secs(70)).await?;
    ensure!(entry(&report, &old)?["state"] == "saved", "{}", entry(&report, &old)?);
    nothing_of_it_is_in_the_store(&bed)
}

#[tokio::test]
async fn an_engine_that_names_what_is_planted_is_refused_by_name_and_no_other_pod_waits_for_it() -> Result<()>
{
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let (_, secret) = victim(&bed).await?;
    let relative = format!("../../../../{secret}");
    let link = "it leads through a link";
    let plants = [
        ("absolute", "link", format!("ln -s {PODS}/{secret}/secret /state/link"), "link"),
        ("relative", "link", format!("ln -s {relative}/secret /state/link"), "link"),
        ("passwd", "link", "ln -s /etc/passwd /state/link".to_owned(), "link"),
        ("folder", "folder/secret", format!("ln -s {relative} /state/folder"), link),
        ("fifo", "fifo", "mkfifo /state/fifo".to_owned(), "FIFO"),
        ("device", "zero", "mknod /state/zero c 1 5".to_owned(), "device"),
        ("hard", "two", "echo mine > /state/one; ln /state/one /state/two".to_owned(), "hard link"),
        ("above", "../../../../../passwd", String::new(), "'..'"),
    ];
    let pods = plants.each_ref().map(|(app, names, plant, _)| naming(app, names, plant).deployment(1));
    bed.apply(&pods)?;
    let honest = Template::engine("honest", 0, 0).seeded().prefers("node-a");
    bed.apply(&[seed("honest", 7, 4 << 20), honest.deployment(1)])?;
    let honest = ready(&bed, "honest", 1, Some("node-a")).await?.remove(0);
    forget_seed(&bed, "honest")?;
    let digest = counters(&honest).await?["digest"].clone();
    let mut planted = Vec::new();
    for (app, names, _, why) in &plants {
        planted.push((ready(&bed, app, 1, Some("node-a")).await?.remove(0), names, why));
    }
    // Who follows them gets there: the links are good ones.
    for (pod, names, _) in planted.iter().filter(|(pod, ..)| ["relative", "folder"].contains(&app(pod))) {
        let led_to = std::fs::read_to_string(bed.volume("node-a", uid(pod), "state").join(names))?;
        ensure!(led_to.contains(CANARY), "the link of {} leads nowhere", name(pod));
    }

    bed.metadata("node-a")?.interrupt(Duration::from_secs(40)).await?;
    let new = replacement(&bed, "honest", &honest).await?;
    ensure!(counters(&new).await?["digest"] == digest, "another state came back");
    let report = report(&bed, "node-a", Duration::from_secs(70)).await?;
    for (pod, names, why) in planted {
        let told = entry(&report, &pod)?;
        let reason = text(told, "/state_reason");
        ensure!(told["state"] == "lost", "{told}");
        ensure!(
            reason.contains(names) && reason.contains(why),
            "{}: {reason:?} does not say {why:?}",
            name(&pod)
        );
        ensure!(told["evicted"].is_u64(), "{} was not evicted: {told}", name(&pod));
    }
    nothing_of_it_is_in_the_store(&bed)
}

#[tokio::test]
async fn a_file_that_grows_and_one_that_shrinks_while_they_are_read_are_left_out_and_named() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let make = "cd /state; for f in keeps grows shrinks; do head -c 16000000 /dev/urandom > $f; done";
    bed.apply(&[naming("changing", "keeps grows shrinks", make).deployment(1)])?;
    let old = ready(&bed, "changing", 1, Some("node-a")).await?.remove(0);
    let volume = bed.volume("node-a", uid(&old), "state");
    let keeps = std::fs::read(volume.join("keeps"))?;

    // 48 MB take more than ten seconds, and they are read as they are sent.
    bed.ask(&testbed::request::Request::Uplink { host: "node-a".into(), rate: Some(32_000_000) })?;
    bed.metadata("node-a")?.interrupt(Duration::from_secs(40)).await?;
    bed.until("the first pack", Duration::from_secs(40), async |bed| {
        Ok(bed.objects()?.iter().any(|object| object.key.contains("/pack/")).then_some(()))
    })
    .await?;
    bed.kubectl(&["exec", name(&old), "--", "sh", "-c", "cd /state; echo more >> grows; : > shrinks"])?;

    let report = report(&bed, "node-a", Duration::from_secs(70)).await?;
    let told = entry(&report, &old)?;
    ensure!(told["state"] == "partial" && told["bytes"] == keeps.len(), "{told}");
    let reason = text(told, "/state_reason");
    ensure!(reason.contains("grows") && reason.contains("shrinks"), "the reason names no file: {told}");
    let packs = bed.objects()?.into_iter().filter(|object| object.key.contains("/pack/"));
    let sent: Vec<Vec<u8>> = packs.map(|pack| std::fs::read(pack.path)).collect::<Result<_, _>>()?;
    let begin = &keeps[..4096];
    ensure!(
        sent.iter().any(|pack| pack.windows(begin.len()).any(|part| part == begin)),
        "keeps was not sent"
    );
    Ok(())
}
