//! How one pod leaves: evicted when it is ready, retried while a budget refuses, let go at the end.
//!
//! Decides one pod's eviction. It must not know what is saved of it, only whether it is ready.

use crate::budget;
use crate::effect::Action;
use crate::event::{FailureKind, Outcome};
use crate::keep::Times;
use crate::ledger::{Attempts, Context, Purpose};
use crate::moment::{Moment, Span};
use crate::pod::PodFacts;
use crate::policy::RespectPdb;

/// How far the pod is on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is not to leave.
    Stays(String),
    /// Not evicted yet.
    Waiting,
    /// The condition DisruptionTarget is being set, before the delete.
    Disrupting,
    /// Being deleted as the last resort.
    LettingGo,
    /// Terminating.
    Leaving,
    /// No more.
    Gone,
    /// Given up.
    Abandoned(String),
}

/// The way out of one pod.
#[derive(Clone, Debug)]
pub(crate) struct Leave {
    pub(crate) way: Way,
    pub(crate) refusals: u32,
    pub(crate) evicted: Option<Moment>,
    pub(crate) gone: Option<Moment>,
    /// Why it was deleted past its budgets, if it was.
    pub(crate) let_go: Option<String>,
    tries: Attempts,
    last_problem: Option<String>,
}

impl Leave {
    /// A pod that is to leave, stays, or is leaving already.
    pub(crate) fn new(pod: &PodFacts, now: Moment) -> Self {
        let way = match (pod.stays(), pod.terminating) {
            // Somebody rolls a DaemonSet: a new pod comes in its place, and nothing waits for this one.
            (Some(why), Some(_)) if pod.is_daemon() && pod.engine.is_none() => Way::Stays(why.to_owned()),
            (_, Some(_)) => Way::Leaving,
            (Some(why), None) => Way::Stays(why.to_owned()),
            (None, None) => Way::Waiting,
        };
        let evicted = pod.terminating.map(|_| now);
        Self::on(way, evicted)
    }

    fn on(way: Way, evicted: Option<Moment>) -> Self {
        Self {
            way,
            refusals: 0,
            evicted,
            gone: None,
            let_go: None,
            tries: Attempts::default(),
            last_problem: None,
        }
    }

    /// An eviction or delete is under way.
    pub(crate) fn is_asking(&self) -> bool {
        self.tries.open.is_some()
    }

    /// It was never asked to go.
    pub(crate) fn has_not_begun(&self) -> bool {
        match self.way {
            Way::Waiting => self.tries.made == 0,
            Way::Stays(_) => true,
            Way::Disrupting | Way::LettingGo | Way::Leaving | Way::Gone | Way::Abandoned(_) => false,
        }
    }

    /// As far as is known it was never evicted nor deleted by us. A delete that was asked for and not accepted is not
    /// asked for again when the notice that called for it is gone; if it arrived all the same, the watch shows it.
    pub(crate) fn way_is_open(&self) -> bool {
        matches!(
            self.way,
            Way::Waiting | Way::Disrupting | Way::LettingGo | Way::Abandoned(_) | Way::Stays(_)
        )
    }

    /// It is gone, given up, or was never to leave.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.way, Way::Stays(_) | Way::Gone | Way::Abandoned(_))
    }

    /// The pod runs nothing any more, or is no longer ours to end.
    pub(crate) fn seen_staying(&mut self, why: &str) {
        if matches!(self.way, Way::Waiting | Way::Disrupting | Way::LettingGo) {
            self.way = Way::Stays(why.to_owned());
        }
    }

    /// The departure is taken back: what is under way has no one to answer to any more.
    pub(crate) fn cancel(&mut self, ctx: &mut Context<'_>) {
        if let Some(open) = self.tries.open.take() {
            ctx.ledger.cancel(open, ctx.now + ctx.policy.call_timeout);
        }
    }

    /// The pod was seen terminating.
    pub(crate) fn seen_terminating(&mut self, now: Moment) {
        if matches!(
            self.way,
            Way::Waiting | Way::Disrupting | Way::LettingGo | Way::Abandoned(_) | Way::Stays(_)
        ) {
            self.remember_letting_go();
            self.way = Way::Leaving;
            self.evicted.get_or_insert(now);
        }
    }

    /// Stays in the report when the pod is gone: that a budget was overridden, and what it said.
    fn remember_letting_go(&mut self) {
        if self.way == Way::LettingGo {
            let last =
                self.last_problem.as_deref().map(|last| format!("; the last attempt to evict it: {last}"));
            self.let_go = Some(format!("not evicted by its cut-off: deleted{}", last.unwrap_or_default()));
        }
    }

    /// The pod was seen to be no more.
    pub(crate) fn seen_gone(&mut self, now: Moment) {
        self.remember_letting_go();
        self.way = Way::Gone;
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
        if matches!(self.way, Way::Stays(_) | Way::Leaving | Way::Gone | Way::Abandoned(_)) {
            return false;
        }
        if ctx.has_come(times.deadline) {
            self.abandon("the deadline came first", ctx);
            return false;
        }
        if self.is_asking() {
            return false;
        }
        let purpose = || Purpose::Leave(pod.uid.clone());
        match self.way {
            Way::Waiting => {
                let late = ctx.has_come(times.cutoff);
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
                let action = Action::Evict { pod: pod.uid.clone(), grace };
                self.tries.open = Some(ctx.ask(ctx.policy.call_timeout, by, attempt, purpose(), action));
                true
            }
            Way::Disrupting => self.mark_disrupted(pod, times, ctx),
            Way::LettingGo => {
                if !self.tries.may_start(ctx) {
                    return false;
                }
                let grace = budget::grace(pod, ctx.now, times.gone_by, times.held);
                let attempt = self.tries.next();
                let action = Action::LetGo { pod: pod.uid.clone(), grace };
                let deadline = times.deadline;
                self.tries.open = Some(ctx.ask(Span::from_secs(1), deadline, attempt, purpose(), action));
                true
            }
            Way::Stays(_) | Way::Leaving | Way::Gone | Way::Abandoned(_) => false,
        }
    }

    /// A Job counts a deleted pod as failed unless it carries this condition
    /// (<https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions>).
    fn mark_disrupted(&mut self, pod: &PodFacts, times: Times, ctx: &mut Context<'_>) -> bool {
        self.way = Way::Disrupting;
        let action = Action::MarkDisrupted { pod: pod.uid.clone() };
        let purpose = Purpose::Leave(pod.uid.clone());
        self.tries.open = Some(ctx.ask(Span::from_millis(500), times.deadline, 1, purpose, action));
        true
    }

    fn abandon(&mut self, why: &str, ctx: &mut Context<'_>) {
        let why = match &self.last_problem {
            Some(problem) => format!("{why}: {problem}"),
            None => why.to_owned(),
        };
        self.cancel(ctx);
        self.way = Way::Abandoned(why);
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, outcome: Outcome, ctx: &mut Context<'_>) {
        self.tries.open = None;
        match (&self.way, outcome) {
            // Set or not: the delete comes next, and it has little time.
            (Way::Disrupting, _) => {
                self.way = Way::LettingGo;
                self.tries = Attempts::default();
            }
            (Way::Waiting | Way::LettingGo, Outcome::Done(_)) => {
                self.evicted = Some(ctx.now);
                self.remember_letting_go();
                self.way = Way::Leaving;
            }
            (Way::Waiting | Way::LettingGo, Outcome::Failed { kind: FailureKind::NotFound, .. }) => {
                self.evicted.get_or_insert(ctx.now);
                self.seen_gone(ctx.now);
            }
            (Way::Waiting | Way::LettingGo, Outcome::Failed { kind, why }) => {
                self.refusals += u32::from(kind == FailureKind::Refused);
                self.last_problem = Some(why);
                self.tries.failed(ctx.now, ctx.policy.eviction_retry);
            }
            (Way::Waiting | Way::LettingGo, Outcome::TimedOut | Outcome::Panicked) => {
                self.last_problem = Some("the API server did not answer in time".into());
                self.tries.failed(ctx.now, ctx.policy.eviction_retry);
            }
            (Way::Stays(_) | Way::Leaving | Way::Gone | Way::Abandoned(_), _) => {}
        }
    }
}
