//! Guarantee 6 where the store does not decide: each restore stands in one Lease, finished by the pod that has the state.

use super::{Finding, unless};
use crate::observation::{Observation, SOURCE, TARGET, agent_user};
use checkpoint::claim::{Claim, ClaimState};
use evacuation::effect::{Action, RestoreAction};
use evacuation::names::{CLAIM_ANNOTATION, LINEAGE_ANNOTATION};
use fakes::apiserver::audit::Request;
use std::collections::BTreeMap;

/// Whether the claims were where they belong, and each restore claimed its lineage there.
pub fn place(observation: &Observation) -> Finding {
    let written: Vec<&Request> = observation.requests.iter().filter(|request| writes(request)).collect();
    // Also a real store (--store) may ignore conditions: then the agents have found out.
    if written.is_empty() && !observation.scene.has("store-unconditional") {
        return Finding::NotApplicable("the store decides conditional writes".to_owned());
    }
    let mut wrong = Vec::new();
    // The document as each Lease shows it at the end, and how often it was created.
    let mut claims: BTreeMap<&str, (Option<Claim>, u32)> = BTreeMap::new();
    for request in &written {
        let annotations = &request.body["metadata"]["annotations"];
        let lineage = annotations[LINEAGE_ANNOTATION].as_str().unwrap_or_default();
        let claim = annotations[CLAIM_ANNOTATION].as_str().and_then(|text| serde_json::from_str(text).ok());
        let (last, created) = claims.entry(lineage).or_default();
        *last = claim;
        *created += u32::from(request.verb == "create");
        if request.verb == "update" && request.body["metadata"]["resourceVersion"].is_null() {
            wrong.push(format!("the Lease of {lineage} was updated whatever it said"));
        }
    }
    let mut restored = 0;
    for (uid, lineage) in finished(observation) {
        restored += 1;
        let holder = claims.iter().find(|(key, _)| key.ends_with(&format!("/lineage/{lineage}/claim")));
        match holder {
            Some((_, (Some(claim), 1))) if claim.state == ClaimState::Done && claim.holder.pod_uid == uid => {}
            Some((_, (Some(claim), created))) => wrong.push(format!(
                "lineage {lineage} was restored by {uid}; its Lease, created {created} times, says {:?} by {}",
                claim.state, claim.holder
            )),
            _ => wrong.push(format!("lineage {lineage} was restored by {uid} without a Lease")),
        }
    }
    if restored == 0 {
        wrong.push("nothing was restored: nothing is known about claims".to_owned());
    }
    unless(wrong, || format!("{restored} restores, each under one Lease of its own"))
}

fn writes(request: &Request) -> bool {
    request.resource == "leases"
        && ["create", "update"].contains(&request.verb)
        && request.granted()
        && [SOURCE, TARGET].iter().any(|node| request.user == agent_user(node))
}

/// Which pods finished which claims.
fn finished(observation: &Observation) -> Vec<(String, String)> {
    let answered = observation.target.effects().filter(|answered| answered.done().is_some());
    let finished = answered.filter_map(|answered| match &answered.effect.action {
        Action::Restore { uid: pod, action: RestoreAction::FinishClaim { lineage } } => {
            Some((pod.0.clone(), lineage.clone()))
        }
        _ => None,
    });
    finished.collect()
}
