//! A commit that finds its packs endangered by garbage collection: saved again while there is time, else left out.

use crate::stage::{Stage, TERMINATE, stateful};
use evacuation::effect::{Action, FlushKind, PodAction};
use evacuation::event::{Event, FailureKind};
use evacuation::report::StateOutcome;

/// Whether the commits left out what was endangered.
fn left_out(stage: &Stage) -> Vec<bool> {
    let commits = stage.actions("commit", "gold");
    let flag = |action: &Action| match action {
        Action::Pod { action: PodAction::Commit { without_endangered, partial, .. }, .. } => {
            assert!(!without_endangered || *partial, "it must say that it is partial");
            Some(*without_endangered)
        }
        _ => None,
    };
    commits.iter().filter_map(flag).collect()
}

#[test]
fn it_is_saved_three_times_more_and_then_committed_without_them() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["commit"]);
    stage.notice(TERMINATE, "n", 120);
    for again in 1..=3 {
        stage.fails("commit", "gold", FailureKind::Endangered);
        assert_eq!(stage.times("save", "gold").len(), 1 + again, "{}", stage.story());
    }
    assert_eq!(left_out(&stage), [false; 4]);
    stage.fails("commit", "gold", FailureKind::Endangered);
    assert_eq!(stage.times("save", "gold").len(), 4, "not a fifth time: {}", stage.story());
    assert_eq!(left_out(&stage), [false, false, false, false, true]);
    stage.done("commit", "gold");
    stage.until(5_000);
    stage.gone("gold");
    let entry = stage.entry("gold").unwrap();
    assert_eq!(entry.state, StateOutcome::Partial);
    assert!(entry.state_reason.unwrap().contains("no time to save it again"));
}

#[test]
fn one_that_is_saved_again_and_committed_whole_is_reported_whole() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["commit"]);
    stage.notice(TERMINATE, "n", 120);
    stage.fails("commit", "gold", FailureKind::Endangered);
    stage.done("commit", "gold");
    stage.until(5_000);
    stage.gone("gold");
    assert_eq!(stage.entry("gold").unwrap().state, StateOutcome::Saved);
}

#[test]
fn after_the_cut_off_nothing_is_saved_again() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["commit", "save"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(97_500);
    stage.done("save", "gold");
    // Past its cut-off at 98 s.
    stage.until(98_100);
    stage.fails("commit", "gold", FailureKind::Endangered);
    assert_eq!((stage.times("save", "gold").len(), left_out(&stage)), (1, vec![false, true]));
    // What is left of it can be endangered too: it is tried again, and given up in the end.
    for _ in 0..3 {
        stage.fails("commit", "gold", FailureKind::Endangered);
        let later = stage.now() + 600;
        stage.until(later);
    }
    assert_eq!(left_out(&stage), [false, true, true, true, true]);
    stage.fails("commit", "gold", FailureKind::NotFound);
    stage.until(116_000);
    assert_eq!(stage.entry("gold").unwrap().state, StateOutcome::Lost);
}

#[test]
fn a_pre_copy_is_saved_again_three_times_and_then_its_round_is_dropped() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["commit"]);
    stage.hear(Event::PreCopyRequested);
    for again in 1..=3 {
        stage.fails("commit", "gold", FailureKind::Endangered);
        assert_eq!(stage.times("save", "gold").len(), 1 + again, "{}", stage.story());
    }
    stage.fails("commit", "gold", FailureKind::Endangered);
    stage.until(60_000);
    assert_eq!(stage.times("save", "gold").len(), 4, "{}", stage.story());
    let kind = |action: &Action| match action {
        Action::Pod { action: PodAction::Save { kind, .. }, .. } => Some(*kind),
        _ => None,
    };
    let kinds: Vec<_> = stage.actions("save", "gold").iter().filter_map(kind).collect();
    assert_eq!(kinds, [FlushKind::PreCopy; 4]);
}
