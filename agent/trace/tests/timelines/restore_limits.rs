//! How long a new pod's restore waits for each answer, how often it asks again, and when it stops asking.

use crate::restores::{lineage, stage};
use crate::stage::{Stage, TERMINATE, failed, new_pod, stateful};
use evacuation::effect::{Action, RestoreAction};
use evacuation::event::{Done, FailureKind, IntentState, Outcome, Verification};
use evacuation::moment::Span;
use evacuation::pod::{PodFacts, PodUid};

/// A new pod for which a checkpoint is in the store, and what is not answered at once.
fn restoring(by_hand: &[&str]) -> Stage {
    let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]).by_hand(by_hand);
    stage.sees(&new_pod("new"));
    stage
}

#[test]
fn the_status_of_a_pod_says_how_its_restore_ended() {
    let mut stage = restoring(&["fetch"]);
    assert_eq!(stage.status().pods[0].restore, None);
    assert!(stage.status().pods[0].restoring);
    stage.done("fetch", "new");
    let said = stage.status().pods[0].restore.clone().unwrap();
    assert_eq!(said, "Restored: old/1-1, 512 tokens taken, 500 tokens shown in cache");
    assert!(!stage.status().pods[0].restoring);
}

#[test]
fn a_restore_is_called_verified_only_where_the_engine_shows_what_it_took_in_its_cache() {
    let said = |verified: Outcome| {
        let mut stage = restoring(&["verify"]);
        stage.answers_now("verify", "new", verified);
        stage.gate("new").unwrap()
    };
    let verified = |verification| Outcome::Done(Done::Verified(verification));
    let taken = "old/1-1, 512 tokens taken";
    let used = verified(Verification::Used { tokens: 1 });
    assert_eq!(said(used), ("Restored", format!("{taken}, 1 tokens shown in cache")));
    let unknown = format!("{taken}, reuse could not be shown");
    let not_shown = verified(Verification::NotShown { why: "slot 0 is busy".into() });
    assert_eq!(said(not_shown), ("RestoredUnverified", format!("{unknown}: slot 0 is busy")));
    assert_eq!(said(Outcome::TimedOut), ("RestoredUnverified", unknown));
}

#[test]
fn a_state_that_the_engine_does_not_use_is_refused_and_its_claim_done() {
    let mut stage = restoring(&["verify"]);
    let not_used = Verification::NotUsed { why: "0 of 500 tokens".into() };
    stage.answers_now("verify", "new", Outcome::Done(Done::Verified(not_used)));
    let why = "old/1-1, 512 tokens taken, and the engine does not use it: 0 of 500 tokens";
    assert_eq!(stage.gate("new").unwrap(), ("Refused", why.to_owned()));
    assert_eq!(stage.times("finish_claim", "new"), [0], "no other engine is given it");
    assert!(stage.times("give_back_claim", "new").is_empty());
    let not_used = Some("0 of 500 tokens".to_owned());
    let noted =
        Action::Restore { uid: PodUid("new".into()), action: RestoreAction::RecordVerdict { not_used } };
    assert_eq!(stage.actions("record_verdict", "new"), [noted], "whoever saves one like it is told");
}

#[test]
fn a_gate_that_cannot_be_opened_is_tried_again_each_time_with_the_time_of_a_call() {
    let mut stage = restoring(&["open_gate"]);
    assert_eq!(stage.due("open_gate", "new"), Some(3_000));
    stage.until(9_000);
    assert_eq!(stage.times("open_gate", "new"), [0, 3_100, 6_300], "100 ms after its timeout, then 200");
}

#[test]
fn a_claim_is_renewed_every_ten_seconds_for_as_long_as_the_restore_takes() {
    let mut stage = restoring(&["fetch", "renew_claim"]);
    stage.until(12_000);
    assert_eq!(stage.times("renew_claim", "new"), [10_000]);
    assert_eq!(stage.due("renew_claim", "new"), Some(20_000), "as long as until the next one");
    stage.done("renew_claim", "new");
    stage.until(30_000);
    assert_eq!(stage.times("renew_claim", "new"), [10_000, 22_000]);
    stage.done("fetch", "new");
    stage.until(60_000);
    assert_eq!(stage.times("renew_claim", "new").len(), 2, "the gate is open");
}

#[test]
fn after_a_claim_that_another_won_the_next_look_waits_a_moment() {
    let mut stage = restoring(&["claim"]);
    stage.fails("claim", "new", FailureKind::Refused);
    stage.until(1_000);
    assert_eq!(stage.times("find_lineage", "new"), [0, 200], "what the other wrote is to be seen");
}

#[test]
fn a_renewal_that_fails_or_is_not_answered_is_tried_again_after_a_second() {
    let mut stage = restoring(&["fetch", "renew_claim"]);
    stage.until(10_000);
    stage.fails("renew_claim", "new", FailureKind::Transient);
    stage.until(31_000);
    assert_eq!(stage.times("renew_claim", "new"), [10_000, 11_000, 22_000]);
    assert!(stage.gate("new").is_none(), "a claim that could not be renewed may still be its own");
}

#[test]
fn what_a_restore_no_longer_waits_for_is_cancelled_with_the_time_of_a_call() {
    let mut leaves = restoring(&["fetch", "cancel"]);
    leaves.until(1_000);
    leaves.notice(TERMINATE, "n", 120);
    assert_eq!(leaves.due("cancel", ""), Some(4_000));

    let mut fenced = restoring(&["fetch", "cancel"]);
    fenced.answers.insert("renew_claim new".into(), failed(FailureKind::Mismatch));
    fenced.until(10_000);
    assert_eq!(fenced.gate("new").unwrap().0, "Fenced");
    assert_eq!(fenced.due("cancel", ""), Some(13_000));
}

#[test]
fn what_an_engine_that_was_restarted_had_been_asked_for_is_cancelled_with_the_time_of_a_call() {
    let mut taking = restoring(&["import_state", "cancel"]);
    taking.until(1_000);
    taking.sees(&PodFacts { restarts: 1, ..new_pod("new") });
    assert_eq!(taking.due("cancel", ""), Some(4_000));

    let gold = stateful("gold");
    let mut recalling = Stage::with(std::slice::from_ref(&gold)).by_hand(&["check_fingerprint", "cancel"]);
    recalling.sees(&PodFacts { restarts: 1, ..gold.clone() });
    recalling.until(2_000);
    recalling.sees(&PodFacts { restarts: 2, ..gold });
    assert_eq!(recalling.due("cancel", ""), Some(5_000));
}

#[test]
fn a_prefetch_that_is_not_through_when_the_commit_comes_is_cancelled_with_the_time_of_a_call() {
    let coming = IntentState::Coming { left: Span::from_secs(60) };
    let mut stage = stage(&[lineage(&["old/1-1"], coming)]).by_hand(&["prefetch", "cancel"]);
    stage.sees(&new_pod("new"));
    stage.until(1_200);
    let committed = vec![lineage(&["old/1-2", "old/1-1"], IntentState::None)];
    stage.answers.insert(
        "find_lineage new".into(),
        Outcome::Done(Done::Lineages { candidates: committed, worth_waiting_for: None }),
    );
    stage.until(1_500);
    assert_eq!(stage.times("cancel", ""), [1_500], "at the next look");
    assert_eq!(stage.due("cancel", ""), Some(4_500));
}

#[test]
fn a_claim_that_cannot_be_finished_is_left_to_run_out_after_five_tries() {
    let mut stage = restoring(&["finish_claim"]);
    for at in [0, 100, 300, 700] {
        stage.until(at);
        stage.fails("finish_claim", "new", FailureKind::Transient);
    }
    stage.until(1_500);
    assert_eq!(stage.times("finish_claim", "new"), [0, 100, 300, 700, 1_500]);
    assert!(stage.gate("new").is_none(), "four tries are not enough");
    stage.fails("finish_claim", "new", FailureKind::Transient);
    assert_eq!(stage.gate("new").unwrap().0, "Restored", "what was handed over is there all the same");
    stage.until(30_000);
    assert_eq!(stage.times("finish_claim", "new").len(), 5);
}

#[test]
fn an_engine_that_does_not_take_the_state_is_asked_three_times() {
    let mut stage = restoring(&["import_state"]);
    stage.fails("import_state", "new", FailureKind::Transient);
    stage.until(100);
    stage.fails("import_state", "new", FailureKind::Transient);
    stage.until(300);
    assert_eq!(stage.times("import_state", "new"), [0, 100, 300]);
    assert!(stage.gate("new").is_none(), "two tries are not enough");
    stage.fails("import_state", "new", FailureKind::Transient);
    assert_eq!(stage.gate("new").unwrap(), ("Failed", "transient".to_owned()));
    stage.until(30_000);
    assert_eq!(stage.times("import_state", "new").len(), 3);
}
