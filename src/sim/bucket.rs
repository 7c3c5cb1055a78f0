//! The buckets: a flat, byte-ordered key space in memory, its changes in the journal, its bytes in
//! blobs.
//!
//! Invariants:
//! - a key is any text of at most 1,024 bytes: `f`, `f/`, `f/x`, `//`, `..` are just keys;
//! - a precondition is judged, and the change made and journaled, under one lock;
//! - what a reader holds (an `Arc<Object>`) stays readable whatever happens to its key.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use s3s::dto::ETagCondition;
use s3s::{S3Error, S3Result, s3_error};
use serde::{Deserialize, Serialize};

use super::blob::{Blobs, Content, Slice};
use super::checks::{Checksum, Sums, hex};
use super::journal::{Journal, ObjectRecord, Record, SliceRecord};
use super::list;
use super::multipart::Upload;
use super::reload::{reload, snapshot};

/// What travels with an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attributes {
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) storage_class: Option<String>,
    pub(super) encryption: Option<String>,
    pub(super) tagging: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// One version of a key.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) content: Content,
    pub(super) size: u64,
    /// Without its quotes.
    pub(super) etag: String,
    /// Seconds since 1970.
    pub(super) modified: i64,
    pub(super) crc64: u64,
    pub(super) checksum: Checksum,
    pub(super) attributes: Attributes,
}

impl Object {
    /// Of a body that came in one piece.
    pub(super) fn single(content: Content, sums: Sums, attributes: Attributes) -> Self {
        Self {
            size: content.len(),
            content,
            etag: hex(&sums.md5),
            modified: now(),
            crc64: sums.crc64,
            checksum: sums.checksum,
            attributes,
        }
    }

    /// The MD5 of the bytes, where the ETag is it.
    pub(super) fn md5(&self) -> Option<[u8; 16]> {
        let mut md5 = [0; 16];
        if self.etag.len() != 32 {
            return None;
        }
        for (byte, digits) in md5.iter_mut().zip(self.etag.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(md5)
    }

    pub(super) fn record(&self) -> ObjectRecord {
        ObjectRecord {
            slices: slices(&self.content),
            etag: self.etag.clone(),
            modified: self.modified,
            crc64: self.crc64,
            checksum: self.checksum.clone(),
            attributes: self.attributes.clone(),
        }
    }
}

/// What a writer demands of the version it replaces.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
}

impl Condition {
    pub(super) fn check(&self, current: Option<&Object>) -> S3Result {
        if let Some(wanted) = &self.if_match {
            let Some(current) = current else {
                return Err(s3_error!(NoSuchKey));
            };
            if !matches(wanted, &current.etag) {
                return Err(precondition_failed("If-Match"));
            }
        }
        match &self.if_none_match {
            None => Ok(()),
            Some(ETagCondition::Any) if current.is_none() => Ok(()),
            Some(ETagCondition::Any) => Err(precondition_failed("If-None-Match")),
            Some(ETagCondition::ETag(_)) => Err(s3_error!(
                NotImplemented,
                "If-None-Match of a write takes only an asterisk."
            )),
        }
    }
}

pub(super) fn precondition_failed(which: &str) -> S3Error {
    s3_error!(
        PreconditionFailed,
        "At least one of the pre-conditions you specified did not hold: {which}"
    )
}

/// Whether a condition names this ETag.
pub(super) fn matches(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(wanted) => wanted.value() == etag,
    }
}

/// One bucket.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) created: i64,
    pub(super) objects: BTreeMap<String, Arc<Object>>,
    pub(super) uploads: BTreeMap<String, Upload>,
}

/// What the lock guards.
#[derive(Debug)]
pub(super) struct State {
    pub(super) buckets: BTreeMap<String, Bucket>,
    pub(super) journal: Journal,
}

impl State {
    pub(super) fn bucket(&mut self, name: &str) -> S3Result<&mut Bucket> {
        self.buckets
            .get_mut(name)
            .ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    pub(super) fn journal(&mut self, records: &[Record]) -> S3Result {
        self.journal
            .append(records)
            .map_err(S3Error::internal_error)
    }

    /// Puts an object, together with what else is to be journaled with it.
    pub(super) fn put(
        &mut self,
        bucket: &str,
        key: &str,
        object: Object,
        also: Option<Record>,
    ) -> S3Result<Arc<Object>> {
        let mut records = vec![Record::Put {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            object: object.record(),
        }];
        records.extend(also);
        self.journal(&records)?;
        let object = Arc::new(object);
        let objects = &mut self.bucket(bucket)?.objects;
        objects.insert(key.to_owned(), Arc::clone(&object));
        Ok(object)
    }
}

/// The simulated storage.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) state: Mutex<State>,
    pub(super) blobs: Arc<Blobs>,
}

impl Store {
    /// Opens, or begins, the storage in `dir`.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let files = dir.join("blobs");
        std::fs::create_dir_all(&files)?;
        let blobs = Blobs::new(&files);
        let buckets = reload(dir, &blobs)?;
        let journal = Journal::rewrite(dir, snapshot(&buckets))?;
        let state = Mutex::new(State { buckets, journal });
        Ok(Self { state, blobs })
    }

    /// `false`: it was there.
    pub(super) fn create_bucket(&self, name: &str) -> S3Result<bool> {
        let mut state = self.state.lock();
        if state.buckets.contains_key(name) {
            return Ok(false);
        }
        let created = now();
        state.journal(&[Record::Bucket {
            bucket: name.to_owned(),
            created,
        }])?;
        let bucket = Bucket {
            created,
            ..Bucket::default()
        };
        state.buckets.insert(name.to_owned(), bucket);
        Ok(true)
    }

    /// Names and when they were created.
    pub(super) fn buckets(&self) -> Vec<(String, i64)> {
        let state = self.state.lock();
        let buckets = state.buckets.iter();
        buckets
            .map(|(name, bucket)| (name.clone(), bucket.created))
            .collect()
    }

    /// Refuses a bucket that is not there.
    pub(super) fn check_bucket(&self, name: &str) -> S3Result {
        self.state.lock().bucket(name).map(|_| ())
    }

    pub(super) fn get(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        let mut state = self.state.lock();
        let object = state.bucket(bucket)?.objects.get(key);
        object
            .cloned()
            .ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    pub(super) fn put(
        &self,
        bucket: &str,
        key: &str,
        object: Object,
        when: &Condition,
    ) -> S3Result<Arc<Object>> {
        let mut state = self.state.lock();
        when.check(state.bucket(bucket)?.objects.get(key).map(AsRef::as_ref))?;
        state.put(bucket, key, object, None)
    }

    /// Deleting what is not there is done, unless a version was demanded.
    pub(super) fn delete(&self, bucket: &str, key: &str, when: &Condition) -> S3Result {
        let mut state = self.state.lock();
        let current = state.bucket(bucket)?.objects.get(key);
        when.check(current.map(AsRef::as_ref))?;
        if current.is_none() {
            return Ok(());
        }
        state.journal(&[Record::Delete {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        }])?;
        state.bucket(bucket)?.objects.remove(key);
        Ok(())
    }

    pub(super) fn list(
        &self,
        bucket: &str,
        query: &list::Query,
    ) -> S3Result<list::Page<Arc<Object>>> {
        let mut state = self.state.lock();
        Ok(list::page(&state.bucket(bucket)?.objects, query))
    }

    /// Puts many small objects at once, without a request; their bytes share one blob.
    pub(super) fn seed(
        &self,
        bucket: &str,
        objects: impl Iterator<Item = (String, Vec<u8>)>,
    ) -> io::Result<u64> {
        let mut all = Vec::new();
        let mut placed = Vec::new();
        for (key, bytes) in objects {
            let mut summer = super::checks::Summer::new(None);
            summer.update(&bytes);
            placed.push((key, all.len() as u64, summer.finish()));
            all.extend(bytes);
        }
        let blob = self.blobs.write(&all)?;
        let mut state = self.state.lock();
        let count = placed.len() as u64;
        for (key, offset, sums) in placed {
            let mut content = Content::default();
            content.push(Slice {
                blob: Arc::clone(&blob),
                offset,
                len: sums.len,
            });
            let object = Object::single(content, sums, Attributes::default());
            state
                .put(bucket, &key, object, None)
                .map_err(io::Error::other)?;
        }
        Ok(count)
    }
}

/// Now, in seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// A content as the journal has it.
pub(super) fn slices(content: &Content) -> Vec<SliceRecord> {
    let slices = content.slices().iter();
    slices
        .map(|slice| (slice.blob.number(), slice.offset, slice.len))
        .collect()
}

#[cfg(test)]
mod tests;
