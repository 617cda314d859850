//! The machine: absorbs one event, then lets every part take its next steps.
//!
//! Decides which part an event is for, and in which order the parts go on. What a notice begins or ends is in
//! `machine/notices.rs`. It must not know how a pod is saved, evicted or restored. See the crate's documentation for
//! the contract.

use crate::effect::Effect;
use crate::evacuation::Evacuation;
use crate::event::{Event, NodeFacts};
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
use std::collections::BTreeSet;

/// How long after an evacuation's deadline a new notice starts a new one: the node is still alive.
const REARM: Span = Span::from_secs(60);

/// The deciding core of one node.
#[derive(Debug)]
pub struct Machine {
    policy: Policy,
    now: Moment,
    node: Option<NodeFacts>,
    mark: NodeMark,
    pods: Pods,
    evacuation: Option<Evacuation>,
    /// A maintenance event that is still far away: when the instance goes.
    maintenance: Option<(String, Moment)>,
    seen_notices: BTreeSet<String>,
    saves: Saves,
    effects: OpenEffects,
    wakeup: Option<Moment>,
    repeated: u64,
}

macro_rules! context {
    ($self:ident) => {
        Context {
            now: $self.now,
            policy: &$self.policy,
            effects: &mut $self.effects,
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
            node: None,
            mark: NodeMark::default(),
            pods: Pods::new(),
            evacuation: None,
            maintenance: None,
            seen_notices: BTreeSet::new(),
            saves: Saves::default(),
            effects: OpenEffects::default(),
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
            mark: &self.mark,
            pods: &self.pods,
            evacuation: self.evacuation.as_ref(),
            late_answers: self.effects.late_answers,
            open_effects: self.effects.waiting(),
            repeated_notices: self.repeated,
        })
    }

    fn absorb(&mut self, event: Event) {
        match event {
            Event::Started(node) => self.started(node),
            Event::NodeUpdated(node) => {
                self.mark.seen(&node, self.now);
                self.node = Some(node);
            }
            Event::PodUpdated(facts) => self.pod_updated(*facts),
            Event::PodRemoved(uid) => self.pod_removed(&uid),
            Event::NoticeReceived(notice) => self.notice_received(notice),
            Event::NoticeWithdrawn { id } => self.notice_withdrawn(&id),
            Event::Answered { id, outcome } => self.answered(id, outcome),
            Event::LinkMeasured { bytes_per_second } => self.saves.uplink.rate = Some(bytes_per_second),
            // Under a notice everything is saved in any case, and a hibernating instance has no time for more.
            Event::PreCopyRequested if self.evacuation.is_none() => {
                self.pods.values_mut().for_each(|pod| pod.precopy.ask());
            }
            Event::PreCopyRequested => {}
            Event::TimerFired => {}
        }
    }

    fn started(&mut self, node: NodeFacts) {
        if let Some(active_notice) = node.active_notice.clone() {
            if active_notice.boot == node.boot {
                let marked = node.tainted && (node.unschedulable || !active_notice.is_hard());
                self.mark.resume(active_notice.clone(), marked, self.now);
                self.seen_notices.insert(active_notice.notice.clone());
                if active_notice.is_hard() {
                    self.evacuation = Some(Evacuation::resume(active_notice, self.now));
                } else if active_notice.kind == NoticeKind::Maintenance {
                    self.maintenance = Some((active_notice.notice, active_notice.deadline));
                }
            } else {
                // Another boot is another life: the instance was stopped and came back.
                self.mark.take_back(active_notice);
            }
        }
        self.node = Some(node);
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
            pod.restore.cancel(&mut ctx);
        }
        if let Some(departure) = &mut pod.departure {
            departure.eviction.seen_gone(self.now);
            departure.save.pod_gone(uid, &mut ctx);
        }
    }

    fn advance(&mut self) {
        let Some(node) = self.node.as_ref().map(|node| node.name.clone()) else { return };
        self.begin_maintenance();
        self.undo();
        let mut ctx = context!(self);
        self.mark.advance(&mut ctx);
        if let Some(evacuation) = &mut self.evacuation {
            evacuation.advance(&node, &mut self.pods, &self.mark, &mut self.saves, &mut ctx);
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
