//! Content names: BLAKE3 of the bytes, as 64 hex digits in keys and documents.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The BLAKE3 hash of some bytes, and so their name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash([u8; 32]);

/// A content name that is not 64 lower-case hex digits.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0:?} is not a content hash (64 lower-case hex digits)")]
pub struct BadHash(String);

impl ContentHash {
    /// The name of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl ContentHash {
    /// Whether it is the hash that was computed.
    pub(crate) fn is(&self, hash: &blake3::Hash) -> bool {
        self.0 == *hash.as_bytes()
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentHash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, BadHash> {
        // One spelling only: a name is a key in the store, and keys are compared byte by byte.
        let shown: String = text.chars().take(80).collect();
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(BadHash(shown));
        }
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| BadHash(shown))
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Finds the name of a pack: the BLAKE3 hash of the lengths and names of its blocks, one after the other. So the bytes are
/// hashed once, for their blocks, and two packs with one name hold the same bytes.
#[derive(Debug, Clone, Default)]
pub struct PackName(blake3::Hasher);

impl PackName {
    /// The next block, of `len` bytes.
    pub fn block(&mut self, name: ContentHash, len: u64) {
        self.0.update(&len.to_le_bytes());
        self.0.update(&name.0);
    }

    /// The next block, whose bytes were not hashed: known by two checksums only.
    pub(crate) fn unhashed(&mut self, fast: u128, crc64: Crc64, len: u64) {
        // No block that was hashed has this length.
        self.0.update(&(!len).to_le_bytes());
        self.0.update(&fast.to_le_bytes());
        self.0.update(&crc64.to_be_bytes());
    }

    /// Bytes behind the blocks that belong to none of them, for another name.
    pub(crate) fn salt(&mut self, salt: &[u8]) {
        self.0.update(salt);
    }

    /// The name.
    #[must_use]
    pub fn finish(&self) -> ContentHash {
        ContentHash(*self.0.finalize().as_bytes())
    }
}

/// A CRC64NVME checksum (the polynomial that S3 verifies on arrival), as 16 hex digits in documents.
///
/// It finds transport and storage errors for next to nothing; identity is [`ContentHash`]'s work.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crc64(u64);

impl Crc64 {
    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc_fast::crc64_nvme(bytes))
    }

    /// The big-endian bytes, which S3 wants in base64 in `x-amz-checksum-crc64nvme`.
    #[must_use]
    pub fn to_be_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// The checksum of bytes that come one after the other.
#[derive(Debug)]
pub(crate) struct Crc64Sum(crc_fast::Digest);

impl Default for Crc64Sum {
    fn default() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme))
    }
}

impl Crc64Sum {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(&self) -> Crc64 {
        Crc64(self.0.finalize())
    }
}

impl fmt::Debug for Crc64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Crc64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Crc64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if text.len() != 16 {
            return Err(serde::de::Error::custom("a CRC64 is 16 hex digits"));
        }
        u64::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A random nonce of 128 bits in hex, so that two writers never produce the same document.
#[must_use]
pub fn nonce() -> String {
    format!("{:032x}", fastrand::u128(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_has_one_spelling() {
        let hash = ContentHash::of(b"state");
        assert_eq!(hash.to_string().parse::<ContentHash>().unwrap(), hash);
        assert!(hash.to_string().to_uppercase().parse::<ContentHash>().is_err());
        assert!("abc".parse::<ContentHash>().is_err());
    }

    #[test]
    fn the_name_of_a_pack_is_that_of_its_blocks_in_their_order() {
        let name = |blocks: &[&[u8]]| {
            let mut name = PackName::default();
            blocks.iter().for_each(|block| name.block(ContentHash::of(block), block.len() as u64));
            name.finish()
        };
        assert_eq!(name(&[b"a", b"b"]), name(&[b"a", b"b"]));
        let others = [name(&[b"b", b"a"]), name(&[b"a"]), name(&[b"ab"]), name(&[b"a", b"b", b""])];
        assert!(others.iter().all(|other| *other != name(&[b"a", b"b"])));
    }

    #[test]
    fn the_checksum_is_the_one_s3_knows() {
        // The check value of CRC-64/NVME in the catalogue of parametrised CRC algorithms.
        assert_eq!(Crc64::of(b"123456789").0, 0xae8b_1486_0a79_9888);
    }
}
