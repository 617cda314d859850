//! What the core knows of a pod. The shell distils it from the API object and the annotations;
//! the core never sees Kubernetes types.
//!
//! Decides who stays and who can be held, by what is known of the pod alone. It must not know the time, or other pods.

use crate::moment::{Moment, Span};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A pod's uid: the key under which everything about it is kept. A StatefulSet pod that is created
/// again has the same name and another uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodUid(pub String);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The part a pod plays in a rollout. Rank within one priority follows the order here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves, or nothing is known of it.
    #[default]
    Active,
    /// A preview of a blue-green rollout.
    Preview,
    /// A canary.
    Canary,
    /// Scaled but without traffic.
    Idle,
    /// Receives mirrored traffic only: nobody waits for its answers. Shed at once.
    Shadow,
    /// Work that is repeated by its controller. Shed at once.
    Batch,
    /// Holds capacity for others. Shed at once.
    Placeholder,
}

impl Role {
    /// Shed at the notice, with nothing saved.
    pub const fn is_shed(self) -> bool {
        matches!(self, Role::Shadow | Role::Batch | Role::Placeholder)
    }
}

/// When a DaemonSet's pod leaves (`lifeboat.dev/drain` on its pods, or the configured selector).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DaemonDrain {
    /// Stays until the node dies: CNI, CSI, device plugins, this agent.
    #[default]
    Stay,
    /// Leaves like any other pod.
    Early,
    /// Leaves in the last seconds: log shippers.
    Late,
}

/// Who owns the pod, as far as that decides how it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// A mirror pod: the kubelet owns it, the API cannot evict it.
    Static,
    /// Succeeded or Failed: it runs nothing any more.
    Finished,
    /// No controller: nobody will create it again.
    Bare {
        /// Its owner said that it may go (`lifeboat.dev/drain: "true"`, or the configuration).
        may_go: bool,
    },
    /// A DaemonSet.
    Daemon {
        /// When it leaves.
        drain: DaemonDrain,
        /// It tolerates every taint: its controller would bring it straight back.
        tolerates_all: bool,
    },
    /// A StatefulSet: no replacement before the old name is gone.
    Named,
    /// Any other controller: a replacement is created as soon as this pod is terminating.
    #[default]
    Replicated,
}

/// `lifeboat.dev/evict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvictWhen {
    /// First where the pod can wait inside its own eviction, last otherwise.
    #[default]
    Auto,
    /// Evicted at the notice and held until its state is committed.
    First,
    /// Evicted after its state is committed.
    Last,
}

/// `lifeboat.dev/restore`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestoreMode {
    /// The pod is not ready before its restore is decided.
    #[default]
    Gate,
    /// The pod may serve while its state arrives.
    Background,
    /// Nothing is restored.
    Off,
}

/// `lifeboat.dev/on-delete`: what happens when somebody else deletes the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDelete {
    /// Its state is saved within its own grace.
    #[default]
    Save,
    /// It may end at once.
    Release,
}

/// The engine of an opted-in pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineFacts {
    /// Every ordinary container waits for the hold file in its preStop.
    pub holds: bool,
    /// `lifeboat.dev/evict`.
    pub evict: EvictWhen,
    /// The longest a final flush may take (`lifeboat.dev/flush-timeout`).
    pub flush_timeout: Span,
    /// Period of pre-copies without any notice (`lifeboat.dev/interval`).
    pub interval: Option<Span>,
    /// What another's deletion means.
    pub on_delete: OnDelete,
    /// How state is put back.
    pub restore: RestoreMode,
}

impl Default for EngineFacts {
    /// What a pod says that says no more than `lifeboat.dev/engine`.
    fn default() -> Self {
        Self {
            holds: false,
            evict: EvictWhen::default(),
            flush_timeout: Span::from_secs(30),
            interval: None,
            on_delete: OnDelete::default(),
            restore: RestoreMode::default(),
        }
    }
}

/// One pod of this node.
///
/// Written down by hand, for a plan, it needs a name only: the rest is that of an ordinary pod of a Deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodFacts {
    /// Its uid.
    #[serde(default)]
    pub uid: PodUid,
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The value of its PriorityClass (`spec.priority`), 0 where it has none.
    #[serde(default)]
    pub priority: i32,
    /// Its part in a rollout.
    #[serde(default)]
    pub role: Role,
    /// Who owns it.
    #[serde(default)]
    pub owner: Owner,
    /// `terminationGracePeriodSeconds`; the API server's default is 30 s.
    #[serde(default = "thirty_seconds")]
    pub grace: Span,
    /// It is being deleted, by whomever: when its own grace ends.
    #[serde(default)]
    pub terminating: Option<Moment>,
    /// The engine's container runs; of a pod without an engine, its first one.
    #[serde(default = "yes")]
    pub running: bool,
    /// It is opted in, and its annotations are valid.
    #[serde(default)]
    pub engine: Option<EngineFacts>,
    /// The condition `lifeboat.dev/restored` is decided: nothing is restored into it any more.
    #[serde(default = "yes")]
    pub restore_decided: bool,
    /// How often its engine's container was restarted: another number is another life, which begins with nothing.
    #[serde(default)]
    pub restarts: u32,
}

const fn thirty_seconds() -> Span {
    Span::from_secs(30)
}

const fn yes() -> bool {
    true
}

impl PodFacts {
    /// It can wait inside its own eviction for its save.
    pub fn can_be_held(&self) -> bool {
        let Some(engine) = &self.engine else { return false };
        match (self.owner, engine.evict) {
            // No replacement is created before the old name is gone: nothing would overlap.
            (Owner::Named, _) | (_, EvictWhen::Last) => false,
            (
                Owner::Replicated
                | Owner::Bare { .. }
                | Owner::Daemon { .. }
                | Owner::Static
                | Owner::Finished,
                EvictWhen::Auto | EvictWhen::First,
            ) => engine.holds && !self.serves_to_the_end(),
        }
    }

    /// `namespace/name`, for people.
    pub fn display_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// It runs on this node until the node dies, for this reason; `None` if it is to leave.
    pub fn stays(&self) -> Option<&'static str> {
        match self.owner {
            Owner::Static => Some("static pod: only the kubelet can end it"),
            Owner::Finished => Some("finished"),
            Owner::Bare { may_go: false } => {
                Some("no controller would create it again: set lifeboat.dev/drain: \"true\" to let it go")
            }
            Owner::Daemon { drain: DaemonDrain::Stay, .. } => Some("DaemonSet pod"),
            Owner::Daemon { tolerates_all: true, .. } => {
                Some("cannot leave: its DaemonSet tolerates every taint and would bring it back")
            }
            Owner::Bare { may_go: true }
            | Owner::Daemon { drain: DaemonDrain::Early | DaemonDrain::Late, tolerates_all: false }
            | Owner::Named
            | Owner::Replicated => None,
        }
    }

    /// It is not evicted and has an engine: what that holds is lost with the node, unless it is saved while the pod
    /// serves. A mirror pod is the kubelet's own and is left alone.
    pub fn serves_to_the_end(&self) -> bool {
        let stays = match self.owner {
            Owner::Bare { may_go } => !may_go,
            Owner::Daemon { .. } => self.stays().is_some(),
            Owner::Static | Owner::Finished | Owner::Named | Owner::Replicated => false,
        };
        stays && self.engine.is_some() && self.terminating.is_none()
    }

    /// A DaemonSet's: a new one comes in its place wherever it is not kept away.
    pub fn is_daemon(&self) -> bool {
        matches!(self.owner, Owner::Daemon { .. })
    }

    /// It leaves in the last seconds.
    pub fn is_late(&self) -> bool {
        matches!(self.owner, Owner::Daemon { drain: DaemonDrain::Late, .. })
    }
}
