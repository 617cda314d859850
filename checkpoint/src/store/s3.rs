//! S3, and what speaks it.
//!
//! The request shape is the cheapest that S3 still verifies (measured with aws-sdk-s3 1.157 over TLS: 0.46 to 0.56 CPU
//! seconds per GB; the SDK's default takes 1.25 from memory and 1.5 from a file): the body lies in memory, its CRC64NVME
//! goes in a header of our own (so there is no aws-chunked encoding), the payload is not hashed again for the
//! signature where TLS protects it, and there is no multipart upload. The SDK tries once; [`crate::retry`] decides the
//! rest.

mod classify;

use std::{
    ops::Range,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, ConfigBag, IdentityCache, Intercept, Region, RequestChecksumCalculation,
        ResponseChecksumValidation, RuntimeComponents, StalledStreamProtectionConfig,
        interceptors::BeforeDeserializationInterceptorContextRef, retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::BoxError,
    primitives::{ByteStream as Sent, DateTime, DateTimeFormat},
    types::ServerSideEncryption,
};
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore, rustls_provider::CryptoMode};
use base64::Engine as _;
use futures::{StreamExt, stream};
use jiff::Timestamp;

use self::classify::classify;
use super::{
    Body, ByteStream, Condition, LIST_MAX, Listed, Object, ObjectStore, Removal, StoreError, Version,
    body::too_large, collect, directory,
};
use crate::hash::Crc64;

/// Connecting within a region takes milliseconds; what takes longer is tried again elsewhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// S3 closes idle connections after about 5 s (so says <https://github.com/awslabs/aws-c-s3/blob/main/source/s3_client.c>),
/// and a request on a dying one is lost (<https://github.com/awslabs/aws-sdk-rust/issues/1417>).
const POOL_IDLE: Duration = Duration::from_secs(4);
/// The SDK's 20 s would be a sixth of a Spot notice.
const STALL_GRACE: Duration = Duration::from_secs(5);
/// Credentials are refreshed this long before they expire, or half of it (the SDK takes a random part): never during a notice.
const CREDENTIALS_EARLY: Duration = Duration::from_secs(300);

/// Where and how.
#[derive(Debug, Clone, Default)]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// A prefix for every key, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The bucket's region; else from the environment.
    pub region: Option<String>,
    /// Another endpoint than AWS's.
    pub endpoint: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// Certificate authorities to trust besides the system's (PEM).
    pub ca_file: Option<PathBuf>,
    /// What is asked of S3 for objects at rest.
    pub encryption: Encryption,
}

/// Server-side encryption.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// No header: the bucket's default decides (S3 encrypts every object since 2023).
    #[default]
    BucketDefault,
    /// Keys that S3 keeps.
    Aes256,
    /// A KMS key, by id, ARN or alias.
    Kms(String),
}

impl FromStr for Encryption {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        match text.split_once(':') {
            None if text == "bucket" => Ok(Self::BucketDefault),
            None if text == "aes256" => Ok(Self::Aes256),
            Some(("kms", key)) if !key.is_empty() => Ok(Self::Kms(key.to_owned())),
            _ => Err(StoreError::permanent(format!(
                "{text:?} is no encryption: give bucket, aes256 or kms:<key>"
            ))),
        }
    }
}

/// A store in an S3 bucket. See the module.
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    options: S3Options,
    /// Where nothing protects the payload on its way, it is signed.
    encrypted_transport: bool,
}

impl S3Store {
    /// Prepares a client. The network is touched only for credentials that come from it.
    ///
    /// # Errors
    /// [`StoreError::Permanent`] if the CA file cannot be read or the endpoint is no URL.
    pub async fn open(options: S3Options) -> Result<Self, StoreError> {
        let encrypted_transport = match options.endpoint.as_deref() {
            None => true,
            Some(url) if url.starts_with("https://") => true,
            Some(url) if url.starts_with("http://") => false,
            Some(url) => {
                return Err(StoreError::permanent(format!(
                    "the endpoint {url:?} begins with neither https:// nor http://"
                )));
            }
        };
        let mut loader =
            aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client(&options)?);
        if let Some(region) = &options.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let shared = loader.load().await;
        let mut config = aws_sdk_s3::config::Builder::from(&shared)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled().grace_period(STALL_GRACE).build(),
            )
            .identity_cache(IdentityCache::lazy().buffer_time(CREDENTIALS_EARLY).build())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            // Every extent and document is verified by us.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .force_path_style(options.path_style);
        if let Some(endpoint) = &options.endpoint {
            config = config.endpoint_url(endpoint);
        }
        if shared.region().is_none() {
            // S3-compatible servers do not care, and AWS says which region it should have been.
            config = config.region(Region::from_static("us-east-1"));
        }
        Ok(Self { client: Client::from_conf(config.build()), options, encrypted_transport })
    }

    fn key(&self, key: &str) -> String {
        if self.options.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.options.prefix) }
    }

    fn own_key<'a>(&self, key: &'a str) -> Option<&'a str> {
        if self.options.prefix.is_empty() {
            return Some(key);
        }
        key.strip_prefix(&self.options.prefix)?.strip_prefix('/')
    }
}

fn http_client(options: &S3Options) -> Result<aws_sdk_s3::config::SharedHttpClient, StoreError> {
    let mut trust = TrustStore::default();
    if let Some(path) = &options.ca_file {
        let pem = std::fs::read(path).map_err(|error| {
            StoreError::permanent(format!("the CA file {} cannot be read: {error}", path.display()))
        })?;
        // The client panics on a file without certificates when it first connects.
        if !pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
            return Err(StoreError::permanent(format!(
                "the CA file {} holds no PEM certificate",
                path.display()
            )));
        }
        trust = trust.with_pem_certificate(pem);
    }
    let context = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| StoreError::permanent(format!("TLS cannot be set up: {error}")))?;
    Ok(aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(POOL_IDLE)
        .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context)
        .build_https())
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put(&self, key: &str, body: Body, condition: Condition) -> Result<Version, StoreError> {
        let conditional = condition != Condition::Always;
        // Large bodies come with their sum: it was made where it holds up no other request.
        let crc = body.crc64.unwrap_or_else(|| Crc64::of(&body.bytes));
        let mut request = self
            .client
            .put_object()
            .bucket(&self.options.bucket)
            .key(self.key(key))
            .checksum_crc64_nvme(base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes()))
            .body(Sent::from(body.bytes));
        request = match &self.options.encryption {
            Encryption::BucketDefault => request,
            Encryption::Aes256 => request.server_side_encryption(ServerSideEncryption::Aes256),
            Encryption::Kms(id) => {
                request.server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id(id)
            }
        };
        request = match condition {
            Condition::Always => request,
            Condition::IfAbsent => request.if_none_match("*"),
            Condition::IfMatch(version) => request.if_match(version.0),
        };
        let sent = if self.encrypted_transport {
            request.customize().disable_payload_signing().send().await
        } else {
            request.send().await
        };
        let answer = sent.map_err(|error| match classify(error, &self.options.bucket, key) {
            // If-Match on a missing key is answered with 404.
            StoreError::NotFound { key } if conditional => StoreError::ConditionFailed { key },
            other => other,
        })?;
        version(answer.e_tag, key)
    }

    async fn get(&self, key: &str, at_most: u64) -> Result<Object, StoreError> {
        let date = AnsweredAt::default();
        let answer = self
            .client
            .get_object()
            .bucket(&self.options.bucket)
            .key(self.key(key))
            .customize()
            .interceptor(date.clone())
            .send()
            .await
            .map_err(|error| classify(error, &self.options.bucket, key))?;
        let size = answer.content_length.and_then(|size| u64::try_from(size).ok());
        if let Some(size) = size.filter(|size| *size > at_most) {
            return Err(too_large(key, size, at_most));
        }
        let modified = stamp(answer.last_modified.as_ref(), key)?;
        let version = version(answer.e_tag, key)?;
        let bytes = collect(received(answer.body, key), at_most, key).await?;
        if size.is_some_and(|size| size != bytes.len() as u64) {
            return Err(StoreError::transient(format!("{key}: the answer was cut short")));
        }
        // Without a Date the store's clock is unknown, and nothing may expire by another one.
        let store_now = date.read().unwrap_or(modified);
        Ok(Object { bytes, version, modified, store_now })
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let wanted = range.end - range.start;
        let sent = self
            .client
            .get_object()
            .bucket(&self.options.bucket)
            .key(self.key(key))
            .range(format!("bytes={}-{}", range.start, range.end - 1))
            .send()
            .await;
        let answer = match sent {
            // The object ends before the range begins.
            Err(error) if error.raw_response().is_some_and(|raw| raw.status().as_u16() == 416) => {
                return Ok(stream::empty().boxed());
            }
            sent => sent.map_err(|error| classify(error, &self.options.bucket, key))?,
        };
        if answer.content_range.is_none()
            && answer.content_length.is_none_or(|len| len.unsigned_abs() > wanted)
        {
            return Err(StoreError::permanent(format!(
                "{} ignores ranges: it cannot be restored from",
                self.describe()
            )));
        }
        Ok(received(answer.body, key))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.options.bucket)
                .prefix(self.key(prefix))
                .set_continuation_token(token.take())
                .send()
                .await
                .map_err(|error| classify(error, &self.options.bucket, prefix))?;
            for object in page.contents.unwrap_or_default() {
                let Some(key) = object.key.as_deref().and_then(|key| self.own_key(key)) else { continue };
                listed.push(Listed {
                    size: object.size.map_or(0, i64::unsigned_abs),
                    version: version(object.e_tag, key)?,
                    modified: stamp(object.last_modified.as_ref(), key)?,
                    key: key.to_owned(),
                });
            }
            if listed.len() > LIST_MAX {
                return Err(directory::too_many(prefix));
            }
            token = page.next_continuation_token;
            if page.is_truncated != Some(true) || token.is_none() {
                return Ok(listed);
            }
        }
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let date = AnsweredAt::default();
        // The cheapest request that needs no other right than listing: the answer's `Date` is what counts.
        self.client
            .list_objects_v2()
            .bucket(&self.options.bucket)
            .prefix(self.key("v1/"))
            .max_keys(1)
            .customize()
            .interceptor(date.clone())
            .send()
            .await
            .map_err(|error| classify(error, &self.options.bucket, "v1/"))?;
        date.read().ok_or_else(|| {
            StoreError::permanent(format!("{} gives no Date: ages cannot be told", self.describe()))
        })
    }

    fn describe(&self) -> String {
        let S3Options { bucket, prefix, endpoint, .. } = &self.options;
        let at = endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
        format!("s3://{bucket}/{prefix}{at}")
    }
}

#[async_trait]
impl Removal for S3Store {
    async fn delete(&self, key: &str, version: &Version) -> Result<(), StoreError> {
        let sent = self
            .client
            .delete_object()
            .bucket(&self.options.bucket)
            .key(self.key(key))
            .if_match(version.0.as_str())
            .send()
            .await;
        match sent.map_err(|error| classify(error, &self.options.bucket, key)) {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(StoreError::Denied { key, message }) => Err(StoreError::Denied {
                key,
                message: format!("{message}; to remove needs s3:DeleteObject too"),
            }),
            Err(error) => Err(error),
        }
    }
}

/// A body as it arrives. One that ends before its announced length ends with an error (hyper counts).
fn received(body: Sent, key: &str) -> ByteStream {
    let key = key.to_owned();
    stream::unfold(body, |mut body| async move { body.next().await.map(|frame| (frame, body)) })
        .map(move |frame| frame.map_err(|error| StoreError::transient(format!("{key}: {error}"))))
        .boxed()
}

fn version(etag: Option<String>, key: &str) -> Result<Version, StoreError> {
    etag.map(Version)
        .ok_or_else(|| StoreError::permanent(format!("{key}: the store gives no ETag; it is not S3")))
}

fn stamp(time: Option<&DateTime>, key: &str) -> Result<Timestamp, StoreError> {
    time.and_then(timestamp).ok_or_else(|| {
        StoreError::permanent(format!("{key}: the store gives no Last-Modified; it is not S3"))
    })
}

fn timestamp(time: &DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}

/// Takes the `Date` of an answer: the store's clock.
#[derive(Debug, Clone, Default)]
struct AnsweredAt(Arc<Mutex<Option<Timestamp>>>);

impl AnsweredAt {
    fn read(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for AnsweredAt {
    fn name(&self) -> &'static str {
        "AnsweredAt"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|text| DateTime::from_str(text, DateTimeFormat::HttpDate).ok());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date.as_ref().and_then(timestamp);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
