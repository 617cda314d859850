//! A directory of files that are never written to again, named after their content: vLLM's tiering `fs` tier, SGLang's
//! and LMCache's file backends, a TensorRT-LLM connector's folder. The engine itself is never asked.
//!
//! ```text
//!   while it serves   every closed file is in the next pre-copy; one that was sent is not read again
//!   at the end        the directory is watched until it is still, and what is closed is taken
//!   on the new node   the files are put back before the engine starts: it finds them by their names
//!                     (`lifeboat wait` as an init container; where there is none, as soon as they are there)
//! ```
//!
//! * Nothing proves the weights of an engine that is not asked, and no such file says which weights made it: the pod's
//!   owner vouches with `lifeboat.dev/compat-key`, without which the annotation is refused.
//! * Other than every other engine, the image's digest is not compared: it is known only once the container runs, and that is
//!   too late. Its reference is, as a part of the spec key.
//! * Whether the engine uses them cannot be shown: the gate says `RestoredUnverified`.

use super::{Engine, EngineError, Flushed, FlushedFile, Looked, Proven};
use async_trait::async_trait;
use checkpoint::chunk::Chunking;
use checkpoint::fingerprint::Fingerprint;
use checkpoint::folder::{Folder, FoundFile, WalkLimits};
use evacuation::effect::FlushKind;
use evacuation::event::Verification;
use evacuation::moment::{Moment, Span};
use host::clock;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// A file that was written to less than this ago may still be open.
const SETTLED: Duration = Duration::from_secs(2);
/// Between two looks at a directory that is to become still.
const LOOK_EVERY: Span = Span::from_millis(500);
/// We are done this much before the deadline.
const RETURN: Span = Span::from_millis(250);
/// Endings of files that a writer renames when they are whole.
const UNFINISHED: [&str; 4] = [".tmp", ".temp", ".part", ".partial"];

/// The engine of a pod that keeps its state in such a directory.
#[derive(Debug)]
pub struct FilesEngine {
    folder: Arc<Folder>,
    compat_key: Option<String>,
    max_bytes: Option<u64>,
    flush_timeout: Span,
    /// Files and bytes when it was last looked at.
    last: Mutex<Option<(usize, u64)>>,
}

/// What is in the directory.
struct Listing {
    closed: Vec<FoundFile>,
    open: usize,
    bytes: u64,
    skipped: Vec<String>,
}

impl Listing {
    fn same_as(&self, other: &Self) -> bool {
        (self.closed.len(), self.open, self.bytes) == (other.closed.len(), other.open, other.bytes)
    }
}

impl FilesEngine {
    /// The directory is the root of the state volume.
    pub fn new(
        folder: Arc<Folder>,
        compat_key: Option<String>,
        max_bytes: Option<u64>,
        flush_timeout: Span,
    ) -> Self {
        Self { folder, compat_key, max_bytes, flush_timeout, last: Mutex::default() }
    }

    fn fingerprint(&self) -> Fingerprint {
        let facts = [("engine".to_owned(), "files".to_owned())].into();
        Fingerprint { facts, probe: None, compat_key: self.compat_key.clone() }
    }

    fn at(&self) -> String {
        self.folder.describe().to_owned()
    }

    /// Files that nobody has written to since `settled`, the newest first.
    async fn list(&self, settled: Duration) -> Result<Listing, EngineError> {
        let folder = Arc::clone(&self.folder);
        let listed = tokio::task::spawn_blocking(move || folder.files(&WalkLimits::default()));
        let found = listed
            .await
            .map_err(|error| EngineError::Volume(error.to_string()))?
            .map_err(|error| EngineError::Volume(error.to_string()))?;
        // The file system's own clock is this kernel's, as ours is.
        let before = Timestamp::now() - settled;
        let (mut closed, open): (Vec<FoundFile>, Vec<FoundFile>) =
            found.files.into_iter().partition(|file| !is_unfinished(&file.path) && file.modified <= before);
        closed.sort_by(|a, b| (b.modified, &a.path).cmp(&(a.modified, &b.path)));
        let bytes = closed.iter().chain(&open).fold(0_u64, |sum, file| sum.saturating_add(file.size));
        let skipped = found.skipped.iter().map(ToString::to_string).collect();
        Ok(Listing { closed, open: open.len(), bytes, skipped })
    }

    /// The directory once nothing in it has changed between two looks, or as it is when the time is over.
    async fn still(&self, until: Moment) -> Result<Listing, EngineError> {
        let mut before = self.list(Duration::ZERO).await?;
        loop {
            if clock::now() + LOOK_EVERY >= until {
                // What was written to in the last moment may be half a file.
                return self.list(clock::duration(LOOK_EVERY)).await;
            }
            tokio::time::sleep(clock::duration(LOOK_EVERY)).await;
            let now = self.list(Duration::ZERO).await?;
            if now.same_as(&before) {
                return Ok(now);
            }
            before = now;
        }
    }

    fn taken(&self, listing: Listing) -> Flushed {
        let mut missing = listing.skipped;
        if listing.open > 0 {
            missing.push(format!("{} files were still being written", listing.open));
        }
        let (mut files, mut bytes, mut left_out) = (Vec::new(), 0_u64, 0_usize);
        for file in listing.closed {
            let with_it = bytes.saturating_add(file.size);
            if self.max_bytes.is_some_and(|most| with_it > most) {
                left_out += 1;
                continue;
            }
            bytes = with_it;
            files.push(FlushedFile { path: file.path, bytes: file.size, chunking: Chunking::Immutable });
        }
        if left_out > 0 {
            missing.push(format!("the {left_out} oldest files: lifeboat.dev/max-bytes has no room for them"));
        }
        let facts = Map::from_iter([("files".to_owned(), json!(files.len()))]);
        Flushed { files, bytes, facts, missing }
    }
}

fn is_unfinished(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.starts_with('.') || UNFINISHED.iter().any(|ending| name.ends_with(ending))
}

#[async_trait]
impl Engine for FilesEngine {
    /// Busy while the directory changes from look to look.
    async fn look(&self, _deadline: Moment) -> Result<Looked, EngineError> {
        let listing = self.list(Duration::ZERO).await?;
        let now = (listing.closed.len() + listing.open, listing.bytes);
        let before = self.last.lock().replace(now);
        Ok(Looked {
            fingerprint: self.fingerprint(),
            state_bytes: listing.bytes,
            busy: before.is_some_and(|before| before != now),
            tokens_found: 0,
        })
    }

    /// Nothing to call: taking the pod out of rotation is the endpoints' work.
    async fn quiesce(&self, _deadline: Moment) -> Result<(), EngineError> {
        Ok(())
    }

    /// Nothing to take back.
    async fn resume(&self, _deadline: Moment) -> Result<(), EngineError> {
        Ok(())
    }

    async fn flush(
        &self,
        kind: FlushKind,
        _checkpoint_id: &str,
        deadline: Moment,
    ) -> Result<Flushed, EngineError> {
        let listing = match kind {
            FlushKind::PreCopy => self.list(SETTLED).await?,
            FlushKind::Final => {
                let until = deadline.min(clock::now() + self.flush_timeout) - RETURN;
                self.still(until).await?
            }
        };
        Ok(self.taken(listing))
    }

    /// Its owner's word is all there is.
    async fn evidence(&self, _deadline: Moment) -> Result<Fingerprint, EngineError> {
        Ok(self.fingerprint())
    }

    /// At once: nobody is asked. What the engine has written already stays, as files of the same name are the same.
    async fn prove(&self, expected: &Fingerprint, _deadline: Moment) -> Result<Proven, EngineError> {
        let fingerprint = self.fingerprint();
        expected
            .compare(&fingerprint)
            .map_err(|why| EngineError::Mismatch { at: self.at(), why: why.to_string() })?;
        Ok(Proven { fingerprint, state_bytes: 0 })
    }

    /// They are in place: that is all.
    async fn hand_over(
        &self,
        _facts: &Map<String, Value>,
        _files: &[String],
        _deadline: Moment,
    ) -> Result<Option<u64>, EngineError> {
        Ok(None)
    }

    async fn verify(
        &self,
        _facts: &Map<String, Value>,
        _deadline: Moment,
    ) -> Result<Verification, EngineError> {
        let why = "an engine that only has its files is not asked whether it uses them".to_owned();
        Ok(Verification::NotShown { why })
    }
}
