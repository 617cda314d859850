//! Who may move a pack next: slots, handed out by rank.
//!
//! ```text
//!   save of pod A (rank 0) ─┐                ┌─ slot 1 ─► PUT
//!   save of pod B (rank 5) ─┼─► the waiting ─┼─ slot 2 ─► PUT
//!   pre-copy of pod C      ─┘   in order     └─ slot N ─► PUT
//! ```
//!
//! A slot is one pack long, well under a second, so the front takes over at once without anything being cancelled.
//! Within a class the lower rank goes first, then whoever came first. Pre-copy has at most one slot, and none while a
//! drain waits. The slots also bound memory: a pack is filled only by who holds one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// How long bytes are counted before they become one sample of the rate.
const SAMPLE: Duration = Duration::from_millis(200);
/// The weight of the newest sample.
const NEWEST: f64 = 0.3;

/// What a transfer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Against a deadline.
    Drain,
    /// Ahead of time, while the engine serves.
    PreCopy,
}

/// Hands out slots. Clones share them.
#[derive(Debug, Clone)]
pub struct Dispatcher(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    slots: usize,
    busy: usize,
    pre_copy_busy: usize,
    arrivals: u64,
    waiting: BTreeMap<(Class, u64, u64), oneshot::Sender<Permit>>,
    rate: Rate,
}

/// A slot. Dropping it hands it to the next.
#[derive(Debug)]
pub struct Permit {
    class: Class,
    dispatcher: Dispatcher,
}

/// A place in the queue. Dropping it gives it up, with the slot if it has one already.
#[derive(Debug)]
pub struct Place {
    class: Class,
    rank: u64,
    dispatcher: Dispatcher,
    granted: oneshot::Receiver<Permit>,
}

impl Place {
    /// Waits until it is its turn.
    pub async fn granted(self) -> Permit {
        let Place { class, rank, dispatcher, mut granted } = self;
        loop {
            // The sender lives until it is served, so this cannot fail; were it to, the place is taken anew.
            match (&mut granted).await {
                Ok(permit) => return permit,
                Err(_) => granted = dispatcher.queue(class, rank).granted,
            }
        }
    }
}

impl Dispatcher {
    /// `slots` transfers at once, at least one.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            slots: slots.max(1),
            busy: 0,
            pre_copy_busy: 0,
            arrivals: 0,
            waiting: BTreeMap::new(),
            rate: Rate::new(Instant::now()),
        })))
    }

    /// How many transfers may run at once.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.state().slots
    }

    /// Changes the number of slots, at least one. Transfers that run go on.
    pub fn set_slots(&self, slots: usize) {
        self.state().slots = slots.max(1);
        self.serve();
    }

    /// Waits for a slot: the lowest `rank` first, then the first to come. Giving up waiting is safe.
    pub async fn acquire(&self, class: Class, rank: u64) -> Permit {
        self.queue(class, rank).granted().await
    }

    /// Takes a place in the queue for a slot that will be needed soon. While a save fills a pack its next place is
    /// taken already: otherwise a slot that becomes free in that moment would go to a lower rank, and its transfer then
    /// shares the link with those of the front.
    #[must_use]
    pub fn queue(&self, class: Class, rank: u64) -> Place {
        let (sender, granted) = oneshot::channel();
        {
            let mut state = self.state();
            state.arrivals += 1;
            let place = (class, rank, state.arrivals);
            state.waiting.insert(place, sender);
        }
        self.serve();
        Place { class, rank, dispatcher: self.clone(), granted }
    }

    /// Counts bytes that the store has acknowledged.
    pub fn acknowledged(&self, bytes: u64) {
        self.state().rate.add(bytes, Instant::now());
    }

    /// Bytes per second that were acknowledged lately, while anything was under way; `None` before the first.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        self.state().rate.smoothed
    }

    /// Gives free slots to those in front.
    fn serve(&self) {
        loop {
            let (sender, permit) = {
                let mut state = self.state();
                // Those who gave up are not in front.
                state.waiting.retain(|_, sender| !sender.is_closed());
                let Some((&place, _)) = state.waiting.first_key_value() else { return };
                let class = place.0;
                if state.busy >= state.slots || (class == Class::PreCopy && state.pre_copy_busy > 0) {
                    return;
                }
                let Some(sender) = state.waiting.remove(&place) else { return };
                if state.busy == 0 {
                    state.rate.resume(Instant::now());
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Acknowledged bytes per second, smoothed. Idle time does not count.
#[derive(Debug)]
struct Rate {
    since: Instant,
    bytes: u64,
    smoothed: Option<f64>,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, smoothed: None }
    }

    fn resume(&mut self, now: Instant) {
        self.since = now;
        self.bytes = 0;
    }

    fn add(&mut self, bytes: u64, now: Instant) {
        self.bytes = self.bytes.saturating_add(bytes);
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < SAMPLE && self.smoothed.is_some() {
            return;
        }
        let sample = self.bytes as f64 / elapsed.max(Duration::from_millis(1)).as_secs_f64();
        self.smoothed =
            Some(self.smoothed.map_or(sample, |before| NEWEST * sample + (1.0 - NEWEST) * before));
        self.resume(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn settled() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// Lets each waiter note its name when it is served and pass the slot on.
    async fn order_of(dispatcher: &Dispatcher, waiters: &[(&'static str, Class, u64)]) -> Vec<&'static str> {
        let held = dispatcher.acquire(Class::Drain, 0).await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for &(name, class, rank) in waiters {
            let (dispatcher, served) = (dispatcher.clone(), served.clone());
            tasks.push(tokio::spawn(async move {
                let _permit = dispatcher.acquire(class, rank).await;
                served.lock().unwrap().push(name);
            }));
            settled().await;
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        Arc::into_inner(served).unwrap().into_inner().unwrap()
    }

    #[tokio::test]
    async fn who_fills_a_pack_has_its_next_place_already_and_giving_it_up_serves_the_next() {
        let dispatcher = Dispatcher::new(1);
        let filling = dispatcher.acquire(Class::Drain, 0).await;
        let lower = tokio::spawn({
            let dispatcher = dispatcher.clone();
            async move { dispatcher.acquire(Class::Drain, 1).await }
        });
        settled().await;
        let ahead = dispatcher.queue(Class::Drain, 0);
        drop(filling);
        let next = ahead.granted().await;
        assert!(!lower.is_finished(), "it came first, and counts less");
        // The last pack: the place for another is given up, although the slot was granted already.
        let more = dispatcher.queue(Class::Drain, 0);
        drop(next);
        settled().await;
        assert!(!lower.is_finished());
        drop(more);
        lower.await.unwrap();
    }

    #[tokio::test]
    async fn the_waiting_are_served_by_rank_then_arrival_and_pre_copy_yields() {
        let waiters = [
            ("pre-copy", Class::PreCopy, 0),
            ("late", Class::Drain, 9),
            ("first", Class::Drain, 1),
            ("second", Class::Drain, 1),
        ];
        assert_eq!(order_of(&Dispatcher::new(1), &waiters).await, ["first", "second", "late", "pre-copy"]);
    }

    #[tokio::test]
    async fn pre_copy_never_has_more_than_one_slot() {
        let dispatcher = Dispatcher::new(4);
        let first = dispatcher.acquire(Class::PreCopy, 0).await;
        let waiting = tokio::spawn({
            let dispatcher = dispatcher.clone();
            async move { dispatcher.acquire(Class::PreCopy, 0).await }
        });
        settled().await;
        assert!(!waiting.is_finished());
        let _drain = dispatcher.acquire(Class::Drain, 7).await;
        drop(first);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn who_gives_up_waiting_takes_no_slot_with_him() {
        let dispatcher = Dispatcher::new(1);
        let held = dispatcher.acquire(Class::Drain, 0).await;
        let gone = tokio::spawn({
            let dispatcher = dispatcher.clone();
            async move { dispatcher.acquire(Class::Drain, 0).await }
        });
        settled().await;
        gone.abort();
        let _ = gone.await;
        drop(held);
        tokio::time::timeout(Duration::from_secs(5), dispatcher.acquire(Class::Drain, 9)).await.unwrap();
        assert_eq!(dispatcher.state().busy, 0);
    }

    #[test]
    fn the_rate_follows_what_is_acknowledged_and_forgets_idle_time() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let mut now = start;
        for _ in 0..40 {
            now += Duration::from_millis(250);
            rate.add(250_000, now);
        }
        let steady = rate.smoothed.unwrap();
        assert!((steady - 1_000_000.0).abs() < 1.0, "{steady}");
        now += Duration::from_secs(60);
        rate.resume(now);
        rate.add(250_000, now + Duration::from_millis(250));
        assert!((rate.smoothed.unwrap() - steady).abs() < 1.0);
    }
}
