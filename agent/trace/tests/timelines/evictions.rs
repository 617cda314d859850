//! Whose eviction waits for whose, and what is said of it all.

use crate::stage::{Stage, TERMINATE, holding, pod, stateful};
use evacuation::effect::{Action, NodeAction};
use evacuation::pod::{DaemonDrain, Owner, PodFacts};
use evacuation::policy::{EvictOrder, Policy};

fn daemon(name: &str, priority: i32) -> PodFacts {
    let owner = Owner::Daemon { drain: DaemonDrain::Late, tolerates_all: false };
    PodFacts { owner, priority, ..pod(name) }
}

#[test]
fn a_pod_waits_for_a_slot_until_its_cut_off_and_no_longer() {
    let policy = Policy { eviction_slots: 1, ..Policy::default() };
    let call = policy.call_timeout.as_millis();
    let mut stage = Stage::new(policy).by_hand(&["evict first"]);
    stage.sees(&PodFacts { priority: 100, ..pod("first") });
    stage.sees(&pod("second"));
    stage.notice(TERMINATE, "n", 120);
    stage.until(call - 1);
    assert!(stage.times("evict", "second").is_empty(), "the only slot is taken: {}", stage.story());
    stage.until(call + 50);
    assert_eq!(
        stage.times("evict", "second"),
        [call],
        "the first has had no answer, and waits before it asks again"
    );

    let policy = Policy { eviction_slots: 0, ..Policy::default() };
    let mut stage = Stage::new(policy);
    stage.sees(&pod("second"));
    stage.notice(TERMINATE, "n", 120);
    stage.until(110_000);
    assert_eq!(stage.times("evict", "second"), [98_000], "{}", stage.story());
}

#[test]
fn with_lowest_first_a_tier_does_not_wait_for_pods_that_stay_or_leave_late() {
    let mut stage = Stage::new(Policy { evict_order: EvictOrder::LowestFirst, ..Policy::default() });
    stage.sees(&daemon("logs", 1));
    let stays = Owner::Daemon { drain: DaemonDrain::Stay, tolerates_all: false };
    stage.sees(&PodFacts { owner: stays, priority: 2, ..pod("cni") });
    stage.sees(&PodFacts { priority: 10, ..pod("web") });
    stage.notice(TERMINATE, "n", 120);
    stage.until(120_000);
    assert_eq!(stage.times("evict", "web"), [0], "{}", stage.story());
    assert_eq!(stage.times("evict", "logs"), [105_000]);
}

#[test]
fn with_lowest_first_a_tier_waits_for_the_lower_one_up_to_its_share_of_the_window() {
    let mut stage = Stage::new(Policy { evict_order: EvictOrder::LowestFirst, ..Policy::default() });
    stage.sees(&PodFacts { priority: 1, ..pod("low") });
    stage.sees(&PodFacts { priority: 5, ..pod("middle") });
    stage.sees(&PodFacts { priority: 10, ..pod("high") });
    stage.notice(TERMINATE, "n", 120);
    stage.until(20_000);
    stage.gone("low");
    assert_eq!(stage.times("evict", "middle"), [20_000], "the lower tier is gone");
    stage.until(100_000);
    // The middle one is never gone: two thirds of the 115 s.
    assert_eq!(stage.times("evict", "high"), [76_666]);
    assert_eq!(stage.times("evict", "low"), [0]);
}

#[test]
fn the_report_names_the_moment_of_the_cordon_and_none_where_there_was_none() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["mark_node"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(500);
    stage.done("mark_node", "");
    stage.until(5_000);
    stage.gone("web");
    let report = stage.report().unwrap();
    assert_eq!(report.cordoned.map(|at| at.as_millis()), Some(1_000_500), "not that of a later event");
    let mut never = Stage::with(&[pod("web")]).by_hand(&["mark_node"]);
    never.notice(TERMINATE, "n", 120);
    never.until(116_000);
    assert_eq!(never.report().unwrap().cordoned, None);
}

#[test]
fn an_evacuation_says_that_it_begins_and_is_busy_until_its_report_is_written() {
    let mut stage = Stage::with(&[pod("web"), holding("gold")]).by_hand(&["write_report"]);
    assert!(!stage.status().busy && !stage.status().finished);
    stage.notice(TERMINATE, "n", 120);
    let begins = stage.asked.iter().any(|(_, action)| {
        matches!(action, Action::Node(NodeAction::Publish(event))
            if event.reason == "EvacuationStarted" && event.note.contains("115.000 s left"))
    });
    assert!(begins, "{}", stage.story());
    stage.gone("web");
    stage.gone("gold");
    assert!(stage.status().busy && !stage.status().finished, "the report is on its way");
    stage.done("write_report", "");
    assert!(!stage.status().busy && stage.status().finished);
}

#[test]
fn a_notice_with_just_a_sixth_of_the_minimum_window_left_is_not_short() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["flush"]);
    stage.notice(TERMINATE, "n", 10);
    assert_eq!(stage.deadline(), Some(5_000), "10 s less the margin of 5 s");
    let mut nearer = Stage::with(&[stateful("gold")]).by_hand(&["flush"]);
    nearer.notice(TERMINATE, "n", 9);
    assert_eq!(nearer.deadline(), Some(30_000));
}
