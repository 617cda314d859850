//! Who may restore a lineage: one winner, by conditional writes alone.
//!
//! One protocol over either of two places ([`ClaimBoard`]): the store, or Kubernetes Leases where the store ignores
//! conditions. Everything but "read this" and "write this if it is still that" is decided here.
//!
//! ```text
//!             absent ── take (only if absent) ──► Restoring ── finish ──► Done
//!                                                  │     ▲                 │
//!                                    lease ran out └─────┘                 └── a pod of the same name came again
//!                                    by the place's clock:                     (StatefulSet): take, epoch + 1
//!                                    take (if unchanged), epoch + 1
//! ```
//!
//! Every change compares the version that was read, so of two that decide the same thing one is told that it came
//! second. A holder whose renewal is refused has been fenced and must stop.
//!
//! All agents of a cluster must keep their claims in one place: two that look in different ones do not see each other.

mod board;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::board::{ClaimBoard, Posted, Posting};
use self::board::{StoreBoard, post, posted};
use crate::{
    document,
    generation::{self, ReadError},
    hash,
    key::{LineageId, Workload},
    store::{Condition, ObjectStore, Store, StoreError, Version},
};

/// The version that this lifeboat writes and knows.
pub const FORMAT: u64 = 1;
/// The largest claim document, in bytes.
pub const BYTES_MAX: u64 = 64 * 1024;
pub(crate) const KIND: &str = "claim";
/// S3 and the Kubernetes API tell time in whole seconds: two stamps may be a second further apart than they seem.
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
    /// Its version; `None` if it was made in the store before claims moved to where they are now.
    pub version: Option<Version>,
    /// When the lease runs out, from the moment of reading and by the clock of its place: `None` if it has run out,
    /// or if the claim is done and has no lease any more.
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
    /// The claim cannot be read.
    #[error(transparent)]
    Unreadable(ReadError),
    /// The place where claims are kept.
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

/// The claims of a cluster: the protocol over the place where they are kept. Clones share it.
#[derive(Debug, Clone)]
pub struct Claims {
    board: Arc<dyn ClaimBoard>,
    /// A store in which claims may have been made before.
    before: Option<Store>,
}

/// A claim that is held. Renew it before its lease runs out; dropping it lets the lease run out.
#[derive(Debug)]
pub struct HeldClaim {
    /// Where it was taken: a claim never moves to another place.
    claims: Claims,
    key: String,
    claim: Claim,
    version: Version,
    since: Timestamp,
    resumed: bool,
}

impl Claims {
    /// Claims on this board. Those that were made in `store` before count until they are made here: what was restored
    /// under one is not restored again.
    #[must_use]
    pub fn on(board: Arc<dyn ClaimBoard>, store: Store) -> Self {
        Self { board, before: Some(store) }
    }

    /// Claims beside the checkpoints. The store must decide conditions ([`crate::preflight`]).
    #[must_use]
    pub fn in_store(store: Store) -> Self {
        Self { board: Arc::new(StoreBoard(store)), before: None }
    }

    /// The place in words.
    #[must_use]
    pub fn describe(&self) -> String {
        self.board.describe()
    }

    /// Whether a LIST of the store shows which lineages are claimed.
    pub(crate) fn are_listed(&self) -> bool {
        self.board.is_listed()
    }

    /// Reads the claim on a lineage; `None` if it was never claimed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(
        &self,
        workload: &Workload,
        lineage: &LineageId,
        deadline: Instant,
    ) -> Result<Option<FoundClaim>, ReadError> {
        let key = workload.claim(lineage);
        let (found, here) = match posted(self.board.as_ref(), &key, deadline).await {
            Ok(found) => (found, true),
            Err(StoreError::NotFound { .. }) => match self.made_before(&key, deadline).await? {
                Some(found) => (found, false),
                None => return Ok(None),
            },
            Err(error) => return Err(error.into()),
        };
        let claim: Claim = document::parse(KIND, FORMAT, &found.bytes)?;
        if claim.lineage != *lineage {
            return Err(ReadError::Misplaced { key, says: format!("of lineage {}", claim.lineage) });
        }
        let lease = Duration::from_millis(claim.lease_ms).saturating_add(STAMP_SLACK);
        let expires_in = match claim.state {
            ClaimState::Restoring => lease.checked_sub(found.age).filter(|left| !left.is_zero()),
            ClaimState::Done => None,
        };
        Ok(Some(FoundClaim { claim, version: here.then_some(found.version), expires_in }))
    }

    async fn made_before(&self, key: &str, deadline: Instant) -> Result<Option<Posted>, StoreError> {
        let Some(store) = &self.before else { return Ok(None) };
        match posted(&StoreBoard(Arc::clone(store)), key, deadline).await {
            Ok(found) => Ok(Some(found)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the claim on a lineage, or says who has it. `store` holds the lineage's generations.
    ///
    /// The same pod may ask again (its agent was restarted): it gets its claim back under the same epoch.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub async fn take(
        &self,
        store: &dyn ObjectStore,
        workload: &Workload,
        request: &ClaimRequest,
        deadline: Instant,
    ) -> Result<HeldClaim, ClaimError> {
        let key = workload.claim(&request.lineage);
        let since = Timestamp::now();
        for _ in 0..RACES_MAX {
            let found = self.read(workload, &request.lineage, deadline).await?;
            let epoch = found.as_ref().map_or(Ok(1), |found| request.may_follow(found))?;
            let condition = match found.as_ref().and_then(|found| found.version.clone()) {
                None => Condition::IfAbsent,
                Some(version) => Condition::IfMatch(version),
            };
            let resumed = found.as_ref().is_some_and(|found| found.claim.epoch == epoch);
            let given_back = found.as_ref().is_some_and(|found| found.claim.lease_ms == 0);
            // A commit may have been made under an epoch that no claim remembers.
            let floor = generation::newest(store, workload, &request.lineage, deadline).await?;
            let epoch = if resumed {
                epoch
            } else {
                epoch.max(floor.map_or(0, |number| number.epoch).saturating_add(1))
            };
            if epoch == u64::MAX {
                // After it none is higher, and two would hold one epoch. Counting never gets there.
                let why =
                    "the lineage's epochs are used up: its claim or a commit was not written by lifeboat";
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
            match self.post(&key, &claim, since, condition, deadline).await {
                Ok(version) => {
                    return Ok(HeldClaim {
                        claims: self.clone(),
                        key,
                        claim,
                        version,
                        since,
                        resumed: resumed && !given_back,
                    });
                }
                // Somebody was faster: look again, who.
                Err(ClaimError::Store(StoreError::ConditionFailed { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict { key }.into())
    }

    async fn post(
        &self,
        key: &str,
        claim: &Claim,
        since: Timestamp,
        condition: Condition,
        deadline: Instant,
    ) -> Result<Version, ClaimError> {
        let body: Bytes = document::encode(KIND, BYTES_MAX, claim).map_err(ReadError::from)?;
        let posting = Posting { key, claim, body, since };
        Ok(post(self.board.as_ref(), &posting, &condition, deadline).await?)
    }
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

    /// Whether its pod held it already when it was taken, and had not given it back: its agent was restarted.
    #[must_use]
    pub fn was_resumed(&self) -> bool {
        self.resumed
    }

    /// Starts the lease anew. Call it at a third of the lease.
    ///
    /// # Errors
    /// [`ClaimError::Fenced`] if another took over: hand nothing to the engine.
    pub async fn renew(&mut self, deadline: Instant) -> Result<(), ClaimError> {
        self.write(ClaimState::Restoring, deadline).await
    }

    /// Records that the state was handed over: nobody else restores it.
    ///
    /// # Errors
    /// [`ClaimError::Fenced`] if another took over.
    pub async fn finish(&mut self, deadline: Instant) -> Result<(), ClaimError> {
        self.write(ClaimState::Done, deadline).await
    }

    /// Lets the lease run out now: the state was given to no engine, and whoever asks next may have it a second later.
    ///
    /// # Errors
    /// [`ClaimError::Fenced`] if another took over.
    pub async fn give_back(&mut self, deadline: Instant) -> Result<(), ClaimError> {
        self.claim.lease_ms = 0;
        self.write(ClaimState::Restoring, deadline).await
    }

    async fn write(&mut self, state: ClaimState, deadline: Instant) -> Result<(), ClaimError> {
        let claim = Claim { nonce: hash::nonce(), state, ..self.claim.clone() };
        let condition = Condition::IfMatch(self.version.clone());
        match self.claims.post(&self.key, &claim, self.since, condition, deadline).await {
            Ok(version) => {
                self.claim = claim;
                self.version = version;
                Ok(())
            }
            Err(ClaimError::Store(StoreError::ConditionFailed { .. })) => {
                Err(ClaimError::Fenced { lineage: claim.lineage, epoch: claim.epoch })
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
