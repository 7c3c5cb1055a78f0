//! How large parts are, and how many requests that carry data are on their way at once: by what the
//! link was measured to carry up.
//!
//! Invariants:
//! - what is not measured yet is taken for slow: one request at a time, of the smallest part, so that
//!   a broken link costs as few bytes as S3's rules allow;
//! - who waits for its turn has sent nothing, and no deadline runs: those are for requests on their way;
//! - small files need no turn: one is not kept by a part that takes minutes.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::pieces::{MAX_PARTS, MIN_PART};
use crate::store::speed::Speed;

/// 1 Mbit/s, as bytes a second: below it one request at a time.
const SLOW: u64 = 125_000;
/// A part is what the link carries in so many seconds.
const SECONDS: u64 = 8;
/// The largest part that a fast link gets: what is lost when it breaks.
const LARGE: u64 = 64 << 20;
/// Each request on its way beside another gets so many bytes a second.
const SHARE: u64 = 2 * SLOW;
/// A file up to this long needs no turn.
const SMALL: u64 = 256 << 10;
const MIB: u64 = 1 << 20;

/// Bytes of a part of a file of `len` bytes, where `rate` bytes a second get through.
pub(super) fn part_size(rate: Option<u64>, len: u64) -> u64 {
    let by_link = match rate {
        Some(rate) if rate >= SLOW => rate.saturating_mul(SECONDS).clamp(MIN_PART, LARGE),
        _ => MIN_PART,
    };
    // 10,000 of them hold the file.
    let by_file = len.div_ceil(MAX_PARTS as u64);
    by_link.max(by_file).next_multiple_of(MIB)
}

/// How many requests go at once at most.
fn at_once(rate: Option<u64>, most: u32) -> u32 {
    match rate {
        Some(rate) if rate >= SLOW => {
            let shares = u32::try_from(rate / SHARE).unwrap_or(u32::MAX);
            shares.clamp(2.min(most), most)
        }
        _ => 1,
    }
}

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Lanes {
    speed: Speed,
    /// A request takes as many as leave room for no more than `at_once`.
    free: Semaphore,
    most: u32,
}

impl Lanes {
    /// At most so many at once, however fast the link is.
    pub(super) fn new(most: usize) -> Self {
        let most = u32::try_from(most).unwrap_or(u32::MAX).clamp(1, 1024);
        Self {
            speed: Speed::default(),
            free: Semaphore::new(most as usize),
            most,
        }
    }

    /// Bytes of a part of a file of `len` bytes, as fast as the link is now.
    pub(super) fn part_size(&self, len: u64) -> u64 {
        part_size(self.speed.rate(), len)
    }

    /// Waits for the turn of a request that carries `len` bytes.
    pub(super) async fn turn(&self, len: u64) -> Option<SemaphorePermit<'_>> {
        if len <= SMALL {
            return None;
        }
        let taken = self.most.div_ceil(at_once(self.speed.rate(), self.most));
        self.free.acquire_many(taken).await.ok()
    }

    /// Carries out a request that carries `len` bytes, and learns how fast they went.
    pub(super) async fn carry<T, E>(
        &self,
        len: u64,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        if len <= SMALL {
            // How long it takes tells how far the bucket is, not how much the link carries.
            return request.await;
        }
        let busy = self.speed.busy();
        let done = request.await;
        match &done {
            Ok(_) => self.speed.carried(len),
            Err(_) => self.speed.failed(),
        }
        drop(busy);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_slow_or_unknown_link_gets_the_smallest_parts_one_at_a_time() {
        for rate in [None, Some(0), Some(4000), Some(SLOW - 1)] {
            assert_eq!((part_size(rate, GIB), at_once(rate, 4)), (MIN_PART, 1));
        }
    }

    #[test]
    fn a_faster_link_gets_larger_parts_and_more_at_once() {
        let of = |rate| (part_size(Some(rate), GIB) / MIB, at_once(Some(rate), 4));
        assert_eq!(of(SLOW), (5, 2));
        assert_eq!(of(6 * SLOW), (6, 3));
        assert_eq!(of(16 * SLOW), (16, 4));
        assert_eq!(of(1000 * SLOW), (64, 4));
        assert_eq!(at_once(Some(1000 * SLOW), 1), 1, "no more than is allowed");
    }

    #[test]
    fn ten_thousand_parts_hold_any_file_that_s3_takes() {
        for len in [1, 49 * GIB, 50_000 * GIB] {
            assert!(part_size(None, len) * MAX_PARTS as u64 >= len);
        }
        assert_eq!(part_size(None, 48 * GIB), MIN_PART);
        assert_eq!(part_size(None, 100 * GIB), 11 * MIB);
    }

    #[tokio::test]
    async fn while_the_link_is_slow_a_part_waits_for_the_one_before_it_and_a_small_file_does_not() {
        let lanes = Lanes::new(4);
        let first = lanes.turn(MIN_PART).await;
        assert_eq!(lanes.free.available_permits(), 0);
        assert!(lanes.turn(SMALL).await.is_none());
        drop(first);
        assert!(lanes.turn(MIN_PART).await.is_some());
    }
}
