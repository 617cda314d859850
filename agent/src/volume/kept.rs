//! What an engine's last flush left in its pod's own volume: enough to hand it over again after the container was
//! restarted, without the store.
//!
//! It lies beside the files, in `.lifeboat/kept.json`, and belongs to the pod like everything there: a pod can only
//! deceive itself. A file that is not as it was flushed makes all of it useless; that is seen by its size and the time of
//! its last change, as what is at stake is an engine that was killed while it wrote.

use crate::volume::VolumeError;
use checkpoint::fingerprint::Fingerprint;
use checkpoint::folder::Folder;
use checkpoint::path::OURS;
use evacuation::event::FailureKind;
use host::small_file::{self, SmallFileError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

const FILE: &str = ".lifeboat/kept.json";
/// The largest record, in bytes: some ten thousand files.
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The form that is written and known.
const FORMAT: u32 = 1;

/// Why there is nothing to hand over again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    /// Nothing was kept.
    #[error("nothing was flushed into its volume")]
    Nothing,
    /// It is no record of ours, or a file is not as it was flushed.
    #[error("{0}")]
    Unfit(String),
    /// The record or a file cannot be read or written.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The work was lost, or a file cannot be looked at.
    #[error("{0}")]
    Lost(String),
}

impl From<SmallFileError> for KeptError {
    fn from(error: SmallFileError) -> Self {
        VolumeError::from(error).into()
    }
}

impl KeptError {
    /// How the core sees it.
    pub(crate) const fn kind(&self) -> FailureKind {
        match self {
            KeptError::Nothing => FailureKind::NotFound,
            KeptError::Unfit(_) => FailureKind::Mismatch,
            KeptError::Volume(error) => error.kind(),
            KeptError::Lost(_) => FailureKind::Transient,
        }
    }
}

/// The record of a flush.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    format: u32,
    /// What the engine was that wrote it.
    pub(crate) fingerprint: Fingerprint,
    /// What it must be told.
    pub(crate) facts: Map<String, Value>,
    files: Vec<KeptFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptFile {
    path: String,
    size: u64,
    /// Seconds and nanoseconds of Unix time.
    changed: (i64, i64),
}

impl KeptFile {
    fn of(path: &str, metadata: &Metadata) -> Self {
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        Self { path: path.to_owned(), size: metadata.len(), changed }
    }
}

impl Kept {
    /// Records these files as they are now. A failure is logged: it costs a restarted engine its state, nothing else.
    pub(crate) async fn record(
        folder: &Arc<Folder>,
        fingerprint: Fingerprint,
        facts: Map<String, Value>,
        paths: Vec<String>,
    ) {
        let listed = listed(folder, paths).await;
        let written = async {
            let kept = Self { format: FORMAT, fingerprint, facts, files: listed? };
            let bytes = serde_json::to_vec(&kept).map_err(|error| KeptError::Lost(error.to_string()))?;
            Ok::<_, KeptError>(small_file::write(folder, OURS, FILE, bytes).await?)
        };
        if let Err(error) = written.await {
            tracing::warn!(why = %error, "a restarted engine will not get this flush back");
        }
    }

    /// The record, if every file is as it was flushed.
    ///
    /// # Errors
    /// `NotFound` if nothing was kept, `Mismatch` naming the file that was changed.
    pub(crate) async fn read(folder: &Arc<Folder>) -> Result<Self, KeptError> {
        let bytes = match small_file::read(folder, FILE, BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => return Err(KeptError::Nothing),
            Err(error) => return Err(error.into()),
        };
        let refuse = KeptError::Unfit;
        let kept: Self =
            serde_json::from_slice(&bytes).map_err(|error| refuse(format!("{FILE} is not ours: {error}")))?;
        if kept.format != FORMAT {
            return Err(refuse(format!("{FILE} has format {}, and {FORMAT} is known", kept.format)));
        }
        let now = listed(folder, kept.paths()).await.map_err(|error| refuse(error.to_string()))?;
        match kept.files.iter().zip(&now).find(|(then, now)| then != now) {
            Some((then, _)) => Err(refuse(format!("{} was changed after it was flushed", then.path))),
            None => Ok(kept),
        }
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.files.iter().map(|file| file.path.clone()).collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

async fn listed(folder: &Arc<Folder>, paths: Vec<String>) -> Result<Vec<KeptFile>, KeptError> {
    let folder = Arc::clone(folder);
    let work = tokio::task::spawn_blocking(move || {
        let one = |path: &String| {
            let file = folder.read(path).map_err(VolumeError::from)?;
            let metadata = file.metadata().map_err(|error| KeptError::Lost(error.to_string()))?;
            Ok(KeptFile::of(path, &metadata))
        };
        paths.iter().map(one).collect()
    });
    work.await.unwrap_or_else(|error| Err(KeptError::Lost(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn flushed() -> (tempfile::TempDir, Arc<Folder>) {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("slot-0.bin"), b"state").unwrap();
        let folder = Arc::new(Folder::open(place.path()).unwrap());
        let facts = Map::from_iter([("tokens".to_owned(), Value::from(7))]);
        Kept::record(&folder, Fingerprint::default(), facts, vec!["slot-0.bin".to_owned()]).await;
        (place, folder)
    }

    async fn refused(folder: &Arc<Folder>) -> (FailureKind, String) {
        let failure = Kept::read(folder).await.unwrap_err();
        (failure.kind(), failure.to_string())
    }

    #[tokio::test]
    async fn a_flush_is_found_again_with_what_the_engine_must_be_told() {
        let (_place, folder) = flushed().await;
        let kept = Kept::read(&folder).await.unwrap();
        assert_eq!((kept.paths(), kept.bytes()), (vec!["slot-0.bin".to_owned()], 5));
        assert_eq!(kept.facts["tokens"], 7);
    }

    #[tokio::test]
    async fn a_file_that_was_written_to_after_the_flush_is_refused_by_name() {
        let (place, folder) = flushed().await;
        std::fs::write(place.path().join("slot-0.bin"), b"torn!").unwrap();
        let (kind, why) = refused(&folder).await;
        assert_eq!(kind, FailureKind::Mismatch);
        assert!(why.contains("slot-0.bin was changed"), "{why}");
    }

    #[tokio::test]
    async fn a_volume_without_a_flush_or_with_a_record_that_is_not_ours_gives_nothing() {
        let place = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(place.path()).unwrap());
        assert_eq!(refused(&folder).await.0, FailureKind::NotFound);
        std::fs::create_dir(place.path().join(".lifeboat")).unwrap();
        std::fs::write(place.path().join(FILE), b"{\"format\":9}").unwrap();
        assert_eq!(refused(&folder).await.0, FailureKind::Mismatch);
        std::fs::remove_file(place.path().join(FILE)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", place.path().join(FILE)).unwrap();
        assert!(Kept::read(&folder).await.is_err(), "a planted link must not be followed");
    }
}
