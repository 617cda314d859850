//! llama.cpp's server, by its slots API (facts: `tools/server/README.md` of llama.cpp, and what build b11669 was
//! seen to do; the integration test repeats what matters here).
//!
//! * A slot is a conversation's KV cache. `action=save` writes it to a file below `--slot-save-path`, which must be the
//!   root of the pod's state volume; `action=restore` reads it back, on another server too.
//! * A save of a slot that generates waits for the end of the generation, and it is carried out even if we stop
//!   waiting. So a pre-copy never asks for a busy slot, each save goes to a name of its own and is renamed by us when
//!   it is complete, and a late one changes nothing that was counted.
//! * There is no verb that stops admitting requests or ends one. Quiescing is the endpoints' work; a generation that
//!   runs on past the deadline is not saved, and the checkpoint says so.
//! * The server does not look at weights when it restores. The fingerprint holds a probe: see [`identity`].

mod api;
mod facts;
mod first_requests;
mod identity;
mod restoring;
mod saved_slots;
mod saving;
mod slot_file;
#[cfg(test)]
mod tests;

use super::client::{Client, until_ready};
use super::{Engine, EngineError, EngineTarget, Flushed, Looked, Proven};
use api::Slot;
use async_trait::async_trait;
use checkpoint::fingerprint::Fingerprint;
use evacuation::effect::FlushKind;
use evacuation::event::Verification;
use evacuation::moment::{Moment, Span};
use first_requests::FirstRequests;
use host::clock;
use identity::Identity;
use saved_slots::SavedSlots;
use serde_json::{Map, Value};
use std::sync::Arc;
use tokio::sync::Mutex;

/// We are done this much before the deadline, so that what was reached is told and not lost with a timeout.
const RETURN: Span = Span::from_millis(250);

/// A llama-server.
#[derive(Clone, Debug)]
pub struct LlamaServer {
    server: Arc<Server>,
}

#[derive(Debug)]
struct Server {
    client: Client,
    target: EngineTarget,
    /// Held by whoever uses slots: a probe and a flush must not meet.
    slots: Mutex<()>,
    /// What is known of the server in this life.
    identity: Mutex<Option<Identity>>,
    /// What the first requests after a restore find.
    first_requests: FirstRequests,
    /// What its flushes have left in the state volume.
    saved: SavedSlots,
}

impl LlamaServer {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// As [`crate::connect`].
    pub fn new(target: EngineTarget) -> Result<Self, EngineError> {
        let client = Client::new(&target)?;
        let server = Server {
            client,
            target,
            slots: Mutex::default(),
            identity: Mutex::default(),
            first_requests: FirstRequests::default(),
            saved: SavedSlots::default(),
        };
        Ok(Self { server: Arc::new(server) })
    }
}

impl Server {
    fn base(&self) -> &str {
        self.client.base()
    }

    /// Runs alone among those that use slots.
    async fn alone(&self, deadline: Moment) -> Result<tokio::sync::MutexGuard<'_, ()>, EngineError> {
        let began = clock::now();
        tokio::time::timeout_at(clock::instant(deadline), self.slots.lock()).await.map_err(|_| {
            EngineError::TimedOut {
                at: self.base().to_owned(),
                waited_ms: clock::now().since(began).as_millis(),
                last: Some("a probe or another flush was still using its slots".to_owned()),
            }
        })
    }
}

#[async_trait]
impl Engine for LlamaServer {
    /// The probe is missing from the fingerprint as long as every slot is busy, or holds what cannot be saved first: look
    /// again.
    async fn look(&self, deadline: Moment) -> Result<Looked, EngineError> {
        let slots = self.server.slots(deadline).await?;
        let identity = identity::known(&self.server, deadline).await?;
        Ok(Looked {
            tokens_found: self.server.first_requests.answered(&slots),
            state_bytes: identity.state_bytes(&slots),
            busy: slots.iter().any(|slot| slot.is_processing),
            fingerprint: identity.fingerprint(&self.server.target),
        })
    }

    /// Nothing to call: the server admits requests as long as it runs.
    async fn quiesce(&self, _deadline: Moment) -> Result<(), EngineError> {
        Ok(())
    }

    /// Nothing to take back.
    async fn resume(&self, _deadline: Moment) -> Result<(), EngineError> {
        Ok(())
    }

    async fn flush(
        &self,
        kind: FlushKind,
        _checkpoint_id: &str,
        deadline: Moment,
    ) -> Result<Flushed, EngineError> {
        let deadline = match kind {
            FlushKind::PreCopy => deadline,
            FlushKind::Final => deadline.min(clock::now() + self.server.target.flush_timeout),
        };
        saving::flush(&self.server, kind, deadline - RETURN).await
    }

    async fn prove(&self, expected: &Fingerprint, deadline: Moment) -> Result<Proven, EngineError> {
        let server = &self.server;
        let (slots, identity) = until_ready(server.base(), deadline, || async {
            server.healthy(deadline).await?;
            let slots = server.slots(deadline).await?;
            // Never from what was kept: this is the moment for which the probe exists.
            Ok((slots, identity::fresh(server, deadline).await?))
        })
        .await?;
        let fingerprint = identity.fingerprint(&server.target);
        expected
            .compare(&fingerprint)
            .map_err(|why| EngineError::Mismatch { at: server.base().to_owned(), why: why.to_string() })?;
        Ok(Proven { state_bytes: identity.state_bytes(&slots), fingerprint })
    }

    async fn hand_over(
        &self,
        facts: &Map<String, Value>,
        files: &[String],
        deadline: Moment,
    ) -> Result<Option<u64>, EngineError> {
        restoring::hand_over(&self.server, facts, files, deadline).await.map(Some)
    }

    async fn evidence(&self, deadline: Moment) -> Result<Fingerprint, EngineError> {
        let identity = identity::after_flush(&self.server, deadline).await?;
        Ok(identity.fingerprint(&self.server.target))
    }

    async fn verify(
        &self,
        facts: &Map<String, Value>,
        deadline: Moment,
    ) -> Result<Verification, EngineError> {
        restoring::verify(&self.server, facts, deadline).await
    }
}

/// Slots that hold something, as far as the listing tells: a restored slot that has not run a task shows nothing.
fn used_tokens(slots: &[Slot]) -> u64 {
    slots.iter().filter_map(|slot| slot.n_prompt_tokens).fold(0, u64::saturating_add)
}
