//! `lifeboat checkpoints`: what is in the store, for people and scripts. Only `gc` and `erase` write to it; what they need
//! to remove they open for that purpose, after everything else was looked at.
//!
//! ```text
//!  command line ─► target   NAMESPACE/WORKLOAD[/LINEAGE[/GENERATION]]
//!                    │
//!                    ▼
//!                  catalog   opens the store, finds what was named, or says what is near it
//!                    │
//!        ┌───────┬───┴────┬────────┬───────┬───────┬───────┐
//!        ▼       ▼        ▼        ▼       ▼       ▼       ▼
//!      list    show    verify    diff    fetch     gc    erase ─► one document ─► page (text) or JSON
//! ```
//!
//! Memory is bounded whatever the store holds: listings by the store's own limit, manifests by theirs and by how many
//! are read at once, and `verify` by its window per pack and its share of the extents.

mod catalog;
mod diff;
mod erase;
mod fetch;
pub(crate) mod gc;
mod list;
mod near;
mod show;
mod standing;
mod target;
mod verify;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;

use self::target::{Place, Target};
use crate::commands::page::{self, Output, Page};
use crate::runtime::config::StoreArgs;
use clap::{Args, Subcommand};
use host::exit;
use serde::Serialize;
use std::path::PathBuf;

/// The arguments of `lifeboat checkpoints`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 done; 1 verify found something wrong; 2 it could not be done; 64 the command line is wrong."
)]
pub struct CheckpointsArgs {
    #[command(subcommand)]
    verb: Verb,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// The lineages with their newest generation and how they stand, newest first
    List {
        /// Only of this namespace or workload
        #[arg(value_name = "NAMESPACE[/WORKLOAD]")]
        place: Option<Place>,
        #[command(flatten)]
        common: Common,
    },
    /// One generation: where it comes from, its fingerprint, its files and packs
    Show {
        /// What to show: the newest lineage and its newest generation, unless they are named
        #[arg(value_name = "NAMESPACE/WORKLOAD[/LINEAGE[/GENERATION]]")]
        target: Target,
        /// Compare the fingerprint with this one's, and name the first fact that differs
        #[arg(long, value_name = "NAMESPACE/WORKLOAD[/LINEAGE[/GENERATION]]")]
        against: Option<Target>,
        #[command(flatten)]
        common: Common,
    },
    /// Read every byte and compare every checksum; exit code 1 if anything is wrong
    Verify {
        /// What to verify: every lineage and every generation, unless they are named
        #[arg(value_name = "NAMESPACE/WORKLOAD[/LINEAGE[/GENERATION]]")]
        target: Target,
        /// Packs read at the same time, each with about 32 MiB of memory
        #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
        parallel: u8,
        #[command(flatten)]
        common: Common,
    },
    /// What changed from one generation to another: files, and the bytes that are new
    Diff {
        /// The older one
        #[arg(value_name = "A")]
        a: Target,
        /// The newer one
        #[arg(value_name = "B")]
        b: Target,
        #[command(flatten)]
        common: Common,
    },
    /// Write the files of a generation into an empty directory, every byte verified
    Fetch {
        /// What to fetch: the newest lineage and its newest generation, unless they are named
        #[arg(value_name = "NAMESPACE/WORKLOAD[/LINEAGE[/GENERATION]]")]
        target: Target,
        /// Where to: an empty directory, or one that does not exist yet; a fetch that was interrupted goes on
        directory: PathBuf,
        /// Transfers at the same time, each with about 2 MiB of memory
        #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=32))]
        parallel: u8,
        #[command(flatten)]
        common: Common,
    },
    /// Remove what no kept generation names: one pass, which marks, and removes what was marked a grace ago
    Gc {
        /// Only of this namespace or workload
        #[arg(value_name = "NAMESPACE[/WORKLOAD]")]
        place: Option<Place>,
        /// Only say what would go, and why; needs no right to write or delete
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        keep: crate::runtime::garbage_args::GarbageArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Remove everything of a namespace or workload, also what is claimed, and leave a record of it
    Erase {
        /// What to erase
        #[arg(value_name = "NAMESPACE[/WORKLOAD]")]
        place: Place,
        /// Really do it; without it, only say how much it is
        #[arg(long)]
        yes: bool,
        /// Also while a checkpoint is coming; erase again when its pod has gone
        #[arg(long)]
        force: bool,
        /// Who asks, for the record; by default as the environment has it
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

/// What every verb takes.
#[derive(Args, Clone, Debug)]
struct Common {
    /// What is written to standard output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    store: StoreArgs,
}

/// Why a verb has no answer: one line that names what to correct.
#[derive(Debug, thiserror::Error)]
enum CheckpointsFailure {
    /// The command line.
    #[error("{0}")]
    Usage(String),
    /// The store, or what was asked of it.
    #[error("{0}")]
    Failed(String),
}

/// A verb's answer: one document with stable field names, and the same for people.
trait CommandOutput: Serialize {
    /// For people.
    fn page(&self, page: &mut Page);
    /// The exit code.
    fn code(&self) -> u8 {
        0
    }
}

/// Does what the command line says and returns the exit code.
pub async fn run(args: CheckpointsArgs) -> u8 {
    match args.verb {
        Verb::List { place, common } => say(&common, list::list(&common.store, place.as_ref()).await),
        Verb::Show { target, against, common } => {
            say(&common, show::show(&common.store, &target, against.as_ref()).await)
        }
        Verb::Verify { target, parallel, common } => {
            say(&common, verify::verify(&common.store, &target, parallel.into()).await)
        }
        Verb::Diff { a, b, common } => say(&common, diff::diff(&common.store, &a, &b).await),
        Verb::Fetch { target, directory, parallel, common } => {
            say(&common, fetch::fetch(&common.store, &target, &directory, parallel.into()).await)
        }
        Verb::Gc { place, dry_run, keep, common } => {
            say(&common, gc::gc(&common.store, place.as_ref(), &keep, dry_run).await)
        }
        Verb::Erase { place, yes, force, by, common } => {
            say(&common, erase::erase(&common.store, &place, by.as_deref(), yes, force).await)
        }
    }
}

fn say<T: CommandOutput>(common: &Common, answer: Result<T, CheckpointsFailure>) -> u8 {
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => {
            eprintln!("lifeboat checkpoints: {}", page::plain(&failure.to_string()));
            return if matches!(failure, CheckpointsFailure::Usage(_)) { exit::USAGE } else { exit::FAILED };
        }
    };
    match render(common.output, &answer)
        .and_then(|text| page::print(&text).map_err(|error| error.to_string()))
    {
        Ok(()) => answer.code(),
        Err(error) => {
            eprintln!("lifeboat checkpoints: standard output: {error}");
            exit::FAILED
        }
    }
}

fn render<T: CommandOutput>(output: Output, answer: &T) -> Result<String, String> {
    match output {
        Output::Text => {
            let mut page = Page::default();
            answer.page(&mut page);
            Ok(page.as_str().to_owned())
        }
        Output::Json => {
            serde_json::to_string_pretty(answer).map(|text| text + "\n").map_err(|error| error.to_string())
        }
    }
}
