//! Guarantees 3 and 10: who goes first, and who waits for whom.

use super::{Finding, after, unless};
use crate::arguments::OrderKind;
use crate::cast::{Member, Part};
use crate::observation::Observation;
use crate::scene::Ending;
use crate::trail::Trail;
use evacuation::effect::{Action, FlushKind, NodeAction, PodAction};
use evacuation::moment::{Moment, Span};
use evacuation::report::StateOutcome;
use std::collections::BTreeSet;

/// How long a pod that is ready to go may wait for its turn.
const PATIENCE: Span = Span::from_millis(1500);

/// One departure as the journal tells it.
struct Departure<'a> {
    member: &'static Member,
    trail: &'a Trail,
    /// When nothing was left to wait for.
    ready: Option<Moment>,
    /// When its eviction was first asked for: its place in the journal, and when.
    evicted: Option<(usize, Moment)>,
}

fn departures(observation: &Observation) -> Vec<Departure<'_>> {
    let cordoned = observation.source.effects().find_map(|answered| match &answered.effect.action {
        Action::Node(NodeAction::MarkNode(active_notice)) if active_notice.is_hard() => answered.done(),
        _ => None,
    });
    let mut departures = Vec::new();
    for (member, trail) in observation.departures() {
        let first = |is: fn(&Action) -> bool| {
            observation.source.picked(&trail.uid, is).find_map(|answered| answered.answer.map(|(at, _)| at))
        };
        let own = match member.part {
            Part::HeldState => {
                first(|action| matches!(action, Action::Pod { action: PodAction::WriteIntent { .. }, .. }))
            }
            Part::NamedState => first(|action| {
                matches!(action, Action::Pod { action: PodAction::Commit { kind: FlushKind::Final, .. }, .. })
            }),
            _ => cordoned,
        };
        let evicts = |action: &Action| {
            matches!(
                action,
                Action::Pod { action: PodAction::Evict { .. } | PodAction::DeletePod { .. }, .. }
            )
        };
        let evicted = observation
            .source
            .picked(&trail.uid, evicts)
            .map(|answered| (answered.index, answered.at))
            .next();
        // A pod with state is ready when its own step is done, never before; all wait for the cordon.
        let ready = own.map(|own| own.max(cordoned.unwrap_or(own)));
        departures.push(Departure { member, trail, ready, evicted });
    }
    departures
}

/// With highest-first, a ready pod is not overtaken by a lower one that became ready later, and waits for nobody.
pub fn evictions(observation: &Observation) -> Finding {
    if let Some(not) = not_evacuated(observation) {
        return not;
    }
    let departures = departures(observation);
    let mut wrong = Vec::new();
    let steady = observation.source_lives.len() == 1 && !observation.scene.api_troubled();
    for high in departures.iter().filter(|departure| !departure.member.is_shed()) {
        for low in departures
            .iter()
            .filter(|low| !low.member.is_shed() && low.member.priority < high.member.priority)
        {
            let (Some((high_place, high_at)), Some((low_place, low_at))) = (high.evicted, low.evicted) else {
                continue;
            };
            let overtaken = match observation.scene.order {
                OrderKind::HighestFirst => {
                    high.ready.is_some_and(|ready| ready < low_at) && low_place < high_place
                }
                OrderKind::LowestFirst => {
                    low.ready.is_some_and(|ready| ready < high_at) && high_place < low_place
                }
            };
            if overtaken && steady {
                let (first, then) = match observation.scene.order {
                    OrderKind::HighestFirst => (low.member.name, high.member.name),
                    OrderKind::LowestFirst => (high.member.name, low.member.name),
                };
                wrong.push(format!("{first} was evicted before {then}, which was ready"));
            }
        }
        let waited = high.ready.zip(high.evicted).map(|(ready, (_, evicted))| evicted.since(ready));
        if waited.is_some_and(|waited| waited > PATIENCE)
            && steady
            && observation.scene.order == OrderKind::HighestFirst
        {
            wrong.push(format!(
                "{} waited {} although it was ready",
                high.member.name,
                waited.unwrap_or_default()
            ));
        }
    }
    let mut order: Vec<_> =
        departures.iter().filter_map(|one| Some((one.evicted?.0, one.member.name))).collect();
    order.sort_unstable();
    unless(wrong, || order.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", "))
}

/// The ranks under which state is sent follow the priorities. Ranks are compared within one life of the agent: one
/// that was started again ranks only what is left.
pub fn saves(observation: &Observation) -> Finding {
    let mut wrong = Vec::new();
    let mut compared = BTreeSet::new();
    for life in observation.source.by_life() {
        let ranked = observation.departures().filter_map(|(member, trail)| {
            let saves = life.of_pod(&trail.uid).filter_map(|answered| match answered.effect.action {
                Action::Pod { action: PodAction::Save { rank, kind: FlushKind::Final, .. }, .. } => {
                    Some(rank)
                }
                _ => None,
            });
            Some((member, saves.last()?))
        });
        let ranked: Vec<(&Member, u64)> = ranked.collect();
        for pair in ranked.windows(2) {
            compared.insert(format!("{} before {}", pair[0].0.name, pair[1].0.name));
            if pair[0].1 >= pair[1].1 {
                wrong.push(format!("{} was sent behind {}", pair[0].0.name, pair[1].0.name));
            }
        }
    }
    if compared.is_empty() {
        return Finding::NotApplicable("no two states were sent side by side".to_owned());
    }
    unless(wrong, || compared.into_iter().collect::<Vec<_>>().join(", "))
}

/// While web was refused, nobody who was ready waited.
pub fn budget(observation: &Observation) -> Finding {
    if let Some(not) = not_evacuated(observation) {
        return not;
    }
    let web = observation.departures().find(|(member, _)| member.name == "web").map(|(_, trail)| trail);
    let Some(web) = web else { return Finding::Broken("web was never there".to_owned()) };
    let refused: Vec<_> = observation.removals_of(&web.uid).filter(|request| request.code == 429).collect();
    let (Some(first), Some(last)) = (refused.first(), refused.last()) else {
        return if observation.scene.api_troubled() || observation.source_lives.len() > 1 {
            Finding::NotApplicable("web was not refused".to_owned())
        } else {
            Finding::Broken("web was never refused: the drill did not try this".to_owned())
        };
    };
    let steady = observation.source_lives.len() == 1 && !observation.scene.api_troubled();
    let mut wrong = Vec::new();
    for departure in departures(observation).iter().filter(|departure| departure.trail.uid != web.uid) {
        let (Some(ready), Some((_, evicted))) = (departure.ready, departure.evicted) else { continue };
        let during = ready >= first.at || evicted <= last.at;
        if steady
            && during
            && evicted.since(ready) > PATIENCE
            && observation.scene.order == OrderKind::HighestFirst
        {
            wrong.push(format!("{} waited {}", departure.member.name, evicted.since(ready)));
        }
    }
    unless(wrong, || {
        let until = after(observation, last.at);
        format!("web was refused {} times, the last time {until}", refused.len())
    })
}

/// A refused eviction is repeated at most a second later, and not in a hot loop.
pub fn retries(observation: &Observation) -> Finding {
    let mut wrong = Vec::new();
    let mut most = 0;
    for (member, trail) in observation.departures() {
        let attempts: Vec<_> =
            observation.removals_of(&trail.uid).filter(|request| request.verb == "evict").collect();
        most = most.max(attempts.len());
        let (Some(first), Some(last)) = (attempts.first(), attempts.last()) else { continue };
        // One a second in the long run; a backoff begins with shorter steps.
        let allowed = 5 + last.at.since(first.at).as_secs() as usize;
        if attempts.len() > allowed {
            wrong.push(format!(
                "{}: {} attempts in {}",
                member.name,
                attempts.len(),
                last.at.since(first.at)
            ));
        }
        for pair in attempts.windows(2) {
            let gap = pair[1].at.since(pair[0].answered);
            let disturbed = observation.scene.api_troubled() || observation.source_lives.len() > 1;
            if pair[0].code == 429 && gap > Span::from_millis(1500) && !disturbed {
                wrong.push(format!("{} was tried again only after {gap}", member.name));
            }
        }
    }
    if most == 0 {
        return Finding::NotApplicable("nothing was evicted".to_owned());
    }
    unless(wrong, || format!("{most} attempts for one pod at most"))
}

/// If silver's state is whole, gold's is, unless gold's own engine is the plan's victim.
pub fn tiers(observation: &Observation) -> Finding {
    let outcomes: Vec<(&Member, StateOutcome)> = observation
        .departures()
        .filter(|(member, _)| member.has_state())
        .filter_map(|(member, trail)| Some((member, observation.reported(&trail.uid)?.state)))
        .collect();
    if outcomes.len() < 2 {
        return Finding::NotApplicable("there is no report of two states".to_owned());
    }
    let victim = |member: &Member| {
        observation.scene.faults.iter().any(|fault| fault.object.as_deref() == Some(member.name))
    };
    let mut wrong = Vec::new();
    for pair in outcomes.windows(2) {
        let ((high, high_state), (low, low_state)) = (pair[0], pair[1]);
        if low_state == StateOutcome::Saved && high_state != StateOutcome::Saved && !victim(high) {
            wrong.push(format!("{} was saved, and {} is {high_state:?}", low.name, high.name));
        }
    }
    unless(wrong, || {
        outcomes
            .iter()
            .map(|(member, state)| format!("{} {state:?}", member.name))
            .collect::<Vec<_>>()
            .join(", ")
    })
}

fn not_evacuated(observation: &Observation) -> Option<Finding> {
    match observation.scene.ending() {
        Ending::Evacuated | Ending::Withdrawn(_) => None,
        Ending::Hibernated | Ending::Recommended => {
            Some(Finding::NotApplicable("nothing was to leave".to_owned()))
        }
    }
}
