//! What the API server shows of the cluster: gated pods, nodes with a ready agent and, with a store, the nodes.
//!
//! Nothing of a pod is kept but its name, its node and that it waits. No selector of the API server knows readiness
//! gates, so every bound pod that has not ended is watched; only the leader does so.

use crate::fleet::lost_nodes::NodeSight;
use crate::fleet::orphaned_gates::{ClusterSnapshot, GatedPod};
use crate::fleet::report_index::NodeUid;
use crate::kube::follow::follow;
use crate::kube::{AGENT_CONTAINER, AGENT_LABELS, Cluster};
use crate::pods::PodRef;
use crate::pods::conditions::{is_gated, serves};
use crate::runtime::metrics::labels::WatchedResource;
use evacuation::names::INTERRUPTION_TAINT;
use evacuation::notice::NoticeKind;
use evacuation::pod::PodUid;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc;

/// Pods that are bound to a node and have not ended.
const BOUND: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";

/// Labels that say a node's capacity, and the value for Spot: managed node groups', Karpenter's.
const SPOT: [(&str, &str); 2] =
    [("eks.amazonaws.com/capacityType", "SPOT"), ("karpenter.sh/capacity-type", "spot")];

/// Taints by which somebody says that a node is to go: Karpenter (v1, and before it), Cluster Autoscaler,
/// aws-node-termination-handler, and ours.
const LEAVING: [&str; 5] = [
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    "ToBeDeletedByClusterAutoscaler",
    "aws-node-termination-handler/",
    INTERRUPTION_TAINT,
];

/// Something that was seen.
#[derive(Debug)]
pub enum ClusterUpdate {
    /// Of any pod.
    Pod(Box<Event<Pod>>),
    /// Of an agent's pod.
    Agent(Box<Event<Pod>>),
    /// Of a node.
    Node(Box<Event<Node>>),
    /// A watch was interrupted; it begins anew by itself.
    Failed,
}

/// The selector of the agents' pods.
pub fn agent_selector() -> String {
    AGENT_LABELS.map(|(name, value)| format!("{name}={value}")).join(",")
}

/// Watches until the receiver is dropped; nodes only if they are asked for.
pub async fn watch(
    cluster: Cluster,
    namespace: String,
    with_nodes: bool,
    sights: mpsc::Sender<ClusterUpdate>,
) {
    let pods = follow(
        cluster.clone(),
        Api::<Pod>::all(cluster.client()),
        Config::default().fields(BOUND),
        WatchedResource::Pods,
        sights.clone(),
        |event| event.map_or(ClusterUpdate::Failed, |event| ClusterUpdate::Pod(Box::new(event))),
    );
    let agents = follow(
        cluster.clone(),
        Api::<Pod>::namespaced(cluster.client(), &namespace),
        Config::default().labels(&agent_selector()),
        WatchedResource::Agents,
        sights.clone(),
        |event| event.map_or(ClusterUpdate::Failed, |event| ClusterUpdate::Agent(Box::new(event))),
    );
    let nodes = async {
        if with_nodes {
            let (api, all) = (Api::<Node>::all(cluster.client()), Config::default());
            follow(cluster.clone(), api, all, WatchedResource::Nodes, sights, |event| {
                event.map_or(ClusterUpdate::Failed, |event| ClusterUpdate::Node(Box::new(event)))
            })
            .await;
        }
    };
    tokio::join!(pods, agents, nodes);
}

/// An agent that is ready, and its node. One that terminates may still be restoring: as long as it is ready it counts.
pub fn ready_agent(pod: &Pod) -> Option<&str> {
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    serves(pod, AGENT_CONTAINER).then_some(node)
}

/// A pod that waits for its gate on a node.
fn gated(pod: &Pod) -> Option<GatedPod> {
    if !is_gated(pod) || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some(GatedPod {
        pod: PodRef {
            namespace: pod.metadata.namespace.clone()?,
            name: pod.metadata.name.clone()?,
            uid: PodUid(pod.metadata.uid.clone()?),
        },
        node: pod.spec.as_ref()?.node_name.clone().filter(|node| !node.is_empty())?,
    })
}

/// A node, as far as it matters how it goes.
fn node_sight(node: &Node) -> Option<NodeSight> {
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    // A drill puts the same taint on a node that stays.
    let drill = NoticeKind::Drill.as_str();
    Some(NodeSight {
        name: node.metadata.name.clone()?,
        created: node.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        spot: SPOT.iter().any(|(label, value)| node.labels().get(*label).is_some_and(|have| have == value)),
        ready: conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        meant: node.metadata.deletion_timestamp.is_some()
            || spec.and_then(|spec| spec.unschedulable) == Some(true)
            || taints.iter().any(|taint| LEAVING.iter().any(|leaving| taint.key.starts_with(leaving))),
        noticed: taints
            .iter()
            .any(|taint| taint.key == INTERRUPTION_TAINT && taint.value.as_deref() != Some(drill)),
    })
}

/// One kind of object by uid, and what a list that is being read has shown so far.
#[derive(Debug)]
struct SeenObjects<T> {
    all: BTreeMap<String, T>,
    listed: BTreeSet<String>,
    whole: bool,
}

impl<T> Default for SeenObjects<T> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), listed: BTreeSet::new(), whole: false }
    }
}

impl<T> SeenObjects<T> {
    /// Takes one event in; what is deleted by it comes back as it was last.
    fn take<K: ResourceExt>(
        &mut self,
        event: Event<K>,
        distil: impl Fn(&K) -> Option<T>,
    ) -> Vec<(String, T)> {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                self.listed.extend(object.uid());
                self.apply(&object, distil);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                self.whole = true;
                return self.all.extract_if(.., |uid, _| !listed.contains(uid)).collect();
            }
            Event::Apply(object) => self.apply(&object, distil),
            Event::Delete(object) => {
                self.apply(&object, distil);
                return object.uid().and_then(|uid| self.all.remove_entry(&uid)).into_iter().collect();
            }
        }
        Vec::new()
    }

    fn apply<K: ResourceExt>(&mut self, object: &K, distil: impl Fn(&K) -> Option<T>) {
        let Some(uid) = object.uid() else { return };
        match distil(object) {
            Some(what) => drop(self.all.insert(uid, what)),
            None => drop(self.all.remove(&uid)),
        }
    }
}

/// What has been seen.
#[derive(Debug, Default)]
pub struct Sights {
    pods: SeenObjects<GatedPod>,
    agents: SeenObjects<String>,
    nodes: SeenObjects<NodeSight>,
    /// Nodes that were deleted, as they were last, until somebody asks.
    deleted: Vec<(NodeUid, NodeSight)>,
}

/// What is so of the nodes.
#[derive(Debug)]
pub struct Nodes<'a> {
    /// Those that are there.
    pub present: &'a BTreeMap<NodeUid, NodeSight>,
    /// Those that were deleted since the last time.
    pub deleted: Vec<(NodeUid, NodeSight)>,
    /// The names of those on which an agent is ready.
    pub agents: BTreeSet<String>,
}

impl Sights {
    /// Takes one sight in.
    pub fn take(&mut self, sight: ClusterUpdate) {
        match sight {
            ClusterUpdate::Pod(event) => drop(self.pods.take(*event, gated)),
            ClusterUpdate::Agent(event) => {
                drop(self.agents.take(*event, |pod: &Pod| ready_agent(pod).map(str::to_owned)));
            }
            ClusterUpdate::Node(event) => self.deleted.extend(self.nodes.take(*event, node_sight)),
            ClusterUpdate::Failed => {}
        }
    }

    /// What is so; `None` until both lists of pods were read to their end: an agent that was not shown yet is not missing.
    pub fn picture(&self) -> Option<ClusterSnapshot> {
        let whole = self.pods.whole && self.agents.whole;
        whole.then(|| ClusterSnapshot {
            gated: self.pods.all.iter().map(|(uid, pod)| (PodUid(uid.clone()), pod.clone())).collect(),
            agents: self.agents.all.values().cloned().collect(),
        })
    }

    /// What is so of the nodes; `None` until they and the agents were listed, and where nodes are not watched.
    pub fn nodes(&mut self) -> Option<Nodes<'_>> {
        (self.nodes.whole && self.agents.whole).then(|| Nodes {
            present: &self.nodes.all,
            deleted: std::mem::take(&mut self.deleted),
            agents: self.agents.all.values().cloned().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": { "namespace": "chat", "name": name, "uid": name },
            "spec": { "nodeName": "node-1", "containers": [],
                "readinessGates": [{ "conditionType": "other" }, { "conditionType": "lifeboat.dev/restored" }] },
            "status": { "phase": "Running" },
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    fn condition(kind: &str, status: &str) -> Value {
        json!({ "conditions": [{ "type": kind, "status": status }] })
    }

    fn agent(name: &str, ready: &str) -> Pod {
        pod(name, |pod| pod["status"] = condition("Ready", ready))
    }

    fn seen(pods: Vec<Pod>, agents: Vec<Pod>) -> Sights {
        let mut sights = Sights::default();
        let list = |all: Vec<Pod>| {
            let shown = all.into_iter().map(Event::InitApply);
            [Event::Init].into_iter().chain(shown).chain([Event::InitDone]).collect::<Vec<_>>()
        };
        for event in list(pods) {
            sights.take(ClusterUpdate::Pod(Box::new(event)));
        }
        for event in list(agents) {
            sights.take(ClusterUpdate::Agent(Box::new(event)));
        }
        sights
    }

    fn names(sights: &Sights) -> Vec<String> {
        sights.picture().unwrap().gated.into_values().map(|gated| gated.pod.name).collect()
    }

    #[test]
    fn a_bound_pod_whose_gate_is_closed_waits_and_no_other() {
        let pods = vec![
            pod("waits", |_| ()),
            pod("says-no", |pod| pod["status"] = condition("lifeboat.dev/restored", "False")),
            pod("open", |pod| pod["status"] = condition("lifeboat.dev/restored", "True")),
            pod("no-gate", |pod| pod["spec"]["readinessGates"] = json!([{ "conditionType": "other" }])),
            pod("leaves", |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")),
            pod("unbound", |pod| pod["spec"]["nodeName"] = json!("")),
        ];
        assert_eq!(names(&seen(pods, vec![])), ["says-no", "waits"]);
    }

    #[test]
    fn an_agent_counts_only_while_it_is_ready() {
        let mut sights = seen(vec![], vec![agent("a", "True"), agent("b", "False"), pod("c", |_| ())]);
        assert_eq!(sights.picture().unwrap().agents, BTreeSet::from(["node-1".to_owned()]));
        sights.take(ClusterUpdate::Agent(Box::new(Event::Apply(agent("a", "False")))));
        assert_eq!(sights.picture().unwrap().agents, BTreeSet::new());
        sights.take(ClusterUpdate::Agent(Box::new(Event::Apply(agent("b", "True")))));
        assert_eq!(sights.picture().unwrap().agents.len(), 1);
        sights.take(ClusterUpdate::Agent(Box::new(Event::Delete(agent("b", "True")))));
        assert_eq!(sights.picture().unwrap().agents, BTreeSet::new());
    }

    #[test]
    fn an_agent_counts_while_a_container_beside_it_is_down() {
        let beside_a_crash = |ready: bool| {
            pod("a", |pod| {
                pod["status"] = json!({
                    "phase": "Running",
                    "conditions": [{ "type": "Ready", "status": "False" }, { "type": "ContainersReady", "status": "False" }],
                    "containerStatuses": [{ "name": "agent", "image": "i", "imageID": "i", "ready": ready,
                        "restartCount": 0, "state": { "running": {} } }],
                });
            })
        };
        assert_eq!(ready_agent(&beside_a_crash(true)), Some("node-1"));
        assert_eq!(ready_agent(&beside_a_crash(false)), None);
    }

    #[test]
    fn until_both_lists_were_read_nothing_is_known() {
        let mut sights = Sights::default();
        for event in [Event::Init, Event::InitApply(pod("a", |_| ())), Event::InitDone] {
            sights.take(ClusterUpdate::Pod(Box::new(event)));
        }
        assert_eq!(sights.picture(), None);
        sights.take(ClusterUpdate::Agent(Box::new(Event::Init)));
        assert_eq!(sights.picture(), None);
        sights.take(ClusterUpdate::Agent(Box::new(Event::InitDone)));
        assert_eq!(names(&sights), ["a"]);
    }

    #[test]
    fn what_a_new_list_does_not_show_is_gone_and_until_its_end_it_is_not() {
        let mut sights = seen(vec![pod("a", |_| ()), pod("b", |_| ())], vec![agent("x", "True")]);
        sights.take(ClusterUpdate::Failed);
        sights.take(ClusterUpdate::Pod(Box::new(Event::Init)));
        sights.take(ClusterUpdate::Pod(Box::new(Event::InitApply(pod("b", |_| ())))));
        assert_eq!(names(&sights), ["a", "b"]);
        sights.take(ClusterUpdate::Pod(Box::new(Event::InitDone)));
        assert_eq!(names(&sights), ["b"]);
    }

    fn node(change: impl FnOnce(&mut Value)) -> NodeSight {
        let mut node = json!({
            "metadata": { "name": "node-1", "uid": "uid-1", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "karpenter.sh/capacity-type": "spot" } },
            "spec": {},
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        change(&mut node);
        node_sight(&serde_json::from_value(node).unwrap()).unwrap()
    }

    #[test]
    fn spot_is_what_either_label_says() {
        assert!(node(|_| ()).spot);
        let labelled =
            |label: &str, value: &str| node(|node| node["metadata"]["labels"] = json!({ label: value })).spot;
        assert!(labelled("eks.amazonaws.com/capacityType", "SPOT"));
        assert!(!labelled("eks.amazonaws.com/capacityType", "ON_DEMAND"));
        assert!(!labelled("karpenter.sh/capacity-type", "on-demand"));
    }

    #[test]
    fn a_node_is_meant_to_go_if_anybody_says_so_and_noticed_if_its_agent_does() {
        let tainted = |key: &str, value: &str| {
            let sight = node(|node| {
                node["spec"]["taints"] = json!([{ "key": key, "value": value, "effect": "NoSchedule" }])
            });
            (sight.meant, sight.noticed)
        };
        assert_eq!(tainted("example.com/inference", ""), (false, false));
        assert_eq!(tainted("node.kubernetes.io/unreachable", ""), (false, false));
        for key in [
            "karpenter.sh/disrupted",
            "ToBeDeletedByClusterAutoscaler",
            "aws-node-termination-handler/spot-itn",
        ] {
            assert_eq!(tainted(key, ""), (true, false), "{key}");
        }
        assert_eq!(tainted("lifeboat.dev/interruption", "terminate"), (true, true));
        assert_eq!(tainted("lifeboat.dev/interruption", "drill"), (true, false));
        assert!(node(|node| node["spec"]["unschedulable"] = json!(true)).meant);
        assert!(node(|node| node["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")).meant);
        assert!(!node(|_| ()).meant);
    }

    #[test]
    fn a_node_that_is_deleted_is_shown_once_as_it_was_last() {
        let object = |ready: &str| -> Node {
            serde_json::from_value(json!({
                "metadata": { "name": "node-1", "uid": "uid-1" },
                "status": condition("Ready", ready),
            }))
            .unwrap()
        };
        let mut sights = seen(vec![], vec![]);
        assert!(sights.nodes().is_none(), "nodes were not listed");
        for event in [Event::Init, Event::InitApply(object("True")), Event::InitDone] {
            sights.take(ClusterUpdate::Node(Box::new(event)));
        }
        assert_eq!(sights.nodes().unwrap().present.len(), 1);
        sights.take(ClusterUpdate::Node(Box::new(Event::Delete(object("Unknown")))));
        let nodes = sights.nodes().unwrap();
        assert!(nodes.present.is_empty());
        assert_eq!(nodes.deleted.len(), 1);
        assert!(!nodes.deleted[0].1.ready, "its last word is lost");
        assert!(sights.nodes().unwrap().deleted.is_empty());

        // Gone while the watch was interrupted.
        sights.take(ClusterUpdate::Node(Box::new(Event::Apply(object("True")))));
        sights.take(ClusterUpdate::Node(Box::new(Event::Init)));
        sights.take(ClusterUpdate::Node(Box::new(Event::InitDone)));
        assert_eq!(sights.nodes().unwrap().deleted.len(), 1);
    }
}
