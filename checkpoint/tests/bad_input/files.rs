//! Files that do not stay as they were while they are read.

use std::fs;
use std::io::Write;

use super::chunk::Chunking::Fixed;
use super::fixture::{World, noise, soon};
use super::{lineage, restore, versitygw};

#[tokio::test(flavor = "multi_thread")]
async fn files_that_vanish_grow_or_shrink_are_whole_or_left_out_by_name_and_the_commit_says_so() {
    let mut world = World::new();
    world.store = versitygw().await;
    for name in ["fine", "vanished", "replaced", "grown", "shrunk"] {
        world.write(name, &noise(300_000, 6));
    }
    let request = world.request(Fixed, None);
    // What was opened is what is saved: the pod may delete or replace the name.
    fs::remove_file(world.state().join("vanished")).unwrap();
    fs::rename(world.state().join("fine"), world.state().join("other")).unwrap();
    fs::copy(world.state().join("other"), world.state().join("fine")).unwrap();
    fs::write(world.state().join("new"), b"other bytes").unwrap();
    fs::rename(world.state().join("new"), world.state().join("replaced")).unwrap();
    let grown = fs::File::options().append(true).open(world.state().join("grown"));
    grown.unwrap().write_all(b"more").unwrap();
    fs::File::options().write(true).open(world.state().join("shrunk")).unwrap().set_len(5).unwrap();

    let saved = world.save(request).await.unwrap();
    let whole: Vec<_> = saved.files.iter().map(|file| file.path.clone()).collect();
    assert_eq!(whole, ["fine", "replaced", "vanished"]);
    let failed = saved.failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    assert!(
        failed.contains("grown: it grew to 300004") && failed.contains("shrunk: it shrank to 5"),
        "{failed}"
    );
    assert!(!saved.is_whole());

    let mut manifest = world.manifest(saved.files);
    manifest.partial = true;
    world.commit(&manifest, 1, "uid-0").await.unwrap();
    let found =
        lineage::survey(world.store.as_ref(), &world.claims(), &world.workload, soon()).await.unwrap();
    let head = found[0].head.as_ref().unwrap();
    assert!(head.partial);
    let read =
        restore::load_manifest(&world.store, &world.workload, head.manifest, None, soon()).await.unwrap();
    world.restore(&read).await.unwrap();
    for path in whole {
        assert!(fs::read(world.restored().join(&path)).unwrap() == noise(300_000, 6), "{path}");
    }
    assert!(!world.restored().join("grown").exists());
}
