//! Asks a store to prove what the protocol needs of it.
//!
//! Several S3-compatible stores accept conditions and ignore them (measured: Garage 2.5.0, `rclone serve s3` 1.75.2, s3rver
//! 3.7.1), or check them and let two writers through (s3s-fs 0.14.1: up to 8 winners of 8). Such a store would
//! let two nodes restore one state, so it is asked before anything depends on it: in sequence, and in a race. What it
//! ignores does not make it useless: [`Conditions`] says what must then be decided elsewhere.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::Instant;

use crate::{
    hash, retry,
    store::{Condition, ObjectStore, Removal, Store, StoreError, Version},
};

/// Writers in the race.
const RACERS: usize = 8;
/// The prefix of what is written; nodes may not delete, so a lifecycle rule removes it.
pub const PREFIX: &str = "preflight";

/// A store that cannot be used, by what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PreflightError {
    /// Nothing answers.
    #[error(
        "the store {store} cannot be reached: {why}; check --store, the endpoint, DNS, the S3 gateway endpoint, and the pod's credentials"
    )]
    Unreachable {
        /// Which store.
        store: String,
        /// The last failure.
        why: String,
    },
    /// The bucket or folder is missing.
    #[error("the store {store} is not there: {why}")]
    NoBucket {
        /// Which store.
        store: String,
        /// What was said.
        why: String,
    },
    /// The credentials are not enough.
    #[error("the store {store} refuses this agent: {why}")]
    Denied {
        /// Which store.
        store: String,
        /// What was said.
        why: String,
    },
    /// The bucket is elsewhere.
    #[error("the store {store} is in another region: {why}")]
    WrongRegion {
        /// Which store.
        store: String,
        /// What was said.
        why: String,
    },
    /// It accepts conditions and ignores them, or decides them wrongly.
    #[error(
        "the store {store} does not decide conditional writes: {how}; use S3, MinIO or versitygw, or let a Kubernetes Lease be the claim (--claims auto or lease)"
    )]
    IgnoresConditions {
        /// Which store.
        store: String,
        /// What it did.
        how: String,
    },
    /// What was written is not what is read.
    #[error("the store {store} does not give back what it was given: {how}")]
    Inconsistent {
        /// Which store.
        store: String,
        /// What differed.
        how: String,
    },
    /// It answers, and not with what was asked for: in the store's words.
    #[error("the store {store} failed: {why}")]
    Failed {
        /// Which store.
        store: String,
        /// What was said.
        why: String,
    },
}

impl PreflightError {
    /// A fixed word per variant, for metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::NoBucket { .. } => "no_bucket",
            Self::Denied { .. } => "denied",
            Self::WrongRegion { .. } => "wrong_region",
            Self::IgnoresConditions { .. } => "ignores_conditions",
            Self::Inconsistent { .. } => "inconsistent",
            Self::Failed { .. } => "failed",
        }
    }

    fn from_store(store: &dyn ObjectStore, error: &StoreError) -> Self {
        let (store, why) = (store.describe(), error.to_string());
        match error {
            StoreError::NoSuchBucket { .. } => Self::NoBucket { store, why },
            StoreError::Denied { .. } => Self::Denied { store, why },
            StoreError::WrongRegion { .. } => Self::WrongRegion { store, why },
            silence if silence.is_silence() => Self::Unreachable { store, why },
            _ => Self::Failed { store, why },
        }
    }
}

/// Whether a store decides conditional writes (`If-None-Match: *`, `If-Match`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conditions {
    /// It does: claims and commits may rest on it.
    Decided,
    /// It accepts them and ignores them, or lets two writers through. It can be read, written and listed, but who
    /// restores a lineage must be decided elsewhere ([`crate::claim::Claims`]), and a commit looks at what it wrote
    /// ([`crate::generation::commit`]).
    Ignored {
        /// What it did.
        how: Arc<str>,
    },
}

impl Conditions {
    /// For callers to whom a store without conditions is of no use.
    ///
    /// # Errors
    /// [`PreflightError::IgnoresConditions`].
    pub fn required(&self, store: &dyn ObjectStore) -> Result<(), PreflightError> {
        match self {
            Self::Decided => Ok(()),
            Self::Ignored { how } => {
                Err(PreflightError::IgnoresConditions { store: store.describe(), how: how.to_string() })
            }
        }
    }

    fn ignored(how: &str) -> Self {
        Self::Ignored { how: how.into() }
    }
}

/// Proves reading and listing, and finds out about conditional writes, with about a dozen small objects.
///
/// # Errors
/// [`PreflightError`], whose message says how to fix it.
pub async fn prove(store: &Store, deadline: Instant) -> Result<Conditions, PreflightError> {
    let failed = |error: StoreError| PreflightError::from_store(store.as_ref(), &error);
    let base = format!("{PREFIX}/{}", hash::nonce());
    let key = format!("{base}/sequence");
    let (last, conditions) = in_sequence(store, &key, deadline).await.map_err(failed)?;
    read_back(store, &base, &key, last, deadline).await?;
    if conditions != Conditions::Decided {
        return Ok(conditions);
    }
    match run_race(store, &format!("{base}/race"), deadline).await {
        (1, None) => Ok(Conditions::Decided),
        (0 | 1, Some(error)) => Err(failed(error)),
        (winners, _) => {
            Ok(Conditions::ignored(&format!("{winners} of {RACERS} writers created the same object at once")))
        }
    }
}

/// What was written last, and how the store took the conditions, one after the other.
async fn in_sequence(
    store: &Store,
    key: &str,
    deadline: Instant,
) -> Result<(&'static str, Conditions), StoreError> {
    let first = write(store, key, "first", Condition::IfAbsent, deadline).await?;
    match write(store, key, "second", Condition::IfAbsent, deadline).await {
        Ok(_) => {
            let how = "an object that exists was written again under If-None-Match";
            return Ok(("second", Conditions::ignored(how)));
        }
        Err(StoreError::ConditionFailed { .. }) => {}
        Err(error) => return Err(error),
    }
    write(store, key, "third", Condition::IfMatch(first.clone()), deadline).await?;
    match write(store, key, "fourth", Condition::IfMatch(first), deadline).await {
        Ok(_) => {
            let how = "an object that had changed was written under If-Match of its old version";
            Ok(("fourth", Conditions::ignored(how)))
        }
        Err(StoreError::ConditionFailed { .. }) => Ok(("third", Conditions::Decided)),
        Err(error) => Err(error),
    }
}

/// Proves that an object is removed only under the version that is given, with one small object. For whoever collects
/// garbage or erases.
///
/// # Errors
/// [`PreflightError`], whose message says how to fix it.
pub async fn prove_removal(store: &dyn Removal, deadline: Instant) -> Result<(), PreflightError> {
    let failed = |error: StoreError| PreflightError::from_store(store, &error);
    let key = format!("{PREFIX}/{}/removal", hash::nonce());
    let put = async |body: &'static str| retry::put(store, &key, body, Condition::Always, deadline).await;
    let first = put("first").await.map_err(failed)?;
    let second = put("second").await.map_err(failed)?;
    match retry::delete(store, &key, &first, deadline).await {
        Err(StoreError::ConditionFailed { .. }) => {}
        Ok(()) => {
            return Err(PreflightError::IgnoresConditions {
                store: store.describe(),
                how: "an object that had changed was removed under If-Match of its old version".to_owned(),
            });
        }
        Err(error) => return Err(failed(error)),
    }
    retry::delete(store, &key, &second, deadline).await.map_err(failed)
}

async fn read_back(
    store: &Store,
    base: &str,
    key: &str,
    last: &str,
    deadline: Instant,
) -> Result<(), PreflightError> {
    let failed = |error: StoreError| PreflightError::from_store(store.as_ref(), &error);
    let inconsistent =
        |how: &str| PreflightError::Inconsistent { store: store.describe(), how: how.to_owned() };
    let found = retry::get(store.as_ref(), key, 1024, deadline).await.map_err(failed)?;
    if found.bytes != last {
        return Err(inconsistent("the object read is not the one written last"));
    }
    let part = retry::get_range(store.as_ref(), key, 1..3, deadline).await.map_err(failed)?;
    if part != last[1..3] {
        return Err(inconsistent("a range read is not the range asked for"));
    }
    let listed = retry::list(store.as_ref(), &format!("{base}/"), deadline).await.map_err(failed)?;
    if listed.len() != 1 || listed[0].key != key || listed[0].version != found.version {
        return Err(inconsistent("the listing does not show the object just written"));
    }
    Ok(())
}

/// How many of several writers created the same object; and a failure that was not about the condition.
async fn run_race(store: &Store, key: &str, deadline: Instant) -> (usize, Option<StoreError>) {
    let racers = (0..RACERS).map(|racer| {
        let (store, key) = (Arc::clone(store), key.to_owned());
        // Tasks of their own, so that they really run beside each other.
        tokio::spawn(
            async move { write(&store, &key, &racer.to_string(), Condition::IfAbsent, deadline).await },
        )
    });
    let mut winners = 0;
    let mut failure = None;
    for outcome in join_all(racers).await {
        match outcome {
            Ok(Ok(_)) => winners += 1,
            Ok(Err(StoreError::ConditionFailed { .. })) => {}
            Ok(Err(error)) => failure = Some(error),
            Err(panicked) => failure = Some(StoreError::permanent(panicked.to_string())),
        }
    }
    (winners, failure)
}

async fn write(
    store: &Store,
    key: &str,
    body: &str,
    condition: Condition,
    deadline: Instant,
) -> Result<Version, StoreError> {
    retry::put(store.as_ref(), key, Bytes::copy_from_slice(body.as_bytes()), condition, deadline).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{
        directory::DirectoryStore,
        faulty::{FaultPlan, FaultyStore},
    };

    async fn prove_with(faults: &str) -> Result<Conditions, PreflightError> {
        let root = tempfile::tempdir().unwrap();
        let store: Store = Arc::new(DirectoryStore::open(root.path()).unwrap());
        let store: Store = Arc::new(FaultyStore::new(store, FaultPlan::parse(faults).unwrap()));
        prove(&store, Instant::now() + Duration::from_secs(2)).await
    }

    #[tokio::test]
    async fn a_directory_proves_itself() {
        assert_eq!(prove_with("").await, Ok(Conditions::Decided));
        assert_eq!(prove_with("put=lost#1,put=503*1,get=lost#1").await, Ok(Conditions::Decided));
    }

    #[tokio::test]
    async fn a_store_that_ignores_conditions_is_one_that_can_be_read_and_written() {
        for (faults, expected) in [
            ("put=unconditional", "under If-None-Match"),
            ("put=unconditional@4", "under If-Match of its old version"),
            // Sequential conditions hold, the race does not.
            ("put=unconditional@5", "of 8 writers created the same object"),
        ] {
            let conditions = prove_with(faults).await.unwrap();
            let Conditions::Ignored { how } = &conditions else { panic!("{faults}: taken for decided") };
            assert!(how.contains(expected), "{faults}: {how}");
            let root = tempfile::tempdir().unwrap();
            let refused = conditions.required(&DirectoryStore::open(root.path()).unwrap()).unwrap_err();
            assert_eq!(refused.category(), "ignores_conditions");
        }
        // What it writes must still be what is read.
        assert_eq!(prove_with("put=unconditional,get=torn").await.unwrap_err().category(), "inconsistent");
    }

    #[tokio::test]
    async fn a_store_that_ignores_the_version_of_what_it_removes_is_named() {
        let prove = async |faults: &str| {
            let root = tempfile::tempdir().unwrap();
            let store = Arc::new(DirectoryStore::open(root.path()).unwrap());
            let store = FaultyStore::new(store, FaultPlan::parse(faults).unwrap());
            prove_removal(&store, Instant::now() + Duration::from_secs(2)).await
        };
        prove("delete=lost#2").await.unwrap();
        assert_eq!(prove("delete=unconditional").await.unwrap_err().category(), "ignores_conditions");
        assert_eq!(prove("delete=denied").await.unwrap_err().category(), "denied");
    }

    #[tokio::test]
    async fn a_store_that_fails_is_named_with_its_failing() {
        for (faults, expected) in [
            ("*=gone", "unreachable"),
            ("*=hang", "unreachable"),
            ("put=denied", "denied"),
            ("get=torn", "inconsistent"),
            ("range=torn", "inconsistent"),
        ] {
            let error = prove_with(faults).await.unwrap_err();
            assert_eq!(error.category(), expected, "{faults}: {error}");
        }
    }
}
