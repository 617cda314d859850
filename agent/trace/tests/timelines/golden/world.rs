//! The world of a golden timeline: virtual time, fixed latencies, and actions that take as long as they would.
//!
//! Small on purpose, and without chance: the simulation has the world with dice and faults. What it needs to know of
//! a scenario is said in a line each, and the same lines always give the same text.

use super::actor::Actor;
use super::link::Link;
use evacuation::Machine;
use evacuation::effect::{Action, Effect, EffectId, NodeAction, PodAction, RestoreAction};
use evacuation::event::{Event, NodeFacts, Outcome};
use evacuation::moment::{Moment, Span};
use evacuation::notice::{Notice, NoticeKind};
use evacuation::pod::{Owner, PodUid};
use evacuation::policy::Policy;
use std::collections::BTreeMap;
use trace::Step;
use trace::timeline::Timeline;

/// What it takes to ask the API server, the store, the engine, and to write a file.
const API: u64 = 40;
pub const STORE: u64 = 30;
const ENGINE: u64 = 10;
const FILE: u64 = 2;

/// How far a watch lags behind.
pub const WATCH: u64 = 20;

/// How long a shell ends a save before its deadline, with the files that are whole.
pub const CUT: u64 = 100;

/// What happens by itself.
#[derive(Clone, Debug)]
pub enum Act {
    Notice(NoticeKind, &'static str, i64),
    Withdraw(&'static str),
    /// Somebody deletes the pod with its own grace.
    Delete(&'static str),
    /// The agent is killed, and started again 1.5 s later.
    Kill,
    /// The instance stops and comes back under another boot id.
    Boot,
    /// The uplink is measured.
    Measure,
}

/// What is going to happen.
#[derive(Clone, Debug)]
pub enum Happening {
    Act(Act),
    Start,
    Reach(u32, Box<Effect>),
    Answer(u32, EffectId, Outcome),
    Expire(u32, EffectId),
    Cut(u32, u64),
    Tell(u32, Box<Event>),
    Wake(u32, Moment),
    Link(u64),
    Ends(String, u32),
}

/// The world.
pub struct World {
    policy: Policy,
    machine: Option<Machine>,
    pub node: NodeFacts,
    pub actors: BTreeMap<String, Actor>,
    pub link: Link,
    /// What each open save is of, and what it had to send.
    pub saves: BTreeMap<u64, (String, u64)>,
    pub open: BTreeMap<u64, Effect>,
    queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    pub now: u64,
    pub boot: u64,
    boot_id: &'static str,
    /// One list of steps for each life of the agent.
    pub lives: Vec<Vec<Step>>,
}

impl World {
    /// A node with these pods and an uplink of so many bytes a second.
    pub fn new(policy: Policy, bytes_per_second: u64, actors: Vec<Actor>) -> Self {
        let node = NodeFacts {
            name: "node-a".into(),
            unschedulable: false,
            tainted: false,
            active_notice: None,
            over: Vec::new(),
        };
        let mut world = Self {
            policy,
            machine: None,
            node,
            actors: actors.into_iter().map(|actor| (actor.facts.uid.0.clone(), actor)).collect(),
            link: Link::new(bytes_per_second / 1_000, 0),
            saves: BTreeMap::new(),
            open: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            now: 0,
            boot: 0,
            boot_id: "boot-1",
            lives: Vec::new(),
        };
        world.at(0, Happening::Start);
        world
    }

    /// Something happens by itself, so many milliseconds after the start.
    pub fn then(mut self, ms: u64, act: Act) -> Self {
        self.at(ms, Happening::Act(act));
        self
    }

    /// Runs for so many milliseconds.
    pub fn run(mut self, ms: u64) -> Self {
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            if at > ms {
                break;
            }
            self.now = at;
            self.happen(happening);
        }
        self
    }

    /// What a person reads of it.
    pub fn text(&self) -> String {
        let several = self.lives.len() > 1;
        let lives = (1..).zip(&self.lives).map(|(number, life)| {
            let head = if several { format!("\nLife {number} of the agent\n") } else { "\n".into() };
            head + &Timeline::of(life).text()
        });
        lives.collect()
    }

    /// The policy of its agent.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    pub const fn life(&self) -> u32 {
        self.lives.len() as u32
    }

    pub fn at(&mut self, at: u64, what: Happening) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), what);
    }

    pub fn later(&mut self, ms: u64, what: Happening) {
        self.at(self.now + ms, what);
    }

    pub fn moment(&self) -> Moment {
        Moment::from_millis(self.now - self.boot)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Act(act) => self.act(act),
            Happening::Start => self.start(),
            Happening::Reach(life, effect) => {
                if life == self.life() && self.open.contains_key(&effect.id.0) {
                    self.reach(&effect);
                }
            }
            Happening::Answer(life, id, outcome) => self.answer(life, id, outcome),
            Happening::Expire(life, id) => {
                if life == self.life() && self.open.contains_key(&id.0) {
                    self.end_save(id.0);
                    self.answer(life, id, Outcome::TimedOut);
                }
            }
            Happening::Cut(life, id) => {
                if life == self.life()
                    && let Some((pod, bytes, sent)) = self.end_save(id)
                {
                    let why = format!("other files of {pod}, for want of time");
                    self.answer_save(EffectId(id), bytes, sent, Some(why));
                }
            }
            Happening::Tell(life, event) => {
                if life == self.life() {
                    self.tell(*event);
                }
            }
            Happening::Wake(life, at) => {
                let wanted = self.machine.as_ref().and_then(Machine::next_wakeup);
                if life == self.life() && wanted == Some(at) {
                    self.tell(Event::TimerFired);
                }
            }
            Happening::Link(version) => {
                if version == self.link.version {
                    self.link_moved();
                }
            }
            Happening::Ends(uid, plan) => {
                if self.actors.get(&uid).is_some_and(|actor| actor.plan == plan && !actor.gone) {
                    self.actors.get_mut(&uid).into_iter().for_each(|actor| actor.gone = true);
                    self.watch(Event::PodRemoved(PodUid(uid)));
                }
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Notice(kind, id, left_s) => {
                let left_ms = left_s * 1_000;
                let seen = self.moment();
                self.tell(Event::NoticeReceived(Notice { kind, id: id.into(), seen, left_ms, event: None }));
            }
            Act::Withdraw(id) => self.tell(Event::NoticeWithdrawn { id: id.into(), is_over: false }),
            Act::Delete(uid) => {
                let grace = self.actors.get(uid).map_or(Span::ZERO, |actor| actor.facts.grace);
                self.terminate(uid, grace);
            }
            Act::Kill => {
                self.die();
                self.later(1_500, Happening::Start);
            }
            Act::Boot => {
                self.die();
                self.boot = self.now - 8_000;
                self.boot_id = "boot-2";
                self.actors.retain(|_, actor| matches!(actor.facts.owner, Owner::Daemon { .. }));
                self.queue.retain(|_, happening| !matches!(happening, Happening::Ends(..)));
                self.at(self.now, Happening::Start);
            }
            Act::Measure => {
                let bytes_per_second = self.link.rate() * 1_000;
                self.tell(Event::LinkMeasured { bytes_per_second });
            }
        }
    }

    fn start(&mut self) {
        self.machine = Some(Machine::new(self.policy.clone()));
        self.lives.push(Vec::new());
        self.tell(Event::AgentStarted { boot: self.boot_id.to_owned(), slept: Span::ZERO });
        self.tell(Event::NodeRead(self.node.clone()));
        let there = self.actors.values().filter(|actor| !actor.gone);
        let pods: Vec<_> = there.map(|actor| actor.facts.clone()).collect();
        pods.into_iter().for_each(|facts| self.tell(Event::PodUpdated(Box::new(facts))));
        self.tell(Event::PodsListed);
    }

    fn die(&mut self) {
        self.machine = None;
        let saves: Vec<_> = self.saves.keys().copied().collect();
        saves.into_iter().for_each(|id| drop(self.end_save(id)));
        self.link.drop_life(self.life());
        self.open.clear();
    }

    pub fn tell(&mut self, event: Event) {
        let at = self.moment();
        let Some(machine) = &mut self.machine else { return };
        let effects = machine.handle(at, event.clone());
        let wakeup = machine.next_wakeup();
        let life = self.life();
        if let Some(steps) = self.lives.last_mut() {
            steps.push(Step { at, event, effects: effects.clone() });
        }
        effects.into_iter().for_each(|effect| self.begin(effect));
        if let Some(wakeup) = wakeup {
            self.at(self.boot + wakeup.as_millis(), Happening::Wake(life, wakeup));
        }
    }

    fn begin(&mut self, effect: Effect) {
        let life = self.life();
        let latency = match &effect.action {
            Action::Node(NodeAction::MarkNode(_) | NodeAction::ClearNodeMark { .. })
            | Action::Pod { action: PodAction::Evict { .. } | PodAction::DeletePod { .. }, .. } => API,
            Action::Pod { action: PodAction::MarkDisrupted, .. }
            | Action::Node(NodeAction::Publish(_))
            | Action::Pod { action: PodAction::Publish(_), .. }
            | Action::Restore { action: RestoreAction::OpenGate { .. }, .. } => API,
            Action::Pod {
                action: PodAction::InspectEngine | PodAction::Quiesce | PodAction::Resume, ..
            } => ENGINE,
            Action::Pod { uid: pod, action: PodAction::Flush { .. } } => {
                let actor = self.actors.get(&pod.0);
                ENGINE + actor.map_or(0, |actor| actor.state * 1_000 / actor.disk)
            }
            Action::Pod { action: PodAction::SetHold { .. }, .. }
            | Action::Cancel { .. }
            | Action::Anomaly { .. } => FILE,
            _ => STORE,
        };
        if let Action::Cancel { effect: target } = effect.action {
            self.end_save(target.0);
            self.open.remove(&target.0);
        }
        self.open.insert(effect.id.0, effect.clone());
        self.at(self.boot + effect.deadline.as_millis(), Happening::Expire(life, effect.id));
        self.later(latency, Happening::Reach(life, Box::new(effect)));
    }

    pub fn answer(&mut self, life: u32, id: EffectId, outcome: Outcome) {
        if life == self.life() && self.open.remove(&id.0).is_some() {
            self.tell(Event::Answered { id, outcome });
        }
    }
}
