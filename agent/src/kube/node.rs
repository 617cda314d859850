//! The own node: cordon, taint and deadline in one PATCH.

use super::call::{Call, PatchType, node_path};
use super::{Cluster, ClusterError};
use evacuation::event::NodeFacts;
use evacuation::moment::Moment;
use evacuation::names::{EVACUATION_ANNOTATION, INTERRUPTION_TAINT, OVER_ANNOTATION, REBALANCE_TAINT};
use evacuation::notice::ActiveNotice;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};
use std::time::Duration;

/// Between two attempts after a lost race.
const AFTER_CONFLICT: Duration = Duration::from_millis(20);

impl Cluster {
    /// Reads the own node.
    ///
    /// # Errors
    /// A 404 most often means that the node's name is not the one the kubelet registered.
    pub async fn read_node(&self, deadline: Moment) -> Result<NodeFacts, ClusterError> {
        let node = self.get_node(deadline).await?;
        Ok(facts(&node))
    }

    /// Writes the notice to the own node: annotation and taint and, if it is hard, the cordon, in one
    /// PATCH that is refused if anybody changed the node in between; then the node is read again,
    /// until the deadline. Taints of others survive, since a node's taints are one atomic list.
    ///
    /// Returns the notice as written: `was_schedulable` is what was true before our first cordon.
    ///
    /// # Errors
    /// As the API server answers; a lost race is never an error by itself.
    pub async fn mark(
        &self,
        active_notice: &ActiveNotice,
        deadline: Moment,
    ) -> Result<ActiveNotice, ClusterError> {
        let node = self.change_node(deadline, |node| marked(node, active_notice)).await?;
        Ok(active_notice_of(&node).unwrap_or_else(|| active_notice.clone()))
    }

    /// Takes our taints and our mark back and, with `uncordon`, the cordon; notes which events are `over`.
    ///
    /// # Errors
    /// As [`Cluster::mark`].
    pub async fn unmark(
        &self,
        uncordon: bool,
        over: &[String],
        deadline: Moment,
    ) -> Result<(), ClusterError> {
        self.change_node(deadline, |node| unmarked(node, uncordon, over)).await.map(|_| ())
    }

    /// Applies the change that `patch` finds necessary, if any, to the node as it is.
    pub(super) async fn change_node(
        &self,
        deadline: Moment,
        patch: impl Fn(&Node) -> Option<Value>,
    ) -> Result<Node, ClusterError> {
        let seen = self.seen().clone();
        let mut fresh = seen.is_none();
        let mut node = match seen {
            Some(node) => node,
            None => self.get_node(deadline).await?,
        };
        loop {
            match patch(&node) {
                // What the watch showed last may be old: only a read proves that nothing is to be done.
                None if fresh => return Ok(node),
                None => {}
                Some(body) => match self.patch_node(body, deadline).await {
                    Ok(node) => {
                        *self.seen() = Some(node.clone());
                        return Ok(node);
                    }
                    Err(error) if error.is_conflict() => {
                        if fresh {
                            tokio::time::sleep(AFTER_CONFLICT).await;
                        }
                    }
                    Err(error) => return Err(error),
                },
            }
            node = self.get_node(deadline).await?;
            fresh = true;
        }
    }

    async fn get_node(&self, deadline: Moment) -> Result<Node, ClusterError> {
        let name = &self.options.node;
        // No resourceVersion: the API server reads the newest, not its cache.
        let node: Node = self.send(Call::get(node_path(name)?, format!("node {name}")), deadline).await?;
        *self.seen() = Some(node.clone());
        Ok(node)
    }

    async fn patch_node(&self, body: Value, deadline: Moment) -> Result<Node, ClusterError> {
        let name = &self.options.node;
        let call = Call::patch(node_path(name)?, format!("node {name}"), PatchType::Merge, body);
        self.send(call, deadline).await
    }
}

/// The node as the core sees it.
pub(super) fn facts(node: &Node) -> NodeFacts {
    NodeFacts {
        name: node.metadata.name.clone().unwrap_or_default(),
        unschedulable: is_unschedulable(node),
        tainted: taints(node).iter().any(is_ours),
        active_notice: active_notice_of(node),
        over: noted(node).and_then(|raw| read_noted(raw)).unwrap_or_default(),
    }
}

/// The PATCH that makes a node stand as it should; `None` if it does.
fn marked(node: &Node, active_notice: &ActiveNotice) -> Option<Value> {
    let hard = active_notice.is_hard();
    let before = active_notice_of(node);
    // Only a hard notice of ours cordons; any other cordon is somebody else's and stays when we go.
    let was_schedulable = match &before {
        Some(before) if before.is_hard() => before.was_schedulable,
        Some(_) | None => !is_unschedulable(node),
    };
    let active_notice = ActiveNotice { was_schedulable, ..active_notice.clone() };
    let (key, effect) =
        if hard { (INTERRUPTION_TAINT, "NoSchedule") } else { (REBALANCE_TAINT, "PreferNoSchedule") };
    let mut wanted = foreign_taints(node);
    wanted.push(Taint {
        key: key.to_owned(),
        value: Some(active_notice.kind.as_str().to_owned()),
        effect: effect.to_owned(),
        time_added: None,
    });
    let done = before.as_ref() == Some(&active_notice)
        && taints(node) == wanted.as_slice()
        && (!hard || is_unschedulable(node));
    if done {
        return None;
    }
    let annotation = serde_json::to_string(&active_notice).unwrap_or_default();
    let mut spec = json!({ "taints": wanted });
    if hard {
        spec["unschedulable"] = Value::Bool(true);
    }
    Some(json!({
        "metadata": {
            "resourceVersion": node.metadata.resource_version,
            "annotations": { EVACUATION_ANNOTATION: annotation },
        },
        "spec": spec,
    }))
}

/// The PATCH that leaves nothing of ours on a node but the events that are `over`; `None` if it is so.
fn unmarked(node: &Node, uncordon: bool, over: &[String]) -> Option<Value> {
    let note = (!over.is_empty()).then(|| serde_json::to_string(over).unwrap_or_default());
    let annotated = raw_standing(node).is_some() || noted(node) != note.as_ref();
    let tainted = taints(node).iter().any(is_ours);
    let cordoned = uncordon && is_unschedulable(node);
    if !(annotated || tainted || cordoned) {
        return None;
    }
    let others = foreign_taints(node);
    let mut spec = json!({ "taints": if others.is_empty() { Value::Null } else { json!(others) } });
    if uncordon {
        spec["unschedulable"] = Value::Null;
    }
    Some(json!({
        "metadata": {
            "resourceVersion": node.metadata.resource_version,
            "annotations": { EVACUATION_ANNOTATION: Value::Null, OVER_ANNOTATION: note },
        },
        "spec": spec,
    }))
}

fn raw_standing(node: &Node) -> Option<&String> {
    node.metadata.annotations.as_ref()?.get(EVACUATION_ANNOTATION)
}

fn noted(node: &Node) -> Option<&String> {
    node.metadata.annotations.as_ref()?.get(OVER_ANNOTATION)
}

/// The ids in it; `None` where it cannot be read, as of a version to come.
fn read_noted(raw: &str) -> Option<Vec<String>> {
    match serde_json::from_str(raw) {
        Ok(over) => Some(over),
        Err(error) => {
            tracing::warn!(%error, annotation = OVER_ANNOTATION, "annotation of the own node was not understood");
            None
        }
    }
}

/// Our mark; `None` also where it cannot be read, as of a version to come.
fn active_notice_of(node: &Node) -> Option<ActiveNotice> {
    let raw = raw_standing(node)?;
    match serde_json::from_str(raw) {
        Ok(active_notice) => Some(active_notice),
        Err(error) => {
            tracing::warn!(%error, annotation = EVACUATION_ANNOTATION, "annotation of the own node was not understood");
            None
        }
    }
}

fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn is_ours(taint: &Taint) -> bool {
    taint.key == INTERRUPTION_TAINT || taint.key == REBALANCE_TAINT
}

fn foreign_taints(node: &Node) -> Vec<Taint> {
    taints(node).iter().filter(|taint| !is_ours(taint)).cloned().collect()
}
