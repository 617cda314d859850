//! The Lease that the election is about, at the API server.

use super::election::{DURATION, Election, ElectionStep, Held, PERIOD};
use crate::kube::call::Call;
use crate::kube::{Cluster, ClusterError};
use crate::runtime::repeats::Repeats;
use evacuation::moment::{Moment, Span};
use host::{causes, clock};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};
use std::error::Error;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Its name. Claims of agents that keep them as Leases are called `lifeboat-<hash>`.
pub const LEASE: &str = "lifeboat-fleet";

/// For one request: a look and a write are over well before the lead is.
const PATIENCE: Span = Span::from_secs(3);

/// The Lease in the fleet's namespace.
#[derive(Clone)]
pub struct FleetLease {
    cluster: Cluster,
    namespace: String,
}

impl std::fmt::Debug for FleetLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl FleetLease {
    /// The Lease in this namespace.
    pub fn new(cluster: Cluster, namespace: impl Into<String>) -> Self {
        Self { cluster, namespace: namespace.into() }
    }

    /// Stands for election until cancelled, and lets go of the Lease then. What is sent is until when this contender
    /// leads (not at all, where the moment has passed), once it has seen the Lease.
    pub async fn contend(
        self,
        mut election: Election,
        leads_until: watch::Sender<Option<Moment>>,
        cancel: CancellationToken,
    ) {
        let mut turns = interval(host::clock::duration(PERIOD));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held = None;
        let mut failures = Repeats::default();
        while cancel.run_until_cancelled(turns.tick()).await.is_some() {
            match self.turn(&mut election).await {
                Ok(lease) => {
                    held = lease;
                    failures.worked(&());
                    let _ = leads_until.send(Some(election.leads_until()));
                }
                // What was sent last holds: it names its own end.
                Err(error) => {
                    if let Some(unlogged) = failures.failed((), &causes::chain(&error), clock::now()) {
                        let error = &error as &dyn Error;
                        tracing::warn!(error, unlogged, "no look at the Lease of the election");
                    }
                }
            }
        }
        if election.leads(clock::now())
            && let Some(lease) = held
            && let Err(error) = self.write("", Some(&lease)).await
        {
            tracing::info!(error = &error as &dyn Error, "the Lease runs out by itself");
        }
    }

    /// Looks, and writes where that is due. The Lease as it then is, if it is ours.
    async fn turn(&self, election: &mut Election) -> Result<Option<Lease>, ClusterError> {
        let began = clock::now();
        let lease = self.read().await?;
        match election.look(clock::now(), lease.as_ref().map(held).as_ref()) {
            ElectionStep::Wait => Ok(None),
            ElectionStep::Create | ElectionStep::Take | ElectionStep::Renew => {
                match self.write(election.me(), lease.as_ref()).await {
                    Ok(lease) => {
                        election.wrote(began);
                        Ok(Some(lease))
                    }
                    // Somebody else was first: the next look shows who.
                    Err(ClusterError::Answered { status, .. }) if matches!(status.code, 404 | 409) => {
                        Ok(None)
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    async fn read(&self) -> Result<Option<Lease>, ClusterError> {
        let call = Call::get(format!("{}/{LEASE}", self.path()), format!("lease {LEASE}"));
        match self.cluster.send(call, clock::now() + PATIENCE).await {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the Lease for `holder`, only if it is still as it was read.
    async fn write(&self, holder: &str, read: Option<&Lease>) -> Result<Lease, ClusterError> {
        let body = self.body(holder, read);
        let what = format!("lease {LEASE}");
        let call = match read {
            Some(_) => Call::update(format!("{}/{LEASE}", self.path()), what, body),
            None => Call::create(self.path(), what, body),
        };
        self.cluster.send(call, clock::now() + PATIENCE).await
    }

    /// The times are for people, by our wall clock: no contender compares them.
    fn body(&self, holder: &str, read: Option<&Lease>) -> Value {
        let old = read.and_then(|lease| lease.spec.as_ref());
        let same = old.and_then(|spec| spec.holder_identity.as_deref()) == Some(holder);
        let now = micro_time(Timestamp::now());
        let transitions = old.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let acquired = old.and_then(|spec| spec.acquire_time.as_ref()).map(|time| micro_time(time.0));
        let mut metadata = json!({
            "name": LEASE,
            "namespace": self.namespace,
            "labels": { "app.kubernetes.io/name": "lifeboat", "app.kubernetes.io/component": "fleet" },
        });
        if let Some(lease) = read {
            // A PUT of a Lease that was deleted creates it, whatever its resourceVersion says (seen on 1.36.3): the
            // uid makes that a conflict.
            metadata["uid"] = json!(lease.metadata.uid);
            metadata["resourceVersion"] = json!(lease.metadata.resource_version);
        }
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": DURATION.as_secs(),
                "acquireTime": if same { acquired.unwrap_or(now.clone()) } else { now.clone() },
                "renewTime": now,
                "leaseTransitions": if same { transitions } else { transitions.saturating_add(1) },
            },
        })
    }

    fn path(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }
}

fn held(lease: &Lease) -> Held {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
    Held { holder, version: lease.metadata.resource_version.clone().unwrap_or_default() }
}

/// A time as metav1.MicroTime writes it.
fn micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
