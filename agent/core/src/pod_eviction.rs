//! How one pod leaves: evicted when it is ready, retried while a budget refuses, deleted at its cut-off.
//!
//! Decides one pod's eviction. It must not know what is saved of it, only whether it is ready.

use crate::budget;
use crate::effect::{Action, PodAction};
use crate::event::{FailureKind, Outcome};
use crate::moment::{Moment, Span};
use crate::open_effects::{Attempts, Context, Purpose};
use crate::pod::PodFacts;
use crate::pod_save::Times;
use crate::policy::RespectPdb;

/// How far the pod is on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EvictionState {
    /// It is not to leave.
    Stays(String),
    /// Not evicted yet.
    Waiting,
    /// The condition DisruptionTarget is being set, before the delete.
    Disrupting,
    /// Being deleted as the last resort.
    Deleting,
    /// Terminating.
    Leaving,
    /// No more.
    Gone,
    /// Given up.
    Abandoned(String),
}

/// The way out of one pod.
#[derive(Clone, Debug)]
pub(crate) struct PodEviction {
    pub(crate) state: EvictionState,
    pub(crate) refusals: u32,
    pub(crate) evicted: Option<Moment>,
    pub(crate) gone: Option<Moment>,
    /// Why it was deleted past its budgets, if it was.
    pub(crate) deleted_at_cut_off: Option<String>,
    tries: Attempts,
    last_problem: Option<String>,
}

impl PodEviction {
    /// A pod that is to leave, stays, or is leaving already.
    pub(crate) fn new(pod: &PodFacts, now: Moment) -> Self {
        let state = match (pod.stays(), pod.terminating) {
            // Somebody rolls a DaemonSet: a new pod comes in its place, and nothing waits for this one.
            (Some(why), Some(_)) if pod.is_daemon() && pod.engine.is_none() => {
                EvictionState::Stays(why.to_owned())
            }
            (_, Some(_)) => EvictionState::Leaving,
            (Some(why), None) => EvictionState::Stays(why.to_owned()),
            (None, None) => EvictionState::Waiting,
        };
        let evicted = pod.terminating.map(|_| now);
        Self::on(state, evicted)
    }

    fn on(state: EvictionState, evicted: Option<Moment>) -> Self {
        Self {
            state,
            refusals: 0,
            evicted,
            gone: None,
            deleted_at_cut_off: None,
            tries: Attempts::default(),
            last_problem: None,
        }
    }

    /// It is not to leave.
    pub(crate) fn stays(&self) -> bool {
        matches!(self.state, EvictionState::Stays(_))
    }

    /// An eviction or delete is under way.
    pub(crate) fn is_asking(&self) -> bool {
        self.tries.open.is_some()
    }

    /// It was never asked to go.
    pub(crate) fn has_not_begun(&self) -> bool {
        match self.state {
            EvictionState::Waiting => self.tries.made == 0,
            EvictionState::Stays(_) => true,
            EvictionState::Disrupting
            | EvictionState::Deleting
            | EvictionState::Leaving
            | EvictionState::Gone
            | EvictionState::Abandoned(_) => false,
        }
    }

    /// As far as is known it was never evicted nor deleted by us. A delete that was asked for and not accepted is not
    /// asked for again when the notice that called for it is gone; if it arrived all the same, the watch shows it.
    pub(crate) fn is_not_leaving(&self) -> bool {
        matches!(
            self.state,
            EvictionState::Waiting
                | EvictionState::Disrupting
                | EvictionState::Deleting
                | EvictionState::Abandoned(_)
                | EvictionState::Stays(_)
        )
    }

    /// It is gone, given up, or was never to leave.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, EvictionState::Stays(_) | EvictionState::Gone | EvictionState::Abandoned(_))
    }

    /// The pod runs nothing any more, or is no longer ours to end.
    pub(crate) fn seen_staying(&mut self, why: &str) {
        if matches!(self.state, EvictionState::Waiting | EvictionState::Disrupting | EvictionState::Deleting)
        {
            self.state = EvictionState::Stays(why.to_owned());
        }
    }

    /// The departure is taken back: what is under way has no one to answer to any more.
    pub(crate) fn cancel(&mut self, ctx: &mut Context<'_>) {
        if let Some(open) = self.tries.open.take() {
            ctx.effects.cancel(open, ctx.now + ctx.policy.call_timeout);
        }
    }

    /// The pod was seen terminating.
    pub(crate) fn seen_terminating(&mut self, now: Moment) {
        if matches!(
            self.state,
            EvictionState::Waiting
                | EvictionState::Disrupting
                | EvictionState::Deleting
                | EvictionState::Abandoned(_)
                | EvictionState::Stays(_)
        ) {
            self.note_deletion();
            self.state = EvictionState::Leaving;
            self.evicted.get_or_insert(now);
        }
    }

    /// Stays in the report when the pod is gone: that a budget was overridden, and what it said.
    fn note_deletion(&mut self) {
        if self.state == EvictionState::Deleting {
            let last =
                self.last_problem.as_deref().map(|last| format!("; the last attempt to evict it: {last}"));
            self.deleted_at_cut_off =
                Some(format!("not evicted by its cut-off: deleted{}", last.unwrap_or_default()));
        }
    }

    /// The pod was seen to be no more.
    pub(crate) fn seen_gone(&mut self, now: Moment) {
        self.note_deletion();
        self.state = EvictionState::Gone;
        self.gone.get_or_insert(now);
    }

    /// Takes the next step, if the pod is `ready` or its cut-off has come. Returns true if that
    /// took one of the eviction slots.
    pub(crate) fn advance(
        &mut self,
        pod: &PodFacts,
        times: Times,
        ready: bool,
        ctx: &mut Context<'_>,
    ) -> bool {
        if matches!(
            self.state,
            EvictionState::Stays(_)
                | EvictionState::Leaving
                | EvictionState::Gone
                | EvictionState::Abandoned(_)
        ) {
            return false;
        }
        if ctx.reached_or_wake(times.deadline) {
            self.abandon("the deadline came first", ctx);
            return false;
        }
        if self.is_asking() {
            return false;
        }
        let purpose = || Purpose::Evict(pod.uid.clone());
        match self.state {
            EvictionState::Waiting => {
                let late = ctx.reached_or_wake(times.cutoff);
                // A delete does not ask the budgets: with `always` it is never used, not even for a
                // pod whose eviction has had no answer yet.
                let may_delete = ctx.policy.respect_pdb == RespectPdb::UntilDeadline;
                if late && may_delete && (self.tries.made > 0 || !ready) {
                    return self.mark_disrupted(pod, times, ctx);
                }
                if !(ready || late) || !self.tries.may_start(ctx) {
                    return false;
                }
                let grace = budget::grace(pod, ctx.now, times.gone_by, times.held);
                let by = if ctx.now < times.cutoff { times.cutoff } else { times.deadline };
                let attempt = self.tries.next();
                let action = Action::Pod { uid: pod.uid.clone(), action: PodAction::Evict { grace } };
                self.tries.open = Some(ctx.ask(ctx.policy.call_timeout, by, attempt, purpose(), action));
                true
            }
            EvictionState::Disrupting => self.mark_disrupted(pod, times, ctx),
            EvictionState::Deleting => {
                if !self.tries.may_start(ctx) {
                    return false;
                }
                let grace = budget::grace(pod, ctx.now, times.gone_by, times.held);
                let attempt = self.tries.next();
                let action = Action::Pod { uid: pod.uid.clone(), action: PodAction::DeletePod { grace } };
                let deadline = times.deadline;
                self.tries.open = Some(ctx.ask(Span::from_secs(1), deadline, attempt, purpose(), action));
                true
            }
            EvictionState::Stays(_)
            | EvictionState::Leaving
            | EvictionState::Gone
            | EvictionState::Abandoned(_) => false,
        }
    }

    /// A Job counts a deleted pod as failed unless it carries this condition
    /// (<https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions>).
    fn mark_disrupted(&mut self, pod: &PodFacts, times: Times, ctx: &mut Context<'_>) -> bool {
        self.state = EvictionState::Disrupting;
        let action = Action::Pod { uid: pod.uid.clone(), action: PodAction::MarkDisrupted };
        let purpose = Purpose::Evict(pod.uid.clone());
        self.tries.open = Some(ctx.ask(Span::from_millis(500), times.deadline, 1, purpose, action));
        true
    }

    fn abandon(&mut self, why: &str, ctx: &mut Context<'_>) {
        let why = match &self.last_problem {
            Some(problem) => format!("{why}: {problem}"),
            None => why.to_owned(),
        };
        self.cancel(ctx);
        self.state = EvictionState::Abandoned(why);
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, outcome: Outcome, ctx: &mut Context<'_>) {
        self.tries.open = None;
        match (&self.state, outcome) {
            // Set or not: the delete comes next, and it has little time.
            (EvictionState::Disrupting, _) => {
                self.state = EvictionState::Deleting;
                self.tries = Attempts::default();
            }
            (EvictionState::Waiting | EvictionState::Deleting, Outcome::Done(_)) => {
                self.evicted = Some(ctx.now);
                self.note_deletion();
                self.state = EvictionState::Leaving;
            }
            (
                EvictionState::Waiting | EvictionState::Deleting,
                Outcome::Failed { kind: FailureKind::NotFound, .. },
            ) => {
                self.evicted.get_or_insert(ctx.now);
                self.seen_gone(ctx.now);
            }
            (EvictionState::Waiting | EvictionState::Deleting, Outcome::Failed { kind, why }) => {
                self.refusals += u32::from(kind == FailureKind::Refused);
                self.last_problem = Some(why);
                self.tries.failed(ctx.now, ctx.policy.eviction_retry);
            }
            (EvictionState::Waiting | EvictionState::Deleting, Outcome::TimedOut | Outcome::Panicked) => {
                self.last_problem = Some("the API server did not answer in time".into());
                self.tries.failed(ctx.now, ctx.policy.eviction_retry);
            }
            (
                EvictionState::Stays(_)
                | EvictionState::Leaving
                | EvictionState::Gone
                | EvictionState::Abandoned(_),
                _,
            ) => {}
        }
    }
}
