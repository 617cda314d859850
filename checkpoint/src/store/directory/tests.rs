use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{fixture::soon, retry};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(8).enable_all().build().unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    PutIfAbsent(u8, u8),
    PutIfCurrent(u8, u8),
    PutIfStale(u8, u8),
    Get(u8),
    Range(u8, u8, u8),
    List,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4_u8, any::<u8>()).prop_map(|(key, byte)| Step::Put(key, byte)),
        (0..4_u8, any::<u8>()).prop_map(|(key, byte)| Step::PutIfAbsent(key, byte)),
        (0..4_u8, any::<u8>()).prop_map(|(key, byte)| Step::PutIfCurrent(key, byte)),
        (0..4_u8, any::<u8>()).prop_map(|(key, byte)| Step::PutIfStale(key, byte)),
        (0..4_u8).prop_map(Step::Get),
        (0..4_u8, 0..40_u8, 0..40_u8).prop_map(|(key, from, len)| Step::Range(key, from, len)),
        Just(Step::List),
    ];
    proptest::collection::vec(step, 1..40)
}

fn body(byte: u8) -> Bytes {
    vec![byte; usize::from(byte % 32)].into()
}

/// What a key holds, and every version it ever had.
#[derive(Default)]
struct Reference {
    objects: BTreeMap<String, (Bytes, Version)>,
    stale: BTreeMap<String, Vec<Version>>,
}

async fn follow(steps: Vec<Step>) {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).unwrap();
    let mut reference = Reference::default();
    let key = |key: u8| format!("v1/a/{key}/object");
    for step in steps {
        match step {
            Step::Put(at, byte)
            | Step::PutIfAbsent(at, byte)
            | Step::PutIfCurrent(at, byte)
            | Step::PutIfStale(at, byte) => {
                let key = key(at);
                let present = reference.objects.get(&key).cloned();
                let (condition, allowed) = match &step {
                    Step::Put(..) => (Condition::Always, true),
                    Step::PutIfAbsent(..) => (Condition::IfAbsent, present.is_none()),
                    Step::PutIfCurrent(..) => match &present {
                        Some((_, version)) => (Condition::IfMatch(version.clone()), true),
                        None => (Condition::IfMatch(Version("never".into())), false),
                    },
                    _ => match reference.stale.get(&key).and_then(|stale| stale.first()) {
                        Some(version) => (Condition::IfMatch(version.clone()), false),
                        None => continue,
                    },
                };
                match store.put(&key, body(byte).into(), condition).await {
                    Ok(version) => {
                        assert!(allowed, "{step:?} was let through");
                        let stale = reference.stale.entry(key.clone()).or_default();
                        stale.extend(present.map(|(_, version)| version));
                        assert!(!stale.contains(&version), "a version came again");
                        reference.objects.insert(key, (body(byte), version));
                    }
                    Err(error) => {
                        assert!(!allowed && error.category() == "condition_failed", "{step:?}: {error}")
                    }
                }
            }
            Step::Get(at) => match (store.get(&key(at), 1000).await, reference.objects.get(&key(at))) {
                (Ok(object), Some((bytes, version))) => {
                    assert_eq!((&object.bytes, &object.version), (bytes, version));
                }
                (Err(StoreError::NotFound { .. }), None) => {}
                other => panic!("{other:?}"),
            },
            Step::Range(at, from, len) => {
                let range = u64::from(from)..u64::from(from) + u64::from(len);
                let got = retry::get_range(&store, &key(at), range, soon()).await;
                match (got, reference.objects.get(&key(at))) {
                    (Ok(part), Some((bytes, _))) => {
                        let clip = |at: usize| at.min(bytes.len());
                        assert_eq!(
                            part,
                            bytes.slice(clip(from.into())..clip(usize::from(from) + usize::from(len)))
                        );
                    }
                    (Err(StoreError::NotFound { .. }), None) => {}
                    other => panic!("{other:?}"),
                }
            }
            Step::List => {
                let listed = store.list("v1/a/").await.unwrap();
                let listed: Vec<_> = listed.into_iter().map(|one| (one.key, one.size, one.version)).collect();
                let expected: Vec<_> = reference
                    .objects
                    .iter()
                    .map(|(key, (bytes, version))| (key.clone(), bytes.len() as u64, version.clone()))
                    .collect();
                assert_eq!(listed, expected);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_directory_does_what_a_simple_map_does(steps in steps()) {
        runtime().block_on(follow(steps));
    }
}

#[test]
fn of_eight_that_create_one_key_one_wins() {
    runtime().block_on(async {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(DirectoryStore::open(root.path()).unwrap());
        for round in 0..100 {
            // Half of the rounds create, half replace the same version.
            let key = format!("race/{}", round / 2);
            let condition = match store.get(&key, 10).await {
                Ok(object) => Condition::IfMatch(object.version),
                Err(_) => Condition::IfAbsent,
            };
            let racers: Vec<_> = (0..8_u8)
                .map(|racer| {
                    let (store, key, condition) = (Arc::clone(&store), key.clone(), condition.clone());
                    // A store of its own per racer would be another process; the locks are the kernel's either way.
                    tokio::spawn(async move { store.put(&key, vec![racer].into(), condition).await })
                })
                .collect();
            let mut winners = 0;
            for racer in racers {
                match racer.await.unwrap() {
                    Ok(_) => winners += 1,
                    Err(error) => assert_eq!(error.category(), "condition_failed"),
                }
            }
            assert_eq!(winners, 1, "round {round}");
        }
    });
}

#[tokio::test]
async fn a_key_that_leads_elsewhere_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).unwrap();
    for key in ["", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/", ".hidden", "a\0b"] {
        let error = store.put(key, Bytes::new().into(), Condition::Always).await.unwrap_err();
        assert_eq!(error.category(), "permanent", "{key:?}: {error}");
        assert!(store.get(key, 1).await.is_err());
        assert!(store.get_range(key, 0..1).await.is_err());
    }
}

#[tokio::test]
async fn an_object_larger_than_expected_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).unwrap();
    store.put("k", vec![0; 11].into(), Condition::Always).await.unwrap();
    store.get("k", 11).await.unwrap();
    assert_eq!(store.get("k", 10).await.unwrap_err().category(), "permanent");
}

#[tokio::test]
async fn what_a_crashed_writer_left_is_never_seen() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).unwrap();
    fs::write(root.path().join("tmp/half"), b"half").unwrap();
    store.put("v1/x", Bytes::from_static(b"whole").into(), Condition::IfAbsent).await.unwrap();
    assert_eq!(store.list("").await.unwrap().len(), 1);
    assert_eq!(
        fs::read_dir(root.path().join("tmp")).unwrap().count(),
        1,
        "nothing of our own is left behind"
    );
}

#[tokio::test]
async fn a_version_never_comes_again_even_when_the_clock_steps_back() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).unwrap();
    store.put("k", Bytes::from_static(b"a").into(), Condition::Always).await.unwrap();
    // Written an hour from now, as far as the clock of today knows.
    let future = SystemTime::now() + Duration::from_secs(3600);
    let path = root.path().join("objects/k");
    File::options().write(true).open(&path).unwrap().set_modified(future).unwrap();
    let before = store.get("k", 1).await.unwrap();
    let replaced = Condition::IfMatch(before.version.clone());
    store.put("k", Bytes::from_static(b"a").into(), replaced).await.unwrap();
    let after = store.get("k", 1).await.unwrap();
    assert!(after.modified > before.modified && after.version != before.version);
}

#[tokio::test]
async fn only_the_version_that_was_looked_at_is_removed_and_none_comes_again() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).unwrap();
    let mut versions = std::collections::HashSet::new();
    for _ in 0..20 {
        let first = store.put("a/b", "1".into(), Condition::IfAbsent).await.unwrap();
        let second = store.put("a/b", "2".into(), Condition::Always).await.unwrap();
        let refused = store.delete("a/b", &first).await.unwrap_err();
        assert_eq!(refused.category(), "condition_failed");
        store.delete("a/b", &second).await.unwrap();
        store.delete("a/b", &second).await.unwrap();
        assert_eq!(store.get("a/b", 10).await.unwrap_err().category(), "not_found");
        assert!(versions.insert(first) && versions.insert(second));
    }
    assert!(store.now().await.unwrap() > store.clock().unwrap() - std::time::Duration::from_secs(60));
}
