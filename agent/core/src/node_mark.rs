//! The mark on the own node: annotation, taint and cordon, in one PATCH.
//!
//! Decides when the mark is written, written again or taken back. It must not know about pods.

use crate::effect::{Action, NodeAction};
use crate::event::{FailureKind, NodeFacts, Outcome};
use crate::moment::{Moment, Span};
use crate::notice::ActiveNotice;
use crate::open_effects::{Attempts, Context, Purpose};

/// A refusal that has lasted this long stands.
const STANDS_AFTER: Span = Span::from_secs(3);

/// How long a watch may lag behind our own PATCH before what it shows is believed.
const WATCH_LAG: Span = Span::from_secs(2);

/// The mark, as it is wanted and as it is acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeMark {
    wanted: Option<ActiveNotice>,
    acknowledged: Option<ActiveNotice>,
    acknowledged_at: Moment,
    /// A cordon of ours is acknowledged, if not with the newest deadline.
    cordon: bool,
    /// The watch shows the node without what we put there.
    missing: bool,
    /// The watch shows a mark of ours, since this moment, and none is wanted.
    stray: Option<(Moment, ActiveNotice)>,
    writing: Option<ActiveNotice>,
    /// The events that are over, as they are to be noted, as they are noted, and as they are being written.
    over: Vec<String>,
    noted: Vec<String>,
    noting: Option<Vec<String>>,
    tries: Attempts,
    uncordon: bool,
    /// The API server will not let us: evictions go on without it, and the report says so.
    pub(crate) forbidden: bool,
    /// It said so first at this moment, and only so since.
    forbidden_since: Option<Moment>,
}

impl NodeMark {
    /// The notice that is to be on the node.
    pub(crate) fn wanted(&self) -> Option<&ActiveNotice> {
        self.wanted.as_ref()
    }

    /// Nothing of ours is on the node, and nothing is on its way.
    pub(crate) fn is_clear(&self) -> bool {
        self.wanted.is_none() && self.acknowledged.is_none() && self.tries.open.is_none()
    }

    /// The mark found at the start, of this boot.
    pub(crate) fn resume(&mut self, active_notice: ActiveNotice, marked: bool, now: Moment) {
        self.wanted = Some(active_notice.clone());
        self.cordon = marked && active_notice.is_hard();
        self.acknowledged = marked.then_some(active_notice);
        self.acknowledged_at = now;
    }

    /// A mark found at the start that means nothing any more: it is taken back.
    pub(crate) fn take_back(&mut self, active_notice: ActiveNotice) {
        self.uncordon = active_notice.is_hard() && active_notice.was_schedulable;
        self.acknowledged = Some(active_notice);
        self.wanted = None;
    }

    /// What the node has noted at the start.
    pub(crate) fn found_noted(&mut self, over: &[String]) {
        over.clone_into(&mut self.noted);
    }

    /// The events that are to be noted as over.
    pub(crate) fn note(&mut self, over: &[String]) {
        if self.over != over {
            over.clone_into(&mut self.over);
        }
    }

    /// From now on this notice is to be on the node.
    pub(crate) fn want(&mut self, active_notice: ActiveNotice, ctx: &mut Context<'_>) {
        self.supersede(ctx);
        let is_new = |wanted: &ActiveNotice| {
            wanted.notice != active_notice.notice || wanted.is_hard() != active_notice.is_hard()
        };
        if self.wanted.as_ref().is_none_or(is_new) {
            (self.forbidden, self.forbidden_since) = (false, None);
        }
        self.acknowledged = None;
        self.wanted = Some(active_notice);
    }

    /// The node was schedulable before we cordoned it; `None` where no cordon of ours is on it.
    pub(crate) fn was_schedulable(&self) -> Option<bool> {
        let active_notice =
            self.wanted.as_ref().into_iter().chain(&self.acknowledged).find(|it| it.is_hard());
        active_notice.map(|active_notice| active_notice.was_schedulable)
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
            ctx.effects.cancel(open, ctx.now + ctx.policy.call_timeout);
            self.acknowledged = self.writing.take().or(self.acknowledged.take());
        }
        self.tries = Attempts::default();
    }

    /// A cordon is wanted, and one is acknowledged: a deadline that moves does not lift it.
    pub(crate) fn is_cordoned(&self) -> bool {
        self.cordon && self.wanted.as_ref().is_some_and(ActiveNotice::is_hard)
    }

    /// The node as a watch shows it: somebody may have taken our taint or the cordon away, or a PATCH has arrived
    /// whose answer has not.
    pub(crate) fn seen(&mut self, node: &NodeFacts, now: Moment) {
        // Somebody lifted a cordon that was there before ours could be: then ours is to be lifted, too.
        let lifted = node.active_notice.is_none() && !node.unschedulable && self.acknowledged.is_none();
        if let Some(wanted) = self.wanted.as_mut().filter(|wanted| lifted && wanted.is_hard()) {
            wanted.was_schedulable = true;
        }
        let hard = self.wanted.as_ref().is_some_and(ActiveNotice::is_hard);
        self.missing = !node.tainted || (hard && !node.unschedulable);
        let shown = !self.missing && self.wanted.is_some() && node.active_notice == self.wanted;
        if shown && self.acknowledged.is_none() {
            self.acknowledge(self.wanted.clone(), now);
        }
        let stray = node.active_notice.clone().filter(|_| self.wanted.is_none());
        self.stray =
            stray.map(|active_notice| (self.stray.as_ref().map_or(now, |(since, _)| *since), active_notice));
    }

    /// What the watch shows is believed once it cannot be older than our own PATCH.
    fn believe(&mut self, ctx: &mut Context<'_>) {
        // Also while another deadline is being written: a cordon that somebody lifts then is lifted.
        if self.missing && self.wanted.is_some() && ctx.reached_or_wake(self.acknowledged_at + WATCH_LAG) {
            self.acknowledged = None;
            self.cordon = false;
        }
        // A PATCH that was given up may arrive after the one that took the mark back.
        if self.wanted.is_none()
            && self.acknowledged.is_none()
            && let Some((since, active_notice)) = &self.stray
            && ctx.reached_or_wake((*since).max(self.acknowledged_at) + WATCH_LAG)
        {
            self.take_back(active_notice.clone());
        }
    }

    /// Writes or takes back what differs.
    pub(crate) fn advance(&mut self, ctx: &mut Context<'_>) {
        self.believe(ctx);
        // They are noted when the mark is taken back, and noted anew where none is wanted.
        let noted = self.wanted.is_some() || self.over == self.noted;
        if (self.wanted == self.acknowledged && noted) || !self.tries.may_start(ctx) {
            return;
        }
        let attempt = self.tries.next();
        let (purpose, action) = match &self.wanted {
            Some(active_notice) => {
                self.writing = Some(active_notice.clone());
                self.noting = None;
                (Purpose::MarkNode, Action::Node(NodeAction::MarkNode(active_notice.clone())))
            }
            None => {
                self.noting = Some(self.over.clone());
                let (uncordon, over) = (self.uncordon, self.over.clone());
                (Purpose::ClearNodeMark, Action::Node(NodeAction::ClearNodeMark { uncordon, over }))
            }
        };
        let span = ctx.policy.call_timeout;
        self.tries.open = Some(ctx.ask(span, ctx.now + span, attempt, purpose, action));
    }

    /// This is on the node, or nothing of ours is.
    fn acknowledge(&mut self, written: Option<ActiveNotice>, now: Moment) {
        self.cordon = written.as_ref().is_some_and(ActiveNotice::is_hard);
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
            self.noted = self.noting.take().unwrap_or_else(|| std::mem::take(&mut self.noted));
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
