//! One fault of a plan, as a value: what kind, whom, how often, from when to when.

use crate::entry::Entry;
use crate::quantity::{show_duration, show_rate};
use std::fmt;
use std::time::Duration;

/// One fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of fault: one line of the catalogue.
    pub kind: &'static Entry,
    /// `gold` in `engine:gold=hang`.
    pub object: Option<String>,
    /// `10s` in `notice=late:10s`, `2MiB/s` in `store=slow:2MiB/s`.
    pub argument: Option<Value>,
    /// How often it strikes.
    pub count: Count,
    /// When it begins.
    pub start: Start,
    /// How long it lasts.
    pub lasts: Option<Duration>,
}

/// What stands after the outcome's colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A time, in whole milliseconds.
    Span(Duration),
    /// Bytes per second.
    Rate(u64),
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count {
    /// As long as its time lasts.
    #[default]
    Always,
    /// The first so many times (`*3`).
    First(u32),
    /// This time only, counted from 1 (`#2`).
    Only(u32),
}

impl Count {
    /// Whether it strikes the `nth` time that it could, counted from 1.
    pub const fn strikes(self, nth: u32) -> bool {
        match self {
            Count::Always => true,
            Count::First(most) => nth <= most,
            Count::Only(one) => nth == one,
        }
    }
}

/// When a fault begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the notice.
    #[default]
    Notice,
    /// So long after the notice.
    After(Duration),
    /// With the first effect of this name.
    Step(String),
}

impl Fault {
    /// A fault of this kind without any part.
    pub const fn of(kind: &'static Entry) -> Self {
        Self { kind, object: None, argument: None, count: Count::Always, start: Start::Notice, lasts: None }
    }

    /// The catalogue's name of it.
    pub const fn name(&self) -> &'static str {
        self.kind.name
    }

    /// From when to when it holds, in time after the notice: by default for as long as the catalogue says.
    pub fn window(&self) -> (Duration, Option<Duration>) {
        let from = match self.start {
            Start::After(time) => time,
            Start::Notice | Start::Step(_) => Duration::ZERO,
        };
        let lasts = self.lasts.or(match self.count {
            Count::Always => self.kind.default_lasts.map(Duration::from_secs),
            Count::First(_) | Count::Only(_) => None,
        });
        (from, lasts.map(|lasts| from + lasts))
    }

    /// The argument, where it is a time.
    pub const fn span(&self) -> Option<Duration> {
        match self.argument {
            Some(Value::Span(span)) => Some(span),
            Some(Value::Rate(_)) | None => None,
        }
    }

    /// The argument, where it is a rate: bytes per second.
    pub const fn rate(&self) -> Option<u64> {
        match self.argument {
            Some(Value::Rate(rate)) => Some(rate),
            Some(Value::Span(_)) | None => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.target)?;
        if let Some(object) = &self.object {
            write!(f, ":{object}")?;
        }
        write!(f, "={}", self.kind.outcome)?;
        match self.argument {
            None => {}
            Some(Value::Span(span)) => write!(f, ":{}", show_duration(span))?,
            Some(Value::Rate(rate)) => write!(f, ":{}", show_rate(rate))?,
        }
        match self.count {
            Count::Always => {}
            Count::First(n) => write!(f, "*{n}")?,
            Count::Only(n) => write!(f, "#{n}")?,
        }
        match &self.start {
            Start::Notice => {}
            Start::After(time) => write!(f, "@{}", show_duration(*time))?,
            Start::Step(step) => write!(f, "@step:{step}")?,
        }
        if let Some(lasts) = self.lasts {
            write!(f, "+{}", show_duration(lasts))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_counts_from_the_notice() {
        let fault: Fault = "api=503@3s+5s".parse().unwrap();
        assert_eq!(fault.window(), (Duration::from_secs(3), Some(Duration::from_secs(8))));
        let fault: Fault = "pdb=stuck".parse().unwrap();
        assert_eq!(fault.window(), (Duration::ZERO, None));
        let spell: Fault = "api=503@3s".parse().unwrap();
        assert_eq!(spell.window(), (Duration::from_secs(3), Some(Duration::from_secs(8))));
        let counted: Fault = "api=503*2@3s".parse().unwrap();
        assert_eq!(counted.window(), (Duration::from_secs(3), None));
    }

    #[test]
    fn a_count_says_which_times_it_strikes() {
        let strikes = |count: Count| (1..5).filter(|nth| count.strikes(*nth)).collect::<Vec<_>>();
        assert_eq!(strikes(Count::Always), [1, 2, 3, 4]);
        assert_eq!(strikes(Count::First(2)), [1, 2]);
        assert_eq!(strikes(Count::Only(3)), [3]);
    }
}
