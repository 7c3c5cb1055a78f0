//! The bucket's twin: S3's rules over a map in memory, for tests of everything above the port.
//!
//! Invariants:
//! - a flat key space ordered by bytes; an object appears whole or not at all;
//! - an ETag names bytes: equal bytes give equal tags, whatever their metadata (as S3's MD5);
//! - every precondition is honoured, and checked in the same instant as the write;
//! - parts but the last are at least 5 MiB, a ranged copy's source is larger than 5 MiB;
//! - its clock ticks one second per write, so that tests repeat.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::counted::{Counters, Counts};
use super::{
    Body, CopyRequest, Download, ListPage, ListRequest, Listed, ObjectStore, Op, PartDone, Payload,
    Result, StoreError, UploadId,
};
use crate::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

/// The least size of a part that is not the last.
pub const PART_MIN: u64 = 5 << 20;
const PAYLOAD_FRAME: u64 = 256 << 10;
const BODY_PIECE: usize = 64 << 10;

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    etag: ETag,
    modified: i64,
    headers: Headers,
}

#[derive(Debug)]
struct Part {
    bytes: Bytes,
    etag: ETag,
}

#[derive(Debug)]
struct Upload {
    key: ObjectKey,
    headers: Headers,
    parts: BTreeMap<u16, Part>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectKey, Object>,
    uploads: BTreeMap<u64, Upload>,
    uploads_made: u64,
    now: i64,
}

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

    /// Another writer puts an object; nothing is counted.
    pub fn put_behind(&self, key: &str, bytes: impl Into<Bytes>, headers: Headers) -> ETag {
        let mut state = self.state.lock();
        let meta = state.store(&ObjectKey::new(key), bytes.into(), None, headers);
        meta.id.etag
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

    /// How many multipart uploads were begun and neither completed nor aborted.
    #[must_use]
    pub fn uploads(&self) -> usize {
        self.state.lock().uploads.len()
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

fn etag_of(bytes: &[u8]) -> ETag {
    let crc64 = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
    ETag::new(&format!("{crc64:016x}{:016x}", bytes.len()))
}

fn invalid(code: &str) -> StoreError {
    StoreError::Invalid(code.to_owned())
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

impl Object {
    fn meta(&self, key: &ObjectKey) -> ObjectMeta {
        ObjectMeta {
            id: ObjectId {
                key: key.clone(),
                etag: self.etag.clone(),
            },
            size: self.bytes.len() as u64,
            modified: self.modified,
            headers: Some(self.headers.clone()),
        }
    }
}

impl State {
    fn store(
        &mut self,
        key: &ObjectKey,
        bytes: Bytes,
        etag: Option<ETag>,
        headers: Headers,
    ) -> ObjectMeta {
        self.now += 1;
        let object = Object {
            etag: etag.unwrap_or_else(|| etag_of(&bytes)),
            bytes,
            modified: self.now,
            headers,
        };
        let meta = object.meta(key);
        self.objects.insert(key.clone(), object);
        meta
    }

    fn check(&self, key: &ObjectKey, when: &Precondition) -> Result<()> {
        let there = self.objects.get(key).map(|object| &object.etag);
        let holds = match when {
            Precondition::None => true,
            Precondition::IfAbsent => there.is_none(),
            Precondition::IfMatch(etag) => there == Some(etag),
        };
        holds.then_some(()).ok_or(StoreError::Precondition)
    }

    /// The object that a read or a copy names.
    fn version(&self, key: &ObjectKey, etag: Option<&ETag>) -> Result<&Object> {
        let object = self.objects.get(key).ok_or(StoreError::NotFound)?;
        match etag {
            Some(etag) if *etag != object.etag => Err(StoreError::Stale),
            _ => Ok(object),
        }
    }

    fn upload(&mut self, key: &ObjectKey, upload: &UploadId) -> Result<&mut Upload> {
        let id = upload.0.parse().map_err(|_| StoreError::NoSuchUpload)?;
        self.uploads
            .get_mut(&id)
            .filter(|upload| upload.key == *key)
            .ok_or(StoreError::NoSuchUpload)
    }

    fn put_part(
        &mut self,
        key: &ObjectKey,
        id: &UploadId,
        number: u16,
        bytes: Bytes,
    ) -> Result<PartDone> {
        if !(1..=10_000).contains(&number) {
            return Err(invalid("InvalidArgument"));
        }
        let etag = etag_of(&bytes);
        let part = Part { bytes, etag };
        let done = part.done(number);
        self.upload(key, id)?.parts.insert(number, part);
        Ok(done)
    }

    /// The bytes and the tag of the object that `parts` make.
    fn joined(
        &mut self,
        key: &ObjectKey,
        id: &UploadId,
        parts: &[PartDone],
    ) -> Result<(Bytes, ETag)> {
        let upload = self.upload(key, id)?;
        if parts.is_empty() {
            return Err(invalid("MalformedXML"));
        }
        if !parts.is_sorted_by(|before, after| before.number < after.number) {
            return Err(invalid("InvalidPartOrder"));
        }
        let (mut bytes, mut tags) = (BytesMut::new(), String::new());
        for (at, named) in parts.iter().enumerate() {
            let part = upload.parts.get(&named.number);
            let part = part
                .filter(|part| part.etag == named.etag)
                .ok_or_else(|| invalid("InvalidPart"))?;
            if at + 1 < parts.len() && (part.bytes.len() as u64) < PART_MIN {
                return Err(invalid("EntityTooSmall"));
            }
            bytes.extend_from_slice(&part.bytes);
            tags.push_str(part.etag.as_str());
        }
        let tags = etag_of(tags.as_bytes());
        Ok((
            bytes.freeze(),
            ETag::new(&format!("{tags}-{}", parts.len())),
        ))
    }

    fn complete(
        &mut self,
        key: &ObjectKey,
        id: &UploadId,
        parts: &[PartDone],
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        let (bytes, etag) = self.joined(key, id, parts)?;
        self.check(key, when)?;
        let headers = std::mem::take(&mut self.upload(key, id)?.headers);
        self.remove_upload(id);
        Ok(self.store(key, bytes, Some(etag), headers))
    }

    fn remove_upload(&mut self, upload: &UploadId) {
        if let Ok(id) = upload.0.parse() {
            self.uploads.remove(&id);
        }
    }

    /// A page of the keys behind `after`. A `next` token is the last key or prefix of its page.
    fn page(&self, request: &ListRequest) -> ListPage {
        let max = usize::from(request.max_keys.clamp(1, 1000));
        let after = request
            .continuation
            .as_deref()
            .or(request.start_after.as_deref());
        let after = after.unwrap_or_default();
        let from = match after < request.prefix.as_str() {
            true => Bound::Included(ObjectKey::new(&request.prefix)),
            false => Bound::Excluded(ObjectKey::new(after)),
        };
        let mut page = ListPage::default();
        let mut last = after.to_owned();
        for (key, object) in self.objects.range((from, Bound::Unbounded)) {
            let Some(rest) = key.as_str().strip_prefix(&request.prefix) else {
                break;
            };
            let slash = rest.find('/').filter(|_| request.delimited);
            let folded = slash.map(|at| format!("{}{}", request.prefix, &rest[..=at]));
            if folded.as_deref().is_some_and(|prefix| prefix == last) {
                continue;
            }
            if page.objects.len() + page.prefixes.len() == max {
                page.next = Some(last);
                break;
            }
            if let Some(prefix) = folded {
                last.clone_from(&prefix);
                page.prefixes.push(prefix);
            } else {
                last = key.to_string();
                page.objects.push(object.listed(key));
            }
        }
        page
    }
}

impl Object {
    fn listed(&self, key: &ObjectKey) -> Listed {
        Listed {
            key: key.to_string(),
            etag: self.etag.clone(),
            size: self.bytes.len() as u64,
            modified: self.modified,
            storage_class: self.headers.storage_class.clone(),
        }
    }
}

impl Part {
    fn done(&self, number: u16) -> PartDone {
        PartDone {
            number,
            etag: self.etag.clone(),
            crc64: Some(crc_fast::checksum(
                crc_fast::CrcAlgorithm::Crc64Nvme,
                &self.bytes,
            )),
            size: Some(self.bytes.len() as u64),
        }
    }
}

/// The part of `bytes` that a range names; 416 where it begins behind the end.
fn cut(bytes: &Bytes, range: Option<Range<u64>>) -> Result<(Range<u64>, Bytes)> {
    let size = bytes.len() as u64;
    let range = range.map_or(Ok(0..size), |range| {
        let end = range.end.min(size);
        let sound = range.start < end;
        sound
            .then_some(range.start..end)
            .ok_or_else(|| invalid("InvalidRange"))
    })?;
    let place = |at: u64| usize::try_from(at).map_err(|_| invalid("InvalidRange"));
    let bytes = bytes.slice(place(range.start)?..place(range.end)?);
    Ok((range, bytes))
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
        self.counted(Op::Delete, 0, |state| {
            match (state.objects.get(key), if_match) {
                (Some(object), Some(etag)) if object.etag != *etag => Err(StoreError::Precondition),
                _ => {
                    state.objects.remove(key);
                    Ok(())
                }
            }
        })
    }

    async fn delete_batch(&self, keys: &[ObjectKey]) -> Result<Vec<(ObjectKey, StoreError)>> {
        self.counted(Op::DeleteBatch, 0, |state| {
            if keys.len() > 1000 {
                return Err(invalid("MalformedXML"));
            }
            for key in keys {
                state.objects.remove(key);
            }
            Ok(Vec::new())
        })
    }
}
