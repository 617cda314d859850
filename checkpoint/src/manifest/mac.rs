//! A MAC under a key that only the operator's agents have, for buckets that others can write to.

use std::fmt;

use bytes::Bytes;

const BEFORE: &str = ",\"mac\":\"";
const AFTER: &str = "\"}";
/// What signing adds, in bytes.
pub(super) const LENGTH: u64 = (BEFORE.len() + 64 + AFTER.len()) as u64;

/// The operator's key. It never appears in a log.
#[derive(Clone)]
pub struct MacKey([u8; 32]);

impl MacKey {
    /// Derives the key from a secret of any length.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        Self(blake3::derive_key("lifeboat manifest mac v1", secret))
    }

    /// Adds the MAC as the last member of a JSON object.
    ///
    /// It covers the very bytes before it: nothing has to be written twice in the same way to be verified.
    pub(super) fn sign(&self, document: &[u8]) -> Bytes {
        let mac = blake3::keyed_hash(&self.0, document).to_hex();
        let open = document.strip_suffix(b"}").unwrap_or(document);
        [open, BEFORE.as_bytes(), mac.as_bytes(), AFTER.as_bytes()].concat().into()
    }

    pub(super) fn verify(&self, signed: &[u8]) -> Result<(), &'static str> {
        const ABSENT: &str =
            "it has no MAC, and this agent has a key: it was not written by an agent of this operator";
        let open = signed.strip_suffix(AFTER.as_bytes()).ok_or(ABSENT)?;
        let (open, mac) = open.split_at_checked(open.len().saturating_sub(64)).ok_or(ABSENT)?;
        let open = open.strip_suffix(BEFORE.as_bytes()).ok_or(ABSENT)?;
        let mac = blake3::Hash::from_hex(mac).map_err(|_| ABSENT)?;
        let document = [open, b"}"].concat();
        // blake3::Hash compares in constant time.
        if blake3::keyed_hash(&self.0, &document) == mac {
            Ok(())
        } else {
            Err("its MAC does not match this operator's key")
        }
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(…)")
    }
}
