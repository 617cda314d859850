//! Kubernetes Events: what people see in `kubectl describe`.

use super::call::{Call, is_name};
use super::{Cluster, ClusterError};
use crate::pods::PodRef;
use evacuation::moment::Moment;
use serde_json::{Value, json};

/// Longest note: the API server refuses more than 1024 bytes.
const NOTE: usize = 1024;

/// What an Event is about.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    /// The own node.
    Node,
    /// One of its pods.
    Pod(&'a PodRef),
}

impl Cluster {
    /// Writes a Kubernetes Event. It is news, not work: a failure is for the log only.
    ///
    /// # Errors
    /// As the API server answers; a namespace that is being deleted takes no Events.
    pub async fn publish(
        &self,
        about: About<'_>,
        reason: &str,
        note: &str,
        warning: bool,
        deadline: Moment,
    ) -> Result<(), ClusterError> {
        // Events of a node live in `default`, as the kubelet's do, and carry its name as uid.
        let (namespace, stem, involved) = match about {
            About::Node => {
                let node = &self.options.node;
                let object = json!({ "apiVersion": "v1", "kind": "Node", "name": node, "uid": node });
                ("default", node, object)
            }
            About::Pod(pod) => {
                let object = json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "namespace": pod.namespace, "name": pod.name, "uid": pod.uid.0,
                });
                (pod.namespace.as_str(), &pod.name, object)
            }
        };
        if !is_name(namespace) {
            return Err(ClusterError::Name { name: namespace.to_owned() });
        }
        let stem: String = stem.chars().take(200).collect();
        let now = wall_clock();
        let body = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "namespace": namespace, "name": format!("{stem}.{:016x}", fastrand::u64(..)) },
            "involvedObject": involved,
            "reason": reason,
            "message": shortened(note),
            "type": if warning { "Warning" } else { "Normal" },
            "source": { "component": "lifeboat", "host": self.options.node },
            "reportingComponent": "lifeboat",
            "reportingInstance": self.options.instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        let call =
            Call::create(format!("/api/v1/namespaces/{namespace}/events"), format!("event {reason}"), body);
        let written = self.send::<Value>(call, deadline).await.map(|_| ());
        if let Err(error) = &written {
            tracing::debug!(error = error as &dyn std::error::Error, reason, "event was not written");
        }
        written
    }
}

/// The node's wall clock in whole seconds, for people.
pub(super) fn wall_clock() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn shortened(note: &str) -> &str {
    let mut end = note.len().min(NOTE);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    &note[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let long = "ö".repeat(600) + "x";
        assert!(shortened(&long).len() <= NOTE);
        assert_eq!(shortened("short"), "short");
    }
}
