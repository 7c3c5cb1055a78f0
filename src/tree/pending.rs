//! The pending changes: for each key that differs from what the bucket holds, what is wanted.
//!
//! Invariants: at most one entry a key; `order` holds each entry once, by number then key;
//! an `Open` entry has a base but is never sent; `refs` counts, for each spool file, the entries
//! whose generation names it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use crate::log::{Record, Refusal};
use crate::types::{Base, Extent, FileNo, Generation, MountId, RelKey, Seq, Source, Want};

/// Number of the generation, upload id, (number, ETag) of each part.
pub type Staged = (Seq, String, Vec<(u16, String)>);

/// A multipart upload that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploading {
    /// Which generation it is to become.
    pub number: Seq,
    /// S3's id of it.
    pub upload: String,
    /// Bytes of its parts, if it is known how they were planned.
    pub part: Option<u64>,
    /// The number in its stamp.
    pub stamp: Seq,
}

/// One pending change.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The position of the record that wants it: its identity, together with the key.
    pub number: Seq,
    /// The position of the record that says so now: compaction says it anew, further on.
    pub position: Seq,
    /// What the key is wanted to be.
    pub want: Want,
    /// What the bucket is believed to hold: the precondition.
    pub base: Base,
    /// What it was believed to hold when somebody here last saw it, where a version that nobody here
    /// has seen became the base since: what a removal is of.
    pub seen: Option<Base>,
    /// When it was wanted, or its writer closed (monotonic; at boot: the start).
    pub since: Instant,
    /// Since when something at this key is unsent: what keeps changing is sent all the same.
    pub unsent_since: Instant,
    /// `unsent_since` was moved to a close once; not again.
    pub was_closed: bool,
    /// A writer has the file open: not sent before it is closed or `upload_open` passed.
    pub held: bool,
    /// Somebody waits for it to be sent: no linger.
    pub urgent: bool,
    /// A request that may have published some generation at this key was sent (so `base` may lag).
    pub begun: bool,
    /// Parts that are in S3 and only want Complete.
    pub staged: Option<Staged>,
    /// An upload for this key that was begun and not staged.
    pub uploading: Option<Uploading>,
    /// The number in the stamp of what is being uploaded or staged, if it is not that of its generation.
    pub stamp: Option<Seq>,
    /// S3 refused it for good.
    pub dead: Option<Refusal>,
    /// An `Open` that took the place of a removal not yet carried out: what a crash leaves of it.
    pub over_gone: bool,
}

impl Uploading {
    /// The record that says so.
    #[must_use]
    pub fn record(self, key: RelKey) -> Record {
        let Self {
            number,
            upload,
            part,
            stamp,
        } = self;
        match part {
            Some(part) => Record::UploadBegun {
                key,
                number,
                upload,
                part,
                stamp,
            },
            None => Record::Uploading {
                key,
                number,
                upload,
            },
        }
    }
}

impl Pending {
    /// The generation wanted, if it is one.
    #[must_use]
    pub fn generation(&self) -> Option<&Arc<Generation>> {
        match &self.want {
            Want::Object(generation) => Some(generation),
            Want::Open { .. } | Want::Gone => None,
        }
    }

    /// The upload that was begun, also if it is staged by now and its stamp is still of account.
    pub(super) fn begun_upload(&self) -> Option<Uploading> {
        let staged = || {
            let (number, upload, _) = self.staged.clone()?;
            Some(Uploading {
                number,
                upload,
                part: Some(0),
                stamp: self.stamp?,
            })
        };
        self.uploading.clone().or_else(staged)
    }

    /// Bytes of it that are here only.
    #[must_use]
    pub fn local_bytes(&self) -> u64 {
        let local = |extent: &&Extent| matches!(extent.from, Source::Local { .. });
        let extents = self.generation().map(|generation| &generation.extents);
        extents.map_or(0, |all| {
            all.iter().filter(local).map(|extent| extent.len).sum()
        })
    }

    /// Its writer came or went. What was held may be about to be renamed or touched: the wait
    /// for that begins with the close, but only once, or what is written to without end would
    /// never be sent.
    pub(super) fn set_held(&mut self, is_held: bool, now: Instant) {
        if self.held && !is_held {
            self.since = now;
            if !self.was_closed {
                (self.unsent_since, self.was_closed) = (now, true);
            }
        }
        self.held = is_held;
    }

    pub(super) fn files(&self) -> BTreeSet<FileNo> {
        match &self.want {
            Want::Object(generation) => generation.extents.files(),
            Want::Open { file, .. } => file.iter().copied().collect(),
            Want::Gone => BTreeSet::new(),
        }
    }
}

/// All pending changes.
#[derive(Debug, Default)]
pub struct PendingMap {
    by_key: BTreeMap<RelKey, Pending>,
    order: BTreeSet<(Seq, RelKey)>,
    refs: HashMap<FileNo, usize>,
    /// Entries that S3 refused for good.
    dead: usize,
}

impl PendingMap {
    /// The change wanted at `key`.
    #[must_use]
    pub fn get(&self, key: &RelKey) -> Option<&Pending> {
        self.by_key.get(key)
    }

    /// All, oldest wanted first.
    pub fn in_order(&self) -> impl Iterator<Item = (&RelKey, &Pending)> {
        self.order
            .iter()
            .filter_map(|(_, key)| Some((key, self.by_key.get(key)?)))
    }

    /// All whose key begins with `prefix`, by key.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a RelKey, &'a Pending)> {
        self.by_key
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.as_str().starts_with(prefix))
    }

    /// The first components, below `prefix`, of the keys that have more than one: names that may be
    /// directories. What lies in each is jumped over. `None` beyond `limit` steps.
    pub(super) fn dirs_in<'a>(&'a self, prefix: &str, limit: usize) -> Option<Vec<&'a str>> {
        let mut found = Vec::new();
        let mut from: Bound<String> = Bound::Included(prefix.into());
        for _ in 0..limit {
            let range = (from.as_ref().map(String::as_str), Bound::Unbounded);
            let next = self.by_key.range::<str, _>(range).next();
            let Some(rest) = next.and_then(|(key, _)| key.as_str().strip_prefix(prefix)) else {
                return Some(found);
            };
            from = match rest.split_once('/') {
                Some((name, _)) if !name.is_empty() => {
                    found.push(name);
                    // '0' is the character behind '/'.
                    Bound::Included(format!("{prefix}{name}0"))
                }
                _ => Bound::Excluded(format!("{prefix}{rest}")),
            };
        }
        None
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_key.len()
    }

    /// Whether S3 has refused one for good.
    #[must_use]
    pub fn has_dead(&self) -> bool {
        self.dead > 0
    }

    /// What was written here beside somebody else's version, and is not in the bucket yet.
    #[must_use]
    pub fn conflicts(&self, mount: MountId) -> Vec<&RelKey> {
        let mark = format!(".conflict-{mount}-");
        let marked = self
            .by_key
            .iter()
            .filter(|(key, entry)| key.as_str().contains(&mark) && entry.generation().is_some());
        marked.map(|(key, _)| key).collect()
    }

    /// Whether an entry's generation names `file`.
    #[must_use]
    pub fn names(&self, file: FileNo) -> bool {
        self.refs.contains_key(&file)
    }

    /// Puts `new` in the place of what was wanted at `key`, which is answered. (Also for tests of
    /// who reads the map.)
    pub fn put(&mut self, key: RelKey, new: Pending) -> Option<Pending> {
        let old = self.take(&key);
        for file in new.files() {
            *self.refs.entry(file).or_default() += 1;
        }
        self.dead += usize::from(new.dead.is_some());
        self.order.insert((new.number, key.clone()));
        self.by_key.insert(key, new);
        old
    }

    /// Takes the entry at `key` out.
    pub fn take(&mut self, key: &RelKey) -> Option<Pending> {
        let old = self.by_key.remove(key)?;
        self.dead -= usize::from(old.dead.is_some());
        self.order.remove(&(old.number, key.clone()));
        for file in old.files() {
            if let Some(count) = self.refs.get_mut(&file) {
                *count -= 1;
                if *count == 0 {
                    self.refs.remove(&file);
                }
            }
        }
        Some(old)
    }

    /// Changes flags and base of an entry; number and content stay.
    pub(super) fn edit(&mut self, key: &RelKey, change: impl FnOnce(&mut Pending)) {
        if let Some(entry) = self.by_key.get_mut(key) {
            self.dead -= usize::from(entry.dead.is_some());
            change(entry);
            self.dead += usize::from(entry.dead.is_some());
        }
    }

    /// Keys of all entries that name one of `files`.
    pub(super) fn keys_naming(&self, files: &BTreeSet<FileNo>) -> Vec<RelKey> {
        if files.iter().all(|file| !self.names(*file)) {
            return Vec::new();
        }
        let naming = self
            .by_key
            .iter()
            .filter(|(_, entry)| !entry.files().is_disjoint(files));
        naming.map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
impl FromIterator<(RelKey, Pending)> for PendingMap {
    fn from_iter<I: IntoIterator<Item = (RelKey, Pending)>>(all: I) -> Self {
        let mut map = Self::default();
        for (key, entry) in all {
            map.put(key, entry);
        }
        map
    }
}
