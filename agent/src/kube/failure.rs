//! What can go wrong with the API server, and which way of failing each is.

use evacuation::event::FailureKind;
use kube::core::Status;
use std::path::PathBuf;

/// A request, or the way to the API server, failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nobody can be asked there.
    #[error("no agent runs on node {node}: kubectl -n lifeboat-system get pods -o wide shows where they are")]
    NoAgent {
        /// The node.
        node: String,
    },
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {} cannot be used: fix the file, or name another with --kubeconfig", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<kube::config::KubeconfigError>,
    },
    /// There is no service account to use.
    #[error(
        "no service account in this pod (set automountServiceAccountToken, or outside a cluster name a file with --kubeconfig)"
    )]
    InCluster {
        /// What is missing.
        source: kube::config::InClusterError,
    },
    /// There is neither a kubeconfig nor a service account.
    #[error("no cluster is known here: name a kubeconfig with --kubeconfig or KUBECONFIG")]
    Infer {
        /// What was tried.
        source: Box<kube::config::InferConfigError>,
    },
    /// No client can be made of the configuration.
    #[error(
        "the API server's address or certificates cannot be used: check server, certificate-authority and user in the kubeconfig"
    )]
    Client {
        /// What is wrong.
        source: Box<kube::Error>,
    },
    /// The node's name is none.
    #[error(
        "the node's name {name:?} is not one: set --node-name or NODE_NAME to spec.nodeName of the agent's pod"
    )]
    NodeName {
        /// What was given.
        name: String,
    },
    /// A name from outside cannot stand in a path.
    #[error("{name:?} is no name of a Kubernetes object")]
    Name {
        /// The name.
        name: String,
    },
    /// The request could not be put together.
    #[error("the request to {verb} {what} could not be built")]
    Request {
        /// The verb.
        verb: &'static str,
        /// The object.
        what: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The API server said no.
    #[error("the API server refused to {verb} {what}: {} ({} {})", status.message, status.code, status.reason)]
    Answered {
        /// The verb.
        verb: &'static str,
        /// The object.
        what: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// The deadline came first.
    #[error("the API server did not answer to {verb} {what} in time")]
    TimedOut {
        /// The verb.
        verb: &'static str,
        /// The object.
        what: String,
    },
    /// The API server could not be reached.
    #[error("the API server could not be reached to {verb} {what}")]
    Unreachable {
        /// The verb.
        verb: &'static str,
        /// The object.
        what: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// Its answer is not what it should be; most often a proxy's page.
    #[error("the answer to {verb} {what} is not the API server's: is there a proxy in between?")]
    Malformed {
        /// The verb.
        verb: &'static str,
        /// The object.
        what: String,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
}

impl ClusterError {
    /// The way of failing, from which the core decides.
    pub fn failure_kind(&self) -> FailureKind {
        match self {
            ClusterError::Answered { status, .. } => answered(status),
            ClusterError::TimedOut { .. }
            | ClusterError::Unreachable { .. }
            | ClusterError::Malformed { .. } => FailureKind::Transient,
            ClusterError::Kubeconfig { .. }
            | ClusterError::InCluster { .. }
            | ClusterError::Infer { .. }
            | ClusterError::Client { .. }
            | ClusterError::NodeName { .. }
            | ClusterError::NoAgent { .. }
            | ClusterError::Name { .. }
            | ClusterError::Request { .. } => FailureKind::Permanent,
        }
    }

    /// The deadline came first: the executor answers `TimedOut`.
    pub const fn is_timeout(&self) -> bool {
        matches!(self, ClusterError::TimedOut { .. })
    }

    /// Somebody changed the object in between (409 for its resourceVersion).
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, ClusterError::Answered { status, .. } if status.code == 409 && !names_uid(status))
    }

    /// There is no such object.
    pub(crate) fn is_not_found(&self) -> bool {
        self.failure_kind() == FailureKind::NotFound
    }
}

/// An error answer of the API server.
fn answered(status: &Status) -> FailureKind {
    match status.code {
        404 => FailureKind::NotFound,
        // The precondition names the uid of the pod we mean, and another pod bears its name by now:
        // ours is gone.
        409 | 422 if names_uid(status) => FailureKind::NotFound,
        409 => FailureKind::Transient,
        // Both a budget's refusal and API Priority and Fairness answer 429; only the first says so in
        // its causes (kubernetes/kubernetes#106286).
        429 if budget_refused(status) => FailureKind::Refused,
        429 => FailureKind::Throttled,
        // The eviction subresource answers 500 for a pod that two budgets select. It will go on doing
        // so, but the pod is to be treated as one that its budgets hold.
        500 if status.message.contains("more than one PodDisruptionBudget") => FailureKind::Refused,
        408 | 410 => FailureKind::Transient,
        400..=499 => FailureKind::Permanent,
        _ => FailureKind::Transient,
    }
}

fn budget_refused(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "DisruptionBudget")
}

/// "the UID in the precondition (…) does not match the UID in record" of a DELETE or an eviction,
/// "Precondition failed: UID in precondition: …" of a PATCH, "metadata.uid: … field is immutable" of
/// a PATCH that is validated first.
fn names_uid(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.message.contains("UID in precondition")
        || status.message.contains("UID in the precondition")
        || status.message.contains("uid mismatch")
        || status.message.contains("metadata.uid")
        || causes.into_iter().any(|cause| cause.field == "metadata.uid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind(status: serde_json::Value) -> FailureKind {
        let status: Status = serde_json::from_value(status).expect("a status");
        ClusterError::Answered { verb: "create", what: "eviction".into(), status: Box::new(status) }
            .failure_kind()
    }

    #[test]
    fn a_budgets_refusal_is_not_throttling() {
        let refused = json!({"code": 429, "reason": "TooManyRequests",
            "message": "Cannot evict pod as it would violate the pod's disruption budget.",
            "details": {"causes": [{"reason": "DisruptionBudget", "message": "The disruption budget x needs 2 healthy pods"}]}});
        assert_eq!(kind(refused), FailureKind::Refused);
        let throttled = json!({"code": 429, "reason": "TooManyRequests",
            "message": "The server has received too many requests", "details": {"retryAfterSeconds": 1}});
        assert_eq!(kind(throttled), FailureKind::Throttled);
    }

    #[test]
    fn a_pod_of_two_budgets_is_refused_and_other_500s_are_transient() {
        let two = json!({"code": 500, "reason": "InternalError", "message":
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."});
        assert_eq!(kind(two), FailureKind::Refused);
        assert_eq!(
            kind(json!({"code": 500, "message": "etcdserver: leader changed"})),
            FailureKind::Transient
        );
    }

    #[test]
    fn another_pod_of_the_same_name_means_that_ours_is_gone() {
        for message in [
            "Operation cannot be fulfilled on pods \"a\": the UID in the precondition (x) does not match the UID in record (y). The object might have been deleted and then recreated",
            "Operation cannot be fulfilled on pods \"a\": Precondition failed: UID in precondition: x, UID in object meta: y",
        ] {
            assert_eq!(
                kind(json!({"code": 409, "reason": "Conflict", "message": message})),
                FailureKind::NotFound
            );
        }
        let immutable = json!({"code": 422, "reason": "Invalid", "message": "Pod \"a\" is invalid",
            "details": {"causes": [{"reason": "FieldValueInvalid", "field": "metadata.uid"}]}});
        assert_eq!(kind(immutable), FailureKind::NotFound);
    }

    #[test]
    fn a_lost_race_is_transient() {
        let status = json!({"code": 409, "reason": "Conflict", "message":
            "Operation cannot be fulfilled on nodes \"n\": the object has been modified; please apply your changes to the latest version and try again"});
        assert_eq!(kind(status), FailureKind::Transient);
    }

    #[test]
    fn what_will_not_work_the_next_time_is_permanent() {
        for code in [400, 401, 403, 405, 415, 422] {
            assert_eq!(kind(json!({"code": code, "message": "no"})), FailureKind::Permanent, "{code}");
        }
        assert_eq!(kind(json!({"code": 404, "message": "not found"})), FailureKind::NotFound);
        for code in [408, 410, 502, 503, 504] {
            assert_eq!(kind(json!({"code": code, "message": "later"})), FailureKind::Transient, "{code}");
        }
    }
}
