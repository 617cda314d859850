//! `lifeboat conformance`: whether an engine or a sidecar keeps contract v1, sentence by sentence (docs/protocol.md).
//!
//! It is run against an engine that may be disturbed: it is quiesced, flushed, restored from its own flush and resumed.

use crate::commands::page::plain;
use clap::Args;
use engines::conformance::{ConformanceOptions, conformance};
use evacuation::moment::Span;
use host::{causes, exit};
use std::path::PathBuf;

/// Arguments of `lifeboat conformance`.
#[derive(Clone, Debug, Args)]
pub struct ConformanceArgs {
    /// Where it answers: http://IP:PORT
    url: String,
    /// Its state volume, as this machine sees it
    #[arg(long, value_name = "PATH")]
    state_dir: PathBuf,
    /// A file with its bearer token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The longest that a flush or a restore may take
    #[arg(long, default_value = "30s", value_parser = crate::runtime::values::span, value_name = "TIME")]
    patience: Span,
}

/// Tests it, and prints how each sentence of the specification fared. 0 if none is broken, 1 if one is, 2 if there was
/// nothing to test, 64 for a token that cannot be read.
pub async fn run(args: ConformanceArgs) -> u8 {
    let token = match args.token_file.as_ref().map(std::fs::read_to_string).transpose() {
        Ok(token) => token.map(|token| token.trim().to_owned()),
        Err(error) => {
            let file = args.token_file.unwrap_or_default();
            eprintln!("lifeboat conformance: --token-file {}: {error}", file.display());
            return exit::USAGE;
        }
    };
    let options = ConformanceOptions { token, state_dir: args.state_dir, patience: args.patience };
    match conformance(&args.url, options).await {
        Ok(report) => {
            // What an engine says may be anything.
            report.to_string().lines().for_each(|line| println!("{}", plain(line)));
            if report.conforms() { 0 } else { exit::NO }
        }
        Err(error) => {
            eprintln!("lifeboat conformance: {}", plain(&causes::chain(&error)));
            exit::FAILED
        }
    }
}
