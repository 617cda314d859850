//! Where the API server is, and how patient the client is with it.

use super::ClusterError;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::path::Path;
use std::time::Duration;

/// A server that does not take a connection within this is asked again, over another.
const CONNECT: Duration = Duration::from_secs(2);

/// Longer than an idle watch is quiet: the server ends each watch after [`super::follow::WATCH_SECONDS`],
/// so silence beyond that is a dead connection.
const READ: Duration = Duration::from_secs(super::follow::WATCH_SECONDS as u64 + 5);

/// How what runs by itself is called in the API server's audit log.
const ITSELF: &str = concat!("lifeboat/", env!("CARGO_PKG_VERSION"));
/// The same binary when a person has it ask, often under the agent's account: what is refused then is no fault of the
/// agent's rights.
const BY_HAND: &str = concat!("lifeboat/", env!("CARGO_PKG_VERSION"), " (by hand)");

fn named(mut config: Config, name: &'static str) -> Config {
    config.headers.push((USER_AGENT, HeaderValue::from_static(name)));
    config
}

/// The configuration from a kubeconfig, or from the pod's service account, for what runs by itself.
pub(super) async fn config(kubeconfig: Option<&Path>) -> Result<Config, ClusterError> {
    Ok(named(given(kubeconfig).await?, ITSELF))
}

async fn given(kubeconfig: Option<&Path>) -> Result<Config, ClusterError> {
    let Some(path) = kubeconfig else {
        return Config::incluster().map_err(|source| ClusterError::InCluster { source });
    };
    let unusable = |source| ClusterError::Kubeconfig { path: path.to_path_buf(), source: Box::new(source) };
    let file = Kubeconfig::read_from(path).map_err(unusable)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(unusable)
}

/// The configuration that a person's own tools would use: the file that is named, else `KUBECONFIG`, else
/// `~/.kube/config`, else the pod's service account.
pub(super) async fn personal(kubeconfig: Option<&Path>) -> Result<Config, ClusterError> {
    let config = match kubeconfig {
        Some(_) => given(kubeconfig).await?,
        None => Config::infer().await.map_err(|source| ClusterError::Infer { source: Box::new(source) })?,
    };
    Ok(named(config, BY_HAND))
}

/// The same configuration with our own patience.
pub(super) fn bounded(mut config: Config) -> Config {
    // kube retries 429, 503 and 504 by itself otherwise, up to 15 times and for minutes.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    // Otherwise the time a connection lay in the pool counts against the next answer on it.
    config.reset_reader_on_write = true;
    config
}
