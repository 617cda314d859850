//! Which ranges of which packs to ask for.

use std::ops::Range;

use crate::{hash::ContentHash, manifest::Manifest};

/// A range of one pack, and the extents in it: index of the file, index of the extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchRun {
    pub(super) pack: ContentHash,
    pub(super) range: Range<u64>,
    pub(super) extents: Vec<(usize, usize)>,
}

/// The most extents in one run: each takes some hundred bytes while its run is fetched, and two KiB while its bytes arrive.
const EXTENTS_MAX: usize = 1024;

/// Joins `missing` extents that lie side by side in a pack, up to `longest` bytes. The files named first come first.
pub(super) fn runs(manifest: &Manifest, missing: &[(usize, usize)], longest: u64) -> Vec<FetchRun> {
    let extent = |at: &(usize, usize)| &manifest.files[at.0].extents[at.1];
    let mut by_place = missing.to_vec();
    by_place.sort_by_key(|at| (extent(at).pack.to_string(), extent(at).pack_offset, *at));
    let mut runs: Vec<FetchRun> = Vec::new();
    for at in by_place {
        let piece = extent(&at);
        let end = piece.pack_offset + piece.len;
        match runs.last_mut() {
            // Side by side, or the same block once more.
            Some(run)
                if run.pack == piece.pack
                    && run.extents.len() < EXTENTS_MAX
                    && piece.pack_offset <= run.range.end
                    && end.max(run.range.end) - run.range.start <= longest =>
            {
                run.range.end = run.range.end.max(end);
                run.extents.push(at);
            }
            _ => runs.push(FetchRun { pack: piece.pack, range: piece.pack_offset..end, extents: vec![at] }),
        }
    }
    runs.sort_by_key(|run| run.extents.iter().min().copied());
    runs
}
