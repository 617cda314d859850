//! A drill that somebody asks a node's agent for: an annotation of the node, so that whoever may ask is whoever may
//! patch that node, by the API server's own rules.
//!
//! The agent takes the annotation away before it begins. What was asked for once happens at most once, whatever is
//! restarted meanwhile.

use super::call::{Call, PatchType, node_path};
use super::{Cluster, ClusterError};
use crate::runtime::drill_scope::DrillScope;
use evacuation::moment::{Moment, Span};
use evacuation::names::DRILL_ANNOTATION;
use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A drill that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrillRequest {
    /// Unlike any other; it becomes the notice's id.
    pub id: String,
    /// How much of it.
    pub extent: DrillScope,
    /// The notice's time left, milliseconds.
    pub left_ms: u64,
}

impl DrillRequest {
    /// Reads what somebody wrote.
    ///
    /// # Errors
    /// One line that names the annotation and the fix.
    pub fn read(text: &str) -> Result<Self, String> {
        let example = r#"{"id":"drill-1","extent":"save","leftMs":60000}"#;
        let fix = format!("use lifeboat drill --node, or write {example}");
        let asked: Self =
            serde_json::from_str(text).map_err(|error| format!("{DRILL_ANNOTATION}: {error}; {fix}"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if asked.id.is_empty() || asked.id.len() > 63 || !asked.id.chars().all(plain) {
            let shown: String = asked.id.chars().take(63).collect();
            return Err(format!("{DRILL_ANNOTATION}: id {shown:?} is no name; {fix}"));
        }
        if !(10_000..=600_000).contains(&asked.left_ms) {
            let left = asked.left_ms;
            return Err(format!("{DRILL_ANNOTATION}: leftMs {left} is not between 10000 and 600000; {fix}"));
        }
        Ok(asked)
    }

    /// The time left.
    pub const fn left(&self) -> Span {
        Span::from_millis(self.left_ms)
    }
}

impl Cluster {
    /// Takes the request off the own node. False if it was not there any more: somebody thought better of it.
    ///
    /// # Errors
    /// As the API server answers; nothing was taken then.
    pub async fn take_rehearsal(&self, asked: &str, deadline: Moment) -> Result<bool, ClusterError> {
        let taken = std::sync::atomic::AtomicBool::new(false);
        self.change_node(deadline, |node| {
            let there = raw(node) == Some(asked);
            taken.store(there, std::sync::atomic::Ordering::Relaxed);
            there.then(|| {
                json!({ "metadata": {
                    "resourceVersion": node.metadata.resource_version,
                    "annotations": { DRILL_ANNOTATION: Value::Null },
                } })
            })
        })
        .await?;
        Ok(taken.into_inner())
    }

    /// Asks the agent of the node for a drill; `None` takes that back.
    ///
    /// # Errors
    /// As the API server answers: 403 names the right that is missing (patch nodes).
    pub async fn ask_rehearsal(
        &self,
        asked: Option<&DrillRequest>,
        deadline: Moment,
    ) -> Result<(), ClusterError> {
        let node = self.node_name();
        let text = asked.map(|asked| serde_json::to_string(asked).unwrap_or_default());
        let body = json!({ "metadata": { "annotations": { DRILL_ANNOTATION: text } } });
        let call = Call::patch(node_path(node)?, format!("node {node}"), PatchType::Merge, body);
        self.send::<Node>(call, deadline).await.map(|_| ())
    }
}

/// What is asked of a node.
pub(crate) fn raw(node: &Node) -> Option<&str> {
    node.metadata.annotations.as_ref()?.get(DRILL_ANNOTATION).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_is_written() {
        let asked = DrillRequest { id: "drill-7".into(), extent: DrillScope::Full, left_ms: 60_000 };
        let text = serde_json::to_string(&asked).unwrap();
        assert_eq!(DrillRequest::read(&text), Ok(asked));
    }

    #[test]
    fn a_wrong_request_is_refused_with_the_annotation_and_the_fix() {
        for (text, why) in [
            ("yes", "expected"),
            (r#"{"id":"","extent":"save","leftMs":60000}"#, "is no name"),
            (r#"{"id":"a b","extent":"save","leftMs":60000}"#, "id \"a b\" is no name"),
            (r#"{"id":"a","extent":"some","leftMs":60000}"#, "unknown variant"),
            (r#"{"id":"a","extent":"save","leftMs":1}"#, "between 10000 and 600000"),
            (r#"{"id":"a","extent":"save","leftMs":60000,"evil":1}"#, "unknown field"),
        ] {
            let error = DrillRequest::read(text).unwrap_err();
            assert!(error.contains(why) && error.contains("lifeboat.dev/drill"), "{error}");
            assert!(error.contains("use lifeboat drill --node"), "{error}");
        }
    }
}
