//! S3's rules over a map: what is there, what may replace it, what a page shows.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use bytes::{Bytes, BytesMut};

use super::super::{
    ListPage, ListRequest, Listed, PartDone, Payload, Result, StoreError, UNMADE, UploadId,
    whole_crc64,
};
use super::PART_MIN;
use crate::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) bytes: Bytes,
    pub(super) etag: ETag,
    pub(super) modified: i64,
    pub(super) headers: Headers,
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) bytes: Bytes,
    pub(super) etag: ETag,
}

#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) key: ObjectKey,
    pub(super) headers: Headers,
    pub(super) parts: BTreeMap<u16, Part>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<ObjectKey, Object>,
    pub(super) uploads: BTreeMap<u64, Upload>,
    pub(super) uploads_made: u64,
    pub(super) now: i64,
}

pub(super) fn etag_of(bytes: &[u8]) -> ETag {
    let crc64 = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
    ETag::new(&format!("{crc64:016x}{:016x}", bytes.len()))
}

pub(super) fn invalid(code: &str) -> StoreError {
    StoreError::Invalid(code.to_owned())
}

impl Object {
    pub(super) fn meta(&self, key: &ObjectKey) -> ObjectMeta {
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
    pub(super) fn store(
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

    pub(super) fn check(&self, key: &ObjectKey, when: &Precondition) -> Result<()> {
        let there = self.objects.get(key).map(|object| &object.etag);
        let holds = match when {
            Precondition::None => true,
            Precondition::IfAbsent => there.is_none(),
            Precondition::IfMatch(etag) => there == Some(etag) && etag.as_str() != UNMADE,
        };
        holds.then_some(()).ok_or(StoreError::Precondition)
    }

    /// The object that a read or a copy names.
    pub(super) fn version(&self, key: &ObjectKey, etag: Option<&ETag>) -> Result<&Object> {
        let object = self.objects.get(key).ok_or(StoreError::NotFound)?;
        match etag {
            Some(etag) if *etag != object.etag => Err(StoreError::Stale),
            _ => Ok(object),
        }
    }

    pub(super) fn delete(&mut self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        match (self.objects.get(key), if_match) {
            (Some(object), Some(etag)) if object.etag != *etag || etag.as_str() == UNMADE => {
                Err(StoreError::Precondition)
            }
            _ => {
                self.objects.remove(key);
                Ok(())
            }
        }
    }

    pub(super) fn upload(&mut self, key: &ObjectKey, upload: &UploadId) -> Result<&mut Upload> {
        let id = upload.0.parse().map_err(|_| StoreError::NoSuchUpload)?;
        self.uploads
            .get_mut(&id)
            .filter(|upload| upload.key == *key)
            .ok_or(StoreError::NoSuchUpload)
    }

    pub(super) fn put_part(
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
    pub(super) fn joined(
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

    pub(super) fn complete(
        &mut self,
        key: &ObjectKey,
        id: &UploadId,
        parts: &[PartDone],
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        let (bytes, etag) = self.joined(key, id, parts)?;
        if whole_crc64(parts).is_some_and(|whole| whole != Payload::of(bytes.clone()).crc64) {
            return Err(invalid("what is there is not what was sent"));
        }
        self.check(key, when)?;
        let headers = std::mem::take(&mut self.upload(key, id)?.headers);
        self.remove_upload(id);
        Ok(self.store(key, bytes, Some(etag), headers))
    }

    pub(super) fn remove_upload(&mut self, upload: &UploadId) {
        if let Ok(id) = upload.0.parse() {
            self.uploads.remove(&id);
        }
    }

    /// A page of the keys behind `after`. A `next` token is the last key or prefix of its page.
    pub(super) fn page(&self, request: &ListRequest) -> ListPage {
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
    pub(super) fn listed(&self, key: &ObjectKey) -> Listed {
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
    pub(super) fn done(&self, number: u16) -> PartDone {
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
pub(super) fn cut(bytes: &Bytes, range: Option<Range<u64>>) -> Result<(Range<u64>, Bytes)> {
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
