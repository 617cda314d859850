//! The pods of the scenarios, and what is asked of them.

mod conversation;
mod template;

pub use conversation::Conversation;
pub use template::{HOLD, STATE, Template};

use anyhow::{Context, Result, bail};
use drill::talk::{Controls, Talk};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;

/// PriorityClasses `gold` (1000), `silver` (100), `bronze` (10) and `batch` (-10).
pub fn priority_classes() -> Vec<Value> {
    let class = |(name, value): (&str, i64)| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "preemptionPolicy": "Never"})
    };
    [("gold", 1000), ("silver", 100), ("bronze", 10), ("batch", -10)].map(class).to_vec()
}

/// A disruption budget over `app`: so many may be unavailable.
pub fn budget(name: &str, app: &str, max_unavailable: u32) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"maxUnavailable": max_unavailable, "selector": {"matchLabels": {"app": app}}}})
}

/// A Service in front of the pods of `app`, on the port of llama-server.
pub fn service(app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": app, "namespace": "default"},
        "spec": {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": 8080}]}})
}

/// A string of an object, by JSON pointer; empty if it's not there.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A pod's uid.
pub fn uid(pod: &Value) -> &str {
    text(pod, "/metadata/uid")
}

/// A pod's name.
pub fn name(pod: &Value) -> &str {
    text(pod, "/metadata/name")
}

/// A pod's node.
pub fn node(pod: &Value) -> &str {
    text(pod, "/spec/nodeName")
}

/// It is being deleted.
pub fn leaves(pod: &Value) -> bool {
    !text(pod, "/metadata/deletionTimestamp").is_empty()
}

/// Waits until exactly `count` pods of `app` are ready and none is leaving; on `node` if it is given.
pub async fn ready(bed: &Testbed, app: &str, count: usize, on: Option<&str>) -> Result<Vec<Value>> {
    bed.until(&format!("{count} ready pods of {app}"), Duration::from_secs(60), async |bed| {
        let pods: Vec<Value> = bed.pods(app).await?.into_iter().filter(|pod| !leaves(pod)).collect();
        let fits = |pod: &Value| {
            testbed::bed::condition(pod, "Ready") == Some("True")
                && on.is_none_or(|wanted| node(pod) == wanted)
        };
        if pods.len() == count && pods.iter().all(fits) {
            return Ok(Some(pods));
        }
        bail!("{}", pods.iter().map(describe).collect::<Vec<_>>().join("; "))
    })
    .await
}

/// Waits for the one ready pod of `app` that is not `old`.
pub async fn replacement(bed: &Testbed, app: &str, old: &Value) -> Result<Value> {
    replacement_within(bed, app, old, Duration::from_secs(90)).await
}

/// The same within a limit.
pub async fn replacement_within(bed: &Testbed, app: &str, old: &Value, limit: Duration) -> Result<Value> {
    let old = uid(old);
    bed.until(&format!("a ready replacement of {app}"), limit, async |bed| {
        let pods = bed.pods(app).await?;
        let found = pods.iter().find(|pod| {
            uid(pod) != old && !leaves(pod) && testbed::bed::condition(pod, "Ready") == Some("True")
        });
        match found {
            Some(pod) => Ok(Some(pod.clone())),
            None => bail!("{}", pods.iter().map(describe).collect::<Vec<_>>().join("; ")),
        }
    })
    .await
}

/// Waits until a pod's object is gone.
pub async fn gone(bed: &Testbed, pod: &Value, limit: Duration) -> Result<()> {
    let path = format!("/api/v1/namespaces/default/pods/{}", name(pod));
    bed.until(&format!("{} to be gone", name(pod)), limit, async |bed| {
        let there = bed.get(&path).await?.filter(|there| uid(there) == uid(pod));
        Ok(there.is_none().then_some(()))
    })
    .await
}

/// A pod in a few words, for a failure's message.
pub fn describe(pod: &Value) -> String {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let not: Vec<String> = conditions
        .iter()
        .filter(|condition| condition["status"] != "True")
        .map(|condition| format!("{} {} {}", condition["type"], condition["reason"], condition["message"]))
        .collect();
    let state = pod.pointer("/status/containerStatuses/0/state").map(Value::to_string).unwrap_or_default();
    let left = if leaves(pod) { " leaving" } else { "" };
    format!("{} on {}{left}: {} {state} {}", name(pod), node(pod), text(pod, "/status/phase"), not.join(", "))
}

/// The conversation with a llama-server pod.
pub fn talk(pod: &Value, about: &str, controls: &Controls) -> Result<Talk> {
    let ip = text(pod, "/status/podIP");
    anyhow::ensure!(!ip.is_empty(), "{} has no address", name(pod));
    Ok(Talk::new(about, &format!("http://{ip}:8080"), controls)?)
}

/// What our engine says of itself: `digest`, `bytes`, `calls`, …
pub async fn counters(pod: &Value) -> Result<Value> {
    let url = format!("http://{}:9101/counters", text(pod, "/status/podIP"));
    Ok(http()?.get(url).send().await?.json().await?)
}

/// Tells our engine something: `behaviour/hang`, `touch/0.1`, `generating/on`, `exit/1`.
pub async fn tell(pod: &Value, what: &str) -> Result<()> {
    let url = format!("http://{}:9101/{what}", text(pod, "/status/podIP"));
    let answer = http()?.post(url).send().await?;
    anyhow::ensure!(answer.status().is_success(), "{what}: {}", answer.status());
    Ok(())
}

fn http() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?)
}

/// The report of a node's evacuation, as it lies in the store; waits for it.
pub async fn report(bed: &Testbed, node: &str, limit: Duration) -> Result<Value> {
    bed.until(&format!("the report of {node}"), limit, async |bed| {
        let objects = bed.objects()?;
        let found = objects
            .iter()
            .filter(|object| object.key.contains("/report/") || object.key.contains("/reports/"));
        let mut reports = found
            .filter_map(|object| serde_json::from_slice::<Value>(&std::fs::read(&object.path).ok()?).ok());
        Ok(reports.rfind(|report| report.to_string().contains(&format!("\"{node}\""))))
    })
    .await
}

/// The condition that our gate is.
pub fn gate(pod: &Value) -> Result<&Value> {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let found =
        conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "lifeboat.dev/restored"));
    found.with_context(|| format!("{} has no gate", name(pod)))
}

/// What the first pod of `app` begins with, beside its template and not in it: see [`Template::seeded`].
pub fn seed(app: &str, seed: u64, bytes: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{app}-seed"), "namespace": "default"},
        "data": {"SEED": seed.to_string(), "STATE_BYTES": bytes.to_string()}})
}

/// From now on pods of `app` begin empty, as a replacement must that is to take what was saved.
pub fn forget_seed(bed: &Testbed, app: &str) -> Result<()> {
    bed.kubectl(&["delete", "configmap", &format!("{app}-seed")]).map(drop)
}

/// The generations of a lineage as they lie in the store, oldest first: a pod's uid, or a StatefulSet pod's name.
pub fn generations(bed: &Testbed, lineage: &str) -> Result<Vec<testbed::s3_log::Object>> {
    let mut found = bed.objects()?;
    found.retain(|object| object.key.contains(&format!("/lineage/{lineage}/gen/")));
    found.sort_by_key(|object| object.at);
    Ok(found)
}

/// Every claim in the store: the lineage, and the uid of the pod that holds it.
pub fn claimants(bed: &Testbed) -> Result<Vec<(String, String)>> {
    let objects = bed.objects()?;
    let claims = objects.iter().filter_map(|object| {
        let lineage = object.key.strip_suffix("/claim")?.rsplit('/').next()?;
        Some((lineage.to_owned(), object))
    });
    claims
        .map(|(lineage, object)| {
            let claim: Value = serde_json::from_slice(&std::fs::read(&object.path)?)?;
            Ok((lineage, text(&claim, "/holder/pod_uid").to_owned()))
        })
        .collect()
}

/// The uid of the pod that claimed this lineage.
pub fn claimed_by(bed: &Testbed, lineage: &str) -> Result<String> {
    let found = claimants(bed)?.into_iter().find(|(of, _)| of == lineage);
    Ok(found.with_context(|| format!("nobody claimed {lineage}"))?.1)
}

/// The eviction of a pod that was done.
pub fn eviction(bed: &Testbed, pod: &str) -> Result<testbed::audit::Entry> {
    let done = bed.audit()?.into_iter().find(|one| one.is_eviction() && one.name == pod && one.succeeded());
    done.with_context(|| format!("{pod} was not evicted"))
}
