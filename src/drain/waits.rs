//! Who waits for whom among the pending changes: the conflict graph the planner asks.
//!
//! Invariant: an index is built at most once a plan, in one walk over what is pending, and only
//! when a question needs it: a queue of new files never builds one.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use super::dead::Dead;
use super::plan::is_marker_removal;
use crate::seeded::{self, Bug};
use crate::tree::{Pending, PendingMap};
use crate::types::{Base, ETag, Extents, FileNo, RelKey, Seq, Source, Want};

/// Bytes that two changes share from here on are sent once and then copied.
const SHARED_MIN: u64 = 64 * 1024;

/// The directory a key is in, without a trailing `/`.
pub(super) fn dir_of(key: &RelKey) -> &str {
    let path = key.as_str().trim_end_matches('/');
    path.rfind('/').map_or("", |at| &path[..at])
}

/// Parts that only want Complete: of which generation, the upload, the parts. An upload that was
/// given up is recorded as one without a name.
#[allow(clippy::type_complexity)] // a borrowed `tree::Staged`
pub(super) fn staged(entry: &Pending) -> Option<(Seq, &str, &[(u16, String)])> {
    let (number, upload, parts) = entry.staged.as_ref()?;
    (!upload.is_empty()).then_some((*number, upload, parts))
}

/// Whether the parts of what is wanted now are in S3 already.
fn is_staged(entry: &Pending) -> bool {
    staged(entry).is_some_and(|(number, ..)| number == entry.number)
}

/// Where changes that were looked at have local bytes.
#[derive(Default)]
pub(super) struct Shared<'a> {
    spans: HashMap<FileNo, Vec<Span<'a>>>,
}

struct Span<'a> {
    start: u64,
    end: u64,
    number: Seq,
    key: &'a RelKey,
}

fn spans(entry: &Pending) -> impl Iterator<Item = (FileNo, u64, u64)> {
    let extents = match &entry.want {
        Want::Object(generation) => Some(&generation.extents),
        Want::Open { .. } | Want::Gone => None,
    };
    let all = extents.into_iter().flat_map(Extents::iter);
    all.filter_map(|piece| match piece.from {
        Source::Local { file, offset } if piece.len >= SHARED_MIN => {
            Some((file, offset, offset + piece.len))
        }
        _ => None,
    })
}

impl<'a> Shared<'a> {
    /// A change that is going to be sent.
    pub(super) fn add(&mut self, key: &'a RelKey, entry: &'a Pending) {
        for (file, start, end) in spans(entry) {
            self.spans.entry(file).or_default().push(Span {
                start,
                end,
                number: entry.number,
                key,
            });
        }
    }

    /// An earlier change of another key that sends some of the same bytes.
    fn earlier(&self, key: &RelKey, entry: &Pending) -> Option<&'a RelKey> {
        spans(entry).find_map(|(file, start, end)| {
            let found = self.spans.get(&file)?.iter().find(|span| {
                span.number < entry.number
                    && span.key != key
                    && span.end.min(end).saturating_sub(span.start.max(start)) >= SHARED_MIN
            });
            found.map(|span| span.key)
        })
    }

    /// Whether there is one.
    pub(super) fn has_earlier(&self, key: &RelKey, entry: &Pending) -> bool {
        self.earlier(key, entry).is_some()
    }
}

/// Whether `later` is to wait for `earlier`, as they share bytes.
pub(super) fn share_much(earlier: (&RelKey, &Pending), later: (&RelKey, &Pending)) -> bool {
    let mut shared = Shared::default();
    shared.add(earlier.0, earlier.1);
    shared.has_earlier(later.0, later.1)
}

/// By the key that is read, and its version.
type Readers<'a> = HashMap<&'a str, Vec<(&'a ETag, Vec<&'a RelKey>)>>;

/// The graph.
pub(super) struct Waits<'a> {
    pending: &'a PendingMap,
    ordered: bool,
    dead: &'a Dead<'a>,
    readers: OnceCell<Readers<'a>>,
    turns: OnceCell<HashMap<&'a str, Vec<(Seq, &'a RelKey)>>>,
    shared: OnceCell<Shared<'a>>,
}

impl<'a> Waits<'a> {
    /// `ordered`: publishes of one directory keep their order.
    pub(super) fn of(pending: &'a PendingMap, ordered: bool, dead: &'a Dead<'a>) -> Self {
        Self {
            pending,
            ordered,
            dead,
            readers: OnceCell::new(),
            turns: OnceCell::new(),
            shared: OnceCell::new(),
        }
    }

    /// The changes of other keys that need the version `entry` replaces or removes, and do not
    /// have their parts yet. Dead and held ones too.
    pub(super) fn readers(&self, key: &RelKey, entry: &Pending) -> &[&'a RelKey] {
        let Base::Version(etag) = &entry.base else {
            return &[];
        };
        if seeded::is(Bug::OldNameGoesFirst) {
            return &[];
        }
        let readers = self.readers.get_or_init(|| readers(self.pending));
        let versions = readers.get(key.as_str()).map_or(&[][..], Vec::as_slice);
        let found = versions.iter().find(|(version, _)| *version == etag);
        found.map_or(&[], |(_, readers)| readers)
    }

    /// Whether any change needs a version other than the one it replaces.
    pub(super) fn has_readers(&self) -> bool {
        let readers = self.readers.get_or_init(|| readers(self.pending));
        !readers.is_empty()
    }

    /// Whether a reader of it, or a reader of a reader and so on, is one that `is_stuck`.
    pub(super) fn has_reader(
        &self,
        key: &'a RelKey,
        entry: &'a Pending,
        is_stuck: &dyn Fn(&RelKey, &Pending) -> bool,
    ) -> bool {
        let mut seen = HashSet::from([key]);
        let mut todo = vec![(key, entry)];
        while let Some((key, entry)) = todo.pop() {
            for reader in self.readers(key, entry) {
                let Some(entry) = self.pending.get(reader) else {
                    continue;
                };
                if is_stuck(reader, entry) {
                    return true;
                }
                if seen.insert(reader) {
                    todo.push((reader, entry));
                }
            }
        }
        false
    }

    /// Whether `from` cannot publish before `goal` does. `is_in_hand`: will be staged by itself.
    /// `clear` collects what was found not to lead there.
    pub(super) fn leads_to(
        &self,
        from: &'a RelKey,
        goal: &RelKey,
        is_in_hand: &dyn Fn(&RelKey) -> bool,
        clear: &mut HashSet<&'a RelKey>,
    ) -> bool {
        let mut seen = HashSet::new();
        let mut todo = vec![from];
        while let Some(key) = todo.pop() {
            if key == goal {
                return true;
            }
            if clear.contains(key) || !seen.insert(key) {
                continue;
            }
            let Some(entry) = self.pending.get(key) else {
                continue;
            };
            let unread = self.readers(key, entry).iter().copied();
            todo.extend(unread.filter(|reader| !is_in_hand(reader)));
            todo.extend(self.before_in_dir(key, entry.number));
            let shared = self.shared.get_or_init(|| shared(self.pending, self.dead));
            todo.extend(shared.earlier(key, entry));
        }
        clear.extend(seen);
        false
    }

    fn before_in_dir(&self, key: &RelKey, number: Seq) -> Option<&'a RelKey> {
        if !self.ordered {
            return None;
        }
        let turns = self.turns.get_or_init(|| turns(self.pending, self.dead));
        let dir = turns.get(dir_of(key))?;
        let at = dir.partition_point(|(other, _)| *other < number);
        at.checked_sub(1).map(|before| dir[before].1)
    }
}

fn readers(pending: &PendingMap) -> Readers<'_> {
    let mut all = Readers::new();
    for (key, entry) in pending.below("") {
        let Want::Object(generation) = &entry.want else {
            continue;
        };
        if is_staged(entry) {
            continue;
        }
        for piece in generation.extents.iter() {
            let Source::Remote { object, .. } = &piece.from else {
                continue;
            };
            if object.key.as_str() == key.as_str() && Base::of(Some(object)) == entry.base {
                continue;
            }
            let versions = all.entry(object.key.as_str()).or_default();
            match versions.iter_mut().find(|(etag, _)| **etag == object.etag) {
                Some((_, readers)) if readers.last() == Some(&key) => {}
                Some((_, readers)) => readers.push(key),
                None => versions.push((&object.etag, vec![key])),
            }
        }
    }
    all
}

fn turns<'a>(pending: &'a PendingMap, dead: &Dead<'a>) -> HashMap<&'a str, Vec<(Seq, &'a RelKey)>> {
    let mut all: HashMap<&str, Vec<_>> = HashMap::new();
    for (key, entry) in pending.in_order() {
        let is_open = matches!(entry.want, Want::Open { .. });
        if !dead.has(key, entry) && !is_open && !is_marker_removal(key, entry) {
            let dir = all.entry(dir_of(key)).or_default();
            dir.push((entry.number, key));
        }
    }
    all
}

fn shared<'a>(pending: &'a PendingMap, dead: &Dead<'a>) -> Shared<'a> {
    let mut all = Shared::default();
    for (key, entry) in pending.in_order() {
        if !dead.has(key, entry) && !entry.held {
            all.add(key, entry);
        }
    }
    all
}
