//! Others drain too: a rolling update, a scale-down, `kubectl drain`, and what Karpenter does to a node: they delete or
//! evict pods that know nothing of a notice, or do it at the same second as ours.
//!
//! The API server, the controllers, kubectl and the kubelets are real. Karpenter is two of its requests: its taint, put
//! onto the node by reading and writing with the resourceVersion that was read, and its eviction. The engine is ours
//! (tests/testbed/src/engine.rs): its first pod has random bytes, a replacement begins empty, so that the same digest
//! means that the bytes came back.

use crate::asked::{evictions, finished, removed, seconds};
use crate::cast::{
    Template, counters, forget_seed, gate, leaves, name, node, ready, replacement, report, seed, uid,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;
use testbed::audit::Entry;

/// The grace of every pod here that says nothing else, in seconds.
const GRACE: u64 = 30;
/// The taint that Karpenter puts onto a node that it takes away.
const KARPENTER: &str = "karpenter.sh/disrupted";

/// A pod with state, and what it said of it.
pub struct Source {
    pub pod: Value,
    pub digest: Value,
}

/// One pod each on node-a, whose state is guarded: the hold is there.
pub async fn sources(bed: &Testbed, apps: &[&str]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for (number, app) in (1u64..).zip(apps) {
        let mut deployment = Template::engine(app, 0, 0).seeded().prefers("node-a").deployment(1);
        // As for everything that has one GPU: the old one goes, then the new one comes.
        deployment["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
        bed.apply(&[seed(app, number, 1 << 20), deployment])?;
    }
    for app in apps {
        let pod = ready(bed, app, 1, Some("node-a")).await?.remove(0);
        forget_seed(bed, app)?;
        guarded(bed, &pod).await?;
        let digest = counters(&pod).await?["digest"].clone();
        ensure!(digest.is_string(), "{} told no digest", name(&pod));
        sources.push(Source { pod, digest });
    }
    Ok(sources)
}

/// Waits until the agent keeps the pod's hold.
async fn guarded(bed: &Testbed, pod: &Value) -> Result<()> {
    let hold = bed.volume(node(pod), uid(pod), "state").join(".lifeboat/hold");
    bed.until("the hold", Duration::from_secs(30), async |_| Ok(hold.exists().then_some(()))).await
}

/// What was saved of it lies in the store, and was there before the pod's end.
pub fn saved(bed: &Testbed, audit: &[Entry], pod: &Value) -> Result<()> {
    let lineage = format!("/{}/gen/", uid(pod));
    let objects = bed.objects()?;
    let found = objects.iter().find(|object| object.key.contains(&lineage));
    let found = found.with_context(|| format!("nothing of {} is in the store", name(pod)))?;
    let ended = finished(audit, name(pod)).with_context(|| format!("{} never ended", name(pod)))?;
    // The kubelet tells whole seconds.
    ensure!(
        seconds(found.at, ended) > -1.0,
        "{} ended {} s before its commit",
        name(pod),
        seconds(ended, found.at)
    );
    Ok(())
}

/// The pod's containers ended within the grace of whoever was the most impatient of those that deleted it.
fn ended_in_time(audit: &[Entry], pod: &Value, grace: u64) -> Result<()> {
    let asked = audit.iter().filter(|entry| {
        let kubelet = entry.user.starts_with("system:node:") && entry.impersonated.is_none();
        entry.name == name(pod)
            && entry.succeeded()
            && !kubelet
            && (entry.is_eviction() || entry.is_pod_deletion())
    });
    let ended = finished(audit, name(pod)).with_context(|| format!("{} never ended", name(pod)))?;
    for entry in asked {
        let (grace, took) = (entry.grace().unwrap_or(grace), seconds(entry.at, ended));
        ensure!(
            took < grace as f64 - 0.5,
            "{} was held {took:.1} s, {} gave it {grace} s",
            name(pod),
            entry.user
        );
    }
    Ok(())
}

/// The replacement holds what its source held.
pub async fn restored(bed: &Testbed, app: &str, source: &Source) -> Result<Value> {
    let new = replacement(bed, app, &source.pod).await?;
    let digest = &counters(&new).await?["digest"];
    ensure!(*digest == source.digest, "{app}: {digest} instead of {}; {}", source.digest, gate(&new)?);
    Ok(new)
}

/// Waits until the kubelet has removed the pod.
pub async fn ended(bed: &Testbed, pod: &Value) -> Result<()> {
    bed.until(&format!("the end of {}", name(pod)), Duration::from_secs(90), async |bed| {
        Ok(removed(&bed.audit()?, name(pod)).map(drop))
    })
    .await
}

#[tokio::test]
async fn whoever_deletes_a_pod_starts_its_departure_and_its_own_grace_is_the_deadline() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    // It would take its engine 17 minutes to flush.
    let crawls = Template::engine("crawls", 1, 1 << 20).on("node-a").edit(|spec| {
        spec["terminationGracePeriodSeconds"] = 20.into();
        let rate = json!({"name": "RATE", "value": "1000"});
        spec["containers"][0]["env"].as_array_mut().into_iter().for_each(|env| env.push(rate.clone()));
    });
    bed.apply(&[crawls.pod()])?;
    let sources = sources(&bed, &["rolled", "scaled", "drained"]).await?;
    let [rolled, scaled, drained] = sources.as_slice() else { bail!("three are asked for") };
    let crawls = ready(&bed, "crawls", 1, None).await?.remove(0);
    guarded(&bed, &crawls).await?;

    bed.kubectl(&["rollout", "restart", "deployment/rolled"])?;
    bed.kubectl(&["scale", "deployment/scaled", "--replicas=0"])?;
    bed.kubectl(&["delete", "pod", "crawls", "--wait=false"])?;
    let again = restored(&bed, "rolled", rolled).await?;
    guarded(&bed, &again).await?;
    ended(&bed, &scaled.pod).await?;
    ended(&bed, &crawls).await?;
    // What the update has brought is drained: its state moves once more.
    bed.kubectl(&["drain", "node-a", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s"])?;
    for (app, old) in [("rolled", &again), ("drained", &drained.pod)] {
        let digest = if app == "rolled" { &rolled.digest } else { &drained.digest };
        let new = restored(&bed, app, &Source { pod: old.clone(), digest: digest.clone() }).await?;
        ensure!(node(&new) == "node-b", "{app} is on {}", node(&new));
        ended(&bed, old).await?;
    }

    let audit = bed.audit()?;
    for pod in [&rolled.pod, &again, &scaled.pod, &drained.pod] {
        saved(&bed, &audit, pod)?;
        ended_in_time(&audit, pod, GRACE)?;
    }
    // What cannot be saved in its own grace is let go before the kubelet loses patience.
    ended_in_time(&audit, &crawls, 20)?;
    let lineage = format!("/{}/gen/", uid(&crawls));
    ensure!(
        !bed.objects()?.iter().any(|object| object.key.contains(&lineage)),
        "half a flush is in the store"
    );
    // Nothing else on the node was touched.
    let ours = |entry: &&Entry| {
        entry.by_agent() && (entry.is_eviction() || entry.is_pod_deletion() || entry.writes_node("node-a"))
    };
    ensure!(!audit.iter().any(|entry| ours(&entry)), "an agent drained, with no notice");
    Ok(())
}

#[tokio::test]
async fn karpenter_an_update_and_a_scale_down_come_at_the_same_second_as_the_notice() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let sources = sources(&bed, &["evicted", "rolled", "scaled", "untouched"]).await?;
    let [evicted, rolled, _, untouched] = sources.as_slice() else { bail!("four are asked for") };

    let metadata = bed.metadata("node-a")?;
    let notice = metadata.interrupt(Duration::from_secs(90));
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": name(&evicted.pod), "namespace": "default"}});
    let eviction_path = format!("/api/v1/namespaces/default/pods/{}/eviction", name(&evicted.pod));
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let update = json!({"spec": {"template": {"metadata": {"annotations": {"example.com/update": "1"}}}}});
    let (update_path, scale_path) = (format!("{deployments}/rolled"), format!("{deployments}/scaled"));
    let scale_down = json!({"spec": {"replicas": 0}});
    let (notice, others, ()) = tokio::try_join!(
        notice,
        // Somebody else's writes to the list of taints, before, during and after ours.
        taint_again_and_again(&bed),
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            tokio::try_join!(
                bed.create(&eviction_path, &eviction),
                bed.patch(&update_path, &update),
                bed.patch(&scale_path, &scale_down),
            )?;
            Ok(())
        },
    )?;
    for (app, source) in ["evicted", "rolled", "untouched"].into_iter().zip([evicted, rolled, untouched]) {
        let new = restored(&bed, app, source).await?;
        ensure!(node(&new) == "node-b", "{app} is on {}", node(&new));
    }
    for source in &sources {
        ended(&bed, &source.pod).await?;
    }
    let report = bed
        .until("the complete report", Duration::from_secs(60), async |bed| {
            let report = report(bed, "node-a", Duration::from_secs(1)).await?;
            Ok((report["complete"] == true).then_some(report))
        })
        .await?;

    let audit = bed.audit()?;
    let window = crate::asked::Window::of(&audit, "node-a", notice)?;
    let entries = report["pods"].as_array().cloned().unwrap_or_default();
    for source in &sources {
        saved(&bed, &audit, &source.pod)?;
        ended_in_time(&audit, &source.pod, GRACE)?;
        let told = crate::asked::entry(&entries, name(&source.pod))?;
        ensure!(told["state"] == "saved" && told["departure"] == "gone", "{told}");
    }
    // The same second: all within it, or this scenario did not happen.
    let foreign =
        |entry: &&Entry| !entry.by_agent() && entry.is_eviction() && entry.name == name(&evicted.pod);
    let foreign = audit.iter().find(foreign).context("nobody else evicted it")?;
    let apart = seconds(window.cordon, foreign.at).abs();
    ensure!(apart < 3.0, "the eviction came {apart:.1} s from the cordon: the machine is too slow for this");
    ensure!(evictions(&audit, name(&untouched.pod)).len() == 1, "the untouched pod is ours to evict, once");
    // Nobody's taint is lost.
    let now = bed.get("/api/v1/nodes/node-a").await?.unwrap_or_default();
    let taints = now["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let foreign = |entry: &&Entry| {
        entry.writes_node("node-a") && !entry.by_agent() && entry.body["spec"]["taints"].is_array()
    };
    let foreign: Vec<_> = audit.iter().filter(foreign).map(|entry| entry.at).collect();
    ensure!(
        foreign.iter().any(|at| *at < window.cordon) && foreign.iter().any(|at| *at > window.cordon),
        "nobody else wrote taints around the cordon: the machine is too slow for this"
    );
    let keys: Vec<&str> = taints.iter().filter_map(|taint| taint["key"].as_str()).collect();
    for wanted in others.iter().map(String::as_str).chain(["lifeboat.dev/interruption"]) {
        ensure!(keys.contains(&wanted), "{wanted} is lost: {keys:?}");
    }
    ensure!(!leaves(&now) && now["spec"]["unschedulable"] == true, "{}", now["spec"]);
    Ok(())
}

/// Karpenter's taint and others, one after the other, as fast as it goes. Returns their keys.
async fn taint_again_and_again(bed: &Testbed) -> Result<Vec<String>> {
    let mut keys = vec![KARPENTER.to_owned()];
    keys.extend((1..40).map(|number| format!("example.com/taint-{number}")));
    for key in &keys {
        taint(bed, key).await?;
    }
    Ok(keys)
}

/// Adds a taint as a careful controller does: what was read is written, or read again.
async fn taint(bed: &Testbed, key: &str) -> Result<()> {
    for _ in 0..20 {
        let node = bed.get("/api/v1/nodes/node-a").await?.context("node-a is gone")?;
        let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.push(json!({"key": key, "effect": "NoSchedule"}));
        let version = &node["metadata"]["resourceVersion"];
        let body = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
        match bed.patch("/api/v1/nodes/node-a", &body).await {
            Ok(_) => return Ok(()),
            Err(error) if error.to_string().contains("the object has been modified") => {}
            Err(error) => return Err(error),
        }
    }
    bail!("twenty conflicts in a row over {key}")
}
