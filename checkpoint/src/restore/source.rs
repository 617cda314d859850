//! Bytes from the store that are what the manifest says, or an error that names what is not.

use std::ops::ControlFlow;

use bytes::Bytes;
use tokio::time::Instant;

use super::{RestoreError, blocking, plan::Run, slice};
use crate::{
    key::Workload,
    manifest::Extent,
    retry,
    store::{Store, StoreError},
};

/// A damaged answer is asked for once more: it may have been damaged on the way.
const TRIES: u32 = 2;

/// Reads a run; every extent in it is verified.
pub(super) async fn verified(
    store: &Store,
    workload: &Workload,
    run: &Run,
    pieces: Vec<(String, Extent)>,
    deadline: Instant,
) -> Result<Bytes, RestoreError> {
    let key = workload.pack(run.pack);
    let corrupt =
        |path: &str, what: String| RestoreError::Corrupt { path: path.to_owned(), pack: run.pack, what };
    let first = pieces.first().map_or("", |(path, _)| path.as_str()).to_owned();
    let mut tries = 0;
    loop {
        tries += 1;
        let got = retry::get_range(store.as_ref(), &key, run.range.clone(), deadline);
        let bytes = match got.await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => {
                return Err(corrupt(&first, "the pack is not in the store".to_owned()));
            }
            Err(error) => return Err(RestoreError::Store(error)),
        };
        let (checked, pieces, run) = (bytes.clone(), pieces.clone(), run.clone());
        match blocking(move || Ok(check(&checked, &run, &pieces))).await? {
            ControlFlow::Continue(()) => return Ok(bytes),
            ControlFlow::Break((path, what)) if tries == TRIES => return Err(corrupt(&path, what)),
            ControlFlow::Break((path, what)) => {
                tracing::warn!(%key, path, what, "asking again for damaged bytes")
            }
        }
    }
}

/// Breaks with the path and what is wrong with its bytes.
fn check(bytes: &Bytes, run: &Run, pieces: &[(String, Extent)]) -> ControlFlow<(String, String)> {
    for (path, extent) in pieces {
        if run.range.start + (bytes.len() as u64) < extent.pack_offset + extent.len {
            let have = run.range.start + bytes.len() as u64;
            let needed = extent.pack_offset + extent.len;
            return ControlFlow::Break((
                path.clone(),
                format!("the pack ends at byte {have}, {needed} are needed"),
            ));
        }
        if !extent.holds(&slice(bytes, run, extent)) {
            let what = format!(
                "bytes {}..{} do not match their checksum",
                extent.offset,
                extent.offset + extent.len
            );
            return ControlFlow::Break((path.clone(), what));
        }
    }
    ControlFlow::Continue(())
}
