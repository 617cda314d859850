//! Kubernetes Events: what people see in `kubectl describe`.

use super::call::{Call, is_name};
use super::{Cluster, ClusterError};
use crate::pods::PodRef;
use evacuation::moment::Moment;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::Value;

/// Longest note: the API server refuses more than 1024 bytes.
const NOTE: usize = 1024;

/// What an Event is about.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    /// The own node.
    Node,
    /// One of its pods.
    Pod(&'a PodRef),
    /// The pod of this agent on the node where it runs, if that is another: a policy compares the Event's host with the
    /// node of the agent's own token.
    OwnPod(&'a PodRef, &'a str),
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
        let event = self.event(about, reason, note, warning);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        if !is_name(&namespace) {
            return Err(ClusterError::Name { name: namespace });
        }
        let path = format!("/api/v1/namespaces/{namespace}/events");
        let call = Call::create(path, format!("event {reason}"), event);
        let written = self.send::<Value>(call, deadline).await.map(|_| ());
        if let Err(error) = &written {
            tracing::debug!(error = error as &dyn std::error::Error, reason, "event was not written");
        }
        written
    }

    fn event(&self, about: About<'_>, reason: &str, note: &str, warning: bool) -> Event {
        let node = &self.options.node;
        let now = Some(Time(Timestamp::now()));
        // Events of a node live in `default`, as the kubelet's do, and carry its name as uid.
        let (kind, namespace, name, uid) = match about {
            About::Node => ("Node", None, node, node),
            About::Pod(pod) | About::OwnPod(pod, _) => {
                ("Pod", Some(pod.namespace.clone()), &pod.name, &pod.uid.0)
            }
        };
        let host = if let About::OwnPod(_, host) = about { host } else { node.as_str() };
        let stem: String = name.chars().take(200).collect();
        Event {
            metadata: ObjectMeta {
                namespace: Some(namespace.clone().unwrap_or_else(|| "default".to_owned())),
                name: Some(format!("{stem}.{:016x}", fastrand::u64(..))),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some(kind.to_owned()),
                namespace,
                name: Some(name.clone()),
                uid: Some(uid.clone()),
                ..ObjectReference::default()
            },
            reason: Some(reason.to_owned()),
            message: Some(shortened(note).to_owned()),
            type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
            source: Some(EventSource { component: Some("lifeboat".to_owned()), host: Some(host.to_owned()) }),
            reporting_component: Some("lifeboat".to_owned()),
            reporting_instance: Some(self.options.instance.clone()),
            first_timestamp: now.clone(),
            last_timestamp: now,
            count: Some(1),
            ..Event::default()
        }
    }
}

/// The node's wall clock in whole seconds, for people.
pub(super) fn wall_clock() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
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
