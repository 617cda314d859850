//! Wires one node's agent together, and runs it until it is told to stop.

use super::event_loop::{EventLoop, Parts};
use crate::imds::Imds;
use crate::kube::{Cluster, Options};
use crate::node::drill_requests::DrillRequests;
use crate::node::executor::Executor;
use crate::node::store::StoreHandle;
use crate::pods::daemonset::DaemonRules;
use crate::runtime::admin::{Admin, Sources};
use crate::runtime::config::Config;
use crate::runtime::journal::{EarlierReports, Journal};
use crate::runtime::metrics::Metrics;
use crate::runtime::readiness::{Heartbeat, Readiness};
use crate::runtime::signals::Signals;
use crate::runtime::telemetry;
use evacuation::Machine;
use host::clock;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use trace::journal::{Head, What};

/// How much may queue up before a source waits for the loop.
const QUEUE: usize = 1024;

/// Why the agent could not start. While it runs, nothing ends it but a signal.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the agent until it is told to stop.
///
/// # Errors
/// What makes it impossible to begin: a kubeconfig or a service account that cannot be used, and an IMDS endpoint that is
/// none. Not a state folder that cannot be written, an admin address that is taken or a store that cannot be used: a node
/// whose time is running out is helped without them, and each is tried again.
pub async fn run(config: Config) -> Result<(), StartError> {
    // First of all: the kernel ignores a SIGTERM to PID 1 that has no handler.
    let signals = Signals::new();
    telemetry::start();
    let cancel = CancellationToken::new();
    let metrics = Metrics::new();
    // Blind until the first answer. `lifeboat fleet` has the same metrics and never asks: there it is not set at all.
    metrics.imds_reachable(false);
    // Before anything that can be slow: a notice may have stood since before this start, and two minutes are all there are.
    let (imds_out, imds_in) = mpsc::channel(QUEUE);
    let imds = Imds::new(&config.imds_endpoint, config.imds_poll)?;
    let imds_faults = imds.faults();
    tokio::spawn(imds.watch(imds_out, cancel.clone()));
    let (earlier, find) = EarlierReports::of(&config.state_dir, config.boot.clone(), config.policy.clone());
    let mut journal = Journal::open(&config.state_dir, find);
    journal.write(clock::now(), What::Life(Box::new(Head::new(&config.policy))));
    let readiness = Readiness::default();
    let heartbeat = Heartbeat::new();
    let (status_out, status) = watch::channel(serde_json::Value::Null);
    let (facts_out, facts) = watch::channel(None);
    let sources = Sources {
        heartbeat: heartbeat.clone(),
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        status,
        facts,
    };
    spawn(&cancel, Admin::keep_serving(config.admin_addr, sources));
    let options = Options {
        kubeconfig: config.kubeconfig.clone(),
        node: config.node_name.clone(),
        instance: config.pod_name.clone(),
        evict_as_node: config.impersonate_node,
        daemons: DaemonRules::default(),
        bare_may_go: false,
    };
    let cluster = Cluster::connect(options, metrics.clone()).await?;
    tracing::info!(node = %config.node_name, boot = %config.boot, store = ?config.store, policy = ?config.policy, "started");

    let (cluster_out, cluster_in) = mpsc::channel(QUEUE);
    let (answers_out, answers) = mpsc::channel(QUEUE);
    spawn(&cancel, cluster.clone().watch(cluster_out));
    let store =
        StoreHandle::open(&config, cluster.clone(), metrics.clone(), readiness.clone(), cancel.clone());
    let (drill_requests, taken) = DrillRequests::new(cluster.clone(), config.drills);
    let executor = Executor::new(&config, cluster, store, metrics.clone(), earlier, answers_out);
    let event_loop = EventLoop::new(Parts {
        machine: Machine::new(config.policy.clone()),
        boot: config.boot.clone(),
        journal,
        executor,
        metrics,
        readiness,
        heartbeat,
        status: status_out,
        facts: facts_out,
        link_rate: config.link_rate,
        imds_faults,
        drill_requests,
    });
    event_loop.run(imds_in, cluster_in, answers, taken, signals).await;
    cancel.cancel();
    Ok(())
}

/// Runs `work` until it ends or everything does.
fn spawn(cancel: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let cancel = cancel.clone();
    tokio::spawn(async move { cancel.run_until_cancelled(work).await });
}
