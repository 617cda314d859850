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
use evacuation::event::FailureKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
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
    /// In which way an effect that needs it fails. What is permanent is waited for by nobody: pods leave at once, with
    /// their state reported as lost.
    pub kind: FailureKind,
}

/// Shared access to the store.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    standing: watch::Receiver<StoreState>,
    /// Somebody waits for it.
    wanted: Arc<Notify>,
}

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
        let wanted = Arc::new(Notify::new());
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
                    wanted: Arc::clone(&wanted),
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
                let _ = out.send(StoreState::Unusable(Unusable { why, kind: FailureKind::Permanent }));
            }
        }
        Self { standing, wanted }
    }

    /// The store, once it is known whether there is one.
    ///
    /// # Errors
    /// Why it cannot be used, for people.
    pub async fn get(&self) -> Result<Store, Unusable> {
        self.opened().await.map(|opened| opened.store)
    }

    /// The store with its claims, once it is known whether there is one. Whoever gets none ends the pause before the next
    /// attempt to open it.
    ///
    /// # Errors
    /// Why it cannot be used, for people.
    pub async fn opened(&self) -> Result<Opened, Unusable> {
        let mut standing = self.standing.clone();
        let opened = standing.wait_for(|standing| !matches!(standing, StoreState::Opening)).await;
        match opened.as_deref() {
            Ok(StoreState::Ready(opened)) => Ok(opened.clone()),
            Ok(StoreState::Unusable(unusable)) => {
                self.wanted.notify_one();
                Err(unusable.clone())
            }
            Ok(StoreState::Opening) | Err(_) => {
                Err(Unusable { why: "the agent is stopping".into(), kind: FailureKind::Permanent })
            }
        }
    }

    /// For `/status`.
    pub fn describe(&self) -> String {
        match &*self.standing.borrow() {
            StoreState::Opening => "opening".to_owned(),
            StoreState::Ready(opened) => opened.store.describe(),
            StoreState::Unusable(unusable) => format!("unusable: {}", unusable.why),
        }
    }

    /// For `/status`: where the claims are and why; `None` until that is known.
    pub fn describe_claims(&self) -> Option<String> {
        match &*self.standing.borrow() {
            StoreState::Ready(opened) => Some(opened.why.to_string()),
            StoreState::Opening | StoreState::Unusable(_) => None,
        }
    }
}

/// In which way effects fail while a store cannot be opened for this.
const fn kind(error: &PreflightError) -> FailureKind {
    match error {
        PreflightError::Unreachable { .. } => FailureKind::Unreachable,
        PreflightError::Failed { .. } => FailureKind::Transient,
        PreflightError::NoBucket { .. }
        | PreflightError::Denied { .. }
        | PreflightError::WrongRegion { .. }
        | PreflightError::IgnoresConditions { .. }
        | PreflightError::Inconsistent { .. } => FailureKind::Permanent,
    }
}

/// The pause between two attempts to open the store.
struct OpeningPause {
    next: Duration,
}

impl Default for OpeningPause {
    fn default() -> Self {
        Self { next: RETRY.0 }
    }
}

impl OpeningPause {
    /// Waits until the next attempt is due, or somebody wants the store. Never less than the first pause: one attempt does
    /// not follow the other at once, however many wait.
    async fn rest(&mut self, wanted: &Notify) {
        tokio::time::sleep(RETRY.0).await;
        let rest = tokio::time::timeout(self.next.saturating_sub(RETRY.0), wanted.notified());
        if rest.await.is_err() {
            self.next = (self.next * 2).min(RETRY.1);
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
    wanted: Arc<Notify>,
}

impl Opening {
    async fn keep_trying(self, out: &watch::Sender<StoreState>) {
        let url = self.url.as_str();
        let mut pause = OpeningPause::default();
        let mut said = String::new();
        // One handle for all attempts: a fault plan counts its occurrences there.
        let mut opened: Option<Store> = None;
        loop {
            let (why, kind) = match &opened {
                None => match store::open(url, self.options.clone()).await {
                    Ok(store) => {
                        opened = Some(store);
                        continue;
                    }
                    Err(error) => (error.to_string(), FailureKind::Permanent),
                },
                Some(store) => match self.prove(store).await {
                    Ok(opened) => {
                        tracing::info!(store = %store.describe(), claims = %opened.why, "the store is ready");
                        self.readiness.latch(Latch::Store);
                        let _ = out.send(StoreState::Ready(opened));
                        return;
                    }
                    Err(error) => (error.to_string(), kind(&error)),
                },
            };
            if why != said {
                tracing::error!(url, error = %why, "the store cannot be used: no state will be saved or restored");
                said.clone_from(&why);
            }
            let _ = out.send(StoreState::Unusable(Unusable { why: why.into(), kind }));
            pause.rest(&self.wanted).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a pause of 30 s takes.
    async fn rests(wanted: &Notify) -> Duration {
        let began = Instant::now();
        OpeningPause { next: RETRY.1 }.rest(wanted).await;
        began.elapsed()
    }

    #[tokio::test]
    async fn whoever_wants_the_store_ends_the_pause_before_the_next_attempt() {
        let wanted = Notify::new();
        let asks = async {
            tokio::time::sleep(RETRY.0 * 2).await;
            wanted.notify_one();
        };
        let (took, ()) = tokio::join!(rests(&wanted), asks);
        assert!(took >= RETRY.0 * 2 && took < RETRY.1 / 2, "{took:?}");
        // It was wanted while an attempt was under way.
        wanted.notify_one();
        let took = rests(&wanted).await;
        assert!(took >= RETRY.0 && took < RETRY.1 / 2, "{took:?}");
    }

    #[tokio::test]
    async fn where_nobody_wants_the_store_the_pauses_become_longer() {
        let mut pause = OpeningPause::default();
        pause.rest(&Notify::new()).await;
        assert_eq!(pause.next, RETRY.0 * 2);
    }

    #[test]
    fn only_a_store_that_did_not_answer_is_called_unreachable() {
        let (store, why) = (String::new(), String::new());
        let unreachable = PreflightError::Unreachable { store: store.clone(), why: why.clone() };
        assert_eq!(kind(&unreachable), FailureKind::Unreachable);
        let failed = PreflightError::Failed { store: store.clone(), why: why.clone() };
        assert_eq!(kind(&failed), FailureKind::Transient);
        assert_eq!(kind(&PreflightError::Denied { store, why }), FailureKind::Permanent);
    }
}
