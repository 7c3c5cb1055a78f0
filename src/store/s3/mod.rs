//! The adapter to S3 by the AWS SDK.
//!
//! Invariants:
//! - nothing is read from the environment, no request is anonymous, and only the client handed in dials;
//! - one call is one request. It is repeated once, and only when the server doubts the lease or the
//!   clock; everything else is repeated above (`retry`), or not at all;
//! - a lease is asked for per request, so that a repeat after hours is not signed with an old one;
//!   where keys lie in the identity's folder, a repeat with another identity's is refused as transient;
//! - an upload holds at most two frames in memory.

mod body;
mod error;
mod headers;
mod list;
mod multipart;
mod object;
mod region;
mod uploads;
mod wire;
mod words;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use parking_lot::Mutex;
use tokio::time::timeout;

use self::error::{Doubt, Failure};
use self::region::Signing;
use self::wire::{Provider, Seen, Trim};
use super::region::RegionMemory;
use super::{
    CopyRequest, Download, ListPage, ListRequest, ObjectStore, Op, PartDone, Payload, Result,
    StoreError, UploadId,
};
use crate::creds::Leases;
use crate::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

/// How long one request may take (the SDK would call it the attempt timeout) whose answer is short.
const SHORT_ATTEMPT: Duration = Duration::from_secs(30);
/// The same of a listing: a page is 330 KB, which are 83 s at 32 kbit/s.
const LIST_ATTEMPT: Duration = Duration::from_secs(180);

/// Which bucket, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The bucket's name.
    pub bucket: String,
    /// Its region; `None`: it is learnt from the bucket.
    pub region: Option<String>,
    /// In place of the region's public endpoint.
    pub endpoint_url: Option<String>,
    /// The bucket in the path, not in the host's name.
    pub path_style: bool,
    /// Keys lie in the folder of the identity that signs.
    pub is_rooted: bool,
}

impl Config {
    /// Where requests go, as a URL without a path; while the region is not known, where it is asked for.
    #[must_use]
    pub fn url(&self) -> String {
        let base = self
            .endpoint_url
            .clone()
            .unwrap_or_else(|| match &self.region {
                None => region::EVERYWHERE.to_owned(),
                Some(region) => {
                    let ending = if region.starts_with("cn-") { ".cn" } else { "" };
                    format!("https://s3.{region}.amazonaws.com{ending}")
                }
            });
        let base = base.trim_end_matches('/');
        match base.split_once("://") {
            Some((scheme, host)) if !self.path_style => {
                format!("{scheme}://{}.{host}", self.bucket)
            }
            _ => base.to_owned(),
        }
    }
}

/// A bucket of S3 or of a server that speaks its protocol.
pub struct S3Store {
    signing: Signing,
    bucket: String,
    leases: Arc<dyn Leases>,
    is_rooted: bool,
    /// The last access key that was refreshed on a mere suspicion: not again for the same.
    doubted: Mutex<Option<String>>,
    /// An answer to a write named a version.
    versioned: Arc<AtomicBool>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Store({})", self.bucket)
    }
}

impl S3Store {
    /// The bucket of `config`. Requests go through `http`, signed with what `leases` gives.
    /// `base` holds what all SDK clients share (time source, sleep); nothing of it is a secret. A region
    /// that has to be learnt is kept by `memory`.
    #[must_use]
    pub fn new(
        config: &Config,
        http: SharedHttpClient,
        base: &aws_config::SdkConfig,
        leases: Arc<dyn Leases>,
        memory: Arc<dyn RegionMemory>,
    ) -> Self {
        let builder = aws_sdk_s3::config::Builder::from(base)
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(http)
            .credentials_provider(Provider(Arc::clone(&leases)))
            // The SDK's cache keeps a refused key to its end, and its own refresh blocks requests.
            .identity_cache(IdentityCache::no_cache())
            // `retry` repeats. With one attempt the SDK's retry quota, which stops all retries of the
            // process after some 50 timeouts, is never touched either.
            .retry_config(RetryConfig::disabled())
            // Its default kills a healthy upload of 128 kbit/s after 7 s: it sees frames that the
            // socket took, not bytes that arrived. `retry` watches progress instead.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // A read timeout would cover the sending of a part too. `net` bounds the connect,
            // `attempt` what has no data, `retry` the rest.
            .timeout_config(TimeoutConfig::disabled())
            // We know the checksum before the body is read, and send it as a header.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // Both would ask hosts that nobody allowed.
            .disable_multi_region_access_points(true)
            .disable_s3_express_session_auth(true)
            .force_path_style(config.path_style)
            .interceptor(Trim);
        Self {
            signing: Signing::new(builder, config, memory),
            bucket: config.bucket.clone(),
            leases,
            is_rooted: config.is_rooted,
            doubted: Mutex::new(None),
            versioned: Arc::default(),
        }
    }

    /// Sends what `make` makes, and once more if the server doubts the lease or the clock, or names
    /// another region than the one that was learnt.
    async fn call<T, F, Fut>(&self, op: Op, make: F) -> Result<T>
    where
        F: Fn(Client, Seen) -> Fut + Send + Sync,
        Fut: Future<Output = std::result::Result<T, Failure>> + Send,
    {
        let identity = self.identity().await?;
        let mut client = self.client().await?;
        let seen = Seen::default();
        let failure = match attempt(op, make(client.clone(), seen.clone())).await {
            Ok(answer) => {
                self.note_version(op, &seen);
                return Ok(answer);
            }
            Err(failure) => failure,
        };
        let moved = match &failure.error {
            StoreError::WrongRegion(Some(region)) => self.moved_to(region).await,
            _ => None,
        };
        let is_moved = moved.is_some();
        client = moved.unwrap_or(client);
        let key = seen.access_key_id();
        if !is_moved && !self.is_worth_repeating(failure.doubt, key.as_deref()) {
            return Err(failure.error);
        }
        if self.identity().await? != identity {
            // The SIM was swapped, and the key lies in the folder of the one before.
            let text = "the credentials are of another identity now".to_owned();
            return Err(StoreError::Link(text));
        }
        let again = Seen::default();
        let answer = attempt(op, make(client, again.clone())).await;
        answer.map_err(|failure| {
            if failure.doubt == Some(Doubt::Suspicion) {
                // The new key fares no better: the next request shall not ask for yet another.
                *self.doubted.lock() = again.access_key_id();
            }
            failure.error
        })
    }

    /// Whether the bucket keeps versions is not asked: an answer to a write tells. Warns once.
    fn note_version(&self, op: Op, seen: &Seen) {
        let is_write = matches!(op, Op::Put | Op::Complete | Op::Copy);
        if is_write && seen.has_version() && !self.versioned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the bucket keeps versions: every upload of a file that grows or changes, a line \
                 appended to a log too, is billed as one more whole object. Set a lifecycle rule that \
                 removes noncurrent versions, or a longer append_max_age"
            );
        }
    }

    /// Whether the bucket was seen to keep versions.
    #[must_use]
    pub fn versioned(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.versioned)
    }

    /// Who would sign now, where that matters.
    async fn identity(&self) -> Result<Option<String>> {
        if !self.is_rooted {
            return Ok(None);
        }
        let lease = self.leases.lease().await;
        let lease = lease.map_err(|error| StoreError::NoCredentials(error.to_string()))?;
        Ok(lease.identity.clone())
    }

    /// Whether a second request may fare better; the doubted lease is handed back for it.
    fn is_worth_repeating(&self, doubt: Option<Doubt>, key: Option<&str>) -> bool {
        let Some(doubt) = doubt else {
            return false;
        };
        if doubt == Doubt::Clock {
            // The SDK has learned the server's time from the refusal.
            return true;
        }
        let Some(key) = key else {
            return false;
        };
        if doubt == Doubt::Suspicion {
            let mut doubted = self.doubted.lock();
            if doubted.as_deref() == Some(key) {
                return false;
            }
            *doubted = Some(key.to_owned());
        }
        self.leases.refused(key);
        true
    }
}

/// One request, bounded in time if it carries no data and the server has nothing to work on.
async fn attempt<T>(
    op: Op,
    request: impl Future<Output = std::result::Result<T, Failure>> + Send,
) -> std::result::Result<T, Failure> {
    let limit = match op {
        Op::Head | Op::CreateMultipart | Op::Abort | Op::Delete | Op::DeleteBatch => SHORT_ATTEMPT,
        Op::List | Op::ListParts => LIST_ATTEMPT,
        Op::Get | Op::Put | Op::UploadPart | Op::Complete | Op::Copy | Op::CopyPart => {
            return request.await;
        }
    };
    timeout(limit, request).await.unwrap_or_else(|_| {
        let text = format!("no answer to {op} in {} s", limit.as_secs());
        Err(StoreError::Link(text).into())
    })
}

/// A size as the SDK wants it.
fn signed(size: u64) -> std::result::Result<i64, Failure> {
    i64::try_from(size).map_err(|_| StoreError::Invalid("too large".to_owned()).into())
}

/// The ETag of an answer. Its absence means that S3 did not answer.
fn etag(text: Option<&str>) -> std::result::Result<ETag, Failure> {
    match text.map(ETag::new) {
        Some(etag) if !etag.as_str().is_empty() => Ok(etag),
        _ => Err(StoreError::BadAnswer("no ETag".to_owned()).into()),
    }
}

/// The two headers of a write's precondition: `If-Match` and `If-None-Match`.
fn conditions(when: &Precondition) -> (Option<String>, Option<String>) {
    match when {
        Precondition::None => (None, None),
        Precondition::IfAbsent => (None, Some("*".to_owned())),
        Precondition::IfMatch(etag) => (Some(etag.quoted()), None),
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
    ) -> Result<Download> {
        self.get_object(key, range, if_match).await
    }

    async fn head(&self, key: &ObjectKey, unless: Option<&ETag>) -> Result<ObjectMeta> {
        self.head_object(key, unless).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.list_page(request).await
    }

    async fn put(
        &self,
        key: &ObjectKey,
        payload: &Payload,
        headers: &Headers,
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        self.put_object(key, payload, headers, when).await
    }

    async fn create_multipart(&self, key: &ObjectKey, headers: &Headers) -> Result<UploadId> {
        self.create_upload(key, headers).await
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        payload: &Payload,
    ) -> Result<PartDone> {
        self.put_part(key, upload, number, payload).await
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        source: &ObjectId,
        range: Option<Range<u64>>,
    ) -> Result<PartDone> {
        self.put_part_copy(key, upload, number, source, range).await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartDone],
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        self.complete_upload(key, upload, parts, when).await
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<()> {
        self.abort_upload(key, upload).await
    }

    async fn list_parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Vec<PartDone>> {
        self.parts_of(key, upload).await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ObjectMeta> {
        self.copy_object(request).await
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        self.delete_object(key, if_match).await
    }

    async fn delete_batch(
        &self,
        keys: &[(ObjectKey, Option<ETag>)],
    ) -> Result<Vec<(ObjectKey, StoreError)>> {
        self.delete_objects(keys).await
    }
}
