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

/// Engines that later versions speak to (design §6).
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
    KNOWN.into_iter().min_by_key(|known| edits(name, known)).unwrap_or(KNOWN[0])
}

/// Levenshtein distance, of the first 64 characters (an annotation's name has at most 63).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let replace = previous[j] + usize::from(from != *to);
            row.push(replace.min(previous[j + 1] + 1).min(row[j] + 1));
        }
        previous = row;
    }
    previous.last().copied().unwrap_or(0)
}
