//! Pods whose containers have all ended and whose object a finalizer keeps: gone from the node, and only their name is left.
//!
//! Decides when such a pod counts as gone, and says who keeps its name. Whoever waits for a pod to leave the node waits for
//! its processes; its object may outlive the node. A pod without a finalizer is left to its kubelet, which removes the
//! object when it has cleaned up.

use super::{About, Cluster};
use crate::pods::PodRef;
use crate::pods::containers::have_ended;
use crate::pods::reader::PodRecord;
use evacuation::moment::{Moment, Span};
use evacuation::pod::PodUid;
use host::clock;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;

/// A kubelet that has not seen the deletion yet may start a container once more; until then its end is not believed. A
/// controller takes its finalizer off in this time (that of Jobs stands on each of their pods): that is no news.
const SETTLES: Span = Span::from_secs(3);
/// For the Event.
const PATIENCE: Span = Span::from_secs(5);

/// One pod that has ended.
struct EndedPod {
    pod: PodRef,
    /// A pod of a StatefulSet: its successor waits for the name.
    named: bool,
    /// Its finalizers, for people.
    finalizers: String,
    /// When it counts as gone.
    gone_at: Moment,
    /// When its owner learns who keeps the name.
    publish_at: Moment,
    gone: bool,
    published: bool,
}

/// The pods of this node that have ended and are still shown.
pub(super) struct EndedPods {
    cluster: Cluster,
    pods: BTreeMap<PodUid, EndedPod>,
}

impl EndedPods {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster, pods: BTreeMap::new() }
    }

    /// Takes in a pod as it is `now`, unless it is gone: then it stays gone, also if a list of an API server that lags behind
    /// shows it as it was.
    pub(super) fn look(&mut self, pod: &Pod, record: &PodRecord, now: Moment) {
        let uid = &record.facts.uid;
        let Some(finalizers) = finalizers(pod).filter(|_| have_ended(pod)) else {
            return drop(self.pods.remove(uid));
        };
        let settled = now + SETTLES;
        let ended = self.pods.entry(uid.clone()).or_insert_with(|| EndedPod {
            pod: PodRef::from(&record.facts),
            named: record.workload.named,
            finalizers: String::new(),
            gone_at: settled,
            publish_at: settled,
            gone: false,
            published: false,
        });
        ended.finalizers = finalizers;
        if is_released(pod) {
            ended.gone_at = now;
        }
    }

    /// It counts as gone: whatever is still shown of it is only its name.
    pub(super) fn is_gone(&self, uid: &PodUid) -> bool {
        self.pods.get(uid).is_some_and(|ended| ended.gone)
    }

    /// The object is no more.
    pub(super) fn forget(&mut self, uid: &PodUid) {
        self.pods.remove(uid);
    }

    /// All of them.
    pub(super) fn uids(&self) -> impl Iterator<Item = &PodUid> {
        self.pods.keys()
    }

    /// When [`EndedPods::due`] has something to do next.
    pub(super) fn next(&self) -> Option<Moment> {
        let due = |ended: &EndedPod| match (ended.gone, ended.published) {
            (false, _) => Some(ended.gone_at),
            (true, false) => Some(ended.publish_at),
            (true, true) => None,
        };
        self.pods.values().filter_map(due).min()
    }

    /// The pods that count as gone from now on.
    pub(super) fn due(&mut self, now: Moment) -> Vec<PodUid> {
        let mut gone = Vec::new();
        for (uid, ended) in &mut self.pods {
            if !ended.gone && now >= ended.gone_at {
                ended.gone = true;
                let pod = format!("{}/{}", ended.pod.namespace, ended.pod.name);
                tracing::info!(pod, "{}", note(ended));
                gone.push(uid.clone());
            }
            if ended.gone && !ended.published && now >= ended.publish_at {
                ended.published = true;
                tokio::spawn(publish_kept_name(
                    self.cluster.clone(),
                    ended.pod.clone(),
                    ended.named,
                    note(ended),
                ));
            }
        }
        gone
    }
}

/// News, and on its own: the watch does not wait for it. A failure has been logged.
async fn publish_kept_name(cluster: Cluster, pod: PodRef, warning: bool, note: String) {
    let deadline = clock::now() + PATIENCE;
    let _ = cluster.publish(About::Pod(&pod), "NameKept", &note, warning, deadline).await;
}

/// For the log and for the Event.
fn note(ended: &EndedPod) -> String {
    let waits = if ended.named { "; no successor is created before that is taken off" } else { "" };
    format!(
        "gone from its node: its containers have ended, and its name is kept by {}{waits}",
        ended.finalizers
    )
}

/// The finalizers of a pod, for people; `None` where nothing but its kubelet keeps it.
fn finalizers(pod: &Pod) -> Option<String> {
    let all = pod.metadata.finalizers.as_deref().unwrap_or_default();
    match all {
        [] => None,
        [one] => Some(format!("finalizer {one}")),
        more => Some(format!("finalizers {}", more.join(", "))),
    }
}

/// Its kubelet has cleaned up and deleted it with a grace of 0, as it does last; without the finalizer the object would be
/// no more.
fn is_released(pod: &Pod) -> bool {
    pod.metadata.deletion_grace_period_seconds == Some(0)
}
