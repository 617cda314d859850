//! What an effect does when it reaches the API server, the store, the engine or the pod's volume.

use super::actor::Budget;
use super::link::Transfer;
use super::world::{Act, CUT, Happening, STORE, WATCH, World};
use evacuation::effect::{Action, Effect, EffectId, FlushKind, NodeAction, PodAction, RestoreAction};
use evacuation::event::{Done, Event, FailureKind, Outcome};
use evacuation::moment::Span;
use evacuation::pod::PodUid;

impl World {
    /// The effect does what it does, and is answered, except for a save.
    pub fn reach(&mut self, effect: &Effect) {
        let name = effect.action.pod().map_or("", |PodUid(uid)| uid.as_str()).to_owned();
        let gone = effect.action.pod().is_some() && self.actors.get(&name).is_none_or(|actor| actor.gone);
        let outcome = match &effect.action {
            Action::Node(NodeAction::MarkNode(active_notice)) => {
                self.node.active_notice = Some(active_notice.clone());
                self.node.tainted = true;
                self.node.unschedulable |= active_notice.hard;
                self.watch(Event::NodeUpdated(self.node.clone()));
                Done::Nothing
            }
            Action::Node(NodeAction::ClearNodeMark { uncordon, .. }) => {
                self.node.active_notice = None;
                self.node.tainted = false;
                self.node.unschedulable &= !uncordon;
                self.watch(Event::NodeUpdated(self.node.clone()));
                Done::Nothing
            }
            Action::Pod { action: PodAction::Save { rank, .. }, .. } => {
                return self.save(effect, &name, *rank);
            }
            Action::Pod { action: PodAction::Reprioritise { rank, .. }, .. } => {
                self.link.settle(self.now);
                let open = self.saves.iter().find(|(_, (of, _))| *of == name).map(|(id, _)| *id);
                let life = self.life();
                open.into_iter().for_each(|id| self.link.move_to(life, id, *rank));
                self.plan_link();
                Done::Nothing
            }
            Action::Pod { action: PodAction::Commit { kind, .. }, .. } => {
                return self.commit(effect.id, &name, *kind);
            }
            Action::Pod { action: PodAction::WriteIntent { departure, .. }, .. } => {
                let actor = self.actors.get_mut(&name);
                let committed = actor.and_then(|actor| {
                    actor.departure.clone_from(departure);
                    let kept = actor.kept.as_ref() == Some(departure);
                    kept.then(|| (format!("{name}/1-{}", actor.generations), actor.ready))
                });
                Done::IntentWritten { committed, evidence: true }
            }
            Action::Pod {
                action:
                    PodAction::Evict { .. }
                    | PodAction::DeletePod { .. }
                    | PodAction::InspectEngine
                    | PodAction::Flush { .. },
                ..
            } if gone => {
                let why = "there is no such pod".to_owned();
                let outcome = Outcome::Failed { kind: FailureKind::NotFound, why };
                return self.answer(self.life(), effect.id, outcome);
            }
            Action::Pod { action: PodAction::Evict { grace, .. }, .. } => {
                if let Some(why) = self.refusal(&name) {
                    let outcome = Outcome::Failed { kind: FailureKind::Refused, why };
                    return self.answer(self.life(), effect.id, outcome);
                }
                self.terminate(&name, *grace);
                Done::Nothing
            }
            Action::Pod { action: PodAction::DeletePod { grace, .. }, .. } => {
                self.terminate(&name, *grace);
                Done::Nothing
            }
            Action::Pod { action: PodAction::SetHold { hold, .. }, .. } => {
                self.actors.get_mut(&name).into_iter().for_each(|actor| actor.set_hold(*hold));
                self.plan_end(&name);
                Done::Nothing
            }
            Action::Pod { action: PodAction::InspectEngine, .. } => {
                let actor = self.actors.get(&name);
                Done::Inspected {
                    state_bytes: actor.map_or(0, |actor| actor.state),
                    busy: actor.is_some_and(|actor| self.now < actor.busy_until),
                    doubt: None,
                }
            }
            Action::Pod { action: PodAction::Flush { .. }, .. } => {
                let now = self.now;
                Done::Flushed {
                    bytes: self.actors.get_mut(&name).map_or(0, |actor| actor.flush(now)),
                    evidence: true,
                }
            }
            Action::Restore { action: RestoreAction::FindLineage, .. } => {
                Done::Lineages { candidates: Vec::new(), worth_waiting_for: None }
            }
            _ => Done::Nothing,
        };
        self.answer(self.life(), effect.id, Outcome::Done(outcome));
    }

    fn refusal(&self, pod: &str) -> Option<String> {
        match self.actors.get(pod)?.budget {
            Budget::RefusesUntil(until) if self.now < until => {
                Some("the disruption budget web needs 2 healthy pods and has 2".to_owned())
            }
            Budget::Two => Some("more than one disruption budget selects this pod".to_owned()),
            Budget::Allows | Budget::RefusesUntil(_) => None,
        }
    }

    pub fn terminate(&mut self, pod: &str, grace: Span) {
        let ends = self.moment() + grace;
        let Some(actor) = self.actors.get_mut(pod) else { return };
        if actor.facts.terminating.is_none() {
            actor.facts.terminating = Some(ends);
            actor.terminating_at = self.now;
            actor.plan += 1;
            let facts = actor.facts.clone();
            self.watch(Event::PodUpdated(Box::new(facts)));
            self.plan_end(pod);
        }
    }

    fn plan_end(&mut self, pod: &str) {
        let Some(actor) = self.actors.get(pod) else { return };
        if let Some(at) = actor.ends(self.now, self.boot) {
            let plan = actor.plan;
            self.at(at, Happening::Ends(pod.to_owned(), plan));
        }
    }

    pub fn watch(&mut self, event: Event) {
        self.later(WATCH, Happening::Tell(self.life(), Box::new(event)));
    }

    fn save(&mut self, effect: &Effect, pod: &str, rank: u64) {
        let Some(actor) = self.actors.get(pod) else { return };
        let send = actor.flushed.saturating_sub(actor.stored);
        self.saves.insert(effect.id.0, (pod.to_owned(), send));
        self.link.settle(self.now);
        self.link.add(Transfer { life: self.life(), id: effect.id.0, rank, left: send });
        let cut = (self.boot + effect.deadline.as_millis()).saturating_sub(CUT);
        self.at(cut, Happening::Cut(self.life(), effect.id.0));
        self.link_moved();
    }

    /// Ends a save that is not complete: the bytes in whole files, and what was sent.
    pub fn end_save(&mut self, id: u64) -> Option<(String, u64, u64)> {
        let (pod, send) = self.saves.remove(&id)?;
        self.link.settle(self.now);
        let sent = send - self.link.remove(self.life(), id).unwrap_or(0);
        self.plan_link();
        let ready = self.actors.get_mut(&pod).map_or(0, |actor| {
            actor.stored += sent;
            // A file is 64 MiB.
            actor.ready = if actor.stored >= actor.flushed { actor.stored } else { actor.stored >> 26 << 26 };
            actor.ready
        });
        Some((pod, ready, sent))
    }

    pub fn link_moved(&mut self) {
        self.link.settle(self.now);
        for Transfer { id, .. } in self.link.complete() {
            let Some((_, bytes, sent)) = self.end_save(id) else { return };
            self.answer_save(EffectId(id), bytes, sent, None);
            self.later(500, Happening::Act(Act::Measure));
        }
        self.plan_link();
    }

    fn plan_link(&mut self) {
        if let Some(at) = self.link.next(self.now) {
            let version = self.link.version;
            self.at(at, Happening::Link(version));
        }
    }

    pub fn answer_save(&mut self, id: EffectId, bytes: u64, sent: u64, left_out: Option<String>) {
        let outcome = Outcome::Done(Done::Saved { bytes, sent, left_out, newest: None });
        self.later(STORE, Happening::Answer(self.life(), id, outcome));
    }

    fn commit(&mut self, id: EffectId, pod: &str, kind: FlushKind) {
        let Some(actor) = self.actors.get_mut(pod) else { return };
        actor.generations += 1;
        if kind == FlushKind::Final {
            actor.kept = Some(actor.departure.clone());
        }
        let generation = format!("{pod}/1-{}", actor.generations);
        let done = Done::Committed { generation, bytes: actor.ready };
        self.answer(self.life(), id, Outcome::Done(done));
    }
}
