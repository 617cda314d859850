//! `lifeboat drill`: an evacuation rehearsed, on this machine or, with `--node`, by an agent of a cluster.
//!
//! The machine's own drill is a crate of its own, which the image leaves out (the cargo feature `drill`).

mod live;

use clap::Args;
use live::LiveArgs;

/// The arguments of `lifeboat drill`.
#[derive(Args, Clone, Debug)]
pub struct DrillCommand {
    #[cfg(feature = "drill")]
    #[command(flatten)]
    sandbox: drill::arguments::DrillArgs,

    #[cfg(not(feature = "drill"))]
    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    live: LiveArgs,
}

/// What is left of the sandbox's flags where it is not built in.
#[cfg(not(feature = "drill"))]
#[derive(Args, Clone, Debug)]
struct OutputArgs {
    /// What is written to standard output
    #[arg(long, value_enum, default_value_t = LiveOutput::Text)]
    output: LiveOutput,
}

/// `--output`.
#[cfg(not(feature = "drill"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LiveOutput {
    /// Lines
    Text,
    /// JSON
    Json,
}

/// Holds a drill and returns the exit code.
#[cfg(feature = "drill")]
pub async fn run(args: DrillCommand) -> u8 {
    match &args.live.node {
        Some(node) if !args.sandbox.list_faults => {
            let as_json = args.sandbox.output == drill::arguments::OutputKind::Json;
            live::run(&args.live, node, as_json).await
        }
        _ => drill::run(args.sandbox).await,
    }
}

/// Holds a drill and returns the exit code.
#[cfg(not(feature = "drill"))]
pub async fn run(args: DrillCommand) -> u8 {
    match &args.live.node {
        Some(node) => live::run(&args.live, node, args.output.output == LiveOutput::Json).await,
        None => {
            eprintln!(
                "lifeboat drill: this build has no drill of its own, as it is the one that nodes run: give --node NAME to have the \
                 agent of a node rehearse, or run the drill with a build with the cargo feature `drill`: \
                 `cargo install --path agent`, or the image's target `sandbox`"
            );
            host::exit::USAGE
        }
    }
}

#[cfg(all(test, feature = "drill"))]
mod tests {
    use drill::cast::{CAST, EngineTemplate};

    #[test]
    fn the_casts_annotations_are_valid_to_the_agent() {
        let template =
            EngineTemplate { engine: "http", command: vec!["engine".into()], port: 8080, restore: "gate" };
        for member in CAST {
            let pod = serde_json::from_value(member.pod(1, Some("node-a"), &template)).unwrap();
            let read = crate::pods::annotations::read(&pod);
            assert_eq!(read.errors, [], "{}", member.name);
            assert_eq!(read.engine.is_some(), member.has_state());
        }
    }
}
