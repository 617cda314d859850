//! The world around one machine: virtual time, the order in which things happen, the agent's shell.
//!
//! ```text
//! effect ─► (latency) ─► it reaches the outside: outside.rs ─► (time) ─► answer ─► machine
//!        └► (its deadline) ─► TimedOut, if nothing came before
//! ```

use crate::checks::Checks;
use crate::cluster::Cluster;
use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::faults::{self, Fault};
use crate::link::Link;
use crate::restores::Restores;
use crate::scenario::Scenario;
use crate::script::{self, Script};
use crate::store::Store;
use evacuation::Machine;
use evacuation::effect::{Action, Effect, EffectId};
use evacuation::event::{Event, Outcome};
use evacuation::moment::Moment;
use evacuation::notice::{Notice, NoticeKind};
use evacuation::pod::PodUid;
use std::collections::{BTreeMap, VecDeque};

/// The node was booted this long ago when a run starts.
const START: u64 = 1_000_000;

/// Something that is going to happen.
#[derive(Clone, Debug)]
pub enum Happening {
    Script(Script, &'static str),
    /// An effect's request arrives where it goes.
    Reach(u32, Box<Effect>),
    /// An engine has written what it was to write.
    Flushed(u32, Box<Effect>, u32),
    /// A shell ends a save shortly before its deadline with what is whole.
    SaveEnds(u32, Box<Effect>),
    Answer(u32, EffectId, Outcome),
    Expire(u32, EffectId),
    Watch(u32, Box<Event>),
    Wake(u32, u64),
    LinkTick(u64),
    PodEnds(String, u32),
    Start,
    Poll(u32),
}

/// One line of a journal.
pub type Entry = (Moment, Event, Vec<Effect>);

/// One run.
pub struct World<'a> {
    pub now: u64,
    pub scenario: &'a Scenario,
    pub dice: Dice,
    pub cluster: Cluster,
    pub store: Store,
    pub restores: Restores,
    pub link: Link,
    pub checks: Checks,
    pub coverage: &'a mut Coverage,
    pub life: u32,
    pub boot_at: u64,
    /// What an open save is to move, by effect: bytes of state, bytes to send.
    pub saving: BTreeMap<(u32, u64), (String, u64, u64)>,
    /// Bytes that a life's shell has opened after a flush.
    pub opened: BTreeMap<(u32, String), u64>,
    /// The last few things, for a failure's message.
    pub trace: VecDeque<String>,
    pub delivered: u32,
    /// Every event and what it was answered with, where it is kept: one list a life.
    pub journal: Vec<Vec<Entry>>,
    machine: Option<Machine>,
    open: BTreeMap<u64, Effect>,
    queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    end: u64,
    crash_at: Option<u32>,
    struck: Vec<u32>,
    shown: BTreeMap<NoticeKind, (String, i64)>,
    watched_until: u64,
    traced: bool,
}

impl<'a> World<'a> {
    pub fn new(scenario: &'a Scenario, crash_at: Option<u32>, coverage: &'a mut Coverage) -> Self {
        let plan = script::plan(scenario, START);
        let mut world = Self {
            now: START,
            scenario,
            dice: Dice::new(scenario.seed),
            cluster: Cluster::new(scenario.schedulable),
            store: Store::default(),
            restores: Restores::default(),
            link: Link::new(scenario.link, START),
            checks: Checks::new(scenario.policy.clone(), scenario.schedulable),
            coverage,
            life: 0,
            boot_at: 0,
            saving: BTreeMap::new(),
            opened: BTreeMap::new(),
            trace: VecDeque::new(),
            delivered: 0,
            journal: Vec::new(),
            machine: None,
            open: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            end: plan.end,
            crash_at,
            struck: vec![0; scenario.faults.len()],
            shown: BTreeMap::new(),
            watched_until: START,
            traced: false,
        };
        for actor in scenario.actors.iter().filter(|actor| actor.appears.is_none()) {
            world.cluster.add(actor, START, START);
        }
        for (at, script, fault) in plan.moments {
            world.at(at, Happening::Script(script, fault));
        }
        world.at(START, Happening::Start);
        world
    }

    /// Keeps every event and effect, not only the last.
    pub fn traced(mut self) -> Self {
        self.traced = true;
        self
    }

    pub fn moment(&self) -> Moment {
        Moment::from_millis(self.now - self.boot_at)
    }

    pub fn at(&mut self, at: u64, what: Happening) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), what);
    }

    pub fn later(&mut self, ms: u64, what: Happening) {
        self.at(self.now + ms, what);
    }

    /// Milliseconds since the notice; negative before it.
    fn since_notice(&self) -> i64 {
        let notice = START + self.scenario.notice_after;
        i64::try_from(self.now).unwrap_or(0) - i64::try_from(notice).unwrap_or(0)
    }

    /// A fault of this kind strikes now, with its argument.
    pub fn strikes(&mut self, kind: &str, object: &str) -> Option<u64> {
        let since = self.since_notice();
        let scenario = self.scenario;
        let found = scenario.faults.iter().enumerate().find(|(index, fault): &(usize, &Fault)| {
            fault.holds(kind, object, since) && fault.count.is_none_or(|count| self.struck[*index] < count)
        });
        let (index, fault) = found?;
        self.struck[index] += 1;
        self.coverage.fault(fault.kind);
        Some(fault.argument.unwrap_or(0))
    }

    /// Runs to the end, or to the first violation.
    pub fn run(mut self) -> Self {
        self.coverage.runs += 1;
        *self.coverage.pods.entry(self.scenario.actors.len()).or_default() += 1;
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            if at > self.end || !self.checks.violations.is_empty() {
                break;
            }
            self.now = at;
            self.happen(happening);
        }
        if self.checks.violations.is_empty() {
            let moment = self.moment();
            self.checks.finish(moment, &self.cluster, self.machine.is_some());
        }
        if let Some(machine) = &self.machine {
            self.coverage.late_answers += machine.status().late_answers;
        }
        self
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Script(script, fault) => self.play(script, fault),
            Happening::Reach(life, effect) => self.reach(life, *effect),
            Happening::Flushed(life, effect, start) => self.flushed(life, *effect, start),
            Happening::SaveEnds(life, effect) => self.save_ends(life, *effect),
            Happening::Answer(life, id, outcome) => self.answered(life, id, outcome),
            Happening::Expire(life, id) => {
                if life == self.life && self.open.contains_key(&id.0) {
                    self.cut_save(life, id);
                    self.answered(life, id, Outcome::TimedOut);
                }
            }
            Happening::Watch(life, event) => {
                if life == self.life {
                    self.deliver(*event);
                }
            }
            Happening::Wake(life, at) => {
                let wanted = self.machine.as_ref().and_then(Machine::next_wakeup);
                if life == self.life && wanted.is_some_and(|wanted| wanted.as_millis() == at) {
                    self.deliver(Event::Woke);
                }
            }
            Happening::LinkTick(version) => {
                if version == self.link.version {
                    self.tick_link();
                }
            }
            Happening::PodEnds(uid, plan) => self.pod_ends(&uid, plan),
            Happening::Start => self.start(),
            Happening::Poll(life) => {
                if life == self.life {
                    self.poll();
                }
            }
        }
    }

    /// The agent starts: it reads its node, then its pods, then polls IMDS.
    fn start(&mut self) {
        self.life += 1;
        self.machine = Some(Machine::new(self.scenario.policy.clone()));
        self.journal.push(Vec::new());
        self.checks.start(self.moment(), &self.cluster);
        if self.life == 1 && self.strikes("imds=early", "").is_some() {
            let kind = NoticeKind::Rebalance;
            self.deliver(Event::Noticed(Notice { kind, id: "early".into(), left_ms: 0 }));
        }
        self.deliver(Event::Started(self.cluster.node.clone()));
        self.watched_until = self.now;
        let uids: Vec<_> = self.cluster.pods.keys().cloned().collect();
        for uid in uids {
            self.watch_pod(&uid, 0);
        }
        if self.scenario.link_is_known {
            let bytes_per_second = self.scenario.link * 1000;
            self.watch(Event::LinkMeasured { bytes_per_second }, 1);
        }
        self.later(200, Happening::Poll(self.life));
    }

    /// The first poll of a life.
    fn poll(&mut self) {
        let standing = self.cluster.node.standing.clone();
        for (kind, (id, ends)) in self.shown.clone() {
            self.notice(kind, id, ends);
        }
        if let Some(standing) = standing.filter(|standing| standing.boot == self.cluster.node.boot) {
            let shown = match standing.kind {
                NoticeKind::Interruption(_) => {
                    self.shown.keys().any(|kind| matches!(kind, NoticeKind::Interruption(_)))
                }
                kind => self.shown.contains_key(&kind),
            };
            if !shown && self.life > 1 {
                self.deliver(Event::Withdrawn { id: standing.notice });
            }
        }
    }

    fn notice(&mut self, kind: NoticeKind, id: String, ends: i64) {
        let now = i64::try_from(self.now).unwrap_or(0);
        let left_ms = if kind == NoticeKind::Rebalance { 0 } else { ends - now };
        self.deliver(Event::Noticed(Notice { kind, id, left_ms }));
    }

    fn play(&mut self, script: Script, fault: &'static str) {
        if faults::kind(fault).is_some() {
            self.coverage.fault(fault);
        }
        match script {
            Script::Appear(index) => {
                if let Some(actor) = self.scenario.actors.get(index) {
                    self.cluster.add(actor, self.now, START);
                    self.watch_pod(&actor.facts.uid.0.clone(), 0);
                }
            }
            Script::Show { kind, id, ends } => {
                self.shown.insert(kind, (id.clone(), ends));
                self.notice(kind, id, ends);
            }
            Script::Repeat => {
                for (kind, (id, ends)) in self.shown.clone() {
                    self.notice(kind, id, ends);
                }
            }
            Script::Hide(kind) => {
                if let Some((id, _)) = self.shown.remove(&kind) {
                    self.deliver(Event::Withdrawn { id });
                }
            }
            Script::Delete(uid) => {
                if let Some(grace) = self.cluster.pods.get(&uid).map(|pod| pod.facts.grace) {
                    self.terminate(&uid, grace);
                }
            }
            Script::Finish(uid) => {
                if let Some(pod) = self.cluster.pods.get_mut(&uid) {
                    pod.facts.owner = evacuation::pod::Owner::Finished;
                    pod.facts.running = false;
                    pod.engine_start += 1;
                    pod.state = 0;
                    pod.sigterm = 0;
                    pod.plan += 1;
                    self.watch_pod(&uid, 0);
                    self.schedule_end(&uid);
                }
            }
            Script::RestartEngine(uid) => {
                if let Some(pod) = self.cluster.pods.get_mut(&uid) {
                    pod.engine_start += 1;
                    (pod.state, pod.flushed) = (0, 0);
                }
            }
            Script::Uncordon => {
                self.cluster.node.unschedulable = false;
                self.watch(Event::NodeSeen(self.cluster.node.clone()), 20);
            }
            Script::Kill => self.crash(),
            Script::Boot => self.boot(),
            Script::Rate(rate) => {
                self.link.settle(self.now);
                self.link.set_rate(rate.max(1));
                self.schedule_link();
                self.deliver(Event::LinkMeasured { bytes_per_second: rate * 1000 });
            }
        }
    }

    /// The instance was stopped and comes back: another boot, another life, another clock.
    fn boot(&mut self) {
        self.crash();
        self.queue.retain(|_, happening| !matches!(happening, Happening::Start | Happening::Reach(..)));
        self.boot_at = self.now - 5_000;
        self.cluster.node.boot = "boot-2".into();
        self.cluster.pods.retain(|_, pod| pod.facts.stays().is_some() && pod.facts.terminating.is_none());
        self.cluster.pods.values_mut().for_each(|pod| pod.hold = 0);
        self.shown.clear();
        self.checks.boot();
        self.later(100, Happening::Start);
    }

    /// The agent dies. What was accepted outside happens all the same.
    fn crash(&mut self) {
        if self.machine.take().is_none() {
            return;
        }
        self.note(|| "CRASH".into());
        self.coverage.crashes += 1;
        let life = self.life;
        self.link.settle(self.now);
        self.link.drop_life(life);
        self.schedule_link();
        self.saving.retain(|(of, _), _| *of != life);
        self.open.clear();
        let after = self.dice.of("agent").u64(500..2_000);
        self.later(after, Happening::Start);
    }

    fn answered(&mut self, life: u32, id: EffectId, outcome: Outcome) {
        if life != self.life || self.machine.is_none() {
            return;
        }
        if let Some(effect) = self.open.remove(&id.0) {
            let moment = self.moment();
            self.checks.answered(moment, &effect, &outcome);
        }
        self.deliver(Event::Answered { id, outcome });
    }

    /// One event for the machine, and the effects it answers with.
    fn deliver(&mut self, event: Event) {
        let moment = self.moment();
        let Some(machine) = &mut self.machine else { return };
        self.coverage.event(&event);
        self.checks.event(moment, &event);
        let kept = self.traced.then(|| event.clone());
        let effects = machine.handle(moment, event);
        let wakeup = machine.next_wakeup();
        if let Some(event) = kept {
            self.note(|| format!("{event:?}"));
            if let Some(life) = self.journal.last_mut() {
                life.push((moment, event, effects.clone()));
            }
        }
        self.delivered += 1;
        for effect in &effects {
            self.note(|| format!("    {} {:?} until {:?}", effect.id.0, effect.action, effect.deadline));
            self.coverage.effect(effect);
        }
        self.checks.effects(moment, &effects, wakeup, &self.cluster, &self.store);
        for effect in effects {
            self.begin(effect);
        }
        if let Some(wakeup) = wakeup {
            self.at(wakeup.as_millis() + self.boot_at, Happening::Wake(self.life, wakeup.as_millis()));
        }
        if self.crash_at == Some(self.delivered) {
            self.crash();
        }
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if self.traced {
            let at = i64::try_from(self.now).unwrap_or(0) - i64::try_from(START).unwrap_or(0);
            self.trace.push_back(format!("{:>9.3} {}", at as f64 / 1000.0, line()));
            if self.trace.len() > 4_000 {
                self.trace.pop_front();
            }
        }
    }

    /// The shell starts an effect.
    fn begin(&mut self, effect: Effect) {
        let life = self.life;
        self.open.insert(effect.id.0, effect.clone());
        self.at(effect.deadline.as_millis() + self.boot_at, Happening::Expire(life, effect.id));
        if let Action::Cancel { effect: target } = effect.action {
            self.cut_save(life, target);
            let why = "cancelled";
            let outcome = crate::restores::failed(evacuation::event::FailureKind::Transient, why);
            self.later(20, Happening::Answer(life, target, outcome));
        }
        let pod = effect.action.pod().map_or("", |PodUid(uid)| uid.as_str());
        let target = format!("{pod}/{}", effect.action.name());
        let latency = self.dice.latency(&target);
        self.later(latency, Happening::Reach(life, Box::new(effect)));
    }

    /// The executor still waits for this effect.
    pub fn is_open(&self, life: u32, id: EffectId) -> bool {
        life == self.life && self.open.contains_key(&id.0)
    }

    /// What the watch shows arrives in order, some time after it happened.
    pub fn watch(&mut self, event: Event, lag: u64) {
        let lag = if self.strikes("watch=lags", "").is_some() {
            lag + self.dice.of("watch").u64(100..3_000)
        } else {
            lag
        };
        self.watched_until = self.watched_until.max(self.now + lag);
        let (life, at) = (self.life, self.watched_until);
        if self.strikes("watch=doubles", "").is_some() {
            self.at(at, Happening::Watch(life, Box::new(event.clone())));
        }
        self.at(at, Happening::Watch(life, Box::new(event)));
    }

    pub fn watch_pod(&mut self, uid: &str, lag: u64) {
        if let Some(pod) = self.cluster.pods.get(uid) {
            let event = Event::PodSeen(Box::new(pod.facts.clone()));
            self.watch(event, lag);
        }
    }
}
