//! `verify`: every byte of a generation, of a lineage or of all of a workload.
//!
//! Each pack is read from its first byte to its last, once for all the generations that share it: its name must be the
//! hash of all of it, and every extent that a file has in it must have the file's checksums. Generations are taken
//! together until they fill the share of memory that they may have; then the packs they name are read.

mod pack;
mod wanted;

use self::wanted::{Piece, WantedExtents};
use super::catalog::{Catalog, explain, soon};
use super::near::{unknown_generation, unknown_lineage};
use super::target::{Target, short};
use super::{CheckpointsFailure, CommandOutput};
use crate::commands::page::{Page, count, size};
use crate::runtime::config::StoreArgs;
use checkpoint::generation::{self, ReadError};
use checkpoint::hash::ContentHash;
use checkpoint::key::{GenerationNumber, LineageId, Workload};
use checkpoint::restore::{self, RestoreError};
use checkpoint::store::StoreError;
use futures::stream::{self, StreamExt};
use host::exit;
use serde::Serialize;

/// How many files and extents are remembered before their packs are read; at most 200 bytes each.
const ENTRIES_MAX: usize = 1_000_000;
/// The most files that one problem names; the others are counted.
const NAMED_MAX: usize = 100;

/// What `verify` answers.
#[derive(Debug, Serialize)]
pub(super) struct Verified {
    target: String,
    pub(super) whole: bool,
    pub(super) generations: usize,
    pub(super) files: usize,
    /// Packs that were read.
    pub(super) packs: usize,
    pub(super) bytes_read: u64,
    pub(super) problems: Vec<Problem>,
}

/// Something that is not as it was saved.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    pub(super) kind: DefectKind,
    /// The pack, the manifest's generation, or the file.
    pub(super) name: String,
    pub(super) problem: String,
    /// The files that need it, with their generation; at most 100.
    pub(super) files: Vec<String>,
    /// How many need it.
    files_total: usize,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DefectKind {
    /// The document that is the commit.
    Generation,
    /// What it names.
    Manifest,
    /// An object of bytes.
    Pack,
    /// Bytes of a file, in a pack that may itself be what its name says.
    File,
}

/// Verifies what `target` names, reading `parallel` packs at the same time.
pub(super) async fn verify(
    args: &StoreArgs,
    target: &Target,
    parallel: usize,
) -> Result<Verified, CheckpointsFailure> {
    let catalog = Catalog::open(args).await?;
    let workload = catalog.workload(&target.namespace, &target.workload)?;
    let generations = named(&catalog, &workload, target).await?;
    let mut verified = Verified {
        target: target.to_string(),
        whole: true,
        generations: 0,
        files: 0,
        packs: 0,
        bytes_read: 0,
        problems: Vec::new(),
    };
    let mut wanted = WantedExtents::default();
    for (lineage, number) in generations {
        verified.generations += 1;
        verified.take(&catalog, &workload, &lineage, number, &mut wanted).await?;
        if wanted.entries() >= ENTRIES_MAX {
            verified.read(&catalog, &workload, std::mem::take(&mut wanted), parallel).await?;
        }
    }
    verified.read(&catalog, &workload, wanted, parallel).await?;
    verified.problems.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    verified.whole = verified.problems.is_empty();
    Ok(verified)
}

/// The generations that `target` names, by lineage and newest first.
async fn named(
    catalog: &Catalog,
    workload: &Workload,
    target: &Target,
) -> Result<Vec<(LineageId, GenerationNumber)>, CheckpointsFailure> {
    let mut history = catalog.history(workload).await?;
    if let Some(lineage) = &target.lineage {
        let Some(numbers) = history.remove(lineage) else {
            return Err(unknown_lineage(target, lineage, history.keys()));
        };
        let numbers = match target.generation {
            Some(number) if !numbers.contains(&number) => return Err(unknown_generation(target, &numbers)),
            Some(number) => vec![number],
            None => numbers,
        };
        return Ok(numbers.into_iter().map(|number| (lineage.clone(), number)).collect());
    }
    let each = |(lineage, numbers): (LineageId, Vec<GenerationNumber>)| {
        numbers.into_iter().map(move |number| (lineage.clone(), number))
    };
    Ok(history.into_iter().flat_map(each).collect())
}

impl Verified {
    /// Reads one generation and its manifest, and notes what they need.
    async fn take(
        &mut self,
        catalog: &Catalog,
        workload: &Workload,
        lineage: &LineageId,
        number: GenerationNumber,
        wanted: &mut WantedExtents,
    ) -> Result<(), CheckpointsFailure> {
        let name = format!("{lineage}/{}", short(number));
        let generation =
            match generation::read(catalog.store.as_ref(), workload, lineage, number, soon()).await {
                Ok(generation) => generation,
                Err(ReadError::Store(error)) if !matches!(error, StoreError::NotFound { .. }) => {
                    return Err(catalog.failed(&error));
                }
                Err(error) => {
                    self.problem(DefectKind::Generation, name, error.to_string(), Vec::new());
                    return Ok(());
                }
            };
        let hash = generation.manifest;
        match restore::load_manifest(&catalog.store, workload, hash, catalog.mac_key.as_ref(), soon()).await {
            Ok(manifest) if manifest.lineage != *lineage => {
                let what = format!("manifest {hash}: it belongs to lineage {}", manifest.lineage);
                self.problem(DefectKind::Manifest, name, what, Vec::new());
            }
            Ok(manifest) => {
                self.files += manifest.files.len();
                wanted.add(&name, &manifest);
            }
            Err(error @ (RestoreError::Store(_) | RestoreError::OutOfTime { .. })) => {
                return Err(CheckpointsFailure::Failed(format!("{name}: {}", explain(&error))));
            }
            Err(error) => self.problem(DefectKind::Manifest, name, error.to_string(), Vec::new()),
        }
        Ok(())
    }

    /// Reads the packs, `parallel` at a time.
    async fn read(
        &mut self,
        catalog: &Catalog,
        workload: &Workload,
        wanted: WantedExtents,
        parallel: usize,
    ) -> Result<(), CheckpointsFailure> {
        let (packs, names) = wanted.into_parts();
        let reading =
            stream::iter(packs)
                .map(|(hash, pieces)| async move {
                    (hash, pack::read(&catalog.store, workload, hash, pieces).await)
                })
                .buffer_unordered(parallel.max(1));
        tokio::pin!(reading);
        while let Some((hash, read)) = reading.next().await {
            let read = read.map_err(|error| catalog.failed(&error))?;
            self.bytes_read += read.bytes;
            self.packs += usize::from(!read.missing);
            self.judge(hash, read, &names);
        }
        Ok(())
    }

    fn judge(&mut self, hash: ContentHash, read: pack::PackRead, names: &wanted::Names) {
        if let Some(what) = read.wrong {
            let files = names.of(read.bad.iter().flat_map(|piece| &piece.users));
            self.problem(DefectKind::Pack, hash.to_string(), what, files);
            return;
        }
        for Piece { extent, users } in &read.bad {
            let at =
                format!("bytes {} to {} of pack {hash}", extent.pack_offset, extent.pack_offset + extent.len);
            for file in names.of(users) {
                let what =
                    format!("its checksum is not the one of {at}, though the pack is what its name says");
                self.problem(DefectKind::File, file.clone(), what, vec![file]);
            }
        }
    }

    fn problem(&mut self, kind: DefectKind, name: String, problem: String, mut files: Vec<String>) {
        let files_total = files.len();
        files.truncate(NAMED_MAX);
        self.problems.push(Problem { kind, name, problem, files, files_total });
    }
}

impl CommandOutput for Verified {
    fn page(&self, page: &mut Page) {
        for problem in &self.problems {
            let kind = match problem.kind {
                DefectKind::Generation => "generation",
                DefectKind::Manifest => "manifest of",
                DefectKind::Pack => "pack",
                DefectKind::File => "file",
            };
            page.line(&format!("{kind} {}: {}", problem.name, problem.problem));
            if problem.kind == DefectKind::Pack {
                for file in &problem.files {
                    page.line(&format!("  needed by {file}"));
                }
                if problem.files_total > problem.files.len() {
                    page.line(&format!("  and by {} more", problem.files_total - problem.files.len()));
                }
            }
        }
        let verdict = match self.problems.len() {
            0 => "whole".to_owned(),
            wrong => count(wrong, "problem"),
        };
        page.line(&format!(
            "{}: {verdict}; {}, {}, {} and {} were read",
            self.target,
            count(self.generations, "generation"),
            count(self.files, "file"),
            count(self.packs, "pack"),
            size(self.bytes_read),
        ));
    }

    fn code(&self) -> u8 {
        if self.whole { 0 } else { exit::NO }
    }
}
