//! Small files in a state volume, read and written off the async threads.

use super::VolumeError;
use checkpoint::folder::Folder;
use std::io::Read;
use std::sync::Arc;

/// The size of a regular file.
pub(crate) async fn size_of(folder: &Arc<Folder>, path: &str) -> Result<u64, VolumeError> {
    blocking(folder, path, |folder, path| {
        let metadata = folder.read(path)?.metadata();
        metadata.map(|metadata| metadata.len()).map_err(|error| io(path, &error))
    })
    .await
}

/// The first bytes of a file, `at_most` of them.
pub(crate) async fn head(folder: &Arc<Folder>, path: &str, at_most: u64) -> Result<Vec<u8>, VolumeError> {
    blocking(folder, path, move |folder, path| {
        let mut bytes = Vec::new();
        folder.read(path)?.take(at_most).read_to_end(&mut bytes).map_err(|error| io(path, &error))?;
        Ok(bytes)
    })
    .await
}

/// A whole file, if it has no more than `at_most` bytes.
pub(crate) async fn read(folder: &Arc<Folder>, path: &str, at_most: u64) -> Result<Vec<u8>, VolumeError> {
    let bytes = head(folder, path, at_most.saturating_add(1)).await?;
    if bytes.len() as u64 > at_most {
        return Err(VolumeError::TooLarge { path: path.chars().take(120).collect(), at_most });
    }
    Ok(bytes)
}

/// Writes a file of ours in one step, in the directory `dir`, which is made if it is not there.
pub(crate) async fn write(
    folder: &Arc<Folder>,
    dir: &'static str,
    path: &str,
    bytes: Vec<u8>,
) -> Result<(), VolumeError> {
    blocking(folder, path, move |folder, path| match folder.write_small_atomically(path, &bytes) {
        Err(checkpoint::folder::FolderError::Missing { .. }) => {
            folder.create_dir_all(dir)?;
            Ok(folder.write_small_atomically(path, &bytes)?)
        }
        written => Ok(written?),
    })
    .await
}

/// Renames a file, in place of one that may be there.
pub(crate) async fn rename(folder: &Arc<Folder>, from: &str, to: String) -> Result<(), VolumeError> {
    blocking(folder, from, move |folder, from| Ok(folder.rename(from, &to)?)).await
}

/// Removes a file that the engine wrote for us alone: moved to what is ours, and gone from there.
pub(crate) async fn remove(folder: &Arc<Folder>, path: &str) -> Result<(), VolumeError> {
    blocking(folder, path, |folder, path| {
        let removed = format!("{}/removed-{:016x}", super::OURS, fastrand::u64(..));
        folder.create_dir_all(super::OURS)?;
        folder.rename(path, &removed)?;
        Ok(folder.remove_tree(&removed)?)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    folder: &Arc<Folder>,
    path: &str,
    work: impl FnOnce(&Folder, &str) -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    let (folder, path) = (Arc::clone(folder), path.to_owned());
    tokio::task::spawn_blocking(move || work(&folder, &path))
        .await
        .unwrap_or_else(|error| Err(VolumeError::Lost(error.to_string())))
}

fn io(path: &str, error: &std::io::Error) -> VolumeError {
    let path = path.chars().take(120).collect();
    VolumeError::Folder(checkpoint::folder::FolderError::Io { path, message: error.to_string() })
}
