//! Pods that begin for another reason than a departure: a scale-up, a rolling update, a crash loop. None of them takes
//! a state that is not its own, and none mixes two.
//!
//! The controllers, the kubelets and the API server are real. The engine is ours (tests/testbed/src/engine.rs): every
//! first pod has random bytes of its own, compared by their digest.

use crate::cast::{
    Template, claimants, claimed_by, counters, describe, forget_seed, gate, generations, gone, leaves, name,
    node, ready, replacement, seed, text, uid,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;

const STATE: u64 = 4 << 20;

fn template(app: &str) -> Template {
    Template::engine(app, 0, 0).seeded()
}

/// Fails twice wherever it is not on node-a, and runs then: what its emptyDir holds counts.
fn crashing(app: &str) -> Template {
    let script = "[ \"$NODE\" = node-a ] || [ -e /state/twice ] || { \
        [ -e /state/once ] && touch /state/twice || touch /state/once; exit 3; }; exec /usr/bin/engine";
    template(app).prefers("node-a").edit(|spec| {
        let container = &mut spec["containers"][0];
        container["command"] = json!(["/bin/sh", "-c", script]);
        if let Some(env) = container["env"].as_array_mut() {
            env.push(json!({"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}));
        }
    })
}

async fn digest(pod: &Value) -> Result<Value> {
    Ok(counters(pod).await?["digest"].clone())
}

/// The one pod of `app` that is none of `known`, as soon as it is ready.
async fn another(bed: &Testbed, app: &str, known: &[&Value]) -> Result<Value> {
    bed.until(&format!("another pod of {app}"), Duration::from_secs(60), async |bed| {
        let pods = bed.pods(app).await?;
        let fits = |pod: &Value| {
            known.iter().all(|known| uid(known) != uid(pod))
                && !leaves(pod)
                && testbed::bed::condition(pod, "Ready") == Some("True")
        };
        Ok(pods.into_iter().find(fits))
    })
    .await
}

/// Its gate opened because there was nothing for it, and it has nothing.
async fn began_empty(pod: &Value, why: &str) -> Result<()> {
    let gate = gate(pod)?;
    let said = gate["reason"] == "NothingToRestore" && text(gate, "/message").contains(why);
    ensure!(said, "{}: {gate}", name(pod));
    ensure!(counters(pod).await?["bytes"] == 0, "it has a state: {}", describe(pod));
    Ok(())
}

#[tokio::test]
async fn a_scale_up_an_update_and_a_crash_loop_take_nothing_that_is_not_theirs() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b", "node-c"]).await?;
    bed.install_agent().await?;
    let grown = template("grown").apart("node-a").annotated("lifeboat.dev/interval", "4s");
    let mut updated = template("updated").on("node-b").deployment(1);
    // As for everything that has one GPU: the old one goes, then the new one comes.
    updated["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
    let apps = ["grown", "updated", "crashing"];
    let mut objects = vec![grown.deployment(1), updated, crashing("crashing").deployment(1)];
    objects.extend((1..).zip(apps).map(|(number, app)| seed(app, number, STATE)));
    bed.apply(&objects)?;
    let grown = ready(&bed, "grown", 1, Some("node-a")).await?.remove(0);
    let updated = ready(&bed, "updated", 1, Some("node-b")).await?.remove(0);
    let crashing = ready(&bed, "crashing", 1, Some("node-a")).await?.remove(0);
    for app in apps {
        forget_seed(&bed, app)?;
    }
    let (grown_s, crashing_s) = (digest(&grown).await?, digest(&crashing).await?);

    // A scale-up while there is a generation whose source lives.
    bed.until("a copy of it", Duration::from_secs(30), async |bed| {
        Ok((!generations(bed, uid(&grown))?.is_empty()).then_some(()))
    })
    .await?;
    bed.kubectl(&["scale", "deployment/grown", "--replicas=2"])?;
    // Another template: the state of the old one is saved and is not the new one's.
    bed.kubectl(&["set", "env", "deployment/updated", "WEIGHTS=blake3:0002"])?;
    let beside = another(&bed, "grown", &[&grown]).await?;
    began_empty(&beside, "1 have a living source").await?;
    ensure!(digest(&grown).await? == grown_s, "the source lost its state");
    let after = another(&bed, "updated", &[&updated]).await?;
    began_empty(&after, "1 are of another pod template").await?;
    ensure!(!generations(&bed, uid(&updated))?.is_empty(), "nothing of {} was saved", name(&updated));
    ensure!(claimants(&bed)?.is_empty(), "somebody took something: {:?}", claimants(&bed)?);

    // Now the sources leave. One heir crashes twice before it runs.
    bed.metadata("node-a")?.interrupt(Duration::from_secs(60)).await?;
    let heir = replacement(&bed, "crashing", &crashing).await?;
    let crashed = heir.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_u64);
    ensure!(crashed >= Some(2), "it did not crash: {}", describe(&heir));
    ensure!(digest(&heir).await? == crashing_s && node(&heir) != "node-a", "{}", gate(&heir)?);
    gone(&bed, &grown, Duration::from_secs(60)).await?;
    let follower = another(&bed, "grown", &[&grown, &beside]).await?;
    ensure!(digest(&follower).await? == grown_s, "{}", gate(&follower)?);
    ensure!(counters(&beside).await?["bytes"] == 0, "the bystander got something after all");
    for (source, heir) in [(&crashing, &heir), (&grown, &follower)] {
        let holder = claimed_by(&bed, uid(source)).context("it was taken without a claim")?;
        ensure!(holder == uid(heir), "{holder} holds the claim on {}", name(source));
    }
    ensure!(claimants(&bed)?.len() == 2, "claims: {:?}", claimants(&bed)?);
    Ok(())
}
