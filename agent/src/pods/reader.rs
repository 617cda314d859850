//! From a Pod of the API to the little the core knows of it.

use super::workload::{Workload, controller, workload};
use crate::pods::annotations::{self, AnnotationError, Annotations, Drain, EngineSettings};
use crate::pods::conditions::{is_gated, is_true};
use crate::pods::containers::{container_status, has_finished, is_running};
use crate::pods::daemonset::{DaemonRules, tolerates_interruption};
use evacuation::moment::{Moment, Span};
use evacuation::names::RESTORED_CONDITION;
use evacuation::pod::{EngineFacts, Owner, PodFacts, PodUid, RestoreMode};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The kubelet marks what it made from a file with this (a mirror pod).
const MIRROR: &str = "kubernetes.io/config.mirror";
/// `terminationGracePeriodSeconds` where a pod does not say.
const DEFAULT_GRACE: i64 = 30;
/// A grace nobody waits for; it keeps arithmetic on hostile values sane.
const LONGEST_GRACE: i64 = 7 * 24 * 3600;
/// The hold file as every preStop that waits for it names it.
const HOLD_FILE: &str = ".lifeboat/hold";
/// The path of the same over HTTP, answered by our sidecar.
const HOLD_PATH: &str = "/lifeboat/hold";

/// One pod of this node with everything the executor needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRecord {
    /// What the core gets.
    pub facts: PodFacts,
    /// How to talk to its engine; as `facts.engine`, only where the annotations are valid.
    pub settings: Option<EngineSettings>,
    /// `status.podIP`.
    pub pod_ip: Option<IpAddr>,
    /// Its pod IP is the node's own (`hostNetwork`).
    pub host_network: bool,
    /// Its node: always this one.
    pub node: String,
    /// Its workload and lineage.
    pub workload: Workload,
    /// `imageID` of the stateful container: the digest that runs, where the runtime knows it.
    pub image_id: Option<String>,
    /// `containerID` of the stateful container: names this life of the engine.
    pub container_id: Option<String>,
    /// How often the stateful container was restarted: another number is another life of the engine.
    pub restarts: u32,
}

/// Distils pods, and remembers of each when its termination was first seen to end.
#[derive(Debug, Default)]
pub struct PodReader {
    rules: DaemonRules,
    bare_may_go: bool,
    leaving: BTreeMap<PodUid, Moment>,
}

impl PodReader {
    /// A distiller with these rules.
    pub fn new(rules: DaemonRules, bare_may_go: bool) -> Self {
        Self { rules, bare_may_go, leaving: BTreeMap::new() }
    }

    /// The pod as it is `now`, and what is wrong with its annotations. `None` for an object without
    /// uid, which no API server sends.
    pub fn distil(&mut self, pod: &Pod, now: Moment) -> Option<(PodRecord, Vec<AnnotationError>)> {
        let uid = PodUid(pod.metadata.uid.clone()?);
        let spec = pod.spec.as_ref()?;
        let said = annotations::read(pod);
        let settings = said.engine.clone();
        let named = settings.as_ref().map(|settings| settings.container.as_str());
        let container =
            named.or(spec.containers.first().map(|first| first.name.as_str())).unwrap_or_default();
        let status = container_status(pod, container);
        let facts = PodFacts {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            role: said.role,
            owner: self.owner(pod, &said),
            grace: grace(spec.termination_grace_period_seconds),
            terminating: self.terminating(pod, &uid, now),
            // Of the engine's own container: what its neighbours do says nothing of its state.
            running: is_running(pod, container),
            engine: settings.as_ref().map(|settings| EngineFacts {
                holds: spec.containers.iter().all(holds),
                evict: settings.evict,
                flush_timeout: settings.flush_timeout,
                interval: settings.interval,
                on_delete: settings.on_delete,
                // Without the gate nothing keeps requests from it.
                restore: match settings.restore {
                    RestoreMode::Gate if !is_gated(pod) => RestoreMode::Background,
                    said => said,
                },
            }),
            restore_decided: is_true(pod, RESTORED_CONDITION),
            restarts: status.and_then(|status| u32::try_from(status.restart_count).ok()).unwrap_or(0),
            uid,
        };
        let record = PodRecord {
            pod_ip: pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()?.parse().ok()),
            host_network: spec.host_network.unwrap_or(false),
            node: spec.node_name.clone().unwrap_or_default(),
            workload: workload(pod, settings.as_ref()),
            image_id: status.map(|status| status.image_id.clone()).filter(|id| !id.is_empty()),
            container_id: status.and_then(|status| status.container_id.clone()).filter(|id| !id.is_empty()),
            restarts: status.and_then(|status| u32::try_from(status.restart_count).ok()).unwrap_or(0),
            settings,
            facts,
        };
        Some((record, said.errors))
    }

    /// The pod is gone.
    pub fn forget(&mut self, uid: &PodUid) {
        self.leaving.remove(uid);
    }

    fn owner(&self, pod: &Pod, said: &Annotations) -> Owner {
        let annotated =
            |key: &str| pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(key));
        if annotated(MIRROR) {
            return Owner::Static;
        }
        if has_finished(pod) {
            return Owner::Finished;
        }
        match controller(pod) {
            None => Owner::Bare { may_go: self.bare_may_go || said.drain == Some(Drain::Yes) },
            Some(owner) => match owner.kind.as_str() {
                "DaemonSet" => Owner::Daemon {
                    drain: self.rules.drain(pod, &owner.name, said.drain),
                    tolerates_all: tolerates_interruption(pod),
                },
                "StatefulSet" => Owner::Named,
                _ => Owner::Replicated,
            },
        }
    }

    /// When the grace of a pod that is being deleted ends, counted from the first sight of it on our
    /// own clock: `deletionTimestamp` is the API server's wall clock, and this node's decides nothing.
    /// A later look never moves it back: the kubelet does not lengthen a termination either.
    fn terminating(&mut self, pod: &Pod, uid: &PodUid, now: Moment) -> Option<Moment> {
        if pod.metadata.deletion_timestamp.is_none() {
            self.leaving.remove(uid);
            return None;
        }
        let end = now + grace(pod.metadata.deletion_grace_period_seconds);
        let kept = self.leaving.entry(uid.clone()).or_insert(end);
        *kept = end.min(*kept);
        Some(*kept)
    }
}

fn grace(seconds: Option<i64>) -> Span {
    let seconds = seconds.unwrap_or(DEFAULT_GRACE).clamp(0, LONGEST_GRACE);
    Span::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Every ordinary container must wait in its preStop: the first one that ends takes its part of the
/// pod with it. Native sidecars end after the ordinary ones by themselves (KEP-753).
fn holds(container: &Container) -> bool {
    let pre_stop = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    pre_stop.is_some_and(|handler: &LifecycleHandler| {
        let command = handler.exec.iter().flat_map(|exec| exec.command.iter().flatten());
        let by_file = command.into_iter().any(|word| word.contains(HOLD_FILE));
        let path = handler.http_get.as_ref().and_then(|get| get.path.as_deref()).unwrap_or_default();
        by_file || path.split('?').next() == Some(HOLD_PATH)
    })
}

#[cfg(test)]
mod tests;
