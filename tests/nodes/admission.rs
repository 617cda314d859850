//! What the policy lifeboat-opt-in adds to pods, on a real API server: what is missing, and nothing else.

use crate::cast::{
    HOLD, Template, counters, eviction, forget_seed, gate, generations, node, ready, replacement, seed, text,
    uid,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;

const MIB: u64 = 1 << 20;

/// A pod with these annotations of ours and this spec; what the API server makes of it is not kept.
async fn made(bed: &Testbed, annotations: Value, spec: Value) -> Result<Value> {
    let all = annotations.as_object().into_iter().flatten();
    let annotations: Value = all
        .map(|(name, value)| (format!("lifeboat.dev/{name}"), value.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "tried", "namespace": "default", "annotations": annotations}, "spec": spec});
    bed.create("/api/v1/namespaces/default/pods?dryRun=All", &pod).await
}

fn engine() -> Value {
    json!({"name": "engine", "image": "engine"})
}

/// What is ours in a pod: gates, volumes, and of each container mounts and lifecycle.
fn parts(pod: &Value) -> Value {
    let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let of =
        |container: &Value| json!([container["name"], container["volumeMounts"], container["lifecycle"]]);
    json!([
        pod["spec"]["readinessGates"],
        pod["spec"]["volumes"],
        containers.iter().map(of).collect::<Vec<_>>()
    ])
}

fn hold_at(path: &str) -> Value {
    json!({"exec": {"command": ["sh", "-c", HOLD.replace("/state", path)]}})
}

fn annotation<'a>(pod: &'a Value, name: &str) -> &'a str {
    text(pod, &format!("/metadata/annotations/lifeboat.dev~1{name}"))
}

const GATE: &str = "lifeboat.dev/restored";

#[tokio::test]
async fn a_pod_gets_what_it_lacks_and_keeps_what_it_has() -> Result<()> {
    let bed = Testbed::up(&[]).await?;
    bed.install_manifests(&json!({}))?;
    // A namespace's account is made a moment after it; a policy is read a moment after it is written.
    bed.until("the policy to work", Duration::from_secs(30), async |bed| {
        let pod = made(bed, json!({"engine": "http"}), json!({"containers": [engine()]})).await?;
        Ok((pod["spec"]["readinessGates"] != Value::Null).then_some(()))
    })
    .await?;
    let spec = |containers: Value, volumes: Value| json!({"automountServiceAccountToken": false, "containers": containers, "volumes": volumes});
    let gates = json!([{"conditionType": GATE}]);

    // One annotation, and it is the first container's.
    let beside = json!({"name": "beside", "image": "beside"});
    let one =
        made(&bed, json!({"engine": "llama-server"}), spec(json!([engine(), beside]), json!([]))).await?;
    let mount = json!([{"name": "lifeboat-state", "mountPath": "/state"}]);
    let volume = json!([{"name": "lifeboat-state", "emptyDir": {}}]);
    let held = json!({"preStop": hold_at("/state")});
    let wanted = json!([gates, volume, [["engine", mount, held], ["beside", null, null]]]);
    ensure!(parts(&one) == wanted, "{}", parts(&one));
    ensure!(annotation(&one, "state-volume") == "lifeboat-state", "{}", one["metadata"]);

    // The same once more, as a controller sends what it read: nothing is added.
    let again = made(
        &bed,
        json!({"engine": "llama-server", "state-volume": "lifeboat-state"}),
        spec(one["spec"]["containers"].clone(), one["spec"]["volumes"].clone()),
    )
    .await?;
    ensure!(parts(&again) == wanted, "{}", parts(&again));

    // No annotation, and one that opts in to nothing.
    for annotations in [json!({}), json!({"role": "batch"}), json!({"engine": "http", "inject": "off"})] {
        let untouched = made(&bed, annotations, spec(json!([engine()]), json!([]))).await?;
        ensure!(parts(&untouched) == json!([null, null, [["engine", null, null]]]), "{}", parts(&untouched));
    }

    // What a pod has of its own stays: another gate, its volume with its limit, another path, what it does at its end.
    let own = json!({"name": "own", "image": "own", "volumeMounts": [{"name": "mine", "mountPath": "/var/state"}],
        "lifecycle": {"postStart": {"sleep": {"seconds": 1}}}});
    let mut theirs = spec(json!([beside, own]), json!([{"name": "mine", "emptyDir": {"sizeLimit": "1Gi"}}]));
    theirs["readinessGates"] = json!([{"conditionType": "example.com/other"}]);
    let kept =
        made(&bed, json!({"engine": "http", "container": "own", "state-volume": "mine"}), theirs).await?;
    let lifecycle = json!({"postStart": {"sleep": {"seconds": 1}}, "preStop": hold_at("/var/state")});
    let wanted = json!([[{"conditionType": "example.com/other"}, {"conditionType": GATE}],
        [{"name": "mine", "emptyDir": {"sizeLimit": "1Gi"}}],
        [["beside", null, null], ["own", [{"name": "mine", "mountPath": "/var/state"}], lifecycle]]]);
    ensure!(parts(&kept) == wanted, "{}", parts(&kept));
    let mut stops = engine();
    stops["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 3}}});
    let stops = made(&bed, json!({"engine": "http"}), spec(json!([stops]), json!([]))).await?;
    let sleeps = stops.pointer("/spec/containers/0/lifecycle");
    ensure!(sleeps == Some(&json!({"preStop": {"sleep": {"seconds": 3}}})), "{sleeps:?}");
    // A volume at /state that nobody named is the state's.
    let mut mounted = engine();
    mounted["volumeMounts"] = json!([{"name": "mine", "mountPath": "/state"}]);
    let volumes = json!([{"name": "mine", "emptyDir": {"medium": "Memory"}}]);
    let found = made(&bed, json!({"engine": "http"}), spec(json!([mounted]), volumes.clone())).await?;
    ensure!(annotation(&found, "state-volume") == "mine" && found["spec"]["volumes"] == volumes, "{found}");

    // In parts.
    let no_hold =
        made(&bed, json!({"engine": "http", "inject": "no-hold"}), spec(json!([engine()]), json!([])))
            .await?;
    ensure!(parts(&no_hold) == json!([gates, volume, [["engine", mount, null]]]), "{}", parts(&no_hold));
    for mode in ["background", "off"] {
        let none = made(&bed, json!({"engine": "http", "restore": mode}), spec(json!([engine()]), json!([])))
            .await?;
        ensure!(parts(&none) == json!([null, volume, [["engine", mount, held]]]), "{mode}: {}", parts(&none));
    }

    // What would have a pod refused, or cannot be meant, is left as it is: the pod starts, and its agent says what is wrong.
    let mut other = engine();
    other["volumeMounts"] = json!([{"name": "models", "mountPath": "/state"}]);
    let models = json!([{"name": "models", "configMap": {"name": "models"}}]);
    let mut odd = engine();
    odd["volumeMounts"] = json!([{"name": "mine", "mountPath": "/a b$(c)"}]);
    for (annotations, container, volumes) in [
        (json!({"engine": "http", "state-volume": "Not A Name"}), engine(), json!([])),
        (json!({"engine": "http", "container": "nobody"}), engine(), json!([])),
        (json!({"engine": "http"}), other.clone(), models.clone()),
        (json!({"engine": "http", "state-volume": "mine"}), other, models),
        (json!({"engine": "http", "state-volume": "mine"}), odd, json!([{"name": "mine", "emptyDir": {}}])),
    ] {
        let (mounts, given) = (container["volumeMounts"].clone(), volumes.clone());
        let left = made(&bed, annotations.clone(), spec(json!([container]), volumes)).await;
        let left = left.with_context(|| format!("{annotations} was refused"))?;
        let shown = &left["spec"];
        ensure!(
            shown.pointer("/containers/0/volumeMounts").cloned().unwrap_or_default() == mounts,
            "{shown}"
        );
        ensure!(shown.pointer("/containers/0/lifecycle").is_none(), "{annotations}: {shown}");
        let had = |volume: &Value| {
            given.as_array().is_some_and(|all| all.iter().any(|one| one["name"] == volume["name"]))
        };
        ensure!(shown["volumes"].as_array().into_iter().flatten().all(had), "{annotations}: {shown}");
        ensure!(shown["readinessGates"] == gates, "{shown}");
    }

    // And a policy that fails keeps no pod from starting.
    let broken = json!([{"op": "replace", "path": "/spec/mutations/0/jsonPatch/expression",
        "value": "[JSONPatch{op: 'remove', path: '/spec/containers/9'}]"}]);
    let broken = broken.to_string();
    bed.kubectl(&["patch", "mutatingadmissionpolicy", "lifeboat-opt-in", "--type=json", "-p", &broken])?;
    bed.until("a pod as it was written", Duration::from_secs(30), async |bed| {
        let pod = made(bed, json!({"engine": "http"}), spec(json!([engine()]), json!([]))).await?;
        Ok((parts(&pod) == json!([null, null, [["engine", null, null]]])).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_deployment_with_one_annotation_is_held_saved_and_restored() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let template = Template::engine("chat", 0, 0).seeded().opted_in_only().prefers("node-a");
    bed.apply(&[seed("chat", 7, 4 * MIB), template.deployment(1)])?;
    let old = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    forget_seed(&bed, "chat")?;
    let digest = counters(&old).await?["digest"].clone();

    bed.metadata("node-a")?.interrupt(Duration::from_secs(60)).await?;
    let new = replacement(&bed, "chat", &old).await?;
    ensure!(node(&new) == "node-b" && text(gate(&new)?, "/reason") == "Restored", "{}", gate(&new)?);
    ensure!(counters(&new).await?["digest"] == digest, "another state");
    // It waited inside its own eviction.
    let committed = generations(&bed, uid(&old))?.first().context("nothing was committed")?.at;
    let evicted = eviction(&bed, text(&old, "/metadata/name"))?.at;
    ensure!(evicted < committed, "evicted at {evicted}, committed at {committed}");
    Ok(())
}

#[tokio::test]
async fn a_gate_that_no_restore_will_open_is_opened_with_what_is_wrong() -> Result<()> {
    let bed = Testbed::up(&["node-a"]).await?;
    bed.install_agent().await?;
    let wrong = Template::engine("wrong", 0, 0).annotated("lifeboat.dev/engine", "vllm");
    let gate_only = json!([{"conditionType": GATE}]);
    let silent = Template::plain("silent").edit(|spec| spec["readinessGates"] = gate_only);
    bed.apply(&[wrong.deployment(1), silent.deployment(1)])?;
    for (app, named) in [("wrong", "vllm"), ("silent", "lifeboat.dev/engine")] {
        let pod = ready(&bed, app, 1, None).await?.remove(0);
        let opened = gate(&pod)?;
        ensure!(
            text(opened, "/reason") == "Refused" && text(opened, "/message").contains(named),
            "{app}: {opened}"
        );
    }
    Ok(())
}
