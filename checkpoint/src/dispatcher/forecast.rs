//! What fits: which transfers will be over by their cut-offs, at the rate that is measured.
//!
//! In the order in which they are served each takes its time on the link. One that would not be over by its cut-off does not
//! fit, and takes none: it would only keep the link from what does. So what cannot fit even alone goes first, then
//! whatever stands behind too much, and a small state of a lower tier is not lost to a large one that is lost anyway.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes that are to be moved by a moment. Several are given in the order in which they are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// How many.
    pub bytes: u64,
    /// When they must be over.
    pub cut_off: Instant,
}

/// Whether a piece of work fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It will be over at this moment.
    By(Instant),
    /// It needs this much time once it is its turn, and has less.
    Not {
        /// What it needs alone.
        needs: Duration,
        /// What it has, after those before it.
        has: Duration,
    },
}

/// Says of each piece of `work`, in the order in which they are served, whether it fits at `rate` bytes per second.
#[must_use]
pub fn fits(rate: f64, now: Instant, work: &[Work]) -> Vec<Fit> {
    let mut free = now;
    let one = |work: &Work| {
        let needs = Duration::try_from_secs_f64(work.bytes as f64 / rate).unwrap_or(Duration::MAX);
        let has = work.cut_off.saturating_duration_since(free);
        match free.checked_add(needs) {
            Some(done) if needs <= has => {
                free = done;
                Fit::By(done)
            }
            _ => Fit::Not { needs, has },
        }
    };
    work.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(work: &[(u64, u64)]) -> Vec<bool> {
        let now = Instant::now();
        let work: Vec<_> = work
            .iter()
            .map(|(bytes, seconds)| Work { bytes: *bytes, cut_off: now + Duration::from_secs(*seconds) })
            .collect();
        fits(100.0, now, &work).iter().map(|fit| matches!(fit, Fit::By(_))).collect()
    }

    #[test]
    fn what_cannot_fit_alone_takes_no_time_from_what_does() {
        assert_eq!(verdicts(&[(10_000, 20), (1000, 20), (500, 20)]), [false, true, true]);
    }

    #[test]
    fn what_stands_behind_too_much_does_not_fit_and_a_smaller_one_behind_it_does() {
        assert_eq!(verdicts(&[(1500, 20), (1000, 20), (400, 20)]), [true, false, true]);
        assert_eq!(verdicts(&[(2000, 20), (1, 20)]), [true, false]);
    }

    #[test]
    fn more_time_or_a_faster_link_never_loses_what_comes_first() {
        let now = Instant::now();
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let work: Vec<_> = (0..random.usize(1..12))
                .map(|_| Work {
                    bytes: random.u64(0..5000),
                    cut_off: now + Duration::from_secs(random.u64(0..60)),
                })
                .collect();
            let later: Vec<_> = work
                .iter()
                .map(|work| Work { cut_off: work.cut_off + Duration::from_secs(9), ..*work })
                .collect();
            let kept = |rate, work: &[Work]| -> Vec<bool> {
                fits(rate, now, work).iter().map(|fit| matches!(fit, Fit::By(_))).collect()
            };
            // Lexicographic: the first that differs is kept where there is more.
            assert!(kept(200.0, &work) >= kept(100.0, &work), "seed {seed}");
            assert!(kept(100.0, &later) >= kept(100.0, &work), "seed {seed}");
        }
    }

    #[test]
    fn no_rate_and_no_time_are_no_panic() {
        let now = Instant::now();
        let work = [Work { bytes: u64::MAX, cut_off: now }, Work { bytes: 0, cut_off: now }];
        assert_eq!(fits(0.0, now, &work)[0], Fit::Not { needs: Duration::MAX, has: Duration::ZERO });
        assert!(matches!(fits(1.0, now, &work)[1], Fit::By(_)));
    }
}
