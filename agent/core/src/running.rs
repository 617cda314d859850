//! Since when the instance runs, and what of the announcements has happened by that.
//!
//! Decides whether what is announced has happened, or is left open. It must not know what a notice begins.
//!
//! The instance begins to run again with each boot, and each time it wakes from hibernation: that is the same boot, and its
//! boot clock has counted the sleep. IMDS goes on showing for a while what led to it.

use crate::moment::{Moment, Span};
use crate::notice::{InstanceAction, Notice, NoticeKind};
use crate::sleep;
use std::collections::BTreeSet;

/// So many events that are over are remembered: a node rarely has more than one of them at once.
const OVER_MAX: usize = 8;

/// Since when the instance runs, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// It began to run again at this moment. The boot is at zero.
    since: Moment,
    /// It woke at some moment of this boot before this one. Nobody was there to see when.
    woke_before: Option<Moment>,
    /// The events for which the node was emptied before it began to run again, the newest first.
    over: Vec<String>,
    /// Those of them that IMDS shows.
    shown: BTreeSet<String>,
}

impl Running {
    /// A life begins, in a boot in which the instance has slept for so long.
    pub(crate) fn starts(&mut self, slept: Span, now: Moment) {
        self.woke_before = (slept >= sleep::NOTICEABLE).then_some(now);
    }

    /// It woke just now.
    pub(crate) fn resumes(&mut self, now: Moment) {
        self.since = now;
    }

    /// The node was emptied for this event before it began to run again.
    pub(crate) fn was_emptied_for(&mut self, id: &str) {
        self.over.retain(|known| known != id);
        self.over.truncate(OVER_MAX - 1);
        self.over.insert(0, id.to_owned());
    }

    /// What earlier lives have noted on the node.
    pub(crate) fn remembers(&mut self, over: &[String]) {
        for id in over.iter().rev() {
            self.was_emptied_for(id);
        }
    }

    /// What is to be noted on the node for later lives.
    pub(crate) fn over(&self) -> &[String] {
        &self.over
    }

    /// IMDS shows it.
    pub(crate) fn is_shown(&mut self, id: &str) {
        if self.over.iter().any(|known| known == id) {
            self.shown.insert(id.to_owned());
        }
    }

    /// IMDS shows it no more: nobody need know of it.
    pub(crate) fn forget(&mut self, id: &str) {
        self.over.retain(|known| known != id);
        self.shown.remove(id);
    }

    /// One of them was not shown yet.
    pub(crate) fn waits_for_imds(&self) -> bool {
        self.over.iter().any(|id| !self.shown.contains(id))
    }

    /// IMDS has shown all that it shows.
    pub(crate) fn forget_what_is_not_shown(&mut self) {
        self.over.retain(|id| self.shown.contains(id));
    }

    /// Since when it runs.
    pub(crate) const fn since(&self) -> Moment {
        self.since
    }

    /// What it announces has happened: the instance began to run again since, and that was it, or its window is over.
    pub(crate) fn has_happened(&self, notice: &Notice, now: Moment) -> bool {
        let before = notice.is_before(self.since);
        match notice.kind {
            // An instance that has slept and runs after the time of its hibernation has woken from it. At worst that is yet
            // to come, and nothing is lost: a hibernation evicts nothing.
            NoticeKind::Interruption(InstanceAction::Hibernate) => {
                before || self.woke_before.is_some_and(|woke| notice.is_before(woke))
            }
            NoticeKind::Interruption(InstanceAction::Stop) => before,
            NoticeKind::Maintenance => {
                let booted = notice.is_before(Moment::default());
                // When it woke may be known by the lives before alone, which have noted what was over then.
                let noted = before || self.woke_before.is_some_and(|woke| notice.is_before(woke));
                let completed = notice
                    .event
                    .is_some_and(|it| (booted && it.restart_completes) || (before && it.resume_completes));
                completed
                    || (noted && self.over.contains(&notice.id))
                    || (before && notice.is_past_window(now))
            }
            NoticeKind::Interruption(InstanceAction::Terminate)
            | NoticeKind::Rebalance
            | NoticeKind::Drill => false,
        }
    }
}
