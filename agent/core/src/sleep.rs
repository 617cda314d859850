//! Whether the instance slept.
//!
//! Decides that from two clocks of the node, which the shell reads: the boot clock counts the time in which the instance was
//! frozen, the clock of the shell's timers does not. It must not know what follows from it.
//!
//! A kernel that wakes adds what it slept to the boot clock, once and at once. By how much the boot clock is ahead is the
//! time that the instance has slept in this boot.

use crate::moment::Span;

/// A shorter sleep is none. EC2 writes the memory to a disk, stops the instance and starts it again, which takes a minute at
/// least; between two readings of the clocks the agent itself may wait for a processor for a moment.
pub const NOTICEABLE: Span = Span::from_secs(5);

/// Measures again and again how long the instance has slept in this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SleepWatch {
    slept: Span,
}

impl SleepWatch {
    /// It has slept for so long before it is watched.
    pub const fn new(slept: Span) -> Self {
        Self { slept }
    }

    /// How long it has slept in this boot.
    pub const fn slept(&self) -> Span {
        self.slept
    }

    /// It has slept for so long by now: how much of it is new, if that is a sleep.
    ///
    /// A measurement that is too small is passed over: the boot clock is read first, so that a wait between the two
    /// readings makes it smaller and never larger.
    pub fn measure(&mut self, slept: Span) -> Option<Span> {
        let new = slept.less(self.slept);
        self.slept = self.slept.max(slept);
        (new >= NOTICEABLE).then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(all: &[u64]) -> Vec<Option<u64>> {
        let mut watch = SleepWatch::new(Span::ZERO);
        all.iter().map(|ms| watch.measure(Span::from_millis(*ms)).map(Span::as_millis)).collect()
    }

    #[test]
    fn a_jump_of_the_boot_clock_is_a_sleep_once() {
        assert_eq!(
            measured(&[0, 3_600_000, 3_600_000, 3_660_000]),
            [None, Some(3_600_000), None, Some(60_000)]
        );
    }

    #[test]
    fn small_steps_are_no_sleep_also_where_they_add_up() {
        assert_eq!(measured(&[1, 4_000, 8_000, 12_999]), [None; 4]);
        assert_eq!(measured(&[4_999, 9_999]), [None, Some(5_000)]);
    }

    #[test]
    fn a_measurement_that_is_too_small_makes_the_next_one_no_sleep() {
        let mut watch = SleepWatch::new(Span::from_secs(600));
        assert_eq!(watch.measure(Span::from_secs(400)), None);
        assert_eq!(watch.measure(Span::from_secs(600)), None);
        assert_eq!(watch.slept(), Span::from_secs(600));
    }
}
