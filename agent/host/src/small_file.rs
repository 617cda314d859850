//! Small files in a state volume, read and written off the async threads.

use checkpoint::folder::{Folder, FolderError};
use checkpoint::path::OURS;
use std::io::Read;
use std::sync::Arc;

/// Why a small file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SmallFileError {
    /// A file is larger than anything of ours is.
    #[error("{path}: it has more than {at_most} bytes")]
    TooLarge {
        /// The file.
        path: String,
        /// The most.
        at_most: u64,
    },
    /// It cannot be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The work was lost with its thread.
    #[error("the file system work was cut off: {0}")]
    Lost(String),
}

impl SmallFileError {
    /// What was asked for is not there.
    pub const fn is_missing(&self) -> bool {
        matches!(self, SmallFileError::Folder(FolderError::Missing { .. }))
    }
}

/// The size of a regular file.
///
/// # Errors
/// [`SmallFileError`].
pub async fn size_of(folder: &Arc<Folder>, path: &str) -> Result<u64, SmallFileError> {
    blocking(folder, path, |folder, path| {
        let metadata = folder.read(path)?.metadata();
        metadata.map(|metadata| metadata.len()).map_err(|error| io(path, &error))
    })
    .await
}

/// The first bytes of a file, `at_most` of them.
pub async fn head(folder: &Arc<Folder>, path: &str, at_most: u64) -> Result<Vec<u8>, SmallFileError> {
    blocking(folder, path, move |folder, path| {
        let mut bytes = Vec::new();
        folder.read(path)?.take(at_most).read_to_end(&mut bytes).map_err(|error| io(path, &error))?;
        Ok(bytes)
    })
    .await
}

/// A whole file, if it has no more than `at_most` bytes.
pub async fn read(folder: &Arc<Folder>, path: &str, at_most: u64) -> Result<Vec<u8>, SmallFileError> {
    let bytes = head(folder, path, at_most.saturating_add(1)).await?;
    if bytes.len() as u64 > at_most {
        return Err(SmallFileError::TooLarge { path: path.chars().take(120).collect(), at_most });
    }
    Ok(bytes)
}

/// Writes a file of ours in one step, in the directory `dir`, which is made if it is not there.
pub async fn write(
    folder: &Arc<Folder>,
    dir: &'static str,
    path: &str,
    bytes: Vec<u8>,
) -> Result<(), SmallFileError> {
    blocking(folder, path, move |folder, path| match folder.write_small_atomically(path, &bytes) {
        Err(FolderError::Missing { .. }) => {
            folder.create_dir_all(dir)?;
            Ok(folder.write_small_atomically(path, &bytes)?)
        }
        written => Ok(written?),
    })
    .await
}

/// Renames a file, in place of one that may be there.
pub async fn rename(folder: &Arc<Folder>, from: &str, to: String) -> Result<(), SmallFileError> {
    blocking(folder, from, move |folder, from| Ok(folder.rename(from, &to)?)).await
}

/// Removes a file that the engine wrote for us alone: moved to what is ours, and gone from there.
pub async fn remove(folder: &Arc<Folder>, path: &str) -> Result<(), SmallFileError> {
    blocking(folder, path, |folder, path| {
        let removed = format!("{}/removed-{:016x}", OURS, fastrand::u64(..));
        folder.create_dir_all(OURS)?;
        folder.rename(path, &removed)?;
        Ok(folder.remove_tree(&removed)?)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    folder: &Arc<Folder>,
    path: &str,
    work: impl FnOnce(&Folder, &str) -> Result<T, SmallFileError> + Send + 'static,
) -> Result<T, SmallFileError> {
    let (folder, path) = (Arc::clone(folder), path.to_owned());
    tokio::task::spawn_blocking(move || work(&folder, &path))
        .await
        .unwrap_or_else(|error| Err(SmallFileError::Lost(error.to_string())))
}

fn io(path: &str, error: &std::io::Error) -> SmallFileError {
    let path = path.chars().take(120).collect();
    SmallFileError::Folder(FolderError::Io { path, message: error.to_string() })
}
