//! Answers that AWS gives and no server here does, played to the real client over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::fixture::{World, noise, soon};
use super::preflight::{self, PreflightError};
use super::save::SaveError;
use super::store::s3::Encryption;
use super::store::{Store, StoreError};
use super::{chunk::Chunking::Fixed, generation::CommitError};

/// A store that gives the same answer to everything: status line and S3's error document.
async fn that_always_says(status: &'static str, code: &str, inside: &str, encryption: Encryption) -> Store {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let body =
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>{inside}</Error>");
    // Ends with the process: it waits for connections that nobody makes any more.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let body = body.clone();
            std::thread::spawn(move || answer(&connection.unwrap(), status, &body));
        }
    });
    super::s3(&endpoint, "bucket", encryption).await
}

fn answer(connection: &TcpStream, status: &str, body: &str) -> Option<()> {
    let mut reader = BufReader::new(connection);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/xml\r\nconnection: close\r\n");
    let mut connection = connection;
    write!(connection, "{head}content-length: {}\r\n\r\n{body}", body.len()).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_in_another_region_is_named_with_the_flag_to_set() {
    for (status, code, inside) in [
        (
            "301 Moved Permanently",
            "PermanentRedirect",
            "<Message>The bucket you are attempting to access must be addressed using the specified endpoint. Please send \
             all future requests to this endpoint.</Message><Endpoint>bucket.s3.eu-west-1.amazonaws.com</Endpoint>",
        ),
        (
            "400 Bad Request",
            "AuthorizationHeaderMalformed",
            "<Message>The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'\
             </Message><Region>eu-west-1</Region>",
        ),
        (
            "400 Bad Request",
            "IllegalLocationConstraintException",
            "<Message>The eu-west-1 location constraint is incompatible for the region specific endpoint this request \
             was sent to.</Message>",
        ),
    ] {
        let store = that_always_says(status, code, inside, Encryption::BucketDefault).await;
        let error = preflight::prove(&store, soon()).await.unwrap_err();
        assert!(matches!(error, PreflightError::WrongRegion { .. }), "{code}: {error}");
        assert!(error.to_string().contains("--store-region"), "{code}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kms_key_that_is_refused_is_named_and_nothing_counts_as_saved() {
    let kms = || Encryption::Kms("arn:aws:kms:us-east-1:111122223333:key/1234".into());
    for (status, code, message) in [
        (
            "400 Bad Request",
            "KMS.DisabledException",
            "arn:aws:kms:us-east-1:111122223333:key/1234 is disabled.",
        ),
        (
            "400 Bad Request",
            "KMS.NotFoundException",
            "Key 'arn:aws:kms:us-east-1:111122223333:key/1234' does not exist",
        ),
        ("400 Bad Request", "KMS.KMSInvalidStateException", "the key is pending deletion."),
        (
            "403 Forbidden",
            "AccessDenied",
            "User: arn:aws:sts::111122223333:assumed-role/lifeboat is not authorized to perform: kms:GenerateDataKey",
        ),
    ] {
        let store = that_always_says(status, code, &format!("<Message>{message}</Message>"), kms()).await;
        let error = preflight::prove(&store, soon()).await.unwrap_err();
        assert!(matches!(error, PreflightError::Denied { .. }), "{code}: {error}");
        let said = error.to_string();
        assert!(said.contains(message) && said.contains("the KMS key's use"), "{code}: {said}");

        let mut world = World::new();
        world.store = store;
        world.write("kv.bin", &noise(1 << 20, 1));
        let error = world.save(world.request(Fixed, None)).await.unwrap_err();
        assert!(matches!(&error, SaveError::Store { source: StoreError::Denied { .. }, .. }), "{error}");
        let saved = error.into_partial();
        assert!(saved.files.is_empty() && saved.acknowledged.is_empty() && !saved.is_whole());
        let error = world.commit(&world.manifest(vec![]), 1, "uid-0").await.unwrap_err();
        assert!(matches!(error, CommitError::Store(StoreError::Denied { .. })), "{code}: {error}");
    }
}
