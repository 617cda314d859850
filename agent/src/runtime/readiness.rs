//! Whether a role lives and is ready: its loop's heartbeat, and latches that close once.

use evacuation::moment::{Moment, Span};
use host::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// When a role's loop last turned; clones share it.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// A heart that has just beaten.
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(clock::now().as_millis())))
    }

    /// The loop turned at `now`.
    pub fn beat(&self, now: Moment) {
        self.0.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Time since the last turn.
    pub fn age(&self, now: Moment) -> Span {
        now.since(Moment::from_millis(self.0.load(Ordering::Relaxed)))
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

/// What must have happened once before the agent, or the fleet role, is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[derive(strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Latch {
    /// IMDS gave a token, or the node is known not to need it.
    Imds,
    /// The own node was read.
    Node,
    /// The own node's pods were listed.
    Pods,
    /// The store has proven what it must be able to do.
    Store,
    /// The fleet role knows who leads it.
    Election,
}

impl Latch {
    /// The agent's.
    pub const AGENT: [Latch; 4] = [Latch::Imds, Latch::Node, Latch::Pods, Latch::Store];
    /// The fleet role's.
    pub const FLEET: [Latch; 1] = [Latch::Election];

    /// Its name in `/readyz`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The latches; clones share them.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<[(Latch, AtomicBool)]>);

impl Readiness {
    /// Ready when all of these have happened.
    pub fn of(latches: &[Latch]) -> Self {
        Self(latches.iter().map(|latch| (*latch, AtomicBool::new(false))).collect())
    }

    /// It has happened.
    pub fn latch(&self, latch: Latch) {
        for (_, done) in self.0.iter().filter(|(known, _)| *known == latch) {
            done.store(true, Ordering::Relaxed);
        }
    }

    /// What has not happened yet.
    pub fn missing(&self) -> Vec<Latch> {
        self.0.iter().filter(|(_, done)| !done.load(Ordering::Relaxed)).map(|(latch, _)| *latch).collect()
    }
}

impl Default for Readiness {
    /// The agent's.
    fn default() -> Self {
        Self::of(&Latch::AGENT)
    }
}
