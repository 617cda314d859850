//! What the core knows, at any moment, of what is left of each save: what a plan under a notice is made from.

use crate::stage::{Stage, TERMINATE, stateful};
use evacuation::event::Event;
use evacuation::moment::Span;
use evacuation::pod::PodFacts;

const MIB: u64 = 1 << 20;

/// Three tiers of a GiB each on a link of 100 MiB/s, under a notice.
fn three_tiers(by_hand: &[&str]) -> Stage {
    let mut stage = Stage::with(&[]).by_hand(by_hand);
    for (name, priority) in [("gold", 100), ("twin", 100), ("silver", 10)] {
        stage.sees(&PodFacts { priority, ..stateful(name) });
    }
    pass(&mut stage, 0);
    stage.notice(TERMINATE, "n", 120);
    stage
}

/// Time passes, and something happens that changes nothing.
fn pass(stage: &mut Stage, until: u64) {
    stage.until(until);
    stage.hear(Event::LinkMeasured { bytes_per_second: 100 * MIB });
}

#[test]
fn what_the_link_has_carried_is_sent_of_the_first_save_first_and_of_the_next_once_that_is_through() {
    let mut stage = three_tiers(&["save"]);
    let left = |stage: &Stage| ["gold", "twin", "silver"].map(|pod| stage.facts(pod).send.unwrap() / MIB);
    assert_eq!(left(&stage), [1024, 1024, 1024]);
    pass(&mut stage, 5_000);
    assert_eq!(left(&stage), [524, 1024, 1024]);
    pass(&mut stage, 7_000);
    assert_eq!(left(&stage), [324, 1024, 1024]);
    pass(&mut stage, 11_000);
    assert_eq!(left(&stage), [0, 948, 1024]);
    pass(&mut stage, 21_000);
    assert_eq!(left(&stage), [0, 0, 972]);
    pass(&mut stage, 40_000);
    assert_eq!(left(&stage), [0, 0, 0]);
}

#[test]
fn a_flush_that_takes_longer_than_expected_is_expected_to_take_as_long_again() {
    let mut stage = three_tiers(&["flush"]);
    // A second, where no flush was ever measured.
    for (at, left) in [(0, 1_000), (400, 600), (999, 1), (1_000, 1_000), (3_000, 3_000)] {
        pass(&mut stage, at);
        assert_eq!(stage.facts("gold").flush, Some(Span::from_millis(left)), "after {at} ms");
    }
}

#[test]
fn an_engine_whose_flush_was_never_measured_is_expected_to_be_as_slow_as_the_slowest_of_the_node() {
    let mut stage = three_tiers(&["flush"]);
    stage.until(2_000);
    stage.done("flush", "gold");
    assert_eq!(stage.facts("silver").flush, Some(Span::from_secs(2)), "a GiB as well");
    stage.until(4_000);
    stage.done("flush", "twin");
    assert_eq!(stage.facts("silver").flush, Some(Span::from_secs(4)));
}
