use super::*;
use crate::timeline::tests::{Trace, evict, refused, seen, uid_of};
use evacuation::effect::{EffectId, FlushKind, Hold, NodeAction, PodAction, RestoreAction, RestoreOutcome};
use evacuation::event::{Done, NodeFacts};
use evacuation::notice::{InstanceAction, Notice};

fn active_notice(notice: &str, began: u64, deadline: u64) -> ActiveNotice {
    ActiveNotice {
        notice: notice.into(),
        kind: NoticeKind::Interruption(InstanceAction::Terminate),
        boot: "boot".into(),
        began: Moment::from_millis(began),
        deadline: Moment::from_millis(deadline),
        hard: true,
        was_schedulable: true,
    }
}

fn started(boot: &str) -> Event {
    Event::AgentStarted { boot: boot.into(), slept: evacuation::moment::Span::ZERO }
}

fn read(active_notice: Option<ActiveNotice>) -> Event {
    let name = "node-a".into();
    Event::NodeRead(NodeFacts { name, unschedulable: false, tainted: false, active_notice, over: Vec::new() })
}

fn noticed(at: u64, id: &str, left_ms: i64) -> Event {
    Event::NoticeReceived(Notice {
        seen: Moment::from_millis(at),
        kind: NoticeKind::Interruption(InstanceAction::Terminate),
        id: id.into(),
        left_ms,
        event: None,
    })
}

/// A trace whose node is noticed at 10 s, and has a pod of the uid `u`.
fn evacuating() -> Trace {
    Trace::default()
        .event(0, started("boot"))
        .event(0, read(None))
        .event(1, seen("u", "ns", "gold"))
        .event(10_000, noticed(10_000, "n", 120_000))
        .ask(10_000, 1, 1, Action::Node(NodeAction::MarkNode(active_notice("n", 10_000, 125_000))))
        .done(10_040, 1, Done::Nothing)
}

fn one(trace: &Trace) -> Chart {
    let mut charts = Chart::all(&trace.0);
    assert_eq!(charts.len(), 1, "{charts:#?}");
    charts.remove(0)
}

/// `flush 1000-2000 Done`, relative to `T`.
fn bars(chart: &Chart, row: usize) -> Vec<String> {
    let at = |at: Moment| at.as_millis() as i64 - chart.zero.as_millis() as i64;
    let told = |bar: &Bar| format!("{} {}-{} {:?}", bar.work.as_str(), at(bar.from), at(bar.to), bar.end);
    chart.rows[row].bars.iter().map(told).collect()
}

fn flush() -> Action {
    Action::Pod { uid: uid_of("u"), action: PodAction::Flush { kind: FlushKind::Final } }
}

#[test]
fn work_lasts_from_its_question_to_its_answer_and_a_failure_is_one() {
    let trace = evacuating()
        .ask(11_000, 2, 1, flush())
        .answer(12_000, 2, refused())
        .ask(12_500, 3, 2, flush())
        .done(14_000, 3, Done::Flushed { bytes: 1 << 20, evidence: true });
    let chart = one(&trace);
    assert_eq!(bars(&chart, 0), ["flush 1000-2000 Failed", "flush 2500-4000 Done"]);
    assert_eq!(chart.rows[0].bars[1].told, "1.0 MiB");
    assert_eq!((chart.rows[0].name.as_str(), chart.rows[0].priority), ("gold", Some(0)));
}

#[test]
fn what_a_killed_agent_had_asked_for_has_no_end_and_its_successors_answers_are_not_its() {
    let trace = evacuating()
        .ask(11_000, 2, 1, flush())
        .event(12_000, Event::TimerFired)
        .event(14_000, started("boot"))
        .event(14_000, read(Some(active_notice("n", 10_000, 125_000))))
        .event(14_010, seen("u", "ns", "gold"))
        // The same number in another life is another effect.
        .ask(14_020, 1, 1, flush())
        .done(15_000, 2, Done::Flushed { bytes: 1, evidence: true })
        .done(16_000, 1, Done::Flushed { bytes: 1, evidence: true });
    let chart = one(&trace);
    assert_eq!(bars(&chart, 0), ["flush 1000-2000 Open", "flush 4020-6000 Done"]);
    assert!(chart.marks.iter().any(|mark| mark.what == "the agent starts again"), "{:?}", chart.marks);
}

#[test]
fn a_pod_ends_from_its_eviction_until_it_is_gone_and_is_held_meanwhile() {
    let hold = |hold| Action::Pod { uid: uid_of("u"), action: PodAction::SetHold { hold } };
    let trace = evacuating()
        .ask(
            10_100,
            2,
            1,
            Action::Pod {
                uid: uid_of("u"),
                action: PodAction::WriteIntent { departure: "n".into(), by: Moment::from_millis(80_000) },
            },
        )
        .ask(10_110, 3, 1, hold(Hold::Until(Moment::from_millis(125_000))))
        .ask(10_200, 4, 1, evict())
        .answer(10_240, 4, refused())
        .ask(11_200, 5, 2, evict())
        // The watch is quicker than the answer: it is our eviction all the same.
        .event(11_230, terminating())
        .done(11_240, 5, Done::Nothing)
        .ask(20_000, 6, 1, hold(Hold::Released))
        .event(21_000, Event::PodRemoved(uid_of("u")));
    let chart = one(&trace);
    assert_eq!(bars(&chart, 0), ["held 110-10000 Done", "ending 1230-11000 Done"]);
    assert_eq!(chart.rows[0].bars[1].told, "evicted");
    assert_eq!(chart.rows[0].refusals, [Moment::from_millis(10_240)]);
    assert_eq!(chart.rows[0].cutoff, Some(Moment::from_millis(80_000)));
}

fn terminating() -> Event {
    let Event::PodUpdated(facts) = seen("u", "ns", "gold") else { unreachable!() };
    let terminating = Some(Moment::from_millis(60_000));
    Event::PodUpdated(Box::new(evacuation::pod::PodFacts { terminating, ..*facts }))
}

#[test]
fn a_deletion_that_we_did_not_ask_for_is_somebody_elses_also_here() {
    let chart = one(&evacuating().event(11_000, terminating()).event(12_000, Event::TimerFired));
    assert_eq!(bars(&chart, 0), ["ending 1000-2000 Open"]);
    assert_eq!(chart.rows[0].bars[0].told, "deleted by somebody");
}

#[test]
fn the_picture_goes_from_the_notice_to_the_deadline_with_the_marks_between() {
    let chart = one(&evacuating());
    let at = |what: &str| {
        chart.marks.iter().find(|mark| mark.what == what).map(|mark| (mark.at.as_millis(), mark.limit))
    };
    assert_eq!((chart.from.as_millis(), chart.to.as_millis()), (5_000, 125_000));
    assert_eq!(at("notice"), Some((10_000, false)));
    assert_eq!(at("cordoned"), Some((10_040, false)));
    assert_eq!(at("deadline"), Some((125_000, true)));
    // Nothing went on so late that it would be in the picture.
    assert_eq!(at("the instance goes"), None);
    assert!(chart.rows.is_empty(), "{:?}", chart.rows);
    assert_eq!((chart.node.as_deref(), chart.zero_is), (Some("node-a"), "the notice"));
}

#[test]
fn each_evacuation_has_its_own_picture_and_what_is_long_over_is_in_none() {
    let trace = evacuating()
        .ask(11_000, 2, 1, flush())
        .done(12_000, 2, Done::Flushed { bytes: 1, evidence: true })
        .event(5_000_000, noticed(5_000_000, "later", 120_000))
        .ask(
            5_000_000,
            3,
            1,
            Action::Node(NodeAction::MarkNode(active_notice("later", 5_000_000, 5_115_000))),
        )
        .ask(5_001_000, 4, 1, flush())
        .done(5_003_000, 4, Done::Flushed { bytes: 1, evidence: true });
    let charts = Chart::all(&trace.0);
    assert_eq!(charts.len(), 2);
    assert_eq!(
        (bars(&charts[0], 0), bars(&charts[1], 0)),
        (vec!["flush 1000-2000 Done".into()], vec!["flush 1000-3000 Done".into()])
    );
    // Another boot has another clock: its moments are in no picture of this one.
    let trace = trace
        .event(10_500, started("another"))
        .event(10_500, read(None))
        .event(10_600, seen("v", "ns", "web"));
    assert_eq!(Chart::all(&trace.0), charts);
}

#[test]
fn an_agent_without_an_evacuation_shows_what_it_restored() {
    let pod = || uid_of("u");
    let gate = Action::Restore {
        uid: pod(),
        action: RestoreAction::OpenGate { outcome: RestoreOutcome::Restored, message: String::new() },
    };
    let fetch = Action::Restore {
        uid: pod(),
        action: RestoreAction::Fetch { lineage: "l".into(), generation: "g".into() },
    };
    let trace = Trace::default()
        .event(1_000, started("boot"))
        .event(1_000, read(None))
        .event(1_000, seen("u", "ns", "gold"))
        .ask(2_000, 1, 1, Action::Restore { uid: pod(), action: RestoreAction::FindLineage })
        .done(2_100, 1, Done::Lineages { candidates: Vec::new(), worth_waiting_for: None })
        .ask(2_200, 2, 1, fetch)
        .done(3_200, 2, Done::Fetched { bytes: 7 })
        .ask(3_300, 3, 1, gate)
        .done(3_400, 3, Done::Nothing);
    let chart = one(&trace);
    assert_eq!(bars(&chart, 0), ["restoring 1000-2400 Done", "fetch 1200-2200 Done"]);
    assert_eq!((chart.kind, chart.rows[0].bars[0].told.as_str()), (None, "Restored"));
    assert!(Chart::all(&Trace::default().event(0, started("boot")).event(0, read(None)).0).is_empty());
}

#[test]
fn a_pod_of_which_only_the_report_knows_has_its_row_and_one_that_stays_has_none() {
    let pod = |name: &str, departure| PodReport {
        uid: format!("uid-{name}"),
        namespace: "ns".into(),
        name: name.into(),
        priority: 7,
        departure,
        reason: None,
        state: evacuation::report::StateOutcome::Saved,
        state_reason: None,
        generation: None,
        bytes: 1 << 30,
        sent: 0,
        refusals: 0,
        evicted: Some(Moment::from_millis(11_000)),
        committed: Some(Moment::from_millis(14_000)),
        gone: None,
    };
    let report = Report {
        format: 1,
        node: "node-a".into(),
        boot: "boot".into(),
        notice: "n".into(),
        kind: NoticeKind::Interruption(InstanceAction::Terminate),
        short: false,
        withdrawn: false,
        noticed: Moment::from_millis(10_000),
        deadline: Moment::from_millis(125_000),
        cordoned: Some(Moment::from_millis(10_040)),
        written: Moment::from_millis(124_000),
        complete: false,
        pods: vec![pod("early", DepartureOutcome::Leaving), pod("cni", DepartureOutcome::Stays)],
    };
    let trace = evacuating()
        .ask(124_000, 9, 1, Action::Node(NodeAction::WriteReport(Box::new(report.clone()))))
        .done(124_050, 9, Done::Nothing);
    let chart = one(&trace);
    let names: Vec<_> = chart.rows.iter().map(|row| (row.name.as_str(), row.priority)).collect();
    assert_eq!(names, [("early", Some(7))]);
    assert_eq!(chart.report.as_ref(), Some(&report));
    // The report alone: the same stretch of time, the end that is not known, and the commit as a moment.
    let alone = Chart::of_report(&report);
    assert_eq!((alone.from, alone.to, alone.by_report), (chart.from, chart.to, true));
    assert_eq!(bars(&alone, 0), ["ending 1000-115000 Open", "commit 4000-4000 Done"]);
    let text = crate::timeline::Timeline::of_report(&report).text();
    assert!(text.contains(" T+4.0    early   1.0 GiB committed\n"), "{text}");
    assert!(text.contains(" T+0.0    notice  terminate; deadline T+115.0\n"), "{text}");
}

#[test]
fn what_was_cancelled_ends_there_and_a_pre_copy_is_told_from_the_last_round() {
    let pre_copy =
        Action::Pod { uid: uid_of("u"), action: PodAction::Save { kind: FlushKind::PreCopy, rank: 0 } };
    let trace =
        evacuating().ask(11_000, 2, 1, pre_copy).ask(12_000, 3, 1, Action::Cancel { effect: EffectId(2) });
    let chart = one(&trace);
    assert_eq!(bars(&chart, 0), ["save 1000-2000 Failed"]);
    assert!(chart.rows[0].bars[0].pre_copy);
}
