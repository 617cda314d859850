//! The mark on the own node: ours while a notice stands, gone when none does, and never the undoing of another's
//! cordon (guarantees 1 and 9).
//!
//! Knows the node by what a watch showed of it and what was acknowledged. It must not know pods.

use super::Checker;
use evacuation::event::{FailureKind, NodeFacts, Outcome};
use evacuation::notice::ActiveNotice;

/// The node as the trace shows it. It outlives the agent.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// It was read by some life.
    known: bool,
    /// A cordon of ours was acknowledged, or found at the start.
    pub(super) cordoned: bool,
    /// Since when the watch shows the node without our cordon.
    pub(super) uncordoned_at: Option<u64>,
    /// The API server forbids the mark: evictions go on without it.
    pub(super) forbidden: bool,
    /// The mark that was asked for last.
    asked: Option<ActiveNotice>,
    /// A cordon of ours may be on it.
    our_cordon: bool,
    others_cordon: bool,
    clear_failed: bool,
    /// It was asked to take the mark back, and no answer says that it has: it may be asked again.
    clearing: bool,
    unschedulable: bool,
    tainted: bool,
    active_notice: Option<ActiveNotice>,
}

impl Node {
    /// Nobody has read it yet.
    pub(super) const fn is_unknown(&self) -> bool {
        !self.known
    }

    /// A life reads it; `ours`: what is on it is of this boot.
    pub(super) fn starts(&mut self, node: &NodeFacts, ours: bool) {
        let first = !std::mem::replace(&mut self.known, true);
        (self.uncordoned_at, self.forbidden, self.clear_failed) = (None, false, false);
        self.asked = None;
        let hard = node.active_notice.as_ref().filter(|active_notice| active_notice.hard);
        self.cordoned = ours && hard.is_some() && node.tainted && node.unschedulable;
        if node.active_notice.is_none() && !node.tainted {
            self.our_cordon = false;
        }
        if first && let Some(hard) = hard {
            self.others_cordon = !hard.was_schedulable;
        }
        self.takes(node);
    }

    pub(super) fn seen(&mut self, now: u64, node: &NodeFacts) {
        if node.unschedulable && node.tainted {
            self.uncordoned_at = None;
            // As good as the answer, which may come late or never.
            self.cordoned |=
                self.asked.as_ref().is_some_and(|asked| asked.hard) && node.active_notice == self.asked;
        } else {
            self.uncordoned_at.get_or_insert(now);
        }
        self.takes(node);
    }

    fn takes(&mut self, node: &NodeFacts) {
        self.our_cordon |= node.active_notice.as_ref().is_some_and(|active_notice| active_notice.hard);
        // Schedulable and without a mark, it has nobody's cordon: what a late watch showed before means nothing any more.
        if node.active_notice.is_none() && !node.tainted && !node.unschedulable {
            self.our_cordon = false;
        }
        if !self.our_cordon {
            self.others_cordon = node.unschedulable;
        }
        (self.unschedulable, self.tainted) = (node.unschedulable, node.tainted);
        self.active_notice.clone_from(&node.active_notice);
    }

    /// What a watch shows may be older than our own PATCH for two seconds.
    pub(super) fn tick(&mut self, now: u64) {
        if self.uncordoned_at.is_some_and(|at| now > at + 2_000) {
            self.cordoned = false;
        }
    }

    pub(super) fn marks(&mut self, active_notice: &ActiveNotice) {
        self.our_cordon |= active_notice.hard;
        self.clearing = false;
        self.asked = Some(active_notice.clone());
    }

    pub(super) fn marked(&mut self, active_notice: &ActiveNotice, outcome: &Outcome) {
        match outcome {
            Outcome::Done(_) => {
                self.cordoned |= active_notice.hard;
                self.unschedulable |= active_notice.hard;
                (self.uncordoned_at, self.forbidden, self.tainted) = (None, false, true);
                self.active_notice = Some(active_notice.clone());
            }
            Outcome::Failed { kind: FailureKind::Permanent, .. } => self.forbidden = true,
            Outcome::Failed { .. } | Outcome::TimedOut | Outcome::Panicked => {}
        }
    }

    pub(super) fn mark_cleared(&mut self, uncordon: bool, done: bool) {
        self.clear_failed = !done;
        self.clearing &= !done;
        if done {
            (self.tainted, self.active_notice, self.our_cordon) = (false, None, false);
            self.unschedulable &= !uncordon;
        }
    }

    /// Evictions may begin, as far as the node is concerned.
    pub(super) const fn is_decided(&self) -> bool {
        self.cordoned || self.forbidden
    }
}

impl Checker {
    pub(super) fn clears_mark(&mut self, uncordon: bool) {
        // One of another boot means nothing any more, and gives way to what stands now.
        let foreign = self.node.active_notice.as_ref().is_some_and(|it| Some(&it.boot) != self.boot.as_ref());
        if let Err((guarantee, what)) =
            self.notices.may_clear_mark(self.now, self.node.our_cordon || self.node.clearing || foreign)
        {
            self.wrong(guarantee, what);
        }
        self.node.clearing = true;
        if uncordon && self.node.others_cordon {
            self.wrong(1, "it uncordons a node that somebody else had cordoned");
        }
        self.node.asked = None;
        let ours = self.node.active_notice.as_ref().is_some_and(|active_notice| active_notice.hard);
        if ours && !self.node.others_cordon && !uncordon {
            self.wrong(9, "it leaves its own cordon behind");
        }
    }

    /// At the end of a trace in which nothing has stood for a while.
    pub(super) fn leaves_no_trace(&mut self) {
        let over = self.notices.nothing_since(self.now).is_some_and(|span| span > 10_000);
        if !over || self.node.clear_failed {
            return;
        }
        if self.node.tainted || self.node.active_notice.is_some() {
            self.wrong(9, "nothing stands any more, and its mark is still on the node");
        }
        if self.node.unschedulable && !self.node.others_cordon {
            self.wrong(9, "nothing stands any more, and the node is still cordoned");
        }
    }
}
