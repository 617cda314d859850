//! Whether a trace keeps the guarantees of docs/guarantees.md, judged from outside: by what the core was told, and what
//! it asked for.
//!
//! Decides nothing that happens to a node. It must not know how the core decides: it takes nothing from the deciding
//! modules, only the crate's public types, and writes the rules down a second time, so that a mistake must be made
//! twice to go unseen. It judges a simulation, the journals of a drill and a replay alike, so it must not know a world
//! either: a hold file says what was acknowledged, the store holds what was answered.
//!
//! Where a trace leaves a rule open (a write without an answer, a moment the core was not woken at), nothing is
//! called a violation.

mod evictions;
mod flushes;
mod holds;
mod link;
mod node;
mod notices;
mod order;
mod pod;
mod reports;
mod restores;
mod saves;

use crate::Step;
use evacuation::effect::{Action, Effect, EffectId, Subject};
use evacuation::event::{Done, Event, FailureKind, NodeFacts, Outcome};
use evacuation::moment::Moment;
use evacuation::pod::PodUid;
use evacuation::policy::Policy;
use node::Node;
use notices::Notices;
use pod::JudgedPod;
use reports::Reports;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One guarantee that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Its number in docs/guarantees.md, 1 to 11.
    pub guarantee: u8,
    /// The moment at which it showed.
    pub at: Moment,
    /// Which pod, when and what was wrong, in one sentence.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guarantee {}: {}", self.guarantee, self.what)
    }
}

/// A broken rule, before it is known when: the guarantee's number and what was wrong.
type Wrong = (u8, String);

/// An effect that waits for its answer.
#[derive(Debug)]
struct OpenEffect {
    asked: u64,
    action: Action,
}

/// Judges a trace step by step.
#[derive(Debug)]
pub struct Checker {
    policy: Policy,
    violations: Vec<Violation>,
    said: BTreeSet<Wrong>,
    now: u64,
    // What outlives an agent.
    node: Node,
    notices: Notices,
    holds: holds::Files,
    commits: reports::Commits,
    // What one life knows.
    life_began: u64,
    started: bool,
    pods: BTreeMap<PodUid, JudgedPod>,
    open: BTreeMap<EffectId, OpenEffect>,
    reports: Reports,
    rates: link::Rates,
    expects_anomaly: bool,
    last_id: u64,
    second: (u64, usize),
    wakeup: Option<Moment>,
}

/// Judges a whole trace: the steps of one life of the core or of several, each of which begins with
/// [`Event::Started`]. It may be cut anywhere: only what was due by its last step is demanded.
pub fn check<'a>(policy: &Policy, steps: impl IntoIterator<Item = &'a Step>) -> Vec<Violation> {
    let mut checker = Checker::new(policy.clone());
    let mut last = Moment::default();
    for step in steps {
        checker.step(step, None);
        last = step.at;
    }
    checker.finish(last);
    checker.violations
}

impl Checker {
    /// A checker that has seen nothing, of a core with this policy.
    pub fn new(policy: Policy) -> Self {
        Self {
            notices: Notices::new(policy.clone()),
            policy,
            violations: Vec::new(),
            said: BTreeSet::new(),
            now: 0,
            node: Node::default(),
            holds: holds::Files::default(),
            commits: reports::Commits::default(),
            life_began: 0,
            started: false,
            pods: BTreeMap::new(),
            open: BTreeMap::new(),
            reports: Reports::default(),
            rates: link::Rates::default(),
            expects_anomaly: false,
            last_id: 0,
            second: (0, 0),
            wakeup: None,
        }
    }

    /// Every violation so far, in the order in which they showed.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Takes the next step of the current life; [`Event::Started`] begins a new one. `wakeup` is when the core
    /// wants to be woken after it; `None` if it does not, or if the trace does not say.
    pub fn step(&mut self, step: &Step, wakeup: Option<Moment>) {
        self.now = step.at.as_millis();
        if let Event::Started(node) = &step.event {
            self.starts(node);
        }
        self.event(&step.event);
        self.count_effort(step.effects.len());
        for effect in &step.effects {
            self.effect(effect);
        }
        if wakeup.is_some_and(|wakeup| wakeup <= step.at) {
            self.wrong(8, "it wants to be woken in the past");
        }
        self.wakeup = wakeup;
        self.after();
    }

    /// The end of a trace at `now`, with its agent alive: what should have happened by now.
    pub fn finish(&mut self, now: Moment) {
        self.now = now.as_millis();
        if !self.started || self.now < self.life_began + 10_000 {
            return;
        }
        self.leaves_no_trace();
        self.final_report();
    }

    /// What goes on being wrong is said once.
    fn wrong(&mut self, guarantee: u8, what: impl fmt::Display) {
        let what = what.to_string();
        if self.said.insert((guarantee, what.clone())) {
            let at = self.now;
            let what = format!("at {at} ms {what}");
            self.violations.push(Violation { guarantee, at: Moment::from_millis(at), what });
        }
    }

    fn all_wrong(&mut self, subject: impl fmt::Display, wrong: Vec<Wrong>) {
        for (guarantee, why) in wrong {
            self.wrong(guarantee, format!("{subject} {why}"));
        }
    }

    /// A new life: it knows nothing, and ids begin anew.
    fn starts(&mut self, node: &NodeFacts) {
        self.life_began = self.now;
        self.started = true;
        self.pods.clear();
        self.open.clear();
        self.reports = Reports::default();
        self.rates = link::Rates::default();
        self.last_id = 0;
        self.second = (0, 0);
        self.wakeup = None;
        let first = self.node.boot.is_none();
        if self.node.boot.as_ref().is_some_and(|boot| *boot != node.boot) {
            // The instance was stopped and came back: no notice stands, no file of a pod is left.
            self.notices = Notices::new(self.policy.clone());
            self.holds = holds::Files::default();
        }
        let active_notice =
            node.active_notice.as_ref().filter(|active_notice| active_notice.boot == node.boot);
        if let Err(what) = self.notices.resume(active_notice, first) {
            self.wrong(7, what);
        }
        self.node.starts(node);
    }

    fn event(&mut self, event: &Event) {
        let now = self.now;
        if let Event::Answered { id, outcome } = event
            && let Some(open) = self.open.remove(id)
        {
            if let (Action::Flush { .. }, Outcome::Done(Done::Flushed { bytes })) = (&open.action, outcome) {
                self.rates.flushed(*bytes, now.saturating_sub(open.asked));
            }
            self.answered(&open.action, outcome);
        }
        if self.notices.event(now, event, self.started) {
            self.reports = Reports::default();
            self.node.forbidden = false;
            for pod in self.pods.values_mut() {
                (pod.refused_at, pod.announced, pod.asked) = (None, false, false);
            }
        }
        match event {
            Event::NodeUpdated(node) => self.node.seen(now, node),
            Event::PodUpdated(facts) => {
                let pod =
                    self.pods.entry(facts.uid.clone()).or_insert_with(|| JudgedPod::new((**facts).clone()));
                pod.seen(facts, now);
            }
            Event::PodRemoved(uid) => {
                if let Some(pod) = self.pods.get_mut(uid) {
                    pod.gone = true;
                    pod.refused_at = None;
                }
            }
            Event::LinkMeasured { bytes_per_second } => self.rates.link = Some(*bytes_per_second),
            Event::NoticeReceived(_) if !self.started => self.expects_anomaly = true,
            Event::Started(_)
            | Event::NoticeReceived(_)
            | Event::NoticeWithdrawn { .. }
            | Event::Answered { .. }
            | Event::PreCopyRequested
            | Event::TimerFired => {}
        }
        self.node.tick(now);
        self.count_effort(0);
    }

    /// The one answer that counts: a cancelled effect has none.
    fn answered(&mut self, action: &Action, outcome: &Outcome) {
        let now = self.now;
        let done = matches!(outcome, Outcome::Done(_));
        match action {
            Action::MarkNode(active_notice) => self.node.marked(active_notice, outcome),
            Action::ClearNodeMark { uncordon } => self.node.mark_cleared(*uncordon, done),
            Action::SetHold { pod, hold } => self.holds.answered(pod, *hold, outcome),
            Action::WriteReport(report) if done && report.complete => self.notices.reported(now),
            _ => {}
        }
        let Some(uid) = action.pod() else { return };
        if let Outcome::Done(
            Done::Committed { generation, .. } | Done::IntentWritten { committed: Some((generation, _)) },
        ) = outcome
        {
            self.commits.add(uid, generation);
        }
        if let (Action::WriteIntent { departure, .. }, Outcome::Done(Done::IntentWritten { committed: None })) =
            (action, outcome)
            && self.commits.is_final(uid, departure)
        {
            self.wrong(7, format!("the commit of {uid} in this departure is forgotten: {departure}"));
        }
        let Some(pod) = self.pods.get_mut(uid) else { return };
        pod.answered(now, action, outcome);
        match (action, outcome) {
            (Action::Commit { kind: evacuation::effect::FlushKind::Final, .. }, Outcome::Done(_)) => {
                // Without its intent in the store a later life cannot know of it.
                let departure = pod.departure.as_deref().filter(|_| pod.intent_written);
                self.commits.committed(uid, departure);
            }
            (Action::Evict { .. }, Outcome::Failed { kind: FailureKind::Refused, .. }) => {
                let leaves = pod.facts.stays().is_none() && pod.facts.terminating.is_none();
                pod.refused_at = leaves.then_some(now);
                pod.slots_were_full = false;
            }
            _ => {}
        }
    }

    fn effect(&mut self, effect: &Effect) {
        if effect.deadline.as_millis() <= self.now {
            self.wrong(8, format!("{effect:?} must be answered before it is asked"));
        }
        if effect.id.0 <= self.last_id {
            self.wrong(8, format!("{effect:?} has an id that was given out before"));
        }
        self.last_id = effect.id.0;
        match &effect.action {
            Action::MarkNode(active_notice) => {
                if let Err((guarantee, what)) = self.notices.may_mark(active_notice) {
                    self.wrong(guarantee, what);
                }
                self.node.marks(active_notice);
            }
            Action::ClearNodeMark { uncordon } => self.clears_mark(*uncordon),
            Action::Evict { pod, grace } => self.evicts(pod, *grace, false),
            Action::DeletePod { pod, grace } => self.evicts(pod, *grace, true),
            Action::MarkDisrupted { pod } => {
                self.asks_again(pod);
                if let Some(seen) = self.pods.get_mut(pod) {
                    (seen.asked, seen.ever_asked) = (true, true);
                }
            }
            Action::Cancel { effect } => {
                if let Some(OpenEffect { action: Action::SetHold { pod, .. }, .. }) = self.open.remove(effect)
                {
                    self.holds.unknown(&pod);
                }
            }
            Action::SetHold { pod, hold } => self.sets_hold(pod, *hold),
            Action::WriteReport(report) => self.writes_report(report),
            Action::Anomaly { what } => {
                if !std::mem::take(&mut self.expects_anomaly) {
                    self.wrong(8, format!("an anomaly: {what}"));
                }
            }
            Action::AbandonIntent { pod, why } => self.gives_up(pod, why),
            Action::Publish { about: Subject::Pod(pod), reason, note, .. } if reason == "StateNotSaved" => {
                self.gives_up(pod, note);
            }
            Action::Resume { pod } => {
                if let Some(pod) = self.pods.get_mut(pod) {
                    // It serves again: its hold is kept ahead until somebody deletes it.
                    (pod.flush_ready, pod.over_since) = (None, None);
                }
            }
            Action::Publish { .. } | Action::InspectEngine { .. } => {}
            Action::WriteIntent { pod, .. }
            | Action::Quiesce { pod }
            | Action::Flush { pod, .. }
            | Action::Save { pod, .. }
            | Action::Commit { pod, .. } => self.keeps(pod, &effect.action),
            Action::Reprioritise { pod, .. } => self.moves(pod),
            Action::FindLineage { pod }
            | Action::Claim { pod, .. }
            | Action::RenewClaim { pod, .. }
            | Action::Prefetch { pod, .. }
            | Action::Fetch { pod, .. }
            | Action::ReloadLocal { pod }
            | Action::CheckFingerprint { pod }
            | Action::ImportState { pod }
            | Action::Verify { pod }
            | Action::FinishClaim { pod, .. }
            | Action::OpenGate { pod, .. } => self.restores(pod, &effect.action),
        }
        self.open.insert(effect.id, OpenEffect { asked: self.now, action: effect.action.clone() });
    }

    /// What must hold after every step, whatever was asked for.
    fn after(&mut self) {
        self.retries();
        self.flushes_wait();
        self.held_too_long();
        self.begun_and_ended();
        self.gates();
        self.reports_due();
    }

    /// An endless loop would show as ever more effects and wake-ups within one second.
    fn count_effort(&mut self, effects: usize) {
        let second = self.now / 1000;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += effects + 1;
        // Starting and departing take a burst of about a dozen effects and as many answers a pod.
        if self.second.1 > 300 + 60 * self.pods.len() {
            self.wrong(8, format!("a busy loop in second {second}: {} events and effects", self.second.1));
            self.second.1 = 0;
        }
    }
}
