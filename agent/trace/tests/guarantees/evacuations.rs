//! The mark on the node and its deadline; what a core must never do at all; and a trace in which all is well.

use crate::pen::{
    DEADLINE, NOTICED, Pen, TERMINATE, active_notice, engine, entry, holding, ms, node, uid, web,
};
use evacuation::effect::{Action, Effect, EffectId, NodeAction, PodAction};
use evacuation::event::{Event, NodeFacts};
use evacuation::moment::Span;
use evacuation::notice::{ActiveNotice, NoticeKind};
use evacuation::pod::PodFacts;
use evacuation::policy::Policy;
use evacuation::report::StateOutcome;
use trace::guarantees::{Checker, check};

/// A whole evacuation with a restart in its middle.
fn good() -> Pen {
    let gold = PodFacts { priority: 1_000, ..holding("gold") };
    let mut pen = Pen::cordoned(&[gold.clone(), web("a")]);
    pen.evicts("a");
    pen.holds("gold", DEADLINE);
    pen.done("set_hold", 2_200);
    pen.done("evict", 2_300);
    pen.committed("gold", 3_000);
    pen.evicts("gold");
    pen.holds("gold", 0);
    pen.done("set_hold", 3_050);
    let marked = NodeFacts {
        unschedulable: true,
        tainted: true,
        active_notice: Some(active_notice(DEADLINE)),
        ..node()
    };
    pen.starts(4_000, marked);
    pen.sees_deleted(4_000, &gold);
    pen.intends("gold");
    let committed = Some(("gold/1-1".to_owned(), 100));
    let intended = evacuation::event::Done::IntentWritten { committed, evidence: true };
    pen.answer("write_intent", 4_100, evacuation::event::Outcome::Done(intended));
    pen.event(5_000, Event::PodRemoved(uid("gold")));
    pen.report(|report| {
        report.pods.push(entry("gold"));
        report.pods[0].state = StateOutcome::Saved;
        report.pods[0].generation = Some("gold/1-1".into());
    });
    pen.done("write_report", 5_100);
    pen.woke(DEADLINE + 70_000);
    pen
}

#[test]
fn an_evacuation_in_order_has_no_violation_wherever_its_trace_is_cut() {
    let pen = good();
    pen.is_good();
    for cut in 0..pen.steps.len() {
        let found = check(&pen.policy, &pen.steps[..cut]);
        assert!(found.is_empty(), "cut after {cut}: {found:?}");
        for effects in 0..pen.steps[cut].effects.len() {
            let mut steps = pen.steps[..=cut].to_vec();
            steps[cut].effects.truncate(effects);
            let found = check(&pen.policy, &steps);
            assert!(found.is_empty(), "cut after {effects} effects of {cut}: {found:?}");
        }
    }
}

#[test]
fn a_mark_that_is_taken_back_while_the_notice_stands_is_a_violation_of_guarantee_1() {
    let mut pen = Pen::cordoned(&[]);
    pen.asks(Action::Node(NodeAction::ClearNodeMark { uncordon: true, over: Vec::new() }));
    pen.breaks(1, "it takes its mark back at 2100 ms while the notice n stands");
}

#[test]
fn a_cordon_of_somebody_else_that_is_lifted_is_a_violation_of_guarantee_1() {
    let mut pen = Pen::new(Policy::default(), &[]);
    pen.event(1_500, Event::NodeUpdated(NodeFacts { unschedulable: true, ..node() }));
    pen.asks(Action::Node(NodeAction::ClearNodeMark { uncordon: true, over: Vec::new() }));
    pen.breaks(1, "it uncordons a node that somebody else had cordoned");
}

#[test]
fn a_cordon_of_ours_that_follows_one_that_somebody_lifted_may_be_taken_back() {
    let mut pen = Pen::new(Policy::default(), &[]);
    let marked = NodeFacts {
        unschedulable: true,
        tainted: true,
        active_notice: Some(active_notice(DEADLINE)),
        ..node()
    };
    pen.event(1_200, Event::NodeUpdated(NodeFacts { unschedulable: true, ..node() }));
    // Late: of a mark that was taken back before this life.
    pen.event(1_300, Event::NodeUpdated(marked));
    pen.event(1_500, Event::NodeUpdated(node()));
    pen.asks(Action::Node(NodeAction::ClearNodeMark { uncordon: true, over: Vec::new() }));
    pen.is_good();
}

#[test]
fn an_eviction_after_the_watch_has_shown_the_mark_is_after_the_cordon() {
    let evicts = |cordoned, deadline| {
        let mut pen = Pen::noticed(Policy::default(), &[web("a")]);
        pen.asks(Action::Node(NodeAction::MarkNode(active_notice(DEADLINE))));
        let active_notice = Some(active_notice(deadline));
        let seen = NodeFacts { unschedulable: cordoned, tainted: true, active_notice, ..node() };
        pen.event(2_500, Event::NodeUpdated(seen));
        pen.evicts("a");
        pen
    };
    evicts(true, DEADLINE).is_good();
    evicts(false, DEADLINE).breaks(1, "before the cordon");
    evicts(true, DEADLINE + 9_000).breaks(1, "before the cordon");
}

#[test]
fn an_eviction_after_somebody_lifted_our_cordon_is_a_violation_of_guarantee_1() {
    let mut pen = Pen::cordoned(&[web("a")]);
    pen.event(2_200, Event::NodeUpdated(NodeFacts { tainted: true, ..node() }));
    // What the watch shows may be older than the PATCH.
    pen.woke(4_200);
    pen.evicts("a");
    pen.is_good();
    pen.steps.pop();
    pen.woke(4_201);
    pen.evicts("a");
    pen.breaks(1, "before the cordon");
}

#[test]
fn a_deadline_that_moves_with_a_restart_is_a_violation_of_guarantee_7() {
    let restarted = |deadline| {
        let mut pen = Pen::cordoned(&[]);
        let node = NodeFacts {
            unschedulable: true,
            tainted: true,
            active_notice: Some(active_notice(deadline)),
            ..node()
        };
        pen.starts(9_000, node);
        pen
    };
    restarted(DEADLINE).is_good();
    restarted(DEADLINE + 7_000).breaks(7, "the annotation's deadline is 124000 ms");
    let mut pen = restarted(DEADLINE);
    pen.asks(Action::Node(NodeAction::MarkNode(active_notice(DEADLINE + 7_000))));
    pen.breaks(7, "it marks its node where Some((2000, 117000)) ms is right");
}

#[test]
fn what_must_never_be_asked_for_is_a_violation_of_guarantee_8() {
    let effect = |id, deadline| Effect {
        id: EffectId(id),
        deadline: ms(deadline),
        attempt: 1,
        action: Action::Pod { uid: uid("gold"), action: PodAction::InspectEngine },
    };
    let with = |effects: Vec<Effect>| {
        let mut pen = Pen::new(Policy::default(), &[engine("gold")]);
        pen.steps.last_mut().unwrap().effects = effects;
        pen
    };
    with(vec![effect(1, 1_001), effect(2, 1_001)]).is_good();
    with(vec![effect(1, 1_001), effect(1, 1_001)]).breaks(8, "has an id that was given out before");
    with(vec![effect(1, 1_000)]).breaks(8, "must be answered before it is asked");
    let mut pen = with(Vec::new());
    pen.asks(Action::Anomaly { what: "an answer nobody asked for".into() });
    pen.breaks(8, "an anomaly: an answer nobody asked for");
}

#[test]
fn an_endless_loop_is_a_violation_of_guarantee_8() {
    let mut pen = Pen::new(Policy::default(), &[]);
    (0..150).for_each(|_| pen.woke(5_000));
    pen.is_good();
    pen.woke(5_999);
    pen.breaks(8, "a busy loop");
    let mut checker = Checker::new(Policy::default());
    let step = &Pen::new(Policy::default(), &[]).steps[0];
    checker.step(step, Some(step.at));
    assert!(checker.violations()[0].what.contains("it wants to be woken in the past"));
}

/// A rebalance recommendation, marked softly until `TTL`.
fn recommended() -> Pen {
    let mut pen = Pen::new(Policy::default(), &[]);
    pen.notice(NOTICED, NoticeKind::Rebalance, "n", 0);
    pen.asks(Action::Node(NodeAction::MarkNode(ActiveNotice {
        kind: NoticeKind::Rebalance,
        hard: false,
        ..active_notice(NOTICED + TTL)
    })));
    pen.done("mark_node", 2_100);
    pen
}

const TTL: u64 = 30 * 60 * 1_000;

#[test]
fn a_rebalance_that_leaves_a_trace_is_a_violation_of_guarantee_9() {
    let mut pen = recommended();
    pen.woke(NOTICED + TTL);
    pen.is_good();
    pen.woke(NOTICED + TTL + 10_001);
    pen.breaks(9, "its mark is still on the node");
    pen.steps.pop();
    pen.asks(Action::Node(NodeAction::ClearNodeMark { uncordon: false, over: Vec::new() }));
    pen.done("clear_node_mark", NOTICED + TTL + 100);
    pen.woke(NOTICED + TTL + 10_001);
    pen.is_good();
}

#[test]
fn a_soft_mark_that_is_taken_back_early_is_a_violation_of_guarantee_9() {
    let mut pen = recommended();
    pen.woke(NOTICED + TTL - 1);
    pen.asks(Action::Node(NodeAction::ClearNodeMark { uncordon: false, over: Vec::new() }));
    pen.breaks(9, "it takes its soft mark back");
}

#[test]
fn an_event_that_is_over_and_not_noted_is_a_violation_of_guarantee_9() {
    let noted = |over: &[&str]| {
        let mut pen = Pen::new(Policy::default(), &[]);
        let emptied = ActiveNotice {
            kind: NoticeKind::Maintenance,
            notice: "host".into(),
            boot: "an earlier one".into(),
            ..active_notice(DEADLINE)
        };
        let marked = NodeFacts { tainted: true, active_notice: Some(emptied), ..node() };
        pen.starts(1_000, marked);
        let over = over.iter().map(|id| (*id).to_owned()).collect();
        pen.asks(Action::Node(NodeAction::ClearNodeMark { uncordon: true, over }));
        pen
    };
    noted(&["host"]).is_good();
    noted(&[]).breaks(9, "as over, where");
    noted(&["host", "another"]).breaks(9, "as over, where");
}

#[test]
fn a_cordon_of_ours_that_is_left_behind_is_a_violation_of_guarantee_9() {
    let undone = |uncordon| {
        let mut pen = Pen::cordoned(&[]);
        pen.report(|_| {});
        pen.event(3_000, Event::NoticeWithdrawn { id: "n".into(), is_over: false });
        pen.woke(3_000 + TTL);
        pen.asks(Action::Node(NodeAction::ClearNodeMark { uncordon, over: Vec::new() }));
        pen.done("clear_node_mark", 3_100 + TTL);
        pen
    };
    undone(true).is_good();
    undone(false).breaks(9, "it leaves its own cordon behind");
    let mut pen = undone(true);
    let seen = NodeFacts {
        unschedulable: true,
        tainted: false,
        active_notice: Some(active_notice(DEADLINE)),
        ..node()
    };
    pen.event(3_200 + TTL, Event::NodeUpdated(seen));
    pen.woke(20_000 + TTL);
    pen.breaks(9, "nothing stands any more");
}

#[test]
fn a_node_that_is_still_cordoned_when_nothing_stands_is_a_violation_of_guarantee_9() {
    let mut pen = Pen::cordoned(&[]);
    pen.report(|_| {});
    pen.event(3_000, Event::NoticeWithdrawn { id: "n".into(), is_over: false });
    pen.woke(3_000 + TTL);
    let over = 3_001 + TTL;
    pen.notice(over, NoticeKind::Rebalance, "r", 0);
    let soft = ActiveNotice {
        notice: "r".into(),
        kind: NoticeKind::Rebalance,
        hard: false,
        ..active_notice(over + TTL)
    };
    pen.asks(Action::Node(NodeAction::MarkNode(soft)));
    pen.done("mark_node", over + 100);
    pen.woke(over + TTL);
    pen.asks(Action::Node(NodeAction::ClearNodeMark { uncordon: false, over: Vec::new() }));
    pen.done("clear_node_mark", over + TTL + 100);
    pen.is_good();
    pen.woke(over + TTL + 10_001);
    pen.breaks(9, "nothing stands any more, and the node is still cordoned");
}

#[test]
fn a_notice_before_the_node_is_known_counts_from_its_sight() {
    // The node is known 40 s after the notice was seen.
    let late = |began, deadline| {
        let mut pen = Pen::blank();
        pen.event(1_000, Event::AgentStarted { boot: "boot".into(), slept: Span::ZERO });
        pen.notice(NOTICED, TERMINATE, "n", 120_000);
        pen.event(42_000, Event::PodsListed);
        pen.event(42_000, Event::NodeRead(node()));
        let mark = ActiveNotice { began: ms(began), ..active_notice(deadline) };
        pen.asks(Action::Node(NodeAction::MarkNode(mark)));
        pen
    };
    late(NOTICED, DEADLINE).is_good();
    late(NOTICED, DEADLINE + 40_000).breaks(7, "it marks its node where Some((2000, 117000)) ms is right");
    late(42_000, DEADLINE).breaks(7, "it marks its node where Some((2000, 117000)) ms is right");
    let mut pen = late(NOTICED, DEADLINE);
    pen.asks(Action::Anomaly { what: "a notice came before the node was read".into() });
    pen.breaks(8, "an anomaly");
}

#[test]
fn a_notice_waits_three_seconds_for_the_list_and_not_longer() {
    let acts = |at| {
        let mut pen = Pen::blank();
        pen.event(1_000, Event::AgentStarted { boot: "boot".into(), slept: Span::ZERO });
        pen.event(1_000, Event::NodeRead(node()));
        pen.notice(NOTICED, TERMINATE, "n", 120_000);
        pen.woke(at);
        pen.asks(Action::Node(NodeAction::MarkNode(active_notice(DEADLINE))));
        pen
    };
    acts(NOTICED + 3_000).is_good();
    acts(NOTICED + 2_999).breaks(7, "it marks its node where None ms is right");
}

#[test]
fn a_mark_that_imds_does_not_show_is_taken_back_after_eight_seconds() {
    let clears = |at| {
        let mut pen = Pen::blank();
        let marked = NodeFacts {
            unschedulable: true,
            tainted: true,
            active_notice: Some(ActiveNotice { kind: NoticeKind::Drill, ..active_notice(DEADLINE) }),
            ..node()
        };
        pen.event(1_000, Event::AgentStarted { boot: "boot".into(), slept: Span::ZERO });
        pen.event(1_000, Event::ImdsReachable { reachable: true });
        pen.event(3_000, Event::NodeRead(marked));
        pen.woke(at);
        pen.asks(Action::Node(NodeAction::ClearNodeMark { uncordon: true, over: Vec::new() }));
        pen
    };
    clears(11_000).is_good();
    clears(10_999).breaks(1, "it takes its mark back at 10999 ms while the notice n stands");
}
