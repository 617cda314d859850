//! Annotations that mean something only against the pod they stand on: its containers, its volumes,
//! its owner.

use super::{DEFAULT_FLUSH_TIMEOUT, Drain, EngineSettings, Reader, StateVolume, known, value};
use crate::pods::workload::controller;
use engines::EngineKind;
use evacuation::moment::Span;
use evacuation::names::PREFIX;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::path::PathBuf;

/// A flush that takes longer than this is none: a notice leaves two minutes.
const LONGEST_FLUSH: Span = Span::from_secs(600);
const LONGEST_INTERVAL: Span = Span::from_secs(24 * 3600);

/// `lifeboat.dev/drain`.
pub(super) fn drain(reader: &mut Reader<'_>, pod: &Pod) -> Option<Drain> {
    let values = [("early", Drain::Early), ("late", Drain::Late), ("true", Drain::Yes)];
    let drain = reader.choice("drain", &values)?;
    let daemon = controller(pod).is_some_and(|owner| owner.kind == "DaemonSet");
    match drain {
        Drain::Early | Drain::Late if !daemon => {
            reader.wrong(
                "drain",
                "is for pods of a DaemonSet",
                "remove it, or use \"true\" on a pod without controller",
            );
            None
        }
        Drain::Yes if daemon => {
            reader.wrong("drain", "says not when a DaemonSet's pod leaves", "use early or late");
            None
        }
        Drain::Early | Drain::Late | Drain::Yes => Some(drain),
    }
}

/// Everything about the engine. What is wrong is left with the reader; the settings count only if
/// that is nothing.
pub(super) fn engine(reader: &mut Reader<'_>, pod: &Pod) -> Option<EngineSettings> {
    if reader.raw("engine").is_none() {
        for name in known::NEED_ENGINE {
            if reader.raw(name).is_some() {
                reader.wrong(name, "means nothing on a pod without an engine", format!("add {PREFIX}engine"));
            }
        }
        return None;
    }
    let spec = pod.spec.as_ref()?;
    let engine = engine_kind(reader);
    reader.parsed("scheme", |scheme| match scheme {
        "http" => Ok(()),
        "https" => Err((
            "is not supported by this version".to_owned(),
            "use http: the engine is called on its own node, and lifeboat.dev/auth-file authenticates the call".to_owned(),
        )),
        _ => Err(("is not one of its values".to_owned(), "use http".to_owned())),
    });
    reader.choice("inject", &known::INJECT);
    let container = container(reader, spec);
    let asked = engine.is_none_or(EngineKind::has_api);
    let port = if asked { port(reader, container) } else { not_asked(reader) };
    let state_volume = state_volume(reader, spec, container);
    let auth_file = reader.parsed("auth-file", value::relative_path);
    if auth_file.is_some() && reader.raw("state-volume").is_none() {
        reader.wrong(
            "auth-file",
            "lies in the state volume, and there is none",
            format!("add {PREFIX}state-volume"),
        );
    }
    let settings = EngineSettings {
        engine: engine?,
        evict: reader.choice("evict", &known::EVICT).unwrap_or_default(),
        port: port.unwrap_or_default(),
        container: container.map(|container| container.name.clone()).unwrap_or_default(),
        state_volume,
        auth_file,
        flush_timeout: reader
            .parsed("flush-timeout", |text| value::span(text, LONGEST_FLUSH))
            .unwrap_or(DEFAULT_FLUSH_TIMEOUT),
        interval: reader.parsed("interval", |text| value::span(text, LONGEST_INTERVAL)),
        max_bytes: reader.parsed("max-bytes", value::bytes),
        restore: reader.choice("restore", &known::RESTORE).unwrap_or_default(),
        on_delete: reader.choice("on-delete", &known::ON_DELETE).unwrap_or_default(),
        state_key: reader.parsed("state-key", value::name),
        compat_key: reader.parsed("compat-key", value::key),
    };
    let volume_is_for = match settings.engine {
        EngineKind::Http => None,
        EngineKind::LlamaServer => Some((
            "writes its slots to files, and no volume is named for them",
            "the emptyDir that --slot-save-path points into",
        )),
        EngineKind::Files => Some((
            "is a directory, and no volume is named for it",
            "the emptyDir that the engine writes its files to",
        )),
    };
    if let Some((problem, which)) = volume_is_for
        && reader.raw("state-volume").is_none()
    {
        reader.wrong("engine", problem, format!("add {PREFIX}state-volume, {which}"));
    }
    if settings.engine == EngineKind::Files && reader.raw("compat-key").is_none() {
        reader.wrong(
            "engine",
            "is not asked for its weights, and its files do not name them",
            format!("add {PREFIX}compat-key: your word, such as model and revision, that the same word means the same weights"),
        );
    }
    Some(settings)
}

/// What is said about calls to an engine that is never called is a misunderstanding.
fn not_asked(reader: &mut Reader<'_>) -> Option<u16> {
    for name in ["port", "scheme", "auth-file"] {
        if reader.raw(name).is_some() {
            reader.wrong(name, "means nothing to the engine files, which is never called", "remove it");
        }
    }
    None
}

fn engine_kind(reader: &mut Reader<'_>) -> Option<EngineKind> {
    reader.parsed("engine", |name| match name {
        "http" => Ok(EngineKind::Http),
        "llama-server" => Ok(EngineKind::LlamaServer),
        "files" => Ok(EngineKind::Files),
        later if known::LATER_ENGINES.contains(&later) => Err((
            "is not supported by this version".to_owned(),
            "use http with a sidecar that speaks docs/protocol.md, llama-server, or files".to_owned(),
        )),
        _ => Err(("is not an engine".to_owned(), "use http, llama-server or files".to_owned())),
    })
}

/// The stateful container: named, or the first. Native sidecars (init containers that are restarted
/// always, KEP-753) may be named too.
fn container<'p>(reader: &mut Reader<'_>, spec: &'p PodSpec) -> Option<&'p Container> {
    let Some(name) = reader.raw("container") else {
        return spec.containers.first();
    };
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let found = spec.containers.iter().chain(sidecars).find(|container| container.name == name);
    if found.is_none() {
        let names: Vec<&str> = spec.containers.iter().map(|container| container.name.as_str()).collect();
        reader.wrong(
            "container",
            "is not a container of this pod",
            format!("use one of {}", names.join(", ")),
        );
    }
    found
}

fn port(reader: &mut Reader<'_>, container: Option<&Container>) -> Option<u16> {
    if reader.raw("port").is_some() {
        return reader.parsed("port", value::port);
    }
    let container = container?;
    let first =
        container.ports.iter().flatten().next().and_then(|port| u16::try_from(port.container_port).ok());
    if first.is_none() {
        reader.wrong(
            "port",
            format!("is missing, and container {} declares no port", container.name),
            "set it to the port on which the engine answers",
        );
    }
    first
}

fn state_volume(
    reader: &mut Reader<'_>,
    spec: &PodSpec,
    container: Option<&Container>,
) -> Option<StateVolume> {
    const NAME: &str = "state-volume";
    let name = reader.raw(NAME)?;
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let Some(volume) = volumes.iter().find(|volume| volume.name == name) else {
        let empty_dirs = empty_dir_names(volumes);
        reader.wrong(
            NAME,
            "is not a volume of this pod",
            format!("use one of its emptyDir volumes ({empty_dirs})"),
        );
        return None;
    };
    let Some(empty_dir) = &volume.empty_dir else {
        reader.wrong(
            NAME,
            "is not an emptyDir, and this version opens nothing else",
            "keep the state in an emptyDir of the pod",
        );
        return None;
    };
    let container = container?;
    let Some(mount) = container.volume_mounts.iter().flatten().find(|mount| mount.name == name) else {
        reader.wrong(
            NAME,
            format!("is not mounted by container {}", container.name),
            format!("mount it there, or name the container with {PREFIX}container"),
        );
        return None;
    };
    if mount.sub_path.is_some() || mount.sub_path_expr.is_some() {
        // The engine would see another root than the agent does, and .lifeboat/hold would be elsewhere.
        reader.wrong(
            NAME,
            format!("is mounted with subPath by container {}", container.name),
            "mount the whole volume",
        );
        return None;
    }
    Some(StateVolume {
        name: name.to_owned(),
        mount_path: PathBuf::from(&mount.mount_path),
        size_limit: empty_dir.size_limit.as_ref().and_then(quantity_bytes),
        in_memory: empty_dir.medium.as_deref() == Some("Memory"),
    })
}

fn empty_dir_names(volumes: &[Volume]) -> String {
    let names: Vec<&str> = volumes
        .iter()
        .filter(|volume| volume.empty_dir.is_some())
        .map(|volume| volume.name.as_str())
        .collect();
    if names.is_empty() { "it has none".to_owned() } else { names.join(", ") }
}

/// The bytes of a Kubernetes quantity. The API server has normalised it; its suffixes are among
/// those of `bytesize`, but for `m` (thousandths), which no size limit has.
fn quantity_bytes(quantity: &Quantity) -> Option<u64> {
    quantity.0.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64())
}
