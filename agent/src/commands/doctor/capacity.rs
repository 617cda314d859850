//! Whether it fits: graces, size limits and the two minutes, with what the agents have measured.

use super::finding::Finding;
use super::pods::record;
use crate::commands::doctor::cluster_reads::{ReadResult, name, opted_in};
use bytesize::ByteSize;
use evacuation::facts::{Facts, PodState};
use evacuation::moment::Span;
use evacuation::plan::Plan;
use k8s_openapi::api::core::v1::Pod;

const GRACE: &str = "grace";
const SIZE: &str = "size-limit";
const HEADROOM: &str = "headroom";
const USE: &str = "state-use";
/// Nothing can be flushed, sent and committed in less.
const SHORTEST: Span = Span::from_secs(5);
/// Kept for the commit at the end of a departure.
const COMMIT: Span = Span::from_secs(2);
/// Files are written beside what is there: a limit wants a tenth more than the state.
const MARGIN_PERCENT: u64 = 110;

/// Judges the pods of one node by what its agent says, or without it by what they say themselves.
pub fn check(pods: &ReadResult<Vec<Pod>>, facts: &[Facts]) -> Vec<Finding> {
    let Ok(pods) = pods else { return vec![] };
    let mut found: Vec<Finding> = Vec::new();
    for pod in pods.iter().filter(|pod| opted_in(pod)) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let of = facts.iter().find_map(|facts| {
            let state = facts.pods.iter().find(|state| state.pod.uid.0 == uid)?;
            Some((facts, state))
        });
        found.extend(judge(pod, of).into_iter().map(|finding| finding.about(name(pod))));
    }
    found.extend(facts.iter().filter_map(headroom));
    found
}

fn judge(pod: &Pod, of: Option<(&Facts, &PodState)>) -> Vec<Finding> {
    let Some(record) = record(pod) else { return vec![] };
    let (Some(settings), grace) = (&record.settings, record.facts.grace) else { return vec![] };
    let mut found = Vec::new();
    let holds = record.facts.engine.as_ref().is_some_and(|engine| engine.holds);
    let needs = of.and_then(|(facts, state)| departure(facts, state));
    let fix = |seconds: u64| format!("set terminationGracePeriodSeconds: {seconds} in the pod template");
    if let Some(needs) = needs.filter(|needs| holds && *needs > grace) {
        found.push(
            Finding::warning(GRACE, format!("its grace of {grace} is shorter than the {needs} that flush, save and commit take now"))
                .because("when anybody but EC2 ends the pod (a rollout, a drain, Karpenter), its grace is all the time there is")
                .mend(fix(needs.as_secs() + 10)),
        );
    } else if grace < SHORTEST {
        found.push(
            Finding::warning(GRACE, format!("its grace is {grace}"))
                .because("a state has to be flushed, sent and committed within it when anybody but EC2 ends the pod")
                .mend(fix(60)),
        );
    }
    let window = of.map_or_else(|| Span::from_secs(115), |(facts, _)| facts.window());
    if grace > window {
        found.push(
            Finding::note(GRACE, format!("its grace of {grace} is longer than the {window} of a notice"))
                .because("lifeboat shortens it under a notice: what the engine does in a longer shutdown is cut off then"),
        );
    }
    if let Some(doubt) = of.and_then(|(_, state)| state.doubt.as_ref()) {
        found.push(
            Finding::warning(USE, format!("engines that took such a state did not use it: {doubt}"))
                .because("its state is saved after all others, until an engine uses one like it, or for a week")
                .mend("look at what differs between the engine that saved and those that took it; docs/operations.md, \"Refused\""),
        );
    }
    let limit = settings.state_volume.as_ref().and_then(|volume| volume.size_limit);
    if let (Some(limit), Some(bytes)) = (limit, of.and_then(|(_, state)| state.bytes)) {
        let wanted = bytes.saturating_mul(MARGIN_PERCENT) / 100;
        let what =
            format!("sizeLimit {} of its state volume, and {} of state", ByteSize(limit), ByteSize(bytes));
        let why =
            "the kubelet evicts a pod whose emptyDir is larger: in the middle of its flush, with its state";
        let fix = format!("set sizeLimit to {} or more", ByteSize(wanted));
        if limit < bytes {
            found.push(Finding::failure(SIZE, what).because(why).mend(fix));
        } else if limit < wanted {
            found.push(Finding::warning(SIZE, what).because(why).mend(fix));
        }
    }
    found
}

/// What a departure of this pod alone takes, as far as it was measured.
fn departure(facts: &Facts, state: &PodState) -> Option<Span> {
    let send = state.send.or(state.bytes)?;
    let link = facts.link.filter(|link| *link > 0)?;
    let milliseconds = send.saturating_mul(1000) / link;
    Some(state.flush.unwrap_or(Span::from_secs(1)) + Span::from_millis(milliseconds) + COMMIT)
}

fn headroom(facts: &Facts) -> Option<Finding> {
    let plan = Plan::of(facts);
    let headroom = plan.headroom?;
    let node = &plan.node;
    if headroom >= 0 && plan.at_risk == 0 {
        return Some(Finding::ok(HEADROOM, "everything fits into a notice that came now").about(node));
    }
    let what = format!(
        "{} of state would not be in the store if the notice came now ({} ms of headroom)",
        ByteSize(plan.at_risk),
        headroom
    );
    let fix = plan
        .advice
        .map_or_else(|| "make the states smaller, or spread the pods".to_owned(), |advice| advice.what);
    Some(
        Finding::warning(HEADROOM, what)
            .because(format!("`lifeboat plan --node {node}` says which, and why"))
            .mend(fix)
            .about(node),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use serde_json::{Value, json};

    const GIB: u64 = 1 << 30;

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"namespace": "chat", "name": "a", "uid": "a",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "chat-1", "uid": "r", "controller": true}],
                "annotations": {"lifeboat.dev/engine": "http", "lifeboat.dev/port": "9100", "lifeboat.dev/state-volume": "state"}},
            "spec": {"terminationGracePeriodSeconds": 60,
                "volumes": [{"name": "state", "emptyDir": {"sizeLimit": "4Gi"}}],
                "containers": [{"name": "engine", "volumeMounts": [{"name": "state", "mountPath": "/state"}],
                    "lifecycle": {"preStop": {"exec": {"command": ["cat /state/.lifeboat/hold"]}}}}]},
            "status": {"phase": "Running", "conditions": [{"type": "lifeboat.dev/restored", "status": "True"}]},
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    /// The node of that pod, with so much state and such an uplink.
    fn facts(pod: &Pod, bytes: u64, link: u64) -> Facts {
        let state = PodState {
            pod: record(pod).unwrap().facts,
            bytes: Some(bytes),
            send: None,
            flush: None,
            copied: None,
            doubt: None,
            outcome: None,
        };
        let policy = evacuation::policy::Policy::default();
        Facts {
            format: 1,
            node: "node-a".into(),
            notice: None,
            since: Span::ZERO,
            left: None,
            announcements: Vec::new(),
            link: Some(link),
            policy,
            pods: vec![state],
        }
    }

    fn found(pod: Pod, bytes: u64, link: u64) -> Vec<(&'static str, Severity)> {
        let facts = facts(&pod, bytes, link);
        check(&Ok(vec![pod]), &[facts]).iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn what_fits_is_as_it_should_be() {
        assert_eq!(found(pod(|_| ()), GIB, GIB), [(HEADROOM, Severity::Ok)]);
    }

    #[test]
    fn a_state_that_engines_did_not_use_is_told() {
        let pod = pod(|_| ());
        let mut facts = facts(&pod, GIB, GIB);
        facts.pods[0].doubt = Some("2 pods took such a state and did not use it".into());
        let found = check(&Ok(vec![pod]), &[facts]);
        let told = found.iter().find(|finding| finding.check == USE).unwrap();
        assert!(told.severity == Severity::Warning && told.what.contains("2 pods"), "{told:?}");
    }

    #[test]
    fn a_grace_shorter_than_a_save_is_a_warning_with_the_grace_that_it_needs() {
        let pod = pod(|_| ());
        let facts = facts(&pod, 3 * GIB, GIB / 30);
        let found = check(&Ok(vec![pod]), &[facts]);
        let grace = found.iter().find(|finding| finding.check == GRACE).unwrap();
        // 90 s on the link, 1 s of flush, 2 s of commit, and ten more.
        assert!(grace.severity == Severity::Warning && grace.fix.contains("Seconds: 103"), "{grace:?}");
    }

    #[test]
    fn a_grace_that_is_no_time_and_one_that_a_notice_does_not_give_are_told_without_an_agent() {
        let with = |seconds: i64| {
            let pod = pod(|pod| pod["spec"]["terminationGracePeriodSeconds"] = json!(seconds));
            check(&Ok(vec![pod]), &[]).iter().map(|finding| finding.severity).collect::<Vec<_>>()
        };
        assert_eq!(with(1), [Severity::Warning]);
        assert_eq!(with(60), []);
        assert_eq!(with(300), [Severity::Note]);
    }

    #[test]
    fn a_limit_below_the_state_breaks_the_flush_and_one_close_to_it_may() {
        let limit = |bytes| found(pod(|_| ()), bytes, 1 << 40).into_iter().find(|(check, _)| *check == SIZE);
        assert_eq!(limit(5 * GIB), Some((SIZE, Severity::Failure)));
        assert_eq!(limit(4 * GIB - 1), Some((SIZE, Severity::Warning)));
        assert_eq!(limit(3 * GIB), None);
    }

    #[test]
    fn a_node_that_would_not_make_it_is_a_warning_with_what_would_help_most() {
        let pod = pod(|pod| pod["spec"]["volumes"][0]["emptyDir"] = json!({}));
        let facts = facts(&pod, 30 * GIB, GIB / 10);
        let found = check(&Ok(vec![pod]), &[facts]);
        let headroom = found.iter().find(|finding| finding.check == HEADROOM).unwrap();
        assert!(headroom.severity == Severity::Warning && !headroom.fix.is_empty(), "{headroom:?}");
    }
}
