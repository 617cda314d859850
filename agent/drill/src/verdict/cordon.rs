//! Guarantees 1 and 9: the node's marks.

use super::{Finding, after, unless};
use crate::observation::Observation;
use crate::play::{is_ours, ours};
use crate::scene::Ending;
use evacuation::notice::InstanceAction;
use fakes::apiserver::audit::Request;
use fakes::apiserver::routes::FOREIGN_TAINT;
use serde_json::Value;

/// Cordoned before the first eviction.
pub fn first(observation: &Observation) -> Finding {
    let removed = observation.removals().find(|request| request.granted());
    match (observation.cordon(), removed) {
        (Some(cordon), Some(removed)) if cordon.answered <= removed.at => Finding::Held(format!(
            "cordon {}, first eviction {}",
            after(observation, cordon.answered),
            after(observation, removed.at)
        )),
        (Some(cordon), Some(removed)) => Finding::Broken(format!(
            "{} was removed {}, the cordon was acknowledged {}",
            removed.name,
            after(observation, removed.at),
            after(observation, cordon.answered)
        )),
        (None, Some(removed)) => {
            Finding::Broken(format!("{} was removed and nothing was cordoned", removed.name))
        }
        (Some(cordon), None) if observation.scene.ending() == Ending::Evacuated => Finding::Broken(format!(
            "cordoned {}, and nothing was ever evicted",
            after(observation, cordon.answered)
        )),
        (_, None) => Finding::NotApplicable("nothing was evicted".to_owned()),
    }
}

/// The cordon's patch carries everything, and the resourceVersion without which a taint could be lost.
pub fn one_patch(observation: &Observation) -> Finding {
    let Some(cordon) = observation.cordon() else {
        return missing(observation);
    };
    let body = &cordon.body;
    let taints = body["spec"]["taints"].as_array();
    let annotations = body["metadata"]["annotations"].as_object();
    let mut lacks = Vec::new();
    if !taints.into_iter().flatten().any(|taint| taint["key"].as_str().is_some_and(is_ours)) {
        lacks.push("the cordon's patch has no taint of ours".to_owned());
    }
    if !annotations.into_iter().flatten().any(|(key, value)| is_ours(key) && !value.is_null()) {
        lacks.push("the cordon's patch has no annotation of ours".to_owned());
    }
    if body["metadata"]["resourceVersion"].as_str().is_none() {
        lacks.push("the cordon's patch has no resourceVersion".to_owned());
    }
    unless(lacks, || {
        let conflicts = observation.marks().filter(|request| request.code == 409).count();
        format!("{}, after {conflicts} conflicts", after(observation, cordon.answered))
    })
}

/// The first patch that takes the cordon back.
fn uncordon(observation: &Observation) -> Option<&Request> {
    let cordoned = observation.cordon()?.at;
    observation.marks().find(|request| {
        let unschedulable = request.body["spec"].get("unschedulable");
        request.granted()
            && request.at > cordoned
            && unschedulable.is_some_and(|value| *value == Value::Bool(false) || value.is_null())
    })
}

/// Nobody uncordons while the notice stands.
pub fn stands(observation: &Observation) -> Finding {
    if observation.cordon().is_none() {
        return missing(observation);
    }
    let over = match observation.scene.ending() {
        Ending::Withdrawn(after) => Some(observation.shown + after),
        // The notice of a stopped instance is over with its boot.
        Ending::Evacuated if observation.rebooted.is_some() => {
            observation.source_lives.iter().rev().find_map(|life| life.how.is_none().then_some(life.began))
        }
        _ => None,
    };
    match uncordon(observation) {
        Some(request) if over.is_none_or(|over| request.at < over) => {
            Finding::Broken(format!("uncordoned {}", after(observation, request.at)))
        }
        Some(request) => Finding::Held(format!("uncordoned only {}", after(observation, request.at))),
        None => Finding::Held("it stayed cordoned".to_owned()),
    }
}

/// The taint that somebody else wrote between our read and our patch is still there.
pub fn foreign_taint(observation: &Observation) -> Finding {
    if !observation.scene.has("api-conflict") {
        return Finding::NotApplicable("nobody else wrote to the node".to_owned());
    }
    let taints = observation.node["spec"]["taints"].as_array();
    let survives = taints.into_iter().flatten().any(|taint| taint["key"] == FOREIGN_TAINT);
    let conflicts = observation.marks().filter(|request| request.code == 409).count();
    match (survives, conflicts) {
        (false, _) => Finding::Broken(format!("{FOREIGN_TAINT} is gone")),
        (true, 0) => Finding::Broken("no patch met a conflict: none carries the resourceVersion".to_owned()),
        (true, _) => Finding::Held(format!("{FOREIGN_TAINT} survived {conflicts} conflicts")),
    }
}

/// After a withdrawal or the next boot, the node is as before.
pub fn taken_back(observation: &Observation) -> Finding {
    let node = match (observation.scene.ending(), &observation.rebooted) {
        (Ending::Withdrawn(_), _) => &observation.node,
        (Ending::Evacuated, Some(rebooted)) => rebooted,
        (Ending::Evacuated, None) if observation.scene.action() == InstanceAction::Stop => {
            return Finding::Broken("the instance never booted again".to_owned());
        }
        _ => return Finding::NotApplicable("the notice stands to the end".to_owned()),
    };
    unless(marks(node), || "no taint, no annotation, schedulable".to_owned())
}

/// A rebalance that comes to nothing.
pub fn no_trace(observation: &Observation) -> Finding {
    if observation.scene.ending() != Ending::Recommended {
        return Finding::NotApplicable("an interruption followed".to_owned());
    }
    let mut wrong = marks(&observation.node);
    if let Some(removed) = observation.removals().next() {
        wrong.push(format!("{} was removed {}", removed.name, after(observation, removed.at)));
    }
    if let Some(cordon) = observation.cordon() {
        wrong.push(format!("cordoned {}", after(observation, cordon.at)));
    }
    let soft = observation.marks().find(|request| {
        let taints = request.body["spec"]["taints"].as_array();
        let soft = |taint: &Value| {
            taint["key"].as_str().is_some_and(is_ours) && taint["effect"] == "PreferNoSchedule"
        };
        request.granted() && taints.into_iter().flatten().any(soft)
    });
    if soft.is_none() {
        wrong.push("there was no soft taint meanwhile".to_owned());
    }
    unless(wrong, || "a soft taint came and went, nothing was evicted".to_owned())
}

fn marks(node: &Value) -> Vec<String> {
    let mut left = Vec::new();
    if node["spec"]["unschedulable"] == true {
        left.push("the node is still cordoned".to_owned());
    }
    if ours(node) {
        left.push("a taint or an annotation of ours is still there".to_owned());
    }
    left
}

fn missing(observation: &Observation) -> Finding {
    match observation.scene.ending() {
        Ending::Recommended => Finding::NotApplicable("a recommendation cordons nothing".to_owned()),
        Ending::Hibernated => Finding::NotApplicable("nothing leaves a node that hibernates".to_owned()),
        _ => Finding::Broken("the node was never cordoned".to_owned()),
    }
}
