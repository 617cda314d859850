//! The API server and the kubelets' part of it: the node, its pods, budgets, terminations.
//!
//! A termination that has begun cannot be shortened. A pod that waits for its hold ends within
//! 1.2 s after the hold's time has passed, or at the end of its grace.

use crate::restores::failed;
use crate::scenario::Actor;
use evacuation::effect::Hold;
use evacuation::event::{Done, FailureKind, NodeFacts, Outcome};
use evacuation::moment::{Moment, Span};
use evacuation::notice::ActiveNotice;
use evacuation::pod::PodFacts;
use std::collections::BTreeMap;

/// One pod as it is, whatever anybody has seen of it.
#[derive(Clone, Debug)]
pub struct Pod {
    pub facts: PodFacts,
    pub sigterm: u64,
    /// The hold file: a moment on the boot clock, 0 where it is released or missing.
    pub hold: u64,
    pub state: u64,
    pub busy_until: u64,
    pub quiesced: bool,
    pub flush_rate: u64,
    /// The budget it shares with others.
    pub budget: Option<usize>,
    /// Bytes that its last flush wrote.
    pub flushed: u64,
    /// Of these, what is still in its volume after a restart, and whether the restarted engine is to get it.
    pub kept: u64,
    pub recalled: bool,
    /// Grows with every restart of its engine.
    pub engine_start: u32,
    /// Grows with every change to when it ends.
    pub plan: u32,
    terminating_at: u64,
}

/// The cluster, as far as it is this node.
#[derive(Debug)]
pub struct Cluster {
    pub node: NodeFacts,
    /// Taints of others: ours come and go, these stay.
    pub other_taints: u32,
    pub pods: BTreeMap<String, Pod>,
}

impl Cluster {
    pub fn new(schedulable: bool) -> Self {
        Self {
            node: NodeFacts {
                name: "node-a".into(),
                unschedulable: !schedulable,
                tainted: false,
                active_notice: None,
                over: Vec::new(),
            },
            other_taints: 1,
            pods: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, actor: &Actor, now: u64, started: u64) {
        let pod = Pod {
            facts: actor.facts.clone(),
            sigterm: actor.sigterm,
            hold: 0,
            state: actor.state,
            busy_until: started + actor.busy_for,
            quiesced: false,
            flush_rate: actor.flush_rate.max(1),
            budget: actor.budget,
            flushed: 0,
            kept: 0,
            recalled: false,
            engine_start: 0,
            plan: 0,
            terminating_at: now,
        };
        self.pods.insert(actor.facts.uid.0.clone(), pod);
    }

    pub fn mark(&mut self, active_notice: &ActiveNotice) -> Outcome {
        self.node.unschedulable |= active_notice.hard;
        self.node.tainted = true;
        self.node.active_notice = Some(active_notice.clone());
        Outcome::Done(Done::Nothing)
    }

    pub fn unmark(&mut self, uncordon: bool, over: &[String]) -> Outcome {
        over.clone_into(&mut self.node.over);
        self.node.tainted = false;
        self.node.active_notice = None;
        self.node.unschedulable &= !uncordon;
        Outcome::Done(Done::Nothing)
    }

    /// Begins the termination of a pod, by whomever.
    pub fn terminate(&mut self, uid: &str, grace: Span, now: u64, boot_at: u64) -> Outcome {
        let Some(pod) = self.pods.get_mut(uid) else {
            return failed(FailureKind::NotFound, "no such pod");
        };
        if pod.facts.terminating.is_none() {
            pod.facts.terminating = Some(Moment::from_millis(now - boot_at) + grace);
            pod.terminating_at = now;
            pod.plan += 1;
        }
        Outcome::Done(Done::Nothing)
    }

    pub fn set_hold(&mut self, uid: &str, hold: Hold) -> Outcome {
        let Some(pod) = self.pods.get_mut(uid) else {
            return failed(FailureKind::NotFound, "no such pod");
        };
        pod.hold = match hold {
            Hold::Until(moment) => moment.as_millis(),
            Hold::Released => 0,
        };
        pod.plan += 1;
        Outcome::Done(Done::Nothing)
    }

    /// When a terminating pod ends, as things are; `wait` is what its preStop takes to notice.
    pub fn ends(&self, uid: &str, now: u64, boot_at: u64, wait: u64) -> Option<(u64, u32)> {
        let pod = self.pods.get(uid)?;
        let last = pod.facts.terminating?.as_millis() + boot_at;
        let waits = pod.facts.running && pod.facts.engine.as_ref().is_some_and(|engine| engine.holds);
        let ends = if waits {
            (pod.hold + boot_at).max(now) + wait
        } else {
            (pod.terminating_at + pod.sigterm).max(now)
        };
        Some((ends.min(last).max(now), pod.plan))
    }
}
