//! `gc`: one pass of garbage collection, or what it would do.
//!
//! A pass marks what nothing names, and removes what an earlier pass marked a grace ago. So whoever runs it by hand runs it
//! again after the grace. Regular passes are the fleet role's ([`crate::fleet`]), with the same functions and flags.

use super::catalog::{Catalog, soon};
use super::target::Place;
use super::{CheckpointsFailure, CommandOutput};
use crate::commands::page::{Page, count, short, size};
use crate::runtime::config::StoreArgs;
use crate::runtime::garbage_args::GarbageArgs;
use checkpoint::garbage::{self, Action, Collected, PASS, Plan, SkippedStep};
use checkpoint::key::Workload;
use checkpoint::preflight;
use host::exit;
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

/// What `gc` answers.
#[derive(Debug, Serialize)]
pub(super) struct GcOutput {
    store: String,
    cluster: String,
    pub(super) dry_run: bool,
    pub(super) workloads: Vec<Workloads>,
}

/// One workload.
#[derive(Debug, Serialize)]
pub(super) struct Workloads {
    namespace: String,
    workload: String,
    /// What was done, or with `--dry-run` would be.
    pub(super) steps: Vec<GarbageStep>,
    /// What something else was in the way of.
    skipped: Vec<GarbageStep>,
    /// Marked, and not removed yet.
    waiting: Vec<garbage::Waiting>,
    generations_kept: usize,
    objects_kept: usize,
    bytes_kept: u64,
    /// Bytes that the steps free.
    pub(super) bytes_freed: u64,
    /// Why no pack and no manifest was touched, if so.
    blocked: Vec<String>,
    /// What ended the pass early.
    failed: Option<String>,
}

/// One step.
#[derive(Debug, Serialize)]
pub(super) struct GarbageStep {
    /// `withdraw`, `generation`, `lineage`, `mark`, `remove` or `bury`.
    pub(super) action: &'static str,
    pub(super) name: String,
    bytes: u64,
    why: String,
}

/// Collects below `place`, or everywhere.
pub(super) async fn gc(
    args: &StoreArgs,
    place: Option<&Place>,
    keep: &GarbageArgs,
    dry_run: bool,
) -> Result<GcOutput, CheckpointsFailure> {
    let policy = keep.policy().map_err(|error| CheckpointsFailure::Usage(error.to_string()))?;
    let catalog = Catalog::open(args).await?;
    let workloads = catalog.remains(place).await?;
    let mut swept = Vec::with_capacity(workloads.len());
    if dry_run {
        for workload in &workloads {
            let plan = garbage::preview(&catalog.store, workload, &policy, Instant::now() + PASS).await;
            swept.push(Workloads::previewed(workload, plan.map_err(|error| catalog.failed(&error))?));
        }
    } else if !workloads.is_empty() {
        let store = catalog.for_removal(args).await?;
        preflight::prove_removal(store.as_ref(), soon())
            .await
            .map_err(|error| CheckpointsFailure::Failed(format!("--store: {error}")))?;
        for workload in &workloads {
            let deadline = Instant::now() + PASS;
            let collected =
                garbage::collect(&store, workload, &policy, "lifeboat checkpoints gc", deadline).await;
            swept.push(Workloads::collected(workload, collected.map_err(|error| catalog.failed(&error))?));
        }
    }
    Ok(GcOutput { store: catalog.store.describe(), cluster: catalog.cluster, dry_run, workloads: swept })
}

impl Workloads {
    fn previewed(workload: &Workload, plan: Plan) -> Self {
        let steps = plan.steps.clone();
        Self::collected(workload, Collected { plan, done: steps, skipped: Vec::new(), failed: None })
    }

    fn collected(workload: &Workload, collected: Collected) -> Self {
        let Collected { plan, done, skipped, failed } = collected;
        Self {
            namespace: workload.namespace().to_owned(),
            workload: workload.name().to_owned(),
            bytes_freed: done.iter().map(|step| step.bytes).sum(),
            steps: done.into_iter().map(GarbageStep::new).collect(),
            skipped: skipped
                .into_iter()
                .map(|SkippedStep { step, why }| GarbageStep::new(garbage::GarbageStep { why, ..step }))
                .collect(),
            waiting: plan.waiting,
            generations_kept: plan.generations_kept,
            objects_kept: plan.objects_kept,
            bytes_kept: plan.bytes_kept,
            blocked: plan.blocked,
            failed: failed.map(|error| error.to_string()),
        }
    }
}

impl GarbageStep {
    fn new(step: garbage::GarbageStep) -> Self {
        let (action, name) = match &step.action {
            Action::Withdraw(subject) => ("withdraw", subject.to_string()),
            Action::Generation { lineage, number } => {
                ("generation", format!("{lineage}/{}", super::target::short(*number)))
            }
            Action::Lineage(lineage) => ("lineage", lineage.to_string()),
            Action::Mark(subject) => ("mark", subject.to_string()),
            Action::Remove(subject) => ("remove", subject.to_string()),
            Action::Bury(subject) => ("bury", subject.to_string()),
        };
        Self { action, name, bytes: step.bytes, why: step.why }
    }
}

impl CommandOutput for GcOutput {
    fn page(&self, page: &mut Page) {
        if self.workloads.is_empty() {
            page.line(&format!("cluster {:?} has nothing in {}", self.cluster, self.store));
        }
        let rows: Vec<Vec<String>> = self.workloads.iter().flat_map(Workloads::rows).collect();
        if !rows.is_empty() {
            page.table(&["WORKLOAD", "DO", "NAME", ">BYTES", "WHY"], &rows);
        }
        let would = if self.dry_run { "would be " } else { "" };
        for workload in &self.workloads {
            let name = format!("{}/{}", workload.namespace, workload.workload);
            for why in workload.blocked.iter().map(|why| format!("packs are left alone: {why}")) {
                page.line(&format!("{name}: {why}"));
            }
            if let Some(why) = &workload.failed {
                page.line(&format!("{name}: ended early, the next pass goes on: {why}"));
            }
            let next = workload.waiting.iter().map(|waiting| waiting.seconds).min();
            let next = next.map(|seconds| format!(", the next in {}", short(Duration::from_secs(seconds))));
            page.line(&format!(
                "{name}: {} {would}freed; {} kept, {} in {}; {} waiting{}",
                size(workload.bytes_freed),
                count(workload.generations_kept, "generation"),
                size(workload.bytes_kept),
                count(workload.objects_kept, "object"),
                workload.waiting.len(),
                next.unwrap_or_default(),
            ));
        }
    }

    fn code(&self) -> u8 {
        if self.workloads.iter().any(|workload| workload.failed.is_some()) { exit::FAILED } else { 0 }
    }
}

impl Workloads {
    fn rows(&self) -> Vec<Vec<String>> {
        let row = |step: &GarbageStep, skipped: &str| {
            let bytes = if step.bytes == 0 { "-".to_owned() } else { size(step.bytes) };
            let what = format!("{skipped}{}", step.action);
            vec![
                format!("{}/{}", self.namespace, self.workload),
                what,
                step.name.clone(),
                bytes,
                step.why.clone(),
            ]
        };
        let done = self.steps.iter().map(|step| row(step, ""));
        done.chain(self.skipped.iter().map(|step| row(step, "not "))).collect()
    }
}
