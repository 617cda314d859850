//! The verdict: a pure function from what was observed to one line for each guarantee (docs/guarantees.md).
//!
//! A guarantee that the fault plan makes impossible to keep (state cannot leave a node whose store is gone) is
//! *excused* only if the agent gave a reason; it is printed and breaks nothing. Everything else that is not so is
//! broken.

mod claims;
mod cordon;
mod departure;
mod endurance;
mod journals;
mod order;
mod state;

use super::observation::Observation;
use serde::Serialize;

/// One guarantee, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its number in docs/guarantees.md; 0 for the drill itself.
    pub guarantee: u8,
    /// What is checked.
    pub what: &'static str,
    /// How it stands.
    #[serde(flatten)]
    pub finding: Finding,
}

/// How it stands with a guarantee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", content = "evidence", rename_all = "snake_case")]
pub enum Finding {
    /// It held; by what that is known.
    Held(String),
    /// The plan made it impossible, and the agent said why.
    Excused(String),
    /// It was broken; by what.
    Broken(String),
    /// This drill does not try it; why.
    NotApplicable(String),
}

impl Finding {
    /// A word for the table.
    pub const fn word(&self) -> &'static str {
        match self {
            Finding::Held(_) => "held",
            Finding::Excused(_) => "excused",
            Finding::Broken(_) => "BROKEN",
            Finding::NotApplicable(_) => "not tried",
        }
    }

    /// The evidence.
    pub fn evidence(&self) -> &str {
        match self {
            Finding::Held(text)
            | Finding::Excused(text)
            | Finding::Broken(text)
            | Finding::NotApplicable(text) => text,
        }
    }

    /// It was broken.
    pub const fn is_broken(&self) -> bool {
        matches!(self, Finding::Broken(_))
    }
}

/// What a check finds.
type Look = fn(&Observation) -> Finding;

/// Every check, in the order of the guarantees.
pub const CHECKS: &[(u8, &str, Look)] = &[
    (0, "every fault of the plan struck", endurance::struck),
    (0, "the agents' own journals keep every guarantee", journals::keep_every_guarantee),
    (1, "cordoned before the first eviction", cordon::first),
    (1, "cordon, taint and deadline in one patch with resourceVersion", cordon::one_patch),
    (1, "never uncordoned while the notice stands", cordon::stands),
    (1, "the taints of others survive", cordon::foreign_taint),
    (1, "taken back after the notice is over", cordon::taken_back),
    (2, "no engine ended before its state was committed", departure::not_before_commit),
    (2, "every removal names the uid, no grace is 0", departure::preconditions),
    (2, "shed pods go at once, with nothing saved", departure::shed),
    (2, "who is to stay stays", departure::stays),
    (3, "evicted in order of priority, as soon as ready", order::evictions),
    (3, "saved in order of priority", order::saves),
    (3, "the disruption budget's refusals delayed nobody", order::budget),
    (3, "refused evictions are repeated, and not too often", order::retries),
    (
        4,
        "gone, deleted at its cut-off or abandoned with a reason by the deadline",
        departure::by_the_deadline,
    ),
    (4, "the report is written by the deadline", departure::report),
    (5, "every checkpoint that can be found verifies", state::verifies),
    (5, "what is committed is what the engine flushed", state::committed_bytes),
    (6, "gold: its state is on the replacement, byte for byte", state::gold),
    (6, "silver: its state is on the replacement, byte for byte", state::silver),
    (6, "restored at most once", state::once),
    (6, "claims are Leases where the store decides none", claims::place),
    (7, "one deadline, also after a restart", endurance::one_deadline),
    (7, "a restart loses no committed work", endurance::committed_stays),
    (8, "no agent ended by itself", endurance::no_crash),
    (8, "each agent keeps to its own node", endurance::own_node),
    (9, "a recommendation that comes to nothing leaves no trace", cordon::no_trace),
    (10, "a lower tier was not saved instead of a higher one", order::tiers),
    (11, "no pod hangs, no replacement stays out of rotation", departure::nobody_hangs),
];

/// Judges.
pub fn judge(observation: &Observation) -> Vec<Check> {
    let check = |(guarantee, what, look): &(u8, &'static str, Look)| Check {
        guarantee: *guarantee,
        what,
        finding: look(observation),
    };
    CHECKS.iter().map(check).collect()
}

/// Every guarantee held.
pub fn held(checks: &[Check]) -> bool {
    !checks.iter().any(|check| check.finding.is_broken())
}

/// Held with this evidence, unless something is wrong.
fn unless(wrong: Vec<String>, evidence: impl FnOnce() -> String) -> Finding {
    if wrong.is_empty() { Finding::Held(evidence()) } else { Finding::Broken(wrong.join("; ")) }
}

/// Time after the notice, for people.
fn after(observation: &Observation, at: evacuation::moment::Moment) -> String {
    let ms = at.as_millis() as f64 - observation.shown.as_millis() as f64;
    format!("T{:+.1} s", ms / 1000.0)
}

#[cfg(test)]
mod tests;
