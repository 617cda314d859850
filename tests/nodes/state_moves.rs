//! llama-server's state moves: a conversation goes on from the cache of another node.
//!
//! The engine is the real one with a model of 10 MB and random weights. What it proves: the tokens in its cache after
//! the move are those from before it (its own `timings.cache_n`, and the same continuation at temperature 0). What it
//! does not: sizes and speeds of real models.

use crate::cast::{
    Template, claimants, claimed_by, eviction, gate, generations, gone, name, node, ready, replacement, talk,
    text, uid,
};
use anyhow::{Context, Result, ensure};
use drill::talk::Controls;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use testbed::Testbed;
use testbed::request::Request;
use testbed::timings::Timings;

/// Tokens with which every prompt begins, in each of two slots: a server looks for the longest common prefix.
const IN_COMMON: u64 = 16;

/// The pod continues this conversation as the one that began it would have, from its cache.
async fn goes_on(pod: &Value, about: &str, controls: &Controls) -> Result<()> {
    let said = talk(pod, about, controls)?.continue_all().await?;
    ensure!(
        said.same && said.cached * 100 >= said.saved * 99,
        "{}: {} of {} tokens of {about} came from the cache, the same continuation: {}; gate: {}",
        name(pod),
        said.cached,
        said.saved,
        said.same,
        gate(pod)?
    );
    Ok(())
}

#[tokio::test]
async fn a_deployment_s_conversation_goes_on_from_its_cache_on_the_other_node() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    bed.apply(&[Template::llama("chat").prefers("node-a").deployment(1)])?;
    let old = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    let controls = Controls::default();
    talk(&old, "chat", &controls)?.begin_all().await?;

    let notice = Timestamp::now();
    bed.metadata("node-a")?.interrupt(Duration::from_secs(120)).await?;
    let new = replacement(&bed, "chat", &old).await?;
    ensure!(node(&new) == "node-b", "{} runs on {}", name(&new), node(&new));
    goes_on(&new, "chat", &controls).await?;
    measured(&bed, "llama-server, Deployment, evict-first", notice)
}

/// The conversation has gone on just now.
fn measured(bed: &Testbed, scenario: &str, notice: Timestamp) -> Result<()> {
    Timings::of(bed, scenario, "node-a", notice)?.serving_at(notice, Timestamp::now()).write()
}

#[tokio::test]
async fn with_restore_off_the_state_is_saved_and_the_next_pod_starts_cold() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let template = Template::llama("chat").prefers("node-a").annotated("lifeboat.dev/restore", "off");
    bed.apply(&[template.deployment(1)])?;
    let old = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    let controls = Controls::default();
    talk(&old, "chat", &controls)?.begin_all().await?;

    bed.metadata("node-a")?.interrupt(Duration::from_secs(60)).await?;
    let new = replacement(&bed, "chat", &old).await?;
    let why = gate(&new)?;
    ensure!(text(why, "/reason") == "NothingToRestore", "the gate says {why}");
    gone(&bed, &old, Duration::from_secs(70)).await?;
    ensure!(!generations(&bed, uid(&old))?.is_empty(), "nothing of {} was committed", name(&old));
    let claims = claimants(&bed)?;
    ensure!(claims.is_empty(), "somebody claimed it all the same: {claims:?}");
    let said = talk(&new, "chat", &controls)?.continue_all().await?;
    ensure!(said.cached <= IN_COMMON, "{} of {} tokens came from a cache", said.cached, said.saved);
    ensure!(said.same, "an engine that starts cold says something else");
    Ok(())
}

#[tokio::test]
async fn a_stateful_set_s_pod_is_saved_before_it_is_evicted_and_comes_back_under_its_name() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    bed.apply(&[Template::llama("chat").prefers("node-a").stateful_set(1)])?;
    let old = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    let controls = Controls::default();
    talk(&old, "chat", &controls)?.begin_all().await?;

    let notice = Timestamp::now();
    bed.metadata("node-a")?.interrupt(Duration::from_secs(60)).await?;
    let new = replacement(&bed, "chat", &old).await?;
    ensure!(node(&new) == "node-b" && name(&new) == name(&old), "{} runs on {}", name(&new), node(&new));
    // A StatefulSet's lineage is its pod's name.
    let saved = generations(&bed, "chat-0")?;
    let committed = saved.first().context("nothing of chat-0 was committed")?.at;
    let evicted = eviction(&bed, name(&old))?.at;
    ensure!(
        committed < evicted,
        "evicted at {evicted}, before its commit at {committed}: nobody could replace it yet"
    );
    goes_on(&new, "chat", &controls).await?;
    measured(&bed, "llama-server, StatefulSet, flush-first", notice)
}

#[tokio::test]
async fn two_replicas_leaving_two_nodes_at_once_are_continued_by_one_pod_each() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b", "node-c", "node-d"]).await?;
    bed.install_agent().await?;
    let apart = json!({"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "chat"}}}]});
    let template = Template::llama("chat").prefers("node-a").edit(|spec| {
        let preferred = "/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/preference";
        if let Some(values) = spec.pointer_mut(&format!("{preferred}/matchExpressions/0/values")) {
            *values = json!(["node-a", "node-b"]);
        }
        spec["affinity"]["podAntiAffinity"] = apart;
    });
    bed.apply(&[template.deployment(2)])?;
    let old = ready(&bed, "chat", 2, None).await?;
    let nodes: BTreeSet<&str> = old.iter().map(node).collect();
    ensure!(nodes == BTreeSet::from(["node-a", "node-b"]), "they run on {nodes:?}");
    let controls = Controls::default();
    for pod in &old {
        talk(pod, name(pod), &controls)?.begin_all().await?;
    }

    for leaving in ["node-a", "node-b"] {
        bed.metadata(leaving)?.interrupt(Duration::from_secs(60)).await?;
    }
    for pod in &old {
        gone(&bed, pod, Duration::from_secs(80)).await?;
    }
    let new = ready(&bed, "chat", 2, None).await?;
    let mut continued = BTreeSet::new();
    for pod in &old {
        ensure!(!generations(&bed, uid(pod))?.is_empty(), "nothing of {} was committed", name(pod));
        let heir = claimed_by(&bed, uid(pod))?;
        let heir = new
            .iter()
            .find(|pod| uid(pod) == heir)
            .with_context(|| format!("{heir} claimed {}", uid(pod)))?;
        ensure!(continued.insert(uid(heir)), "{} continues both", name(heir));
        // The engine knows best whose conversation it has.
        goes_on(heir, name(pod), &controls).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_pod_of_two_containers_is_evicted_first_only_where_both_of_them_wait() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let beside = |app: &str, waits: bool| {
        let mut sidecar = json!({"name": "beside", "image": "registry.local/busybox:1", "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"],
            "volumeMounts": [{"name": "state", "mountPath": crate::cast::STATE}]});
        if waits {
            let hold = json!(["/bin/sh", "-c", crate::cast::HOLD]);
            sidecar["lifecycle"] = json!({"preStop": {"exec": {"command": hold}}});
        }
        // First, so that the engine has to be named.
        let with = |spec: &mut Value| {
            if let Some(all) = spec["containers"].as_array_mut() {
                all.insert(0, sidecar);
            }
        };
        Template::llama(app)
            .annotated("lifeboat.dev/container", "engine")
            .prefers("node-a")
            .edit(with)
            .deployment(1)
    };
    bed.apply(&[beside("both", true), beside("one", false)])?;
    let controls = Controls::default();
    let mut old = Vec::new();
    for app in ["both", "one"] {
        let pod = ready(&bed, app, 1, Some("node-a")).await?.remove(0);
        talk(&pod, app, &controls)?.begin_all().await?;
        old.push((app, pod));
    }
    // A save takes its time, so that before and after it are apart.
    bed.ask(&Request::Uplink { host: "node-a".into(), rate: Some(8_000_000) })?;

    bed.metadata("node-a")?.interrupt(Duration::from_secs(60)).await?;
    for (app, pod) in &old {
        let new = replacement(&bed, app, pod).await?;
        ensure!(node(&new) == "node-b", "{} runs on {}", name(&new), node(&new));
        let saved = generations(&bed, uid(pod))?;
        let committed = saved.first().with_context(|| format!("nothing of {app} was committed"))?.at;
        let evicted = eviction(&bed, name(pod))?.at;
        ensure!(
            (evicted < committed) == (*app == "both"),
            "{app}: evicted at {evicted}, committed at {committed}"
        );
        goes_on(&new, app, &controls).await?;
    }
    Ok(())
}
