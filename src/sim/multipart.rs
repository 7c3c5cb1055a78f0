//! Multipart uploads: parts by number, and the object that they make.
//!
//! Invariants:
//! - an upload is known by its id alone, whoever asks with whatever credentials;
//! - completing judges part numbers, ETags, sizes and checksums before it touches the key, and the
//!   precondition under the same lock as the change.

use std::collections::BTreeMap;
use std::sync::Arc;

use s3s::{S3Result, s3_error};

use super::blob::Content;
use super::bucket::{Attributes, Condition, Object, Store, now, slices};
use super::checks::{self, Algorithm, Checksum, PartSum, Sums, hex};
use super::journal::{PartRecord, Record, UploadRecord};
use super::random;

/// The least size of a part that is not the last, and what a source of a ranged copy must exceed.
pub(super) const MIN_PART: u64 = 5 << 20;

/// The highest part number.
const MAX_PARTS: i32 = 10_000;

/// A part that has arrived.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) content: Content,
    pub(super) md5: [u8; 16],
    pub(super) modified: i64,
    pub(super) crc64: u64,
    pub(super) checksum: Checksum,
}

impl Part {
    pub(super) fn new(content: Content, sums: Sums) -> Self {
        Self {
            content,
            md5: sums.md5,
            modified: now(),
            crc64: sums.crc64,
            checksum: sums.checksum,
        }
    }

    pub(super) fn of_record(content: Content, record: PartRecord) -> Self {
        Self {
            content,
            md5: record.md5,
            modified: record.modified,
            crc64: record.crc64,
            checksum: record.checksum,
        }
    }

    fn record(&self) -> PartRecord {
        PartRecord {
            slices: slices(&self.content),
            md5: self.md5,
            modified: self.modified,
            crc64: self.crc64,
            checksum: self.checksum.clone(),
        }
    }

    pub(super) fn etag(&self) -> String {
        hex(&self.md5)
    }

    fn sum(&self) -> PartSum<'_> {
        PartSum {
            len: self.content.len(),
            md5: self.md5,
            crc64: self.crc64,
            checksum: &self.checksum,
        }
    }
}

/// An upload that is under way.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) what: UploadRecord,
    pub(super) parts: BTreeMap<u16, Arc<Part>>,
}

impl Upload {
    pub(super) fn new(what: UploadRecord) -> Self {
        Self {
            what,
            parts: BTreeMap::new(),
        }
    }

    /// The records that make it.
    pub(super) fn records(&self, bucket: &str, id: &str) -> Vec<Record> {
        let created = Record::Create {
            bucket: bucket.to_owned(),
            upload: id.to_owned(),
            what: self.what.clone(),
        };
        let parts = self.parts.iter().map(|(number, part)| Record::Part {
            bucket: bucket.to_owned(),
            upload: id.to_owned(),
            number: *number,
            part: part.record(),
        });
        std::iter::once(created).chain(parts).collect()
    }
}

/// How an upload is created.
#[derive(Debug)]
pub(super) struct Creation {
    pub(super) key: String,
    pub(super) attributes: Attributes,
    pub(super) algorithm: Option<Algorithm>,
    pub(super) composite: bool,
}

/// A part as `CompleteMultipartUpload` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) number: i32,
    pub(super) etag: String,
    pub(super) checksum: Option<(Algorithm, String)>,
}

/// How an upload is to be completed.
#[derive(Debug, Default)]
pub(super) struct Completion {
    pub(super) parts: Vec<Named>,
    pub(super) size: Option<u64>,
    pub(super) checksum: Option<(Algorithm, String)>,
    pub(super) when: Condition,
}

/// A part number, checked.
pub(super) fn number(number: i32) -> S3Result<u16> {
    if !(1..=MAX_PARTS).contains(&number) {
        return Err(s3_error!(
            InvalidArgument,
            "Part number must be an integer between 1 and 10000, inclusive"
        ));
    }
    u16::try_from(number).map_err(|_| s3_error!(InvalidArgument))
}

/// The object that the named parts of `upload` make.
pub(super) fn assemble(upload: &Upload, asked: &Completion) -> S3Result<Object> {
    let parts = chosen(upload, &asked.parts)?;
    let sums: Vec<PartSum<'_>> = parts.iter().map(|part| part.sum()).collect();
    let crc64 = checks::joined_crc64(&sums);
    let what = &upload.what;
    let by_algorithm = what
        .algorithm
        .and_then(|algorithm| checks::joined(&sums, algorithm, what.composite));
    let checksum = by_algorithm.unwrap_or_else(|| Checksum::crc64(crc64));
    if let Some((algorithm, value)) = &asked.checksum {
        checks::same(*algorithm, value, &checksum)?;
    }
    let mut content = Content::default();
    for part in &parts {
        content.append(&part.content);
    }
    let size = content.len();
    if asked.size.is_some_and(|asked| asked != size) {
        return Err(s3_error!(
            InvalidRequest,
            "The provided 'x-amz-mp-object-size' header does not match what was computed."
        ));
    }
    Ok(Object {
        size,
        content,
        etag: checks::multipart_etag(&sums),
        modified: now(),
        crc64,
        checksum,
        attributes: what.attributes.clone(),
    })
}

fn chosen<'a>(upload: &'a Upload, named: &[Named]) -> S3Result<Vec<&'a Part>> {
    if named.is_empty() {
        return Err(s3_error!(
            MalformedXML,
            "You must specify at least one part"
        ));
    }
    if named.windows(2).any(|two| two[0].number >= two[1].number) {
        return Err(s3_error!(
            InvalidPartOrder,
            "The list of parts was not in ascending order."
        ));
    }
    let mut parts = Vec::with_capacity(named.len());
    for name in named {
        let part = upload.parts.get(&number(name.number)?);
        let part = part.filter(|part| part.etag() == name.etag.trim_matches('"'));
        let part = part.filter(|part| match &name.checksum {
            Some((algorithm, value)) => checks::same(*algorithm, value, &part.checksum).is_ok(),
            None => true,
        });
        parts.push(part.map(AsRef::as_ref).ok_or_else(|| {
            s3_error!(
                InvalidPart,
                "One or more of the specified parts could not be found: {}",
                name.number
            )
        })?);
    }
    let all_but_last = &parts[..parts.len() - 1];
    if all_but_last
        .iter()
        .any(|part| part.content.len() < MIN_PART)
    {
        return Err(s3_error!(
            EntityTooSmall,
            "Your proposed upload is smaller than the minimum allowed size"
        ));
    }
    Ok(parts)
}

fn no_such_upload() -> s3s::S3Error {
    s3_error!(
        NoSuchUpload,
        "The specified multipart upload does not exist."
    )
}

impl Store {
    /// The id of a new upload.
    pub(super) fn create_upload(&self, bucket: &str, creation: Creation) -> S3Result<String> {
        let id = random::text(64).map_err(s3s::S3Error::internal_error)?;
        let what = UploadRecord {
            key: creation.key,
            attributes: creation.attributes,
            algorithm: creation.algorithm,
            composite: creation.composite,
            initiated: now(),
        };
        let mut state = self.state.lock();
        state.bucket(bucket)?;
        state.journal(&[Record::Create {
            bucket: bucket.to_owned(),
            upload: id.clone(),
            what: what.clone(),
        }])?;
        let uploads = &mut state.bucket(bucket)?.uploads;
        uploads.insert(id.clone(), Upload::new(what));
        Ok(id)
    }

    /// Looks at an upload of that key.
    pub(super) fn upload<T>(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        look: impl FnOnce(&Upload) -> T,
    ) -> S3Result<T> {
        let mut state = self.state.lock();
        let upload = state.bucket(bucket)?.uploads.get(id);
        let upload = upload.filter(|upload| upload.what.key == key);
        upload.map(look).ok_or_else(no_such_upload)
    }

    pub(super) fn put_part(
        &self,
        bucket: &str,
        id: &str,
        number: u16,
        part: Part,
    ) -> S3Result<Arc<Part>> {
        let mut state = self.state.lock();
        if !state.bucket(bucket)?.uploads.contains_key(id) {
            return Err(no_such_upload());
        }
        state.journal(&[Record::Part {
            bucket: bucket.to_owned(),
            upload: id.to_owned(),
            number,
            part: part.record(),
        }])?;
        let part = Arc::new(part);
        if let Some(upload) = state.bucket(bucket)?.uploads.get_mut(id) {
            upload.parts.insert(number, Arc::clone(&part));
        }
        Ok(part)
    }

    pub(super) fn complete(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        asked: &Completion,
    ) -> S3Result<Arc<Object>> {
        let mut state = self.state.lock();
        let held = state.bucket(bucket)?;
        let upload = held.uploads.get(id).filter(|upload| upload.what.key == key);
        let object = assemble(upload.ok_or_else(no_such_upload)?, asked)?;
        asked.when.check(held.objects.get(key).map(AsRef::as_ref))?;
        let end = Record::End {
            bucket: bucket.to_owned(),
            upload: id.to_owned(),
        };
        let object = state.put(bucket, key, object, Some(end))?;
        state.bucket(bucket)?.uploads.remove(id);
        Ok(object)
    }

    pub(super) fn abort(&self, bucket: &str, key: &str, id: &str) -> S3Result {
        self.upload(bucket, key, id, |_| ())?;
        let mut state = self.state.lock();
        state.journal(&[Record::End {
            bucket: bucket.to_owned(),
            upload: id.to_owned(),
        }])?;
        state.bucket(bucket)?.uploads.remove(id);
        Ok(())
    }

    /// All uploads of the bucket under `prefix`, by key, then by time, then by id.
    pub(super) fn uploads(
        &self,
        bucket: &str,
        prefix: &str,
    ) -> S3Result<Vec<(String, String, UploadRecord)>> {
        let mut state = self.state.lock();
        let uploads = state.bucket(bucket)?.uploads.iter();
        let mut all: Vec<_> = uploads
            .filter(|(_, upload)| upload.what.key.starts_with(prefix))
            .map(|(id, upload)| (upload.what.key.clone(), id.clone(), upload.what.clone()))
            .collect();
        all.sort_by(|a, b| (&a.0, a.2.initiated, &a.1).cmp(&(&b.0, b.2.initiated, &b.1)));
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
