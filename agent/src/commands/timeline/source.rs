//! What a timeline is made of: a journal, or the report of an evacuation whose node is gone.
//!
//! Decides which of the two a file is, by what is in it. It must not know what becomes of it.

use crate::runtime::journal;
use evacuation::report::Report;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use trace::journal::VERSION;
use trace::lives::{Life, ReadError};

/// The format of reports that this version reads.
const FORMAT: u32 = 1;

/// No report is larger, bytes: thousands of pods.
const LARGEST: u64 = 16 << 20;

/// What was read.
#[derive(Debug)]
pub(super) enum Source {
    /// Everything that its agent heard and asked for.
    Journal(Vec<Life>),
    /// What came of it.
    Report(Box<Report>),
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// A journal, or what should be one.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// A report that this version would misread.
    #[error(
        "{path}: format {format} of the report is not known to lifeboat {VERSION}, which reads format {FORMAT}: upgrade"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        format: u32,
    },
}

/// Reads a file, or the journal of a state folder.
///
/// # Errors
/// [`SourceError`].
pub(super) fn read(path: &Path) -> Result<Source, SourceError> {
    match document::<SourceHead>(path) {
        Some(SourceHead { format, .. }) if format != FORMAT => {
            Err(SourceError::Format { path: path.to_owned(), format })
        }
        Some(_) | None => match document(path) {
            Some(report) => Ok(Source::Report(Box::new(report))),
            None => Ok(Source::Journal(journal::read(path)?)),
        },
    }
}

/// What a report of any format has, and no line of a journal.
#[derive(Deserialize)]
struct SourceHead {
    format: u32,
    #[serde(rename = "pods")]
    _pods: Vec<IgnoredAny>,
}

/// The one document that this file is. The first line of a journal is enough to see that it is none.
fn document<T: DeserializeOwned>(path: &Path) -> Option<T> {
    if !path.is_file() {
        return None;
    }
    let file = std::fs::File::open(path).ok()?;
    serde_json::from_reader(BufReader::new(file.take(LARGEST))).ok()
}
