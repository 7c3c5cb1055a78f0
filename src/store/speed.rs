//! What the link carries in one direction: bytes a second, measured while data is on its way, never
//! by sending anything for it.
//!
//! Time counts while at least one request that carries data is under way, its wait for the first byte
//! (or, on the way up, for the answer) too: what is measured is what a reader or a writer gets, not
//! what the radio could do.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// So much busy time makes a measurement.
const MEASURE: Duration = Duration::from_millis(500);

/// The measurement that goes on, and the result of those before.
#[derive(Debug, Default)]
pub struct Speed(Mutex<Measure>);

/// Guarded by a leaf lock.
#[derive(Debug, Default)]
struct Measure {
    /// Requests under way.
    busy: usize,
    /// Up to when the busy time is counted in `lasted`.
    counted: Option<Instant>,
    lasted: Duration,
    bytes: u64,
    rate: Option<u64>,
}

/// A request for data is under way.
#[derive(Debug)]
pub struct Busy<'a>(&'a Speed);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.0.lock().ends(Instant::now());
    }
}

impl Speed {
    /// A request that carries data begins; it ends when this is dropped.
    pub fn busy(&self) -> Busy<'_> {
        self.0.lock().begins(Instant::now());
        Busy(self)
    }

    /// So many bytes arrived, here or there.
    pub fn carried(&self, bytes: u64) {
        self.0.lock().carried(bytes, Instant::now());
    }

    /// The request under way failed: what it took tells nothing of the link.
    pub fn failed(&self) {
        self.0.lock().void();
    }

    /// Bytes a second; `None` before the first measurement.
    pub fn rate(&self) -> Option<u64> {
        self.0.lock().rate
    }
}

impl Measure {
    fn begins(&mut self, now: Instant) {
        self.tick(now);
        self.busy += 1;
    }

    fn ends(&mut self, now: Instant) {
        self.tick(now);
        self.busy -= 1;
    }

    fn carried(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        self.tick(now);
        if self.lasted < MEASURE {
            return;
        }
        let millis = u64::try_from(self.lasted.as_millis()).unwrap_or(u64::MAX);
        let rate = self.bytes.saturating_mul(1000) / millis.max(1);
        // Half of the new: a link changes, and one measurement is a rough one.
        self.rate = Some(self.rate.map_or(rate, |old| old / 2 + rate / 2));
        (self.lasted, self.bytes) = (Duration::ZERO, 0);
    }

    fn void(&mut self) {
        (self.lasted, self.bytes) = (Duration::ZERO, 0);
    }

    fn tick(&mut self, now: Instant) {
        if let Some(counted) = self.counted.filter(|_| self.busy > 0) {
            self.lasted += now.saturating_duration_since(counted);
        }
        self.counted = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_busy_time_counts() {
        let (mut measure, start) = (Measure::default(), Instant::now());
        measure.begins(start);
        measure.carried(1000, start + SECOND / 4);
        measure.ends(start + SECOND / 4);
        assert_eq!(measure.rate, None, "too short to tell");
        measure.begins(start + SECOND * 100);
        measure.carried(1000, start + SECOND * 100 + SECOND / 4);
        assert_eq!(measure.rate, Some(4000));
    }

    #[test]
    fn requests_beside_each_other_share_the_link() {
        let (mut measure, start) = (Measure::default(), Instant::now());
        measure.begins(start);
        measure.begins(start);
        measure.carried(500, start + SECOND / 3);
        measure.carried(500, start + SECOND);
        assert_eq!(measure.rate, Some(1000));
    }

    #[test]
    fn a_link_that_changes_is_followed() {
        let (mut measure, start) = (Measure::default(), Instant::now());
        measure.begins(start);
        measure.carried(1_000_000, start + SECOND);
        for n in 2..12 {
            measure.carried(4000, start + SECOND * n);
        }
        assert!((4000..6000).contains(&measure.rate.unwrap()), "{measure:?}");
    }
}
