//! The spec key: which pods may be restored into which, as far as a template tells (design §7).
//!
//! It must be the same for two pods of one revision, wherever they run and whatever admission added
//! to them, and another for a template that says something else to its engine.

use crate::annotations::EngineSettings;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Plain variables that EKS adds at admission (Pod Identity and IRSA webhooks): they name the
/// account and the region, not the engine.
const INJECTED: [&str; 7] = [
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

/// BLAKE3 of the distilled template, in hex.
pub(super) fn spec_key(pod: &Pod, settings: Option<&EngineSettings>) -> String {
    let distilled = pod.spec.as_ref().map(|spec| distilled(spec, settings)).unwrap_or(Value::Null);
    // serde_json keeps an object's keys sorted, so the text is canonical.
    blake3::hash(distilled.to_string().as_bytes()).to_hex().to_string()
}

fn distilled(spec: &PodSpec, settings: Option<&EngineSettings>) -> Value {
    let named = settings.map(|settings| settings.container.as_str());
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let container = all.into_iter().find(|c| Some(c.name.as_str()) == named).or(spec.containers.first());
    let Some(container) = container else { return Value::Null };
    json!({
        "version": 1,
        "engine": settings.map(|settings| settings.engine.as_str()),
        "image": container.image,
        "command": container.command,
        "args": container.args,
        "env": plain_env(container),
        "models": models(spec, container),
    })
}

/// Variables with a value of their own. Those with `valueFrom` may hold the pod's name, its node or
/// a secret.
fn plain_env(container: &Container) -> BTreeMap<&str, &str> {
    let env = container.env.iter().flatten().filter(|variable| variable.value_from.is_none());
    env.filter(|variable| !INJECTED.contains(&variable.name.as_str()))
        .map(|variable| (variable.name.as_str(), variable.value.as_deref().unwrap_or_default()))
        .collect()
}

/// Where the container's models come from: mounted volumes that name something outside the pod, by
/// mount path. A claim of a StatefulSet's replica carries the replica's name, and so do its lineages.
fn models(spec: &PodSpec, container: &Container) -> BTreeMap<String, Value> {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let mounts = container.volume_mounts.iter().flatten();
    let named = mounts.filter_map(|mount| {
        let volume = volumes.iter().find(|volume| volume.name == mount.name)?;
        let path = format!("{}:{}", mount.mount_path, mount.sub_path.as_deref().unwrap_or_default());
        Some((path, model(volume)?))
    });
    named.collect()
}

/// What a volume refers to. Projected volumes (the service account's token), secrets, downward API
/// and emptyDirs hold no model.
fn model(volume: &Volume) -> Option<Value> {
    if let Some(image) = &volume.image {
        return Some(json!({ "image": image.reference }));
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(json!({ "claim": claim.claim_name }));
    }
    if let Some(path) = &volume.host_path {
        return Some(json!({ "hostPath": path.path }));
    }
    if let Some(nfs) = &volume.nfs {
        return Some(json!({ "nfs": [nfs.server, nfs.path] }));
    }
    if let Some(csi) = &volume.csi {
        return Some(json!({ "csi": csi.driver, "attributes": csi.volume_attributes }));
    }
    let config = volume.config_map.as_ref()?;
    Some(json!({ "configMap": config.name }))
}
