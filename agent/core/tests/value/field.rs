//! The real core on one drawn node: engines that flush as fast as their disk, and one link that serves the lowest rank
//! first. Everything else answers at once.

use crate::draw::{Draw, NOTICED};
use evacuation::Machine;
use evacuation::effect::{Action, Effect, EffectId, FlushKind, PodAction};
use evacuation::event::{Done, Event, NodeFacts, Outcome};
use evacuation::moment::{Moment, Span};
use evacuation::notice::{InstanceAction, Notice, NoticeKind};
use evacuation::policy::Policy;
use std::collections::BTreeMap;

struct Field<'a> {
    draw: &'a Draw,
    machine: Machine,
    now: Moment,
    open: BTreeMap<u64, Effect>,
    /// When the flushes that are open will be over, by effect.
    flushes: BTreeMap<u64, Moment>,
    /// By rank and effect: the pod, and byte-milliseconds that it has yet to send.
    transfers: BTreeMap<(u64, u64), (usize, u128)>,
    settled: Moment,
    whole: Vec<bool>,
}

/// Evacuates it; which states are whole in the store.
pub fn run(draw: &Draw) -> Vec<bool> {
    let node = NodeFacts {
        name: "node".into(),
        unschedulable: false,
        tainted: false,
        active_notice: None,
        over: Vec::new(),
    };
    let mut field = Field {
        draw,
        machine: Machine::new(Policy::default()),
        now: NOTICED - Span::from_secs(10),
        open: BTreeMap::new(),
        flushes: BTreeMap::new(),
        transfers: BTreeMap::new(),
        settled: NOTICED,
        whole: vec![false; draw.pods.len()],
    };
    field.hear(Event::AgentStarted { boot: "boot".into(), slept: Span::ZERO });
    field.hear(Event::NodeRead(node));
    for pod in &draw.pods {
        field.hear(Event::PodUpdated(Box::new(pod.facts.clone())));
    }
    field.hear(Event::PodsListed);
    field.hear(Event::LinkMeasured { bytes_per_second: draw.link });
    field.now = NOTICED;
    let left_ms = i64::try_from(draw.window + Policy::default().margin.as_millis()).unwrap_or(i64::MAX);
    let kind = NoticeKind::Interruption(InstanceAction::Terminate);
    field.hear(Event::NoticeReceived(Notice { kind, id: "n".into(), seen: NOTICED, left_ms, event: None }));
    field.play();
    field.whole
}

impl Field<'_> {
    fn play(&mut self) {
        let end = self.draw.deadline() + Span::from_secs(5);
        loop {
            let done = self.link_is_free_at();
            let flushed = self.flushes.iter().map(|(id, at)| (*at, *id)).min();
            let expires = self.open.values().map(|effect| (effect.deadline, effect.id.0)).min();
            let wakes = self.machine.next_wakeup();
            let times = [done, flushed.map(|(at, _)| at), expires.map(|(at, _)| at), wakes];
            let Some(next) = times.into_iter().flatten().min().filter(|next| *next <= end) else { return };
            self.now = self.now.max(next);
            self.settle();
            if let Some((_, id)) = flushed.filter(|(at, _)| *at <= next) {
                self.flushed(id);
            } else if done.is_some_and(|at| at <= next) {
                self.sent();
            } else if let Some((_, id)) = expires.filter(|(at, _)| *at <= next) {
                self.forget(id);
                self.answer(id, Outcome::TimedOut);
            } else {
                self.hear(Event::TimerFired);
            }
        }
    }

    fn pod(&self, action: &Action) -> Option<usize> {
        let uid = action.pod()?;
        self.draw.pods.iter().position(|pod| pod.facts.uid == *uid)
    }

    fn hear(&mut self, event: Event) {
        for effect in self.machine.handle(self.now, event) {
            self.open.insert(effect.id.0, effect.clone());
            let pod = self.pod(&effect.action);
            let drawn = pod.and_then(|pod| self.draw.pods.get(pod));
            match (&effect.action, drawn) {
                (
                    Action::Pod { action: PodAction::Flush { kind: FlushKind::Final, .. }, .. },
                    Some(drawn),
                ) => {
                    self.flushes.insert(effect.id.0, self.now + Span::from_millis(drawn.flush));
                }
                (Action::Pod { action: PodAction::Save { rank, .. }, .. }, Some(drawn)) => {
                    self.settle();
                    let bytes = u128::from(drawn.bytes) * 1000;
                    self.transfers.insert((*rank, effect.id.0), (pod.unwrap_or(0), bytes));
                }
                (action, drawn) => {
                    let state_bytes = drawn.map_or(0, |drawn| drawn.bytes);
                    let done = match action {
                        Action::Pod { action: PodAction::WriteIntent { .. }, .. } => {
                            Done::IntentWritten { committed: None, evidence: true }
                        }
                        Action::Pod { action: PodAction::InspectEngine, .. } => {
                            Done::Inspected { state_bytes, busy: false, doubt: None }
                        }
                        Action::Pod { action: PodAction::Commit { partial, .. }, .. } => {
                            if let Some(whole) = pod.and_then(|pod| self.whole.get_mut(pod)) {
                                *whole = !partial;
                            }
                            Done::Committed { generation: "g".into(), bytes: state_bytes }
                        }
                        Action::Pod { action: PodAction::Reprioritise { rank, .. }, .. } => {
                            self.settle();
                            let of_pod = self.transfers.iter().find(|(_, (of, _))| Some(*of) == pod);
                            if let Some((key, left)) = of_pod.map(|(key, left)| (*key, *left)) {
                                self.transfers.remove(&key);
                                self.transfers.insert((*rank, key.1), left);
                            }
                            Done::Nothing
                        }
                        Action::Cancel { effect } => {
                            self.forget(effect.0);
                            Done::Nothing
                        }
                        _ => Done::Nothing,
                    };
                    self.answer(effect.id.0, Outcome::Done(done));
                }
            }
        }
    }

    fn answer(&mut self, id: u64, outcome: Outcome) {
        if self.open.remove(&id).is_some() {
            self.hear(Event::Answered { id: EffectId(id), outcome });
        }
    }

    fn forget(&mut self, id: u64) {
        self.flushes.remove(&id);
        self.transfers.retain(|(_, effect), _| *effect != id);
    }

    fn flushed(&mut self, id: u64) {
        self.flushes.remove(&id);
        let pod = self.open.get(&id).and_then(|open| self.pod(&open.action));
        let bytes = pod.and_then(|pod| self.draw.pods.get(pod)).map_or(0, |pod| pod.bytes);
        self.answer(id, Outcome::Done(Done::Flushed { bytes, evidence: true }));
    }

    fn link_is_free_at(&self) -> Option<Moment> {
        let (_, left) = self.transfers.first_key_value()?.1;
        let ms = left.div_ceil(u128::from(self.draw.link));
        Some(self.settled.max(self.now) + Span::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)))
    }

    fn settle(&mut self) {
        let mut moved = u128::from(self.now.since(self.settled).as_millis()) * u128::from(self.draw.link);
        self.settled = self.now.max(self.settled);
        for (_, left) in self.transfers.values_mut() {
            let own = moved.min(*left);
            *left -= own;
            moved -= own;
        }
    }

    fn sent(&mut self) {
        let Some((&key, &(pod, _))) = self.transfers.first_key_value() else { return };
        self.transfers.remove(&key);
        let bytes = self.draw.pods.get(pod).map_or(0, |pod| pod.bytes);
        self.answer(key.1, Outcome::Done(Done::Saved { bytes, sent: bytes, left_out: None, newest: None }));
    }
}
