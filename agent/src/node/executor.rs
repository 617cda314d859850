//! One effect → one supervised task → exactly one answer.
//!
//! The task runs under the effect's deadline. A timeout, a panic and a cancellation are answers like
//! any other. Retries are not made here: the core decides them. (The store's own short retries, below
//! one effect, are in `checkpoint::retry` and end at the same deadline.)

pub(crate) mod commit;
mod disk_room;
pub(crate) mod failure;
mod node;
pub(crate) mod pod;
pub(crate) mod pod_context;
mod restore;

use crate::kube::Cluster;
use crate::node::executor::pod_context::PodContext;
use crate::node::store::StoreHandle;
use crate::pods::reader::PodRecord;
use crate::runtime::config::Config;
use crate::runtime::journal::Journal;
use crate::runtime::metrics::Metrics;
use crate::runtime::metrics::labels::{ActionName, LabelValue};
use crate::volume::PodVolumes;
use checkpoint::dispatcher::Dispatcher;
use checkpoint::manifest::MacKey;
use engines::EngineKind;
use evacuation::effect::{Action, Effect, EffectId};
use evacuation::event::{Done, FailureKind, Outcome};
use evacuation::moment::{Moment, Span};
use evacuation::pod::PodUid;
use evacuation::report::Report;
use failure::EffectFailure;
use host::clock;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::Instrument;

/// What became of an effect.
#[derive(Debug)]
pub struct EffectAnswer {
    /// Which effect.
    pub id: EffectId,
    /// How it ended.
    pub outcome: Outcome,
}

/// What every task needs.
pub(crate) struct Clients {
    pub(crate) cluster: Cluster,
    pub(crate) store: StoreHandle,
    pub(crate) volumes: PodVolumes,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) metrics: Metrics,
    pub(crate) node: String,
    pub(crate) cluster_name: String,
    pub(crate) boot: String,
    pub(crate) mac_key: Option<MacKey>,
    pub(crate) pack_size: u64,
    /// The age at which the bucket removes objects by itself.
    pub(crate) lifecycle: Option<std::time::Duration>,
    pub(crate) claim_lease: std::time::Duration,
    pub(crate) allow_loopback: bool,
    /// What earlier lives of this agent in this boot knew.
    pub(crate) earlier: Vec<Report>,
    /// The notice whose report is in a Node Event, and whether that report was complete.
    pub(crate) reported: Mutex<Option<(String, bool)>>,
    /// The notice whose evacuation is in the metrics.
    pub(crate) counted: Mutex<Option<String>>,
}

/// Starts effects.
pub struct Executor {
    clients: Arc<Clients>,
    contexts: BTreeMap<PodUid, Arc<PodContext>>,
    running: Arc<Mutex<BTreeMap<EffectId, AbortHandle>>>,
    answers: mpsc::Sender<EffectAnswer>,
}

impl Executor {
    /// An executor that sends its answers to `answers`.
    pub fn new(
        config: &Config,
        cluster: Cluster,
        store: StoreHandle,
        metrics: Metrics,
        answers: mpsc::Sender<EffectAnswer>,
    ) -> Self {
        let earlier = Journal::earlier_reports(&config.state_dir, &config.boot, &config.policy);
        let clients = Clients {
            earlier,
            cluster,
            store,
            volumes: PodVolumes::new(&config.kubelet_root),
            dispatcher: Dispatcher::new(config.transfers),
            metrics,
            node: config.node_name.clone(),
            cluster_name: config.cluster_name.clone(),
            boot: config.boot.clone(),
            mac_key: config.mac_key.clone(),
            pack_size: config.pack_size,
            lifecycle: config.lifecycle,
            // A holder renews at a third of its lease: two renewals may fail before another pod may take the claim.
            claim_lease: clock::duration(config.policy.claim_renewal) * 3,
            allow_loopback: config.allow_loopback_pods,
            reported: Mutex::default(),
            counted: Mutex::default(),
        };
        Self { clients: Arc::new(clients), contexts: BTreeMap::new(), running: Arc::default(), answers }
    }

    /// The pod as it is now.
    pub fn pod_seen(&mut self, record: PodRecord) {
        match self.contexts.get(&record.facts.uid) {
            Some(context) => context.seen(record),
            None => {
                let uid = record.facts.uid.clone();
                self.contexts.insert(uid, Arc::new(PodContext::new(record)));
            }
        }
    }

    /// The pod is no more. A save of it that is under way keeps what it has opened.
    pub fn pod_gone(&mut self, uid: &PodUid) {
        if let Some(context) = self.contexts.get(uid) {
            context.gone();
        }
        // Kept while a task still works on it; a later commit must find what was saved.
        self.contexts.retain(|_, context| {
            !context.is_gone() || Arc::strong_count(context) > 1 || context.has_unsaved()
        });
    }

    /// Bytes per second to the store, as last measured.
    pub fn measured_rate(&self) -> Option<u64> {
        self.clients.dispatcher.rate().map(|rate| rate as u64)
    }

    /// How it stands with the store.
    pub fn store_status(&self) -> String {
        self.clients.store.describe()
    }

    /// Where claims are kept and why, once that is known.
    pub fn claims_status(&self) -> Option<String> {
        self.clients.store.describe_claims()
    }

    /// Starts an effect. `left` is the time until the node's deadline, for the log.
    pub fn start(&self, effect: Effect, left: Option<Span>) {
        if let Action::Cancel { effect: other } = effect.action {
            if let Some(task) = self.running.lock().remove(&other) {
                task.abort();
            }
            return self.answer_now(effect.id, Outcome::Done(Done::Nothing));
        }
        let (action, counted) = (effect.action.name(), ActionName::from(&effect.action));
        let context = effect.action.pod().map(|uid| self.contexts.get(uid).cloned());
        let Some(context) = context.map_or(Some(None), |context| context.map(Some)) else {
            let why = "the pod is no longer known on this node".to_owned();
            return self.answer_now(effect.id, Outcome::Failed { kind: FailureKind::NotFound, why });
        };
        let span = tracing::info_span!(
            "effect",
            id = effect.id.0,
            action,
            attempt = effect.attempt,
            pod = context.as_ref().map(|context| context.display_name()),
            remaining_ms = left.map(Span::as_millis),
        );
        let (id, deadline) = (effect.id, effect.deadline);
        let clients = Arc::clone(&self.clients);
        let work =
            tokio::spawn(perform(clients, context.clone(), effect.action, deadline).instrument(span.clone()));
        let abort = work.abort_handle();
        self.running.lock().insert(id, abort.clone());
        let (running, answers, metrics) =
            (Arc::clone(&self.running), self.answers.clone(), self.clients.metrics.clone());
        let began = clock::now();
        let engine =
            context.as_ref().and_then(|context| context.settings().ok()).map(|settings| settings.engine);
        tokio::spawn(
            async move {
                let outcome = match tokio::time::timeout_at(clock::instant(deadline), work).await {
                    Ok(Ok(Ok(done))) => Outcome::Done(done),
                    Ok(Ok(Err(failure))) => failure.into_outcome(),
                    Ok(Err(error)) if error.is_cancelled() => {
                        Outcome::Failed { kind: FailureKind::Transient, why: "cancelled".into() }
                    }
                    Ok(Err(_panic)) => Outcome::Panicked,
                    Err(_elapsed) => {
                        abort.abort();
                        Outcome::TimedOut
                    }
                };
                running.lock().remove(&id);
                let took = clock::now().since(began);
                measure(&metrics, counted, engine, &outcome, took);
                log(&outcome, took);
                // The loop has ended: nobody is left to know.
                let _ = answers.send(EffectAnswer { id, outcome }).await;
            }
            .instrument(span),
        );
    }

    fn answer_now(&self, id: EffectId, outcome: Outcome) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let _ = answers.send(EffectAnswer { id, outcome }).await;
        });
    }
}

/// Counts what an effect came to.
fn measure(metrics: &Metrics, action: ActionName, engine: Option<EngineKind>, outcome: &Outcome, took: Span) {
    metrics.effect(action, outcome, took);
    match (action.text(), outcome) {
        ("evict", _) => metrics.eviction(outcome),
        ("commit", _) => metrics.commit(outcome, took),
        ("save", Outcome::Done(Done::Saved { bytes, sent, .. })) => {
            metrics.save(outcome, took, *bytes, *sent)
        }
        ("save", _) => metrics.save(outcome, took, 0, 0),
        (
            "inspect_engine" | "quiesce" | "resume" | "flush" | "check_fingerprint" | "import_state"
            | "verify",
            Outcome::Failed { kind, .. },
        ) => {
            if let Some(engine) = engine {
                metrics.engine_error(engine, *kind);
            }
        }
        _ => {}
    }
}

fn log(outcome: &Outcome, took: Span) {
    let took_ms = took.as_millis();
    match outcome {
        Outcome::Done(done) => tracing::debug!(took_ms, ?done, "done"),
        Outcome::Failed { kind, why } => tracing::warn!(took_ms, kind = kind.as_str(), why, "failed"),
        Outcome::TimedOut => tracing::warn!(took_ms, "timed out"),
        Outcome::Panicked => tracing::error!(took_ms, "panicked: this is a bug"),
    }
}

async fn perform(
    clients: Arc<Clients>,
    context: Option<Arc<PodContext>>,
    action: Action,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    match context {
        None => node::perform(&clients, action, deadline).await,
        Some(context) => {
            let done = match action {
                Action::FindLineage { .. }
                | Action::Claim { .. }
                | Action::RenewClaim { .. }
                | Action::Prefetch { .. }
                | Action::Fetch { .. }
                | Action::ReloadLocal { .. }
                | Action::CheckFingerprint { .. }
                | Action::ImportState { .. }
                | Action::Verify { .. }
                | Action::FinishClaim { .. } => {
                    crate::node::executor::restore::perform(&clients, &context, action, deadline).await
                }
                other => crate::node::executor::pod::perform(&clients, &context, other, deadline).await,
            };
            context.close_memory();
            done
        }
    }
}
