//! What each kind of notice begins, changes and ends: the table "Notices" in docs/architecture.md.
//!
//! Decides whether a notice is hard or soft, which deadline it means, whether it is the one that stands already, and when
//! what came to nothing is undone. It must not know how pods are saved or evicted.

use super::{Machine, REARM};
use crate::effect::{Action, KubeEvent, NodeAction, PodAction};
use crate::evacuation::{self, Evacuation};
use crate::moment::{Moment, Span};
use crate::notice::{ActiveNotice, InstanceAction, Notice, NoticeKind};
use crate::open_effects::Context;
use crate::policy::RebalancePolicy;

/// A rehearsal whose report cannot be written is over so long after its deadline.
const REHEARSED: Span = Span::from_secs(5);

impl Machine {
    pub(super) fn notice_received(&mut self, notice: Notice) {
        let Some(boot) = self.boot.clone() else { return };
        if notice.kind == NoticeKind::Drill && !self.may_rehearse(&notice) {
            return;
        }
        let (hard, deadline, short) = self.meaning(&notice);
        let fresh = !self.announcements.contains(&notice.id);
        let was_schedulable = self.was_schedulable();
        if self.evacuation.is_some() {
            if !hard {
                return;
            }
            self.announcements.insert(notice.clone());
            if !(fresh && self.is_another(&notice)) {
                return self.repeated(&notice, deadline, short);
            }
            self.end_evacuation();
        }
        self.announcements.insert(notice.clone());
        let is_rebalance = notice.kind == NoticeKind::Rebalance;
        // IMDS goes on showing it: what came to nothing does not begin again.
        if (!fresh && (is_rebalance || !hard))
            || (is_rebalance && self.policy.rebalance == RebalancePolicy::Off)
            || (!hard && deadline <= self.now)
        {
            return;
        }
        let active_notice = ActiveNotice {
            notice: notice.id.clone(),
            kind: notice.kind,
            boot,
            began: notice.seen.min(self.now),
            deadline,
            hard,
            was_schedulable,
        };
        if !hard {
            if notice.kind == NoticeKind::Maintenance {
                self.announcements.wait_for(&notice.id);
            }
            let note = format!(
                "{} notice {}: soft taint and pre-copy",
                active_notice.kind.as_str(),
                active_notice.notice
            );
            let mut ctx = context!(self);
            ctx.fire(Action::Node(NodeAction::Publish(KubeEvent::normal("PreCopyStarted", note))));
            return self.mark.want(active_notice, &mut ctx);
        }
        self.evacuate(active_notice, short);
    }

    /// Nothing stands that is more than a rehearsal.
    fn may_rehearse(&mut self, notice: &Notice) -> bool {
        let fresh = !self.announcements.contains(&notice.id);
        let stands = self.mark.wanted().map(|active_notice| active_notice.notice.clone());
        if fresh && stands.is_none() && self.evacuation.is_none() && self.announcements.awaited().is_none() {
            return true;
        }
        if fresh {
            let stands = stands.unwrap_or_else(|| "another notice".to_owned());
            let note =
                format!("drill {}: {stands} stands on this node; try again when it is over", notice.id);
            let event = KubeEvent::warning("DrillRefused", note);
            context!(self).fire(Action::Node(NodeAction::Publish(event)));
        }
        false
    }

    /// A hard notice that is not the one under which the node is evacuated: the node outlived that
    /// one, or woke from hibernation, or that one was withdrawn.
    pub(super) fn is_another(&self, notice: &Notice) -> bool {
        self.evacuation.as_ref().is_some_and(|evacuation| {
            let over = self.now > evacuation.active_notice.deadline + REARM;
            let hibernates = notice.kind == NoticeKind::Interruption(InstanceAction::Hibernate);
            let woke = evacuation.hibernates() && !hibernates;
            let again = evacuation.withdrawn.is_some() && notice.kind != NoticeKind::Rebalance;
            let rehearsed = evacuation.is_rehearsed() && notice.kind != NoticeKind::Drill;
            evacuation.latest != notice.id && (over || woke || again || rehearsed)
        })
    }

    /// The notice that stands, once more. One absolute deadline: one that moves later changes
    /// nothing, one that moves nearer counts. The evacuation keeps its name.
    pub(super) fn repeated(&mut self, notice: &Notice, deadline: Moment, short: bool) {
        let Some(evacuation) = &mut self.evacuation else { return };
        self.repeated += 1;
        if notice.kind != NoticeKind::Rebalance {
            evacuation.withdrawn = None;
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

    /// Hard or soft, until when, and whether the window is the minimum one.
    fn meaning(&self, notice: &Notice) -> (bool, Moment, bool) {
        let hard = |(deadline, short)| (true, deadline, short);
        match notice.kind {
            NoticeKind::Drill
            | NoticeKind::Interruption(
                InstanceAction::Terminate | InstanceAction::Stop | InstanceAction::Hibernate,
            ) => hard(evacuation::deadline(notice.ends(), &self.policy, self.now)),
            NoticeKind::Rebalance => match self.policy.rebalance {
                RebalancePolicy::Drain => {
                    hard(evacuation::window(notice.seen + self.policy.drain_window, &self.policy, self.now))
                }
                RebalancePolicy::Precopy | RebalancePolicy::Off => {
                    (false, notice.seen + self.policy.undo_after, false)
                }
            },
            NoticeKind::Maintenance if self.is_near(notice.ends()) => {
                hard(evacuation::deadline(notice.ends(), &self.policy, self.now))
            }
            NoticeKind::Maintenance => (false, notice.ends(), false),
        }
    }

    fn is_near(&self, at: Moment) -> bool {
        at.left(self.now) <= self.policy.drain_window
    }

    pub(super) fn was_schedulable(&self) -> bool {
        let Some(node) = &self.node else { return false };
        // The annotation may be of a request that an earlier life left on its way.
        let noted = || node.active_notice.as_ref().filter(|it| it.is_hard()).map(|it| it.was_schedulable);
        self.mark.was_schedulable().or_else(noted).unwrap_or(!node.unschedulable)
    }

    pub(super) fn evacuate(&mut self, active_notice: ActiveNotice, short: bool) {
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
        self.announcements.wait_for_none();
        self.evacuation = Some(evacuation);
    }

    pub(super) fn notice_withdrawn(&mut self, id: &str) {
        let mut ctx = context!(self);
        if let Some(evacuation) = &mut self.evacuation
            && evacuation.latest == id
        {
            evacuation.withdraw(self.now);
        }
        // Another notice's mark may stand.
        if self.announcements.remove(id)
            && self.mark.wanted().is_some_and(|active_notice| active_notice.notice == id)
        {
            self.mark.clear(&mut ctx);
        }
    }

    /// A maintenance event comes near: from here on it is like an interruption.
    pub(super) fn begin_maintenance(&mut self) {
        let Some(notice) = self.announcements.awaited().cloned() else { return };
        let near = notice.ends() - self.policy.drain_window;
        if !context!(self).reached_or_wake(near) {
            return;
        }
        let Some(boot) = self.boot.clone() else { return };
        let (deadline, short) = evacuation::deadline(notice.ends(), &self.policy, self.now);
        let active_notice = ActiveNotice {
            notice: notice.id,
            kind: NoticeKind::Maintenance,
            boot,
            began: near.max(notice.seen).min(self.now),
            deadline,
            hard: true,
            was_schedulable: self.was_schedulable(),
        };
        self.evacuate(active_notice, short);
    }

    /// What came to nothing leaves no trace after its time.
    pub(super) fn undo(&mut self) {
        let mut ctx = context!(self);
        if let Some(evacuation) = &self.evacuation {
            let rehearsed = evacuation.is_rehearsed();
            if rehearsed
                && (evacuation.is_reported()
                    || ctx.reached_or_wake(evacuation.active_notice.deadline + REHEARSED))
            {
                return self.end_evacuation();
            }
            let Some(withdrawn) = evacuation.withdrawn else { return };
            // A hibernated instance is awake again as soon as its notice is gone.
            let at_once = rehearsed || evacuation.hibernates();
            let wait = if at_once { Span::ZERO } else { self.policy.undo_after };
            if ctx.reached_or_wake(withdrawn + wait) {
                self.end_evacuation();
            }
            return;
        }
        let soft = self.mark.wanted().filter(|active_notice| !active_notice.is_hard());
        if let Some(active_notice) = soft
            && ctx.reached_or_wake(active_notice.deadline)
        {
            self.mark.clear(&mut ctx);
        }
    }

    pub(super) fn end_evacuation(&mut self) {
        self.evacuation = None;
        let mut ctx = context!(self);
        self.mark.clear(&mut ctx);
        for pod in self.pods.values_mut() {
            pod.stand_down(&mut ctx);
            if let Some(departure) = &mut pod.departure
                && departure.eviction.is_not_leaving()
            {
                // It was never evicted, and its node stays: it goes on.
                ctx.fire(Action::Pod { uid: pod.facts.uid.clone(), action: PodAction::Resume });
                pod.take_back(&mut ctx);
            }
        }
    }
}
