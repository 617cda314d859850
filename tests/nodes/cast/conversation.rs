//! A conversation of several turns in one slot of a llama-server: what it says when nothing interrupts it, and whether it
//! goes on the same, from its cache, on another server.

use super::{name, text};
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// Turns that the first server has.
const BEFORE: usize = 3;
/// Turns that the next one has.
const AFTER: usize = 3;
/// Tokens of each answer.
const ANSWER: u32 = 12;

/// What was asked in one slot, and how it goes when nothing interrupts it.
#[derive(Clone, Debug)]
pub struct Conversation {
    slot: u32,
    questions: Vec<Vec<i64>>,
    answers: Vec<Vec<i64>>,
}

/// The first response on another server.
#[derive(Clone, Copy, Debug)]
pub struct FirstResponse {
    /// When its first token came.
    pub first_token: Timestamp,
    /// Tokens that the first server had in its cache.
    pub saved: usize,
    /// Tokens of them that this one took from its own.
    pub cached: u64,
}

/// One answer of the server.
struct Answer {
    tokens: Vec<i64>,
    cached: u64,
    first_token: Timestamp,
}

impl Conversation {
    /// Has all of it once, which tells how it goes; then the slot is erased, and its first turns are had again.
    pub async fn begin(pod: &Value, slot: u32) -> Result<Self> {
        let mut talk = Self { slot, questions: Vec::new(), answers: Vec::new() };
        for turn in 0..BEFORE + AFTER {
            // A token a character: all of it fits into a third of the context.
            let words = if turn == 0 { 30 } else { 4 };
            let question = format!("turn {turn} of slot {slot} asks for number {turn}{slot}. ").repeat(words);
            talk.questions.push(tokens(pod, &question, turn == 0).await?);
        }
        for turn in 0..BEFORE + AFTER {
            let answer = talk.ask(pod, turn).await?;
            talk.answers.push(answer.tokens);
        }
        post(pod, &format!("/slots/{slot}?action=erase"), &json!({})).await?;
        for turn in 0..BEFORE {
            let again = talk.ask(pod, turn).await?.tokens;
            ensure!(again == talk.answers[turn], "it does not say the same twice: {again:?}");
        }
        Ok(talk)
    }

    /// Its next turn, on another server: the same tokens, and what it saved of the prompt.
    pub async fn goes_on(&self, pod: &Value) -> Result<FirstResponse> {
        let said = self.turn(pod, BEFORE).await?;
        let saved = self.prompt(BEFORE).len() - self.questions[BEFORE].len();
        ensure!(
            said.cached as usize * 100 >= saved * 99,
            "slot {}: {} of {saved} saved tokens came from the cache of {}",
            self.slot,
            said.cached,
            name(pod)
        );
        Ok(FirstResponse { first_token: said.first_token, saved, cached: said.cached })
    }

    /// The turns that are left.
    pub async fn ends(&self, pod: &Value) -> Result<()> {
        for turn in BEFORE + 1..BEFORE + AFTER {
            self.turn(pod, turn).await?;
        }
        Ok(())
    }

    async fn turn(&self, pod: &Value, turn: usize) -> Result<Answer> {
        let said = self.ask(pod, turn).await?;
        let wanted = &self.answers[turn];
        ensure!(
            said.tokens == *wanted,
            "slot {}, turn {turn}: {:?} instead of {wanted:?}",
            self.slot,
            said.tokens
        );
        Ok(said)
    }

    /// All that was said before this turn's answer.
    fn prompt(&self, turn: usize) -> Vec<i64> {
        let before = self.questions.iter().zip(&self.answers).take(turn);
        let mut prompt: Vec<i64> =
            before.flat_map(|(question, answer)| [question, answer]).flatten().copied().collect();
        prompt.extend(&self.questions[turn]);
        prompt
    }

    /// Streamed, as people are answered.
    async fn ask(&self, pod: &Value, turn: usize) -> Result<Answer> {
        let request = json!({"prompt": self.prompt(turn), "n_predict": ANSWER, "id_slot": self.slot, "cache_prompt": true,
            "temperature": 0, "seed": 1, "return_tokens": true, "ignore_eos": true, "stream": true});
        let mut answer = post(pod, "/completion", &request).await?;
        let (mut tokens, mut first_token, mut cached, mut unread) = (Vec::new(), None, None, Vec::new());
        while let Some(bytes) = answer.chunk().await? {
            unread.extend_from_slice(&bytes);
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                let Some(event) = line.strip_prefix(b"data: ") else { continue };
                let event: Value = serde_json::from_slice(event)?;
                let new = numbers(&event["tokens"]).unwrap_or_default();
                if !new.is_empty() && first_token.is_none() {
                    first_token = Some(Timestamp::now());
                }
                tokens.extend(new);
                cached = event["timings"]["cache_n"].as_u64().or(cached);
            }
        }
        Ok(Answer {
            tokens,
            cached: cached.context("it did not tell what came from its cache")?,
            first_token: first_token.context("it answered no token")?,
        })
    }
}

async fn tokens(pod: &Value, text: &str, special: bool) -> Result<Vec<i64>> {
    let answer: Value =
        post(pod, "/tokenize", &json!({"content": text, "add_special": special})).await?.json().await?;
    numbers(&answer["tokens"]).with_context(|| format!("/tokenize answered {answer}"))
}

fn numbers(list: &Value) -> Option<Vec<i64>> {
    list.as_array()?.iter().map(Value::as_i64).collect()
}

async fn post(pod: &Value, path: &str, body: &Value) -> Result<reqwest::Response> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
    let url = format!("http://{}:8080{path}", text(pod, "/status/podIP"));
    let answer = http.post(url).json(body).send().await?;
    ensure!(answer.status().is_success(), "{path}: {}: {}", answer.status(), answer.text().await?);
    Ok(answer)
}
