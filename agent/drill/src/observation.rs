//! Everything that was observed of one drill: what the verdict is a function of.

use super::agent::AgentLife;
use super::cast::{CAST, Member};
use super::inventory::Inventory;
use super::recording::Recording;
use super::scene::Scene;
use super::trail::Trail;
use crate::cast::Place;

use evacuation::effect::{Action, FlushKind, NodeAction, PodAction};
use evacuation::event::{Done, Outcome};
use evacuation::moment::{Moment, Span};
use evacuation::report::{PodReport, Report};
use fakes::apiserver::audit::Request;
use serde_json::Value;

/// The name of the leaving node.
pub const SOURCE: &str = "node-a";

/// The name of the other one.
pub const TARGET: &str = "node-b";

/// The API server's name for a node's agent.
pub fn agent_user(node: &str) -> String {
    format!("agent-{node}")
}

/// What was observed.
#[derive(Clone, Debug)]
pub struct Observation {
    /// What was played.
    pub scene: Scene,
    /// Whether each fault of the plan has struck.
    pub struck: Vec<(String, bool)>,
    /// When IMDS first showed the notice (or the recommendation, where only that came).
    pub shown: Moment,
    /// The time in the notice, on this clock: nothing counts after it.
    pub times_up: Moment,
    /// When the drill ended.
    pub ended: Moment,
    /// Every request to the API server.
    pub requests: Vec<Request>,
    /// The leaving node's journal.
    pub source: Recording,
    /// The other node's journal.
    pub target: Recording,
    /// The lives of the leaving node's agent.
    pub source_lives: Vec<AgentLife>,
    /// The lives of the other node's agent.
    pub target_lives: Vec<AgentLife>,
    /// Every pod's trail.
    pub trails: Vec<Trail>,
    /// What is in the store.
    pub store: Inventory,
    /// The leaving node's object at the end.
    pub node: Value,
    /// The same after the reboot, where there was one.
    pub rebooted: Option<Value>,
}

impl Observation {
    /// The trail of a member's pod on the leaving node.
    pub fn leaving(&self, member: &Member) -> Option<&Trail> {
        self.trails.iter().find(|trail| trail.member == member.name && trail.place == Place::Source)
    }

    /// The trail of the pod that took its place.
    pub fn replacement(&self, member: &Member) -> Option<&Trail> {
        self.trails.iter().find(|trail| trail.member == member.name && trail.place == Place::Replacement)
    }

    /// Members that are to leave, with their trails, highest priority first.
    pub fn departures(&self) -> impl Iterator<Item = (&'static Member, &Trail)> {
        CAST.iter()
            .filter(|member| member.leaves())
            .filter_map(|member| Some((member, self.leaving(member)?)))
    }

    /// Requests of the leaving node's agent.
    pub fn by_source(&self) -> impl Iterator<Item = &Request> {
        let user = agent_user(SOURCE);
        self.requests.iter().filter(move |request| request.user == user)
    }

    /// Evictions and deletions of pods by the leaving node's agent.
    pub fn removals(&self) -> impl Iterator<Item = &Request> {
        self.by_source()
            .filter(|request| request.resource == "pods" && ["evict", "delete"].contains(&request.verb))
    }

    /// Removals of one pod.
    pub fn removals_of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Request> {
        self.removals().filter(move |request| request.uid.as_deref() == Some(uid))
    }

    /// Patches by which the leaving node's agent marks its node, granted or not.
    pub fn marks(&self) -> impl Iterator<Item = &Request> {
        self.by_source().filter(|request| request.resource == "nodes" && request.verb == "patch")
    }

    /// The cordon: the first granted patch that makes the node unschedulable.
    pub fn cordon(&self) -> Option<&Request> {
        self.marks().find(|request| request.granted() && request.body["spec"]["unschedulable"] == true)
    }

    /// The last report in the leaving node's journal whose writing was answered; else the last one begun.
    pub fn report(&self) -> Option<(&Report, Option<Moment>)> {
        let mut written = None;
        let mut begun = None;
        for answered in self.source.effects() {
            if let Action::Node(NodeAction::WriteReport(report)) = &answered.effect.action {
                match answered.done() {
                    Some(at) => written = Some((report.as_ref(), Some(at))),
                    None => begun = Some((report.as_ref(), None)),
                }
            }
        }
        written.or(begun)
    }

    /// What the report says of a pod.
    pub fn reported(&self, uid: &str) -> Option<&PodReport> {
        self.report()?.0.pods.iter().find(|pod| pod.uid == uid)
    }

    /// When this pod's state was known to be committed by a final round, if it was: by the commit's answer, or where the
    /// agent was killed before it came, by the store's word to the next life that the intent was kept.
    pub fn committed(&self, uid: &str) -> Option<Moment> {
        let known = self.source.of_pod(uid).filter_map(|answered| {
            let Action::Pod { action, .. } = &answered.effect.action else { return None };
            match (action, answered.answer?) {
                (PodAction::Commit { kind: FlushKind::Final, .. }, (at, Outcome::Done(_)))
                | (
                    PodAction::WriteIntent { .. },
                    (at, Outcome::Done(Done::IntentWritten { committed: Some(_), .. })),
                ) => Some(at),
                _ => None,
            }
        });
        known.min()
    }

    /// The agents' deadline: the time in the notice less the margin, and a second because IMDS has whole ones.
    pub fn deadline(&self) -> Moment {
        self.times_up - super::scene::MARGIN + Span::from_secs(1)
    }
}
