//! An instance that was hibernated and is awake again, in the same boot: what led to it is over.

use crate::stage::{Stage, TERMINATE, failed, pod, stateful};
use evacuation::event::{Event, FailureKind};
use evacuation::moment::Moment;
use evacuation::notice::{InstanceAction, Notice, NoticeKind, ScheduledEvent};
use evacuation::policy::Policy;

const HIBERNATE: NoticeKind = NoticeKind::Interruption(InstanceAction::Hibernate);
const HOUR: u64 = 3_600_000;

/// The boot clock at the start of a timeline.
const START: u64 = 1_000_000;

/// A maintenance event at so many seconds after the start of the timeline, as IMDS shows it now.
fn maintenance(stage: &mut Stage, id: &str, at_s: i64, event: ScheduledEvent) {
    let seen = Moment::from_millis(START + stage.now());
    let left_ms = at_s * 1_000 - i64::try_from(stage.now()).expect("a moment of a test");
    let kind = NoticeKind::Maintenance;
    stage.hear(Event::NoticeReceived(Notice { kind, id: id.into(), seen, left_ms, event: Some(event) }));
}

const fn host_reboot() -> ScheduledEvent {
    ScheduledEvent { restart_completes: false, resume_completes: false, window_left_ms: Some(24 * 3_600_000) }
}

#[test]
fn a_hibernation_is_over_when_the_instance_is_awake_although_imds_shows_it() {
    let mut stage = Stage::with(&[pod("web"), stateful("gold")]);
    stage.notice(HIBERNATE, "h", 0);
    stage.until(2_000);
    assert!(stage.node().unschedulable, "{}", stage.story());
    stage.sleeps_and_wakes(HOUR);
    assert!(!stage.node().unschedulable && stage.node().active_notice.is_none(), "{}", stage.story());
    let seen = Moment::from_millis(START + stage.now());
    let left_ms = -i64::try_from(stage.now()).unwrap();
    stage.hear(Event::NoticeReceived(Notice { kind: HIBERNATE, id: "h".into(), seen, left_ms, event: None }));
    stage.until(HOUR + 60_000);
    stage.withdrawn("h");
    assert_eq!(stage.times("mark_node", "").len(), 1, "{}", stage.story());
    assert!(stage.order("evict").is_empty() && stage.order("delete_pod").is_empty(), "{}", stage.story());
    // The next one is another.
    stage.notice(HIBERNATE, "h-2", 0);
    assert!(stage.node().unschedulable, "{}", stage.story());
}

#[test]
fn nothing_is_done_by_a_deadline_that_passed_while_the_instance_slept() {
    let mut stage = Stage::with(&[pod("web")]);
    stage.answers.insert("evict web".into(), failed(FailureKind::Refused));
    maintenance(&mut stage, "host", 100, host_reboot());
    stage.until(10_000);
    assert!(!stage.times("evict", "web").is_empty(), "{}", stage.story());
    stage.sleeps_and_wakes(HOUR);
    assert!(stage.node().active_notice.is_none() && !stage.node().unschedulable, "{}", stage.story());
    assert_eq!(stage.times("resume", "web"), [10_000 + HOUR], "it serves on: {}", stage.story());
    // The node was emptied for it, and IMDS goes on showing it inside its window.
    maintenance(&mut stage, "host", 100, host_reboot());
    stage.until(2 * HOUR);
    assert!(stage.times("delete_pod", "web").is_empty(), "{}", stage.story());
    assert_eq!(stage.times("mark_node", "").len(), 1, "{}", stage.story());
}

#[test]
fn what_still_stands_after_a_sleep_gets_a_window_of_its_own() {
    let mut stage = Stage::with(&[pod("web")]);
    stage.answers.insert("evict web".into(), failed(FailureKind::Refused));
    stage.notice(TERMINATE, "n", 120);
    stage.until(10_000);
    stage.sleeps_and_wakes(HOUR);
    let least = Policy::default().minimum_window.as_millis();
    assert_eq!(stage.deadline(), Some(10_000 + HOUR + least), "{}", stage.story());
    assert!(stage.times("delete_pod", "web").is_empty(), "{}", stage.story());
    stage.until(10_000 + HOUR + least);
    assert_eq!(stage.times("delete_pod", "web").len(), 1, "at the cut-off that follows: {}", stage.story());
}

#[test]
fn what_a_sleep_has_ended_is_over_for_later_lives_too() {
    let mut stage = Stage::with(&[pod("web")]);
    maintenance(&mut stage, "host", 100, host_reboot());
    stage.until(10_000);
    stage.sleeps_and_wakes(HOUR);
    assert_eq!(stage.node().over, ["host"]);
    stage.restart(&[pod("web")]);
    let marked = stage.times("mark_node", "").len();
    maintenance(&mut stage, "host", 100, host_reboot());
    stage.until(2 * HOUR);
    assert_eq!(stage.times("mark_node", "").len(), marked, "{}", stage.story());
    stage.withdrawn("host");
    assert!(stage.node().over.is_empty(), "{}", stage.story());
}

#[test]
fn an_event_that_a_sleep_may_not_have_completed_is_waited_for() {
    let stop = ScheduledEvent { restart_completes: true, ..host_reboot() };
    for event in [host_reboot(), stop] {
        let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["evict"]);
        stage.notice(HIBERNATE, "h", 0);
        maintenance(&mut stage, "host", 600, event);
        stage.until(2_000);
        stage.sleeps_and_wakes(HOUR);
        let soft = stage.node().active_notice.clone().filter(|it| !it.hard).map(|it| it.notice);
        assert_eq!(soft.as_deref(), Some("host"), "{}", stage.story());
        let left_open = 2_000 + HOUR + 600_000;
        stage.until(left_open - 1);
        assert!(stage.order("evict").is_empty(), "{}", stage.story());
        stage.until(left_open + 10_000);
        assert!(stage.times("evict", "gold").first().is_some_and(|at| *at >= left_open), "{}", stage.story());
    }
}

#[test]
fn a_reboot_that_any_restart_completes_is_over_after_a_sleep() {
    let mut stage = Stage::with(&[pod("web")]);
    stage.notice(HIBERNATE, "h", 0);
    let event = ScheduledEvent { restart_completes: true, resume_completes: true, ..host_reboot() };
    maintenance(&mut stage, "reboot", 600, event);
    stage.until(2_000);
    stage.sleeps_and_wakes(HOUR);
    assert!(stage.node().active_notice.is_none(), "{}", stage.story());
    stage.until(2 * HOUR);
    assert!(stage.order("evict").is_empty(), "{}", stage.story());
}

#[test]
fn what_is_still_to_come_after_a_sleep_stands() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["evict"]);
    let at_s = i64::try_from(3 * HOUR / 1_000).unwrap();
    maintenance(&mut stage, "host", at_s, host_reboot());
    stage.until(2_000);
    stage.sleeps_and_wakes(HOUR);
    stage.until(3 * HOUR - 120_000);
    assert_eq!(stage.times("evict", "web"), [3 * HOUR - 120_000], "{}", stage.story());
}

#[test]
fn a_life_that_begins_after_a_sleep_takes_a_mark_of_hibernation_back() {
    let mut stage = Stage::with(&[pod("web")]);
    stage.notice(HIBERNATE, "h", 0);
    stage.until(2_000);
    stage.sleeps(HOUR);
    stage.restart(&[pod("web")]);
    assert!(stage.node().active_notice.is_none() && !stage.node().unschedulable, "{}", stage.story());
    let marks = stage.times("mark_node", "").len();
    let seen = Moment::from_millis(START + stage.now());
    let left_ms = -i64::try_from(stage.now()).unwrap();
    stage.hear(Event::NoticeReceived(Notice { kind: HIBERNATE, id: "h".into(), seen, left_ms, event: None }));
    stage.until(2 * HOUR);
    assert_eq!(stage.times("mark_node", "").len(), marks, "{}", stage.story());
}
