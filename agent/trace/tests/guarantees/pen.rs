//! A pen for traces: events and effects line by line, and what was asked for is answered by name.

use evacuation::effect::{Action, Effect, EffectId, FlushKind, Hold, NodeAction, PodAction};
use evacuation::event::{Done, Event, FailureKind, NodeFacts, Outcome};
use evacuation::moment::{Moment, Span};
use evacuation::notice::{ActiveNotice, InstanceAction, Notice, NoticeKind};
use evacuation::pod::{EngineFacts, EvictWhen, OnDelete, Owner, PodFacts, PodUid, RestoreMode, Role};
use evacuation::policy::Policy;
use evacuation::report::{DepartureOutcome, PodReport, Report, StateOutcome};
use trace::Step;
use trace::guarantees::{Checker, Violation};

/// When the notice comes, and the deadline that it means.
pub const NOTICED: u64 = 2_000;
pub const DEADLINE: u64 = 117_000;

pub const TERMINATE: NoticeKind = NoticeKind::Interruption(InstanceAction::Terminate);

pub const fn ms(at: u64) -> Moment {
    Moment::from_millis(at)
}

pub fn uid(name: &str) -> PodUid {
    PodUid(name.into())
}

/// A stateless pod of a Deployment.
pub fn web(name: &str) -> PodFacts {
    PodFacts {
        uid: uid(name),
        namespace: "ns".into(),
        name: name.into(),
        priority: 0,
        role: Role::Active,
        owner: Owner::Replicated,
        grace: Span::from_secs(10),
        terminating: None,
        running: true,
        engine: None,
        restore_decided: true,
        restarts: 0,
    }
}

/// One with an engine, without a hold.
pub fn engine(name: &str) -> PodFacts {
    let engine = EngineFacts {
        holds: false,
        evict: EvictWhen::Auto,
        flush_timeout: Span::from_secs(30),
        interval: None,
        on_delete: OnDelete::Save,
        restore: RestoreMode::Gate,
    };
    PodFacts { engine: Some(engine), ..web(name) }
}

/// One with an engine that waits for its hold.
pub fn holding(name: &str) -> PodFacts {
    let pod = engine(name);
    PodFacts { engine: pod.engine.clone().map(|engine| EngineFacts { holds: true, ..engine }), ..pod }
}

pub fn node() -> NodeFacts {
    NodeFacts {
        name: "node-a".into(),
        unschedulable: false,
        tainted: false,
        active_notice: None,
        over: Vec::new(),
    }
}

/// The mark of the notice `n`.
pub fn active_notice(deadline: u64) -> ActiveNotice {
    ActiveNotice {
        notice: "n".into(),
        kind: TERMINATE,
        boot: "boot".into(),
        began: ms(NOTICED),
        deadline: ms(deadline),
        hard: true,
        was_schedulable: true,
    }
}

/// A trace that is being written.
pub struct Pen {
    pub policy: Policy,
    pub steps: Vec<Step>,
    next: u64,
}

impl Pen {
    /// A trace in which nothing has happened.
    pub fn blank() -> Self {
        Self { policy: Policy::default(), steps: Vec::new(), next: 1 }
    }

    /// A life on a node with these pods.
    pub fn new(policy: Policy, pods: &[PodFacts]) -> Self {
        let mut pen = Self { policy, steps: Vec::new(), next: 1 };
        pen.starts(1_000, node());
        pods.iter().for_each(|pod| pen.sees(1_000, pod));
        pen
    }

    /// The same under a notice of two minutes; nothing is answered yet.
    pub fn noticed(policy: Policy, pods: &[PodFacts]) -> Self {
        let mut pen = Self::new(policy, pods);
        pen.notice(NOTICED, TERMINATE, "n", 120_000);
        pen.asks(Action::Node(NodeAction::MarkNode(active_notice(DEADLINE))));
        pen
    }

    /// The same with the cordon acknowledged.
    pub fn cordoned(pods: &[PodFacts]) -> Self {
        let mut pen = Self::noticed(Policy::default(), pods);
        pen.done("mark_node", 2_100);
        pen
    }

    /// A life begins, reads its node and has listed its pods.
    pub fn starts(&mut self, at: u64, node: NodeFacts) {
        self.event(at, Event::AgentStarted { boot: "boot".into(), slept: Span::ZERO });
        self.event(at, Event::PodsListed);
        self.event(at, Event::NodeRead(node));
    }

    pub fn event(&mut self, at: u64, event: Event) {
        if let Event::AgentStarted { .. } = event {
            self.next = 1;
        }
        self.steps.push(Step { at: ms(at), event, effects: Vec::new() });
    }

    pub fn woke(&mut self, at: u64) {
        self.event(at, Event::TimerFired);
    }

    pub fn sees(&mut self, at: u64, pod: &PodFacts) {
        self.event(at, Event::PodUpdated(Box::new(pod.clone())));
    }

    /// It is being deleted, with its own grace.
    pub fn sees_deleted(&mut self, at: u64, pod: &PodFacts) {
        self.sees(at, &PodFacts { terminating: Some(ms(at) + pod.grace), ..pod.clone() });
    }

    pub fn notice(&mut self, at: u64, kind: NoticeKind, id: &str, left_ms: i64) {
        self.event(
            at,
            Event::NoticeReceived(Notice { kind, id: id.into(), seen: ms(at), left_ms, event: None }),
        );
    }

    /// What the core asks for in answer to the last event.
    pub fn asks(&mut self, action: Action) {
        let Some(step) = self.steps.last_mut() else { return };
        let deadline = step.at + Span::from_secs(3);
        step.effects.push(Effect { id: EffectId(self.next), deadline, attempt: 1, action });
        self.next += 1;
    }

    pub fn evicts(&mut self, pod: &str) {
        self.asks(Action::Pod { uid: uid(pod), action: PodAction::Evict { grace: Span::from_secs(10) } });
    }

    pub fn lets_go(&mut self, pod: &str) {
        self.asks(Action::Pod { uid: uid(pod), action: PodAction::DeletePod { grace: Span::from_secs(1) } });
    }

    pub fn intends(&mut self, pod: &str) {
        self.asks(Action::Pod {
            uid: uid(pod),
            action: PodAction::WriteIntent { departure: "n".into(), by: ms(DEADLINE) },
        });
    }

    pub fn flushes(&mut self, pod: &str) {
        self.asks(Action::Pod { uid: uid(pod), action: PodAction::Flush { kind: FlushKind::Final } });
    }

    pub fn saves(&mut self, pod: &str, rank: u64) {
        self.asks(Action::Pod { uid: uid(pod), action: PodAction::Save { kind: FlushKind::Final, rank } });
    }

    pub fn commits(&mut self, pod: &str, partial: bool) {
        self.asks(Action::Pod {
            uid: uid(pod),
            action: PodAction::Commit { kind: FlushKind::Final, partial, without_endangered: false },
        });
    }

    pub fn holds(&mut self, pod: &str, until: u64) {
        let hold = if until == 0 { Hold::Released } else { Hold::Until(ms(until)) };
        self.asks(Action::Pod { uid: uid(pod), action: PodAction::SetHold { hold } });
    }

    /// The newest effect of this name, or `name pod`, is answered.
    pub fn answer(&mut self, what: &str, at: u64, outcome: Outcome) {
        let is = |effect: &&Effect| {
            let name = effect.action.name();
            let pod = effect.action.pod().map_or_else(String::new, |pod| format!("{name} {pod}"));
            what == name || what == pod
        };
        let found = self.steps.iter().rev().flat_map(|step| step.effects.iter().rev()).find(is);
        let id = found.map(|effect| effect.id);
        assert!(id.is_some(), "{what} was never asked for");
        if let Some(id) = id {
            self.event(at, Event::Answered { id, outcome });
        }
    }

    pub fn done(&mut self, what: &str, at: u64) {
        self.answer(what, at, Outcome::Done(Done::Nothing));
    }

    pub fn refused(&mut self, what: &str, at: u64) {
        let outcome = Outcome::Failed { kind: FailureKind::Refused, why: "its budget".into() };
        self.answer(what, at, outcome);
    }

    /// The save of a pod up to its flush, asked for at `at`.
    pub fn quiesced(&mut self, pod: &str, at: u64) {
        self.woke(at - 30);
        self.intends(pod);
        self.answer(
            &format!("write_intent {pod}"),
            at - 20,
            Outcome::Done(Done::IntentWritten { committed: None, evidence: true }),
        );
        self.asks(Action::Pod { uid: uid(pod), action: PodAction::Quiesce });
        self.done(&format!("quiesce {pod}"), at);
    }

    /// The same up to the answer of its save.
    pub fn saved(&mut self, pod: &str, at: u64, left_out: Option<&str>) {
        self.quiesced(pod, at);
        self.flushes(pod);
        self.answer(
            &format!("flush {pod}"),
            at + 10,
            Outcome::Done(Done::Flushed { bytes: 100, evidence: true }),
        );
        self.saves(pod, 0);
        let left_out = left_out.map(str::to_owned);
        let saved = Done::Saved { bytes: 100, sent: 100, left_out, newest: None };
        self.answer(&format!("save {pod}"), at + 20, Outcome::Done(saved));
    }

    /// The same up to its commit.
    pub fn committed(&mut self, pod: &str, at: u64) {
        self.saved(pod, at, None);
        self.commits(pod, false);
        self.generation(pod, at + 30);
    }

    pub fn generation(&mut self, pod: &str, at: u64) {
        let committed = Done::Committed { generation: format!("{pod}/1-1"), bytes: 100 };
        self.answer(&format!("commit {pod}"), at, Outcome::Done(committed));
    }

    pub fn report(&mut self, change: impl FnOnce(&mut Report)) {
        let mut report = report(self.steps.last().map_or(ms(0), |step| step.at));
        change(&mut report);
        self.asks(Action::Node(NodeAction::WriteReport(Box::new(report))));
    }

    /// Everything that is found, as the numbers of the guarantees with what was wrong.
    pub fn violations(&self) -> Vec<Violation> {
        let mut checker = Checker::new(self.policy.clone());
        for step in &self.steps {
            checker.step(step, None);
        }
        if let Some(last) = self.steps.last() {
            checker.finish(last.at);
        }
        checker.violations().to_vec()
    }

    /// Nothing is wrong with it so far.
    pub fn is_good(&self) {
        let found = self.violations();
        assert!(found.is_empty(), "{found:#?}");
    }

    /// One thing is wrong with it: against this guarantee, said with these words.
    pub fn breaks(&self, guarantee: u8, what: &str) {
        let found = self.violations();
        assert!(!found.is_empty(), "nothing was found, not even {what:?}");
        let other = found.iter().find(|found| found.guarantee != guarantee || !found.what.contains(what));
        assert!(other.is_none(), "{what:?} is not all that was found: {found:#?}");
    }
}

/// A report without pods.
pub fn report(written: Moment) -> Report {
    Report {
        format: 1,
        node: "node-a".into(),
        boot: "boot".into(),
        notice: "n".into(),
        kind: TERMINATE,
        short: false,
        withdrawn: false,
        noticed: ms(NOTICED),
        deadline: ms(DEADLINE),
        cordoned: Some(ms(2_100)),
        written,
        complete: true,
        pods: Vec::new(),
    }
}

/// A pod's entry in it: gone, and without state.
pub fn entry(pod: &str) -> PodReport {
    PodReport {
        uid: pod.into(),
        namespace: "ns".into(),
        name: pod.into(),
        priority: 0,
        departure: DepartureOutcome::Gone,
        reason: None,
        state: StateOutcome::None,
        state_reason: None,
        generation: None,
        bytes: 0,
        sent: 0,
        refusals: 0,
        evicted: None,
        committed: None,
        gone: None,
    }
}
