//! What the runs have seen, and what they never saw.

use crate::arrivals;
use crate::faults;
use crate::scenario::Scenario;
use evacuation::effect::{Action, Effect, NodeAction, RestoreAction, RestoreOutcome};
use evacuation::event::{Done, Event, FailureKind, Outcome, Verification};
use evacuation::report::{DepartureOutcome, StateOutcome};
use std::collections::{BTreeMap, BTreeSet};

/// Of a maintenance and something else, IMDS shows both.
pub const SEVERAL: &str = "several announcements at once";
/// IMDS shows something whose time lies before the boot, or before the instance woke.
pub const BOOT_WHILE_IMDS_LAGS: &str = "a reboot while IMDS lags";
pub const RESUME_WHILE_IMDS_LAGS: &str = "a resume while IMDS lags";

/// What is announced in one way or another in at least one of a hundred runs.
const ANNOUNCED: [&str; 3] = [SEVERAL, BOOT_WHILE_IMDS_LAGS, RESUME_WHILE_IMDS_LAGS];

/// Counts, by table and name.
#[derive(Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<(&'static str, &'static str), u64>,
    /// What the report said of a pod at some time.
    states: BTreeMap<StateOutcome, u64>,
    departures: BTreeMap<DepartureOutcome, u64>,
    /// Runs by number of pods.
    pods: BTreeMap<usize, u64>,
    /// States by the power of ten of their bytes, uplinks by that of their bytes per second.
    sizes: BTreeMap<u32, u64>,
    links: BTreeMap<u32, u64>,
    pub runs: u64,
    pub events: u64,
    pub crashes: u64,
    pub late_answers: u64,
}

fn add<K: Ord>(to: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        *to.entry(key).or_default() += count;
    }
}

impl Coverage {
    /// Takes what another thread has seen.
    pub fn merge(&mut self, other: Self) {
        add(&mut self.counts, other.counts);
        add(&mut self.states, other.states);
        add(&mut self.departures, other.departures);
        add(&mut self.pods, other.pods);
        add(&mut self.sizes, other.sizes);
        add(&mut self.links, other.links);
        self.runs += other.runs;
        self.events += other.events;
        self.crashes += other.crashes;
        self.late_answers += other.late_answers;
    }

    fn count(&mut self, table: &'static str, name: &'static str) {
        *self.counts.entry((table, name)).or_default() += 1;
    }

    /// A run begins.
    pub fn run(&mut self, scenario: &Scenario) {
        self.runs += 1;
        *self.pods.entry(scenario.actors.len()).or_default() += 1;
        *self.links.entry((scenario.link * 1000).max(1).ilog10()).or_default() += 1;
        for actor in scenario.actors.iter().filter(|actor| actor.facts.engine.is_some() && actor.state > 0) {
            *self.sizes.entry(actor.state.ilog10()).or_default() += 1;
        }
    }

    pub fn event(&mut self, event: &Event) {
        self.count("event", event.name());
        if let Event::Answered { outcome, .. } = event {
            match outcome {
                Outcome::Done(done) => {
                    self.count("answer", "done");
                    if let Done::Verified(verification) = done {
                        self.count("verification", word(verification));
                    }
                }
                Outcome::Failed { kind, .. } => self.count("failure", kind.as_str()),
                Outcome::TimedOut => self.count("answer", "timed_out"),
                Outcome::Panicked => self.count("answer", "panicked"),
            }
        }
    }

    pub fn effect(&mut self, effect: &Effect) {
        self.count("effect", effect.action.name());
        match &effect.action {
            Action::Restore { action: RestoreAction::OpenGate { outcome, .. }, .. } => {
                self.count("restore", outcome.as_str())
            }
            Action::Node(NodeAction::WriteReport(report)) => {
                for pod in &report.pods {
                    *self.states.entry(pod.state).or_default() += 1;
                    *self.departures.entry(pod.departure).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    /// An engine has flushed a part of what it holds.
    pub fn flushed_in_part(&mut self, last: bool) {
        self.count("partial flush", if last { "final" } else { "pre-copy" });
    }

    /// In which order a life has heard of its node, its pods and IMDS, and what of it was late.
    pub fn arrived(&mut self, facts: Vec<&'static str>) {
        facts.into_iter().for_each(|fact| self.count("start", fact));
    }

    /// How the store took the looks of new pods in a run, where it was not well.
    pub fn met(&mut self, how: &BTreeSet<&'static str>) {
        how.iter().for_each(|how| self.count("look", how));
    }

    /// Something that is counted once a run.
    pub fn once(&mut self, name: &'static str, seen: &mut BTreeSet<&'static str>) {
        if seen.insert(name) {
            self.count("run", name);
        }
    }

    pub fn fault(&mut self, name: &'static str) {
        self.count("fault", name);
    }

    /// How often a fault has struck.
    pub fn strikes(&self, name: &'static str) -> u64 {
        self.counts.get(&("fault", name)).copied().unwrap_or(0)
    }

    /// All that should have occurred.
    fn wanted() -> Vec<(&'static str, &'static str)> {
        let mut wanted = Vec::new();
        wanted.extend(Event::NAMES.iter().map(|name| ("event", *name)));
        // Nothing that is drawn is impossible.
        let possible = Action::names().filter(|name| *name != "anomaly");
        wanted.extend(possible.map(|name| ("effect", name)));
        wanted.extend(FailureKind::ALL.iter().map(|kind| ("failure", kind.as_str())));
        wanted.extend(["done", "timed_out", "panicked"].map(|name| ("answer", name)));
        wanted.extend(faults::kinds().map(|kind| ("fault", kind.name)));
        wanted.extend(RestoreOutcome::ALL.iter().map(|outcome| ("restore", outcome.as_str())));
        wanted
    }

    /// What should occur in at least one of a hundred runs.
    fn frequent() -> Vec<(&'static str, &'static str)> {
        let mut wanted = Vec::new();
        wanted.extend(arrivals::NAMES.map(|name| ("start", name)));
        wanted.extend(["final", "pre-copy"].map(|name| ("partial flush", name)));
        wanted.extend(["hangs", "refuses", "throttles"].map(|how| ("look", how)));
        wanted.extend(ANNOUNCED.map(|name| ("run", name)));
        wanted.extend(["used", "not used", "not shown"].map(|name| ("verification", name)));
        wanted
    }

    /// What never occurred.
    pub fn missing(&self) -> Vec<String> {
        let never = Self::wanted().into_iter().filter(|wanted| !self.counts.contains_key(wanted));
        let mut missing: Vec<_> = never.map(|(table, name)| format!("{table} {name}")).collect();
        let rare = Self::frequent()
            .into_iter()
            .filter(|wanted| self.counts.get(wanted).copied().unwrap_or(0) * 100 < self.runs);
        missing.extend(rare.map(|(table, name)| format!("{table} {name}, in one of a hundred runs")));
        let states = StateOutcome::ALL.iter().copied().filter(|state| !self.states.contains_key(state));
        missing.extend(states.map(|state| format!("state {state:?}")));
        let ways = DepartureOutcome::ALL.iter().copied().filter(|way| !self.departures.contains_key(way));
        missing.extend(ways.map(|way| format!("departure {way:?}")));
        missing
    }

    /// The tables, for people.
    pub fn print(&self) {
        let mut table = "";
        for ((kind, name), count) in &self.counts {
            if *kind != table {
                table = kind;
                println!("\n{table}:");
            }
            println!("  {name:<22}{count:>10}");
        }
        println!("\nstate, in the reports:");
        self.states.iter().for_each(|(state, count)| println!("  {:<22}{count:>10}", format!("{state:?}")));
        println!("\ndeparture, in the reports:");
        self.departures.iter().for_each(|(way, count)| println!("  {:<22}{count:>10}", format!("{way:?}")));
        let ranges = [(0, 0), (1, 1), (2, 4), (5, 9), (10, 19), (20, 39), (40, 60)];
        let pods = ranges.map(|(from, to)| {
            let runs: u64 = self.pods.range(from..=to).map(|(_, runs)| runs).sum();
            format!("{from}-{to}: {runs}")
        });
        println!("\npods in a run: {}", pods.join(", "));
        println!("bytes of state: {}", decades(&self.sizes, "B"));
        println!("uplink: {}", decades(&self.links, "B/s"));
        println!("{} crashes, {} late answers, {} events", self.crashes, self.late_answers, self.events);
    }
}

/// `10 MB to 100 MB: 7`, one after another.
fn decades(counts: &BTreeMap<u32, u64>, unit: &str) -> String {
    let name = |power: u32| {
        let thousands = ["", "k", "M", "G", "T"].get(power as usize / 3).copied().unwrap_or("?");
        format!("{} {thousands}{unit}", 10_u32.pow(power % 3))
    };
    let each = counts.iter().map(|(power, count)| format!("from {}: {count}", name(*power)));
    each.collect::<Vec<_>>().join(", ")
}

const fn word(verification: &Verification) -> &'static str {
    match verification {
        Verification::Used { .. } => "used",
        Verification::NotUsed { .. } => "not used",
        Verification::NotShown { .. } => "not shown",
    }
}
