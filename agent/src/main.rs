//! The `lifeboat` binary: TLS provider, command line, exit code; nothing else.

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use host::{causes, exit};
use lifeboat::cli::{Cli, Command};
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    // First, so that no library can be asked for TLS before one provider is chosen. A second
    // installation is refused, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let _ = error.print();
            return ExitCode::from(if asked { 0 } else { exit::USAGE });
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match cli.command {
        Command::Run(args) => match args.validate() {
            Ok(config) => match runtime.block_on(lifeboat::node::run(config)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(error.as_ref()),
            },
            Err(error) => {
                eprintln!("lifeboat: {error}");
                ExitCode::from(exit::USAGE)
            }
        },
        Command::Fleet(args) => match args.validate() {
            Ok(settings) => match runtime.block_on(lifeboat::fleet::run(settings)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error),
            },
            Err(error) => {
                eprintln!("lifeboat: {error}");
                ExitCode::from(exit::USAGE)
            }
        },
        Command::Drill(args) => ExitCode::from(runtime.block_on(lifeboat::commands::drill::run(*args))),
        Command::Plan(args) => ExitCode::from(runtime.block_on(lifeboat::commands::plan::run(args))),
        Command::Doctor(args) => ExitCode::from(runtime.block_on(lifeboat::commands::doctor::run(*args))),
        Command::Wait(args) => ExitCode::from(lifeboat::commands::wait::run(&args)),
        Command::Conformance(args) => {
            ExitCode::from(runtime.block_on(lifeboat::commands::conformance::run(args)))
        }
        Command::Timeline(args) => ExitCode::from(lifeboat::commands::timeline::run(&args)),
        Command::Completions(args) => {
            ExitCode::from(lifeboat::commands::completions::run(&args, Cli::command()))
        }
        Command::Man(args) => ExitCode::from(lifeboat::commands::man::run(&args, Cli::command())),
        Command::Checkpoints(args) => {
            ExitCode::from(runtime.block_on(lifeboat::commands::checkpoints::run(*args)))
        }
    }
}

/// Says why, with the whole chain, once.
fn failed(error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("lifeboat: {}", causes::chain(error));
    ExitCode::FAILURE
}
