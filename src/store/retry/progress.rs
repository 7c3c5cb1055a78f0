//! How an upload's attempts progress, seen by the frames that the connection takes.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::super::{ReadFrames, Result, StoreError};

/// How far the attempts of one upload got.
#[derive(Debug)]
pub(super) struct Progress {
    /// The furthest byte any attempt took, and when it did.
    best: (u64, Instant),
    /// When the present attempt last took a frame.
    beat: Instant,
    /// How many it took.
    frames: u64,
}

impl Progress {
    /// None so far.
    pub(super) fn new() -> Arc<Mutex<Self>> {
        let now = Instant::now();
        Arc::new(Mutex::new(Self {
            best: (0, now),
            beat: now,
            frames: 0,
        }))
    }

    /// An attempt begins; the furthest byte before it.
    pub(super) fn begin(progress: &Mutex<Self>) -> u64 {
        let mut progress = progress.lock();
        progress.beat = Instant::now();
        progress.frames = 0;
        progress.best.0
    }

    /// The furthest byte, when it was taken, and whether the present attempt took any.
    pub(super) fn reached(progress: &Mutex<Self>) -> (u64, Instant, bool) {
        let progress = progress.lock();
        (progress.best.0, progress.best.1, progress.frames > 0)
    }

    /// When the present attempt last moved, and how many frames it took.
    fn pulse(progress: &Mutex<Self>) -> (Instant, u64) {
        let progress = progress.lock();
        (progress.beat, progress.frames)
    }
}

/// A payload that notes how far it was read.
pub(super) struct Watched {
    pub(super) source: Arc<dyn ReadFrames>,
    pub(super) progress: Arc<Mutex<Progress>>,
}

impl ReadFrames for Watched {
    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let bytes = self.source.read(offset, len)?;
        let now = Instant::now();
        let reached = offset.saturating_add(bytes.len() as u64);
        let mut progress = self.progress.lock();
        progress.beat = now;
        progress.frames += 1;
        if reached > progress.best.0 {
            progress.best = (reached, now);
        }
        Ok(bytes)
    }
}

/// Ends `call` when it takes no frame for `stall`.
pub(super) async fn unless_stalled<T>(
    call: impl Future<Output = Result<T>> + Send,
    progress: &Mutex<Progress>,
    stall: Duration,
) -> Result<T> {
    let mut call = std::pin::pin!(call);
    loop {
        let (beat, frames) = Progress::pulse(progress);
        let left = stall.saturating_sub(beat.elapsed());
        if let Ok(answer) = timeout(left, &mut call).await {
            return answer;
        }
        if Progress::pulse(progress).1 == frames {
            return Err(stalled());
        }
    }
}

pub(super) fn stalled() -> StoreError {
    StoreError::Link("nothing moved for too long".to_owned())
}
