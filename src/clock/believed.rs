//! The time of day on a device that starts in 1970.
//!
//! What is believed is the latest of: the system's clock, the date this program was built, the last
//! time that was learnt before the power went; and, once it is learnt anew over the closed path
//! (SNTP, or the `Date` of an answer whose TLS was verified), that. Certificates are checked against
//! it, requests are signed with it, names and attributes are dated by it.
//!
//! Invariants: what is learnt is carried on by the monotonic clock, so that nobody's setting of the
//! system's clock spoils it; a time from before the floor is never learnt; only what a verified peer
//! said is ever kept for the next start (`kept`).

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Clock, SharedClock, SystemClock};

/// The system's clock is taken for right if it is this near to what was learnt: that was rounded
/// to a second and took some time to arrive.
const NEAR: Duration = Duration::from_secs(30);

/// Who said what time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Teacher {
    /// A time server over the closed path: nothing vouches for it but the path.
    Sntp,
    /// A peer whose certificate was verified.
    Verified,
}

#[derive(Debug)]
struct State {
    /// No time before it is believed, and where the monotonic clock stood then.
    floor: (SystemTime, Instant),
    learnt: Option<(SystemTime, Instant, Teacher)>,
}

/// A clock that believes no nonsense.
#[derive(Debug)]
pub struct Believed {
    system: SharedClock,
    state: Mutex<State>,
    /// Whether a verified peer has said the time.
    verified: watch::Sender<bool>,
}

/// When this program was built.
fn built() -> SystemTime {
    let seconds = env!("KRYPTONFS_BUILT").parse().unwrap_or(0);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

impl Believed {
    /// The one of this process.
    #[must_use]
    pub fn of_process() -> Arc<Self> {
        static ONE: LazyLock<Arc<Believed>> =
            LazyLock::new(|| Arc::new(Believed::over(SystemClock::shared(), built())));
        Arc::clone(&ONE)
    }

    /// One over another clock, that believes nothing before `floor`.
    #[must_use]
    pub fn over(system: SharedClock, floor: SystemTime) -> Self {
        let now = system.mono();
        Self {
            system,
            state: Mutex::new(State {
                floor: (floor, now),
                learnt: None,
            }),
            verified: watch::Sender::new(false),
        }
    }

    /// It was this late already, at the end of an earlier run.
    pub fn was_already(&self, then: SystemTime) {
        let now = self.system.mono();
        let mut state = self.state.lock();
        if then > state.floor_at(now) {
            state.floor = (then, now);
        }
    }

    /// Somebody said what time it is. False: it cannot be, and nothing is learnt.
    pub fn learn(&self, said: SystemTime, teacher: Teacher) -> bool {
        let now = self.system.mono();
        let mut state = self.state.lock();
        if said + NEAR < state.floor_at(now) {
            return false;
        }
        // A time server does not unsay what a verified peer said.
        if state.learnt.is_some_and(|(.., earlier)| earlier > teacher) {
            return false;
        }
        state.learnt = Some((said, now, teacher));
        drop(state);
        if teacher == Teacher::Verified {
            self.verified.send_if_modified(|verified| {
                let news = !*verified;
                *verified = true;
                news
            });
        }
        true
    }

    /// Whether the time can be relied on: it was learnt, or the system's clock is not behind what is
    /// known. Whatever needs a date waits for this.
    #[must_use]
    pub fn is_believable(&self) -> bool {
        let (wall, now) = (self.system.wall(), self.system.mono());
        let state = self.state.lock();
        state.learnt.is_some() || wall + NEAR >= state.floor_at(now)
    }

    /// What may be kept for the next start: the time now, if a verified peer taught it.
    #[must_use]
    pub fn to_keep(&self) -> Option<SystemTime> {
        let taught = self.state.lock().learnt;
        let taught = taught.is_some_and(|(.., teacher)| teacher == Teacher::Verified);
        taught.then(|| self.wall())
    }

    /// Waits until a verified peer has said the time.
    pub async fn verified(&self) {
        let mut heard = self.verified.subscribe();
        // `self` holds the sender, so it cannot end before.
        let _told = heard.wait_for(|verified| *verified).await;
    }
}

impl State {
    fn floor_at(&self, now: Instant) -> SystemTime {
        self.floor.0 + now.saturating_duration_since(self.floor.1)
    }
}

impl Clock for Believed {
    fn wall(&self) -> SystemTime {
        let (wall, now) = (self.system.wall(), self.system.mono());
        let state = self.state.lock();
        let Some((said, then, _)) = state.learnt else {
            return wall.max(state.floor_at(now));
        };
        let learnt = said + now.saturating_duration_since(then);
        let apart = wall
            .duration_since(learnt)
            .unwrap_or_else(|behind| behind.duration());
        if apart <= NEAR { wall } else { learnt }
    }

    fn mono(&self) -> Instant {
        self.system.mono()
    }

    fn boot(&self) -> Duration {
        self.system.boot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(days: u32) -> SystemTime {
        UNIX_EPOCH + DAY * days
    }

    /// A device that shows `shown`, with a program that was built on day 20 000.
    fn device(shown: SystemTime) -> (Arc<ManualClock>, Believed) {
        let system = ManualClock::at(shown);
        let shared: SharedClock = Arc::<ManualClock>::clone(&system);
        (system, Believed::over(shared, at(20_000)))
    }

    #[test]
    fn in_1970_it_is_the_day_of_the_build_and_that_is_not_relied_on() {
        let (system, believed) = device(UNIX_EPOCH);
        assert_eq!(believed.wall(), at(20_000));
        assert!(!believed.is_believable());
        system.advance(DAY);
        assert_eq!(believed.wall(), at(20_001), "time passes all the same");
    }

    #[test]
    fn what_was_kept_is_the_floor_unless_the_build_is_newer() {
        let (_, believed) = device(UNIX_EPOCH);
        believed.was_already(at(19_000));
        assert_eq!(believed.wall(), at(20_000));
        believed.was_already(at(20_100));
        assert_eq!(believed.wall(), at(20_100));
        let (_, right) = device(at(20_200));
        right.was_already(at(20_100));
        assert_eq!(right.wall(), at(20_200));
        assert!(right.is_believable());
        right.was_already(at(20_300));
        assert!(!right.is_believable(), "the clock has fallen behind");
    }

    #[test]
    fn what_is_learnt_goes_on_whatever_is_done_to_the_systems_clock() {
        let (system, believed) = device(UNIX_EPOCH);
        assert!(believed.learn(at(20_500), Teacher::Sntp));
        assert!(believed.is_believable());
        system.advance(DAY);
        assert_eq!(believed.wall(), at(20_501));
        system.set_wall(at(30_000));
        assert_eq!(believed.wall(), at(20_501), "ten years off");
        system.set_wall(at(20_501) + Duration::from_millis(1_250));
        assert_eq!(
            believed.wall(),
            at(20_501) + Duration::from_millis(1_250),
            "it is right, and finer"
        );
    }

    #[test]
    fn a_time_before_the_floor_is_not_learnt() {
        let (_, believed) = device(UNIX_EPOCH);
        assert!(!believed.learn(at(10_000), Teacher::Sntp));
        assert!(!believed.learn(at(10_000), Teacher::Verified));
        assert!(!believed.is_believable());
    }

    #[test]
    fn a_time_server_does_not_unsay_what_a_verified_peer_said() {
        let (_, believed) = device(UNIX_EPOCH);
        assert!(believed.learn(at(29_000), Teacher::Sntp));
        assert!(believed.learn(at(20_500), Teacher::Verified));
        assert!(!believed.learn(at(29_000), Teacher::Sntp));
        assert_eq!(believed.wall(), at(20_500));
    }

    #[test]
    fn only_what_a_verified_peer_said_is_kept() {
        let (system, believed) = device(at(20_400));
        assert_eq!(believed.to_keep(), None, "the system's clock may be wrong");
        believed.learn(at(20_500), Teacher::Sntp);
        assert_eq!(believed.to_keep(), None, "anybody can send a datagram");
        believed.learn(at(20_600), Teacher::Verified);
        system.advance(DAY);
        assert_eq!(believed.to_keep(), Some(at(20_601)));
    }

    #[test]
    fn this_program_was_built_in_this_century() {
        assert!(built() > at(20_000));
        assert!(Believed::of_process().wall() >= built());
    }
}
