//! What an answer means for one pod's save.
//!
//! Decides whether the step is done, tried again, or the state given up. It must not know how the next step is asked for.

use super::{CUT_OFF, Evidence, NO_STATE, PodSave, RESAVES_MAX, SaveStep, Times};
use crate::effect::Action;
use crate::engine_inspection::EngineInspection;
use crate::event::{Done, FailureKind, Outcome};
use crate::moment::{Moment, Span};
use crate::open_effects::Context;
use crate::pod::PodFacts;

impl PodSave {
    /// Takes an answer.
    pub(crate) fn answered(
        &mut self,
        pod: &PodFacts,
        inspection: &mut EngineInspection,
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
            (
                SaveStep::Announce,
                Outcome::Done(Done::IntentWritten { committed: Some((generation, bytes)), evidence }),
            ) => {
                self.evidence = if evidence { Evidence::Shown } else { Evidence::Missing };
                self.go(SaveStep::Safe { generation, bytes, at: ctx.now });
            }
            (SaveStep::Announce, Outcome::Failed { kind, .. })
                if retryable(kind) && self.earlier.is_some_and(|until| ctx.now < until) =>
            {
                self.tries.failed(ctx.now, Span::from_millis(500));
            }
            // Not written in time: the eviction goes on without it, and the replacement finds the
            // commit by looking once more.
            (SaveStep::Announce, _) => self.go(SaveStep::Wait),
            // An engine that cannot be quiesced is flushed as it is.
            (SaveStep::Quiesce, _) => self.go(SaveStep::Flush),
            // It was restarted, or never had any: nothing of it may hide what was saved before.
            (SaveStep::Flush, Outcome::Done(Done::Flushed { bytes: 0, .. })) => {
                self.lose(&pod.uid, NO_STATE.into(), ctx);
            }
            (SaveStep::Flush, Outcome::Done(done)) => {
                if let Done::Flushed { bytes, evidence } = done {
                    if let Some(began) = self.flush_began {
                        inspection.flushed(bytes, ctx.now.since(began));
                    }
                    self.evidence = if evidence { Evidence::Shown } else { Evidence::Wanted };
                }
                self.go(SaveStep::Save);
            }
            (SaveStep::Flush, Outcome::TimedOut) => {
                let took = self.flush_began.map_or(Span::ZERO, |began| ctx.now.since(began));
                self.lose(&pod.uid, format!("the engine did not finish its flush within {took}"), ctx);
            }
            (SaveStep::Save, Outcome::Done(Done::Saved { bytes, sent, left_out, .. })) => {
                self.sent = sent;
                let all = inspection.state_bytes().max(bytes);
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
                    self.go(SaveStep::Commit);
                } else {
                    let why = left_out.map(|why| format!(": {why}")).unwrap_or_default();
                    self.lose(
                        &pod.uid,
                        format!("no whole file of it reached the store before its cut-off{shortage}{why}"),
                        ctx,
                    );
                }
            }
            (SaveStep::Save, Outcome::TimedOut) => {
                self.partial = Some(CUT_OFF.into());
                self.go(SaveStep::Commit);
            }
            (SaveStep::Commit, Outcome::Done(Done::Committed { generation, bytes })) => {
                self.go(SaveStep::Safe { generation, bytes, at: ctx.now });
            }
            (SaveStep::Commit, Outcome::Failed { kind: FailureKind::NotFound, why }) => {
                self.lose(&pod.uid, why, ctx);
            }
            (SaveStep::Commit, Outcome::Failed { kind: FailureKind::Endangered, why })
                if !self.without_endangered =>
            {
                self.endangered(&why, times, ctx.now);
            }
            (SaveStep::Flush | SaveStep::Save | SaveStep::Commit, Outcome::Failed { kind, why })
                if !retryable(kind) =>
            {
                self.lose(&pod.uid, why, ctx);
            }
            (SaveStep::Flush | SaveStep::Save, Outcome::Failed { .. } | Outcome::Panicked) => {
                self.tries.failed(ctx.now, Span::from_millis(500));
                if self.step == SaveStep::Save && ctx.now >= times.cutoff {
                    self.partial = Some(CUT_OFF.into());
                    self.go(SaveStep::Commit);
                }
            }
            (SaveStep::Commit, Outcome::Failed { .. } | Outcome::TimedOut | Outcome::Panicked) => {
                self.tries.failed(ctx.now, Span::from_millis(500));
                // Bonus time after the deadline is used, but not for ever.
                if ctx.now > times.deadline + Span::from_secs(30) {
                    self.lose(&pod.uid, "the commit never succeeded".into(), ctx);
                }
            }
            (SaveStep::Save | SaveStep::Commit, Outcome::Done(other)) => {
                ctx.fire(Action::Anomaly {
                    what: format!("unexpected answer to a save or commit: {other:?}"),
                });
                self.tries.failed(ctx.now, Span::from_millis(500));
            }
            (SaveStep::Nothing | SaveStep::Wait | SaveStep::Safe { .. } | SaveStep::Lost { .. }, outcome) => {
                ctx.fire(Action::Anomaly { what: format!("an answer nobody asked for: {outcome:?}") });
            }
        }
    }
}

impl PodSave {
    /// Garbage collection is removing packs that the commit would name. They are sent again under other names while
    /// there is time; else the files on them are left out of what is committed.
    fn endangered(&mut self, why: &str, times: Times, now: Moment) {
        if now < times.cutoff && self.resaves < RESAVES_MAX {
            self.resaves += 1;
            self.partial = None;
            return self.go(SaveStep::Save);
        }
        self.without_endangered = true;
        self.partial.get_or_insert_with(|| format!("left out, as there was no time to save it again: {why}"));
        self.go(SaveStep::Commit);
    }
}

/// Whether the same request may succeed later.
fn retryable(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Throttled
        | FailureKind::Unreachable
        | FailureKind::Transient
        | FailureKind::Endangered => true,
        FailureKind::Refused | FailureKind::Permanent | FailureKind::NotFound | FailureKind::Mismatch => {
            false
        }
    }
}
