//! An engine that was restarted in its pod gets back what its last flush left in the pod's own volume.

use crate::stage::{Stage, TERMINATE, failed, new_pod, stateful};
use evacuation::event::{Candidate, Done, FailureKind, IntentState, Outcome, Source};
use evacuation::moment::Span;
use evacuation::pod::{PodFacts, RestoreMode};

fn restarted(pod: &PodFacts) -> PodFacts {
    PodFacts { restarts: pod.restarts + 1, ..pod.clone() }
}

/// Names of what was asked for about a pod after this moment, without looks and Events.
fn since(stage: &Stage, ms: u64) -> Vec<&'static str> {
    let later = stage.asked.iter().filter(|(at, action)| *at >= ms && action.pod().is_some());
    later
        .map(|(_, action)| action.name())
        .filter(|name| *name != "inspect_engine" && *name != "publish")
        .collect()
}

fn told(stage: &Stage, wanted: &str) -> Option<String> {
    let mut events = stage.asked.iter().filter_map(|(_, action)| action.event());
    events.find(|event| event.reason == wanted).map(|event| event.note.clone())
}

#[test]
fn a_restarted_engine_is_proven_and_gets_its_last_flush_back_without_store_or_claim() {
    let gold = stateful("gold");
    let mut stage = Stage::with(std::slice::from_ref(&gold));
    stage.until(1_000);
    stage.sees(&restarted(&gold));
    assert_eq!(since(&stage, 1_000), ["reload_local", "check_fingerprint", "import_state", "verify"]);
    let note = told(&stage, "StateReloaded").unwrap();
    assert!(note.contains("512 tokens taken, 500 tokens shown in cache"), "{note}");
    stage.sees(&restarted(&gold));
    assert_eq!(stage.times("reload_local", "gold").len(), 1, "the same life is not served twice");
}

#[test]
fn nothing_is_copied_from_an_engine_before_it_has_its_state_back() {
    let mut gold = stateful("gold");
    if let Some(engine) = &mut gold.engine {
        engine.interval = Some(Span::from_secs(10));
    }
    let mut stage = Stage::with(std::slice::from_ref(&gold)).by_hand(&["check_fingerprint"]);
    stage.until(1_000);
    stage.sees(&restarted(&gold));
    stage.until(60_000);
    assert_eq!(stage.times("flush", "gold"), [0], "an empty engine would be flushed over what was kept");
    stage.done("check_fingerprint", "gold");
    stage.until(61_000);
    assert_eq!(stage.times("flush", "gold"), [0, 60_000]);
}

#[test]
fn an_engine_that_never_flushed_and_one_with_restore_off_start_cold() {
    let gold = stateful("gold");
    let mut stage = Stage::with(std::slice::from_ref(&gold));
    stage.answers.insert("reload_local gold".into(), failed(FailureKind::NotFound));
    stage.sees(&restarted(&gold));
    assert_eq!(stage.order("check_fingerprint"), Vec::<String>::new());
    assert!(told(&stage, "StateNotReloaded").is_none(), "nothing was lost");

    let mut off = stateful("off");
    if let Some(engine) = &mut off.engine {
        engine.restore = RestoreMode::Off;
    }
    let mut stage = Stage::with(std::slice::from_ref(&off));
    stage.sees(&restarted(&off));
    assert!(stage.order("reload_local").is_empty());
}

#[test]
fn a_restarted_engine_with_other_weights_or_with_state_of_its_own_gets_nothing() {
    let mismatch =
        Outcome::Failed { kind: FailureKind::Mismatch, why: "the probe's first token differs".into() };
    let own = Outcome::Done(Done::FingerprintMatches { state_bytes: 5 });
    for (proof, why) in
        [(mismatch, "the probe's first token differs"), (own, "it has state of its own already")]
    {
        let gold = stateful("gold");
        let mut stage = Stage::with(std::slice::from_ref(&gold));
        stage.answers.insert("check_fingerprint gold".into(), proof);
        stage.sees(&restarted(&gold));
        assert!(stage.order("import_state").is_empty());
        assert!(told(&stage, "StateNotReloaded").unwrap().ends_with(why));
    }
}

#[test]
fn an_engine_that_is_restarted_once_more_is_served_once_more() {
    let gold = stateful("gold");
    let mut stage = Stage::with(std::slice::from_ref(&gold)).by_hand(&["import_state"]);
    stage.sees(&restarted(&gold));
    stage.until(1_000);
    stage.sees(&restarted(&restarted(&gold)));
    assert_eq!(stage.times("cancel", ""), [1_000]);
    stage.done("import_state", "gold");
    assert_eq!(stage.times("reload_local", "gold"), [0, 1_000]);
    assert!(told(&stage, "StateReloaded").is_some());
}

#[test]
fn a_hand_over_that_fails_three_times_or_takes_too_long_is_given_up_and_said_so() {
    let gold = stateful("gold");
    let mut stage = Stage::with(std::slice::from_ref(&gold));
    stage.answers.insert("import_state gold".into(), failed(FailureKind::Transient));
    stage.sees(&restarted(&gold));
    stage.until(5_000);
    assert_eq!(stage.times("import_state", "gold").len(), 3);
    assert!(told(&stage, "StateNotReloaded").is_some());

    let mut stage = Stage::with(std::slice::from_ref(&gold)).by_hand(&["check_fingerprint"]);
    stage.sees(&restarted(&gold));
    stage.until(899_000);
    assert!(told(&stage, "StateNotReloaded").is_none());
    stage.until(900_000);
    assert!(told(&stage, "StateNotReloaded").unwrap().contains("in time"));
}

#[test]
fn a_notice_ends_a_recall_and_saves_what_there_is() {
    let gold = stateful("gold");
    let mut stage = Stage::with(std::slice::from_ref(&gold)).by_hand(&["check_fingerprint"]);
    stage.sees(&restarted(&gold));
    stage.until(1_000);
    stage.notice(TERMINATE, "n", 120);
    assert!(!stage.times("cancel", "").is_empty());
    assert_eq!(stage.order("commit"), ["gold"]);
}

#[test]
fn a_new_pod_whose_engine_is_restarted_while_it_takes_the_state_takes_it_again() {
    let lineage = Candidate {
        lineage: "old".into(),
        own_name: false,
        spec_matches: true,
        generations: vec!["old/1-1".into()],
        newest_unix_ms: 1,
        source: Source::Gone,
        intent: IntentState::None,
        taken: false,
    };
    let mut stage = Stage::with(&[]).by_hand(&["import_state"]);
    stage.answers.insert(
        "find_lineage new".into(),
        Outcome::Done(Done::Lineages { candidates: vec![lineage], worth_waiting_for: None }),
    );
    let new = new_pod("new");
    stage.sees(&new);
    stage.until(1_000);
    stage.sees(&restarted(&new));
    assert_eq!(stage.times("check_fingerprint", "new"), [0, 1_000]);
    stage.done("import_state", "new");
    assert_eq!(stage.gate("new").unwrap().0, "Restored");
    assert!(stage.order("reload_local").is_empty());
}
