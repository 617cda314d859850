//! The steps of a save, flushes in their turn, and hold files.

use crate::pen::{DEADLINE, NOTICED, Pen, active_notice, engine, holding, uid, web};
use evacuation::effect::{Action, NodeAction, PodAction};
use evacuation::event::{Done, Event, FailureKind, Outcome};
use evacuation::notice::{ActiveNotice, InstanceAction, NoticeKind};
use evacuation::pod::{Owner, PodFacts, Role};
use evacuation::policy::Policy;

fn important(name: &str) -> PodFacts {
    PodFacts { priority: 1_000, ..engine(name) }
}

#[test]
fn an_engine_that_nobody_opted_in_and_is_flushed_is_a_violation_of_guarantee_2() {
    let mut pen = Pen::cordoned(&[web("a")]);
    pen.flushes("a");
    pen.breaks(2, "flush of ns/a (a) although it is not opted in");
}

#[test]
fn a_save_of_a_pod_that_was_never_seen_is_a_violation_of_guarantee_2() {
    let mut pen = Pen::cordoned(&[]);
    pen.intends("gold");
    pen.breaks(2, "of a pod that was never seen");
}

#[test]
fn a_pod_that_is_shed_and_saved_is_a_violation_of_guarantee_2() {
    let mut pen = Pen::cordoned(&[PodFacts { role: Role::Shadow, ..engine("shadow") }]);
    pen.intends("shadow");
    pen.breaks(2, "although it is shed");
}

fn bare(name: &str) -> PodFacts {
    PodFacts { owner: Owner::Bare { may_go: false }, ..engine(name) }
}

#[test]
fn a_pod_that_serves_to_the_end_unsaved_is_a_violation_of_guarantee_2() {
    let mut pen = Pen::cordoned(&[bare("bare")]);
    pen.event(DEADLINE, Event::TimerFired);
    pen.breaks(2, "serves to the end, and its state was not saved");
}

#[test]
fn a_pod_that_serves_to_the_end_and_is_quiesced_violates_guarantee_2() {
    let mut pen = Pen::cordoned(&[bare("bare")]);
    pen.asks(Action::Pod { uid: uid("bare"), action: PodAction::Quiesce });
    pen.breaks(2, "although it serves to the end");
}

#[test]
fn an_engine_that_is_quiesced_after_the_notice_was_withdrawn_is_a_violation_of_guarantee_2() {
    let mut pen = Pen::cordoned(&[engine("gold")]);
    pen.event(3_000, Event::NoticeWithdrawn { id: "n".into(), is_over: false });
    pen.asks(Action::Pod { uid: uid("gold"), action: PodAction::Quiesce });
    pen.breaks(2, "that begins after the notice was withdrawn");
}

#[test]
fn a_final_flush_while_the_instance_hibernates_is_a_violation_of_guarantee_2() {
    let kind = NoticeKind::Interruption(InstanceAction::Hibernate);
    let mut pen = Pen::new(Policy::default(), &[engine("gold")]);
    pen.notice(NOTICED, kind, "n", 120_000);
    pen.asks(Action::Node(NodeAction::MarkNode(ActiveNotice { kind, ..active_notice(DEADLINE) })));
    pen.flushes("gold");
    pen.breaks(2, "while the instance hibernates");
}

#[test]
fn more_flushes_at_once_than_there_are_slots_are_a_violation_of_guarantee_3() {
    let policy = Policy { flush_slots: 1, ..Policy::default() };
    let mut pen = Pen::noticed(policy, &[engine("a"), engine("b")]);
    for (pod, at) in [("a", 3_000), ("b", 3_100)] {
        pen.quiesced(pod, at);
        pen.flushes(pod);
    }
    pen.breaks(3, "flush of ns/b (b) beyond the flush slots");
}

#[test]
fn two_flushes_of_one_engine_at_once_are_a_violation_of_guarantee_3() {
    let mut pen = Pen::cordoned(&[engine("gold")]);
    pen.quiesced("gold", 3_000);
    pen.flushes("gold");
    pen.flushes("gold");
    pen.breaks(3, "while another flush of it is open");
}

#[test]
fn a_flush_that_begins_before_that_of_a_higher_tier_is_a_violation_of_guarantee_3() {
    let policy = Policy { flush_slots: 1, ..Policy::default() };
    let mut pen = Pen::noticed(policy.clone(), &[important("high"), engine("low")]);
    pen.quiesced("low", 3_000);
    pen.flushes("low");
    // The slot is taken; when it is free again, another of the low tier gets it.
    pen.quiesced("high", 3_100);
    pen.is_good();
    pen.answer("flush low", 4_000, Outcome::TimedOut);
    pen.flushes("low");
    pen.breaks(3, "flush of ns/low (low) before that of ns/high (high)");

    // One that is not ready yet is not overtaken.
    let mut pen = Pen::noticed(policy, &[important("high"), engine("low")]);
    pen.woke(2_900);
    pen.intends("high");
    pen.quiesced("low", 3_000);
    pen.flushes("low");
    pen.is_good();
}

#[test]
fn an_engine_that_is_ready_and_waits_longer_than_a_turn_is_a_violation_of_guarantee_3() {
    let mut pen = Pen::cordoned(&[important("high"), engine("low")]);
    pen.quiesced("high", 3_000);
    pen.flushes("high");
    pen.quiesced("low", 3_500);
    pen.woke(8_500);
    pen.is_good();
    pen.woke(8_600);
    pen.breaks(3, "the flush of ns/low (low) could begin since 3500 ms, and does not");
}

#[test]
fn a_save_that_is_still_open_after_the_deadline_is_a_violation_of_guarantee_4() {
    let mut pen = Pen::cordoned(&[engine("gold")]);
    pen.quiesced("gold", 3_000);
    pen.flushes("gold");
    pen.answer("flush gold", 3_100, Outcome::Done(Done::Flushed { bytes: 100, evidence: true }));
    pen.saves("gold", 0);
    pen.woke(DEADLINE - 10);
    let mut entry = crate::pen::entry("gold");
    entry.state = evacuation::report::StateOutcome::Lost;
    entry.state_reason = Some("not committed".into());
    pen.report(|report| report.pods.push(entry));
    pen.woke(DEADLINE + 500);
    pen.is_good();
    pen.woke(DEADLINE + 501);
    pen.breaks(4, "save of ns/gold (gold) is still open, beyond 117000 ms");
}

#[test]
fn a_state_that_is_given_up_without_a_reason_is_a_violation_of_guarantee_4() {
    let mut pen = Pen::cordoned(&[engine("gold")]);
    pen.asks(Action::Pod { uid: uid("gold"), action: PodAction::AbandonIntent { why: String::new() } });
    pen.breaks(4, "gold is given up without a reason");
}

#[test]
fn a_save_before_its_flush_is_a_violation_of_guarantee_5() {
    let mut pen = Pen::cordoned(&[engine("gold")]);
    pen.quiesced("gold", 3_000);
    pen.saves("gold", 0);
    pen.breaks(5, "save of ns/gold (gold) before its flush");
}

#[test]
fn a_commit_before_its_save_is_a_violation_of_guarantee_5() {
    let mut pen = Pen::cordoned(&[engine("gold")]);
    pen.quiesced("gold", 3_000);
    pen.flushes("gold");
    pen.commits("gold", false);
    pen.breaks(5, "commit of ns/gold (gold) before its save");

    let mut pen = Pen::new(Policy::default(), &[engine("gold")]);
    pen.asks(Action::Pod {
        uid: uid("gold"),
        action: PodAction::Commit {
            kind: evacuation::effect::FlushKind::PreCopy,
            partial: false,
            without_endangered: false,
        },
    });
    pen.breaks(5, "before its save");
}

#[test]
fn a_part_that_is_committed_as_the_whole_is_a_violation_of_guarantee_5() {
    for left_out in [None, Some("a file that grew")] {
        let mut pen = Pen::cordoned(&[engine("gold")]);
        pen.saved("gold", 3_000, left_out);
        pen.commits("gold", left_out.is_some());
        pen.is_good();
        let mut pen = Pen::cordoned(&[engine("gold")]);
        pen.saved("gold", 3_000, left_out);
        pen.commits("gold", left_out.is_none());
        pen.breaks(5, "with the wrong word on whether it is whole");
    }
}

#[test]
fn a_part_that_a_pre_copy_commits_as_the_whole_is_a_violation_of_guarantee_5() {
    let copied = |partial| {
        let kind = evacuation::effect::FlushKind::PreCopy;
        let mut pen = Pen::new(Policy::default(), &[engine("gold")]);
        pen.asks(Action::Pod { uid: uid("gold"), action: PodAction::Save { kind, rank: 0 } });
        let saved =
            Done::Saved { bytes: 10, sent: 10, left_out: Some("a file that grew".into()), newest: None };
        pen.answer("save", 1_100, Outcome::Done(saved));
        pen.asks(Action::Pod {
            uid: uid("gold"),
            action: PodAction::Commit { kind, partial, without_endangered: false },
        });
        pen
    };
    copied(true).is_good();
    copied(false).breaks(5, "with the wrong word on whether it is whole");
}

#[test]
fn a_part_that_a_pre_copy_commits_over_more_is_a_violation_of_guarantee_5() {
    let kind = evacuation::effect::FlushKind::PreCopy;
    let copied = |bytes, left_out: Option<&str>, newest: Option<u64>| {
        let mut pen = Pen::new(Policy::default(), &[engine("gold")]);
        pen.asks(Action::Pod { uid: uid("gold"), action: PodAction::Save { kind, rank: 0 } });
        let left_out = left_out.map(str::to_owned);
        let (newest, partial) = (newest.map(|held| ("gold/1-7".to_owned(), held)), left_out.is_some());
        pen.answer("save", 1_100, Outcome::Done(Done::Saved { bytes, sent: 10, left_out, newest }));
        let commit = PodAction::Commit { kind, partial, without_endangered: false };
        pen.asks(Action::Pod { uid: uid("gold"), action: commit });
        pen
    };
    copied(10, Some("slot-1"), Some(11)).breaks(5, "of a part that holds less than the newest generation");
    copied(10, Some("slot-1"), Some(10)).is_good();
    copied(10, Some("slot-1"), None).is_good();
    // All of an engine that has less than before is the state that there is.
    copied(10, None, Some(11)).is_good();
    // What this life has committed counts as well.
    let mut pen = copied(10, None, None);
    let committed = Done::Committed { generation: "gold/1-1".into(), bytes: 10 };
    pen.answer("commit", 1_200, Outcome::Done(committed));
    pen.asks(Action::Pod { uid: uid("gold"), action: PodAction::Save { kind, rank: 0 } });
    let part = Done::Saved { bytes: 9, sent: 1, left_out: Some("slot-1".into()), newest: None };
    pen.answer("save", 1_300, Outcome::Done(part));
    let commit = PodAction::Commit { kind, partial: true, without_endangered: false };
    pen.asks(Action::Pod { uid: uid("gold"), action: commit });
    pen.breaks(5, "of a part that holds less than the newest generation");
}

#[test]
fn what_was_found_endangered_is_never_committed_as_it_was() {
    let failed = || Outcome::Failed { kind: FailureKind::Endangered, why: "2 packs".into() };
    let endangered = |at| {
        let mut pen = Pen::cordoned(&[engine("gold")]);
        pen.saved("gold", 3_000, None);
        pen.commits("gold", false);
        pen.answer("commit", at, failed());
        pen
    };
    let without = |pen: &mut Pen, partial| {
        let kind = evacuation::effect::FlushKind::Final;
        let action = PodAction::Commit { kind, partial, without_endangered: true };
        pen.asks(Action::Pod { uid: uid("gold"), action });
    };
    let mut pen = endangered(4_000);
    pen.commits("gold", false);
    pen.breaks(5, "of what was found endangered");
    let mut pen = endangered(4_000);
    without(&mut pen, true);
    pen.breaks(5, "without what there was time to save again");
    let mut pen = endangered(DEADLINE - 1_000);
    without(&mut pen, true);
    pen.is_good();
    let mut pen = endangered(DEADLINE - 1_000);
    without(&mut pen, false);
    pen.breaks(5, "with the wrong word on whether it is whole");
    let again = |times: u64| {
        let mut pen = endangered(4_000);
        for time in 1..=times {
            pen.saves("gold", 0);
            let saved = Done::Saved { bytes: 10, sent: 1, left_out: None, newest: None };
            pen.answer("save", 4_000 + time * 200, Outcome::Done(saved));
            pen.commits("gold", false);
            pen.answer("commit", 4_100 + time * 200, failed());
        }
        pen
    };
    let mut pen = again(3);
    without(&mut pen, true);
    pen.is_good();
    let mut pen = again(3);
    pen.saves("gold", 0);
    pen.breaks(5, "a fourth time because its packs were endangered");
}

#[test]
fn bytes_that_do_not_wait_for_those_of_a_higher_tier_are_a_violation_of_guarantee_10() {
    let both = |link: Option<u64>, rank| {
        let mut pen = Pen::cordoned(&[important("high"), engine("low")]);
        if let Some(bytes_per_second) = link {
            pen.event(2_200, Event::LinkMeasured { bytes_per_second });
        }
        for (pod, at) in [("high", 3_000), ("low", 3_100)] {
            pen.quiesced(pod, at);
            pen.flushes(pod);
            let bytes = if pod == "high" { 500_000_000 } else { 1_000 };
            pen.answer(
                &format!("flush {pod}"),
                at + 50,
                Outcome::Done(Done::Flushed { bytes, evidence: true }),
            );
            pen.saves(pod, if pod == "high" { 0 } else { rank });
        }
        pen
    };
    both(None, 1).is_good();
    both(None, 0).breaks(10, "save of ns/low (low) with rank 0, although 1 that count more are being sent");
    both(Some(100_000_000), 0).breaks(10, "although 1 that count more are being sent");
    // It does not fit: what does need not wait for it.
    both(Some(1_000_000), 0).is_good();
}

#[test]
fn a_flush_of_what_is_committed_already_is_a_violation_of_guarantee_7() {
    let mut pen = Pen::cordoned(&[engine("gold")]);
    pen.committed("gold", 3_000);
    pen.is_good();
    pen.flushes("gold");
    pen.breaks(7, "flush of ns/gold (gold) although it is committed");
}

#[test]
fn a_commit_that_a_restart_does_not_find_is_a_violation_of_guarantee_7() {
    let restarted = |committed| {
        let mut pen = Pen::cordoned(&[engine("gold")]);
        pen.committed("gold", 3_000);
        let active_notice = Some(active_notice(DEADLINE));
        let node = evacuation::event::NodeFacts {
            unschedulable: true,
            tainted: true,
            active_notice,
            ..crate::pen::node()
        };
        pen.starts(4_000, node);
        pen.sees(4_000, &engine("gold"));
        pen.intends("gold");
        pen.answer("write_intent", 4_100, Outcome::Done(Done::IntentWritten { committed, evidence: true }));
        pen
    };
    restarted(Some(("gold/1-1".into(), 100))).is_good();
    restarted(None).breaks(7, "the commit of gold in this departure is forgotten");
}

#[test]
fn a_hold_beyond_the_deadline_is_a_violation_of_guarantee_11() {
    let mut pen = Pen::cordoned(&[holding("gold")]);
    pen.holds("gold", DEADLINE);
    pen.is_good();
    pen.holds("gold", DEADLINE + 1_000);
    pen.breaks(11, "ns/gold (gold) is held until 118000 ms, beyond 117000 ms");
}

#[test]
fn a_hold_far_ahead_without_any_departure_is_a_violation_of_guarantee_11() {
    let mut pen = Pen::new(Policy::default(), &[holding("gold")]);
    pen.holds("gold", 6_000);
    pen.is_good();
    pen.holds("gold", 7_000);
    pen.breaks(11, "is held until 7000 ms");
}

#[test]
fn a_pod_that_is_held_after_its_save_is_over_is_a_violation_of_guarantee_11() {
    let mut pen = Pen::cordoned(&[holding("gold")]);
    pen.holds("gold", DEADLINE);
    pen.done("set_hold", 2_200);
    pen.committed("gold", 3_000);
    pen.woke(5_530);
    pen.is_good();
    pen.woke(5_531);
    pen.breaks(11, "ns/gold (gold) is still held, its save is over since 3030 ms");
    pen.steps.pop();
    pen.holds("gold", 0);
    pen.woke(5_531);
    pen.is_good();
}

/// Flushed and saved, by an engine that has shown nothing of its weights.
fn saved_unproven() -> Pen {
    let mut pen = Pen::cordoned(&[engine("gold")]);
    pen.intends("gold");
    pen.quiesced("gold", 3_000);
    pen.flushes("gold");
    pen.answer("flush gold", 3_100, Outcome::Done(Done::Flushed { bytes: 100, evidence: false }));
    pen
}

#[test]
fn an_engine_that_is_not_asked_for_evidence_violates_guarantee_5() {
    let mut pen = saved_unproven();
    pen.saves("gold", 0);
    let saved = Done::Saved { bytes: 100, sent: 100, left_out: None, newest: None };
    pen.answer("save gold", 3_200, Outcome::Done(saved));
    pen.commits("gold", false);
    pen.breaks(5, "before its engine was asked for evidence");
}
