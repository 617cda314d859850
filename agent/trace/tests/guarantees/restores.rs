//! The replacement's side.

use crate::pen::{Pen, engine, uid};
use evacuation::effect::{Action, RestoreAction, RestoreOutcome};
use evacuation::event::{Done, FailureKind, Outcome, Verification};
use evacuation::pod::PodFacts;
use evacuation::policy::Policy;

fn new_pod() -> PodFacts {
    PodFacts { restore_decided: false, ..engine("new") }
}

fn claim(lineage: &str) -> Action {
    Action::Restore { uid: uid("new"), action: RestoreAction::Claim { lineage: lineage.into() } }
}

fn fetch() -> Action {
    Action::Restore {
        uid: uid("new"),
        action: RestoreAction::Fetch { lineage: "l".into(), generation: "l/1-1".into() },
    }
}

fn opens(outcome: RestoreOutcome) -> Action {
    Action::Restore { uid: uid("new"), action: RestoreAction::OpenGate { outcome, message: String::new() } }
}

/// Claimed and fetched; the fingerprint is about to be compared.
fn fetched() -> Pen {
    let mut pen = Pen::new(Policy::default(), &[new_pod()]);
    pen.asks(claim("l"));
    pen.answer("claim", 1_100, Outcome::Done(Done::Claimed { epoch: 2, resumed: false }));
    pen.asks(fetch());
    pen.answer("fetch", 1_200, Outcome::Done(Done::Fetched { bytes: 100 }));
    pen
}

#[test]
fn a_restore_in_order_is_no_violation() {
    let mut pen = fetched();
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::CheckFingerprint });
    pen.answer("check_fingerprint", 1_300, Outcome::Done(Done::FingerprintMatches { state_bytes: 0 }));
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ImportState });
    pen.done("import_state", 1_400);
    pen.asks(opens(RestoreOutcome::Restored));
    pen.is_good();
    // The gate is open: nothing is restored any more.
    pen.asks(claim("l"));
    pen.breaks(6, "although its restore is decided");
}

/// As [`fetched`], with an engine that holds so much already.
fn beside(state_bytes: u64) -> Pen {
    let mut pen = fetched();
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::CheckFingerprint });
    pen.answer("check_fingerprint", 1_300, Outcome::Done(Done::FingerprintMatches { state_bytes }));
    pen
}

#[test]
fn state_over_an_engines_own_is_a_violation_of_guarantee_6() {
    let import = Action::Restore { uid: uid("new"), action: RestoreAction::ImportState };
    let mut pen = beside(5);
    pen.asks(import.clone());
    pen.breaks(6, "into an engine that has state of its own");
    let mut pen = beside(4);
    pen.asks(import);
    pen.is_good();
}

#[test]
fn an_engines_own_state_that_is_kept_frees_the_claim() {
    let mut pen = beside(5);
    pen.asks(opens(RestoreOutcome::HadState));
    pen.breaks(6, "and its claim is kept");
    let mut pen = beside(4);
    pen.asks(Action::Restore {
        uid: uid("new"),
        action: RestoreAction::GiveBackClaim { lineage: "l".into() },
    });
    pen.asks(opens(RestoreOutcome::HadState));
    pen.breaks(6, "although that is the warm-up of an engine that served nobody");
}

#[test]
fn a_claim_of_a_state_that_an_engine_has_is_not_given_back() {
    let mut pen = beside(0);
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ImportState });
    pen.done("import_state", 1_400);
    pen.asks(Action::Restore {
        uid: uid("new"),
        action: RestoreAction::GiveBackClaim { lineage: "l".into() },
    });
    pen.breaks(6, "although the engine may hold its state");
}

#[test]
fn a_state_that_is_not_used_and_called_restored_violates_guarantee_6() {
    let mut pen = beside(0);
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ImportState });
    pen.done("import_state", 1_400);
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::Verify });
    let not_used = Verification::NotUsed { why: "0 of 500 tokens".into() };
    pen.answer("verify", 1_500, Outcome::Done(Done::Verified(not_used)));
    pen.asks(opens(RestoreOutcome::RestoredUnverified));
    pen.breaks(6, "although the engine does not use it");
}

#[test]
fn two_claims_of_one_pod_are_a_violation_of_guarantee_6() {
    let mut pen = fetched();
    pen.asks(claim("another"));
    pen.breaks(6, "while it holds another claim");
    let mut pen = Pen::new(Policy::default(), &[new_pod()]);
    pen.asks(claim("l"));
    pen.asks(claim("l"));
    pen.breaks(6, "while the same is open");
}

#[test]
fn what_is_fetched_without_a_claim_is_a_violation_of_guarantee_6() {
    let mut pen = Pen::new(Policy::default(), &[new_pod()]);
    pen.asks(fetch());
    pen.breaks(6, "without a claim");
}

#[test]
fn a_proof_before_the_fetch_is_a_violation_of_guarantee_6() {
    let mut pen = Pen::new(Policy::default(), &[new_pod()]);
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::CheckFingerprint });
    pen.breaks(6, "before anything is fetched");
}

#[test]
fn what_is_handed_over_unproven_is_a_violation_of_guarantee_6() {
    let mut pen = fetched();
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ImportState });
    pen.breaks(6, "before claim, fetch and proof");
}

#[test]
fn what_does_not_fit_and_is_called_restored_is_a_violation_of_guarantee_6() {
    let mut pen = fetched();
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::CheckFingerprint });
    let outcome = Outcome::Failed { kind: FailureKind::Mismatch, why: "other weights".into() };
    pen.answer("check_fingerprint", 1_300, outcome);
    pen.is_good();
    pen.asks(opens(RestoreOutcome::Restored));
    pen.breaks(6, "although it was refused");
}

#[test]
fn what_the_engine_refused_and_is_handed_over_again_is_a_violation_of_guarantee_6() {
    let mut pen = fetched();
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::CheckFingerprint });
    pen.answer("check_fingerprint", 1_300, Outcome::Done(Done::FingerprintMatches { state_bytes: 0 }));
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ImportState });
    let outcome = Outcome::Failed { kind: FailureKind::Mismatch, why: "another model".into() };
    pen.answer("import_state", 1_400, outcome);
    pen.is_good();
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ImportState });
    pen.breaks(6, "although it does not fit");
}

#[test]
fn a_restore_into_a_pod_that_was_never_seen_is_a_violation_of_guarantee_6() {
    let mut pen = Pen::new(Policy::default(), &[]);
    pen.asks(claim("l"));
    pen.breaks(6, "for a pod that was never seen");
}

#[test]
fn a_gate_that_stays_closed_is_a_violation_of_guarantee_11() {
    let mut pen = fetched();
    pen.woke(902_000);
    pen.is_good();
    pen.woke(902_001);
    pen.breaks(11, "the gate of ns/new (new) is still closed: its restore has taken too long");
}

/// Its restore is decided, and its engine was restarted.
fn restarted() -> Pen {
    let mut pen = Pen::new(Policy::default(), &[engine("new")]);
    pen.sees(1_100, &PodFacts { restarts: 1, ..engine("new") });
    pen
}

#[test]
fn a_recall_in_order_is_no_violation() {
    let mut pen = restarted();
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ReloadLocal });
    pen.answer("reload_local", 1_200, Outcome::Done(Done::Fetched { bytes: 5 }));
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::CheckFingerprint });
    pen.answer("check_fingerprint", 1_300, Outcome::Done(Done::FingerprintMatches { state_bytes: 0 }));
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ImportState });
    pen.is_good();
}

#[test]
fn a_recall_without_a_restart_and_one_that_proves_nothing_are_violations_of_guarantee_6() {
    let mut pen = Pen::new(Policy::default(), &[engine("new")]);
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ReloadLocal });
    pen.breaks(6, "although its engine was not restarted");

    let mut pen = restarted();
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ReloadLocal });
    pen.answer("reload_local", 1_200, Outcome::Done(Done::Fetched { bytes: 5 }));
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ImportState });
    pen.breaks(6, "before claim, fetch and proof");

    let mut pen = restarted();
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ReloadLocal });
    pen.answer("reload_local", 1_200, Outcome::Done(Done::Fetched { bytes: 5 }));
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::CheckFingerprint });
    pen.answer(
        "check_fingerprint",
        1_300,
        Outcome::Failed { kind: FailureKind::Mismatch, why: "weights".into() },
    );
    pen.asks(Action::Restore { uid: uid("new"), action: RestoreAction::ImportState });
    pen.breaks(6, "although its restore is decided");
}

#[test]
fn a_prefetch_without_a_claim_is_a_violation_of_guarantee_6() {
    let mut pen = Pen::new(Policy::default(), &[new_pod()]);
    pen.asks(Action::Restore {
        uid: uid("new"),
        action: RestoreAction::Prefetch { lineage: "l".into(), generation: "l/1-1".into() },
    });
    pen.breaks(6, "without a claim");
}
