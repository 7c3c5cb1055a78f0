//! What goes when room is needed: first what was used once, longest ago first, then the rest; never
//! what is pinned.
//!
//! Two lists (a segmented LRU). A version comes in on *probation*; used again, by another handle
//! than the one it was fetched for, it is *protected*, and a reader that walks through everything
//! once pushes out only what is on probation. Of the cap at most `PROTECTED_SHARE` is protected:
//! beyond it the one used longest ago is on probation again.
//!
//! Pure: knows names, bytes and the order of use, no file. Invariants: a version is on one of the
//! two lists; `total` is the sum of the bytes of both. Memory: under 100 bytes a version,
//! `VERSIONS_MAX` versions. After a restart all are on probation, in the order of their use.

use std::collections::HashMap;

use lru::LruCache;

use super::file::Name;

/// More versions than this are not kept, however small they are.
pub(super) const VERSIONS_MAX: usize = 50_000;

/// Of ten bytes of the cap so many may be protected.
const PROTECTED_SHARE: u64 = 8;

/// All versions in the order of their use.
#[derive(Debug)]
pub(super) struct Index {
    probation: LruCache<Name, u64>,
    protected: LruCache<Name, u64>,
    protected_bytes: u64,
    protected_max: u64,
    pins: HashMap<Name, u32>,
    total: u64,
}

impl Index {
    /// For a cache of at most `cap` bytes.
    pub(super) fn new(cap: u64) -> Self {
        Self {
            probation: LruCache::unbounded(),
            protected: LruCache::unbounded(),
            protected_bytes: 0,
            protected_max: cap / 10 * PROTECTED_SHARE,
            pins: HashMap::new(),
            total: 0,
        }
    }

    /// Bytes of all versions.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn count(&self) -> usize {
        self.probation.len() + self.protected.len()
    }

    pub(super) fn contains(&self, name: Name) -> bool {
        self.probation.contains(&name) || self.is_protected(name)
    }

    pub(super) fn is_protected(&self, name: Name) -> bool {
        self.protected.contains(&name)
    }

    /// It was read now, by whom it was fetched for or by another.
    pub(super) fn touch(&mut self, name: Name) {
        self.probation.promote(&name);
        self.protected.promote(&name);
    }

    /// It is used again: protected, if it is there.
    pub(super) fn reuse(&mut self, name: Name) {
        if let Some(bytes) = self.probation.pop(&name) {
            self.protected.put(name, bytes);
            self.protected_bytes += bytes;
        }
        self.protected.promote(&name);
        self.balance(name);
    }

    /// It takes `bytes`, and was used now.
    pub(super) fn set(&mut self, name: Name, bytes: u64) {
        if let Some(before) = self.protected.peek(&name).copied() {
            self.protected.put(name, bytes);
            self.protected_bytes = self.protected_bytes - before + bytes;
            self.total = self.total - before + bytes;
            self.balance(name);
            return;
        }
        let before = self.probation.put(name, bytes).unwrap_or(0);
        self.total = self.total - before + bytes;
    }

    /// It takes `bytes`, and was used before all others.
    pub(super) fn set_oldest(&mut self, name: Name, bytes: u64) {
        self.set(name, bytes);
        self.probation.demote(&name);
    }

    pub(super) fn remove(&mut self, name: Name) {
        if let Some(bytes) = self.protected.pop(&name) {
            self.protected_bytes -= bytes;
            self.total -= bytes;
        }
        self.total -= self.probation.pop(&name).unwrap_or(0);
    }

    /// Holds it, there or not. Whoever takes hold of what is there already uses it again.
    pub(super) fn pin(&mut self, name: Name) {
        self.reuse(name);
        self.hold(name);
    }

    /// Holds it, which is no use.
    pub(super) fn hold(&mut self, name: Name) {
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
        let oldest_first = self
            .probation
            .iter()
            .rev()
            .chain(self.protected.iter().rev());
        oldest_first
            .map(|(name, _)| *name)
            .find(|name| Some(*name) != keep && !self.pins.contains_key(name))
    }

    /// Puts on probation what is too much, but not `used`, which was used now.
    fn balance(&mut self, used: Name) {
        while self.protected_bytes > self.protected_max {
            match self.protected.peek_lru() {
                Some((oldest, _)) if *oldest != used => {}
                _ => return,
            }
            if let Some((oldest, bytes)) = self.protected.pop_lru() {
                self.protected_bytes -= bytes;
                self.probation.put(oldest, bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Index {
        let mut index = Index::new(1000);
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
        index.hold(Name(1));
        index.hold(Name(1));
        index.unpin(Name(1));
        assert_eq!(index.victim(Some(Name(2))), Some(Name(3)));
        index.unpin(Name(1));
        assert_eq!(index.victim(None), Some(Name(1)));
        index.hold(Name(1));
        index.hold(Name(2));
        index.hold(Name(3));
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

    #[test]
    fn a_scan_takes_nothing_of_what_was_used_twice() {
        let mut index = filled();
        index.reuse(Name(1));
        for n in 100..200 {
            index.set(Name(n), 10);
            index.touch(Name(n));
            let victim = index.victim(Some(Name(n))).unwrap();
            assert_ne!(victim, Name(1));
            index.remove(victim);
        }
        assert!(index.contains(Name(1)));
    }

    #[test]
    fn what_is_protected_goes_when_nothing_else_is_there() {
        let mut index = filled();
        for n in [2, 1, 3] {
            index.reuse(Name(n));
        }
        assert_eq!(index.victim(None), Some(Name(2)));
        index.remove(Name(2));
        assert_eq!((index.total(), index.count()), (20, 2));
    }

    #[test]
    fn a_pin_of_what_is_there_is_a_use_and_a_hold_is_none() {
        let mut index = filled();
        index.hold(Name(1));
        index.unpin(Name(1));
        index.pin(Name(2));
        index.unpin(Name(2));
        index.pin(Name(9));
        assert!(!index.is_protected(Name(1)) && index.is_protected(Name(2)));
        assert!(!index.contains(Name(9)), "a pin alone keeps nothing");
    }

    #[test]
    fn what_is_protected_beyond_its_share_is_on_probation_again() {
        let mut index = Index::new(100);
        for n in 1..=10 {
            index.set(Name(n), 10);
            index.reuse(Name(n));
        }
        assert!(!index.is_protected(Name(2)) && index.is_protected(Name(3)));
        index.set(Name(10), 60);
        assert!(!index.is_protected(Name(7)) && index.is_protected(Name(9)));
        assert_eq!((index.total(), index.count()), (150, 10));
    }
}
