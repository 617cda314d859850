//! Regular passes of garbage collection: what `lifeboat checkpoints gc` does once, by the replica that leads.
//!
//! A task of its own, since a pass may take minutes. It may be killed at any point, also by the end of the lead; any number
//! may run at once. How it works is in [`checkpoint::garbage`].

use super::settings::StorePlace;
use crate::runtime::metrics::Metrics;
use checkpoint::garbage::{self, PASS, Policy};
use checkpoint::store::Store;
use checkpoint::{preflight, workloads};
use evacuation::moment::{Moment, Span};
use host::clock;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Between two looks at who leads.
const TURN: Duration = Duration::from_secs(1);

/// How long a look at the whole cluster, or the proof that removal is safe, may take.
const LOOK: Duration = Duration::from_secs(120);

/// Collects for as long as the process lives.
pub(super) struct Garbage {
    pub(super) place: StorePlace,
    pub(super) every: Duration,
    pub(super) policy: Policy,
    pub(super) metrics: Metrics,
    /// Until when this replica leads.
    pub(super) lead: watch::Receiver<Option<Moment>>,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default)]
struct GarbagePass {
    workloads: usize,
    /// Workloads whose pass ended early.
    failed: usize,
    steps: usize,
    skipped: usize,
    waiting: usize,
    freed: u64,
    kept: u64,
}

impl Garbage {
    /// Collects while this replica leads, until cancelled.
    pub(super) async fn run(self, cancel: CancellationToken) {
        let mut last: Option<Instant> = None;
        while cancel.run_until_cancelled(sleep(TURN)).await.is_some() {
            if !self.leads() || last.is_some_and(|last| last.elapsed() < self.every) {
                continue;
            }
            last = Some(Instant::now());
            let began = clock::now();
            let ended = tokio::select! {
                ended = self.pass() => ended,
                () = self.lead_is_lost() => {
                    tracing::info!("garbage collection ends with the lead; the next leader goes on");
                    continue;
                }
                () = cancel.cancelled() => return,
            };
            self.say(ended, clock::now().since(began));
        }
    }

    fn leads(&self) -> bool {
        self.lead.borrow().is_some_and(|until| clock::now() < until)
    }

    async fn lead_is_lost(&self) {
        while self.leads() {
            sleep(TURN).await;
        }
    }

    fn say(&self, ended: Result<GarbagePass, String>, took: Span) {
        match ended {
            Ok(swept) => {
                let done = swept.failed == 0;
                self.metrics.fleet_garbage(done, took, swept.freed, swept.kept);
                tracing::info!(
                    workloads = swept.workloads,
                    failed = swept.failed,
                    steps = swept.steps,
                    skipped = swept.skipped,
                    waiting = swept.waiting,
                    freed_bytes = swept.freed,
                    kept_bytes = swept.kept,
                    took = %took,
                    "garbage collected"
                );
            }
            Err(why) => {
                self.metrics.fleet_garbage(false, took, 0, 0);
                tracing::error!(error = why, "garbage was not collected; the next pass tries again");
            }
        }
    }

    /// One pass over everything of this cluster.
    async fn pass(&self) -> Result<GarbagePass, String> {
        let store = self.place.open_for_removal().await.map_err(|error| format!("--store: {error}"))?;
        preflight::prove_removal(store.as_ref(), Instant::now() + LOOK)
            .await
            .map_err(|error| format!("--store: {error}"))?;
        let reader: Store = store.clone();
        let workloads = workloads::find(reader.as_ref(), &self.place.cluster, None, Instant::now() + LOOK)
            .await
            .map_err(|error| error.to_string())?;
        let mut swept = GarbagePass::default();
        for workload in &workloads {
            swept.workloads += 1;
            let deadline = Instant::now() + PASS;
            let collected =
                garbage::collect(&store, workload, &self.policy, "lifeboat fleet", deadline).await;
            let why = match collected {
                Ok(collected) => {
                    swept.steps += collected.done.len();
                    swept.skipped += collected.skipped.len();
                    swept.waiting += collected.plan.waiting.len();
                    let freed = collected.done.iter().map(|step| step.bytes);
                    swept.freed = freed.fold(swept.freed, u64::saturating_add);
                    swept.kept = swept.kept.saturating_add(collected.plan.bytes_kept);
                    for why in &collected.plan.blocked {
                        tracing::warn!(workload = %workload, why, "its packs are left alone");
                    }
                    collected.failed.map(|error| error.to_string())
                }
                Err(error) => Some(error.to_string()),
            };
            if let Some(why) = why {
                swept.failed += 1;
                tracing::warn!(workload = %workload, error = why, "its garbage was not all collected; the next pass goes on");
            }
        }
        Ok(swept)
    }
}
