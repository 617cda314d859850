//! The node's boot clock: the only clock that decides anything.
//!
//! `CLOCK_BOOTTIME` starts at boot, counts suspended time too and never jumps, so a deadline kept
//! as a [`Moment`] means the same to every process of one boot. Unix time appears in two places
//! only, both read on this same node: the hold file (the pod's shell compares it with its own
//! `date`), and timestamps for people.

use evacuation::moment::{Moment, Span};
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Now, on the boot clock.
pub fn now() -> Moment {
    // CLOCK_BOOTTIME exists since Linux 2.6.39; the call cannot fail with a valid clock id.
    let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    Moment::from_millis(u64::try_from(since_boot.as_millis()).unwrap_or(u64::MAX))
}

/// How long the instance has slept in this boot: by so much the boot clock is ahead of `CLOCK_MONOTONIC`, on which all
/// timers run. The boot clock is read first: a wait between the two readings makes it less, never more.
pub fn slept() -> Span {
    let since_boot = now();
    // CLOCK_MONOTONIC exists since Linux 2.0; where it could not be read nothing has slept.
    let awake = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::MAX, Duration::from);
    let awake = Span::from_millis(u64::try_from(awake.as_millis()).unwrap_or(u64::MAX));
    Span::from_millis(since_boot.as_millis()).less(awake)
}

/// The same moment for tokio's timers. They stand still while the instance sleeps: a timer alone ends nothing by a moment
/// that passed meanwhile, so the event loop looks at both clocks before each event ([`slept`]).
pub fn instant(moment: Moment) -> tokio::time::Instant {
    tokio::time::Instant::now() + duration(moment.left(now()))
}

/// The moment of one of tokio's instants.
pub fn moment(instant: tokio::time::Instant) -> Moment {
    let left = instant.saturating_duration_since(tokio::time::Instant::now());
    now() + Span::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
}

/// A span as the standard library has it.
pub fn duration(span: Span) -> Duration {
    Duration::from_millis(span.as_millis())
}

/// The moment as milliseconds of Unix time by this node's wall clock: for the hold file and for
/// people.
pub fn unix_millis(moment: Moment) -> i64 {
    let now_unix = jiff::Timestamp::now().as_millisecond();
    let ahead = moment.as_millis() as i64 - now().as_millis() as i64;
    now_unix.saturating_add(ahead)
}
