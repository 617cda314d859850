//! What is dropped when not all of it fits, and what is kept of it.

use crate::stage::{Stage, TERMINATE, stateful};
use evacuation::effect::{Action, PodAction};
use evacuation::event::{Done, Event, Outcome};
use evacuation::notice::NoticeKind;
use evacuation::pod::PodFacts;
use evacuation::report::StateOutcome;

const GIB: u64 = 1 << 30;

/// A pod of this priority with so many GiB of state, on a link of 100 MiB/s: 98 s of it are about 9 GiB.
fn tier(stage: &mut Stage, name: &str, priority: i32, gib: u64) {
    let looked = Outcome::Done(Done::Inspected { state_bytes: gib * GIB, busy: false, doubt: None });
    let flushed = Outcome::Done(Done::Flushed { bytes: gib * GIB, evidence: true });
    stage.answers.insert(format!("inspect_engine {name}"), looked);
    stage.answers.insert(format!("flush {name}"), flushed);
    stage.sees(&PodFacts { priority, ..stateful(name) });
}

fn short_link() -> Stage {
    let mut stage = Stage::with(&[]).by_hand(&["save"]);
    stage.hear(Event::LinkMeasured { bytes_per_second: 100 << 20 });
    stage
}

/// The names in the order in which the link serves them.
fn on_the_link(stage: &Stage) -> Vec<String> {
    let mut ranks: Vec<(u64, String)> = (stage.asked.iter())
        .filter_map(|(_, action)| match action {
            Action::Pod { uid: pod, action: PodAction::Save { rank, .. } } => Some((*rank, pod.0.clone())),
            _ => None,
        })
        .collect();
    ranks.sort();
    ranks.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn what_cannot_be_whole_even_alone_stands_behind_all_that_can() {
    let mut stage = short_link();
    tier(&mut stage, "gold", 100, 80);
    tier(&mut stage, "silver", 10, 4);
    tier(&mut stage, "bronze", 1, 4);
    stage.notice(TERMINATE, "n", 120);
    stage.until(10_000);
    assert_eq!(on_the_link(&stage), ["silver", "bronze", "gold"]);
}

#[test]
fn of_two_that_cannot_be_whole_the_more_important_sends_first_and_neither_flushes_before_one_that_can() {
    let mut stage = short_link().by_hand(&["flush bronze"]);
    tier(&mut stage, "gold", 100, 80);
    tier(&mut stage, "silver", 10, 80);
    tier(&mut stage, "bronze", 1, 4);
    stage.notice(TERMINATE, "n", 120);
    stage.until(2_000);
    assert!(stage.times("flush", "gold").is_empty(), "it would share the disk: {}", stage.story());
    stage.done("flush", "bronze");
    stage.until(10_000);
    assert_eq!(on_the_link(&stage), ["bronze", "gold", "silver"]);
}

#[test]
fn the_lowest_tier_is_dropped_when_all_but_it_fit() {
    let mut stage = short_link();
    tier(&mut stage, "gold", 100, 4);
    tier(&mut stage, "silver", 10, 8);
    tier(&mut stage, "bronze", 1, 3);
    stage.notice(TERMINATE, "n", 120);
    stage.until(10_000);
    assert_eq!(on_the_link(&stage), ["gold", "bronze", "silver"], "8 GiB do not fit behind 4");
}

#[test]
fn all_of_it_fits_again_once_the_link_is_faster() {
    let mut stage = short_link().by_hand(&["flush"]);
    tier(&mut stage, "gold", 100, 4);
    tier(&mut stage, "silver", 10, 8);
    tier(&mut stage, "bronze", 1, 3);
    stage.notice(TERMINATE, "n", 120);
    stage.hear(Event::LinkMeasured { bytes_per_second: 1 << 30 });
    stage.until(10_000);
    for name in ["gold", "silver", "bronze"] {
        stage.done("flush", name);
    }
    assert_eq!(on_the_link(&stage), ["gold", "silver", "bronze"]);
}

#[test]
fn a_report_says_what_a_state_needed_of_the_link_and_what_it_had() {
    let mut stage = short_link();
    tier(&mut stage, "gold", 100, 80);
    stage.notice(TERMINATE, "n", 120);
    stage.until(60_000);
    let part = Done::Saved { bytes: 4 * GIB, sent: 4 * GIB, left_out: Some("slot-1".into()), newest: None };
    stage.answers_now("save", "gold", Outcome::Done(part));
    stage.until(126_000);
    let entry = stage.entry("gold").unwrap();
    assert_eq!(entry.state, StateOutcome::Partial);
    let why = entry.state_reason.unwrap();
    assert!(why.contains("of the link and had"), "{why}");
}

#[test]
fn a_part_does_not_hide_an_earlier_generation_that_holds_more() {
    let mut stage = Stage::with(&[stateful("gold")]);
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(10_000);
    let part = |bytes| Done::Saved { bytes, sent: bytes, left_out: Some("slot-1".into()), newest: None };
    stage.answers.insert("save gold".into(), Outcome::Done(part(GIB / 2)));
    stage.notice(TERMINATE, "n", 120);
    stage.until(126_000);
    let entry = stage.entry("gold").unwrap();
    assert_eq!((entry.state, entry.generation.as_deref()), (StateOutcome::Earlier, Some("gold/1-1")));
    assert_eq!(stage.times("commit", "gold").len(), 1, "{}", stage.story());
    assert_eq!(stage.times("abandon_intent", "gold").len(), 1, "the replacement takes what there is");
}

#[test]
fn a_pre_copy_that_holds_less_than_the_newest_generation_is_not_committed() {
    let part = |bytes, newest: Option<u64>| {
        let newest = newest.map(|held| ("gold/1-7".to_owned(), held));
        Outcome::Done(Done::Saved { bytes, sent: bytes, left_out: Some("slot-1".into()), newest })
    };
    // An earlier life of the agent committed it, or a round of this one.
    for (first, second, commits) in [
        (part(GIB / 2, Some(GIB)), part(GIB, Some(GIB)), vec![30_000]),
        (part(GIB / 2, None), part(GIB / 4, None), vec![0]),
        (part(GIB / 2, None), part(GIB / 2, None), vec![0, 30_000]),
    ] {
        let mut stage = Stage::with(&[stateful("gold")]);
        stage.answers.insert("save gold".into(), first);
        let committed = Done::Committed { generation: "gold/1-1".into(), bytes: GIB / 2 };
        stage.answers.insert("commit gold".into(), Outcome::Done(committed));
        stage.notice(NoticeKind::Rebalance, "r", 0);
        stage.until(20_000);
        stage.answers.insert("save gold".into(), second);
        stage.until(50_000);
        assert_eq!(stage.times("save", "gold"), [0, 30_000], "{}", stage.story());
        assert_eq!(stage.times("commit", "gold"), commits, "{}", stage.story());
    }
}

#[test]
fn a_part_does_not_hide_what_an_earlier_life_committed() {
    let mut stage = Stage::with(&[stateful("gold")]);
    let newest = Some(("gold/1-7".to_owned(), GIB));
    let part = Done::Saved { bytes: GIB / 2, sent: GIB / 2, left_out: Some("slot-1".into()), newest };
    stage.answers.insert("save gold".into(), Outcome::Done(part));
    stage.notice(TERMINATE, "n", 120);
    stage.until(126_000);
    let entry = stage.entry("gold").unwrap();
    assert_eq!((entry.state, entry.generation.as_deref()), (StateOutcome::Earlier, Some("gold/1-7")));
    assert!(stage.times("commit", "gold").is_empty(), "{}", stage.story());
}

#[test]
fn pre_copies_take_no_more_than_their_share_of_the_link() {
    let mut stage = Stage::with(&[stateful("gold")]);
    // A GiB takes 10.24 s: with a tenth of the link, a round every 102.4 s.
    stage.hear(Event::LinkMeasured { bytes_per_second: 100 << 20 });
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(250_000);
    assert_eq!(stage.times("save", "gold"), [0, 102_400, 204_800]);
}

#[test]
fn a_round_that_takes_longer_than_its_interval_is_not_followed_by_the_next_at_once() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["save"]);
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(50_000);
    stage.done("save", "gold");
    stage.until(120_000);
    assert_eq!(stage.times("flush", "gold"), [0, 100_000], "as long as it took");
}

#[test]
fn what_is_left_to_send_after_a_pre_copy_decides_what_fits() {
    let mut stage = short_link();
    stage.by_hand.clear();
    tier(&mut stage, "gold", 100, 12);
    tier(&mut stage, "silver", 10, 2);
    let saved = |sent| Outcome::Done(Done::Saved { bytes: 12 * GIB, sent, left_out: None, newest: None });
    stage.answers.insert("save gold".into(), saved(GIB));
    let committed = Done::Committed { generation: "gold/1-1".into(), bytes: 12 * GIB };
    stage.answers.insert("commit gold".into(), Outcome::Done(committed));
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(300_000);
    assert!(stage.times("commit", "gold").len() >= 2, "{}", stage.story());
    stage.asked.clear();
    stage.notice(TERMINATE, "n", 120);
    stage.until(301_000);
    assert_eq!(on_the_link(&stage), ["gold", "silver"], "12 GiB would not fit, the GiB that changes does");
}
