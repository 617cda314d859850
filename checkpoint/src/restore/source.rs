//! One run of a pack from the store into the staged files.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{
    FetchProgress,
    assembly::{Assembly, Wrong},
};
use crate::{
    dispatcher::{Job, PackPatience},
    retry,
    store::{Store, StoreError},
};

/// A damaged answer is asked for once more: it may have been damaged on the way.
const TRIES: u32 = 2;
/// Bytes that are collected before they are written: one call for many frames.
const STEP: usize = 1024 * 1024;
/// A body that gives nothing for so long is asked for again, from where it stands.
const STALLED: Duration = Duration::from_secs(5);
/// So long a store may take before it begins to answer; S3 takes a fraction of a second.
const FIRST_BYTE: Duration = Duration::from_secs(8);

/// How one answer ended.
enum Ended {
    /// Everything is there and verified.
    Whole,
    /// It came to its end, and this is wrong.
    Wrong(Wrong),
    /// The staged file could not be written.
    Unwritable(std::io::Error),
}

/// Reads what `assembly` misses of the pack at `key`, until all of it is verified.
pub(super) async fn read(
    store: &Store,
    key: &str,
    assembly: Assembly,
    job: &Job,
    deadline: Instant,
    progress: &Arc<FetchProgress>,
) -> Result<(), ReadFailure> {
    let assembly = Arc::new(Mutex::new(Some(assembly)));
    let answers = AtomicU32::new(0);
    let longest = retry::attempt_limit(super::RANGE_MAX);
    let what = format!("GET {key}");
    loop {
        let attempts = PackPatience { job, longest };
        let ended = retry::with_retries_of(&what, deadline, &attempts, |_| {
            one_answer(store, key, Arc::clone(&assembly), job, progress)
        });
        match ended.await {
            Ok(Ended::Whole) => return Ok(()),
            Ok(Ended::Unwritable(error)) => return Err(ReadFailure::Folder(error)),
            Ok(Ended::Wrong(wrong)) if answers.fetch_add(1, Relaxed) + 1 >= TRIES => {
                return Err(ReadFailure::Wrong(wrong));
            }
            Ok(Ended::Wrong(Wrong { path, what })) => {
                tracing::warn!(%key, %path, what, "asking again for damaged bytes");
            }
            Err(error) => return Err(ReadFailure::Store(error)),
        }
    }
}

/// Why a run is not there.
pub(super) enum ReadFailure {
    Wrong(Wrong),
    Folder(std::io::Error),
    Store(StoreError),
}

/// Asks once, for what is missing now.
async fn one_answer(
    store: &Store,
    key: &str,
    assembly: Arc<Mutex<Option<Assembly>>>,
    job: &Job,
    progress: &Arc<FetchProgress>,
) -> Result<Ended, StoreError> {
    // Owned while it is worked on: an attempt that is given up leaves no writer behind that another would meet.
    let mut place = assembly.lock_owned().await;
    let Some(range) = place.as_mut().and_then(Assembly::begin) else { return Ok(Ended::Whole) };
    let began = Instant::now();
    let asked = timeout(FIRST_BYTE, store.get_range(key, range)).await;
    let mut frames =
        asked.map_err(|_| StoreError::unreachable(format!("{key}: no answer in {FIRST_BYTE:?}")))??;
    let (mut batch, mut len, mut received) = (Vec::new(), 0, 0);
    loop {
        let frame = timeout(STALLED, frames.next())
            .await
            .map_err(|_| StoreError::Transient { message: format!("{key}: nothing came for {STALLED:?}") })?
            .transpose()?;
        let over = frame.is_none();
        if let Some(frame) = frame {
            len += frame.len();
            received += frame.len() as u64;
            job.arrived(frame.len() as u64);
            progress.came(frame.len() as u64);
            batch.push(frame);
        }
        if len >= STEP || (over && len > 0) {
            let full = std::mem::take(&mut batch);
            len = 0;
            match write(place, full, progress).await? {
                (back, Ok(())) => place = back,
                (_, Err(error)) => return Ok(Ended::Unwritable(error)),
            }
        }
        if over {
            job.acknowledged(received, began.elapsed());
            return Ok(match place.as_ref().and_then(Assembly::wrong) {
                Some(wrong) => Ended::Wrong(wrong),
                None => Ended::Whole,
            });
        }
    }
}

type Held = tokio::sync::OwnedMutexGuard<Option<Assembly>>;

/// Writes and sums on a thread that may block.
async fn write(
    mut place: Held,
    frames: Vec<Bytes>,
    progress: &Arc<FetchProgress>,
) -> Result<(Held, std::io::Result<()>), StoreError> {
    let progress = Arc::clone(progress);
    let working = tokio::task::spawn_blocking(move || {
        let taken = place.as_mut().map_or(Ok(0), |assembly| assembly.take(&frames));
        let taken = taken.map(|whole| progress.arrived(whole));
        (place, taken)
    });
    working.await.map_err(|error| StoreError::Permanent { message: error.to_string() })
}
