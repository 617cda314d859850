//! A board in memory, whose clock is moved by hand.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use async_trait::async_trait;

use super::*;

#[derive(Debug, Default)]
pub(super) struct MemoryBoard(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Document, version, and when it was written.
    claims: BTreeMap<String, (Bytes, u64, Duration)>,
    now: Duration,
    version: u64,
    writes: u32,
    /// Which writes are carried out and not answered.
    to_lose: Vec<u32>,
    lost: usize,
}

impl MemoryBoard {
    pub(super) fn pass(&self, time: Duration) {
        self.inner().now += time;
    }

    pub(super) fn lose_answers(&self, writes: &[u32]) {
        self.inner().to_lose = writes.to_vec();
    }

    pub(super) fn lost(&self) -> usize {
        self.inner().lost
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

#[async_trait]
impl ClaimBoard for MemoryBoard {
    async fn read(&self, key: &str, _deadline: Instant) -> Result<Posted, StoreError> {
        // Where a real place would be waited for, others get their turn.
        tokio::task::yield_now().await;
        let inner = self.inner();
        let (bytes, version, written) =
            inner.claims.get(key).cloned().ok_or_else(|| StoreError::NotFound { key: key.to_owned() })?;
        Ok(Posted { bytes, version: version.to_string().into(), age: inner.now - written })
    }

    async fn write(
        &self,
        posting: &Posting<'_>,
        condition: &Condition,
        _deadline: Instant,
    ) -> Result<Version, StoreError> {
        tokio::task::yield_now().await;
        let mut inner = self.inner();
        inner.writes += 1;
        let found = inner.claims.get(posting.key).map(|(_, version, _)| Version::from(version.to_string()));
        let holds = match condition {
            Condition::Always => panic!("a claim is never written in any case"),
            Condition::IfAbsent => found.is_none(),
            Condition::IfMatch(version) => found.as_ref() == Some(version),
        };
        if !holds {
            return Err(StoreError::ConditionFailed { key: posting.key.to_owned() });
        }
        inner.version += 1;
        let (version, now) = (inner.version, inner.now);
        inner.claims.insert(posting.key.to_owned(), (posting.body.clone(), version, now));
        if inner.to_lose.contains(&inner.writes) {
            inner.lost += 1;
            return Err(StoreError::transient("the answer was lost"));
        }
        Ok(version.to_string().into())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
