//! What each kind of notice begins, moves and ends.

use crate::stage::{Stage, TERMINATE, failed, holding, pod, stateful};
use evacuation::effect::{Action, FlushKind, PodAction};
use evacuation::event::{Done, FailureKind, Outcome};
use evacuation::notice::{InstanceAction, NoticeKind};
use evacuation::pod::OnDelete;
use evacuation::policy::{Policy, RebalancePolicy};
use evacuation::report::StateOutcome;

const UNDO: u64 = 30 * 60 * 1000;

#[test]
fn a_rebalance_is_a_soft_taint_and_pre_copies_and_leaves_no_trace_after_its_time() {
    let mut stage = Stage::with(&[stateful("gold"), pod("web")]);
    stage.notice(NoticeKind::Rebalance, "r", 0);
    assert!(!stage.mark().unwrap().hard);
    stage.until(65_000);
    assert_eq!(stage.times("commit", "gold"), [0, 30_000, 60_000]);
    // IMDS goes on showing it.
    stage.notice(NoticeKind::Rebalance, "r", 0);
    assert_eq!(stage.times("mark_node", "").len(), 1);
    stage.until(UNDO + 60_000);
    assert_eq!(stage.times("clear_node_mark", ""), [UNDO]);
    assert!(stage.node().active_notice.is_none() && !stage.node().tainted && !stage.node().unschedulable);
    assert!(stage.order("evict").is_empty());
    let rounds = stage.times("flush", "gold").len();
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(UNDO + 120_000);
    assert_eq!(stage.times("flush", "gold").len(), rounds, "what came to nothing does not begin again");
}

#[test]
fn a_pre_copied_generation_is_kept_as_earlier_when_the_final_save_fails() {
    let mut stage = Stage::with(&[stateful("gold")]);
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(10_000);
    stage.answers.insert("flush gold".into(), failed(FailureKind::Permanent));
    stage.notice(TERMINATE, "n", 120);
    stage.until(126_000);
    let entry = stage.entry("gold").unwrap();
    assert_eq!((entry.state, entry.generation.as_deref()), (StateOutcome::Earlier, Some("gold/1-1")));
    assert_eq!(entry.state_reason.as_deref(), Some("permanent"));
    assert!(stage.mark().unwrap().hard && stage.node().unschedulable);
}

#[test]
fn an_engine_that_lost_its_state_does_not_hide_what_was_copied_before() {
    let mut stage = Stage::with(&[stateful("gold")]);
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(10_000);
    let nothing = Outcome::Done(Done::Flushed { bytes: 0, evidence: true });
    stage.answers.insert("flush gold".into(), nothing);
    stage.until(40_000);
    stage.notice(TERMINATE, "n", 120);
    stage.until(156_000);
    let entry = stage.entry("gold").unwrap();
    assert_eq!((entry.state, entry.generation.as_deref()), (StateOutcome::Earlier, Some("gold/1-1")));
    assert_eq!(stage.times("commit", "gold").len(), 1, "{}", stage.story());
    assert_eq!(stage.times("abandon_intent", "gold").len(), 1, "the replacement takes what there is");
}

#[test]
fn a_notice_ends_a_pre_copy_that_is_under_way_before_its_own_flush() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["flush"]);
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(1_000);
    stage.notice(TERMINATE, "n", 120);
    let rounds: Vec<_> = stage
        .asked
        .iter()
        .filter_map(|(_, action)| match action {
            Action::Pod { action: PodAction::Flush { kind: FlushKind::PreCopy, .. }, .. } => Some("pre-copy"),
            Action::Pod { action: PodAction::Flush { kind: FlushKind::Final, .. }, .. } => Some("final"),
            Action::Cancel { .. } => Some("cancel"),
            _ => None,
        })
        .collect();
    assert_eq!(rounds, ["pre-copy", "cancel", "final"]);
}

#[test]
fn with_rebalance_off_nothing_happens_and_with_drain_the_node_is_evacuated() {
    for (rebalance, evictions) in [(RebalancePolicy::Off, 0), (RebalancePolicy::Drain, 1)] {
        let mut stage = Stage::new(Policy { rebalance, ..Policy::default() });
        stage.sees(&pod("web"));
        stage.notice(NoticeKind::Rebalance, "r", 0);
        stage.until(10_000);
        assert_eq!(stage.times("evict", "web").len(), evictions, "{rebalance:?}");
        assert_eq!(stage.times("mark_node", "").len(), evictions, "{rebalance:?}");
    }
}

#[test]
fn a_maintenance_is_soft_while_it_is_far_and_an_evacuation_when_it_is_near() {
    let mut stage = Stage::with(&[stateful("gold")]);
    stage.notice(NoticeKind::Maintenance, "m", 600);
    stage.until(479_000);
    assert!(!stage.node().unschedulable && stage.times("commit", "gold").len() >= 15);
    assert!(stage.order("evict").is_empty());
    stage.until(481_000);
    assert_eq!(stage.times("evict", "gold"), [480_000]);
    assert_eq!(stage.deadline(), Some(595_000));
}

#[test]
fn a_cancelled_maintenance_is_undone_at_once() {
    let mut stage = Stage::with(&[stateful("gold")]);
    stage.notice(NoticeKind::Maintenance, "m", 600);
    stage.until(30_000);
    stage.withdrawn("m");
    assert_eq!(stage.times("clear_node_mark", ""), [30_000]);
    stage.until(700_000);
    assert!(stage.order("evict").is_empty());
}

#[test]
fn a_hibernation_evicts_nothing_and_commits_what_is_flushed() {
    let hibernate = NoticeKind::Interruption(InstanceAction::Hibernate);
    let mut stage = Stage::with(&[stateful("gold"), pod("web")]).by_hand(&["save"]);
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(1_000);
    stage.notice(hibernate, "n", 0);
    stage.done("save", "gold");
    assert_eq!(stage.times("commit", "gold"), [1_000]);
    stage.until(100_000);
    assert!(stage.order("evict").is_empty() && stage.order("delete_pod").is_empty());
    assert_eq!(stage.entry("gold").unwrap().state, StateOutcome::Earlier);
    // It wakes up: its notice is gone.
    stage.withdrawn("n");
    // The recommendation still stands.
    let softly = stage.node().active_notice.clone().unwrap();
    assert!(!stage.node().unschedulable && softly.notice == "r" && !softly.hard);
}

#[test]
fn a_node_that_woke_from_hibernation_is_evacuated_under_the_next_notice() {
    let mut stage = Stage::with(&[pod("web")]);
    stage.notice(NoticeKind::Interruption(InstanceAction::Hibernate), "h", 0);
    stage.until(5_000);
    stage.notice(TERMINATE, "n", 120);
    assert_eq!(stage.times("evict", "web"), [5_000]);
    assert_eq!(stage.deadline(), Some(120_000));
    assert!(stage.mark().unwrap().was_schedulable);
}

#[test]
fn a_stopped_instance_that_comes_back_takes_everything_back() {
    let mut stage = Stage::with(&[pod("web")]);
    stage.notice(NoticeKind::Interruption(InstanceAction::Stop), "n", 120);
    stage.until(60_000);
    assert!(stage.node().unschedulable);
    stage.boot("boot-2");
    assert!(!stage.node().unschedulable && !stage.node().tainted && stage.node().active_notice.is_none());
}

#[test]
fn after_a_withdrawal_what_has_begun_goes_on_nothing_more_begins_and_the_cordon_is_taken_back() {
    let mut stage = Stage::with(&[stateful("gold"), pod("web")]).by_hand(&["flush gold"]);
    stage.answers.insert("evict web".into(), failed(FailureKind::Refused));
    stage.notice(TERMINATE, "n", 120);
    stage.until(5_000);
    stage.withdrawn("n");
    stage.sees(&pod("new"));
    stage.until(6_000);
    stage.done("flush", "gold");
    stage.until(20_000);
    assert_eq!(stage.times("evict", "gold"), [6_000]);
    assert!(stage.times("evict", "web").iter().any(|at| *at > 6_000));
    assert!(stage.times("evict", "new").is_empty());
    assert!(stage.node().unschedulable);
    stage.until(UNDO + 5_000);
    assert_eq!(stage.times("clear_node_mark", ""), [UNDO + 5_000]);
    assert!(!stage.node().unschedulable);
}

#[test]
fn a_withdrawal_takes_back_what_had_not_begun() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["write_intent", "mark_node"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(500);
    stage.withdrawn("n");
    assert_eq!(stage.times("abandon_intent", "gold"), [500]);
    stage.until(120_000);
    assert!(stage.order("quiesce").is_empty() && stage.order("evict").is_empty());
    assert!(stage.order("anomaly").is_empty() && stage.times("anomaly", "").is_empty());
}

#[test]
fn what_was_under_way_at_a_withdrawal_is_cancelled_before_it_begins_again() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["write_intent"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(100);
    stage.withdrawn("n");
    assert_eq!(stage.times("cancel", ""), [100]);
    stage.until(200);
    stage.notice(TERMINATE, "n", 119);
    stage.done("write_intent", "gold");
    assert_eq!(
        (stage.times("write_intent", "gold"), stage.times("commit", "gold")),
        (vec![0, 200], vec![200])
    );
    assert!(stage.times("anomaly", "").is_empty());
}

#[test]
fn a_notice_that_is_shown_again_after_its_withdrawal_stands_again_with_its_deadline() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["mark_node"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(1_000);
    stage.withdrawn("n");
    stage.until(4_000);
    stage.notice(TERMINATE, "n", 116);
    stage.until(4_100);
    stage.done("mark_node", "");
    assert_eq!(stage.times("evict", "web"), [4_100]);
    stage.until(UNDO + 60_000);
    assert_eq!(stage.deadline(), Some(115_000));
    assert!(stage.times("clear_node_mark", "").is_empty());
}

#[test]
fn another_notice_after_a_withdrawal_has_its_own_deadline() {
    let mut stage = Stage::with(&[holding("gold")]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(50_000);
    stage.withdrawn("n");
    stage.until(100_000);
    stage.notice(TERMINATE, "other", 120);
    stage.sees(&pod("new"));
    assert_eq!(stage.deadline(), Some(215_000));
    assert!(stage.mark().unwrap().was_schedulable);
    assert_eq!(stage.times("evict", "new"), [100_000]);
}

#[test]
fn a_notice_whose_time_moves_later_changes_nothing_and_one_that_moves_nearer_counts() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["save"]);
    stage.notice(TERMINATE, "n-1", 120);
    stage.until(10_000);
    stage.notice(TERMINATE, "n-2", 120);
    stage.until(20_000);
    stage.notice(TERMINATE, "n-3", 120);
    assert_eq!((stage.times("mark_node", ""), stage.deadline()), (vec![0], Some(115_000)));
    stage.until(30_000);
    stage.notice(TERMINATE, "n-4", 45);
    let mark = stage.mark().unwrap();
    assert_eq!((stage.deadline(), mark.notice.as_str()), (Some(70_000), "n-1"));
    stage.until(80_000);
    assert_eq!(stage.times("commit", "gold"), [53_000]);
    // The withdrawal that counts is that of what is shown now.
    stage.withdrawn("n-1");
    assert!(!stage.report().unwrap().withdrawn);
}

#[test]
fn a_notice_that_moves_very_near_leaves_the_minimum_window() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["save"]);
    stage.notice(TERMINATE, "n-1", 120);
    stage.until(10_000);
    stage.notice(TERMINATE, "n-2", 6);
    assert_eq!(stage.deadline(), Some(40_000));
    stage.until(41_000);
    assert!(stage.report().unwrap().short);
}

#[test]
fn a_time_that_has_passed_leaves_the_minimum_window_and_is_said_to() {
    let mut stage = Stage::with(&[stateful("gold")]);
    stage.notice(TERMINATE, "n", -300);
    assert_eq!(stage.deadline(), Some(30_000));
    stage.until(31_000);
    assert!(stage.report().unwrap().short);
    assert_eq!(stage.entry("gold").unwrap().state, StateOutcome::Saved);
}

#[test]
fn a_node_that_outlives_its_deadline_is_evacuated_again_under_another_notice() {
    let mut stage = Stage::with(&[]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(180_000);
    stage.sees(&pod("new"));
    assert!(stage.order("evict").is_empty(), "the deadline has passed");
    stage.notice(TERMINATE, "n", -60);
    assert_eq!(stage.times("mark_node", "").len(), 1);
    stage.notice(TERMINATE, "other", 120);
    assert_eq!((stage.deadline(), stage.mark().unwrap().was_schedulable), (Some(295_000), true));
    assert_eq!(stage.times("evict", "new"), [180_000]);
}

#[test]
fn a_cancelled_maintenance_leaves_the_mark_of_a_rebalance_that_came_after_it() {
    let mut stage = Stage::with(&[]);
    stage.notice(NoticeKind::Maintenance, "m", 900);
    stage.until(1_000);
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(2_000);
    stage.withdrawn("m");
    stage.until(10_000);
    assert!(stage.times("clear_node_mark", "").is_empty(), "{}", stage.story());
    assert_eq!(stage.mark().unwrap().notice, "r");
}

#[test]
fn a_delete_that_was_not_accepted_is_not_asked_for_again_under_a_later_notice_before_its_cut_off() {
    let mut stage = Stage::with(&[pod("web")]);
    stage.answers.insert("evict web".into(), failed(FailureKind::Refused));
    stage.answers.insert("delete_pod web".into(), failed(FailureKind::Transient));
    stage.notice(TERMINATE, "n", 60);
    stage.until(44_000);
    assert!(!stage.times("delete_pod", "web").is_empty(), "{}", stage.story());
    stage.withdrawn("n");
    stage.notice(TERMINATE, "other", 120);
    stage.until(150_000);
    let again: Vec<_> = stage.times("delete_pod", "web").into_iter().filter(|at| *at > 44_000).collect();
    assert_eq!(again.first(), Some(&142_000), "{}", stage.story());
    assert!(stage.times("evict", "web").iter().any(|at| (44_000..46_000).contains(at)));
}

#[test]
fn the_report_speaks_of_a_pod_whose_eviction_arrived_although_it_was_given_up() {
    let mut gold = stateful("gold");
    if let Some(engine) = &mut gold.engine {
        engine.on_delete = OnDelete::Release;
    }
    let mut stage =
        Stage::with(std::slice::from_ref(&gold)).by_hand(&["evict", "delete_pod", "mark_disrupted"]);
    stage.notice(TERMINATE, "n", 60);
    stage.until(56_000);
    stage.withdrawn("n");
    stage.sees_deleted(&gold);
    stage.gone("gold");
    assert!(stage.entry("gold").is_some(), "{}", stage.story());
}
