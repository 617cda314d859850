//! The best that anybody could do who knew everything before: exact for a few pods; for many the leading tiers that fit are
//! exact, and of the next one the best set is searched for, or bounded where that takes too long.
//!
//! It may flush all engines at once and change the order on the link at any moment; it keeps the same cut-offs.

use crate::draw::{Draw, Drawn};
use crate::value;

/// The optimum, as far as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Best {
    /// So many leading tiers are whole.
    pub whole: usize,
    /// The most bytes of the first tier that is not; `None` where all are.
    pub next: Option<u64>,
}

/// Sends earliest cut-off first, interrupting at will; the milliseconds that are sent by their cut-offs, and whether all
/// are. Earliest-deadline-first sends all if any order does, and most if none does.
fn send(draw: &Draw, pods: &[&Drawn]) -> (u64, bool) {
    let mut jobs: Vec<(u64, u64, u64)> =
        pods.iter().map(|pod| (draw.cutoff(pod), pod.flush, draw.needs(pod))).collect();
    jobs.sort_unstable();
    let mut releases: Vec<u64> = jobs.iter().map(|(_, release, _)| *release).collect();
    releases.sort_unstable();
    let (mut now, mut sent) = (0u64, 0u64);
    loop {
        let ready =
            jobs.iter_mut().find(|(cutoff, release, left)| *left > 0 && *release <= now && *cutoff > now);
        let next = releases.iter().copied().find(|release| *release > now).unwrap_or(u64::MAX);
        match ready {
            Some((cutoff, _, left)) => {
                let span = (*left).min(next - now).min(*cutoff - now);
                (*left, now, sent) = (*left - span, now + span, sent + span);
            }
            None if next == u64::MAX => break,
            None => now = next,
        }
    }
    (sent, jobs.iter().all(|(_, _, left)| *left == 0))
}

/// Every set of pods.
pub fn exact(draw: &Draw) -> Best {
    let all = value(draw, &vec![true; draw.pods.len()]);
    let best = (0u32..1 << draw.pods.len())
        .filter_map(|set| {
            let whole: Vec<bool> = (0..draw.pods.len()).map(|at| set >> at & 1 == 1).collect();
            let pods: Vec<&Drawn> =
                draw.pods.iter().zip(&whole).filter(|(_, whole)| **whole).map(|(pod, _)| pod).collect();
            send(draw, &pods).1.then(|| value(draw, &whole))
        })
        .max()
        .unwrap_or_default();
    let whole = best.iter().zip(&all).take_while(|(best, all)| best == all).count();
    Best { whole, next: best.get(whole).map(|(_, bytes)| *bytes) }
}

/// Sets that are tried before a bound is taken for the answer.
const TRIES: u32 = 4_000;

/// The leading tiers that fit, and the most bytes of the next one that fit behind them.
pub fn bound(draw: &Draw) -> Best {
    let mut tiers: Vec<i32> = draw.pods.iter().map(|pod| pod.priority).collect();
    tiers.sort_unstable_by_key(|priority| -priority);
    tiers.dedup();
    let upto = |count: usize| -> Vec<&Drawn> {
        draw.pods.iter().filter(|pod| tiers.iter().take(count).any(|tier| *tier == pod.priority)).collect()
    };
    let whole = (0..=tiers.len()).rev().find(|count| send(draw, &upto(*count)).1).unwrap_or(0);
    let next = tiers.get(whole).map(|tier| {
        let before = upto(whole);
        let mut candidates: Vec<&Drawn> = draw.pods.iter().filter(|pod| pod.priority == *tier).collect();
        candidates.retain(|pod| send(draw, &[before.as_slice(), &[*pod]].concat()).1);
        candidates.sort_by_key(|pod| std::cmp::Reverse(pod.bytes));
        let mut search = Search { draw, candidates, best: 0, tries: 0, bound: 0 };
        search.from(0, &before, 0);
        search.best.max(search.bound)
    });
    Best { whole, next }
}

struct Search<'a> {
    draw: &'a Draw,
    candidates: Vec<&'a Drawn>,
    best: u64,
    tries: u32,
    /// What the sets that were not tried can hold at most.
    bound: u64,
}

impl<'a> Search<'a> {
    /// Tries every set of the candidates from `at` on, behind those that are `chosen` and hold `bytes` of the tier.
    fn from(&mut self, at: usize, chosen: &[&'a Drawn], bytes: u64) {
        self.best = self.best.max(bytes);
        let rest = self.candidates.get(at..).unwrap_or_default();
        let most = bytes + rest.iter().map(|pod| pod.bytes).sum::<u64>();
        if rest.is_empty() || most <= self.best {
            return;
        }
        // Parts of states would fill the link's time: more than any set of whole ones.
        let all = [chosen, rest].concat();
        let ms = send(self.draw, &all).0.saturating_sub(send(self.draw, chosen).0) + all.len() as u64;
        let parts =
            bytes + u64::try_from(u128::from(ms) * u128::from(self.draw.link) / 1000).unwrap_or(u64::MAX);
        let most = most.min(parts);
        if most <= self.best {
            return;
        }
        self.tries += 1;
        if self.tries > TRIES {
            self.bound = self.bound.max(most);
            return;
        }
        let Some(pod) = rest.first().copied() else { return };
        let with = [chosen, &[pod]].concat();
        if send(self.draw, &with).1 {
            self.from(at + 1, &with, bytes + pod.bytes);
        }
        self.from(at + 1, chosen, bytes);
    }
}
