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
mod patience;
mod pod;
mod reports;
mod restores;
mod saves;

use crate::Step;
use evacuation::effect::{Action, Effect, EffectId, NodeAction, PodAction, RestoreAction};
use evacuation::event::{Done, Event, FailureKind, NodeFacts, Outcome};
use evacuation::moment::{Moment, Span};
use evacuation::notice::ActiveNotice;
use evacuation::pod::{PodFacts, PodUid};
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
    /// The boot in which it began.
    boot: Option<String>,
    /// When it read its node: before, it can do nothing.
    node_read: Option<u64>,
    /// Pods that were seen before that.
    unread: BTreeMap<PodUid, PodFacts>,
    pods: BTreeMap<PodUid, JudgedPod>,
    open: BTreeMap<EffectId, OpenEffect>,
    reports: Reports,
    rates: link::Rates,
    silence: patience::Silence,
    last_id: u64,
    second: (u64, usize),
    wakeup: Option<Moment>,
}

/// Judges a whole trace: the steps of one life of the core or of several, each of which begins with
/// [`Event::AgentStarted`]. It may be cut anywhere: only what was due by its last step is demanded.
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
            boot: None,
            node_read: None,
            unread: BTreeMap::new(),
            pods: BTreeMap::new(),
            open: BTreeMap::new(),
            reports: Reports::default(),
            rates: link::Rates::default(),
            silence: patience::Silence::default(),
            last_id: 0,
            second: (0, 0),
            wakeup: None,
        }
    }

    /// Every violation so far, in the order in which they showed.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Takes the next step of the current life; [`Event::AgentStarted`] begins a new one. `wakeup` is when the core
    /// wants to be woken after it; `None` if it does not, or if the trace does not say.
    pub fn step(&mut self, step: &Step, wakeup: Option<Moment>) {
        self.now = step.at.as_millis();
        match &step.event {
            Event::AgentStarted { boot, slept } => self.starts(boot, *slept),
            Event::NodeRead(node) => self.reads_node(node),
            _ => {}
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
        if self.node_read.is_some() {
            self.after();
        }
    }

    /// The end of a trace at `now`, with its agent alive: what should have happened by now.
    pub fn finish(&mut self, now: Moment) {
        self.now = now.as_millis();
        if self.node_read.is_none_or(|since| self.now < since + 10_000) {
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
    fn starts(&mut self, boot: &str, slept: Span) {
        if self.boot.as_ref().is_some_and(|before| before != boot) {
            // The instance was stopped and came back: no notice stands, no file of a pod is left.
            self.notices = Notices::new(self.policy.clone());
            self.holds = holds::Files::default();
        }
        self.boot = Some(boot.to_owned());
        self.node_read = None;
        self.unread.clear();
        self.pods.clear();
        self.open.clear();
        self.notices.starts(self.now, slept.as_millis());
        self.reports = Reports::default();
        self.rates = link::Rates::default();
        self.silence = patience::Silence::default();
        self.last_id = 0;
        self.second = (0, 0);
        self.wakeup = None;
    }

    /// From here on it can act, on what it has seen before too.
    fn reads_node(&mut self, node: &NodeFacts) {
        let (now, first) = (self.now, self.node.is_unknown());
        self.node_read = Some(now);
        let ours = |active_notice: &&ActiveNotice| Some(&active_notice.boot) == self.boot.as_ref();
        let active_notice = node.active_notice.as_ref().filter(ours);
        self.notices.found_noted(&node.over);
        if let Some(before) = node.active_notice.as_ref().filter(|_| active_notice.is_none()) {
            self.notices.emptied_for(before);
        }
        if let Err(what) = self.notices.resume(now, active_notice, first) {
            self.wrong(7, what);
        }
        self.node.starts(node, active_notice.is_some());
        for facts in std::mem::take(&mut self.unread).into_values() {
            self.sees_pod(&facts);
        }
    }

    fn sees_pod(&mut self, facts: &PodFacts) {
        let pod = self.pods.entry(facts.uid.clone()).or_insert_with(|| JudgedPod::new(facts.clone()));
        pod.seen(facts, self.now);
    }

    fn event(&mut self, event: &Event) {
        let now = self.now;
        if let Event::Answered { id, outcome } = event
            && let Some(open) = self.open.remove(id)
        {
            if let (
                Action::Pod { action: PodAction::Flush { .. }, .. },
                Outcome::Done(Done::Flushed { bytes, .. }),
            ) = (&open.action, outcome)
            {
                self.rates.flushed(*bytes, now.saturating_sub(open.asked));
            }
            self.hears_of_the_store(&open.action, outcome);
            self.answered(&open.action, outcome);
        }
        if let Event::BytesCame { id } = event {
            self.bytes_came(*id);
        }
        if self.notices.event(now, event) {
            self.reports = Reports::default();
            self.node.forbidden = false;
            for pod in self.pods.values_mut() {
                (pod.refused_at, pod.announced, pod.asked) = (None, false, false);
            }
        }
        match event {
            Event::NodeUpdated(node) => self.node.seen(now, node),
            Event::PodUpdated(facts) if self.node_read.is_none() => {
                self.unread.insert(facts.uid.clone(), (**facts).clone());
            }
            Event::PodUpdated(facts) => self.sees_pod(facts),
            Event::PodRemoved(uid) => {
                self.unread.remove(uid);
                if let Some(pod) = self.pods.get_mut(uid) {
                    pod.gone = true;
                    pod.refused_at = None;
                }
            }
            Event::LinkMeasured { bytes_per_second } => self.rates.link = Some(*bytes_per_second),
            Event::AgentStarted { .. }
            | Event::NodeRead(_)
            | Event::PodsListed
            | Event::ImdsReachable { .. }
            | Event::NoticeReceived(_)
            | Event::Resumed { .. }
            | Event::NoticeWithdrawn { .. }
            | Event::Answered { .. }
            | Event::BytesCame { .. }
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
            Action::Node(NodeAction::MarkNode(active_notice)) => self.node.marked(active_notice, outcome),
            Action::Node(NodeAction::ClearNodeMark { uncordon, .. }) => {
                self.node.mark_cleared(*uncordon, done)
            }
            Action::Pod { uid: pod, action: PodAction::SetHold { hold } } => {
                self.holds.answered(pod, *hold, outcome)
            }
            Action::Node(NodeAction::WriteReport(report)) if done && report.complete => {
                self.notices.reported(now)
            }
            _ => {}
        }
        let Some(uid) = action.pod() else { return };
        if let Outcome::Done(
            Done::Committed { generation, .. } | Done::IntentWritten { committed: Some((generation, _)), .. },
        ) = outcome
        {
            self.commits.add(uid, generation);
        }
        if let (
            Action::Pod { action: PodAction::WriteIntent { departure, .. }, .. },
            Outcome::Done(Done::IntentWritten { committed: None, .. }),
        ) = (action, outcome)
            && self.commits.is_final(uid, departure)
        {
            self.wrong(7, format!("the commit of {uid} in this departure is forgotten: {departure}"));
        }
        let Some(pod) = self.pods.get_mut(uid) else { return };
        pod.answered(now, action, outcome);
        match (action, outcome) {
            (
                Action::Pod {
                    action: PodAction::Commit { kind: evacuation::effect::FlushKind::Final, .. },
                    ..
                },
                Outcome::Done(_),
            ) => {
                // Without its intent in the store a later life cannot know of it.
                let departure = pod.departure.as_deref().filter(|_| pod.intent_written);
                self.commits.committed(uid, departure);
            }
            (
                Action::Pod { action: PodAction::Evict { .. }, .. },
                Outcome::Failed { kind: FailureKind::Refused, .. },
            ) => {
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
            Action::Node(NodeAction::MarkNode(active_notice)) => {
                if let Err((guarantee, what)) = self.notices.may_mark(active_notice) {
                    self.wrong(guarantee, what);
                }
                self.node.marks(active_notice);
            }
            Action::Node(NodeAction::ClearNodeMark { uncordon, over }) => {
                if let Err((guarantee, what)) = self.notices.may_note(over) {
                    self.wrong(guarantee, what);
                }
                self.clears_mark(*uncordon);
            }
            Action::Pod { uid: pod, action: PodAction::Evict { grace } } => self.evicts(pod, *grace, false),
            Action::Pod { uid: pod, action: PodAction::DeletePod { grace } } => {
                self.evicts(pod, *grace, true)
            }
            Action::Pod { uid: pod, action: PodAction::MarkDisrupted } => {
                self.asks_again(pod);
                if let Some(seen) = self.pods.get_mut(pod) {
                    (seen.asked, seen.ever_asked) = (true, true);
                }
            }
            Action::Cancel { effect } => {
                if let Some(OpenEffect {
                    action: Action::Pod { uid: pod, action: PodAction::SetHold { .. } },
                    ..
                }) = self.open.remove(effect)
                {
                    self.holds.unknown(&pod);
                }
            }
            Action::Pod { uid: pod, action: PodAction::SetHold { hold } } => self.sets_hold(pod, *hold),
            Action::Node(NodeAction::WriteReport(report)) => self.writes_report(report),
            Action::Anomaly { what } => {
                self.wrong(8, format!("an anomaly: {what}"));
            }
            Action::Pod { uid: pod, action: PodAction::AbandonIntent { why } } => self.gives_up(pod, why),
            Action::Pod { uid, action: PodAction::Publish(event) } if event.reason == "StateNotSaved" => {
                self.gives_up(uid, &event.note);
            }
            Action::Pod { uid: pod, action: PodAction::Resume } => {
                if let Some(pod) = self.pods.get_mut(pod) {
                    // It serves again: its hold is kept ahead until somebody deletes it.
                    (pod.flush_ready, pod.over_since) = (None, None);
                }
            }
            Action::Node(NodeAction::Publish(_))
            | Action::Pod { action: PodAction::Publish(_) | PodAction::InspectEngine, .. } => {}
            Action::Pod {
                uid: pod,
                action:
                    PodAction::WriteIntent { .. }
                    | PodAction::Quiesce
                    | PodAction::Flush { .. }
                    | PodAction::ProbeEngine
                    | PodAction::Save { .. }
                    | PodAction::Commit { .. },
            } => self.keeps(pod, &effect.action),
            Action::Pod { uid: pod, action: PodAction::Reprioritise { .. } } => self.moves(pod),
            Action::Restore {
                uid: pod,
                action:
                    RestoreAction::FindLineage
                    | RestoreAction::Claim { .. }
                    | RestoreAction::RenewClaim { .. }
                    | RestoreAction::Prefetch { .. }
                    | RestoreAction::Fetch { .. }
                    | RestoreAction::ReloadLocal
                    | RestoreAction::CheckFingerprint
                    | RestoreAction::ImportState
                    | RestoreAction::Verify
                    | RestoreAction::FinishClaim { .. }
                    | RestoreAction::GiveBackClaim { .. }
                    | RestoreAction::RecordVerdict { .. }
                    | RestoreAction::OpenGate { .. },
            } => self.restores(pod, &effect.action),
        }
        self.open.insert(effect.id, OpenEffect { asked: self.now, action: effect.action.clone() });
    }

    /// What must hold after every step, whatever was asked for.
    fn after(&mut self) {
        self.retries();
        self.flushes_wait();
        self.held_too_long();
        self.begun_and_ended();
        self.lost_in_place();
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
        if self.second.1 > 300 + 60 * (self.pods.len() + self.unread.len()) {
            self.wrong(8, format!("a busy loop in second {second}: {} events and effects", self.second.1));
            self.second.1 = 0;
        }
    }
}
