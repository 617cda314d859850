//! A pod on the stage of a golden timeline, and what is behind it.

use evacuation::effect::Hold;
use evacuation::moment::Moment;
use evacuation::pod::PodFacts;

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// What its PodDisruptionBudgets answer to an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    Allows,
    /// Refuses, until so many milliseconds after the start.
    RefusesUntil(u64),
    /// Two budgets select it: the API server answers 500, and the shell knows what that means.
    Two,
}

/// One pod. Spans are milliseconds.
#[derive(Clone, Debug)]
pub struct Actor {
    pub facts: PodFacts,
    /// Bytes of state in its engine.
    pub state: u64,
    /// Of these, how many change in a second while it serves.
    pub changes: u64,
    /// Bytes a second that a flush writes.
    pub disk: u64,
    /// Its engine works on a request until then.
    pub busy_until: u64,
    /// How long its process takes to end.
    pub ends_after: u64,
    pub budget: Budget,
    pub hold: Option<Moment>,
    pub flushed_at: u64,
    /// Bytes of it in the store, as they were at its last flush.
    pub stored: u64,
    pub flushed: u64,
    /// Bytes of it that a commit would cover.
    pub ready: u64,
    pub generations: u32,
    /// The departure under which it was committed.
    pub kept: Option<String>,
    pub departure: String,
    /// Grows with every change to when it ends.
    pub plan: u32,
    pub terminating_at: u64,
    pub gone: bool,
}

impl Actor {
    pub fn new(facts: PodFacts) -> Self {
        Self {
            state: if facts.engine.is_some() { GIB } else { 0 },
            facts,
            changes: 0,
            disk: 500 * MIB,
            busy_until: 0,
            ends_after: 1_000,
            budget: Budget::Allows,
            hold: None,
            flushed_at: 0,
            stored: 0,
            flushed: 0,
            ready: 0,
            gone: false,
            generations: 0,
            kept: None,
            departure: String::new(),
            plan: 0,
            terminating_at: 0,
        }
    }

    pub fn state(mut self, bytes: u64) -> Self {
        self.state = bytes;
        self
    }

    pub fn changes(mut self, bytes_per_second: u64) -> Self {
        self.changes = bytes_per_second;
        self
    }

    pub fn busy_until(mut self, ms: u64) -> Self {
        self.busy_until = ms;
        self
    }

    pub fn ends_after(mut self, ms: u64) -> Self {
        self.ends_after = ms;
        self
    }

    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// The engine writes its state: what changed since the last time is not in the store any more.
    pub fn flush(&mut self, now: u64) -> u64 {
        let changed = (now - self.flushed_at) * self.changes / 1_000;
        self.stored = self.stored.min(self.state.saturating_sub(changed.min(self.state)));
        self.flushed_at = now;
        self.flushed = self.state;
        self.flushed
    }

    pub fn set_hold(&mut self, hold: Hold) {
        self.hold = match hold {
            Hold::Until(moment) => Some(moment),
            Hold::Released => None,
        };
        self.plan += 1;
    }

    /// When it ends, as things are; `boot` is when the clock of moments began.
    pub fn ends(&self, now: u64, boot: u64) -> Option<u64> {
        let last = boot + self.facts.terminating?.as_millis();
        let waits = self.facts.engine.as_ref().is_some_and(|engine| engine.holds);
        let stops = match self.hold.filter(|_| waits) {
            // Its preStop looks every 0.2 s.
            Some(hold) => (boot + hold.as_millis()).max(now) + 200,
            None => now.max(self.terminating_at) + if waits { 200 } else { 0 },
        };
        Some((stops + self.ends_after).min(last.max(now)))
    }
}
