//! How fast bytes leave, and how long a pack takes.

use std::time::Duration;

use tokio::time::Instant;

/// How long bytes are counted before they become one sample of the rate.
const SAMPLE: Duration = Duration::from_millis(200);
/// The weight of the newest sample.
const NEWEST: f64 = 0.3;
/// Samples since bytes began to flow, before the rate is believed.
const BELIEVED: u32 = 4;

/// Acknowledged bytes per second, smoothed. Idle time does not count.
#[derive(Debug)]
pub(super) struct Rate {
    since: Instant,
    bytes: u64,
    samples: u32,
    smoothed: Option<f64>,
    /// Seconds that a pack takes, smoothed.
    pack: Option<f64>,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, samples: 0, smoothed: None, pack: None }
    }

    /// Bytes begin to flow again.
    pub(super) fn resume(&mut self, now: Instant) {
        self.samples = 0;
        self.restart(now);
    }

    fn restart(&mut self, now: Instant) {
        self.since = now;
        self.bytes = 0;
    }

    pub(super) fn add(&mut self, bytes: u64, now: Instant) {
        self.bytes = self.bytes.saturating_add(bytes);
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < SAMPLE && self.smoothed.is_some() {
            return;
        }
        let sample = self.bytes as f64 / elapsed.max(Duration::from_millis(1)).as_secs_f64();
        self.smoothed = Some(mixed(self.smoothed, sample));
        self.samples = self.samples.saturating_add(1);
        self.restart(now);
    }

    /// A pack took so long, or was given up after so long.
    pub(super) fn pack_took(&mut self, took: Duration) {
        self.pack = Some(mixed(self.pack, took.as_secs_f64()));
    }

    /// Bytes per second.
    pub(super) fn smoothed(&self) -> Option<f64> {
        self.smoothed
    }

    /// Bytes per second, if there are enough samples of what flows now to throw something away because of them.
    pub(super) fn believed(&self) -> Option<f64> {
        self.smoothed.filter(|_| self.samples >= BELIEVED)
    }

    /// How long a pack takes at present.
    pub(super) fn pack(&self) -> Option<Duration> {
        self.pack.map(Duration::from_secs_f64)
    }
}

fn mixed(before: Option<f64>, sample: f64) -> f64 {
    before.map_or(sample, |before| NEWEST * sample + (1.0 - NEWEST) * before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_what_is_acknowledged_and_forgets_idle_time() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let mut now = start;
        for _ in 0..40 {
            now += Duration::from_millis(250);
            rate.add(250_000, now);
        }
        let steady = rate.smoothed().unwrap();
        assert!((steady - 1_000_000.0).abs() < 1.0, "{steady}");
        assert!(rate.believed().is_some());
        now += Duration::from_secs(60);
        rate.resume(now);
        rate.add(250_000, now + Duration::from_millis(250));
        assert!((rate.smoothed().unwrap() - steady).abs() < 1.0);
        assert_eq!(rate.believed(), None, "one sample after a pause is not enough to drop work by");
    }
}
