//! Who may restore a lineage: one winner, by conditional writes alone.
//!
//! ```text
//!             absent ── take (only if absent) ──► Restoring ── finish ──► Done
//!                                                  │     ▲                 │
//!                                    lease ran out └─────┘                 └── a pod of the same name came again
//!                                    by the store's clock:                     (StatefulSet): take, epoch + 1
//!                                    take (if unchanged), epoch + 1
//! ```
//!
//! Every change compares the version that was read, so of two that decide the same thing one is told that it came
//! second. A holder whose renewal is refused has been fenced and must stop.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    document,
    generation::{self, ReadError},
    hash,
    key::{LineageId, Workload},
    retry,
    store::{Condition, ObjectStore, StoreError, Version},
};

/// The version that this lifeboat writes and knows.
pub const FORMAT: u64 = 1;
/// The largest claim document, in bytes.
pub const BYTES_MAX: u64 = 64 * 1024;
const KIND: &str = "claim";
/// S3 tells time in whole seconds: two stamps may be a second further apart than they seem.
const STAMP_SLACK: Duration = Duration::from_secs(1);
/// How often the claim may change under our eyes before we give up.
const RACES_MAX: u32 = 8;

/// The claim document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// [`FORMAT`]; the first field of the document.
    pub format: u64,
    /// The lineage that is claimed.
    pub lineage: LineageId,
    /// Who holds it.
    pub holder: Holder,
    /// Grows by one at each take-over; commits are written under it.
    pub epoch: u64,
    /// How long the holder may be silent, in milliseconds.
    pub lease_ms: u64,
    /// Unlike in any other version, so that no version ever comes again.
    pub nonce: String,
    /// How far the holder is.
    pub state: ClaimState,
}

/// The pod that holds a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Uid of the pod: what counts.
    pub pod_uid: String,
    /// Name of the pod, for people.
    pub pod_name: String,
    /// Its node, for people.
    pub node: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {} (uid {}) on node {}", self.pod_name, self.pod_uid, self.node)
    }
}

/// How far the holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimState {
    /// It restores, and renews its lease.
    Restoring,
    /// The state was handed over.
    Done,
}

/// A claim as it was found.
#[derive(Debug, Clone)]
pub struct FoundClaim {
    /// The document.
    pub claim: Claim,
    /// Its version.
    pub version: Version,
    /// When the lease runs out, from the moment of reading and by the store's clock: `None` if it has run out, or if
    /// the claim is done and has no lease any more.
    pub expires_in: Option<Duration>,
}

impl FoundClaim {
    /// Whether the lease ran out before the restore was done.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.claim.state == ClaimState::Restoring && self.expires_in.is_none()
    }
}

/// What a claim is to be taken for.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The lineage.
    pub lineage: LineageId,
    /// Who wants it.
    pub holder: Holder,
    /// How long the holder may be silent before another may take over; renew at a third of it.
    pub lease: Duration,
    /// The lineage has a name that comes again (a StatefulSet pod): a claim that is done may be followed by the next.
    pub named: bool,
}

/// A claim that was not taken, renewed or finished.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else holds it.
    #[error("the lineage is held by {by}{}", .expires_in.map(|left| format!(", for {} ms more", left.as_millis())).unwrap_or_else(|| ", for good".to_owned()))]
    Held {
        /// Who.
        by: Holder,
        /// For how much longer at most, if it is not renewed; `None` if the state was restored there.
        expires_in: Option<Duration>,
    },
    /// This very pod has finished restoring it before.
    #[error("this pod has restored the lineage before, under epoch {epoch}")]
    Finished {
        /// The epoch under which it did, and under which it may commit.
        epoch: u64,
    },
    /// The claim was taken over: stop, and hand nothing to the engine.
    #[error("fenced: the claim on lineage {lineage} was taken over from epoch {epoch}")]
    Fenced {
        /// The lineage.
        lineage: LineageId,
        /// The epoch that was lost.
        epoch: u64,
    },
    /// The claim in the store cannot be read.
    #[error(transparent)]
    Unreadable(ReadError),
    /// The store.
    #[error("claim: {0}")]
    Store(#[from] StoreError),
}

impl From<ReadError> for ClaimError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => Self::Store(error),
            other => Self::Unreadable(other),
        }
    }
}

/// A claim that is held. Renew it before its lease runs out; dropping it lets the lease run out.
#[derive(Debug)]
pub struct HeldClaim {
    workload: Workload,
    claim: Claim,
    version: Version,
}

/// Reads the claim on a lineage; `None` if it was never claimed.
///
/// # Errors
/// [`ReadError`].
pub async fn read(
    store: &dyn ObjectStore,
    workload: &Workload,
    lineage: &LineageId,
    deadline: Instant,
) -> Result<Option<FoundClaim>, ReadError> {
    let key = workload.claim(lineage);
    let object = match retry::get(store, &key, BYTES_MAX, deadline).await {
        Ok(object) => object,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let claim: Claim = document::parse(KIND, FORMAT, &object.bytes)?;
    if claim.lineage != *lineage {
        return Err(ReadError::Misplaced { key, says: format!("of lineage {}", claim.lineage) });
    }
    let lease = Duration::from_millis(claim.lease_ms).saturating_add(STAMP_SLACK);
    let expires_in = match claim.state {
        ClaimState::Restoring => lease.checked_sub(object.age()).filter(|left| !left.is_zero()),
        ClaimState::Done => None,
    };
    Ok(Some(FoundClaim { claim, version: object.version, expires_in }))
}

/// Takes the claim on a lineage, or says who has it.
///
/// The same pod may ask again (its agent was restarted): it gets its claim back under the same epoch.
///
/// # Errors
/// [`ClaimError`].
pub async fn take(
    store: &dyn ObjectStore,
    workload: &Workload,
    request: &ClaimRequest,
    deadline: Instant,
) -> Result<HeldClaim, ClaimError> {
    let key = workload.claim(&request.lineage);
    for _ in 0..RACES_MAX {
        let found = read(store, workload, &request.lineage, deadline).await?;
        let (epoch, condition) = match &found {
            None => (1, Condition::IfAbsent),
            Some(found) => (request.may_follow(found)?, Condition::IfMatch(found.version.clone())),
        };
        let resumed = found.as_ref().is_some_and(|found| found.claim.epoch == epoch);
        // A commit may have been made under an epoch that no claim in the store remembers.
        let floor = generation::newest(store, workload, &request.lineage, deadline).await?;
        let epoch =
            if resumed { epoch } else { epoch.max(floor.map_or(0, |number| number.epoch).saturating_add(1)) };
        if epoch == u64::MAX {
            // After it none is higher, and two would hold one epoch. Counting never gets there.
            let why = "the lineage's epochs are used up: its claim or a commit was not written by lifeboat";
            return Err(StoreError::permanent(format!("{key}: {why}")).into());
        }
        let claim = Claim {
            format: FORMAT,
            lineage: request.lineage.clone(),
            holder: request.holder.clone(),
            epoch,
            lease_ms: u64::try_from(request.lease.as_millis()).unwrap_or(u64::MAX),
            nonce: hash::nonce(),
            state: ClaimState::Restoring,
        };
        let body = document::encode(KIND, BYTES_MAX, &claim).map_err(ReadError::from)?;
        match retry::put(store, &key, body, condition, deadline).await {
            Ok(version) => return Ok(HeldClaim { workload: workload.clone(), claim, version }),
            // Somebody was faster: look again, who.
            Err(StoreError::ConditionFailed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict { key }.into())
}

impl ClaimRequest {
    /// The epoch under which this request may follow the claim that was found, or who is in the way.
    fn may_follow(&self, found: &FoundClaim) -> Result<u64, ClaimError> {
        let Claim { holder, epoch, state, .. } = &found.claim;
        let own = holder.pod_uid == self.holder.pod_uid;
        match state {
            ClaimState::Restoring if own => Ok(*epoch),
            ClaimState::Done if own => Err(ClaimError::Finished { epoch: *epoch }),
            ClaimState::Restoring if found.expired() => Ok(epoch.saturating_add(1)),
            ClaimState::Done if self.named => Ok(epoch.saturating_add(1)),
            _ => Err(ClaimError::Held { by: holder.clone(), expires_in: found.expires_in }),
        }
    }
}

impl HeldClaim {
    /// The document as it was last written.
    #[must_use]
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The epoch under which commits are written.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.claim.epoch
    }

    /// Starts the lease anew. Call it at a third of the lease.
    ///
    /// # Errors
    /// [`ClaimError::Fenced`] if another took over: hand nothing to the engine.
    pub async fn renew(&mut self, store: &dyn ObjectStore, deadline: Instant) -> Result<(), ClaimError> {
        self.write(store, ClaimState::Restoring, deadline).await
    }

    /// Records that the state was handed over: nobody else restores it.
    ///
    /// # Errors
    /// [`ClaimError::Fenced`] if another took over.
    pub async fn finish(&mut self, store: &dyn ObjectStore, deadline: Instant) -> Result<(), ClaimError> {
        self.write(store, ClaimState::Done, deadline).await
    }

    async fn write(
        &mut self,
        store: &dyn ObjectStore,
        state: ClaimState,
        deadline: Instant,
    ) -> Result<(), ClaimError> {
        let claim = Claim { nonce: hash::nonce(), state, ..self.claim.clone() };
        let body = document::encode(KIND, BYTES_MAX, &claim).map_err(ReadError::from)?;
        let key = self.workload.claim(&claim.lineage);
        match retry::put(store, &key, body, Condition::IfMatch(self.version.clone()), deadline).await {
            Ok(version) => {
                self.claim = claim;
                self.version = version;
                Ok(())
            }
            Err(StoreError::ConditionFailed { .. }) => {
                Err(ClaimError::Fenced { lineage: claim.lineage, epoch: claim.epoch })
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
