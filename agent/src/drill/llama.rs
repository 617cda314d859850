//! A real llama-server as a pod's engine, and a conversation with it that shows whether its state moved.
//!
//! The conversation has two turns in each slot at temperature 0. The source has the whole of it once, which tells
//! how it continues when nothing interrupts; then its slots are erased and it has the first turn again. The
//! replacement has the second turn: what it took from its cache, and whether it continues the same, is the proof.

use super::engines::TOKEN;
use super::trail::Conversation;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::process::{Child, Command};

/// Slots of a server (`-np`).
const SLOTS: u32 = 2;

/// Tokens that each answer has.
const ANSWER: u32 = 16;

/// How long a server may take to load its model.
const LOAD: Duration = Duration::from_secs(30);

/// How a llama-server is run.
#[derive(Clone, Debug)]
pub struct LlamaOptions {
    /// The binary.
    pub server: PathBuf,
    /// The weights.
    pub model: PathBuf,
    /// The weights that a replacement finds instead, at the same path.
    pub other: Option<PathBuf>,
    /// More arguments (`--llama-arg`).
    pub args: Vec<String>,
    /// Where the weights of each workload lie: the same path for source and replacement.
    pub folder: PathBuf,
    /// What the sources said.
    pub controls: Controls,
}

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

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct LlamaServer {
    child: Child,
    talk: Talk,
}

/// Speaks with one server.
#[derive(Clone, Debug)]
struct Talk {
    member: &'static str,
    base: String,
    client: reqwest::Client,
    controls: Controls,
}

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

impl From<reqwest::Error> for LlamaError {
    fn from(error: reqwest::Error) -> Self {
        LlamaError::Talk(format!("{error:?}"))
    }
}

/// The command as it stands in the pod: the kubelet stand-in maps its paths to the host's.
pub fn pod_command(port: u16, args: &[String]) -> Vec<String> {
    let fixed = ["llama-server", "-m", "/models/model.gguf", "--port"];
    let more = [
        "--slot-save-path",
        "/state",
        "--no-cache-idle-slots",
        "-np",
        "2",
        "-c",
        "8192",
        "-t",
        "1",
        "--metrics",
        "--offline",
        "--api-key-file",
        "/state/token",
    ];
    let mut command: Vec<String> = fixed.iter().map(|part| (*part).to_owned()).collect();
    command.push(port.to_string());
    command.extend(more.iter().map(|part| (*part).to_owned()));
    command.extend(args.iter().cloned());
    command
}

impl LlamaServer {
    /// Starts a server and waits until it has loaded its model.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start(
        options: &LlamaOptions,
        member: &'static str,
        other_weights: bool,
        ip: Ipv4Addr,
        port: u16,
        volume: &Path,
    ) -> Result<Self, LlamaError> {
        let file = |flag| {
            move |path: &Path| {
                let path = path.to_owned();
                move |source| LlamaError::File { path, flag, source }
            }
        };
        let folder = options.folder.join(member);
        let model = folder.join("model.gguf");
        std::fs::create_dir_all(&folder).map_err(file("--model")(&folder))?;
        let weights = match &options.other {
            Some(other) if other_weights => other,
            _ => &options.model,
        };
        // A new file is moved over the old name: the source keeps the one that it has mapped.
        let fresh = folder.join("fresh.gguf");
        std::fs::copy(weights, &fresh).map_err(file("--model or --other-weights")(weights))?;
        std::fs::rename(&fresh, &model).map_err(file("--model")(&model))?;
        let log = folder.join(format!("{ip}.log"));
        let output = std::fs::File::create(&log).map_err(file("--keep")(&log))?;
        let errors = output.try_clone().map_err(file("--keep")(&log))?;
        let command = pod_command(port, &options.args);
        let host_path = |part: &String| match part.as_str() {
            "/models/model.gguf" => model.clone().into_os_string(),
            inside if inside == "/state" || inside.starts_with("/state/") => {
                volume.join(inside.trim_start_matches("/state").trim_start_matches('/')).into_os_string()
            }
            other => other.into(),
        };
        let mut child = Command::new(&options.server);
        child
            .args(command.iter().skip(1).map(host_path))
            .arg("--host")
            .arg(ip.to_string())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true);
        let child = child.spawn().map_err(file("--llama-server")(&options.server))?;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        let talk =
            Talk { member, base: format!("http://{ip}:{port}"), client, controls: options.controls.clone() };
        let mut server = Self { child, talk };
        server.wait_until_up(&log).await?;
        Ok(server)
    }

    async fn wait_until_up(&mut self, log: &Path) -> Result<(), LlamaError> {
        let end = tokio::time::Instant::now() + LOAD;
        let url = format!("{}/health", self.talk.base);
        loop {
            let asked = self.talk.client.get(&url).timeout(Duration::from_secs(2)).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            let died = self.child.try_wait().is_ok_and(|status| status.is_some());
            if died || tokio::time::Instant::now() >= end {
                let text = std::fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().rev().take(5).collect();
                return Err(LlamaError::NotUp {
                    log: lines.into_iter().rev().collect::<Vec<_>>().join(" | "),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// On the source: has the conversation, then only its first turn.
    ///
    /// # Errors
    /// If the server does not speak as it should.
    pub async fn begin_conversation(&self) -> Result<(), LlamaError> {
        for slot in 0..SLOTS {
            self.talk.begin(slot).await?;
        }
        Ok(())
    }

    /// On the replacement: has the second turn and compares.
    pub fn continue_conversation(
        &self,
    ) -> impl Future<Output = Result<Conversation, LlamaError>> + Send + 'static {
        let talk = self.talk.clone();
        async move {
            let mut all = Conversation { same: true, ..Conversation::default() };
            for slot in 0..SLOTS {
                talk.resume(slot, &mut all).await?;
            }
            Ok(all)
        }
    }

    /// Ends it: nothing of ours is in it any more, and it would wait for requests.
    pub async fn stop(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "llama-server was gone already");
        }
    }
}

impl Talk {
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
        let mut controls = self.controls.0.lock().unwrap_or_else(PoisonError::into_inner);
        controls.insert((self.member.to_owned(), slot), control);
        Ok(())
    }

    async fn resume(&self, slot: u32, all: &mut Conversation) -> Result<(), LlamaError> {
        let control = {
            let controls = self.controls.0.lock().unwrap_or_else(PoisonError::into_inner);
            controls.get(&(self.member.to_owned(), slot)).cloned()
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
