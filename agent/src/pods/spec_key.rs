//! The spec key: which pods may be restored into which, as far as a template tells.
//!
//! It must be the same for two pods of one revision, wherever they run and whatever admission added
//! to them, and another for a template that says something else to its engine.

use crate::pods::annotations::EngineSettings;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use serde::Serialize;
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

/// What of a template decides whether a state fits. Its JSON is what is hashed, so its fields keep
/// their order and its maps are sorted; a change of either is a new `version`.
#[derive(Serialize)]
struct Distilled<'p> {
    version: u32,
    engine: Option<&'static str>,
    image: Option<&'p str>,
    command: &'p [String],
    args: &'p [String],
    env: BTreeMap<&'p str, &'p str>,
    models: BTreeMap<String, Model<'p>>,
}

/// What a mounted volume refers to outside the pod.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Model<'p> {
    Image(Option<&'p str>),
    Claim(&'p str),
    HostPath(&'p str),
    Nfs(&'p str, &'p str),
    Csi(&'p str, Option<&'p BTreeMap<String, String>>),
    ConfigMap(&'p str),
}

/// BLAKE3 of the distilled template, in hex.
pub(super) fn spec_key(pod: &Pod, settings: Option<&EngineSettings>) -> String {
    let distilled = pod.spec.as_ref().and_then(|spec| distilled(spec, settings));
    // Strings and maps with string keys: writing them as JSON cannot fail.
    let text = serde_json::to_vec(&distilled).unwrap_or_default();
    blake3::hash(&text).to_hex().to_string()
}

fn distilled<'p>(spec: &'p PodSpec, settings: Option<&EngineSettings>) -> Option<Distilled<'p>> {
    let named = settings.map(|settings| settings.container.as_str());
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let container = all.find(|c| Some(c.name.as_str()) == named).or(spec.containers.first())?;
    Some(Distilled {
        version: 1,
        engine: settings.map(|settings| settings.engine.as_str()),
        image: container.image.as_deref(),
        command: container.command.as_deref().unwrap_or_default(),
        args: container.args.as_deref().unwrap_or_default(),
        env: plain_env(container),
        models: models(spec, container),
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
fn models<'p>(spec: &'p PodSpec, container: &'p Container) -> BTreeMap<String, Model<'p>> {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let mounts = container.volume_mounts.iter().flatten();
    let named = mounts.filter_map(|mount| {
        let volume = volumes.iter().find(|volume| volume.name == mount.name)?;
        let path = format!("{}:{}", mount.mount_path, mount.sub_path.as_deref().unwrap_or_default());
        Some((path, model(volume)?))
    });
    named.collect()
}

/// Projected volumes (the service account's token), secrets, downward API and emptyDirs hold no model.
fn model(volume: &Volume) -> Option<Model<'_>> {
    if let Some(image) = &volume.image {
        return Some(Model::Image(image.reference.as_deref()));
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(Model::Claim(&claim.claim_name));
    }
    if let Some(path) = &volume.host_path {
        return Some(Model::HostPath(&path.path));
    }
    if let Some(nfs) = &volume.nfs {
        return Some(Model::Nfs(&nfs.server, &nfs.path));
    }
    if let Some(csi) = &volume.csi {
        return Some(Model::Csi(&csi.driver, csi.volume_attributes.as_ref()));
    }
    volume.config_map.as_ref().map(|config| Model::ConfigMap(&config.name))
}
