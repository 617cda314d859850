//! The one place that tries again.
//!
//! The SDK is told to try once (its 500 retry tokens, 5 for each retry, are gone after one burst of 100), nothing above this
//! module loops over failures, so the number of requests a failing store sees is decided here: full jitter, at
//! most [`SPACING_MAX`] apart, and never past the deadline.

use std::{future::Future, ops::Range, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::store::{Body, Condition, ObjectStore, Removal, StoreError, Version, collect};

/// First upper bound of the wait between attempts; it doubles each time.
const BASE: Duration = Duration::from_millis(50);
/// The same when the store asks for fewer requests.
const BASE_THROTTLED: Duration = Duration::from_millis(500);
/// The longest wait between two attempts.
pub const SPACING_MAX: Duration = Duration::from_secs(1);
/// The longest a single attempt at a small request may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(8);
/// A single transfer slower than this (bytes per second) is taken for stalled and tried again.
const STALLED_RATE: u64 = 128 * 1024;

/// How long one attempt that moves `bytes` may take.
#[must_use]
pub fn attempt_limit(bytes: u64) -> Duration {
    ATTEMPT_MAX + Duration::from_secs(bytes / STALLED_RATE)
}

/// Runs `op` until it succeeds, fails for good, or `deadline` comes. `what` names it in the error.
///
/// `op` is given the number of the attempt, from 0.
///
/// # Errors
/// What `op` returned if that is not retryable; [`StoreError::TimedOut`] at the deadline.
pub async fn with_retries<T, F, Fut>(what: &str, deadline: Instant, op: F) -> Result<T, StoreError>
where
    F: FnMut(u32) -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    with_retries_of(what, deadline, &ATTEMPT_MAX, op).await
}

/// How long single attempts may take, and who learns how they failed.
pub trait Patience: Sync {
    /// The longest that the attempt of this number, from 0, may take.
    fn limit(&self, attempt: u32) -> Duration;

    /// An attempt failed; `given_up_after` if it had not ended by its limit.
    fn failed(&self, _failure: &StoreError, _given_up_after: Option<Duration>) {}
}

/// Each attempt as long as the others.
impl Patience for Duration {
    fn limit(&self, _attempt: u32) -> Duration {
        *self
    }
}

/// [`with_retries`] where single attempts have limits of their own (see [`attempt_limit`]).
///
/// # Errors
/// As [`with_retries`].
pub async fn with_retries_of<T, F, Fut>(
    what: &str,
    deadline: Instant,
    patience: &dyn Patience,
    mut op: F,
) -> Result<T, StoreError>
where
    F: FnMut(u32) -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let began = Instant::now();
    let mut last: Option<StoreError> = None;
    let mut answered = false;
    let mut attempt = 0_u32;
    loop {
        let now = Instant::now();
        if now >= deadline {
            return Err(timed_out(what, began, last, answered));
        }
        let bound = deadline.min(now + patience.limit(attempt));
        let mut given_up_after = None;
        let failure = match tokio::time::timeout_at(bound, op(attempt)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if !error.is_retryable() => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => {
                given_up_after = Some(bound - now);
                StoreError::unreachable(format!("{what}: no answer in {} ms", (bound - now).as_millis()))
            }
        };
        patience.failed(&failure, given_up_after);
        let pause = spacing(&failure, attempt);
        tracing::debug!(what, attempt, error = %failure, pause_ms = pause.as_millis(), "store request failed");
        answered |= !failure.is_silence();
        last = Some(failure);
        if Instant::now() + pause >= deadline {
            return Err(timed_out(what, began, last, answered));
        }
        tokio::time::sleep(pause).await;
        attempt = attempt.saturating_add(1);
    }
}

/// Writes under `condition` and finds out what really happened when an answer was lost.
///
/// A `put` whose answer was lost may have been carried out; its repetition then meets its own work and is told
/// that the condition failed. So before that is believed the object is read: if it holds exactly our bytes, the
/// write was ours. The bytes must therefore be unique to this writer (documents carry a nonce) or be named by their
/// content.
///
/// # Errors
/// [`StoreError::ConditionFailed`] only if somebody else's bytes are there; else as [`with_retries`].
pub async fn put(
    store: &dyn ObjectStore,
    key: &str,
    body: impl Into<Body>,
    condition: Condition,
    deadline: Instant,
) -> Result<Version, StoreError> {
    let body = body.into();
    let patience = attempt_limit(body.bytes.len() as u64);
    put_of(store, key, body, condition, deadline, &patience).await
}

/// [`put`] where single attempts have limits of their own.
///
/// # Errors
/// As [`put`].
pub async fn put_of(
    store: &dyn ObjectStore,
    key: &str,
    body: Body,
    condition: Condition,
    deadline: Instant,
    patience: &dyn Patience,
) -> Result<Version, StoreError> {
    let len = body.bytes.len() as u64;
    let written = with_retries_of(&format!("PUT {key}"), deadline, patience, |_| {
        store.put(key, body.clone(), condition.clone())
    })
    .await;
    match written {
        Err(StoreError::ConditionFailed { key }) => match get(store, &key, len, deadline).await {
            Ok(found) if found.bytes == body.bytes => Ok(found.version),
            Err(error @ StoreError::TimedOut { .. }) => Err(error),
            _ => Err(StoreError::ConditionFailed { key }),
        },
        other => other,
    }
}

/// Reads a small object of at most `at_most` bytes, with retries.
///
/// # Errors
/// As [`with_retries`] and [`ObjectStore::get`].
pub async fn get(
    store: &dyn ObjectStore,
    key: &str,
    at_most: u64,
    deadline: Instant,
) -> Result<crate::store::Object, StoreError> {
    with_retries_of(&format!("GET {key}"), deadline, &attempt_limit(at_most.min(crate::MIB)), |_| {
        store.get(key, at_most)
    })
    .await
}

/// Reads the bytes of `range` that exist, all of them into memory, with retries.
///
/// # Errors
/// As [`with_retries`] and [`ObjectStore::get_range`].
pub async fn get_range(
    store: &dyn ObjectStore,
    key: &str,
    range: Range<u64>,
    deadline: Instant,
) -> Result<Bytes, StoreError> {
    let len = range.end.saturating_sub(range.start);
    with_retries_of(&format!("GET {key}"), deadline, &attempt_limit(len), |_| {
        let range = range.clone();
        async move { collect(store.get_range(key, range).await?, len, key).await }
    })
    .await
}

/// Lists a prefix, with retries.
///
/// # Errors
/// As [`with_retries`] and [`ObjectStore::list`].
pub async fn list(
    store: &dyn ObjectStore,
    prefix: &str,
    deadline: Instant,
) -> Result<Vec<crate::store::Listed>, StoreError> {
    with_retries_of(&format!("LIST {prefix}"), deadline, &attempt_limit(crate::MIB), |_| store.list(prefix))
        .await
}

/// The store's clock, with retries.
///
/// # Errors
/// As [`with_retries`] and [`ObjectStore::now`].
pub async fn now(store: &dyn ObjectStore, deadline: Instant) -> Result<Timestamp, StoreError> {
    with_retries("the store's clock", deadline, |_| store.now()).await
}

/// Removes `version` of an object, with retries. An answer that was lost is found out: what is gone is gone.
///
/// # Errors
/// [`StoreError::ConditionFailed`] only if another version is there; else as [`with_retries`].
pub async fn delete(
    store: &dyn Removal,
    key: &str,
    version: &Version,
    deadline: Instant,
) -> Result<(), StoreError> {
    let deleted = with_retries(&format!("DELETE {key}"), deadline, |_| store.delete(key, version)).await;
    match deleted {
        // S3 answers so for a missing object too.
        Err(StoreError::ConditionFailed { .. }) => {
            let listed = list(store, key, deadline).await?;
            match listed.iter().any(|object| object.key == key) {
                true => Err(StoreError::ConditionFailed { key: key.to_owned() }),
                false => Ok(()),
            }
        }
        other => other,
    }
}

/// Full jitter: anything from zero to the bound, so that a fleet that failed together does not return together.
fn spacing(failure: &StoreError, attempt: u32) -> Duration {
    let base = if matches!(failure, StoreError::Throttled { .. }) { BASE_THROTTLED } else { BASE };
    let bound = base.saturating_mul(1_u32 << attempt.min(10)).min(SPACING_MAX);
    bound.mul_f64(fastrand::f64())
}

fn timed_out(what: &str, began: Instant, last: Option<StoreError>, answered: bool) -> StoreError {
    StoreError::TimedOut {
        what: what.to_owned(),
        waited: began.elapsed(),
        last: last.map(|error| error.to_string()),
        answered,
    }
}

#[cfg(test)]
mod tests;
