//! Repeats what may succeed when repeated, and bounds every call in time.
//!
//! Invariants:
//! - only errors that `StoreError::is_transient` are repeated; never an answer of S3 to the request;
//! - a call without data ends within its class's time, whatever the store does;
//! - a call with data ends too: an attempt is cut when nothing moves for `stall`, and no new attempt
//!   begins when for `data`, or in `resends` of them, none got further than the ones before it;
//! - a GET's body that breaks continues at the byte reached, of the same version or not at all.
//!
//! A write whose answer was lost is repeated like any other: the repeat may then meet its own
//! result (`Precondition`, `NoSuchUpload`). Only the caller can tell, by the stamp.

mod progress;
mod resume;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::time::{sleep, timeout};

use self::progress::{Progress, Watched, stalled, unless_stalled};
use self::resume::Resumed;
use super::op::Class;
use super::{
    CopyRequest, Download, ListPage, ListRequest, ObjectStore, Op, PartDone, Payload, ReadFrames,
    Result, StoreError, UploadId,
};
use crate::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

/// How long and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The most the first repeat waits; each later one doubles it.
    pub first_wait: Duration,
    /// The most any repeat waits.
    pub longest_wait: Duration,
    /// All attempts of a call without data.
    pub meta: Duration,
    /// All attempts of a call the server works on (Complete, copies).
    pub work: Duration,
    /// Attempts of a call with data, since one got further than all before it.
    pub data: Duration,
    /// How often bytes that S3 was given already are sent again, before the caller shall decide
    /// (attempts that got no byte out do not count).
    pub resends: u32,
    /// An attempt that sends: no further frame was taken for so long. A frame is 256 KiB, and a
    /// full send buffer lies behind it: this must cover both on the slowest link.
    pub stall_up: Duration,
    /// An attempt that receives: no byte came for so long.
    pub stall_down: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(20),
            meta: Duration::from_secs(60),
            work: Duration::from_secs(600),
            data: Duration::from_secs(300),
            resends: 3,
            stall_up: Duration::from_secs(300),
            stall_down: Duration::from_secs(60),
        }
    }
}

/// Full jitter: anything up to the bound, which doubles with each repeat. `random` is uniform.
fn wait(config: &Config, repeat: u32, random: u64) -> Duration {
    let doubled = config.first_wait.saturating_mul(1 << repeat.min(16));
    let bound = u64::try_from(doubled.min(config.longest_wait).as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random % bound.saturating_add(1))
}

fn random() -> u64 {
    // The standard library's hash keys are random per state: enough to spread waits.
    RandomState::new().hash_one(0_u8)
}

/// Waits before the next attempt. `false`: its time would be past `deadline`.
async fn paused(
    config: &Config,
    op: Op,
    error: &StoreError,
    repeat: u32,
    deadline: Instant,
) -> bool {
    let pause = wait(config, repeat, random());
    if Instant::now() + pause >= deadline {
        return false;
    }
    tracing::debug!(%op, %error, ?pause, "a request failed and is tried again");
    sleep(pause).await;
    true
}

/// A store that tries again.
#[derive(Clone)]
pub struct Retry {
    inner: Arc<dyn ObjectStore>,
    config: Config,
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Retry of {:?}", self.inner)
    }
}

impl Retry {
    /// `inner`, repeated as `config` says.
    pub fn over(inner: Arc<dyn ObjectStore>, config: Config) -> Arc<Self> {
        Arc::new(Self { inner, config })
    }

    /// A call without data.
    async fn short<T, F, Fut>(&self, op: Op, attempt: F) -> Result<T>
    where
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T>> + Send,
    {
        let allowed = match op.class() {
            Class::Work => self.config.work,
            Class::Meta | Class::Up | Class::Down => self.config.meta,
        };
        let deadline = Instant::now() + allowed;
        let mut repeat = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, attempt()).await {
                Err(_) => return Err(StoreError::Deadline),
                Ok(Err(error)) if error.is_transient() => {
                    if !paused(&self.config, op, &error, repeat, deadline).await {
                        return Err(error);
                    }
                }
                Ok(answer) => return answer,
            }
            repeat += 1;
        }
    }

    /// A call that carries `payload` up.
    async fn upload<T, F, Fut>(&self, op: Op, payload: &Payload, attempt: F) -> Result<T>
    where
        F: Fn(Payload) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T>> + Send,
    {
        let progress = Progress::new();
        let source = Arc::new(Watched {
            source: Arc::clone(&payload.source),
            progress: Arc::clone(&progress),
        });
        let (mut repeat, mut resends) = (0, 0);
        loop {
            let watched = Payload {
                source: Arc::clone(&source) as Arc<dyn ReadFrames>,
                ..payload.clone()
            };
            let before = Progress::begin(&progress);
            let call = attempt(watched);
            match unless_stalled(call, &progress, self.config.stall_up).await {
                Err(error) if error.is_transient() => {
                    let (reached, at, moved) = Progress::reached(&progress);
                    if reached > before {
                        (repeat, resends) = (0, 0);
                    } else {
                        resends += u32::from(moved);
                    }
                    if resends >= self.config.resends
                        || !paused(&self.config, op, &error, repeat, at + self.config.data).await
                    {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
            repeat += 1;
        }
    }

    /// One attempt at a GET's head.
    async fn once(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
        etag: Option<&ETag>,
    ) -> Result<Download> {
        let call = self.inner.get(key, range, etag);
        let answer = timeout(self.config.stall_down, call).await;
        answer.unwrap_or_else(|_| Err(stalled()))
    }
}

#[async_trait]
impl ObjectStore for Retry {
    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
    ) -> Result<Download> {
        let deadline = Instant::now() + self.config.data;
        let mut repeat = 0;
        let Download { meta, range, body } = loop {
            match self.once(key, range.clone(), if_match).await {
                Err(error) if error.is_transient() => {
                    if !paused(&self.config, Op::Get, &error, repeat, deadline).await {
                        return Err(error);
                    }
                }
                answer => break answer?,
            }
            repeat += 1;
        };
        let body = Box::new(Resumed::new(
            self.clone(),
            meta.id.clone(),
            range.clone(),
            body,
        ));
        Ok(Download { meta, range, body })
    }

    async fn head(&self, key: &ObjectKey, unless: Option<&ETag>) -> Result<ObjectMeta> {
        self.short(Op::Head, || self.inner.head(key, unless)).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.short(Op::List, || self.inner.list(request)).await
    }

    async fn put(
        &self,
        key: &ObjectKey,
        payload: &Payload,
        headers: &Headers,
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        let attempt =
            |watched: Payload| async move { self.inner.put(key, &watched, headers, when).await };
        self.upload(Op::Put, payload, attempt).await
    }

    async fn create_multipart(&self, key: &ObjectKey, headers: &Headers) -> Result<UploadId> {
        let attempt = || self.inner.create_multipart(key, headers);
        self.short(Op::CreateMultipart, attempt).await
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        payload: &Payload,
    ) -> Result<PartDone> {
        let attempt = |watched: Payload| async move {
            self.inner.upload_part(key, upload, number, &watched).await
        };
        self.upload(Op::UploadPart, payload, attempt).await
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        source: &ObjectId,
        range: Option<Range<u64>>,
    ) -> Result<PartDone> {
        let attempt = || {
            self.inner
                .copy_part(key, upload, number, source, range.clone())
        };
        self.short(Op::CopyPart, attempt).await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartDone],
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        let attempt = || self.inner.complete(key, upload, parts, when);
        self.short(Op::Complete, attempt).await
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<()> {
        self.short(Op::Abort, || self.inner.abort(key, upload))
            .await
    }

    async fn list_parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Vec<PartDone>> {
        self.short(Op::ListParts, || self.inner.list_parts(key, upload))
            .await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ObjectMeta> {
        self.short(Op::Copy, || self.inner.copy(request)).await
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        self.short(Op::Delete, || self.inner.delete(key, if_match))
            .await
    }

    async fn delete_batch(
        &self,
        keys: &[(ObjectKey, Option<ETag>)],
    ) -> Result<Vec<(ObjectKey, StoreError)>> {
        self.short(Op::DeleteBatch, || self.inner.delete_batch(keys))
            .await
    }
}
