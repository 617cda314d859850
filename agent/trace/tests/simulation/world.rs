//! The world around one machine: virtual time, and the order in which things happen.
//!
//! ```text
//! effect ─► (latency) ─► it reaches the outside: outside.rs ─► (time) ─► answer ─► machine
//!        └► (its deadline) ─► TimedOut, if nothing came before
//! ```

use crate::arrivals::Arrived;
use crate::budgets::Budgets;
use crate::checks::Checks;
use crate::cluster::Cluster;
use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::imds::Imds;
use crate::link::Link;
use crate::restores::Restores;
use crate::scenario::Scenario;
use crate::script::{self, Script};
use crate::store::Store;
use crate::troubles::{Struck, Troubles};
use crate::watch::Watch;
use evacuation::Machine;
use evacuation::effect::{Effect, EffectId};
use evacuation::event::{Event, Outcome};
use evacuation::moment::Moment;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use trace::Step;

/// The node was booted this long ago when a run starts.
pub const START: u64 = 1_000_000;

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
    /// The agent hears of something.
    Deliver(u32, Box<Event>),
    Wake(u32, u64),
    LinkTick(u64),
    PodEnds(String, u32),
    /// A replacement of an evicted pod is ready: its budget has one more.
    Replaced(usize),
    Start,
    /// A life of the agent reads its node, lists its pods, and asks IMDS for the first time.
    ReadNode(u32),
    ListPods(u32),
    Poll(u32),
}

/// One run.
pub struct World<'a> {
    pub now: u64,
    pub scenario: &'a Scenario,
    pub dice: Dice,
    pub cluster: Cluster,
    pub budgets: Budgets,
    pub imds: Imds,
    pub watch: Watch,
    pub store: Store,
    pub restores: Restores,
    pub link: Link,
    pub checks: Checks,
    pub coverage: &'a mut Coverage,
    pub life: u32,
    pub boot_at: u64,
    pub boot: &'static str,
    /// How long the instance has slept in this boot.
    pub slept: u64,
    /// What is counted once a run, and was seen in this one.
    pub seen: BTreeSet<&'static str>,
    /// What the life that is has heard.
    pub arrived: Arrived,
    pub machine: Option<Machine>,
    /// The effects that the executor waits for.
    pub open: BTreeMap<u64, Effect>,
    /// What an open save is to move, by effect: bytes of state, bytes to send.
    pub saving: BTreeMap<(u32, u64), (String, u64, u64)>,
    /// Bytes that a life's shell has opened after a flush, and what the engine left out of it.
    pub opened: BTreeMap<(u32, String), (u64, Option<String>)>,
    /// The last few things, for a failure's message.
    pub trace: VecDeque<String>,
    pub delivered: u32,
    /// Every event and what it was answered with, where it is kept: one list a life.
    pub journal: Vec<Vec<Step>>,
    pub crashes: Crashes,
    /// How the store took the looks of new pods, where it was not well.
    pub met: BTreeSet<&'static str>,
    pub troubles: Troubles<'a>,
    pub traced: bool,
    queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    end: u64,
}

/// After which events the agent dies, beside what the fault plan says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crashes {
    Never,
    /// After this one, counted from 1.
    After(u32),
}

impl<'a> World<'a> {
    pub fn new(scenario: &'a Scenario, crashes: Crashes, coverage: &'a mut Coverage) -> Self {
        let plan = script::plan(scenario, START);
        let mut world = Self {
            now: START,
            scenario,
            dice: Dice::new(scenario.seed),
            cluster: Cluster::new(scenario.schedulable),
            budgets: Budgets::new(&scenario.budgets),
            imds: Imds::default(),
            watch: Watch::default(),
            store: Store::default(),
            restores: Restores::default(),
            link: Link::new(scenario.link, START),
            checks: Checks::new(scenario.policy.clone()),
            coverage,
            life: 0,
            boot_at: 0,
            boot: "boot-1",
            slept: 0,
            seen: BTreeSet::new(),
            arrived: Arrived::default(),
            machine: None,
            open: BTreeMap::new(),
            saving: BTreeMap::new(),
            opened: BTreeMap::new(),
            trace: VecDeque::new(),
            delivered: 0,
            journal: Vec::new(),
            crashes,
            met: BTreeSet::new(),
            troubles: Troubles::new(&scenario.faults),
            traced: false,
            queue: BTreeMap::new(),
            sequence: 0,
            end: plan.end,
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

    /// When the notice appears.
    pub const fn notice_at(&self) -> u64 {
        START + self.scenario.notice_after
    }

    /// A fault of this name strikes now.
    pub fn strikes(&mut self, name: &'static str, object: &str) -> Option<Struck> {
        let since = i64::try_from(self.now).unwrap_or(0) - i64::try_from(self.notice_at()).unwrap_or(0);
        let struck = self.troubles.strikes(name, object, since)?;
        self.coverage.fault(name);
        Some(struck)
    }

    /// Runs to the end, or to the first violation.
    pub fn run(mut self) -> Self {
        self.coverage.run(self.scenario);
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
        self.coverage.events += u64::from(self.delivered);
        self.coverage.met(&self.met);
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
                if self.is_open(life, id) {
                    self.cut_save(life, id);
                    self.answered(life, id, Outcome::TimedOut);
                }
            }
            Happening::Deliver(life, event) => {
                if life == self.life {
                    self.deliver(*event);
                }
            }
            Happening::Wake(life, at) => {
                let wanted = self.machine.as_ref().and_then(Machine::next_wakeup);
                if life == self.life && wanted.is_some_and(|wanted| wanted.as_millis() == at) {
                    self.deliver(Event::TimerFired);
                }
            }
            Happening::LinkTick(version) => {
                if version == self.link.version {
                    self.tick_link();
                }
            }
            Happening::PodEnds(uid, plan) => self.pod_ends(&uid, plan),
            Happening::Replaced(group) => self.budgets.give_back(group),
            Happening::Start => self.start(),
            Happening::ReadNode(life) => {
                if life == self.life && self.arrived.node.is_none() {
                    self.read_node();
                }
            }
            Happening::ListPods(life) => {
                if life == self.life {
                    self.list_pods();
                }
            }
            Happening::Poll(life) => {
                if life == self.life {
                    self.poll();
                }
            }
        }
    }

    /// The instance is another one: what its last one was about to do is not done.
    pub fn forget_the_last_boot(&mut self) {
        self.queue.retain(|_, happening| !matches!(happening, Happening::Start | Happening::Reach(..)));
    }

    /// Clocks go on for so long, and nothing happens meanwhile: what was to happen happens so much later.
    pub fn freeze(&mut self, ms: u64) {
        self.link.settle(self.now);
        self.now += ms;
        self.end += ms;
        self.link.stands_still_until(self.now);
        self.watch.stands_still(ms);
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue.into_iter().map(|((at, number), what)| ((at + ms, number), what)).collect();
        self.schedule_link();
    }

    /// One line of the trace, where it is kept.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if self.traced {
            let at = i64::try_from(self.now).unwrap_or(0) - i64::try_from(START).unwrap_or(0);
            self.trace.push_back(format!("{:>9.3} {}", at as f64 / 1000.0, line()));
            if self.trace.len() > 4_000 {
                self.trace.pop_front();
            }
        }
    }
}
