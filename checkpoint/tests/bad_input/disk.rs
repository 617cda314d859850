//! Disks that are full: a tmpfs of a few megabytes, in a mount namespace of the test's own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use super::chunk::Chunking::Fixed;
use super::dispatcher::{Dispatcher, Limits};
use super::fixture::{World, noise, soon};
use super::folder::{Folder, FolderError};
use super::restore::{self, FetchProgress, FetchRequest, RestoreError, Verify};
use super::save::SaveError;
use super::store::{StoreOptions, open};

const SMALL: &str = "LIFEBOAT_TEST_SMALL_DISK";

/// Runs the test `name` of this binary once more, with a disk of 4 MiB. Root needs nothing for it; others a kernel
/// that lets users make namespaces, as most do.
fn with_a_small_disk(name: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(SMALL) {
        return Some(disk.into());
    }
    let disk = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let mount = "mount -t tmpfs -o size=4m,mode=0700 tmpfs \"$0\" && exec \"$@\"";
    command.args(["--mount", "sh", "-c", mount]).arg(disk.path()).arg(std::env::current_exe().unwrap());
    let test = command.args(["--exact", name, "--nocapture"]).env(SMALL, disk.path()).output().unwrap();
    let said = String::from_utf8_lossy(&test.stdout).into_owned() + &String::from_utf8_lossy(&test.stderr);
    assert!(test.status.success() && said.contains("1 passed"), "{said}");
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_before_anything_is_fetched_and_nothing_of_the_restore_is_visible() {
    let Some(disk) = with_a_small_disk(
        "disk::a_full_disk_is_named_before_anything_is_fetched_and_nothing_of_the_restore_is_visible",
    ) else {
        return;
    };
    let world = World::new();
    world.write("a/small", &noise(1 << 20, 1));
    world.write("b/large", &noise(6 << 20, 2));
    let (manifest, _) = world.checkpoint(Fixed, None).await;
    let folder = Folder::open(&disk).unwrap();
    let progress = Arc::new(FetchProgress::default());
    let dispatcher = Dispatcher::new(Limits::slots(4));
    let (into, deadline) = (".lifeboat/restore/1", soon());
    let request = FetchRequest {
        manifest: &manifest,
        folder: &folder,
        into,
        earlier: None,
        verify: Verify::Names,
        rank: 0,
        deadline,
    };
    let fetch = restore::fetch(&world.store, request, &dispatcher, &progress);
    let error = fetch.await.unwrap_err();
    let RestoreError::Folder(FolderError::DiskFull { path, needed }) = &error else { panic!("{error}") };
    assert!(path.contains("b/large") && *needed == 6 << 20, "{error}");
    assert_eq!(progress.bytes_fetched(), 0);
    let visible: Vec<_> = fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(visible, [".lifeboat"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_store_that_is_full_is_named_and_nothing_is_committed() {
    let Some(disk) =
        with_a_small_disk("disk::a_directory_store_that_is_full_is_named_and_nothing_is_committed")
    else {
        return;
    };
    let mut world = World::new();
    world.store = open(&format!("dir:{}", disk.display()), StoreOptions::default()).await.unwrap();
    world.write("0", &noise(1 << 20, 1));
    world.write("1", &noise(6 << 20, 2));
    let error = world.save(world.request(Fixed, None)).await.unwrap_err();
    let SaveError::Store { source, .. } = &error else { panic!("{error}") };
    assert!(source.to_string().contains("the store's file system is full"), "{error}");
    let partial = error.into_partial();
    assert!(!partial.is_whole());
    // A pack counts when it is there: what is named whole can be restored.
    world.restore(&world.manifest(partial.files)).await.unwrap();
    assert!(world.store.list("v1/").await.unwrap().iter().all(|object| object.key.contains("/pack/")));
}
