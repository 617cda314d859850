//! What each kind of notice begins, changes and ends: the table "Notices" in docs/architecture.md.
//!
//! Decides whether a notice is hard or soft, which deadline it means, whether it is the one that stands already, and when
//! what came to nothing is undone. It must not know how pods are saved or evicted.

use super::{Machine, REARM};
use crate::announcements::{self, Meaning};
use crate::effect::{Action, KubeEvent, NodeAction, PodAction};
use crate::evacuation::{self, Evacuation};
use crate::moment::{Moment, Span};
use crate::notice::{ActiveNotice, InstanceAction, Notice, NoticeKind};
use crate::open_effects::Context;
use crate::pod_eviction::EvictionState;

/// A rehearsal whose report cannot be written is over so long after its deadline.
const REHEARSED: Span = Span::from_secs(5);

impl Machine {
    pub(super) fn notice_received(&mut self, notice: Notice) {
        if notice.kind == NoticeKind::Drill && !self.may_rehearse(&notice) {
            return;
        }
        self.announcements.running.is_shown(&notice.id);
        if self.announcements.running.has_happened(&notice, self.now) {
            return self.announcements.remove(&notice.id);
        }
        let again = self.announcements.contains(&notice.id);
        self.announcements.insert(notice.clone());
        if again {
            self.shown_again(&notice);
        }
    }

    fn meaning(&self, notice: &Notice) -> Meaning {
        announcements::meaning(notice, &self.policy, self.announcements.running.since(), self.now)
    }

    /// The instance was hibernated and is awake. What led to that is over at once, and nothing is done by a deadline that
    /// passed while it was frozen: what still stands begins anew.
    pub(super) fn resumed(&mut self) {
        self.intake.resumed(self.now);
        self.announcements.running.resumes(self.now);
        let emptied = self.evacuation.as_ref().is_some_and(|it| it.takes_all() && !it.is_rehearsed());
        for id in self.announcements.happened(emptied, self.now) {
            self.notice_withdrawn(&id, true);
        }
        let passed = |it: &Evacuation| it.takes_all() && it.active_notice.deadline <= self.now;
        if self.evacuation.as_ref().is_some_and(passed) {
            self.end_evacuation();
            self.announcements.begin_anew(&self.policy, self.now);
        }
    }

    /// IMDS shows the notice under which the node is evacuated once more: it stands, whatever was heard meanwhile.
    fn shown_again(&mut self, notice: &Notice) {
        if let Meaning::Hard(ends) = self.meaning(notice)
            && self.evacuation.is_some()
        {
            self.repeated(notice, ends);
        }
    }

    /// The node is made what the notices that stand ask for.
    pub(super) fn follow(&mut self) {
        if let Some(at) = self.announcements.next_change(&self.policy, self.now) {
            context!(self).wake_at(at);
        }
        if self.evacuation.as_ref().is_some_and(Evacuation::hibernates) {
            self.announcements.wake(&self.policy, self.now);
        }
        while let Some(notice) = self.announcements.untaken(&self.policy, self.now).cloned() {
            self.begin_or_tighten(&notice);
            self.announcements.take(&notice.id);
        }
        match &mut self.evacuation {
            Some(evacuation) if evacuation.is_rehearsed() => {
                // One that was found on the node, and that nobody shows.
                if !self.announcements.contains(&evacuation.latest) {
                    evacuation.withdraw(self.now);
                }
            }
            Some(evacuation) => {
                if !self.announcements.ends_the_node(&self.policy, self.now) {
                    evacuation.withdraw(self.now);
                }
            }
            None => self.mark_softly(),
        }
    }

    /// A hard notice that is new: it begins an evacuation, or moves the end of the one that is under way.
    fn begin_or_tighten(&mut self, notice: &Notice) {
        let Meaning::Hard(ends) = self.meaning(notice) else { return };
        if self.evacuation.is_some() {
            if notice.kind == NoticeKind::Drill {
                return;
            }
            if !self.is_another(notice) {
                return self.repeated(notice, ends);
            }
            self.end_evacuation();
        }
        let Some(boot) = self.boot.clone() else { return };
        let (deadline, short) = evacuation::deadline(ends, &self.policy, self.now);
        let since = self.announcements.running.since();
        let urgent = match notice.kind {
            NoticeKind::Maintenance => announcements::near(notice, &self.policy, since).max(notice.seen),
            NoticeKind::Interruption(_) | NoticeKind::Rebalance | NoticeKind::Drill => notice.seen,
        };
        let active_notice = ActiveNotice {
            notice: notice.id.clone(),
            kind: notice.kind,
            boot,
            began: urgent.min(self.now),
            deadline,
            hard: true,
            was_schedulable: self.was_schedulable(),
        };
        self.evacuate(active_notice, short);
    }

    /// Nothing ends the node: its mark is that of the soft notice that rules, or none.
    fn mark_softly(&mut self) {
        let ruling = self.announcements.softest(&self.policy, self.now);
        let Some((notice, until)) = ruling.map(|(notice, until)| (notice.clone(), until)) else {
            if self.mark.wanted().is_some() {
                self.mark.clear(&mut context!(self));
            }
            return;
        };
        // A cordon of ours is taken back before a soft mark takes its place.
        let stands =
            self.mark.wanted().map_or(!self.mark.is_clear(), |it| it.notice == notice.id || it.is_hard());
        if stands {
            return;
        }
        let Some(boot) = self.boot.clone() else { return };
        let note = format!("{} notice {}: soft taint and pre-copy", notice.kind.as_str(), notice.id);
        let active_notice = ActiveNotice {
            notice: notice.id,
            kind: notice.kind,
            boot,
            began: notice.seen.min(self.now),
            deadline: until,
            hard: false,
            was_schedulable: self.was_schedulable(),
        };
        let mut ctx = context!(self);
        ctx.fire(Action::Node(NodeAction::Publish(KubeEvent::normal("PreCopyStarted", note))));
        self.mark.want(active_notice, &mut ctx);
    }

    /// Nothing stands that is more than a rehearsal.
    fn may_rehearse(&mut self, notice: &Notice) -> bool {
        if self.announcements.contains(&notice.id) || self.announcements.was_played(&notice.id) {
            return false;
        }
        // A mark whose notice is over is no reason: it is taken back in this very step.
        let soft = || self.announcements.softest(&self.policy, self.now).map(|(it, _)| it.id.clone());
        let stands = self.evacuation.as_ref().map(|it| it.active_notice.notice.clone()).or_else(soft);
        let ends = self.announcements.untaken(&self.policy, self.now).is_some()
            || self.announcements.ends_the_node(&self.policy, self.now);
        if stands.is_none() && self.evacuation.is_none() && !ends {
            return true;
        }
        let stands = stands.unwrap_or_else(|| "another notice".to_owned());
        let note = format!("drill {}: {stands} stands on this node; try again when it is over", notice.id);
        context!(self).fire(Action::Node(NodeAction::Publish(KubeEvent::warning("DrillRefused", note))));
        false
    }

    /// A hard notice that is not the one under which the node is evacuated: the node outlived that
    /// one, or freezes, or woke from hibernation, or that one was withdrawn or rehearsed.
    fn is_another(&self, notice: &Notice) -> bool {
        self.evacuation.as_ref().is_some_and(|evacuation| {
            let over = self.now > evacuation.active_notice.deadline + REARM;
            let hibernates = notice.kind == NoticeKind::Interruption(InstanceAction::Hibernate);
            let other_sleep = evacuation.hibernates() != hibernates;
            let again = evacuation.withdrawn.is_some() && notice.kind != NoticeKind::Rebalance;
            let rehearsed = evacuation.is_rehearsed() && notice.kind != NoticeKind::Drill;
            evacuation.latest != notice.id && (over || other_sleep || again || rehearsed)
        })
    }

    /// The notice that stands, once more. One absolute deadline: one that moves later changes
    /// nothing, one that moves nearer counts. The evacuation keeps its name.
    fn repeated(&mut self, notice: &Notice, ends: Moment) {
        let (deadline, short) = evacuation::deadline(ends, &self.policy, self.now);
        let Some(evacuation) = &mut self.evacuation else { return };
        self.repeated += 1;
        if notice.kind != NoticeKind::Rebalance {
            (evacuation.withdrawn, evacuation.is_over) = (None, false);
            evacuation.latest.clone_from(&notice.id);
        }
        let over = self.now > evacuation.active_notice.deadline + REARM;
        if over || deadline + Span::from_secs(1) >= evacuation.active_notice.deadline {
            return;
        }
        evacuation.active_notice.deadline = deadline;
        evacuation.short |= short;
        let active_notice = evacuation.active_notice.clone();
        let mut ctx = context!(self);
        for pod in self.pods.values_mut() {
            pod.tighten(active_notice.began, deadline, &mut ctx);
        }
        self.mark.want(active_notice, &mut ctx);
    }

    fn was_schedulable(&self) -> bool {
        let Some(node) = &self.node else { return false };
        // The annotation may be of a request that an earlier life left on its way.
        let noted = || node.active_notice.as_ref().filter(|it| it.is_hard()).map(|it| it.was_schedulable);
        self.mark.was_schedulable().or_else(noted).unwrap_or(!node.unschedulable)
    }

    fn evacuate(&mut self, active_notice: ActiveNotice, short: bool) {
        let evacuation = Evacuation::new(active_notice.clone(), short);
        let mut ctx = context!(self);
        evacuation.announce(&mut ctx);
        self.mark.want(active_notice.clone(), &mut ctx);
        for pod in self.pods.values_mut().filter(|pod| pod.departure.is_some()) {
            pod.tighten(active_notice.began, active_notice.deadline, &mut ctx);
        }
        if evacuation.hibernates() {
            for pod in self.pods.values_mut().filter(|pod| !pod.precopy.is_past_flush()) {
                pod.precopy.cancel(&mut ctx);
            }
        }
        self.evacuation = Some(evacuation);
    }

    pub(super) fn notice_withdrawn(&mut self, id: &str, is_over: bool) {
        self.announcements.remove(id);
        if let Some(evacuation) = self.evacuation.as_mut().filter(|it| is_over && it.latest == id) {
            evacuation.is_over = true;
        }
    }

    /// What came to nothing leaves no trace after its time.
    pub(super) fn undo(&mut self) {
        let mut ctx = context!(self);
        let Some(evacuation) = &self.evacuation else { return };
        let rehearsed = evacuation.is_rehearsed();
        // A hibernated instance is awake again as soon as its notice is gone.
        let at_once = rehearsed || evacuation.hibernates() || evacuation.is_over;
        let wait = if at_once { Span::ZERO } else { self.policy.undo_after };
        let ends = (rehearsed
            && (evacuation.is_reported()
                || ctx.reached_or_wake(evacuation.active_notice.deadline + REHEARSED)))
            || evacuation.withdrawn.is_some_and(|withdrawn| ctx.reached_or_wake(withdrawn + wait));
        if ends {
            self.end_evacuation();
        }
    }

    /// The node goes on. What still stands may mark it again.
    fn end_evacuation(&mut self) {
        if let Some(evacuation) = self.evacuation.take().filter(Evacuation::is_rehearsed) {
            self.announcements.finish_drill(&evacuation.active_notice.notice);
        }
        let mut ctx = context!(self);
        self.mark.clear(&mut ctx);
        for pod in self.pods.values_mut() {
            pod.stand_down(&mut ctx);
            // An API server that does not know a new pod yet says that it is gone. The watch knows better.
            let is_there = pod.present && pod.facts.terminating.is_none();
            if let Some(departure) = &mut pod.departure
                && (departure.eviction.is_not_leaving()
                    || (is_there && departure.eviction.state == EvictionState::Gone))
            {
                // It was never evicted, and its node stays: it goes on.
                ctx.fire(Action::Pod { uid: pod.facts.uid.clone(), action: PodAction::Resume });
                pod.take_back(&mut ctx);
            }
        }
    }
}
