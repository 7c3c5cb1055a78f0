//! Time as a value: what reads the time is handed a `Clock`, so that tests turn it by hand.
//!
//! Invariant: the wall clock is for people and for what others must read (mtimes, signatures). How
//! long something lasts is measured on the monotonic clock alone: a device starts in 1970 and
//! jumps when its time is set.

pub mod believed;
pub mod kept;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time of day, as far as this device knows it.
    fn wall(&self) -> SystemTime;
    /// The monotonic time; it never jumps.
    fn mono(&self) -> Instant;
    /// How long ago the machine was started, sleep included; it never jumps, and all processes agree
    /// on it.
    fn boot(&self) -> Duration;
}

/// A clock that is shared by all who need one.
pub type SharedClock = Arc<dyn Clock>;

/// The time of day this process believes in (`believed`), for what is dated without a clock at hand.
#[must_use]
pub fn wall() -> SystemTime {
    believed::Believed::of_process().wall()
}

/// The clocks of the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// One to share.
    #[must_use]
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn mono(&self) -> Instant {
        Instant::now()
    }

    fn boot(&self) -> Duration {
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // It began at 0 and never goes back.
        Duration::new(
            u64::try_from(since.tv_sec).unwrap_or_default(),
            u32::try_from(since.tv_nsec).unwrap_or_default(),
        )
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<(SystemTime, Instant)>,
    started: Instant,
}

impl ManualClock {
    /// One that shows `wall`.
    #[must_use]
    pub fn at(wall: SystemTime) -> Arc<Self> {
        let started = Instant::now();
        Arc::new(Self {
            now: Mutex::new((wall, started)),
            started,
        })
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock();
        now.0 += by;
        now.1 += by;
    }

    /// Somebody sets the time of day; no time passes.
    pub fn set_wall(&self, wall: SystemTime) {
        self.now.lock().0 = wall;
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> SystemTime {
        self.now.lock().0
    }

    fn mono(&self) -> Instant {
        self.now.lock().1
    }

    fn boot(&self) -> Duration {
        self.now.lock().1 - self.started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_the_time_of_day_does_not_move_the_monotonic_clock() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let start = clock.mono();
        clock.advance(Duration::from_secs(7));
        assert_eq!(clock.mono() - start, Duration::from_secs(7));
        assert_eq!(
            clock.wall(),
            SystemTime::UNIX_EPOCH + Duration::from_secs(7)
        );

        clock.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        assert_eq!(clock.mono() - start, Duration::from_secs(7));
        assert_eq!(clock.boot(), Duration::from_secs(7));
    }

    #[test]
    fn the_time_since_the_start_of_the_machine_is_the_kernels() {
        let told = std::fs::read_to_string("/proc/uptime").unwrap();
        let told: f64 = told.split(' ').next().unwrap().parse().unwrap();
        let known = SystemClock.boot().as_secs_f64();
        // The file cuts to hundredths.
        assert!(known >= told - 0.01, "{known} {told}");
    }
}
