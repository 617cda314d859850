//! The API server and the store fail in the middle of an evacuation: what can go on goes on, what was waited for is done
//! afterwards, and what is lost has its reason where it can still be read.
//!
//! The servers are the real ones, killed (nobody listens) or paused (connections stay and nothing answers). All of the
//! node's ways out fail with the S3 server, as they do when a region's S3 is away; a store that answers with errors is
//! in the drill's faults.

use crate::cast::{
    Template, counters, describe, gate, gone, name, node, ready, replacement_within, text, uid,
};
use anyhow::{Context, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;
use testbed::request::Request;

const STATE: u64 = 8 << 20;
const MARGIN: SignedDuration = SignedDuration::from_secs(5);

const CONTROLLERS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

fn process(name: &str) -> String {
    name.to_owned()
}

/// When a generation of this pod became visible; its lineage is its uid.
fn committed(bed: &Testbed, pod: &Value) -> Result<Option<Timestamp>> {
    let lineage = format!("/lineage/{}/gen/", uid(pod));
    Ok(bed.objects()?.into_iter().find(|object| object.key.contains(&lineage)).map(|object| object.at))
}

async fn digest(pod: &Value) -> Result<Value> {
    Ok(counters(pod).await?["digest"].clone())
}

/// A minute of two without the API server. The state does not wait for it; cordon, eviction and restore follow.
async fn a_minute_without_the_api_server(away: Request, back: Request) -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    bed.apply(&[Template::engine("one", 1, STATE).born_on("node-a").prefers("node-a").deployment(1)])?;
    let old = ready(&bed, "one", 1, Some("node-a")).await?.remove(0);
    let state = digest(&old).await?;

    bed.ask(&away)?;
    // Controllers that cannot renew their lease end, and are started again: here they have no lease, and their backoff
    // would let the scheduler choose by what it knew before.
    for process in CONTROLLERS {
        bed.ask(&Request::Stop { process: process.into() })?;
    }
    let end = bed.metadata("node-a")?.interrupt(Duration::from_secs(120)).await?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let saved = committed(&bed, &old)?;
    bed.ask(&back)?;
    let back = Timestamp::now();
    bed.node_ready("node-b").await?;
    for process in CONTROLLERS {
        bed.ask(&Request::Start { process: process.into() })?;
    }
    ensure!(saved.is_some(), "nothing was saved while the API server was away");

    // A kubelet that met a closed port asks again after up to a minute: that is its backoff.
    let new = replacement_within(&bed, "one", &old, Duration::from_secs(120)).await?;
    let gate = gate(&new)?;
    ensure!(gate["reason"] == "Restored" && digest(&new).await? == state, "{gate}: {}", describe(&new));
    ensure!(node(&new) == "node-b", "{}", describe(&new));
    gone(&bed, &old, Duration::from_secs(60)).await?;
    let audit = bed.audit()?;
    // A PATCH that the API server had before it stood still may be written and answered by 504 all the same; the agent then
    // reads that its node is marked.
    let written = |entry: &&testbed::audit::Entry| entry.succeeded() || entry.code == 504;
    let mut patches = audit.iter().filter(|entry| entry.by_agent() && entry.writes_node("node-a"));
    let cordon = patches.find(written);
    let cordon = cordon.context("it was never cordoned")?.at;
    let left = audit.iter().filter(|entry| entry.is_eviction() || entry.is_pod_deletion());
    let left = left.filter(|entry| entry.by_agent() && entry.name == name(&old) && entry.succeeded());
    let left = left.map(|entry| entry.at).next().context("the agent did not end the pod")?;
    ensure!(cordon < left && left < end - MARGIN, "cordoned {cordon}, left {left}, back {back}, end {end}");
    Ok(())
}

#[tokio::test]
#[ignore = "two and a half minutes: LIFEBOAT_LONG=1 tests/run nodes"]
async fn a_minute_in_which_no_api_server_listens_delays_the_eviction_and_not_the_save() -> Result<()> {
    let process = || process("kube-apiserver");
    a_minute_without_the_api_server(
        Request::Stop { process: process() },
        Request::Start { process: process() },
    )
    .await
}

#[tokio::test]
async fn a_minute_in_which_the_api_server_hangs_delays_the_eviction_and_not_the_save() -> Result<()> {
    let process = || process("kube-apiserver");
    a_minute_without_the_api_server(
        Request::Pause { process: process() },
        Request::Resume { process: process() },
    )
    .await
}

#[tokio::test]
async fn a_store_that_is_away_for_twenty_seconds_is_waited_for() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let pods = [
        Template::engine("held", 1, STATE).born_on("node-a").prefers("node-a"),
        Template::engine("flushed-first", 2, STATE).born_on("node-a").prefers("node-a").not_held(),
    ];
    bed.apply(&pods.map(|pod| pod.deployment(1)))?;
    let mut olds = Vec::new();
    for app in ["held", "flushed-first"] {
        let old = ready(&bed, app, 1, Some("node-a")).await?.remove(0);
        let state = digest(&old).await?;
        olds.push((app, old, state));
    }

    bed.ask(&Request::Stop { process: process("versitygw") })?;
    bed.metadata("node-a")?.interrupt(Duration::from_secs(75)).await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let began_again = Timestamp::now();
    bed.ask(&Request::Start { process: process("versitygw") })?;

    for (app, old, state) in &olds {
        let new = replacement_within(&bed, app, old, Duration::from_secs(80)).await?;
        let gate = gate(&new)?;
        ensure!(gate["reason"] == "Restored" && digest(&new).await? == *state, "{gate}: {}", describe(&new));
        let saved = committed(&bed, old)?.context("nothing was committed")?;
        ensure!(saved > began_again, "{app} was committed at {saved}, while no store was there");
    }
    Ok(())
}

#[tokio::test]
async fn without_a_store_pods_leave_in_time_and_say_why_and_their_replacements_start() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent_with(json!({"LIFEBOAT_RESTORE_TIMEOUT": "20s"})).await?;
    let pods = [
        Template::engine("held", 1, STATE).born_on("node-a").prefers("node-a"),
        Template::engine("flushed-first", 2, STATE).born_on("node-a").prefers("node-a").not_held(),
        Template::plain("plain").prefers("node-a"),
    ];
    bed.apply(&pods.map(|pod| pod.deployment(1)))?;
    let mut olds = Vec::new();
    for app in ["held", "flushed-first", "plain"] {
        olds.push((app, ready(&bed, app, 1, Some("node-a")).await?.remove(0)));
    }

    bed.ask(&Request::Stop { process: process("versitygw") })?;
    let end = bed.metadata("node-a")?.interrupt(Duration::from_secs(45)).await?;
    for (_, old) in &olds {
        gone(&bed, old, Duration::from_secs(60)).await?;
    }
    ensure!(Timestamp::now() < end, "pods were there until {}, and the node until {end}", Timestamp::now());

    for (app, old) in olds.iter().filter(|(app, _)| *app != "plain") {
        let new = replacement_within(&bed, app, old, Duration::from_secs(60)).await?;
        let gate = gate(&new)?;
        ensure!(gate["reason"] == "StoreUnreachable" && !text(gate, "/message").is_empty(), "{gate}");
        ensure!(counters(&new).await?["bytes"] == 0, "{}", describe(&new));
    }
    // On the node, whoever cannot be reached.
    let report = bed.until("the report", Duration::from_secs(30), async |bed| last_report(bed)).await?;
    for (app, old) in olds.iter().filter(|(app, _)| *app != "plain") {
        let pods = report["pods"].as_array().context("a report without pods")?;
        let told =
            pods.iter().find(|told| told["uid"] == uid(old)).context("the pod is not in the report")?;
        let why = text(told, "/state_reason");
        ensure!(told["state"] == "lost" && !why.is_empty(), "of {app}: {told}");
        eprintln!("{app}: {why}");
    }
    bed.until("the Event on the node", Duration::from_secs(20), async |bed| {
        let events = bed.list("/api/v1/namespaces/default/events").await?;
        let about = |event: &&Value| {
            event["involvedObject"]["name"] == "node-a" && event["reason"] == "EvacuationReport"
        };
        let told: Vec<&str> = events.iter().filter(about).map(|event| text(event, "/message")).collect();
        match told.iter().any(|message| message.contains("2 lost")) {
            true => Ok(Some(())),
            false => bail!("{told:?}"),
        }
    })
    .await
}

/// The newest complete report in the journal of node-a.
fn last_report(bed: &Testbed) -> Result<Option<Value>> {
    let journal = std::fs::read_to_string(bed.folder().node("node-a").join("lifeboat/journal.jsonl"))?;
    let lines = journal.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut reports = lines.filter_map(|line| line.pointer("/effect/action/node/write_report").cloned());
    Ok(reports.rfind(|report| report["complete"] == true))
}
