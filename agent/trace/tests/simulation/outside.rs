//! What an effect does when it reaches the API server, the store, the engine or the pod's volume.

use crate::restores::{Past, Restores, failed};
use crate::scenario::pick;
use crate::world::{Happening, World};
use evacuation::effect::{Action, Effect, FlushKind, NodeAction, PodAction, RestoreAction};
use evacuation::event::{Done, Event, FailureKind, Outcome, Verification};
use evacuation::moment::Span;
use evacuation::pod::PodUid;
use std::collections::BTreeSet;

/// How often a fetch tells that bytes come, ms.
const BYTES_TOLD: u64 = 1_500;

/// Which of the three an action speaks to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Api,
    Store,
    Engine,
    Local,
}

const fn side(action: &Action) -> Side {
    match action {
        Action::Node(NodeAction::MarkNode(_) | NodeAction::ClearNodeMark { .. })
        | Action::Pod {
            action: PodAction::Evict { .. } | PodAction::MarkDisrupted | PodAction::DeletePod { .. },
            ..
        }
        | Action::Node(NodeAction::Publish(_))
        | Action::Pod { action: PodAction::Publish(_), .. }
        | Action::Restore { action: RestoreAction::OpenGate { .. }, .. } => Side::Api,
        Action::Pod {
            action:
                PodAction::WriteIntent { .. }
                | PodAction::AbandonIntent { .. }
                | PodAction::Save { .. }
                | PodAction::Commit { .. },
            ..
        }
        | Action::Node(NodeAction::WriteReport(_))
        | Action::Restore {
            action:
                RestoreAction::FindLineage
                | RestoreAction::Claim { .. }
                | RestoreAction::RenewClaim { .. }
                | RestoreAction::Prefetch { .. }
                | RestoreAction::Fetch { .. }
                | RestoreAction::FinishClaim { .. }
                | RestoreAction::GiveBackClaim { .. }
                | RestoreAction::RecordVerdict { .. },
            ..
        } => Side::Store,
        Action::Pod {
            action:
                PodAction::InspectEngine
                | PodAction::Quiesce
                | PodAction::Resume
                | PodAction::ProbeEngine
                | PodAction::Flush { .. },
            ..
        }
        | Action::Restore {
            action: RestoreAction::CheckFingerprint | RestoreAction::ImportState | RestoreAction::Verify,
            ..
        } => Side::Engine,
        Action::Pod { action: PodAction::SetHold { .. } | PodAction::Reprioritise { .. }, .. }
        | Action::Restore { action: RestoreAction::ReloadLocal, .. }
        | Action::Cancel { .. }
        | Action::Anomaly { .. } => Side::Local,
    }
}

impl World<'_> {
    /// An effect's request arrives. That of a dead agent may have been on its way already.
    pub fn reach(&mut self, life: u32, effect: Effect) {
        // What it does on its own node ends with it.
        let local = side(&effect.action) == Side::Local;
        if !self.is_open(life, effect.id)
            && (life == self.life || local || !self.dice.percent("accepted", 50))
        {
            return;
        }
        if let Some(outcome) = self.stumble(&effect) {
            return self.reply(life, &effect, outcome, 1);
        }
        let lost = match side(&effect.action) {
            Side::Api => self.strikes("api-lost", "").is_some(),
            Side::Store => self.strikes("store-lost", "").is_some(),
            Side::Engine | Side::Local => false,
        };
        let Some((after, outcome)) = self.act(life, &effect) else { return };
        if lost {
            let kind = FailureKind::Transient;
            return self.reply(life, &effect, Some(failed(kind, "the connection was reset")), after);
        }
        let panics = effect.action.name() != "cancel" && self.strikes("task-panics", "").is_some();
        self.reply(life, &effect, Some(if panics { Outcome::Panicked } else { outcome }), after);
    }

    pub fn reply(&mut self, life: u32, effect: &Effect, outcome: Option<Outcome>, after: u64) {
        let Some(outcome) = outcome else { return };
        let deadline = effect.deadline.as_millis() + self.boot_at;
        if self.now + after < deadline && self.strikes("answer-late", "").is_some() {
            let at = deadline + self.dice.of("late").u64(50..500);
            return self.at(at, Happening::Answer(life, effect.id, outcome));
        }
        self.later(after, Happening::Answer(life, effect.id, outcome));
    }

    /// Some of what an engine holds may not be written: an image, a conversation that goes on.
    fn leaves_out(&mut self, pod: &str, bytes: u64, action: &Action) -> (u64, Option<String>) {
        if bytes == 0 || !self.dice.percent(&format!("{pod}/leaves-out"), 8) {
            return (bytes, None);
        }
        let last = matches!(action, Action::Pod { action: PodAction::Flush { kind: FlushKind::Final }, .. });
        self.coverage.flushed_in_part(last);
        let part = u128::from(bytes) * u128::from(self.dice.of("leaves-out").u8(1..100)) / 100;
        (u64::try_from(part).unwrap_or(bytes).max(1), Some("slot-1".to_owned()))
    }

    /// What an engine says of this many bytes.
    fn claims(&mut self, pod: &str, bytes: u64) -> u64 {
        if self.strikes("engine-boasts", pod).is_some() {
            return pick(self.dice.of("boasts"), &[bytes.saturating_mul(10), 1 << 50, u64::MAX]);
        }
        if self.strikes("engine-denies", pod).is_some() { 0 } else { bytes }
    }

    /// A budget refuses this eviction.
    fn refuses(&mut self, pod: &str) -> Option<Outcome> {
        let refusal = |why| Some(failed(FailureKind::Refused, why));
        if self.strikes("pdb-two", pod).is_some() {
            return refusal("500: this pod has more than one PodDisruptionBudget");
        }
        let group = self.cluster.pods.get(pod).and_then(|pod| pod.budget);
        if self.strikes("pdb-stuck", pod).is_some() || !self.budgets.take(group) {
            return refusal("429: its PodDisruptionBudget");
        }
        None
    }

    /// A fault answers in place of what was asked: `Some(None)` is no answer at all.
    fn stumble(&mut self, effect: &Effect) -> Option<Option<Outcome>> {
        let pod = effect.action.pod().map_or("", |PodUid(uid)| uid.as_str()).to_owned();
        let fail = |kind, why: &str| Some(Some(failed(kind, why)));
        match side(&effect.action) {
            Side::Api => {
                if self.strikes("api-stall", "").is_some() {
                    return Some(None);
                }
                if self.strikes("api-429", "").is_some() {
                    return fail(FailureKind::Throttled, "429");
                }
                if self.strikes("api-503", "").is_some() {
                    return fail(FailureKind::Transient, "503");
                }
                if matches!(effect.action, Action::Node(NodeAction::MarkNode(_))) {
                    if self.strikes("api-forbidden", "").is_some() {
                        return fail(FailureKind::Permanent, "403");
                    }
                    if self.strikes("api-conflict", "").is_some() {
                        self.cluster.other_taints += 1;
                        return fail(FailureKind::Transient, "409");
                    }
                }
            }
            Side::Store => {
                let looks =
                    matches!(effect.action, Action::Restore { action: RestoreAction::FindLineage, .. });
                let met = |met: &mut BTreeSet<_>, how| _ = looks && met.insert(how);
                if self.strikes("store-gone", "").is_some() {
                    met(&mut self.met, "hangs");
                    return Some(None);
                }
                if self.strikes("store-refuses", "").is_some() {
                    met(&mut self.met, "refuses");
                    return fail(FailureKind::Unreachable, "connection refused");
                }
                if self.strikes("store-503", "").is_some() {
                    met(&mut self.met, "throttles");
                    return fail(FailureKind::Throttled, "503 SlowDown");
                }
                if let Some(slow) = self.strikes("store-slow", "") {
                    let until = slow.until.map_or(u64::MAX, |ms| self.notice_at().saturating_add_signed(ms));
                    self.link.settle(self.now);
                    self.link.cap((slow.rate / 1000).max(1), until);
                    self.schedule_link();
                }
            }
            Side::Engine => {
                if self.strikes("engine-hang", &pod).is_some() {
                    return Some(None);
                }
                if self.strikes("engine-html", &pod).is_some() {
                    return fail(FailureKind::Permanent, "a web page");
                }
                let there = self.cluster.pods.get(&pod).is_some_and(|pod| pod.facts.running);
                if !there {
                    return fail(FailureKind::NotFound, "connection refused");
                }
            }
            Side::Local => {
                if matches!(effect.action, Action::Pod { action: PodAction::SetHold { .. }, .. })
                    && self.strikes("hold-fails", &pod).is_some()
                {
                    return fail(FailureKind::Permanent, "read-only file system");
                }
            }
        }
        None
    }

    /// What it does, and after how long it answers.
    fn act(&mut self, life: u32, effect: &Effect) -> Option<(u64, Outcome)> {
        let nothing = Outcome::Done(Done::Nothing);
        let pod = effect.action.pod().map_or("", |PodUid(uid)| uid.as_str()).to_owned();
        let at_once = |outcome| Some((1, outcome));
        match &effect.action {
            Action::Node(NodeAction::MarkNode(active_notice)) => {
                let outcome = self.cluster.mark(active_notice);
                self.watch_node();
                at_once(outcome)
            }
            Action::Node(NodeAction::ClearNodeMark { uncordon, over }) => {
                let outcome = self.cluster.unmark(*uncordon, over);
                self.watch_node();
                at_once(outcome)
            }
            Action::Pod { action: PodAction::Evict { grace, .. }, .. } => {
                let terminating =
                    self.cluster.pods.get(&pod).is_none_or(|pod| pod.facts.terminating.is_some());
                if !terminating && let Some(refusal) = self.refuses(&pod) {
                    return at_once(refusal);
                }
                at_once(self.terminate(&pod, *grace))
            }
            Action::Pod { action: PodAction::DeletePod { grace, .. }, .. } => {
                at_once(self.terminate(&pod, *grace))
            }
            Action::Pod { action: PodAction::SetHold { hold, .. }, .. } => {
                let outcome = self.cluster.set_hold(&pod, *hold);
                self.schedule_end(&pod);
                at_once(outcome)
            }
            Action::Pod { action: PodAction::WriteIntent { departure, .. }, .. } => {
                at_once(self.store.intend(life, &pod, departure))
            }
            Action::Pod { action: PodAction::InspectEngine, .. } => {
                let engine = self.cluster.pods.get(&pod)?;
                let (state, busy) = (engine.state, self.now < engine.busy_until && !engine.quiesced);
                let busy = busy | self.strikes("engine-busy", &pod).is_some();
                let state_bytes = self.claims(&pod, state);
                let actor = self.scenario.actors.iter().find(|actor| actor.facts.uid.0 == pod);
                let doubt = actor.is_some_and(|actor| actor.doubted).then(|| "it was not used".to_owned());
                at_once(Outcome::Done(Done::Inspected { state_bytes, busy, doubt }))
            }
            Action::Pod { action: PodAction::Quiesce | PodAction::Resume, .. } => {
                let quiesced = matches!(effect.action, Action::Pod { action: PodAction::Quiesce, .. });
                self.cluster.pods.get_mut(&pod)?.quiesced = quiesced;
                at_once(nothing)
            }
            Action::Pod { action: PodAction::ProbeEngine, .. } => {
                match self.dice.of(&format!("{pod}/probe")).u8(..4) {
                    0 => None,
                    1 => at_once(failed(FailureKind::Throttled, "every slot is busy")),
                    _ => Some((700, Outcome::Done(Done::Probed))),
                }
            }
            Action::Pod { action: PodAction::Flush { .. }, .. } => {
                let engine = self.cluster.pods.get(&pod)?;
                let takes = 20 + engine.state / engine.flush_rate;
                let start = engine.engine_start;
                self.later(takes, Happening::Flushed(life, Box::new(effect.clone()), start));
                None
            }
            Action::Pod { action: PodAction::Save { rank, .. }, .. } => {
                self.save(life, effect, &pod, *rank);
                None
            }
            Action::Pod { action: PodAction::Reprioritise { rank, .. }, .. } => {
                self.link.settle(self.now);
                let of_pod = self.saving.iter().find(|((of, _), (saved, ..))| *of == life && *saved == pod);
                if let Some((&(_, id), _)) = of_pod {
                    self.link.move_to(life, id, *rank);
                }
                self.schedule_link();
                at_once(nothing)
            }
            Action::Pod { action: PodAction::Commit { kind, without_endangered, .. }, .. } => {
                if !without_endangered && self.strikes("store-endangered", "").is_some() {
                    return at_once(failed(FailureKind::Endangered, "2 packs are being removed as garbage"));
                }
                at_once(self.store.commit(life, &pod, *kind == FlushKind::Final))
            }
            Action::Node(NodeAction::WriteReport(_))
            | Action::Pod { action: PodAction::AbandonIntent { .. } | PodAction::MarkDisrupted, .. }
            | Action::Node(NodeAction::Publish(_))
            | Action::Pod { action: PodAction::Publish(_), .. }
            | Action::Cancel { .. }
            | Action::Anomaly { .. } => at_once(nothing),
            Action::Restore { action: RestoreAction::OpenGate { .. }, .. } => {
                let Some(seen) = self.cluster.pods.get_mut(&pod) else {
                    return at_once(failed(FailureKind::NotFound, "no such pod"));
                };
                seen.facts.restore_decided = true;
                self.show_pod(&pod, 30);
                at_once(nothing)
            }
            Action::Restore {
                action:
                    RestoreAction::FindLineage
                    | RestoreAction::Claim { .. }
                    | RestoreAction::RenewClaim { .. }
                    | RestoreAction::Prefetch { .. }
                    | RestoreAction::Fetch { .. }
                    | RestoreAction::CheckFingerprint
                    | RestoreAction::ImportState
                    | RestoreAction::Verify
                    | RestoreAction::FinishClaim { .. }
                    | RestoreAction::GiveBackClaim { .. }
                    | RestoreAction::RecordVerdict { .. },
                ..
            } => {
                if matches!(effect.action, Action::Restore { action: RestoreAction::Fetch { .. }, .. }) {
                    self.bytes_come(life, effect, &pod);
                }
                self.restore(&effect.action, &pod)
            }
            Action::Restore { action: RestoreAction::ReloadLocal, .. } => {
                let Some(engine) = self.cluster.pods.get_mut(&pod) else {
                    return at_once(failed(FailureKind::NotFound, "no such pod"));
                };
                engine.recalled = engine.kept > 0;
                at_once(match engine.kept {
                    0 => failed(FailureKind::NotFound, "nothing was flushed"),
                    bytes => Outcome::Done(Done::Fetched { bytes }),
                })
            }
        }
    }

    /// While it fetches the core is told that bytes come, up to the moment at which they stop.
    fn bytes_come(&mut self, life: u32, effect: &Effect, pod: &str) {
        let Some(actor) = self.scenario.actors.iter().find(|actor| actor.facts.uid.0 == pod) else { return };
        let mut at = BYTES_TOLD;
        while at < actor.past.fetch_takes {
            let event = Box::new(Event::BytesCame { id: effect.id });
            self.later(at, Happening::Deliver(life, event));
            at += BYTES_TOLD;
        }
    }

    fn restore(&mut self, action: &Action, pod: &str) -> Option<(u64, Outcome)> {
        let scenario = self.scenario;
        let actor = scenario.actors.iter().find(|actor| actor.facts.uid.0 == pod)?;
        let past: &Past = &actor.past;
        let now = self.now;
        let torn = matches!(action, Action::Restore { action: RestoreAction::Fetch { .. }, .. })
            && self.strikes("store-torn", "").is_some();
        let other_weights = matches!(action, Action::Restore { action: RestoreAction::CheckFingerprint, .. })
            && self.strikes("engine-other-weights", pod).is_some();
        match action {
            Action::Restore { action: RestoreAction::FindLineage, .. } => {
                Some((1, self.restores.find(pod, past, now)))
            }
            Action::Restore { action: RestoreAction::Claim { lineage, .. }, .. } => {
                Some((1, self.restores.claim(pod, lineage, past)))
            }
            Action::Restore { action: RestoreAction::RenewClaim { lineage, .. }, .. } => {
                Some((1, self.restores.renew(pod, lineage, past)))
            }
            Action::Restore { action: RestoreAction::RecordVerdict { .. }, .. } => {
                Some((1, Outcome::Done(Done::Nothing)))
            }
            Action::Restore { action: RestoreAction::GiveBackClaim { lineage }, .. } => {
                Some((1, self.restores.give_back(pod, lineage, past)))
            }
            Action::Restore { action: RestoreAction::FinishClaim { lineage, .. }, .. } => {
                Some((1, self.restores.finish(pod, lineage, past)))
            }
            Action::Restore {
                action: RestoreAction::CheckFingerprint | RestoreAction::ImportState | RestoreAction::Verify,
                ..
            } if self.recalls(pod) => Some((30, self.recall(action, pod, other_weights))),
            Action::Restore {
                action: RestoreAction::Prefetch { .. } | RestoreAction::Fetch { .. }, ..
            } if torn => Some((past.fetch_takes, failed(FailureKind::Mismatch, "a torn pack"))),
            Action::Restore {
                action: RestoreAction::Prefetch { generation, .. } | RestoreAction::Fetch { generation, .. },
                ..
            } => Restores::fetch(past, generation).map(|outcome| (past.fetch_takes, outcome)),
            Action::Restore { action: RestoreAction::CheckFingerprint, .. } if other_weights => Some((
                past.starts_after + 1,
                failed(FailureKind::Mismatch, "the probe's first token differs"),
            )),
            Action::Restore { action: RestoreAction::CheckFingerprint, .. } => {
                self.restores.prove(pod, past).map(|outcome| (past.starts_after + 1, outcome))
            }
            Action::Restore { action: RestoreAction::ImportState, .. } => {
                Some((30, self.restores.hand_over(pod, past)))
            }
            Action::Restore { action: RestoreAction::Verify, .. } => {
                Restores::verify(past).map(|outcome| (30, outcome))
            }
            _ => None,
        }
    }

    fn recalls(&self, pod: &str) -> bool {
        self.cluster.pods.get(pod).is_some_and(|engine| engine.recalled)
    }

    /// A restarted engine and what is in its own volume.
    fn recall(&mut self, action: &Action, pod: &str, other_weights: bool) -> Outcome {
        let Some(engine) = self.cluster.pods.get_mut(pod) else {
            return failed(FailureKind::NotFound, "no such pod");
        };
        match action {
            Action::Restore { action: RestoreAction::CheckFingerprint, .. } if other_weights => {
                failed(FailureKind::Mismatch, "the probe's first token differs")
            }
            Action::Restore { action: RestoreAction::CheckFingerprint, .. } => {
                Outcome::Done(Done::FingerprintMatches { state_bytes: engine.state })
            }
            Action::Restore { action: RestoreAction::ImportState, .. } => {
                engine.state = engine.kept;
                Outcome::Done(Done::Tokens { count: Some(7) })
            }
            _ => Outcome::Done(Done::Verified(Verification::Used { tokens: 6 })),
        }
    }

    fn watch_node(&mut self) {
        let lag = self.dice.of("node/watch").u64(5..200);
        self.show_node(lag);
    }

    /// A pod begins to terminate, by whomever.
    pub fn terminate(&mut self, uid: &str, grace: Span) -> Outcome {
        let outcome = self.cluster.terminate(uid, grace, self.now, self.boot_at);
        let lag = self.dice.of("pods/watch").u64(1..200);
        self.show_pod(uid, lag);
        self.schedule_end(uid);
        outcome
    }

    pub fn schedule_end(&mut self, uid: &str) {
        let wait = self.dice.of(&format!("{uid}/kubelet")).u64(200..1_200);
        if let Some((at, plan)) = self.cluster.ends(uid, self.now, self.boot_at, wait) {
            self.at(at, Happening::PodEnds(uid.to_owned(), plan));
        }
    }

    pub fn pod_ends(&mut self, uid: &str, plan: u32) {
        if self.cluster.pods.get(uid).is_some_and(|pod| pod.plan == plan) {
            self.note(|| format!("{uid} ENDS"));
            self.replace(uid);
            self.cluster.pods.remove(uid);
            let lag = self.dice.of("pods/watch").u64(1..200);
            self.show_gone(uid, lag);
        }
    }

    pub fn flushed(&mut self, life: u32, effect: Effect, start: u32) {
        let pod = effect.action.pod().map_or("", |PodUid(uid)| uid.as_str());
        let is_final =
            matches!(effect.action, Action::Pod { action: PodAction::Flush { kind: FlushKind::Final }, .. });
        let outcome = match self.cluster.pods.get_mut(pod) {
            None => failed(FailureKind::NotFound, "the pod is gone"),
            Some(engine) if engine.engine_start != start => {
                failed(FailureKind::Transient, "the engine was restarted")
            }
            Some(engine) => {
                engine.flushed = engine.state;
                // An engine that is busy at every look has shown nothing of its weights.
                let evidence = !is_final || self.dice.of(&format!("{pod}/evidence")).u8(..100) >= 15;
                Outcome::Done(Done::Flushed { bytes: engine.state, evidence })
            }
        };
        let outcome = match outcome {
            Outcome::Done(Done::Flushed { bytes, evidence }) => {
                let (bytes, left_out) = self.leaves_out(pod, bytes, &effect.action);
                self.opened.insert((life, pod.to_owned()), (bytes, left_out));
                Outcome::Done(Done::Flushed { bytes: self.claims(pod, bytes), evidence })
            }
            outcome => outcome,
        };
        self.reply(life, &effect, Some(outcome), 1);
    }
}
