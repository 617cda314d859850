//! Evictions and deletes: too early, out of order, too often, too rarely.

use crate::pen::{DEADLINE, NOTICED, Pen, active_notice, engine, holding, ms, uid, web};
use evacuation::effect::{Action, NodeAction, PodAction};
use evacuation::event::Event;
use evacuation::moment::Span;
use evacuation::notice::{ActiveNotice, InstanceAction, NoticeKind};
use evacuation::pod::{DaemonDrain, Owner, PodFacts, Role};
use evacuation::policy::{EvictOrder, Policy, RespectPdb};

fn important(name: &str) -> PodFacts {
    PodFacts { priority: 1_000, ..web(name) }
}

#[test]
fn a_pod_that_is_evicted_before_the_cordon_is_a_violation_of_guarantee_1() {
    let mut pen = Pen::noticed(Policy::default(), &[web("a")]);
    pen.evicts("a");
    pen.breaks(1, "a) before the cordon");
}

#[test]
fn an_eviction_without_a_notice_is_a_violation_of_guarantee_2() {
    let mut pen = Pen::new(Policy::default(), &[web("a")]);
    pen.evicts("a");
    pen.breaks(2, "an eviction of ns/a (a) without a notice");
}

#[test]
fn an_eviction_of_a_pod_that_was_never_seen_is_a_violation_of_guarantee_2() {
    let mut pen = Pen::cordoned(&[]);
    pen.evicts("a");
    pen.breaks(2, "which was never seen");
}

#[test]
fn a_pod_that_is_evicted_before_its_commit_is_a_violation_of_guarantee_2() {
    let mut pen = Pen::cordoned(&[engine("gold")]);
    pen.saved("gold", 3_000, None);
    pen.commits("gold", false);
    pen.is_good();
    pen.evicts("gold");
    pen.breaks(2, "neither committed nor held nor given up");
}

#[test]
fn a_pod_that_is_evicted_first_without_its_hold_is_a_violation_of_guarantee_2() {
    let held = |until| {
        let mut pen = Pen::cordoned(&[holding("gold")]);
        pen.woke(2_200);
        pen.holds("gold", until);
        pen.done("set_hold", 2_300);
        pen.asks(Action::Pod {
            uid: uid("gold"),
            action: PodAction::Evict { grace: Span::from_millis(DEADLINE - 2_300) },
        });
        pen
    };
    held(DEADLINE).is_good();
    held(DEADLINE - 60_000).breaks(2, "neither committed nor held nor given up");
}

#[test]
fn an_eviction_of_a_pod_that_stays_is_a_violation_of_guarantee_2() {
    let daemon = Owner::Daemon { drain: DaemonDrain::Stay, tolerates_all: false };
    let mut pen = Pen::cordoned(&[PodFacts { owner: daemon, ..web("cni") }]);
    pen.evicts("cni");
    pen.breaks(2, "that stays: DaemonSet pod");
}

#[test]
fn a_log_shipper_that_is_evicted_before_the_last_seconds_is_a_violation_of_guarantee_2() {
    let daemon = Owner::Daemon { drain: DaemonDrain::Late, tolerates_all: false };
    let mut pen = Pen::cordoned(&[PodFacts { owner: daemon, ..web("logs") }]);
    pen.evicts("logs");
    pen.breaks(2, "before the last seconds");
}

#[test]
fn a_delete_before_the_cut_off_is_a_violation_of_guarantee_2() {
    let mut pen = Pen::cordoned(&[web("a")]);
    pen.lets_go("a");
    pen.breaks(2, "a delete of ns/a (a) before its cut-off 105000 ms");
}

#[test]
fn a_delete_where_budgets_are_always_respected_is_a_violation_of_guarantee_2() {
    let policy = Policy { respect_pdb: RespectPdb::Always, ..Policy::default() };
    let mut pen = Pen::noticed(policy, &[web("a")]);
    pen.done("mark_node", 2_100);
    pen.woke(106_000);
    pen.is_good();
    pen.lets_go("a");
    pen.breaks(2, "although budgets are always respected");
}

#[test]
fn an_eviction_without_grace_is_a_violation_of_guarantee_2() {
    let mut pen = Pen::cordoned(&[web("a")]);
    pen.asks(Action::Pod { uid: uid("a"), action: PodAction::Evict { grace: Span::ZERO } });
    pen.breaks(2, "with a grace of 0 ms");
}

#[test]
fn a_grace_that_ends_after_the_deadline_is_a_violation_of_guarantee_4() {
    let mut pen = Pen::cordoned(&[web("a")]);
    pen.asks(Action::Pod { uid: uid("a"), action: PodAction::Evict { grace: Span::from_secs(200) } });
    pen.breaks(4, "beyond the deadline");
}

#[test]
fn an_eviction_that_begins_after_the_notice_was_withdrawn_is_a_violation_of_guarantee_2() {
    let mut pen = Pen::cordoned(&[web("a")]);
    pen.event(3_000, Event::NoticeWithdrawn { id: "n".into(), is_over: false });
    pen.evicts("a");
    pen.breaks(2, "that begins after the notice was withdrawn");
}

#[test]
fn an_eviction_from_an_instance_that_hibernates_is_a_violation_of_guarantee_2() {
    let kind = NoticeKind::Interruption(InstanceAction::Hibernate);
    let mut pen = Pen::new(Policy::default(), &[web("a")]);
    pen.notice(NOTICED, kind, "n", 120_000);
    pen.asks(Action::Node(NodeAction::MarkNode(ActiveNotice { kind, ..active_notice(DEADLINE) })));
    pen.done("mark_node", 2_100);
    pen.evicts("a");
    pen.breaks(2, "while the instance hibernates");
}

#[test]
fn an_eviction_out_of_order_is_a_violation_of_guarantee_3() {
    let mut pen = Pen::cordoned(&[web("low"), important("high")]);
    pen.evicts("low");
    pen.evicts("high");
    pen.breaks(3, "an eviction of ns/low (low) before that of ns/high (high)");

    let policy = Policy { evict_order: EvictOrder::LowestFirst, ..Policy::default() };
    let mut pen = Pen::noticed(policy, &[web("low"), important("high")]);
    pen.done("mark_node", 2_100);
    pen.evicts("high");
    pen.breaks(3, "an eviction of ns/high (high) before that of ns/low (low)");
}

#[test]
fn what_is_shed_goes_first_and_the_role_decides_within_a_tier() {
    let shadow = PodFacts { role: Role::Shadow, priority: -5, ..web("shadow") };
    let canary = PodFacts { role: Role::Canary, ..web("canary") };
    for (first, then) in [(shadow, important("high")), (web("active"), canary)] {
        let (a, b) = (first.name.clone(), then.name.clone());
        let mut pen = Pen::cordoned(&[first.clone(), then.clone()]);
        pen.evicts(&a);
        pen.evicts(&b);
        pen.is_good();
        let mut pen = Pen::cordoned(&[first, then]);
        pen.evicts(&b);
        pen.breaks(3, &format!("before that of ns/{a}"));
    }
}

#[test]
fn who_is_not_ready_is_not_overtaken() {
    let gold = PodFacts { priority: 1_000, ..engine("gold") };
    let mut pen = Pen::cordoned(&[gold, web("low")]);
    pen.evicts("low");
    pen.is_good();
    pen.committed("gold", 3_000);
    pen.sees(3_040, &web("late"));
    pen.evicts("late");
    pen.breaks(3, "before that of ns/gold");
}

#[test]
fn more_evictions_at_once_than_there_are_slots_are_a_violation_of_guarantee_3() {
    let policy = Policy { eviction_slots: 1, ..Policy::default() };
    let mut pen = Pen::noticed(policy, &[web("a"), web("b")]);
    pen.done("mark_node", 2_100);
    pen.evicts("a");
    pen.is_good();
    pen.evicts("b");
    pen.breaks(3, "while 1 others are asked");
}

#[test]
fn two_requests_for_one_pod_at_once_are_a_violation_of_guarantee_3() {
    let mut pen = Pen::cordoned(&[web("a")]);
    pen.evicts("a");
    pen.evicts("a");
    pen.breaks(3, "while another request for it is open");
}

#[test]
fn a_refused_pod_that_is_asked_again_at_once_is_a_violation_of_guarantee_3() {
    let again = |at| {
        let mut pen = Pen::cordoned(&[web("a")]);
        pen.evicts("a");
        pen.refused("evict", 2_200);
        pen.woke(at);
        pen.evicts("a");
        pen
    };
    again(2_300).is_good();
    again(2_250).breaks(3, "was refused 50 ms ago");
}

#[test]
fn a_refused_pod_that_is_forgotten_is_a_violation_of_guarantee_3() {
    let mut pen = Pen::cordoned(&[web("a")]);
    pen.evicts("a");
    pen.refused("evict", 2_200);
    pen.woke(3_500);
    pen.is_good();
    pen.woke(3_600);
    pen.breaks(3, "is not asked again");
}

#[test]
fn a_core_that_wants_to_sleep_over_a_refused_pod_is_a_violation_of_guarantee_3() {
    let mut pen = Pen::cordoned(&[web("a")]);
    pen.evicts("a");
    pen.refused("evict", 2_200);
    pen.woke(9_000);
    pen.evicts("a");
    // It was not woken, or did not want to be: the trace alone does not say.
    pen.is_good();
    let mut checker = trace::guarantees::Checker::new(pen.policy.clone());
    pen.steps.iter().for_each(|step| checker.step(step, Some(ms(9_001.max(step.at.as_millis() + 1)))));
    let found = checker.violations();
    assert!(found.len() == 1 && found[0].guarantee == 3, "{found:?}");
    assert_eq!(
        found[0].to_string(),
        "guarantee 3: at 9000 ms ns/a (a) was refused 6800 ms ago, and not asked since"
    );
}

#[test]
fn the_deadline_of_one_that_is_deleted_by_another_is_not_waited_for() {
    let mut pen = Pen::new(Policy::default(), &[engine("gold")]);
    pen.sees_deleted(2_000, &engine("gold"));
    pen.breaks(2, "is deleted, and its save does not begin");
    pen.asks(Action::Pod {
        uid: uid("gold"),
        action: PodAction::WriteIntent { departure: "deleted".into(), by: ms(9_000) },
    });
    pen.is_good();
}
