//! Slots to files.

use super::api::{Saved, Slot};
use super::facts::{self, SlotFacts, file_of};
use super::{Server, used_tokens};
use crate::{EngineError, Flushed, FlushedFile};
use checkpoint::chunk::Chunking;
use evacuation::effect::FlushKind;
use evacuation::moment::Moment;
use host::small_file;
use std::sync::Arc;
use std::time::Duration;

/// How often a slot is looked at while its save is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What became of one slot.
enum Outcome {
    Saved(SlotFacts),
    /// It holds nothing.
    Empty,
    Missing(String),
}

/// Saves what can be saved until `deadline`, the slots that were used last first: they are worth the most.
pub(super) async fn flush(
    server: &Arc<Server>,
    kind: FlushKind,
    deadline: Moment,
) -> Result<Flushed, EngineError> {
    let _alone = server.alone(deadline).await?;
    let mut slots = server.slots(deadline).await?;
    slots.sort_by_key(|slot| std::cmp::Reverse(slot.id_task));
    let used = used_tokens(&slots);

    let mut outcomes = Vec::with_capacity(slots.len());
    let mut waiting = Vec::new();
    for slot in &slots {
        // The server saves one after the other whatever we do.
        let outcome = match slot.is_processing {
            true => None,
            false => idle(server, slot, deadline).await?,
        };
        match (outcome, kind) {
            (Some(outcome), _) => outcomes.push((slot, outcome)),
            (None, FlushKind::PreCopy) => {
                outcomes.push((slot, Outcome::Missing(format!("slot {}: it is busy", slot.id))))
            }
            (None, FlushKind::Final) => waiting.push(slot),
        }
    }
    // Each of these answers when its generation ends. All at once: which one ends first is not known.
    let waited = waiting.iter().map(|slot| ending(server, slot, deadline));
    for (slot, outcome) in waiting.iter().zip(futures::future::join_all(waited).await) {
        outcomes.push((slot, outcome?));
    }
    collected(server, outcomes, used)
}

/// Saves an idle slot; `None` if it became busy meanwhile.
async fn idle(server: &Server, slot: &Slot, deadline: Moment) -> Result<Option<Outcome>, EngineError> {
    let unfinished = unfinished(slot.id);
    match save_unless_busy(server, slot.id, &unfinished, deadline).await {
        Ok(Some(saved)) => kept(server, slot.id, &unfinished, saved).await.map(Some),
        Ok(None) => Ok(None),
        Err(EngineError::TimedOut { .. }) => Ok(Some(late(slot))),
        Err(error) => Err(error),
    }
}

/// Saves a busy slot when its generation has ended.
async fn ending(server: &Server, slot: &Slot, deadline: Moment) -> Result<Outcome, EngineError> {
    let unfinished = unfinished(slot.id);
    match server.save(slot.id, &unfinished, deadline).await {
        Ok(saved) => kept(server, slot.id, &unfinished, saved).await,
        Err(EngineError::TimedOut { .. }) => Ok(late(slot)),
        Err(error) => Err(error),
    }
}

/// Saves a slot unless a generation runs in it: then the save would wait for its end, and so would we. `None`: it is
/// busy. The request that is dropped is carried out all the same later, into a file that nobody reads.
pub(super) async fn save_unless_busy(
    server: &Server,
    slot: u64,
    file: &str,
    deadline: Moment,
) -> Result<Option<Saved>, EngineError> {
    let became_busy = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // A server that is writing a large slot answers late, or not in time: that is no generation.
            if let Ok(slots) = server.slots(deadline).await
                && slots.iter().any(|other| other.id == slot && other.is_processing)
            {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        saved = server.save(slot, file, deadline) => saved.map(Some),
        () = became_busy => Ok(None),
    }
}

/// Gives a finished file its name. Whoever still reads the previous one keeps it whole.
async fn kept(server: &Server, slot: u64, unfinished: &str, saved: Saved) -> Result<Outcome, EngineError> {
    let folder = &server.target.folder;
    let at = || format!("{}/slots/{slot}?action=save", server.base());
    let size = match small_file::size_of(folder, unfinished).await {
        Ok(size) => size,
        Err(error) if error.is_missing() => {
            return Err(EngineError::Unsupported {
                at: at(),
                why: "it saved a slot, and no file appeared in the state volume: --slot-save-path must be the root of the \
                      volume that lifeboat.dev/state-volume names"
                    .to_owned(),
            });
        }
        Err(error) => return Err(EngineError::Volume(error.to_string())),
    };
    if size != saved.n_written {
        let why =
            format!("it says that it wrote {} bytes to {unfinished}, but there are {size}", saved.n_written);
        return Err(EngineError::BrokenPromise { at: at(), why });
    }
    if saved.n_saved == 0 {
        // A restore of such a file has crashed servers (llama.cpp #14434).
        let _ = small_file::remove(folder, unfinished).await;
        return Ok(Outcome::Empty);
    }
    let file = file_of(slot);
    small_file::rename(folder, unfinished, file.clone())
        .await
        .map_err(|error| EngineError::Volume(error.to_string()))?;
    Ok(Outcome::Saved(SlotFacts { id: slot, tokens: saved.n_saved, bytes: size, file }))
}

fn collected(server: &Server, outcomes: Vec<(&Slot, Outcome)>, used: u64) -> Result<Flushed, EngineError> {
    let (mut saved, mut missing) = (Vec::new(), Vec::new());
    let mut emptied = 0;
    let mut bytes = 0_u64;
    for (slot, outcome) in outcomes {
        match outcome {
            Outcome::Saved(facts) => {
                let with_it = bytes.saturating_add(facts.bytes);
                if server.target.max_bytes.is_some_and(|most| with_it > most) {
                    missing.push(format!(
                        "slot {}: with its {} bytes it is more than lifeboat.dev/max-bytes",
                        slot.id, facts.bytes
                    ));
                } else {
                    bytes = with_it;
                    saved.push((slot.id_task, facts));
                }
            }
            Outcome::Empty if slot.n_prompt_tokens.is_some_and(|tokens| tokens > 0) => {
                emptied += 1;
                missing.push(format!(
                    "slot {}: its content was moved to the server's own cache ({HINT})",
                    slot.id
                ));
            }
            Outcome::Empty => {}
            Outcome::Missing(why) => missing.push(why),
        }
    }
    if saved.is_empty() && emptied > 0 && used > 0 {
        let why = format!("slots were used and every save was empty: {HINT}");
        return Err(EngineError::Unsupported { at: server.base().to_owned(), why });
    }
    // The one used longest ago first: restored in this order, the server's own order of use is the same again.
    saved.sort_by_key(|(id_task, _)| *id_task);
    let saved: Vec<SlotFacts> = saved.into_iter().map(|(_, facts)| facts).collect();
    let file = |facts: &SlotFacts| FlushedFile {
        path: facts.file.clone(),
        bytes: facts.bytes,
        // Seen: 3.2 % new, and every aligned block differs, because each layer's rows move.
        chunking: Chunking::ContentDefined,
    };
    Ok(Flushed { files: saved.iter().map(file).collect(), bytes, facts: facts::write(&saved), missing })
}

const HINT: &str = "start llama-server with --no-cache-idle-slots";

fn unfinished(slot: u64) -> String {
    format!("lifeboat-saving-{slot}.bin")
}

fn late(slot: &Slot) -> Outcome {
    let what = if slot.is_processing {
        "its generation did not end in time"
    } else {
        "its save did not end in time"
    };
    Outcome::Missing(format!("slot {}: {what}", slot.id))
}
