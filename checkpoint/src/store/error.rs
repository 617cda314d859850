//! What can go wrong with a store, by what a caller would do about it.

use std::time::Duration;

/// A store operation that failed. Each variant asks for a different reaction; each message says which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such object. A normal answer.
    #[error("{key} is not in the store")]
    NotFound {
        /// The key that was asked for.
        key: String,
    },
    /// The condition of a `put` does not hold: somebody else was first. Read again and decide.
    #[error("{key} was written by somebody else in the meantime")]
    ConditionFailed {
        /// The key that was to be written.
        key: String,
    },
    /// Two conditional writes met and the store decided neither (S3: 409). Try again.
    #[error("another write of {key} is under way, try again")]
    Conflict {
        /// The key that was to be written.
        key: String,
    },
    /// The store asks for fewer requests (503 SlowDown, 429). Try again later.
    #[error("the store asks for fewer requests: {message}")]
    Throttled {
        /// What the store said.
        message: String,
    },
    /// Nothing answered: refused, no such name, no TLS, no credentials, or no answer in time. Try again.
    #[error("the store does not answer: {message}")]
    Unreachable {
        /// What happened.
        message: String,
    },
    /// Network or server trouble that may pass, after an answer has begun. Try again.
    #[error("the store did not answer properly: {message}")]
    Transient {
        /// What happened.
        message: String,
    },
    /// The credentials do not allow this. An operator must grant it.
    #[error(
        "access denied for {key}: {message}; allow s3:GetObject, s3:PutObject and s3:ListBucket (and the KMS key's use) to this role"
    )]
    Denied {
        /// The key or prefix.
        key: String,
        /// What the store said.
        message: String,
    },
    /// The bucket or the directory does not exist. An operator must create or name it.
    #[error("{bucket} does not exist; create it or correct --store")]
    NoSuchBucket {
        /// Bucket or directory.
        bucket: String,
    },
    /// The bucket is in another region.
    #[error("the bucket is in another region ({message}); set --store-region to the bucket's own")]
    WrongRegion {
        /// What the store said.
        message: String,
    },
    /// Trying again will not help.
    #[error("{message}")]
    Permanent {
        /// What happened.
        message: String,
    },
    /// The deadline came first.
    #[error("no time left for {what} (tried for {} ms{})", waited.as_millis(), last.as_ref().map(|last| format!("; last: {last}")).unwrap_or_default())]
    TimedOut {
        /// What was tried.
        what: String,
        /// For how long it was tried.
        waited: Duration,
        /// The last failure before the deadline, if there was one.
        last: Option<String>,
        /// The store has answered one of the tries at least.
        answered: bool,
    },
}

impl StoreError {
    /// Whether the same request may succeed when it is sent again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Conflict { .. }
                | Self::Throttled { .. }
                | Self::Transient { .. }
                | Self::Unreachable { .. }
        )
    }

    /// Whether nothing came from the store at all: then there may be none.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { answered: false, last: Some(_), .. })
    }

    /// A fixed word per variant, for metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::ConditionFailed { .. } => "condition_failed",
            Self::Conflict { .. } => "conflict",
            Self::Throttled { .. } => "throttled",
            Self::Transient { .. } => "transient",
            Self::Unreachable { .. } => "unreachable",
            Self::Denied { .. } => "denied",
            Self::NoSuchBucket { .. } => "no_such_bucket",
            Self::WrongRegion { .. } => "wrong_region",
            Self::Permanent { .. } => "permanent",
            Self::TimedOut { .. } => "timed_out",
        }
    }

    pub(crate) fn permanent(message: impl Into<String>) -> Self {
        Self::Permanent { message: message.into() }
    }

    pub(crate) fn transient(message: impl Into<String>) -> Self {
        Self::Transient { message: message.into() }
    }

    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::Unreachable { message: message.into() }
    }
}
