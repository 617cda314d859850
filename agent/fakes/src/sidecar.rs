//! A small engine that speaks contract v1 (docs/protocol.md): the example for third parties, and the
//! engine of drills and tests.
//!
//! Its state is some bytes in memory. A flush writes them to the state volume, a restore reads them back,
//! and [`Sidecar::state_digest`] tells whether two sidecars hold the same, byte for byte. It also misbehaves on
//! request ([`Behaviour`]) in the ways that real engines do.

mod operation;
mod routes;
mod state;

use crate::sidecar::routes::SidecarState;
use crate::sidecar::state::State;
use evacuation::moment::Moment;
use host::clock;
use parking_lot::MutexGuard;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How a sidecar is started.
#[derive(Clone, Debug)]
pub struct SidecarOptions {
    /// Where it listens. Port 0 takes a free one: see [`Sidecar::addr`].
    pub listen: SocketAddr,
    /// The root of the state volume: flushed files go here.
    pub state_dir: PathBuf,
    /// The state to begin with; `None` starts empty, as a fresh replacement does.
    pub state: Option<StateSeed>,
    /// The bearer token it asks for, if any.
    pub token: Option<String>,
    /// `engine`, `engine_version` and `weights` (a digest) fill these fields of `info`; the rest is its
    /// fingerprint. Without `weights` it offers no evidence.
    pub facts: BTreeMap<String, String>,
    /// Bytes per second at which a flush writes and a restore reads; `None` is as fast as the disk.
    pub bytes_per_second: Option<u64>,
}

/// A state made from a seed: the same seed makes the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSeed {
    /// The seed.
    pub seed: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Over how many files they are spread (at least one).
    pub files: u32,
}

/// How it behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// As the contract says.
    #[default]
    Normal,
    /// Takes the request and never answers.
    Hang,
    /// Says that it flushed and wrote nothing.
    Lies,
    /// Flushes files of the right size with the wrong bytes.
    WritesGarbage,
    /// Answers every request with a web page.
    Html,
    /// Loses its state and its operations, as a container that restarts does; then behaves.
    Restarted,
}

/// One request it received.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// When.
    pub at: Moment,
    /// `GET` or `POST`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The JSON body, `Null` if there was none.
    pub body: serde_json::Value,
}

/// Why a sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The state volume is not there.
    #[error("{path} is not a directory: mount the state volume there, or name another with --state-dir")]
    NoStateDir {
        /// What was given.
        path: PathBuf,
    },
    /// The address is taken or not ours.
    #[error("cannot listen on {addr}: give a free address of this machine, or port 0")]
    Listen {
        /// What was asked for.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A running sidecar. Dropping it stops it.
#[derive(Debug)]
pub struct Sidecar {
    addr: SocketAddr,
    shared: Arc<SidecarState>,
    stopping: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Sidecar {
    /// Starts to listen. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`SidecarError`] if the state volume is not there or the address cannot be had.
    pub async fn start(options: SidecarOptions) -> Result<Self, SidecarError> {
        if !options.state_dir.is_dir() {
            return Err(SidecarError::NoStateDir { path: options.state_dir });
        }
        let refused = |source| SidecarError::Listen { addr: options.listen, source };
        let listener = tokio::net::TcpListener::bind(options.listen).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        let stopping = CancellationToken::new();
        let shared = Arc::new(SidecarState::new(options, stopping.clone()));
        let router = routes::router(Arc::clone(&shared));
        let stop = stopping.clone();
        let server = tokio::spawn(async move {
            let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = serving.await {
                tracing::warn!(%error, "the sidecar ended");
            }
        });
        Ok(Self { addr, shared, stopping, server })
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// BLAKE3 over the names and bytes of its state, in hex. Empty states have one digest.
    pub fn state_digest(&self) -> String {
        self.state().digest()
    }

    /// Bytes of its state.
    pub fn state_bytes(&self) -> u64 {
        self.state().bytes()
    }

    /// Every request so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().clone()
    }

    /// Behaves like this from the next request on.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        if behaviour == Behaviour::Restarted {
            self.shared.restart();
        }
        *self.shared.behaviour.lock() = behaviour;
    }

    /// Changes this fraction of the state's pages in place, as serving does. Returns the bytes changed.
    pub fn touch(&self, fraction: f64) -> u64 {
        self.state().touch(fraction)
    }

    /// Starts or ends a generation: it is `busy` meanwhile. A final flush cuts it.
    pub fn generating(&self, on: bool) {
        self.shared.status().busy = on;
    }

    /// A generation runs.
    pub fn is_busy(&self) -> bool {
        self.shared.status().busy
    }

    /// It admits no new work.
    pub fn is_quiesced(&self) -> bool {
        self.shared.status().quiesced
    }

    /// The state itself, as `path → bytes`, to compare byte for byte.
    pub fn state_files(&self) -> BTreeMap<String, bytes::Bytes> {
        self.state().files()
    }

    /// Stops listening and waits until its connections are closed, half a second at most.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        if tokio::time::timeout(Duration::from_millis(500), &mut self.server).await.is_err() {
            self.server.abort();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Not aborted: told to stop, it also closes the connections that it has.
        self.stopping.cancel();
    }
}

/// The moment of a call.
fn now() -> Moment {
    clock::now()
}

#[cfg(test)]
mod tests;
