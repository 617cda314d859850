//! An engine that was restarted in its pod: what its last flush wrote is still in the pod's volume, and is handed to it
//! again. No store, no claim and no gate are needed: the state never left the pod.
//!
//! Decides when to look into the volume and the next step from there. It must not know about lineages.
//!
//! ```text
//! the container's restarts grew ─► read ─► fingerprint ─► import ─► verify
//!                                    │ nothing was kept, it does not fit, it has state of its own ─► it starts cold
//! ```

use crate::effect::{Action, KubeEvent, PodAction, RestoreAction};
use crate::event::{Done, FailureKind, Outcome, Verification};
use crate::moment::{Moment, Span};
use crate::open_effects::{Attempts, Context, Purpose};
use crate::pod::{PodFacts, PodUid, RestoreMode};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ReloadStep {
    #[default]
    Idle,
    Read,
    CheckFingerprint,
    ImportState,
    Verify,
}

/// The reload of one pod's state from its own volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalReload {
    /// The engine's life that has, or gets, what there is.
    life: Option<u32>,
    step: ReloadStep,
    tries: Attempts,
    began: Moment,
    taken: Option<u64>,
}

impl LocalReload {
    /// Its engine was restarted since the last time this was asked.
    pub(crate) fn was_restarted(&mut self, pod: &PodFacts) -> bool {
        self.life.replace(pod.restarts).is_some_and(|life| life != pod.restarts)
    }

    /// The engine is not to be asked for anything else.
    pub(crate) fn is_under_way(&self) -> bool {
        self.step != ReloadStep::Idle
    }

    /// Begins, in place of one that was for an engine that is no more.
    pub(crate) fn begin(&mut self, pod: &PodFacts, ctx: &mut Context<'_>) {
        self.cancel(ctx);
        if pod.engine.as_ref().is_some_and(|engine| engine.restore != RestoreMode::Off) {
            self.began = ctx.now;
            self.go(ReloadStep::Read);
        }
    }

    /// Stops without a word.
    pub(crate) fn cancel(&mut self, ctx: &mut Context<'_>) {
        if let Some(open) = self.tries.open.take() {
            ctx.effects.cancel(open, ctx.now + ctx.policy.call_timeout);
        }
        self.go(ReloadStep::Idle);
    }

    fn go(&mut self, step: ReloadStep) {
        self.step = step;
        self.tries = Attempts::default();
    }

    /// Takes the next step, if its time has come.
    pub(crate) fn advance(&mut self, pod: &PodFacts, ctx: &mut Context<'_>) {
        if self.step == ReloadStep::Idle {
            return;
        }
        let by = self.began + ctx.policy.restore_timeout;
        if ctx.reached_or_wake(by) {
            self.cancel(ctx);
            return tell(&pod.uid, Err("its engine did not take it in time"), ctx);
        }
        if !self.tries.may_start(ctx) {
            return;
        }
        let uid = pod.uid.clone();
        let call = Span::from_secs(10);
        let (span, action) = match self.step {
            ReloadStep::Read => (call, Action::Restore { uid, action: RestoreAction::ReloadLocal }),
            // Waits for the engine to start, which may take as long as its weights do.
            ReloadStep::CheckFingerprint => {
                (by.left(ctx.now), Action::Restore { uid, action: RestoreAction::CheckFingerprint })
            }
            ReloadStep::ImportState => {
                (by.left(ctx.now), Action::Restore { uid, action: RestoreAction::ImportState })
            }
            ReloadStep::Verify => (call, Action::Restore { uid, action: RestoreAction::Verify }),
            ReloadStep::Idle => return,
        };
        let attempt = self.tries.next();
        self.tries.open = Some(ctx.ask(span, by, attempt, Purpose::ReloadLocal(pod.uid.clone()), action));
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, pod: &PodUid, outcome: Outcome, ctx: &mut Context<'_>) {
        self.tries.open = None;
        match (self.step, outcome) {
            (ReloadStep::Read, Outcome::Done(_)) => self.go(ReloadStep::CheckFingerprint),
            // It never flushed anything.
            (ReloadStep::Read, Outcome::Failed { kind: FailureKind::NotFound, .. }) => {
                self.go(ReloadStep::Idle)
            }
            (ReloadStep::CheckFingerprint, Outcome::Done(Done::FingerprintMatches { state_bytes: 0 })) => {
                self.go(ReloadStep::ImportState)
            }
            (ReloadStep::CheckFingerprint, Outcome::Done(_)) => {
                self.go(ReloadStep::Idle);
                tell(pod, Err("it has state of its own already"), ctx);
            }
            (ReloadStep::ImportState, Outcome::Done(done)) => {
                self.taken = if let Done::Tokens { count } = done { count } else { None };
                self.go(ReloadStep::Verify);
            }
            (
                ReloadStep::Read | ReloadStep::CheckFingerprint | ReloadStep::ImportState,
                Outcome::Failed { kind: FailureKind::Mismatch | FailureKind::Permanent, why },
            ) => {
                self.go(ReloadStep::Idle);
                tell(pod, Err(&why), ctx);
            }
            (ReloadStep::ImportState, Outcome::Failed { why, .. }) if self.tries.made >= 3 => {
                self.go(ReloadStep::Idle);
                tell(pod, Err(&why), ctx);
            }
            (ReloadStep::Verify, outcome) => {
                self.go(ReloadStep::Idle);
                let shown = match outcome {
                    Outcome::Done(Done::Verified(Verification::Used { tokens })) => {
                        format!(", {tokens} tokens shown in cache")
                    }
                    Outcome::Done(Done::Verified(Verification::NotUsed { why })) => {
                        return tell(pod, Err(&format!("it took it and does not use it: {why}")), ctx);
                    }
                    _ => ", reuse could not be shown".to_owned(),
                };
                let taken = self.taken.map_or(String::new(), |taken| format!("{taken} tokens taken"));
                tell(pod, Ok(format!("{taken}{shown}").trim_start_matches(", ")), ctx);
            }
            (ReloadStep::Read | ReloadStep::CheckFingerprint | ReloadStep::ImportState, _) => {
                self.tries.failed(ctx.now, Span::from_secs(1));
            }
            (ReloadStep::Idle, outcome) => {
                ctx.fire(Action::Anomaly {
                    what: format!("an answer to a reload that nobody asked for: {outcome:?}"),
                });
            }
        }
    }
}

/// Tells the pod's owner: there is no gate to say it with.
fn tell(pod: &PodUid, result: Result<&str, &str>, ctx: &mut Context<'_>) {
    let (reason, note, warning) = match result {
        Ok(what) => {
            ("StateReloaded", format!("its engine was restarted and has its last flush back: {what}"), false)
        }
        Err(why) => (
            "StateNotReloaded",
            format!("its engine was restarted and goes on without its state: {why}"),
            true,
        ),
    };
    let event = KubeEvent { reason: reason.into(), note, warning };
    ctx.fire(Action::Pod { uid: pod.clone(), action: PodAction::Publish(event) });
}
