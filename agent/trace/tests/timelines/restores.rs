//! A new pod: what is found, what is put back, and why the gate opens.

use crate::stage::{Stage, TERMINATE, failed, new_pod};
use evacuation::effect::{Action, RestoreAction};
use evacuation::event::{Candidate, Done, FailureKind, IntentState, Outcome, Source};
use evacuation::moment::Span;
use evacuation::pod::{PodFacts, RestoreMode};

/// A lineage with these generations, for everybody of this workload.
pub fn lineage(generations: &[&str], intent: IntentState) -> Candidate {
    Candidate {
        lineage: "old".into(),
        own_name: false,
        spec_matches: true,
        generations: generations.iter().map(|name| (*name).to_owned()).collect(),
        newest_unix_ms: 1,
        source: Source::Leaving,
        intent,
        taken: false,
    }
}

fn found(candidates: &[Candidate]) -> Outcome {
    Outcome::Done(Done::Lineages { candidates: candidates.to_vec(), worth_waiting_for: None })
}

/// A new pod for which this is in the store.
pub fn stage(candidates: &[Candidate]) -> Stage {
    let mut stage = Stage::with(&[]);
    stage.answers.insert("find_lineage new".into(), found(candidates));
    stage
}

const COMING: IntentState = IntentState::Coming { left: Span::from_secs(60) };

#[test]
fn a_committed_lineage_is_claimed_fetched_proven_handed_over_and_verified() {
    let mut stage = stage(&[lineage(&["old/1-2", "old/1-1"], IntentState::None)]);
    stage.sees(&new_pod("new"));
    let steps: Vec<_> =
        stage.asked.iter().filter(|(_, action)| action.pod().is_some()).map(|(_, a)| a.name()).collect();
    let wanted = [
        "find_lineage",
        "claim",
        "fetch",
        "check_fingerprint",
        "import_state",
        "verify",
        "record_verdict",
        "finish_claim",
        "open_gate",
    ];
    assert_eq!(steps[..wanted.len()], wanted);
    assert!(
        matches!(&stage.actions("fetch", "new")[..], [Action::Restore { action: RestoreAction::Fetch { generation, .. }, .. }] if generation == "old/1-2")
    );
    let (reason, message) = stage.gate("new").unwrap();
    assert_eq!(reason, "Restored");
    assert!(message.contains("old/1-2") && message.contains("500 tokens"), "{message}");
}

#[test]
fn a_pod_that_finds_nothing_looks_once_more_before_it_opens() {
    let mut stage = stage(&[]);
    stage.sees(&new_pod("new"));
    stage.until(1_999);
    assert!(stage.gate("new").is_none());
    stage.until(2_000);
    assert_eq!(stage.gate("new").unwrap(), ("NothingToRestore", "this workload has no checkpoint".into()));
    assert_eq!(stage.times("find_lineage", "new"), [0, 2_000]);
}

#[test]
fn the_second_look_finds_a_source_that_announced_itself_in_the_meantime() {
    let mut stage = stage(&[]);
    stage.sees(&new_pod("new"));
    stage.until(1_000);
    stage.answers.insert("find_lineage new".into(), found(&[lineage(&["old/1-1"], IntentState::None)]));
    stage.until(3_000);
    assert_eq!(stage.gate("new").unwrap().0, "Restored");
}

#[test]
fn an_announced_checkpoint_is_claimed_and_waited_for() {
    let mut stage = stage(&[lineage(&[], COMING)]);
    stage.sees(&new_pod("new"));
    stage.until(8_100);
    assert_eq!(stage.times("claim", "new"), [0]);
    assert!(stage.order("fetch").is_empty());
    assert!(stage.times("find_lineage", "new").windows(2).all(|pair| pair[1] - pair[0] <= 500));
    stage.answers.insert("find_lineage new".into(), found(&[lineage(&["old/1-1"], IntentState::None)]));
    stage.until(9_000);
    assert_eq!(stage.gate("new").unwrap().0, "Restored");
}

#[test]
fn what_is_committed_already_is_fetched_while_the_announced_rest_is_waited_for() {
    let mut stage = stage(&[lineage(&["old/1-1"], COMING)]).by_hand(&["prefetch"]);
    stage.sees(&new_pod("new"));
    stage.until(5_000);
    assert!(
        matches!(&stage.actions("prefetch", "new")[..], [Action::Restore { action: RestoreAction::Prefetch { generation, .. }, .. }] if generation == "old/1-1")
    );
    assert!(stage.order("fetch").is_empty());
    // The commit is not waited for any longer: what has arrived of the other counts.
    stage
        .answers
        .insert("find_lineage new".into(), found(&[lineage(&["old/1-2", "old/1-1"], IntentState::None)]));
    stage.until(6_000);
    assert_eq!(stage.times("cancel", "").len(), 1);
    assert!(
        matches!(&stage.actions("fetch", "new")[..], [Action::Restore { action: RestoreAction::Fetch { generation, .. }, .. }] if generation == "old/1-2")
    );
    assert_eq!(stage.gate("new").unwrap().0, "Restored");
}

#[test]
fn a_prefetch_that_fails_is_tried_three_times_and_costs_nothing_but_time() {
    for (kind, times) in [(FailureKind::Transient, 3), (FailureKind::Mismatch, 1)] {
        let mut stage = stage(&[lineage(&["old/1-1"], COMING)]);
        stage.answers.insert("prefetch new".into(), failed(kind));
        stage.sees(&new_pod("new"));
        stage.until(20_000);
        assert_eq!(stage.times("prefetch", "new").len(), times);
        assert!(stage.gate("new").is_none());
        stage.answers.insert("find_lineage new".into(), found(&[lineage(&["old/1-2"], IntentState::None)]));
        stage.until(21_000);
        assert_eq!(stage.gate("new").unwrap().0, "Restored");
    }
}

#[test]
fn an_abandoned_announcement_falls_back_to_what_was_committed_before_it() {
    for (generations, outcome) in [(&["old/1-1"][..], "Restored"), (&[][..], "NothingToRestore")] {
        let mut stage = stage(&[lineage(generations, COMING)]);
        stage.sees(&new_pod("new"));
        stage.until(5_000);
        let abandoned = found(&[lineage(generations, IntentState::Abandoned)]);
        stage.answers.insert("find_lineage new".into(), abandoned);
        stage.until(6_000);
        assert_eq!(stage.gate("new").unwrap().0, outcome);
    }
}

#[test]
fn another_fingerprint_is_refused_by_name_and_nothing_is_handed_over() {
    let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]);
    let why = "probe: the first token differs".to_owned();
    stage.answers.insert(
        "check_fingerprint new".into(),
        Outcome::Failed { kind: FailureKind::Mismatch, why: why.clone() },
    );
    stage.sees(&new_pod("new"));
    assert_eq!(stage.gate("new").unwrap(), ("Refused", why));
    assert!(stage.order("import_state").is_empty());
}

#[test]
fn a_corrupt_newest_generation_is_refused_by_name_and_its_parent_taken() {
    let mut stage = stage(&[lineage(&["old/1-2", "old/1-1"], IntentState::None)]).by_hand(&["fetch"]);
    stage.sees(&new_pod("new"));
    stage.fails("fetch", "new", FailureKind::Mismatch);
    let named = stage.asked.iter().any(|(_, action)| {
        action
            .event()
            .is_some_and(|event| event.reason == "CheckpointRefused" && event.note.contains("old/1-2"))
    });
    assert!(named);
    stage.done("fetch", "new");
    assert!(stage.gate("new").unwrap().1.contains("old/1-1"));
}

#[test]
fn where_every_generation_is_corrupt_the_gate_opens_and_says_so() {
    let mut stage = stage(&[lineage(&["old/1-2", "old/1-1"], IntentState::None)]);
    stage.answers.insert("fetch new".into(), failed(FailureKind::Mismatch));
    stage.sees(&new_pod("new"));
    assert_eq!(stage.times("fetch", "new").len(), 2);
    assert_eq!(stage.gate("new").unwrap().0, "Corrupt");
}

#[test]
fn a_restore_that_takes_too_long_opens_the_gate_with_what_was_waited_for() {
    let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]).by_hand(&["check_fingerprint"]);
    stage.sees(&new_pod("new"));
    stage.until(899_000);
    assert!(stage.gate("new").is_none());
    stage.until(900_000);
    let (reason, message) = stage.gate("new").unwrap();
    assert_eq!(
        (reason, message.as_str()),
        ("TimedOut", "gave up after 900.000 s: the engine did not answer")
    );
}

#[test]
fn a_fenced_holder_stops_and_opens_the_gate() {
    let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]).by_hand(&["fetch"]);
    stage.answers.insert("renew_claim new".into(), failed(FailureKind::Mismatch));
    stage.sees(&new_pod("new"));
    stage.until(10_000);
    assert_eq!(stage.gate("new").unwrap().0, "Fenced");
    stage.until(20_000);
    assert!(stage.order("import_state").is_empty());
}

#[test]
fn a_gate_that_was_opened_by_somebody_else_ends_the_restore() {
    let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]).by_hand(&["fetch"]);
    let mut new = new_pod("new");
    stage.sees(&new);
    stage.until(1_000);
    new.restore_decided = true;
    stage.sees(&new);
    assert_eq!(stage.times("cancel", ""), [1_000]);
    stage.until(20_000);
    assert!(stage.order("import_state").is_empty() && stage.gate("new").is_none());
}

#[test]
fn an_engine_that_has_state_of_its_own_is_left_alone() {
    let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]);
    let own = Outcome::Done(Done::FingerprintMatches { state_bytes: 1 << 29 });
    stage.answers.insert("check_fingerprint new".into(), own);
    stage.sees(&new_pod("new"));
    assert_eq!(stage.gate("new").unwrap().0, "HadState");
    assert!(stage.order("import_state").is_empty());
    assert_eq!(stage.times("give_back_claim", "new").len(), 1, "another replica may have it at once");
}

#[test]
fn a_gated_engine_s_warm_up_is_replaced_by_what_was_saved() {
    let with = |facts: &PodFacts, state_bytes| {
        let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]);
        let matches = Outcome::Done(Done::FingerprintMatches { state_bytes });
        stage.answers.insert("check_fingerprint new".into(), matches);
        stage.sees(facts);
        stage.gate("new").unwrap().0
    };
    let gated = new_pod("new");
    let mut behind_no_gate = new_pod("new");
    behind_no_gate.engine.as_mut().unwrap().restore = RestoreMode::Background;
    // The checkpoint holds a GiB.
    let twentieth = (1 << 30) / 20;
    assert_eq!(with(&gated, twentieth), "Restored");
    assert_eq!(with(&gated, twentieth + 1), "HadState");
    assert_eq!(with(&behind_no_gate, 1), "HadState", "somebody may have been served");
}

#[test]
fn a_claim_is_given_back_when_the_engine_is_given_nothing() {
    let ended = |action: &str, kind| {
        let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]).by_hand(&[action]);
        stage.sees(&new_pod("new"));
        stage.fails(action, "new", kind);
        (stage.gate("new").unwrap().0, stage.times("give_back_claim", "new").len())
    };
    assert_eq!(ended("check_fingerprint", FailureKind::Mismatch), ("Refused", 1));
    assert_eq!(ended("fetch", FailureKind::Permanent), ("Failed", 1));
    assert_eq!(ended("import_state", FailureKind::Mismatch), ("Refused", 0), "it may hold a part of it");
}

#[test]
fn a_claim_is_given_back_when_its_pod_leaves_before_its_engine_has_anything() {
    let given_back = |action: &str| {
        let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]).by_hand(&[action]);
        stage.sees(&new_pod("new"));
        stage.notice(TERMINATE, "n", 120);
        stage.times("give_back_claim", "new").len()
    };
    assert_eq!((given_back("fetch"), given_back("import_state")), (1, 0));
}

#[test]
fn a_claim_that_another_won_is_not_the_end_of_the_search() {
    let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]).by_hand(&["claim"]);
    stage.sees(&new_pod("new"));
    let other = Candidate {
        lineage: "other".into(),
        generations: vec!["other/1-1".into()],
        ..lineage(&[], IntentState::None)
    };
    stage.answers.insert("find_lineage new".into(), found(&[other]));
    stage.fails("claim", "new", FailureKind::Refused);
    stage.until(300);
    stage.done("claim", "new");
    assert!(stage.gate("new").unwrap().1.contains("other/1-1"));
}

#[test]
fn lineages_that_are_nobody_elses_to_take_are_not_taken() {
    let good = lineage(&["old/1-1"], IntentState::None);
    let others = [
        Candidate { spec_matches: false, ..good.clone() },
        Candidate { source: Source::Living, ..good.clone() },
        Candidate { taken: true, ..good },
    ];
    let mut stage = stage(&others);
    stage.sees(&new_pod("new"));
    stage.until(3_000);
    let (reason, message) = stage.gate("new").unwrap();
    assert_eq!(reason, "NothingToRestore");
    assert_eq!(message, "of 3 lineages 1 are of another pod template, 1 have a living source, 1 are taken");
}

#[test]
fn with_restore_off_nothing_is_looked_for_and_the_gate_opens_at_once() {
    let mut new = new_pod("new");
    if let Some(engine) = &mut new.engine {
        engine.restore = RestoreMode::Off;
    }
    let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]);
    stage.sees(&new);
    assert!(stage.order("find_lineage").is_empty());
    assert_eq!(stage.gate("new").unwrap(), ("NothingToRestore", "lifeboat.dev/restore is off".into()));
}

#[test]
fn a_pod_whose_restore_is_undecided_at_the_notice_is_evicted_at_once_and_restored_if_it_stays_after_all() {
    let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]).by_hand(&["fetch", "mark_node"]);
    stage.sees(&new_pod("new"));
    stage.until(1_000);
    stage.notice(TERMINATE, "n", 120);
    assert_eq!(stage.order("cancel"), Vec::<String>::new());
    assert!(stage.times("cancel", "").len() == 1 && stage.order("write_intent").is_empty());
    stage.until(2_000);
    stage.withdrawn("n");
    stage.done("fetch", "new");
    assert_eq!(stage.gate("new").unwrap().0, "Restored");
}

#[test]
fn a_gate_that_an_earlier_life_opened_in_the_moment_of_the_notice_is_seen_in_time_to_save_its_state() {
    let mut stage = stage(&[]).by_hand(&["mark_node"]);
    let mut new = new_pod("new");
    stage.sees(&new);
    stage.notice(TERMINATE, "n", 120);
    assert!(stage.order("write_intent").is_empty());
    new.restore_decided = true;
    stage.sees(&new);
    stage.done("mark_node", "");
    assert_eq!(stage.order("commit"), ["new"], "{}", stage.story());
}

#[test]
fn a_lineage_that_will_be_free_soon_is_waited_for_and_the_reason_is_told() {
    let mut stage = Stage::with(&[]).by_hand(&["find_lineage"]);
    stage.sees(&new_pod("new"));
    let held = Candidate { taken: true, ..lineage(&["old/1-2"], IntentState::None) };
    let waits = Done::Lineages {
        candidates: vec![held],
        worth_waiting_for: Some("lineage old is held by a pod that is gone, for 9000 ms more".into()),
    };
    for _ in 0..4 {
        stage.answers_now("find_lineage", "new", Outcome::Done(waits.clone()));
        let later = stage.now() + 1_000;
        stage.until(later);
    }
    assert!(stage.gate("new").is_none(), "{}", stage.story());
    stage.answers_now("find_lineage", "new", found(&[lineage(&["old/1-2"], IntentState::None)]));
    assert_eq!(stage.gate("new").unwrap().0, "Restored", "{}", stage.story());
    // One that never becomes free ends with the restore's own time, and says what was waited for.
    let mut stage = Stage::with(&[]);
    stage.answers.insert("find_lineage new".into(), Outcome::Done(waits));
    stage.sees(&new_pod("new"));
    stage.until(20 * 60 * 1000);
    let (reason, message) = stage.gate("new").unwrap();
    assert!(reason == "TimedOut" && message.contains("held by a pod that is gone"), "{reason}: {message}");
}
