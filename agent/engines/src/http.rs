//! Engines and sidecars that speak contract v1 (docs/protocol.md).

mod flushing;
#[cfg(test)]
mod tests;

use super::client::{Answer, Client, until_ready};
use super::contract::{Bounded, DoneAnswer, Info, Operation, PREFIX, PROTOCOL, RestoreRequest};
use super::{Engine, EngineError, EngineTarget, Flushed, Looked, Proven};
use async_trait::async_trait;
use checkpoint::fingerprint::{Fingerprint, Probe};
use evacuation::effect::FlushKind;
use evacuation::event::Verification;
use evacuation::moment::{Moment, Span};
use host::clock;
use serde_json::{Map, Value};

/// The longest an answer takes from the engine to us: it is told to be done this much before our deadline.
const RETURN: Span = Span::from_millis(250);
/// The most facts an engine may report, and the longest value: they go into the manifest.
const FACTS_MAX: usize = 128;
const FACT_MAX: usize = 4096;
/// Times that a request is sent anew because the engine forgot its operation (it restarted).
const AGAIN_MAX: u32 = 3;

/// Keys of ours in the facts of a checkpoint.
const CHECKPOINT_ID: &str = "checkpoint_id";
const BYTES: &str = "bytes";
const ENGINE_FACTS: &str = "engine";

/// An engine that speaks contract v1.
#[derive(Debug)]
pub struct HttpEngine {
    pub(super) client: Client,
    target: EngineTarget,
}

impl HttpEngine {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// As [`crate::connect`].
    pub fn new(target: EngineTarget) -> Result<Self, EngineError> {
        Ok(Self { client: Client::new(&target)?, target })
    }

    pub(super) async fn info(&self, deadline: Moment) -> Result<Info, EngineError> {
        let path = format!("{PREFIX}/info?time_left_ms={}", time_left(deadline));
        let answer = self.client.get(&path, deadline).await?;
        if answer.status != 200 {
            return Err(answer.refusal());
        }
        let info: Info = answer.json()?;
        if info.protocol != PROTOCOL {
            return Err(EngineError::Unsupported {
                at: answer.at,
                why: format!("it speaks contract {}, this agent speaks {PROTOCOL}", info.protocol),
            });
        }
        Ok(info)
    }

    fn fingerprint(&self, info: Info) -> Result<Fingerprint, EngineError> {
        let too_much = info.fingerprint.len() > FACTS_MAX
            || info.fingerprint.iter().any(|(name, value)| name.len() + value.len() > FACT_MAX);
        if too_much {
            let answered =
                format!("answered more than {FACTS_MAX} facts, or one longer than {FACT_MAX} bytes");
            return Err(EngineError::NotTheEngine {
                at: format!("{}{PREFIX}/info", self.client.base()),
                answered,
            });
        }
        let mut facts = self.target.facts.clone();
        facts.extend(info.fingerprint);
        facts.insert("engine".to_owned(), info.engine);
        if let Some(version) = info.engine_version {
            facts.insert("engine_version".to_owned(), version);
        }
        // Only the evidence field counts as evidence: a fact of that name would pass for it.
        facts.remove("weights");
        let weights = info.weights.unwrap_or_default();
        if let Some(digest) = weights.digest {
            facts.insert("weights".to_owned(), digest);
        }
        let probe = weights.probe.map(|probe| Probe {
            prompt: probe.prompt,
            tokens: probe.tokens,
            top_logprobs: probe.top_logprobs.into_iter().map(Into::into).collect(),
        });
        Ok(Fingerprint { facts, probe, compat_key: self.target.compat_key.clone() })
    }

    /// Sends a request that may become an operation, and follows that to its end.
    async fn carry_out<B: serde::Serialize + Sync>(
        &self,
        path: &str,
        deadline: Moment,
        body: impl Fn(u64) -> B,
    ) -> Result<DoneAnswer, EngineError> {
        let path = format!("{PREFIX}/{path}");
        for _ in 0..AGAIN_MAX {
            let answer = self.client.post(&path, &body(time_left(deadline)), deadline).await?;
            let at = answer.at.clone();
            let ended = match answer.status {
                200 => Some(answer.json::<Operation>()?),
                202 => self.follow(answer, deadline).await?,
                _ => return Err(answer.refusal()),
            };
            match ended {
                Some(Operation::Done(done)) => return Ok(*done),
                Some(Operation::Failed { error }) => {
                    return Err(EngineError::Failed { at, why: super::client::printable(&error) });
                }
                Some(Operation::Running { .. }) => {
                    let answered = "answered 200 and \"running\": a request that goes on is a 202".to_owned();
                    return Err(EngineError::NotTheEngine { at, answered });
                }
                None => {}
            }
        }
        let why = format!("it forgot its operation {AGAIN_MAX} times: does it restart?");
        Err(EngineError::Failed { at: format!("{}{path}", self.client.base()), why })
    }

    /// Polls an operation to its end. `None`: the engine does not know it (any more).
    async fn follow(&self, accepted: Answer, deadline: Moment) -> Result<Option<Operation>, EngineError> {
        let id = accepted.json::<super::contract::Accepted>()?.operation;
        let plain = !id.is_empty()
            && id.len() <= 128
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !plain || id.starts_with('.') {
            let answered =
                "answered an operation id that is not 1 to 128 letters, digits, '-', '_' or '.'".to_owned();
            return Err(EngineError::NotTheEngine { at: accepted.at, answered });
        }
        let poll = async || {
            let path = format!("{PREFIX}/operations/{id}?time_left_ms={}", time_left(deadline));
            let answer = self.client.get(&path, deadline).await?;
            match answer.status {
                200 => match answer.json::<Operation>()? {
                    Operation::Running { bytes_done, bytes_total } => Err(EngineError::NotReady {
                        at: answer.at,
                        why: format!(
                            "{bytes_done} of {} bytes are done",
                            bytes_total.map_or("?".to_owned(), |n| n.to_string())
                        ),
                    }),
                    ended => Ok(Some(ended)),
                },
                404 => Ok(None),
                _ => Err(answer.refusal()),
            }
        };
        until_ready(&accepted.at, deadline, poll).await
    }

    /// Quiesce and resume.
    async fn tell(&self, verb: &str, deadline: Moment) -> Result<(), EngineError> {
        let body = Bounded { time_left_ms: time_left(deadline) };
        let answer = self.client.post(&format!("{PREFIX}/{verb}"), &body, deadline).await?;
        match answer.status {
            // Parsed, though nothing is in it: a web page is no quiesced engine.
            200 => answer.json::<Map<String, Value>>().map(drop),
            204 => Ok(()),
            // An engine that cannot close its door is cut by the final flush: that is enough.
            501 => Ok(()),
            _ => Err(answer.refusal()),
        }
    }
}

#[async_trait]
impl Engine for HttpEngine {
    async fn look(&self, deadline: Moment) -> Result<Looked, EngineError> {
        let info = self.info(deadline).await?;
        let (state_bytes, busy) = (info.state_bytes, info.busy);
        Ok(Looked { fingerprint: self.fingerprint(info)?, state_bytes, busy, tokens_found: 0 })
    }

    async fn quiesce(&self, deadline: Moment) -> Result<(), EngineError> {
        self.tell("quiesce", deadline).await
    }

    async fn resume(&self, deadline: Moment) -> Result<(), EngineError> {
        self.tell("resume", deadline).await
    }

    async fn flush(
        &self,
        kind: FlushKind,
        checkpoint_id: &str,
        deadline: Moment,
    ) -> Result<Flushed, EngineError> {
        flushing::flush(self, kind, checkpoint_id, deadline).await
    }

    /// It is a question: nothing is disturbed.
    async fn evidence(&self, deadline: Moment) -> Result<Fingerprint, EngineError> {
        let info = self.info(deadline).await?;
        self.fingerprint(info)
    }

    async fn prove(&self, expected: &Fingerprint, deadline: Moment) -> Result<Proven, EngineError> {
        let info = until_ready(self.client.base(), deadline, || self.info(deadline)).await?;
        let state_bytes = info.state_bytes;
        let fingerprint = self.fingerprint(info)?;
        expected.compare(&fingerprint).map_err(|why| EngineError::Mismatch {
            at: self.client.base().to_owned(),
            why: why.to_string(),
        })?;
        Ok(Proven { fingerprint, state_bytes })
    }

    async fn hand_over(
        &self,
        facts: &Map<String, Value>,
        files: &[String],
        deadline: Moment,
    ) -> Result<Option<u64>, EngineError> {
        let facts = Ours::read(facts, self.client.base())?;
        let done = self
            .carry_out("restore", deadline, |time_left_ms| RestoreRequest {
                checkpoint_id: facts.checkpoint_id.clone(),
                files: files.to_vec(),
                facts: facts.engine.clone(),
                time_left_ms,
            })
            .await?;
        Ok(done.tokens)
    }

    /// What it was given, how much of it, and how many tokens of that it uses.
    async fn verify(
        &self,
        facts: &Map<String, Value>,
        deadline: Moment,
    ) -> Result<Verification, EngineError> {
        let facts = Ours::read(facts, self.client.base())?;
        let not_used = |why: String| Ok(Verification::NotUsed { why });
        let not_shown = |why: &str| Ok(Verification::NotShown { why: why.to_owned() });
        let Some(restored) = self.info(deadline).await?.restored else {
            return not_shown("info does not tell what was restored");
        };
        if restored.checkpoint_id != facts.checkpoint_id {
            let other = super::client::printable(&restored.checkpoint_id);
            return not_used(format!("it holds checkpoint {other}, was given {}", facts.checkpoint_id));
        }
        if restored.bytes < facts.bytes {
            return not_used(format!(
                "it holds {} bytes of the {} it was given",
                restored.bytes, facts.bytes
            ));
        }
        match restored.tokens {
            Some(0) => not_used("it uses 0 tokens of what it was given".to_owned()),
            Some(tokens) => Ok(Verification::Used { tokens }),
            None => not_shown("info counts no tokens of what was restored"),
        }
    }
}

/// The facts that a flush leaves for the restore.
struct Ours {
    checkpoint_id: String,
    bytes: u64,
    engine: Map<String, Value>,
}

impl Ours {
    fn write(self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert(CHECKPOINT_ID.to_owned(), self.checkpoint_id.into());
        map.insert(BYTES.to_owned(), self.bytes.into());
        map.insert(ENGINE_FACTS.to_owned(), self.engine.into());
        map
    }

    fn read(map: &Map<String, Value>, at: &str) -> Result<Self, EngineError> {
        let read = || {
            Some(Self {
                checkpoint_id: map.get(CHECKPOINT_ID)?.as_str()?.to_owned(),
                bytes: map.get(BYTES)?.as_u64()?,
                engine: map.get(ENGINE_FACTS)?.as_object()?.clone(),
            })
        };
        read().ok_or_else(|| EngineError::Mismatch {
            at: at.to_owned(),
            why: "the checkpoint was not written by an engine of kind http".to_owned(),
        })
    }
}

/// What the engine is told: it should be done before we stop listening.
fn time_left(deadline: Moment) -> u64 {
    deadline.left(clock::now()).less(RETURN).as_millis()
}
