//! The command line. A subcommand's arguments and printing are with the module that does its work.

use crate::commands::checkpoints::CheckpointsArgs;
use crate::commands::completions::CompletionsArgs;
use crate::commands::conformance::ConformanceArgs;
use crate::commands::doctor::DoctorArgs;
use crate::commands::drill::DrillCommand;
use crate::commands::man::ManArgs;
use crate::commands::plan::PlanArgs;
use crate::commands::timeline::TimelineArgs;
use crate::commands::wait::WaitArgs;
use crate::fleet::FleetArgs;
use crate::runtime::config::RunArgs;
use clap::{Parser, Subcommand};

/// Makes EC2 Spot safe for stateful inference on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent on this node
    Run(Box<RunArgs>),
    /// Run what no node's agent can do: open gates where none lives, count what outlives nodes, collect garbage
    Fleet(Box<FleetArgs>),
    /// Rehearse an evacuation on this machine: no cluster, no AWS, no root
    Drill(Box<DrillCommand>),
    /// What would happen to a node if its notice came now: what would be safe, what not, and why
    Plan(PlanArgs),
    /// Is it set up right? What is wrong, why it matters and what mends it; nothing is changed
    Doctor(Box<DoctorArgs>),
    /// Look into the store: what is there, whether it is whole, and a copy of it; nothing is changed
    Checkpoints(Box<CheckpointsArgs>),
    /// Read an agent's journal or a report as a timeline, draw it, or replay it; nothing is asked but the file
    Timeline(Box<TimelineArgs>),
    /// In an init container: wait until this pod's state is back in its volume, or it is clear that it will not be
    Wait(WaitArgs),
    /// Does an engine or a sidecar keep the contract (docs/protocol.md)? It is flushed and restored for that
    Conformance(ConformanceArgs),
    /// Write what lets a shell complete lifeboat's command line
    Completions(CompletionsArgs),
    /// Write lifeboat's manual pages
    Man(ManArgs),
}
