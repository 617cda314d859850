//! The mark on the own node: annotation, taint and cordon, in one PATCH.
//!
//! Decides when the mark is written, written again or taken back. It must not know about pods.

use crate::effect::Action;
use crate::event::{FailureKind, NodeFacts, Outcome};
use crate::ledger::{Attempts, Context, Purpose};
use crate::moment::{Moment, Span};
use crate::notice::Standing;

/// How long a watch may lag behind our own PATCH before what it shows is believed.
const WATCH_LAG: Span = Span::from_secs(2);

/// The mark, as it is wanted and as it is acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeMark {
    wanted: Option<Standing>,
    acknowledged: Option<Standing>,
    acknowledged_at: Moment,
    writing: Option<Standing>,
    tries: Attempts,
    uncordon: bool,
    /// The API server will not let us: evictions go on without it, and the report says so.
    pub(crate) forbidden: bool,
}

impl NodeMark {
    /// The standing that is wanted.
    pub(crate) fn wanted(&self) -> Option<&Standing> {
        self.wanted.as_ref()
    }

    /// The mark found at the start, of this boot.
    pub(crate) fn resume(&mut self, standing: Standing, marked: bool, now: Moment) {
        self.wanted = Some(standing.clone());
        self.acknowledged = marked.then_some(standing);
        self.acknowledged_at = now;
    }

    /// A mark found at the start that means nothing any more: it is taken back.
    pub(crate) fn take_back(&mut self, standing: Standing) {
        self.uncordon = standing.was_schedulable;
        self.acknowledged = Some(standing);
        self.wanted = None;
    }

    /// From now on this standing is to be on the node.
    pub(crate) fn want(&mut self, standing: Standing, ctx: &mut Context<'_>) {
        self.supersede(ctx);
        self.forbidden = false;
        self.wanted = Some(standing);
    }

    /// From now on nothing of ours is to be on the node.
    pub(crate) fn clear(&mut self, ctx: &mut Context<'_>) {
        self.supersede(ctx);
        if let Some(wanted) = self.wanted.take() {
            self.uncordon = wanted.was_schedulable;
            // Something of it may be on the node even if no answer said so.
            self.acknowledged.get_or_insert(wanted);
        }
    }

    fn supersede(&mut self, ctx: &mut Context<'_>) {
        if let Some(open) = self.tries.open.take() {
            ctx.ledger.cancel(open, ctx.now + ctx.policy.call_timeout);
            self.acknowledged = self.writing.take().or(self.acknowledged.take());
        }
        self.tries = Attempts::default();
    }

    /// The wanted mark is acknowledged, and it is a cordon.
    pub(crate) fn is_cordoned(&self) -> bool {
        self.acknowledged.as_ref().is_some_and(Standing::is_hard) && self.acknowledged == self.wanted
    }

    /// The node as a watch shows it: somebody may have taken our taint or the cordon away.
    pub(crate) fn seen(&mut self, node: &NodeFacts, now: Moment) {
        let Some(standing) = &self.acknowledged else { return };
        let missing = !node.tainted || (standing.is_hard() && !node.unschedulable);
        if missing && self.wanted.is_some() && now.since(self.acknowledged_at) > WATCH_LAG {
            self.acknowledged = None;
        }
    }

    /// Writes or takes back what differs.
    pub(crate) fn advance(&mut self, ctx: &mut Context<'_>) {
        if self.wanted == self.acknowledged || !self.tries.may_start(ctx) {
            return;
        }
        let attempt = self.tries.next();
        let (purpose, action) = match &self.wanted {
            Some(standing) => {
                self.writing = Some(standing.clone());
                (Purpose::Mark, Action::Mark(standing.clone()))
            }
            None => (Purpose::Unmark, Action::Unmark { uncordon: self.uncordon }),
        };
        let span = ctx.policy.call_timeout;
        self.tries.open = Some(ctx.ask(span, ctx.now + span, attempt, purpose, action));
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, outcome: &Outcome, ctx: &mut Context<'_>) {
        let written = self.writing.take();
        if let Outcome::Done(_) = outcome {
            self.acknowledged = written;
            self.acknowledged_at = ctx.now;
            self.tries = Attempts::default();
            self.forbidden = false;
            return;
        }
        if let Outcome::Failed { kind: FailureKind::Permanent, .. } = outcome {
            self.forbidden = true;
        }
        self.tries.failed(ctx.now, Span::from_secs(1));
    }
}
