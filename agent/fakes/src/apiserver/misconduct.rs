//! The API server's faults: those of the fault plan, and what a test wants done to one request.

use super::status::Refusal;
use evacuation::moment::Moment;
use fault_plan::Fault;
use fault_plan::drill::window;
use host::clock;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::atomic::{AtomicU32, Ordering};

/// What is done to a request instead of serving it.
#[derive(Debug)]
pub enum Instead {
    /// It is refused.
    Refuse(Refusal),
    /// It is answered so, whatever it asks for. A string is sent as text: a proxy's page.
    Answer(StatusCode, Value),
    /// It waits until this moment (for ever is until the drill ends) and is then served.
    Stall(Option<Moment>),
    /// Somebody else changes the node first.
    ForeignWrite,
}

/// The armed faults with target `api`, and the script.
#[derive(Debug, Default)]
pub struct Misconduct {
    faults: Vec<(Fault, AtomicU32)>,
    /// Verb, end of the path, and what is done to the next such request.
    script: Mutex<Vec<(&'static str, &'static str, Instead)>>,
    /// When the notice appeared: the zero of every time.
    zero: std::sync::OnceLock<Moment>,
}

impl Misconduct {
    /// Takes the plan's `api` faults.
    pub fn new(plan: &[Fault]) -> Self {
        let api = plan.iter().filter(|fault| fault.kind.target == "api");
        Self { faults: api.map(|fault| (fault.clone(), AtomicU32::new(0))).collect(), ..Self::default() }
    }

    /// Does this, once, to the next request with this verb on a path that ends so.
    pub fn script(&self, verb: &'static str, end: &'static str, instead: Instead) {
        self.script.lock().push((verb, end, instead));
    }

    /// The notice has appeared: times count from here.
    pub fn begin(&self, zero: Moment) {
        // A second notice does not move the faults.
        let _ = self.zero.set(zero);
    }

    /// A fault with this outcome has struck.
    pub fn struck(&self, outcome: &str) -> bool {
        self.faults
            .iter()
            .any(|(fault, seen)| fault.kind.outcome == outcome && seen.load(Ordering::Relaxed) > 0)
    }

    /// What the script does to this request.
    pub fn scripted(&self, verb: &str, path: &str) -> Option<Instead> {
        let mut script = self.script.lock();
        let at = script.iter().position(|(of, end, _)| *of == verb && path.ends_with(end))?;
        Some(script.remove(at).2)
    }

    /// What the fault plan does to this request of an agent.
    pub fn strikes(&self, verb: &str, resource: &str) -> Option<Instead> {
        let now = clock::now();
        let zero = *self.zero.get()?;
        self.faults.iter().find_map(|(fault, seen)| {
            let conflict = fault.kind.outcome == "conflict";
            if conflict && (verb, resource) != ("patch", "nodes") {
                return None;
            }
            let (from, until) = window(fault);
            let (from, until) = (zero + from, until.map(|until| zero + until));
            if now < from || until.is_some_and(|until| now >= until) {
                return None;
            }
            let nth = seen.fetch_add(1, Ordering::Relaxed) + 1;
            if !fault.count.strikes(nth) {
                return None;
            }
            match fault.kind.outcome {
                "429" => Some(Instead::Refuse(Refusal::throttled())),
                "503" => Some(Instead::Refuse(Refusal::unavailable())),
                "stall" => Some(Instead::Stall(until)),
                "conflict" => Some(Instead::ForeignWrite),
                _ => None,
            }
        })
    }
}
