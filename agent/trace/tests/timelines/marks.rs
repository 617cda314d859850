//! The mark on the node beside what others do to it, and what a late watch shows of it.

use crate::stage::{Stage, TERMINATE, failed, pod};
use evacuation::event::{Event, FailureKind, NodeFacts};
use evacuation::moment::Span;
use evacuation::notice::{ActiveNotice, InstanceAction, NoticeKind};

#[test]
fn a_mark_that_arrives_after_it_was_taken_back_is_taken_back_once_more() {
    let mut stage = Stage::with(&[]);
    stage.notice(NoticeKind::Rebalance, "r", 0);
    let late = NodeFacts { tainted: true, active_notice: stage.mark(), ..stage.node().clone() };
    stage.until(2_000_000);
    assert_eq!(stage.times("clear_node_mark", "").len(), 1);
    stage.hear(Event::NodeUpdated(late));
    // The watch may lag behind the answer.
    stage.until(2_001_900);
    assert_eq!(stage.times("clear_node_mark", "").len(), 1);
    stage.until(2_002_000);
    assert_eq!(stage.times("clear_node_mark", "").len(), 2);
}

#[test]
fn a_mark_that_the_watch_shows_is_as_good_as_its_answer() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["mark_node"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(2_000);
    let shown =
        NodeFacts { tainted: true, unschedulable: true, active_notice: stage.mark(), ..stage.node().clone() };
    // Not with another deadline, and not before all of it is there.
    stage.hear(Event::NodeUpdated(NodeFacts { unschedulable: false, ..shown.clone() }));
    let older = shown
        .active_notice
        .clone()
        .map(|it| ActiveNotice { deadline: it.deadline + Span::from_secs(9), ..it });
    stage.hear(Event::NodeUpdated(NodeFacts { active_notice: older, ..shown.clone() }));
    assert!(stage.times("evict", "web").is_empty());
    stage.hear(Event::NodeUpdated(shown));
    assert_eq!(stage.times("evict", "web"), [2_000]);
    stage.until(30_000);
    assert_eq!(stage.times("mark_node", ""), [0], "{}", stage.story());
}

#[test]
fn a_cordon_that_is_lifted_while_a_nearer_deadline_is_being_written_is_lifted() {
    let mut stage = Stage::with(&[]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(10_000);
    stage.answers.insert("mark_node".into(), failed(FailureKind::Throttled));
    stage.notice(TERMINATE, "nearer", 60);
    let lifted = NodeFacts { unschedulable: false, ..stage.node().clone() };
    stage.hear(Event::NodeUpdated(lifted));
    stage.until(13_000);
    stage.sees(&pod("web"));
    stage.until(14_000);
    assert!(stage.times("evict", "web").is_empty(), "{}", stage.story());
    stage.answers.clear();
    stage.until(16_000);
    assert_eq!(stage.times("evict", "web").len(), 1, "{}", stage.story());
}

#[test]
fn a_cordon_of_somebody_that_is_lifted_before_ours_is_written_is_not_kept_for_him() {
    let mut stage = Stage::with(&[]).by_hand(&["mark_node"]);
    let open = stage.node().clone();
    stage.hear(Event::NodeUpdated(NodeFacts { unschedulable: true, ..open.clone() }));
    stage.notice(TERMINATE, "n", 120);
    assert!(!stage.mark().unwrap().was_schedulable);
    stage.hear(Event::NodeUpdated(open));
    stage.fails("mark_node", "", FailureKind::Transient);
    stage.until(1_000);
    assert!(stage.mark().unwrap().was_schedulable, "{}", stage.story());
}

#[test]
fn a_notice_right_after_the_boot_still_knows_that_the_node_was_schedulable() {
    let mut stage = Stage::with(&[]).by_hand(&["clear_node_mark"]);
    stage.notice(NoticeKind::Interruption(InstanceAction::Stop), "n", 120);
    stage.until(60_000);
    stage.boot("boot-2");
    stage.notice(TERMINATE, "again", 120);
    assert!(stage.mark().unwrap().was_schedulable);
}
