//! The agent's shell around the machine: it starts, hears, asks, dies, and is started again.

use crate::arrivals::Arrivals;
use crate::coverage::{BOOT_WHILE_IMDS_LAGS, RESUME_WHILE_IMDS_LAGS};
use crate::restores::failed;
use crate::world::{Crashes, Happening, World};
use evacuation::Machine;
use evacuation::effect::{Action, Effect, EffectId};
use evacuation::event::{Event, FailureKind, Outcome};
use evacuation::moment::Span;
use evacuation::pod::PodUid;
use trace::Step;

impl World<'_> {
    pub const fn is_alive(&self) -> bool {
        self.machine.is_some()
    }

    /// The agent starts: when it hears of its node, its pods and IMDS is drawn for each of its lives.
    pub fn start(&mut self) {
        self.life += 1;
        self.machine = Some(Machine::new(self.scenario.policy.clone()));
        self.journal.push(Vec::new());
        self.checks.start();
        self.imds.forget();
        self.watch.restart(self.now);
        self.deliver(Event::AgentStarted {
            boot: self.boot.to_owned(),
            slept: Span::from_millis(self.slept),
        });
        if self.scenario.link_is_known {
            self.measure();
        }
        let Arrivals { node, pods, imds } = Arrivals::draw(self.scenario.seed, self.life);
        self.later(node, Happening::ReadNode(self.life));
        self.later(pods, Happening::ListPods(self.life));
        self.later(imds, Happening::Poll(self.life));
    }

    /// The agent reads its node, if no watch has shown it yet.
    pub fn read_node(&mut self) {
        self.deliver(Event::NodeUpdated(self.cluster.node.clone()));
    }

    /// The first list of pods; its end comes when all of it has come.
    pub fn list_pods(&mut self) {
        self.watch.lists(self.now);
        let uids: Vec<_> = self.cluster.pods.keys().cloned().collect();
        for uid in &uids {
            self.show_pod(uid, 0);
        }
        let (at, life) = (self.watch.shown_by(&uids).unwrap_or(self.now), self.life);
        self.at(at, Happening::Deliver(life, Box::new(Event::PodsListed)));
    }

    /// The instance was stopped and comes back: another boot, another life, another clock.
    pub fn boot(&mut self) {
        self.crash();
        self.forget_the_last_boot();
        self.boot_at = self.now - 5_000;
        self.boot = "boot-2";
        self.cluster.pods.retain(|_, pod| pod.facts.stays().is_some() && pod.facts.terminating.is_none());
        self.cluster.pods.values_mut().for_each(|pod| pod.hold = 0);
        self.slept = 0;
        let lags = self.dice.percent("imds-lags", 50);
        self.imds.clear(lags);
        if self.imds.shows_the_past(self.boot_at) {
            self.coverage.once(BOOT_WHILE_IMDS_LAGS, &mut self.seen);
        }
        self.later(100, Happening::Start);
    }

    /// The instance is hibernated for so long, and wakes: its boot clock has gone on, and all that was under way on it goes on.
    pub fn sleep(&mut self, ms: u64) {
        self.note(|| format!("SLEEPS for {ms} ms"));
        self.freeze(ms);
        self.slept += ms;
        let lags = self.dice.percent("imds-lags", 50);
        self.imds.wakes(lags);
        if self.imds.shows_the_past(self.now) {
            self.coverage.once(RESUME_WHILE_IMDS_LAGS, &mut self.seen);
        }
        self.deliver(Event::Resumed { slept: Span::from_millis(ms) });
        self.hears_of_changes();
    }

    /// The agent dies. What was accepted outside happens all the same.
    pub fn crash(&mut self) {
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

    /// The executor still waits for this effect.
    pub fn is_open(&self, life: u32, id: EffectId) -> bool {
        life == self.life && self.open.contains_key(&id.0)
    }

    pub fn answered(&mut self, life: u32, id: EffectId, outcome: Outcome) {
        if life != self.life || self.machine.is_none() {
            return;
        }
        if let Some(effect) = self.open.remove(&id.0) {
            let moment = self.moment();
            self.checks.answered(moment, &effect, &outcome);
            if self.strikes("answer-twice", "").is_some() {
                let after = self.dice.of("twice").u64(0..3_000);
                self.later(after, Happening::Answer(life, id, outcome.clone()));
            }
        }
        self.deliver(Event::Answered { id, outcome });
    }

    /// One event for the machine, and the effects it answers with.
    pub fn deliver(&mut self, event: Event) {
        let moment = self.moment();
        let Some(machine) = &mut self.machine else { return };
        // What a shell sees of its node first is what it has read.
        let event = match event {
            Event::NodeUpdated(node) if self.arrived.node.is_none() => Event::NodeRead(node),
            event => event,
        };
        self.coverage.arrived(self.arrived.hears(&event, self.now));
        self.coverage.event(&event);
        let effects = machine.handle(moment, event.clone());
        let wakeup = machine.next_wakeup();
        let step = Step { at: moment, event, effects };
        self.note(|| format!("{:?}", step.event));
        self.delivered += 1;
        for effect in &step.effects {
            self.note(|| format!("    {} {:?} until {:?}", effect.id.0, effect.action, effect.deadline));
            self.coverage.effect(effect);
        }
        self.checks.step(&step, wakeup, &self.cluster, &self.store);
        if self.traced
            && let Some(life) = self.journal.last_mut()
        {
            life.push(step.clone());
        }
        let mut dies = self.crashes == Crashes::After(self.delivered);
        for effect in step.effects {
            if self.troubles.kills_at(effect.action.name()) {
                self.coverage.fault("agent-kill");
                dies = true;
            }
            self.begin(effect);
        }
        if let Some(wakeup) = wakeup {
            self.at(wakeup.as_millis() + self.boot_at, Happening::Wake(self.life, wakeup.as_millis()));
        }
        if dies {
            self.crash();
        }
    }

    /// The shell starts an effect.
    fn begin(&mut self, effect: Effect) {
        let life = self.life;
        self.open.insert(effect.id.0, effect.clone());
        self.at(effect.deadline.as_millis() + self.boot_at, Happening::Expire(life, effect.id));
        if let Action::Cancel { effect: target } = effect.action {
            self.cut_save(life, target);
            let outcome = failed(FailureKind::Transient, "cancelled");
            self.later(20, Happening::Answer(life, target, outcome));
        }
        let pod = effect.action.pod().map_or("", |PodUid(uid)| uid.as_str());
        let target = format!("{pod}/{}", effect.action.name());
        let latency = self.dice.latency(&target);
        self.later(latency, Happening::Reach(life, Box::new(effect)));
    }
}
