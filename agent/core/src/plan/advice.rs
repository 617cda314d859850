//! The one change that would help most.
//!
//! Decides it by making the plan again with each change, and comparing: the tiers that are safe first, the time to spare
//! next. It must not know how a plan is made.

use super::{Fate, Plan};
use crate::facts::{Facts, PodState};
use crate::moment::Span;
use crate::pod::{EvictWhen, Owner};
use serde::Serialize;

/// What is assumed to change between the last pre-copy and the end, where it was never measured: a quarter.
const CHANGES: u64 = 4;

/// What could be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Pods wait inside their own eviction: their save may go on until a second before the deadline.
    EvictFirst,
    /// Pods need less time to end after their save.
    ShorterGrace,
    /// Pods are copied while they serve.
    PreCopy,
    /// The state is smaller.
    SmallerState,
}

/// What would help most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The change.
    pub change: Change,
    /// The pods to change.
    pub pods: Vec<String>,
    /// What to do, and what it brings.
    pub what: String,
    /// Bytes of state that would be safe then.
    pub safe: u64,
    /// The headroom then, milliseconds.
    pub headroom: Option<i64>,
}

/// The best change; `None` where none of them would save a byte more.
pub(super) fn best(facts: &Facts, plan: &Plan) -> Option<Advice> {
    let all = [Change::EvictFirst, Change::ShorterGrace, Change::PreCopy, Change::SmallerState];
    let better = all.into_iter().filter_map(|change| {
        let (facts, pods) = tried(facts, plan, change)?;
        let then = Plan::without_advice(&facts);
        (then.value() > plan.value()).then_some((change, pods, then))
    });
    // Of two that bring the same, the one that costs less: they are listed in that order.
    let best = better.reduce(|best, other| {
        let worth = |(_, _, plan): &(Change, Vec<String>, Plan)| (plan.value(), plan.headroom);
        if worth(&other) > worth(&best) { other } else { best }
    })?;
    let (change, pods, then) = best;
    let what = words(change, plan, &then);
    Some(Advice { change, pods, what, safe: then.safe, headroom: then.headroom })
}

/// The facts with the change made wherever it can be, and where it was; `None` where it cannot be made.
pub(super) fn tried(facts: &Facts, plan: &Plan, change: Change) -> Option<(Facts, Vec<String>)> {
    let mut facts = facts.clone();
    let mut pods = Vec::new();
    let short = Span::from_secs(5);
    for state in facts.pods.iter_mut().filter(|state| state.bytes.is_some_and(|bytes| bytes > 0)) {
        let name = state.pod.display_name();
        let changed = match change {
            Change::EvictFirst => hold(state),
            Change::ShorterGrace => {
                let long = !state.pod.can_be_held()
                    && state.pod.grace > short
                    && state.pod.terminating.is_none()
                    && state.pod.stays().is_none();
                if long {
                    state.pod.grace = short;
                }
                long
            }
            Change::PreCopy => {
                let bytes = state.bytes.unwrap_or(0);
                let more = state.copied.is_none() && state.send.is_none_or(|send| send > bytes / CHANGES);
                if more {
                    (state.send, state.copied) = (Some(bytes / CHANGES), Some(bytes));
                }
                more
            }
            Change::SmallerState => smaller(state, plan, &name),
        };
        if changed && state.pod.engine.is_some() {
            pods.push(name);
        }
    }
    (!pods.is_empty()).then_some((facts, pods))
}

fn hold(state: &mut PodState) -> bool {
    let stays = state.pod.owner == Owner::Named || state.pod.stays().is_some();
    let Some(engine) = &mut state.pod.engine else { return false };
    let can = !stays && state.pod.terminating.is_none() && !(engine.holds && engine.evict != EvictWhen::Last);
    if can {
        (engine.holds, engine.evict) = (true, EvictWhen::Auto);
    }
    can
}

/// The first state at risk becomes as small as what the link has left for it.
fn smaller(state: &mut PodState, plan: &Plan, name: &str) -> bool {
    let first = plan.pods.iter().find(|pod| pod.state == Fate::AtRisk);
    let Some(pod) = first.filter(|pod| format!("{}/{}", pod.namespace, pod.name) == name) else {
        return false;
    };
    let (Some(link), Some(shortage)) = (plan.link, pod.shortage) else { return false };
    let fits = u128::from(shortage.has.as_millis()) * u128::from(link) / 1000;
    let fits = u64::try_from(fits).unwrap_or(u64::MAX);
    if fits == 0 || fits >= pod.send {
        return false;
    }
    let copied = state.bytes.unwrap_or(0).saturating_sub(pod.send);
    (state.bytes, state.send) = (Some(copied.saturating_add(fits)), Some(fits));
    true
}

fn words(change: Change, before: &Plan, then: &Plan) -> String {
    let brings = match (then.at_risk, then.headroom) {
        (0, Some(headroom)) => format!("everything would be safe, with {} s to spare", headroom / 1000),
        _ => format!("{} bytes more would be safe", then.safe.saturating_sub(before.safe)),
    };
    let what = match change {
        Change::EvictFirst => {
            "evict first: give their containers the preStop that waits for the hold (README: Opting in), so that their \
             replacements start at once and their saves may take until the end"
        }
        Change::ShorterGrace => {
            "a shorter terminationGracePeriodSeconds (5 s): that much less time is kept for them to end"
        }
        Change::PreCopy => {
            "pre-copy: set lifeboat.dev/interval, so that the last save sends only what has changed (assumed: a quarter)"
        }
        Change::SmallerState => {
            "a smaller state (fewer slots, a shorter context): no more than the link has time for"
        }
    };
    format!("{what}; {brings}")
}
