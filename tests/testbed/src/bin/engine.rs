//! The engine of the testbed's pods: see [`testbed::engine`].

use anyhow::Result;
use testbed::engine::{Options, run};

// With a thread for signals while the other makes a large state.
#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    run(Options::read(|name| std::env::var(name).ok())?).await
}
