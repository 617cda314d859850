//! `testbed`: a Kubernetes with real nodes on this machine, for people. Root and Linux needed.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use testbed::layout::{Folder, NodeOptions};
use testbed::request::{Request, ask};
use testbed::{Options, Testbed, metadata, supervisor};

/// A Kubernetes with real kubelets, an S3 server and metadata services on this machine. Needs root and Linux.
#[derive(Debug, Parser)]
#[command(name = "testbed", version)]
struct Arguments {
    /// Which testbed, where several run.
    #[arg(long, global = true, default_value = "default")]
    name: String,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Starts one: control plane, S3, and nodes with the agent on them.
    Up {
        /// The nodes' names.
        #[arg(default_values = ["node-a", "node-b"])]
        nodes: Vec<String>,
        /// Without the agent.
        #[arg(long)]
        bare: bool,
    },
    /// Ends it, and everything it started.
    Down,
    /// Nodes and processes.
    Status,
    /// Adds, kills, boots, cuts or slows down a node.
    #[command(subcommand)]
    Node(NodeVerb),
    /// Tells a node's metadata service what to say: an interruption in so many seconds.
    Interrupt {
        /// Which.
        node: String,
        /// Seconds from now.
        #[arg(default_value_t = 120)]
        seconds: u64,
    },
    /// kubectl as an administrator.
    #[command(trailing_var_arg = true, allow_hyphen_values = true)]
    Kubectl {
        /// kubectl's own arguments.
        arguments: Vec<String>,
    },
    /// The log of a process, or the list of logs.
    Logs {
        /// As `status` names it.
        process: Option<String>,
    },
    #[command(hide = true)]
    Init { folder: PathBuf },
    #[command(hide = true)]
    Supervise { folder: PathBuf },
    /// As a test holds one: it ends with this process.
    #[command(hide = true)]
    Hold,
    #[command(hide = true)]
    Metadata { node: String, life: String },
}

#[derive(Debug, Subcommand)]
enum NodeVerb {
    /// A new node.
    Add {
        /// node-a to node-z.
        node: String,
        /// Its kubelet evicts pods over their volumes' sizeLimit.
        #[arg(long)]
        isolation: bool,
    },
    /// Power off, without notice.
    Kill {
        /// Which.
        node: String,
    },
    /// Power on again, with another boot id.
    Boot {
        /// Which.
        node: String,
    },
    /// Bounds what it can send.
    Uplink {
        /// Which.
        node: String,
        /// Megabits per second, or `off`.
        rate: String,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Verb::Init { folder } => return supervisor::init(&folder),
        Verb::Supervise { folder } => return supervisor::supervise(&folder),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<()> {
    let folder = Folder::outside(&arguments.name);
    match arguments.command {
        Verb::Init { .. } | Verb::Supervise { .. } => bail!("only the testbed itself runs this"),
        Verb::Metadata { node, life } => metadata::serve(&node, life == "spot").await,
        Verb::Hold => {
            let bed = Testbed::up(&["node-a"]).await?;
            println!("{}", bed.folder().0.display());
            std::future::pending().await
        }
        Verb::Up { nodes, bare } => {
            let options = nodes.iter().map(|name| NodeOptions::new(name)).collect();
            let bed =
                Testbed::start(Options { name: arguments.name.clone(), nodes: options, stay: true }).await?;
            for node in &nodes {
                bed.node_ready(node).await?;
            }
            if !bare {
                bed.install_agent().await?;
            }
            println!("{} nodes are ready; its folder is {}", nodes.len(), folder.0.display());
            println!("try: testbed kubectl get pods -A; testbed interrupt {}; testbed down", nodes[0]);
            Ok(())
        }
        Verb::Down => {
            // It ends before it answers.
            let _ = ask(&folder, &Request::Down);
            std::thread::sleep(std::time::Duration::from_millis(500));
            testbed::bed::discard(&folder);
            Ok(())
        }
        Verb::Status => {
            println!("{}", serde_json::to_string_pretty(&ask(&folder, &Request::Status)?)?);
            Ok(())
        }
        Verb::Node(verb) => {
            let request = match verb {
                NodeVerb::Add { node, isolation } => {
                    Request::AddNode(NodeOptions { isolation, ..NodeOptions::new(&node) })
                }
                NodeVerb::Kill { node } => Request::KillNode { node },
                NodeVerb::Boot { node } => Request::BootNode { node },
                NodeVerb::Uplink { node, rate } => {
                    let rate = match rate.as_str() {
                        "off" => None,
                        rate => Some(
                            rate.parse::<u64>().context("the rate is megabits per second, or off")?
                                * 1_000_000,
                        ),
                    };
                    Request::Uplink { host: node, rate }
                }
            };
            ask(&folder, &request).map(drop)
        }
        Verb::Interrupt { node, seconds } => {
            let bed = Testbed::attach(&arguments.name).await?;
            let time = bed.metadata(&node)?.interrupt(std::time::Duration::from_secs(seconds)).await?;
            println!("{node} will be interrupted at {time}");
            Ok(())
        }
        Verb::Kubectl { arguments: words } => {
            let bed = Testbed::attach(&arguments.name).await?;
            Err(Command::new(bed.kubectl_path())
                .arg("--kubeconfig")
                .arg(folder.kubeconfig("admin"))
                .args(words)
                .exec()
                .into())
        }
        Verb::Logs { process: Some(process) } => {
            print!(
                "{}",
                std::fs::read_to_string(folder.log(&process))
                    .with_context(|| format!("{process} has no log"))?
            );
            Ok(())
        }
        Verb::Logs { process: None } => {
            for entry in std::fs::read_dir(folder.path("log"))?.flatten() {
                println!("{}", entry.path().display());
            }
            Ok(())
        }
    }
}
