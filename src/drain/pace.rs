//! How long to wait after a failure: pure functions of how often it failed and a random number.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use crate::types::RelKey;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// So many times in a row a change may meet a conflict before it, too, is tried more slowly.
const AGAIN_MAX: u32 = 3;

/// The wait after `failures` in a row: full jitter between 1 s and a bound that doubles from 2 s
/// up to 5 minutes. `roll` is any random number.
pub(super) fn backoff(failures: u32, roll: u64) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.clamp(1, 16));
    let bound = doubled.min(LONGEST);
    let span = u64::try_from((bound - FIRST).as_millis()).unwrap_or(u64::MAX);
    FIRST + Duration::from_millis(roll % (span + 1))
}

/// A random number, from the seeds the standard library takes for its hash maps.
pub(super) fn roll() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// What failed, and until when it rests.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// All of it, as the bucket cannot be reached: how often in a row, until when.
    pause: Option<(u32, Instant)>,
    /// Single keys: how often in a row.
    failures: HashMap<RelKey, u32>,
    /// Until when.
    pub(super) resting: HashMap<RelKey, Instant>,
}

impl Pace {
    /// Until when nothing is started. While paused, after that only one probe at a time.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.pause.map(|(_, until)| until)
    }

    /// The bucket could not be reached. Those that were in flight together count once.
    pub(super) fn silence(&mut self, now: Instant, roll: u64) {
        let failures = match self.pause {
            Some((_, until)) if until > now => return,
            Some((failures, _)) => failures.saturating_add(1),
            None => 1,
        };
        self.pause = Some((failures, now + backoff(failures, roll)));
    }

    /// The bucket answered.
    pub(super) fn answered(&mut self) {
        self.pause = None;
    }

    /// A change failed by itself.
    pub(super) fn failed(&mut self, key: &RelKey, now: Instant, roll: u64) {
        let failures = self.failures.entry(key.clone()).or_default();
        *failures = failures.saturating_add(1);
        let until = now + backoff(*failures, roll);
        self.resting.insert(key.clone(), until);
    }

    /// A change met something that was settled, and may be tried again at once, a few times.
    pub(super) fn again(&mut self, key: &RelKey, now: Instant, roll: u64) {
        let failures = self.failures.entry(key.clone()).or_default();
        if *failures >= AGAIN_MAX {
            self.failed(key, now, roll);
        } else {
            *failures += 1;
        }
    }

    /// A change got through.
    pub(super) fn done(&mut self, key: &RelKey) {
        self.failures.remove(key);
        self.resting.remove(key);
    }

    /// Everything may be tried at once.
    pub(super) fn wake(&mut self) {
        *self = Self::default();
    }

    /// Forgets keys that are no longer pending.
    pub(super) fn retain(&mut self, is_pending: impl Fn(&RelKey) -> bool) {
        self.failures.retain(|key, _| is_pending(key));
        self.resting.retain(|key, _| is_pending(key));
    }

    /// How many keys it remembers.
    pub(super) fn count(&self) -> usize {
        self.failures.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> RelKey {
        RelKey::parse("a").unwrap()
    }

    #[test]
    fn jobs_that_fail_together_count_as_one_silence() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..4 {
            pace.silence(now, u64::MAX);
        }
        assert_eq!(pace.pause.unwrap().0, 1);
        let later = pace.paused_until().unwrap();
        pace.silence(later, u64::MAX);
        assert_eq!(pace.pause.unwrap().0, 2);
        pace.answered();
        assert_eq!(pace.paused_until(), None);
    }

    #[test]
    fn a_conflict_is_tried_again_at_once_but_not_for_ever() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..AGAIN_MAX {
            pace.again(&key(), now, 0);
            assert!(pace.resting.is_empty());
        }
        pace.again(&key(), now, 0);
        assert!(pace.resting[&key()] > now);
        pace.done(&key());
        assert_eq!((pace.count(), pace.resting.len()), (0, 0));
    }

    #[test]
    fn keys_that_are_not_pending_any_more_are_forgotten() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.failed(&key(), now, 0);
        pace.retain(|_| false);
        assert_eq!((pace.count(), pace.resting.len()), (0, 0));
    }

    proptest! {
        #[test]
        fn a_wait_is_between_one_second_and_a_bound_that_doubles(failures in 1u32..40, roll: u64) {
            let wait = backoff(failures, roll);
            prop_assert!(wait >= FIRST && wait <= LONGEST);
            prop_assert!(wait <= FIRST * (1 << failures.min(9)));
        }
    }
}
