//! What a node's containerd holds before its first start: every image, imported and unpacked.
//!
//! An import takes seconds of both cores for each node, so it is done once for a set of images, in a store in the cache, and
//! each node begins with a copy. containerd never writes to a blob or to a layer again (the first has its digest as its
//! name, the second is only ever the lower side of an overlay), so a copy shares them by hard links. Its databases, which
//! it does write, are real copies.

use super::World;
use super::process::{Recipe, run};
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Stores that no node began with in this time are removed when another is made: each build of the agent needs its own.
const UNUSED: Duration = Duration::from_secs(60 * 60);

/// Fills the root of the node's containerd, which does not run, with these images.
pub fn fill(world: &World, host: &str, images: &[&Path], root: &Path) -> Result<()> {
    let stores =
        images.first().and_then(|image| image.parent()).context("a node without images")?.join("stores");
    std::fs::create_dir_all(&stores)?;
    let mut names = blake3::Hasher::new();
    for image in images {
        names.update(image.file_name().unwrap_or_default().as_encoded_bytes());
        names.update(&[0]);
    }
    let store = stores.join(&names.finalize().to_hex()[..16]);
    // One at a time makes stores and removes them, and nobody copies meanwhile.
    let lock = File::create(stores.join("lock"))?;
    lock.lock_shared()?;
    if !store.is_dir() {
        lock.unlock()?;
        lock.lock()?;
        if !store.is_dir() {
            remove_unused(&stores);
            make(world, host, images, &store)?;
        }
    }
    File::open(&store)?.set_modified(SystemTime::now())?;
    copy(&store, root)
}

/// Lets a containerd of its own import them.
fn make(world: &World, host: &str, images: &[&Path], store: &Path) -> Result<()> {
    let part = store.with_extension("part");
    if part.exists() {
        std::fs::remove_dir_all(&part)?;
    }
    let name = format!("containerd-store-{host}");
    let below = world.folder.path(&name);
    std::fs::create_dir_all(&below)?;
    let (config, socket) = (below.join("containerd.toml"), below.join("containerd.sock"));
    std::fs::write(
        &config,
        format!(
            "version = 2\nroot = {part:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {socket:?}\n",
            below.join("state")
        ),
    )?;
    let command = ["containerd".into(), "-c".into(), config.into_os_string()];
    world.processes.start(Recipe::new(&name, host, command))?;
    let ctr = |words: &[&OsStr]| {
        run(["ctr".as_ref(), "-a".as_ref(), socket.as_os_str()]
            .iter()
            .chain(words)
            .map(|word| word.to_os_string()))
    };
    world.processes.until(&name, Duration::from_secs(30), || ctr(&["version".as_ref()]).is_ok())?;
    for image in images {
        ctr(&["-n".as_ref(), "k8s.io".as_ref(), "images".as_ref(), "import".as_ref(), image.as_os_str()])?;
    }
    world.processes.end(&name)?;
    std::fs::remove_dir_all(&below)?;
    std::fs::rename(&part, store).with_context(|| format!("cannot keep {}", store.display()))
}

/// Both folders are seen from outside: the kernel makes no hard link from one mount to another, be it of the same disk.
fn copy(store: &Path, root: &Path) -> Result<()> {
    std::fs::create_dir_all(root)?;
    let all =
        |how: &str| run(["cp".as_ref(), how.as_ref(), "-T".as_ref(), store.as_os_str(), root.as_os_str()]);
    if all("-al").is_err() {
        // The cache is on another disk.
        all("-a").map(drop)?;
        return Ok(());
    }
    // A plugin's databases lie beside its folders of blobs and layers.
    for plugin in folders(store)? {
        for entry in std::fs::read_dir(&plugin)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let copy = root.join(plugin.strip_prefix(store)?).join(entry.file_name());
                std::fs::remove_file(&copy)?;
                std::fs::copy(entry.path(), copy)?;
            }
        }
    }
    Ok(())
}

fn folders(store: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(store)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().map(std::fs::DirEntry::path).filter(|path| path.is_dir()).collect())
}

/// What can't be removed stays: the next one tries again.
fn remove_unused(stores: &Path) {
    for entry in std::fs::read_dir(stores).into_iter().flatten().flatten() {
        let unused = || entry.metadata().ok()?.modified().ok()?.elapsed().ok().filter(|age| *age > UNUSED);
        if unused().is_some() {
            // The lock, which is no folder, stays as well.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
