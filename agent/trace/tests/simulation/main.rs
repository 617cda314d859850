//! Many faulted evacuations in virtual time, and some with a crash after every event.
//!
//! `LIFEBOAT_SIM_SEED=n` runs that seed alone and prints what happened; `LIFEBOAT_SIM_FAULTS='pdb:pod-01=stuck
//! api=429@3s+5s'` plays these faults instead of those drawn; `LIFEBOAT_SIM_RUNS=n` sets how many are run, and
//! `LIFEBOAT_LONG=1` runs a million, and twenty times the crashes.

mod agent;
mod arrivals;
mod budgets;
mod checks;
mod cluster;
mod coverage;
mod dice;
mod faults;
mod imds;
mod link;
mod outside;
mod restores;
mod runs;
mod scenario;
mod script;
mod stage;
mod store;
mod troubles;
mod uplink;
mod watch;
mod world;

use coverage::Coverage;
use evacuation::Machine;
use evacuation::moment::Span;
use evacuation::policy::EvictOrder;
use fault_plan::{Fault, Level};
use runs::{Failures, Wanted, verdict};
use scenario::Scenario;
use std::collections::BTreeSet;
use world::{Crashes, World};

/// One run, and whether something was wrong with it.
fn judge(scenario: &Scenario, crashes: Crashes, coverage: &mut Coverage, failures: &mut Failures) -> u32 {
    let world = World::new(scenario, crashes, coverage).run();
    let violations = world.checks.violations.clone();
    let delivered = world.delivered;
    failures.take(scenario, crashes, &violations);
    delivered
}

#[test]
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "it prints how fast it is")]
fn ten_thousand_faulted_evacuations_keep_every_guarantee() {
    let wanted = Wanted::read();
    let seeds = wanted.evacuations(10_000);
    let runs = seeds.end - seeds.start;
    let began = std::time::Instant::now();
    let (coverage, failures) = runs::all(seeds, |seed, coverage, failures| {
        let scenario = wanted.on(Scenario::draw(seed, 60));
        if wanted.seed.is_some() {
            let mut unused = Coverage::default();
            let traced = World::new(&scenario, Crashes::Never, &mut unused).traced().run();
            traced.trace.iter().for_each(|line| println!("{line}"));
        }
        judge(&scenario, Crashes::Never, coverage, failures);
    });
    let took = began.elapsed().as_secs_f64();
    coverage.print();
    runs::print_what_is_not_simulated();
    println!("{runs} evacuations in {took:.1} s: {:.0} per second", runs as f64 / took.max(0.001));
    failures.none();
    if wanted.seed.is_none() && wanted.faults.is_none() && runs >= 10_000 {
        let missing = coverage.missing();
        assert!(missing.is_empty(), "never occurred: {missing:?}");
    }
}

/// The plan without what kills the agent: the test does that.
fn without_kills(scenario: &mut Scenario) {
    scenario.faults.retain(|fault| fault.name() != "agent-kill");
    scenario.window = 35_000;
}

#[test]
fn a_crash_after_any_event_keeps_every_guarantee() {
    let wanted = Wanted::read();
    let (coverage, failures) = runs::all(wanted.crashed(300), |seed, coverage, failures| {
        let mut scenario = wanted.on(Scenario::draw(seed, 3));
        without_kills(&mut scenario);
        let events = judge(&scenario, Crashes::Never, coverage, failures);
        for event in 1..=events {
            judge(&scenario, Crashes::After(event), coverage, failures);
        }
    });
    println!("{} runs, {} crashes", coverage.runs, coverage.crashes);
    failures.none();
}

#[test]
fn a_crash_now_and_then_on_a_full_node_keeps_every_guarantee() {
    let wanted = Wanted::read();
    let (coverage, failures) = runs::all(wanted.crashed(10), |seed, coverage, failures| {
        let mut scenario = wanted.on(Scenario::of(seed, 60));
        without_kills(&mut scenario);
        let events = judge(&scenario, Crashes::Never, coverage, failures);
        for event in (1 + seed as u32..=events).step_by(17) {
            judge(&scenario, Crashes::After(event), coverage, failures);
        }
    });
    println!("{} runs of 60 pods, {} crashes", coverage.runs, coverage.crashes);
    failures.none();
    assert!(wanted.seed.is_some() || coverage.crashes > 500, "{} crashes", coverage.crashes);
}

/// A blocked pod delays nobody else: the same seed with and without one hanging engine, one stuck
/// budget. There are slots for all, so the others' moments are the same, or earlier where the link
/// is freed.
#[test]
fn a_blocked_pod_does_not_move_the_moments_of_the_others() {
    let mut compared = 0;
    for seed in Wanted::read().crashed(1_500) {
        let mut scenario = Scenario::draw(seed, 8);
        scenario.policy.eviction_slots = 64;
        scenario.policy.flush_slots = 64;
        // What counts less lets a more important flush begin first, for a bounded time, by design: see the timelines.
        scenario.policy.flush_turn = Span::ZERO;
        scenario.policy.evict_order = EvictOrder::HighestFirst;
        scenario.faults.clear();
        scenario.actors.retain(|actor| actor.appears.is_none());
        // A budget is shared: who takes of it later leaves more of it to the others.
        scenario.actors.iter_mut().for_each(|actor| actor.budget = None);
        // Pre-copies take turns, by design.
        let engines = scenario.actors.iter_mut().filter_map(|actor| actor.facts.engine.as_mut());
        engines.for_each(|engine| engine.interval = None);
        scenario.copies = false;
        // One that works until its last moment is saved then, by design: and when that is, the flushes of others tell.
        scenario.actors.iter_mut().for_each(|actor| actor.busy_for = 0);
        scenario.actors.retain(|actor| !actor.facts.serves_to_the_end());
        let Some(blocked) = scenario.actors.first().map(|actor| actor.facts.uid.0.clone()) else { continue };
        // One that is held begins as soon as it is seen idle, which is looked for every second.
        let held = scenario.actors.iter().filter(|actor| actor.can_be_held());
        let held: BTreeSet<_> = held.map(|actor| actor.facts.uid.0.clone()).collect();
        let free = World::new(&scenario, Crashes::Never, &mut Coverage::default()).run().checks.moments;
        for kind in ["engine-hang", "pdb-stuck"] {
            let mut scenario = scenario.clone();
            scenario.faults.push(Fault { object: Some(blocked.clone()), ..faults::plain(kind) });
            let checks = World::new(&scenario, Crashes::Never, &mut Coverage::default()).run().checks;
            let violations = &checks.violations;
            assert!(violations.is_empty(), "{}", verdict(&scenario, Crashes::Never, violations));
            for ((pod, what), at) in free.iter().filter(|((pod, _), _)| *pod != blocked) {
                let with = checks.moments.get(&(pod.clone(), what)).copied();
                let at_most = if held.contains(pod) { 2_500 } else { 1 };
                let late = with.is_none_or(|with| with > at + at_most);
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
        let world = World::new(&scenario, Crashes::Never, world_coverage).traced().run();
        for life in &world.journal {
            let mut again = Machine::new(scenario.policy.clone());
            for step in life {
                let text = serde_json::to_string(&step.event).unwrap();
                let event = serde_json::from_str(&text).unwrap();
                assert_eq!(again.handle(step.at, event), step.effects, "seed {seed}: {text}");
                events += 1;
            }
        }
    }
    assert!(events > 5_000, "{events}");
}

#[test]
fn what_is_drawn_is_written_as_it_is_read_and_meant_for_the_simulation() {
    let pods = ["pod-00".to_owned(), "pod-01".to_owned()];
    for seed in 0..2_000 {
        for fault in faults::draw(seed, &pods) {
            let text = fault.to_string();
            assert_eq!(Fault::read(&text, Level::Simulation), Ok(fault), "{text}");
        }
    }
}

/// One catalogue: each of its examples, given by hand, happens here, or its line says why it cannot.
#[test]
fn every_fault_of_the_catalogue_strikes_when_it_is_given_by_hand_or_says_why_not() {
    for entry in fault_plan::catalogue::entries() {
        let text = entry.example.replace(":gold", ":pod-00");
        let given = match (Fault::read(&text, Level::Simulation), entry.not_at(Level::Simulation)) {
            (Ok(fault), None) => fault,
            (Err(error), Some(why)) => {
                assert!(error.to_string().contains(why), "{error}");
                continue;
            }
            (read, why) => panic!("{text}: {read:?}, {why:?}"),
        };
        let mut plan = vec![given];
        if matches!(entry.name, "notice-back" | "notice-anew") {
            plan.push("notice=withdrawn@5s".parse().unwrap());
        }
        let struck = (0..3_000).any(|seed| {
            let mut coverage = Coverage::default();
            let scenario = Scenario { faults: plan.clone(), ..Scenario::of(seed, 4) };
            let world = World::new(&scenario, Crashes::Never, &mut coverage).run();
            let violations = world.checks.violations.clone();
            assert!(violations.is_empty(), "{}", verdict(&scenario, Crashes::Never, &violations));
            coverage.strikes(entry.name) > 0
        });
        assert!(struck, "{text} never struck");
    }
}
