//! The calls of llama-server that are used, and no other.

use super::Server;
use crate::EngineError;
use crate::client::Answer;
use evacuation::moment::Moment;
use serde::Deserialize;
use serde_json::{Value, json};

/// More slots than any server has.
const SLOTS_MAX: usize = 1024;

/// One line of `GET /slots`. The task fields are absent until the slot has run a task in this process.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Slot {
    pub(super) id: u64,
    pub(super) is_processing: bool,
    #[serde(default)]
    pub(super) n_prompt_tokens: Option<u64>,
    /// Of these, what was found in the cache.
    #[serde(default)]
    pub(super) n_prompt_tokens_cache: Option<u64>,
    /// Counts up: the order of last use.
    #[serde(default)]
    pub(super) id_task: Option<i64>,
}

/// What is used of `GET /props`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Props {
    #[serde(default)]
    pub(super) build_info: String,
    #[serde(default)]
    pub(super) model_path: String,
    #[serde(default)]
    pub(super) model_ftype: Option<String>,
    pub(super) total_slots: u64,
    pub(super) default_generation_settings: GenerationSettings,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct GenerationSettings {
    pub(super) n_ctx: u64,
}

/// Answer to `action=save`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Saved {
    /// Tokens.
    pub(super) n_saved: u64,
    /// Bytes.
    pub(super) n_written: u64,
}

/// Why a slot was not saved, and what that says of the others.
#[derive(Debug)]
pub(super) enum Unsaved {
    /// It speaks of this slot: the next one may be saved all the same.
    Slot(EngineError),
    /// It speaks of the server and how it was started: no slot can be saved.
    Server(EngineError),
}

impl From<EngineError> for Unsaved {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::NotReady { .. }
            | EngineError::TimedOut { .. }
            | EngineError::Unsupported { .. }
            | EngineError::Throttled { .. }
            | EngineError::Mismatch { .. }
            | EngineError::TooLarge { .. }
            | EngineError::Failed { .. } => Unsaved::Slot(error),
            EngineError::NotTheEngine { .. }
            | EngineError::Denied { .. }
            | EngineError::BrokenPromise { .. }
            | EngineError::Forbidden { .. }
            | EngineError::Volume(_) => Unsaved::Server(error),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct RestoredSlot {
    n_restored: u64,
}

/// What is used of `POST /completion`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Completion {
    pub(super) id_slot: u64,
    #[serde(default)]
    pub(super) tokens: Vec<i64>,
    pub(super) timings: Timings,
    #[serde(default)]
    pub(super) completion_probabilities: Vec<Position>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Timings {
    /// Tokens of the prompt that were found in the cache.
    pub(super) cache_n: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Position {
    #[serde(default)]
    pub(super) top_logprobs: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Candidate {
    pub(super) id: i64,
    pub(super) logprob: f64,
}

impl Server {
    /// 200 from `/health`: the model is loaded.
    pub(super) async fn healthy(&self, deadline: Moment) -> Result<(), EngineError> {
        let answer = self.client.get("/health", deadline).await?;
        if answer.status == 200 { Ok(()) } else { Err(answer.refusal()) }
    }

    pub(super) async fn slots(&self, deadline: Moment) -> Result<Vec<Slot>, EngineError> {
        let answer = self.client.get("/slots", deadline).await?;
        if answer.status != 200 {
            return Err(explained(answer));
        }
        let mut slots: Vec<Slot> = answer.json()?;
        slots.truncate(SLOTS_MAX);
        Ok(slots)
    }

    pub(super) async fn props(&self, deadline: Moment) -> Result<Props, EngineError> {
        let answer = self.client.get("/props", deadline).await?;
        if answer.status == 200 { answer.json() } else { Err(answer.refusal()) }
    }

    /// Writes a slot to `file`. Waits for the end of a generation that runs in it.
    ///
    /// Build b11669 answers 500 where it could not write a slot. Between llama.cpp #25076 and #26640 a slot that holds an
    /// image is answered 501, and before #25076 every slot of a server with a projector. Another 501 names the flag with
    /// which the server must be started.
    pub(super) async fn save(&self, slot: u64, file: &str, deadline: Moment) -> Result<Saved, Unsaved> {
        let answer = self.post(slot, "save", json!({ "filename": file }), deadline).await?;
        match answer.status {
            200 => answer.json().map_err(Unsaved::Server),
            501 if answer.says().contains("--slot") => Err(Unsaved::Server(explained(answer))),
            _ => Err(answer.refusal().into()),
        }
    }

    /// Reads `file` into a slot. Returns the tokens.
    pub(super) async fn restore(&self, slot: u64, file: &str, deadline: Moment) -> Result<u64, EngineError> {
        let answer = self.act(slot, "restore", json!({ "filename": file }), deadline).await?;
        Ok(answer.json::<RestoredSlot>()?.n_restored)
    }

    /// Empties a slot. Only ever of what we put there ourselves.
    pub(super) async fn erase(&self, slot: u64, deadline: Moment) -> Result<(), EngineError> {
        self.act(slot, "erase", json!({}), deadline).await.map(drop)
    }

    pub(super) async fn complete(
        &self,
        request: &Value,
        deadline: Moment,
    ) -> Result<Completion, EngineError> {
        let answer = self.client.post("/completion", request, deadline).await?;
        if answer.status == 200 { answer.json() } else { Err(answer.refusal()) }
    }

    async fn act(
        &self,
        slot: u64,
        action: &str,
        body: Value,
        deadline: Moment,
    ) -> Result<Answer, EngineError> {
        let answer = self.post(slot, action, body, deadline).await?;
        match answer.status {
            200 => Ok(answer),
            400 if action == "restore" => {
                Err(EngineError::Mismatch { at: answer.at.clone(), why: answer.says() })
            }
            _ => Err(explained(answer)),
        }
    }

    async fn post(
        &self,
        slot: u64,
        action: &str,
        body: Value,
        deadline: Moment,
    ) -> Result<Answer, EngineError> {
        self.client.post(&format!("/slots/{slot}?action={action}"), &body, deadline).await
    }
}

/// 501 says which of two flags is missing; both are ours to name.
fn explained(answer: Answer) -> EngineError {
    if answer.status != 501 {
        return answer.refusal();
    }
    let why = format!(
        "{}. Start llama-server with --slots, and with --slot-save-path set to where the volume of \
         lifeboat.dev/state-volume is mounted",
        answer.says()
    );
    EngineError::Unsupported { at: answer.at, why }
}
