//! The port to the bucket: one narrow trait in S3's words, an adapter (`s3`), a twin in memory,
//! and decorators that implement the same trait.
//!
//! Invariants:
//! - keys are relative to the mount's prefix above `prefix`, full keys below it;
//! - every call ends: `retry` bounds it by a total deadline that restarts with progress;
//! - an error is a decision for the caller, never a text to be matched.

pub mod canary;
pub mod closed;
pub mod counted;
mod error;
pub mod fault;
pub mod layer;
pub mod limit;
mod op;
pub mod prefix;
pub mod region;
pub mod retry;
pub mod rooted;
pub mod s3;
pub mod speed;
pub mod twin;

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use crate::types::{ListPage, Listed};

use crate::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

pub use error::StoreError;
pub use op::{Class, Op};

/// What a store call answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Where the bytes of a PUT or a part come from, in frames, so that memory stays bounded.
/// Called on a blocking thread. Must answer the same bytes each time (a retry reads again).
pub trait ReadFrames: Send + Sync + 'static {
    /// `len` bytes from `offset` on of this payload; exactly that many.
    ///
    /// # Errors
    /// Of the disk.
    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes>;
}

/// The bytes of one PUT or part. Cheap to clone.
#[derive(Clone)]
pub struct Payload {
    /// How many bytes; sent as `Content-Length`.
    pub len: u64,
    /// CRC-64/NVME of them, sent as `x-amz-checksum-crc64nvme`.
    pub crc64: u64,
    /// The bytes.
    pub source: Arc<dyn ReadFrames>,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} B, {:016x})", self.len, self.crc64)
    }
}

impl ReadFrames for Bytes {
    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(len).filter(|end| *end <= self.len());
        end.map(|end| self.slice(start..end))
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Payload {
    /// Of bytes in memory (small ones).
    #[must_use]
    pub fn of(bytes: Bytes) -> Self {
        let crc64 = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &bytes);
        Self {
            len: bytes.len() as u64,
            crc64,
            source: Arc::new(bytes),
        }
    }
}

/// A GET's answer: the metadata, and the body in pieces.
pub struct Download {
    /// Of the version that is being read. `size` is that of the whole object.
    pub meta: ObjectMeta,
    /// Which bytes come: the asked range cut to the object's size.
    pub range: Range<u64>,
    /// The bytes.
    pub body: Box<dyn Body>,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Download({:?}, {:?})", self.meta.id, self.range)
    }
}

/// The body of a GET.
#[async_trait]
pub trait Body: Send + Sync {
    /// The next piece; `None` at the end. A body shorter or longer than `Download::range` is an
    /// error here, not a short read.
    async fn next(&mut self) -> Option<Result<Bytes>>;
}

/// The ETag of a directory that nobody made: a server whose keys are paths (SeaweedFS) has one for
/// each directory that something was put into, and keeps it when that is gone. No precondition
/// matches it, and no writer's attributes are in it.
pub const UNMADE: &str = "d41d8cd98f00b204e9800998ecf8427e-0";

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Keys that begin with this.
    pub prefix: String,
    /// Fold what has a `/` behind the prefix into common prefixes.
    pub delimited: bool,
    /// Only keys behind this one.
    pub start_after: Option<String>,
    /// The token of the page before.
    pub continuation: Option<String>,
    /// At most so many keys and prefixes (1..=1000).
    pub max_keys: u16,
}

/// The id of a multipart upload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(pub Arc<str>);

/// A part that S3 has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartDone {
    /// 1..=10,000.
    pub number: u16,
    /// Its tag, to be named at Complete.
    pub etag: ETag,
    /// Its CRC-64/NVME, if the server told it.
    pub crc64: Option<u64>,
    /// In bytes, if the server told it (`ListParts` does).
    pub size: Option<u64>,
}

/// The CRC-64/NVME of the object that `parts` make, in their order; `None` where one is not known.
#[must_use]
pub fn whole_crc64(parts: &[PartDone]) -> Option<u64> {
    let mut parts = parts.iter();
    let first = parts.next()?;
    parts.try_fold(first.crc64?, |whole, part| {
        let algorithm = crc_fast::CrcAlgorithm::Crc64Nvme;
        Some(crc_fast::checksum_combine(
            algorithm,
            whole,
            part.crc64?,
            part.size?,
        ))
    })
}

/// A CopyObject.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// The version to copy (`x-amz-copy-source-if-match`). At most 5 GiB.
    pub source: ObjectId,
    /// The new key.
    pub key: ObjectKey,
    /// New metadata (`REPLACE`); tags go along.
    pub headers: Headers,
}

/// Uploads in parts that were begun and neither completed nor aborted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// When each was begun, in seconds since 1970 (0: not told).
    pub at: Vec<i64>,
    /// There are more than one answer holds (1,000).
    pub more: bool,
}

/// Looks for uploads that were begun. Not of `ObjectStore`: no mount needs it, and no role has to
/// allow it (`s3:ListBucketMultipartUploads`).
#[async_trait]
pub trait Uploads: Send + Sync + fmt::Debug {
    /// One page of ListMultipartUploads, of keys that begin with `prefix` (full keys).
    async fn begun(&self, prefix: &str) -> Result<Begun>;
}

/// One bucket (below `prefix`: one prefix of it).
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug {
    /// GET, whole or a range; with `if_match` only of that version (`Stale` otherwise).
    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
    ) -> Result<Download>;
    /// HEAD; with `unless` (`If-None-Match`), `NotModified` if that version is still there.
    async fn head(&self, key: &ObjectKey, unless: Option<&ETag>) -> Result<ObjectMeta>;
    /// One page of ListObjectsV2.
    async fn list(&self, request: &ListRequest) -> Result<ListPage>;
    /// PUT of a whole object. `modified` of the answer is the server's `Date`.
    async fn put(
        &self,
        key: &ObjectKey,
        payload: &Payload,
        headers: &Headers,
        when: &Precondition,
    ) -> Result<ObjectMeta>;
    /// CreateMultipartUpload.
    async fn create_multipart(&self, key: &ObjectKey, headers: &Headers) -> Result<UploadId>;
    /// UploadPart.
    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        payload: &Payload,
    ) -> Result<PartDone>;
    /// UploadPartCopy of a range (5 MiB to 5 GiB, or shorter as the last part) or the whole of a version.
    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        source: &ObjectId,
        range: Option<Range<u64>>,
    ) -> Result<PartDone>;
    /// CompleteMultipartUpload, also where it answers 200 with an error in the body. Where the
    /// checksums of all parts are known, that of the object is sent along: if it is another, `Invalid`.
    /// The ETag may not be in the answer: then it is asked for by HEAD. `size` and `modified` are of the new object.
    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartDone],
        when: &Precondition,
    ) -> Result<ObjectMeta>;
    /// AbortMultipartUpload; an upload that is not there is fine.
    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<()>;
    /// All parts S3 has of an upload, every page, in order.
    async fn list_parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Vec<PartDone>>;
    /// CopyObject. `size` of the answer is not known (0).
    async fn copy(&self, request: &CopyRequest) -> Result<ObjectMeta>;
    /// DeleteObject, with `If-Match` where given; an absent key is fine.
    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()>;
    /// DeleteObjects, at most 1,000 keys, each with `If-Match` where given; answers for those that
    /// were refused. An absent key is fine, or (as some servers have it) refused as `Precondition`.
    async fn delete_batch(
        &self,
        keys: &[(ObjectKey, Option<ETag>)],
    ) -> Result<Vec<(ObjectKey, StoreError)>>;
}
