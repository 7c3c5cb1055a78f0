//! What to fetch ahead of a reader: a pure function of how its handle has read so far, and of what
//! the link was measured to bring.
//!
//! What is fetched ahead is earned: never more than was read in sequence before, never more than
//! the maximum, never behind the end. So a first read fetches what it asked for, the window
//! doubles while the use is sequential, and a seek starts again from nothing.
//!
//! Half of what is earned travels while the other half is read: runs of `earned / 2` bytes.

use std::ops::Range;

/// What is fetched ahead is what the link brings in so many seconds: more would keep others waiting,
/// and be lost if the reader goes elsewhere.
const SECONDS: u64 = 4;

/// At most so many bytes ahead, on a link that brings `rate` bytes a second (`None`: not measured
/// yet). Two blocks always: one is on its way while the other is read.
pub(super) fn earned(max: u64, rate: Option<u64>) -> u64 {
    let floor = 2 * crate::cache::BLOCK;
    max.min(rate.map_or(max, |rate| rate.saturating_mul(SECONDS).max(floor)))
}

/// A proven sequential reader may skip or come back by so much, and by no more than it has proven
/// (the kernel reads ahead by several threads, so its reads come a little out of order).
const SLACK: u64 = 256 * 1024;

/// How one handle has read so far. Offsets are those of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Where the next sequential read would begin.
    next: u64,
    /// Bytes read in sequence since the last seek.
    proven: u64,
    /// Up to where was fetched ahead, or asked for.
    ahead_to: u64,
}

impl History {
    /// A read of `len` bytes at `offset` (clipped to the file). Answers what to fetch beyond it:
    /// within `offset + len..end`, and at most `max` bytes of it in all outstanding.
    pub(super) fn on_read(&mut self, offset: u64, len: u64, end: u64, max: u64) -> Range<u64> {
        let read_to = offset + len;
        if !self.is_sequential(offset) {
            *self = Self {
                next: read_to,
                proven: len,
                ahead_to: read_to,
            };
            return read_to..read_to;
        }
        let fresh = read_to.saturating_sub(self.next).min(len);
        self.next = self.next.max(read_to);
        self.ahead_to = self.ahead_to.max(self.next);
        let is_first = self.proven == 0;
        self.proven = self.proven.saturating_add(fresh);
        let half = self.proven.min(max) / 2;
        if is_first || self.ahead_to - self.next > half {
            return read_to..read_to;
        }
        let (from, to) = (
            self.ahead_to.min(end),
            self.ahead_to.saturating_add(half).min(end),
        );
        from.max(read_to)..to.max(read_to)
    }

    /// What `on_read` named is on its way.
    pub(super) fn asked(&mut self, to: u64) {
        self.ahead_to = self.ahead_to.max(to);
    }

    fn is_sequential(&self, offset: u64) -> bool {
        let is_proven = self.ahead_to > self.next;
        let slack = SLACK.min(self.proven);
        offset == self.next || (is_proven && offset.abs_diff(self.next) <= slack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: u64 = 4 << 20;
    const KIB: u64 = 1024;

    /// Reads as told, and answers the runs that were fetched ahead.
    fn runs(reads: &[(u64, u64)], end: u64) -> Vec<Range<u64>> {
        let mut history = History::default();
        let ahead = reads.iter().map(|(offset, len)| {
            let run = history.on_read(*offset, *len, end, MAX);
            history.asked(run.end);
            run
        });
        ahead.filter(|run| !run.is_empty()).collect()
    }

    fn sequential(size: u64, step: u64) -> Vec<(u64, u64)> {
        (0..size / step).map(|i| (i * step, step)).collect()
    }

    #[test]
    fn a_narrow_link_brings_little_ahead_and_an_unmeasured_or_wide_one_the_maximum() {
        assert_eq!(earned(MAX, None), MAX);
        assert_eq!(earned(MAX, Some(2_000_000)), MAX);
        assert_eq!(earned(MAX, Some(125_000)), 500_000);
        assert_eq!(earned(MAX, Some(4_000)), 64 * KIB);
        assert_eq!(earned(0, Some(125_000)), 0, "prefetch=off");
    }

    #[test]
    fn without_a_maximum_nothing_is_fetched_ahead() {
        let mut history = History::default();
        for (offset, len) in sequential(8 << 20, 128 * KIB) {
            assert!(history.on_read(offset, len, 1 << 30, 0).is_empty());
        }
    }

    #[test]
    fn the_first_read_fetches_nothing_ahead() {
        assert!(runs(&[(0, 128 * KIB)], 1 << 30).is_empty());
        assert!(runs(&[(5000, 4096)], 1 << 30).is_empty());
    }

    #[test]
    fn random_reads_fetch_nothing_ahead() {
        let reads: Vec<_> = (1..1000u64)
            .map(|i| (i * 7_919 * 4096 % (1 << 30), 4096))
            .collect();
        assert!(runs(&reads, 1 << 30).is_empty());
    }

    #[test]
    fn a_large_sequential_read_takes_few_runs_that_cover_it_once() {
        let size = 256 << 20;
        let runs = runs(&sequential(size, 128 * KIB), size);
        assert!(runs.len() < 160, "{} runs", runs.len());
        assert!(runs.windows(2).all(|two| two[0].end <= two[1].start));
        assert_eq!(runs.last().unwrap().end, size);
        assert!(runs.iter().any(|run| run.end - run.start >= MAX / 2));
    }

    #[test]
    fn a_seek_starts_again() {
        let mut reads = sequential(8 << 20, 128 * KIB);
        reads.push((100 << 20, 4096));
        let before = runs(&reads[..reads.len() - 1], 1 << 30);
        assert_eq!(runs(&reads, 1 << 30), before);
        reads.push(((100 << 20) + 4096, 4096));
        let after = runs(&reads, 1 << 30);
        let run = after.last().unwrap();
        assert!(run.end - run.start <= 8 * KIB);
    }

    #[test]
    fn reads_a_little_out_of_order_are_sequential() {
        let mut reads = sequential(8 << 20, 128 * KIB);
        reads.swap(20, 21);
        reads.swap(40, 41);
        let count = runs(&reads, 1 << 30).len();
        assert!(count <= runs(&sequential(8 << 20, 128 * KIB), 1 << 30).len() + 2);
    }

    proptest! {
        #[test]
        fn ahead_is_within_the_file_earned_and_bounded(
            reads in prop::collection::vec((0u64..64, 1u64..64, any::<bool>()), 1..60),
            end in 1u64..8192,
        ) {
            let (mut history, mut at, mut total) = (History::default(), 0, 0);
            for (seek, len, stay) in reads {
                let offset = if stay { at } else { seek * 100 }.min(end - 1);
                let len = len.min(end - offset);
                at = (offset + len) % end;
                total += len;
                let run = history.on_read(offset, len, end, 1000);
                prop_assert!(run.is_empty() || (run.start >= offset + len && run.end <= end));
                prop_assert!(run.end - run.start <= total.min(1000));
                history.asked(run.end);
                prop_assert!(history.ahead_to - history.next <= 1000 + SLACK);
            }
        }
    }
}
