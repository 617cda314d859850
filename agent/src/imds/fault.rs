//! The ways in which IMDS fails to answer.

pub use crate::runtime::metrics::kinds::FaultKind;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

impl FaultKind {
    /// Asking less often is what is asked for.
    pub(super) const fn asks_for_less(self) -> bool {
        matches!(self, FaultKind::Throttled | FaultKind::ServerError)
    }

    /// The next document would meet the same, and a timeout each would only delay the next poll.
    pub(super) const fn is_unreachable(self) -> bool {
        matches!(
            self,
            FaultKind::Refused | FaultKind::Timeout | FaultKind::Unauthorized | FaultKind::Throttled
        )
    }
}

/// One fault.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    /// The document or the token.
    pub(super) what: &'static str,
    pub(super) why: String,
}

impl Fault {
    pub(super) fn garbage(what: &'static str, why: impl Into<String>) -> Self {
        Self { kind: FaultKind::Garbage, what, why: why.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        match self.kind {
            FaultKind::Timeout if self.what == super::client::TOKEN => {
                f.write_str(" (a metadata hop limit of 1 has this effect in a pod: raise it to 2 or use the host's network)")
            }
            FaultKind::Forbidden => f.write_str(" (is instance metadata enabled for this instance?)"),
            _ => Ok(()),
        }
    }
}

/// Requests, and faults counted by kind.
#[derive(Debug, Default)]
pub struct Faults {
    polls: AtomicU64,
    counts: [AtomicU64; FaultKind::ALL.len()],
}

impl Faults {
    /// How many of each kind there were since the start.
    pub fn counts(&self) -> impl Iterator<Item = (FaultKind, u64)> + '_ {
        FaultKind::ALL.iter().copied().zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// How many requests there were since the start, whatever came of them.
    pub fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    pub(super) fn poll(&self) {
        self.polls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self, kind: FaultKind) {
        for (counted, count) in FaultKind::ALL.iter().copied().zip(&self.counts) {
            if counted == kind {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
