//! Files to slots, and the proof that the server uses them.

use super::api::Slot;
use super::facts::{self, SlotFacts};
use super::{Server, slot_file};
use crate::EngineError;
use crate::client::QUICK;
use evacuation::event::Verification;
use evacuation::moment::Moment;
use host::{clock, small_file};
use serde_json::{Map, Value, json};

/// Restores each slot, the one used longest ago first. Returns the tokens.
pub(super) async fn hand_over(
    server: &Server,
    facts: &Map<String, Value>,
    files: &[String],
    deadline: Moment,
) -> Result<u64, EngineError> {
    let slots = facts::read(facts, server.base())?;
    let _alone = server.alone(deadline).await?;
    if let Some(absent) = slots.iter().find(|slot| !files.contains(&slot.file)) {
        let why = format!("{} is not among the files of the checkpoint", absent.file);
        return Err(EngineError::Mismatch { at: server.base().to_owned(), why });
    }
    let mut tokens = 0_u64;
    for (done, slot) in slots.iter().enumerate() {
        if let Err(error) = restore(server, slot, deadline).await {
            // A failed restore can spoil what the slot answers later (llama.cpp #27068), and a checkpoint of which
            // one slot does not fit does not fit: all of it goes.
            for slot in &slots[..=done] {
                let _ = server.erase(slot.id, deadline.max(clock::now() + QUICK)).await;
            }
            return Err(error);
        }
        tokens = tokens.saturating_add(slot.tokens);
    }
    Ok(tokens)
}

async fn restore(server: &Server, slot: &SlotFacts, deadline: Moment) -> Result<(), EngineError> {
    let restored = server.restore(slot.id, &slot.file, deadline).await?;
    if restored != slot.tokens {
        let why =
            format!("slot {} has {restored} tokens after the restore, {} were saved", slot.id, slot.tokens);
        return Err(EngineError::Mismatch { at: server.base().to_owned(), why });
    }
    Ok(())
}

/// What one restored slot has shown.
enum Shown {
    /// So many tokens in its cache, and those are enough.
    Used(u64),
    /// Too few of them.
    NotUsed(String),
    /// Nothing, because.
    Nothing(String),
}

/// Asks each restored slot to continue its own tokens by nothing, and counts what it found in its cache. The slot is
/// then restored once more, so that it holds exactly what was saved.
///
/// Used as soon as one slot shows it: a server either takes states as its own or not, and others may be asked by somebody
/// else meanwhile. Not used only if every slot that answered shows that it is not; then all of them are emptied.
pub(super) async fn verify(
    server: &Server,
    facts: &Map<String, Value>,
    deadline: Moment,
) -> Result<Verification, EngineError> {
    let slots = facts::read(facts, server.base())?;
    let _alone = server.alone(deadline).await?;
    let (mut used, mut not_used, mut nothing) = (None, Vec::new(), Vec::new());
    for slot in &slots {
        match shown(server, slot, &slots, deadline).await? {
            Shown::Used(tokens) => used = Some(used.unwrap_or(0_u64).saturating_add(tokens)),
            Shown::NotUsed(why) => not_used.push(why),
            Shown::Nothing(why) => nothing.push(why),
        }
    }
    let listed = server.slots(deadline).await;
    let answer = match used {
        Some(tokens) => Verification::Used { tokens },
        None if not_used.is_empty() => {
            let none = "no slot was restored".to_owned();
            Verification::NotShown { why: if nothing.is_empty() { none } else { nothing.join("; ") } }
        }
        None => {
            let idle = |slot: &&SlotFacts| {
                let busy = |other: &Slot| other.id == slot.id && other.is_processing;
                !listed.as_ref().is_ok_and(|listed| listed.iter().any(busy))
            };
            for slot in slots.iter().filter(idle) {
                if let Err(error) = server.erase(slot.id, deadline.max(clock::now() + QUICK)).await {
                    tracing::warn!(%error, slot = slot.id, "what was restored into it is not used, and stays");
                }
            }
            let kinds = "models with sliding-window or recurrent layers are restored in name only";
            return Ok(Verification::NotUsed { why: format!("{}: {kinds}", not_used.join("; ")) });
        }
    };
    // Nobody waits for this one; without it the first requests are not counted.
    if let Ok(listed) = listed {
        server.first_requests.await_in(slots.iter().map(|slot| slot.id), &listed);
    }
    Ok(answer)
}

async fn shown(
    server: &Server,
    slot: &SlotFacts,
    restored: &[SlotFacts],
    deadline: Moment,
) -> Result<Shown, EngineError> {
    let nothing = |why: &str| Ok(Shown::Nothing(format!("slot {}: {why}", slot.id)));
    let Ok(head) = small_file::head(&server.target.folder, &slot.file, slot_file::HEAD_MAX).await else {
        return nothing("its file cannot be read");
    };
    let Some(tokens) = slot_file::tokens(&head).filter(|tokens| tokens.len() as u64 == slot.tokens) else {
        return nothing("the format of its file is not understood");
    };
    drop(head);
    if server.slots(deadline).await?.iter().any(|other| other.id == slot.id && other.is_processing) {
        // Somebody uses it already: it is theirs.
        return nothing("it is busy");
    }
    let request = json!({
        "prompt": tokens,
        "n_predict": 0,
        "temperature": 0,
        "cache_prompt": true,
        "id_slot": slot.id,
        "response_fields": ["id_slot", "timings"],
    });
    let answer = match server.complete(&request, deadline).await {
        Err(EngineError::Failed { why, .. }) => {
            restore(server, slot, deadline.max(clock::now() + QUICK)).await?;
            return nothing(&why);
        }
        answer => answer?,
    };
    // It has run a task: whichever of ours it was holds again what was saved of it.
    for touched in restored.iter().filter(|touched| [slot.id, answer.id_slot].contains(&touched.id)) {
        restore(server, touched, deadline.max(clock::now() + QUICK)).await?;
    }
    if answer.id_slot != slot.id {
        return nothing(&format!("slot {} answered in its place", answer.id_slot));
    }
    let cached = answer.timings.cache_n;
    // The last token is always computed again. One in a hundred may be missing, as the drill's verdict allows.
    if (cached + 1).saturating_mul(100) < slot.tokens.saturating_mul(99) {
        let why = format!("slot {} found {cached} of its {} tokens in its cache", slot.id, slot.tokens);
        return Ok(Shown::NotUsed(why));
    }
    Ok(Shown::Used(cached))
}
