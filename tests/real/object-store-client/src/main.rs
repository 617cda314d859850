//! The crate object_store, used as well as it can be: upload or download one object, in parts.
//!
//! object-store-client URL BUCKET CA put|get KEY FILE PARALLEL PART_MIB; the credentials come from the environment.
//!
//! The payload is not signed and has no checksum, which is the cheapest that this crate has; parts are read into memory
//! by pread, so many at a time, and downloaded ranges are written as their pieces arrive.

use std::{fs::File, ops::Range, os::unix::fs::FileExt, sync::Arc};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    Certificate, ClientOptions, GetOptions, ObjectStore, ObjectStoreExt,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use tokio::task::{JoinSet, spawn_blocking};

const MIB: u64 = 1024 * 1024;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, bucket, ca, what, key, file, parallel, part] = &arguments[..] else {
        bail!("give URL BUCKET CA put|get KEY FILE PARALLEL PART_MIB");
    };
    let ca = std::fs::read(ca).with_context(|| ca.clone())?;
    let store = AmazonS3Builder::from_env()
        .with_endpoint(url)
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(false)
        .with_unsigned_payload(true)
        .with_client_options(
            ClientOptions::new().with_root_certificate(Certificate::from_pem(&ca)?).with_timeout_disabled(),
        )
        .build()?;
    let (key, parallel, part) = (Path::from(key.as_str()), parallel.parse()?, part.parse::<u64>()? * MIB);
    match what.as_str() {
        "put" => put(&store, &key, File::open(file)?, parallel, part).await,
        "get" => get(Arc::new(store), key, File::create(file)?, parallel, part).await,
        other => bail!("{other} is neither put nor get"),
    }
}

async fn put(store: &impl ObjectStore, key: &Path, file: File, parallel: usize, part: u64) -> Result<()> {
    let size = file.metadata()?.len();
    let file = Arc::new(file);
    let mut upload = store.put_multipart(key).await?;
    let read = |offset: u64| {
        let file = Arc::clone(&file);
        async move {
            let bytes = spawn_blocking(move || {
                let mut bytes = vec![0; usize::try_from(part.min(size - offset))?];
                file.read_exact_at(&mut bytes, offset)?;
                Ok::<_, anyhow::Error>(Bytes::from(bytes))
            });
            bytes.await?
        }
    };
    // Parts are numbered in the order in which they are handed over, so they are read in order and sent at once.
    let mut parts = stream::iter((0..size).step_by(usize::try_from(part)?)).map(read).buffered(2);
    let mut sending = JoinSet::new();
    while let Some(bytes) = parts.try_next().await? {
        if sending.len() == parallel
            && let Some(sent) = sending.join_next().await
        {
            sent??;
        }
        sending.spawn(upload.put_part(bytes.into()));
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    upload.complete().await?;
    Ok(())
}

async fn get(store: Arc<AmazonS3>, key: Path, file: File, parallel: usize, part: u64) -> Result<()> {
    let size = store.head(&key).await?.size;
    file.set_len(size)?;
    let file = Arc::new(file);
    let range = |range: Range<u64>| {
        let (store, key, file) = (Arc::clone(&store), key.clone(), Arc::clone(&file));
        // A task of its own, so that all cores take part.
        tokio::spawn(async move {
            let mut at = range.start;
            let mut pieces =
                store.get_opts(&key, GetOptions::new().with_range(Some(range))).await?.into_stream();
            while let Some(piece) = pieces.try_next().await? {
                file.write_all_at(&piece, at)?;
                at += piece.len() as u64;
            }
            Ok::<_, anyhow::Error>(())
        })
    };
    let mut ranges = stream::iter((0..size).step_by(usize::try_from(part)?))
        .map(|offset| range(offset..size.min(offset + part)))
        .buffer_unordered(parallel);
    while let Some(done) = ranges.next().await {
        done??;
    }
    Ok(())
}
