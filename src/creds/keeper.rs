//! Keeps the one lease: gives it out, has its successor fetched in time, once for all who ask.
//!
//! Invariants:
//! - one request at a time: who comes while one is out waits for its outcome; the request is a task
//!   of its own, so a waiter that goes away takes nothing from the others;
//! - a lease that is due for a successor is still given out, to its true end, while that is
//!   fetched behind; that failing costs nobody anything until then;
//! - after a failure the source is left alone for `BACKOFF`, whoever asks; a refused lease is
//!   replaced at once, but not oftener than each `FORCED_APART`;
//! - nothing happens unless somebody asks.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::board::{BACKOFF, Board, Failure, Old, Wish};
use super::{CredsError, Lease, Leases};
use crate::clock::SharedClock;

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
    /// Since the last success: when the source may be asked again, and what it said.
    failed: Option<Failure>,
    /// The last lease that S3 did not take, and when that was.
    forced: Option<(String, Duration)>,
}

struct Shared {
    board: Board,
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
            .field("failed", &state.failed)
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
        let board = Board::new(source, Arc::clone(&clock), Wish::Any, None);
        Self::over(board, clock)
    }

    pub(super) fn over(board: Board, clock: SharedClock) -> Self {
        Self(Arc::new(Shared {
            board,
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
        let now = self.0.clock.boot();
        let mut state = self.0.state.lock();
        let held = state.lease.clone().filter(|lease| lease.holds(now));
        let paused = state
            .failed
            .as_ref()
            .filter(|failed| now < failed.until)
            .map(|failed| failed.error.clone());
        if let Some(lease) = held {
            if lease.is_due(now) && state.flight.is_none() && paused.is_none() {
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
        let old = match (&state.lease, &state.forced) {
            (Some(lease), _) => Some((lease.access_key_id.clone(), false)),
            (None, Some((id, _))) => Some((id.clone(), true)),
            (None, None) => None,
        };
        let landing = Landing {
            shared: Arc::clone(&self.0),
            old: old.map(|(access_key_id, refused)| Old {
                access_key_id,
                refused,
            }),
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
        let now = self.0.clock.boot();
        let mut state = self.0.state.lock();
        let is_current = state
            .lease
            .as_ref()
            .is_some_and(|lease| lease.access_key_id == access_key_id);
        let is_soon = state
            .forced
            .as_ref()
            .is_some_and(|(_, forced)| now < *forced + FORCED_APART);
        if is_current && !is_soon {
            state.forced = Some((access_key_id.to_owned(), now));
            state.lease = None;
            state.failed = None;
            self.0.board.hurry();
        }
    }

    fn link_is_back(&self) {
        self.0.state.lock().failed = None;
        self.0.board.hurry();
    }

    fn left(&self) -> Option<Duration> {
        let now = self.0.clock.boot();
        let state = self.0.state.lock();
        let lease = state.lease.as_ref().filter(|lease| lease.holds(now));
        lease.map(|lease| lease.left(now))
    }
}

fn lost() -> CredsError {
    CredsError::Silent("the request for credentials was broken off".to_owned())
}

/// One request on its way. However it ends, also by a panic or with the runtime, it lands.
struct Landing {
    shared: Arc<Shared>,
    old: Option<Old>,
    landed: watch::Sender<Option<Outcome>>,
    outcome: Option<Result<Arc<Lease>, Failure>>,
}

impl Landing {
    async fn fly(mut self) {
        let obtained = self.shared.board.obtain(self.old.as_ref()).await;
        self.outcome = Some(obtained.map(Arc::new));
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| {
            Err(Failure {
                error: lost(),
                until: self.shared.clock.boot() + BACKOFF.0,
            })
        });
        let mut state = self.shared.state.lock();
        state.flight = None;
        match &outcome {
            Ok(lease) => {
                state.lease = Some(Arc::clone(lease));
                state.identity.clone_from(&lease.identity);
                state.failed = None;
            }
            Err(failure) => {
                state.failed = Some(failure.clone());
                tracing::warn!("no new credentials: {}", failure.error);
            }
        }
        drop(state);
        // Nobody may be waiting any more.
        let outcome = outcome.map_err(|failure| failure.error);
        self.landed.send_replace(Some(outcome));
    }
}
