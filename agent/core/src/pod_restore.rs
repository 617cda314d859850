//! The replacement's side: find a lineage, claim it, fetch it, check that it fits, have it imported,
//! verify that it is used, and open the gate, always, with the reason.
//!
//! Decides the next step for one new pod. It must not know about notices or evictions.
//!
//! ```text
//! find ─► (once more) ─► claim ─► await the commit ─► fetch ─► fingerprint ─► import ─► verify ─► finish
//!   │                      │       (prefetch what is    │ corrupt: the generation before it   │
//!   │                      │        committed already)  │                                     │
//!   └──────────── nothing to restore, refused, timed out, fenced, failed ────────────────► open the gate
//! ```

use crate::effect::{Action, RestoreAction, RestoreOutcome};
use crate::event::{Candidate, FailureKind, Outcome};
use crate::moment::{Moment, Span};
use crate::open_effects::{Attempts, Context, Purpose};
use crate::pod::{PodFacts, PodUid, RestoreMode};

mod answer;
mod choice;
mod patience;

use choice::choose;
use patience::{Limit, Patience};

/// An engine's own state is a warm-up if it is less than one part in so many of the checkpoint: 5 %.
const WARM_UP_SHARE: u64 = 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum RestoreStep {
    #[default]
    Idle,
    Find,
    Claim,
    AwaitCommit,
    Fetch,
    CheckFingerprint,
    ImportState,
    Verify,
    Finish,
    Open {
        outcome: RestoreOutcome,
        message: String,
    },
    Decided,
}

/// The restore of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodRestore {
    step: RestoreStep,
    tries: Attempts,
    patience: Patience,
    looks: u32,
    /// Why a lineage that is taken will be free soon.
    waits_for: Option<String>,
    chosen: Option<Candidate>,
    generation: Option<String>,
    refused: Vec<String>,
    holds_claim: bool,
    renewal: Attempts,
    prefetch: Attempts,
    /// Nothing more is to be fetched before the commit.
    prefetched: bool,
    taken: Option<u64>,
    /// Bytes of state of what was fetched.
    bytes: u64,
    /// Its engine was asked to take the state, perhaps by an earlier life: it may hold a part of it.
    was_asked: bool,
    /// The pod waits behind its gate: nobody was served yet.
    is_gated: bool,
    /// What the engine showed is to be noted: why it does not use the state, if it does not.
    verdict: Option<Option<String>>,
    /// The lineage whose claim is to be given back.
    gives_back: Option<String>,
    outcome: Option<(RestoreOutcome, String)>,
}

impl PodRestore {
    /// The state of this pod's engine is its own: it has what it is to have.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.step, RestoreStep::Decided | RestoreStep::Open { .. })
    }

    /// How it ended.
    pub(crate) fn outcome(&self) -> Option<&(RestoreOutcome, String)> {
        self.outcome.as_ref()
    }

    /// Stops without a word: the pod leaves again. A claim of which its engine was given nothing is given back. If it
    /// stays after all, it begins anew.
    pub(crate) fn cancel(&mut self, pod: &PodUid, ctx: &mut Context<'_>) {
        self.cancel_open(ctx);
        if let Some(chosen) = self.chosen.take().filter(|_| self.holds_claim && !self.was_asked) {
            let action = RestoreAction::GiveBackClaim { lineage: chosen.lineage };
            ctx.fire(Action::Restore { uid: pod.clone(), action });
        }
        *self = Self { was_asked: self.was_asked, ..Self::default() };
    }

    fn cancel_open(&mut self, ctx: &mut Context<'_>) {
        self.cancel_looks(ctx);
        if let Some(open) = self.renewal.open.take() {
            ctx.effects.cancel(open, ctx.now + ctx.policy.call_timeout);
        }
    }

    /// What it waits for next is no longer what it has asked for. Its claim is renewed all the same.
    fn cancel_looks(&mut self, ctx: &mut Context<'_>) {
        let open = [self.tries.open.take(), self.prefetch.open.take()];
        for open in open.into_iter().flatten() {
            ctx.effects.cancel(open, ctx.now + ctx.policy.call_timeout);
        }
    }

    /// The engine was restarted: what it has taken is gone, and it takes it again. False where it had all of it: that
    /// is not this restore's business.
    pub(crate) fn begins_again(&mut self, ctx: &mut Context<'_>) -> bool {
        match self.step {
            RestoreStep::ImportState | RestoreStep::Verify => {
                if let Some(open) = self.tries.open.take() {
                    ctx.effects.cancel(open, ctx.now + ctx.policy.call_timeout);
                }
                self.go(RestoreStep::CheckFingerprint);
                true
            }
            RestoreStep::Idle
            | RestoreStep::Find
            | RestoreStep::Claim
            | RestoreStep::AwaitCommit
            | RestoreStep::Fetch
            | RestoreStep::CheckFingerprint => true,
            RestoreStep::Finish | RestoreStep::Open { .. } | RestoreStep::Decided => false,
        }
    }

    fn go(&mut self, step: RestoreStep) {
        self.step = step;
        self.tries = Attempts::default();
    }

    fn open(&mut self, outcome: RestoreOutcome, message: impl Into<String>, ctx: &mut Context<'_>) {
        self.cancel_open(ctx);
        if self.holds_claim && outcome != RestoreOutcome::Fenced && !self.was_asked {
            self.gives_back = self.chosen.as_ref().map(|chosen| chosen.lineage.clone());
        }
        let message = message.into();
        self.outcome = Some((outcome, message.clone()));
        self.go(RestoreStep::Open { outcome, message });
    }

    /// State in an engine that has served nobody yet is of its own start, if it is little beside the checkpoint's.
    fn is_warm_up(&self, state_bytes: u64) -> bool {
        self.is_gated && state_bytes.saturating_mul(WARM_UP_SHARE) < self.bytes
    }

    /// Takes the next step, if its time has come.
    pub(crate) fn advance(&mut self, pod: &PodFacts, ctx: &mut Context<'_>) {
        let Some(engine) = &pod.engine else { return };
        self.is_gated = engine.restore == RestoreMode::Gate && !pod.restore_decided;
        if self.step == RestoreStep::Idle {
            if pod.restore_decided {
                return self.go(RestoreStep::Decided);
            }
            self.patience = Patience::new(ctx.now);
            if engine.restore == RestoreMode::Off {
                self.open(RestoreOutcome::NothingToRestore, "lifeboat.dev/restore is off", ctx);
            } else {
                self.go(RestoreStep::Find);
            }
        }
        if pod.restore_decided && !self.is_over() {
            // The gate was opened by a request that an earlier life left on its way, or by the fleet:
            // the engine may serve by now.
            self.cancel(&pod.uid, ctx);
            self.go(RestoreStep::Decided);
        }
        if self.step == RestoreStep::Decided {
            return;
        }
        self.give_up(ctx);
        if let Some(not_used) = self.verdict.take() {
            let action = RestoreAction::RecordVerdict { not_used };
            ctx.fire(Action::Restore { uid: pod.uid.clone(), action });
        }
        if let Some(lineage) = self.gives_back.take() {
            let action = RestoreAction::GiveBackClaim { lineage };
            ctx.fire(Action::Restore { uid: pod.uid.clone(), action });
        }
        let by = self.patience.began() + ctx.policy.restore_timeout;
        self.renew(pod, ctx);
        self.prefetch(pod, by, ctx);
        if !self.tries.may_start(ctx) {
            return;
        }
        let uid = pod.uid.clone();
        let lineage = self.chosen.as_ref().map(|chosen| chosen.lineage.clone()).unwrap_or_default();
        let call = Span::from_secs(10);
        let (span, by, action) = match &self.step {
            RestoreStep::Find | RestoreStep::AwaitCommit => {
                (call, by, Action::Restore { uid, action: RestoreAction::FindLineage })
            }
            RestoreStep::Claim => {
                (call, by, Action::Restore { uid, action: RestoreAction::Claim { lineage } })
            }
            RestoreStep::Fetch => {
                let Some(generation) = self.generation.clone() else {
                    return self.open(RestoreOutcome::Corrupt, "no generation is left", ctx);
                };
                (
                    by.left(ctx.now),
                    by,
                    Action::Restore { uid, action: RestoreAction::Fetch { lineage, generation } },
                )
            }
            // Waits for the engine to start, which may take as long as its image and weights do.
            RestoreStep::CheckFingerprint => {
                (by.left(ctx.now), by, Action::Restore { uid, action: RestoreAction::CheckFingerprint })
            }
            RestoreStep::ImportState => {
                self.was_asked = true;
                (by.left(ctx.now), by, Action::Restore { uid, action: RestoreAction::ImportState })
            }
            RestoreStep::Verify => (call, by, Action::Restore { uid, action: RestoreAction::Verify }),
            RestoreStep::Finish => {
                (call, by, Action::Restore { uid, action: RestoreAction::FinishClaim { lineage } })
            }
            RestoreStep::Open { outcome, message } => {
                let action = Action::Restore {
                    uid,
                    action: RestoreAction::OpenGate { outcome: *outcome, message: message.clone() },
                };
                (ctx.policy.call_timeout, ctx.now + ctx.policy.call_timeout, action)
            }
            RestoreStep::Idle | RestoreStep::Decided => return,
        };
        let attempt = self.tries.next();
        self.tries.open = Some(ctx.ask(span, by, attempt, Purpose::Restore(pod.uid.clone()), action));
    }

    /// Waits no longer, if it has waited for long enough.
    fn give_up(&mut self, ctx: &mut Context<'_>) {
        let over = |restore: &Self, ctx: &mut Context<'_>| {
            let limit = restore.patience.limit(&restore.step, ctx);
            (!restore.is_over() && ctx.reached_or_wake(limit.by)).then_some(limit)
        };
        let mut limit = over(self, ctx);
        let earlier = self.step == RestoreStep::AwaitCommit && self.generation.is_some();
        if limit.is_some() && earlier && self.patience.is_overdue(ctx.now) {
            // As if it were abandoned: what was committed before it is taken.
            self.cancel_looks(ctx);
            self.go(RestoreStep::Fetch);
            limit = over(self, ctx);
        }
        if limit.is_some() && self.step == RestoreStep::Finish {
            // How it went is known already.
            return self.finish(ctx);
        }
        if let Some(Limit { by, outcome }) = limit {
            let after = by.since(self.patience.began());
            self.open(outcome, format!("gave up after {after}: {}", self.waiting_for()), ctx);
        }
    }

    /// The source has pre-copied: most of the generation that it committed last will be in the announced one.
    fn prefetch(&mut self, pod: &PodFacts, by: Moment, ctx: &mut Context<'_>) {
        if self.step != RestoreStep::AwaitCommit || self.prefetched || !self.prefetch.may_start(ctx) {
            return;
        }
        let Some(chosen) = &self.chosen else { return };
        let Some(generation) = chosen.generations.first().cloned() else { return };
        let action = Action::Restore {
            uid: pod.uid.clone(),
            action: RestoreAction::Prefetch { lineage: chosen.lineage.clone(), generation },
        };
        let attempt = self.prefetch.next();
        let purpose = Purpose::Prefetch(pod.uid.clone());
        self.prefetch.open = Some(ctx.ask(by.left(ctx.now), by, attempt, purpose, action));
    }

    /// Takes the answer to a prefetch. What failed of it is fetched when the commit is there.
    pub(crate) fn prefetched(&mut self, outcome: &Outcome, now: Moment) {
        self.prefetched = match outcome {
            Outcome::Done(_) => true,
            Outcome::Failed {
                kind: FailureKind::Transient | FailureKind::Throttled | FailureKind::Unreachable,
                ..
            } => self.prefetch.made >= 3,
            Outcome::Failed { .. } | Outcome::TimedOut | Outcome::Panicked => true,
        };
        self.prefetch.failed(now, Span::from_secs(1));
    }

    fn renew(&mut self, pod: &PodFacts, ctx: &mut Context<'_>) {
        if !self.holds_claim || self.is_over() || !self.renewal.may_start(ctx) {
            return;
        }
        let Some(chosen) = &self.chosen else { return };
        let action = Action::Restore {
            uid: pod.uid.clone(),
            action: RestoreAction::RenewClaim { lineage: chosen.lineage.clone() },
        };
        let attempt = self.renewal.next();
        let span = ctx.policy.claim_renewal;
        self.renewal.open =
            Some(ctx.ask(span, ctx.now + span, attempt, Purpose::Renew(pod.uid.clone()), action));
    }

    /// Takes the answer to a renewal.
    pub(crate) fn renewed(&mut self, outcome: &Outcome, ctx: &mut Context<'_>) {
        let now = ctx.now;
        self.renewal = Attempts { not_before: now + ctx.policy.claim_renewal, ..Attempts::default() };
        match outcome {
            Outcome::Failed {
                kind: FailureKind::Refused | FailureKind::Mismatch | FailureKind::NotFound,
                why,
            } => {
                let why = why.clone();
                self.open(RestoreOutcome::Fenced, why, ctx);
            }
            Outcome::Done(_) => {}
            Outcome::Failed { .. } | Outcome::TimedOut | Outcome::Panicked => {
                self.renewal.not_before = now + Span::from_secs(1);
            }
        }
    }

    /// Something of what it fetches has come.
    pub(crate) fn bytes_came(&mut self, now: Moment) {
        self.patience.bytes_came(now);
    }

    fn waiting_for(&self) -> &str {
        match self.step {
            RestoreStep::Find if let Some(why) = &self.waits_for => why,
            RestoreStep::Idle | RestoreStep::Find | RestoreStep::Claim => {
                self.patience.failure().unwrap_or("the store did not answer")
            }
            RestoreStep::AwaitCommit => {
                self.patience.failure().unwrap_or("the announced checkpoint did not come")
            }
            RestoreStep::Fetch => "nothing more of the state came",
            RestoreStep::CheckFingerprint => "the engine did not answer",
            RestoreStep::ImportState | RestoreStep::Verify => "the engine did not take the state in time",
            RestoreStep::Finish => "the claim could not be finished",
            RestoreStep::Open { .. } | RestoreStep::Decided => "",
        }
    }
}
