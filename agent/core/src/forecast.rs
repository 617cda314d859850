//! What fits: which states will be whole in the store by their cut-offs, at the rates that are measured.
//!
//! Decides what is dropped. It must not know pods, effects or how far anybody is; it is arithmetic on moments and bytes.
//!
//! ```text
//!  tier 1   flush ▒▒▒▒▒▒ send ██████████          tiers in order; each takes the link's time that those before
//!  tier 2   flush ▒▒▒         ▁▁▁▁▁▁▁▁▁▁████      it leave, earliest cut-off first within a tier
//!  tier 3   does not fit: takes none              what does not fit takes no time from what does
//! ```
//!
//! Value saved is lexicographic by tier (one PriorityClass value and one role), and within a tier it is bytes: a byte of
//! KV cache costs the same to compute again whosever it is. So a tier that fits is taken whole, and of one that does
//! not, the set with the most bytes (the knapsack problem of Lawler and Moore, "A functional equation and its
//! application to resource allocation and sequencing problems", 1969). Exact for a tier of a dozen states; for more, close.

use crate::moment::{Moment, Span};
use crate::pod::Role;
use std::cmp::Reverse;

/// How many ways to fill the time are looked at for one tier.
const WAYS: usize = 512;

/// One state that is to be flushed and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The value of its PriorityClass.
    pub priority: i32,
    /// Engines that took such a state did not use it: it stands behind all others.
    pub doubted: bool,
    /// Its pod serves to the end: within one value, it stands behind those that have a successor.
    pub serves_to_the_end: bool,
    /// Its role: active before preview and so on.
    pub role: Role,
    /// What it is worth, if it is whole: its bytes.
    pub value: u64,
    /// Bytes that have to be sent for it.
    pub send: u64,
    /// What its flush has yet to take.
    pub flush: Span,
    /// When all of it must be in the store.
    pub cutoff: Moment,
}

impl Load {
    /// States of one tier outweigh any number of those behind it.
    const fn tier(&self) -> (bool, Reverse<i32>, bool, Role) {
        (self.doubted, Reverse(self.priority), self.serves_to_the_end, self.role)
    }
}

/// What a load may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// When.
    pub now: Moment,
    /// Bytes per second of the uplink; `None` where it was never measured.
    pub link: Option<u64>,
    /// Flushes at once.
    pub flush_slots: usize,
}

/// How it stands with one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It will be in the store at this moment.
    By(Moment),
    /// It needs so much time on the link once it is its turn, and has less.
    Not {
        /// What it needs.
        needs: Span,
        /// What those before it leave until its cut-off.
        has: Span,
    },
    /// The link was never measured.
    Unknown,
}

impl Fit {
    /// It is known that it will not be whole.
    pub const fn is_dropped(self) -> bool {
        matches!(self, Fit::Not { .. })
    }
}

/// The time of the link that nobody has taken: disjoint stretches in order, the last one without end.
#[derive(Clone, Debug, Default)]
struct Free(Vec<(u64, u64)>);

impl Free {
    /// Nobody has taken anything from `now` on.
    fn clear(&mut self, now: Moment) {
        self.0.clear();
        self.0.push((now.as_millis(), u64::MAX));
    }

    /// Free time until `at`.
    fn until(&self, at: u64) -> u64 {
        self.0.iter().map(|(from, to)| at.min(*to).saturating_sub(*from)).fold(0, u64::saturating_add)
    }

    /// Takes the first `needs` of it that lies after `release`; when that is over.
    fn take(&mut self, release: u64, mut needs: u64) -> u64 {
        let mut done = release;
        let mut index = 0;
        while needs > 0
            && let Some((from, to)) = self.0.get_mut(index)
        {
            let start = (*from).max(release);
            if start >= *to {
                index += 1;
                continue;
            }
            let end = start.saturating_add(needs).min(*to);
            needs -= end - start;
            done = end;
            let before = (*from, start);
            // Perhaps nothing is left of it: an empty stretch is passed over.
            *from = end;
            if before.0 < before.1 {
                self.0.insert(index, before);
                index += 1;
            }
        }
        done
    }
}

/// A load on its way through the forecast.
#[derive(Clone, Copy, Debug)]
struct Job {
    index: usize,
    value: u64,
    /// Its flush is over.
    release: u64,
    needs: u64,
    cutoff: u64,
}

/// Says which loads fit, again and again: what it works in is kept, so that it allocates no more once it has seen a node.
#[derive(Clone, Debug, Default)]
pub struct Forecaster {
    order: Vec<usize>,
    fits: Vec<Fit>,
    free: Free,
    trial: Free,
    slots: Vec<u64>,
    busy: Vec<u64>,
    jobs: Vec<Job>,
    ways: Vec<Filling>,
    more: Vec<Filling>,
}

impl Forecaster {
    /// Says of each load whether it fits, in the order in which they were given; at the very rate that is measured. (With
    /// a tenth of doubt, what needs a little more than it has would take the link from all behind it, in vain: more time
    /// would save less.)
    pub fn forecast(&mut self, resources: Resources, loads: &[Load]) -> &[Fit] {
        self.fits.clear();
        self.fits.resize(loads.len(), Fit::Unknown);
        let Some(rate) = resources.link.filter(|rate| *rate > 0) else {
            return &self.fits;
        };
        sort(&mut self.order, loads);
        self.free.clear(resources.now);
        self.slots.clear();
        self.slots.resize(resources.flush_slots.max(1), resources.now.as_millis());
        let tiers =
            self.order.chunk_by(|a, b| loads.get(*a).map(Load::tier) == loads.get(*b).map(Load::tier));
        for tier in tiers {
            self.busy.clone_from(&self.slots);
            self.jobs.clear();
            self.jobs.extend(jobs(tier, loads, rate, &mut self.busy));
            self.trial.0.clone_from(&self.free.0);
            let chosen = if all_fit(&mut self.trial, &self.jobs) {
                None
            } else {
                Some(fill(&self.free, &self.jobs, &mut self.ways, &mut self.more))
            };
            for (position, job) in self.jobs.iter().enumerate() {
                let fit = if chosen.is_none_or(|chosen| chosen.contains(position)) {
                    Fit::By(Moment::from_millis(self.free.take(job.release, job.needs)))
                } else {
                    let has = self.free.until(job.cutoff).saturating_sub(self.free.until(job.release));
                    Fit::Not { needs: Span::from_millis(job.needs), has: Span::from_millis(has) }
                };
                if let Some(slot) = self.fits.get_mut(job.index) {
                    *slot = fit;
                }
            }
            // What is dropped flushes last: only what fits keeps the slots busy for the tiers behind it.
            let kept = (self.jobs.iter().enumerate())
                .filter(|(position, _)| chosen.is_none_or(|chosen| chosen.contains(*position)))
                .filter_map(|(_, job)| loads.get(job.index));
            for load in kept {
                flush(load, &mut self.slots);
            }
        }
        &self.fits
    }
}

/// Once; see [`Forecaster::forecast`].
pub fn forecast(resources: Resources, loads: &[Load]) -> Vec<Fit> {
    Forecaster::default().forecast(resources, loads).to_vec()
}

/// When each load would be over if none were dropped, in the order in which they were given; `None` where the link was
/// never measured.
pub fn completions(resources: Resources, loads: &[Load]) -> Option<Vec<Moment>> {
    let rate = resources.link.filter(|rate| *rate > 0)?;
    let mut order = Vec::new();
    sort(&mut order, loads);
    let mut slots = vec![resources.now.as_millis(); resources.flush_slots.max(1)];
    let mut free = Free::default();
    free.clear(resources.now);
    let mut over = vec![resources.now; loads.len()];
    for job in jobs(&order, loads, rate, &mut slots) {
        if let Some(slot) = over.get_mut(job.index) {
            *slot = Moment::from_millis(free.take(job.release, job.needs));
        }
    }
    Some(over)
}

/// The order in which loads take the link: by tier, earliest cut-off first within one.
fn sort(order: &mut Vec<usize>, loads: &[Load]) {
    order.clear();
    order.extend(0..loads.len());
    // The last part makes it one order: this sort needs no memory, and does not keep equal ones as they were.
    order.sort_unstable_by_key(|index| {
        (loads.get(*index).map(|load| (load.tier(), load.cutoff, load.send)), *index)
    });
}

/// When the flush of a load is over that takes the first free slot.
fn flush(load: &Load, slots: &mut [u64]) -> u64 {
    slots.iter_mut().min().map_or(0, |slot| {
        *slot = slot.saturating_add(load.flush.as_millis());
        *slot
    })
}

/// The loads of one tier in their order, each with the end of its flush; takes the flush slots they need.
fn jobs<'a>(
    tier: &'a [usize],
    loads: &'a [Load],
    rate: u64,
    slots: &'a mut [u64],
) -> impl Iterator<Item = Job> + 'a {
    tier.iter().filter_map(move |index| {
        let load = loads.get(*index)?;
        let release = flush(load, slots);
        let needs = u64::try_from(u128::from(load.send) * 1000 / u128::from(rate)).unwrap_or(u64::MAX);
        Some(Job { index: *index, value: load.value, release, needs, cutoff: load.cutoff.as_millis() })
    })
}

/// Which jobs of a tier, by their position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Chosen(u128);

impl Chosen {
    /// Positions beyond this are not told apart: more states of one tier than any node runs.
    const MOST: usize = 128;

    const fn contains(self, position: usize) -> bool {
        position < Self::MOST && self.0 >> position & 1 == 1
    }

    const fn with(self, position: usize) -> Self {
        if position < Self::MOST { Self(self.0 | 1 << position) } else { self }
    }
}

/// One way to fill the link's time with some of the jobs so far.
#[derive(Clone, Copy, Debug)]
struct Filling {
    /// Free time that is used up.
    used: u64,
    value: u64,
    chosen: Chosen,
}

/// All jobs of a tier are over by their cut-offs; `free` is used up for that.
fn all_fit(free: &mut Free, jobs: &[Job]) -> bool {
    jobs.iter().all(|job| free.take(job.release, job.needs) <= job.cutoff)
}

/// The jobs of a tier that are worth the most together, each over by its cut-off.
fn fill(free: &Free, jobs: &[Job], ways: &mut Vec<Filling>, more: &mut Vec<Filling>) -> Chosen {
    // Earliest cut-off first, of every set: a filling that takes longer and is worth less is never the better start.
    ways.clear();
    ways.push(Filling { used: 0, value: 0, chosen: Chosen::default() });
    for (position, job) in jobs.iter().enumerate().take(Chosen::MOST) {
        let (release, cutoff) = (free.until(job.release), free.until(job.cutoff));
        let with = |way: &Filling| Filling {
            used: way.used.max(release).saturating_add(job.needs),
            value: way.value.saturating_add(job.value),
            chosen: way.chosen.with(position),
        };
        more.extend(ways.iter().map(with).filter(|way| way.used <= cutoff));
        ways.append(more);
        prune(ways);
    }
    ways.last().map_or(Chosen::default(), |way| way.chosen)
}

/// Keeps the ways that no other one beats, in the order of their value; too many are thinned evenly.
fn prune(ways: &mut Vec<Filling>) {
    ways.sort_unstable_by_key(|way| (way.used, Reverse(way.value), way.chosen.0));
    let mut best = None;
    ways.retain(|way| {
        let better = best.is_none_or(|best| way.value > best);
        best = best.max(Some(way.value));
        better
    });
    if ways.len() > WAYS {
        let (count, mut index) = (ways.len(), 0);
        ways.retain(|_| {
            // The first and the last stay: the one that uses least and the one that is worth most.
            let keep = index * WAYS / count != (index + 1) * WAYS / count || index == 0;
            index += 1;
            keep
        });
    }
}

#[cfg(test)]
mod tests;
