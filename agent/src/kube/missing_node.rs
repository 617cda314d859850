//! A node name that the API server does not know: said once, with the fix.
//!
//! The watch of a node that is not there fails at nothing, it only shows nothing: an agent with a wrong `--node-name` would
//! wait for its node for ever, and nobody would learn of it before the first interruption.

use super::{About, Cluster, NamedPod};
use crate::pods::PodRef;
use evacuation::moment::{Moment, Span};
use host::clock;

/// A node may be missing for so long: the kubelet registers it before it starts pods, so it is a matter of seconds.
pub(super) const MISSING_MAX: Span = Span::from_secs(30);

/// For the requests by which it is said.
const PATIENCE: Span = Span::from_secs(5);

/// Since when the node is missing, and whether that was said.
#[derive(Debug)]
pub(super) struct MissingNode {
    patience: Span,
    since: Option<Moment>,
    said: bool,
}

impl MissingNode {
    pub(super) const fn new(patience: Span) -> Self {
        Self { patience, since: None, said: false }
    }

    /// A list of the nodes of this name is over, and the node was in none so far.
    pub(super) fn missing(&mut self, now: Moment) {
        self.since.get_or_insert(now);
    }

    /// It is there.
    pub(super) const fn found(&mut self) {
        self.since = None;
    }

    /// It is missing, and that was not said yet.
    pub(super) const fn is_awaited(&self) -> bool {
        !self.said && self.since.is_some()
    }

    /// It is time to ask for the node by name: only a 404 says that there is none.
    pub(super) fn is_overdue(&self, now: Moment) -> bool {
        !self.said && self.since.is_some_and(|since| now.since(since) >= self.patience)
    }

    /// The API server answered 404: says so, once.
    pub(super) fn say(&mut self, cluster: Cluster) {
        self.said = true;
        // On its own: the watch does not wait for news to be written.
        tokio::spawn(async move { say(&cluster).await });
    }
}

/// One error line, and one Event: on the agent's own pod, where that is known, since nobody can look at a node that is not
/// there.
async fn say(cluster: &Cluster) {
    let deadline = clock::now() + PATIENCE;
    let (namespace, name) = (cluster.own_namespace().to_owned(), cluster.options.instance.clone());
    // Without an answer the pod is not known.
    let own = cluster.named_pod(&namespace, &name, deadline).await.ok().flatten();
    let note = note(cluster.node_name(), own.as_ref());
    tracing::error!(node = cluster.node_name(), "{note}");
    let pod = own.map(|own| (PodRef { namespace, name, uid: own.uid }, own.node));
    let about = match &pod {
        Some((pod, on)) => About::OwnPod(pod, on.as_deref().unwrap_or(cluster.node_name())),
        None => About::Node,
    };
    // A failure has been logged, and news is all this was.
    let _ = cluster.publish(about, "NodeNotFound", &note, true, deadline).await;
}

fn note(node: &str, own: Option<&NamedPod>) -> String {
    let lost = "no notice is acted on, and nothing is saved or restored here";
    match own.and_then(|own| own.node.as_deref()) {
        Some(on) if on == node => format!(
            "the API server knows no node {node:?}, although this pod runs on it: {lost}. Was its Node object deleted? The \
             kubelet registers it again when it is restarted"
        ),
        Some(on) => format!(
            "the API server knows no node {node:?}: {lost}. Set --node-name (NODE_NAME) to spec.nodeName of this pod, which is \
             {on}"
        ),
        None => format!(
            "the API server knows no node {node:?}: {lost}. Set --node-name (NODE_NAME) to spec.nodeName of this pod"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_node_is_asked_for_when_it_was_missing_for_the_whole_time() {
        let mut missing = MissingNode::new(MISSING_MAX);
        assert!(!missing.is_overdue(at(1_000)), "nothing was listed yet");
        missing.missing(at(1_000));
        missing.missing(at(1_020));
        assert!(!missing.is_overdue(at(1_029)));
        assert!(missing.is_overdue(at(1_030)), "since the first list, whatever came after it");
        missing.found();
        assert!(!missing.is_overdue(at(2_000)));
    }
}
