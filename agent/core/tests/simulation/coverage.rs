//! What the runs have seen, and what they never saw.

use crate::faults::CATALOGUE;
use evacuation::effect::{Action, Effect, RestoreOutcome};
use evacuation::event::{Event, FailureKind, Outcome};
use evacuation::report::{DepartureOutcome, StateOutcome};
use std::collections::BTreeMap;

/// Counts, by table and name.
#[derive(Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<(&'static str, String), u64>,
    pub pods: BTreeMap<usize, u64>,
    pub runs: u64,
    pub crashes: u64,
    pub late_answers: u64,
}

impl Coverage {
    fn count(&mut self, table: &'static str, name: impl Into<String>) {
        *self.counts.entry((table, name.into())).or_default() += 1;
    }

    pub fn event(&mut self, event: &Event) {
        self.count("event", event.name());
        if let Event::Answered { outcome, .. } = event {
            match outcome {
                Outcome::Done(_) => self.count("answer", "done"),
                Outcome::Failed { kind, .. } => self.count("failure", kind.as_str()),
                Outcome::TimedOut => self.count("answer", "timed_out"),
                Outcome::Panicked => self.count("answer", "panicked"),
            }
        }
    }

    pub fn effect(&mut self, effect: &Effect) {
        self.count("effect", effect.action.name());
        match &effect.action {
            Action::OpenGate { outcome, .. } => self.count("restore", outcome.as_str()),
            Action::WriteReport(report) => {
                for pod in &report.pods {
                    self.count("state", format!("{:?}", pod.state));
                    self.count("departure", format!("{:?}", pod.departure));
                }
            }
            _ => {}
        }
    }

    pub fn fault(&mut self, kind: &'static str) {
        self.count("fault", kind);
    }

    /// All that should have occurred.
    fn wanted() -> Vec<(&'static str, String)> {
        let mut wanted: Vec<(&'static str, String)> = Vec::new();
        wanted.extend(Event::NAMES.map(|name| ("event", name.to_owned())));
        wanted.extend(Action::NAMES.map(|name| ("effect", name.to_owned())));
        wanted.extend(FailureKind::ALL.map(|kind| ("failure", kind.as_str().to_owned())));
        wanted.extend(["done", "timed_out", "panicked"].map(|name| ("answer", name.to_owned())));
        wanted.extend(CATALOGUE.iter().map(|kind| ("fault", (*kind).to_owned())));
        wanted.extend(RestoreOutcome::ALL.map(|outcome| ("restore", outcome.as_str().to_owned())));
        wanted.extend(StateOutcome::ALL.map(|outcome| ("state", format!("{outcome:?}"))));
        wanted.extend(DepartureOutcome::ALL.map(|outcome| ("departure", format!("{outcome:?}"))));
        wanted
    }

    /// What never occurred.
    pub fn missing(&self) -> Vec<String> {
        let never = Self::wanted().into_iter().filter(|wanted| !self.counts.contains_key(wanted));
        never.map(|(table, name)| format!("{table} {name}")).collect()
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
        println!("\npods in a run:");
        for (from, to) in [(0, 0), (1, 1), (2, 4), (5, 9), (10, 19), (20, 39), (40, 60)] {
            let runs: u64 = self.pods.range(from..=to).map(|(_, runs)| runs).sum();
            println!("  {:<22}{runs:>10}", format!("{from} to {to}"));
        }
        println!("\n{} runs, {} crashes, {} late answers", self.runs, self.crashes, self.late_answers);
    }
}
