//! Faults around a store, on purpose: for drills and tests.
//!
//! A [`FaultPlan`] is text, so that one plan drives a test, a drill and a bug report:
//!
//! ```text
//! put=503*3                the first three puts are answered with 503 SlowDown
//! put:pack=torn#1          the first pack is stored with half of its bytes, and success is reported
//! put:gen=lost#1           the first commit is stored, and its answer is lost
//! *=slow:2MiB/s            all bodies share 2 MiB/s
//! *=gone@5s+10s            nothing works from second 5, for ten seconds
//! get:manifest=503@3+2     the 3rd and 4th read of a manifest fail
//! ```

mod plan;

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::time::Instant;

pub use self::plan::{FAULTS, FaultPlan, PlanError};
use self::plan::{Fault, Operation, Rule};
use super::{
    Body, ByteStream, Condition, Listed, Object, ObjectStore, Removal, StoreError, Version, collect,
};

/// A store with faults around it. Time counts from its creation. It can remove what the store in it can remove.
#[derive(Debug)]
pub struct FaultyStore<S: ?Sized = dyn ObjectStore> {
    inner: Arc<S>,
    began: Instant,
    armed: Vec<Armed>,
}

/// A rule and what became of it.
#[derive(Debug)]
struct Armed {
    rule: Rule,
    matched: AtomicU64,
    struck: AtomicU64,
    /// When the capped line is free again.
    line_free: Mutex<Instant>,
}

/// What the rules say about one operation.
#[derive(Debug, Default)]
struct Verdict {
    refused: Option<StoreError>,
    torn: bool,
    flipped: bool,
    lost: bool,
    unconditional: bool,
}

impl<S: ObjectStore + ?Sized> FaultyStore<S> {
    /// Puts `plan` around `inner`.
    #[must_use]
    pub fn new(inner: Arc<S>, plan: FaultPlan) -> Self {
        let began = Instant::now();
        let armed = plan.into_rules().map(|rule| Armed {
            rule,
            matched: AtomicU64::new(0),
            struck: AtomicU64::new(0),
            line_free: Mutex::new(began),
        });
        Self { began, armed: armed.collect(), inner }
    }

    /// How often each rule struck, in the order of the plan: a fault that never struck proves nothing.
    #[must_use]
    pub fn struck(&self) -> Vec<(String, u64)> {
        self.armed
            .iter()
            .map(|armed| (armed.rule.text.clone(), armed.struck.load(Ordering::Relaxed)))
            .collect()
    }

    /// Waits where the plan is slow and says what else it does. `bytes` is the size of the body, as far as it is known.
    async fn strike(&self, operation: Operation, key: &str, bytes: u64) -> Verdict {
        let mut verdict = Verdict::default();
        for armed in &self.armed {
            if !armed.rule.concerns(operation, key) {
                continue;
            }
            let nth = armed.matched.fetch_add(1, Ordering::Relaxed) + 1;
            if !armed.rule.when.holds(nth, self.began.elapsed()) {
                continue;
            }
            armed.struck.fetch_add(1, Ordering::Relaxed);
            match &armed.rule.fault {
                Fault::Delay(pause) => tokio::time::sleep(*pause).await,
                Fault::Rate(per_second) => {
                    let until = armed.occupy(bytes, *per_second);
                    tokio::time::sleep_until(until).await;
                }
                Fault::Unavailable => {
                    let message = "503 SlowDown (injected)".to_owned();
                    verdict.refused = Some(StoreError::Throttled { message });
                }
                Fault::Gone => {
                    verdict.refused = Some(StoreError::unreachable("connection refused (injected)"));
                }
                Fault::Denied => {
                    let message = "403 AccessDenied (injected)".to_owned();
                    verdict.refused = Some(StoreError::Denied { key: key.to_owned(), message });
                }
                Fault::Hang => tokio::time::sleep(Duration::from_secs(86_400)).await,
                Fault::Torn => verdict.torn = true,
                Fault::Flip => verdict.flipped = true,
                Fault::Lost => verdict.lost = true,
                Fault::Unconditional => verdict.unconditional = true,
            }
        }
        verdict
    }
}

impl Armed {
    /// Takes the line for `bytes`; returns when they are through.
    fn occupy(&self, bytes: u64, per_second: u64) -> Instant {
        let mut free = self.line_free.lock().unwrap_or_else(PoisonError::into_inner);
        let through = (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / per_second as f64);
        *free = through;
        through
    }
}

impl Verdict {
    fn damage(&self, body: Bytes) -> Bytes {
        let mut body = if self.torn { body.slice(..body.len() / 2) } else { body };
        if self.flipped && !body.is_empty() {
            let mut flipped = body.to_vec();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 1;
            body = flipped.into();
        }
        body
    }

    fn answer<T>(self, key: &str, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if self.lost && answer.is_ok() {
            return Err(StoreError::transient(format!(
                "{key}: connection reset before the answer (injected)"
            )));
        }
        answer
    }
}

#[async_trait]
impl<S: ObjectStore + ?Sized> ObjectStore for FaultyStore<S> {
    async fn put(&self, key: &str, body: Body, condition: Condition) -> Result<Version, StoreError> {
        let mut verdict = self.strike(Operation::Put, key, body.bytes.len() as u64).await;
        if let Some(refused) = verdict.refused.take() {
            return Err(refused);
        }
        let condition = if verdict.unconditional { Condition::Always } else { condition };
        let answer = self.inner.put(key, verdict.damage(body.bytes).into(), condition).await;
        verdict.answer(key, answer)
    }

    async fn get(&self, key: &str, at_most: u64) -> Result<Object, StoreError> {
        let mut verdict = self.strike(Operation::Get, key, 0).await;
        if let Some(refused) = verdict.refused.take() {
            return Err(refused);
        }
        let answer = self.inner.get(key, at_most).await;
        let answer = answer.map(|object| Object { bytes: verdict.damage(object.bytes), ..object });
        verdict.answer(key, answer)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let len = range.end.saturating_sub(range.start);
        let mut verdict = self.strike(Operation::Range, key, len).await;
        if let Some(refused) = verdict.refused.take() {
            return Err(refused);
        }
        let frames = self.inner.get_range(key, range).await?;
        if !(verdict.torn || verdict.flipped || verdict.lost) {
            return Ok(frames);
        }
        let bytes = verdict.damage(collect(frames, len, key).await?);
        // A connection that breaks breaks in the middle of the body.
        let half = bytes.slice(..bytes.len() / 2);
        let frames = match verdict.answer(key, Ok(bytes)) {
            Ok(bytes) => vec![Ok(bytes)],
            Err(lost) => vec![Ok(half), Err(lost)],
        };
        Ok(stream::iter(frames).boxed())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let mut verdict = self.strike(Operation::List, prefix, 0).await;
        if let Some(refused) = verdict.refused.take() {
            return Err(refused);
        }
        let answer = self.inner.list(prefix).await;
        verdict.answer(prefix, answer)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let mut verdict = self.strike(Operation::List, "", 0).await;
        if let Some(refused) = verdict.refused.take() {
            return Err(refused);
        }
        let answer = self.inner.now().await;
        verdict.answer("the clock", answer)
    }

    fn describe(&self) -> String {
        let rules: Vec<_> = self.armed.iter().map(|armed| armed.rule.text.as_str()).collect();
        format!("{} with faults {}", self.inner.describe(), rules.join(","))
    }
}

#[async_trait]
impl<S: Removal + ?Sized> Removal for FaultyStore<S> {
    async fn delete(&self, key: &str, version: &Version) -> Result<(), StoreError> {
        let mut verdict = self.strike(Operation::Delete, key, 0).await;
        if let Some(refused) = verdict.refused.take() {
            return Err(refused);
        }
        let listed = if verdict.unconditional { self.inner.list(key).await? } else { Vec::new() };
        let present = listed.into_iter().find(|object| object.key == key).map(|object| object.version);
        let answer = self.inner.delete(key, present.as_ref().unwrap_or(version)).await;
        verdict.answer(key, answer)
    }
}

#[cfg(test)]
mod tests;
