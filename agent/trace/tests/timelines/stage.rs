//! A stage for one timeline: the machine, a clock that a test moves, and answers.
//!
//! What a test does not care about is answered at once. What is to take time is put into `by_hand`
//! and answered with [`Stage::done`] or [`Stage::fails`]; unanswered, it times out like any effect.

use evacuation::Machine;
use evacuation::effect::{Action, Effect, EffectId, Hold, NodeAction, PodAction, RestoreAction};
use evacuation::event::{Done, Event, FailureKind, NodeFacts, Outcome, Verification};
use evacuation::facts::PodState;
use evacuation::moment::{Moment, Span};
use evacuation::notice::{ActiveNotice, InstanceAction, Notice, NoticeKind};
use evacuation::pod::{EngineFacts, EvictWhen, OnDelete, Owner, PodFacts, PodUid, RestoreMode, Role};
use evacuation::policy::Policy;
use evacuation::report::{PodReport, Report};
use evacuation::status::Status;
use std::collections::{BTreeMap, BTreeSet};

/// The boot clock when a timeline starts.
const START: u64 = 1_000_000;

pub const TERMINATE: NoticeKind = NoticeKind::Interruption(InstanceAction::Terminate);

/// A stateless pod of a Deployment, with 30 s of grace.
pub fn pod(name: &str) -> PodFacts {
    PodFacts {
        uid: PodUid(name.into()),
        namespace: "ns".into(),
        name: name.into(),
        priority: 0,
        role: Role::Active,
        owner: Owner::Replicated,
        grace: Span::from_secs(30),
        terminating: None,
        running: true,
        engine: None,
        restore_decided: true,
        restarts: 0,
    }
}

/// One with an engine, without a hold.
pub fn stateful(name: &str) -> PodFacts {
    PodFacts {
        engine: Some(EngineFacts {
            holds: false,
            evict: EvictWhen::Auto,
            flush_timeout: Span::from_secs(30),
            interval: None,
            on_delete: OnDelete::Save,
            restore: RestoreMode::Gate,
        }),
        ..pod(name)
    }
}

/// One with an engine that waits for its hold.
pub fn holding(name: &str) -> PodFacts {
    let mut pod = stateful(name);
    if let Some(engine) = &mut pod.engine {
        engine.holds = true;
    }
    pod
}

/// A new one, whose gate is closed.
pub fn new_pod(name: &str) -> PodFacts {
    PodFacts { restore_decided: false, ..stateful(name) }
}

/// The stage.
pub struct Stage {
    machine: Machine,
    policy: Policy,
    now: u64,
    node: NodeFacts,
    boot: String,
    /// Milliseconds that the instance has slept in this boot.
    slept: u64,
    open: BTreeMap<u64, Effect>,
    /// What was asked for, in milliseconds since the start.
    pub asked: Vec<(u64, Action)>,
    /// Names of actions, or `name pod`, that are not answered at once.
    pub by_hand: BTreeSet<String>,
    /// Answers other than plain success, by `name pod`.
    pub answers: BTreeMap<String, Outcome>,
}

impl Stage {
    /// A node that is read, and has no pods.
    pub fn new(policy: Policy) -> Self {
        let mut stage = Self::unborn(policy);
        stage.starts();
        stage.hear(Event::PodsListed);
        stage
    }

    /// A life that has begun, and has heard of nothing.
    pub fn unread(policy: Policy) -> Self {
        let mut stage = Self::unborn(policy);
        stage.begins();
        stage
    }

    /// A core that has heard nothing at all.
    pub fn unborn(policy: Policy) -> Self {
        let node = NodeFacts {
            name: "node-a".into(),
            unschedulable: false,
            tainted: false,
            active_notice: None,
            over: Vec::new(),
        };
        Self {
            machine: Machine::new(policy.clone()),
            policy,
            now: START,
            node,
            boot: "boot-1".into(),
            slept: 0,
            open: BTreeMap::new(),
            asked: Vec::new(),
            by_hand: BTreeSet::new(),
            answers: BTreeMap::new(),
        }
    }

    /// A life begins.
    pub fn begins(&mut self) {
        self.hear(Event::AgentStarted { boot: self.boot.clone(), slept: Span::from_millis(self.slept) });
    }

    /// It reads its node, as it is now.
    pub fn reads_node(&mut self) {
        self.hear(Event::NodeRead(self.node.clone()));
    }

    /// Milliseconds since the start.
    pub const fn now(&self) -> u64 {
        self.now - START
    }

    /// A life begins, and reads its node at once.
    fn starts(&mut self) {
        self.begins();
        self.reads_node();
    }

    /// A node with these pods and the default policy.
    pub fn with(pods: &[PodFacts]) -> Self {
        let mut stage = Self::new(Policy::default());
        pods.iter().for_each(|pod| stage.sees(pod));
        stage
    }

    pub fn by_hand(mut self, names: &[&str]) -> Self {
        self.by_hand.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    pub fn sees(&mut self, pod: &PodFacts) {
        self.hear(Event::PodUpdated(Box::new(pod.clone())));
    }

    /// Somebody deletes the pod with its own grace.
    pub fn sees_deleted(&mut self, pod: &PodFacts) {
        let terminating = Some(Moment::from_millis(self.now) + pod.grace);
        self.sees(&PodFacts { terminating, ..pod.clone() });
    }

    pub fn gone(&mut self, pod: &str) {
        self.hear(Event::PodRemoved(PodUid(pod.into())));
    }

    pub fn notice(&mut self, kind: NoticeKind, id: &str, left_s: i64) {
        let seen = Moment::from_millis(self.now);
        self.hear(Event::NoticeReceived(Notice {
            kind,
            id: id.into(),
            seen,
            left_ms: left_s * 1000,
            event: None,
        }));
    }

    pub fn withdrawn(&mut self, id: &str) {
        self.hear(Event::NoticeWithdrawn { id: id.into(), is_over: false });
    }

    /// Lets time pass until so many milliseconds after the start.
    pub fn until(&mut self, ms: u64) {
        let end = START + ms;
        for _ in 0..100_000 {
            let wakeup = self.machine.next_wakeup().map(Moment::as_millis);
            let expiry = self.open.values().map(|effect| (effect.deadline.as_millis(), effect.id)).min();
            let next = wakeup.into_iter().chain(expiry.map(|(at, _)| at)).min().filter(|at| *at <= end);
            let Some(next) = next else {
                self.now = end;
                return;
            };
            self.now = next;
            match expiry.filter(|(at, _)| *at == next) {
                Some((_, id)) => self.answer(id, Outcome::TimedOut),
                None => self.hear(Event::TimerFired),
            }
        }
        assert!(self.now >= end, "an endless loop at {}", self.now - START);
    }

    /// The agent is killed and started again, and sees its node and these pods at once.
    pub fn restart(&mut self, pods: &[PodFacts]) {
        self.restart_unread();
        self.reads_node();
        pods.iter().for_each(|pod| self.sees(pod));
        self.hear(Event::PodsListed);
    }

    /// The agent is killed and started again, and has seen nothing yet.
    pub fn restart_unread(&mut self) {
        self.machine = Machine::new(self.policy.clone());
        self.open.clear();
        self.now += 1_000;
        self.begins();
    }

    /// The instance stops and comes back.
    pub fn boot(&mut self, boot: &str) {
        self.boot = boot.into();
        self.slept = 0;
        self.restart(&[]);
    }

    /// The instance is frozen for so many milliseconds, and nobody has noticed yet that it is awake.
    pub fn sleeps(&mut self, ms: u64) {
        self.slept += ms;
        self.now += ms;
    }

    /// The same, and the agent notices it.
    pub fn sleeps_and_wakes(&mut self, ms: u64) {
        self.sleeps(ms);
        self.hear(Event::Resumed { slept: Span::from_millis(ms) });
    }

    pub fn status(&self) -> Status {
        self.machine.status()
    }

    /// What a plan would be made from now.
    pub fn facts(&self, pod: &str) -> PodState {
        self.machine.facts().pods.into_iter().find(|state| state.pod.name == pod).expect("it was seen")
    }

    pub fn node(&self) -> &NodeFacts {
        &self.node
    }

    pub fn hear(&mut self, event: Event) {
        let effects = self.machine.handle(Moment::from_millis(self.now), event);
        let mut at_once = Vec::new();
        for effect in effects {
            self.asked.push((self.now - START, effect.action.clone()));
            self.open.insert(effect.id.0, effect.clone());
            let name = effect.action.name();
            let key = key(&effect.action);
            if let Action::Cancel { effect } = &effect.action {
                self.open.remove(&effect.0);
            }
            if !self.by_hand.contains(name) && !self.by_hand.contains(&key) {
                at_once.push((effect, key));
            }
        }
        for (effect, key) in at_once {
            let outcome = self.answers.get(&key).cloned();
            let outcome = outcome.unwrap_or_else(|| self.plain(&effect.action));
            self.answer(effect.id, outcome);
        }
    }

    fn plain(&mut self, action: &Action) -> Outcome {
        match action {
            Action::Node(NodeAction::MarkNode(active_notice)) => {
                self.node.active_notice = Some(active_notice.clone());
                self.node.tainted = true;
                self.node.unschedulable |= active_notice.hard;
            }
            Action::Node(NodeAction::ClearNodeMark { uncordon, over }) => {
                self.node.over.clone_from(over);
                self.node.active_notice = None;
                self.node.tainted = false;
                self.node.unschedulable &= !uncordon;
            }
            _ => {}
        }
        Outcome::Done(match action {
            Action::Pod { action: PodAction::WriteIntent { .. }, .. } => {
                Done::IntentWritten { committed: None, evidence: true }
            }
            Action::Pod { action: PodAction::InspectEngine, .. } => {
                Done::Inspected { state_bytes: 1 << 30, busy: false, doubt: None }
            }
            Action::Pod { action: PodAction::ProbeEngine, .. } => Done::Probed,
            Action::Pod { action: PodAction::Flush { .. }, .. } => {
                Done::Flushed { bytes: 1 << 30, evidence: true }
            }
            Action::Pod { action: PodAction::Save { .. }, .. } => {
                Done::Saved { bytes: 1 << 30, sent: 1 << 30, left_out: None, newest: None }
            }
            Action::Pod { uid: pod, action: PodAction::Commit { .. } } => {
                Done::Committed { generation: format!("{pod}/1-1"), bytes: 1 << 30 }
            }
            Action::Restore { action: RestoreAction::FindLineage, .. } => {
                Done::Lineages { candidates: Vec::new(), worth_waiting_for: None }
            }
            Action::Restore { action: RestoreAction::Claim { .. }, .. } => {
                Done::Claimed { epoch: 2, resumed: false }
            }
            Action::Restore { action: RestoreAction::Fetch { .. }, .. } => Done::Fetched { bytes: 1 << 30 },
            Action::Restore { action: RestoreAction::CheckFingerprint, .. } => {
                Done::FingerprintMatches { state_bytes: 0 }
            }
            Action::Restore { action: RestoreAction::ImportState, .. } => Done::Tokens { count: Some(512) },
            Action::Restore { action: RestoreAction::Verify, .. } => {
                Done::Verified(Verification::Used { tokens: 500 })
            }
            _ => Done::Nothing,
        })
    }

    fn answer(&mut self, id: EffectId, outcome: Outcome) {
        if self.open.remove(&id.0).is_some() {
            self.hear(Event::Answered { id, outcome });
        }
    }

    /// Answers what is open of this name for this pod.
    pub fn answers_now(&mut self, name: &str, pod: &str, outcome: Outcome) {
        let id = self.open_id(name, pod);
        assert!(id.is_some(), "no {name} of {pod:?} is open:\n{}", self.story());
        if let Some(id) = id {
            self.answer(id, outcome);
        }
    }

    /// It succeeds, in the plain way.
    pub fn done(&mut self, name: &str, pod: &str) {
        let action =
            self.open_id(name, pod).and_then(|id| self.open.get(&id.0)).map(|open| open.action.clone());
        let outcome = action.map_or(Outcome::Panicked, |action| self.plain(&action));
        self.answers_now(name, pod, outcome);
    }

    pub fn fails(&mut self, name: &str, pod: &str, kind: FailureKind) {
        self.answers_now(name, pod, failed(kind));
    }

    /// Something of what is open of this name has come.
    pub fn bytes_come(&mut self, name: &str, pod: &str) {
        let id = self.open_id(name, pod).expect("it is open");
        self.hear(Event::BytesCame { id });
    }

    fn open_id(&self, name: &str, pod: &str) -> Option<EffectId> {
        let wanted = if pod.is_empty() { name.to_owned() } else { format!("{name} {pod}") };
        self.open.values().find(|open| key(&open.action) == wanted).map(|open| open.id)
    }

    /// By when what is open of this name has to be answered, in milliseconds since the start.
    pub fn due(&self, name: &str, pod: &str) -> Option<u64> {
        let open = self.open.get(&self.open_id(name, pod)?.0)?;
        Some(open.deadline.as_millis() - START)
    }

    /// When this was asked for, each time, in milliseconds since the start.
    pub fn times(&self, name: &str, pod: &str) -> Vec<u64> {
        let wanted = if pod.is_empty() { name.to_owned() } else { format!("{name} {pod}") };
        self.asked.iter().filter(|(_, action)| key(action) == wanted).map(|(at, _)| *at).collect()
    }

    /// Whose turn it was, in order.
    pub fn order(&self, name: &str) -> Vec<String> {
        let of_name = self.asked.iter().filter(|(_, action)| action.name() == name);
        of_name.filter_map(|(_, action)| action.pod().map(|pod| pod.0.clone())).collect()
    }

    pub fn actions(&self, name: &str, pod: &str) -> Vec<Action> {
        let wanted = if pod.is_empty() { name.to_owned() } else { format!("{name} {pod}") };
        self.asked
            .iter()
            .filter(|(_, action)| key(action) == wanted)
            .map(|(_, action)| action.clone())
            .collect()
    }

    /// The grace of the last eviction or delete.
    pub fn grace(&self, name: &str, pod: &str) -> u64 {
        match self.actions(name, pod).last() {
            Some(Action::Pod {
                action: PodAction::Evict { grace, .. } | PodAction::DeletePod { grace, .. },
                ..
            }) => grace.as_secs(),
            _ => 0,
        }
    }

    /// The last hold, in milliseconds since the start; `Some(0)` where it is released.
    pub fn hold(&self, pod: &str) -> Option<u64> {
        match self.actions("set_hold", pod).last() {
            Some(Action::Pod { action: PodAction::SetHold { hold: Hold::Until(until), .. }, .. }) => {
                Some(until.as_millis() - START)
            }
            Some(Action::Pod { action: PodAction::SetHold { hold: Hold::Released, .. }, .. }) => Some(0),
            _ => None,
        }
    }

    /// The last mark.
    pub fn mark(&self) -> Option<ActiveNotice> {
        match self.actions("mark_node", "").pop() {
            Some(Action::Node(NodeAction::MarkNode(active_notice))) => Some(active_notice),
            _ => None,
        }
    }

    /// The deadline of the last mark, in milliseconds since the start.
    pub fn deadline(&self) -> Option<u64> {
        self.mark().map(|active_notice| active_notice.deadline.as_millis() - START)
    }

    /// The last report.
    pub fn report(&self) -> Option<Report> {
        match self.actions("write_report", "").pop() {
            Some(Action::Node(NodeAction::WriteReport(report))) => Some(*report),
            _ => None,
        }
    }

    /// A pod in the last report.
    pub fn entry(&self, pod: &str) -> Option<PodReport> {
        self.report()?.pods.into_iter().find(|entry| entry.uid == pod)
    }

    /// How a restore ended: the reason and the message of the gate's condition.
    pub fn gate(&self, pod: &str) -> Option<(&'static str, String)> {
        match self.actions("open_gate", pod).pop() {
            Some(Action::Restore { action: RestoreAction::OpenGate { outcome, message, .. }, .. }) => {
                Some((outcome.as_str(), message))
            }
            _ => None,
        }
    }

    /// What was asked for, for a failure's message.
    pub fn story(&self) -> String {
        let lines = self.asked.iter().map(|(at, action)| format!("{at:>7} {action:?}\n"));
        lines.collect()
    }
}

pub fn failed(kind: FailureKind) -> Outcome {
    Outcome::Failed { kind, why: kind.as_str().to_owned() }
}

/// `evict web`; `mark` for what is not about a pod.
fn key(action: &Action) -> String {
    match action.pod() {
        Some(pod) => format!("{} {pod}", action.name()),
        None => action.name().to_owned(),
    }
}
