//! Slots to files.
//!
//! A slot that cannot be saved costs no other one: it is named, and what it held at the flush before stays in its place.
//! Only if nothing at all could be saved, or if the server answers something about itself, the flush has failed.

use super::api::{Saved, Slot, Unsaved};
use super::facts::{self, SlotFacts, file_of};
use super::{Server, used_tokens};
use crate::{EngineError, Flushed, FlushedFile};
use checkpoint::chunk::Chunking;
use evacuation::effect::FlushKind;
use evacuation::event::FailureKind;
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
    Missing {
        /// For people.
        why: String,
        /// What the flush fails with if no slot could be saved.
        error: EngineError,
    },
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
    server.saved.flush_begins();

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
            (None, FlushKind::PreCopy) => outcomes.push((slot, busy(server, slot))),
            (None, FlushKind::Final) => waiting.push(slot),
        }
    }
    // Each of these answers when its generation ends. All at once: which one ends first is not known.
    let waited = waiting.iter().map(|slot| ending(server, slot, deadline));
    for (slot, outcome) in waiting.iter().zip(futures::future::join_all(waited).await) {
        outcomes.push((slot, outcome?));
    }
    collected(server, outcomes, used).await
}

/// Saves an idle slot; `None` if it became busy meanwhile.
async fn idle(server: &Server, slot: &Slot, deadline: Moment) -> Result<Option<Outcome>, EngineError> {
    let unfinished = unfinished(slot.id);
    match save_unless_busy(server, slot.id, &unfinished, deadline).await {
        Ok(Some(saved)) => kept(server, slot, &unfinished, saved).await.map(Some),
        Ok(None) => Ok(None),
        Err(unsaved) => missing(server, slot, &unfinished, unsaved).await.map(Some),
    }
}

/// Saves a busy slot when its generation has ended.
async fn ending(server: &Server, slot: &Slot, deadline: Moment) -> Result<Outcome, EngineError> {
    let unfinished = unfinished(slot.id);
    match server.save(slot.id, &unfinished, deadline).await {
        Ok(saved) => kept(server, slot, &unfinished, saved).await,
        Err(unsaved) => missing(server, slot, &unfinished, unsaved).await,
    }
}

/// The slot is left out, unless the answer was about the server.
async fn missing(
    server: &Server,
    slot: &Slot,
    unfinished: &str,
    unsaved: Unsaved,
) -> Result<Outcome, EngineError> {
    let error = match unsaved {
        Unsaved::Server(error) => return Err(error),
        Unsaved::Slot(error) => error,
    };
    let why = match &error {
        EngineError::TimedOut { .. } if slot.is_processing => "its generation did not end in time".to_owned(),
        EngineError::TimedOut { .. } => "its save did not end in time".to_owned(),
        EngineError::Failed { why, .. }
        | EngineError::Unsupported { why, .. }
        | EngineError::NotReady { why, .. }
        | EngineError::Throttled { why, .. } => why.clone(),
        other => other.to_string(),
    };
    if !matches!(error, EngineError::TimedOut { .. }) {
        // It may have come to a part of it. One that is late is still being written.
        let _ = small_file::remove(&server.target.folder, unfinished).await;
    }
    Ok(Outcome::Missing { why, error })
}

fn busy(server: &Server, slot: &Slot) -> Outcome {
    let error =
        EngineError::Throttled { at: server.base().to_owned(), why: format!("slot {} is busy", slot.id) };
    Outcome::Missing { why: "it is busy".to_owned(), error }
}

/// Saves a slot unless a generation runs in it: then the save would wait for its end, and so would we. `None`: it is
/// busy. The request that is dropped is carried out all the same later, into a file that nobody reads.
pub(super) async fn save_unless_busy(
    server: &Server,
    slot: u64,
    file: &str,
    deadline: Moment,
) -> Result<Option<Saved>, Unsaved> {
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
async fn kept(server: &Server, slot: &Slot, unfinished: &str, saved: Saved) -> Result<Outcome, EngineError> {
    let folder = &server.target.folder;
    let at = || format!("{}/slots/{}?action=save", server.base(), slot.id);
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
    // From here on the file of the flush before does not stand for the slot any more.
    server.saved.forget(slot.id);
    if saved.n_saved == 0 {
        // A restore of such a file has crashed servers (llama.cpp #14434).
        let _ = small_file::remove(folder, unfinished).await;
        return Ok(Outcome::Empty);
    }
    let file = file_of(slot.id);
    small_file::rename(folder, unfinished, file.clone())
        .await
        .map_err(|error| EngineError::Volume(error.to_string()))?;
    let facts = SlotFacts { id: slot.id, tokens: saved.n_saved, bytes: size, file };
    server.saved.saved(facts.clone(), slot.id_task);
    Ok(Outcome::Saved(facts))
}

async fn collected(
    server: &Server,
    mut outcomes: Vec<(&Slot, Outcome)>,
    used: u64,
) -> Result<Flushed, EngineError> {
    // What was saved now has the room before what was saved at the flush before.
    outcomes.sort_by_key(|(_, outcome)| matches!(outcome, Outcome::Missing { .. }));
    let (mut taken, mut missing, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bytes, mut saved, mut emptied, mut too_large) = (0_u64, 0, 0, 0);
    let fits = |bytes: u64| server.target.max_bytes.is_none_or(|most| bytes <= most);
    for (slot, outcome) in outcomes {
        let id = slot.id;
        match outcome {
            Outcome::Saved(facts) if fits(bytes.saturating_add(facts.bytes)) => {
                saved += 1;
                bytes = bytes.saturating_add(facts.bytes);
                taken.push((slot.id_task, facts));
            }
            Outcome::Saved(facts) => {
                too_large += 1;
                let more = format!("with its {} bytes it is more than lifeboat.dev/max-bytes", facts.bytes);
                missing.push(format!("slot {id}: {more}"));
            }
            Outcome::Empty if slot.n_prompt_tokens.is_some_and(|tokens| tokens > 0) => {
                emptied += 1;
                missing.push(format!("slot {id}: its content was moved to the server's own cache ({HINT})"));
            }
            Outcome::Empty => {}
            Outcome::Missing { why, error } => {
                errors.push(error);
                let earlier = earlier(server, id).await;
                match earlier.filter(|facts| fits(bytes.saturating_add(facts.bytes))) {
                    Some(facts) => {
                        bytes = bytes.saturating_add(facts.bytes);
                        taken.push((slot.id_task, facts));
                        let instead = "what it held at the flush before is in its place";
                        missing.push(format!("slot {id}: {why}; {instead}"));
                    }
                    None => missing.push(format!("slot {id}: {why}")),
                }
            }
        }
    }
    let at = || server.base().to_owned();
    if saved == 0 && emptied > 0 && used > 0 {
        let why = format!("slots were used and every save was empty: {HINT}");
        return Err(EngineError::Unsupported { at: at(), why });
    }
    if saved == 0 && too_large > 0 {
        return Err(EngineError::TooLarge { at: at(), why: missing.join("; ") });
    }
    if saved == 0
        && let Some(error) = telling(errors)
    {
        return Err(error);
    }
    // The one used longest ago first: restored in this order, the server's own order of use is the same again.
    taken.sort_by_key(|(id_task, _)| *id_task);
    let taken: Vec<SlotFacts> = taken.into_iter().map(|(_, facts)| facts).collect();
    let file = |facts: &SlotFacts| FlushedFile {
        path: facts.file.clone(),
        bytes: facts.bytes,
        // Seen: 3.2 % new, and every aligned block differs, because each layer's rows move.
        chunking: Chunking::ContentDefined,
    };
    Ok(Flushed { files: taken.iter().map(file).collect(), bytes, facts: facts::write(&taken), missing })
}

/// What the flush before saved of this slot, if its file is still what it was.
async fn earlier(server: &Server, slot: u64) -> Option<SlotFacts> {
    let facts = server.saved.earlier(slot)?;
    let size = small_file::size_of(&server.target.folder, &facts.file).await.ok()?;
    (size == facts.bytes).then_some(facts)
}

/// Which of these a flush fails with that could save nothing: one that may pass, as then it is worth to ask again, or else
/// the first.
fn telling(errors: Vec<EngineError>) -> Option<EngineError> {
    let may_pass =
        |error: &EngineError| matches!(error.kind(), FailureKind::Transient | FailureKind::Throttled);
    let at = errors.iter().position(may_pass).unwrap_or(0);
    errors.into_iter().nth(at)
}

const HINT: &str = "start llama-server with --no-cache-idle-slots";

fn unfinished(slot: u64) -> String {
    format!("lifeboat-saving-{slot}.bin")
}
