//! What a notice leaves on a node, in the store and in the API server's log: asked by several scenarios.

use crate::cast::text;
use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use testbed::Testbed;
use testbed::audit::Entry;
use testbed::s3_log::Object;

/// The node's object.
pub async fn node_object(bed: &Testbed, name: &str) -> Result<Value> {
    bed.get(&format!("/api/v1/nodes/{name}")).await?.with_context(|| format!("there is no node {name}"))
}

/// What the agent wrote of the notice onto its node, if anything.
pub fn standing(node: &Value) -> Option<Value> {
    let written = node.pointer("/metadata/annotations/lifeboat.dev~1evacuation")?.as_str()?;
    serde_json::from_str(written).ok()
}

/// The effect of a taint that the node has.
pub fn taint<'a>(node: &'a Value, key: &str) -> Option<&'a str> {
    let taints = node.pointer("/spec/taints")?.as_array()?;
    taints.iter().find(|taint| taint["key"] == key)?["effect"].as_str()
}

/// Nothing new is put onto it.
pub fn is_cordoned(node: &Value) -> bool {
    node.pointer("/spec/unschedulable") == Some(&Value::Bool(true))
}

/// Cordoned and tainted, with the notice written beside it.
pub fn is_marked_hard(node: &Value) -> bool {
    is_cordoned(node)
        && taint(node, "lifeboat.dev/interruption") == Some("NoSchedule")
        && standing(node).is_some_and(|standing| standing["hard"] == true)
}

/// Tainted softly and open, with the notice written beside it.
pub fn is_marked_soft(node: &Value) -> bool {
    !is_cordoned(node)
        && taint(node, "lifeboat.dev/rebalance") == Some("PreferNoSchedule")
        && taint(node, "lifeboat.dev/interruption").is_none()
        && standing(node).is_some_and(|standing| standing["hard"] == false)
}

/// Nothing of ours is on it.
pub fn is_clean(node: &Value) -> bool {
    !is_cordoned(node)
        && node.pointer("/metadata/annotations/lifeboat.dev~1evacuation").is_none()
        && taint(node, "lifeboat.dev/interruption").is_none()
        && taint(node, "lifeboat.dev/rebalance").is_none()
}

/// The node in a few words, for a failure's message.
pub fn describe_node(node: &Value) -> String {
    let taints = node.pointer("/spec/taints").cloned().unwrap_or_default();
    format!(
        "{}: cordoned {}, taints {taints}, standing {}",
        text(node, "/metadata/name"),
        is_cordoned(node),
        standing(node).unwrap_or_default()
    )
}

/// Waits until the node's object is so.
pub async fn node_is(
    bed: &Testbed,
    name: &str,
    what: &str,
    limit: std::time::Duration,
    is_so: impl Fn(&Value) -> bool,
) -> Result<Value> {
    bed.until(&format!("{name} to be {what}"), limit, async |bed| {
        let node = node_object(bed, name).await?;
        if is_so(&node) {
            return Ok(Some(node));
        }
        anyhow::bail!("{}", describe_node(&node))
    })
    .await
}

/// The millisecond figure in a standing.
pub fn millis(standing: &Value, field: &str) -> Result<u64> {
    standing[field].as_u64().with_context(|| format!("{field} is not in {standing}"))
}

/// The objects of a workload whose key has this part: `/gen/`, `/pack/`, `/manifest/`.
pub fn stored(bed: &Testbed, app: &str, part: &str) -> Result<Vec<Object>> {
    let mut objects = bed.objects()?;
    objects.retain(|object| object.key.contains(&format!("/default/{app}/")) && object.key.contains(part));
    objects.sort_by_key(|object| object.at);
    Ok(objects)
}

/// The evictions and deletions of pods that agents asked for since then, in namespace `default`.
pub fn removals(bed: &Testbed, since: Timestamp) -> Result<Vec<Entry>> {
    let mut entries = bed.audit()?;
    entries.retain(|entry| {
        entry.by_agent()
            && (entry.is_eviction() || entry.is_pod_deletion())
            && entry.namespace == "default"
            && entry.at >= since
    });
    Ok(entries)
}

/// A removal in a few words, for a failure's message.
pub fn describe_removals(removals: &[Entry]) -> String {
    let line = |entry: &Entry| format!("{} {} {} {}", entry.at, entry.verb, entry.name, entry.code);
    removals.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// An object's metadata without what changes with every write.
pub fn lasting_metadata(object: &Value) -> Value {
    let mut metadata = object["metadata"].clone();
    if let Some(fields) = metadata.as_object_mut() {
        fields.remove("managedFields");
        fields.remove("resourceVersion");
    }
    metadata
}

/// Everything about a node that a person or a controller could see, but for heartbeats.
pub async fn everything_of_node(bed: &Testbed, name: &str) -> Result<Value> {
    let node = node_object(bed, name).await?;
    Ok(json!({"metadata": lasting_metadata(&node), "spec": node["spec"]}))
}
