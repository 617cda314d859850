//! Guarantees 7 and 8: agents that die, and agents that stay where they belong.

use super::{Finding, after, unless};
use crate::observation::{Observation, SOURCE, TARGET, agent_user};
use crate::play::is_ours;
use crate::recording::Recording;
use crate::scene::Ending;
use evacuation::effect::{Action, NodeAction, PodAction};
use evacuation::moment::Moment;
use fakes::apiserver::audit::Request;
use std::collections::BTreeSet;

/// A fault that never struck proves nothing.
pub fn struck(observation: &Observation) -> Finding {
    if observation.struck.is_empty() {
        return Finding::NotApplicable("nothing was to go wrong".to_owned());
    }
    let missed = observation.struck.iter().filter(|(_, struck)| !struck);
    let missed =
        missed.map(|(fault, _)| format!("{fault} never struck: it proves nothing; let it begin earlier"));
    unless(missed.collect(), || {
        observation.struck.iter().map(|(fault, _)| fault.as_str()).collect::<Vec<_>>().join(", ")
    })
}

/// All deadlines that were ever decided for the hard notice, in the journal and on the node.
pub fn one_deadline(observation: &Observation) -> Finding {
    if observation.scene.ending() == Ending::Recommended {
        return Finding::NotApplicable("a recommendation has no deadline".to_owned());
    }
    let mut decided: BTreeSet<Moment> = BTreeSet::new();
    for answered in observation.source.effects() {
        match &answered.effect.action {
            Action::Node(NodeAction::MarkNode(active_notice)) if active_notice.is_hard() => {
                decided.insert(active_notice.deadline);
            }
            Action::Node(NodeAction::WriteReport(report)) => {
                decided.insert(report.deadline);
            }
            _ => {}
        }
    }
    let annotated: BTreeSet<&str> = observation
        .marks()
        .filter(|request| request.granted() && request.body["spec"]["unschedulable"] == true)
        .filter_map(|request| request.body["metadata"]["annotations"].as_object())
        .flatten()
        .filter(|(key, _)| is_ours(key))
        .filter_map(|(_, value)| value.as_str())
        .collect();
    let mut wrong = Vec::new();
    if decided.len() > 1 {
        let all: Vec<String> = decided.iter().map(|at| after(observation, *at)).collect();
        wrong.push(format!("deadlines {}", all.join(" and ")));
    }
    if annotated.len() > 1 {
        wrong.push(format!("{} different annotations", annotated.len()));
    }
    let late = decided.iter().find(|at| **at > observation.deadline());
    let minimum = observation.scene.has("notice-late");
    if let Some(late) = late
        && !minimum
    {
        wrong.push(format!(
            "it is {}, and may be {} at most",
            after(observation, *late),
            after(observation, observation.deadline())
        ));
    }
    match decided.first() {
        None if observation.scene.ending() == Ending::Hibernated => {
            Finding::NotApplicable("nothing was decided".to_owned())
        }
        None => Finding::Broken("no deadline was ever decided".to_owned()),
        Some(at) => {
            let lives = observation.source_lives.len();
            let life = if lives == 1 { "life" } else { "lives" };
            unless(wrong, || format!("{} in {lives} {life} of the agent", after(observation, *at)))
        }
    }
}

/// What was committed before the agent died is in the store and in the report.
pub fn committed_stays(observation: &Observation) -> Finding {
    if observation.source_lives.len() < 2 {
        return Finding::NotApplicable("the agent was not restarted".to_owned());
    }
    let is = |action: &Action| matches!(action, Action::Pod { action: PodAction::Commit { .. }, .. });
    let mut wrong = Vec::new();
    let mut count = 0;
    for (member, trail) in observation.departures() {
        let committed =
            observation.source.picked(&trail.uid, is).filter(|answered| answered.done().is_some()).count();
        count += committed;
        let kept =
            observation.store.generations.iter().filter(|stored| stored.source_uid == trail.uid).count();
        if kept < committed {
            wrong.push(format!("{}: {committed} commits, {kept} in the store", member.name));
        }
        if let Some(pod) = observation.reported(&trail.uid)
            && committed > 0
            && pod.generation.is_none()
        {
            wrong.push(format!("{} was committed, and the report does not know it", member.name));
        }
    }
    let lives = observation.source_lives.len();
    unless(wrong, || format!("{count} commits over {lives} lives"))
}

/// An agent that ends without being told to has crashed.
pub fn no_crash(observation: &Observation) -> Finding {
    let mut wrong = Vec::new();
    let mut lives = 0;
    for (node, all) in [(SOURCE, &observation.source_lives), (TARGET, &observation.target_lives)] {
        lives += all.len();
        for life in all {
            if let Some(how) = life.how.as_deref().filter(|how| !["killed", "stopped"].contains(how)) {
                let at = after(observation, life.ended.unwrap_or(life.began));
                wrong.push(format!("{node}'s agent ended {at}: {how}"));
            }
        }
    }
    for (node, recording) in [(SOURCE, &observation.source), (TARGET, &observation.target)] {
        wrong.extend(panics(recording).into_iter().map(|what| format!("{node}: {what}")));
    }
    unless(wrong, || format!("{lives} lives of two agents"))
}

fn panics(recording: &Recording) -> Vec<String> {
    use evacuation::event::Outcome;
    let panicked = |answered: crate::recording::Answered<'_>| match answered.answer {
        Some((_, Outcome::Panicked)) => Some(format!("{} panicked", answered.effect.action.name())),
        _ => None,
    };
    recording.effects().filter_map(panicked).collect()
}

/// Nothing of another node is listed, watched or changed; one named object may be read.
pub fn own_node(observation: &Observation) -> Finding {
    let mut wrong = Vec::new();
    let mut count = 0;
    for node in [SOURCE, TARGET] {
        let user = agent_user(node);
        for request in observation.requests.iter().filter(|request| request.user == user) {
            count += 1;
            if let Some(what) = strays(request, node) {
                wrong.push(format!("{user}: {what}"));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    unless(wrong, || format!("{count} requests of two agents"))
}

fn strays(request: &Request, node: &str) -> Option<String> {
    let Request { verb, resource, name, query, .. } = request;
    let query = query.replace("%3D", "=").replace("%3d", "=");
    if request.code == 403 {
        return Some(format!("{verb} {resource}/{name} was forbidden"));
    }
    let selected = match (*verb, resource.as_str()) {
        ("list" | "watch", "nodes") => query.contains(&format!("metadata.name={node}")),
        ("list" | "watch", "pods") => query.contains(&format!("spec.nodeName={node}")),
        ("list" | "watch", _) => false,
        _ => true,
    };
    (!selected).then(|| format!("{verb} of {resource} with {query:?}"))
}
