//! One line of the catalogue: what a kind of fault is called, what its text may hold, where it is understood.

use std::fmt;

/// Who plays a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The core alone in virtual time (`agent/trace/tests/simulation`).
    Simulation,
    /// The whole agent against the drill's services: the wire and the drill.
    Drill,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Simulation => "the simulation",
            Level::Drill => "the drill",
        })
    }
}

/// One kind of fault.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name: for messages and tests.
    pub name: &'static str,
    /// Left of `=`.
    pub target: &'static str,
    /// Right of `=`.
    pub outcome: &'static str,
    /// A text of this kind.
    pub example: &'static str,
    /// What happens.
    pub what: &'static str,
    /// Which guarantee (docs/guarantees.md) it tries, and how.
    pub tries: &'static str,
    /// What may stand after the target's colon.
    pub object: Object,
    /// What must stand after the outcome's colon.
    pub argument: Argument,
    /// `*n` and `#n` are understood.
    pub counted: bool,
    /// What `@` means.
    pub when: When,
    /// `+duration` is understood.
    pub lasting: bool,
    /// Seconds it lasts where neither a duration nor a count says so; `None` for ever.
    pub default_lasts: Option<u64>,
    /// The level that does not understand it, and why.
    pub unknown_to: Option<(Level, &'static str)>,
}

impl Entry {
    /// Why this level does not understand it; `None` if it does.
    pub fn not_at(&self, level: Level) -> Option<&'static str> {
        self.unknown_to.and_then(|(not, why)| (not == level).then_some(why))
    }
}

/// What may stand after the target's colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// Nothing.
    None,
    /// A pod, always.
    Pod,
    /// In the simulation a pod, or nothing for all of them; in the drill nothing: it strikes the one it is made for.
    SimulatedPod,
}

/// What must stand after the outcome's colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing.
    None,
    /// A duration.
    Span,
    /// Bytes per second.
    Rate,
}

impl Argument {
    /// For a message.
    pub const fn in_words(self) -> &'static str {
        match self {
            Argument::None => "nothing",
            Argument::Span => "a duration, as in :10s",
            Argument::Rate => "a rate, as in :2MiB/s",
        }
    }
}

/// What `@` means for a kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It is not understood.
    Never,
    /// Time after the notice; with the notice if it is missing.
    Time,
    /// Time after the notice; it must be given.
    NeedsTime,
    /// A time or a step; one must be given.
    NeedsTimeOrStep,
}
