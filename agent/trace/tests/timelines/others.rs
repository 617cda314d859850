//! Pods that are not evicted like the rest, and pods that somebody else deletes.

use crate::stage::{Stage, TERMINATE, holding, pod, stateful};
use evacuation::effect::{Action, PodAction};
use evacuation::event::{Done, Event, Outcome};
use evacuation::moment::Span;
use evacuation::pod::{DaemonDrain, OnDelete, Owner, PodFacts, Role};
use evacuation::report::{DepartureOutcome, StateOutcome};

fn daemon(name: &str, drain: DaemonDrain, tolerates_all: bool) -> PodFacts {
    PodFacts { owner: Owner::Daemon { drain, tolerates_all }, ..pod(name) }
}

#[test]
fn a_late_daemon_set_leaves_in_the_last_ten_seconds() {
    let mut stage =
        Stage::with(&[daemon("logs", DaemonDrain::Late, false), daemon("early", DaemonDrain::Early, false)]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(120_000);
    assert_eq!(stage.times("evict", "early"), [0]);
    assert_eq!(stage.times("evict", "logs"), [105_000]);
}

#[test]
fn a_late_daemon_set_stays_late_when_the_notice_moves_nearer() {
    let mut stage = Stage::with(&[daemon("logs", DaemonDrain::Late, false)]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(10_000);
    stage.notice(TERMINATE, "nearer", 65);
    stage.until(120_000);
    assert_eq!(stage.times("evict", "logs"), [60_000]);
    assert!(stage.times("delete_pod", "logs").is_empty());
}

#[test]
fn a_late_daemon_set_with_state_is_saved_before_it_goes() {
    let logs = PodFacts { engine: stateful("logs").engine, ..daemon("logs", DaemonDrain::Late, false) };
    let mut stage = Stage::with(&[logs]).by_hand(&["save"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(106_000);
    assert!(stage.times("evict", "logs").is_empty());
    stage.done("save", "logs");
    assert_eq!(stage.times("evict", "logs"), [106_000]);
}

#[test]
fn a_daemon_set_that_tolerates_everything_is_reported_and_left() {
    let mut stage =
        Stage::with(&[daemon("cni", DaemonDrain::Late, true), daemon("csi", DaemonDrain::Stay, false)]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(120_000);
    assert!(stage.order("evict").is_empty());
    let entry = stage.entry("cni").unwrap();
    assert_eq!(entry.departure, DepartureOutcome::Stays);
    assert!(entry.reason.unwrap().starts_with("cannot leave"));
    assert!(stage.report().unwrap().complete);
}

#[test]
fn static_finished_and_bare_pods_are_left_unless_the_bare_one_may_go() {
    let owned = |name: &str, owner| PodFacts { owner, ..pod(name) };
    let mut stage = Stage::with(&[
        owned("static", Owner::Static),
        owned("finished", Owner::Finished),
        owned("bare", Owner::Bare { may_go: false }),
        owned("bare-may-go", Owner::Bare { may_go: true }),
    ]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(120_000);
    assert_eq!(stage.order("evict"), ["bare-may-go"]);
    for name in ["static", "finished", "bare"] {
        assert_eq!(stage.entry(name).unwrap().departure, DepartureOutcome::Stays, "{name}");
    }
}

/// A pod that nobody would create again, with so much state.
fn bare(name: &str, stage: &mut Stage, bytes: u64) -> PodFacts {
    let inspected = Outcome::Done(Done::Inspected { state_bytes: bytes, busy: true, doubt: None });
    stage.answers.insert(format!("inspect_engine {name}"), inspected);
    PodFacts { owner: Owner::Bare { may_go: false }, ..holding(name) }
}

#[test]
fn a_pod_that_stays_is_saved_at_the_last_moment_that_fits() {
    let mut stage = Stage::with(&[]);
    stage.hear(Event::LinkMeasured { bytes_per_second: 1 << 30 });
    let daemon = daemon("engine", DaemonDrain::Stay, false);
    let daemon = PodFacts { owner: daemon.owner, ..bare("engine", &mut stage, 1 << 30) };
    for pod in [bare("bare", &mut stage, 1 << 30), daemon] {
        stage.sees(&pod);
    }
    stage.notice(TERMINATE, "n", 120);
    // Each keeps a second for its flush and one for its bytes, a quarter more of both, a second for doubt and two for its
    // commit; the one that is sent last waits for the bytes of the other.
    stage.until(108_000);
    assert!(stage.order("flush").is_empty(), "they serve: {:?}", stage.order("flush"));
    stage.until(120_000);
    for name in ["bare", "engine"] {
        let entry = stage.entry(name).unwrap();
        assert_eq!((entry.departure, entry.state), (DepartureOutcome::Stays, StateOutcome::Saved), "{name}");
        assert!(entry.committed.unwrap() <= stage.report().unwrap().deadline, "{name}");
        assert!(stage.times("quiesce", name).is_empty(), "nobody else answers the requests of {name}");
    }
    assert!(stage.order("evict").is_empty());
    assert!(stage.report().unwrap().complete);
}

#[test]
fn a_pod_that_stays_is_saved_behind_its_equals_that_have_a_successor() {
    let mut stage = Stage::with(&[]).by_hand(&["save"]);
    let stays = bare("stays", &mut stage, 1 << 20);
    let canary = PodFacts { role: Role::Canary, ..stateful("canary") };
    let low = PodFacts { priority: -1, ..stateful("low") };
    for pod in [stays, canary, low] {
        stage.sees(&pod);
    }
    stage.notice(TERMINATE, "n", 120);
    stage.until(1_000);
    let rank = |pod| match &stage.actions("save", pod)[..] {
        [Action::Pod { action: PodAction::Save { rank, .. }, .. }] => *rank,
        other => panic!("{pod}: {other:?}"),
    };
    assert!(rank("canary") < rank("stays"), "{:?}", stage.order("save"));
}

#[test]
fn a_doubted_state_is_saved_after_all_others_and_the_report_says_why() {
    let mut stage = Stage::with(&[]);
    let why = "2 pods took such a state and did not use it";
    let inspected = |doubt| Outcome::Done(Done::Inspected { state_bytes: 1 << 20, busy: false, doubt });
    stage.answers.insert("inspect_engine high".into(), inspected(Some(why.to_owned())));
    stage.answers.insert("inspect_engine low".into(), inspected(None));
    for (name, priority) in [("high", 1_000), ("low", 1)] {
        stage.sees(&PodFacts { priority, ..stateful(name) });
    }
    stage.until(1_000);
    stage.by_hand.insert("save".into());
    stage.notice(TERMINATE, "n", 120);
    stage.until(10_000);
    let rank = |pod| match &stage.actions("save", pod)[..] {
        [Action::Pod { action: PodAction::Save { rank, .. }, .. }, ..] => *rank,
        other => panic!("{pod}: {other:?}"),
    };
    assert!(rank("low") < rank("high"), "{:?}", stage.order("save"));
    assert_eq!(stage.facts("high").doubt.as_deref(), Some(why), "the plan says it");
    for pod in ["low", "high"] {
        stage.done("save", pod);
    }
    stage.until(120_000);
    let entry = stage.entry("high").unwrap();
    assert_eq!(entry.state, StateOutcome::Saved, "nothing is dropped for a doubt");
    assert_eq!(entry.state_reason, Some(format!("saved after all others: {why}")));
}

#[test]
fn a_pod_that_stays_is_not_saved_if_the_notice_goes_before_its_moment() {
    let mut stage = Stage::with(&[]);
    stage.hear(Event::LinkMeasured { bytes_per_second: 1 << 30 });
    let bare = bare("bare", &mut stage, 1 << 30);
    stage.sees(&bare);
    stage.notice(TERMINATE, "n", 120);
    stage.until(50_000);
    assert_eq!(stage.times("write_intent", "bare"), [0]);
    stage.hear(Event::NoticeWithdrawn { id: "n".into(), is_over: false });
    stage.until(130_000);
    assert_eq!(stage.times("abandon_intent", "bare"), [50_000]);
    assert!(stage.times("flush", "bare").is_empty());
}

#[test]
fn a_pod_that_stays_and_is_deleted_is_saved_within_its_own_grace() {
    let mut stage = Stage::with(&[]).by_hand(&["save"]);
    stage.hear(Event::LinkMeasured { bytes_per_second: 1 << 30 });
    let bare = PodFacts { grace: Span::from_secs(10), ..bare("bare", &mut stage, 1 << 20) };
    stage.sees(&bare);
    stage.notice(TERMINATE, "n", 120);
    stage.until(50_000);
    stage.sees_deleted(&bare);
    stage.until(58_000);
    assert_eq!(stage.times("commit", "bare"), [57_000], "its cut-off, not that of the notice");
}

#[test]
fn a_pod_that_stays_goes_on_at_once_when_the_notice_goes() {
    // The link was never measured: it is saved at once.
    let mut stage = Stage::with(&[]);
    let bare = bare("bare", &mut stage, 1 << 20);
    stage.sees(&bare);
    stage.notice(TERMINATE, "n", 120);
    assert_eq!(stage.times("commit", "bare"), [0]);
    stage.until(20_000);
    stage.hear(Event::NoticeWithdrawn { id: "n".into(), is_over: false });
    stage.until(60_000);
    let looks = stage.times("inspect_engine", "bare");
    assert!(looks.iter().any(|at| *at > 20_000), "it is looked at as before: {looks:?}");
    stage.sees_deleted(&bare);
    assert_eq!(stage.times("commit", "bare"), [0, 60_000], "what came since is saved, too");
}

#[test]
fn a_saved_pod_that_stays_and_is_deleted_is_saved_once_more() {
    let mut stage = Stage::with(&[]);
    let bare = bare("bare", &mut stage, 1 << 20);
    stage.sees(&bare);
    stage.notice(TERMINATE, "n", 120);
    stage.until(30_000);
    stage.sees_deleted(&bare);
    assert_eq!(stage.times("commit", "bare"), [0, 30_000]);
}

#[test]
fn a_pod_that_stays_and_never_answered_a_look_is_saved_at_once() {
    let mut stage = Stage::with(&[]);
    stage.hear(Event::LinkMeasured { bytes_per_second: 1 << 30 });
    stage.answers.insert("inspect_engine bare".into(), Outcome::TimedOut);
    stage.sees(&PodFacts { owner: Owner::Bare { may_go: false }, ..stateful("bare") });
    stage.until(1_000);
    stage.notice(TERMINATE, "n", 120);
    stage.until(10_000);
    assert_eq!(stage.times("flush", "bare").len(), 1, "nobody knows how long it takes");
}

#[test]
fn a_mirror_pod_is_not_saved() {
    let mut stage = Stage::with(&[PodFacts { owner: Owner::Static, ..stateful("mirror") }]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(120_000);
    let entry = stage.entry("mirror").unwrap();
    assert_eq!((entry.departure, entry.state), (DepartureOutcome::Stays, StateOutcome::None));
}

#[test]
fn a_pod_that_terminates_already_is_saved_within_its_own_grace_and_not_hurried() {
    let gold = holding("gold");
    let mut stage = Stage::with(&[]).by_hand(&["save"]);
    stage.sees_deleted(&gold);
    stage.until(5_000);
    stage.notice(TERMINATE, "n", 120);
    stage.until(10_000);
    assert_eq!(stage.hold("gold"), Some(30_000));
    stage.done("save", "gold");
    assert_eq!(stage.hold("gold"), Some(0));
    assert!(stage.order("evict").is_empty() && stage.order("delete_pod").is_empty());
    stage.until(11_000);
    stage.gone("gold");
    assert_eq!(stage.entry("gold").unwrap().state, StateOutcome::Saved);
}

#[test]
fn anothers_delete_starts_a_departure_that_ends_with_the_pods_own_grace() {
    let gold = holding("gold");
    let mut stage = Stage::with(std::slice::from_ref(&gold)).by_hand(&["save"]);
    stage.until(1_000);
    stage.sees_deleted(&gold);
    assert_eq!(stage.hold("gold"), Some(31_000));
    assert!(
        matches!(&stage.actions("write_intent", "gold")[..], [Action::Pod { action: PodAction::WriteIntent { departure, .. }, .. }] if departure == "deleted")
    );
    stage.until(60_000);
    // A second to end and two for the commit before its grace is over.
    assert_eq!(stage.times("commit", "gold"), [28_000]);
    assert_eq!(stage.hold("gold"), Some(0));
    for name in ["mark_node", "evict", "write_report"] {
        assert!(stage.order(name).is_empty() && stage.times(name, "").is_empty(), "{name}");
    }
}

#[test]
fn a_deleted_pod_that_does_not_wait_for_a_hold_is_flushed_at_once_even_if_it_is_busy() {
    let gold = stateful("gold");
    let mut stage = Stage::with(&[]);
    let busy = Outcome::Done(Done::Inspected { state_bytes: 1 << 20, busy: true, doubt: None });
    stage.answers.insert("inspect_engine gold".into(), busy);
    stage.sees(&gold);
    stage.hear(Event::LinkMeasured { bytes_per_second: 1 << 30 });
    stage.until(1_000);
    stage.sees_deleted(&gold);
    assert_eq!(stage.times("flush", "gold"), [1_000]);
}

#[test]
fn with_on_delete_release_a_deleted_pod_is_let_go_at_once() {
    let mut gold = holding("gold");
    if let Some(engine) = &mut gold.engine {
        engine.on_delete = OnDelete::Release;
    }
    let mut stage = Stage::with(std::slice::from_ref(&gold));
    stage.until(1_000);
    assert_eq!(stage.hold("gold"), Some(6_000), "kept a few seconds ahead");
    stage.sees_deleted(&gold);
    assert_eq!(stage.hold("gold"), Some(0));
    assert!(stage.order("flush").is_empty());
}

#[test]
fn a_deleted_shadow_is_released_although_it_is_opted_in() {
    let shadow = PodFacts { role: Role::Shadow, ..holding("shadow") };
    let mut stage = Stage::with(std::slice::from_ref(&shadow));
    stage.until(1_000);
    stage.sees_deleted(&shadow);
    assert_eq!(stage.hold("shadow"), Some(0));
    assert!(stage.order("write_intent").is_empty());
}

#[test]
fn a_staying_pod_that_somebody_deletes_during_an_evacuation_is_saved() {
    let cache = PodFacts { engine: holding("cache").engine, ..daemon("cache", DaemonDrain::Stay, false) };
    let mut stage = Stage::with(std::slice::from_ref(&cache));
    stage.hear(Event::LinkMeasured { bytes_per_second: 1 << 30 });
    stage.notice(TERMINATE, "n", 120);
    assert_eq!((stage.hold("cache"), stage.order("flush").len()), (Some(115_000), 0));
    stage.until(1_000);
    stage.sees_deleted(&cache);
    assert_eq!(stage.times("commit", "cache"), [1_000]);
    assert_eq!(stage.hold("cache"), Some(0));
}

#[test]
fn a_hold_whose_write_had_no_answer_is_not_believed_to_say_what_it_said_before() {
    let cache = PodFacts { owner: Owner::Static, ..holding("cache") };
    let mut stage = Stage::with(std::slice::from_ref(&cache));
    stage.notice(TERMINATE, "n", 120);
    stage.by_hand.insert("set_hold".into());
    stage.until(1_000);
    stage.sees_deleted(&cache);
    assert_eq!(stage.hold("cache"), Some(31_000));
    stage.until(2_000);
    assert_eq!(stage.times("commit", "cache"), [1_000]);
    stage.until(2_100);
    assert_eq!(stage.hold("cache"), Some(0), "released again, although it was before");
}

#[test]
fn a_deleted_pod_of_a_kind_that_would_stay_is_saved_all_the_same() {
    let bare =
        PodFacts { owner: Owner::Bare { may_go: false }, grace: Span::from_secs(60), ..holding("bare") };
    let mut stage = Stage::with(std::slice::from_ref(&bare));
    stage.until(1_000);
    stage.sees_deleted(&bare);
    assert_eq!(stage.times("commit", "bare"), [1_000]);
    assert_eq!(stage.hold("bare"), Some(0));
}

#[test]
fn a_daemon_set_that_is_rolled_in_the_middle_does_not_delay_the_complete_report() {
    let daemon =
        PodFacts { owner: Owner::Daemon { drain: DaemonDrain::Stay, tolerates_all: false }, ..pod("agent") };
    let mut stage = Stage::with(&[daemon.clone(), pod("web")]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(1_000);
    stage.sees_deleted(&daemon);
    stage.until(2_000);
    stage.gone("web");
    assert!(stage.report().unwrap().complete, "it is still terminating");
    assert_eq!(stage.entry("agent").unwrap().departure, DepartureOutcome::Stays);
}

#[test]
fn a_list_that_shows_a_terminating_pod_as_it_was_before_changes_nothing() {
    let mut stage = Stage::with(&[pod("web")]);
    stage.sees_deleted(&pod("web"));
    stage.sees(&pod("web"));
    stage.notice(TERMINATE, "n", 120);
    stage.until(5_000);
    assert!(stage.order("evict").is_empty(), "it is on its way out already: {}", stage.story());
}
