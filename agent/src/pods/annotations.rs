//! What a pod's owner says about it: the `lifeboat.dev/*` annotations.
//!
//! Everything that is wrong is collected, each as one line that names the annotation and the fix; a
//! pod with anything wrong is treated as stateless, because a guess about its engine could end a
//! generation or restore into the wrong place. Nothing here comes from another namespace: the
//! namespace is the pod's own and no annotation changes it.

mod known;
mod placement;
mod value;

use engines::EngineKind;
use evacuation::moment::Span;
use evacuation::names::PREFIX;
use evacuation::pod::{DaemonDrain, EvictWhen, OnDelete, RestoreMode, Role};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::path::PathBuf;

pub use known::KNOWN;

/// The longest a final flush may take where the pod says nothing else.
pub const DEFAULT_FLUSH_TIMEOUT: Span = Span::from_secs(30);

/// The emptyDir in which the engine keeps its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateVolume {
    /// The volume's name in the pod: the directory's name on the node.
    pub name: String,
    /// Where the stateful container sees it.
    pub mount_path: PathBuf,
    /// `emptyDir.sizeLimit` in bytes: the kubelet evicts a pod whose volume is larger.
    pub size_limit: Option<u64>,
    /// `emptyDir.medium: Memory`: a tmpfs, mounted only in the kubelet's mount namespace.
    pub in_memory: bool,
}

/// A valid opt-in: everything the executor needs to talk to the pod's engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// Which engine.
    pub engine: EngineKind,
    /// When the pod is evicted.
    pub evict: EvictWhen,
    /// The port on the pod's IP, plain HTTP.
    pub port: u16,
    /// The stateful container: its image and restarts count.
    pub container: String,
    /// Where the state lies; `None` where the engine streams it.
    pub state_volume: Option<StateVolume>,
    /// A file with a bearer token, relative to the state volume.
    pub auth_file: Option<PathBuf>,
    /// The longest a final flush may take.
    pub flush_timeout: Span,
    /// Period of pre-copies without any notice.
    pub interval: Option<Span>,
    /// No more than this is saved, in bytes.
    pub max_bytes: Option<u64>,
    /// How state is put back.
    pub restore: RestoreMode,
    /// What another's deletion means.
    pub on_delete: OnDelete,
    /// Replaces the workload's name in the store.
    pub state_key: Option<String>,
    /// The user's word that what carries the same key is compatible.
    pub compat_key: Option<String>,
}

/// `lifeboat.dev/drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// A DaemonSet's pod leaves like any other.
    Early,
    /// A DaemonSet's pod leaves in the last seconds.
    Late,
    /// A pod without a controller may go.
    Yes,
}

impl Drain {
    /// What it means for a DaemonSet's pod.
    pub const fn for_daemon(self) -> DaemonDrain {
        match self {
            Drain::Early | Drain::Yes => DaemonDrain::Early,
            Drain::Late => DaemonDrain::Late,
        }
    }
}

/// All that a pod's annotations say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Its part in a rollout; `Active` where nothing valid is said.
    pub role: Role,
    /// When it leaves, for DaemonSets and bare pods.
    pub drain: Option<Drain>,
    /// The engine; `None` where the pod did not opt in, or anything at all is wrong.
    pub engine: Option<EngineSettings>,
    /// What is wrong.
    pub errors: Vec<AnnotationError>,
}

/// One annotation that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[error("{annotation}: {value:?} {problem}; {fix}. The pod is treated as stateless until then")]
pub struct AnnotationError {
    /// Its full name.
    pub annotation: String,
    /// The value it has (the first 64 characters).
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub fix: String,
}

/// Reads a pod's annotations.
pub fn read(pod: &Pod) -> Annotations {
    let none = BTreeMap::new();
    let all = pod.metadata.annotations.as_ref().unwrap_or(&none);
    let mut reader = Reader::new(all);
    let role = reader.choice("role", &known::ROLES).unwrap_or_default();
    let drain = placement::drain(&mut reader, pod);
    let engine = placement::engine(&mut reader, pod);
    reader.reject_unknown();
    let errors = reader.errors;
    Annotations { role, drain, engine: engine.filter(|_| errors.is_empty()), errors }
}

/// Takes values out of a pod's annotations and collects what is wrong with them.
struct Reader<'a> {
    all: &'a BTreeMap<String, String>,
    errors: Vec<AnnotationError>,
}

impl<'a> Reader<'a> {
    fn new(all: &'a BTreeMap<String, String>) -> Self {
        Self { all, errors: Vec::new() }
    }

    /// The raw value of `lifeboat.dev/<name>`.
    fn raw(&self, name: &str) -> Option<&'a str> {
        self.all.get(&format!("{PREFIX}{name}")).map(String::as_str)
    }

    fn wrong(&mut self, name: &str, problem: impl Into<String>, fix: impl Into<String>) {
        let value = self.raw(name).unwrap_or_default().chars().take(64).collect();
        self.errors.push(AnnotationError {
            annotation: format!("{PREFIX}{name}"),
            value,
            problem: problem.into(),
            fix: fix.into(),
        });
    }

    /// A value that `parse` understands; its error is `(problem, fix)`.
    fn parsed<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, (String, String)>,
    ) -> Option<T> {
        match parse(self.raw(name)?) {
            Ok(value) => Some(value),
            Err((problem, fix)) => {
                self.wrong(name, problem, fix);
                None
            }
        }
    }

    /// One of a closed set.
    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        self.parsed(name, |value| value::choice(value, choices))
    }

    /// Every `lifeboat.dev/` annotation that means nothing: most often a slip of the pen.
    fn reject_unknown(&mut self) {
        let unknown: Vec<&str> = self
            .all
            .keys()
            .filter_map(|key| key.strip_prefix(PREFIX))
            .filter(|name| !KNOWN.contains(name))
            .collect();
        for name in unknown {
            let nearest = known::nearest(name);
            self.wrong(
                name,
                "belongs to no annotation that lifeboat knows",
                format!("write {PREFIX}{nearest}, or remove it"),
            );
        }
    }
}

#[cfg(test)]
mod tests;
