//! The annotations there are.

use evacuation::pod::{EvictWhen, OnDelete, RestoreMode, Role};

/// Every annotation that a pod may carry, without the prefix.
pub const KNOWN: [&str; 17] = [
    "auth-file",
    "compat-key",
    "container",
    "drain",
    "engine",
    "evict",
    "flush-timeout",
    "inject",
    "interval",
    "max-bytes",
    "on-delete",
    "port",
    "restore",
    "role",
    "scheme",
    "state-key",
    "state-volume",
];

/// Those that mean nothing without `engine`.
pub(super) const NEED_ENGINE: [&str; 14] = [
    "auth-file",
    "compat-key",
    "container",
    "evict",
    "flush-timeout",
    "inject",
    "interval",
    "max-bytes",
    "on-delete",
    "port",
    "restore",
    "scheme",
    "state-key",
    "state-volume",
];

/// Engines that this version does not speak to, but that a user may expect: the error names what works instead.
pub(super) const LATER_ENGINES: [&str; 4] = ["lmcache", "sglang", "triton", "vllm"];

/// `lifeboat.dev/role`. A stable pod of a rollout is an active one.
pub(super) const ROLES: [(&str, Role); 8] = [
    ("active", Role::Active),
    ("stable", Role::Active),
    ("preview", Role::Preview),
    ("canary", Role::Canary),
    ("idle", Role::Idle),
    ("shadow", Role::Shadow),
    ("batch", Role::Batch),
    ("placeholder", Role::Placeholder),
];

/// `lifeboat.dev/evict`.
pub(super) const EVICT: [(&str, EvictWhen); 3] =
    [("auto", EvictWhen::Auto), ("first", EvictWhen::First), ("last", EvictWhen::Last)];

/// `lifeboat.dev/restore`.
pub(super) const RESTORE: [(&str, RestoreMode); 3] =
    [("gate", RestoreMode::Gate), ("background", RestoreMode::Background), ("off", RestoreMode::Off)];

/// `lifeboat.dev/inject`: read by the policy lifeboat-opt-in (manifests/base/admission.yaml) when the pod is created. It
/// means nothing to the agent.
pub(super) const INJECT: [(&str, ()); 3] = [("all", ()), ("no-hold", ()), ("off", ())];

/// `lifeboat.dev/on-delete`.
pub(super) const ON_DELETE: [(&str, OnDelete); 2] =
    [("save", OnDelete::Save), ("release", OnDelete::Release)];

/// The known name that takes the fewest edits from `name`.
pub(super) fn nearest(name: &str) -> &'static str {
    // An annotation's name has at most 63 characters.
    let name: String = name.chars().take(64).collect();
    KNOWN.into_iter().min_by_key(|known| strsim::levenshtein(&name, known)).unwrap_or(KNOWN[0])
}
