//! What must always hold (design §12), checked after every event from the outside: from the events,
//! the effects and the world as it is. Nothing here is taken from the core but its public types.

mod departures;
mod notices;
mod reports;
mod restores;

use crate::cluster::Cluster;
use crate::store::Store;
use evacuation::effect::{Action, Effect, Hold, Round, Subject};
use evacuation::event::{Done, Event, FailureKind, Outcome};
use evacuation::moment::Moment;
use evacuation::pod::{PodFacts, PodUid};
use evacuation::policy::Policy;
use evacuation::report::Report;
use notices::Notices;
use std::collections::BTreeMap;

/// What this life of the agent has seen and done with one pod.
#[derive(Debug)]
struct Seen {
    facts: PodFacts,
    gone: bool,
    /// Its gate is decided, as far as this life knows.
    restored: bool,
    announced: bool,
    intended: bool,
    began: Option<u64>,
    flushed: bool,
    /// A save of the final round ended: `Some(true)` with all of it.
    saved: Option<bool>,
    copied: Option<bool>,
    committed: bool,
    given_up: bool,
    over_since: Option<u64>,
    refused_at: Option<u64>,
    slots_were_full: bool,
    asked: bool,
    hold: Option<Hold>,
    hold_failed: bool,
    restore: restores::Progress,
}

impl Seen {
    fn new(facts: PodFacts) -> Self {
        Self {
            restored: facts.restore_decided,
            facts,
            gone: false,
            announced: false,
            intended: false,
            began: None,
            flushed: false,
            saved: None,
            copied: None,
            committed: false,
            given_up: false,
            over_since: None,
            refused_at: None,
            slots_were_full: false,
            asked: false,
            hold: None,
            hold_failed: false,
            restore: restores::Progress::default(),
        }
    }

    fn is_shed(&self, policy: &Policy) -> bool {
        self.facts.role.is_shed() || self.facts.priority < policy.shed_below
    }
}

/// The checks of one run.
#[derive(Debug)]
pub struct Checks {
    policy: Policy,
    pub violations: Vec<String>,
    /// When each pod was evicted and committed, for comparisons between runs.
    pub moments: BTreeMap<(String, &'static str), u64>,
    schedulable: bool,
    notices: Notices,
    pods: BTreeMap<String, Seen>,
    open: BTreeMap<u64, Effect>,
    /// When each effect was asked for.
    asked_at: BTreeMap<u64, u64>,
    life_began: u64,
    started: bool,
    cordoned: bool,
    /// Since when the watch shows the node without our cordon.
    uncordoned_at: Option<u64>,
    forbidden: bool,
    unmark_failed: bool,
    expects_anomaly: bool,
    last_id: u64,
    second: (u64, usize),
    report: Option<Report>,
    reported_in_time: bool,
}

impl Checks {
    pub fn new(policy: Policy, schedulable: bool) -> Self {
        Self {
            notices: Notices::new(policy.clone()),
            policy,
            violations: Vec::new(),
            moments: BTreeMap::new(),
            schedulable,
            pods: BTreeMap::new(),
            open: BTreeMap::new(),
            asked_at: BTreeMap::new(),
            life_began: 0,
            started: false,
            cordoned: false,
            uncordoned_at: None,
            forbidden: false,
            unmark_failed: false,
            expects_anomaly: false,
            last_id: 0,
            second: (0, 0),
            report: None,
            reported_in_time: false,
        }
    }

    fn wrong(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// A new life: it knows nothing, and ids begin anew.
    pub fn start(&mut self, now: Moment, cluster: &Cluster) {
        self.pods.clear();
        self.open.clear();
        self.life_began = now.as_millis();
        self.started = false;
        self.uncordoned_at = None;
        self.forbidden = false;
        self.unmark_failed = false;
        self.last_id = 0;
        self.report = None;
        self.reported_in_time = false;
        let node = &cluster.node;
        let standing = node.standing.as_ref().filter(|standing| standing.boot == node.boot);
        self.cordoned = standing.is_some_and(|standing| standing.hard) && node.tainted && node.unschedulable;
        if let Err(what) = self.notices.resume(standing) {
            self.wrong(what);
        }
    }

    /// The instance came back under another boot id: no notice stands.
    pub fn boot(&mut self) {
        self.notices = Notices::new(self.policy.clone());
    }

    /// An event, before the machine gets it.
    pub fn event(&mut self, now: Moment, event: &Event) {
        let now = now.as_millis();
        let new_evacuation = self.notices.event(now, event, self.started);
        if new_evacuation {
            self.report = None;
            self.reported_in_time = false;
            self.forbidden = false;
            for pod in self.pods.values_mut() {
                (pod.refused_at, pod.announced, pod.asked) = (None, false, false);
            }
        }
        match event {
            Event::Started(_) => self.started = true,
            Event::NodeSeen(node) if node.unschedulable && node.tainted => self.uncordoned_at = None,
            Event::NodeSeen(_) => {
                self.uncordoned_at.get_or_insert(now);
            }
            Event::PodSeen(facts) => {
                let seen =
                    self.pods.entry(facts.uid.0.clone()).or_insert_with(|| Seen::new((**facts).clone()));
                seen.restored |= facts.restore_decided;
                seen.facts = (**facts).clone();
                if facts.terminating.is_some() || facts.stays().is_some() {
                    seen.refused_at = None;
                }
            }
            Event::PodGone(uid) => {
                if let Some(seen) = self.pods.get_mut(&uid.0) {
                    seen.gone = true;
                    seen.refused_at = None;
                }
            }
            Event::Noticed(_) if !self.started => self.expects_anomaly = true,
            Event::Noticed(_)
            | Event::Withdrawn { .. }
            | Event::Answered { .. }
            | Event::LinkMeasured { .. }
            | Event::Woke => {}
        }
        // What it shows may be older than our own PATCH for two seconds.
        if self.uncordoned_at.is_some_and(|at| now > at + 2_000) {
            self.cordoned = false;
        }
        self.count_effort(now, 0);
    }

    /// The first answer to an effect, before the machine gets it.
    pub fn answered(&mut self, now: Moment, effect: &Effect, outcome: &Outcome) {
        let now = now.as_millis();
        let superseded = self.open.remove(&effect.id.0).is_none();
        if superseded {
            return;
        }
        let done = matches!(outcome, Outcome::Done(_));
        match &effect.action {
            Action::Mark(standing) => {
                self.cordoned |= done && standing.hard;
                if done {
                    self.uncordoned_at = None;
                }
                if let Outcome::Failed { kind: FailureKind::Permanent, .. } = outcome {
                    self.forbidden = true;
                }
                if done {
                    self.forbidden = false;
                }
            }
            Action::Unmark { .. } => self.unmark_failed = !done,
            _ => {}
        }
        let Some(pod) = effect.action.pod().and_then(|PodUid(uid)| self.pods.get_mut(uid)) else { return };
        match (&effect.action, outcome) {
            (Action::Intend { .. }, Outcome::Done(Done::Intended { committed: Some(_) })) => {
                pod.committed = true;
                pod.over_since = Some(now);
            }
            (Action::Flush { round: Round::Final, .. }, Outcome::Done(_)) => pod.flushed = true,
            (Action::Save { round, .. }, Outcome::Done(Done::Saved { left_out, .. })) => match round {
                Round::Final => pod.saved = Some(left_out.is_none()),
                Round::PreCopy => pod.copied = Some(left_out.is_none()),
            },
            // What was sent so far may be committed as partial.
            (Action::Save { round: Round::Final, .. }, _) => {
                pod.saved.get_or_insert(false);
            }
            (Action::Commit { round: Round::Final, .. }, Outcome::Done(Done::Committed { .. })) => {
                pod.committed = true;
                pod.over_since = Some(now);
                self.moments.insert((pod.facts.uid.0.clone(), "commit"), now);
            }
            (Action::Evict { .. } | Action::LetGo { .. }, Outcome::Done(_)) => {
                self.moments.entry((pod.facts.uid.0.clone(), "evict")).or_insert(now);
            }
            (Action::Evict { .. }, Outcome::Failed { kind: FailureKind::Refused, .. }) => {
                let leaves = pod.facts.stays().is_none() && pod.facts.terminating.is_none();
                pod.refused_at = leaves.then_some(now);
                pod.slots_were_full = false;
            }
            (Action::SetHold { .. }, _) if !done => pod.hold_failed = true,
            _ => pod.restore.answered(&effect.action, outcome),
        }
    }

    /// What the machine asked for in answer to one event.
    pub fn effects(
        &mut self,
        now: Moment,
        effects: &[Effect],
        wakeup: Option<Moment>,
        cluster: &Cluster,
        store: &Store,
    ) {
        let at = now.as_millis();
        if let Some(wakeup) = wakeup
            && wakeup <= now
        {
            self.wrong("it wants to be woken in the past");
        }
        self.count_effort(at, effects.len());
        for effect in effects {
            if effect.deadline <= now {
                self.wrong(format!("{effect:?} must be answered before it is asked"));
            }
            if effect.id.0 <= self.last_id {
                self.wrong(format!("{effect:?} has an id that was given out before"));
            }
            self.last_id = effect.id.0;
            self.effect(at, effect, cluster, store);
            self.open.insert(effect.id.0, effect.clone());
            self.asked_at.insert(effect.id.0, at);
        }
        self.after(at, cluster);
    }

    fn effect(&mut self, now: u64, effect: &Effect, cluster: &Cluster, store: &Store) {
        match &effect.action {
            Action::Mark(standing) => {
                if let Err(what) = self.notices.may_mark(standing) {
                    self.wrong(what);
                }
            }
            Action::Unmark { uncordon } => self.unmark(now, *uncordon, cluster),
            Action::Evict { pod, grace } => self.evicts(now, pod, *grace, false, cluster),
            Action::LetGo { pod, grace } => self.evicts(now, pod, *grace, true, cluster),
            Action::MarkDisrupted { pod } => {
                self.asks_again(now, pod);
                if let Some(seen) = self.pods.get_mut(&pod.0) {
                    seen.asked = true;
                }
            }
            Action::Cancel { effect } => {
                self.open.remove(&effect.0);
            }
            Action::SetHold { pod, hold } => self.holds(now, pod, *hold),
            Action::WriteReport(report) => self.reports(now, report, store),
            Action::Anomaly { what } => {
                if !std::mem::take(&mut self.expects_anomaly) {
                    self.wrong(format!("an anomaly: {what}"));
                }
            }
            Action::AbandonIntent { pod, why } => self.gives_up(now, pod, why),
            Action::Publish { about: Subject::Pod(pod), reason, note, .. } if reason == "StateNotSaved" => {
                self.gives_up(now, pod, note);
            }
            Action::Publish { .. } | Action::Look { .. } | Action::Resume { .. } => {}
            Action::Intend { pod, .. }
            | Action::Quiesce { pod }
            | Action::Flush { pod, .. }
            | Action::Save { pod, .. }
            | Action::Commit { pod, .. } => self.keeps(now, pod, &effect.action),
            Action::FindLineage { pod }
            | Action::Claim { pod, .. }
            | Action::RenewClaim { pod, .. }
            | Action::Fetch { pod, .. }
            | Action::Prove { pod }
            | Action::HandOver { pod }
            | Action::Verify { pod }
            | Action::FinishClaim { pod, .. }
            | Action::OpenGate { pod, .. } => self.restores(pod, &effect.action),
        }
    }

    /// What must hold after every event, whatever was asked for.
    fn after(&mut self, now: u64, cluster: &Cluster) {
        self.retries(now);
        self.held_too_long(now, cluster);
        self.begun_and_ended(now);
        self.gates(now);
        self.reports_due(now);
    }

    /// An endless loop would show as ever more effects and wake-ups within one virtual second.
    fn count_effort(&mut self, now: u64, effects: usize) {
        let second = now / 1000;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += effects + 1;
        // Starting and departing take a burst of about a dozen effects and as many answers a pod.
        if self.second.1 > 300 + 60 * self.pods.len() {
            self.wrong(format!("a busy loop: {} events and effects within one second", self.second.1));
        }
    }

    fn unmark(&mut self, now: u64, uncordon: bool, cluster: &Cluster) {
        if let Err(what) = self.notices.may_unmark(now) {
            self.wrong(what);
        }
        if uncordon && !self.schedulable {
            self.wrong("it uncordons a node that somebody else had cordoned");
        }
        let ours = cluster.node.standing.as_ref().is_some_and(|standing| standing.hard);
        if ours && self.schedulable && !uncordon {
            self.wrong("it leaves its own cordon behind");
        }
    }

    /// The end of a run.
    pub fn finish(&mut self, now: Moment, cluster: &Cluster, alive: bool) {
        let now = now.as_millis();
        if !alive || now < self.life_began + 10_000 {
            return;
        }
        if self.notices.nothing_since(now).is_some_and(|span| span > 10_000) && !self.unmark_failed {
            if cluster.node.tainted || cluster.node.standing.is_some() {
                self.wrong("nothing stands any more, and its mark is still on the node");
            }
            if cluster.node.unschedulable && self.schedulable {
                self.wrong("nothing stands any more, and the node is still cordoned");
            }
        }
        if cluster.other_taints == 0 {
            self.wrong("another's taint is gone");
        }
        self.final_report(now);
    }
}
