//! Everything that can happen, as the core sees it.
//!
//! Decides nothing: words only. It must not know where any of it comes from.

use crate::effect::EffectId;
use crate::moment::Span;
use crate::notice::{ActiveNotice, Notice};
use crate::pod::{PodFacts, PodUid};
use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[derive(strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The agent has started, in this boot of its instance. Always the first event of a life; all others come in any
    /// order.
    AgentStarted {
        /// The kernel's boot id (`/proc/sys/kernel/random/boot_id`).
        boot: String,
        /// How long the instance has slept in this boot: it woke at some moment before this one.
        #[serde(default)]
        slept: Span,
    },
    /// The instance was frozen (hibernated) and runs again, in the same boot: noticed before anything else that happens
    /// after it, at most a heartbeat of the shell late.
    Resumed {
        /// For how long its boot clock counted and its timers stood still.
        slept: Span,
    },
    /// The node object was read for the first time in this life.
    NodeRead(NodeFacts),
    /// The node object as it is now.
    NodeUpdated(NodeFacts),
    /// A pod of this node as it is now.
    PodUpdated(Box<PodFacts>),
    /// A pod of this node is no more.
    PodRemoved(PodUid),
    /// Every pod of the node was seen: the end of the first list.
    PodsListed,
    /// IMDS answers, or does not.
    ImdsReachable {
        /// It does.
        reachable: bool,
    },
    /// IMDS shows a notice.
    NoticeReceived(Notice),
    /// IMDS no longer shows the notice of this id, or says that it is completed or canceled.
    NoticeWithdrawn {
        /// The notice's id.
        id: String,
        /// IMDS says so: nothing is waited for before it is undone.
        #[serde(default)]
        is_over: bool,
    },
    /// An effect's answer.
    Answered {
        /// Which effect.
        id: EffectId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Something of what this effect fetches has come since that was last said. Not an answer.
    BytesCame {
        /// Which effect.
        id: EffectId,
    },
    /// The uplink carries this much, as last measured.
    LinkMeasured {
        /// Bytes per second.
        bytes_per_second: u64,
    },
    /// Somebody wants every engine's state saved once, while it serves (`lifeboat drill --save-only`).
    PreCopyRequested,
    /// The moment the core asked to be woken at has come.
    TimerFired,
}

impl Event {
    /// Every name that [`Event::name`] gives: for metric labels and coverage.
    pub const NAMES: &'static [&'static str] = <Self as strum::VariantNames>::VARIANTS;

    /// The event's name, for metrics and coverage.
    pub fn name(&self) -> &'static str {
        self.into()
    }
}

/// The own node, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// Our taint (hard or soft) is on it.
    pub tainted: bool,
    /// Our annotation, if it has one.
    pub active_notice: Option<ActiveNotice>,
    /// The ids of the scheduled events for which it was emptied before its instance began to run again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<String>,
}

/// How an effect ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is done.
    Done(Done),
    /// It failed.
    Failed {
        /// In which way.
        kind: FailureKind,
        /// For people.
        why: String,
    },
    /// Its deadline came first.
    TimedOut,
    /// Its task panicked.
    Panicked,
}

/// The ways to fail, closed: the shell classifies, the core decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// A PodDisruptionBudget forbids it now; or a claim is held by another.
    Refused,
    /// The server asks for fewer requests.
    Throttled,
    /// Nothing answered: refused, no such name, no TLS, no credentials, or no answer in time.
    Unreachable,
    /// It may work the next time.
    Transient,
    /// It will not work the next time either.
    Permanent,
    /// What it was about is gone. For an eviction that is success.
    NotFound,
    /// What was read is not what was written; or it does not fit.
    Mismatch,
    /// What a commit would name is being removed as garbage: it has to be saved again under other names.
    Endangered,
}

impl FailureKind {
    /// Every kind, for coverage.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// A metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

const fn yes() -> bool {
    true
}

/// What a successful effect found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// Nothing but success.
    Nothing,
    /// Answer to `WriteIntent`.
    IntentWritten {
        /// The intent of this very departure says that it was kept already (the agent was
        /// restarted after the commit): the generation, and the bytes of state it holds.
        committed: Option<(String, u64)>,
        /// Something shows with which weights that was made.
        #[serde(default = "yes")]
        evidence: bool,
    },
    /// Answer to `InspectEngine`.
    Inspected {
        /// Bytes of state that a final flush would write.
        state_bytes: u64,
        /// It is working on a request.
        busy: bool,
        /// Why engines that take its state will probably not use it: they did not before.
        #[serde(default)]
        doubt: Option<String>,
    },
    /// Answer to `Flush`.
    Flushed {
        /// Bytes of state in the volume.
        bytes: u64,
        /// Something shows with which weights it was made: without that no other engine may be given it.
        #[serde(default = "yes")]
        evidence: bool,
    },
    /// Answer to `Save`.
    Saved {
        /// Bytes of state that are in the store.
        bytes: u64,
        /// Bytes that were sent for it.
        sent: u64,
        /// What of it is missing, and why. What is there may be committed as partial.
        left_out: Option<String>,
        /// The newest generation of the same lineage, where one is known, and the bytes of state it holds. It may be of an
        /// earlier life of the agent.
        #[serde(default)]
        newest: Option<(String, u64)>,
    },
    /// Answer to `ProbeEngine`: the engine has shown its weights.
    Probed,
    /// Answer to `Commit`.
    Committed {
        /// `lineage/epoch-n`.
        generation: String,
        /// Bytes of state it holds.
        bytes: u64,
    },
    /// Answer to `FindLineage`.
    Lineages {
        /// The lineages of the pod's workload.
        candidates: Vec<Candidate>,
        /// Why one of them that is taken will be free soon, if one will: the pod that claimed it is gone.
        worth_waiting_for: Option<String>,
    },
    /// Answer to `Claim`.
    Claimed {
        /// The epoch under which the holder writes.
        epoch: u64,
        /// The pod held it already, by an earlier life of the agent, which may have given its engine the state.
        #[serde(default)]
        resumed: bool,
    },
    /// Answer to `Prefetch`, `Fetch` and `ReloadLocal`.
    Fetched {
        /// Bytes of state.
        bytes: u64,
    },
    /// Answer to `ImportState`: tokens the engine took.
    Tokens {
        /// How many; `None` where the engine does not tell.
        count: Option<u64>,
    },
    /// Answer to `Verify`.
    Verified(Verification),
    /// Answer to `CheckFingerprint`: the fingerprints are the same.
    FingerprintMatches {
        /// Bytes of state that the engine already holds.
        state_bytes: u64,
    },
}

/// Whether an engine uses the state that it took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verification {
    /// It does.
    Used {
        /// Tokens that it showed in its cache.
        tokens: u64,
    },
    /// It was asked, and it does not.
    NotUsed {
        /// What it showed, for people.
        why: String,
    },
    /// It could not be asked, or its answer says neither.
    NotShown {
        /// Why, for people.
        why: String,
    },
}

/// A lineage of the pod's workload, seen by `FindLineage`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its id.
    pub lineage: String,
    /// It carries the pod's own stable name (StatefulSet).
    pub own_name: bool,
    /// Its spec key is the pod's.
    pub spec_matches: bool,
    /// Its committed generations, newest first.
    pub generations: Vec<String>,
    /// When the newest was committed, milliseconds of Unix time by the store's clock: order only.
    pub newest_unix_ms: u64,
    /// What is known of the pod that wrote it.
    pub source: Source,
    /// Its intent.
    pub intent: IntentState,
    /// Somebody else holds a claim on it that has not run out, or has restored it.
    pub taken: bool,
}

/// The pod that wrote a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// It lives: the lineage is nobody else's.
    Living,
    /// An intent or a report says that it leaves.
    Leaving,
    /// There is no such pod any more.
    Gone,
}

/// An intent, as a replacement sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentState {
    /// There is none, or it was kept: what was announced is committed.
    None,
    /// A checkpoint is coming, for this much longer.
    Coming {
        /// Time left by the store's clock.
        left: Span,
    },
    /// Nothing will come, or it is overdue.
    Abandoned,
}
