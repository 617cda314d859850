//! What is asked of S3 for objects at rest is asked for every object.

use aws_sdk_s3::types::ServerSideEncryption;

use super::fixture::{World, noise, soon};
use super::store::Store;
use super::store::s3::Encryption;
use super::{administrator, chunk::Chunking::Fixed, intent, manifest, variable};

/// A bucket on moto, which keeps what it was asked for; versitygw has no encryption.
async fn on_moto(encryption: Encryption) -> (Store, aws_sdk_s3::Client, String) {
    let endpoint = variable("LIFEBOAT_MOTO_ENDPOINT");
    let client = administrator::client(&endpoint, "any", "any");
    let bucket = format!("encrypted-{}", checkpoint::hash::nonce());
    client.create_bucket().bucket(&bucket).send().await.unwrap();
    (super::s3(&endpoint, &bucket, encryption).await, client, bucket)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_is_written_under_the_key_that_was_asked_for() {
    let key = "arn:aws:kms:us-east-1:111122223333:key/1234";
    for (encryption, algorithm, id) in [
        (Encryption::Kms(key.into()), Some(ServerSideEncryption::AwsKms), Some(key)),
        (Encryption::Aes256, Some(ServerSideEncryption::Aes256), None),
        (Encryption::BucketDefault, None, None),
    ] {
        let (store, client, bucket) = on_moto(encryption).await;
        let mut world = World::new();
        world.store = store;
        world.write("kv.bin", &noise(2 << 20, 1));
        let mut coming = intent::Intent {
            format: intent::FORMAT,
            lineage: world.lineage.clone(),
            source: world.manifest(vec![]).source,
            writer: "uid-0".into(),
            nonce: String::new(),
            notice_id: None,
            time_left_ms: 1000,
            spec_key: "spec".into(),
            packs: vec![],
            state: intent::IntentState::Coming,
        };
        coming.put(world.store.as_ref(), &world.workload, soon()).await.unwrap();
        let (manifest, _): (manifest::Manifest, _) = world.checkpoint(Fixed, None).await;
        world.restore(&manifest).await.unwrap();
        world.assert_same();

        let listed = client.list_objects_v2().bucket(&bucket).send().await.unwrap().contents.unwrap();
        assert_eq!(listed.len(), 4, "intent, pack, manifest and commit: {listed:?}");
        for object in listed {
            let head = client.head_object().bucket(&bucket).key(object.key().unwrap()).send().await.unwrap();
            assert_eq!(head.server_side_encryption.as_ref(), algorithm.as_ref(), "{:?}", object.key());
            assert_eq!(head.ssekms_key_id.as_deref(), id, "{:?}", object.key());
        }
    }
}
