//! `apply`: the one place that gives a record its meaning, live, at boot and in tests.
//!
//! Invariant: `State` after the records of the log, applied in order, is the same whether they were
//! applied as they came or at boot (but for what is only known while running: `held`, times, what
//! was asked of the bucket).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use crate::log::{Change, Record, SentObject};
use crate::types::{
    Attrs, Base, Extent, Extents, FileNo, Generation, ObjectId, ObjectMeta, RelKey, Seq, Source,
    Want,
};

use super::memory::Memory;
use super::pending::{Pending, PendingMap};
use super::remote::{Known, Remote};

/// Where the bytes of a data file now also are: offset in it -> (length, version, offset there).
type SentRanges = BTreeMap<u64, (u64, ObjectId, u64)>;

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
    /// Data files whose bytes S3 has, while a draft or an entry may still name them.
    sent: HashMap<FileNo, SentRanges>,
    /// Data files that drafts read from.
    pub(super) pins: HashMap<FileNo, usize>,
    /// Data files that some record has named: at boot, those not in here are drafts of a crash.
    pub(super) ever_named: BTreeSet<FileNo>,
    /// The position of the last record.
    pub(super) last: Seq,
}

impl State {
    /// Before any record.
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            pending: PendingMap::default(),
            remote: Remote::default(),
            memory,
            sent: HashMap::new(),
            pins: HashMap::new(),
            ever_named: BTreeSet::new(),
            last: Seq(0),
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
            Record::Begun { key, number: _ } => {
                self.pending.edit(&key, |entry| entry.begun = true);
            }
            Record::Staged {
                key,
                number,
                upload,
                parts,
            } => {
                self.pending
                    .edit(&key, |entry| entry.staged = Some((number, upload, parts)));
            }
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
            Record::Retry => {
                let dead = self
                    .pending
                    .in_order()
                    .filter(|(_, entry)| entry.dead.is_some());
                for key in dead.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                    self.pending.edit(&key, |entry| entry.dead = None);
                }
            }
        }
    }

    /// Keeps where a data file's bytes went only as long as somebody may name them.
    pub(super) fn forget_sent(&mut self, file: FileNo) {
        self.sent.remove(&file);
    }

    fn set(&mut self, seq: Seq, change: Change, now: Instant) {
        let old = self.pending.take(&change.key);
        let over_gone = matches!(change.want, Want::Open { .. })
            && old.as_ref().is_some_and(|old| {
                old.over_gone || (old.want == Want::Gone && (old.begun || old.base != Base::Absent))
            });
        let want = match change.want {
            Want::Object(generation) => Want::Object(self.rebased(&generation).into()),
            other => other,
        };
        let entry = Pending {
            number: change.number.unwrap_or(seq),
            want,
            base: change.base,
            since: now,
            held: false,
            urgent: false,
            begun: old.as_ref().is_some_and(|old| old.begun),
            staged: old.and_then(|old| old.staged),
            dead: None,
            over_gone,
        };
        match &entry.want {
            Want::Object(generation) => self.ever_named.extend(generation.extents.files()),
            Want::Open { file, .. } => self.ever_named.extend(file),
            Want::Gone => {}
        }
        self.pending.put(change.key, entry);
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
        let settles = self
            .pending
            .get(key)
            .is_some_and(|entry| entry.number == number);
        if !settles {
            self.pending.edit(key, |entry| {
                entry.base = Base::Version(id.etag.clone());
                entry.begun = false;
            });
            return;
        }
        if let Some(Pending {
            want: Want::Object(generation),
            ..
        }) = self.pending.take(key)
        {
            self.remember_sent(&generation, &id);
        }
    }

    fn remember_sent(&mut self, generation: &Generation, id: &ObjectId) {
        let mut files = BTreeSet::new();
        for extent in generation.extents.iter() {
            if let Source::Local { file, offset } = extent.from
                && extent.len >= SHARED_MIN
            {
                let ranges = self.sent.entry(file).or_default();
                ranges.insert(offset, (extent.len, id.clone(), extent.at));
                files.insert(file);
            }
        }
        for key in self.pending.keys_naming(&files) {
            let Some(mut entry) = self.pending.take(&key) else {
                continue;
            };
            if let Want::Object(generation) = &entry.want {
                entry.want = Want::Object(self.rebased(generation).into());
            }
            self.pending.put(key, entry);
        }
    }

    /// Names as `Remote` whatever is known to have reached S3 since it was written.
    fn rebased(&self, generation: &Generation) -> Generation {
        let extents = generation.extents.map(|extent| match &extent.from {
            Source::Local { file, offset } => match self.sent.get(file) {
                Some(ranges) => split(extent, *file, *offset, ranges),
                None => vec![extent.clone()],
            },
            Source::Remote { .. } => vec![extent.clone()],
        });
        Generation {
            extents,
            ..generation.clone()
        }
    }

    fn removed(&mut self, seq: Seq, key: &RelKey, number: Seq, now: Instant) {
        self.remote.result(key, None, seq, now);
        self.memory.forget(key);
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
                entry.base = Base::Absent;
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
        if self
            .pending
            .get(key)
            .is_none_or(|entry| entry.number != number)
        {
            self.pending.edit(key, |entry| {
                entry.base = base;
                entry.begun = false;
            });
            return;
        }
        let Some(aside) = aside else {
            self.pending.edit(key, |entry| {
                entry.base = base;
                entry.begun = false;
            });
            return;
        };
        if let Some(entry) = self.pending.take(key) {
            let moved = Pending {
                base: Base::Absent,
                begun: false,
                staged: None,
                since: now,
                ..entry
            };
            self.pending.put(aside, moved);
        }
    }
}

/// The pieces of a local extent: `Remote` where `ranges` says its bytes are in S3.
fn split(extent: &Extent, file: FileNo, offset: u64, ranges: &SentRanges) -> Vec<Extent> {
    let mut local = Extents::default();
    local.put(extent.clone());
    let end = offset + extent.len;
    for (start, (len, object, at)) in ranges.range(..end) {
        let (from, to) = (offset.max(*start), end.min(start + len));
        if from < to {
            local.put(Extent {
                at: extent.at + (from - offset),
                len: to - from,
                from: Source::Remote {
                    object: object.clone(),
                    offset: at + (from - start),
                },
            });
        }
    }
    debug_assert!(
        local.files().iter().all(|named| *named == file),
        "only pieces of its own file"
    );
    local.iter().cloned().collect()
}
