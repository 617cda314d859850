//! What a plan says of nodes that a person can check in the head: windows of 115 s, links of 100 MB/s.

use super::*;
use crate::pod::{DaemonDrain, EngineFacts, Owner, PodFacts};

const GB: u64 = 1_000_000_000;

/// A node with what is written down for it.
fn node(pods: &str) -> Facts {
    let text = format!(r#"{{"node":"n","link":100000000,"pods":[{pods}]}}"#);
    serde_json::from_str(&text).unwrap()
}

fn state(name: &str, priority: i32, gb: u64) -> PodState {
    let text =
        format!(r#"{{"pod":{{"name":"{name}","priority":{priority},"engine":{{}}}},"bytes":{}}}"#, gb * GB);
    serde_json::from_str(&text).unwrap()
}

fn with(pods: &[PodState]) -> Facts {
    Facts { pods: pods.to_vec(), ..node("") }
}

fn fates(plan: &Plan) -> Vec<(String, Fate)> {
    plan.pods.iter().map(|pod| (pod.name.clone(), pod.state)).collect()
}

#[test]
fn a_plan_says_what_will_be_safe_what_will_not_and_why() {
    // 115 s less 15 s of grace and 2 s for the commit: 98 s, a second of it for the flush.
    let plan = Plan::of(&with(&[state("gold", 100, 5), state("silver", 10, 6), state("bronze", 1, 4)]));
    let expected = [("gold", Fate::Safe), ("silver", Fate::AtRisk), ("bronze", Fate::Safe)];
    assert_eq!(fates(&plan), expected.map(|(name, fate)| (name.to_owned(), fate)));
    assert_eq!((plan.safe, plan.at_risk), (9 * GB, 6 * GB));
    assert_eq!(plan.pods[0].saved, Some(Span::from_secs(51)));
    assert_eq!(
        plan.pods[1].shortage.map(|it| (it.needs, it.has)),
        Some((Span::from_secs(60), Span::from_secs(47)))
    );
    assert!(plan.pods[1].why.contains("needs 60.000 s of the link and has 47.000 s"), "{}", plan.pods[1].why);
    assert_eq!(plan.pods[2].saved, Some(Span::from_secs(91)));
    // Without a drop it would take 151 s of the 98.
    assert_eq!(plan.headroom, Some(98_000 - 151_000));
}

#[test]
fn headroom_is_what_is_to_spare_and_grows_with_the_link_and_the_window() {
    let facts = with(&[state("gold", 100, 5)]);
    assert_eq!(Plan::of(&facts).headroom, Some(98_000 - 51_000));
    let faster = Facts { link: Some(200_000_000), ..facts.clone() };
    assert_eq!(Plan::of(&faster).headroom, Some(98_000 - 26_000));
    let longer = Facts { left: Some(Span::from_secs(175)), ..facts.clone() };
    assert_eq!(Plan::of(&longer).headroom, Some(158_000 - 51_000));
    assert_eq!(Plan::of(&Facts { link: None, ..facts }).headroom, None);
    assert_eq!(Plan::of(&with(&[])).headroom, None, "nothing to save");
}

#[test]
fn pods_are_in_the_order_in_which_they_leave_each_with_its_way() {
    let daemon = |drain| Owner::Daemon { drain, tolerates_all: false };
    let pod = |name: &str, owner, priority, engine: Option<EngineFacts>| PodState {
        pod: PodFacts { owner, priority, engine, ..state(name, 0, 0).pod },
        bytes: Some(GB),
        ..state(name, 0, 0)
    };
    let holds = || Some(EngineFacts { holds: true, ..EngineFacts::default() });
    let plan = Plan::of(&with(&[
        pod("stays", daemon(DaemonDrain::Stay), 9, None),
        pod("logs", daemon(DaemonDrain::Late), 9, None),
        pod("web", Owner::Replicated, 5, None),
        pod("named", Owner::Named, 7, holds()),
        pod("held", Owner::Replicated, 8, holds()),
        pod("shed", Owner::Replicated, -1, holds()),
    ]));
    let ways: Vec<(&str, Way)> = plan.pods.iter().map(|pod| (pod.name.as_str(), pod.leaves)).collect();
    let expected = [
        ("shed", Way::Shed),
        ("held", Way::Held),
        ("named", Way::AfterSave),
        ("web", Way::AtOnce),
        ("logs", Way::Late),
        ("stays", Way::Stays),
    ];
    assert_eq!(ways, expected);
    let at = |name: &str| plan.pods.iter().find(|pod| pod.name == name).and_then(|pod| pod.evicted);
    assert_eq!(at("held"), Some(Span::ZERO));
    assert_eq!(
        at("named"),
        Some(Span::from_secs(21)),
        "after the held one of a higher priority, and its own 10 s"
    );
    assert_eq!(at("logs"), Some(Span::from_secs(105)));
    assert_eq!(at("stays"), None);
}

#[test]
fn what_serves_to_the_end_is_saved_by_its_cut_off_behind_its_equals() {
    let stays = |name: &str, bytes| PodState {
        pod: PodFacts { owner: Owner::Bare { may_go: false }, ..state(name, 0, 0).pod },
        ..state(name, 0, bytes)
    };
    let saved = |facts: &Facts, name: &str| {
        let plan = Plan::of(facts);
        let pod = plan.pods.iter().find(|pod| pod.name == name).unwrap();
        (pod.leaves, pod.state, pod.saved)
    };
    let alone = with(&[stays("bare", 1)]);
    assert_eq!(saved(&alone, "bare"), (Way::Stays, Fate::Safe, Some(Span::from_secs(113))));
    // Of the two only one fits: that with a successor, although both have the same priority.
    let both = with(&[stays("bare", 6), state("replicated", 0, 6)]);
    assert_eq!((saved(&both, "bare").1, saved(&both, "replicated").1), (Fate::AtRisk, Fate::Safe));
}

fn advice(facts: &Facts) -> Option<(Change, Option<i64>)> {
    Plan::of(facts).advice.map(|advice| (advice.change, advice.headroom))
}

#[test]
fn the_change_that_helps_most_is_named_and_none_where_everything_is_safe() {
    assert_eq!(advice(&with(&[state("gold", 100, 5)])), None);
    // 10 GB take 101 s with their flush: 98 s are too few, and 112 s of a held pod are enough, but a pre-copy leaves more.
    assert_eq!(advice(&with(&[state("gold", 100, 10)])), Some((Change::PreCopy, Some(98_000 - 26_000))));
    // It was pre-copied, and ten of forty GB have changed.
    let copied = PodState { send: Some(10 * GB), copied: Some(40 * GB), ..state("gold", 100, 40) };
    assert_eq!(
        advice(&with(std::slice::from_ref(&copied))),
        Some((Change::EvictFirst, Some(112_000 - 101_000)))
    );
    // A StatefulSet's pod cannot be held: 80 s of 83.
    let named =
        PodState { pod: PodFacts { owner: Owner::Named, ..copied.pod }, send: Some(9 * GB), ..copied };
    assert_eq!(
        advice(&with(std::slice::from_ref(&named))),
        Some((Change::ShorterGrace, Some(93_000 - 91_000)))
    );
    // Nothing but less of it helps here.
    let short =
        PodState { pod: PodFacts { grace: Span::from_secs(1), ..named.pod }, send: Some(30 * GB), ..named };
    let plan = Plan::of(&with(&[short]));
    let advice = plan.advice.unwrap();
    assert_eq!(advice.change, Change::SmallerState);
    assert_eq!(advice.safe, 10 * GB + 9_600_000_000, "what is in the store already, and 96 s of the link");
}

#[test]
fn facts_written_by_hand_need_a_name_and_say_what_is_wrong_with_them() {
    let facts = node(r#"{"pod":{"name":"web"}}"#);
    assert_eq!(Plan::of(&facts).pods[0].leaves, Way::AtOnce);
    let wrong = serde_json::from_str::<Facts>(r#"{"node":"n","pods":[{"pod":{"name":"a","priorty":3}}]}"#);
    let wrong = wrong.unwrap_err().to_string();
    assert!(wrong.contains("priorty") && wrong.contains("priority"), "{wrong}");
}

#[test]
fn what_nobody_has_looked_at_or_no_link_was_measured_for_is_unknown() {
    let unseen = PodState { bytes: None, ..state("gold", 1, 1) };
    let plan = Plan::of(&with(&[unseen]));
    assert_eq!((plan.pods[0].state, plan.headroom), (Fate::Unknown, None));
    assert!(plan.pods[0].why.contains("looked"));
    let plan = Plan::of(&Facts { link: None, ..with(&[state("gold", 1, 1)]) });
    assert_eq!(plan.pods[0].state, Fate::Unknown);
    assert!(plan.pods[0].why.contains("never measured"));
}

#[test]
fn under_a_notice_what_is_done_is_done_and_counts_for_nothing_any_more() {
    let saved = PodState { outcome: Some(StateOutcome::Saved), ..state("gold", 100, 50) };
    let facts = Facts {
        left: Some(Span::from_secs(60)),
        since: Span::from_secs(55),
        ..with(&[saved, state("silver", 1, 4)])
    };
    let plan = Plan::of(&facts);
    assert_eq!(fates(&plan).iter().map(|(_, fate)| *fate).collect::<Vec<_>>(), [Fate::Safe, Fate::Safe]);
    assert_eq!(plan.headroom, Some(43_000 - 41_000));
    // The reserves are shares of the whole window, also when most of it is over.
    let late =
        Facts { left: Some(Span::from_secs(20)), since: Span::from_secs(95), ..with(&[state("gold", 1, 1)]) };
    assert_eq!(Plan::of(&late).pods[0].cutoff, Some(Span::from_secs(20 - 15 - 2)));
}

/// Everybody's change that is tried, whatever the best one is: `(change, pods)`.
fn changed(pods: &[PodState], change: Change) -> Vec<String> {
    let facts = with(pods);
    advice::tried(&facts, &Plan::without_advice(&facts), change).map_or(Vec::new(), |(_, pods)| pods)
}

#[test]
fn a_change_is_made_only_where_it_can_be_made_and_is_not_made_already() {
    let edit = |name: &str, edit: fn(&mut PodState)| {
        let mut pod = state(name, 1, 10);
        edit(&mut pod);
        pod
    };
    let pods = [
        edit("plain", |_| {}),
        edit("empty", |state| state.bytes = Some(0)),
        edit("unseen", |state| state.bytes = None),
        edit("named", |state| state.pod.owner = Owner::Named),
        edit("short", |state| state.pod.grace = Span::from_secs(5)),
        edit("leaving", |state| state.pod.terminating = Some(Moment::from_millis(1))),
        edit("stateless", |state| state.pod.engine = None),
        edit("copied", |state| (state.copied, state.send) = (Some(9 * GB), Some(9 * GB))),
        edit("quarter", |state| state.send = Some(5 * GB / 2)),
        edit("half", |state| state.send = Some(5 * GB)),
        edit("held", |state| {
            state.pod.engine = Some(EngineFacts { holds: true, ..EngineFacts::default() });
        }),
        edit("last", |state| {
            let evict = crate::pod::EvictWhen::Last;
            state.pod.engine = Some(EngineFacts { holds: true, evict, ..EngineFacts::default() });
        }),
    ];
    assert_eq!(
        changed(&pods, Change::EvictFirst),
        ["/plain", "/short", "/copied", "/quarter", "/half", "/last"],
        "no StatefulSet's, none that leaves already, none that is held"
    );
    assert_eq!(
        changed(&pods, Change::ShorterGrace),
        ["/plain", "/named", "/copied", "/quarter", "/half", "/last"]
    );
    assert_eq!(
        changed(&pods, Change::PreCopy),
        ["/plain", "/named", "/short", "/leaving", "/half", "/held", "/last"],
        "none that is copied, none of which a quarter is left"
    );
    assert_eq!(changed(&pods, Change::SmallerState).len(), 1, "the first that is at risk");
    assert!(changed(&pods[1..3], Change::PreCopy).is_empty());
}

#[test]
fn of_two_changes_that_bring_the_same_the_one_that_costs_less_is_advised_and_says_what_it_brings() {
    // 85 s of flush, 18.666 s of the link, 98 s: held it has 14 s more, pre-copied it needs 14 s less.
    let equal =
        PodState { bytes: Some(1_866_600_000), flush: Some(Span::from_secs(85)), ..state("gold", 1, 0) };
    let facts = with(std::slice::from_ref(&equal));
    assert_eq!(advice(&facts), Some((Change::EvictFirst, Some(112_000 - 103_666))));
    let (precopied, _) = advice::tried(&facts, &Plan::without_advice(&facts), Change::PreCopy).unwrap();
    assert_eq!(Plan::of(&precopied).headroom, Some(112_000 - 103_666), "the same, and it costs more");
    // Held it has 4 s more than with a short grace.
    let copied = |gb, grace| PodState {
        pod: PodFacts { grace: Span::from_secs(grace), ..state("gold", 1, 0).pod },
        copied: Some(40 * GB),
        send: Some(gb * GB),
        ..state("gold", 1, 40)
    };
    let plan = Plan::of(&with(&[copied(10, 15)]));
    let advice = plan.advice.unwrap();
    assert_eq!(
        (advice.change, advice.pods.as_slice(), advice.safe),
        (Change::EvictFirst, ["/gold".to_owned()].as_slice(), 40 * GB)
    );
    assert!(advice.what.contains("everything would be safe, with 11 s to spare"), "{}", advice.what);
    // Not all of it, but more: the second tier is lost in any case.
    let lost = PodState { copied: Some(80 * GB), send: Some(80 * GB), ..state("lost", 0, 80) };
    let advice = Plan::of(&with(&[copied(10, 15), lost])).advice.unwrap();
    assert!(advice.what.contains("40000000000 bytes more would be safe"), "{}", advice.what);
}

#[test]
fn where_no_change_would_save_a_byte_more_none_is_advised() {
    // It ends in a millisecond: its cut-off is past, it cannot be held any more, and a quarter of it is too late as well.
    let mut leaving = state("gold", 1, 10);
    leaving.pod.terminating = Some(Moment::from_millis(1));
    let facts = with(std::slice::from_ref(&leaving));
    let facts = Facts { left: Some(Span::from_secs(1)), since: Span::from_secs(119), ..facts };
    let plan = Plan::of(&facts);
    assert_eq!((plan.at_risk, plan.pods[0].shortage.map(|it| it.has)), (10 * GB, Some(Span::ZERO)));
    assert_eq!(plan.advice, None);
    assert!(advice::tried(&facts, &plan, Change::PreCopy).is_some(), "it could be made, and brings nothing");
    assert!(advice::tried(&facts, &plan, Change::SmallerState).is_none(), "there is no time for any of it");
}

#[test]
fn every_pod_says_why_it_has_nothing_to_save_and_when_its_save_would_end() {
    let daemon = |drain| Owner::Daemon { drain, tolerates_all: false };
    let edit = |name: &str, edit: &dyn Fn(&mut PodFacts)| {
        let mut pod = state(name, 5, 1);
        pod.bytes = None;
        edit(&mut pod.pod);
        pod
    };
    let late = |pod: &mut PodFacts| pod.owner = daemon(DaemonDrain::Late);
    let plan = Plan::of(&with(&[
        edit("stays", &|pod| pod.owner = Owner::Static),
        edit("stays-with-state", &|pod| pod.owner = daemon(DaemonDrain::Stay)),
        edit("shadow", &|pod| pod.role = Role::Shadow),
        edit("low", &|pod| pod.priority = -1),
        edit("late", &|pod| (late(pod), pod.engine = None).1),
        edit("late-with-state", &late),
        edit("leaving", &|pod| {
            (pod.terminating, pod.engine) = (Some(Moment::from_millis(1)), None);
        }),
        edit("leaving-with-state", &|pod| pod.terminating = Some(Moment::from_millis(1))),
        edit("restoring", &|pod| pod.restore_decided = false),
        edit("unseen", &|_| {}),
        edit("stateless", &|pod| pod.engine = None),
    ]));
    let mut said: Vec<(&str, Fate, bool, &str)> = (plan.pods.iter())
        .map(|pod| (pod.name.as_str(), pod.state, pod.cutoff.is_some(), pod.why.as_str()))
        .collect();
    said.sort_by_key(|(name, ..)| *name);
    let expected = [
        ("late", Fate::None, false, "a late DaemonSet: 10.000 s before the deadline"),
        ("late-with-state", Fate::Unknown, true, "a late DaemonSet: 10.000 s before the deadline"),
        ("leaving", Fate::None, false, "it is being deleted already"),
        ("leaving-with-state", Fate::Unknown, true, "nobody has looked at its engine yet"),
        ("low", Fate::None, false, "its priority is below what is kept: shed at once, with nothing saved"),
        ("restoring", Fate::None, false, "its restore is not decided: nothing of its own to save"),
        ("shadow", Fate::None, false, "its role is shed at once, with nothing saved"),
        ("stateless", Fate::None, false, "no state of its own"),
        ("stays", Fate::None, false, "static pod: only the kubelet can end it"),
        ("stays-with-state", Fate::Unknown, true, "nobody has looked at its engine yet"),
        ("unseen", Fate::Unknown, true, "nobody has looked at its engine yet"),
    ];
    assert_eq!(said, expected);
}

#[test]
fn what_has_become_of_a_state_is_told_with_every_outcome() {
    let told = |outcome| {
        let done = PodState { outcome: Some(outcome), ..state("gold", 1, 1) };
        let plan = Plan::of(&with(&[done]));
        (plan.pods[0].state, plan.pods[0].why.clone())
    };
    let words = |fate, why: &str| (fate, why.to_owned());
    assert_eq!(told(StateOutcome::Saved), words(Fate::Safe, "it is in the store"));
    assert_eq!(told(StateOutcome::Partial), words(Fate::AtRisk, "a part of it is in the store"));
    assert_eq!(
        told(StateOutcome::Earlier),
        words(Fate::AtRisk, "only an earlier generation is in the store")
    );
    assert_eq!(told(StateOutcome::Lost), words(Fate::AtRisk, "nothing of it is in the store"));
    assert_eq!(told(StateOutcome::Pending).0, Fate::Safe, "there is time");
    let kept = PodState { copied: Some(7), ..state("gold", 1, 80) };
    assert!(Plan::of(&with(&[kept])).pods[0].why.ends_with("; the generation of before holds 7 bytes"));
}

#[test]
fn with_lowest_first_the_lowest_tier_leaves_first_and_roles_come_in_their_order() {
    let pods = [
        state("high", 9, 1),
        PodState {
            pod: PodFacts { role: Role::Canary, ..state("a-canary", 1, 1).pod },
            ..state("a-canary", 1, 1)
        },
        state("low", 1, 1),
    ];
    let names = |order| {
        let mut facts = with(&pods);
        facts.policy.evict_order = order;
        Plan::of(&facts).pods.into_iter().map(|pod| pod.name).collect::<Vec<_>>()
    };
    assert_eq!(names(EvictOrder::HighestFirst), ["high", "low", "a-canary"]);
    assert_eq!(names(EvictOrder::LowestFirst), ["low", "a-canary", "high"]);
}
