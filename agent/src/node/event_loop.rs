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
use crate::node::executor::{EffectNews, Executor};
use crate::runtime::drill_scope::DrillScope;
use crate::runtime::journal::Journal;
use crate::runtime::metrics::Metrics;
use crate::runtime::readiness::{Heartbeat, Latch, Readiness};
use crate::runtime::signals::Signals;
use evacuation::Machine;
use evacuation::event::Event;
use evacuation::facts::Facts;
use evacuation::moment::{Moment, Span};
use evacuation::notice::{InstanceAction, Notice, NoticeKind};
use evacuation::plan::Plan;
use evacuation::report::DepartureOutcome;
use evacuation::sleep::SleepWatch;
use evacuation::status::Status;
use host::clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use trace::journal::What;

/// How often the loop beats at least: what `/livez` looks at.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long a node that announced its end may take, once the agent was told to go.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(105);

/// What the loop is made of.
pub(super) struct Parts {
    pub(super) machine: Machine,
    /// The kernel's boot id.
    pub(super) boot: String,
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
    boot: String,
    /// The node was read in this life.
    node_read: bool,
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
    /// Whether the instance was hibernated, and woke.
    sleep: SleepWatch,
    /// Requests to IMDS that the metrics know already.
    polls_told: u64,
    /// Late answers that the metrics know already.
    late_told: u64,
    /// Lines that the journal lost, likewise.
    lines_lost_told: u64,
    /// Of each kind, how many the metrics know already.
    imds_faults_told: [u64; FaultKind::ALL.len()],
    /// The kind of the notice with which pods are named in the metrics.
    disrupted: Option<NoticeKind>,
}

impl EventLoop {
    /// A loop that has seen nothing yet.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            machine,
            boot,
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
            boot,
            node_read: false,
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
            sleep: SleepWatch::new(clock::slept()),
            polls_told: 0,
            late_told: 0,
            lines_lost_told: 0,
            imds_faults_told: [0; FaultKind::ALL.len()],
            disrupted: None,
        }
    }

    /// Runs until a signal has come and nothing is under way.
    pub(super) async fn run(
        mut self,
        mut imds: mpsc::Receiver<ImdsEvent>,
        mut cluster: mpsc::Receiver<ClusterEvent>,
        mut answers: mpsc::Receiver<EffectNews>,
        mut rehearsals: mpsc::Receiver<DrillRequest>,
        mut signals: Signals,
    ) {
        let boot = std::mem::take(&mut self.boot);
        self.hand_over(Event::AgentStarted { boot, slept: self.sleep.slept() });
        if let Some(bytes_per_second) = self.link_rate {
            self.tell(Event::LinkMeasured { bytes_per_second });
        }
        let mut beat = tokio::time::interval(HEARTBEAT);
        let mut asked_to_stop: Option<tokio::time::Instant> = None;
        loop {
            let wakeup = self.machine.next_wakeup();
            tokio::select! {
                // Answers first: they free slots, and the core is to know the newest.
                biased;
                Some(answer) = answers.recv() => self.heard(answer),
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
        self.look_for_sleep();
        self.heartbeat.beat(clock::now());
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
        if let Some(bytes_per_second) = self.executor.changed_rate() {
            self.tell(Event::LinkMeasured { bytes_per_second });
        }
        self.journal.look(clock::now());
        self.metrics.journal_written(self.journal.is_written());
        let lost = self.journal.lost();
        self.metrics.journal_lines_lost(lost - self.lines_lost_told);
        self.lines_lost_told = lost;
        self.publish_status();
    }

    fn publish_status(&mut self) {
        let status = self.machine.status();
        let stateful = status.pods.iter().filter(|pod| pod.engine).count();
        self.metrics.pods(stateful, status.pods.len() - stateful);
        self.metrics.evacuating(status.left.is_some());
        let standing: Vec<_> = status.announcements.iter().map(|notice| notice.kind).collect();
        self.metrics.announcements(&standing);
        self.mark_disrupted(&status);
        for _ in self.late_told..status.late_answers {
            self.metrics.late_answer();
        }
        self.late_told = status.late_answers;
        let mut json = serde_json::to_value(&status).unwrap_or_default();
        json["store"] = self.executor.store_status().into();
        json["claims"] = self.executor.claims_status().into();
        if self.node_read {
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

    fn imds(&mut self, event: ImdsEvent) {
        match event {
            ImdsEvent::Notice(notice) => {
                let left = u64::try_from(notice.left_ms).ok().map(Span::from_millis);
                self.metrics.notice(notice.kind, left, left.and_then(|left| age(notice.kind, left)));
                tracing::warn!(
                    kind = notice.kind.as_str(),
                    id = notice.id,
                    left_ms = notice.left_ms,
                    "notice"
                );
                self.tell(Event::NoticeReceived(notice));
            }
            ImdsEvent::Withdrawn { id, is_over } => {
                tracing::warn!(id, is_over, "notice withdrawn");
                self.tell(Event::NoticeWithdrawn { id, is_over });
            }
            ImdsEvent::LifeCycle(life_cycle) => {
                tracing::info!(%life_cycle, spot = life_cycle == LifeCycle::Spot, "instance life cycle");
            }
            ImdsEvent::Reachable(reachable, _) => {
                self.metrics.imds_reachable(reachable);
                if reachable {
                    self.readiness.latch(Latch::Imds);
                }
                self.tell(Event::ImdsReachable { reachable });
            }
        }
    }

    fn cluster(&mut self, event: ClusterEvent) {
        match event {
            ClusterEvent::Node(node) if !self.node_read => {
                self.node_read = true;
                self.readiness.latch(Latch::Node);
                self.tell(Event::NodeRead(node));
            }
            ClusterEvent::Node(node) => self.tell(Event::NodeUpdated(node)),
            ClusterEvent::Pod(record) => {
                let facts = record.facts.clone();
                self.executor.pod_seen(*record);
                self.tell(Event::PodUpdated(Box::new(facts)));
            }
            ClusterEvent::PodGone(uid) => {
                self.tell(Event::PodRemoved(uid.clone()));
                self.executor.pod_gone(&uid);
            }
            ClusterEvent::PodsListed => {
                self.readiness.latch(Latch::Pods);
                self.tell(Event::PodsListed);
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
                let notice = Notice {
                    kind: NoticeKind::Drill,
                    id: asked.id,
                    seen: clock::now(),
                    left_ms,
                    event: None,
                };
                self.metrics.notice(notice.kind, Some(Span::from_millis(asked.left_ms)), None);
                self.tell(Event::NoticeReceived(notice));
            }
        }
    }

    fn heard(&mut self, news: EffectNews) {
        match news {
            EffectNews::BytesCame(id) => self.tell(Event::BytesCame { id }),
            EffectNews::Ended { id, outcome } => self.tell(Event::Answered { id, outcome }),
        }
    }

    /// Tells the core of one event; before it, if the instance has slept since the last one, of that: else deadlines that
    /// passed meanwhile would count as missed.
    fn tell(&mut self, event: Event) {
        self.look_for_sleep();
        self.hand_over(event);
    }

    fn look_for_sleep(&mut self) {
        if let Some(slept) = self.sleep.measure(clock::slept()) {
            tracing::warn!(%slept, "the instance was hibernated and is awake");
            self.hand_over(Event::Resumed { slept });
        }
    }

    /// Hands one event to the core and starts what it answers with.
    fn hand_over(&mut self, event: Event) {
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
