//! `lifeboat drill`'s flags.

use clap::{Args, ValueEnum};
use evacuation::moment::Span;
use fault_plan::drill::parse_span;
use std::path::PathBuf;

/// Rehearses an evacuation on this machine: no cluster, no AWS, no root.
#[derive(Clone, Debug, Args)]
pub struct DrillArgs {
    /// Something that goes wrong, such as 'store=slow:2MiB/s' (repeatable; --list-faults explains them)
    #[arg(long = "fault", value_name = "TEXT")]
    pub faults: Vec<String>,

    /// A file with one fault a line
    #[arg(long, value_name = "FILE")]
    pub fault_file: Option<PathBuf>,

    /// Explain every fault, and do nothing else
    #[arg(long)]
    pub list_faults: bool,

    /// The time that is left in the notice
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_span)]
    pub window: Span,

    /// What runs in the stateful pods
    #[arg(long, value_enum, default_value_t = EngineKind::Http)]
    pub engine: EngineKind,

    /// The llama-server binary, for --engine llama-server
    #[arg(long, value_name = "FILE")]
    pub llama_server: Option<PathBuf>,

    /// The model (GGUF), for --engine llama-server
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,

    /// One more argument for llama-server (repeatable)
    #[arg(long = "llama-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub llama_args: Vec<String>,

    /// Weights that the replacements find under the same name: their restore must be refused
    #[arg(long, value_name = "FILE")]
    pub other_weights: Option<PathBuf>,

    /// lifeboat.dev/restore of the stateful pods
    #[arg(long, value_enum, default_value_t = RestoreKind::Gate)]
    pub restore: RestoreKind,

    /// The store: dir:/path or s3://bucket/prefix (a temporary directory by default)
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,

    /// The S3 endpoint
    #[arg(long, value_name = "URL")]
    pub store_endpoint: Option<String>,

    /// The S3 region
    #[arg(long, value_name = "REGION")]
    pub store_region: Option<String>,

    /// Use endpoint/bucket/key, as most S3-compatible servers want
    #[arg(long)]
    pub store_path_style: bool,

    /// State of each stateful pod (--engine http)
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = parse_size)]
    pub state_size: u64,

    /// Makes the state
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// The agents' --evict-order, and what the verdict expects
    #[arg(long, value_enum, default_value_t = OrderKind::HighestFirst)]
    pub evict_order: OrderKind,

    /// Keep the drill's files: logs, journals, store
    #[arg(long)]
    pub keep: bool,

    /// What is written to standard output
    #[arg(long, value_enum, default_value_t = OutputKind::Text)]
    pub output: OutputKind,

    /// Break a guarantee on purpose, from the world's side: the verdict must notice
    #[arg(long, value_enum, hide = true)]
    pub sabotage: Option<Sabotage>,

    /// The agent's binary (this one by default)
    #[arg(long, value_name = "FILE", hide = true)]
    pub agent: Option<PathBuf>,

    /// One more argument for both agents (repeatable)
    #[arg(long = "agent-arg", value_name = "ARG", hide = true, allow_hyphen_values = true)]
    pub agent_args: Vec<String>,
}

/// `--engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// lifeboat's own contract, spoken by a small sidecar
    Http,
    /// Real llama-server processes
    LlamaServer,
}

/// `--restore`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RestoreKind {
    /// Not ready before the restore is decided
    Gate,
    /// Nothing is restored
    Off,
}

/// `--evict-order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OrderKind {
    /// The most important first
    HighestFirst,
    /// The kubelet's order
    LowestFirst,
}

impl OrderKind {
    /// The flag's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            OrderKind::HighestFirst => "highest-first",
            OrderKind::LowestFirst => "lowest-first",
        }
    }
}

/// `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputKind {
    /// A timeline and a table
    Text,
    /// One JSON document
    Json,
}

/// `--sabotage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// What is committed cannot be found
    SkipSave,
    /// A byte of the restored state is another
    FlipByte,
    /// The agents evict in the other order
    WrongOrder,
    /// A pod is evicted before its state is committed
    EarlyEviction,
}

fn parse_size(text: &str) -> Result<u64, String> {
    let size =
        text.parse::<bytesize::ByteSize>().map_err(|_| format!("{text:?} is not a size such as 8MiB"))?;
    Ok(size.as_u64())
}
