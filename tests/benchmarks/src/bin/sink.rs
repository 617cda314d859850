//! The sink of [`benchmarks::sink`] as a program: prints its addresses as one line of JSON, and serves until its standard
//! input ends, so that it never outlives who started it. `GET /__counts` says what arrived.

use std::path::PathBuf;

use anyhow::{Context, Result};
use benchmarks::{certificate, sink};
use clap::Parser;

/// An S3 stand-in on loopback that costs next to nothing.
#[derive(Parser)]
struct Args {
    /// Where to write the certificate authority that clients must trust (PEM).
    #[arg(long)]
    ca: PathBuf,
    /// Keep large bodies in memory, for restores.
    #[arg(long)]
    keep: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let identity = certificate::make()?;
    std::fs::write(&args.ca, &identity.ca_pem).with_context(|| args.ca.display().to_string())?;
    let addresses = sink::start(&identity, args.keep)?;
    println!(
        "{}",
        serde_json::json!({
            "https": format!("https://{}", addresses.https), "http": format!("http://{}", addresses.http),
        })
    );
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
