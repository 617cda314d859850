//! Who may move a pack next: slots, handed out by rank.
//!
//! ```text
//!   save of pod A (rank 0) ─┐                ┌─ slot 1 ─► PUT
//!   save of pod B (rank 5) ─┼─► the waiting ─┼─ slot 2 ─► PUT        as many slots as the link
//!   fetch for pod C        ─┤   in order     ├─ slot 3 ─► GET        has shown to carry
//!   pre-copy of pod D      ─┘                └─ slot N ─► PUT
//! ```
//!
//! A slot is one pack long, well under a second, so the front takes over at once without anything being cancelled.
//! Within a class the lower rank goes first, then the earlier cut-off, then whoever came first. Work that will not be over by
//! its cut-off at the measured rate is **set back** behind all that will ([`forecast`]): it takes nothing from what
//! fits, and still gets what would be idle. Pre-copy has at most one slot, none while anything else waits, and a rate
//! that it stays below. The slots also bound memory: a pack is filled only by who holds one.

mod concurrency;
pub mod forecast;
mod rank;
mod rate;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use self::{
    concurrency::Concurrency,
    forecast::{Fit, Work},
    rate::Rate,
};
use crate::{pool::Pool, retry::Patience, store::StoreError};
pub use rank::Rank;

/// How much longer than it has a work must need before it is set back: a measured rate is not a promise.
const DOUBT: f64 = 1.5;
/// An attempt at a pack is given up after so many times the time that a pack takes, but never before [`PATIENCE_MIN`].
const PATIENCE: u32 = 6;
/// The shortest that an attempt at a pack may take.
const PATIENCE_MIN: Duration = Duration::from_secs(8);

/// What a transfer is for; the first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// To the store, against a deadline.
    Drain,
    /// From the store, for a pod that waits.
    Fetch,
    /// To the store ahead of time, while the engine serves.
    PreCopy,
}

/// What the dispatcher may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most transfers at once; with the size of a pack it is the memory that saves take.
    pub slots: usize,
    /// The most bytes per second for pre-copies; `None`: what one slot carries.
    pub pre_copy_rate: Option<u64>,
}

impl Limits {
    /// `slots` transfers at once and no other limit.
    #[must_use]
    pub fn slots(slots: usize) -> Self {
        Self { slots, pre_copy_rate: None }
    }
}

/// Hands out slots. Clones share them.
#[derive(Debug, Clone)]
pub struct Dispatcher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    pool: Pool,
    pre_copy_rate: Option<u64>,
    /// Bytes that have come or gone, of all transfers.
    moved: AtomicU64,
}

#[derive(Debug)]
struct State {
    busy: usize,
    pre_copy_busy: usize,
    arrivals: u64,
    jobs: BTreeMap<u64, Enlisted>,
    /// By arrival; with the job.
    waiting: BTreeMap<u64, (u64, oneshot::Sender<Permit>)>,
    concurrency: Concurrency,
    rate: Rate,
    /// When the next pre-copied pack may begin.
    pre_copy_free: Instant,
}

/// A transfer of many packs, as the dispatcher sees it.
#[derive(Debug)]
struct Enlisted {
    class: Class,
    rank: Rank,
    work: Work,
    set_back: bool,
}

/// A transfer of many packs. Dropping it takes it off the list.
#[derive(Debug)]
pub struct Job {
    id: u64,
    class: Class,
    dispatcher: Dispatcher,
}

/// A slot. Dropping it hands it to the next.
#[derive(Debug)]
pub struct Permit {
    class: Class,
    dispatcher: Dispatcher,
}

/// A place in the queue. Dropping it gives it up, with the slot if it has one already.
#[derive(Debug)]
pub struct QueuePlace(oneshot::Receiver<Permit>);

impl QueuePlace {
    /// Waits until it is its turn; `None` if its job is gone.
    pub async fn granted(self) -> Option<Permit> {
        self.0.await.ok()
    }
}

impl Dispatcher {
    /// See [`Limits`].
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                busy: 0,
                pre_copy_busy: 0,
                arrivals: 0,
                jobs: BTreeMap::new(),
                waiting: BTreeMap::new(),
                concurrency: Concurrency::new(limits.slots, now),
                rate: Rate::new(now),
                pre_copy_free: now,
            }),
            pool: Pool::default(),
            pre_copy_rate: limits.pre_copy_rate.filter(|rate| *rate > 0),
            moved: AtomicU64::new(0),
        }))
    }

    /// The most transfers at once.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.state().concurrency.most()
    }

    /// How many transfers may run at present.
    #[must_use]
    pub fn slots_now(&self) -> usize {
        self.state().concurrency.limit()
    }

    /// Announces a transfer: the lowest `rank` of a class goes first. `work` is what is known of it.
    #[must_use]
    pub fn enlist(&self, class: Class, rank: impl Into<Rank>, work: Work) -> Job {
        let rank = rank.into();
        let mut state = self.state();
        state.arrivals += 1;
        let id = state.arrivals;
        state.jobs.insert(id, Enlisted { class, rank, work, set_back: false });
        Job { id, class, dispatcher: self.clone() }
    }

    /// Bytes per second that were acknowledged lately, while anything was under way; `None` before the first.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        self.state().rate.smoothed()
    }

    /// Bytes that all transfers have moved so far: while it grows, whoever waits for a slot waits for its turn.
    #[must_use]
    pub fn bytes_moved(&self) -> u64 {
        self.0.moved.load(Relaxed)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Gives free slots to those in front.
    fn serve(&self) {
        loop {
            let (sender, permit) = {
                let mut state = self.state();
                // Those who gave up are not in front.
                state.waiting.retain(|_, (_, sender)| !sender.is_closed());
                if state.busy >= state.concurrency.limit() {
                    return;
                }
                let now = Instant::now();
                state.set_back(now);
                let Some((arrival, class)) = state.front() else { return };
                if class == Class::PreCopy && state.pre_copy_busy > 0 {
                    return;
                }
                let Some((_, sender)) = state.waiting.remove(&arrival) else { return };
                if state.busy == 0 {
                    state.rate.resume(now);
                }
                state.busy += 1;
                state.pre_copy_busy += usize::from(class == Class::PreCopy);
                (sender, Permit { class, dispatcher: self.clone() })
            };
            // Outside the lock: a permit that nobody takes any more is dropped here, which serves the next.
            drop(sender.send(permit));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The arrival and the class of who is served next.
    fn front(&self) -> Option<(u64, Class)> {
        let place = |(arrival, (job, _)): (&u64, &(u64, _))| {
            let job = self.jobs.get(job)?;
            Some((job.order(), *arrival))
        };
        self.waiting.iter().filter_map(place).min().map(|((class, ..), arrival)| (arrival, class))
    }

    /// Decides anew who is set back.
    fn set_back(&mut self, now: Instant) {
        let Some(rate) = self.rate.believed() else {
            self.jobs.values_mut().for_each(|job| job.set_back = false);
            return;
        };
        let mut drains: Vec<_> = self.jobs.values_mut().filter(|job| job.class == Class::Drain).collect();
        drains.sort_by_key(|job| (job.rank.get(), job.work.cut_off));
        let work: Vec<_> = drains.iter().map(|job| job.work).collect();
        for (job, fit) in drains.into_iter().zip(forecast::fits(rate * DOUBT, now, &work)) {
            job.set_back = matches!(fit, Fit::Not { .. });
        }
    }
}

impl Enlisted {
    fn order(&self) -> (Class, bool, u64, Instant) {
        (self.class, self.set_back, self.rank.get(), self.work.cut_off)
    }
}

impl Job {
    /// Takes a place in the queue for a slot that will be needed soon. While a save fills a pack its next place is
    /// taken already: otherwise a slot that becomes free in that moment would go to a lower rank, and its transfer then
    /// shares the link with those of the front.
    #[must_use]
    pub fn queue(&self) -> QueuePlace {
        let (sender, granted) = oneshot::channel();
        {
            let mut state = self.dispatcher.state();
            state.arrivals += 1;
            let arrival = state.arrivals;
            state.waiting.insert(arrival, (self.id, sender));
        }
        self.dispatcher.serve();
        QueuePlace(granted)
    }

    /// Waits until a pre-copy may send its next pack without going beyond its rate. For all else that is now.
    pub async fn paced(&self) {
        let free = self.dispatcher.state().pre_copy_free;
        if self.class == Class::PreCopy {
            tokio::time::sleep_until(free).await;
        }
    }

    /// How long a pack of `bytes` will take while every slot moves one of that size; zero where no rate is known.
    #[must_use]
    pub fn pack_takes(&self, bytes: u64) -> Duration {
        let state = self.dispatcher.state();
        let Some(rate) = state.rate.smoothed().filter(|rate| *rate > 0.0) else { return Duration::ZERO };
        let at_once = bytes as f64 * state.concurrency.limit() as f64;
        Duration::try_from_secs_f64(at_once / rate).unwrap_or(Duration::MAX)
    }

    /// So many bytes of it are left to move.
    pub fn left(&self, bytes: u64) {
        if let Some(job) = self.dispatcher.state().jobs.get_mut(&self.id) {
            job.work.bytes = bytes;
        }
    }

    /// So many bytes have come from the store.
    pub(crate) fn arrived(&self, bytes: u64) {
        self.dispatcher.0.moved.fetch_add(bytes, Relaxed);
    }

    /// The store has acknowledged a pack of `bytes`, or given one, `took` after its request.
    pub fn acknowledged(&self, bytes: u64, took: Duration) {
        self.acknowledged_at(bytes, took, Instant::now());
    }

    fn acknowledged_at(&self, bytes: u64, took: Duration, now: Instant) {
        let mut state = self.dispatcher.state();
        let busy = state.busy >= state.concurrency.limit();
        state.concurrency.acknowledged(bytes, busy, now);
        if let Some(job) = state.jobs.get_mut(&self.id) {
            job.work.bytes = job.work.bytes.saturating_sub(bytes);
        }
        if self.class == Class::Fetch {
            return;
        }
        self.dispatcher.0.moved.fetch_add(bytes, Relaxed);
        // A pre-copy stays below a rate of its own: it shows nothing of what the link could carry.
        if self.class != Class::PreCopy {
            state.rate.add(bytes, now);
        }
        state.rate.pack_took(took);
        if let Some(rate) = self.dispatcher.0.pre_copy_rate.filter(|_| self.class == Class::PreCopy) {
            let began = now.checked_sub(took).unwrap_or(now).max(state.pre_copy_free);
            state.pre_copy_free = began + Duration::from_secs_f64(bytes as f64 / rate as f64);
        }
    }

    /// How long attempt number `attempt` at a pack may take, at most `longest`. Each attempt is given twice the time of
    /// the one before: a link that became slow is no reason to send the same bytes again and again.
    /// What comes from the store shows by itself that it stalls, and goes on where it stood.
    fn patience(&self, attempt: u32, longest: Duration) -> Duration {
        if self.class == Class::Fetch {
            return longest;
        }
        let pack = self.dispatcher.state().rate.pack();
        let patience = pack.map_or(longest, |pack| pack.saturating_mul(PATIENCE).max(PATIENCE_MIN));
        patience.saturating_mul(1_u32 << attempt.min(10)).min(longest)
    }

    /// Whether it stands behind what fits, because it would not be over by its cut-off.
    #[must_use]
    pub fn is_set_back(&self) -> bool {
        self.dispatcher.state().jobs.get(&self.id).is_some_and(|job| job.set_back)
    }
}

/// The patience with a job's packs: as long as packs take at present, and at most `longest`. The dispatcher learns of what is
/// given up or refused.
#[derive(Debug)]
pub struct PackPatience<'a> {
    /// Whose attempts they are.
    pub job: &'a Job,
    /// The longest, whatever was measured.
    pub longest: Duration,
}

impl Patience for PackPatience<'_> {
    fn limit(&self, attempt: u32) -> Duration {
        self.job.patience(attempt, self.longest)
    }

    fn failed(&self, failure: &StoreError, given_up_after: Option<Duration>) {
        let mut state = self.job.dispatcher.state();
        if let Some(after) = given_up_after
            && self.job.class != Class::Fetch
        {
            state.rate.pack_took(after);
        }
        if matches!(failure, StoreError::Throttled { .. }) {
            state.concurrency.throttled(Instant::now());
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let idle = {
            let mut state = self.dispatcher.state();
            state.jobs.remove(&self.id);
            let id = self.id;
            state.waiting.retain(|_, (job, _)| *job != id);
            state.jobs.is_empty()
        };
        if idle {
            self.dispatcher.pool().release();
        }
        self.dispatcher.serve();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut state = self.dispatcher.state();
            state.busy -= 1;
            state.pre_copy_busy -= usize::from(self.class == Class::PreCopy);
        }
        self.dispatcher.serve();
    }
}

#[cfg(test)]
mod tests;
