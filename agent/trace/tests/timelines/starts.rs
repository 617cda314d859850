//! A life hears of its node, its pods and IMDS in any order: nothing that came early is lost or counted from too late.

use crate::stage::{Stage, TERMINATE, holding, pod, stateful};
use evacuation::effect::{Action, PodAction};
use evacuation::event::Event;
use evacuation::moment::Moment;
use evacuation::notice::NoticeKind;
use evacuation::pod::PodFacts;
use evacuation::policy::Policy;

#[test]
fn a_notice_that_waits_for_the_node_counts_from_when_it_was_seen() {
    let mut stage = Stage::unread(Policy::default());
    stage.notice(TERMINATE, "n", 120);
    stage.sees(&pod("web"));
    stage.hear(Event::PodsListed);
    stage.until(40_000);
    assert!(stage.asked.is_empty(), "{}", stage.story());
    stage.reads_node();
    let mark = stage.mark().unwrap();
    assert_eq!((stage.deadline(), mark.began), (Some(115_000), Moment::from_millis(1_000_000)));
    assert_eq!(stage.times("evict", "web"), [40_000]);
    let began = stage.report().map(|report| report.noticed);
    stage.gone("web");
    assert_eq!(began.or(stage.report().map(|report| report.noticed)), Some(mark.began));
}

#[test]
fn a_notice_whose_time_passed_unread_gets_the_minimum_window() {
    let mut stage = Stage::unread(Policy::default());
    stage.notice(TERMINATE, "n", 120);
    stage.until(130_000);
    stage.hear(Event::PodsListed);
    stage.reads_node();
    assert_eq!(stage.deadline(), Some(130_000 + Policy::default().minimum_window.as_millis()));
}

#[test]
fn a_notice_waits_three_seconds_for_the_list_and_later_pods_leave_too() {
    let mut stage = Stage::unread(Policy::default());
    stage.reads_node();
    stage.until(500);
    stage.notice(TERMINATE, "n", 120);
    stage.until(3_499);
    assert!(stage.times("mark_node", "").is_empty(), "{}", stage.story());
    stage.until(9_000);
    assert_eq!((stage.times("mark_node", ""), stage.deadline()), (vec![3_500], Some(115_500)));
    assert!(stage.report().is_none(), "pods may be there: {}", stage.story());
    stage.sees(&pod("web"));
    stage.hear(Event::PodsListed);
    assert_eq!(stage.times("evict", "web"), [9_000]);
    stage.gone("web");
    assert!(stage.report().unwrap().complete);
}

#[test]
fn a_list_that_never_ends_does_not_keep_the_report_from_being_written() {
    let mut stage = Stage::unread(Policy::default());
    stage.reads_node();
    stage.notice(TERMINATE, "n", 120);
    stage.until(130_000);
    assert_eq!(stage.times("write_report", ""), [113_500, 115_000]);
    assert!(!stage.report().unwrap().complete);
}

#[test]
fn a_notice_that_is_withdrawn_before_the_node_is_known_begins_nothing() {
    let mut stage = Stage::unread(Policy::default());
    stage.notice(TERMINATE, "n", 120);
    stage.withdrawn("n");
    stage.hear(Event::PodsListed);
    stage.reads_node();
    stage.until(20_000);
    assert!(stage.times("mark_node", "").is_empty(), "{}", stage.story());
}

#[test]
fn a_pod_seen_terminating_before_the_node_is_saved_for_its_notice() {
    let gold = holding("gold");
    let mut stage = Stage::with(std::slice::from_ref(&gold)).by_hand(&["flush"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(2_000);
    stage.restart_unread();
    let ends = Moment::from_millis(1_000_000 + 114_000);
    stage.sees(&PodFacts { terminating: Some(ends), ..gold });
    assert_eq!(stage.times("write_intent", "gold").len(), 1, "nothing before its node: {}", stage.story());
    stage.until(7_000);
    stage.reads_node();
    let departure = |action: &Action| match action {
        Action::Pod { action: PodAction::WriteIntent { departure, .. }, .. } => Some(departure.clone()),
        _ => None,
    };
    let names: Vec<_> = stage.actions("write_intent", "gold").iter().filter_map(departure).collect();
    assert_eq!(names, ["n", "n"]);
}

#[test]
fn a_mark_is_given_up_after_eight_seconds_of_answers_without_it() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["evict"]);
    stage.notice(NoticeKind::Drill, "drill-1", 60);
    stage.until(3_000);
    stage.restart(&[stateful("gold")]);
    assert_eq!(stage.times("mark_node", "").len(), 1);
    stage.until(20_000);
    assert!(stage.times("clear_node_mark", "").is_empty(), "IMDS has not answered: {}", stage.story());
    stage.hear(Event::ImdsReachable { reachable: true });
    stage.until(25_000);
    stage.hear(Event::ImdsReachable { reachable: false });
    stage.until(30_000);
    stage.hear(Event::ImdsReachable { reachable: true });
    stage.until(37_999);
    assert!(stage.times("clear_node_mark", "").is_empty(), "{}", stage.story());
    stage.until(38_000);
    assert_eq!(stage.times("clear_node_mark", ""), [38_000]);
}

#[test]
fn a_mark_is_confirmed_by_its_own_notice_and_by_one_of_its_kind() {
    for (id, before) in [("n", true), ("n", false), ("moved", true), ("moved", false)] {
        let mut stage = Stage::with(&[]);
        stage.notice(TERMINATE, "n", 120);
        stage.until(2_000);
        stage.restart_unread();
        stage.hear(Event::ImdsReachable { reachable: true });
        stage.hear(Event::PodsListed);
        if before {
            stage.notice(TERMINATE, id, 117);
        }
        stage.reads_node();
        stage.until(4_000);
        if !before {
            stage.notice(TERMINATE, id, 116);
        }
        stage.until(60_000);
        assert!(!stage.report().unwrap().withdrawn, "{id} {before}: {}", stage.story());
    }
    let mut stage = Stage::with(&[]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(2_000);
    stage.restart(&[]);
    stage.hear(Event::ImdsReachable { reachable: true });
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(60_000);
    let undo = Policy::default().undo_after.as_millis();
    stage.until(11_000 + undo);
    assert_eq!(stage.times("clear_node_mark", ""), [11_000 + undo], "{}", stage.story());
}

#[test]
fn what_comes_before_the_start_of_a_life_is_an_anomaly_and_begins_nothing() {
    let mut stage = Stage::unborn(Policy::default());
    stage.notice(TERMINATE, "n", 120);
    assert_eq!(stage.times("anomaly", ""), [0]);
    stage.begins();
    stage.hear(Event::PodsListed);
    stage.reads_node();
    stage.begins();
    stage.until(10_000);
    assert_eq!(stage.times("anomaly", "").len(), 2);
    assert!(stage.times("mark_node", "").is_empty(), "{}", stage.story());
}
