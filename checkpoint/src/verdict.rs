//! What engines showed of states with one fingerprint: whether they use what they took.
//!
//! Two pods that took such a state and did not use it make every further one doubtful: it is saved after all others,
//! and nothing is dropped for it. One pod that uses it, or a week, ends the doubt.
//!
//! The document, format 1, is at `verdict/<digest of the fingerprint>`:
//!
//! ```text
//! {"format":1, "nonce":"<unlike in any other>", "refusals":[{"pod_uid":"…", "pod_name":"…", "why":"…"}]}
//! ```
//!
//! Its age by the store's clock is what counts.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    bounded, document,
    fingerprint::Fingerprint,
    generation::ReadError,
    hash,
    key::Workload,
    retry,
    store::{Condition, ObjectStore, StoreError, Version},
};

/// The version that this lifeboat writes and knows.
pub const FORMAT: u64 = 1;
/// The largest document, in bytes.
pub const BYTES_MAX: u64 = 64 * 1024;
const KIND: &str = "verdict";
/// So many pods must have refused a state before the next is doubted: one may have been ill itself.
const ENOUGH: usize = 2;
/// More are not remembered.
const REFUSALS_MAX: usize = 8;
/// The longest reason that is kept, in characters.
const WHY_MAX: usize = 512;
/// A verdict ends after this time: the engine may have been mended under the same names.
pub const LASTS: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How often it may change under our eyes before we give up.
const RACES_MAX: u32 = 8;

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusalList {
    format: u64,
    nonce: String,
    /// One for each pod, the last one last; none after a pod that used its state.
    #[serde(deserialize_with = "bounded::list::<_, _, REFUSALS_MAX>")]
    refusals: Vec<Refusal>,
}

/// One pod that took a state and did not use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Its uid: the same pod counts once.
    pub pod_uid: String,
    /// Its name, for people.
    pub pod_name: String,
    /// What it showed, for people.
    pub why: String,
}

/// What a pod's engine showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// It uses the state.
    Used,
    /// It does not.
    NotUsed(Refusal),
}

/// Why a state with this fingerprint is doubtful, for people; `None` if it is not.
///
/// # Errors
/// [`ReadError`].
pub async fn doubt(
    store: &dyn ObjectStore,
    workload: &Workload,
    fingerprint: &Fingerprint,
    deadline: Instant,
) -> Result<Option<String>, ReadError> {
    let standing = standing(store, &workload.verdict(fingerprint), deadline).await?;
    let (refusals, _) = standing.unwrap_or_default();
    let Some(last) = refusals.last().filter(|_| refusals.len() >= ENOUGH) else { return Ok(None) };
    let count = refusals.len();
    Ok(Some(format!(
        "{count} pods took such a state and did not use it, {} the last: {}",
        last.pod_name, last.why
    )))
}

/// Adds what one pod's engine showed of a state with this fingerprint.
///
/// # Errors
/// [`ReadError`].
pub async fn record(
    store: &dyn ObjectStore,
    workload: &Workload,
    fingerprint: &Fingerprint,
    shown: &Shown,
    deadline: Instant,
) -> Result<(), ReadError> {
    let key = workload.verdict(fingerprint);
    for _ in 0..RACES_MAX {
        let (mut refusals, version) = standing(store, &key, deadline).await?.unwrap_or_default();
        match shown {
            // There is nothing to end.
            Shown::Used if refusals.is_empty() => return Ok(()),
            Shown::Used => refusals.clear(),
            Shown::NotUsed(refusal) => {
                refusals.retain(|other| other.pod_uid != refusal.pod_uid);
                let forgotten = (refusals.len() + 1).saturating_sub(REFUSALS_MAX);
                refusals.drain(..forgotten);
                let why = refusal.why.chars().take(WHY_MAX).collect();
                refusals.push(Refusal { why, ..refusal.clone() });
            }
        }
        let verdict = RefusalList { format: FORMAT, nonce: hash::nonce(), refusals };
        let body = document::encode(KIND, BYTES_MAX, &verdict)?;
        let condition = version.map_or(Condition::IfAbsent, Condition::IfMatch);
        match retry::put(store, &key, body, condition, deadline).await {
            Ok(_) => return Ok(()),
            // Another pod was quicker: its word counts too.
            Err(StoreError::ConditionFailed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict { key }.into())
}

/// The refusals that count still, and the version of the document that holds them; `None` if there is none.
async fn standing(
    store: &dyn ObjectStore,
    key: &str,
    deadline: Instant,
) -> Result<Option<(Vec<Refusal>, Option<Version>)>, ReadError> {
    let object = match retry::get(store, key, BYTES_MAX, deadline).await {
        Ok(object) => object,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let verdict: RefusalList = document::parse(KIND, FORMAT, &object.bytes)?;
    let refusals = if object.age() < LASTS { verdict.refusals } else { Vec::new() };
    Ok(Some((refusals, Some(object.version))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{World, soon};
    use std::fs;
    use std::time::SystemTime;

    fn refusal(pod: &str) -> Shown {
        Shown::NotUsed(Refusal {
            pod_uid: pod.into(),
            pod_name: format!("name-{pod}"),
            why: "0 of 500 tokens".into(),
        })
    }

    async fn says(world: &World, shown: &Shown) {
        let of = Fingerprint::default();
        record(world.store.as_ref(), &world.workload, &of, shown, soon()).await.unwrap();
    }

    async fn doubts(world: &World) -> Option<String> {
        doubt(world.store.as_ref(), &world.workload, &Fingerprint::default(), soon()).await.unwrap()
    }

    #[tokio::test]
    async fn two_pods_that_refuse_a_state_make_the_next_doubtful() {
        let world = World::new();
        for pod in ["a", "a", "a"] {
            says(&world, &refusal(pod)).await;
            assert_eq!(doubts(&world).await, None, "one pod alone may be ill itself");
        }
        says(&world, &refusal("b")).await;
        let why = doubts(&world).await.unwrap();
        assert!(why.starts_with("2 pods") && why.contains("name-b") && why.contains("0 of 500"), "{why}");
        let other = Fingerprint { compat_key: Some("mended".into()), ..Fingerprint::default() };
        let of_other = doubt(world.store.as_ref(), &world.workload, &other, soon()).await.unwrap();
        assert_eq!(of_other, None, "a verdict is of one fingerprint");
    }

    #[tokio::test]
    async fn one_pod_that_uses_a_state_ends_the_doubt() {
        let world = World::new();
        says(&world, &Shown::Used).await;
        assert!(world.objects("/verdict/").is_empty(), "a success alone writes nothing");
        for shown in [refusal("a"), Shown::Used, refusal("b")] {
            says(&world, &shown).await;
        }
        assert_eq!(doubts(&world).await, None, "not two without a success between them");
        says(&world, &refusal("c")).await;
        assert!(doubts(&world).await.is_some());
        says(&world, &Shown::Used).await;
        assert_eq!(doubts(&world).await, None);
    }

    #[tokio::test]
    async fn a_week_ends_the_doubt() {
        let world = World::new();
        for pod in ["a", "b"] {
            says(&world, &refusal(pod)).await;
        }
        let age = |age: Duration| {
            for path in world.objects("/verdict/") {
                let then = SystemTime::now() - age;
                fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
            }
        };
        age(LASTS - Duration::from_secs(60));
        assert!(doubts(&world).await.is_some());
        age(LASTS + Duration::from_secs(60));
        assert_eq!(doubts(&world).await, None);
        says(&world, &refusal("c")).await;
        assert_eq!(doubts(&world).await, None, "what was a week ago counts no more");
    }

    #[tokio::test]
    async fn many_refusals_do_not_fill_the_document() {
        let world = World::new();
        let long = |pod: u32| {
            Shown::NotUsed(Refusal {
                pod_uid: pod.to_string(),
                pod_name: pod.to_string(),
                why: "ü".repeat(100_000),
            })
        };
        for pod in 0..20 {
            says(&world, &long(pod)).await;
        }
        assert!(doubts(&world).await.unwrap().starts_with("8 pods"));
    }
}
