//! The loop: wait for many things, hand one event to the core, start the effects it answers with.
//!
//! ```text
//!   IMDS ──┐
//!   watch ─┤                      ┌──────────┐
//!   answers┼─► one event ─► journal│  core    │─► effects ─► journal ─► executor ─► one task each
//!   timer ─┘        ▲              └──────────┘                              │
//!                   └───────────────────── exactly one answer each ◄────────┘
//! ```
//!
//! Nothing here waits for the outside world but in the one `select!`, so a hanging API server, store
//! or engine never delays the next event.

use crate::imds::{FaultKind, Faults, ImdsEvent, LifeCycle};
use crate::kube::ClusterEvent;
use crate::kube::drill_request::DrillRequest;
use crate::node::drill_requests::DrillRequests;
use crate::node::executor::{EffectAnswer, Executor};
use crate::runtime::drill_scope::DrillScope;
use crate::runtime::journal::Journal;
use crate::runtime::metrics::Metrics;
use crate::runtime::readiness::{Heartbeat, Latch, Readiness};
use crate::runtime::signals::Signals;
use evacuation::Machine;
use evacuation::event::Event;
use evacuation::facts::Facts;
use evacuation::moment::{Moment, Span};
use evacuation::notice::{ActiveNotice, InstanceAction, Notice, NoticeKind};
use evacuation::plan::Plan;
use evacuation::pod::{PodFacts, PodUid};
use evacuation::report::DepartureOutcome;
use evacuation::status::Status;
use host::clock;
use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use trace::journal::What;

/// How often the loop beats at least: what `/livez` looks at.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long a notice waits for the list of the node's pods.
const LIST_PATIENCE: Span = Span::from_secs(3);

/// How long IMDS must answer without showing a notice that stands on the node before it counts as
/// withdrawn: longer than the slowest of its documents is asked for (maintenance, every 5 s).
const CONFIRMED_WITHIN: Span = Span::from_secs(8);

/// A link that changed by less than one part in this many is the same link to the core, which keeps a quarter of every
/// upload in reserve: told each second, it would fill the journal and change nothing.
const LINK_CHANGES: u64 = 20;

/// How long a node that announced its end may take, once the agent was told to go.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(105);

/// What the loop is made of.
pub(super) struct Parts {
    pub(super) machine: Machine,
    pub(super) journal: Journal,
    pub(super) executor: Executor,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    pub(super) heartbeat: Heartbeat,
    pub(super) status: watch::Sender<serde_json::Value>,
    pub(super) facts: watch::Sender<Option<Facts>>,
    /// The uplink until a save measures it.
    pub(super) link_rate: Option<u64>,
    pub(super) imds_faults: Arc<Faults>,
    pub(super) drill_requests: DrillRequests,
}

/// The loop: the only owner of the core.
pub(super) struct EventLoop {
    machine: Machine,
    started: bool,
    /// Pods that were seen before the node was read: to the core nothing comes before its node, whose annotation says
    /// whether a pod that terminates does so because of us.
    unread: BTreeMap<PodUid, PodFacts>,
    /// Every pod of the node was seen.
    listed: bool,
    /// Notices that came before that.
    early: Vec<Notice>,
    early_since: Option<Moment>,
    journal: Journal,
    executor: Executor,
    metrics: Metrics,
    readiness: Readiness,
    heartbeat: Heartbeat,
    status: watch::Sender<serde_json::Value>,
    facts: watch::Sender<Option<Facts>>,
    /// The uplink until a save measures it.
    link_rate: Option<u64>,
    imds_faults: Arc<Faults>,
    drill_requests: DrillRequests,
    /// The notice found on the node at the start, until IMDS shows one; and since when IMDS answers.
    unconfirmed: Option<(ActiveNotice, Option<Moment>)>,
    imds_answers_since: Option<Moment>,
    /// Requests to IMDS that the metrics know already.
    polls_told: u64,
    /// Late answers that the metrics know already.
    late_told: u64,
    /// Of each kind, how many the metrics know already.
    imds_faults_told: [u64; FaultKind::ALL.len()],
    /// The rate of the link as the core was last told.
    link_told: Option<u64>,
    /// The kind of the notice with which pods are named in the metrics.
    disrupted: Option<NoticeKind>,
}

impl EventLoop {
    /// A loop that has seen nothing yet.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            machine,
            journal,
            executor,
            metrics,
            readiness,
            heartbeat,
            status,
            facts,
            link_rate,
            imds_faults,
            drill_requests,
        } = parts;
        Self {
            machine,
            started: false,
            unread: BTreeMap::new(),
            listed: false,
            early: Vec::new(),
            early_since: None,
            journal,
            executor,
            metrics,
            readiness,
            heartbeat,
            status,
            facts,
            link_rate,
            imds_faults,
            drill_requests,
            unconfirmed: None,
            imds_answers_since: None,
            polls_told: 0,
            late_told: 0,
            imds_faults_told: [0; FaultKind::ALL.len()],
            link_told: None,
            disrupted: None,
        }
    }

    /// Runs until a signal has come and nothing is under way.
    pub(super) async fn run(
        mut self,
        mut imds: mpsc::Receiver<ImdsEvent>,
        mut cluster: mpsc::Receiver<ClusterEvent>,
        mut answers: mpsc::Receiver<EffectAnswer>,
        mut rehearsals: mpsc::Receiver<DrillRequest>,
        mut signals: Signals,
    ) {
        let mut beat = tokio::time::interval(HEARTBEAT);
        let mut asked_to_stop: Option<tokio::time::Instant> = None;
        loop {
            let wakeup = self.machine.next_wakeup();
            tokio::select! {
                // Answers first: they free slots, and the core is to know the newest.
                biased;
                Some(answer) = answers.recv() => self.answered(answer),
                Some(event) = imds.recv() => self.imds(event),
                Some(event) = cluster.recv() => self.cluster(event),
                Some(asked) = rehearsals.recv() => self.rehearse(asked),
                () = sleep_until(wakeup) => self.tell(Event::TimerFired),
                _ = beat.tick() => self.beat(),
                () = signals.received() => {
                    asked_to_stop.get_or_insert_with(tokio::time::Instant::now);
                }
            }
            if let Some(asked) = asked_to_stop {
                // A SIGTERM does not stop a save: the DaemonSet's grace is 110 s for this.
                let busy = self.machine.status().busy;
                if !busy || asked.elapsed() > SHUTDOWN_LIMIT {
                    tracing::info!(busy, "stopped");
                    return;
                }
            }
        }
    }

    fn beat(&mut self) {
        self.heartbeat.beat(clock::now());
        self.tell_early();
        self.doubt();
        let polls = self.imds_faults.polls();
        for _ in self.polls_told..polls {
            self.metrics.imds_poll();
        }
        self.polls_told = polls;
        for ((kind, count), told) in self.imds_faults.counts().zip(&mut self.imds_faults_told) {
            for _ in *told..count {
                self.metrics.imds_error(kind);
            }
            *told = count;
        }
        if let Some(bytes_per_second) = self.executor.measured_rate() {
            self.metrics.link(bytes_per_second);
            if self.link_told.is_none_or(|told| told.abs_diff(bytes_per_second) > told / LINK_CHANGES) {
                self.link_told = Some(bytes_per_second);
                self.tell(Event::LinkMeasured { bytes_per_second });
            }
        }
        self.publish_status();
    }

    /// Hands over the notices that came before the node and its pods were known: an evacuation of no
    /// pods would be over at once. The list is not waited for without end, since the cordon needs
    /// none.
    fn tell_early(&mut self) {
        let waited = self.early_since.map_or(Span::ZERO, |since| clock::now().since(since));
        if self.started && (self.listed || waited >= LIST_PATIENCE) {
            self.early_since = None;
            for notice in std::mem::take(&mut self.early) {
                self.tell(Event::NoticeReceived(notice));
            }
        }
    }

    fn publish_status(&mut self) {
        let status = self.machine.status();
        let stateful = status.pods.iter().filter(|pod| pod.engine).count();
        self.metrics.pods(stateful, status.pods.len() - stateful);
        self.metrics.evacuating(status.left.is_some());
        self.mark_disrupted(&status);
        for _ in self.late_told..status.late_answers {
            self.metrics.late_answer();
        }
        self.late_told = status.late_answers;
        let mut json = serde_json::to_value(&status).unwrap_or_default();
        json["store"] = self.executor.store_status().into();
        json["claims"] = self.executor.claims_status().into();
        if self.started {
            let facts = self.machine.facts();
            let plan = Plan::of(&facts);
            self.metrics.headroom(plan.headroom);
            self.metrics.plan_state(&plan);
            let _ = self.facts.send(Some(facts));
        }
        // Nobody may be listening.
        let _ = self.status.send(json);
    }

    /// Names the pods that leave with this node, for analyses that must not take their loss for a fault of theirs.
    /// Not those that somebody else deletes: without a notice nothing of the node's explains it.
    fn mark_disrupted(&mut self, status: &Status) {
        let kind = status
            .active_notice
            .as_ref()
            .filter(|_| status.left.is_some())
            .map(|active_notice| active_notice.kind);
        if self.disrupted != kind {
            self.metrics.undisrupted();
            self.disrupted = kind;
        }
        let Some(kind) = kind else { return };
        for pod in status.pods.iter().map(|pod| &pod.departure) {
            if pod.departure != DepartureOutcome::Stays {
                self.metrics.disrupted(&pod.namespace, &pod.name, kind);
            }
        }
    }

    /// A notice that stood on the node when this agent started, and that IMDS does not show, was
    /// withdrawn while no agent lived. (IMDS tells only what it sees change.)
    fn doubt(&mut self) {
        let Some((active_notice, asked_since)) = &self.unconfirmed else { return };
        let Some(asked_since) = asked_since else { return };
        if clock::now().since(*asked_since) >= CONFIRMED_WITHIN {
            let id = active_notice.notice.clone();
            self.unconfirmed = None;
            tracing::warn!(id, "the notice on the node is no longer shown");
            self.tell(Event::NoticeWithdrawn { id });
        }
    }

    fn imds(&mut self, event: ImdsEvent) {
        match event {
            ImdsEvent::Notice(notice) => {
                self.unconfirmed.take_if(|(active_notice, _)| confirms(&notice, active_notice));
                let left = u64::try_from(notice.left_ms).ok().map(Span::from_millis);
                self.metrics.notice(notice.kind, left, left.and_then(|left| age(notice.kind, left)));
                tracing::warn!(
                    kind = notice.kind.as_str(),
                    id = notice.id,
                    left_ms = notice.left_ms,
                    "notice"
                );
                if self.started && self.listed {
                    self.tell(Event::NoticeReceived(notice));
                } else {
                    self.early_since.get_or_insert_with(clock::now);
                    self.early.push(notice);
                }
            }
            ImdsEvent::Withdrawn { id } => {
                tracing::warn!(id, "notice withdrawn");
                self.early.retain(|notice| notice.id != id);
                if self.started {
                    self.tell(Event::NoticeWithdrawn { id });
                }
            }
            ImdsEvent::LifeCycle(life_cycle) => {
                tracing::info!(%life_cycle, spot = life_cycle == LifeCycle::Spot, "instance life cycle");
            }
            ImdsEvent::Reachable(reachable, _) => {
                self.metrics.imds_reachable(reachable);
                self.imds_answers_since = reachable.then(clock::now);
                if let Some((_, asked_since)) = &mut self.unconfirmed {
                    *asked_since = self.imds_answers_since;
                }
                if reachable {
                    self.readiness.latch(Latch::Imds);
                }
            }
        }
    }

    fn cluster(&mut self, event: ClusterEvent) {
        match event {
            ClusterEvent::Node(node) if !self.started => {
                self.started = true;
                self.readiness.latch(Latch::Node);
                let active_notice =
                    node.active_notice.clone().filter(|active_notice| active_notice.boot == node.boot);
                self.unconfirmed = active_notice
                    .filter(|active_notice| !self.early.iter().any(|notice| confirms(notice, active_notice)))
                    .map(|active_notice| (active_notice, self.imds_answers_since.map(|_| clock::now())));
                self.tell(Event::Started(node));
                if let Some(bytes_per_second) = self.link_rate {
                    self.tell(Event::LinkMeasured { bytes_per_second });
                }
                for facts in std::mem::take(&mut self.unread).into_values() {
                    self.tell(Event::PodUpdated(Box::new(facts)));
                }
            }
            ClusterEvent::Node(node) => self.tell(Event::NodeUpdated(node)),
            ClusterEvent::Pod(record) => {
                let facts = record.facts.clone();
                self.executor.pod_seen(*record);
                if self.started {
                    self.tell(Event::PodUpdated(Box::new(facts)));
                } else {
                    self.unread.insert(facts.uid.clone(), facts);
                }
            }
            ClusterEvent::PodGone(uid) => {
                if self.started {
                    self.tell(Event::PodRemoved(uid.clone()));
                } else {
                    self.unread.remove(&uid);
                }
                self.executor.pod_gone(&uid);
            }
            ClusterEvent::PodsListed => {
                self.readiness.latch(Latch::Pods);
                self.listed = true;
                self.tell_early();
            }
            ClusterEvent::Rehearsal(asked) => self.drill_requests.asked(asked),
            ClusterEvent::Reachable(reachable) => {
                tracing::info!(reachable, "API server");
            }
        }
    }

    /// A drill that was asked for, and that nobody will ask for again.
    fn rehearse(&mut self, asked: DrillRequest) {
        tracing::warn!(id = asked.id, extent = ?asked.extent, "drill");
        match asked.extent {
            DrillScope::Save => self.tell(Event::PreCopyRequested),
            DrillScope::Full => {
                let left_ms = i64::try_from(asked.left_ms).unwrap_or(i64::MAX);
                let notice = Notice { kind: NoticeKind::Drill, id: asked.id, left_ms };
                self.metrics.notice(notice.kind, Some(Span::from_millis(asked.left_ms)), None);
                self.tell(Event::NoticeReceived(notice));
            }
        }
    }

    fn answered(&mut self, answer: EffectAnswer) {
        self.tell(Event::Answered { id: answer.id, outcome: answer.outcome });
    }

    /// Hands one event to the core and starts what it answers with.
    fn tell(&mut self, event: Event) {
        let now = clock::now();
        self.metrics.event(&event);
        // Every event, also one that leads to nothing now: each may change what the core decides later.
        self.journal.write(now, What::Event(event.clone()));
        let effects = self.machine.handle(now, event);
        let left = self.machine.time_left();
        for effect in effects {
            self.journal.write(now, What::Effect(effect.clone()));
            self.executor.start(effect, left);
        }
    }
}

/// IMDS shows the notice that stands on the node, or another of its kind in its place. One of another kind says
/// nothing of it: a rebalance recommendation stays when an interruption is withdrawn.
fn confirms(notice: &Notice, active_notice: &ActiveNotice) -> bool {
    notice.id == active_notice.notice || discriminant(&notice.kind) == discriminant(&active_notice.kind)
}

/// How old a notice is by the two minutes that EC2 gives to a termination or a stop.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>
fn age(kind: NoticeKind, left: Span) -> Option<Span> {
    let given = Span::from_secs(120);
    match kind {
        NoticeKind::Interruption(InstanceAction::Terminate | InstanceAction::Stop) if left <= given => {
            Some(given.less(left))
        }
        NoticeKind::Interruption(_) | NoticeKind::Rebalance | NoticeKind::Maintenance | NoticeKind::Drill => {
            None
        }
    }
}

async fn sleep_until(moment: Option<Moment>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(clock::instant(moment)).await,
        None => std::future::pending().await,
    }
}
