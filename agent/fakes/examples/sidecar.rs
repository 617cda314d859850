//! A sidecar that speaks lifeboat's contract v1 (docs/protocol.md), to read, to run and to test against:
//!
//! ```text
//! cargo run -p fakes --example sidecar -- 127.0.0.1:9100 /tmp/state [SEED BYTES]
//! curl -s http://127.0.0.1:9100/lifeboat/v1/info
//! ```
//!
//! With `LIFEBOAT_TOKEN` in its environment it asks for that bearer token.

use anyhow::Context;
use fakes::sidecar::{Sidecar, SidecarOptions, StateSeed};
use std::collections::BTreeMap;

const USAGE: &str = "usage: sidecar IP:PORT STATE-DIRECTORY [SEED BYTES]";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (listen, state_dir, seed) = match arguments.as_slice() {
        [listen, state_dir] => (listen, state_dir, None),
        [listen, state_dir, seed, bytes] => (listen, state_dir, Some((seed, bytes))),
        _ => anyhow::bail!(USAGE),
    };
    let state = match seed {
        None => None,
        Some((seed, bytes)) => Some(StateSeed {
            seed: seed.parse().context("SEED is a number")?,
            bytes: bytes.parse().context("BYTES is a number")?,
            files: 4,
        }),
    };
    let facts = [
        ("engine", "lifeboat-sidecar"),
        ("engine_version", env!("CARGO_PKG_VERSION")),
        ("weights", "none:example"),
    ];
    let sidecar = Sidecar::start(SidecarOptions {
        listen: listen.parse().context("the first argument is IP:PORT")?,
        state_dir: state_dir.into(),
        state,
        token: std::env::var("LIFEBOAT_TOKEN").ok(),
        facts: facts
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        bytes_per_second: None,
    })
    .await?;
    println!(
        "listening on http://{}, {} bytes of state {}",
        sidecar.addr(),
        sidecar.state_bytes(),
        sidecar.state_digest()
    );
    tokio::signal::ctrl_c().await?;
    sidecar.stop().await;
    Ok(())
}
