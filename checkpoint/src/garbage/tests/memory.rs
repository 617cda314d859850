//! A store in memory whose clock the test moves, which interleaves whoever uses it, and which is as unhelpful as S3: times are
//! whole seconds, and the same bytes have the same version.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::{
    hash::ContentHash,
    store::{Body, ByteStream, Condition, Listed, Object, ObjectStore, Removal, StoreError, Version},
};

#[derive(Debug)]
pub(super) struct Memory(Mutex<State>);

#[derive(Debug)]
struct State {
    objects: BTreeMap<String, (Bytes, Timestamp)>,
    now: Timestamp,
    random: fastrand::Rng,
}

impl Memory {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let now = "2026-11-22T10:00:00.7Z".parse().unwrap();
        Arc::new(Self(Mutex::new(State {
            objects: BTreeMap::new(),
            now,
            random: fastrand::Rng::with_seed(seed),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.state().now
    }

    pub(super) fn advance(&self, by: Duration) {
        let mut state = self.state();
        state.now += by;
    }

    pub(super) fn since(&self, then: Timestamp) -> Duration {
        self.now().duration_since(then).try_into().unwrap_or_default()
    }

    pub(super) fn keys(&self, part: &str) -> Vec<String> {
        self.state().objects.keys().filter(|key| key.contains(part)).cloned().collect()
    }

    pub(super) fn bytes(&self, key: &str) -> Option<Bytes> {
        self.state().objects.get(key).map(|(bytes, _)| bytes.clone())
    }

    pub(super) fn damage(&self, key: &str, bytes: &'static [u8]) {
        self.state().objects.get_mut(key).unwrap().0 = Bytes::from_static(bytes);
    }
}

/// What becomes of the `n`-th operation and all after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    Never,
    /// It is not carried out.
    Before(usize),
    /// It is, and nobody hears of it.
    After(usize),
}

/// Stops one user at one operation until it is let go.
#[derive(Debug)]
pub(super) struct Stall {
    pub(super) at: usize,
    pub(super) reached: Semaphore,
    pub(super) go: Semaphore,
    pub(super) what: Mutex<String>,
}

/// One user's way into the memory.
pub(super) struct User {
    memory: Arc<Memory>,
    crash: Crash,
    stall: Option<Arc<Stall>>,
    operations: AtomicUsize,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("User")
    }
}

impl User {
    pub(super) fn new(memory: &Arc<Memory>, crash: Crash) -> Arc<Self> {
        Arc::new(Self { memory: memory.clone(), crash, stall: None, operations: AtomicUsize::new(0) })
    }

    pub(super) fn stalled(memory: &Arc<Memory>, at: usize) -> (Arc<Self>, Arc<Stall>) {
        let stall = Stall { at, reached: Semaphore::new(0), go: Semaphore::new(0), what: Mutex::default() };
        let stall = Arc::new(stall);
        let user = Self {
            memory: memory.clone(),
            crash: Crash::Never,
            stall: Some(stall.clone()),
            operations: AtomicUsize::new(0),
        };
        (Arc::new(user), stall)
    }

    pub(super) fn operations(&self) -> usize {
        self.operations.load(Relaxed)
    }

    async fn operation<T>(
        &self,
        what: &str,
        work: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let turns = {
            let mut state = self.memory.state();
            let pause = Duration::from_millis(state.random.u64(0..700));
            state.now += pause;
            state.random.u8(0..4)
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        let n = self.operations.fetch_add(1, Relaxed) + 1;
        if let Some(stall) = self.stall.as_ref().filter(|stall| stall.at == n) {
            *stall.what.lock().unwrap() = what.to_owned();
            stall.reached.add_permits(1);
            let _ = stall.go.acquire().await.unwrap();
        }
        let dead = || StoreError::permanent("this process has crashed");
        match self.crash {
            Crash::Before(at) if n >= at => return Err(dead()),
            Crash::After(at) if n > at => return Err(dead()),
            _ => {}
        }
        let done = work(&mut self.memory.state());
        if self.crash == Crash::After(n) { Err(dead()) } else { done }
    }
}

fn version(bytes: &[u8]) -> Version {
    Version(ContentHash::of(bytes).to_string())
}

fn second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap()
}

#[async_trait]
impl ObjectStore for User {
    async fn put(&self, key: &str, body: Body, condition: Condition) -> Result<Version, StoreError> {
        self.operation(&format!("PUT {key}"), |state| {
            let present = state.objects.get(key).map(|(bytes, _)| version(bytes));
            let holds = match &condition {
                Condition::Always => true,
                Condition::IfAbsent => present.is_none(),
                Condition::IfMatch(expected) => present.as_ref() == Some(expected),
            };
            if !holds {
                return Err(StoreError::ConditionFailed { key: key.to_owned() });
            }
            let now = second(state.now);
            state.objects.insert(key.to_owned(), (body.bytes().clone(), now));
            Ok(version(body.bytes()))
        })
        .await
    }

    async fn get(&self, key: &str, _at_most: u64) -> Result<Object, StoreError> {
        self.operation(&format!("GET {key}"), |state| {
            let missing = StoreError::NotFound { key: key.to_owned() };
            let (bytes, modified) = state.objects.get(key).cloned().ok_or(missing)?;
            Ok(Object { version: version(&bytes), bytes, modified, store_now: second(state.now) })
        })
        .await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let bytes = self.get(key, u64::MAX).await?.bytes;
        let bytes = bytes.slice(range.start as usize..(range.end as usize).min(bytes.len()));
        Ok(stream::iter([Ok(bytes)]).boxed())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.operation(&format!("LIST {prefix}"), |state| {
            let found = state.objects.iter().filter(|(key, _)| key.starts_with(prefix));
            let listed = found.map(|(key, (bytes, modified))| Listed {
                key: key.clone(),
                size: bytes.len() as u64,
                version: version(bytes),
                modified: *modified,
            });
            Ok(listed.collect())
        })
        .await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.operation("the clock", |state| Ok(second(state.now))).await
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

#[async_trait]
impl Removal for User {
    async fn delete(&self, key: &str, expected: &Version) -> Result<(), StoreError> {
        self.operation(&format!("DELETE {key}"), |state| {
            match state.objects.get(key).map(|(bytes, _)| version(bytes)) {
                Some(present) if present != *expected => {
                    Err(StoreError::ConditionFailed { key: key.to_owned() })
                }
                _ => {
                    state.objects.remove(key);
                    Ok(())
                }
            }
        })
        .await
    }
}
