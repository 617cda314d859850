//! What a llama-server is: its properties, and a probe of its weights.
//!
//! The probe is a completion at temperature 0, and a completion needs a slot. It takes one that holds nothing, or else
//! an idle one, whose content is saved before and put back after. A busy slot is never touched, nor one whose content
//! cannot be saved. It is asked once in a life of the server and remembered in `.lifeboat/fingerprint.json`; before a
//! restore it is asked afresh. A server that was busy at every look is asked after its last flush, in a slot that this
//! flush has saved.

use super::api::{Props, Saved, Slot, Unsaved};
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

/// Why there is no probe.
enum Unprobed {
    /// No slot can be borrowed for it now: each is busy, or holds what cannot be saved first.
    NoSlot(EngineError),
    /// It was asked, or could not be.
    Failed(EngineError),
}

impl From<EngineError> for Unprobed {
    fn from(error: EngineError) -> Self {
        Unprobed::Failed(error)
    }
}

impl From<Unprobed> for EngineError {
    fn from(unprobed: Unprobed) -> Self {
        match unprobed {
            Unprobed::NoSlot(error) | Unprobed::Failed(error) => error,
        }
    }
}

/// A probe, and the bytes that one token takes in a slot file.
type Probed = (Probe, Option<u64>);

/// The identity, from memory or the volume where they speak of this life, probed otherwise. Without the probe if no slot
/// can be borrowed for it.
pub(super) async fn known(server: &Arc<Server>, deadline: Moment) -> Result<Identity, EngineError> {
    let facts = facts(&server.props(deadline).await?);
    if let Some(identity) = remembered(server, &facts).await {
        return Ok(identity);
    }
    match in_task(server, |server| async move { probe(&server, deadline).await }).await {
        Ok(probed) => Ok(found_out(server, facts, probed).await),
        Err(Unprobed::NoSlot(why)) => {
            tracing::debug!(%why, "the weights are not probed: no slot can be borrowed for it");
            Ok(Identity { life: server.target.life.clone(), facts, probe: None, bytes_per_token: None })
        }
        Err(Unprobed::Failed(error)) => Err(error),
    }
}

/// The identity, probed now.
///
/// # Errors
/// [`EngineError::Throttled`] if every slot is busy; what a slot's save failed with if none can be saved before it is
/// probed.
pub(super) async fn fresh(server: &Arc<Server>, deadline: Moment) -> Result<Identity, EngineError> {
    let facts = facts(&server.props(deadline).await?);
    let probed = in_task(server, |server| async move { probe(&server, deadline).await }).await?;
    Ok(found_out(server, facts, probed).await)
}

/// The identity with its probe, from memory or the volume, or else probed in the smallest slot that the last flush has
/// saved. The slot gets back what was saved of it.
///
/// # Errors
/// [`EngineError::Throttled`] if there is no such slot: the last flush saved none, or they have been used since.
pub(super) async fn after_flush(server: &Arc<Server>, deadline: Moment) -> Result<Identity, EngineError> {
    let facts = facts(&server.props(deadline).await?);
    if let Some(identity) = remembered(server, &facts).await {
        return Ok(identity);
    }
    let probed = in_task(server, |server| async move { probe_flushed(&server, deadline).await }).await?;
    Ok(found_out(server, facts, probed).await)
}

/// What memory or the volume say of this life, if the probe is in it.
async fn remembered(server: &Server, facts: &BTreeMap<String, String>) -> Option<Identity> {
    let speaks_of_this = |identity: &Identity| {
        identity.life == server.target.life && identity.facts == *facts && identity.probe.is_some()
    };
    if let Some(identity) = server.identity.lock().await.as_ref().filter(|known| speaks_of_this(known)) {
        return Some(identity.clone());
    }
    let remembered = small_file::read(&server.target.folder, REMEMBERED, REMEMBERED_MAX).await.ok();
    let remembered = remembered.and_then(|bytes| serde_json::from_slice::<Identity>(&bytes).ok());
    let identity = remembered.filter(speaks_of_this)?;
    *server.identity.lock().await = Some(identity.clone());
    Some(identity)
}

/// In a task of its own: if we are no longer waited for, the slot is put back all the same.
async fn in_task<F, Fut>(server: &Arc<Server>, probe: F) -> Result<Probed, Unprobed>
where
    F: FnOnce(Arc<Server>) -> Fut,
    Fut: Future<Output = Result<Probed, Unprobed>> + Send + 'static,
{
    tokio::spawn(probe(Arc::clone(server))).await.unwrap_or_else(|error| {
        Err(Unprobed::Failed(EngineError::Failed {
            at: server.base().to_owned(),
            why: format!("the probe was cut off: {error}"),
        }))
    })
}

/// Remembers what a probe has shown.
async fn found_out(
    server: &Server,
    facts: BTreeMap<String, String>,
    (probe, bytes_per_token): Probed,
) -> Identity {
    let identity = Identity { life: server.target.life.clone(), facts, probe: Some(probe), bytes_per_token };
    *server.identity.lock().await = Some(identity.clone());
    // Only a convenience for the agent's next start.
    if let Ok(bytes) = serde_json::to_vec(&identity)
        && let Err(error) = small_file::write(&server.target.folder, OURS, REMEMBERED, bytes).await
    {
        tracing::debug!(%error, "the fingerprint is not remembered");
    }
    identity
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

async fn probe(server: &Server, deadline: Moment) -> Result<Probed, Unprobed> {
    let _alone = server.alone(deadline).await?;
    let slots = server.slots(deadline).await?;
    let mut idle: Vec<&Slot> = slots.iter().filter(|slot| !slot.is_processing).collect();
    // One that holds nothing, or else the one that was used longest ago.
    idle.sort_by_key(|slot| (slot.n_prompt_tokens.unwrap_or(0) > 0, slot.id_task));
    let mut some_busy = idle.len() < slots.len();
    let mut unsaved = None;
    for slot in idle {
        // Saved in any case: a slot that was restored and not used since looks empty in the listing.
        match borrowed(server, slot.id, deadline).await {
            Ok(Some(kept)) => return Ok(probe_borrowed(server, slot.id, kept, deadline).await?),
            Ok(None) => some_busy = true,
            Err(Unsaved::Slot(error)) if !matches!(error, EngineError::TimedOut { .. }) => {
                tracing::debug!(slot = slot.id, why = %error, "not probed: its content cannot be saved first");
                unsaved.get_or_insert(error);
            }
            Err(Unsaved::Slot(error) | Unsaved::Server(error)) => return Err(error.into()),
        }
    }
    let _ = small_file::remove(&server.target.folder, KEPT).await;
    // A busy one may be idle at the next look.
    Err(Unprobed::NoSlot(unsaved.filter(|_| !some_busy).unwrap_or_else(|| EngineError::Throttled {
        at: server.base().to_owned(),
        why: "every slot is busy: the weights are probed when one is idle".to_owned(),
    })))
}

/// Saves a slot so that it can be probed. `None`: it is busy.
async fn borrowed(server: &Server, slot: u64, deadline: Moment) -> Result<Option<Saved>, Unsaved> {
    let Some(kept) = super::saving::save_unless_busy(server, slot, KEPT, deadline).await? else {
        return Ok(None);
    };
    // Not there: --slot-save-path leads elsewhere, which the flush explains.
    let size = small_file::size_of(&server.target.folder, KEPT).await.unwrap_or(kept.n_written);
    if size != kept.n_written {
        let at = server.base().to_owned();
        let why = format!("it says that it wrote {} bytes, but there are {size}", kept.n_written);
        return Err(Unsaved::Slot(EngineError::BrokenPromise { at, why }));
    }
    Ok(Some(kept))
}

async fn probe_borrowed(
    server: &Server,
    slot: u64,
    kept: Saved,
    deadline: Moment,
) -> Result<Probed, EngineError> {
    let answered = ask(server, slot, deadline).await;
    let measured = match &answered {
        Ok(_) => server.save(slot, PROBED, deadline).await.ok(),
        Err(_) => None,
    };
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
        let _ = small_file::remove(&server.target.folder, file).await;
    }
    put_back?;
    let bytes_per_token = measured.and_then(|saved| saved.n_written.checked_div(saved.n_saved));
    answered.map(|probe| (probe, bytes_per_token))
}

/// In a slot that the last flush has saved, that has run nothing since, and whose file is still there.
async fn probe_flushed(server: &Server, deadline: Moment) -> Result<Probed, Unprobed> {
    let _alone = server.alone(deadline).await?;
    let slots = server.slots(deadline).await?;
    let mut chosen = None;
    for saved in server.saved.by_last_flush() {
        let holds_what_was_saved =
            |slot: &Slot| slot.id == saved.facts.id && !slot.is_processing && slot.id_task == saved.id_task;
        if !slots.iter().any(holds_what_was_saved) {
            continue;
        }
        let size = small_file::size_of(&server.target.folder, &saved.facts.file).await;
        if size.is_ok_and(|size| size == saved.facts.bytes) {
            chosen = Some(saved.facts);
            break;
        }
    }
    let flushed = chosen.ok_or_else(|| {
        Unprobed::NoSlot(EngineError::Throttled {
            at: server.base().to_owned(),
            why: "no slot holds what the last flush has saved: the weights are probed in no other".to_owned(),
        })
    })?;
    let answered = ask(server, flushed.id, deadline).await;
    // The notice may be withdrawn: the conversation goes on from what was saved of it.
    let cleaning = deadline.max(clock::now() + QUICK);
    let restored = server.restore(flushed.id, &flushed.file, cleaning).await;
    if restored.as_ref().ok() != Some(&flushed.tokens) {
        tracing::warn!(slot = flushed.id, ?restored, "a slot that was probed is emptied: it is not restored");
        // A failed restore can spoil what the slot answers later (llama.cpp #27068).
        let _ = server.erase(flushed.id, cleaning).await;
    }
    Ok((answered?, flushed.bytes.checked_div(flushed.tokens)))
}

async fn ask(server: &Server, slot: u64, deadline: Moment) -> Result<Probe, EngineError> {
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
    Ok(Probe {
        prompt: PROMPT.to_owned(),
        tokens: answer.tokens.into_iter().take(64).collect(),
        top_logprobs,
    })
}
