//! What is wrong around a state, on real servers and real disks: named, the rest goes on, and nothing is committed that
//! is not whole or marked partial. `docs/store.md` lists every case with its test; the others are unit tests.
//!
//! `tests/run s3` starts the servers: versitygw (`LIFEBOAT_S3_ENDPOINT`, and `LIFEBOAT_S3_ROOT`, the access key and
//! secret of its administrator) and moto (`LIFEBOAT_MOTO_ENDPOINT`). Neither knows regions or refuses KMS keys as AWS
//! does: those answers are played, word for word from the S3 API reference, to the real client.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test from beginning to end")]

// The fixture is written for the crate itself: these names are what its `crate::` finds here.
use checkpoint::{
    chunk, claim, dispatcher, fingerprint, folder, generation, intent, key, lineage, manifest, preflight,
    restore, save, store,
};

#[allow(dead_code, reason = "shared with the unit tests, which use all of it")]
#[path = "../src/fixture.rs"]
mod fixture;

#[path = "bad_input/administrator.rs"]
mod administrator;
#[path = "bad_input/disk.rs"]
mod disk;
#[path = "bad_input/documents.rs"]
mod documents;
#[path = "bad_input/encryption.rs"]
mod encryption;
#[path = "bad_input/files.rs"]
mod files;
#[path = "bad_input/played.rs"]
mod played;
#[path = "bad_input/refused.rs"]
mod refused;

use store::s3::Encryption;
use store::{Store, StoreOptions, open};

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `tests/run s3`, which starts the servers"))
}

async fn s3(endpoint: &str, bucket: &str, encryption: Encryption) -> Store {
    let options = StoreOptions {
        region: Some("us-east-1".into()),
        endpoint: Some(endpoint.to_owned()),
        path_style: true,
        encryption,
        ..StoreOptions::default()
    };
    open(&format!("s3://{bucket}/test-{}", checkpoint::hash::nonce()), options).await.unwrap()
}

/// The bucket of versitygw that is ours to write to.
async fn versitygw() -> Store {
    s3(&variable("LIFEBOAT_S3_ENDPOINT"), &variable("LIFEBOAT_S3_BUCKET"), Encryption::BucketDefault).await
}
