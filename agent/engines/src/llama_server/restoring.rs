//! Files to slots, and the proof that the server uses them.

use super::facts::{self, SlotFacts};
use super::{Server, slot_file};
use crate::EngineError;
use crate::client::QUICK;
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

/// Asks each restored slot to continue its own tokens by nothing, and counts what it found in its cache. The slot is
/// then restored once more, so that it holds exactly what was saved.
///
/// `None` where the slot files are not understood: nothing was shown, nothing was refuted.
pub(super) async fn verify(
    server: &Server,
    facts: &Map<String, Value>,
    deadline: Moment,
) -> Result<Option<u64>, EngineError> {
    let slots = facts::read(facts, server.base())?;
    let _alone = server.alone(deadline).await?;
    let mut found = None;
    for slot in &slots {
        let Ok(head) = small_file::head(&server.target.folder, &slot.file, slot_file::HEAD_MAX).await else {
            return Ok(None);
        };
        let Some(tokens) = slot_file::tokens(&head).filter(|tokens| tokens.len() as u64 == slot.tokens)
        else {
            return Ok(None);
        };
        drop(head);
        let busy =
            server.slots(deadline).await?.iter().any(|other| other.id == slot.id && other.is_processing);
        if busy {
            // Somebody uses it already: it is theirs.
            continue;
        }
        let request = json!({
            "prompt": tokens,
            "n_predict": 0,
            "temperature": 0,
            "cache_prompt": true,
            "id_slot": slot.id,
            "response_fields": ["id_slot", "timings"],
        });
        let answer = server.complete(&request, deadline).await?;
        restore(server, slot, deadline.max(clock::now() + QUICK)).await?;
        let cached = answer.timings.cache_n;
        // The last token is always computed again. One in a hundred may be missing, as the drill's verdict allows.
        if answer.id_slot != slot.id || (cached + 1).saturating_mul(100) < slot.tokens.saturating_mul(99) {
            let why = format!(
                "slot {} found {cached} of its {} tokens in its cache: models with sliding-window or recurrent layers are \
                 restored in name only",
                slot.id, slot.tokens
            );
            return Err(EngineError::Mismatch { at: server.base().to_owned(), why });
        }
        found = Some(found.unwrap_or(0) + cached);
    }
    // Nobody waits for this one; without it the first requests are not counted.
    if let Ok(listed) = server.slots(deadline).await {
        server.first_requests.await_in(slots.iter().map(|slot| slot.id), &listed);
    }
    Ok(found)
}
