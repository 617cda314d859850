//! What must always hold (docs/guarantees.md), checked after every event: by `guarantees` over the trace, and here by the world
//! as it is. Only what no trace can show is here: what others put on the node, what is really in the bucket, and what
//! a pod's hold file says after a write that had no answer.

use crate::cluster::Cluster;
use crate::store::Store;
use evacuation::effect::{Action, Effect, FlushKind, Hold, NodeAction, PodAction};
use evacuation::event::{Done, Event, Outcome};
use evacuation::moment::Moment;
use evacuation::policy::Policy;
use evacuation::report::StateOutcome;
use std::collections::{BTreeMap, BTreeSet};
use trace::Step;
use trace::guarantees::Checker;

/// The checks of one run.
#[derive(Debug)]
pub struct Checks {
    checker: Checker,
    taken: usize,
    pub violations: Vec<String>,
    /// When each pod was evicted and committed, for comparisons between runs.
    pub moments: BTreeMap<(String, &'static str), u64>,
    /// Effects that nobody waits for any more.
    cancelled: BTreeSet<u64>,
    /// Since when the save of a pod is over, in this life.
    over: BTreeMap<String, u64>,
    /// The newest hold of each pod that was asked for in this life, and whether it is on its way.
    asked: BTreeMap<String, (Hold, bool)>,
}

impl Checks {
    pub fn new(policy: Policy) -> Self {
        Self {
            checker: Checker::new(policy),
            taken: 0,
            violations: Vec::new(),
            moments: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            over: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    /// A new life: it knows nothing, and ids begin anew.
    pub fn start(&mut self) {
        self.cancelled.clear();
        self.over.clear();
        self.asked.clear();
    }

    /// The first answer to an effect, before the machine gets it.
    pub fn answered(&mut self, now: Moment, effect: &Effect, outcome: &Outcome) {
        let Some(uid) = effect.action.pod().map(|uid| uid.0.clone()) else { return };
        if self.cancelled.contains(&effect.id.0) {
            return;
        }
        let now = now.as_millis();
        match (&effect.action, outcome) {
            (
                Action::Pod { action: PodAction::Commit { kind: FlushKind::Final, .. }, .. },
                Outcome::Done(_),
            ) => {
                self.moments.insert((uid.clone(), "commit"), now);
                self.over.insert(uid, now);
            }
            (
                Action::Pod { action: PodAction::WriteIntent { .. }, .. },
                Outcome::Done(Done::IntentWritten { committed: Some(_), .. }),
            ) => {
                self.over.insert(uid, now);
            }
            (
                Action::Pod { action: PodAction::Evict { .. } | PodAction::DeletePod { .. }, .. },
                Outcome::Done(_),
            ) => {
                self.moments.entry((uid, "evict")).or_insert(now);
            }
            (Action::Pod { action: PodAction::SetHold { .. }, .. }, _) => {
                self.asked.entry(uid).and_modify(|(_, on_its_way)| *on_its_way = false);
            }
            _ => {}
        }
    }

    /// One event, what the machine asked for in answer, and when it wants to be woken.
    pub fn step(&mut self, step: &Step, wakeup: Option<Moment>, cluster: &Cluster, store: &Store) {
        self.checker.step(step, wakeup);
        let now = step.at.as_millis();
        for effect in &step.effects {
            match &effect.action {
                Action::Cancel { effect } => _ = self.cancelled.insert(effect.0),
                // It departs anew, or serves again.
                Action::Pod { uid: pod, action: PodAction::WriteIntent { .. } | PodAction::Resume } => {
                    _ = self.over.remove(&pod.0)
                }
                Action::Pod { uid: pod, action: PodAction::SetHold { hold } } => {
                    _ = self.asked.insert(pod.0.clone(), (*hold, true))
                }
                Action::Node(NodeAction::WriteReport(report)) => {
                    for pod in &report.pods {
                        let claims = matches!(
                            pod.state,
                            StateOutcome::Saved
                                | StateOutcome::Partial
                                | StateOutcome::SavedWithoutEvidence
                                | StateOutcome::Earlier
                        );
                        let generation = pod.generation.as_deref().unwrap_or_default();
                        if claims && !store.holds(&pod.uid, generation) {
                            self.violations.push(format!(
                                "the report at {now} names a generation of {} that is not in the bucket",
                                pod.uid
                            ));
                        }
                    }
                }
                _ => {}
            }
        }
        if matches!(step.event, Event::TimerFired) {
            self.really_released(now, cluster);
        }
        self.take();
    }

    /// What was found in the trace.
    fn take(&mut self) {
        let found = self.checker.violations();
        self.violations.extend(found.iter().skip(self.taken).map(ToString::to_string));
        self.taken = found.len();
    }

    /// A pod that is evicted and committed is released, whatever became of the writes of its hold.
    fn really_released(&mut self, now: u64, cluster: &Cluster) {
        for (uid, over) in &self.over {
            let Some(pod) = cluster.pods.get(uid) else { continue };
            let held = pod.hold > now && pod.facts.terminating.is_some();
            let tries = self.asked.get(uid).is_some_and(|(hold, trying)| *trying || *hold == Hold::Released);
            if now > over + 2_500 && held && !tries {
                self.violations.push(format!("{uid} is really held at {now}, its save is over since {over}"));
            }
        }
    }

    /// The end of a run.
    pub fn finish(&mut self, now: Moment, cluster: &Cluster, alive: bool) {
        if alive {
            self.checker.finish(now);
        }
        if cluster.other_taints == 0 {
            self.violations.push("another's taint is gone".into());
        }
        self.take();
    }
}
