//! How asking an engine can fail: one variant for each thing that a caller does differently.

use evacuation::event::FailureKind;
use std::net::IpAddr;

/// Why an engine could not be asked, or what it refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// It is not up (yet): asking again may help.
    #[error("the engine at {at} is not ready: {why}")]
    NotReady {
        /// Which call.
        at: String,
        /// What was seen.
        why: String,
    },
    /// The deadline came first.
    #[error("the engine at {at} did not finish within {waited_ms} ms{}", last.as_ref().map(|last| format!(" (before that: {last})")).unwrap_or_default())]
    TimedOut {
        /// Which call.
        at: String,
        /// How long was waited.
        waited_ms: u64,
        /// What was last seen.
        last: Option<String>,
    },
    /// What answers there is not that engine.
    #[error("engine at {at} {answered}: check lifeboat.dev/port and lifeboat.dev/engine")]
    NotTheEngine {
        /// Which call.
        at: String,
        /// What it did instead.
        answered: String,
    },
    /// It wants another token.
    #[error(
        "the engine at {at} answered {status}: put its bearer token into the state volume and name the file in \
         lifeboat.dev/auth-file"
    )]
    Denied {
        /// Which call.
        at: String,
        /// 401 or 403.
        status: u16,
    },
    /// It cannot do this, or is not set up for it.
    #[error("the engine at {at} cannot do this: {why}")]
    Unsupported {
        /// Which call.
        at: String,
        /// What to change.
        why: String,
    },
    /// It is busy with something that excludes this, or asks for fewer requests.
    #[error("the engine at {at} asks to wait: {why}")]
    Throttled {
        /// Which call.
        at: String,
        /// What it said.
        why: String,
    },
    /// The state does not fit the engine, or is not what was written.
    #[error("the state does not fit the engine at {at}: {why}")]
    Mismatch {
        /// Which engine.
        at: String,
        /// The first difference.
        why: String,
    },
    /// It said that it did something, and did not.
    #[error("the engine at {at} did not do what it said: {why}")]
    BrokenPromise {
        /// Which call.
        at: String,
        /// What was found.
        why: String,
    },
    /// Its state is larger than allowed.
    #[error("the engine at {at} would exceed lifeboat.dev/max-bytes: {why}")]
    TooLarge {
        /// Which call.
        at: String,
        /// How large.
        why: String,
    },
    /// It tried and failed.
    #[error("the engine at {at} failed: {why}")]
    Failed {
        /// Which call.
        at: String,
        /// What it said.
        why: String,
    },
    /// No pod has such an address.
    #[error("{ip} is not dialled: it is {what}, and no pod of this node has it")]
    Forbidden {
        /// The address.
        ip: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// The state volume cannot be read or written.
    #[error("the state volume: {0}")]
    Volume(String),
}

impl EngineError {
    /// How the core sees it.
    pub const fn kind(&self) -> FailureKind {
        match self {
            EngineError::NotReady { .. }
            | EngineError::TimedOut { .. }
            | EngineError::Failed { .. }
            | EngineError::BrokenPromise { .. }
            | EngineError::Volume(_) => FailureKind::Transient,
            EngineError::NotTheEngine { .. }
            | EngineError::Denied { .. }
            | EngineError::Unsupported { .. }
            | EngineError::TooLarge { .. }
            | EngineError::Forbidden { .. } => FailureKind::Permanent,
            EngineError::Throttled { .. } => FailureKind::Throttled,
            EngineError::Mismatch { .. } => FailureKind::Mismatch,
        }
    }
}
