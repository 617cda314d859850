//! The JSON of contract v1, as it crosses the wire (docs/protocol.md is its specification).
//!
//! The client, our sidecar and the conformance test share these types. Unknown fields are ignored on both
//! sides, so that a later minor revision may add some; a missing field that must be there is an error.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Where every path of the contract begins.
pub const PREFIX: &str = "/lifeboat/v1";

/// The contract's number: `protocol` in [`Info`].
pub const PROTOCOL: u64 = 1;

/// Answer to `GET /lifeboat/v1/info`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// [`PROTOCOL`].
    pub protocol: u64,
    /// The engine's name: `acme-serve`.
    pub engine: String,
    /// Its version or build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// What must be equal before state may be restored: model, KV type and shape, …
    pub fingerprint: BTreeMap<String, String>,
    /// What shows which weights are loaded. Without it nothing is restored unless the user vouches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// Bytes that a final flush would write now.
    pub state_bytes: u64,
    /// It is working on a request.
    pub busy: bool,
    /// It admits no new work (after quiesce).
    #[serde(default)]
    pub quiesced: bool,
    /// What it took last, and uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// Evidence of the weights: one of the two is enough, a digest is the better one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// A digest over the weights that are loaded, with its algorithm: `blake3:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What the loaded model says to a fixed prompt at temperature 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeAnswer>,
}

/// The greedy continuation of a fixed prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// The prompt, word for word.
    pub prompt: String,
    /// Token ids.
    pub tokens: Vec<i64>,
    /// Per token the most likely candidates: id and natural log-probability.
    pub top_logprobs: Vec<Vec<(i64, f64)>>,
}

/// What an engine took by `restore` and still holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// The checkpoint it came from.
    pub checkpoint_id: String,
    /// Bytes of state.
    pub bytes: u64,
    /// Tokens, where the engine counts any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
}

/// Body of `POST quiesce` and `POST resume`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bounded {
    /// Milliseconds until the caller no longer wants the answer.
    pub time_left_ms: u64,
}

/// Which flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlushRound {
    /// While it serves: idle state only, nothing is cut.
    Precopy,
    /// The last one: what is running is cut.
    Final,
}

/// Body of `POST flush`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlushRequest {
    /// Names the checkpoint: the same id again is the same flush.
    pub checkpoint_id: String,
    /// Which flush.
    pub round: FlushRound,
    /// Milliseconds left.
    pub time_left_ms: u64,
    /// No more than this many bytes of files (413 if that cannot be).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

/// Body of `POST restore`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// The checkpoint.
    pub checkpoint_id: String,
    /// Its files, which are in the state volume under these paths.
    pub files: Vec<String>,
    /// What the flush answered as `facts`.
    pub facts: Map<String, Value>,
    /// Milliseconds left.
    pub time_left_ms: u64,
}

/// One file of a flush.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to the root of the state volume.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its BLAKE3 hash in hex, where the engine knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// How its content differs from one flush to the next.
    #[serde(default)]
    pub changes: Changes,
}

/// How a file's content differs from one flush to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Changes {
    /// It is overwritten in place, or nothing is known.
    #[default]
    InPlace,
    /// Insertions move what follows: cut by content, not at fixed offsets.
    Shifting,
    /// Bytes are only added at its end: those before are not read again.
    AppendOnly,
    /// Its name is its content: a file of the same name and size is not read again.
    Never,
}

/// How an operation stands: the answer of `GET operations/{id}`, and the 200 of flush and restore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Operation {
    /// It goes on.
    Running {
        /// Bytes done so far.
        #[serde(default)]
        bytes_done: u64,
        /// Bytes in all, where known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes_total: Option<u64>,
    },
    /// It is done; for a flush with what it wrote, for a restore with what was taken.
    Done(Box<DoneAnswer>),
    /// It failed.
    Failed {
        /// For people.
        error: String,
    },
}

/// What a finished flush or restore says. A flush fills `files`, a restore `tokens`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DoneAnswer {
    /// A flush's files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileEntry>,
    /// What the engine wants to be given back at the restore.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub facts: Map<String, Value>,
    /// What is not in it, and why: empty if all of the state is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// A restore's tokens, where the engine counts any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// A restore's bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// A 202: poll `GET operations/{operation}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The operation's id: letters, digits, `-`, `_` and `.`, at most 128.
    pub operation: String,
}

/// Any answer that is not a success.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// For people: what, and what to do.
    #[serde(default)]
    pub error: String,
}
