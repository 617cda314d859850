//! A store by its address: `dir:/path`, `file:///path` or `s3://bucket/prefix`.

use std::{path::PathBuf, sync::Arc};

#[cfg(any(test, feature = "faults"))]
use super::faulty::{FaultPlan, FaultyStore};
use super::{
    Remover, Store, StoreError,
    directory::DirectoryStore,
    s3::{Encryption, S3Options, S3Store},
};

/// What an address does not say.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// The bucket's region; else as the AWS SDK finds it.
    pub region: Option<String>,
    /// Another endpoint than AWS's.
    pub endpoint: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`; most S3-compatible servers want it.
    pub path_style: bool,
    /// A PEM file with certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What is asked of S3; by default the bucket's own setting decides.
    pub encryption: Encryption,
    /// Faults, for drills and tests.
    #[cfg(any(test, feature = "faults"))]
    pub faults: Option<FaultPlan>,
}

/// Opens the store at `url`. The network is not touched yet: see [`crate::preflight`].
///
/// # Errors
/// [`StoreError::Permanent`] for an address that cannot be one; [`StoreError::NoSuchBucket`] for a missing folder.
pub async fn open(url: &str, options: StoreOptions) -> Result<Store, StoreError> {
    let store: Store = open_for_removal(url, options).await?;
    Ok(store)
}

/// [`open`] for the one who collects garbage or erases. No node calls this.
///
/// # Errors
/// As [`open`].
pub async fn open_for_removal(url: &str, options: StoreOptions) -> Result<Remover, StoreError> {
    let wrong = |why: &str| {
        StoreError::permanent(format!(
            "{url:?} is not a store: {why}; give s3://bucket/prefix, dir:/absolute/path or file:///absolute/path"
        ))
    };
    let folder = url.strip_prefix("file://").or_else(|| url.strip_prefix("dir:"));
    let store: Remover = if let Some(path) = folder {
        if !path.starts_with('/') {
            return Err(wrong("the path is not absolute"));
        }
        Arc::new(DirectoryStore::open(path)?)
    } else if let Some(place) = url.strip_prefix("s3://") {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() || bucket.contains(['?', '#', '@', ':']) {
            return Err(wrong("the bucket's name is missing or has characters that no bucket has"));
        }
        let prefix = prefix.trim_matches('/');
        if !prefix.is_empty() && prefix.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
            return Err(wrong("a component of the prefix is empty or begins with '.'"));
        }
        let s3 = S3Options {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            region: options.region,
            endpoint: options.endpoint,
            path_style: options.path_style,
            ca_file: options.ca_file,
            encryption: options.encryption,
        };
        Arc::new(S3Store::open(s3).await?)
    } else {
        return Err(wrong("the scheme is unknown"));
    };
    #[cfg(any(test, feature = "faults"))]
    let store: Remover = match options.faults {
        Some(plan) => Arc::new(FaultyStore::new(store, plan)),
        None => store,
    };
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_with_the_ones_that_are() {
        for url in [
            "",
            "bucket",
            "http://x",
            "dir:relative",
            "file://host/x",
            "s3://",
            "s3:///x",
            "s3://b/a/../c",
            "s3://u@b/x",
        ] {
            let error = open(url, StoreOptions::default()).await.unwrap_err();
            assert!(error.to_string().contains("s3://bucket/prefix"), "{url}: {error}");
        }
        let error = open("dir:/nowhere/at/all", StoreOptions::default()).await.unwrap_err();
        assert!(matches!(error, StoreError::NoSuchBucket { .. }));
    }
}
