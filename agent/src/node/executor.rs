//! One effect → one supervised task → exactly one answer.
//!
//! The task runs under the effect's deadline. A timeout, a panic and a cancellation are answers like
//! any other. Retries are not made here: the core decides them. (The store's own short retries, below
//! one effect, are in `checkpoint::retry` and end at the same deadline.)

pub(crate) mod commit;
mod disk_room;
mod engine;
pub(crate) mod failure;
mod flushed_files;
mod intent;
mod node;
pub(crate) mod pod;
pub(crate) mod pod_context;
mod restore;
mod save;

use crate::kube::Cluster;
use crate::node::executor::pod_context::PodContext;
use crate::node::store::{Opened, StoreHandle};
use crate::pods::reader::PodRecord;
use crate::runtime::config::Config;
use crate::runtime::journal::EarlierReports;
use crate::runtime::metrics::Metrics;
use crate::runtime::metrics::labels::{ActionName, LabelValue};
use crate::runtime::repeats::Repeats;
use crate::volume::PodVolumes;
use checkpoint::dispatcher::Dispatcher;
use checkpoint::manifest::MacKey;
use checkpoint::store::Store;
use engines::EngineKind;
use evacuation::effect::{Action, Effect, EffectId, PodAction, RestoreAction};
use evacuation::event::{Done, FailureKind, Outcome};
use evacuation::moment::{Moment, Span};
use evacuation::pod::PodUid;
use failure::EffectFailure;
use host::clock;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::Instrument;

/// A rate that changed by less than one part in this many is the same rate: the core keeps a quarter of every upload in
/// reserve, and each event is journaled.
const LINK_CHANGES: u64 = 20;

/// What is heard of an effect.
#[derive(Debug)]
pub enum EffectNews {
    /// Something of what it fetches has come.
    BytesCame(EffectId),
    /// It has ended: its one answer.
    Ended {
        /// Which effect.
        id: EffectId,
        /// How it ended.
        outcome: Outcome,
    },
}

/// By which a task tells that it goes on.
#[derive(Clone)]
pub(crate) struct ProgressTeller {
    id: EffectId,
    news: mpsc::Sender<EffectNews>,
}

impl ProgressTeller {
    /// Something of what its effect fetches has come.
    pub(crate) async fn bytes_came(&self) {
        // The loop has ended: nobody is left to know.
        let _ = self.news.send(EffectNews::BytesCame(self.id)).await;
    }
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
    pub(crate) earlier: EarlierReports,
    /// The notice whose report is in a Node Event, and whether that report was complete.
    pub(crate) reported: Mutex<Option<(String, bool)>>,
    /// The notice whose evacuation is in the metrics.
    pub(crate) counted: Mutex<Option<String>>,
}

/// The store, once it is usable.
pub(crate) async fn store(clients: &Clients) -> Result<Store, EffectFailure> {
    Ok(clients.store.get().await?)
}

/// The store and what is known of it, once it is usable.
pub(crate) async fn opened(clients: &Clients) -> Result<Opened, EffectFailure> {
    Ok(clients.store.opened().await?)
}

/// What failed last, by pod and action: an engine that refuses every look is logged once, not every second.
type Failures = Arc<Mutex<Repeats<(Option<PodUid>, ActionName)>>>;

/// Starts effects.
pub struct Executor {
    clients: Arc<Clients>,
    contexts: BTreeMap<PodUid, Arc<PodContext>>,
    running: Arc<Mutex<BTreeMap<EffectId, AbortHandle>>>,
    answers: mpsc::Sender<EffectNews>,
    failures: Failures,
    /// The rate to the store that was last found to have changed.
    rate: Option<u64>,
}

impl Executor {
    /// An executor that sends its answers to `answers`.
    pub fn new(
        config: &Config,
        cluster: Cluster,
        store: StoreHandle,
        metrics: Metrics,
        earlier: EarlierReports,
        answers: mpsc::Sender<EffectNews>,
    ) -> Self {
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
        Self {
            clients: Arc::new(clients),
            contexts: BTreeMap::new(),
            running: Arc::default(),
            answers,
            failures: Failures::default(),
            rate: None,
        }
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
        self.failures.lock().forget(|(pod, _)| pod.as_ref() == Some(uid));
    }

    /// Bytes per second to the store, if that has changed enough to matter since this was last asked: see
    /// [`LINK_CHANGES`].
    pub fn changed_rate(&mut self) -> Option<u64> {
        let rate = self.clients.dispatcher.rate().map(|rate| rate as u64)?;
        self.clients.metrics.link(rate);
        let changed = self.rate.is_none_or(|last| last.abs_diff(rate) > last / LINK_CHANGES);
        changed.then(|| *self.rate.insert(rate))
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
        let Effect { id, deadline, attempt, action } = effect;
        let head = EffectHead {
            id,
            deadline,
            attempt,
            left,
            name: (&action).into(),
            counted: EffectClass::of(&action),
        };
        let clients = Arc::clone(&self.clients);
        match action {
            Action::Cancel { effect: other } => {
                if let Some(task) = self.running.lock().remove(&other) {
                    task.abort();
                }
                self.answer_now(id, Outcome::Done(Done::Nothing));
            }
            Action::Anomaly { what } => self.supervise(head, None, async move {
                tracing::error!(what, "anomaly: please report this with the journal");
                clients.metrics.anomaly();
                Ok(Done::Nothing)
            }),
            Action::Node(action) => {
                self.supervise(head, None, async move { node::perform(&clients, action, deadline).await });
            }
            Action::Pod { uid, action } => {
                let Some(context) = self.known(id, &uid) else { return };
                self.supervise(head, Some(Arc::clone(&context)), async move {
                    let done = pod::perform(&clients, &context, action, deadline).await;
                    context.close_memory();
                    done
                });
            }
            Action::Restore { uid, action } => {
                let Some(context) = self.known(id, &uid) else { return };
                let teller = ProgressTeller { id, news: self.answers.clone() };
                self.supervise(head, Some(Arc::clone(&context)), async move {
                    let done = restore::perform(&clients, &context, action, deadline, &teller).await;
                    context.close_memory();
                    done
                });
            }
        }
    }

    /// The context of a pod; an effect about one that is no longer there is answered here.
    fn known(&self, id: EffectId, uid: &PodUid) -> Option<Arc<PodContext>> {
        let context = self.contexts.get(uid).cloned();
        if context.is_none() {
            let why = "the pod is no longer known on this node".to_owned();
            self.answer_now(id, Outcome::Failed { kind: FailureKind::NotFound, why });
        }
        context
    }

    /// One task that works under the effect's deadline, and one that sends its one answer.
    fn supervise(
        &self,
        head: EffectHead,
        context: Option<Arc<PodContext>>,
        work: impl Future<Output = Result<Done, EffectFailure>> + Send + 'static,
    ) {
        let span = tracing::info_span!(
            "effect",
            id = head.id.0,
            action = head.name.text(),
            attempt = head.attempt,
            pod = context.as_ref().map(|context| context.display_name()),
            remaining_ms = head.left.map(Span::as_millis),
        );
        let work = tokio::spawn(work.instrument(span.clone()));
        let abort = work.abort_handle();
        self.running.lock().insert(head.id, abort.clone());
        let (running, answers, metrics) =
            (Arc::clone(&self.running), self.answers.clone(), self.clients.metrics.clone());
        let failures = Arc::clone(&self.failures);
        let key = (context.as_ref().map(|context| context.pod_ref().uid), head.name);
        let began = clock::now();
        let engine =
            context.as_ref().and_then(|context| context.settings().ok()).map(|settings| settings.engine);
        tokio::spawn(
            async move {
                let outcome = match tokio::time::timeout_at(clock::instant(head.deadline), work).await {
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
                running.lock().remove(&head.id);
                let took = clock::now().since(began);
                measure(&metrics, &head, engine, &outcome, took);
                log(&failures, key, &outcome, took);
                // The loop has ended: nobody is left to know.
                let _ = answers.send(EffectNews::Ended { id: head.id, outcome }).await;
            }
            .instrument(span),
        );
    }

    fn answer_now(&self, id: EffectId, outcome: Outcome) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let _ = answers.send(EffectNews::Ended { id, outcome }).await;
        });
    }
}

/// What is known of an effect when its work is handed over.
struct EffectHead {
    id: EffectId,
    deadline: Moment,
    attempt: u32,
    left: Option<Span>,
    name: ActionName,
    counted: EffectClass,
}

/// Which metrics count an effect, beside the one that counts all of them.
#[derive(Clone, Copy)]
enum EffectClass {
    Eviction,
    Commit,
    Save,
    /// A request to the engine, whose failures are its own.
    Engine,
    Other,
}

impl EffectClass {
    const fn of(action: &Action) -> Self {
        match action {
            Action::Pod { action, .. } => match action {
                PodAction::Evict { .. } => EffectClass::Eviction,
                PodAction::Commit { .. } => EffectClass::Commit,
                PodAction::Save { .. } => EffectClass::Save,
                PodAction::InspectEngine
                | PodAction::Quiesce
                | PodAction::Resume
                | PodAction::ProbeEngine
                | PodAction::Flush { .. } => EffectClass::Engine,
                PodAction::SetHold { .. }
                | PodAction::WriteIntent { .. }
                | PodAction::AbandonIntent { .. }
                | PodAction::Reprioritise { .. }
                | PodAction::MarkDisrupted
                | PodAction::DeletePod { .. }
                | PodAction::Publish(_) => EffectClass::Other,
            },
            Action::Restore {
                action: RestoreAction::CheckFingerprint | RestoreAction::ImportState | RestoreAction::Verify,
                ..
            } => EffectClass::Engine,
            Action::Restore { .. } | Action::Node(_) | Action::Cancel { .. } | Action::Anomaly { .. } => {
                EffectClass::Other
            }
        }
    }
}

/// Counts what an effect came to.
fn measure(metrics: &Metrics, head: &EffectHead, engine: Option<EngineKind>, outcome: &Outcome, took: Span) {
    metrics.effect(head.name, outcome, took);
    match (head.counted, outcome) {
        (EffectClass::Eviction, _) => metrics.eviction(outcome),
        (EffectClass::Commit, _) => metrics.commit(outcome, took),
        (EffectClass::Save, Outcome::Done(Done::Saved { bytes, sent, .. })) => {
            metrics.save(outcome, took, *bytes, *sent)
        }
        (EffectClass::Save, _) => metrics.save(outcome, took, 0, 0),
        (EffectClass::Engine, Outcome::Failed { kind, .. }) => {
            if let Some(engine) = engine {
                metrics.engine_error(engine, *kind);
            }
        }
        (EffectClass::Engine | EffectClass::Other, _) => {}
    }
}

/// Logs how an effect ended, but not again what was logged of its pod and action word for word.
fn log(failures: &Failures, key: (Option<PodUid>, ActionName), outcome: &Outcome, took: Span) {
    let took_ms = took.as_millis();
    let news = |text: &str| failures.lock().failed(key.clone(), text, clock::now());
    match outcome {
        Outcome::Done(Done::Saved {
            bytes, left_out: Some(why), newest: Some((generation, held)), ..
        }) if bytes < held => {
            // The save worked, but nobody will find it: whoever looks why nothing newer is there must find this.
            match news(&format!("less than {generation}")) {
                Some(unlogged) => {
                    tracing::warn!(
                        took_ms,
                        bytes,
                        held,
                        generation,
                        why,
                        unlogged,
                        "not committed: it holds less"
                    );
                }
                None => tracing::debug!(took_ms, bytes, held, generation, why, "not committed, as before"),
            }
        }
        Outcome::Done(done) => {
            failures.lock().worked(&key);
            tracing::debug!(took_ms, ?done, "done");
        }
        Outcome::Failed { kind, why } => match news(&format!("{}: {why}", kind.as_str())) {
            Some(unlogged) => tracing::warn!(took_ms, kind = kind.as_str(), why, unlogged, "failed"),
            None => tracing::debug!(took_ms, kind = kind.as_str(), why, "failed as before"),
        },
        Outcome::TimedOut => match news("timed out") {
            Some(unlogged) => tracing::warn!(took_ms, unlogged, "timed out"),
            None => tracing::debug!(took_ms, "timed out as before"),
        },
        Outcome::Panicked => tracing::error!(took_ms, "panicked: this is a bug"),
    }
}

#[cfg(test)]
mod tests;
