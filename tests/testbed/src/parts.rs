//! The real parts, prepared by the scripts of `tests/real` in the cache.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the real parts lie.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Parts {
    /// The folder of kube-apiserver, kubelet, kubectl, etcd, …
    pub kubernetes: PathBuf,
    /// The S3 server.
    pub versitygw: PathBuf,
    /// amazon-ec2-metadata-mock.
    pub metadata_mock: PathBuf,
    /// The image registry.
    pub registry: PathBuf,
    /// A Python that speaks D-Bus.
    pub python: PathBuf,
}

impl Parts {
    /// Prepares what is missing; a cold run takes about ten minutes.
    ///
    /// # Errors
    /// A script could not do its work: its last line says why.
    pub fn prepare() -> Result<Self> {
        prepare("node-tools")?;
        prepare("llama-server")?;
        // In the engine's image, for what people do today.
        prepare("s5cmd")?;
        Ok(Self {
            kubernetes: prepare("kubernetes")?,
            versitygw: prepare("versitygw")?,
            metadata_mock: prepare("ec2-metadata-mock")?,
            registry: prepare("registry")?,
            python: prepare("jeepney")?,
        })
    }
}

/// The repository: what the tests build and read besides themselves.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().and_then(Path::parent).unwrap_or(here).to_owned()
}

/// One of the scripts, and the path that it prints.
///
/// # Errors
/// It could not do its work: its last line says why.
pub fn prepare(name: &str) -> Result<PathBuf> {
    let script = repository().join("tests/real").join(name);
    let output =
        Command::new(&script).output().with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("tests/real/{name}: {}", said.trim());
    }
    let line = String::from_utf8(output.stdout)?;
    let path = line.trim().rsplit_once(": ").with_context(|| format!("{name} printed {line:?}"))?.1;
    Ok(path.into())
}

/// The folder of the binaries under test (`lifeboat`, `testbed`, `engine`): beside this one, or `LIFEBOAT_BIN`'s.
///
/// # Errors
/// They are not built.
pub fn binaries() -> Result<PathBuf> {
    let mut folder = std::env::current_exe()?;
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    if !folder.join("lifeboat").exists() || !folder.join("testbed").exists() {
        bail!("{} has no lifeboat and testbed: cargo build --release --workspace --bins", folder.display());
    }
    Ok(folder)
}

/// The agent under test.
///
/// # Errors
/// It is not built.
pub fn agent() -> Result<PathBuf> {
    match std::env::var_os("LIFEBOAT_BIN") {
        Some(path) => Ok(path.into()),
        None => Ok(binaries()?.join("lifeboat")),
    }
}
