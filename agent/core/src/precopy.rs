//! Copying the state of a pod that goes on serving: under a rebalance, before a maintenance, or
//! periodically, because notices are best effort.
//!
//! Decides when a round begins. It must not know what a departure is; a departure cancels it.

use crate::budget;
use crate::effect::{Action, FlushKind, PodAction};
use crate::engine_inspection::EngineInspection;
use crate::event::{Done, FailureKind, Outcome};
use crate::moment::{Moment, Span};
use crate::open_effects::{Attempts, Context, Purpose};
use crate::pod::PodFacts;
use crate::pod_save::RESAVES_MAX;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PreCopyStep {
    #[default]
    Idle,
    Flush,
    Save,
    Commit {
        partial: bool,
    },
}

/// The pre-copy of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct PreCopy {
    step: PreCopyStep,
    tries: Attempts,
    next: Moment,
    /// The commit of the round found packs of it endangered, so often.
    resaves: u32,
    /// Somebody asked for a round, whatever the interval says.
    asked: bool,
    /// The round that is under way, or the last one: when it began, and what it sent.
    began: Moment,
    sent: u64,
    /// What the last round sent that came after another: that much changes between two rounds.
    changes: Option<u64>,
    /// The newest generation of the lineage, and the bytes of state it holds: a round committed it, in this life or an
    /// earlier one.
    pub(crate) committed: Option<(String, u64)>,
    /// Rounds that were committed.
    pub(crate) rounds: u32,
}

impl PreCopy {
    /// A round has begun and is not over.
    pub(crate) fn is_under_way(&self) -> bool {
        self.step != PreCopyStep::Idle
    }

    /// One round is wanted now.
    pub(crate) fn ask(&mut self) {
        self.asked = true;
    }

    /// What was flushed in the round that is under way can still be committed.
    pub(crate) fn is_past_flush(&self) -> bool {
        matches!(self.step, PreCopyStep::Save | PreCopyStep::Commit { .. })
    }

    /// Bytes that a final save of `state` bytes would send: all of it, or what has changed since the last round. Until
    /// two rounds have shown how much that is, a quarter is assumed, and what it has grown by.
    pub(crate) fn to_send(&self, state: u64) -> u64 {
        let Some((_, copied)) = &self.committed else { return state };
        let grown = state.saturating_sub(*copied);
        let changed = self.changes.unwrap_or(state / 4);
        changed.max(grown).min(state)
    }

    /// Goes on with the round; begins one if `every` says so and the last is long enough ago.
    pub(crate) fn advance(
        &mut self,
        pod: &PodFacts,
        every: Option<Span>,
        rank: u64,
        flush_slots: &mut usize,
        ctx: &mut Context<'_>,
    ) {
        if self.tries.open.is_some() {
            return;
        }
        let timeout = pod.engine.as_ref().map_or(Span::ZERO, |engine| engine.flush_timeout);
        let (span, action) = match self.step {
            PreCopyStep::Idle => {
                let due = self.asked || (every.is_some() && ctx.reached_or_wake(self.next));
                if !due || *flush_slots == 0 {
                    return;
                }
                *flush_slots -= 1;
                self.asked = false;
                self.next = every.map_or(self.next, |every| ctx.now + every);
                (self.began, self.sent, self.resaves) = (ctx.now, 0, 0);
                self.step = PreCopyStep::Flush;
                (
                    timeout,
                    Action::Pod {
                        uid: pod.uid.clone(),
                        action: PodAction::Flush { kind: FlushKind::PreCopy },
                    },
                )
            }
            PreCopyStep::Flush => return,
            PreCopyStep::Save => {
                // A round that takes longer than this is no pre-copy any more.
                let span = Span::from_secs(600);
                (
                    span,
                    Action::Pod {
                        uid: pod.uid.clone(),
                        action: PodAction::Save { kind: FlushKind::PreCopy, rank },
                    },
                )
            }
            PreCopyStep::Commit { partial } => {
                if !self.tries.may_start(ctx) {
                    return;
                }
                let action = Action::Pod {
                    uid: pod.uid.clone(),
                    action: PodAction::Commit {
                        kind: FlushKind::PreCopy,
                        partial,
                        without_endangered: false,
                    },
                };
                (ctx.policy.call_timeout, action)
            }
        };
        let attempt = self.tries.next();
        self.tries.open =
            Some(ctx.ask(span, ctx.now + span, attempt, Purpose::PreCopy(pod.uid.clone()), action));
    }

    /// Ends the round that is under way: the final one takes over.
    pub(crate) fn cancel(&mut self, ctx: &mut Context<'_>) {
        if let Some(open) = self.tries.open.take() {
            ctx.effects.cancel(open, ctx.now + ctx.policy.call_timeout);
        }
        self.step = PreCopyStep::Idle;
        self.asked = false;
        self.tries = Attempts::default();
    }

    /// A save says which generation is the newest. An earlier life may have committed it, or an answer was lost.
    pub(crate) fn learns(&mut self, outcome: &Outcome) {
        if let Outcome::Done(Done::Saved { newest: Some(newest), .. }) = outcome {
            self.committed = Some(newest.clone());
        }
    }

    /// Takes an answer.
    pub(crate) fn answered(
        &mut self,
        outcome: Outcome,
        inspection: &mut EngineInspection,
        link: Option<u64>,
        ctx: &mut Context<'_>,
    ) {
        let made = self.tries.made;
        self.tries = Attempts::default();
        self.learns(&outcome);
        match &outcome {
            Outcome::Done(Done::Flushed { bytes, .. }) if self.step == PreCopyStep::Flush => {
                inspection.flushed(*bytes, ctx.now.since(self.began));
            }
            Outcome::Done(Done::Saved { sent, .. }) if self.step == PreCopyStep::Save => {
                self.sent = *sent;
                // No more than its share of the link, whatever the interval says.
                let share = ctx.policy.precopy_share.clamp(1, 100);
                if let Some(rate) = link {
                    let rate = u64::try_from(u128::from(rate) * u128::from(share) / 100).unwrap_or(u64::MAX);
                    self.next = self.next.max(self.began + budget::transfer(*sent, rate));
                }
            }
            _ => {}
        }
        self.step = match (self.step, outcome) {
            // A restarted engine has nothing: that must not hide what was copied before.
            (PreCopyStep::Flush, Outcome::Done(Done::Flushed { bytes: 0, .. })) => PreCopyStep::Idle,
            (PreCopyStep::Flush, Outcome::Done(_)) => PreCopyStep::Save,
            // What is newer and less must not hide what holds more.
            (PreCopyStep::Save, Outcome::Done(Done::Saved { bytes, left_out: Some(_), .. }))
                if self.committed.as_ref().is_some_and(|(_, held)| bytes < *held) =>
            {
                PreCopyStep::Idle
            }
            (PreCopyStep::Save, Outcome::Done(Done::Saved { bytes, left_out, .. }))
                if left_out.is_none() || bytes > 0 =>
            {
                PreCopyStep::Commit { partial: left_out.is_some() }
            }
            (PreCopyStep::Commit { .. }, Outcome::Done(Done::Committed { generation, bytes })) => {
                // A round that takes long is not followed by the next at once: half of the time belongs to the engine.
                self.next = self.next.max(ctx.now + ctx.now.since(self.began));
                self.changes = self.committed.is_some().then_some(self.sent);
                self.committed = Some((generation, bytes));
                self.rounds = self.rounds.saturating_add(1);
                PreCopyStep::Idle
            }
            // What garbage collection is removing is sent again; a round is not worth more than a few of those.
            (PreCopyStep::Commit { .. }, Outcome::Failed { kind: FailureKind::Endangered, .. }) => {
                self.resaves += 1;
                if self.resaves > RESAVES_MAX { PreCopyStep::Idle } else { PreCopyStep::Save }
            }
            (
                PreCopyStep::Commit { partial },
                Outcome::Failed { .. } | Outcome::TimedOut | Outcome::Panicked,
            ) if made < 5 => {
                self.tries.made = made;
                self.tries.failed(ctx.now, Span::from_secs(1));
                PreCopyStep::Commit { partial }
            }
            // A round that failed is tried again when the next one is due; nothing is at stake yet.
            (PreCopyStep::Idle | PreCopyStep::Flush | PreCopyStep::Save | PreCopyStep::Commit { .. }, _) => {
                PreCopyStep::Idle
            }
        };
    }
}
