//! The machine: absorbs one event, then lets every part take its next steps.
//!
//! Decides which part an event is for, and what each kind of notice begins. See the crate's
//! documentation for the contract.

use crate::departure::{Cause, Pod};
use crate::effect::{Action, Effect, EffectId, Subject};
use crate::evacuation::{self, Evacuation, Pods};
use crate::event::{Event, NodeFacts, Outcome};
use crate::ledger::{Context, Ledger, Purpose};
use crate::moment::{Moment, Span};
use crate::notice::{InstanceAction, Notice, NoticeKind, Standing};
use crate::pod::{PodFacts, PodUid};
use crate::policy::{Policy, RebalancePolicy};
use crate::report::Report;
use crate::standing::NodeMark;
use crate::status::Status;
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
    link: Option<u64>,
    ledger: Ledger,
    wakeup: Option<Moment>,
    repeated: u64,
}

macro_rules! context {
    ($self:ident) => {
        Context {
            now: $self.now,
            policy: &$self.policy,
            ledger: &mut $self.ledger,
            wakeup: &mut $self.wakeup,
        }
    };
}

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
            link: None,
            ledger: Ledger::default(),
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
        self.absorb(event);
        self.advance();
        self.ledger.take()
    }

    /// When the core wants to be woken, if nothing happens before.
    pub fn next_wakeup(&self) -> Option<Moment> {
        self.wakeup
    }

    /// Time left until the deadline of the evacuation that is under way.
    pub fn time_left(&self) -> Option<Span> {
        self.evacuation.as_ref().map(|evacuation| evacuation.standing.deadline.left(self.now))
    }

    /// The report of the evacuation that is under way, as it would be written now.
    pub fn report(&mut self) -> Option<Report> {
        let node = self.node.as_ref()?.name.clone();
        let ctx = context!(self);
        Some(self.evacuation.as_ref()?.report(&node, &self.pods, &ctx))
    }

    /// What the core is doing, for people and probes.
    pub fn status(&self) -> Status {
        Status::of(self)
    }

    pub(crate) fn parts(
        &self,
    ) -> (&Policy, Moment, Option<&NodeFacts>, &NodeMark, &Pods, Option<&Evacuation>) {
        (&self.policy, self.now, self.node.as_ref(), &self.mark, &self.pods, self.evacuation.as_ref())
    }

    pub(crate) fn counters(&self) -> (u64, usize, u64) {
        (self.ledger.late_answers, self.ledger.waiting(), self.repeated)
    }

    fn absorb(&mut self, event: Event) {
        match event {
            Event::Started(node) => self.started(node),
            Event::NodeSeen(node) => {
                self.mark.seen(&node);
                self.node = Some(node);
            }
            Event::PodSeen(facts) => self.pod_seen(*facts),
            Event::PodGone(uid) => self.pod_gone(&uid),
            Event::Noticed(notice) => self.noticed(notice),
            Event::Withdrawn { id } => self.withdrawn(&id),
            Event::Answered { id, outcome } => self.answered(id, outcome),
            Event::LinkMeasured { bytes_per_second } => self.link = Some(bytes_per_second),
            Event::Woke => {}
        }
    }

    fn started(&mut self, node: NodeFacts) {
        if let Some(standing) = node.standing.clone() {
            if standing.boot == node.boot {
                let marked = node.tainted && (node.unschedulable || !standing.is_hard());
                self.mark.resume(standing.clone(), marked, self.now);
                self.seen_notices.insert(standing.notice.clone());
                if standing.is_hard() {
                    self.evacuation = Some(Evacuation::resume(standing, self.now));
                } else if standing.kind == NoticeKind::Maintenance {
                    self.maintenance = Some((standing.notice, standing.deadline));
                }
            } else {
                // Another boot is another life: the instance was stopped and came back.
                self.mark.take_back(standing);
            }
        }
        self.node = Some(node);
    }

    fn pod_seen(&mut self, facts: PodFacts) {
        let uid = facts.uid.clone();
        let pod = self.pods.entry(uid).or_insert_with(|| Pod::new(facts.clone()));
        pod.facts = facts;
        let mut ctx = context!(self);
        let takes_all = self.evacuation.as_ref().is_some_and(Evacuation::takes_all);
        if pod.facts.terminating.is_some() && pod.is_staying() {
            // It was to stay, and somebody deletes it.
            pod.take_back(&mut ctx);
        }
        match (&mut pod.departure, pod.facts.terminating) {
            (Some(departure), Some(_)) => departure.leave.seen_terminating(self.now),
            (Some(departure), None) => {
                if let Some(why) = pod.facts.stays() {
                    departure.leave.seen_staying(why);
                }
            }
            // Under a notice it departs with all the others, under the notice's name: it may be one
            // that an earlier life has evicted.
            (None, Some(ends)) if !takes_all => pod.deleted(ends, &mut ctx),
            (None, Some(_) | None) => {}
        }
    }

    fn pod_gone(&mut self, uid: &PodUid) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let mut ctx = context!(self);
        pod.present = false;
        pod.precopy.cancel(&mut ctx);
        if !pod.restoration.is_over() {
            pod.restoration.cancel(&mut ctx);
        }
        if let Some(departure) = &mut pod.departure {
            departure.leave.seen_gone(self.now);
            departure.keep.pod_gone(uid, &mut ctx);
        }
    }

    fn noticed(&mut self, notice: Notice) {
        let Some(boot) = self.node.as_ref().map(|node| node.boot.clone()) else {
            let what = "a notice came before the node was read".to_owned();
            return context!(self).fire(Action::Anomaly { what });
        };
        let (hard, deadline, short) = self.meaning(&notice);
        let fresh = !self.seen_notices.contains(&notice.id);
        let was_schedulable = self.was_schedulable();
        if self.evacuation.is_some() {
            if !hard {
                return;
            }
            self.seen_notices.insert(notice.id.clone());
            if !(fresh && self.is_another(&notice)) {
                return self.repeated(&notice, deadline, short);
            }
            self.end_evacuation();
        }
        self.seen_notices.insert(notice.id.clone());
        let is_rebalance = notice.kind == NoticeKind::Rebalance;
        // IMDS goes on showing it: what came to nothing does not begin again.
        if (!fresh && (is_rebalance || !hard))
            || (is_rebalance && self.policy.rebalance == RebalancePolicy::Off)
        {
            return;
        }
        let standing = Standing {
            notice: notice.id.clone(),
            kind: notice.kind,
            boot,
            began: self.now,
            deadline,
            hard,
            was_schedulable,
        };
        if !hard {
            if notice.kind == NoticeKind::Maintenance {
                self.maintenance = Some((notice.id, deadline));
            }
            let note =
                format!("{} notice {}: soft taint and pre-copy", standing.kind.as_str(), standing.notice);
            let mut ctx = context!(self);
            ctx.fire(Action::Publish {
                about: Subject::Node,
                reason: "PreCopyStarted".into(),
                note,
                warning: false,
            });
            return self.mark.want(standing, &mut ctx);
        }
        self.evacuate(standing, short);
    }

    /// A hard notice that is not the one under which the node is evacuated: the node outlived that
    /// one, or woke from hibernation, or that one was withdrawn.
    fn is_another(&self, notice: &Notice) -> bool {
        self.evacuation.as_ref().is_some_and(|evacuation| {
            let over = self.now > evacuation.standing.deadline + REARM;
            let hibernates = notice.kind == NoticeKind::Interruption(InstanceAction::Hibernate);
            let woke = evacuation.hibernates() && !hibernates;
            let again = evacuation.withdrawn.is_some() && notice.kind != NoticeKind::Rebalance;
            evacuation.latest != notice.id && (over || woke || again)
        })
    }

    /// The notice that stands, once more. One absolute deadline: one that moves later changes
    /// nothing, one that moves nearer counts. The evacuation keeps its name.
    fn repeated(&mut self, notice: &Notice, deadline: Moment, short: bool) {
        let Some(evacuation) = &mut self.evacuation else { return };
        self.repeated += 1;
        if notice.kind != NoticeKind::Rebalance {
            evacuation.withdrawn = None;
            evacuation.latest.clone_from(&notice.id);
        }
        let over = self.now > evacuation.standing.deadline + REARM;
        if over || deadline + Span::from_secs(1) >= evacuation.standing.deadline {
            return;
        }
        evacuation.standing.deadline = deadline;
        evacuation.short |= short;
        let standing = evacuation.standing.clone();
        let mut ctx = context!(self);
        for pod in self.pods.values_mut() {
            pod.tighten(standing.began, deadline, &mut ctx);
        }
        self.mark.want(standing, &mut ctx);
    }

    /// Hard or soft, until when, and whether the window is the minimum one.
    fn meaning(&self, notice: &Notice) -> (bool, Moment, bool) {
        let at = self.now + Span::from_millis(u64::try_from(notice.left_ms).unwrap_or(0));
        match notice.kind {
            NoticeKind::Interruption(
                InstanceAction::Terminate | InstanceAction::Stop | InstanceAction::Hibernate,
            ) => {
                let (deadline, short) = evacuation::deadline(notice.left_ms, &self.policy, self.now);
                (true, deadline, short)
            }
            NoticeKind::Rebalance => match self.policy.rebalance {
                RebalancePolicy::Drain => (true, self.now + self.policy.drain_window, false),
                RebalancePolicy::Precopy | RebalancePolicy::Off => {
                    (false, self.now + self.policy.undo_after, false)
                }
            },
            NoticeKind::Maintenance if self.is_near(at) => {
                let (deadline, short) = evacuation::deadline(notice.left_ms, &self.policy, self.now);
                (true, deadline, short)
            }
            NoticeKind::Maintenance => (false, at, false),
        }
    }

    fn is_near(&self, at: Moment) -> bool {
        at.left(self.now) <= self.policy.drain_window
    }

    fn was_schedulable(&self) -> bool {
        let Some(node) = &self.node else { return false };
        // The annotation may be of a request that an earlier life left on its way.
        let noted = || node.standing.as_ref().filter(|it| it.is_hard()).map(|it| it.was_schedulable);
        self.mark.was_schedulable().or_else(noted).unwrap_or(!node.unschedulable)
    }

    fn evacuate(&mut self, standing: Standing, short: bool) {
        let evacuation = Evacuation::new(standing.clone(), short);
        let mut ctx = context!(self);
        evacuation.announce(&mut ctx);
        self.mark.want(standing.clone(), &mut ctx);
        for pod in self.pods.values_mut().filter(|pod| pod.departure.is_some()) {
            pod.tighten(standing.began, standing.deadline, &mut ctx);
        }
        if evacuation.hibernates() {
            for pod in self.pods.values_mut().filter(|pod| !pod.precopy.is_past_flush()) {
                pod.precopy.cancel(&mut ctx);
            }
        }
        self.maintenance = None;
        self.evacuation = Some(evacuation);
    }

    fn withdrawn(&mut self, id: &str) {
        let mut ctx = context!(self);
        if let Some(evacuation) = &mut self.evacuation
            && evacuation.latest == id
        {
            evacuation.withdraw(self.now);
        }
        if self.maintenance.as_ref().is_some_and(|(notice, _)| notice == id) {
            self.maintenance = None;
            self.mark.clear(&mut ctx);
        }
        self.seen_notices.remove(id);
    }

    fn answered(&mut self, id: EffectId, outcome: Outcome) {
        let Some(purpose) = self.ledger.answered(id) else { return };
        let mut ctx = context!(self);
        match purpose {
            Purpose::Mark | Purpose::Unmark => self.mark.answered(&outcome, &mut ctx),
            Purpose::Report => {
                if let Some(evacuation) = &mut self.evacuation {
                    evacuation.reported(&outcome, &mut ctx);
                }
            }
            Purpose::Fire => {}
            Purpose::Hold(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.holding.answered(&outcome, &mut ctx);
                }
            }
            Purpose::Look(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.look.answered(&outcome, &mut ctx);
                }
            }
            Purpose::Keep(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid)
                    && let Some(departure) = &mut pod.departure
                {
                    departure.keep.answered(&pod.facts, &mut pod.look, departure.times, outcome, &mut ctx);
                }
            }
            Purpose::Leave(uid) => {
                if let Some(departure) = self.pods.get_mut(&uid).and_then(|pod| pod.departure.as_mut()) {
                    departure.leave.answered(outcome, &mut ctx);
                }
            }
            Purpose::PreCopy(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.precopy.answered(outcome, &mut ctx);
                }
            }
            Purpose::Restore(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.restoration.answered(&uid, outcome, &mut ctx);
                }
            }
            Purpose::Renew(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.restoration.renewed(&outcome, &mut ctx);
                }
            }
        }
    }

    fn advance(&mut self) {
        let Some(node) = self.node.as_ref().map(|node| node.name.clone()) else { return };
        self.begin_maintenance();
        self.undo();
        let mut ctx = context!(self);
        self.mark.advance(&mut ctx);
        if let Some(evacuation) = &mut self.evacuation {
            evacuation.advance(&node, &mut self.pods, &self.mark, self.link, &mut ctx);
        } else {
            evacuation::advance_saves(&mut self.pods, self.link, &mut ctx);
            for pod in self.pods.values_mut() {
                pod.advance_hold(&mut ctx);
            }
        }
        self.advance_serving();
        self.forget();
    }

    /// Pods that stay for now: restores, looks, pre-copies.
    fn advance_serving(&mut self) {
        let mut ctx = context!(self);
        let soft = self.mark.wanted().is_some_and(|standing| !standing.is_hard())
            && self.policy.rebalance != RebalancePolicy::Off;
        let frozen = self.evacuation.as_ref().is_some_and(Evacuation::hibernates);
        let mut slots = usize::from(!self.pods.values().any(|pod| pod.precopy.is_under_way()));
        let mut serving: Vec<&mut Pod> = self
            .pods
            .values_mut()
            .filter(|pod| pod.present && pod.departure.is_none() && pod.facts.engine.is_some())
            .collect();
        serving.sort_by_key(|pod| std::cmp::Reverse(pod.facts.priority));
        for (rank, pod) in (0u64..).zip(serving) {
            // Frozen or not: a gate is opened in time, and a claim that ran out meanwhile is noticed.
            pod.restoration.advance(&pod.facts, &mut ctx);
            if !pod.restoration.is_over() || !pod.facts.running {
                continue;
            }
            pod.look.advance(&pod.facts, &mut ctx);
            let every = match (frozen, soft) {
                (true, _) => None,
                (false, true) => Some(self.policy.precopy_interval),
                (false, false) => pod.facts.engine.as_ref().and_then(|engine| engine.interval),
            };
            pod.precopy.advance(&pod.facts, every, rank, &mut slots, &mut ctx);
        }
    }

    /// A maintenance event comes near: from here on it is like an interruption.
    fn begin_maintenance(&mut self) {
        let Some((notice, at)) = self.maintenance.clone() else { return };
        if !context!(self).has_come(at - self.policy.drain_window) {
            return;
        }
        let Some(node) = &self.node else { return };
        let left = i64::try_from(at.left(self.now).as_millis()).unwrap_or(i64::MAX);
        let (deadline, short) = evacuation::deadline(left, &self.policy, self.now);
        let standing = Standing {
            notice,
            kind: NoticeKind::Maintenance,
            boot: node.boot.clone(),
            began: self.now,
            deadline,
            hard: true,
            was_schedulable: self.was_schedulable(),
        };
        self.evacuate(standing, short);
    }

    /// What came to nothing leaves no trace after its time.
    fn undo(&mut self) {
        let mut ctx = context!(self);
        if let Some(evacuation) = &self.evacuation {
            let Some(withdrawn) = evacuation.withdrawn else { return };
            // A hibernated instance is awake again as soon as its notice is gone.
            let wait = if evacuation.hibernates() { Span::ZERO } else { self.policy.undo_after };
            if ctx.has_come(withdrawn + wait) {
                self.end_evacuation();
            }
            return;
        }
        let soft = self.mark.wanted().filter(|standing| !standing.is_hard());
        if let Some(standing) = soft
            && ctx.has_come(standing.deadline)
        {
            self.mark.clear(&mut ctx);
        }
    }

    fn end_evacuation(&mut self) {
        self.evacuation = None;
        let mut ctx = context!(self);
        self.mark.clear(&mut ctx);
        for pod in self.pods.values_mut() {
            pod.stand_down(&mut ctx);
            if let Some(departure) = &mut pod.departure
                && departure.leave.way_is_open()
            {
                // It was never evicted, and its node stays: it goes on.
                ctx.fire(Action::Resume { pod: pod.facts.uid.clone() });
                pod.take_back(&mut ctx);
            }
        }
    }

    /// Drops pods that are no more and whose story is told.
    fn forget(&mut self) {
        let evacuating = self.evacuation.is_some();
        self.pods.retain(|_, pod| {
            let told = match &pod.departure {
                Some(departure) => {
                    departure.keep.is_over() && !(evacuating && departure.cause == Cause::Notice)
                }
                None => !evacuating,
            };
            pod.present || !told
        });
    }
}
