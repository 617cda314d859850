//! What an answer means for one pod's save.
//!
//! Decides whether the step is done, tried again, or the state given up. It must not know how the next step is asked for.

use super::{CUT_OFF, Keep, NO_STATE, Step, Times};
use crate::effect::Action;
use crate::event::{Done, FailureKind, Outcome};
use crate::ledger::Context;
use crate::look::Look;
use crate::moment::Span;
use crate::pod::PodFacts;

impl Keep {
    /// Takes an answer.
    pub(crate) fn answered(
        &mut self,
        pod: &PodFacts,
        look: &mut Look,
        times: Times,
        earlier: Option<&(String, u64)>,
        outcome: Outcome,
        ctx: &mut Context<'_>,
    ) {
        self.tries.open = None;
        if let Outcome::Failed { why, .. } = &outcome {
            // In the last second tries fail because they are cut short: why those before did says more.
            if self.last_problem.is_none() || ctx.now + Span::from_secs(1) < times.cutoff {
                self.last_problem = Some(why.clone());
            }
        }
        match (&self.step, outcome) {
            (Step::Announce, Outcome::Done(Done::Intended { committed: Some((generation, bytes)) })) => {
                self.go(Step::Safe { generation, bytes, at: ctx.now });
            }
            (Step::Announce, Outcome::Failed { kind, .. })
                if retryable(kind) && self.earlier.is_some_and(|until| ctx.now < until) =>
            {
                self.tries.failed(ctx.now, Span::from_millis(500));
            }
            // Not written in time: the eviction goes on without it, and the replacement finds the
            // commit by looking once more.
            (Step::Announce, _) => self.go(Step::Wait),
            // An engine that cannot be quiesced is flushed as it is.
            (Step::Quiesce, _) => self.go(Step::Flush),
            // It was restarted, or never had any: nothing of it may hide what was saved before.
            (Step::Flush, Outcome::Done(Done::Flushed { bytes: 0 })) => {
                self.lose(&pod.uid, NO_STATE.into(), ctx);
            }
            (Step::Flush, Outcome::Done(done)) => {
                if let (Done::Flushed { bytes }, Some(began)) = (&done, self.flush_began) {
                    look.flushed(*bytes, ctx.now.since(began));
                }
                self.go(Step::Save);
            }
            (Step::Flush, Outcome::TimedOut) => {
                let took = self.flush_began.map_or(Span::ZERO, |began| ctx.now.since(began));
                self.lose(&pod.uid, format!("the engine did not finish its flush within {took}"), ctx);
            }
            (Step::Save, Outcome::Done(Done::Saved { bytes, sent, left_out })) => {
                self.sent = sent;
                let all = look.state_bytes().max(bytes);
                let shortage = self.shortage();
                if let (Some(_), Some((generation, held))) = (&left_out, earlier.filter(|it| it.1 >= bytes)) {
                    // What is newer and less must not hide it.
                    let why = format!(
                        "{bytes} of about {all} bytes were whole in the store{shortage}: {generation} of before holds {held}"
                    );
                    self.lose(&pod.uid, why, ctx);
                } else if left_out.is_none() || bytes > 0 {
                    self.partial = left_out.map(|why| {
                        format!(
                            "{bytes} of about {all} bytes were whole in the store{shortage}; left out: {why}"
                        )
                    });
                    self.go(Step::Commit);
                } else {
                    let why = left_out.map(|why| format!(": {why}")).unwrap_or_default();
                    self.lose(
                        &pod.uid,
                        format!("no whole file of it reached the store before its cut-off{shortage}{why}"),
                        ctx,
                    );
                }
            }
            (Step::Save, Outcome::TimedOut) => {
                self.partial = Some(CUT_OFF.into());
                self.go(Step::Commit);
            }
            (Step::Commit, Outcome::Done(Done::Committed { generation, bytes })) => {
                self.go(Step::Safe { generation, bytes, at: ctx.now });
            }
            (Step::Commit, Outcome::Failed { kind: FailureKind::NotFound, why }) => {
                self.lose(&pod.uid, why, ctx);
            }
            (Step::Flush | Step::Save | Step::Commit, Outcome::Failed { kind, why }) if !retryable(kind) => {
                self.lose(&pod.uid, why, ctx);
            }
            (Step::Flush | Step::Save, Outcome::Failed { .. } | Outcome::Panicked) => {
                self.tries.failed(ctx.now, Span::from_millis(500));
                if self.step == Step::Save && ctx.now >= times.cutoff {
                    self.partial = Some(CUT_OFF.into());
                    self.go(Step::Commit);
                }
            }
            (Step::Commit, Outcome::Failed { .. } | Outcome::TimedOut | Outcome::Panicked) => {
                self.tries.failed(ctx.now, Span::from_millis(500));
                // Bonus time after the deadline is used, but not for ever.
                if ctx.now > times.deadline + Span::from_secs(30) {
                    self.lose(&pod.uid, "the commit never succeeded".into(), ctx);
                }
            }
            (Step::Save | Step::Commit, Outcome::Done(other)) => {
                ctx.fire(Action::Anomaly {
                    what: format!("unexpected answer to a save or commit: {other:?}"),
                });
                self.tries.failed(ctx.now, Span::from_millis(500));
            }
            (Step::Nothing | Step::Wait | Step::Safe { .. } | Step::Lost { .. }, outcome) => {
                ctx.fire(Action::Anomaly { what: format!("an answer nobody asked for: {outcome:?}") });
            }
        }
    }
}

/// Whether the same request may succeed later.
fn retryable(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Throttled | FailureKind::Transient => true,
        FailureKind::Refused | FailureKind::Permanent | FailureKind::NotFound | FailureKind::Mismatch => {
            false
        }
    }
}
