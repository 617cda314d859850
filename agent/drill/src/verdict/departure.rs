//! Guarantees 2, 4 and 11: how pods leave.

use super::{Finding, after, unless};
use crate::cast::{CAST, Part, Place};

use crate::observation::Observation;
use crate::scene::Ending;
use evacuation::effect::{Action, PodAction};
use evacuation::moment::Span;
use evacuation::report::DepartureOutcome;

/// A pod with state ends only after its commit, or for a reason that the report gives.
pub fn not_before_commit(observation: &Observation) -> Finding {
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for (member, trail) in observation.departures().filter(|(member, _)| member.has_state()) {
        let committed = observation.committed(&trail.uid);
        // A held pod may be evicted at once: it ends when it is released. Any other ends by being evicted.
        let ended = match member.part {
            Part::HeldState => trail.released,
            _ => observation
                .removals_of(&trail.uid)
                .find(|request| request.granted())
                .map(|request| request.at),
        };
        let reason =
            observation.reported(&trail.uid).and_then(|pod| pod.state_reason.clone().or(pod.reason.clone()));
        match (ended, committed, reason) {
            (None, _, _) => seen.push(format!("{} was not ended", member.name)),
            (Some(ended), Some(committed), _) if committed <= ended => {
                let (committed, ended) = (after(observation, committed), after(observation, ended));
                seen.push(format!("{}: committed {committed}, ended {ended}", member.name));
            }
            (Some(ended), _, Some(reason)) if observation.scene.excuse(member.name).is_some() => {
                seen.push(format!("{}: ended {}: {reason}", member.name, after(observation, ended)));
            }
            (Some(ended), Some(committed), _) => wrong.push(format!(
                "{} was ended {}, before its commit {}",
                member.name,
                after(observation, ended),
                after(observation, committed)
            )),
            (Some(ended), None, _) => {
                wrong.push(format!(
                    "{} was ended {} and never committed",
                    member.name,
                    after(observation, ended)
                ));
            }
        }
    }
    unless(wrong, || seen.join("; "))
}

/// No eviction can hit a namesake, and none kills at once.
pub fn preconditions(observation: &Observation) -> Finding {
    let mut wrong = Vec::new();
    let mut count = 0;
    for request in observation.removals() {
        count += 1;
        let options = if request.verb == "evict" { &request.body["deleteOptions"] } else { &request.body };
        if options["preconditions"]["uid"].as_str().is_none() {
            wrong.push(format!("{} of {} names no uid", request.verb, request.name));
        }
        match options["gracePeriodSeconds"].as_u64() {
            Some(0) => wrong.push(format!("{} of {} has grace 0", request.verb, request.name)),
            None => wrong.push(format!("{} of {} leaves the grace open", request.verb, request.name)),
            Some(_) => {}
        }
    }
    if count == 0 {
        return Finding::NotApplicable("nothing was evicted".to_owned());
    }
    unless(wrong, || format!("{count} requests"))
}

/// Shadow and batch pods: evicted with the cordon, nothing saved.
pub fn shed(observation: &Observation) -> Finding {
    if observation.scene.ending() == Ending::Recommended || observation.scene.ending() == Ending::Hibernated {
        return Finding::NotApplicable("nothing was to leave".to_owned());
    }
    let Some(cordon) = observation.cordon() else {
        return Finding::Broken("the node was never cordoned".to_owned());
    };
    let mut wrong = Vec::new();
    let mut slowest = Span::ZERO;
    let saving = |action: &Action| {
        matches!(
            action,
            Action::Pod {
                action: PodAction::Flush { .. } | PodAction::Save { .. } | PodAction::Commit { .. },
                ..
            }
        )
    };
    for (member, trail) in observation.departures().filter(|(member, _)| member.is_shed()) {
        if observation.source.picked(&trail.uid, saving).next().is_some() {
            wrong.push(format!("{} was saved", member.name));
        }
        match observation.removals_of(&trail.uid).next() {
            None => wrong.push(format!("{} was not evicted", member.name)),
            Some(request) => {
                let waited = request.at.since(cordon.answered);
                slowest = slowest.max(waited);
                let disturbed = observation.scene.api_troubled() || observation.source_lives.len() > 1;
                if waited > Span::from_secs(2) && !disturbed {
                    wrong.push(format!("{} waited {waited} after the cordon", member.name));
                }
            }
        }
    }
    unless(wrong, || format!("{slowest} after the cordon at most"))
}

/// DaemonSet pods stay.
pub fn stays(observation: &Observation) -> Finding {
    let mut wrong = Vec::new();
    for member in CAST.iter().filter(|member| !member.leaves()) {
        if let Some(trail) = observation.leaving(member)
            && (trail.terminating.is_some() || observation.removals_of(&trail.uid).next().is_some())
        {
            wrong.push(format!("{} was removed", trail.pod));
        }
    }
    unless(wrong, || "the DaemonSet's pod stayed".to_owned())
}

/// Everything that was to leave is gone, deleted at its cut-off, or abandoned with a reason.
pub fn by_the_deadline(observation: &Observation) -> Finding {
    match observation.scene.ending() {
        Ending::Evacuated => {}
        Ending::Recommended | Ending::Hibernated => {
            let removed = observation.removals().next();
            let wrong = removed.map(|request| format!("{} was removed", request.name)).into_iter().collect();
            return unless(wrong, || "nothing was to leave, nothing left".to_owned());
        }
        Ending::Withdrawn(_) => return Finding::NotApplicable("the notice was withdrawn".to_owned()),
    }
    let mut wrong = Vec::new();
    let mut last = observation.shown;
    for (member, trail) in observation.departures() {
        let removed = observation.removals_of(&trail.uid).find(|request| request.granted());
        let reported = observation.reported(&trail.uid);
        let abandoned =
            reported.is_some_and(|pod| pod.departure == DepartureOutcome::Abandoned && pod.reason.is_some());
        // A pod that another drainer deleted needs no removal of ours.
        let begun = removed.map(|request| request.at).or(trail.terminating);
        match (trail.gone, begun) {
            (Some(gone), _) if gone <= observation.times_up => last = last.max(gone),
            (None, Some(begun)) if begun <= observation.deadline() => {
                last = last.max(begun);
            }
            (Some(gone), _) => wrong.push(format!("{} was gone {}", member.name, after(observation, gone))),
            _ if abandoned => {}
            (None, Some(begun)) => {
                wrong.push(format!("{} was removed {}", member.name, after(observation, begun)))
            }
            (None, None) => wrong.push(format!("{} is still there, and no reason is given", member.name)),
        }
    }
    let until = after(observation, observation.deadline());
    unless(wrong, || format!("the last {}, the deadline {until}", after(observation, last)))
}

/// The report is written, complete, before the deadline.
pub fn report(observation: &Observation) -> Finding {
    let ending = observation.scene.ending();
    if ending == Ending::Recommended {
        return Finding::NotApplicable("there was no evacuation".to_owned());
    }
    let Some((report, written)) = observation.report() else {
        return match ending {
            Ending::Withdrawn(_) => Finding::NotApplicable("the notice was withdrawn".to_owned()),
            _ => Finding::Broken("there is none, not even in the journal".to_owned()),
        };
    };
    let in_store = observation.store.reports.iter().any(|stored| stored.notice == report.notice);
    let place = if in_store { "in the store and the journal" } else { "in the journal" };
    let at = written.unwrap_or(report.written);
    let mut wrong = Vec::new();
    if at > observation.times_up {
        wrong.push(format!("it was written {}", after(observation, at)));
    }
    if !in_store && !observation.scene.touches("store") {
        wrong.push("it is not in the store".to_owned());
    }
    let unexplained = report.pods.iter().find(|pod| {
        pod.departure == DepartureOutcome::Abandoned && pod.reason.as_deref().is_none_or(str::is_empty)
    });
    if let Some(pod) = unexplained {
        wrong.push(format!("{} was abandoned without a reason", pod.name));
    }
    unless(wrong, || format!("{} {place}", after(observation, at)))
}

/// Source pods end within their grace; replacements become ready.
pub fn nobody_hangs(observation: &Observation) -> Finding {
    let mut wrong = Vec::new();
    for trail in &observation.trails {
        let leaves = CAST.iter().any(|member| member.name == trail.member && member.leaves());
        if trail.killed {
            wrong.push(format!("{} was still held when its grace was over", trail.pod));
        }
        if trail.place == Place::Replacement && leaves && trail.ready.is_none() && trail.terminating.is_none()
        {
            wrong.push(format!("{} never became ready", trail.pod));
        }
    }
    let replaced =
        observation.trails.iter().filter(|trail| trail.place == Place::Replacement && trail.ready.is_some());
    unless(wrong, || format!("{} pods of the other node are ready", replaced.count()))
}
