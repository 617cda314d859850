//! Drills that are asked of this node: allowed or refused, taken off the node, and only then held.

use crate::kube::drill_request::DrillRequest;
use crate::kube::{About, Cluster};
use crate::runtime::config::DrillPolicy;
use evacuation::moment::Span;
use host::clock;
use tokio::sync::mpsc;

/// Requests that wait: more are not asked for at once by anybody in earnest.
const QUEUE: usize = 4;
/// How long the API server may take.
const CALL: Span = Span::from_secs(10);

/// Takes requests off the node.
#[derive(Clone)]
pub(super) struct DrillRequests {
    cluster: Cluster,
    policy: DrillPolicy,
    taken: mpsc::Sender<DrillRequest>,
}

impl DrillRequests {
    pub(super) fn new(cluster: Cluster, policy: DrillPolicy) -> (Self, mpsc::Receiver<DrillRequest>) {
        let (taken, out) = mpsc::channel(QUEUE);
        (Self { cluster, policy, taken }, out)
    }

    /// Somebody wrote this on the node.
    pub(super) fn asked(&self, text: String) {
        let this = self.clone();
        tokio::spawn(async move { this.take(&text).await });
    }

    async fn take(&self, text: &str) {
        let judged = self.judged(text);
        // First: a request that stays would be found again by the agent's next life.
        match self.cluster.take_rehearsal(text, clock::now() + CALL).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                return tracing::warn!(%error, "a drill was asked for, and cannot be taken off the node");
            }
        }
        match judged {
            // The loop has ended: nobody is left to rehearse.
            Ok(asked) => drop(self.taken.send(asked).await),
            Err(why) => {
                tracing::warn!(why, "drill refused");
                let deadline = clock::now() + CALL;
                // The log says it as well.
                let _ = self.cluster.publish(About::Node, "DrillRefused", &why, true, deadline).await;
            }
        }
    }

    fn judged(&self, text: &str) -> Result<DrillRequest, String> {
        let asked = DrillRequest::read(text)?;
        if self.policy.permits(asked.extent) {
            return Ok(asked);
        }
        Err(format!(
            "drill {}: this agent may not rehearse that; its operator sets LIFEBOAT_DRILLS to save or full",
            asked.id
        ))
    }
}
