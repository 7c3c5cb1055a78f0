//! Bounds the requests in flight, by class, so that data never keeps a HEAD or a LIST waiting.
//!
//! Invariant: at most `meta + up + down` requests are in flight; a GET counts until its body ends.
//! Waiters are served in their order. The wait belongs to the call: below `retry` it counts into the
//! deadline, so give a class at least as many permits as its callers use at once.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::layer::{Layer, Layered};
use super::op::Class;
use super::{ObjectStore, Op, Result, StoreError};

/// How many requests may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// HEAD, LIST and other requests without data, CopyObject and Complete among them.
    pub meta: usize,
    /// PutObject and UploadPart.
    pub up: usize,
    /// GetObject.
    pub down: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            meta: 8,
            up: 4,
            down: 8,
        }
    }
}

/// The layer that limits.
#[derive(Debug)]
pub struct Limit {
    meta: Arc<Semaphore>,
    up: Arc<Semaphore>,
    down: Arc<Semaphore>,
}

impl Limit {
    /// `inner`, at most so many at once. A class has at least one permit.
    pub fn over(inner: Arc<dyn ObjectStore>, config: &Config) -> Arc<Layered<Self>> {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.max(1)));
        let limit = Self {
            meta: semaphore(config.meta),
            up: semaphore(config.up),
            down: semaphore(config.down),
        };
        Arc::new(Layered::new(inner, Arc::new(limit)))
    }
}

#[async_trait]
impl Layer for Limit {
    type Held = OwnedSemaphorePermit;

    async fn before(&self, op: Op, _up: u64) -> Result<OwnedSemaphorePermit> {
        let semaphore = match op.class() {
            Class::Meta | Class::Work => &self.meta,
            Class::Up => &self.up,
            Class::Down => &self.down,
        };
        let permit = Arc::clone(semaphore).acquire_owned().await;
        permit.map_err(|closed| StoreError::Link(closed.to_string()))
    }
}
