//! What a failed effect says: in which of the closed ways, and why.

use crate::kube::ClusterError;
use crate::node::store::Unusable;
use crate::volume::VolumeError;
use crate::volume::kept::KeptError;
use checkpoint::claim::ClaimError;
use checkpoint::folder::FolderError;
use checkpoint::generation::{CommitError, ReadError};
use checkpoint::key::KeyError;
use checkpoint::restore::RestoreError;
use checkpoint::reuse::NotReusable;
use checkpoint::store::StoreError;
use engines::EngineError;
use evacuation::event::{FailureKind, Outcome};
use host::causes;
use host::small_file::SmallFileError;
use std::error::Error;

/// A failed effect.
#[derive(Debug)]
pub(crate) struct EffectFailure {
    pub(crate) kind: FailureKind,
    pub(crate) why: String,
}

impl EffectFailure {
    pub(crate) fn new(kind: FailureKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into() }
    }

    /// With the whole chain of causes: this is where it is told.
    fn of(kind: FailureKind, error: &(dyn Error + 'static)) -> Self {
        Self { kind, why: causes::chain(error) }
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        Outcome::Failed { kind: self.kind, why: self.why }
    }
}

impl From<ClusterError> for EffectFailure {
    fn from(error: ClusterError) -> Self {
        Self::of(error.failure_kind(), &error)
    }
}

impl From<EngineError> for EffectFailure {
    fn from(error: EngineError) -> Self {
        Self::of(error.kind(), &error)
    }
}

impl From<VolumeError> for EffectFailure {
    fn from(error: VolumeError) -> Self {
        Self::of(error.kind(), &error)
    }
}

impl From<KeptError> for EffectFailure {
    fn from(error: KeptError) -> Self {
        Self::of(error.kind(), &error)
    }
}

impl From<SmallFileError> for EffectFailure {
    fn from(error: SmallFileError) -> Self {
        VolumeError::from(error).into()
    }
}

impl From<FolderError> for EffectFailure {
    fn from(error: FolderError) -> Self {
        Self::of(FailureKind::Permanent, &error)
    }
}

impl From<KeyError> for EffectFailure {
    fn from(error: KeyError) -> Self {
        Self::of(FailureKind::Permanent, &error)
    }
}

impl From<Unusable> for EffectFailure {
    fn from(unusable: Unusable) -> Self {
        Self::new(unusable.kind, unusable.why.as_ref())
    }
}

fn store_kind(error: &StoreError) -> FailureKind {
    match error {
        StoreError::NotFound { .. } => FailureKind::NotFound,
        StoreError::Throttled { .. } => FailureKind::Throttled,
        silence if silence.is_silence() => FailureKind::Unreachable,
        other if other.is_retryable() => FailureKind::Transient,
        StoreError::TimedOut { .. } | StoreError::ConditionFailed { .. } => FailureKind::Transient,
        _ => FailureKind::Permanent,
    }
}

impl From<StoreError> for EffectFailure {
    fn from(error: StoreError) -> Self {
        Self::of(store_kind(&error), &error)
    }
}

impl From<ReadError> for EffectFailure {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Store(store) => store_kind(store),
            ReadError::Document(_) | ReadError::Misplaced { .. } => FailureKind::Mismatch,
        };
        Self::of(kind, &error)
    }
}

impl From<CommitError> for EffectFailure {
    fn from(error: CommitError) -> Self {
        let kind = match &error {
            CommitError::Fenced { .. } => FailureKind::Refused,
            CommitError::Manifest(_) | CommitError::Document(_) => FailureKind::Permanent,
            CommitError::Store(store) => store_kind(store),
        };
        Self::of(kind, &error)
    }
}

impl From<NotReusable> for EffectFailure {
    fn from(error: NotReusable) -> Self {
        let kind = match &error {
            NotReusable::Packs { .. } => FailureKind::Endangered,
            // The next attempt is made at another moment, which is part of the manifest, and so has another name.
            NotReusable::Manifest(_) => FailureKind::Transient,
            NotReusable::Store(store) => store_kind(store),
        };
        Self::of(kind, &error)
    }
}

impl From<ClaimError> for EffectFailure {
    fn from(error: ClaimError) -> Self {
        let kind = match &error {
            ClaimError::Held { .. } | ClaimError::Finished { .. } | ClaimError::Fenced { .. } => {
                FailureKind::Refused
            }
            ClaimError::Store(store) => store_kind(store),
            ClaimError::Unreadable(_) => FailureKind::Permanent,
        };
        Self::of(kind, &error)
    }
}

impl From<RestoreError> for EffectFailure {
    fn from(error: RestoreError) -> Self {
        let kind = match &error {
            RestoreError::Corrupt { .. } | RestoreError::Manifest { .. } => FailureKind::Mismatch,
            RestoreError::Folder(_) => FailureKind::Permanent,
            RestoreError::OutOfTime { .. } => FailureKind::Transient,
            RestoreError::Store(store) => store_kind(store),
        };
        Self::of(kind, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_store_that_did_not_answer_fails_otherwise_than_one_that_says_later() {
        let message = || "why".to_owned();
        let timed_out = |answered| StoreError::TimedOut {
            what: "LIST".into(),
            waited: Duration::from_secs(9),
            last: Some(message()),
            answered,
        };
        for (error, kind) in [
            (StoreError::Unreachable { message: message() }, FailureKind::Unreachable),
            (timed_out(false), FailureKind::Unreachable),
            (timed_out(true), FailureKind::Transient),
            (StoreError::Throttled { message: message() }, FailureKind::Throttled),
            (StoreError::Transient { message: message() }, FailureKind::Transient),
        ] {
            assert_eq!(EffectFailure::from(error.clone()).kind, kind, "{error}");
        }
    }
}
