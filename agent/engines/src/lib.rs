//! Engines: what the agent asks of the program that holds a pod's state, and who can be asked.
//!
//! ```text
//!   dying node     look ─ what is it, how much state? ─ quiesce ─ flush ─ files in the state volume ─► checkpoint::save
//!   replacement    prove ─ is it up, is it the same? ─ hand_over ─ it takes the files ─ verify ─ it uses them
//! ```
//!
//! Every call has a deadline, every answer a size limit, and nothing here discards state on a node that may
//! survive: there is no verb for it.

pub mod conformance;
pub mod contract;
pub mod files;
pub mod http;
pub mod llama_server;
pub mod target;

mod client;
mod error;

pub use error::EngineError;
pub use target::{EngineTarget, Scheme};

use async_trait::async_trait;
use checkpoint::chunk::Chunking;
use checkpoint::fingerprint::Fingerprint;
use evacuation::effect::FlushKind;
use evacuation::event::Verification;
use evacuation::moment::Moment;
use serde_json::{Map, Value};
use std::sync::Arc;

/// An engine of one pod.
///
/// Each call may be repeated after a restart of the agent: it then does no more than once what it does.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What it is, and how much state it has.
    ///
    /// # Errors
    /// [`EngineError`]; none of them says anything about the state itself.
    async fn look(&self, deadline: Moment) -> Result<Looked, EngineError>;

    /// Admits no new work from here on, so that a final flush finds an end. Work in flight goes on.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn quiesce(&self, deadline: Moment) -> Result<(), EngineError>;

    /// Takes [`Engine::quiesce`] back: the node lives on.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn resume(&self, deadline: Moment) -> Result<(), EngineError>;

    /// Has the engine write its state to the state volume. A [`FlushKind::PreCopy`] cuts nothing; a
    /// [`FlushKind::Final`] ends what still runs when its time comes, and then names what is missing.
    ///
    /// # Errors
    /// [`EngineError`]; then nothing that was flushed may be relied upon.
    async fn flush(
        &self,
        kind: FlushKind,
        checkpoint_id: &str,
        deadline: Moment,
    ) -> Result<Flushed, EngineError>;

    /// Evidence of the weights for a state whose final flush is over, where every look found the engine busy and none
    /// could be had: a state without evidence is restored nowhere. Only what the last flush has saved is disturbed, and it
    /// is put back: the notice may be withdrawn. Where evidence is known already, that is answered.
    ///
    /// # Errors
    /// [`EngineError`]; what was flushed is not less for it.
    async fn evidence(&self, deadline: Moment) -> Result<Fingerprint, EngineError>;

    /// Waits until the engine answers (it may still be loading) and compares it with `expected`.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] naming the first difference; [`EngineError::TimedOut`] if it never answered.
    async fn prove(&self, expected: &Fingerprint, deadline: Moment) -> Result<Proven, EngineError>;

    /// Has the engine take what is in the state volume: `facts` and the paths of `files` are those of the
    /// flush. Returns the tokens it took, where it counts any.
    ///
    /// # Errors
    /// [`EngineError`]; the engine is then left as empty as it can be made.
    async fn hand_over(
        &self,
        facts: &Map<String, Value>,
        files: &[String],
        deadline: Moment,
    ) -> Result<Option<u64>, EngineError>;

    /// Has the engine show whether it uses what it took. The state is afterwards what it was; of one that is not used
    /// the engine is left as empty as it can be made.
    ///
    /// # Errors
    /// [`EngineError`] if it could not be asked, which is no answer: [`Verification`] has those.
    async fn verify(&self, facts: &Map<String, Value>, deadline: Moment)
    -> Result<Verification, EngineError>;
}

/// Answer to [`Engine::look`].
#[derive(Clone, Debug, PartialEq)]
pub struct Looked {
    /// What must be equal before its state is given to another engine.
    pub fingerprint: Fingerprint,
    /// Bytes that a final flush would write.
    pub state_bytes: u64,
    /// It is working on a request.
    pub busy: bool,
    /// Tokens that the first requests after a restore have found in its cache, as the engine itself counts them, since
    /// the last look. Each restored conversation counts once.
    pub tokens_found: u64,
}

/// Answer to [`Engine::prove`].
#[derive(Clone, Debug, PartialEq)]
pub struct Proven {
    /// What the engine says of itself, equal to what was expected.
    pub fingerprint: Fingerprint,
    /// Bytes of state that it already holds.
    pub state_bytes: u64,
}

/// Answer to [`Engine::flush`].
#[derive(Clone, Debug, PartialEq)]
pub struct Flushed {
    /// The files, in the state volume.
    pub files: Vec<FlushedFile>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// What the engine must be told at the restore; goes into the manifest.
    pub facts: Map<String, Value>,
    /// What is not among them, and why: empty if all of the state is. Otherwise the checkpoint is partial.
    pub missing: Vec<String>,
}

impl Flushed {
    /// Not all of the state is in the files.
    pub fn is_partial(&self) -> bool {
        !self.missing.is_empty()
    }
}

/// One flushed file.
#[derive(Clone, Debug, PartialEq)]
pub struct FlushedFile {
    /// Relative to the root of the state volume.
    pub path: String,
    /// Its size in bytes, checked.
    pub bytes: u64,
    /// How it is best cut to find what has not changed.
    pub chunking: Chunking,
}

/// The engines that are known: the values of `lifeboat.dev/engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum EngineKind {
    /// Contract v1 (docs/protocol.md).
    Http,
    /// llama.cpp's server, by its slots API.
    LlamaServer,
    /// A directory of files that are never written to again ([`files`]).
    Files,
}

impl EngineKind {
    /// Every kind.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// It answers at an address, and only once its pod runs.
    pub const fn has_api(self) -> bool {
        match self {
            EngineKind::Http | EngineKind::LlamaServer => true,
            EngineKind::Files => false,
        }
    }

    /// The annotation's value.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The kind of that name, `None` if it is not known.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }
}

/// The engine of `kind` at `target`.
///
/// # Errors
/// [`EngineError::Forbidden`] for an address that no pod has; [`EngineError::Unsupported`] for a scheme that this
/// build does not speak.
pub fn connect(kind: EngineKind, target: EngineTarget) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(match kind {
        EngineKind::Http => Arc::new(http::HttpEngine::new(target)?),
        EngineKind::LlamaServer => Arc::new(llama_server::LlamaServer::new(target)?),
        EngineKind::Files => Arc::new(files::FilesEngine::new(
            target.folder,
            target.compat_key,
            target.max_bytes,
            target.flush_timeout,
        )),
    })
}
