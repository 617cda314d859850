//! What runs in the containers: our own sidecar as engine, or a real llama-server.

use super::cast::{Member, Part, TOKEN_FILE};
use super::llama::{LlamaOptions, LlamaServer};
use crate::cast::{Place, TOKEN};
use evacuation::moment::Span;
use fakes::sidecar::{Behaviour, Sidecar, SidecarOptions, StateSeed};
use fault_plan::Fault;
use fault_plan::drill::window;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// Which engine, and what goes wrong with it.
#[derive(Debug)]
pub struct EngineRoom {
    /// The engines' kind.
    pub engine: EngineChoice,
    /// The plan's `engine` faults.
    pub faults: Vec<Fault>,
}

/// `--engine`.
#[derive(Clone, Debug)]
pub enum EngineChoice {
    /// lifeboat's own contract, spoken by [`Sidecar`].
    Http {
        /// Bytes of state of each stateful pod.
        bytes: u64,
        /// Makes the state.
        seed: u64,
    },
    /// llama.cpp's server.
    Llama(LlamaOptions),
}

/// A running container.
#[derive(Debug)]
pub enum Engine {
    /// Our sidecar.
    Sidecar(Sidecar),
    /// A real engine.
    Llama(Box<LlamaServer>),
    /// A container that only exists.
    Idle,
}

/// Why a container does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The sidecar.
    #[error("the engine cannot start")]
    Sidecar(#[from] fakes::sidecar::SidecarError),
    /// llama-server.
    #[error(transparent)]
    Llama(#[from] super::talk::LlamaError),
    /// The token cannot be put into the state volume.
    #[error("the state volume cannot be written")]
    Volume(#[from] std::io::Error),
}

impl EngineRoom {
    /// Starts a pod's container.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start(
        &self,
        member: &Member,
        place: Place,
        ip: Ipv4Addr,
        port: u16,
        volume: &Path,
    ) -> Result<Engine, EngineError> {
        if !member.has_state() {
            return Ok(Engine::Idle);
        }
        std::fs::write(volume.join(TOKEN_FILE), TOKEN)?;
        let other_weights = place == Place::Replacement
            && self
                .faults
                .iter()
                .any(|f| f.kind.outcome == "other-weights" && f.object.as_deref() == Some(member.name));
        match &self.engine {
            EngineChoice::Http { bytes, seed } => {
                let weights = if other_weights { "blake3:0b5e7e" } else { "blake3:77e167" };
                let facts = [
                    ("engine", "drill-engine"),
                    ("engine_version", "1.0"),
                    ("model", member.name),
                    ("weights", weights),
                ];
                let state =
                    StateSeed { seed: seed.wrapping_add(member.priority as u64), bytes: *bytes, files: 4 };
                let options = SidecarOptions {
                    listen: SocketAddr::new(IpAddr::V4(ip), port),
                    state_dir: volume.to_owned(),
                    state: (place == Place::Source).then_some(state),
                    token: Some(TOKEN.to_owned()),
                    facts: facts
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .into_iter()
                        .collect::<BTreeMap<_, _>>(),
                    // A flush takes about a second, whatever the size: faults have something to strike.
                    bytes_per_second: Some((*bytes).max(1)),
                };
                let sidecar = Sidecar::start(options).await?;
                // The most important engine is in the middle of an answer when the notice comes.
                sidecar.generating(place == Place::Source && member.part == Part::HeldState);
                Ok(Engine::Sidecar(sidecar))
            }
            EngineChoice::Llama(options) => {
                // `--other-weights` alone is for every replacement.
                let other_weights = other_weights || (place == Place::Replacement && !self.swaps_one());
                let server =
                    LlamaServer::start(options, member.name, other_weights, ip, port, volume).await?;
                Ok(Engine::Llama(Box::new(server)))
            }
        }
    }

    /// The plan names whose weights are others.
    fn swaps_one(&self) -> bool {
        self.faults.iter().any(|fault| fault.kind.outcome == "other-weights")
    }

    /// What goes wrong with this source engine: from when to when after the notice, and how.
    pub fn troubles(&self, member: &Member) -> Vec<(Span, Option<Span>, Behaviour)> {
        let own = self.faults.iter().filter(|fault| fault.object.as_deref() == Some(member.name));
        own.filter_map(|fault| {
            let behaviour = match fault.kind.outcome {
                "hang" => Behaviour::Hang,
                "lies" => Behaviour::Lies,
                "html" => Behaviour::Html,
                "restarts" => Behaviour::Restarted,
                _ => return None,
            };
            let (from, until) = window(fault);
            Some((from, until, behaviour))
        })
        .collect()
    }
}

impl Engine {
    /// A digest over its state, where it can be looked into.
    pub fn digest(&self) -> Option<String> {
        match self {
            Engine::Sidecar(sidecar) => Some(sidecar.state_digest()),
            Engine::Llama(_) | Engine::Idle => None,
        }
    }

    /// Serving changes some of the state, unless it is told not to serve.
    pub fn work(&self) {
        if let Engine::Sidecar(sidecar) = self
            && !sidecar.is_quiesced()
            && sidecar.state_bytes() > 0
        {
            sidecar.touch(0.002);
        }
    }

    /// Its last answer is complete.
    pub fn finish_answer(&self) {
        if let Engine::Sidecar(sidecar) = self {
            sidecar.generating(false);
        }
    }

    /// Ends it.
    pub async fn stop(self) {
        match self {
            Engine::Sidecar(sidecar) => sidecar.stop().await,
            Engine::Llama(server) => server.stop().await,
            // A web server that closes its connections.
            Engine::Idle => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
