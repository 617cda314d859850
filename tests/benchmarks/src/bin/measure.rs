//! Runs one program and says what it cost: measure OUTPUT.json PROGRAM ARGUMENT...
//!
//! A small program of its own, as a process inherits the peak of the memory of whoever starts it: what is started from
//! an interpreter would begin with the interpreter's. It has only one child, so what the kernel counts for its children
//! is what wait4 said of that one.

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result};
use benchmarks::cost::Cost;
use nix::sys::resource::UsageWho;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let output = arguments.next().context("give a file for the result, and a program")?;
    let program = arguments.next().context("give a program")?;
    let began = Instant::now();
    let status = Command::new(&program)
        .args(arguments)
        .status()
        .with_context(|| format!("{} cannot be started", program.display()))?;
    let seconds = began.elapsed().as_secs_f64();
    let cost = Cost::of(UsageWho::RUSAGE_CHILDREN)?;
    let result = serde_json::json!({
        "seconds": seconds, "user": cost.user, "system": cost.system, "peak_rss": cost.peak_rss,
    });
    std::fs::write(&output, result.to_string())?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
