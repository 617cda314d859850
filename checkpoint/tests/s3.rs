//! The store against a real S3 server: `LIFEBOAT_S3_ENDPOINT`, `LIFEBOAT_S3_BUCKET` and AWS credentials are in the
//! environment. `tests/run s3` starts versitygw and sets them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test from beginning to end")]

// The fixture is written for the crate itself: these names are what its `crate::` finds here.
use checkpoint::{
    chunk, claim, dispatcher, erase, fingerprint, folder, garbage, generation, hash, key, manifest,
    preflight, restore, retry, save, store, tombstone, workloads,
};

#[allow(dead_code, reason = "shared with the unit tests, which use all of it")]
#[path = "../src/fixture.rs"]
mod fixture;

use bytes::Bytes;
use chunk::Chunking::Fixed;
use fixture::{World, noise, soon, within_ms};
use hash::nonce;
use preflight::PreflightError;
use std::sync::Arc;
use std::time::Duration;
use store::{Condition, Remover, Store, StoreOptions, open, open_for_removal};

async fn server(bucket: Option<&str>) -> Store {
    let (url, options) = place(bucket);
    open(&url, options).await.unwrap()
}

async fn server_for_removal() -> Remover {
    let (url, options) = place(None);
    open_for_removal(&url, options).await.unwrap()
}

fn place(bucket: Option<&str>) -> (String, StoreOptions) {
    let variable = |name: &str| {
        std::env::var(name)
            .unwrap_or_else(|_| panic!("{name} is not set: run `tests/run s3`, which starts the server"))
    };
    let endpoint = variable("LIFEBOAT_S3_ENDPOINT");
    let bucket = bucket.map_or_else(|| variable("LIFEBOAT_S3_BUCKET"), str::to_owned);
    let options = StoreOptions {
        region: Some("us-east-1".into()),
        endpoint: Some(endpoint),
        path_style: true,
        ..StoreOptions::default()
    };
    (format!("s3://{bucket}/test-{}", nonce()), options)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_proves_itself_and_tells_time() {
    let store = server(None).await;
    assert_eq!(preflight::prove(&store, soon()).await, Ok(preflight::Conditions::Decided));
    let version = store.put("a/b", Bytes::from_static(b"body").into(), Condition::IfAbsent).await.unwrap();
    let object = store.get("a/b", 10).await.unwrap();
    assert_eq!((object.bytes.as_ref(), object.version), (b"body".as_ref(), version));
    let apart = object.store_now.duration_since(object.modified).as_secs();
    assert!((-1..=2).contains(&apart), "{apart}");
    assert_eq!(store.get("a/b", 3).await.unwrap_err().category(), "permanent");
    assert_eq!(store.get("a/c", 3).await.unwrap_err().category(), "not_found");
    assert_eq!(retry::get_range(store.as_ref(), "a/b", 2..100, soon()).await.unwrap(), "dy");
    assert_eq!(retry::get_range(store.as_ref(), "a/b", 4..5, soon()).await.unwrap(), "");
    let other = store.put("a/other", Bytes::from_static(b"other").into(), Condition::Always).await.unwrap();
    let stale = Condition::IfMatch(other);
    assert_eq!(
        store.put("a/b", Bytes::new().into(), stale.clone()).await.unwrap_err().category(),
        "condition_failed"
    );
    assert_eq!(
        store.put("a/none", Bytes::new().into(), stale).await.unwrap_err().category(),
        "condition_failed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_has_every_page() {
    let store = server(None).await;
    let puts =
        (0..1100).map(|n| {
            let store = Arc::clone(&store);
            async move {
                store.put(&format!("list/{n:04}"), Bytes::new().into(), Condition::Always).await.unwrap()
            }
        });
    futures::StreamExt::collect::<Vec<_>>(futures::StreamExt::buffer_unordered(
        futures::stream::iter(puts),
        16,
    ))
    .await;
    let listed = store.list("list/").await.unwrap();
    assert_eq!(listed.len(), 1100);
    assert_eq!(listed[1099].key, "list/1099");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_goes_to_a_real_server_and_comes_back() {
    let store = server(None).await;
    let mut world = World::new();
    world.store = store;
    world.write("slots/0.bin", &noise(9 << 20, 1));
    world.write("empty", b"");
    let (manifest, saved) = world.checkpoint(Fixed, None).await;
    assert_eq!(saved.bytes_sent, 9 << 20);
    let known = crate::save::known_packs(&world.store, &world.workload, soon()).await.unwrap();
    assert_eq!(known.len(), saved.packs_sent);
    world.restore(&manifest).await.unwrap();
    world.assert_same();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_eight_that_claim_on_a_real_server_one_wins() {
    let store = server(None).await;
    let mut world = World::new();
    world.store = store;
    let world = Arc::new(world);
    for _ in 0..20 {
        let lineage = crate::key::LineageId::new(&nonce()).unwrap();
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let (world, lineage) = (Arc::clone(&world), lineage.clone());
                let holder =
                    claim::Holder { pod_uid: format!("{racer}"), pod_name: "p".into(), node: "n".into() };
                let request =
                    claim::ClaimRequest { lineage, holder, lease: Duration::from_secs(30), named: false };
                tokio::spawn(async move {
                    world.claims().take(world.store.as_ref(), &world.workload, &request, soon()).await
                })
            })
            .collect();
        let mut held = Vec::new();
        for racer in racers {
            held.extend(racer.await.unwrap().ok());
        }
        assert_eq!(held.len(), 1);
        held[0].renew(soon()).await.unwrap();
        held[0].finish(soon()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_named() {
    let store = server(Some("no-such-bucket-here")).await;
    let error = preflight::prove(&store, soon()).await.unwrap_err();
    assert!(matches!(error, PreflightError::NoBucket { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named_within_the_deadline() {
    let options = StoreOptions {
        endpoint: Some("http://127.0.0.1:9".into()),
        path_style: true,
        ..StoreOptions::default()
    };
    let store = open("s3://bucket/x", options).await.unwrap();
    let error = preflight::prove(&store, within_ms(1500)).await.unwrap_err();
    assert!(matches!(error, PreflightError::Unreachable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_a_real_server_goes_by_its_clock_and_what_is_kept_comes_back() {
    let store = server_for_removal().await;
    preflight::prove_removal(store.as_ref(), soon()).await.unwrap();
    let mut world = World::new();
    world.store = store.clone();
    let mut last = None;
    for seed in 0..3 {
        world.write("a", &noise(1 << 20, seed));
        last = Some(world.checkpoint(Fixed, None).await.0);
    }
    let last = last.unwrap();
    let second = Duration::from_secs(1);
    let policy = garbage::Policy { keep: 1, grace: second, burial: second, ..garbage::Policy::default() };
    let (workload, until) = (&world.workload, soon());
    // Two collectors at once; their clock is the server's, so there is nothing to do but to look again.
    let mut marked = false;
    loop {
        let pass = || garbage::collect(&store, workload, &policy, "test", soon());
        let (one, other) = tokio::join!(pass(), pass());
        for collected in [one.unwrap(), other.unwrap()] {
            assert_eq!(collected.failed, None);
        }
        let left = tombstone::list(store.as_ref(), workload, soon()).await.unwrap().len();
        marked |= left > 0;
        let packs = store.list(&workload.packs()).await.unwrap().len();
        if marked && left == 0 && packs == last.packs().len() {
            break;
        }
        assert!(tokio::time::Instant::now() < until, "{left} tombstones and {packs} packs are left");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(store.list(&workload.manifests()).await.unwrap().len(), 1);
    world.restore(&last).await.unwrap();
    world.assert_same();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_on_a_real_server_is_erased_and_the_record_stays() {
    let store = server_for_removal().await;
    let mut world = World::new();
    world.store = store.clone();
    world.write("a", &noise(1 << 20, 1));
    world.checkpoint(Fixed, None).await;
    let request = erase::Request {
        cluster: "cluster".into(),
        namespace: "chat".into(),
        workload: None,
        by: "test".into(),
        force: false,
    };
    let record = erase::erase(store.as_ref(), &request, soon()).await.unwrap().unwrap();
    assert_eq!((record.objects, record.workloads.len()), (3, 1));
    assert!(workloads::find(store.as_ref(), "cluster", Some("chat"), soon()).await.unwrap().is_empty());
    let left = store.list("v1/").await.unwrap();
    assert!(left.len() == 1 && left[0].key.starts_with("v1/cluster/erased/chat/"), "{left:?}");
    assert_eq!(erase::erase(store.as_ref(), &request, soon()).await.unwrap(), None);
}
