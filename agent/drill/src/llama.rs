//! A real llama-server as a pod's engine.

use super::talk::{Controls, LOAD, Talk};
use super::trail::Conversation;
use crate::talk::LlamaError;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

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

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct LlamaServer {
    child: Child,
    talk: Talk,
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
        let talk = Talk::new(member, &format!("http://{ip}:{port}"), &options.controls)?;
        let mut server = Self { child, talk };
        server.wait_until_up(&log).await?;
        Ok(server)
    }

    async fn wait_until_up(&mut self, log: &Path) -> Result<(), LlamaError> {
        let end = tokio::time::Instant::now() + LOAD;
        loop {
            if self.talk.is_up().await {
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
        self.talk.begin_all().await
    }

    /// On the replacement: has the second turn and compares.
    pub fn continue_conversation(
        &self,
    ) -> impl Future<Output = Result<Conversation, LlamaError>> + Send + 'static {
        let talk = self.talk.clone();
        async move { talk.continue_all().await }
    }

    /// Ends it: nothing of ours is in it any more, and it would wait for requests.
    pub async fn stop(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "llama-server was gone already");
        }
    }
}
