//! How long a new pod's gate stays closed where the store says nothing, says "later", or stops in the middle.

use crate::restores::{lineage, stage};
use crate::stage::{Stage, failed, new_pod};
use evacuation::event::{Candidate, Done, FailureKind, IntentState, Outcome};
use evacuation::moment::Span;
use evacuation::policy::Policy;

fn refused() -> Outcome {
    Outcome::Failed { kind: FailureKind::Unreachable, why: "connection refused".into() }
}

fn found(candidates: &[Candidate]) -> Outcome {
    Outcome::Done(Done::Lineages { candidates: candidates.to_vec(), worth_waiting_for: None })
}

/// A new pod whose looks all end so.
fn looks_end(outcome: Outcome) -> Stage {
    let mut stage = Stage::with(&[]);
    stage.answers.insert("find_lineage new".into(), outcome);
    stage.sees(&new_pod("new"));
    stage
}

/// The gate is closed until then, and opened in that moment.
fn opens_at(stage: &mut Stage, pod: &str, ms: u64) -> (&'static str, String) {
    stage.until(ms - 1);
    assert!(stage.gate(pod).is_none(), "{}", stage.story());
    stage.until(ms);
    stage.gate(pod).expect("it is open")
}

#[test]
fn a_store_that_refuses_keeps_a_gate_closed_for_thirty_seconds() {
    let (reason, message) = opens_at(&mut looks_end(refused()), "new", 30_000);
    assert_eq!((reason, &message[..]), ("StoreUnreachable", "gave up after 30.000 s: connection refused"));
}

#[test]
fn a_store_that_hangs_keeps_a_gate_closed_for_thirty_seconds() {
    let mut stage = Stage::with(&[]).by_hand(&["find_lineage"]);
    stage.sees(&new_pod("new"));
    let (reason, message) = opens_at(&mut stage, "new", 30_000);
    assert_eq!(
        (reason, &message[..]),
        ("StoreUnreachable", "gave up after 30.000 s: the store did not answer")
    );
}

#[test]
fn the_patience_with_a_silent_store_is_the_operators() {
    let policy = Policy { find_timeout: Span::from_secs(3), ..Policy::default() };
    let mut stage = Stage::new(policy);
    stage.answers.insert("find_lineage new".into(), refused());
    stage.sees(&new_pod("new"));
    assert_eq!(opens_at(&mut stage, "new", 3_000).0, "StoreUnreachable");
}

#[test]
fn where_the_store_is_known_to_be_away_a_gate_opens_after_five_seconds() {
    let mut stage = looks_end(refused());
    for pod in ["early", "late", "lucky"] {
        stage.answers.insert(format!("find_lineage {pod}"), refused());
    }
    stage.until(10_000);
    stage.sees(&new_pod("early"));
    assert_eq!(opens_at(&mut stage, "early", 30_000).0, "StoreUnreachable", "nobody heard of it for 30 s");
    stage.until(40_000);
    stage.sees(&new_pod("late"));
    assert_eq!(opens_at(&mut stage, "late", 45_000).0, "StoreUnreachable");
    // Each asks for itself: the store may be back.
    stage.until(50_000);
    stage.sees(&new_pod("lucky"));
    stage.until(53_000);
    stage.answers.insert("find_lineage lucky".into(), found(&[lineage(&["old/1-1"], IntentState::None)]));
    stage.until(55_000);
    assert_eq!(stage.gate("lucky").unwrap().0, "Restored");
    // And its answer counts for those that come after it.
    stage.answers.insert("find_lineage after".into(), refused());
    stage.sees(&new_pod("after"));
    assert_eq!(opens_at(&mut stage, "after", 85_000).0, "StoreUnreachable");
}

#[test]
fn a_store_that_says_later_keeps_a_gate_closed_for_two_minutes() {
    for kind in [FailureKind::Throttled, FailureKind::Transient] {
        let (reason, message) = opens_at(&mut looks_end(failed(kind)), "new", 120_000);
        let told = format!("gave up after 120.000 s: {}", kind.as_str());
        assert_eq!((reason, message), ("TimedOut", told));
    }
    let mut once = looks_end(failed(FailureKind::Throttled));
    once.until(1_000);
    once.answers.insert("find_lineage new".into(), refused());
    assert_eq!(opens_at(&mut once, "new", 120_000).0, "TimedOut", "it has answered");
}

#[test]
fn a_claim_that_is_not_answered_keeps_a_gate_closed_for_two_minutes() {
    let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]);
    stage.answers.insert("claim new".into(), refused());
    stage.sees(&new_pod("new"));
    let (reason, message) = opens_at(&mut stage, "new", 120_000);
    assert_eq!((reason, &message[..]), ("TimedOut", "gave up after 120.000 s: connection refused"));
}

#[test]
fn a_fetch_goes_on_as_long_as_bytes_come_and_a_minute_longer() {
    let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]).by_hand(&["fetch"]);
    stage.sees(&new_pod("new"));
    for at in [50_000, 100_000, 150_000, 200_000] {
        stage.until(at);
        stage.bytes_come("fetch", "new");
    }
    let (reason, message) = opens_at(&mut stage, "new", 260_000);
    let told = "gave up after 260.000 s: nothing more of the state came";
    assert_eq!((reason, &message[..]), ("TimedOut", told));
    assert_eq!(stage.times("cancel", ""), [260_000], "what is under way is ended");
}

#[test]
fn a_fetch_that_is_asked_for_again_and_again_ends_after_a_minute() {
    let mut stage = stage(&[lineage(&["old/1-1"], IntentState::None)]);
    stage.answers.insert("fetch new".into(), failed(FailureKind::Transient));
    stage.sees(&new_pod("new"));
    assert_eq!(opens_at(&mut stage, "new", 60_000).0, "TimedOut");
}

/// A checkpoint is announced for so long, with this committed before it; then no look succeeds.
fn announced(left: u64, before: &[&str], after: Outcome) -> Stage {
    let coming = IntentState::Coming { left: Span::from_secs(left) };
    let mut stage = stage(&[lineage(before, coming)]);
    stage.sees(&new_pod("new"));
    stage.answers.insert("find_lineage new".into(), after);
    stage
}

#[test]
fn an_overdue_intent_ends_the_wait_also_while_nobody_can_tell_of_it() {
    let mut stage = announced(40, &[], failed(FailureKind::Transient));
    let (reason, message) = opens_at(&mut stage, "new", 43_000);
    assert_eq!((reason, &message[..]), ("TimedOut", "gave up after 43.000 s: transient"));
    let mut stage = announced(40, &["old/1-1"], failed(FailureKind::Transient));
    stage.until(42_999);
    assert!(stage.order("fetch").is_empty());
    stage.until(43_000);
    assert_eq!(stage.gate("new").unwrap().0, "Restored", "what was committed before it is taken");
    let mut stage = announced(40, &["old/1-1"], failed(FailureKind::Transient)).by_hand(&["fetch"]);
    stage.until(43_000);
    let last_look = *stage.times("find_lineage", "new").last().unwrap();
    assert_eq!(
        opens_at(&mut stage, "new", last_look + 60_000).0,
        "TimedOut",
        "and not for longer than a minute"
    );
}

#[test]
fn a_store_that_falls_silent_before_the_commit_ends_the_wait_after_a_minute() {
    for before in [&[][..], &["old/1-1"]] {
        let mut stage = announced(600, before, refused());
        let (reason, message) = opens_at(&mut stage, "new", 60_000);
        assert_eq!((reason, &message[..]), ("TimedOut", "gave up after 60.000 s: connection refused"));
    }
}
