//! A store that sends nothing unless S3 has said that this way leads through the VPC endpoint
//! (`closed_check`). It asks by the canary pair.
//!
//! Invariants:
//! - no request but the check's own passes before the first check, after one that did not prove it,
//!   or since the interface changed;
//! - it asks only when somebody has something to send, once for all who wait, so an idle mount sends
//!   nothing; a check is two GetObject;
//! - silence proves nothing either way: who asked is told of it, and the next one asks again;
//! - a check is a task of its own: who asked may go away.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::canary::{self, Proof};
use super::layer::{Layer, Layered};
use super::{ObjectStore, Op, Result, StoreError};
use crate::clock::SharedClock;

/// How long a check may take: some 3 KB each way, and perhaps a lease and a handshake before.
const PATIENCE: Duration = Duration::from_secs(120);

/// When it asks beside before the first request and after each change of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// A proof holds so long; `None`: until the interface changes.
    pub every: Option<Duration>,
    /// After a check that did not prove it: the least and the most until the next one. It doubles.
    pub again: (Duration, Duration),
}

impl Config {
    /// `every`: as the field.
    #[must_use]
    pub fn of(every: Option<Duration>) -> Self {
        Self {
            every,
            again: (Duration::from_secs(5), Duration::from_secs(300)),
        }
    }
}

/// Another number after each change of the interface.
pub type Footing = dyn Fn() -> u64 + Send + Sync;

/// The last check that was answered.
#[derive(Clone, Debug)]
struct Last {
    /// Why nothing may pass; `None`: it was proven.
    why_not: Option<String>,
    at: Instant,
    /// What the interface was when it began.
    footing: u64,
    /// In a row that did not prove it.
    failures: u32,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Last>,
    /// Checks that ended, answered or not, and how the last of them did.
    checks: u64,
    outcome: Option<Result<()>>,
}

/// What is known of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing yet.
    Unknown,
    /// It was closed so long ago.
    Proven(Duration),
    /// It was not, so long ago; nothing passes.
    Stopped(String, Duration),
}

/// The gate. Clones are the same.
#[derive(Clone)]
pub struct Closed(Arc<Gate>);

struct Gate {
    /// The whole bucket, before the gate.
    bucket: Arc<dyn ObjectStore>,
    config: Config,
    clock: SharedClock,
    footing: Box<Footing>,
    /// Guards what is known; held for a look only.
    state: Mutex<State>,
    /// Held by the check that is out.
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Closed({:?})", self.0.state.lock().last)
    }
}

/// What a request may do.
enum Next {
    Pass,
    Stop(String),
    Ask,
}

impl Closed {
    /// A gate over the whole bucket.
    pub fn new(
        bucket: Arc<dyn ObjectStore>,
        config: Config,
        clock: SharedClock,
        footing: Box<Footing>,
    ) -> Self {
        Self(Arc::new(Gate {
            bucket,
            config,
            clock,
            footing,
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// The same bucket behind the gate.
    #[must_use]
    pub fn store(&self) -> Arc<Layered<Self>> {
        let bucket = Arc::clone(&self.0.bucket);
        Arc::new(Layered::new(bucket, Arc::new(self.clone())))
    }

    /// What is known now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let now = self.0.clock.mono();
        let last = self.0.state.lock().last.clone();
        let Some(last) = last else {
            return Standing::Unknown;
        };
        let ago = now.saturating_duration_since(last.at);
        match last.why_not {
            Some(why) => Standing::Stopped(why, ago),
            None if last.footing != (self.0.footing)() => Standing::Unknown,
            None => Standing::Proven(ago),
        }
    }
}

impl Gate {
    fn next(&self) -> Next {
        let (footing, now) = ((self.footing)(), self.clock.mono());
        let state = self.state.lock();
        let Some(last) = state.last.as_ref().filter(|last| last.footing == footing) else {
            return Next::Ask;
        };
        let age = now.saturating_duration_since(last.at);
        match &last.why_not {
            None if self.config.every.is_some_and(|every| age >= every) => Next::Ask,
            None => Next::Pass,
            Some(_) if age >= self.pause(last.failures) => Next::Ask,
            Some(why) => Next::Stop(why.clone()),
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        let (first, longest) = self.config.again;
        let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(longest)
    }

    /// Asks, unless somebody did while this one waited for its turn (`seen`: checks before).
    async fn check(&self, seen: u64) -> Result<()> {
        let _turn = self.turn.lock().await;
        if let Some(outcome) = self.outcome_since(seen) {
            return outcome;
        }
        let footing = (self.footing)();
        let asking = canary::ask(&*self.bucket);
        let proof = tokio::time::timeout(PATIENCE, asking).await;
        let outcome = match proof.unwrap_or(Proof::Unknown(StoreError::Deadline)) {
            Proof::Closed => self.answered(footing, None),
            Proof::Open(why) | Proof::Unproven(why) => self.answered(footing, Some(why)),
            Proof::Unset(why) => {
                let cure = "`kryptonfs doctor --setup-canary` tells what to do";
                self.answered(footing, Some(format!("{why}: {cure}")))
            }
            Proof::Unknown(error) => Err(error),
        };
        let mut state = self.state.lock();
        state.checks += 1;
        state.outcome = Some(outcome.clone());
        outcome
    }

    /// What the checks since then mean for a request now; `None`: it must be asked anew.
    fn outcome_since(&self, seen: u64) -> Option<Result<()>> {
        {
            let state = self.state.lock();
            if state.checks == seen {
                return None;
            }
            // Silence: who waited for the same need not wait as long once more.
            if let Some(Err(error)) = &state.outcome {
                return Some(Err(error.clone()));
            }
        }
        match self.next() {
            Next::Pass => Some(Ok(())),
            Next::Stop(why) => Some(Err(StoreError::NotClosed(why))),
            Next::Ask => None,
        }
    }

    fn answered(&self, footing: u64, why_not: Option<String>) -> Result<()> {
        let mut state = self.state.lock();
        let failures = state.last.as_ref().map_or(0, |last| last.failures);
        let was_stopped = failures > 0;
        match &why_not {
            Some(why) => {
                tracing::error!("nothing is sent, as the path is not proven closed: {why}")
            }
            None if was_stopped => tracing::info!("the path is proven closed again"),
            None => tracing::debug!("the path is proven closed"),
        }
        state.last = Some(Last {
            why_not: why_not.clone(),
            at: self.clock.mono(),
            footing,
            failures: why_not.as_ref().map_or(0, |_| failures.saturating_add(1)),
        });
        why_not.map_or(Ok(()), |why| Err(StoreError::NotClosed(why)))
    }
}

#[async_trait]
impl Layer for Closed {
    type Held = ();

    async fn before(&self, _op: Op, _up: u64) -> Result<()> {
        let seen = self.0.state.lock().checks;
        match self.0.next() {
            Next::Pass => Ok(()),
            Next::Stop(why) => Err(StoreError::NotClosed(why)),
            Next::Ask => {
                let gate = Arc::clone(&self.0);
                let check = tokio::spawn(async move { gate.check(seen).await });
                check.await.unwrap_or(Err(StoreError::Deadline))
            }
        }
    }
}

#[cfg(test)]
mod tests;
