//! Keeps the one lease: gives it out, has its successor fetched in time, once for all who ask.
//!
//! Invariants:
//! - one request at a time: who comes while one is out waits for its outcome; the request is a task
//!   of its own, so a waiter that goes away takes nothing from the others;
//! - past half its life a lease is still given out, to its true end, while its successor is
//!   fetched behind; that failing costs nobody anything until then;
//! - after a failure the source is left alone for `BACKOFF`, whoever asks; a refused lease is
//!   replaced at once, but not oftener than each `FORCED_APART`;
//! - nothing happens unless somebody asks.

#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{CredsError, Lease, Leases};
use crate::clock::SharedClock;

/// Between failures, with jitter: the least and the most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// A refused lease may have been refused for a reason a new one does not cure.
const FORCED_APART: Duration = Duration::from_secs(10);

/// Where leases come from.
#[async_trait]
pub trait Source: Send + Sync + fmt::Debug {
    /// A new one. Must end in bounded time.
    async fn obtain(&self) -> Result<Lease, CredsError>;
}

type Outcome = Result<Arc<Lease>, CredsError>;

#[derive(Default)]
struct State {
    lease: Option<Arc<Lease>>,
    /// Of the last lease, also when that is over.
    identity: Option<String>,
    /// The request that is out.
    flight: Option<watch::Receiver<Option<Outcome>>>,
    failures: u32,
    /// Since the last success: when the source may be asked again, and what it said.
    failed: Option<(Instant, CredsError)>,
    forced: Option<Instant>,
}

struct Shared {
    source: Arc<dyn Source>,
    clock: SharedClock,
    state: Mutex<State>,
}

/// The keeper. Cheap to clone; all clones keep the same lease.
#[derive(Clone)]
pub struct Keeper(Arc<Shared>);

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("Keeper")
            .field("lease", &state.lease)
            .field("in_flight", &state.flight.is_some())
            .field("failures", &state.failures)
            .finish_non_exhaustive()
    }
}

/// What there is to do for one who asks.
enum Step {
    Have(Outcome),
    Wait(watch::Receiver<Option<Outcome>>),
}

impl Keeper {
    /// One with no lease yet; nothing is asked for.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, clock: SharedClock) -> Self {
        Self(Arc::new(Shared {
            source,
            clock,
            state: Mutex::new(State::default()),
        }))
    }

    /// The Cognito identity of the last lease.
    #[must_use]
    pub fn identity(&self) -> Option<String> {
        self.0.state.lock().identity.clone()
    }

    /// Must be called inside of a runtime.
    fn step(&self) -> Step {
        let now = self.0.clock.mono();
        let mut state = self.0.state.lock();
        let held = state.lease.clone().filter(|lease| lease.holds(now));
        let paused = state
            .failed
            .as_ref()
            .filter(|failed| now < failed.0)
            .map(|failed| failed.1.clone());
        if let Some(lease) = held {
            if lease.is_past_half(now) && state.flight.is_none() && paused.is_none() {
                self.start(&mut state);
            }
            return Step::Have(Ok(lease));
        }
        if let Some(flight) = &state.flight {
            return Step::Wait(flight.clone());
        }
        match paused {
            Some(error) => Step::Have(Err(error)),
            None => Step::Wait(self.start(&mut state)),
        }
    }

    fn start(&self, state: &mut State) -> watch::Receiver<Option<Outcome>> {
        let (landed, flight) = watch::channel(None);
        state.flight = Some(flight.clone());
        let landing = Landing {
            shared: Arc::clone(&self.0),
            landed,
            outcome: None,
        };
        tokio::spawn(landing.fly());
        flight
    }
}

#[async_trait]
impl Leases for Keeper {
    async fn lease(&self) -> Result<Arc<Lease>, CredsError> {
        let mut flight = match self.step() {
            Step::Have(outcome) => return outcome,
            Step::Wait(flight) => flight,
        };
        let landed = flight.wait_for(Option::is_some).await;
        let outcome = landed.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err(lost()))
    }

    fn refused(&self, access_key_id: &str) {
        let now = self.0.clock.mono();
        let mut state = self.0.state.lock();
        let is_current = state
            .lease
            .as_ref()
            .is_some_and(|lease| lease.access_key_id == access_key_id);
        let is_soon = state
            .forced
            .is_some_and(|forced| now < forced + FORCED_APART);
        if is_current && !is_soon {
            state.forced = Some(now);
            state.lease = None;
            state.failed = None;
        }
    }

    fn link_is_back(&self) {
        self.0.state.lock().failed = None;
    }
}

fn lost() -> CredsError {
    CredsError::Silent("the request for credentials was broken off".to_owned())
}

/// One request on its way. However it ends, also by a panic or with the runtime, it lands.
struct Landing {
    shared: Arc<Shared>,
    landed: watch::Sender<Option<Outcome>>,
    outcome: Option<Outcome>,
}

impl Landing {
    async fn fly(mut self) {
        let obtained = self.shared.source.obtain().await;
        self.outcome = Some(obtained.map(Arc::new));
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| Err(lost()));
        let now = self.shared.clock.mono();
        let mut state = self.shared.state.lock();
        state.flight = None;
        match &outcome {
            Ok(lease) => {
                state.lease = Some(Arc::clone(lease));
                state.identity.clone_from(&lease.identity);
                state.failures = 0;
                state.failed = None;
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                let pause = pause(state.failures, random());
                state.failed = Some((now + pause, error.clone()));
                tracing::warn!("no new credentials: {error}");
            }
        }
        drop(state);
        // Nobody may be waiting any more.
        self.landed.send_replace(Some(outcome));
    }
}

/// How long the source is left alone after so many failures; `random` is 0 to 1.
fn pause(failures: u32, random: f64) -> Duration {
    let (least, most) = BACKOFF;
    let doubled = least.saturating_mul(2u32.saturating_pow(failures));
    least + (doubled.min(most) - least).mul_f64(random.clamp(0.0, 1.0))
}

/// 0 to 1, other on each device and each time: `RandomState` is seeded by the kernel.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(0u8);
    f64::from((bits >> 32) as u32) / f64::from(u32::MAX)
}
