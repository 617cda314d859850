//! The admin address: probes, metrics and status, on one port.
//!
//! `/livez` fails only if the role's loop has not turned for [`HUNG_AFTER`]: nothing that happens
//! in an evacuation may get the agent killed. `/readyz` is a set of latches and never closes again.
//! The fleet role serves the same, with latches of its own.

use crate::runtime::metrics::Metrics;
use crate::runtime::readiness::{Heartbeat, Latch, Readiness};
use crate::runtime::repeats::Repeats;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use evacuation::facts::Facts;
use evacuation::moment::Span;
use host::{causes, clock};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A driver that has not turned for this long is hung.
pub const HUNG_AFTER: Span = Span::from_secs(10);

/// Between two attempts at an address that cannot be served.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The admin address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another process has it, or the host does not.
    #[error("cannot listen on {address} for /livez, /readyz and /metrics: choose another with --admin-addr")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The listener broke.
    #[error("the admin listener failed")]
    Serve {
        /// Why.
        source: std::io::Error,
    },
}

/// What the admin address shows.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The driver's heartbeat.
    pub heartbeat: Heartbeat,
    /// The latches.
    pub readiness: Readiness,
    /// The metrics.
    pub metrics: Metrics,
    /// What `/status` answers.
    pub status: watch::Receiver<serde_json::Value>,
    /// What `/facts` answers: what a plan of this node is made from.
    pub facts: watch::Receiver<Option<Facts>>,
}

/// The admin address, once it is bound.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Serves `address` for ever; drop the future to end it. An address that is taken is tried again: probes and metrics
    /// are a convenience, and nothing else waits for them.
    pub async fn keep_serving(address: SocketAddr, sources: Sources) {
        let mut failures = Repeats::default();
        loop {
            if let Err(error) = Self::serve_once(address, sources.clone()).await
                && let Some(unlogged) = failures.failed((), &causes::chain(&error), clock::now())
            {
                tracing::error!(
                    error = causes::chain(&error),
                    unlogged,
                    "no probes and no metrics; everything else goes on, and it is tried again every {} s",
                    RETRY_AFTER.as_secs()
                );
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    async fn serve_once(address: SocketAddr, sources: Sources) -> Result<(), AdminError> {
        let admin = Self::bind(address).await?;
        tracing::info!(address = %admin.address(), "probes and metrics");
        admin.serve(sources).await
    }

    /// Binds the address.
    ///
    /// # Errors
    /// Names the address and the flag.
    async fn bind(address: SocketAddr) -> Result<Admin, AdminError> {
        let failed = |source| AdminError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Admin { listener, address })
    }

    /// The address as bound: with its port, where 0 was asked for.
    const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for ever; drop the future to end it.
    ///
    /// # Errors
    /// If the listener breaks.
    async fn serve(self, sources: Sources) -> Result<(), AdminError> {
        let router = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .route("/facts", get(facts))
            .with_state(sources);
        axum::serve(self.listener, router).await.map_err(|source| AdminError::Serve { source })
    }
}

async fn livez(State(sources): State<Sources>) -> Response {
    let age = sources.heartbeat.age(clock::now());
    if age <= HUNG_AFTER {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("the driver has not turned for {age}\n")).into_response()
    }
}

async fn readyz(State(sources): State<Sources>) -> Response {
    let missing: Vec<&str> = sources.readiness.missing().into_iter().map(Latch::as_str).collect();
    if missing.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", "))).into_response()
    }
}

async fn metrics(State(sources): State<Sources>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match sources.metrics.scrape() {
        Some(text) => ([(CONTENT_TYPE, kind)], text).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "it is ending\n").into_response(),
    }
}

async fn status(State(sources): State<Sources>) -> Response {
    let status = sources.status.borrow().clone();
    Json(status).into_response()
}

async fn facts(State(sources): State<Sources>) -> Response {
    match sources.facts.borrow().clone() {
        Some(facts) => Json(facts).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the node was not read yet\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Running {
        url: String,
        sources: Sources,
        status: watch::Sender<serde_json::Value>,
        task: tokio::task::JoinHandle<Result<(), AdminError>>,
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    async fn running() -> Running {
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (status, receiver) = watch::channel(json!({ "state": "watching" }));
        let sources = Sources {
            heartbeat: Heartbeat::new(),
            readiness: Readiness::default(),
            metrics: Metrics::new(),
            status: receiver,
            facts: watch::channel(None).1,
        };
        let url = format!("http://{}", admin.address());
        Running { url, status, task: tokio::spawn(admin.serve(sources.clone())), sources }
    }

    async fn get(running: &Running, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("{}{path}", running.url)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    #[tokio::test]
    async fn the_agent_lives_while_its_driver_turns() {
        let running = running().await;
        assert_eq!(get(&running, "/livez").await.0, 200);
        let now = clock::now();
        running.sources.heartbeat.beat(now - Span::from_secs(9));
        assert_eq!(get(&running, "/livez").await.0, 200);
        running.sources.heartbeat.beat(now - Span::from_secs(11));
        let (code, why) = get(&running, "/livez").await;
        assert_eq!(code, 503);
        assert!(why.contains("driver"), "{why}");
    }

    #[tokio::test]
    async fn the_agent_is_ready_when_everything_has_happened_once_and_names_what_has_not() {
        let running = running().await;
        running.sources.readiness.latch(Latch::Imds);
        running.sources.readiness.latch(Latch::Pods);
        assert_eq!(get(&running, "/readyz").await, (503, "waiting for: node, store\n".to_owned()));
        running.sources.readiness.latch(Latch::Node);
        running.sources.readiness.latch(Latch::Store);
        assert_eq!(get(&running, "/readyz").await, (200, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn metrics_and_status_are_what_they_are_now() {
        let running = running().await;
        running.sources.metrics.imds_poll();
        running.status.send_replace(json!({ "state": "evacuating" }));
        let response = reqwest::get(format!("{}/metrics", running.url)).await.unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
        assert!(response.text().await.unwrap().contains("lifeboat_imds_polls_total 1"));
        let (_, status) = get(&running, "/status").await;
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&status).unwrap(),
            json!({ "state": "evacuating" })
        );
    }

    #[tokio::test]
    async fn a_taken_address_is_named_with_its_flag_and_served_once_free() {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = first.local_addr().unwrap();
        let error = Admin::bind(address).await.unwrap_err().to_string();
        assert!(error.contains("--admin-addr") && error.contains(&address.to_string()), "{error}");
        let running = running().await;
        let serving = tokio::spawn(Admin::keep_serving(address, running.sources.clone()));
        // On this one thread the first attempt is over before this goes on.
        tokio::task::yield_now().await;
        assert!(!serving.is_finished(), "an address that is taken ends nothing");
        drop(first);
        let served = async {
            while reqwest::get(format!("http://{address}/livez")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(RETRY_AFTER * 4, served).await.expect("it is served");
        serving.abort();
    }
}
