//! Several announcements at once: each counts for itself, and what ends the instance first rules.

use crate::stage::{Stage, TERMINATE, failed, pod, stateful};
use evacuation::event::{Event, FailureKind};
use evacuation::moment::Moment;
use evacuation::notice::{InstanceAction, Notice, NoticeKind, ScheduledEvent};
use evacuation::policy::Policy;

const MAINTENANCE: NoticeKind = NoticeKind::Maintenance;
const FORTNIGHT: i64 = 14 * 24 * 3600;

fn undo() -> u64 {
    Policy::default().undo_after.as_millis()
}

/// The soft notice that is on the node.
fn softly(stage: &Stage) -> Option<String> {
    stage.node().active_notice.as_ref().filter(|it| !it.hard).map(|it| it.notice.clone())
}

#[test]
fn a_reboot_in_two_minutes_is_not_forgotten_for_a_stop_in_two_weeks() {
    for nearer_first in [true, false] {
        let mut stage = Stage::with(&[pod("web")]).by_hand(&["evict"]);
        let mut announced = [("reboot", 125), ("stop", FORTNIGHT)];
        if !nearer_first {
            announced.reverse();
        }
        for (id, left) in announced {
            stage.notice(MAINTENANCE, id, left);
        }
        assert_eq!(stage.status().announcements.len(), 2);
        assert_eq!(stage.status().announcements[0].id, "reboot");
        stage.until(20_000);
        assert_eq!(stage.times("evict", "web").first(), Some(&5_000), "{nearer_first}: {}", stage.story());
        assert_eq!(stage.deadline(), Some(120_000));
    }
}

#[test]
fn a_withdrawn_notice_leaves_a_standing_maintenance_its_own_mark() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["evict"]);
    stage.notice(MAINTENANCE, "stop", FORTNIGHT);
    assert_eq!(softly(&stage).as_deref(), Some("stop"));
    stage.until(1_000);
    stage.notice(TERMINATE, "n", 120);
    stage.until(5_000);
    stage.withdrawn("n");
    stage.until(5_000 + undo());
    assert!(!stage.node().unschedulable, "{}", stage.story());
    assert_eq!(softly(&stage).as_deref(), Some("stop"));
    // And its time comes.
    let near = FORTNIGHT as u64 * 1_000 - Policy::default().drain_window.as_millis();
    stage.sees(&pod("later"));
    stage.until(near);
    assert_eq!(stage.times("evict", "later"), [near]);
}

#[test]
fn a_maintenance_announced_during_a_drill_marks_the_node_after_it() {
    let mut stage = Stage::with(&[]).by_hand(&["write_report"]);
    stage.notice(NoticeKind::Drill, "drill-1", 60);
    stage.until(1_000);
    stage.notice(MAINTENANCE, "stop", FORTNIGHT);
    assert!(softly(&stage).is_none());
    stage.done("write_report", "");
    assert_eq!(softly(&stage).as_deref(), Some("stop"), "{}", stage.story());
    assert!(!stage.node().unschedulable);
}

#[test]
fn a_recommendation_that_ends_leaves_the_mark_of_a_maintenance() {
    let mut stage = Stage::with(&[]);
    stage.notice(NoticeKind::Rebalance, "r", 0);
    stage.until(1_000);
    stage.notice(MAINTENANCE, "stop", FORTNIGHT);
    assert_eq!(softly(&stage).as_deref(), Some("r"), "it ends first");
    stage.until(undo() + 10_000);
    assert_eq!(softly(&stage).as_deref(), Some("stop"));
    assert!(stage.times("clear_node_mark", "").is_empty(), "{}", stage.story());
    stage.withdrawn("stop");
    assert!(stage.node().active_notice.is_none());
}

#[test]
fn one_of_two_that_is_taken_back_does_not_end_the_evacuation() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["evict"]);
    stage.notice(MAINTENANCE, "reboot", 110);
    stage.until(1_000);
    stage.notice(TERMINATE, "n", 60);
    assert_eq!(stage.deadline(), Some(56_000), "the nearer end counts");
    stage.until(2_000);
    stage.withdrawn("n");
    stage.until(undo() + 10_000);
    assert!(stage.node().unschedulable, "the reboot is not over: {}", stage.story());
    stage.withdrawn("reboot");
    stage.until(2 * undo() + 20_000);
    assert!(stage.node().active_notice.is_none());
}

#[test]
fn a_hibernation_rules_while_it_is_shown_and_the_rest_counts_after_it() {
    let hibernate = NoticeKind::Interruption(InstanceAction::Hibernate);
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["evict"]);
    stage.notice(hibernate, "h", 0);
    stage.notice(MAINTENANCE, "reboot", 100);
    stage.until(5_000);
    assert!(stage.order("evict").is_empty(), "{}", stage.story());
    stage.withdrawn("h");
    assert_eq!(stage.times("evict", "web"), [5_000]);
    assert_eq!(stage.deadline(), Some(95_000));
    // One that comes while the node is evacuated stops that.
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["evict", "flush"]);
    stage.notice(MAINTENANCE, "reboot", 100);
    stage.until(1_000);
    stage.notice(hibernate, "h", 0);
    stage.until(50_000);
    assert!(stage.order("evict").is_empty(), "{}", stage.story());
}

#[test]
fn a_recommendation_counts_from_the_time_at_which_it_was_given() {
    let given = |ago: u64| {
        let mut stage = Stage::with(&[]);
        let left_ms = -i64::try_from(ago).unwrap();
        let seen = Moment::from_millis(1_000_000);
        let notice = Notice { kind: NoticeKind::Rebalance, id: "r".into(), seen, left_ms, event: None };
        stage.hear(Event::NoticeReceived(notice));
        stage
    };
    let stage = given(900_000);
    assert_eq!(stage.deadline(), Some(undo() - 900_000));
    let mut stage = given(undo());
    stage.until(60_000);
    assert!(stage.asked.is_empty(), "it is over: {}", stage.story());
}

#[test]
fn an_interruption_takes_the_place_of_the_one_before_it() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["evict"]);
    stage.notice(TERMINATE, "first", 120);
    stage.until(5_000);
    stage.notice(TERMINATE, "second", 115);
    assert_eq!(stage.status().announcements.len(), 1);
    stage.withdrawn("second");
    stage.until(5_000 + undo());
    assert!(stage.node().active_notice.is_none(), "{}", stage.story());
}

/// A node that was started 1,000 s ago, and an event whose time was so many seconds before that.
fn after_its_start(stage: &mut Stage, id: &str, kind: NoticeKind, event: Option<ScheduledEvent>) {
    let seen = Moment::from_millis(1_000_000 + stage.now());
    let left_ms = -i64::try_from(seen.as_millis()).expect("a moment of a test") - 60_000;
    stage.hear(Event::NoticeReceived(Notice { kind, id: id.into(), seen, left_ms, event }));
}

const fn scheduled(restart_completes: bool, window_left_ms: Option<i64>) -> Option<ScheduledEvent> {
    Some(ScheduledEvent { restart_completes, resume_completes: false, window_left_ms })
}

#[test]
fn what_has_happened_is_not_done_again_after_the_start() {
    let stop = NoticeKind::Interruption(InstanceAction::Stop);
    let hibernate = NoticeKind::Interruption(InstanceAction::Hibernate);
    let cases = [
        ("any restart completes it", MAINTENANCE, scheduled(true, Some(3_600_000))),
        ("its window is over", MAINTENANCE, scheduled(false, Some(-1_000))),
        ("a stop", stop, None),
        ("a hibernation", hibernate, None),
    ];
    for (what, kind, event) in cases {
        let mut stage = Stage::with(&[pod("web")]);
        after_its_start(&mut stage, "done", kind, event);
        stage.until(1_200_000);
        assert!(stage.asked.is_empty(), "{what}: {}", stage.story());
    }
}

#[test]
fn an_event_for_which_the_node_was_emptied_before_its_start_has_happened() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["evict"]);
    stage.notice(MAINTENANCE, "host", 100);
    stage.until(10_000);
    stage.boot("boot-2");
    assert_eq!(stage.times("clear_node_mark", "").len(), 1);
    stage.sees(&pod("web"));
    let (marked, evicted) = (stage.times("mark_node", "").len(), stage.times("evict", "web").len());
    after_its_start(&mut stage, "host", MAINTENANCE, scheduled(false, Some(3_600_000)));
    stage.until(1_200_000);
    assert_eq!(stage.times("mark_node", "").len(), marked, "{}", stage.story());
    assert_eq!(stage.times("evict", "web").len(), evicted, "{}", stage.story());
}

#[test]
fn what_the_node_was_emptied_for_is_over_for_later_lives_too() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["evict"]);
    stage.notice(MAINTENANCE, "host", 100);
    stage.until(10_000);
    stage.boot("boot-2");
    let shown = |stage: &mut Stage| {
        stage.hear(Event::ImdsReachable { reachable: true });
        after_its_start(stage, "host", MAINTENANCE, scheduled(false, Some(3_600_000)));
    };
    shown(&mut stage);
    let marked = stage.times("mark_node", "").len();
    for _ in 0..2 {
        stage.restart(&[pod("web")]);
        shown(&mut stage);
        stage.until(stage.now() + 700_000);
        assert_eq!(stage.times("mark_node", "").len(), marked, "{}", stage.story());
        assert_eq!(stage.node().over, ["host"]);
    }
    // It is forgotten when IMDS shows it no more, also where no life sees it go.
    let mut gone = stage;
    gone.restart(&[pod("web")]);
    gone.hear(Event::ImdsReachable { reachable: true });
    gone.until(gone.now() + 10_000);
    assert!(gone.node().over.is_empty(), "{}", gone.story());
}

#[test]
fn an_event_that_a_restart_may_not_have_completed_is_waited_for() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["evict"]);
    after_its_start(&mut stage, "host", MAINTENANCE, scheduled(false, Some(3_600_000)));
    assert_eq!(softly(&stage).as_deref(), Some("host"));
    assert_eq!(stage.times("flush", "gold").first(), Some(&0), "it is copied at once");
    stage.until(599_999);
    assert!(stage.times("evict", "gold").is_empty(), "{}", stage.story());
    stage.until(610_000);
    assert!(stage.times("evict", "gold").first().is_some_and(|at| *at >= 600_000), "{}", stage.story());
    // One that is over in the meantime leaves no trace.
    let mut stage = Stage::with(&[]);
    after_its_start(&mut stage, "host", MAINTENANCE, scheduled(false, None));
    stage.until(60_000);
    stage.withdrawn("host");
    assert!(stage.node().active_notice.is_none());
}

#[test]
fn what_imds_says_is_over_is_undone_at_once_else_after_a_while() {
    for is_over in [true, false] {
        let mut stage = Stage::with(&[]);
        stage.notice(MAINTENANCE, "reboot", 100);
        stage.until(5_000);
        stage.hear(Event::NoticeWithdrawn { id: "reboot".into(), is_over });
        let undone = if is_over { 5_000 } else { 5_000 + undo() };
        stage.until(undone);
        assert_eq!(stage.times("clear_node_mark", ""), [undone], "{}", stage.story());
    }
}

#[test]
fn a_pod_that_was_said_to_be_gone_and_is_there_leaves_under_the_next_notice() {
    let mut stage = Stage::with(&[pod("web")]);
    stage.answers.insert("evict web".into(), failed(FailureKind::NotFound));
    stage.notice(TERMINATE, "first", 20);
    stage.until(90_000);
    let asked = stage.times("evict", "web").len();
    stage.notice(TERMINATE, "second", 120);
    assert_eq!(stage.times("evict", "web").len(), asked + 1, "{}", stage.story());
}
