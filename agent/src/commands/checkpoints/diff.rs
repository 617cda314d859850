//! `diff`: what one generation has that another does not. Told from the manifests; no pack is read.

use super::catalog::Catalog;
use super::target::Target;
use super::{CheckpointsFailure, CommandOutput};
use crate::commands::page::{Page, count, size};
use crate::runtime::config::StoreArgs;
use checkpoint::hash::{ContentHash, Crc64};
use checkpoint::manifest::{Extent, FileEntry, Manifest};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// What `diff` answers.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    a: String,
    b: String,
    pub(super) files: Vec<Change>,
    unchanged: usize,
    bytes_a: u64,
    bytes_b: u64,
    /// Bytes in `b` that `a` has nowhere: what had to be sent.
    pub(super) bytes_new: u64,
    /// Packs that `b` names and `a` does not.
    packs_new: usize,
}

/// One file that is not the same.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    pub(super) path: String,
    pub(super) change: ChangeKind,
    bytes_a: Option<u64>,
    bytes_b: Option<u64>,
    /// Bytes of it that `a` has nowhere.
    bytes_new: u64,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ChangeKind {
    /// Only in `b`.
    Added,
    /// Only in `a`.
    Removed,
    /// Other bytes.
    Changed,
    /// The same bytes with other permissions.
    Mode,
}

/// Compares `b` with `a`.
pub(super) async fn diff(args: &StoreArgs, a: &Target, b: &Target) -> Result<Difference, CheckpointsFailure> {
    let catalog = Catalog::open(args).await?;
    let (a, b) = (catalog.choose(a).await?, catalog.choose(b).await?);
    Ok(compare(a.name(), &a.manifest, b.name(), &b.manifest))
}

/// Bytes by what they are, not by where they lie.
type Identity = (u64, Crc64, Option<ContentHash>);

fn identity(extent: &Extent) -> Identity {
    (extent.len, extent.crc64, extent.blake3)
}

fn compare(a_name: String, a: &Manifest, b_name: String, b: &Manifest) -> Difference {
    let before: BTreeMap<&str, &FileEntry> = a.files.iter().map(|file| (file.path.as_str(), file)).collect();
    let after: HashSet<&str> = b.files.iter().map(|file| file.path.as_str()).collect();
    // Bytes that come twice in `b` are sent once.
    let mut known: HashSet<Identity> = a.files.iter().flat_map(|file| &file.extents).map(identity).collect();
    let (mut files, mut unchanged) = (Vec::new(), 0);
    for file in &b.files {
        let new = file.extents.iter().filter(|extent| known.insert(identity(extent)));
        let bytes_new = new.map(|extent| extent.len).sum();
        let was = before.get(file.path.as_str());
        let change = match was {
            None => ChangeKind::Added,
            Some(was) if !file.extents.iter().map(identity).eq(was.extents.iter().map(identity)) => {
                ChangeKind::Changed
            }
            Some(was) if was.mode != file.mode => ChangeKind::Mode,
            Some(_) => {
                unchanged += 1;
                continue;
            }
        };
        let (path, bytes_a) = (file.path.clone(), was.map(|was| was.size));
        files.push(Change { path, change, bytes_a, bytes_b: Some(file.size), bytes_new });
    }
    let removed = a.files.iter().filter(|file| !after.contains(file.path.as_str()));
    files.extend(removed.map(|file| Change {
        path: file.path.clone(),
        change: ChangeKind::Removed,
        bytes_a: Some(file.size),
        bytes_b: None,
        bytes_new: 0,
    }));
    files.sort_by(|x, y| x.path.cmp(&y.path));
    Difference {
        a: a_name,
        b: b_name,
        unchanged,
        bytes_a: a.bytes_total(),
        bytes_b: b.bytes_total(),
        bytes_new: files.iter().map(|file| file.bytes_new).fold(0, u64::saturating_add),
        packs_new: b.packs().difference(&a.packs()).count(),
        files,
    }
}

impl CommandOutput for Difference {
    fn page(&self, page: &mut Page) {
        page.line(&format!("from {} to {}", self.a, self.b));
        if !self.files.is_empty() {
            let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size);
            let row = |file: &Change| {
                let change = match file.change {
                    ChangeKind::Added => "added",
                    ChangeKind::Removed => "removed",
                    ChangeKind::Changed => "changed",
                    ChangeKind::Mode => "mode",
                };
                let path = file.path.clone();
                vec![change.to_owned(), path, bytes(file.bytes_a), bytes(file.bytes_b), size(file.bytes_new)]
            };
            let rows: Vec<Vec<String>> = self.files.iter().map(row).collect();
            page.table(&["CHANGE", "FILE", ">WAS", ">IS", ">NEW"], &rows);
        }
        page.line(&format!(
            "{} unchanged; {} was, {} is, {} new in {}",
            count(self.unchanged, "file"),
            size(self.bytes_a),
            size(self.bytes_b),
            size(self.bytes_new),
            count(self.packs_new, "new pack"),
        ));
    }
}
