//! What the API server shows of the cluster: gated pods, and nodes with a ready agent.
//!
//! Nothing of a pod is kept but its name, its node and that it waits. No selector of the API server knows readiness
//! gates, so every bound pod that has not ended is watched; only the leader does so.

use super::orphans::{GatedPod, Picture};
use crate::cluster::follow::follow;
use crate::cluster::{AGENT_LABELS, Cluster, PodRef, is_gated, is_true};
use evacuation::pod::PodUid;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{Config, Event};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc;

/// Pods that are bound to a node and have not ended.
const BOUND: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";

/// Something that was seen.
#[derive(Debug)]
pub enum Sight {
    /// Of any pod.
    Pod(Box<Event<Pod>>),
    /// Of an agent's pod.
    Agent(Box<Event<Pod>>),
    /// A watch was interrupted; it begins anew by itself.
    Failed,
}

/// The selector of the agents' pods.
pub fn agent_selector() -> String {
    AGENT_LABELS.map(|(name, value)| format!("{name}={value}")).join(",")
}

/// Watches until the receiver is dropped.
pub async fn watch(cluster: Cluster, namespace: String, sights: mpsc::Sender<Sight>) {
    let pods = follow(
        cluster.clone(),
        Api::<Pod>::all(cluster.client()),
        Config::default().fields(BOUND),
        "pods",
        sights.clone(),
        |event| event.map_or(Sight::Failed, |event| Sight::Pod(Box::new(event))),
    );
    let agents = follow(
        cluster.clone(),
        Api::<Pod>::namespaced(cluster.client(), &namespace),
        Config::default().labels(&agent_selector()),
        "agents",
        sights,
        |event| event.map_or(Sight::Failed, |event| Sight::Agent(Box::new(event))),
    );
    tokio::join!(pods, agents);
}

/// An agent that is ready, and its node. One that terminates may still be restoring: as long as it is ready it counts.
pub fn ready_agent(pod: &Pod) -> Option<&str> {
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    is_true(pod, "Ready").then_some(node)
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

/// One kind of object by uid, and what a list that is being read has shown so far.
#[derive(Debug)]
struct Seen<T> {
    all: BTreeMap<PodUid, T>,
    listed: BTreeSet<PodUid>,
    whole: bool,
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), listed: BTreeSet::new(), whole: false }
    }
}

impl<T> Seen<T> {
    fn take(&mut self, event: Event<Pod>, distil: impl Fn(&Pod) -> Option<T>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(pod) => {
                if let Some(uid) = &pod.metadata.uid {
                    self.listed.insert(PodUid(uid.clone()));
                }
                self.apply(&pod, distil);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                self.all.retain(|uid, _| listed.contains(uid));
                self.whole = true;
            }
            Event::Apply(pod) => self.apply(&pod, distil),
            Event::Delete(pod) => {
                if let Some(uid) = pod.metadata.uid {
                    self.all.remove(&PodUid(uid));
                }
            }
        }
    }

    fn apply(&mut self, pod: &Pod, distil: impl Fn(&Pod) -> Option<T>) {
        let Some(uid) = pod.metadata.uid.clone().map(PodUid) else { return };
        match distil(pod) {
            Some(what) => drop(self.all.insert(uid, what)),
            None => drop(self.all.remove(&uid)),
        }
    }
}

/// What has been seen.
#[derive(Debug, Default)]
pub struct Sights {
    pods: Seen<GatedPod>,
    agents: Seen<String>,
}

impl Sights {
    /// Takes one sight in.
    pub fn take(&mut self, sight: Sight) {
        match sight {
            Sight::Pod(event) => self.pods.take(*event, gated),
            Sight::Agent(event) => self.agents.take(*event, |pod| ready_agent(pod).map(str::to_owned)),
            Sight::Failed => {}
        }
    }

    /// What is so; `None` until both lists were read to their end: an agent that was not shown yet is not missing.
    pub fn picture(&self) -> Option<Picture> {
        let whole = self.pods.whole && self.agents.whole;
        whole.then(|| Picture {
            gated: self.pods.all.clone(),
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
            sights.take(Sight::Pod(Box::new(event)));
        }
        for event in list(agents) {
            sights.take(Sight::Agent(Box::new(event)));
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
        sights.take(Sight::Agent(Box::new(Event::Apply(agent("a", "False")))));
        assert_eq!(sights.picture().unwrap().agents, BTreeSet::new());
        sights.take(Sight::Agent(Box::new(Event::Apply(agent("b", "True")))));
        assert_eq!(sights.picture().unwrap().agents.len(), 1);
        sights.take(Sight::Agent(Box::new(Event::Delete(agent("b", "True")))));
        assert_eq!(sights.picture().unwrap().agents, BTreeSet::new());
    }

    #[test]
    fn until_both_lists_were_read_nothing_is_known() {
        let mut sights = Sights::default();
        for event in [Event::Init, Event::InitApply(pod("a", |_| ())), Event::InitDone] {
            sights.take(Sight::Pod(Box::new(event)));
        }
        assert_eq!(sights.picture(), None);
        sights.take(Sight::Agent(Box::new(Event::Init)));
        assert_eq!(sights.picture(), None);
        sights.take(Sight::Agent(Box::new(Event::InitDone)));
        assert_eq!(names(&sights), ["a"]);
    }

    #[test]
    fn what_a_new_list_does_not_show_is_gone_and_until_its_end_it_is_not() {
        let mut sights = seen(vec![pod("a", |_| ()), pod("b", |_| ())], vec![agent("x", "True")]);
        sights.take(Sight::Failed);
        sights.take(Sight::Pod(Box::new(Event::Init)));
        sights.take(Sight::Pod(Box::new(Event::InitApply(pod("b", |_| ())))));
        assert_eq!(names(&sights), ["a", "b"]);
        sights.take(Sight::Pod(Box::new(Event::InitDone)));
        assert_eq!(names(&sights), ["b"]);
    }
}
