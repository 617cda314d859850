//! Buckets that the credentials do not open.

use super::administrator::bucket_that_allows;
use super::fixture::{World, noise, soon};
use super::preflight::{self, PreflightError};
use super::save::SaveError;
use super::store::StoreError;
use super::store::s3::Encryption;
use super::{chunk::Chunking::Fixed, generation::CommitError, variable};

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_may_only_be_read_is_named_and_nothing_is_in_it_afterwards() {
    let (bucket, root) = bucket_that_allows(&["s3:GetObject", "s3:ListBucket"]).await;
    let store = super::s3(&variable("LIFEBOAT_S3_ENDPOINT"), &bucket, Encryption::BucketDefault).await;
    let error = preflight::prove(&store, soon()).await.unwrap_err();
    assert!(matches!(error, PreflightError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("allow s3:GetObject, s3:PutObject and s3:ListBucket"), "{error}");

    let mut world = World::new();
    world.store = store;
    world.write("kv.bin", &noise(1 << 20, 1));
    let error = world.save(world.request(Fixed, None)).await.unwrap_err();
    assert!(matches!(&error, SaveError::Store { source: StoreError::Denied { .. }, .. }), "{error}");
    let partial = error.into_partial();
    assert!(partial.files.is_empty() && !partial.is_whole());
    let error = world.commit(&world.manifest(partial.files), 1, "uid-0").await.unwrap_err();
    assert!(matches!(error, CommitError::Store(StoreError::Denied { .. })), "{error}");
    let left = root.list_objects_v2().bucket(&bucket).send().await.unwrap();
    assert_eq!(left.key_count, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_may_not_be_listed_is_named_before_anything_depends_on_it() {
    let (bucket, _) = bucket_that_allows(&["s3:GetObject", "s3:PutObject"]).await;
    let store = super::s3(&variable("LIFEBOAT_S3_ENDPOINT"), &bucket, Encryption::BucketDefault).await;
    let error = preflight::prove(&store, soon()).await.unwrap_err();
    assert!(matches!(error, PreflightError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("s3:ListBucket"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_missing_is_named_by_both_servers_and_nothing_is_committed() {
    for endpoint in ["LIFEBOAT_S3_ENDPOINT", "LIFEBOAT_MOTO_ENDPOINT"] {
        let store = super::s3(&variable(endpoint), "no-such-bucket", Encryption::BucketDefault).await;
        let error = preflight::prove(&store, soon()).await.unwrap_err();
        assert!(matches!(error, PreflightError::NoBucket { .. }), "{endpoint}: {error}");
        assert!(error.to_string().contains("no-such-bucket does not exist; create it or correct --store"));
        let mut world = World::new();
        world.store = store;
        let error = world.commit(&world.manifest(vec![]), 1, "uid-0").await.unwrap_err();
        assert!(matches!(error, CommitError::Store(StoreError::NoSuchBucket { .. })), "{endpoint}: {error}");
    }
}
