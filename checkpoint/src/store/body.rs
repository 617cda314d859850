//! Bytes on their way to and from a store.

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};

use super::StoreError;
use crate::hash::Crc64;

/// What a `put` writes. It lies in memory: a body that the SDK reads while it sends costs nearly twice the CPU (measured
/// with aws-sdk-s3 1.157 over TLS: 1.5 CPU seconds per GB, 0.9 when it is read first), and cannot be sent again.
#[derive(Debug, Clone)]
pub struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) crc64: Option<Crc64>,
}

impl Body {
    /// Bytes whose checksum is known: whoever filled them has summed them while they were in the cache.
    #[must_use]
    pub fn summed(bytes: Bytes, crc64: Crc64) -> Self {
        Self { bytes, crc64: Some(crc64) }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, crc64: None }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

/// What a `get_range` reads, as it arrives. It ends early, with an error, when the connection does.
pub type ByteStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// All of a stream, which must not be longer than `at_most` bytes. `key` is for the message.
///
/// # Errors
/// The stream's own; [`StoreError::Permanent`] if it is too long.
pub async fn collect(mut stream: ByteStream, at_most: u64, key: &str) -> Result<Bytes, StoreError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = stream.next().await {
        let frame = frame?;
        if bytes.is_empty() && frame.len() as u64 == at_most {
            return Ok(frame);
        }
        let len = bytes.len() as u64 + frame.len() as u64;
        if len > at_most {
            return Err(too_large(key, len, at_most));
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes.freeze())
}

/// An object that would fill memory.
pub(super) fn too_large(key: &str, size: u64, at_most: u64) -> StoreError {
    StoreError::permanent(format!(
        "{key} has {size} bytes, at most {at_most} are expected: it is not one of ours"
    ))
}
