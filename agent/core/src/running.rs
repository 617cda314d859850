//! Since when the instance runs, and what of the announcements has happened by that.
//!
//! Decides whether what is announced has happened, or is left open. It must not know what a notice begins.
//!
//! The instance begins to run again with each boot, and each time it wakes from hibernation: that is the same boot, and its
//! boot clock has counted the sleep. IMDS goes on showing for a while what led to it.

use crate::moment::{Moment, Span};
use crate::notice::{InstanceAction, Notice, NoticeKind};
use crate::sleep;

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
                let completed = notice
                    .event
                    .is_some_and(|it| (booted && it.restart_completes) || (before && it.resume_completes));
                completed || (before && (self.over.contains(&notice.id) || notice.is_past_window(now)))
            }
            NoticeKind::Interruption(InstanceAction::Terminate)
            | NoticeKind::Rebalance
            | NoticeKind::Drill => false,
        }
    }
}
