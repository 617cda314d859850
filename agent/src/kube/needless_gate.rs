//! Readiness gates that no restore will open: those of pods that did not opt in, or not in a way that can be followed.
//!
//! To the core such a pod has no engine, so it plans no restore for it. Its gate would stay closed until somebody
//! corrects the annotation; it is opened at once instead, with what is wrong as the reason.

use super::{About, Cluster};
use crate::pods::PodRef;
use crate::pods::annotations::AnnotationError;
use crate::pods::conditions::is_gated;
use crate::pods::reader::PodRecord;
use evacuation::effect::RestoreOutcome;
use evacuation::moment::Span;
use evacuation::pod::PodUid;
use host::clock;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// For one request.
const PATIENCE: Span = Span::from_secs(5);
/// After an attempt that failed: doubled each time, up to a minute.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The gates that are being opened. Dropping it ends the attempts.
pub(super) struct NeedlessGates {
    cluster: Cluster,
    asked: BTreeSet<PodUid>,
    tasks: JoinSet<()>,
}

impl NeedlessGates {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster, asked: BTreeSet::new(), tasks: JoinSet::new() }
    }

    /// Opens the pod's gate if it waits for nothing.
    pub(super) fn look(&mut self, pod: &Pod, record: &PodRecord, errors: &[AnnotationError]) {
        let needless =
            record.settings.is_none() && is_gated(pod) && pod.metadata.deletion_timestamp.is_none();
        if !needless || !self.asked.insert(record.facts.uid.clone()) {
            return;
        }
        let why = match errors.first() {
            Some(error) => format!("nothing can be restored: {error}"),
            None => "nothing is restored: the pod has the readiness gate, and no annotation lifeboat.dev/engine; add it, or \
                     remove the gate"
                .to_owned(),
        };
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(open(self.cluster.clone(), PodRef::from(&record.facts), why));
    }

    /// The pod is gone.
    pub(super) fn forget(&mut self, uid: &PodUid) {
        self.asked.remove(uid);
    }
}

/// Tries until it is open, or the pod is no more.
async fn open(cluster: Cluster, pod: PodRef, why: String) {
    let mut pause = PAUSE;
    loop {
        match cluster.open_gate(&pod, RestoreOutcome::Refused, &why, clock::now() + PATIENCE).await {
            Ok(()) => break,
            Err(error) if error.is_not_found() => return,
            Err(error) => {
                tracing::warn!(
                    pod = pod.name,
                    error = &error as &dyn std::error::Error,
                    "gate was not opened"
                );
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    cluster.metrics.restore(RestoreOutcome::Refused, Span::ZERO, 0);
    // It is news; the condition says the same.
    let _ = cluster.publish(About::Pod(&pod), "GateOpened", &why, true, clock::now() + PATIENCE).await;
}
