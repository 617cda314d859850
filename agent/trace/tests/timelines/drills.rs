//! A rehearsal: an evacuation of a node that stays, and is what it was as soon as it is over.

use crate::stage::{Stage, TERMINATE, holding, pod, stateful};
use evacuation::effect::{Action, NodeAction};
use evacuation::event::Event;
use evacuation::notice::NoticeKind;
use evacuation::policy::Policy;

#[test]
fn a_drill_evacuates_like_a_notice_and_takes_its_mark_back_when_its_report_is_written() {
    let mut stage = Stage::with(&[stateful("gold"), pod("web")]);
    stage.notice(NoticeKind::Drill, "drill-1", 60);
    assert_eq!(stage.order("commit"), ["gold"]);
    assert_eq!(stage.order("evict").len(), 2);
    assert!(stage.node().unschedulable && stage.times("clear_node_mark", "").is_empty());
    stage.until(3_000);
    stage.gone("gold");
    stage.gone("web");
    assert_eq!(stage.times("clear_node_mark", ""), [3_000]);
    assert!(!stage.node().unschedulable && !stage.node().tainted);
    let mut kinds = stage.asked.iter().filter_map(|(_, action)| match action {
        Action::Node(NodeAction::WriteReport(report)) => Some((report.kind, report.complete)),
        _ => None,
    });
    assert_eq!(kinds.next_back(), Some((NoticeKind::Drill, true)));
}

#[test]
fn a_drill_whose_report_cannot_be_written_ends_soon_after_its_deadline() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["write_report", "evict"]);
    stage.notice(NoticeKind::Drill, "drill-1", 60);
    stage.until(59_900);
    assert!(stage.times("clear_node_mark", "").is_empty());
    stage.until(61_000);
    assert_eq!(stage.times("clear_node_mark", ""), [60_000], "{}", stage.story());
}

#[test]
fn a_notice_in_the_middle_of_a_drill_is_an_evacuation_of_its_own_under_its_own_deadline() {
    let mut stage = Stage::with(&[holding("gold")]).by_hand(&["save"]);
    stage.notice(NoticeKind::Drill, "drill-1", 100);
    stage.until(10_000);
    stage.notice(TERMINATE, "n", 120);
    assert_eq!((stage.deadline(), stage.mark().unwrap().notice.as_str()), (Some(125_000), "n"));
    stage.until(200_000);
    assert!(stage.times("clear_node_mark", "").is_empty(), "a node that is taken is not given back");
}

#[test]
fn a_drill_is_refused_while_anything_stands_and_never_begins_twice() {
    for kind in [TERMINATE, NoticeKind::Rebalance, NoticeKind::Maintenance] {
        let mut stage = Stage::with(&[pod("web")]);
        stage.notice(kind, "n", 900);
        let marked = stage.times("mark_node", "").len();
        stage.notice(NoticeKind::Drill, "drill-1", 60);
        assert_eq!(stage.times("mark_node", "").len(), marked);
        let refused = stage.asked.iter().any(|(_, action)| {
            action
                .event()
                .is_some_and(|event| event.reason == "DrillRefused" && event.note.contains("drill-1"))
        });
        assert!(refused, "{}", stage.story());
    }
    let mut stage = Stage::with(&[]);
    stage.notice(NoticeKind::Drill, "drill-1", 60);
    stage.until(10_000);
    stage.notice(NoticeKind::Drill, "drill-1", 60);
    stage.until(100_000);
    assert_eq!((stage.times("mark_node", "").len(), stage.times("clear_node_mark", "").len()), (1, 1));
}

#[test]
fn an_agent_that_is_restarted_in_the_middle_of_a_drill_ends_it() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["save"]);
    stage.notice(NoticeKind::Drill, "drill-1", 60);
    stage.until(5_000);
    stage.restart(&[stateful("gold")]);
    // No metadata service shows it.
    stage.withdrawn("drill-1");
    stage.until(6_000);
    assert_eq!(stage.times("clear_node_mark", "").len(), 1, "{}", stage.story());
}

#[test]
fn a_drill_that_only_saves_saves_every_engine_once_one_after_the_other_and_evicts_nothing() {
    let mut stage = Stage::with(&[stateful("gold"), stateful("silver"), pod("web")]);
    stage.until(1_000);
    stage.hear(Event::PreCopyRequested);
    stage.until(900_000);
    assert_eq!(stage.order("commit"), ["gold", "silver"]);
    assert!(stage.order("evict").is_empty() && stage.times("mark_node", "").is_empty());
}

#[test]
fn under_a_notice_nothing_more_is_saved_because_somebody_asks() {
    let hibernate = NoticeKind::Interruption(evacuation::notice::InstanceAction::Hibernate);
    let mut stage = Stage::with(&[stateful("gold")]);
    stage.notice(hibernate, "n", 0);
    stage.hear(Event::PreCopyRequested);
    stage.until(100_000);
    assert!(stage.order("flush").is_empty());
}

#[test]
fn of_two_drills_before_the_node_is_known_the_first_is_played() {
    let mut stage = Stage::unread(Policy::default());
    stage.notice(NoticeKind::Drill, "drill-1", 60);
    stage.notice(NoticeKind::Drill, "drill-2", 30);
    stage.hear(Event::PodsListed);
    stage.reads_node();
    assert_eq!(stage.mark().unwrap().notice, "drill-1");
    let refused = stage.asked.iter().filter_map(|(_, action)| action.event());
    assert!(
        refused.into_iter().any(|event| event.reason == "DrillRefused" && event.note.contains("drill-2"))
    );
}
