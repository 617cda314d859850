//! The play: the notice, what goes wrong, and the end as soon as everything is decided.

use super::agent::Agent;
use super::arguments::Sabotage;
use super::cast::{CAST, Member};
use super::follower::Follower;
use super::observation::{SOURCE, TARGET, agent_user};
use super::recording::Recording;
use super::scene::{Ending, UNDO_AFTER};
use super::stage::Stage;
use crate::cast::Place;

use evacuation::effect::{Action, NodeAction};
use evacuation::event::{FailureKind, Outcome};
use evacuation::moment::{Moment, Span};
use fault_plan::drill::span;
use fault_plan::{Fault, Start};
use host::clock;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// How often the play looks around.
const LOOK: Duration = Duration::from_millis(25);

/// How long restores may go on after the time in the notice.
const AFTER: Span = Span::from_secs(8);

/// What the play leaves besides the stage.
#[derive(Clone, Debug)]
pub struct Played {
    /// When IMDS first showed the notice or recommendation.
    pub shown: Moment,
    /// The time in the notice.
    pub times_up: Moment,
    /// The node after the reboot.
    pub rebooted: Option<Value>,
    /// The node before it.
    pub node: Value,
}

impl Stage {
    /// Plays the scene and returns when everything is decided, or time is up.
    pub async fn play(&mut self, sabotage: Option<Sabotage>) -> Played {
        // Let the agents look at their pods' engines once.
        tokio::time::sleep(Duration::from_millis(700)).await;
        if let Some(lead) = self.lead {
            tokio::time::sleep_until(clock::instant(self.agents_began + lead)).await;
        }
        let ending = self.scene.ending();
        if let Some(ahead) = self.scene.fault("rebalance-first").and_then(Fault::span) {
            self.imds.recommend_rebalance();
            self.chronicle.say("IMDS", "recommends a rebalance");
            tokio::time::sleep(ahead).await;
        }
        let (shown, times_up) = self.show(ending);
        let troubles = self.scene.faults.clone();
        let mut pending: Vec<Fault> = troubles
            .into_iter()
            .filter(|fault| ["agent", "agent-b", "drainer"].contains(&fault.kind.target))
            .collect();
        let mut withdraw = match ending {
            Ending::Withdrawn(after) => Some(shown + after),
            _ => None,
        };
        let mut pdb =
            self.scene.fault("pdb-stuck").and_then(|fault| fault.lasts).map(|lasts| shown + span(lasts));
        if sabotage == Some(Sabotage::EarlyEviction) {
            self.evict_early().await;
        }
        let limit = self.limit(ending, shown, times_up);
        loop {
            let now = clock::now();
            let mut rest = Vec::new();
            for fault in pending {
                if !self.strike(&fault, shown, now).await {
                    rest.push(fault);
                }
            }
            pending = rest;
            if withdraw.is_some_and(|at| now >= at) {
                withdraw = None;
                self.imds.withdraw();
                self.chronicle.say("IMDS", "no longer shows the notice");
            }
            if pdb.is_some_and(|at| now >= at) {
                pdb = None;
                self.api.loosen_budgets();
                self.chronicle.say("web", "its disruption budget allows evictions now");
            }
            if now >= times_up && ending == Ending::Evacuated && self.source_kubelet.take().is_some() {
                // EC2 presses the button.
                self.chronicle.warn(SOURCE, "its time is up");
                self.source.perish();
            }
            if withdraw.is_none() && self.decided(ending) {
                break;
            }
            if now >= limit {
                self.chronicle.warn("stage", "the drill ends here: not everything was decided");
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let node = self.node();
        let stops =
            self.scene.action() == evacuation::notice::InstanceAction::Stop && ending == Ending::Evacuated;
        let rebooted = if stops { Some(self.reboot().await) } else { None };
        Played { shown, times_up, rebooted, node }
    }

    /// Shows the notice; everything counts from here.
    fn show(&self, ending: Ending) -> (Moment, Moment) {
        let shown = clock::now();
        let _ = self.zero.set(shown);
        self.api.begin(shown);
        self.imds.begin(shown);
        let window = self.scene.window;
        if ending == Ending::Recommended {
            self.imds.recommend_rebalance();
            self.chronicle.say("IMDS", "recommends a rebalance");
            return (shown, shown + window);
        }
        // IMDS has whole seconds: the time is rounded up, so that the window is not shorter than was asked for.
        let time = Timestamp::now() + clock::duration(window);
        let time = Timestamp::from_second(time.as_second() + i64::from(time.subsec_nanosecond() > 0))
            .unwrap_or(time);
        let moving = self.scene.has("notice-repeated").then_some(window);
        self.imds.interrupt(self.scene.action(), time, moving);
        let left = u64::try_from(time.duration_since(Timestamp::now()).as_millis()).unwrap_or_default();
        let action = evacuation::notice::NoticeKind::Interruption(self.scene.action());
        self.chronicle.say(
            "IMDS",
            format!("shows the notice: {}, {:.1} s left", action.as_str(), left as f64 / 1000.0),
        );
        (shown, clock::now() + Span::from_millis(left))
    }

    fn limit(&self, ending: Ending, shown: Moment, times_up: Moment) -> Moment {
        match ending {
            Ending::Evacuated => times_up + AFTER,
            Ending::Withdrawn(after) => shown + after + UNDO_AFTER + AFTER,
            Ending::Hibernated => shown + Span::from_secs(12),
            Ending::Recommended => shown + UNDO_AFTER + AFTER,
        }
    }

    /// Strikes if it is time; true if that is done with.
    async fn strike(&self, fault: &Fault, shown: Moment, now: Moment) -> bool {
        let (agent, journal): (&Agent, &Follower) = match fault.kind.target {
            "agent-b" => (&self.target, &self.target_journal),
            _ => (&self.source, &self.source_journal),
        };
        let due = match &fault.start {
            Start::Notice => true,
            Start::After(after) => now >= shown + span(*after),
            Start::Step(step) => journal.has_begun(|action| action.name() == step),
        };
        if !due {
            return false;
        }
        if fault.kind.target == "drainer" {
            let member = fault.object.as_deref().unwrap_or_default();
            self.drain(member).await;
        } else {
            agent.kill();
        }
        true
    }

    /// Another drainer deletes the member's pod with the pod's own grace.
    async fn drain(&self, member: &str) {
        let own = self
            .trails
            .all()
            .into_iter()
            .find(|trail| trail.member == member && trail.place == Place::Source);
        let Some(trail) = own else { return };
        let path = format!("/api/v1/namespaces/{}/pods/{}", super::cast::NAMESPACE, trail.pod);
        self.chronicle.warn(&trail.pod, "is deleted by another drainer");
        self.call("drainer", http::Method::DELETE, &path, &json!({})).await;
    }

    /// Sabotage: silver is evicted in the agent's name, after the cordon and before anything is saved.
    async fn evict_early(&self) {
        let end = clock::now() + Span::from_secs(5);
        while self.node()["spec"]["unschedulable"] != true && clock::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let own = self
            .trails
            .all()
            .into_iter()
            .find(|trail| trail.member == "silver" && trail.place == Place::Source);
        let Some(trail) = own else { return };
        let path = format!("/api/v1/namespaces/{}/pods/{}/eviction", super::cast::NAMESPACE, trail.pod);
        let options = json!({"gracePeriodSeconds": 1, "preconditions": {"uid": trail.uid}});
        let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": trail.pod}, "deleteOptions": options});
        self.call(&agent_user(SOURCE), http::Method::POST, &path, &body).await;
    }

    async fn call(&self, user: &str, method: http::Method, path: &str, body: &Value) {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build();
        let Ok(client) = client else { return };
        let request =
            client.request(method, format!("{}{path}", self.api.url())).bearer_auth(user).json(body);
        if let Err(error) = request.send().await {
            self.chronicle.warn("stage", format!("a request of {user} failed: {error}"));
        }
    }

    fn node(&self) -> Value {
        self.api.storage().get("nodes", "", SOURCE).map(|node| (*node).clone()).unwrap_or_default()
    }

    /// Nothing is left to wait for.
    fn decided(&self, ending: Ending) -> bool {
        let node = self.node();
        let marked = node["spec"]["unschedulable"] == true || ours(&node);
        let reported = || {
            self.source_journal.has_begun(
                |action| matches!(action, Action::Node(NodeAction::WriteReport(report)) if report.complete),
            )
        };
        match ending {
            Ending::Evacuated => {
                // A node that is gone writes no report any more, and pods that were still there went with it.
                let gone = self.source_kubelet.is_none();
                let written = gone || (reported() && self.reports_answered());
                written && CAST.iter().all(|member| self.settled(member))
            }
            Ending::Hibernated => reported() && self.reports_answered(),
            Ending::Withdrawn(_) => !marked && self.begun_are_over(),
            Ending::Recommended => {
                let clears =
                    |action: &Action| matches!(action, Action::Node(NodeAction::ClearNodeMark { .. }));
                self.source_journal.has_begun(clears) && !marked
            }
        }
    }

    /// Every complete report that was begun was also answered.
    fn reports_answered(&self) -> bool {
        let recording = self.source_journal.recording();
        let complete = recording.effects().filter(
            |answered| matches!(&answered.effect.action, Action::Node(NodeAction::WriteReport(report)) if report.complete),
        );
        complete.last().is_some_and(|answered| answered.answer.is_some())
    }

    /// The member's pod is gone, and its replacement is up.
    fn settled(&self, member: &Member) -> bool {
        if !member.leaves() {
            return true;
        }
        let all = self.trails.all();
        let mut own = all.iter().filter(|trail| trail.member == member.name);
        let gone = own.clone().any(|trail| trail.place == Place::Source && trail.gone.is_some());
        let replaced = own.any(|trail| {
            let talked = !self.is_real_engine() || !member.has_state() || trail.conversation.is_some();
            trail.place == Place::Replacement && trail.ready.is_some() && talked
        });
        gone && (replaced || !member.is_replaced())
    }

    fn is_real_engine(&self) -> bool {
        self.folder.join("models").exists()
    }

    /// Every departure that has begun is over: the pods are gone, the replacements are up.
    fn begun_are_over(&self) -> bool {
        let all = self.trails.all();
        let sources = all.iter().filter(|trail| trail.place == Place::Source && trail.terminating.is_some());
        let over = |trail: &super::trail::Trail| {
            let member = Member::of(&trail.pod);
            trail.gone.is_some() && member.is_none_or(|member| self.settled(member))
        };
        sources.into_iter().all(over)
    }

    /// The instance stops and boots again: another boot id, no notice, the agent started afresh.
    async fn reboot(&self) -> Value {
        self.imds.withdraw();
        let boot = self.folder.join(SOURCE).join("boot_id");
        if let Err(error) = std::fs::write(&boot, format!("{SOURCE}-boot-2\n")) {
            self.chronicle.warn(SOURCE, format!("cannot boot: {error}"));
        }
        self.chronicle.say(SOURCE, "stops, and boots again");
        self.source.kill();
        let end = clock::now() + Span::from_secs(8);
        while clock::now() < end {
            let node = self.node();
            if node["spec"]["unschedulable"] != true && !ours(&node) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.node()
    }

    /// Whether each fault of the plan has struck; those of the store strike inside the agents, unseen.
    fn struck(&self, source: &Recording) -> Vec<(String, bool)> {
        let trails = self.trails.all();
        let of = |fault: &Fault| {
            let source = trails.iter().filter(|trail| trail.place == Place::Source);
            source.into_iter().find(|trail| Some(trail.member) == fault.object.as_deref())
        };
        let has = |fault: &Fault| match (fault.kind.target, fault.kind.outcome) {
            ("imds", outcome) => self.imds.struck(outcome),
            ("api", outcome) => self.api.struck(outcome),
            ("pdb", _) => source.effects().any(|answered| {
                matches!(answered.answer, Some((_, Outcome::Failed { kind: FailureKind::Refused, .. })))
            }),
            ("agent", _) => self.source.lives().len() > 1,
            ("agent-b", _) => self.target.lives().len() > 1,
            ("engine", "other-weights") => true,
            ("engine", _) => of(fault).is_some_and(|trail| trail.troubled),
            ("drainer", _) => self.api.audit().iter().any(|request| request.user == "drainer"),
            _ => true,
        };
        self.scene.faults.iter().map(|fault| (fault.to_string(), has(fault))).collect()
    }

    /// Ends the agents in order; the rest ends when the stage is dropped.
    pub async fn strike_set(self) -> Struck {
        let source = self.source_journal.recording();
        let struck = Struck {
            faults: self.struck(&source),
            requests: self.api.audit(),
            trails: self.trails.all(),
            source,
            target: self.target_journal.recording(),
            source_lives: self.source.lives(),
            target_lives: self.target.lives(),
            polls: self.imds.polls().len() + self.other_imds.polls().len(),
        };
        self.chronicle.say("stage", format!("{SOURCE}'s and {TARGET}'s agents are stopped"));
        tokio::join!(self.source.stop(), self.target.stop());
        struck
    }
}

/// What is left of the stage.
#[derive(Debug)]
pub struct Struck {
    /// Whether each fault has struck.
    pub faults: Vec<(String, bool)>,
    /// The audit log.
    pub requests: Vec<fakes::apiserver::audit::Request>,
    /// The trails.
    pub trails: Vec<super::trail::Trail>,
    /// The journals.
    pub source: Recording,
    /// The journals.
    pub target: Recording,
    /// The agents' lives.
    pub source_lives: Vec<super::agent::AgentLife>,
    /// The agents' lives.
    pub target_lives: Vec<super::agent::AgentLife>,
    /// Requests to both metadata services.
    pub polls: usize,
}

/// The node carries a taint or an annotation of ours.
pub fn ours(node: &Value) -> bool {
    let taints = node["spec"]["taints"].as_array();
    let tainted = taints.into_iter().flatten().any(|taint| taint["key"].as_str().is_some_and(is_ours));
    let annotations = node["metadata"]["annotations"].as_object();
    tainted || annotations.into_iter().flatten().any(|(key, _)| is_ours(key))
}

/// The key is one of lifeboat's.
pub fn is_ours(key: &str) -> bool {
    key.starts_with(evacuation::names::PREFIX)
}
