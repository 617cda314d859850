//! `lifeboat fleet`: what no node's agent can do, since it is not there.
//!
//! ```text
//!   seat (Lease) ─► leads? ─┐
//!   sight (watches) ────────┼─► orphans: which gates ─► gate: last look, condition, Event
//!   timer ──────────────────┘
//! ```
//!
//! A pod with the readiness gate `lifeboat.dev/restored` waits for the agent of its node. Where none lives (a taint it
//! does not tolerate, an image that cannot be pulled, a crash loop) the gate would stay closed for ever: after
//! `--orphan-after` the fleet role opens it, with the reason. It runs as a Deployment with an account of its own; of its
//! replicas one acts. A pod whose agent is ready but says nothing is that agent's business (`--restore-timeout`).

pub mod election;
pub mod gate;
pub mod orphans;
mod seat;
mod sight;

use crate::admin::{Admin, AdminError, Heartbeat, Latch, Readiness, Sources};
use crate::clock;
use crate::cluster::call::is_name;
use crate::cluster::daemon::DaemonRules;
use crate::cluster::{Cluster, ClusterError, Options};
use crate::driver::signals::Signals;
use crate::metrics::Metrics;
use crate::telemetry;
use clap::Args;
use election::Election;
use evacuation::moment::{Moment, Span};
use evacuation::pod::PodUid;
use orphans::{Answer, Orphans};
use seat::Seat;
use serde_json::json;
use sight::{Sight, Sights};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Between two turns of the loop.
const TURN: Duration = Duration::from_millis(500);

/// A shorter time than this would open gates while an agent is merely being updated.
const SHORTEST: Span = Span::from_secs(1);

/// The arguments of `lifeboat fleet`.
#[derive(Args, Clone, Debug)]
pub struct FleetArgs {
    /// This replica: no two may share a name (downward API: metadata.name)
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// The node this replica runs on, for Events (downward API: spec.nodeName)
    #[arg(long, env = "NODE_NAME")]
    node_name: Option<String>,
    /// Where the agents' pods and the Lease lifeboat-fleet are; without it the service account's
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// How long no agent must have been ready on a node before the gates of its pods are opened
    #[arg(long, env = "LIFEBOAT_ORPHAN_AFTER", default_value = "60s", value_parser = crate::config::span)]
    orphan_after: Span,
    /// Probes and metrics
    #[arg(long, env = "LIFEBOAT_ADMIN_ADDR", default_value = "0.0.0.0:9188")]
    admin_addr: SocketAddr,
    /// A kubeconfig; without it the pod's service account
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
}

/// What is wrong with the command line: one line that names the flag and the fix.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// The validated arguments.
#[derive(Clone, Debug)]
pub struct Settings {
    identity: String,
    node_name: String,
    namespace: Option<String>,
    orphan_after: Span,
    admin_addr: SocketAddr,
    kubeconfig: Option<PathBuf>,
}

/// Why the fleet role could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The admin address.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The way to the API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl FleetArgs {
    /// Checks them, before any I/O.
    ///
    /// # Errors
    /// Names the flag, its variable and the fix.
    pub fn validate(self) -> Result<Settings, UsageError> {
        let name = |value: Option<String>, flag: &str, field: &str| match value {
            Some(name) if is_name(&name) => Ok(name),
            Some(name) => {
                Err(UsageError(format!("{flag} {name:?} is no name: set it to {field} of the pod")))
            }
            None => Err(UsageError(format!("{flag} is missing: set it to {field} of the pod"))),
        };
        let namespace = match self.namespace {
            Some(namespace) if namespace.is_empty() => None,
            Some(namespace) => {
                Some(name(Some(namespace), "--namespace (POD_NAMESPACE)", "metadata.namespace")?)
            }
            None => None,
        };
        if self.orphan_after < SHORTEST {
            let given = self.orphan_after;
            return Err(UsageError(format!(
                "--orphan-after (LIFEBOAT_ORPHAN_AFTER) {given} is too short: give 1s or more, better 60s"
            )));
        }
        Ok(Settings {
            identity: name(self.identity, "--identity (POD_NAME)", "metadata.name")?,
            node_name: name(self.node_name, "--node-name (NODE_NAME)", "spec.nodeName")?,
            namespace,
            orphan_after: self.orphan_after,
            admin_addr: self.admin_addr,
            kubeconfig: self.kubeconfig,
        })
    }
}

/// Runs the fleet role until it is told to stop.
///
/// # Errors
/// An admin address that is taken, a kubeconfig that cannot be read.
pub async fn run(settings: Settings) -> Result<(), StartError> {
    // First of all: the kernel ignores a SIGTERM to PID 1 that has no handler.
    let mut signals = Signals::new();
    telemetry::start();
    let metrics = Metrics::new();
    let (heartbeat, readiness) = (Heartbeat::new(), Readiness::of(&Latch::FLEET));
    let (status_out, status) = watch::channel(serde_json::Value::Null);
    let admin = Admin::bind(settings.admin_addr).await?;
    tracing::info!(address = %admin.address(), "probes and metrics");
    let sources = Sources {
        heartbeat: heartbeat.clone(),
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        status,
        facts: watch::channel(None).1,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        if let Err(error) = admin.serve(sources).await {
            tracing::error!(%error, "the admin address is closed");
        }
    });
    let options = Options {
        kubeconfig: settings.kubeconfig.clone(),
        node: settings.node_name.clone(),
        boot: String::new(),
        instance: settings.identity.clone(),
        evict_as_node: false,
        daemons: DaemonRules::default(),
        bare_may_go: false,
    };
    let cluster = Cluster::connect(options, metrics.clone()).await?;
    let namespace = settings.namespace.unwrap_or_else(|| cluster.own_namespace().to_owned());
    tracing::info!(identity = settings.identity, namespace, orphan_after = %settings.orphan_after, "started");

    let cancel = CancellationToken::new();
    let (lead_out, lead) = watch::channel(None);
    let seat = Seat::new(cluster.clone(), namespace.clone());
    let contending = tokio::spawn(seat.contend(Election::new(&settings.identity), lead_out, cancel.clone()));
    let mut fleet = Fleet {
        cluster,
        namespace,
        orphan_after: settings.orphan_after,
        metrics,
        heartbeat,
        readiness,
        status: status_out,
        lead,
        term: None,
    };
    tokio::select! {
        () = fleet.turn_for_ever() => {}
        () = signals.received() => {}
    }
    // What is on its way ends with it; the next leader looks anew.
    drop(fleet);
    cancel.cancel();
    // Lets go of the Lease, so that the next one need not wait for it to run out.
    let _ = contending.await;
    tracing::info!("stopped");
    Ok(())
}

struct Fleet {
    cluster: Cluster,
    namespace: String,
    orphan_after: Span,
    metrics: Metrics,
    heartbeat: Heartbeat,
    readiness: Readiness,
    status: watch::Sender<serde_json::Value>,
    /// Until when this replica leads; `None` before it has seen the Lease.
    lead: watch::Receiver<Option<Moment>>,
    term: Option<Term>,
}

/// What is known while this replica leads. It begins with nothing, and ends with all that is on its way.
struct Term {
    sights: Sights,
    orphans: Orphans,
    seen: mpsc::Receiver<Sight>,
    answers: mpsc::Receiver<(PodUid, Answer)>,
    answer: mpsc::Sender<(PodUid, Answer)>,
    tasks: JoinSet<()>,
}

impl Fleet {
    async fn turn_for_ever(&mut self) {
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match &mut self.term {
                None => drop(turns.tick().await),
                Some(term) => tokio::select! {
                    _ = turns.tick() => {}
                    Some(sight) = term.seen.recv() => {
                        term.sights.take(sight);
                        // A list of thousands is one picture, not thousands: the next turn looks at it.
                        continue;
                    }
                    Some((uid, answer)) = term.answers.recv() => {
                        term.orphans.answered(clock::now(), &uid, answer);
                        continue;
                    }
                    Some(_) = term.tasks.join_next() => continue,
                },
            }
            self.turn();
        }
    }

    fn turn(&mut self) {
        let now = clock::now();
        self.heartbeat.beat(now);
        let until = *self.lead.borrow();
        if until.is_some() {
            self.readiness.latch(Latch::Election);
        }
        let leads = until.is_some_and(|until| now < until);
        match (leads, self.term.is_some()) {
            (true, false) => {
                tracing::info!("leads");
                self.term = Some(self.begin());
            }
            (false, true) => {
                tracing::warn!("leads no more");
                self.term = None;
            }
            (true, true) | (false, false) => {}
        }
        self.metrics.fleet_leader(leads);
        self.act(now);
        let waiting = self.term.as_ref().map_or(0, |term| term.orphans.waiting());
        self.metrics.fleet_waiting(waiting);
        // Nobody may be listening.
        let _ = self.status.send(json!({ "leads": leads, "waiting": waiting }));
    }

    fn begin(&self) -> Term {
        let (sights_out, seen) = mpsc::channel(256);
        let (answer, answers) = mpsc::channel(orphans::AT_ONCE);
        let mut tasks = JoinSet::new();
        tasks.spawn(sight::watch(self.cluster.clone(), self.namespace.clone(), sights_out));
        let orphans = Orphans::new(self.orphan_after);
        Term { sights: Sights::default(), orphans, seen, answers, answer, tasks }
    }

    fn act(&mut self, now: Moment) {
        let Some(term) = &mut self.term else { return };
        let Some(picture) = term.sights.picture() else { return };
        for open in term.orphans.handle(now, &picture) {
            let (cluster, namespace, answer) =
                (self.cluster.clone(), self.namespace.clone(), term.answer.clone());
            let uid = open.gated.pod.uid.clone();
            term.tasks.spawn(async move {
                let ended = gate::open(&cluster, &namespace, &open).await;
                // The term has ended: nobody is interested.
                let _ = answer.send((uid, ended)).await;
            });
        }
    }
}

#[cfg(test)]
mod tests;
