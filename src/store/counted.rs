//! Counts requests by operation and the bytes they carried, for `status`, the demo and tests.
//!
//! Invariant: counters only grow. A request is counted when it starts, its failure when it ends;
//! bytes up are those of payloads (a repeat counts again), bytes down those that arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;
use bytes::Bytes;

use super::layer::{Layer, Layered};
use super::{ObjectStore, Op, Result, StoreError};

/// Counters that are counted up.
#[derive(Debug, Default)]
pub struct Counters {
    calls: [AtomicU64; Op::ALL.len()],
    failed: [AtomicU64; Op::ALL.len()],
    up: AtomicU64,
    down: AtomicU64,
}

/// What the counters showed at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    calls: [u64; Op::ALL.len()],
    failed: [u64; Op::ALL.len()],
    /// Bytes of payloads.
    pub up: u64,
    /// Bytes of bodies.
    pub down: u64,
}

impl Counters {
    /// A request starts.
    pub fn call(&self, op: Op, up: u64) {
        self.calls[op as usize].fetch_add(1, Relaxed);
        self.up.fetch_add(up, Relaxed);
    }

    /// A request failed.
    pub fn failed(&self, op: Op) {
        self.failed[op as usize].fetch_add(1, Relaxed);
    }

    /// So many bytes of a body arrived.
    pub fn down(&self, bytes: u64) {
        self.down.fetch_add(bytes, Relaxed);
    }

    /// What they show now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            calls: std::array::from_fn(|at| self.calls[at].load(Relaxed)),
            failed: std::array::from_fn(|at| self.failed[at].load(Relaxed)),
            up: self.up.load(Relaxed),
            down: self.down.load(Relaxed),
        }
    }
}

impl Counts {
    /// Requests of one operation.
    #[must_use]
    pub fn of(&self, op: Op) -> u64 {
        self.calls[op as usize]
    }

    /// Those of them that failed, also with answers that are no fault (404, 304, 412).
    #[must_use]
    pub fn failed(&self, op: Op) -> u64 {
        self.failed[op as usize]
    }

    /// Requests of all operations.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.calls.iter().sum()
    }

    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            calls: std::array::from_fn(|at| self.calls[at].saturating_sub(before.calls[at])),
            failed: std::array::from_fn(|at| self.failed[at].saturating_sub(before.failed[at])),
            up: self.up.saturating_sub(before.up),
            down: self.down.saturating_sub(before.down),
        }
    }
}

/// The layer that counts.
#[derive(Debug)]
pub struct Counted(Arc<Counters>);

impl Counted {
    /// `inner`, counted into `counters`.
    pub fn over(inner: Arc<dyn ObjectStore>, counters: Arc<Counters>) -> Arc<Layered<Self>> {
        Arc::new(Layered::new(inner, Arc::new(Self(counters))))
    }
}

#[async_trait]
impl Layer for Counted {
    type Held = ();

    async fn before(&self, op: Op, up: u64) -> Result<()> {
        self.0.call(op, up);
        Ok(())
    }

    fn after(&self, (): &(), op: Op, failed: Option<&StoreError>) -> Result<()> {
        if failed.is_some() {
            self.0.failed(op);
        }
        Ok(())
    }

    fn piece(&self, (): &mut (), piece: Option<Result<Bytes>>) -> Option<Result<Bytes>> {
        if let Some(Ok(bytes)) = &piece {
            self.0.down(bytes.len() as u64);
        }
        piece
    }
}
