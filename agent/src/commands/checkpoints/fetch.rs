//! `fetch`: the files of a generation as files, by the same way that a restore goes.

use super::catalog::Catalog;
use super::target::Target;
use super::{CheckpointsFailure, CommandOutput};
use crate::commands::page::{Page, count, size};
use crate::runtime::config::StoreArgs;
use checkpoint::dispatcher::{Dispatcher, Limits};
use checkpoint::folder::Folder;
use checkpoint::path::OURS;
use checkpoint::restore::{self, FetchProgress, FetchRequest, RestoreError, Verify};
use checkpoint::retry;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Kept on top of the time that the bytes may take.
const SLACK: Duration = Duration::from_secs(60);

/// What `fetch` answers.
#[derive(Debug, Serialize)]
pub(super) struct Fetched {
    generation: String,
    directory: String,
    partial: bool,
    files: usize,
    bytes: u64,
    /// Bytes that came from the store; the rest was there from a fetch that was interrupted.
    pub(super) bytes_fetched: u64,
}

/// Fetches what `target` names into `directory`.
pub(super) async fn fetch(
    args: &StoreArgs,
    target: &Target,
    directory: &Path,
    parallel: usize,
) -> Result<Fetched, CheckpointsFailure> {
    let shown = directory.display();
    let wrong = |why: String| CheckpointsFailure::Failed(format!("DIRECTORY {shown}: {why}"));
    check_empty(directory).map_err(wrong)?;
    let catalog = Catalog::open(args).await?;
    let chosen = catalog.choose(target).await?;
    let made = match std::fs::create_dir(directory) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(wrong(format!("{error}; name one whose parent exists and can be written"))),
    };
    let folder = Folder::open(directory).map_err(|error| wrong(error.to_string()))?;
    let (manifest, staging) = (&chosen.manifest, restore::staging(chosen.generation.number));
    let deadline = Instant::now() + retry::attempt_limit(manifest.bytes_total()) + SLACK;
    let progress = Arc::new(FetchProgress::default());
    let store = &catalog.store;
    let request = FetchRequest {
        manifest,
        folder: &folder,
        into: &staging,
        earlier: None,
        verify: Verify::Names,
        rank: 0,
        deadline,
    };
    let dispatcher = Dispatcher::new(Limits::slots(parallel));
    let done = match restore::fetch(store, request, &dispatcher, &progress).await {
        Ok(()) => restore::install(&folder, &staging, manifest).await,
        Err(error) => Err(error),
    };
    // Only what is empty goes: an interrupted fetch finds its bytes again.
    for ours in [format!("{OURS}/restore"), OURS.to_owned()] {
        let _ = std::fs::remove_dir(directory.join(ours));
    }
    if let Err(error) = done {
        if made {
            let _ = std::fs::remove_dir(directory);
        }
        let again = match error {
            RestoreError::OutOfTime { .. } | RestoreError::Store(_) => {
                "; the same command goes on where it ended"
            }
            _ => "",
        };
        return Err(CheckpointsFailure::Failed(format!("{}: {error}{again}", chosen.name())));
    }
    Ok(Fetched {
        generation: chosen.name(),
        directory: shown.to_string(),
        partial: chosen.generation.partial,
        files: manifest.files.len(),
        bytes: manifest.bytes_total(),
        bytes_fetched: progress.bytes_fetched(),
    })
}

/// Nothing is ever written over: the directory is absent, empty, or has only what an interrupted fetch left.
fn check_empty(directory: &Path) -> Result<(), String> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{error}; name an empty directory")),
    };
    for entry in entries {
        let name = entry.map_err(|error| error.to_string())?.file_name();
        if name != OURS {
            return Err(format!("it is not empty ({} is in it); name an empty one", name.display()));
        }
    }
    Ok(())
}

impl CommandOutput for Fetched {
    fn page(&self, page: &mut Page) {
        let Self { generation, directory, .. } = self;
        let what = format!("{}, {}", count(self.files, "file"), size(self.bytes));
        page.line(&format!("{generation} is in {directory}: {what}, every byte verified"));
        if self.partial {
            page.line(
                "it is partial: the source ran out of time, and these are the files that were saved whole",
            );
        }
    }
}
