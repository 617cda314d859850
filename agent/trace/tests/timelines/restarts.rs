//! The agent is killed and started again: same deadline, nothing done twice.

use crate::stage::{Stage, TERMINATE, failed, holding, pod, stateful};
use evacuation::effect::{Action, NodeAction, PodAction};
use evacuation::event::{Done, FailureKind, Outcome};
use evacuation::moment::Moment;
use evacuation::notice::NoticeKind;
use evacuation::pod::PodFacts;
use evacuation::report::{DepartureOutcome, StateOutcome};

#[test]
fn a_restart_keeps_the_deadline_and_does_not_save_again_what_is_committed() {
    let gold = stateful("gold");
    let mut stage = Stage::with(std::slice::from_ref(&gold)).by_hand(&["evict"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(3_000);
    assert_eq!(stage.times("commit", "gold"), [0]);
    let kept = Done::IntentWritten { committed: Some(("gold/1-1".into(), 1 << 30)), evidence: true };
    stage.answers.insert("write_intent gold".into(), Outcome::Done(kept));
    stage.restart(std::slice::from_ref(&gold));
    assert_eq!(stage.deadline(), Some(115_000));
    assert_eq!((stage.times("flush", "gold").len(), stage.times("save", "gold").len()), (1, 1));
    assert_eq!(stage.times("evict", "gold").last(), Some(&4_000));
    stage.done("evict", "gold");
    stage.gone("gold");
    stage.until(6_000);
    let entry = stage.entry("gold").unwrap();
    assert_eq!((entry.departure, entry.state), (DepartureOutcome::Gone, StateOutcome::Saved));
    assert!(stage.times("mark_node", "").len() == 1, "the mark is still there");
}

#[test]
fn a_restarted_agent_asks_for_five_seconds_whether_the_state_is_committed_before_it_saves_again() {
    let gold = stateful("gold");
    let mut stage = Stage::with(std::slice::from_ref(&gold)).by_hand(&["evict", "write_intent"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(10);
    stage.done("write_intent", "gold");
    stage.until(3_000);
    stage.restart(std::slice::from_ref(&gold));
    stage.until(5_000);
    stage.fails("write_intent", "gold", FailureKind::Throttled);
    stage.until(8_900);
    assert_eq!(stage.times("flush", "gold").len(), 1, "{}", stage.story());
    let kept = Done::IntentWritten { committed: Some(("gold/1-1".into(), 1 << 30)), evidence: true };
    stage.answers_now("write_intent", "gold", Outcome::Done(kept));
    assert_eq!((stage.times("flush", "gold").len(), stage.times("save", "gold").len()), (1, 1));
    // Not for ever: then it is saved once more.
    stage.restart(std::slice::from_ref(&gold));
    stage.until(15_000);
    assert_eq!(stage.times("flush", "gold").last(), Some(&14_900), "{}", stage.story());
}

#[test]
fn after_a_restart_a_refused_pod_is_let_go_and_reported_by_the_first_deadline() {
    let web = pod("web");
    let mut stage = Stage::with(std::slice::from_ref(&web));
    stage.answers.insert("evict web".into(), failed(FailureKind::Refused));
    stage.notice(TERMINATE, "n", 120);
    stage.until(60_000);
    stage.restart(std::slice::from_ref(&web));
    stage.until(200_000);
    assert_eq!(stage.times("delete_pod", "web"), [98_000]);
    assert_eq!(stage.times("write_report", ""), [113_500, 115_000]);
}

#[test]
fn a_held_pod_that_was_evicted_before_the_restart_is_saved_under_the_notices_name() {
    let gold = holding("gold");
    let mut stage = Stage::with(std::slice::from_ref(&gold)).by_hand(&["flush"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(2_000);
    let ends = Moment::from_millis(1_000_000 + 114_000);
    let terminating = PodFacts { terminating: Some(ends), ..gold };
    stage.restart(&[terminating]);
    let names: Vec<_> = stage
        .actions("write_intent", "gold")
        .into_iter()
        .filter_map(|action| {
            if let Action::Pod { action: PodAction::WriteIntent { departure, .. }, .. } = action {
                Some(departure)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(names, ["n", "n"]);
    assert_eq!(stage.hold("gold"), Some(114_000), "until its own end");
    stage.done("flush", "gold");
    assert_eq!(stage.hold("gold"), Some(0));
    assert_eq!(stage.times("evict", "gold").len(), 1, "its termination has begun already");
}

#[test]
fn after_a_restart_no_report_is_complete_before_the_pods_are_seen() {
    let mut stage = Stage::with(&[pod("web")]);
    stage.answers.insert("evict web".into(), failed(FailureKind::Refused));
    stage.notice(TERMINATE, "n", 120);
    stage.until(2_000);
    stage.restart_unread();
    stage.reads_node();
    stage.until(3_200);
    stage.sees(&pod("web"));
    stage.hear(evacuation::event::Event::PodsListed);
    stage.until(120_000);
    let reports = stage.actions("write_report", "");
    let complete = reports
        .iter()
        .any(|action| matches!(action, Action::Node(NodeAction::WriteReport(report)) if report.complete));
    assert!(!complete && stage.report().unwrap().pods.len() == 1, "{}", stage.story());
}

#[test]
fn a_restart_under_a_soft_taint_goes_on_with_the_pre_copies_and_the_same_end() {
    let gold = stateful("gold");
    let mut stage = Stage::with(std::slice::from_ref(&gold));
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(40_000);
    stage.restart(std::slice::from_ref(&gold));
    stage.notice(NoticeKind::Rebalance, "r", 0);
    assert_eq!(stage.times("mark_node", "").len(), 1);
    assert_eq!(stage.times("commit", "gold").last(), Some(&41_000));
    stage.until(31 * 60 * 1000);
    assert_eq!(stage.times("clear_node_mark", ""), [30 * 60 * 1000]);
}

#[test]
fn a_restart_before_the_mark_arrived_begins_with_the_notice_itself() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["mark_node"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(1_000);
    stage.restart(&[pod("web")]);
    stage.by_hand.clear();
    stage.notice(TERMINATE, "n", 118);
    assert_eq!(stage.times("evict", "web"), [2_000]);
    assert_eq!(stage.deadline(), Some(115_000));
}

#[test]
fn a_mark_of_an_earlier_life_that_arrives_late_is_not_taken_for_anothers_cordon() {
    let mut stage = Stage::with(&[]).by_hand(&["mark_node"]);
    stage.notice(TERMINATE, "n", 120);
    let (active_notice, mut node) = (stage.mark(), stage.node().clone());
    stage.until(1_000);
    stage.restart(&[]);
    (node.active_notice, node.tainted, node.unschedulable) = (active_notice, true, true);
    stage.hear(evacuation::event::Event::NodeUpdated(node));
    stage.notice(TERMINATE, "n", 118);
    assert!(stage.mark().unwrap().was_schedulable);
}

#[test]
fn a_restart_after_another_took_the_cordon_away_writes_it_again_before_it_evicts() {
    let web = pod("web");
    let mut stage = Stage::with(std::slice::from_ref(&web)).by_hand(&["evict"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(5_000);
    let mut node = stage.node().clone();
    node.unschedulable = false;
    stage.by_hand.insert("mark_node".into());
    stage.hear(evacuation::event::Event::NodeUpdated(node));
    assert_eq!(stage.times("mark_node", ""), [0, 5_000]);
    stage.fails("evict", "web", FailureKind::Transient);
    let asked = stage.times("evict", "web").len();
    stage.until(6_000);
    assert_eq!(stage.times("evict", "web").len(), asked);
    stage.done("mark_node", "");
    assert_eq!(stage.times("evict", "web").len(), asked + 1);
}
