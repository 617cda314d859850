//! The machine: absorbs one event, then lets every part take its next steps.
//!
//! Decides which part an event is for, and in which order the parts go on. What a notice begins or ends is in
//! `machine/notices.rs`. It must not know how a pod is saved, evicted or restored. See the crate's documentation for
//! the contract.

use crate::announcements::{self, Announcements};
use crate::effect::{Action, Effect};
use crate::evacuation::Evacuation;
use crate::event::{Event, NodeFacts};
use crate::intake::Intake;
use crate::moment::{Moment, Span};
use crate::node_mark::NodeMark;
use crate::notice::NoticeKind;
use crate::open_effects::{Context, OpenEffects};
use crate::pod::{PodFacts, PodUid};
use crate::pods::{Pods, TrackedPod};
use crate::policy::{Policy, RebalancePolicy};
use crate::report::Report;
use crate::saves::Saves;
use crate::status::{Status, StatusSource};
use crate::store_contact::StoreContact;

/// How long after an evacuation's deadline a new notice starts a new one: the node is still alive.
const REARM: Span = Span::from_secs(60);

/// The deciding core of one node.
#[derive(Debug)]
pub struct Machine {
    policy: Policy,
    now: Moment,
    /// The boot in which this life began.
    boot: Option<String>,
    intake: Intake,
    announcements: Announcements,
    node: Option<NodeFacts>,
    mark: NodeMark,
    pods: Pods,
    evacuation: Option<Evacuation>,
    saves: Saves,
    effects: OpenEffects,
    store: StoreContact,
    wakeup: Option<Moment>,
    repeated: u64,
}

macro_rules! context {
    ($self:ident) => {
        Context {
            now: $self.now,
            policy: &$self.policy,
            effects: &mut $self.effects,
            store: $self.store,
            wakeup: &mut $self.wakeup,
        }
    };
}

mod answers;
mod notices;
mod outlook;

impl Machine {
    /// A core that has seen nothing yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            now: Moment::default(),
            boot: None,
            intake: Intake::default(),
            announcements: Announcements::default(),
            node: None,
            mark: NodeMark::default(),
            pods: Pods::new(),
            evacuation: None,
            saves: Saves::default(),
            effects: OpenEffects::default(),
            store: StoreContact::default(),
            wakeup: None,
            repeated: 0,
        }
    }

    /// Takes one event and answers with what is to be done next.
    ///
    /// `now` never goes backwards; if it does, the last moment counts. Infallible: what should not
    /// happen becomes an [`Action::Anomaly`].
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        self.now = self.now.max(now);
        self.wakeup = None;
        self.saves.settle(&mut self.pods, self.now);
        self.absorb(event);
        self.admit();
        self.advance();
        self.effects.take()
    }

    /// When the core wants to be woken, if nothing happens before.
    pub fn next_wakeup(&self) -> Option<Moment> {
        self.wakeup
    }

    /// Time left until the deadline of the evacuation that is under way.
    pub fn time_left(&self) -> Option<Span> {
        self.evacuation.as_ref().map(|evacuation| evacuation.active_notice.deadline.left(self.now))
    }

    /// The report of the evacuation that is under way, as it would be written now.
    pub fn report(&mut self) -> Option<Report> {
        let node = self.node.as_ref()?.name.clone();
        let ctx = context!(self);
        Some(self.evacuation.as_ref()?.report(&node, &self.pods, &ctx))
    }

    /// What the core is doing, for people and probes.
    pub fn status(&self) -> Status {
        Status::of(StatusSource {
            now: self.now,
            node: self.node.as_ref(),
            announcements: self.announcements.listed(self.now),
            mark: &self.mark,
            pods: &self.pods,
            evacuation: self.evacuation.as_ref(),
            late_answers: self.effects.late_answers,
            open_effects: self.effects.waiting(),
            repeated_notices: self.repeated,
        })
    }

    fn absorb(&mut self, event: Event) {
        // An answer is let through: the anomaly itself is answered.
        let answers = matches!(event, Event::Answered { .. } | Event::TimerFired);
        if !answers && self.boot.is_some() == matches!(event, Event::AgentStarted { .. }) {
            let what = format!("{} is not the first event of a life, or is not alone in it", event.name());
            return context!(self).fire(Action::Anomaly { what });
        }
        match event {
            Event::AgentStarted { boot, slept } => {
                self.boot = Some(boot);
                self.announcements.running.starts(slept, self.now);
            }
            Event::Resumed { .. } => self.resumed(),
            Event::NodeRead(node) => self.node_read(node),
            Event::NodeUpdated(node) => {
                self.mark.seen(&node, self.now);
                self.node = Some(node);
            }
            Event::PodUpdated(facts) => {
                if let Some(facts) = self.intake.pod_updated(*facts) {
                    self.pod_updated(facts);
                }
            }
            Event::PodRemoved(uid) => {
                self.intake.pod_removed(&uid);
                self.pod_removed(&uid);
            }
            Event::PodsListed => self.intake.pods_listed(),
            Event::ImdsReachable { reachable } => self.intake.imds_reachable(reachable, self.now),
            Event::NoticeReceived(notice) => {
                self.announcements.running.is_shown(&notice.id);
                self.intake.notice_received(notice);
            }
            Event::NoticeWithdrawn { id, is_over } => {
                self.intake.notice_withdrawn(&id);
                self.announcements.running.forget(&id);
                self.notice_withdrawn(&id, is_over);
            }
            Event::Answered { id, outcome } => self.answered(id, outcome),
            Event::BytesCame { id } => self.bytes_came(id),
            Event::LinkMeasured { bytes_per_second } => self.saves.uplink.rate = Some(bytes_per_second),
            // Under a notice everything is saved in any case, and a hibernating instance has no time for more.
            Event::PreCopyRequested if self.evacuation.is_none() => {
                self.pods.values_mut().for_each(|pod| pod.precopy.ask());
            }
            Event::PreCopyRequested => {}
            Event::TimerFired => {}
        }
    }

    fn node_read(&mut self, node: NodeFacts) {
        let mut standing = None;
        self.announcements.running.remembers(&node.over);
        self.mark.found_noted(&node.over);
        if let Some(active_notice) = node.active_notice.clone() {
            let of_this_boot = Some(&active_notice.boot) == self.boot.as_ref();
            let notice = announcements::found(&active_notice, &self.policy);
            let running = &mut self.announcements.running;
            // Before it began to run again the node was emptied for it.
            let maintained = active_notice.is_hard() && active_notice.kind == NoticeKind::Maintenance;
            if maintained && (!of_this_boot || notice.is_before(running.since())) {
                running.was_emptied_for(&active_notice.notice);
            }
            if of_this_boot && !running.has_happened(&notice, self.now) {
                let marked = node.tainted && (node.unschedulable || !active_notice.is_hard());
                self.mark.resume(active_notice.clone(), marked, self.now);
                self.announcements.resume(&active_notice, &self.policy);
                if active_notice.is_hard() {
                    self.evacuation = Some(Evacuation::resume(active_notice.clone()));
                }
                standing = Some(active_notice);
            } else {
                // Another boot is another life: the instance was stopped and came back. Or it has woken.
                self.mark.take_back(active_notice);
            }
        }
        self.node = Some(node);
        for facts in self.intake.node_read(standing.as_ref(), self.now) {
            self.pod_updated(facts);
        }
    }

    /// What has waited for long enough is taken in.
    fn admit(&mut self) {
        let due = self.intake.due_notices(&mut context!(self));
        for notice in due {
            self.notice_received(notice);
        }
        let given_up = self.intake.given_up(&mut context!(self));
        if let Some(id) = given_up {
            self.notice_withdrawn(&id, false);
        }
        let running = &mut self.announcements.running;
        if running.waits_for_imds() && self.intake.has_heard_imds(&mut context!(self)) {
            running.forget_what_is_not_shown();
        }
    }

    fn pod_updated(&mut self, mut facts: PodFacts) {
        let uid = facts.uid.clone();
        let pod = self.pods.entry(uid).or_insert_with(|| TrackedPod::new(facts.clone()));
        // A termination never ends: a list of an API server that lags behind may show the pod as it was before.
        facts.terminating = facts.terminating.or(pod.facts.terminating);
        let opened = facts.restore_decided && !pod.facts.restore_decided;
        pod.facts = facts;
        let mut ctx = context!(self);
        if opened && pod.was_to_leave_without_a_save() {
            // The request of an earlier life has opened its gate: what is in its engine is its own.
            pod.take_back(&mut ctx);
        }
        let takes_all = self.evacuation.as_ref().is_some_and(Evacuation::takes_all);
        if pod.facts.terminating.is_some() && pod.is_staying() {
            // It was to stay, and somebody deletes it.
            pod.take_back(&mut ctx);
        }
        let (stays, now) = (pod.departure.as_ref().is_some_and(|it| it.eviction.stays()), self.now);
        if let Some(ends) = pod.facts.terminating.filter(|_| stays) {
            // Its save is under way, and has no more time than the pod itself.
            pod.tighten(now, ends, &mut ctx);
        }
        match (&mut pod.departure, pod.facts.terminating) {
            (Some(departure), Some(_)) => departure.eviction.seen_terminating(self.now),
            (Some(departure), None) => {
                if let Some(why) = pod.facts.stays() {
                    departure.eviction.seen_staying(why);
                }
            }
            // Under a notice it departs with all the others, under the notice's name: it may be one
            // that an earlier life has evicted.
            (None, Some(ends)) if !takes_all => pod.deleted(ends, &mut ctx),
            (None, Some(_) | None) => {}
        }
    }

    fn pod_removed(&mut self, uid: &PodUid) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let mut ctx = context!(self);
        pod.present = false;
        pod.precopy.cancel(&mut ctx);
        pod.reload.cancel(&mut ctx);
        if !pod.restore.is_over() {
            pod.restore.cancel(uid, &mut ctx);
        }
        if let Some(departure) = &mut pod.departure {
            departure.eviction.seen_gone(self.now);
            departure.save.pod_gone(uid, &mut ctx);
        }
    }

    fn advance(&mut self) {
        let Some(node) = self.node.as_ref().map(|node| node.name.clone()) else { return };
        self.follow();
        self.undo();
        self.mark.note(self.announcements.running.over());
        let mut ctx = context!(self);
        self.mark.advance(&mut ctx);
        if let Some(evacuation) = &mut self.evacuation {
            let listed = self.intake.is_listed();
            evacuation.advance(&node, listed, &mut self.pods, &self.mark, &mut self.saves, &mut ctx);
        } else {
            self.saves.advance(&mut self.pods, &mut ctx);
            for pod in self.pods.values_mut() {
                pod.advance_hold(&mut ctx);
            }
        }
        self.advance_serving();
        self.forget();
    }

    /// Pods that stay for now: restores, inspections, pre-copies.
    fn advance_serving(&mut self) {
        let mut ctx = context!(self);
        let soft = self.mark.wanted().is_some_and(|active_notice| !active_notice.is_hard())
            && self.policy.rebalance != RebalancePolicy::Off;
        let frozen = self.evacuation.as_ref().is_some_and(Evacuation::hibernates);
        let mut slots = usize::from(!self.pods.values().any(|pod| pod.precopy.is_under_way()));
        let serves =
            |pod: &&mut TrackedPod| pod.present && pod.departure.is_none() && pod.facts.engine.is_some();
        let mut serving: Vec<&mut TrackedPod> = Vec::with_capacity(self.pods.len());
        serving.extend(self.pods.values_mut().filter(serves));
        serving.sort_by_key(|pod| std::cmp::Reverse(pod.facts.priority));
        for (rank, pod) in (0u64..).zip(serving) {
            // Frozen or not: a gate is opened in time, and a claim that ran out meanwhile is noticed.
            pod.advance_restore(&mut ctx);
            if !pod.is_settled() {
                continue;
            }
            pod.inspection.advance(&pod.facts, &mut ctx);
            let every = match (frozen, soft) {
                (true, _) => None,
                (false, true) => Some(self.policy.precopy_interval),
                (false, false) => pod.facts.engine.as_ref().and_then(|engine| engine.interval),
            };
            pod.precopy.advance(&pod.facts, every, rank, &mut slots, &mut ctx);
        }
    }

    /// Drops pods that are no more and whose story is told.
    fn forget(&mut self) {
        let evacuating = self.evacuation.is_some();
        self.pods.retain(|_, pod| {
            let told = match &pod.departure {
                // The report speaks of all that left meanwhile, whoever sent them.
                Some(departure) => departure.save.is_over() && !evacuating,
                None => !evacuating,
            };
            pod.present || !told
        });
    }
}
