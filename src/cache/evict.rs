//! What goes when room is needed: the version that was used longest ago, unless it is pinned.
//!
//! Pure: knows names, bytes and the order of use, no file. Invariant: `total` is the sum of the
//! bytes of all versions. Memory: under 100 bytes a version, `VERSIONS_MAX` versions.

use std::collections::HashMap;

use lru::LruCache;

use super::file::Name;

/// More versions than this are not kept, however small they are.
pub(super) const VERSIONS_MAX: usize = 50_000;

/// All versions in the order of their use.
#[derive(Debug)]
pub(super) struct Index {
    versions: LruCache<Name, u64>,
    pins: HashMap<Name, u32>,
    total: u64,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            versions: LruCache::unbounded(),
            pins: HashMap::new(),
            total: 0,
        }
    }

    /// Bytes of all versions.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn count(&self) -> usize {
        self.versions.len()
    }

    pub(super) fn contains(&self, name: Name) -> bool {
        self.versions.contains(&name)
    }

    /// It was used now.
    pub(super) fn touch(&mut self, name: Name) {
        self.versions.promote(&name);
    }

    /// It takes `bytes`, and was used now.
    pub(super) fn set(&mut self, name: Name, bytes: u64) {
        let before = self.versions.put(name, bytes).unwrap_or(0);
        self.total = self.total - before + bytes;
    }

    /// It takes `bytes`, and was used before all others.
    pub(super) fn set_oldest(&mut self, name: Name, bytes: u64) {
        self.set(name, bytes);
        self.versions.demote(&name);
    }

    pub(super) fn remove(&mut self, name: Name) {
        self.total -= self.versions.pop(&name).unwrap_or(0);
    }

    pub(super) fn pin(&mut self, name: Name) {
        *self.pins.entry(name).or_default() += 1;
    }

    pub(super) fn unpin(&mut self, name: Name) {
        if let Some(count) = self.pins.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&name);
            }
        }
    }

    /// What should go first, but not `keep` and nothing pinned.
    pub(super) fn victim(&self, keep: Option<Name>) -> Option<Name> {
        let oldest_first = self.versions.iter().rev().map(|(name, _)| *name);
        oldest_first
            .into_iter()
            .find(|name| Some(*name) != keep && !self.pins.contains_key(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Index {
        let mut index = Index::new();
        for n in 1..=3 {
            index.set(Name(n), 10);
        }
        index
    }

    #[test]
    fn the_version_used_longest_ago_goes_first() {
        let mut index = filled();
        assert_eq!(index.victim(None), Some(Name(1)));
        index.touch(Name(1));
        assert_eq!(index.victim(None), Some(Name(2)));
    }

    #[test]
    fn neither_a_pinned_version_nor_the_one_being_filled_goes() {
        let mut index = filled();
        index.pin(Name(1));
        index.pin(Name(1));
        index.unpin(Name(1));
        assert_eq!(index.victim(Some(Name(2))), Some(Name(3)));
        index.unpin(Name(1));
        assert_eq!(index.victim(None), Some(Name(1)));
        index.pin(Name(1));
        index.pin(Name(2));
        index.pin(Name(3));
        assert_eq!(index.victim(None), None);
    }

    #[test]
    fn the_total_follows_every_change() {
        let mut index = filled();
        index.set(Name(1), 25);
        index.remove(Name(2));
        index.remove(Name(2));
        assert_eq!((index.total(), index.count()), (35, 2));
    }

    #[test]
    fn what_the_scan_finds_is_older_than_what_was_used_since() {
        let mut index = filled();
        for n in [12, 11, 10] {
            index.set_oldest(Name(n), 1);
        }
        assert_eq!(index.victim(None), Some(Name(10)));
    }
}
