//! The bucket's twin: S3's rules over a map in memory, for tests of everything above the port.
//!
//! Invariants:
//! - a flat key space ordered by bytes; an object appears whole or not at all;
//! - an ETag names bytes: equal bytes give equal tags, whatever their metadata (as S3's MD5);
//! - every precondition is honoured, and checked in the same instant as the write (none matches an
//!   `UNMADE` directory);
//! - parts but the last are at least 5 MiB, a ranged copy's source is larger than 5 MiB;
//! - its clock ticks one second per write, so that tests repeat.

mod bucket;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use self::bucket::{State, Upload, cut, invalid};
use super::counted::{Counters, Counts};
use super::{
    Body, CopyRequest, Download, ListPage, ListRequest, ObjectStore, Op, PartDone, Payload, Result,
    StoreError, UNMADE, UploadId,
};
use crate::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

/// The least size of a part that is not the last.
pub const PART_MIN: u64 = 5 << 20;
const PAYLOAD_FRAME: u64 = 256 << 10;
const BODY_PIECE: usize = 64 << 10;

/// A bucket in memory. Clones are the same bucket.
#[derive(Clone, Default)]
pub struct Twin {
    /// Guards the bucket; never held across an await.
    state: Arc<Mutex<State>>,
    counters: Arc<Counters>,
}

impl fmt::Debug for Twin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Twin")
    }
}

impl Twin {
    /// An empty bucket.
    #[must_use]
    pub fn new() -> Self {
        let twin = Self::default();
        twin.state.lock().now = 1_700_000_000;
        twin
    }

    /// Every part of every upload holds other bytes of the same length.
    pub fn spoil_parts(&self) {
        let mut state = self.state.lock();
        let uploads = state.uploads.values_mut();
        for part in uploads.flat_map(|upload| upload.parts.values_mut()) {
            part.bytes = vec![b'?'; part.bytes.len()].into();
            part.etag = bucket::etag_of(&part.bytes);
        }
    }

    /// Every part of every upload holds other bytes than it says.
    pub fn damage_parts(&self) {
        let mut state = self.state.lock();
        let uploads = state.uploads.values_mut();
        for part in uploads.flat_map(|upload| upload.parts.values_mut()) {
            part.bytes = vec![b'!'; part.bytes.len()].into();
        }
    }

    /// Another bucket that holds what this one holds now.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            state: Arc::new(Mutex::new(self.state.lock().clone())),
            counters: Arc::default(),
        }
    }

    /// Another writer puts an object; nothing is counted.
    pub fn put_behind(&self, key: &str, bytes: impl Into<Bytes>, headers: Headers) -> ETag {
        let mut state = self.state.lock();
        let meta = state.store(&ObjectKey::new(key), bytes.into(), None, headers);
        meta.id.etag
    }

    /// The server makes a directory of its own, as one whose keys are paths does.
    pub fn unmade_behind(&self, key: &str) {
        let (key, etag) = (ObjectKey::new(key), ETag::new(UNMADE));
        let mut state = self.state.lock();
        state.store(&key, Bytes::new(), Some(etag), Headers::default());
    }

    /// Another writer deletes an object; nothing is counted. Whether there was one.
    pub fn delete_behind(&self, key: &str) -> bool {
        let key = ObjectKey::new(key);
        self.state.lock().objects.remove(&key).is_some()
    }

    /// What is at a key; nothing is counted.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<(Bytes, ObjectMeta)> {
        let key = ObjectKey::new(key);
        let state = self.state.lock();
        let object = state.objects.get(&key)?;
        Some((object.bytes.clone(), object.meta(&key)))
    }

    /// All keys in their order; nothing is counted.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let state = self.state.lock();
        state.objects.keys().map(ToString::to_string).collect()
    }

    /// Of the multipart uploads that were begun and neither completed nor aborted, how many hold parts.
    #[must_use]
    pub fn half_sent(&self) -> usize {
        let state = self.state.lock();
        let uploads = state.uploads.values();
        uploads.filter(|upload| !upload.parts.is_empty()).count()
    }

    /// How many multipart uploads were begun and neither completed nor aborted.
    #[must_use]
    pub fn uploads(&self) -> usize {
        self.state.lock().uploads.len()
    }

    /// S3 knows none of the uploads that were begun any more.
    pub fn forget_uploads(&self) {
        self.state.lock().uploads.clear();
    }

    /// Requests by operation and bytes, since it was made.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.counts()
    }

    /// Counts a request and its failure.
    fn counted<T>(
        &self,
        op: Op,
        up: u64,
        answer: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        self.counters.call(op, up);
        let answer = answer(&mut self.state.lock());
        if answer.is_err() {
            self.counters.failed(op);
        }
        answer
    }
}

/// Reads a payload frame by frame and checks it, as S3 does.
fn received(payload: &Payload) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    while (bytes.len() as u64) < payload.len {
        let at = bytes.len() as u64;
        let len = usize::try_from(PAYLOAD_FRAME.min(payload.len - at)).unwrap_or(usize::MAX);
        let frame = payload.source.read(at, len);
        let disk =
            |error: std::io::Error| StoreError::Disk(error.raw_os_error().unwrap_or(libc::EIO));
        bytes.extend_from_slice(&frame.map_err(disk)?);
    }
    let bytes = bytes.freeze();
    if crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &bytes) != payload.crc64 {
        return Err(StoreError::BadDigest);
    }
    Ok(bytes)
}

struct TwinBody {
    left: Bytes,
    counters: Arc<Counters>,
}

#[async_trait]
impl Body for TwinBody {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.left.is_empty() {
            return None;
        }
        let piece = self.left.split_to(BODY_PIECE.min(self.left.len()));
        self.counters.down(piece.len() as u64);
        Some(Ok(piece))
    }
}

#[async_trait]
impl ObjectStore for Twin {
    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
    ) -> Result<Download> {
        let (meta, range, left) = self.counted(Op::Get, 0, |state| {
            let object = state.version(key, if_match)?;
            let (range, bytes) = cut(&object.bytes, range)?;
            Ok((object.meta(key), range, bytes))
        })?;
        let counters = Arc::clone(&self.counters);
        let body = Box::new(TwinBody { left, counters });
        Ok(Download { meta, range, body })
    }

    async fn head(&self, key: &ObjectKey, unless: Option<&ETag>) -> Result<ObjectMeta> {
        self.counted(Op::Head, 0, |state| {
            let object = state.version(key, None)?;
            match unless {
                Some(etag) if *etag == object.etag => Err(StoreError::NotModified),
                _ => Ok(object.meta(key)),
            }
        })
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.counted(Op::List, 0, |state| Ok(state.page(request)))
    }

    async fn put(
        &self,
        key: &ObjectKey,
        payload: &Payload,
        headers: &Headers,
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        let bytes = received(payload);
        self.counted(Op::Put, payload.len, |state| {
            let bytes = bytes?;
            state.check(key, when)?;
            Ok(state.store(key, bytes, None, headers.clone()))
        })
    }

    async fn create_multipart(&self, key: &ObjectKey, headers: &Headers) -> Result<UploadId> {
        self.counted(Op::CreateMultipart, 0, |state| {
            state.uploads_made += 1;
            let id = state.uploads_made;
            let upload = Upload {
                key: key.clone(),
                headers: headers.clone(),
                parts: BTreeMap::new(),
            };
            state.uploads.insert(id, upload);
            Ok(UploadId(id.to_string().into()))
        })
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        payload: &Payload,
    ) -> Result<PartDone> {
        let bytes = received(payload);
        self.counted(Op::UploadPart, payload.len, |state| {
            state.put_part(key, upload, number, bytes?)
        })
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        source: &ObjectId,
        range: Option<Range<u64>>,
    ) -> Result<PartDone> {
        self.counted(Op::CopyPart, 0, |state| {
            state.upload(key, upload)?;
            let object = state.version(&source.key, Some(&source.etag))?;
            let size = object.bytes.len() as u64;
            // S3 refuses a range that is not wholly there, and any range of a small source.
            let sound = range
                .as_ref()
                .is_none_or(|range| range.end <= size && size > PART_MIN);
            if !sound {
                return Err(invalid("InvalidRequest"));
            }
            let (_, bytes) = cut(&object.bytes, range)?;
            state.put_part(key, upload, number, bytes)
        })
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartDone],
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        self.counted(Op::Complete, 0, |state| {
            state.complete(key, upload, parts, when)
        })
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<()> {
        self.counted(Op::Abort, 0, |state| {
            if state.upload(key, upload).is_ok() {
                state.remove_upload(upload);
            }
            Ok(())
        })
    }

    async fn list_parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Vec<PartDone>> {
        self.counted(Op::ListParts, 0, |state| {
            let parts = &state.upload(key, upload)?.parts;
            Ok(parts.iter().map(|(at, part)| part.done(*at)).collect())
        })
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ObjectMeta> {
        self.counted(Op::Copy, 0, |state| {
            let source = state.version(&request.source.key, Some(&request.source.etag))?;
            let (bytes, etag) = (source.bytes.clone(), source.etag.clone());
            let headers = request.headers.clone();
            // S3 gives the copy of a multipart object a new tag; a copy of a plain one keeps it.
            let etag = Some(etag).filter(|etag| !etag.as_str().contains('-'));
            let meta = state.store(&request.key, bytes, etag, headers);
            Ok(ObjectMeta { size: 0, ..meta })
        })
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        self.counted(Op::Delete, 0, |state| state.delete(key, if_match))
    }

    async fn delete_batch(
        &self,
        keys: &[(ObjectKey, Option<ETag>)],
    ) -> Result<Vec<(ObjectKey, StoreError)>> {
        self.counted(Op::DeleteBatch, 0, |state| {
            if keys.len() > 1000 {
                return Err(invalid("MalformedXML"));
            }
            let refused = keys.iter().filter_map(|(key, if_match)| {
                let done = state.delete(key, if_match.as_ref());
                done.err().map(|error| (key.clone(), error))
            });
            Ok(refused.collect())
        })
    }
}
