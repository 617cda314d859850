//! An engine that was restarted in its pod: what its last flush wrote is still in the pod's volume, and is handed to it
//! again. No store, no claim and no gate are needed: the state never left the pod.
//!
//! Decides when to look into the volume and the next step from there. It must not know about lineages.
//!
//! ```text
//! the container's restarts grew ─► read ─► prove ─► hand over ─► verify
//!                                    │ nothing was kept, it does not fit, it has state of its own ─► it starts cold
//! ```

use crate::effect::{Action, Subject};
use crate::event::{Done, FailureKind, Outcome};
use crate::ledger::{Attempts, Context, Purpose};
use crate::moment::{Moment, Span};
use crate::pod::{PodFacts, PodUid, RestoreMode};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Idle,
    Read,
    Prove,
    HandOver,
    Verify,
}

/// The recall of one pod's state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recall {
    /// The engine's life that has, or gets, what there is.
    life: Option<u32>,
    step: Step,
    tries: Attempts,
    began: Moment,
    taken: Option<u64>,
}

impl Recall {
    /// Its engine was restarted since the last time this was asked.
    pub(crate) fn was_restarted(&mut self, pod: &PodFacts) -> bool {
        self.life.replace(pod.restarts).is_some_and(|life| life != pod.restarts)
    }

    /// The engine is not to be asked for anything else.
    pub(crate) fn is_under_way(&self) -> bool {
        self.step != Step::Idle
    }

    /// Begins, in place of one that was for an engine that is no more.
    pub(crate) fn begin(&mut self, pod: &PodFacts, ctx: &mut Context<'_>) {
        self.cancel(ctx);
        if pod.engine.as_ref().is_some_and(|engine| engine.restore != RestoreMode::Off) {
            self.began = ctx.now;
            self.go(Step::Read);
        }
    }

    /// Stops without a word.
    pub(crate) fn cancel(&mut self, ctx: &mut Context<'_>) {
        if let Some(open) = self.tries.open.take() {
            ctx.ledger.cancel(open, ctx.now + ctx.policy.call_timeout);
        }
        self.go(Step::Idle);
    }

    fn go(&mut self, step: Step) {
        self.step = step;
        self.tries = Attempts::default();
    }

    /// Takes the next step, if its time has come.
    pub(crate) fn advance(&mut self, pod: &PodFacts, ctx: &mut Context<'_>) {
        if self.step == Step::Idle {
            return;
        }
        let by = self.began + ctx.policy.restore_timeout;
        if ctx.has_come(by) {
            self.cancel(ctx);
            return tell(&pod.uid, Err("its engine did not take it in time"), ctx);
        }
        if !self.tries.may_start(ctx) {
            return;
        }
        let uid = pod.uid.clone();
        let call = Span::from_secs(10);
        let (span, action) = match self.step {
            Step::Read => (call, Action::Recall { pod: uid }),
            // Waits for the engine to start, which may take as long as its weights do.
            Step::Prove => (by.left(ctx.now), Action::Prove { pod: uid }),
            Step::HandOver => (by.left(ctx.now), Action::HandOver { pod: uid }),
            Step::Verify => (call, Action::Verify { pod: uid }),
            Step::Idle => return,
        };
        let attempt = self.tries.next();
        self.tries.open = Some(ctx.ask(span, by, attempt, Purpose::Recall(pod.uid.clone()), action));
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, pod: &PodUid, outcome: Outcome, ctx: &mut Context<'_>) {
        self.tries.open = None;
        match (self.step, outcome) {
            (Step::Read, Outcome::Done(_)) => self.go(Step::Prove),
            // It never flushed anything.
            (Step::Read, Outcome::Failed { kind: FailureKind::NotFound, .. }) => self.go(Step::Idle),
            (Step::Prove, Outcome::Done(Done::Proven { state_bytes: 0 })) => self.go(Step::HandOver),
            (Step::Prove, Outcome::Done(_)) => {
                self.go(Step::Idle);
                tell(pod, Err("it has state of its own already"), ctx);
            }
            (Step::HandOver, Outcome::Done(done)) => {
                self.taken = if let Done::Tokens { count } = done { count } else { None };
                self.go(Step::Verify);
            }
            (
                Step::Read | Step::Prove | Step::HandOver,
                Outcome::Failed { kind: FailureKind::Mismatch | FailureKind::Permanent, why },
            ) => {
                self.go(Step::Idle);
                tell(pod, Err(&why), ctx);
            }
            (Step::HandOver, Outcome::Failed { why, .. }) if self.tries.made >= 3 => {
                self.go(Step::Idle);
                tell(pod, Err(&why), ctx);
            }
            (Step::Verify, outcome) => {
                self.go(Step::Idle);
                let shown = match outcome {
                    Outcome::Done(Done::Tokens { count: Some(count) }) => {
                        format!(", {count} tokens shown in cache")
                    }
                    _ => ", reuse could not be shown".to_owned(),
                };
                let taken = self.taken.map_or(String::new(), |taken| format!("{taken} tokens taken"));
                tell(pod, Ok(format!("{taken}{shown}").trim_start_matches(", ")), ctx);
            }
            (Step::Read | Step::Prove | Step::HandOver, _) => {
                self.tries.failed(ctx.now, Span::from_secs(1));
            }
            (Step::Idle, outcome) => {
                ctx.fire(Action::Anomaly {
                    what: format!("a recall's answer nobody asked for: {outcome:?}"),
                });
            }
        }
    }
}

/// Tells the pod's owner: there is no gate to say it with.
fn tell(pod: &PodUid, result: Result<&str, &str>, ctx: &mut Context<'_>) {
    let (reason, note, warning) = match result {
        Ok(what) => {
            ("StateRecalled", format!("its engine was restarted and has its last flush back: {what}"), false)
        }
        Err(why) => (
            "StateNotRecalled",
            format!("its engine was restarted and goes on without its state: {why}"),
            true,
        ),
    };
    let about = Subject::Pod(pod.clone());
    ctx.fire(Action::Publish { about, reason: reason.into(), note, warning });
}
