//! `erase`: everything of a namespace or a workload, on request, with a record that stays.

use super::catalog::Catalog;
use super::target::Place;
use super::{CheckpointsFailure, CommandOutput};
use crate::commands::page::{Page, count, size};
use crate::runtime::config::StoreArgs;
use checkpoint::erase::{self, EraseError, Erasure, Request};
use checkpoint::preflight;
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

/// How long it may take. Asking again goes on.
const WHOLE: Duration = Duration::from_secs(3_600);

/// What `erase` answers.
#[derive(Debug, Serialize)]
pub(super) struct Erased {
    store: String,
    place: String,
    /// The record as it is in the store; `null` if there was nothing.
    pub(super) record: Option<Erasure>,
}

/// Erases `place`, if `yes` was said.
pub(super) async fn erase(
    args: &StoreArgs,
    place: &Place,
    by: Option<&str>,
    yes: bool,
    force: bool,
) -> Result<Erased, CheckpointsFailure> {
    let catalog = Catalog::open(args).await?;
    let name = match &place.workload {
        Some(workload) => format!("{}/{workload}", place.namespace),
        None => place.namespace.clone(),
    };
    let request = Request {
        cluster: catalog.cluster.clone(),
        namespace: place.namespace.clone(),
        workload: place.workload.clone(),
        by: by.map_or_else(asker, str::to_owned),
        force,
    };
    let deadline = Instant::now() + WHOLE;
    let failed = |error: EraseError| {
        let hint = if matches!(error, EraseError::UnderWay(_)) { " (--force)" } else { "" };
        CheckpointsFailure::Failed(format!("{name}: {error}{hint}"))
    };
    if !yes {
        let extent = erase::extent(catalog.store.as_ref(), &request, deadline).await.map_err(failed)?;
        let (objects, bytes) = (extent.objects, size(extent.bytes));
        let workloads = count(extent.workloads.len(), "workload");
        return Err(CheckpointsFailure::Usage(format!(
            "{objects} objects of {workloads}, {bytes}, would be erased below {name} in cluster {:?}, also what is claimed; \
             say --yes",
            catalog.cluster
        )));
    }
    let store = catalog.for_removal(args).await?;
    preflight::prove_removal(store.as_ref(), Instant::now() + Duration::from_secs(60))
        .await
        .map_err(|error| CheckpointsFailure::Failed(format!("--store: {error}")))?;
    let record = erase::erase(store.as_ref(), &request, deadline).await.map_err(failed)?;
    Ok(Erased { store: catalog.store.describe(), place: name, record })
}

/// Who asks, as far as the environment knows.
fn asker() -> String {
    let variable = |names: [&str; 2]| names.iter().find_map(|name| std::env::var(name).ok());
    let user = variable(["USER", "LOGNAME"]).unwrap_or_else(|| "somebody".to_owned());
    variable(["HOSTNAME", "HOST"]).map_or(user.clone(), |host| format!("{user}@{host}"))
}

impl CommandOutput for Erased {
    fn page(&self, page: &mut Page) {
        let Some(record) = &self.record else {
            page.line(&format!("{} has nothing in {}", self.place, self.store));
            return;
        };
        let workloads = count(record.workloads.len(), "workload");
        let (objects, bytes) = (record.objects, size(record.bytes));
        page.line(&format!(
            "{} is erased: {objects} objects of {workloads}, {bytes}; for {}",
            self.place, record.by
        ));
        if record.forced {
            page.line("a checkpoint was coming: erase again when its pod has gone, and what it still wrote goes too");
        }
    }
}
