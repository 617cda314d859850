//! Every object of a checkpoint, damaged in every way: refused by its name, the generation before it is offered, and
//! never other bytes restored than were saved.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use checkpoint::{
    claim::{ClaimError, ClaimState},
    intent::IntentState,
    store::directory::DirectoryStore,
};

use super::{
    model::Damage,
    replica::{Files, Found, Replica, contents, lay_out, noise, soon},
};

/// What can happen to an object at rest or on its way there.
const WAYS: [Damage; 7] = [
    Damage::Torn,
    Damage::Short,
    Damage::Empty,
    Damage::Swapped,
    Damage::Stale,
    Damage::Flipped,
    Damage::Missing,
];

/// A store with two generations that share packs, and with what is needed to damage it.
struct Scene {
    root: tempfile::TempDir,
    source: Replica,
    states: [Files; 2],
}

impl Scene {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("store");
        fs::create_dir(&store).unwrap();
        let source = Replica::new(Arc::new(DirectoryStore::open(&store).unwrap()), "source");
        let first: Files =
            [("slots/0.bin".to_owned(), noise((6 << 20) + 100, 1)), ("small".to_owned(), noise(500, 2))]
                .into();
        let mut second = first.clone();
        // A pack and a bit are new, the rest is the parent's.
        second.insert("slots/1.bin".into(), noise(5 << 20, 3));
        second.get_mut("small").unwrap()[7] ^= 1;
        let state = root.path().join("state");
        lay_out(&state, &first);
        let (manifest, generation) = source.checkpoint(&state, None).await;
        lay_out(&state, &second);
        let (_, generation) = source.checkpoint(&state, Some((&manifest, &generation))).await;
        source.announce(IntentState::Committed { number: generation.number }).await.unwrap();
        Self { root, source, states: [first, second] }
    }

    fn objects(&self) -> PathBuf {
        self.root.path().join("store/objects")
    }

    /// Everything that belongs to the second generation and not to the first, in pairs with the object of the first that
    /// has the same place in it.
    async fn of_the_head(&self) -> Vec<(String, String)> {
        let source = &self.source;
        let lineage = source.survey().await.unwrap();
        let (head, parent) = (lineage.head.unwrap(), lineage.older[0].clone());
        let packs = async |generation| source.load(generation).await.unwrap().packs();
        let (of_head, of_parent) = (packs(&head).await, packs(&parent).await);
        let old = source.workload.pack(*of_parent.iter().min().unwrap());
        let new: Vec<_> = of_head.difference(&of_parent).collect();
        assert!(new.len() >= 2, "there is no pack to swap one with");
        let mut objects: Vec<_> =
            new.iter().map(|pack| (source.workload.pack(**pack), old.clone())).collect();
        let manifest =
            |generation: &checkpoint::generation::Generation| source.workload.manifest(generation.manifest);
        objects.push((manifest(&head), manifest(&parent)));
        let commit = |one: &checkpoint::generation::Generation| {
            source.workload.generation(&source.lineage, one.number)
        };
        objects.push((commit(&head), commit(&parent)));
        objects
    }

    async fn restore(&self) -> (Found, Files) {
        let folder = self.root.path().join("restored");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let found = self.source.restore_newest(&folder).await;
        (found, contents(&folder))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_the_head_that_is_damaged_in_any_way_is_named_and_its_parent_restored() {
    let scene = Scene::new().await;
    let objects = scene.of_the_head().await;
    let swap_with = objects.clone();
    for (at, (key, stale)) in objects.iter().enumerate() {
        let path = scene.objects().join(key);
        let good = fs::read(&path).unwrap();
        let kind = |key: &str| key.rsplit('/').nth(1).unwrap().to_owned();
        // Another of the same kind, of the same generation if it has one.
        let other = swap_with.iter().enumerate().find(|(i, (other, _))| *i != at && kind(other) == kind(key));
        let other = other.map_or(stale, |(_, (other, _))| other);
        for way in WAYS {
            let what = format!("{way:?}: {key}");
            let replaced_by = if way == Damage::Swapped { other } else { stale };
            way.inflict(&path, &scene.objects().join(replaced_by));
            assert_ne!(fs::read(&path).ok().as_ref(), Some(&good), "{what} is no damage");
            let (found, restored) = scene.restore().await;
            let generation =
                found.generation.unwrap_or_else(|| panic!("{what}: nothing is offered: {:?}", found.refused));
            if generation.number.n == 2 && way == Damage::Flipped && kind(key) == "gen" {
                // The commit has no checksum of its own: what it leads to has. A bit in a word for people changes nothing.
                assert!(restored == scene.states[1], "{what}: other bytes");
            } else {
                assert_eq!(generation.number.n, 1, "{what}: not refused");
                assert!(restored == scene.states[0], "{what}: other bytes than the parent's");
                let name = key.rsplit('/').next().unwrap().trim_end_matches(".json");
                let named = found.refused.iter().any(|refused| refused.contains(name));
                assert!(named, "{what}: not named: {:?}", found.refused);
            }
            fs::write(&path, &good).unwrap();
        }
    }
    let (found, restored) = scene.restore().await;
    assert!(found.refused.is_empty() && restored == scene.states[1], "whole again: {found:?}");
}

/// In a commit every field that leads somewhere, one bit at a time.
#[tokio::test(flavor = "multi_thread")]
async fn no_bit_of_a_commit_can_be_flipped_so_that_other_bytes_are_restored() {
    let scene = Scene::new().await;
    let commit = scene.of_the_head().await.pop().unwrap().0;
    let path = scene.objects().join(&commit);
    let good = fs::read(&path).unwrap();
    let (mut refused, mut unnoticed) = (0, 0);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        let head = scene.source.survey().await.unwrap().head.unwrap();
        // One way to other bytes: a manifest that is another's.
        match scene.source.load(&head).await {
            Ok(manifest) if head.number.n == 2 => {
                assert_eq!(manifest.files.len(), scene.states[1].len(), "bit {bit}");
                assert!(!head.partial && !manifest.partial, "bit {bit}");
                unnoticed += 1;
            }
            Ok(_) => refused += 1,
            Err(error) => {
                assert!(error.to_string().contains("not in the store"), "bit {bit}: {error}");
                refused += 1;
            }
        }
    }
    println!(
        "of {} flips {refused} are refused, {unnoticed} hit words that lead nowhere",
        refused + unnoticed
    );
    assert!(refused > unnoticed);
}

/// A store that was rolled back shows an old claim: whoever holds the newer one is told.
#[tokio::test]
async fn an_older_claim_that_is_put_back_fences_its_successor_and_gives_nobody_two() {
    let scene = Scene::new().await;
    let (first, second) = (scene.source.on(scene.source.store.clone(), "first"), &scene.source);
    let mut held = first.claim(true).await.unwrap();
    let path = scene.objects().join(second.workload.claim(&second.lineage));
    let stale = fs::read(&path).unwrap();
    held.finish(soon()).await.unwrap();
    let mut followed = second.claim(true).await.unwrap();
    assert_eq!(followed.claim().state, ClaimState::Restoring);
    put_back(&path, &stale);
    let error = followed.finish(soon()).await.unwrap_err();
    assert!(matches!(error, ClaimError::Fenced { .. }), "{error}");
    let third = scene.source.on(scene.source.store.clone(), "third");
    assert!(matches!(third.claim(true).await, Err(ClaimError::Held { .. })));
}

fn put_back(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("stale");
    fs::write(&beside, bytes).unwrap();
    fs::rename(beside, path).unwrap();
}
