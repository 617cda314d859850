//! Container images without a builder, a daemon or a registry: docker-archive tars of files of this machine, which
//! `ctr -n k8s.io images import` takes.
//!
//! A tar lies in the cache outside the checkout under the image's name and a hash of everything it is made from, so
//! that it is made once, and a name never means two contents. The same files make the same bytes.

mod archive;
mod programs;
mod root;

use anyhow::{Context, Result, ensure};
use root::Root;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Where the commands of a pod are looked for.
const PATH: &str = "PATH=/usr/bin:/bin:/usr/sbin:/sbin";

/// Tars that nobody asked for in this time are removed when their image is made anew.
const UNUSED: Duration = Duration::from_secs(24 * 60 * 60);

/// Hexadecimal digits of the hash in a tar's name.
const HASH: usize = 16;

/// Raise it when the archive of the same files is to be another one.
const FORMAT: &str = "1";

/// An image in a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What a pod calls it: `registry.local/NAME:TAG`.
    pub name: String,
    /// The docker-archive.
    pub tar: PathBuf,
}

/// Every image of the testbed. `bins` is the folder with the built `lifeboat` and `engine`.
///
/// # Errors
/// If a part is missing on this machine (the message says which script of tests/real brings it) or the cache cannot
/// be written.
pub fn all(bins: &Path) -> Result<Vec<Image>> {
    let (agent, sidecar) = (bins.join("lifeboat"), bins.join("engine"));
    Ok(vec![pause()?, busybox()?, llama_server()?, lifeboat(&agent)?, engine(&sidecar)?])
}

/// `registry.local/pause:1`: holds a pod's namespaces and goes at once when told to.
///
/// # Errors
/// As [`all`].
pub fn pause() -> Result<Image> {
    let mut root = Root::default();
    root.file("/bin/busybox", &programs::static_busybox()?)?;
    // The first process of a container ignores SIGTERM unless it has a trap for it, and `sleep` has none.
    let script = "trap 'exit 0' TERM INT; busybox sleep infinity & wait";
    make("registry.local/pause:1", root, json!({"Entrypoint": ["/bin/busybox", "sh", "-c", script]}))
}

/// `registry.local/busybox:1`: Debian's static busybox with all of its applets. The pod gives the command.
///
/// # Errors
/// As [`all`].
pub fn busybox() -> Result<Image> {
    let mut root = Root::default();
    add_busybox(&mut root)?;
    make("registry.local/busybox:1", root, json!({}))
}

/// `registry.local/llama-server:1`: a real llama-server with two models, `/models/tiny-a.gguf` and `tiny-b.gguf`, and
/// busybox for the shell line of a preStop.
///
/// # Errors
/// As [`all`].
pub fn llama_server() -> Result<Image> {
    let (mut root, cache) = (Root::default(), cache());
    add_busybox(&mut root)?;
    programs::add_llama_server(&mut root, &cache.join("llama-server/root"))?;
    for model in ["tiny-a.gguf", "tiny-b.gguf"] {
        root.file(&format!("/models/{model}"), &cache.join("models").join(model))
            .context("tests/real/llama-server makes the models")?;
    }
    make("registry.local/llama-server:1", root, json!({"Entrypoint": ["/usr/bin/llama-server"]}))
}

/// `registry.local/lifeboat:dev`: what the Dockerfile makes, of a binary that is built already.
///
/// # Errors
/// As [`all`].
pub fn lifeboat(bin: &Path) -> Result<Image> {
    let mut root = Root::default();
    root.program("/usr/bin/lifeboat", bin)?;
    programs::add_libraries(&mut root, bin)?;
    let roots = "/etc/ssl/certs/ca-certificates.crt";
    root.file(roots, Path::new(roots)).context("Debian's package ca-certificates brings it")?;
    let config = json!({"Entrypoint": ["/usr/bin/lifeboat"], "Cmd": ["run"]});
    make("registry.local/lifeboat:dev", root, config)
}

/// `registry.local/engine:1`: the testbed's own engine with busybox, and with s5cmd if tests/real/s5cmd has brought it.
///
/// # Errors
/// As [`all`].
pub fn engine(bin: &Path) -> Result<Image> {
    let mut root = Root::default();
    add_busybox(&mut root)?;
    root.program("/usr/bin/engine", bin)?;
    programs::add_libraries(&mut root, bin)?;
    if let Some(s5cmd) = programs::newest(&cache(), "s5cmd") {
        root.file("/usr/bin/s5cmd", &s5cmd)?;
    }
    make("registry.local/engine:1", root, json!({"Entrypoint": ["/usr/bin/engine"]}))
}

/// Busybox under the name of each applet.
fn add_busybox(root: &mut Root) -> Result<()> {
    let busybox = programs::static_busybox()?;
    for applet in programs::applets(&busybox)? {
        root.link(&format!("/bin/{applet}"), "busybox");
    }
    root.file("/bin/busybox", &busybox)
}

/// The cache that tests/real/common.sh fills.
fn cache() -> PathBuf {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given("LIFEBOAT_CACHE")
        .unwrap_or_else(|| given("HOME").unwrap_or_else(|| "/root".into()).join(".cache/lifeboat"))
}

/// The image in the cache.
fn make(name: &str, mut root: Root, config: Value) -> Result<Image> {
    root.directory("/tmp", 0o1777);
    make_in(&cache().join("images"), name, &root, config)
}

/// The image in this folder, made if it is not there yet.
fn make_in(folder: &Path, name: &str, root: &Root, mut config: Value) -> Result<Image> {
    config["Env"] = json!([PATH]);
    let short = name.rsplit('/').next().and_then(|last| last.split(':').next()).unwrap_or_default();
    ensure!(!short.is_empty(), "{name} is no name of an image");
    let mut inputs = blake3::Hasher::new();
    for part in [FORMAT, name, &config.to_string(), &root.inputs()] {
        inputs.update(&(part.len() as u64).to_le_bytes());
        inputs.update(part.as_bytes());
    }
    let tar = folder.join(format!("{short}-{}.tar", &inputs.finalize().to_hex()[..HASH]));
    if let Ok(known) = std::fs::File::options().write(true).open(&tar) {
        // Its time is when it was last asked for.
        known.set_modified(SystemTime::now()).with_context(|| format!("cannot touch {}", tar.display()))?;
    } else {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        remove_unused(folder, short);
        archive::write(&tar, name, root, &config).with_context(|| format!("cannot make the image {name}"))?;
    }
    Ok(Image { name: name.to_owned(), tar })
}

/// Removes this image's tars, and what is left of unfinished ones, that were not used for a day. What can't be removed
/// stays: the next run tries again.
fn remove_unused(folder: &Path, short: &str) {
    let is_ours = |name: &str| {
        let rest = name.strip_prefix(short).and_then(|rest| rest.strip_prefix('-'));
        let hash = rest.and_then(|rest| rest.strip_suffix(".tar").or_else(|| rest.strip_suffix(".part")));
        hash.is_some_and(|hash| hash.len() == HASH && hash.bytes().all(|digit| digit.is_ascii_alphanumeric()))
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let old = || entry.metadata().ok()?.modified().ok()?.elapsed().ok().filter(|age| *age > UNUSED);
        if entry.file_name().to_str().is_some_and(is_ours) && old().is_some() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
