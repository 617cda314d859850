//! `lifeboat fleet`: what no node's agent can do, since it is not there.
//!
//! ```text
//!   seat (Lease) ─► leads? ─┐
//!   sight (watches) ────────┼─► orphans: which gates ─► gate: last look, condition, Event
//!   timer ──────────────────┤
//!                           ├─► vanished: which Spot nodes went, and how ─┐
//!                           │                                             ▼
//!                           ├─► adoption: reports in the store ─► ledger: once ─► metrics
//!                           └─► garbage: what nobody needs any more
//! ```
//!
//! A pod with the readiness gate `lifeboat.dev/restored` waits for the agent of its node. Where none lives (a taint it
//! does not tolerate, an image that cannot be pulled, a crash loop) the gate would stay closed for ever: after
//! `--orphan-after` the fleet role opens it, with the reason. It runs as a Deployment with an account of its own; of its
//! replicas one acts. A pod whose agent is ready but says nothing is that agent's business (`--restore-timeout`).
//!
//! With a store it also counts what is in the reports of nodes that are no more, and nodes that went without one. Each has a
//! task of its own: a store that is away keeps no gate closed.

mod cluster_watch;
pub mod election;
mod garbage;
pub mod gate;
pub(crate) mod lease;
mod lost_nodes;
mod metrics;
mod orphaned_gates;
mod report_counter;
pub(crate) mod report_index;
pub mod reports;
mod settings;

use crate::fleet::cluster_watch::{ClusterUpdate, Sights};
use crate::fleet::lease::FleetLease;
use crate::fleet::lost_nodes::LostNodes;
use crate::fleet::orphaned_gates::{GateOpening, OrphanedGates};
use crate::fleet::report_counter::{ReportCounter, SharedNodes};
use crate::kube::{Cluster, ClusterError, Options};
use crate::pods::daemonset::DaemonRules;
use crate::runtime::admin::{Admin, Sources};
use crate::runtime::metrics::Metrics;
use crate::runtime::readiness::{Heartbeat, Latch, Readiness};
use crate::runtime::signals::Signals;
use crate::runtime::telemetry;
use checkpoint::key::KeyError;
use election::Election;
use evacuation::moment::{Moment, Span};
use evacuation::pod::PodUid;
use garbage::Garbage;
use host::clock;
use serde_json::json;
use settings::Stored;
pub use settings::{FleetArgs, Settings, UsageError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Between two turns of the loop.
const TURN: Duration = Duration::from_millis(500);

/// Why the fleet role could not start.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The way to the API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The cluster's name in the store.
    #[error("--cluster-name: {0}")]
    Key(#[from] KeyError),
}

/// Runs the fleet role until it is told to stop.
///
/// # Errors
/// A kubeconfig that cannot be read. An admin address that is taken is none: it is tried again.
pub async fn run(settings: Settings) -> Result<(), FleetError> {
    // First of all: the kernel ignores a SIGTERM to PID 1 that has no handler.
    let mut signals = Signals::new();
    telemetry::start();
    let metrics = Metrics::new();
    let (heartbeat, readiness) = (Heartbeat::new(), Readiness::of(&Latch::FLEET));
    let (status_out, status) = watch::channel(serde_json::Value::Null);
    let sources = Sources {
        heartbeat: heartbeat.clone(),
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        status,
        facts: watch::channel(None).1,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(Admin::keep_serving(settings.admin_addr, sources));
    let options = Options {
        kubeconfig: settings.kubeconfig.clone(),
        node: settings.node_name.clone(),
        instance: settings.identity.clone(),
        evict_as_node: false,
        daemons: DaemonRules::default(),
        bare_may_go: false,
    };
    let cluster = Cluster::connect(options, metrics.clone()).await?;
    let namespace = settings.namespace.unwrap_or_else(|| cluster.own_namespace().to_owned());
    tracing::info!(identity = settings.identity, namespace, orphan_after = %settings.orphan_after, "started");

    let (cancel, stand_down) = (CancellationToken::new(), CancellationToken::new());
    let (lead_out, lead) = watch::channel(None);
    let seat = FleetLease::new(cluster.clone(), namespace.clone());
    let contending =
        tokio::spawn(seat.contend(Election::new(&settings.identity), lead_out, stand_down.clone()));
    let nodes = SharedNodes::default();
    let with_store = settings.stored.is_some();
    let mut books = JoinSet::new();
    match settings.stored {
        Some(Stored { place, adopt_every, adopt_after, garbage }) => {
            let (metrics, lead) = (metrics.clone(), lead.clone());
            if let Some((every, policy)) = garbage {
                let (place, metrics, lead) = (place.clone(), metrics.clone(), lead.clone());
                books.spawn(Garbage { place, every, policy, metrics, lead }.run(cancel.clone()));
            }
            let nodes = nodes.clone();
            let adoption = ReportCounter::new(place, adopt_after, metrics, nodes, lead, &settings.identity)?;
            books.spawn(adoption.run(adopt_every, cancel.clone()));
        }
        None => tracing::warn!(
            "no store: readiness gates are opened, and nothing else is done; set --store (LIFEBOAT_STORE) to have the \
             reports of evacuations counted"
        ),
    }
    let mut fleet = Fleet {
        nodes: with_store.then_some(nodes),
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
    // Before the Lease: the next leader finds a ledger that is final.
    while books.join_next().await.is_some() {}
    stand_down.cancel();
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
    /// What is known of the nodes; `None` without a store, where nobody asks.
    nodes: Option<SharedNodes>,
    term: Option<Term>,
}

/// What is known while this replica leads. It begins with nothing, and ends with all that is on its way.
struct Term {
    sights: Sights,
    orphans: OrphanedGates,
    seen: mpsc::Receiver<ClusterUpdate>,
    answers: mpsc::Receiver<(PodUid, GateOpening)>,
    answer: mpsc::Sender<(PodUid, GateOpening)>,
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
                self.nodes.iter().for_each(|nodes| *nodes.lock() = Some(LostNodes::default()));
            }
            (false, true) => {
                tracing::warn!("leads no more");
                self.term = None;
                self.nodes.iter().for_each(|nodes| *nodes.lock() = None);
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
        let (answer, answers) = mpsc::channel(crate::fleet::orphaned_gates::AT_ONCE);
        let mut tasks = JoinSet::new();
        let (cluster, namespace, with_nodes) =
            (self.cluster.clone(), self.namespace.clone(), self.nodes.is_some());
        tasks.spawn(crate::fleet::cluster_watch::watch(cluster, namespace, with_nodes, sights_out));
        let orphans = OrphanedGates::new(self.orphan_after);
        Term { sights: Sights::default(), orphans, seen, answers, answer, tasks }
    }

    fn act(&mut self, now: Moment) {
        let Some(term) = &mut self.term else { return };
        if let Some(nodes) = &self.nodes
            && let Some(seen) = term.sights.nodes()
            && let Some(vanished) = nodes.lock().as_mut()
        {
            vanished.handle(now, seen.present, seen.deleted, &seen.agents);
        }
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
