//! A link too short for everything: three pods of 400 MB each, an uplink of 200 Mbit/s, a node that is cut off 30 s
//! after its notice. About 750 MB fit through it: enough for the most important pod and most of the second.
//!
//! The engine is ours (tests/testbed/src/engine.rs): its state is random bytes, other ones for each pod, and its
//! replacement begins with none: the same digest there means that the bytes came back. What it does not prove: how long
//! a real engine takes to write 400 MB. The comparison is what people do today, by hand; it runs with
//! `LIFEBOAT_LONG=1 tests/run nodes` only, and what it prints is one machine's.

use crate::cast::{
    Template, counters, describe, gate, generations, name, node, priority_classes, ready, replacement_within,
    report, tell, text, uid,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;
use testbed::layout::{ACCESS_KEY, BUCKET, SECRET_KEY};
use testbed::request::Request;
use tokio::time::Instant;

/// What each pod holds.
const STATE_BYTES: u64 = 400_000_000;
/// Bits per second of the node that dies.
const UPLINK: u64 = 200_000_000;
/// The time in the notice. The agent's own deadline is 5 s before it.
const NOTICE: Duration = Duration::from_secs(34);
/// From the notice to the end of the node.
const END: Duration = Duration::from_secs(30);

/// A pod of this class, which is also its name. It has its state where it begins, and nothing where it is replaced. One
/// file: it's whole or it's nothing.
fn engine(class: &str, seed: u64) -> Template {
    let one_file = json!({"name": "STATE_FILES", "value": "1"});
    Template::engine(class, seed, STATE_BYTES).priority(class).prefers("node-a").born_on("node-a").edit(
        |spec| {
            if let Some(env) = spec["containers"][0]["env"].as_array_mut() {
                env.push(one_file);
            }
        },
    )
}

async fn digest(pod: &Value) -> Result<String> {
    let counters = counters(pod).await?;
    counters["digest"].as_str().map(str::to_owned).context("the engine told no digest")
}

/// What the report says of a pod.
fn entry<'a>(report: &'a Value, pod: &Value) -> Result<&'a Value> {
    let pods = report["pods"].as_array().context("the report names no pods")?;
    let found = pods.iter().find(|entry| entry["uid"] == uid(pod));
    found.with_context(|| format!("{} is not in the report", name(pod)))
}

#[tokio::test]
async fn the_highest_class_is_whole_and_restored_the_second_as_it_was_copied_ahead_and_the_last_has_a_reason()
-> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    bed.apply(&priority_classes())?;
    // Copied ahead once, when it begins.
    let silver = engine("silver", 2).annotated("lifeboat.dev/interval", "1h");
    bed.apply(&[engine("gold", 1), silver, engine("bronze", 3)].map(|pod| pod.deployment(1)))?;
    let gold = ready(&bed, "gold", 1, Some("node-a")).await?.remove(0);
    let silver = ready(&bed, "silver", 1, Some("node-a")).await?.remove(0);
    let bronze = ready(&bed, "bronze", 1, Some("node-a")).await?.remove(0);
    bed.until("the copy of silver", Duration::from_secs(90), async |bed| {
        Ok((!generations(bed, uid(&silver))?.is_empty()).then_some(()))
    })
    .await?;
    let (gold_s, silver_s) = (digest(&gold).await?, digest(&silver).await?);
    tell(&silver, "touch/1.0").await?;

    bed.ask(&Request::Uplink { host: "node-a".into(), rate: Some(UPLINK) })?;
    let noticed = Instant::now();
    bed.metadata("node-a")?.interrupt(NOTICE).await?;
    tokio::time::sleep_until(noticed + END).await;
    bed.ask(&Request::KillNode { node: "node-a".into() })?;

    let report = report(&bed, "node-a", Duration::from_secs(5)).await?;
    let told = entry(&report, &gold)?;
    ensure!(told["state"] == "saved" && told["bytes"] == STATE_BYTES, "of the highest class: {told}");
    let told = entry(&report, &silver)?;
    ensure!(told["state"] == "earlier" && !text(told, "/state_reason").is_empty(), "of the second: {told}");
    let told = entry(&report, &bronze)?;
    ensure!(told["state"] == "lost" && !text(told, "/state_reason").is_empty(), "of the last: {told}");
    ensure!(generations(&bed, uid(&bronze))?.is_empty(), "something of the last class can be found");

    for (old, saved) in [(&gold, gold_s), (&silver, silver_s)] {
        let class = text(old, "/metadata/labels/app");
        let new = replacement_within(&bed, class, old, Duration::from_secs(90)).await?;
        ensure!(node(&new) == "node-b", "{}", describe(&new));
        ensure!(digest(&new).await? == saved, "{class} got something else; gate: {}", gate(&new)?);
    }
    Ok(())
}

/// The same pod as people save it today: its preStop copies its state to S3, and the kubelet waits for that.
fn copying(class: &str) -> Template {
    let make = format!(
        "head -c {STATE_BYTES} /dev/urandom > /state/state; trap 'exit 0' TERM; touch /tmp/ready; while :; do sleep 0.1; done"
    );
    let copy = format!(
        "s5cmd --no-verify-ssl --endpoint-url {} cp /state/state s3://{BUCKET}/today/{class}",
        Testbed::s3_endpoint()
    );
    let environment = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let environment = environment.map(|(name, value)| json!({"name": name, "value": value}));
    Template::plain(class).priority(class).prefers("node-a").edit(|spec| {
        spec["terminationGracePeriodSeconds"] = 120.into();
        let container = &mut spec["containers"][0];
        container["image"] = "registry.local/engine:1".into();
        container["command"] = json!(["/bin/sh", "-c", make]);
        container["env"] = json!(environment);
        container["lifecycle"] = json!({"preStop": {"exec": {"command": ["/bin/sh", "-c", copy]}}});
        container["readinessProbe"] =
            json!({"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1});
        container["volumeMounts"] = json!([{"name": "state", "mountPath": "/state"}]);
    })
}

#[tokio::test]
#[ignore = "the comparison: LIFEBOAT_LONG=1 tests/run nodes"]
async fn what_people_do_today_on_the_same_link_is_counted() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.apply(&priority_classes())?;
    let classes = ["gold", "silver", "bronze"];
    bed.apply(&classes.map(|class| copying(class).deployment(1)))?;
    for class in classes {
        ready(&bed, class, 1, Some("node-a")).await?;
    }

    bed.ask(&Request::Uplink { host: "node-a".into(), rate: Some(UPLINK) })?;
    let noticed = Instant::now();
    // It waits for the pods, and gives up when the node does.
    let drained =
        bed.kubectl(&["drain", "node-a", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=25s"]);
    tokio::time::sleep_until(noticed + END).await;
    bed.ask(&Request::KillNode { node: "node-a".into() })?;

    let kept: Vec<_> = bed.objects()?.into_iter().filter(|object| object.key.starts_with("today/")).collect();
    let whole = kept.iter().filter(|object| object.size == STATE_BYTES).count();
    let asked: Vec<_> = bed.s3_requests()?.into_iter().filter(|one| one.key.starts_with("today/")).collect();
    let parts = asked.iter().filter(|one| one.operation.contains("UploadPart")).count();
    println!(
        "kubectl drain and s5cmd in a preStop: {whole} of 3 objects whole after {} s; {parts} parts of unfinished uploads; \
         the drain itself: {}",
        END.as_secs(),
        drained.map_or_else(|error| format!("{error:#}"), |_| "done".to_owned()),
    );
    ensure!(!asked.is_empty(), "no preStop copied anything: this compares nothing");
    ensure!(whole <= 1, "{whole} objects of {STATE_BYTES} bytes cannot come through this link in {END:?}");
    Ok(())
}
