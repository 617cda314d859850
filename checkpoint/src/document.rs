//! The small JSON documents of the store: a version first, a size limit, and errors that name the document.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A document that cannot be read, or must not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Written by a newer lifeboat.
    #[error("{kind} format {found} is not known to this lifeboat (knows {known}): upgrade the agent")]
    UnknownFormat {
        /// Which document.
        kind: &'static str,
        /// The version it says.
        found: u64,
        /// The version this lifeboat knows.
        known: u64,
    },
    /// Not the shape that its version promises.
    #[error("the {kind} is malformed: {message}")]
    Malformed {
        /// Which document.
        kind: &'static str,
        /// Where and what.
        message: String,
    },
    /// Beyond a limit that protects the reader's memory.
    #[error("the {kind} has too much: {message}")]
    TooLarge {
        /// Which document.
        kind: &'static str,
        /// Which limit.
        message: String,
    },
}

/// The only field that every version of every document has.
#[derive(Deserialize)]
struct Head {
    format: u64,
}

/// Reads `kind`, whose version must be `known`.
///
/// The version is looked at before the shape, so that a newer document is refused for its version and not for a
/// field that this lifeboat happens not to know.
pub(crate) fn parse<T: DeserializeOwned>(
    kind: &'static str,
    known: u64,
    bytes: &[u8],
) -> Result<T, DocumentError> {
    let malformed = |error: serde_json::Error| DocumentError::Malformed { kind, message: error.to_string() };
    let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
    if head.format != known {
        return Err(DocumentError::UnknownFormat { kind, found: head.format, known });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

/// Writes `kind`, refusing what a reader would refuse.
pub(crate) fn encode<T: Serialize>(
    kind: &'static str,
    at_most: u64,
    value: &T,
) -> Result<Bytes, DocumentError> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| DocumentError::Malformed { kind, message: error.to_string() })?;
    if bytes.len() as u64 > at_most {
        let message = format!("{} bytes, at most {at_most} are allowed", bytes.len());
        return Err(DocumentError::TooLarge { kind, message });
    }
    Ok(bytes.into())
}
