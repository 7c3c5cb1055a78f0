//! Bytes of a data file that are read before any generation names them, to be sent early.
//!
//! Invariant: what was overwritten since it was offered is known, so nothing that was read before
//! passes for what is there now. What is too scattered to be remembered counts as one stretch.

use std::ops::Range;

use parking_lot::Mutex;

/// So many stretches are told apart.
const STRETCHES_MAX: usize = 64;

/// How far a data file was offered, and what of that was written again.
#[derive(Debug, Default)]
pub struct Early(Mutex<Offered>);

#[derive(Debug, Default)]
struct Offered {
    end: u64,
    rewritten: Vec<Range<u64>>,
}

impl Early {
    /// What lies before `end` may be read from now on.
    pub fn offer(&self, end: u64) {
        let mut offered = self.0.lock();
        offered.end = offered.end.max(end);
    }

    /// How far it was offered.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.0.lock().end
    }

    /// Whether any of `range` was written again since it was offered.
    #[must_use]
    pub fn is_rewritten(&self, range: &Range<u64>) -> bool {
        let offered = self.0.lock();
        let meets = |other: &Range<u64>| other.start < range.end && range.start < other.end;
        offered.rewritten.iter().any(meets)
    }

    /// `range` is about to be written.
    pub(super) fn written(&self, range: Range<u64>) {
        let mut offered = self.0.lock();
        let range = range.start..range.end.min(offered.end);
        if range.is_empty() {
            return;
        }
        let last = offered.rewritten.last_mut();
        if let Some(last) = last.filter(|last| last.start <= range.start && range.start <= last.end)
        {
            last.end = last.end.max(range.end);
        } else {
            offered.rewritten.push(range);
        }
        if offered.rewritten.len() > STRETCHES_MAX {
            let starts = offered.rewritten.iter().map(|range| range.start);
            let ends = offered.rewritten.iter().map(|range| range.end);
            let all = starts.min().unwrap_or(0)..ends.max().unwrap_or(u64::MAX);
            offered.rewritten = vec![all];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_offered_before_it_was_written_counts() {
        let early = Early::default();
        early.written(0..100);
        assert!(!early.is_rewritten(&(0..100)));
        early.offer(100);
        early.written(100..200);
        assert!(!early.is_rewritten(&(0..200)), "that is behind it");
        early.written(90..120);
        assert!(early.is_rewritten(&(99..100)));
        assert!(!early.is_rewritten(&(0..90)));
        assert!(!early.is_rewritten(&(100..200)));
    }

    #[test]
    fn however_scattered_nothing_is_forgotten() {
        let early = Early::default();
        early.offer(1 << 20);
        for at in (0..500u64).map(|i| i * 2000) {
            early.written(at..at + 1);
        }
        for at in (0..500u64).map(|i| i * 2000) {
            assert!(early.is_rewritten(&(at..at + 1)), "{at}");
        }
    }
}
