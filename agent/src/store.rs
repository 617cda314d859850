//! The store as the agent has it: opened and proven in the background, and again while it fails.
//!
//! A bucket that is missing or a store without conditional writes is one clear error in the log and
//! in `/status`; the agent keeps running, evicts in order, and says of each state why it was not saved.

use crate::admin::{Latch, Readiness};
use crate::config::Config;
use checkpoint::preflight::{self, PreflightError};
use checkpoint::store::{self, Store, StoreOptions};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long one preflight may take.
const PREFLIGHT: Duration = Duration::from_secs(20);

/// The pause between two attempts, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How it stands with the store.
#[derive(Clone, Debug)]
enum Standing {
    /// Not proven yet; kept apart from a failure so that the first effects may wait for it.
    Opening,
    /// Proven.
    Ready(Store),
    /// Not usable.
    Unusable(Unusable),
}

/// Why the store cannot be used.
#[derive(Clone, Debug)]
pub struct Unusable {
    /// For people.
    pub why: Arc<str>,
    /// It may be usable a moment later: it was not reached, or did not answer. Otherwise it is waited for by
    /// nobody: pods leave at once, with their state reported as lost.
    pub passing: bool,
}

/// Shared access to the store.
#[derive(Clone, Debug)]
pub struct StoreHandle(watch::Receiver<Standing>);

impl StoreHandle {
    /// Begins to open the configured store.
    pub fn open(config: &Config, readiness: Readiness, cancel: CancellationToken) -> Self {
        let (out, standing) = watch::channel(Standing::Opening);
        match config.store.clone() {
            Some(url) => {
                let options = config.store_options.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = keep_opening(&url, &options, &out, &readiness) => {}
                        () = cancel.cancelled() => {}
                    }
                });
            }
            None => {
                tracing::warn!("no store: nothing is saved and nothing restored; set --store");
                readiness.latch(Latch::Store);
                let why = "no store is configured: set --store".into();
                let _ = out.send(Standing::Unusable(Unusable { why, passing: false }));
            }
        }
        Self(standing)
    }

    /// The store, once it is known whether there is one.
    ///
    /// # Errors
    /// Why it cannot be used, for people.
    pub async fn get(&self) -> Result<Store, Unusable> {
        let mut standing = self.0.clone();
        let opened = standing.wait_for(|standing| !matches!(standing, Standing::Opening)).await;
        match opened.as_deref() {
            Ok(Standing::Ready(store)) => Ok(Arc::clone(store)),
            Ok(Standing::Unusable(unusable)) => Err(unusable.clone()),
            Ok(Standing::Opening) | Err(_) => {
                Err(Unusable { why: "the agent is stopping".into(), passing: false })
            }
        }
    }

    /// For `/status`.
    pub fn describe(&self) -> String {
        match &*self.0.borrow() {
            Standing::Opening => "opening".to_owned(),
            Standing::Ready(store) => store.describe(),
            Standing::Unusable(unusable) => format!("unusable: {}", unusable.why),
        }
    }
}

async fn keep_opening(
    url: &str,
    options: &StoreOptions,
    out: &watch::Sender<Standing>,
    readiness: &Readiness,
) {
    let (mut pause, most) = RETRY;
    let mut said = String::new();
    // One handle for all attempts: a fault plan counts its occurrences there.
    let mut opened: Option<Store> = None;
    loop {
        let (why, passing) = match &opened {
            None => match store::open(url, options.clone()).await {
                Ok(store) => {
                    opened = Some(store);
                    continue;
                }
                Err(error) => (error.to_string(), false),
            },
            Some(store) => match preflight::prove(store, Instant::now() + PREFLIGHT).await {
                Ok(()) => {
                    tracing::info!(store = %store.describe(), "the store is ready");
                    readiness.latch(Latch::Store);
                    let _ = out.send(Standing::Ready(Arc::clone(store)));
                    return;
                }
                Err(error) => (
                    error.to_string(),
                    matches!(error, PreflightError::Unreachable { .. } | PreflightError::Failed { .. }),
                ),
            },
        };
        if why != said {
            tracing::error!(url, error = %why, "the store cannot be used: no state will be saved or restored");
            said.clone_from(&why);
        }
        let _ = out.send(Standing::Unusable(Unusable { why: why.into(), passing }));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(most);
    }
}
