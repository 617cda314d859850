//! Many runs on all cores, what they have seen together, and what was wrong in them.

use crate::coverage::Coverage;
use crate::faults;
use crate::scenario::Scenario;
use crate::world::{Crashes, World};
use fault_plan::{Fault, Level};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

#[expect(clippy::disallowed_methods, reason = "a failing seed must be replayable by hand")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn number(name: &str) -> Option<u64> {
    let text = variable(name)?;
    let number = text.parse().ok();
    assert!(number.is_some(), "{name} must be a number, not {text:?}");
    number
}

/// What is asked for by hand.
#[derive(Debug)]
pub struct Wanted {
    /// `LIFEBOAT_SIM_SEED`: this one alone.
    pub seed: Option<u64>,
    /// `LIFEBOAT_SIM_FAULTS`: these instead of those drawn.
    pub faults: Option<Vec<Fault>>,
    /// `LIFEBOAT_SIM_RUNS`.
    runs: Option<u64>,
    /// `LIFEBOAT_LONG=1`: a million evacuations, and twenty times the crashes.
    long: bool,
}

impl Wanted {
    pub fn read() -> Self {
        let plan = variable("LIFEBOAT_SIM_FAULTS");
        let faults = plan.map(|text| {
            let plan = fault_plan::parse_plan(&text, Level::Simulation);
            plan.map_err(|error| format!("LIFEBOAT_SIM_FAULTS: {error}")).expect("a plan of the simulation")
        });
        Self {
            seed: number("LIFEBOAT_SIM_SEED"),
            faults,
            runs: number("LIFEBOAT_SIM_RUNS"),
            long: variable("LIFEBOAT_LONG").is_some_and(|text| text == "1"),
        }
    }

    /// The one asked for, or so many.
    fn seeds(&self, many: u64) -> Range<u64> {
        self.seed.map_or(0..many, |seed| seed..seed + 1)
    }

    /// The seeds of a test of single evacuations.
    pub fn evacuations(&self, ordinary: u64) -> Range<u64> {
        let long = if self.long { 1_000_000 } else { ordinary };
        self.seeds(self.runs.unwrap_or(long))
    }

    /// The seeds of a test that runs each more than once, with a crash elsewhere or one pod blocked.
    pub fn crashed(&self, ordinary: u64) -> Range<u64> {
        self.seeds(if self.long { 20 * ordinary } else { ordinary })
    }

    /// The scenario as it was drawn, with the faults that were asked for.
    pub fn on(&self, mut scenario: Scenario) -> Scenario {
        if let Some(faults) = &self.faults {
            scenario.faults.clone_from(faults);
        }
        scenario
    }
}

/// What a failure says: how to run it again, what was planned, what was wrong, what came before.
pub fn verdict(scenario: &Scenario, crashes: Crashes, violations: &[String]) -> String {
    let plan: Vec<_> = scenario.faults.iter().map(Fault::to_string).collect();
    let mut unused = Coverage::default();
    let traced = World::new(scenario, crashes, &mut unused).traced().run();
    let trace: Vec<_> = traced.trace.iter().rev().take(120).rev().cloned().collect();
    format!(
        "\n{}\n{:#?}\ncrashes: {crashes:?}\n{violations:#?}\n\
         LIFEBOAT_SIM_SEED={} LIFEBOAT_SIM_FAULTS='{}'\n",
        trace.join("\n"),
        scenario.policy,
        scenario.seed,
        plan.join(" "),
    )
}

/// The violations of many runs: one example of each sort, and how many runs had it.
#[derive(Default)]
pub struct Failures {
    sorts: BTreeMap<String, (u64, u64, String)>,
}

impl Failures {
    pub fn take(&mut self, scenario: &Scenario, crashes: Crashes, violations: &[String]) {
        let Some(first) = violations.first() else { return };
        let sort: String = first.chars().filter(|letter| !letter.is_ascii_digit()).take(70).collect();
        let known = self.sorts.entry(sort).or_default();
        known.0 += 1;
        if known.0 == 1 {
            known.1 = scenario.seed;
            known.2 = verdict(scenario, crashes, violations);
        }
    }

    /// Of each sort the example of the lowest seed: the same however many threads there were.
    fn merge(&mut self, other: Self) {
        for (sort, (runs, seed, text)) in other.sorts {
            let known = self.sorts.entry(sort).or_insert_with(|| (0, seed, text.clone()));
            known.0 += runs;
            if seed < known.1 {
                (known.1, known.2) = (seed, text);
            }
        }
    }

    pub fn none(&self) {
        let text: Vec<_> =
            self.sorts.values().map(|(runs, _, text)| format!("{text}in {runs} runs\n")).collect();
        assert!(text.is_empty(), "{}", text.concat());
    }
}

/// Says which run it was that panicked: the core's arithmetic panics where it would wrap.
struct NamedOnPanic(u64);

impl Drop for NamedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("panicked in LIFEBOAT_SIM_SEED={}", self.0);
        }
    }
}

/// Runs `one` for each seed, on all cores: each thread has its own coverage, and they are merged at the end.
pub fn all(
    seeds: Range<u64>,
    one: impl Fn(u64, &mut Coverage, &mut Failures) + Sync,
) -> (Coverage, Failures) {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new((Coverage::default(), Failures::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (mut coverage, mut failures) = (Coverage::default(), Failures::default());
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let named = NamedOnPanic(seed);
                    one(seed, &mut coverage, &mut failures);
                    drop(named);
                }
                let mut sum = sum.lock().expect("no thread of a run panics");
                sum.0.merge(coverage);
                sum.1.merge(failures);
            });
        }
    });
    sum.into_inner().expect("no thread of a run panics")
}

/// The kinds of the catalogue that are not understood here, with the reason: for people.
pub fn print_what_is_not_simulated() {
    println!("\nfaults of the drill alone:");
    for entry in fault_plan::catalogue::entries() {
        if let Some(why) = entry.not_at(Level::Simulation) {
            println!("  {:<22}{why}", entry.name);
        }
    }
    println!("faults of the simulation: {}", faults::kinds().count());
}
