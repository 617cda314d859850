//! Where things lie in the store.
//!
//! ```text
//! v1/<cluster>/<shard>/<namespace>/<workload>/
//!     pack/<blake3>                       immutable bytes, shared by the workload's lineages
//!     manifest/<blake3>.json              what they mean, likewise
//!     lineage/<id>/gen/<epoch>-<n>        commits, 16 hex digits each
//!     lineage/<id>/intent
//!     lineage/<id>/claim
//!     verdict/<digest>                    whether engines used states with this fingerprint
//!     tombstone/pack-<blake3>             what nothing names, until it is removed; likewise manifest-<blake3>
//! v1/<cluster>/report/<node>/<id>.json
//! v1/<cluster>/fleet/ledger.json              which reports the fleet role has counted
//! v1/<cluster>/erased/<namespace>/<id>.json   who had what erased
//! preflight/<nonce>/...
//! ```
//!
//! The shard is two hex digits of the workload's hash, so that a fleet does not share one S3 prefix partition.
//! The namespace is a component of its own and is never chosen by an annotation: namespaces share nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::hash::ContentHash;

/// A name that cannot be part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} cannot be part of a key: {why}")]
pub struct KeyError {
    what: &'static str,
    name: String,
    why: &'static str,
}

/// The workload whose replicas share packs: its cluster, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "RawWorkload")]
pub struct Workload {
    cluster: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWorkload {
    cluster: String,
    namespace: String,
    name: String,
}

impl TryFrom<RawWorkload> for Workload {
    type Error = KeyError;

    fn try_from(raw: RawWorkload) -> Result<Self, KeyError> {
        Self::new(&raw.cluster, &raw.namespace, &raw.name)
    }
}

impl Workload {
    /// Names a workload. `name` tells kinds apart if the caller wants it to (`deployment.llama`).
    ///
    /// # Errors
    /// If a part is not a Kubernetes name (letters, digits, `-` and `.`; a cluster may also have `_`).
    pub fn new(cluster: &str, namespace: &str, name: &str) -> Result<Self, KeyError> {
        // EKS cluster names may contain upper case and underscores; neither can lead anywhere.
        component("cluster", cluster, |byte| byte.is_ascii_uppercase() || byte == b'_')?;
        component("namespace", namespace, |_| false)?;
        component("workload", name, |_| false)?;
        Ok(Self { cluster: cluster.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The pod's own namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The workload's name within its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything of this workload, with a slash at the end.
    #[must_use]
    pub fn prefix(&self) -> String {
        let Self { cluster, namespace, name } = self;
        let shard = &ContentHash::of(format!("{cluster}/{namespace}/{name}").as_bytes()).to_string()[..2];
        format!("v1/{cluster}/{shard}/{namespace}/{name}/")
    }

    /// All packs of this workload.
    #[must_use]
    pub fn packs(&self) -> String {
        format!("{}pack/", self.prefix())
    }

    /// One pack.
    #[must_use]
    pub fn pack(&self, hash: ContentHash) -> String {
        format!("{}pack/{hash}", self.prefix())
    }

    /// One manifest.
    #[must_use]
    pub fn manifest(&self, hash: ContentHash) -> String {
        format!("{}manifest/{hash}.json", self.prefix())
    }

    /// All manifests.
    #[must_use]
    pub fn manifests(&self) -> String {
        format!("{}manifest/", self.prefix())
    }

    /// All tombstones.
    #[must_use]
    pub fn tombstones(&self) -> String {
        format!("{}tombstone/", self.prefix())
    }

    /// All lineages.
    #[must_use]
    pub fn lineages(&self) -> String {
        format!("{}lineage/", self.prefix())
    }

    /// All generations of a lineage.
    #[must_use]
    pub fn generations(&self, lineage: &LineageId) -> String {
        format!("{}lineage/{lineage}/gen/", self.prefix())
    }

    /// One generation.
    #[must_use]
    pub fn generation(&self, lineage: &LineageId, number: GenerationNumber) -> String {
        format!("{}lineage/{lineage}/gen/{number}", self.prefix())
    }

    /// The intent of a lineage.
    #[must_use]
    pub fn intent(&self, lineage: &LineageId) -> String {
        format!("{}lineage/{lineage}/intent", self.prefix())
    }

    /// What engines showed of states with this fingerprint.
    #[must_use]
    pub fn verdict(&self, fingerprint: &Fingerprint) -> String {
        format!("{}verdict/{}", self.prefix(), fingerprint.digest())
    }

    /// The claim on a lineage.
    #[must_use]
    pub fn claim(&self, lineage: &LineageId) -> String {
        format!("{}lineage/{lineage}/claim", self.prefix())
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cluster, self.namespace, self.name)
    }
}

/// The report of one evacuation.
///
/// # Errors
/// If a part cannot be part of a key.
pub fn report(cluster: &str, node: &str, id: &str) -> Result<String, KeyError> {
    component("cluster", cluster, |byte| byte.is_ascii_uppercase() || byte == b'_')?;
    component("node", node, |_| false)?;
    component("report id", id, |byte| byte.is_ascii_uppercase() || byte == b'_')?;
    Ok(format!("v1/{cluster}/report/{node}/{id}.json"))
}

/// All reports of a cluster, with a slash at the end.
///
/// # Errors
/// If the cluster's name cannot be part of a key.
pub fn reports(cluster: &str) -> Result<String, KeyError> {
    component("cluster", cluster, |byte| byte.is_ascii_uppercase() || byte == b'_')?;
    Ok(format!("v1/{cluster}/report/"))
}

/// What the fleet role keeps: which reports it has counted.
///
/// # Errors
/// If the cluster's name cannot be part of a key.
pub fn ledger(cluster: &str) -> Result<String, KeyError> {
    component("cluster", cluster, |byte| byte.is_ascii_uppercase() || byte == b'_')?;
    Ok(format!("v1/{cluster}/fleet/ledger.json"))
}

/// The record of one erasure. It lies outside what is erased, so it stays.
///
/// # Errors
/// If a part cannot be part of a key.
pub fn erasure(cluster: &str, namespace: &str, id: &str) -> Result<String, KeyError> {
    component("cluster", cluster, |byte| byte.is_ascii_uppercase() || byte == b'_')?;
    component("namespace", namespace, |_| false)?;
    component("erasure id", id, |_| false)?;
    Ok(format!("v1/{cluster}/erased/{namespace}/{id}.json"))
}

/// One replica's history: a StatefulSet pod's name, or a pod's uid.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LineageId(String);

impl LineageId {
    /// Names a lineage.
    ///
    /// # Errors
    /// If it is not a Kubernetes name or uid.
    pub fn new(id: &str) -> Result<Self, KeyError> {
        component("lineage", id, |_| false)?;
        Ok(Self(id.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LineageId {
    type Error = KeyError;

    fn try_from(id: String) -> Result<Self, KeyError> {
        Self::new(&id)
    }
}

impl From<LineageId> for String {
    fn from(id: LineageId) -> Self {
        id.0
    }
}

impl fmt::Display for LineageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The place of a generation in its lineage. A higher epoch always wins; within one, a higher `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GenerationNumber {
    /// The epoch of the claim under which it was written.
    pub epoch: u64,
    /// Counts up over the whole lineage.
    pub n: u64,
}

impl GenerationNumber {
    /// Reads the last component of a generation's key; `None` for anything but two times 16 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, n) = text.split_once('-')?;
        let number = |digits: &str| {
            let plain = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let parsed = Self { epoch: number(epoch)?, n: number(n)? };
        // One spelling only: two keys must not name one generation.
        (parsed.to_string() == text).then_some(parsed)
    }
}

impl fmt::Display for GenerationNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.epoch, self.n)
    }
}

fn component(what: &'static str, name: &str, also: impl Fn(u8) -> bool) -> Result<(), KeyError> {
    let refuse = |why| Err(KeyError { what, name: name.chars().take(80).collect(), why });
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || also(byte);
    match (name.as_bytes().first(), name.as_bytes().last()) {
        (None, _) | (_, None) => refuse("it is empty"),
        _ if name.len() > 253 => refuse("it is longer than 253 characters"),
        (Some(first), Some(last)) if !plain(*first) || !plain(*last) => {
            refuse("it must begin and end with a letter or digit")
        }
        _ if !name.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'.') => {
            refuse("only lower-case letters, digits, '-' and '.' are allowed")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_has_its_own_prefix_with_a_shard() {
        let workload = Workload::new("prod_EU-1", "chat", "deployment.llama").unwrap();
        let prefix = workload.prefix();
        let parts: Vec<_> = prefix.split('/').collect();
        assert_eq!(
            (parts[0], parts[1], parts[3], parts[4], parts[5]),
            ("v1", "prod_EU-1", "chat", "deployment.llama", "")
        );
        assert_eq!(parts[2].len(), 2);
        assert!(workload.pack(ContentHash::of(b"x")).starts_with(&workload.packs()));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused_by_name() {
        for name in ["", "..", ".", "a/b", "/a", "a b", "A", "-a", "a.", "a\0b", "ä", &"a".repeat(254)] {
            let error = Workload::new("c", name, "w").unwrap_err().to_string();
            assert!(error.contains("namespace"), "{error}");
            assert!(LineageId::new(name).is_err());
            assert!(report("c", name, "i").is_err());
        }
        for cluster in ["", "..", "a/b", "a b"] {
            assert!(reports(cluster).is_err() && ledger(cluster).is_err(), "{cluster}");
        }
        assert!(report("c", "n", "i").unwrap().starts_with(&reports("c").unwrap()));
    }

    #[test]
    fn a_generation_number_has_one_spelling_and_epoch_comes_first() {
        let number = GenerationNumber { epoch: 2, n: 0x1f };
        assert_eq!(number.to_string(), "0000000000000002-000000000000001f");
        assert_eq!(GenerationNumber::parse(&number.to_string()), Some(number));
        for bad in [
            "",
            "2-1f",
            "0000000000000002-000000000000001F",
            "000000000000002x-0000000000000001",
            "+000000000000002-0000000000000001",
        ] {
            assert_eq!(GenerationNumber::parse(bad), None, "{bad}");
        }
        assert!(number > GenerationNumber { epoch: 1, n: u64::MAX });
    }
}
