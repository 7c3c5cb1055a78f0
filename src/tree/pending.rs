//! The pending changes: for each key that differs from what the bucket holds, what is wanted.
//!
//! Invariants: at most one entry a key; `order` holds each entry once, by number then key;
//! an `Open` entry has a base but is never sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::log::Refusal;
use crate::types::{Base, RelKey, Seq, Want};

/// One pending change.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The position of the record that wants it: its identity, together with the key.
    pub number: Seq,
    /// What the key is wanted to be.
    pub want: Want,
    /// What the bucket is believed to hold: the precondition.
    pub base: Base,
    /// When it was wanted (monotonic; at boot: the start).
    pub since: Instant,
    /// A writer has the file open: not sent before it is closed or `upload_open` passed.
    pub held: bool,
    /// A request that may have published some generation at this key was sent (so `base` may lag).
    pub begun: bool,
    /// Parts that are in S3 and only want Complete: (number of the generation, upload id, parts).
    pub staged: Option<(Seq, String, Vec<(u16, String)>)>,
    /// S3 refused it for good.
    pub dead: Option<Refusal>,
}

/// All pending changes.
#[derive(Debug, Default)]
pub struct PendingMap {
    pub(super) by_key: BTreeMap<RelKey, Pending>,
    pub(super) order: BTreeSet<(Seq, RelKey)>,
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
            .range::<str, _>((
                std::ops::Bound::Included(prefix),
                std::ops::Bound::Unbounded,
            ))
            .take_while(move |(key, _)| key.as_str().starts_with(prefix))
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_key.len()
    }
}

#[cfg(test)]
impl FromIterator<(RelKey, Pending)> for PendingMap {
    fn from_iter<I: IntoIterator<Item = (RelKey, Pending)>>(all: I) -> Self {
        let by_key: BTreeMap<_, _> = all.into_iter().collect();
        let order = by_key.iter();
        let order = order.map(|(key, entry)| (entry.number, key.clone()));
        let order = order.collect();
        Self { by_key, order }
    }
}
