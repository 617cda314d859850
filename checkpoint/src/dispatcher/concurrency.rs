//! How many transfers at once: by trying, within a bound.
//!
//! One more quarter of the slots is tried; if the bytes that arrive per second grow by a twentieth it stays and the next is
//! tried, otherwise it is taken back and left alone for a while. A store that asks for fewer requests (503 SlowDown)
//! halves them at once: S3 scales a prefix gradually, which takes longer than a notice
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html>).

use std::time::Duration;

use tokio::time::Instant;

/// Slots at the start, if the bound allows them: a connection to S3 carries about 50 MB/s (the 0.4 Gbit/s that AWS's own
/// client plans with: <https://github.com/awslabs/aws-c-s3/blob/main/source/s3_client.c>).
const START: usize = 8;
/// A measurement lasts at least so long, and until each slot has moved a pack.
const WINDOW: Duration = Duration::from_millis(500);
/// What a trial must bring.
const GAIN: f64 = 1.05;
/// Measurements without a trial after one that brought nothing.
const REST: u32 = 12;
/// The same after the store asked for fewer requests.
const REST_THROTTLED: u32 = 40;
/// One burst of refusals halves once.
const CALM: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Concurrency {
    limit: usize,
    most: usize,
    window: Instant,
    bytes: u64,
    packs: usize,
    /// The limit and the bytes per second before the trial that is under way.
    trial: Option<(usize, f64)>,
    rest: u32,
    halved: Option<Instant>,
}

impl Concurrency {
    pub(super) fn new(most: usize, now: Instant) -> Self {
        let most = most.max(1);
        let limit = most.min(START);
        Self { limit, most, window: now, bytes: 0, packs: 0, trial: None, rest: 0, halved: None }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Bytes arrived. Only while every slot was `busy` does their number say anything about the slots.
    pub(super) fn acknowledged(&mut self, bytes: u64, busy: bool, now: Instant) {
        if !busy {
            self.restart(now);
            return;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.packs += 1;
        let elapsed = now.saturating_duration_since(self.window);
        if elapsed < WINDOW || self.packs < self.limit {
            return;
        }
        let rate = self.bytes as f64 / elapsed.as_secs_f64();
        match self.trial.take() {
            Some((_, before)) if rate >= before * GAIN => self.try_more(rate),
            Some((limit, _)) => {
                self.limit = limit;
                self.rest = REST;
            }
            None if self.rest > 0 => self.rest -= 1,
            None => self.try_more(rate),
        }
        self.restart(now);
    }

    /// The store asks for fewer requests.
    pub(super) fn throttled(&mut self, now: Instant) {
        if self.halved.is_some_and(|before| now.saturating_duration_since(before) < CALM) {
            return;
        }
        self.halved = Some(now);
        self.limit = (self.limit / 2).max(1);
        self.trial = None;
        self.rest = REST_THROTTLED;
        self.restart(now);
    }

    fn try_more(&mut self, rate: f64) {
        if self.limit < self.most {
            self.trial = Some((self.limit, rate));
            self.limit = (self.limit + (self.limit / 4).max(1)).min(self.most);
        }
    }

    fn restart(&mut self, now: Instant) {
        self.window = now;
        self.bytes = 0;
        self.packs = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link on which each slot carries `per_slot` bytes per second, up to `whole` together.
    fn after(
        seconds: u64,
        concurrency: &mut Concurrency,
        start: Instant,
        per_slot: u64,
        whole: u64,
    ) -> Instant {
        let mut now = start;
        let end = start + Duration::from_secs(seconds);
        while now < end {
            let rate = (per_slot * concurrency.limit() as u64).min(whole);
            let pack = 8 << 20;
            now += Duration::from_secs_f64(pack as f64 / rate as f64);
            concurrency.acknowledged(pack, true, now);
        }
        now
    }

    #[test]
    fn slots_grow_until_the_link_is_full_and_no_further() {
        let start = Instant::now();
        let mut concurrency = Concurrency::new(256, start);
        after(60, &mut concurrency, start, 50 << 20, 2000 << 20);
        // 40 slots fill it; the last trial may still be under way.
        assert!((32..=60).contains(&concurrency.limit()), "{}", concurrency.limit());
    }

    #[test]
    fn the_bound_holds_and_a_full_link_adds_nothing() {
        let start = Instant::now();
        let mut bounded = Concurrency::new(10, start);
        after(60, &mut bounded, start, 50 << 20, u64::MAX);
        assert_eq!(bounded.limit(), 10);
        let mut full = Concurrency::new(64, start);
        after(60, &mut full, start, 50 << 20, 100 << 20);
        assert!(full.limit() <= 10, "{}", full.limit());
    }

    #[test]
    fn a_burst_of_refusals_halves_once_and_the_next_burst_again() {
        let start = Instant::now();
        let mut concurrency = Concurrency::new(8, start);
        for _ in 0..5 {
            concurrency.throttled(start);
        }
        assert_eq!(concurrency.limit(), 4);
        for second in 1..6 {
            concurrency.throttled(start + Duration::from_secs(second));
        }
        assert_eq!(concurrency.limit(), 1);
        after(300, &mut concurrency, start + Duration::from_secs(10), 50 << 20, u64::MAX);
        assert_eq!(concurrency.limit(), 8, "it comes back when the store allows it");
    }

    #[test]
    fn what_moves_while_slots_are_idle_says_nothing() {
        let start = Instant::now();
        let mut concurrency = Concurrency::new(64, start);
        for second in 1..100 {
            concurrency.acknowledged(1 << 30, false, start + Duration::from_secs(second));
        }
        assert_eq!(concurrency.limit(), START);
    }
}
