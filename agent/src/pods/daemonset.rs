//! Which DaemonSets' pods leave, and when.

use crate::pods::annotations::Drain;
use evacuation::names::INTERRUPTION_TAINT;
use evacuation::pod::DaemonDrain;
use k8s_openapi::api::core::v1::{Pod, Toleration};

/// Log shippers: they are worth having until the last seconds, and lose what they have buffered if
/// nobody stops them in time.
const LOG_SHIPPERS: [&str; 12] = [
    "alloy",
    "datadog",
    "datadog-agent",
    "filebeat",
    "fluent-bit",
    "fluentbit",
    "fluentd",
    "grafana-agent",
    "logstash",
    "promtail",
    "splunk-otel-collector",
    "vector",
];

/// The value of the PriorityClass `system-node-critical`, which no other class may reach.
const NODE_CRITICAL: i32 = 2_000_001_000;

/// What decides for a DaemonSet's pod that says nothing itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonRules {
    /// Names of DaemonSets, or of their images' repositories, that leave late. A name matches whole
    /// words: `vector` matches `my-vector` and `timberio/vector`, not `pgvector`.
    pub late: Vec<String>,
}

impl Default for DaemonRules {
    fn default() -> Self {
        Self { late: LOG_SHIPPERS.map(str::to_owned).to_vec() }
    }
}

impl DaemonRules {
    /// When a pod of the DaemonSet `name` leaves.
    pub(super) fn drain(&self, pod: &Pod, name: &str, said: Option<Drain>) -> DaemonDrain {
        // CNI, CSI, device plugins, identity agents and this agent run as system-node-critical: without
        // them no other pod can end well, so not even an annotation makes them leave.
        if is_node_critical(pod) {
            return DaemonDrain::Stay;
        }
        match said {
            Some(drain) => drain.for_daemon(),
            None if self.is_late(pod, name) => DaemonDrain::Late,
            None => DaemonDrain::Stay,
        }
    }

    fn is_late(&self, pod: &Pod, name: &str) -> bool {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let images = containers.filter_map(|container| container.image.as_deref()).map(repository);
        std::iter::once(name).chain(images).any(|text| self.late.iter().any(|word| has_word(text, word)))
    }
}

/// The pod tolerates our hard taint, so its DaemonSet would bring it straight back.
pub(super) fn tolerates_interruption(pod: &Pod) -> bool {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    tolerations.iter().any(|toleration: &Toleration| {
        let exists = toleration.operator.as_deref() == Some("Exists");
        // An empty key with Exists matches every taint; an empty effect matches every effect.
        let key = match toleration.key.as_deref() {
            None | Some("") => exists,
            Some(key) => key == INTERRUPTION_TAINT,
        };
        let effect = matches!(toleration.effect.as_deref(), None | Some("" | "NoSchedule"));
        key && effect
    })
}

fn is_node_critical(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.priority_class_name.as_deref() == Some("system-node-critical")
        || spec.priority.is_some_and(|priority| priority >= NODE_CRITICAL)
}

/// `registry:5000/team/vector:1.2@sha256:…` is `team/vector`.
fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let (registry, path) = image.split_once('/').unwrap_or(("", image));
    let is_registry = registry.contains(['.', ':']) || registry == "localhost";
    let path = if is_registry || registry.is_empty() { path } else { image };
    path.split(':').next().unwrap_or(path)
}

/// `word` stands in `text` between characters that are neither letters nor digits.
fn has_word(text: &str, word: &str) -> bool {
    !word.is_empty()
        && text.match_indices(word).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let after = text[at + word.len()..].chars().next();
            [before, after].into_iter().flatten().all(|c| !c.is_ascii_alphanumeric())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_whole_words_only() {
        assert!(has_word("my-vector", "vector"));
        assert!(has_word("timberio/vector", "vector"));
        assert!(!has_word("pgvector", "vector"));
        assert!(!has_word("vectors", "vector"));
    }

    #[test]
    fn an_image_is_known_by_its_repository() {
        assert_eq!(repository("registry.local:5000/team/vector:1.2@sha256:ab"), "team/vector");
        assert_eq!(repository("datadog/agent:7"), "datadog/agent");
        assert_eq!(repository("fluentd"), "fluentd");
    }
}
