//! Logs: JSON lines on standard error in a pod, readable ones on a terminal.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// What is logged, in `tracing_subscriber`'s directives.
const FILTER: &str = "LIFEBOAT_LOG";

/// Starts to log. A second call changes nothing.
pub fn start() {
    let filter = EnvFilter::builder()
        .with_env_var(FILTER)
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy()
        // What it would say is said by us, once and with the reason.
        .add_directive(kube_watch_noise());
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Already started: by a test, or by the drill around us.
    let _ = if std::io::stderr().is_terminal() {
        logs.with_target(false).try_init()
    } else {
        logs.json().flatten_event(true).try_init()
    };
}

fn kube_watch_noise() -> tracing_subscriber::filter::Directive {
    "kube_runtime=error".parse().unwrap_or_else(|_| tracing::Level::ERROR.into())
}
