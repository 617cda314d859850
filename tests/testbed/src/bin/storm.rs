//! `storm N`: N agents in one process against a real control plane, all noticed in the same second. See
//! [`testbed::storm`].

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let agents = match std::env::args().nth(1) {
        Some(count) => count.parse().context("usage: storm [AGENTS]")?,
        None => 50,
    };
    testbed::storm::run(agents)
}
