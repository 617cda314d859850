//! A rebalance recommendation: the node is tainted softly and its state is copied ahead while it serves. When an
//! interruption follows, only the difference is sent; when nothing follows, nothing is left of it.
//!
//! The recommendation comes from the drill's IMDS. That proves the way from IMDSv2 to the node and the store, and
//! nothing of how often EC2 recommends. `registry.local/engine` has random bytes as its state, in blocks that stay
//! where they are; how much of a real KV cache changes meanwhile is llama-server's matter, and not shown here.

use crate::cast::{Template, counters, describe, node, ready, replacement, talk, tell, text, uid};
use crate::marks::{
    describe_removals, everything_of_node, is_clean, is_marked_soft, lasting_metadata, node_is, removals,
    stored,
};
use anyhow::{Context, Result, ensure};
use drill::talk::Controls;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;
use testbed::metadata::Say;
use testbed::s3_log::Object;
use testbed::timings::Timings;

const MINUTE: Duration = Duration::from_secs(60);
/// What one slot of `Template::llama` has room for, less a short prompt.
const LONG_ANSWER: u64 = 3800;

#[tokio::test]
async fn a_rebalance_copies_idle_slots_ahead_cuts_no_generation_and_leaves_no_trace() -> Result<()> {
    let bed = Testbed::up(&["node-a"]).await?;
    let settings = json!({"LIFEBOAT_UNDO_AFTER": "20s", "LIFEBOAT_PRECOPY_INTERVAL": "4s"});
    bed.install_agent_with(settings).await?;
    bed.apply(&[Template::llama("chat").deployment(1), Template::plain("web").deployment(1)])?;
    let chat = ready(&bed, "chat", 1, None).await?.remove(0);
    ready(&bed, "web", 1, None).await?;
    let ip = text(&chat, "/status/podIP").to_owned();
    talk(&chat, "chat", &Controls::default())?.begin_all().await?;
    let before = everything(&bed).await?;
    let began = Timestamp::now();

    let generation = tokio::spawn(long_answer(ip.clone()));
    bed.until("slot 0 to generate", MINUTE, async |_| {
        let slots: Value = http()?.get(format!("http://{ip}:8080/slots")).send().await?.json().await?;
        Ok((slots[0]["is_processing"] == true).then_some(()))
    })
    .await?;
    bed.metadata("node-a")?.say(&Say::Rebalance).await?;
    node_is(&bed, "node-a", "tainted softly", MINUTE, is_marked_soft).await?;
    let first = bed
        .until("a generation of chat", MINUTE, async |bed| {
            Ok(stored(bed, "chat", "/gen/")?.first().map(|object| object.at))
        })
        .await?;
    ensure!(
        !generation.is_finished(),
        "the first pre-copy was committed when the generation had ended: it waited for it, or this machine is slow"
    );
    let manifests = stored(&bed, "chat", "/manifest/")?;
    let copied =
        manifests.iter().filter(|object| object.at <= first).map(files).collect::<Result<Vec<_>>>()?;
    ensure!(copied == [["lifeboat-slot-1.bin"]], "while slot 0 generated, these were copied: {copied:?}");
    let answer = generation.await??;
    ensure!(
        answer["tokens_predicted"] == LONG_ANSWER && answer["stop_type"] == "limit",
        "a generation was cut after {} of {LONG_ANSWER} tokens: {}",
        answer["tokens_predicted"],
        answer["stop_type"]
    );

    node_is(&bed, "node-a", "as it was", MINUTE, is_clean).await?;
    // A commit may be on its way; then IMDS still shows the recommendation, and nothing begins again.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let generations = stored(&bed, "chat", "/gen/")?.len();
    tokio::time::sleep(Duration::from_secs(6)).await;
    ensure!(stored(&bed, "chat", "/gen/")?.len() == generations, "it is pre-copied after the undo");
    let after = everything(&bed).await?;
    ensure!(before == after, "a trace is left.\nbefore: {before:#}\nafter: {after:#}");
    let removals = removals(&bed, began)?;
    ensure!(removals.is_empty(), "a rebalance removed pods: {}", describe_removals(&removals));
    let audit = bed.audit()?;
    let writes = audit.iter().filter(|entry| entry.by_agent() && entry.writes_node("node-a"));
    let writes: Vec<_> = writes.filter(|entry| entry.succeeded() && entry.at >= began).collect();
    ensure!(writes.len() == 2, "one PATCH there and one back, not {writes:#?}");
    Ok(())
}

#[tokio::test]
async fn after_a_rebalance_an_interruption_sends_only_the_difference() -> Result<()> {
    const STATE: u64 = 48 << 20;
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    // One round, and none that would take the difference with it.
    bed.install_agent_with(json!({"LIFEBOAT_PRECOPY_INTERVAL": "10m"})).await?;
    bed.apply(&[Template::engine("model", 7, STATE).born_on("node-a").prefers("node-a").deployment(1)])?;
    let old = ready(&bed, "model", 1, Some("node-a")).await?.remove(0);

    let metadata = bed.metadata("node-a")?;
    metadata.say(&Say::Rebalance).await?;
    node_is(&bed, "node-a", "tainted softly", MINUTE, is_marked_soft).await?;
    bed.until("the pre-copy", MINUTE, async |bed| Ok(stored(bed, "model", "/gen/")?.first().map(|_| ())))
        .await?;
    let ahead = bytes(&stored(&bed, "model", "/pack/")?, Timestamp::MIN);
    ensure!(ahead >= STATE, "only {ahead} bytes of {STATE} were copied ahead");
    let serving = ready(&bed, "model", 1, Some("node-a")).await?.remove(0);
    ensure!(uid(&serving) == uid(&old), "it was restarted: {}", describe(&serving));

    // Seven pages of four KiB, each in another block of one MiB.
    tell(&old, "touch/0.0005").await?;
    let digest = counters(&old).await?["digest"].clone();
    let noticed = Timestamp::now();
    metadata.interrupt(MINUTE).await?;
    let new = replacement(&bed, "model", &old).await?;
    let serving = Timestamp::now();
    ensure!(node(&new) == "node-b", "{}", describe(&new));
    let restored = counters(&new).await?["digest"].clone();
    ensure!(restored == digest, "the replacement has another state: {restored} instead of {digest}");
    let sent = bytes(&stored(&bed, "model", "/pack/")?, noticed);
    ensure!(sent > 0 && sent < STATE / 4, "{sent} bytes of {STATE} were sent after the notice");
    let put = bed.s3_requests()?.into_iter().filter(|request| request.is_put() && request.at >= noticed);
    let put: u64 = put.filter(|request| request.key.contains("/pack/")).map(|request| request.size).sum();
    ensure!(put <= sent, "the S3 server received {put} bytes of packs, and {sent} are new in it");
    let scenario = "48 MiB, pre-copied under a rebalance";
    Timings::of(&bed, scenario, "node-a", noticed)?.serving_at(noticed, serving).write()
}

/// The bytes of those that became whole since then.
fn bytes(objects: &[Object], since: Timestamp) -> u64 {
    objects.iter().filter(|object| object.at >= since).map(|object| object.size).sum()
}

/// The paths in a manifest.
fn files(manifest: &Object) -> Result<Vec<String>> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(&manifest.path)?)?;
    let files = manifest["files"].as_array().context("a manifest has files")?;
    Ok(files.iter().map(|file| text(file, "/path").to_owned()).collect())
}

/// Everything about the node and the pods that a person or a controller could see, but for heartbeats.
async fn everything(bed: &Testbed) -> Result<Value> {
    let mut pods = bed.list("/api/v1/pods").await?;
    pods.sort_by_key(|pod| uid(pod).to_owned());
    let pod = |pod: &Value| {
        json!({"metadata": lasting_metadata(pod), "spec": pod["spec"], "phase": pod["status"]["phase"],
            "conditions": pod["status"]["conditions"], "containers": pod["status"]["containerStatuses"]})
    };
    Ok(json!({"node": everything_of_node(bed, "node-a").await?,
        "pods": pods.iter().map(pod).collect::<Vec<_>>()}))
}

/// A long answer in slot 0; what the server says of it in the end.
async fn long_answer(ip: String) -> Result<Value> {
    let request = json!({"prompt": "Tell me a long story.", "n_predict": LONG_ANSWER, "id_slot": 0, "cache_prompt": true,
        "temperature": 0, "ignore_eos": true});
    let answer = http()?.post(format!("http://{ip}:8080/completion")).json(&request).send().await?;
    Ok(answer.error_for_status()?.json().await?)
}

fn http() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(120)).build()?)
}
