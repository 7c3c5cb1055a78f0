//! `apply`: the one place that gives a record its meaning, live, at boot and in tests.
//!
//! Invariant: `State` after the records of the log, applied in order, is the same whether they were
//! applied as they came or at boot (but for what is only known while running: `held`, times, what
//! was asked of the bucket).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use crate::log::{Change, Record, SentObject};
use crate::seeded::{self, Bug};
use crate::types::{
    Attrs, Base, Extents, FileNo, Generation, ObjectId, ObjectMeta, RelKey, Seq, Source, Want,
};

use super::memory::Memory;
use super::pending::{Pending, PendingMap, Uploading};
use super::remote::{Known, Remote};
use super::sources::Sources;
use super::uploads::Uploads;

/// Shorter pieces are not worth being copied in the bucket instead of sent again; bytes that lie in
/// the log's segments are shorter.
pub const SHARED_MIN: u64 = 64 * 1024;

/// All that the tree's lock guards.
#[derive(Debug)]
pub(super) struct State {
    /// What is wanted and not yet so.
    pub(super) pending: PendingMap,
    /// What is known of the bucket.
    pub(super) remote: Remote,
    /// Attributes of versions.
    pub(super) memory: Memory,
    /// Where bytes are since they were sent.
    sources: Sources,
    /// Uploads that S3 may still have parts of.
    pub(super) uploads: Uploads,
    /// Data files that drafts read from.
    pub(super) pins: HashMap<FileNo, usize>,
    /// Data files that some record has named: what lies in one behind what is told here, and one
    /// not in here, is a draft of a crash.
    pub(super) written_for: BTreeMap<FileNo, WrittenFor>,
    /// The position of the last record.
    pub(super) last: Seq,
    /// How often the root has changed.
    pub(super) roots: u64,
}

/// Whose bytes lie in a data file.
#[derive(Clone, Debug)]
pub(super) struct WrittenFor {
    /// The name they were written for.
    pub(super) key: RelKey,
    /// Behind it lies what was neither closed nor fsynced.
    pub(super) sealed: u64,
}

impl State {
    /// Before any record.
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            pending: PendingMap::default(),
            remote: Remote::default(),
            memory,
            sources: Sources::default(),
            uploads: Uploads::default(),
            pins: HashMap::new(),
            written_for: BTreeMap::new(),
            last: Seq(0),
            roots: 0,
        }
    }

    /// Gives `record`, at position `seq`, its meaning.
    pub(super) fn apply(&mut self, seq: Seq, record: Record, now: Instant) {
        self.last = self.last.max(seq);
        match record {
            Record::Set(changes) => {
                changes
                    .into_iter()
                    .for_each(|change| self.set(seq, change, now));
            }
            Record::Begun { key, number } => {
                self.begin(&key, number);
                self.pending.edit(&key, |entry| entry.begun = true);
            }
            Record::Staged { .. }
            | Record::Uploading { .. }
            | Record::UploadBegun { .. }
            | Record::UploadLeft { .. }
            | Record::UploadEnded { .. } => self.apply_upload(record),
            Record::Sent {
                key,
                number,
                object,
            } => self.sent(seq, &key, number, *object, now),
            Record::Removed { key, number } => self.removed(seq, &key, number, now),
            Record::Conflict {
                key,
                number,
                base,
                aside,
            } => {
                self.conflict(&key, number, base, aside, now);
            }
            Record::Dead {
                key,
                number,
                reason,
            } => self.pending.edit(&key, |entry| {
                if entry.number == number {
                    entry.dead = Some(reason);
                }
            }),
            Record::Retry => self.retry(),
            Record::Rerooted => self.reroot(seq),
            Record::Draft { key, file, sealed } => {
                let was = self.written_for.get(&file).map_or(0, |was| was.sealed);
                let sealed = sealed.max(was);
                self.written_for.insert(file, WrittenFor { key, sealed });
            }
        }
    }

    /// How far a multipart upload has come.
    fn apply_upload(&mut self, record: Record) {
        match record {
            Record::Staged {
                key,
                number,
                upload,
                parts,
            } => {
                self.begin(&key, number);
                self.is_staged(&key, &upload);
                self.pending.edit(&key, |entry| {
                    entry.uploading.take_if(|begun| begun.number == number);
                    if upload.is_empty() {
                        entry.stamp = None;
                    }
                    entry.staged = Some((number, upload, parts));
                });
            }
            Record::Uploading {
                key,
                number,
                upload,
            } => {
                let begun = Uploading {
                    number,
                    upload,
                    part: None,
                    stamp: number,
                };
                self.uploading(&key, begun);
            }
            Record::UploadBegun {
                key,
                number,
                upload,
                part,
                stamp,
            } => {
                let begun = Uploading {
                    number,
                    upload,
                    part: Some(part),
                    stamp,
                };
                self.uploading(&key, begun);
            }
            Record::UploadLeft { key, upload } => self.uploads.begun(&key, &upload),
            Record::UploadEnded { upload } => self.uploads.ended(&upload),
            _ => {}
        }
    }

    /// What was refused is tried again.
    fn retry(&mut self) {
        let dead = self.pending.in_order();
        let dead = dead.filter(|(_, entry)| entry.dead.is_some());
        for key in dead.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.pending.edit(&key, |entry| entry.dead = None);
        }
    }

    /// Nothing is known of the new root, and nothing of what is wanted was begun there.
    fn reroot(&mut self, seq: Seq) {
        self.roots += 1;
        self.remote.reroot(seq);
        self.uploads.forget();
        let keys = self.pending.in_order().map(|(key, _)| key.clone());
        for key in keys.collect::<Vec<_>>() {
            self.pending.edit(&key, |entry| {
                (entry.base, entry.seen) = (Base::Absent, None);
                (entry.begun, entry.over_gone) = (false, false);
                (entry.staged, entry.uploading, entry.stamp) = (None, None, None);
                entry.dead = None;
            });
        }
    }

    /// Keeps where a data file's bytes went only as long as somebody may name them.
    pub(super) fn forget_sent(&mut self, file: FileNo) {
        self.written_for.remove(&file);
        self.sources.forget(file);
    }

    /// A generation with what was moved named by where it is now.
    fn renamed(&self, generation: &Generation) -> Generation {
        self.sources
            .renamed(generation, &|version| self.is_there(version))
    }

    /// Pieces of versions that were replaced, named by where they are now.
    pub(super) fn led(&self, extents: &Extents) -> Extents {
        self.sources.led(extents, &|version| self.is_there(version))
    }

    fn is_there(&self, version: &ObjectId) -> bool {
        let key = RelKey::parse(version.key.as_str());
        let known = key.and_then(|key| self.remote.known(&key));
        known.is_some_and(|known| known.etag == version.etag)
    }

    fn set(&mut self, seq: Seq, change: Change, now: Instant) {
        let old = self.pending.take(&change.key);
        let over_gone = matches!(change.want, Want::Open { .. })
            && old.as_ref().is_some_and(|old| {
                old.over_gone || (old.want == Want::Gone && (old.begun || old.base != Base::Absent))
            });
        let want = match change.want {
            Want::Object(generation) => Want::Object(self.renamed(&generation).into()),
            other => other,
        };
        // Who writes over what nobody here has seen has not seen it either.
        let seen = old
            .as_ref()
            .filter(|old| old.base == change.base)
            .and_then(|old| old.seen.clone());
        let entry = Pending {
            seen,
            number: change.number.unwrap_or(seq),
            position: seq,
            want,
            base: change.base,
            since: now,
            unsent_since: old.as_ref().map_or(now, |old| old.unsent_since),
            was_closed: old.as_ref().is_some_and(|old| old.was_closed),
            held: false,
            urgent: false,
            begun: old.as_ref().is_some_and(|old| old.begun),
            uploading: old.as_ref().and_then(|old| old.uploading.clone()),
            stamp: old.as_ref().and_then(|old| old.stamp),
            staged: old.and_then(|old| old.staged),
            dead: None,
            over_gone,
        };
        if let Want::Object(generation) = &entry.want {
            self.named(&change.key, generation);
        }
        self.pending.put(change.key, entry);
    }

    /// A generation names bytes of data files.
    fn named(&mut self, key: &RelKey, generation: &Generation) {
        for extent in generation.extents.iter() {
            if let Source::Local { file, offset } = extent.from {
                let end = offset + extent.len;
                let whose = self.written_for.entry(file).or_insert_with(|| WrittenFor {
                    key: key.clone(),
                    sealed: 0,
                });
                whose.sealed = whose.sealed.max(end);
            }
        }
    }

    fn sent(&mut self, seq: Seq, key: &RelKey, number: Seq, object: SentObject, now: Instant) {
        let attrs = Attrs::from_headers(&object.headers, key.is_dir());
        let id = object.id.clone();
        self.memory.put(key, &id.etag, &attrs);
        let known = Known {
            by: Some(number),
            ..Known::from(&ObjectMeta::from(object))
        };
        self.remote.result(key, Some(known), seq, now);
        let entry = self.pending.get(key);
        let settles = entry
            .is_some_and(|entry| entry.number == number || seeded::is(Bug::NewerPassesForSent));
        let is_staged = entry
            .and_then(|entry| entry.staged.as_ref())
            .is_some_and(|(staged, ..)| *staged == number)
            || entry.is_some_and(|entry| entry.stamp == Some(number));
        // It may have come another way, by a request of which a crash took the answer: then the parts
        // are still to be aborted.
        if let Some((_, upload, _)) = entry.and_then(|entry| entry.staged.as_ref())
            && is_staged
            && id.etag.is_of_parts()
        {
            self.uploads.ended(upload);
        }
        let generation = if settles {
            self.pending
                .take(key)
                .and_then(|entry| entry.generation().cloned())
        } else {
            self.pending.edit(key, |entry| {
                if !seeded::is(Bug::BaseNotMoved) {
                    (entry.base, entry.seen) = (Base::Version(id.etag.clone()), None);
                }
                entry.begun = false;
                // What was unsent before went with this one.
                entry.unsent_since = entry.since;
                let is_it = entry.stamp == Some(number);
                entry
                    .staged
                    .take_if(|(staged, ..)| *staged <= number || is_it);
                entry
                    .uploading
                    .take_if(|begun| begun.number <= number || is_it);
                entry.stamp.take_if(|stamp| *stamp <= number);
            });
            self.sources.begun(key, number)
        };
        self.sources.end(key, number);
        if let Some(generation) = generation {
            self.moved(&generation, &id, is_staged);
        }
    }

    /// Its parts are there; or (an upload without a name) what was staged before was aborted.
    fn is_staged(&mut self, key: &RelKey, upload: &str) {
        let before = self
            .pending
            .get(key)
            .and_then(|entry| entry.staged.as_ref());
        if let Some((_, before, _)) = before
            && upload.is_empty()
        {
            self.uploads.ended(before);
        }
        self.uploads.begun(key, upload);
    }

    fn uploading(&mut self, key: &RelKey, begun: Uploading) {
        self.uploads.begun(key, &begun.upload);
        let stamp = Some(begun.stamp).filter(|stamp| *stamp != begun.number);
        // What it is stamped with will be this generation's content.
        if let (Some(stamp), Some(entry)) = (stamp, self.pending.get(key))
            && entry.number == begun.number
            && let Some(generation) = entry.generation()
        {
            self.sources.begin(key, stamp, generation);
        }
        self.pending.edit(key, |entry| {
            (entry.uploading, entry.stamp) = (Some(begun), stamp);
        });
    }

    /// A request for `number` was sent: its answer may come when it is superseded.
    fn begin(&mut self, key: &RelKey, number: Seq) {
        let entry = self.pending.get(key).filter(|entry| entry.number == number);
        if let Some(generation) = entry.and_then(Pending::generation) {
            self.sources.begin(key, number, generation);
        }
    }

    /// Whoever else names bytes of `generation`, which became `id`, names them there.
    fn moved(&mut self, generation: &Generation, id: &ObjectId, is_staged: bool) {
        // Once it was staged, what it was copied from may have been replaced.
        let may_go = |version: &ObjectId| {
            let key = RelKey::parse(version.key.as_str());
            is_staged || key.is_some_and(|key| self.pending.get(&key).is_some())
        };
        let moved = self.sources.learn(generation, id, &may_go);
        let mut keys: BTreeSet<_> = self.pending.keys_naming(&moved.files).into_iter().collect();
        if !moved.versions.is_empty() {
            let named = self.pending.below("").filter(|(_, entry)| {
                let generation = entry.generation();
                generation.is_some_and(|generation| moved.concerns(&generation.extents))
            });
            keys.extend(named.map(|(key, _)| key.clone()));
        }
        for key in keys {
            let Some(mut entry) = self.pending.take(&key) else {
                continue;
            };
            if let Want::Object(generation) = &entry.want {
                entry.want = Want::Object(self.renamed(generation).into());
            }
            self.pending.put(key, entry);
        }
    }

    fn removed(&mut self, seq: Seq, key: &RelKey, number: Seq, now: Instant) {
        self.remote.result(key, None, seq, now);
        self.memory.forget(key);
        self.sources.end(key, number);
        let settles = self
            .pending
            .get(key)
            .is_some_and(|entry| entry.number == number && entry.want == Want::Gone);
        if settles {
            self.pending.take(key);
            if key.is_dir() {
                self.remote.forget_dir(&key.path(), now);
            }
        } else {
            self.pending.edit(key, |entry| {
                (entry.base, entry.seen) = (Base::Absent, None);
                entry.begun = false;
                entry.over_gone = false;
            });
        }
    }

    fn conflict(
        &mut self,
        key: &RelKey,
        number: Seq,
        base: Base,
        aside: Option<RelKey>,
        now: Instant,
    ) {
        let entry = self.pending.get(key);
        if entry.is_none_or(|entry| entry.number != number) {
            // A newer change may build on the old base: it has to meet the other version itself.
            return;
        }
        let Some(aside) = aside else {
            self.pending.edit(key, |entry| {
                let old = std::mem::replace(&mut entry.base, base);
                // A directory is the same, whoever made it.
                if !key.is_dir() && entry.seen.is_none() && !seeded::is(Bug::UnseenRemoved) {
                    entry.seen = Some(old);
                }
                entry.begun = false;
            });
            return;
        };
        self.sources.end(key, number);
        if let Some(entry) = self.pending.take(key) {
            let moved = Pending {
                base: Base::Absent,
                seen: None,
                begun: false,
                staged: None,
                // It is for the key it has left: the drain aborts it.
                uploading: None,
                stamp: None,
                since: now,
                ..entry
            };
            self.pending.put(aside, moved);
        }
    }
}
