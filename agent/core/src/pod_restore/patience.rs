//! How long a restore goes on waiting, by what it has heard.
//!
//! Decides when the gate is opened without the state, and with which reason. It must not know what is asked next.

use super::RestoreStep;
use crate::effect::RestoreOutcome;
use crate::event::{Candidate, FailureKind, IntentState, Outcome};
use crate::moment::Moment;
use crate::open_effects::Context;

/// What a restore has heard so far, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience {
    /// The first sight of the pod.
    began: Moment,
    /// The store has answered one of its looks.
    answered: bool,
    /// It has not answered the last one.
    silent: bool,
    /// What the last answer said that was none, or meant "later".
    failure: Option<String>,
    /// When something of what it has claimed was last heard of.
    heard: Moment,
    /// From then on the announced checkpoint is overdue.
    due: Option<Moment>,
}

/// When the waiting ends, and what is said of it.
pub(super) struct Limit {
    pub(super) by: Moment,
    pub(super) outcome: RestoreOutcome,
}

impl Patience {
    pub(super) fn new(now: Moment) -> Self {
        Self { began: now, heard: now, ..Self::default() }
    }

    pub(super) const fn began(&self) -> Moment {
        self.began
    }

    /// What went wrong last, in the words of whoever was asked.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Something has come.
    pub(super) const fn bytes_came(&mut self, now: Moment) {
        self.heard = now;
    }

    /// A look at the lineages, or the request for a claim, has ended.
    pub(super) fn looked(&mut self, outcome: &Outcome, now: Moment) {
        match outcome {
            Outcome::Failed { kind: FailureKind::Unreachable, why } => {
                (self.silent, self.failure) = (true, Some(why.clone()));
            }
            Outcome::TimedOut => self.silent = true,
            Outcome::Panicked => {}
            Outcome::Failed { why, .. } => {
                self.failure = Some(why.clone());
                self.heard_of(now);
            }
            Outcome::Done(_) => {
                self.failure = None;
                self.heard_of(now);
            }
        }
    }

    const fn heard_of(&mut self, now: Moment) {
        (self.answered, self.silent, self.heard) = (true, false, now);
    }

    /// The announced checkpoint is overdue, and the store is there: what was committed before it can be had.
    pub(super) fn is_overdue(&self, now: Moment) -> bool {
        !self.silent && self.due.is_some_and(|due| due <= now)
    }

    /// How the intent of the chosen lineage stands.
    pub(super) fn announced(&mut self, chosen: &Candidate, now: Moment) {
        self.due = match chosen.intent {
            IntentState::Coming { left } => Some(now + left),
            IntentState::None | IntentState::Abandoned => None,
        };
    }

    /// When it gives up in `step`.
    pub(super) fn limit(&self, step: &RestoreStep, ctx: &Context<'_>) -> Limit {
        let policy = ctx.policy;
        let (soon, outcome) = match step {
            RestoreStep::Find | RestoreStep::Claim if self.answered => {
                (Some(self.began + policy.find_patience), RestoreOutcome::TimedOut)
            }
            RestoreStep::Find | RestoreStep::Claim => {
                let alone = self.began + policy.find_timeout;
                // Whoever has just come asks for itself, too: the store may be back.
                let known_away = ctx.store.silent_since().map(|since| {
                    (since + policy.find_timeout).max(self.began + policy.find_timeout_known_away)
                });
                let by = known_away.map_or(alone, |known_away| known_away.min(alone));
                (Some(by), RestoreOutcome::StoreUnreachable)
            }
            RestoreStep::AwaitCommit => {
                let silent = self.heard + policy.restore_stall;
                // Time for one more look: it may have been committed in the last moment.
                let overdue = self.due.map(|due| due + policy.call_timeout);
                (Some(overdue.map_or(silent, |overdue| overdue.min(silent))), RestoreOutcome::TimedOut)
            }
            RestoreStep::Fetch => (Some(self.heard + policy.restore_stall), RestoreOutcome::TimedOut),
            RestoreStep::Idle
            | RestoreStep::CheckFingerprint
            | RestoreStep::ImportState
            | RestoreStep::Verify
            | RestoreStep::Finish
            | RestoreStep::Open { .. }
            | RestoreStep::Decided => (None, RestoreOutcome::TimedOut),
        };
        let last = self.began + policy.restore_timeout;
        match soon.filter(|soon| *soon < last) {
            Some(by) => Limit { by, outcome },
            None => Limit { by: last, outcome },
        }
    }
}
