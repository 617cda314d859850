//! What a llama-server is: its properties, and a probe of its weights.
//!
//! The probe is a completion at temperature 0, and a completion needs a slot. It takes one that holds nothing, or else
//! an idle one, whose content is saved before and put back after. A busy slot is never touched. It is asked once in a
//! life of the server and remembered in `.lifeboat/fingerprint.json`; before a restore it is asked afresh.

use super::api::{Props, Slot};
use super::{Server, used_tokens};
use crate::client::QUICK;
use crate::{EngineError, EngineTarget};
use checkpoint::fingerprint::{Fingerprint, Probe};
use checkpoint::path::OURS;
use evacuation::moment::Moment;
use host::{clock, small_file};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Plain words: nothing in it is a special token of any vocabulary.
const PROMPT: &str = "The keeper of the lighthouse counted seven ships and wrote";
/// Where it is remembered.
const REMEMBERED: &str = ".lifeboat/fingerprint.json";
const REMEMBERED_MAX: u64 = 64 * 1024;
/// A slot's own content while it is probed, and the probe's.
const KEPT: &str = "lifeboat-probe-keep.bin";
const PROBED: &str = "lifeboat-probe.bin";
/// Assumed before anything was measured: a small model's KV cache.
const BYTES_PER_TOKEN: u64 = 32 * 1024;

/// A llama-server's identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// [`EngineTarget::life`].
    life: String,
    /// What `/props` says.
    facts: BTreeMap<String, String>,
    /// What its weights say.
    probe: Option<Probe>,
    /// Bytes that one token takes in a slot file, measured on the probe.
    bytes_per_token: Option<u64>,
}

impl Identity {
    pub(super) fn fingerprint(&self, target: &EngineTarget) -> Fingerprint {
        let mut facts = target.facts.clone();
        facts.extend(self.facts.clone());
        Fingerprint { facts, probe: self.probe.clone(), compat_key: target.compat_key.clone() }
    }

    /// An estimate; a flush knows better.
    pub(super) fn state_bytes(&self, slots: &[Slot]) -> u64 {
        used_tokens(slots).saturating_mul(self.bytes_per_token.unwrap_or(BYTES_PER_TOKEN))
    }
}

/// The identity, from memory or the volume where they speak of this life, probed otherwise. Without the probe if every
/// slot is busy.
pub(super) async fn known(server: &Arc<Server>, deadline: Moment) -> Result<Identity, EngineError> {
    let facts = facts(&server.props(deadline).await?);
    let speaks_of_this = |identity: &Identity| {
        identity.life == server.target.life && identity.facts == facts && identity.probe.is_some()
    };
    if let Some(identity) = server.identity.lock().await.as_ref().filter(|known| speaks_of_this(known)) {
        return Ok(identity.clone());
    }
    let remembered = small_file::read(&server.target.folder, REMEMBERED, REMEMBERED_MAX).await.ok();
    let remembered = remembered.and_then(|bytes| serde_json::from_slice::<Identity>(&bytes).ok());
    if let Some(identity) = remembered.filter(speaks_of_this) {
        *server.identity.lock().await = Some(identity.clone());
        return Ok(identity);
    }
    match fresh(server, deadline).await {
        Err(EngineError::Throttled { .. }) => {
            Ok(Identity { life: server.target.life.clone(), facts, probe: None, bytes_per_token: None })
        }
        identity => identity,
    }
}

/// The identity, probed now.
///
/// # Errors
/// [`EngineError::Throttled`] if every slot is busy.
pub(super) async fn fresh(server: &Arc<Server>, deadline: Moment) -> Result<Identity, EngineError> {
    let facts = facts(&server.props(deadline).await?);
    // A task of its own: if we are no longer waited for, the slot is put back all the same.
    let task = tokio::spawn({
        let server = Arc::clone(server);
        async move { probe(&server, deadline).await }
    });
    let (probe, bytes_per_token) = task.await.unwrap_or_else(|error| {
        Err(EngineError::Failed {
            at: server.base().to_owned(),
            why: format!("the probe was cut off: {error}"),
        })
    })?;
    let identity = Identity { life: server.target.life.clone(), facts, probe: Some(probe), bytes_per_token };
    *server.identity.lock().await = Some(identity.clone());
    // Only a convenience for the agent's next start.
    if let Ok(bytes) = serde_json::to_vec(&identity)
        && let Err(error) = small_file::write(&server.target.folder, OURS, REMEMBERED, bytes).await
    {
        tracing::debug!(%error, "the fingerprint is not remembered");
    }
    Ok(identity)
}

fn facts(props: &Props) -> BTreeMap<String, String> {
    // The path differs where the same image is mounted elsewhere; the weights are what the probe is for.
    let model = props.model_path.rsplit('/').next().unwrap_or_default();
    let mut facts = BTreeMap::from([
        ("engine".to_owned(), "llama-server".to_owned()),
        ("build".to_owned(), props.build_info.clone()),
        ("model".to_owned(), model.to_owned()),
        ("slots".to_owned(), props.total_slots.to_string()),
        ("context".to_owned(), props.default_generation_settings.n_ctx.to_string()),
    ]);
    if let Some(quantisation) = &props.model_ftype {
        facts.insert("quantisation".to_owned(), quantisation.clone());
    }
    facts.retain(|_, value| value.len() <= 1024);
    facts
}

async fn probe(server: &Server, deadline: Moment) -> Result<(Probe, Option<u64>), EngineError> {
    let _alone = server.alone(deadline).await?;
    let slots = server.slots(deadline).await?;
    let idle = slots.iter().filter(|slot| !slot.is_processing);
    // One that holds nothing, or else the one that was used longest ago.
    let chosen = idle.min_by_key(|slot| (slot.n_prompt_tokens.unwrap_or(0) > 0, slot.id_task));
    let all_busy = || EngineError::Throttled {
        at: server.base().to_owned(),
        why: "every slot is busy: the weights are probed when one is idle".to_owned(),
    };
    let slot = chosen.ok_or_else(all_busy)?.id;
    // Saved in any case: a slot that was restored and not used since looks empty in the listing.
    let kept = super::saving::save_unless_busy(server, slot, KEPT, deadline).await?.ok_or_else(all_busy)?;
    let answered = ask(server, slot, deadline).await;
    // Put back whatever happened, even if our time is over.
    let cleaning = deadline.max(clock::now() + QUICK);
    let put_back = async {
        if kept.n_saved > 0 {
            server.restore(slot, KEPT, cleaning).await.map(drop)
        } else {
            server.erase(slot, cleaning).await
        }
    };
    let put_back = put_back.await;
    for file in [KEPT, PROBED] {
        // Not there: --slot-save-path leads elsewhere, which the flush explains.
        let _ = small_file::remove(&server.target.folder, file).await;
    }
    put_back?;
    answered
}

async fn ask(server: &Server, slot: u64, deadline: Moment) -> Result<(Probe, Option<u64>), EngineError> {
    let request = json!({
        "prompt": PROMPT,
        "n_predict": 6,
        "temperature": 0,
        "seed": 1,
        "n_probs": 3,
        "cache_prompt": false,
        "return_tokens": true,
        "id_slot": slot,
    });
    let answer = server.complete(&request, deadline).await?;
    if answer.id_slot != slot {
        let why = format!("it was asked to use slot {slot} and used slot {}", answer.id_slot);
        return Err(EngineError::BrokenPromise { at: server.base().to_owned(), why });
    }
    let top_logprobs = answer
        .completion_probabilities
        .iter()
        .take(64)
        .map(|position| {
            position.top_logprobs.iter().take(16).map(|top| (top.id, top.logprob)).collect::<Vec<_>>().into()
        })
        .collect();
    let probe = Probe {
        prompt: PROMPT.to_owned(),
        tokens: answer.tokens.into_iter().take(64).collect(),
        top_logprobs,
    };
    let measured = server.save(slot, PROBED, deadline).await.ok();
    let bytes_per_token = measured.and_then(|saved| saved.n_written.checked_div(saved.n_saved));
    Ok((probe, bytes_per_token))
}
