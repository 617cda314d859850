//! The mark on the own node: annotation, taint and cordon, in one PATCH.
//!
//! Decides when the mark is written, written again or taken back. It must not know about pods.

use crate::effect::Action;
use crate::event::{FailureKind, NodeFacts, Outcome};
use crate::ledger::{Attempts, Context, Purpose};
use crate::moment::{Moment, Span};
use crate::notice::Standing;

/// A refusal that has lasted this long stands.
const STANDS_AFTER: Span = Span::from_secs(3);

/// How long a watch may lag behind our own PATCH before what it shows is believed.
const WATCH_LAG: Span = Span::from_secs(2);

/// The mark, as it is wanted and as it is acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeMark {
    wanted: Option<Standing>,
    acknowledged: Option<Standing>,
    acknowledged_at: Moment,
    /// A cordon of ours is acknowledged, if not with the newest deadline.
    cordon: bool,
    /// The watch shows the node without what we put there.
    missing: bool,
    /// The watch shows a mark of ours, since this moment, and none is wanted.
    stray: Option<(Moment, Standing)>,
    writing: Option<Standing>,
    tries: Attempts,
    uncordon: bool,
    /// The API server will not let us: evictions go on without it, and the report says so.
    pub(crate) forbidden: bool,
    /// It said so first at this moment, and only so since.
    forbidden_since: Option<Moment>,
}

impl NodeMark {
    /// The standing that is wanted.
    pub(crate) fn wanted(&self) -> Option<&Standing> {
        self.wanted.as_ref()
    }

    /// The mark found at the start, of this boot.
    pub(crate) fn resume(&mut self, standing: Standing, marked: bool, now: Moment) {
        self.wanted = Some(standing.clone());
        self.cordon = marked && standing.is_hard();
        self.acknowledged = marked.then_some(standing);
        self.acknowledged_at = now;
    }

    /// A mark found at the start that means nothing any more: it is taken back.
    pub(crate) fn take_back(&mut self, standing: Standing) {
        self.uncordon = standing.is_hard() && standing.was_schedulable;
        self.acknowledged = Some(standing);
        self.wanted = None;
    }

    /// From now on this standing is to be on the node.
    pub(crate) fn want(&mut self, standing: Standing, ctx: &mut Context<'_>) {
        self.supersede(ctx);
        let is_new =
            |wanted: &Standing| wanted.notice != standing.notice || wanted.is_hard() != standing.is_hard();
        if self.wanted.as_ref().is_none_or(is_new) {
            (self.forbidden, self.forbidden_since) = (false, None);
        }
        self.acknowledged = None;
        self.wanted = Some(standing);
    }

    /// The node was schedulable before we cordoned it; `None` where no cordon of ours is on it.
    pub(crate) fn was_schedulable(&self) -> Option<bool> {
        let standing = self.wanted.as_ref().into_iter().chain(&self.acknowledged).find(|it| it.is_hard());
        standing.map(|standing| standing.was_schedulable)
    }

    /// From now on nothing of ours is to be on the node.
    pub(crate) fn clear(&mut self, ctx: &mut Context<'_>) {
        self.supersede(ctx);
        self.cordon = false;
        (self.forbidden, self.forbidden_since) = (false, None);
        if let Some(wanted) = self.wanted.take() {
            // Only a hard mark cordons; a cordon during a soft one is somebody else's.
            self.uncordon |= wanted.is_hard() && wanted.was_schedulable;
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

    /// A cordon is wanted, and one is acknowledged: a deadline that moves does not lift it.
    pub(crate) fn is_cordoned(&self) -> bool {
        self.cordon && self.wanted.as_ref().is_some_and(Standing::is_hard)
    }

    /// The node as a watch shows it: somebody may have taken our taint or the cordon away, or a PATCH has arrived
    /// whose answer has not.
    pub(crate) fn seen(&mut self, node: &NodeFacts, now: Moment) {
        // Somebody lifted a cordon that was there before ours could be: then ours is to be lifted, too.
        let lifted = node.standing.is_none() && !node.unschedulable && self.acknowledged.is_none();
        if let Some(wanted) = self.wanted.as_mut().filter(|wanted| lifted && wanted.is_hard()) {
            wanted.was_schedulable = true;
        }
        let hard = self.wanted.as_ref().is_some_and(Standing::is_hard);
        self.missing = !node.tainted || (hard && !node.unschedulable);
        let shown = !self.missing && self.wanted.is_some() && node.standing == self.wanted;
        if shown && self.acknowledged.is_none() {
            self.acknowledge(self.wanted.clone(), now);
        }
        let stray = node.standing.clone().filter(|_| self.wanted.is_none());
        self.stray = stray.map(|standing| (self.stray.as_ref().map_or(now, |(since, _)| *since), standing));
    }

    /// What the watch shows is believed once it cannot be older than our own PATCH.
    fn believe(&mut self, ctx: &mut Context<'_>) {
        // Also while another deadline is being written: a cordon that somebody lifts then is lifted.
        if self.missing && self.wanted.is_some() && ctx.has_come(self.acknowledged_at + WATCH_LAG) {
            self.acknowledged = None;
            self.cordon = false;
        }
        // A PATCH that was given up may arrive after the one that took the mark back.
        if self.wanted.is_none()
            && self.acknowledged.is_none()
            && let Some((since, standing)) = &self.stray
            && ctx.has_come((*since).max(self.acknowledged_at) + WATCH_LAG)
        {
            self.take_back(standing.clone());
        }
    }

    /// Writes or takes back what differs.
    pub(crate) fn advance(&mut self, ctx: &mut Context<'_>) {
        self.believe(ctx);
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

    /// This is on the node, or nothing of ours is.
    fn acknowledge(&mut self, written: Option<Standing>, now: Moment) {
        self.cordon = written.as_ref().is_some_and(Standing::is_hard);
        self.uncordon &= written.is_some();
        self.missing = false;
        self.stray = None;
        self.acknowledged = written;
        self.acknowledged_at = now;
        (self.forbidden, self.forbidden_since) = (false, None);
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, outcome: &Outcome, ctx: &mut Context<'_>) {
        let written = self.writing.take();
        if let Outcome::Done(_) = outcome {
            self.tries = Attempts::default();
            return self.acknowledge(written, ctx.now);
        }
        // An API server that has just started refuses everything for a moment: its RBAC caches are empty.
        if let Outcome::Failed { kind: FailureKind::Permanent, .. } = outcome {
            let since = *self.forbidden_since.get_or_insert(ctx.now);
            self.forbidden |= ctx.now >= since + STANDS_AFTER;
        } else {
            self.forbidden_since = None;
        }
        self.tries.failed(ctx.now, Span::from_secs(1));
    }
}
