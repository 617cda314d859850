//! A conversation with a llama-server that shows whether its state moved.
//!
//! It has two turns in each slot at temperature 0. The source has the whole of it once, which tells how it continues
//! when nothing interrupts; then its slots are erased and it has the first turn again. The replacement has the second
//! turn: what it took from its cache, and whether it continues the same, is the proof.

use super::trail::Conversation;
use crate::cast::TOKEN;

use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a server may take to load its model.
pub(crate) const LOAD: Duration = Duration::from_secs(30);

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum LlamaError {
    /// A file.
    #[error("{path}: {source}: give the right path with {flag}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It did not come up.
    #[error("llama-server does not answer after {LOAD:?}; the end of its log: {log}")]
    NotUp {
        /// Its last lines.
        log: String,
    },
    /// It does not speak as it should.
    #[error("llama-server: {0}")]
    Talk(String),
}

/// Slots of a server (`-np`).
const SLOTS: u32 = 2;

/// Tokens that each answer has.
const ANSWER: u32 = 16;

/// The uninterrupted conversations, by workload and slot.
#[derive(Clone, Debug, Default)]
pub struct Controls(Arc<Mutex<BTreeMap<(String, u32), Control>>>);

/// One uninterrupted conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Control {
    /// Tokens of the first turn and its answer: what is in the cache when it is saved.
    saved: Vec<i64>,
    /// The second turn.
    question: Vec<i64>,
    /// How it continues.
    continuation: Vec<i64>,
}

/// Speaks with one server.
#[derive(Clone, Debug)]
pub struct Talk {
    member: String,
    base: String,
    client: reqwest::Client,
    controls: Controls,
}

impl Talk {
    /// With the server at this address, about what `member` says: the same name finds what a source said.
    ///
    /// # Errors
    /// If there is no HTTP client to be had.
    pub fn new(member: &str, base: &str, controls: &Controls) -> Result<Self, LlamaError> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        Ok(Self { member: member.to_owned(), base: base.to_owned(), client, controls: controls.clone() })
    }

    /// It answers that it has loaded its model.
    pub async fn is_up(&self) -> bool {
        let asked =
            self.client.get(format!("{}/health", self.base)).timeout(Duration::from_secs(2)).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// On the source: has the conversation, then only its first turn.
    ///
    /// # Errors
    /// If the server does not speak as it should.
    pub async fn begin_all(&self) -> Result<(), LlamaError> {
        for slot in 0..SLOTS {
            self.begin(slot).await?;
        }
        Ok(())
    }

    /// On the replacement: has the second turn and compares.
    ///
    /// # Errors
    /// If the server does not speak as it should, or the source had no such conversation.
    pub async fn continue_all(&self) -> Result<Conversation, LlamaError> {
        let mut all = Conversation { same: true, ..Conversation::default() };
        for slot in 0..SLOTS {
            self.resume(slot, &mut all).await?;
        }
        Ok(all)
    }

    async fn begin(&self, slot: u32) -> Result<(), LlamaError> {
        let text = format!("{} asks slot {slot}: ", self.member).repeat(40);
        let first = self.tokens(&text, true).await?;
        let second = self.tokens(" and then? ", false).await?;
        let (answer, _) = self.complete(slot, &first).await?;
        let saved: Vec<i64> = first.iter().chain(&answer).copied().collect();
        let question: Vec<i64> = saved.iter().chain(&second).copied().collect();
        let (continuation, _) = self.complete(slot, &question).await?;
        self.post(&format!("/slots/{slot}?action=erase"), json!({})).await?;
        let (again, _) = self.complete(slot, &first).await?;
        if again != answer {
            return Err(LlamaError::Talk("it does not say the same twice at temperature 0".to_owned()));
        }
        let control = Control { saved, question, continuation };
        let mut controls = self.controls.0.lock();
        controls.insert((self.member.clone(), slot), control);
        Ok(())
    }

    async fn resume(&self, slot: u32, all: &mut Conversation) -> Result<(), LlamaError> {
        let control = {
            let controls = self.controls.0.lock();
            controls.get(&(self.member.clone(), slot)).cloned()
        };
        let control = control.ok_or_else(|| LlamaError::Talk(format!("slot {slot} had no conversation")))?;
        let (continuation, cached) = self.complete(slot, &control.question).await?;
        all.saved += control.saved.len() as u64;
        all.cached += cached;
        all.same &= continuation == control.continuation;
        Ok(())
    }

    async fn tokens(&self, text: &str, special: bool) -> Result<Vec<i64>, LlamaError> {
        let answer = self.post("/tokenize", json!({"content": text, "add_special": special})).await?;
        numbers(&answer["tokens"]).ok_or_else(|| LlamaError::Talk(format!("/tokenize answered {answer}")))
    }

    /// The tokens it answers with, and how many of the prompt's it had in its cache.
    async fn complete(&self, slot: u32, prompt: &[i64]) -> Result<(Vec<i64>, u64), LlamaError> {
        let request = json!({"prompt": prompt, "n_predict": ANSWER, "id_slot": slot, "cache_prompt": true, "temperature": 0,
            "seed": 1, "return_tokens": true, "ignore_eos": true});
        let answer = self.post("/completion", request).await?;
        let cached = answer["timings"]["cache_n"].as_u64();
        match (numbers(&answer["tokens"]), cached) {
            (Some(tokens), Some(cached)) => Ok((tokens, cached)),
            _ => Err(LlamaError::Talk(format!("/completion answered {answer}"))),
        }
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, LlamaError> {
        let request = self.client.post(format!("{}{path}", self.base)).bearer_auth(TOKEN).json(&body);
        let answer = request.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        if status.is_success() {
            Ok(body)
        } else {
            Err(LlamaError::Talk(format!("{path}: {status}: {body}")))
        }
    }
}

fn numbers(list: &Value) -> Option<Vec<i64>> {
    list.as_array()?.iter().map(Value::as_i64).collect()
}
