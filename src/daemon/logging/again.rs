//! What is said again and again is said less and less often: during an outage of days, the line of each
//! failure would fill the journal, and wear out the card that it lies on.
//!
//! Invariants: the first time a line is always written; one that was left out is counted, and the count
//! is written with the next; what is remembered is bounded.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::{Duration, Instant};

/// The same line is written again after so long, then after twice as long.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Lines that are remembered.
const LINES_MAX: usize = 256;

#[derive(Debug)]
struct Said {
    /// Not again before.
    until: Instant,
    pause: Duration,
    left_out: u64,
}

/// What was said of late.
#[derive(Debug, Default)]
pub(super) struct Again(HashMap<u64, Said>);

impl Again {
    /// Whether to write `line` now: how often it was left out since it was last written.
    pub(super) fn judge(&mut self, line: &str, now: Instant) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let line = hasher.finish();
        if !self.0.contains_key(&line) && self.0.len() >= LINES_MAX {
            self.make_room();
        }
        let said = self.0.entry(line).or_insert(Said {
            until: now,
            pause: PAUSE / 2,
            left_out: 0,
        });
        if now < said.until {
            said.left_out += 1;
            return None;
        }
        // One that was not said for a while begins anew.
        let is_over = now.saturating_duration_since(said.until) > PAUSE_MAX;
        said.pause = if is_over {
            PAUSE
        } else {
            (said.pause * 2).min(PAUSE_MAX)
        };
        said.until = now + said.pause;
        Some(std::mem::take(&mut said.left_out))
    }

    /// Forgets the one that may be written again first.
    fn make_room(&mut self) {
        let first = self.0.iter().min_by_key(|(_, said)| said.until);
        if let Some(line) = first.map(|(line, _)| *line) {
            self.0.remove(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_said_each_second_for_a_day_is_written_a_few_dozen_times() {
        let (mut again, begun) = (Again::default(), Instant::now());
        let mut written = Vec::new();
        for second in 0..86_400 {
            let now = begun + Duration::from_secs(second);
            if let Some(left_out) = again.judge("the bucket is silent", now) {
                written.push((second, left_out));
            }
        }
        assert_eq!(written[..3], [(0, 0), (60, 59), (180, 119)]);
        assert!(written.len() < 32, "{}", written.len());
        let told: u64 = written.iter().map(|(_, left_out)| left_out + 1).sum();
        let last = written.last().unwrap().0;
        assert_eq!(told, last + 1, "all are counted");
    }

    #[test]
    fn another_line_is_written_at_once_and_an_old_one_begins_anew() {
        let (mut again, begun) = (Again::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(again.judge("a", at(0)), Some(0));
        assert_eq!(again.judge("b", at(0)), Some(0));
        assert_eq!(again.judge("a", at(59)), None);
        assert_eq!(again.judge("a", at(100)), Some(1));
        assert_eq!(again.judge("a", at(200)), None, "two minutes by now");
        assert_eq!(again.judge("a", at(100_000)), Some(1));
        assert_eq!(again.judge("a", at(100_061)), Some(0), "a minute again");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut again, now) = (Again::default(), Instant::now());
        for number in 0..10 * LINES_MAX {
            assert_eq!(again.judge(&number.to_string(), now), Some(0));
        }
        assert_eq!(again.0.len(), LINES_MAX);
    }
}
