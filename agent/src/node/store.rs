//! The store as the agent has it: opened and proven in the background, and again while it fails.
//!
//! A bucket that is missing is one clear error in the log and in `/status`; the agent keeps running, evicts in
//! order, and says of each state why it was not saved. A store without conditional writes saves and restores, with
//! the claims in another place ([`claims`]).

use crate::kube::{Cluster, LeaseBoard};
use crate::runtime::readiness::{Latch, Readiness};

use crate::runtime::claims::{ClaimsDecision, ClaimsPlace, ClaimsPolicy};
use crate::runtime::config::Config;
use crate::runtime::metrics::Metrics;
use checkpoint::claim::Claims;
use checkpoint::preflight::{self, Conditions, PreflightError};
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
enum StoreState {
    /// Not proven yet; kept apart from a failure so that the first effects may wait for it.
    Opening,
    /// Proven.
    Ready(Opened),
    /// Not usable.
    Unusable(Unusable),
}

/// A store that was proven, and what belongs to it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Where the claims on its lineages are kept.
    pub claims: Claims,
    /// Whether it decides conditional writes.
    pub conditions: Conditions,
    /// For people: where the claims are, and why there.
    why: Arc<str>,
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
pub struct StoreHandle(watch::Receiver<StoreState>);

impl StoreHandle {
    /// Begins to open the configured store.
    pub fn open(
        config: &Config,
        cluster: Cluster,
        metrics: Metrics,
        readiness: Readiness,
        cancel: CancellationToken,
    ) -> Self {
        let (out, standing) = watch::channel(StoreState::Opening);
        match config.store.clone() {
            Some(url) => {
                metrics.store_usable(false);
                let opening = Opening {
                    url,
                    options: config.store_options.clone(),
                    claims: config.claims,
                    cluster,
                    metrics,
                    readiness,
                };
                tokio::spawn(async move {
                    tokio::select! {
                        () = opening.keep_trying(&out) => {}
                        () = cancel.cancelled() => {}
                    }
                });
            }
            None => {
                tracing::warn!("no store: nothing is saved and nothing restored; set --store");
                readiness.latch(Latch::Store);
                let why = "no store is configured: set --store".into();
                let _ = out.send(StoreState::Unusable(Unusable { why, passing: false }));
            }
        }
        Self(standing)
    }

    /// The store, once it is known whether there is one.
    ///
    /// # Errors
    /// Why it cannot be used, for people.
    pub async fn get(&self) -> Result<Store, Unusable> {
        self.opened().await.map(|opened| opened.store)
    }

    /// The store with its claims, once it is known whether there is one.
    ///
    /// # Errors
    /// Why it cannot be used, for people.
    pub async fn opened(&self) -> Result<Opened, Unusable> {
        let mut standing = self.0.clone();
        let opened = standing.wait_for(|standing| !matches!(standing, StoreState::Opening)).await;
        match opened.as_deref() {
            Ok(StoreState::Ready(opened)) => Ok(opened.clone()),
            Ok(StoreState::Unusable(unusable)) => Err(unusable.clone()),
            Ok(StoreState::Opening) | Err(_) => {
                Err(Unusable { why: "the agent is stopping".into(), passing: false })
            }
        }
    }

    /// For `/status`.
    pub fn describe(&self) -> String {
        match &*self.0.borrow() {
            StoreState::Opening => "opening".to_owned(),
            StoreState::Ready(opened) => opened.store.describe(),
            StoreState::Unusable(unusable) => format!("unusable: {}", unusable.why),
        }
    }

    /// For `/status`: where the claims are and why; `None` until that is known.
    pub fn describe_claims(&self) -> Option<String> {
        match &*self.0.borrow() {
            StoreState::Ready(opened) => Some(opened.why.to_string()),
            StoreState::Opening | StoreState::Unusable(_) => None,
        }
    }
}

/// What it takes to open the store.
struct Opening {
    url: String,
    options: StoreOptions,
    claims: ClaimsPolicy,
    cluster: Cluster,
    metrics: Metrics,
    readiness: Readiness,
}

impl Opening {
    async fn keep_trying(self, out: &watch::Sender<StoreState>) {
        let url = self.url.as_str();
        let (mut pause, most) = RETRY;
        let mut said = String::new();
        // One handle for all attempts: a fault plan counts its occurrences there.
        let mut opened: Option<Store> = None;
        loop {
            let (why, passing) = match &opened {
                None => match store::open(url, self.options.clone()).await {
                    Ok(store) => {
                        opened = Some(store);
                        continue;
                    }
                    Err(error) => (error.to_string(), false),
                },
                Some(store) => match self.prove(store).await {
                    Ok(opened) => {
                        tracing::info!(store = %store.describe(), claims = %opened.why, "the store is ready");
                        self.readiness.latch(Latch::Store);
                        let _ = out.send(StoreState::Ready(opened));
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
            let _ = out.send(StoreState::Unusable(Unusable { why: why.into(), passing }));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(most);
        }
    }

    async fn prove(&self, store: &Store) -> Result<Opened, PreflightError> {
        let conditions = preflight::prove(store, Instant::now() + PREFLIGHT).await?;
        let ClaimsDecision { place, reason } = self.claims.decide(&conditions, store.as_ref())?;
        let claims = match place {
            ClaimsPlace::Store => Claims::in_store(Arc::clone(store)),
            ClaimsPlace::Lease => {
                Claims::on(Arc::new(LeaseBoard::new(self.cluster.clone())), Arc::clone(store))
            }
        };
        if let Conditions::Ignored { how } = &conditions {
            tracing::warn!(
                store = %store.describe(), how = %how,
                "the store ignores conditional writes: claims are Kubernetes Leases, and a commit only looks at what it \
                 wrote; set --claims lease on every node, or use a store that decides"
            );
        }
        self.metrics.store_usable(true);
        self.metrics.claims(place, reason);
        let why = format!("{}: {}", claims.describe(), reason.in_words(&conditions)).into();
        Ok(Opened { store: Arc::clone(store), claims, conditions, why })
    }
}
