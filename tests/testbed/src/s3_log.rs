//! What the S3 server received, by its own access log, and what it holds, by its own files.

use anyhow::{Context, Result};
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was answered, to the second.
    pub at: Timestamp,
    /// Who sent it.
    pub from: String,
    /// The server's name for it: `s3_PutObject`, `s3_GetObject`, …
    pub operation: String,
    /// The object's key.
    pub key: String,
    /// The answer's code.
    pub code: u16,
    /// The object's size where it was put, in bytes.
    pub size: u64,
}

impl Entry {
    /// A line of versitygw's access log: words, of which the time has two.
    fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let time =
            format!("{} {}", words.get(2)?.trim_start_matches('['), words.get(3)?.trim_end_matches(']'));
        Some(Self {
            at: jiff::Zoned::strptime("%d/%B/%Y:%H:%M:%S %z", &time).ok()?.timestamp(),
            from: (*words.get(4)?).to_owned(),
            operation: (*words.get(7)?).to_owned(),
            key: (*words.get(8)?).to_owned(),
            code: words.get(10)?.parse().ok()?,
            size: words.get(13)?.parse().unwrap_or(0),
        })
    }

    /// An object was put.
    pub fn is_put(&self) -> bool {
        self.operation.ends_with("PutObject") && (200..300).contains(&self.code)
    }
}

/// Reads the access log, oldest first. Lines that are no requests of the S3 API are left out.
///
/// # Errors
/// It is not there.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().filter_map(Entry::read).collect())
}

/// An object as it lies in the server's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When it became whole, to the nanosecond: the server renames it into place.
    pub at: Timestamp,
    /// The file.
    pub path: PathBuf,
}

/// Everything in a bucket, by key.
///
/// # Errors
/// The folder cannot be read.
pub fn objects(bucket: &Path) -> Result<Vec<Object>> {
    let mut found = Vec::new();
    let mut folders = vec![bucket.to_owned()];
    while let Some(folder) = folders.pop() {
        // What is removed meanwhile is not there.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let path = entry.path();
            // The server's own temporary files.
            if entry.file_name().to_string_lossy().starts_with(".sgwtmp") {
                continue;
            }
            if meta.is_dir() {
                folders.push(path);
            } else if let (Ok(key), Ok(modified)) = (path.strip_prefix(bucket), meta.modified()) {
                let key = key.to_string_lossy().into_owned();
                found.push(Object { key, size: meta.len(), at: modified.try_into()?, path: path.clone() });
            }
        }
    }
    found.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(found)
}
