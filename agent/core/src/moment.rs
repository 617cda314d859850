//! Time as the core knows it: whole milliseconds on the node's boot clock.
//!
//! The shell reads `CLOCK_BOOTTIME`, which starts at boot, never jumps and is the same for every
//! process of one boot. A deadline written to the node's annotation therefore means the same
//! moment to the agent that is started after a crash (together with the boot id).
//!
//! Decides nothing: arithmetic that saturates. It must not know any clock.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};

/// A point on the node's boot clock, in milliseconds since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span(u64);

impl Moment {
    /// The moment `ms` milliseconds after boot.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since boot.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to this moment; zero if it lies ahead.
    pub const fn since(self, earlier: Moment) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// Time from `now` until this moment; zero if it has passed.
    pub const fn left(self, now: Moment) -> Span {
        Span(self.0.saturating_sub(now.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// A span of `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// A span of `s` seconds.
    pub const fn from_secs(s: u64) -> Self {
        Self(s.saturating_mul(1000))
    }

    /// The span in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The whole seconds in the span, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// The span divided by `n` (`n` of zero gives zero).
    pub const fn div(self, n: u64) -> Span {
        match self.0.checked_div(n) {
            Some(ms) => Span(ms),
            None => Span(0),
        }
    }

    /// This span less `other`, never below zero.
    pub const fn less(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }
}

impl Add<Span> for Moment {
    type Output = Moment;
    fn add(self, span: Span) -> Moment {
        Moment(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Moment {
    type Output = Moment;
    fn sub(self, span: Span) -> Moment {
        Moment(self.0.saturating_sub(span.0))
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Moment::from_millis(5) - Span::from_secs(1), Moment::from_millis(0));
        assert_eq!(Moment::from_millis(u64::MAX) + Span::from_secs(1), Moment::from_millis(u64::MAX));
        assert_eq!(Moment::from_millis(5).left(Moment::from_millis(9)), Span::ZERO);
    }
}
