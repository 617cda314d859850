//! How long a gate stays closed, by what was heard of the store.

use crate::pen::{Pen, engine, ms, uid};
use evacuation::effect::{Action, EffectId, RestoreAction, RestoreOutcome};
use evacuation::event::{Candidate, Done, Event, FailureKind, IntentState, Outcome, Source};
use evacuation::moment::Span;
use evacuation::pod::PodFacts;
use evacuation::policy::Policy;

fn restore(pod: &str, action: RestoreAction) -> Action {
    Action::Restore { uid: uid(pod), action }
}

fn failed(kind: FailureKind) -> Outcome {
    Outcome::Failed { kind, why: "why".into() }
}

/// A new pod appears at `at` and looks for its state, which ends so a tenth of a second later.
fn looks(pen: &mut Pen, pod: &str, at: u64, outcome: Outcome) {
    pen.sees(at, &PodFacts { restore_decided: false, ..engine(pod) });
    pen.asks(restore(pod, RestoreAction::FindLineage));
    pen.answer(&format!("find_lineage {pod}"), at + 100, outcome);
}

fn looked(outcome: Outcome) -> Pen {
    let mut pen = Pen::new(Policy::default(), &[]);
    looks(&mut pen, "new", 2_000, outcome);
    pen
}

fn opens(pen: &mut Pen, pod: &str, at: u64, outcome: RestoreOutcome) {
    pen.woke(at);
    pen.asks(restore(pod, RestoreAction::OpenGate { outcome, message: String::new() }));
}

/// It is good until a second after `by`, and not any longer.
fn ends(mut pen: Pen, by: u64, why: &str) {
    pen.woke(by + 1_000);
    pen.is_good();
    pen.woke(by + 1_001);
    pen.breaks(11, why);
}

#[test]
fn a_gate_that_waits_for_a_silent_store_is_a_violation_of_guarantee_11() {
    for silence in [failed(FailureKind::Unreachable), Outcome::TimedOut] {
        ends(looked(silence), 32_000, "the gate of ns/new (new) is still closed: the store does not answer");
    }
}

#[test]
fn a_gate_that_waits_for_a_store_known_to_be_away_is_a_violation_of_11() {
    let mut pen = looked(failed(FailureKind::Unreachable));
    opens(&mut pen, "new", 32_000, RestoreOutcome::StoreUnreachable);
    looks(&mut pen, "late", 40_000, failed(FailureKind::Unreachable));
    ends(pen, 45_000, "the gate of ns/late (late) is still closed: the store does not answer");
}

#[test]
fn what_a_store_has_answered_to_one_ends_its_silence_for_all() {
    let mut pen = looked(failed(FailureKind::Unreachable));
    opens(&mut pen, "new", 32_000, RestoreOutcome::StoreUnreachable);
    looks(
        &mut pen,
        "heard",
        33_000,
        Outcome::Done(Done::Lineages { candidates: vec![], worth_waiting_for: None }),
    );
    opens(&mut pen, "heard", 33_200, RestoreOutcome::NothingToRestore);
    looks(&mut pen, "late", 40_000, failed(FailureKind::Unreachable));
    ends(pen, 70_000, "the gate of ns/late (late) is still closed: the store does not answer");
}

#[test]
fn a_gate_that_waits_for_one_that_says_later_is_a_violation_of_11() {
    for kind in [FailureKind::Throttled, FailureKind::Transient] {
        ends(looked(failed(kind)), 122_000, "is still closed: it found nothing that it may take");
    }
}

#[test]
fn a_gate_that_is_opened_too_early_for_a_silent_store_is_a_violation_of_11() {
    let mut pen = looked(failed(FailureKind::Unreachable));
    opens(&mut pen, "new", 31_999, RestoreOutcome::StoreUnreachable);
    pen.breaks(11, "the gate of new was opened 1 ms too early");
    let mut pen = looked(failed(FailureKind::Throttled));
    opens(&mut pen, "new", 122_000, RestoreOutcome::StoreUnreachable);
    pen.breaks(11, "says that the store did not answer, and it did");
}

/// Its claim is taken at 2,200 ms, and its fetch is asked for.
fn fetches() -> Pen {
    let mut pen = looked(failed(FailureKind::Transient));
    pen.asks(restore("new", RestoreAction::Claim { lineage: "l".into() }));
    pen.answer("claim", 2_200, Outcome::Done(Done::Claimed { epoch: 2, resumed: false }));
    pen.asks(restore("new", RestoreAction::Fetch { lineage: "l".into(), generation: "l/1-1".into() }));
    pen
}

#[test]
fn a_gate_that_waits_for_a_fetch_without_bytes_is_a_violation_of_11() {
    ends(fetches(), 62_200, "the gate of ns/new (new) is still closed: nothing of its state comes");
    let mut pen = fetches();
    let fetch = pen.steps.iter().flat_map(|step| &step.effects).last().map(|effect| effect.id);
    for at in [60_000, 110_000] {
        pen.event(at, Event::BytesCame { id: fetch.unwrap_or(EffectId(0)) });
    }
    ends(pen, 170_000, "the gate of ns/new (new) is still closed: nothing of its state comes");
}

#[test]
fn a_wait_for_a_checkpoint_that_is_overdue_is_a_violation_of_guarantee_11() {
    let mut pen = looked(failed(FailureKind::Transient));
    pen.asks(restore("new", RestoreAction::Claim { lineage: "l".into() }));
    pen.answer("claim", 2_200, Outcome::Done(Done::Claimed { epoch: 2, resumed: false }));
    let coming = Candidate {
        lineage: "l".into(),
        own_name: false,
        spec_matches: true,
        generations: vec!["l/1-1".into()],
        newest_unix_ms: 1,
        source: Source::Leaving,
        intent: IntentState::Coming { left: Span::from_secs(20) },
        taken: false,
    };
    pen.asks(restore("new", RestoreAction::FindLineage));
    let found = Done::Lineages { candidates: vec![coming], worth_waiting_for: None };
    pen.answer("find_lineage", 3_000, Outcome::Done(found));
    assert_eq!(pen.policy.call_timeout, Span::from_secs(3));
    assert_eq!(pen.steps.last().map(|step| step.at), Some(ms(3_000)));
    ends(pen, 26_000, "ns/new (new) still waits for a checkpoint that is overdue");
}
