//! What the supervisor can be asked: one JSON line there, one back, per connection.

use crate::layout::{Folder, NodeOptions};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Request {
    /// Answers `{"nodes": […], "processes": {name: alive}}`.
    Status,
    /// A new node; answers when its kubelet runs, not when it's ready.
    AddNode(NodeOptions),
    /// Power off: silence on the network first, then every process of the node at once.
    KillNode {
        /// Which.
        node: String,
    },
    /// The node that was killed starts again with another boot id; its disk is as it was.
    BootNode {
        /// Which.
        node: String,
    },
    /// The node's link to everything else goes down or comes up again.
    Link {
        /// A node, `s3` or `cp`.
        host: String,
        /// Up.
        up: bool,
    },
    /// What the host may send; `None` is as fast as it goes.
    Uplink {
        /// A node, `s3` or `cp`.
        host: String,
        /// Bits per second.
        rate: Option<u64>,
    },
    /// Ends a process (SIGKILL).
    Stop {
        /// As `Status` names it: `kube-apiserver`, `versitygw`, `kubelet-node-a`, …
        process: String,
    },
    /// Starts it again as it was.
    Start {
        /// As `Status` names it.
        process: String,
    },
    /// SIGSTOP: connections stay, nothing answers.
    Pause {
        /// As `Status` names it.
        process: String,
    },
    /// SIGCONT.
    Resume {
        /// As `Status` names it.
        process: String,
    },
    /// The system of a node announces that it shuts down, to a kubelet that holds that up. It answers at once; the node
    /// stays until it is killed. When the kubelet lets the shutdown go on, `NODE/logind/released` is there.
    ShutDown {
        /// Which.
        node: String,
    },
    /// Kills the first process of a container on a node, as the kernel would.
    KillContainer {
        /// The node.
        node: String,
        /// The runtime's id, without `containerd://`.
        id: String,
        /// The signal's number.
        signal: i32,
    },
    /// Pushes an image that a node has into the registry, from where any node pulls it.
    Publish {
        /// The node.
        node: String,
        /// As the node has it: `registry.local/engine:1`.
        image: String,
        /// As it's called in the registry: `engine:1`.
        name: String,
    },
    /// Ends the testbed.
    Down,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// What was asked for.
    #[serde(rename = "ok")]
    Ok(Value),
    /// Why not.
    #[serde(rename = "error")]
    Error(String),
}

/// Asks a supervisor.
///
/// # Errors
/// Nobody listens, or what it says went wrong.
pub fn ask(folder: &Folder, request: &Request) -> Result<Value> {
    let socket = folder.socket();
    let mut stream = UnixStream::connect(&socket).with_context(|| {
        format!("no testbed listens on {}: start one with `testbed up`", socket.display())
    })?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    match serde_json::from_str(&line).with_context(|| format!("the supervisor answered {line:?}"))? {
        Answer::Ok(value) => Ok(value),
        Answer::Error(error) => bail!("{error}"),
    }
}
