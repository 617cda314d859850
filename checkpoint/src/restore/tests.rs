use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::{
    chunk::Chunking::{ContentDefined, Fixed},
    fixture::{World, noise, soon, within_ms},
    lineage,
};

async fn saved() -> (World, Manifest) {
    let world = World::new();
    world.write("slots/0.bin", &noise(9 << 20, 1));
    world.write("slots/1.bin", &noise(100, 2));
    world.write("empty", b"");
    fs::set_permissions(world.state().join("slots/1.bin"), fs::Permissions::from_mode(0o640)).unwrap();
    let (manifest, _) = world.checkpoint(Fixed, None).await;
    (world, manifest)
}

#[tokio::test]
async fn what_was_saved_comes_back_byte_for_byte_through_the_commit() {
    for chunking in [Fixed, ContentDefined] {
        let world = World::new();
        world.write("slots/0.bin", &noise(9 << 20, 1));
        world.write("a/b/c", &noise(3, 2));
        world.write("empty", b"");
        world.checkpoint(chunking, None).await;
        let found =
            lineage::survey(world.store.as_ref(), &world.claims(), &world.workload, soon()).await.unwrap();
        let head = found[0].head.as_ref().unwrap();
        let manifest =
            load_manifest(&world.store, &world.workload, head.manifest, None, soon()).await.unwrap();
        world.restore(&manifest).await.unwrap();
        world.assert_same();
        assert!(!world.restored().join(".lifeboat/restore/1").exists());
    }
}

#[tokio::test]
async fn a_torn_pack_is_refused_by_name() {
    let mut world = World::new();
    world.write("slots/0.bin", &noise(3 << 20, 1));
    let faulty = world.break_store("put:pack=torn#1");
    let (manifest, _) = world.checkpoint(Fixed, None).await;
    assert_eq!(faulty.struck()[0].1, 1);
    let error = world.restore(&manifest).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Corrupt { path, .. } if path == "slots/0.bin"), "{error}");
    assert!(error.to_string().contains("the pack ends at byte"), "{error}");
    assert!(!world.restored().join("slots").exists(), "nothing of it may be visible");
}

#[tokio::test]
async fn a_flipped_bit_a_missing_pack_and_a_swapped_one_are_refused_by_name() {
    let (world, manifest) = saved().await;
    let packs = world.objects("/pack/");
    let good = fs::read(&packs[0]).unwrap();

    let mut flipped = good.clone();
    flipped[1000] ^= 1;
    fs::write(&packs[0], &flipped).unwrap();
    let error = world.restore(&manifest).await.unwrap_err().to_string();
    assert!(error.contains("do not match their checksum") && error.contains("slots/"), "{error}");

    fs::copy(&packs[1], &packs[0]).unwrap();
    assert!(matches!(world.restore(&manifest).await.unwrap_err(), RestoreError::Corrupt { .. }));

    fs::remove_file(&packs[0]).unwrap();
    let error = world.restore(&manifest).await.unwrap_err().to_string();
    assert!(error.contains("the pack is not in the store"), "{error}");

    fs::write(&packs[0], &good).unwrap();
    world.restore(&manifest).await.unwrap();
    world.assert_same();
}

#[tokio::test]
async fn bytes_damaged_on_the_way_are_asked_for_again() {
    let (mut world, manifest) = saved().await;
    let faulty = world.break_store("range=flip#1");
    world.restore(&manifest).await.unwrap();
    assert_eq!(faulty.struck()[0].1, 1);
    world.assert_same();
}

#[tokio::test]
async fn a_fetch_that_was_interrupted_keeps_what_it_had() {
    let (mut world, manifest) = saved().await;
    let inner = Arc::clone(&world.store);
    world.break_store("range=slow:8MiB/s");
    let error = world.fetch(&manifest, within_ms(800)).await.unwrap_err();
    let RestoreError::OutOfTime { done, total } = error else { panic!("{error}") };
    assert!(done > 0 && done < total, "{done} of {total}");
    world.store = inner;
    let progress = world.fetch(&manifest, soon()).await.unwrap();
    assert!(progress.bytes_kept() >= done, "{} kept", progress.bytes_kept());
    assert_eq!(progress.bytes_kept() + progress.bytes_fetched(), total);
    // What is in the staging folder is not trusted: a byte that was changed there is fetched again.
    let staged = world.restored().join(".lifeboat/restore/1/slots/0.bin");
    let mut tampered = fs::read(&staged).unwrap();
    tampered[5 << 20] ^= 1;
    fs::write(&staged, tampered).unwrap();
    let progress = world.fetch(&manifest, soon()).await.unwrap();
    assert_eq!(progress.bytes_fetched(), 1 << 20);
    world.restore(&manifest).await.unwrap();
    world.assert_same();
}

#[tokio::test]
async fn a_link_planted_in_the_way_is_not_followed() {
    let (world, manifest) = saved().await;
    let elsewhere = world.root.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, world.restored().join("slots")).unwrap();
    let error = world.restore(&manifest).await.unwrap_err();
    assert!(matches!(error, RestoreError::Folder(_)), "{error}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    fs::remove_file(world.restored().join("slots")).unwrap();
    fs::remove_dir_all(world.restored().join(".lifeboat")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, world.restored().join(".lifeboat")).unwrap();
    assert!(world.restore(&manifest).await.is_err());
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[tokio::test]
async fn a_disk_that_is_too_small_is_named_before_anything_is_fetched() {
    let world = World::new();
    // More than any disk: 64 PiB of one block, again and again, would be hostile and is still well-formed.
    let mut manifest = world.manifest(vec![]);
    manifest.files.push(crate::manifest::FileEntry {
        path: "huge".into(),
        size: 1 << 56,
        mode: 0o600,
        extents: vec![],
    });
    let error = world.fetch(&manifest, soon()).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Folder(_)), "{error}");
    assert!(error.to_string().contains("huge"), "{error}");
}

#[tokio::test]
async fn a_manifest_that_is_not_its_name_or_not_this_workloads_is_refused() {
    let (world, _) = saved().await;
    let path = world.objects("/manifest/").remove(0);
    let hash: ContentHash = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let load = |workload: Workload| {
        let store = Arc::clone(&world.store);
        async move { load_manifest(&store, &workload, hash, None, soon()).await }
    };
    load(world.workload.clone()).await.unwrap();

    let other = Workload::new("cluster", "other", "llama").unwrap();
    let copy = world.root.path().join("store/objects").join(other.manifest(hash));
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::copy(&path, copy).unwrap();
    let error = load(other).await.unwrap_err().to_string();
    assert!(error.contains("it belongs to cluster/chat/llama"), "{error}");

    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = load(world.workload.clone()).await.unwrap_err().to_string();
    assert!(error.contains("not the ones it is named after"), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(load(world.workload.clone()).await.unwrap_err().to_string().contains("not in the store"));
}

/// Two generations, the second with a new beginning and one file less; the first is fetched already.
async fn fetched_before(chunking: crate::chunk::Chunking) -> (World, Manifest, Manifest) {
    let world = World::new();
    let mut grown = noise(9 << 20, 1);
    world.write("slots/0.bin", &grown);
    world.write("slots/gone.bin", &noise(1 << 20, 5));
    let (first, _) = world.checkpoint(chunking, None).await;
    world.fetch(&first, soon()).await.unwrap();
    fs::rename(
        world.restored().join(".lifeboat/restore/1"),
        world.restored().join(".lifeboat/restore/before"),
    )
    .unwrap();
    grown.splice(0..0, noise(64 << 10, 9));
    world.write("slots/0.bin", &grown);
    fs::remove_file(world.state().join("slots/gone.bin")).unwrap();
    let (second, _) = world.checkpoint(chunking, Some(&first)).await;
    (world, first, second)
}

async fn fetch_again(world: &World, first: &Manifest, second: &Manifest) -> Arc<FetchProgress> {
    let folder = Folder::open(&world.restored()).unwrap();
    let progress = Arc::new(FetchProgress::default());
    let request = FetchRequest {
        manifest: second,
        folder: &folder,
        into: ".lifeboat/restore/1",
        earlier: Some(Earlier { manifest: first, staging: ".lifeboat/restore/before" }),
        verify: Verify::Names,
        rank: 0,
        deadline: soon(),
    };
    fetch(&world.store, request, &Dispatcher::new(crate::dispatcher::Limits::slots(4)), &progress)
        .await
        .unwrap();
    install(&folder, ".lifeboat/restore/1", second).await.unwrap();
    progress
}

#[tokio::test]
async fn what_was_fetched_of_the_generation_before_is_not_fetched_again() {
    let (world, first, second) = fetched_before(ContentDefined).await;
    let progress = fetch_again(&world, &first, &second).await;
    let total = second.bytes_total();
    assert!(progress.bytes_fetched() < total / 10, "{} of {total} fetched", progress.bytes_fetched());
    assert_eq!(progress.bytes_kept() + progress.bytes_fetched(), total);
    world.assert_same();
    assert!(
        !world.restored().join(".lifeboat/restore").exists(),
        "the other generation's staging stays behind"
    );
}

#[tokio::test]
async fn what_was_changed_in_the_staging_of_the_generation_before_is_fetched_again() {
    let (world, first, second) = fetched_before(ContentDefined).await;
    let staged = world.restored().join(".lifeboat/restore/before/slots/0.bin");
    let mut tampered = fs::read(&staged).unwrap();
    tampered.iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(&staged, tampered).unwrap();
    let progress = fetch_again(&world, &first, &second).await;
    assert_eq!(progress.bytes_kept(), 0);
    world.assert_same();
}
