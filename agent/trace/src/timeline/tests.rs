use super::*;
use evacuation::effect::{Effect, EffectId, FlushKind, NodeAction, PodAction};
use evacuation::event::{Done, FailureKind, NodeFacts, Outcome};
use evacuation::moment::Span;
use evacuation::pod::{Owner, PodFacts, PodUid, Role};

/// A trace that is written by hand; times are milliseconds.
#[derive(Default)]
pub(super) struct Trace(pub(super) Vec<Step>);

impl Trace {
    pub(super) fn event(mut self, at: u64, event: Event) -> Self {
        self.0.push(Step { at: Moment::from_millis(at), event, effects: Vec::new() });
        self
    }

    pub(super) fn ask(mut self, at: u64, id: u64, attempt: u32, action: Action) -> Self {
        let effect = Effect { id: EffectId(id), deadline: Moment::from_millis(99_999), attempt, action };
        self = self.event(at, Event::TimerFired);
        self.0.last_mut().unwrap().effects.push(effect);
        self
    }

    pub(super) fn answer(self, at: u64, id: u64, outcome: Outcome) -> Self {
        self.event(at, Event::Answered { id: EffectId(id), outcome })
    }

    pub(super) fn done(self, at: u64, id: u64, done: Done) -> Self {
        self.answer(at, id, Outcome::Done(done))
    }

    /// The lines without those that show a pod for the first time.
    fn lines(&self) -> Vec<String> {
        let timeline = Timeline::of(&self.0);
        let told = |line: &TimelineLine| {
            format!(
                "{} {} {}",
                words::stamp(line.at, timeline.zero),
                line.subject,
                line.sentence(timeline.zero)
            )
        };
        timeline.lines.iter().map(told).filter(|line| !line.contains(" seen: ")).collect()
    }
}

pub(super) fn seen(uid: &str, namespace: &str, name: &str) -> Event {
    Event::PodUpdated(Box::new(PodFacts {
        uid: uid_of(uid),
        namespace: namespace.into(),
        name: name.into(),
        priority: 0,
        role: Role::Active,
        owner: Owner::Replicated,
        grace: Span::from_secs(30),
        terminating: None,
        running: true,
        engine: None,
        restore_decided: true,
        restarts: 0,
    }))
}

pub(super) fn uid_of(uid: &str) -> PodUid {
    PodUid(uid.into())
}

pub(super) fn evict() -> Action {
    Action::Pod { uid: uid_of("u"), action: PodAction::Evict { grace: Span::from_secs(30) } }
}

pub(super) fn refused() -> Outcome {
    Outcome::Failed { kind: FailureKind::Refused, why: "a budget".into() }
}

#[test]
fn attempts_at_one_eviction_share_a_line_and_answers_that_repeat_are_counted() {
    let trace = Trace::default()
        .event(0, seen("u", "ns", "web"))
        .ask(1_000, 1, 1, evict())
        .answer(1_040, 1, refused())
        .ask(2_000, 2, 2, evict())
        .answer(2_040, 2, refused())
        .ask(3_000, 3, 3, evict())
        .done(3_040, 3, Done::Nothing)
        .event(5_100, Event::PodRemoved(uid_of("u")));
    assert_eq!(
        trace.lines(),
        [
            "T+1.0 web evict, 30 s of grace → refused: a budget, 2 times until T+2.0; then accepted at T+3.0",
            "T+5.1 web gone, 2.0 s after its eviction",
        ]
    );
}

#[test]
fn what_was_asked_for_and_never_answered_says_so() {
    let trace = Trace::default().event(0, seen("u", "ns", "web")).ask(1_000, 1, 1, evict());
    assert_eq!(trace.lines(), ["T+1.0 web evict, 30 s of grace → no answer yet"]);
    let trace = trace.ask(2_000, 2, 1, Action::Cancel { effect: EffectId(1) }).answer(2_100, 1, refused());
    assert_eq!(trace.lines(), ["T+1.0 web evict, 30 s of grace → cancelled in 1.0 s"]);
}

#[test]
fn a_round_of_pre_copy_is_one_line_and_rounds_that_send_the_same_are_one_too() {
    let pod = || uid_of("u");
    let mut trace = Trace::default().event(0, seen("u", "ns", "gold"));
    for round in 0..3 {
        let (at, id) = (1_000 + round * 30_000, 1 + round * 3);
        trace = trace
            .ask(at, id, 1, Action::Pod { uid: pod(), action: PodAction::Flush { kind: FlushKind::PreCopy } })
            .done(at + 500, id, Done::Flushed { bytes: 4 << 20, evidence: true })
            .ask(
                at + 500,
                id + 1,
                1,
                Action::Pod { uid: pod(), action: PodAction::Save { kind: FlushKind::PreCopy, rank: 0 } },
            )
            .done(
                at + 900,
                id + 1,
                Done::Saved { bytes: 4 << 20, sent: 1 << 20, left_out: None, newest: None },
            )
            .ask(
                at + 900,
                id + 2,
                1,
                Action::Pod {
                    uid: pod(),
                    action: PodAction::Commit {
                        kind: FlushKind::PreCopy,
                        partial: false,
                        without_endangered: false,
                    },
                },
            )
            .done(at + 950, id + 2, Done::Committed { generation: "g".into(), bytes: 4 << 20 });
    }
    assert_eq!(trace.lines(), ["T+1.0 gold pre-copy → 1.0 MiB of 4.0 MiB sent, 3 times until T+61.9"]);
}

#[test]
fn a_look_is_told_when_it_says_something_new() {
    let inspect = || Action::Pod { uid: uid_of("u"), action: PodAction::InspectEngine };
    let inspected = |busy| Done::Inspected { state_bytes: 1 << 30, busy, doubt: None };
    let mut trace = Trace::default().event(0, seen("u", "ns", "gold"));
    for (id, busy) in [(1, true), (2, true), (3, false)] {
        trace = trace.ask(id * 1_000, id, 1, inspect()).done(id * 1_000 + 10, id, inspected(busy));
    }
    assert_eq!(trace.lines(), ["T+1.0 gold inspect → 1.0 GiB of state, busy"]);
    let intend = Action::Pod {
        uid: uid_of("u"),
        action: PodAction::WriteIntent { departure: "n".into(), by: Moment::from_millis(9_000) },
    };
    let trace = trace.ask(4_000, 4, 1, intend).ask(5_000, 5, 1, inspect()).done(5_010, 5, inspected(true));
    assert_eq!(trace.lines().last().unwrap(), "T+5.0 gold inspect → 1.0 GiB of state, busy");
}

#[test]
fn pods_are_named_as_shortly_as_they_can_be_told_apart() {
    let trace = Trace::default()
        .event(0, seen("1", "a", "web"))
        .event(0, seen("2", "b", "web"))
        .event(0, seen("3", "a", "db-0"))
        .event(0, seen("4", "a", "db-0"));
    let subjects: Vec<_> = Timeline::of(&trace.0).lines.into_iter().map(|line| line.subject).collect();
    assert_eq!(subjects, ["a/web", "b/web", "db-0", "db-0 (2)"]);
}

#[test]
fn a_deletion_that_we_did_not_ask_for_is_somebody_elses() {
    let terminating = |at| match seen("u", "ns", "web") {
        Event::PodUpdated(facts) => {
            Event::PodUpdated(Box::new(PodFacts { terminating: Some(Moment::from_millis(at)), ..*facts }))
        }
        other => other,
    };
    let trace = Trace::default().event(0, seen("u", "ns", "web")).event(1_000, terminating(31_000));
    assert_eq!(trace.lines(), ["T+1.0 web somebody deletes it: its grace ends at T+31.0"]);
    let trace = Trace::default()
        .event(0, seen("u", "ns", "web"))
        .ask(500, 1, 1, evict())
        .event(1_000, terminating(31_000));
    assert!(!trace.lines().concat().contains("somebody"));
}

#[test]
fn what_is_seen_of_our_own_mark_before_its_answer_is_not_somebody_elses() {
    let node = |unschedulable| NodeFacts {
        name: "node-a".into(),
        unschedulable,
        tainted: unschedulable,
        active_notice: None,
        over: Vec::new(),
    };
    let trace = Trace::default()
        .event(0, Event::NodeRead(node(true)))
        .ask(500, 1, 1, Action::Node(NodeAction::ClearNodeMark { uncordon: true, over: Vec::new() }))
        .event(1_000, Event::NodeUpdated(node(false)))
        .done(1_040, 1, Done::Nothing)
        .event(2_000, Event::NodeUpdated(node(true)));
    let lines = trace.lines();
    assert!(lines[1].starts_with("T+0.5 node take back"), "{lines:?}");
    assert!(lines[2].starts_with("T+2.0 node somebody changed it: cordoned"), "{lines:?}");
}

#[test]
fn times_are_rounded_down_and_bytes_are_in_binary_units() {
    let zero = Moment::from_millis(10_000);
    let stamps: Vec<_> =
        [9_999, 8_900, 10_000, 10_099, 13_250].map(|at| words::stamp(Moment::from_millis(at), zero)).into();
    assert_eq!(stamps, ["T-0.1", "T-1.1", "T+0.0", "T+0.0", "T+3.2"]);
    let sizes: Vec<_> = [0, 1023, 1024, 1536, (1 << 30) - 1, 80 << 30].map(words::bytes).into();
    assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 MiB", "80.0 GiB"]);
}

#[test]
fn an_empty_trace_is_an_empty_timeline() {
    let timeline = Timeline::of(&[]);
    assert!(timeline.lines.is_empty() && timeline.report.is_none());
    assert_eq!(timeline.text(), "a node, T = boot\n");
}

#[test]
fn what_an_engine_says_cannot_forge_a_line_or_move_the_cursor() {
    let why = "busy\n T+0.0 node all is well\u{1b}[2J".to_owned();
    let trace = Trace::default().event(0, seen("u", "ns", "web")).ask(1_000, 1, 1, evict()).answer(
        1_040,
        1,
        Outcome::Failed { kind: FailureKind::Transient, why },
    );
    let text = Timeline::of(&trace.0).text();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(!text.contains('\u{1b}'));
}
