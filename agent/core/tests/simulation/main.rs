//! Many faulted evacuations in virtual time, and one with a crash after every event.
//!
//! `LIFEBOAT_SIM_SEED=n` runs that seed alone and prints what happened; `LIFEBOAT_SIM_RUNS=n` sets how
//! many are run.

mod checks;
mod cluster;
mod coverage;
mod dice;
mod faults;
mod link;
mod outside;
mod restores;
mod scenario;
mod script;
mod store;
mod world;

use coverage::Coverage;
use evacuation::Machine;
use evacuation::moment::Span;
use evacuation::policy::EvictOrder;
use faults::Fault;
use scenario::Scenario;
use std::collections::BTreeMap;
use world::World;

/// A number from the environment.
#[expect(clippy::disallowed_methods, reason = "a failing seed must be replayable by hand")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// What a failure says: how to run it again, what was planned, what was wrong, what came before.
fn verdict(scenario: &Scenario, crash_at: Option<u32>, violations: &[String]) -> String {
    let plan: Vec<_> = scenario.faults.iter().map(Fault::to_string).collect();
    let mut unused = Coverage::default();
    let traced = World::new(scenario, crash_at, &mut unused).traced().run();
    let trace: Vec<_> = traced.trace.iter().rev().take(120).rev().cloned().collect();
    format!(
        "\n{}\nLIFEBOAT_SIM_SEED={} crash after event {crash_at:?}\n{:#?}\nfaults: {}\n{violations:#?}\n",
        trace.join("\n"),
        scenario.seed,
        scenario.policy,
        plan.join(" "),
    )
}

/// The violations of many runs: one example of each sort, and how many runs had it.
#[derive(Default)]
struct Failures {
    sorts: BTreeMap<String, (u64, String)>,
}

impl Failures {
    fn take(&mut self, scenario: &Scenario, crash_at: Option<u32>, violations: &[String]) {
        let Some(first) = violations.first() else { return };
        let sort: String = first.chars().filter(|letter| !letter.is_ascii_digit()).take(70).collect();
        let known = self.sorts.entry(sort).or_default();
        known.0 += 1;
        if known.0 == 1 {
            known.1 = verdict(scenario, crash_at, violations);
        }
    }

    fn none(&self) {
        let text: Vec<_> =
            self.sorts.values().map(|(runs, text)| format!("{text}in {runs} runs\n")).collect();
        assert!(text.is_empty(), "{}", text.concat());
    }
}

#[test]
fn ten_thousand_faulted_evacuations_keep_every_guarantee() {
    let mut coverage = Coverage::default();
    let mut failures = Failures::default();
    let one = number("LIFEBOAT_SIM_SEED");
    let runs = number("LIFEBOAT_SIM_RUNS").unwrap_or(10_000);
    let seeds = one.map_or(0..runs, |seed| seed..seed + 1);
    let mut events = 0u64;
    for seed in seeds {
        let scenario = Scenario::draw(seed, 60);
        let world = World::new(&scenario, None, &mut coverage);
        let world = if one.is_some() { world.traced() } else { world }.run();
        events += u64::from(world.delivered);
        let violations = world.checks.violations.clone();
        if one.is_some() {
            world.trace.iter().for_each(|line| println!("{line}"));
        }
        failures.take(&scenario, None, &violations);
    }
    failures.none();
    coverage.print();
    println!("{events} events");
    if one.is_none() && runs >= 10_000 {
        let missing = coverage.missing();
        assert!(missing.is_empty(), "never occurred: {missing:?}");
    }
}

#[test]
fn a_crash_after_any_event_keeps_every_guarantee() {
    let mut coverage = Coverage::default();
    let mut failures = Failures::default();
    let seeds = number("LIFEBOAT_SIM_SEED").map_or(0..300, |seed| seed..seed + 1);
    for seed in seeds {
        let mut scenario = Scenario::draw(seed, 3);
        scenario.seed = seed;
        scenario.faults.retain(|fault| !matches!(fault.kind, "agent=kill"));
        scenario.window = 35_000;
        let events = World::new(&scenario, None, &mut coverage).run().delivered;
        for crash_at in 1..=events {
            let world = World::new(&scenario, Some(crash_at), &mut coverage).run();
            let violations = world.checks.violations.clone();
            failures.take(&scenario, Some(crash_at), &violations);
        }
    }
    failures.none();
    println!("{} runs, {} crashes", coverage.runs, coverage.crashes);
}

/// A blocked pod delays nobody else: the same seed with and without one hanging engine, one stuck
/// budget. There are slots for all, so the others' moments are the same, or earlier where the link
/// is freed.
#[test]
fn a_blocked_pod_does_not_move_the_moments_of_the_others() {
    let mut compared = 0;
    let seeds = number("LIFEBOAT_SIM_SEED").map_or(0..1_500, |seed| seed..seed + 1);
    for seed in seeds {
        let mut scenario = Scenario::draw(seed, 8);
        scenario.policy.eviction_slots = 64;
        scenario.policy.flush_slots = 64;
        // What counts less lets a more important flush begin first, for a bounded time, by design: see the timelines.
        scenario.policy.flush_turn = Span::ZERO;
        scenario.policy.evict_order = EvictOrder::HighestFirst;
        scenario.faults.clear();
        scenario.actors.retain(|actor| actor.appears.is_none());
        // Pre-copies take turns, by design.
        let engines = scenario.actors.iter_mut().filter_map(|actor| actor.facts.engine.as_mut());
        engines.for_each(|engine| engine.interval = None);
        // One that works until its last moment is saved then, by design: and when that is, the flushes of others tell.
        scenario.actors.iter_mut().for_each(|actor| actor.busy_for = 0);
        let Some(blocked) = scenario.actors.first().map(|actor| actor.facts.uid.0.clone()) else { continue };
        let free = World::new(&scenario, None, &mut Coverage::default()).run().checks.moments;
        for kind in ["engine=hang", "pdb=stuck"] {
            let mut scenario = scenario.clone();
            scenario.faults.push(Fault { object: Some(blocked.clone()), ..Fault::new(kind) });
            let checks = World::new(&scenario, None, &mut Coverage::default()).run().checks;
            let violations = &checks.violations;
            assert!(violations.is_empty(), "{}", verdict(&scenario, None, violations));
            for ((pod, what), at) in free.iter().filter(|((pod, _), _)| *pod != blocked) {
                let with = checks.moments.get(&(pod.clone(), what)).copied();
                // A held pod that works begins as soon as it is seen idle, which is looked for every second.
                let held = scenario.actors.iter().find(|actor| actor.facts.uid.0 == *pod);
                let held =
                    held.and_then(|actor| actor.facts.engine.as_ref()).is_some_and(|engine| engine.holds);
                let late = with.is_none_or(|with| with > at + if held { 2_500 } else { 1 });
                assert!(!late, "seed {seed}, {kind}: {what} of {pod} at {with:?} instead of {at}");
                compared += 1;
            }
        }
    }
    assert!(compared > 1_000, "{compared} moments were compared");
}

/// The same policy and the same events give the same effects, also after they were written down.
#[test]
fn a_journal_replays_to_the_same_effects() {
    let mut events = 0;
    for seed in 0..200 {
        let scenario = Scenario::draw(seed, 20);
        let world_coverage = &mut Coverage::default();
        let world = World::new(&scenario, None, world_coverage).traced().run();
        for life in &world.journal {
            let mut again = Machine::new(scenario.policy.clone());
            for (moment, event, effects) in life {
                let text = serde_json::to_string(event).unwrap();
                let event = serde_json::from_str(&text).unwrap();
                assert_eq!(&again.handle(*moment, event), effects, "seed {seed}: {text}");
                events += 1;
            }
        }
    }
    assert!(events > 5_000, "{events}");
}

#[test]
fn a_fault_is_written_back_as_it_was_read() {
    for text in ["api=429@3000ms+5000ms", "engine:pod-01=hang", "store=torn*2", "notice=late:10000ms"] {
        let fault: Fault = text.parse().unwrap();
        assert_eq!(fault.to_string(), text);
    }
    assert_eq!("store=slow:2MiB/s".parse::<Fault>().unwrap().argument, Some(2 << 20));
    assert!("engine=sleeps".parse::<Fault>().is_err());
    for seed in 0..200 {
        for fault in faults::draw(seed, &["pod-00".into(), "pod-01".into()]) {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault, "{fault}");
        }
    }
}
