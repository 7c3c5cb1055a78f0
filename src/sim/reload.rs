//! The state that a journal tells, and the journal that a state needs.
//!
//! Invariant: `reload` of what `snapshot` wrote is the same state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use super::blob::{Blob, Blobs, Content, Slice};
use super::bucket::{Bucket, Object};
use super::journal::{Journal, ObjectRecord, Record, SliceRecord};
use super::multipart::{Part, Upload};

/// The buckets that the journal in `dir` tells of. Blobs that none of them needs are removed.
pub(super) fn reload(dir: &Path, blobs: &Arc<Blobs>) -> io::Result<BTreeMap<String, Bucket>> {
    let mut known = Known::new(blobs);
    let mut buckets = BTreeMap::new();
    Journal::load(dir, |record| known.replay(&mut buckets, record))?;
    let live = known.still_used();
    blobs.sweep(|number| live.contains(&number))?;
    Ok(buckets)
}

/// The blobs that were met in the journal, so that each is one.
struct Known {
    home: Arc<Blobs>,
    blobs: HashMap<u64, Arc<Blob>>,
}

impl Known {
    fn new(home: &Arc<Blobs>) -> Self {
        let home = Arc::clone(home);
        Self {
            home,
            blobs: HashMap::new(),
        }
    }

    /// The numbers of those that somebody else holds too.
    fn still_used(self) -> HashSet<u64> {
        let weak = |blob: &Arc<Blob>| Arc::downgrade(blob);
        let all: Vec<_> = self
            .blobs
            .iter()
            .map(|(number, blob)| (*number, weak(blob)))
            .collect();
        drop(self.blobs);
        let held = |blob: &Weak<Blob>| blob.strong_count() > 0;
        let live = all.into_iter().filter(|(_, blob)| held(blob));
        live.map(|(number, _)| number).collect()
    }

    fn content(&mut self, slices: &[SliceRecord]) -> Content {
        let mut content = Content::default();
        for &(number, offset, len) in slices {
            let home = &self.home;
            let blob = self
                .blobs
                .entry(number)
                .or_insert_with(|| home.existing(number));
            let blob = Arc::clone(blob);
            content.push(Slice { blob, offset, len });
        }
        content
    }

    fn object(&mut self, record: ObjectRecord) -> Object {
        let content = self.content(&record.slices);
        Object {
            size: content.len(),
            content,
            etag: record.etag,
            modified: record.modified,
            crc64: record.crc64,
            checksum: record.checksum,
            attributes: record.attributes,
        }
    }

    fn replay(&mut self, buckets: &mut BTreeMap<String, Bucket>, record: Record) {
        match record {
            Record::Bucket { bucket, created } => {
                buckets.entry(bucket).or_default().created = created;
            }
            Record::Put {
                bucket,
                key,
                object,
            } => {
                let object = Arc::new(self.object(object));
                buckets
                    .entry(bucket)
                    .or_default()
                    .objects
                    .insert(key, object);
            }
            Record::Delete { bucket, key } => {
                buckets.entry(bucket).or_default().objects.remove(&key);
            }
            Record::Create {
                bucket,
                upload,
                what,
            } => {
                let uploads = &mut buckets.entry(bucket).or_default().uploads;
                uploads.insert(upload, Upload::new(what));
            }
            Record::Part {
                bucket,
                upload,
                number,
                part,
            } => {
                let content = self.content(&part.slices);
                let uploads = &mut buckets.entry(bucket).or_default().uploads;
                if let Some(upload) = uploads.get_mut(&upload) {
                    let part = Arc::new(Part::of_record(content, part));
                    upload.parts.insert(number, part);
                }
            }
            Record::End { bucket, upload } => {
                buckets.entry(bucket).or_default().uploads.remove(&upload);
            }
        }
    }
}

/// The records that make these buckets.
pub(super) fn snapshot(buckets: &BTreeMap<String, Bucket>) -> impl Iterator<Item = Record> + '_ {
    buckets.iter().flat_map(|(name, bucket)| {
        let created = Record::Bucket {
            bucket: name.clone(),
            created: bucket.created,
        };
        let objects = bucket.objects.iter().map(|(key, object)| Record::Put {
            bucket: name.clone(),
            key: key.clone(),
            object: object.record(),
        });
        let uploads = bucket.uploads.iter();
        let uploads = uploads.flat_map(|(id, upload)| upload.records(name, id));
        std::iter::once(created).chain(objects).chain(uploads)
    })
}
