//! The state volumes of this node's pods, as the agent sees them: below the kubelet's root, opened so that
//! nothing leads outside.
//!
//! A state volume is an emptyDir of the pod, on disk or in memory: both are at
//! `<kubelet root>/pods/<uid>/volumes/kubernetes.io~empty-dir/<name>`. Everything in it belongs to the pod and may be
//! hostile; [`Folder`] resolves each path beneath it. Our own small files are in `.lifeboat/`, which is never saved.

pub(crate) mod kept;
pub(crate) mod restored;
#[cfg(test)]
mod tests;

use checkpoint::folder::{Folder, FolderError};
use evacuation::event::FailureKind;
use host::small_file::{self, SmallFileError};
use std::path::PathBuf;
use std::sync::Arc;

/// The longest bearer token, in bytes.
const TOKEN_MAX: u64 = 4096;

/// Where this node's pods keep their volumes.
#[derive(Clone, Debug)]
pub struct PodVolumes {
    kubelet_root: PathBuf,
}

/// Why a state volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The uid or the name could lead elsewhere.
    #[error("{what} {value:?} is refused: {why}")]
    BadName {
        /// Which of the two.
        what: &'static str,
        /// What was given.
        value: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// There is no such emptyDir.
    #[error(
        "the pod has no emptyDir at {path}: name an emptyDir of the pod in lifeboat.dev/state-volume, and mount the \
         kubelet's pods directory into the agent"
    )]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The bearer token is none.
    #[error("{path}: {why}; lifeboat.dev/auth-file must name a file with one line, the bearer token")]
    BadToken {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It cannot be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// One of its small files cannot be used.
    #[error(transparent)]
    File(#[from] SmallFileError),
}

impl VolumeError {
    /// How the core sees it.
    pub const fn kind(&self) -> FailureKind {
        if self.is_missing() { FailureKind::Transient } else { FailureKind::Permanent }
    }

    /// What was asked for is not there.
    pub const fn is_missing(&self) -> bool {
        match self {
            VolumeError::Absent { .. } | VolumeError::Folder(FolderError::Missing { .. }) => true,
            VolumeError::File(error) => error.is_missing(),
            _ => false,
        }
    }
}

impl PodVolumes {
    /// The volumes below this root, `/var/lib/kubelet` on most nodes.
    pub fn new(kubelet_root: impl Into<PathBuf>) -> Self {
        Self { kubelet_root: kubelet_root.into() }
    }

    /// Opens the emptyDir `volume_name` of the pod `pod_uid`. Blocks for one or two system calls.
    ///
    /// # Errors
    /// [`VolumeError::BadName`] for names that Kubernetes does not give, [`VolumeError::Absent`] if it is not there,
    /// [`VolumeError::Folder`] if it leads elsewhere.
    pub fn state_folder(&self, pod_uid: &str, volume_name: &str) -> Result<Arc<Folder>, VolumeError> {
        check("pod uid", pod_uid, 64)?;
        check("volume name", volume_name, 63)?;
        let pods = self.kubelet_root.join("pods");
        let relative = format!("{pod_uid}/volumes/kubernetes.io~empty-dir/{volume_name}");
        Folder::open_beneath(&pods, &relative).map(Arc::new).map_err(|error| match error {
            FolderError::Missing { .. } => VolumeError::Absent { path: pods.join(&relative) },
            error => VolumeError::Folder(error),
        })
    }
}

/// The bearer token in the file `path` of a state volume (`lifeboat.dev/auth-file`).
///
/// # Errors
/// [`VolumeError`], without the token in its message.
pub async fn auth_token(folder: &Arc<Folder>, path: &str) -> Result<String, VolumeError> {
    let bytes = small_file::read(folder, path, TOKEN_MAX).await?;
    let bad = |why| VolumeError::BadToken { path: path.chars().take(120).collect(), why };
    let text = std::str::from_utf8(&bytes).map_err(|_| bad("it is not text"))?.trim();
    if text.is_empty() {
        return Err(bad("it is empty"));
    }
    // What a header may hold: a line break in a token would be another header.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("it holds more than one word of printable ASCII"));
    }
    Ok(text.to_owned())
}

/// Names that Kubernetes gives: lower-case letters, digits and `-` (uids may also have upper case).
fn check(what: &'static str, value: &str, longest: usize) -> Result<(), VolumeError> {
    let refuse = |why| Err(VolumeError::BadName { what, value: value.chars().take(80).collect(), why });
    if value.is_empty() || value.len() > longest {
        return refuse("its length");
    }
    if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return refuse("it has more than letters, digits and '-'");
    }
    Ok(())
}
