//! Which readiness gates nobody else will open: those of pods on a node where no agent lives.
//!
//! Decides, and does nothing: [`OrphanedGates::handle`] takes what is so now and says which gates to open. It must not know
//! about the API server or about who leads.
//!
//! ```text
//!            no ready agent there             stood for `after`            opened
//!   (none) ───────────────────────► waiting ────────────────────► asked ──────────► done
//!     ▲                               │  ▲                           │
//!     └── agent ready, gate open, gone┘  └───── failed: after RETRY ─┘
//! ```

use crate::pods::PodRef;
use evacuation::moment::{Moment, Span};
use evacuation::pod::PodUid;
use std::collections::{BTreeMap, BTreeSet};

/// After an attempt that failed.
pub const RETRY: Span = Span::from_secs(5);

/// So many gates are being opened at once, however many wait.
pub const AT_ONCE: usize = 16;

/// A pod that is bound to a node and whose gate is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatedPod {
    /// The pod.
    pub pod: PodRef,
    /// Its node.
    pub node: String,
}

/// What is so now, of the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSnapshot {
    /// Pods that wait for somebody to open their gate.
    pub gated: BTreeMap<PodUid, GatedPod>,
    /// Nodes on which an agent is ready.
    pub agents: BTreeSet<String>,
}

/// Open this gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Whose.
    pub gated: GatedPod,
    /// How long no agent has been there.
    pub without_agent: Span,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateOpening {
    /// It is open, or the pod is no more.
    Done,
    /// An agent is there after all: it has the pod, and time begins anew if it goes.
    AgentThere,
    /// It may succeed later.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GateStep {
    /// Until its time has come, or the pause after a failure is over.
    Waiting {
        not_before: Moment,
    },
    Asked,
    Done,
}

#[derive(Clone, Copy, Debug)]
struct OrphanedGate {
    /// The first sight of it with no agent there.
    since: Moment,
    step: GateStep,
}

/// The pods without an agent, and since when.
#[derive(Clone, Debug)]
pub struct OrphanedGates {
    after: Span,
    known: BTreeMap<PodUid, OrphanedGate>,
}

impl OrphanedGates {
    /// Nothing is known yet. `after` is how long a node must have been without an agent.
    pub fn new(after: Span) -> Self {
        Self { after, known: BTreeMap::new() }
    }

    /// What to do now that it is so.
    pub fn handle(&mut self, now: Moment, picture: &ClusterSnapshot) -> Vec<Open> {
        let orphaned = |gated: &GatedPod| !picture.agents.contains(&gated.node);
        self.known.retain(|uid, _| picture.gated.get(uid).is_some_and(orphaned));
        let after = self.after;
        for uid in picture.gated.iter().filter(|(_, gated)| orphaned(gated)).map(|(uid, _)| uid) {
            self.known
                .entry(uid.clone())
                .or_insert(OrphanedGate { since: now, step: GateStep::Waiting { not_before: now + after } });
        }
        let asked = self.known.values().filter(|orphan| orphan.step == GateStep::Asked).count();
        let mut due: Vec<(Moment, PodUid)> = self
            .known
            .iter()
            .filter(
                |(_, orphan)| matches!(orphan.step, GateStep::Waiting { not_before } if now >= not_before),
            )
            .map(|(uid, orphan)| (orphan.since, uid.clone()))
            .collect();
        // Who waited longest comes first.
        due.sort();
        due.truncate(AT_ONCE.saturating_sub(asked));
        let open = |(since, uid): (Moment, PodUid)| {
            let gated = picture.gated.get(&uid)?.clone();
            self.known.get_mut(&uid)?.step = GateStep::Asked;
            Some(Open { gated, without_agent: now.since(since) })
        };
        due.into_iter().filter_map(open).collect()
    }

    /// How an [`Open`] ended. What is no longer known is of no interest.
    pub fn answered(&mut self, now: Moment, uid: &PodUid, answer: GateOpening) {
        let Some(orphan) = self.known.get_mut(uid) else { return };
        match answer {
            // It stays known until the watch shows it, so that it is not asked for again.
            GateOpening::Done => orphan.step = GateStep::Done,
            GateOpening::AgentThere => {
                *orphan =
                    OrphanedGate { since: now, step: GateStep::Waiting { not_before: now + self.after } };
            }
            GateOpening::Failed => orphan.step = GateStep::Waiting { not_before: now + RETRY },
        }
    }

    /// Pods whose gate is closed and on whose node no agent lives.
    pub fn waiting(&self) -> usize {
        self.known.values().filter(|orphan| orphan.step != GateStep::Done).count()
    }
}

#[cfg(test)]
mod tests;
