//! What one call of [`Machine::handle`] costs on a node of 60 pods with state, and how often it allocates: with no notice,
//! while a notice stands, and at the notice itself, where every pod begins to depart at once.
//!
//! `tests/bench core` runs it. The goal is 50 µs: it is printed beside what was measured, and held by nobody.

use evacuation::Machine;
use evacuation::effect::{Action, Effect, FlushKind, PodAction};
use evacuation::event::{Done, Event, NodeFacts, Outcome};
use evacuation::moment::{Moment, Span};
use evacuation::notice::{InstanceAction, Notice, NoticeKind};
use evacuation::pod::{EngineFacts, PodFacts, PodUid};
use evacuation::policy::Policy;
use std::collections::BTreeMap;
use std::hint::black_box;

#[expect(clippy::disallowed_types, reason = "this measures the core from outside")]
type Clock = std::time::Instant;

const PODS: usize = 60;
const GOAL_US: f64 = 50.0;

/// Calls of one kind.
#[derive(Default)]
struct Calls {
    nanos: Vec<u64>,
    effects: u64,
    allocations: u64,
    bytes: u64,
}

struct Bench {
    machine: Machine,
    now: Moment,
    phase: &'static str,
    calls: BTreeMap<(&'static str, &'static str), Calls>,
    open: Vec<Effect>,
}

impl Bench {
    fn hear(&mut self, event: Event) {
        let name = event.name();
        let mut effects = Vec::new();
        let now = self.now;
        let machine = &mut self.machine;
        let mut took = 0;
        let info = allocation_counter::measure(|| {
            #[expect(clippy::disallowed_methods, reason = "this measures the core from outside")]
            let began = Clock::now();
            effects = black_box(machine.handle(now, black_box(event)));
            took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        });
        let calls = self.calls.entry((self.phase, name)).or_default();
        calls.nanos.push(took);
        calls.effects += effects.len() as u64;
        calls.allocations += info.count_total;
        calls.bytes += info.bytes_total;
        self.open.extend(effects);
    }

    /// Answers all that is open, one event each, and all that this leads to.
    fn answer(&mut self, saves: bool) {
        let mut later = Vec::new();
        while !self.open.is_empty() {
            for effect in std::mem::take(&mut self.open) {
                let bytes = 1 << 30;
                let done = match &effect.action {
                    Action::Pod { action: PodAction::InspectEngine, .. } => {
                        Done::Inspected { state_bytes: bytes, busy: false, doubt: None }
                    }
                    Action::Pod { action: PodAction::WriteIntent { .. }, .. } => {
                        Done::IntentWritten { committed: None, evidence: true }
                    }
                    Action::Pod { action: PodAction::Flush { .. }, .. } => {
                        Done::Flushed { bytes, evidence: true }
                    }
                    Action::Pod { action: PodAction::Save { .. }, .. } if !saves => {
                        later.push(effect);
                        continue;
                    }
                    Action::Pod { action: PodAction::Save { .. }, .. } => {
                        Done::Saved { bytes, sent: bytes, left_out: None, newest: None }
                    }
                    Action::Pod { action: PodAction::Commit { kind: FlushKind::Final, .. }, .. } => {
                        Done::Committed { generation: "lineage/1-1".into(), bytes }
                    }
                    _ => Done::Nothing,
                };
                self.now = self.now + Span::from_millis(1);
                self.hear(Event::Answered { id: effect.id, outcome: Outcome::Done(done) });
            }
        }
        self.open = later;
    }
}

fn pod(index: usize) -> PodFacts {
    let name = format!("llama-{index:02}");
    PodFacts {
        uid: PodUid(format!("00000000-0000-4000-8000-0000000000{index:02}")),
        namespace: "inference".into(),
        name,
        priority: i32::try_from(index % 5).unwrap_or(0) * 100,
        role: evacuation::pod::Role::Active,
        owner: evacuation::pod::Owner::Replicated,
        grace: Span::from_secs(30),
        terminating: None,
        running: true,
        engine: Some(EngineFacts { holds: index.is_multiple_of(2), ..EngineFacts::default() }),
        restore_decided: true,
        restarts: 0,
    }
}

fn run(
    calls: BTreeMap<(&'static str, &'static str), Calls>,
) -> BTreeMap<(&'static str, &'static str), Calls> {
    let mut bench = Bench {
        machine: Machine::new(Policy::default()),
        now: Moment::from_millis(1_000_000),
        phase: "start",
        calls,
        open: Vec::new(),
    };
    let node = NodeFacts {
        name: "node".into(),
        unschedulable: false,
        tainted: false,
        active_notice: None,
        over: Vec::new(),
    };
    bench.hear(Event::AgentStarted { boot: "boot".into(), slept: Span::ZERO });
    bench.hear(Event::NodeRead(node));
    for index in 0..PODS {
        bench.hear(Event::PodUpdated(Box::new(pod(index))));
    }
    bench.hear(Event::PodsListed);
    bench.hear(Event::LinkMeasured { bytes_per_second: 200_000_000 });
    bench.answer(true);
    bench.phase = "no notice";
    for _ in 0..200 {
        bench.now = bench.now + Span::from_millis(17);
        bench.hear(Event::TimerFired);
    }
    bench.answer(true);
    bench.phase = "at the notice";
    let kind = NoticeKind::Interruption(InstanceAction::Terminate);
    bench.hear(Event::NoticeReceived(Notice {
        kind,
        id: "n".into(),
        seen: bench.now,
        left_ms: 120_000,
        event: None,
    }));
    bench.phase = "while it stands";
    bench.answer(false);
    for _ in 0..200 {
        bench.now = bench.now + Span::from_millis(50);
        bench.hear(Event::TimerFired);
        bench.answer(false);
    }
    bench.answer(true);
    bench.calls
}

fn main() {
    let mut calls = BTreeMap::new();
    for _ in 0..30 {
        calls = run(calls);
    }
    println!("{PODS} pods with state; the goal is {GOAL_US} µs a call");
    println!(
        "{:<18}{:<16}{:>8}{:>10}{:>10}{:>10}{:>10}{:>12}{:>12}",
        "", "event", "calls", "mean µs", "p50 µs", "p99 µs", "effects", "allocations", "bytes"
    );
    for ((phase, event), mut calls) in calls {
        calls.nanos.sort_unstable();
        let count = calls.nanos.len();
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let at = |percent: usize| calls.nanos.get((count - 1) * percent / 100).copied().map_or(0.0, micros);
        let per = |sum: u64| sum as f64 / count as f64;
        println!(
            "{phase:<18}{event:<16}{count:>8}{:>10.1}{:>10.1}{:>10.1}{:>10.2}{:>12.1}{:>12.0}",
            micros(calls.nanos.iter().sum::<u64>()) / count as f64,
            at(50),
            at(99),
            per(calls.effects),
            per(calls.allocations),
            per(calls.bytes),
        );
    }
}
