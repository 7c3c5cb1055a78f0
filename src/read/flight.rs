//! One fetch per block: whoever wants a block that is on its way waits for it, nobody asks twice.
//!
//! A *run* is a task that fetches consecutive blocks of one version and hands each one on as it
//! arrives: into what is kept, then to those who wait for it. Invariants:
//! - at any time at most one run covers a block (but a forced one), from the block it fetches
//!   next to its end; a block a run has passed is kept, or lost, and may be asked for again;
//! - a run first looks at what is kept, so what arrived between a miss and a new run is not
//!   fetched again: its waiters are told to look (`None`);
//! - a run never depends on its waiters: they may go away, it ends by itself, within
//!   `read_timeout` of the last byte that arrived; when it ends, however, no waiter is left;
//! - memory: one block for each run, `DEMAND_MAX + AHEAD_MAX` runs, and what waiters hold.
//!
//! `Flights::runs` is a leaf lock.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::kept::Kept;
use super::{ReadError, blocking};
use crate::cache::BLOCK;
use crate::store::speed::Speed;
use crate::store::{Download, ObjectStore, StoreError};
use crate::types::{ObjectId, ObjectMeta};

/// Runs that somebody waits for.
const DEMAND_MAX: usize = 32;
/// Runs ahead of readers.
const AHEAD_MAX: usize = 16;
/// A body that breaks without having brought a block is asked for again so often.
const BROKEN_MAX: u32 = 2;

/// What a waiter gets: the block, or `None`: it is kept, look again.
pub(super) type Arrival = Result<Option<Bytes>, ReadError>;

/// Blocks of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) object: ObjectId,
    pub(super) blocks: Range<u64>,
}

/// All runs.
#[derive(Debug)]
pub(super) struct Flights {
    store: Arc<dyn ObjectStore>,
    kept: Arc<Kept>,
    timeout: Duration,
    demand: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    runs: Mutex<Runs>,
    pub(super) heard: Heard,
    pub(super) link: LinkDown,
    pub(super) speed: Speed,
}

/// Is told of an object's metadata.
pub type Tell = dyn Fn(&ObjectMeta) + Send + Sync;

/// Who is told of the metadata that a GET brings along.
#[derive(Default)]
pub(super) struct Heard(pub(super) OnceLock<Arc<Tell>>);

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Heard({})", self.0.get().is_some())
    }
}

/// Whether the link is known to be down.
pub type IsDown = dyn Fn() -> bool + Send + Sync;

/// Who knows that the link is down.
#[derive(Default)]
pub(super) struct LinkDown(pub(super) OnceLock<Arc<IsDown>>);

impl LinkDown {
    fn is_known(&self) -> bool {
        self.0.get().is_some_and(|is_down| is_down())
    }
}

impl fmt::Debug for LinkDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkDown({})", self.is_known())
    }
}

#[derive(Debug, Default)]
struct Runs {
    last: u64,
    of: HashMap<ObjectId, Vec<Run>>,
}

#[derive(Debug)]
struct Run {
    id: u64,
    /// The block it fetches next, and where it ends.
    left: Range<u64>,
    waiters: Vec<(u64, oneshot::Sender<Arrival>)>,
}

/// The part of a run that its task owns; without it, no waiter is left.
#[derive(Debug)]
struct Flight {
    flights: Arc<Flights>,
    object: ObjectId,
    id: u64,
    forced: bool,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.remove(self);
    }
}

/// How a GET ended early.
enum Broken {
    /// There was no answer, or a refusal.
    Refused(StoreError),
    /// The body broke.
    Body(StoreError),
}

impl Flights {
    pub(super) fn new(store: Arc<dyn ObjectStore>, kept: Arc<Kept>, timeout: Duration) -> Self {
        Self {
            store,
            kept,
            timeout,
            demand: Arc::new(Semaphore::new(DEMAND_MAX)),
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
            runs: Mutex::default(),
            heard: Heard::default(),
            link: LinkDown::default(),
            speed: Speed::default(),
        }
    }

    /// Waits for `blocks` (ascending) of a version: for those on their way with who asked for
    /// them, for the others by runs of their own, which go on into `ahead` where it continues.
    /// `forced`: fetches even what is said to be kept.
    pub(super) fn join(
        self: &Arc<Self>,
        object: &ObjectId,
        blocks: &[u64],
        ahead: Option<&Span>,
        forced: bool,
    ) -> Vec<oneshot::Receiver<Arrival>> {
        let mut waits = Vec::with_capacity(blocks.len());
        let mut started = Vec::new();
        {
            let mut runs = self.runs.lock();
            for (i, block) in blocks.iter().enumerate() {
                let (tx, rx) = oneshot::channel();
                waits.push(rx);
                if let Some(run) = runs.covering(object, *block).filter(|_| !forced) {
                    run.waiters.push((*block, tx));
                    continue;
                }
                let mut end = block + 1 + if forced { 0 } else { consecutive(&blocks[i..]) };
                if let Some(more) = ahead.filter(|more| more.continues(object, end)) {
                    end = more.blocks.end;
                }
                let id = runs.start(object, *block..end, Some((*block, tx)));
                started.push(id);
            }
        }
        for id in started {
            self.launch(object, id, forced, None);
        }
        waits
    }

    /// Fetches a span in the background, but for what is on its way. `permit` is held until it
    /// is there. Not now if there is too much to do already.
    pub(super) fn ahead(self: &Arc<Self>, span: &Span, permit: &Arc<OwnedSemaphorePermit>) {
        let mut at = span.blocks.start;
        while at < span.blocks.end {
            let Ok(slot) = Arc::clone(&self.ahead).try_acquire_owned() else {
                return;
            };
            let id = {
                let mut runs = self.runs.lock();
                while let Some(run) = runs.covering(&span.object, at) {
                    at = run.left.end;
                }
                if at >= span.blocks.end {
                    return;
                }
                let id = runs.start(&span.object, at..span.blocks.end, None);
                at = runs.end_of(&span.object, id);
                id
            };
            self.launch(&span.object, id, false, Some((slot, Arc::clone(permit))));
        }
    }

    fn launch(
        self: &Arc<Self>,
        object: &ObjectId,
        id: u64,
        forced: bool,
        ahead: Option<(OwnedSemaphorePermit, Arc<OwnedSemaphorePermit>)>,
    ) {
        let flight = Flight {
            flights: Arc::clone(self),
            object: object.clone(),
            id,
            forced,
        };
        let demand = ahead.is_none().then(|| Arc::clone(&self.demand));
        let timeout = self.timeout;
        tokio::spawn(async move {
            let _ahead = ahead;
            let _demand = match demand.map(Semaphore::acquire_owned) {
                Some(slot) => match tokio::time::timeout(timeout, slot).await {
                    Ok(slot) => slot.ok(),
                    Err(_) => return flight.fail(&ReadError::Store(StoreError::Deadline)),
                },
                None => None,
            };
            flight.fly().await;
        });
    }

    /// Runs that have not ended.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.runs.lock().of.values().map(Vec::len).sum()
    }

    /// Blocks that are waited for.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let runs = self.runs.lock();
        let all = runs.of.values().flatten();
        all.map(|run| run.waiters.len()).sum()
    }

    fn remove(&self, flight: &Flight) {
        let mut runs = self.runs.lock();
        if let Some(all) = runs.of.get_mut(&flight.object) {
            all.retain(|run| run.id != flight.id);
            if all.is_empty() {
                runs.of.remove(&flight.object);
            }
        }
    }
}

impl Span {
    fn continues(&self, object: &ObjectId, end: u64) -> bool {
        self.object == *object && self.blocks.start <= end && self.blocks.end > end
    }
}

/// How many of `blocks` continue the first.
fn consecutive(blocks: &[u64]) -> u64 {
    blocks
        .windows(2)
        .take_while(|two| two[1] == two[0] + 1)
        .count() as u64
}

impl Runs {
    fn covering(&mut self, object: &ObjectId, block: u64) -> Option<&mut Run> {
        let all = self.of.get_mut(object)?;
        all.iter_mut().find(|run| run.left.contains(&block))
    }

    /// A new run, up to where the next one begins.
    fn start(
        &mut self,
        object: &ObjectId,
        left: Range<u64>,
        waiter: Option<(u64, oneshot::Sender<Arrival>)>,
    ) -> u64 {
        self.last += 1;
        let all = self.of.entry(object.clone()).or_default();
        let later = all.iter().map(|run| run.left.start);
        let end = later
            .filter(|start| *start > left.start)
            .fold(left.end, u64::min);
        all.push(Run {
            id: self.last,
            left: left.start..end,
            waiters: waiter.into_iter().collect(),
        });
        self.last
    }

    fn by_id(&mut self, object: &ObjectId, id: u64) -> Option<&mut Run> {
        self.of.get_mut(object)?.iter_mut().find(|run| run.id == id)
    }

    fn end_of(&mut self, object: &ObjectId, id: u64) -> u64 {
        self.by_id(object, id).map_or(u64::MAX, |run| run.left.end)
    }
}

impl Flight {
    async fn fly(self) {
        let _pin = self.flights.kept.cache.pin(&self.object);
        if let Err(error) = self.fetch_all().await {
            self.fail(&error);
        }
    }

    async fn fetch_all(&self) -> Result<(), ReadError> {
        loop {
            let left = self.left();
            if left.is_empty() {
                return Ok(());
            }
            let missing = self.missing(left).await?;
            self.passed(missing.start, None);
            self.fetch(missing).await?;
        }
    }

    async fn missing(&self, left: Range<u64>) -> Result<Range<u64>, ReadError> {
        if self.forced {
            return Ok(left);
        }
        let (kept, object) = (Arc::clone(&self.flights.kept), self.object.clone());
        blocking(move || kept.first_missing(&object, left)).await
    }

    /// Fetches `blocks`, asking again where a body breaks. What the object does not have ends
    /// the run.
    async fn fetch(&self, blocks: Range<u64>) -> Result<(), ReadError> {
        let mut at = blocks.start;
        let mut broken = 0;
        while at < blocks.end {
            let before = at;
            match self.stream(&mut at, blocks.end).await {
                Ok(()) => return Ok(()),
                Err(Broken::Body(error)) if error.is_transient() && broken < BROKEN_MAX => {
                    broken = if at > before { 0 } else { broken + 1 };
                }
                Err(Broken::Body(error) | Broken::Refused(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// One GET. Moves `at` on with each block that arrived.
    async fn stream(&self, at: &mut u64, end: u64) -> Result<(), Broken> {
        if self.flights.link.is_known() {
            let text = "the link is down".into();
            return Err(Broken::Refused(StoreError::Link(text)));
        }
        let _busy = self.flights.speed.busy();
        let asked = *at * BLOCK..end * BLOCK;
        let store = &self.flights.store;
        let (key, etag) = (&self.object.key, &self.object.etag);
        let get = store.get(key, Some(asked.clone()), Some(etag));
        let answer = tokio::time::timeout(self.flights.timeout, get).await;
        let mut download = answer
            .unwrap_or(Err(StoreError::Deadline))
            .map_err(Broken::Refused)?;
        check(&download, &self.object, &asked).map_err(Broken::Refused)?;
        let size = download.meta.size;
        if let Some(tell) = self.flights.heard.0.get() {
            tell(&download.meta);
        }
        let mut block = BytesMut::new();
        while let Some(mut piece) = self.next(&mut download).await.map_err(Broken::Body)? {
            while !piece.is_empty() {
                let length = (size.min(end * BLOCK))
                    .saturating_sub(*at * BLOCK)
                    .min(BLOCK);
                let length = usize::try_from(length).unwrap_or(0);
                if length == 0 {
                    let text = "more bytes than were asked for".into();
                    return Err(Broken::Refused(StoreError::BadAnswer(text)));
                }
                block.reserve(length - block.len());
                block.extend_from_slice(&piece.split_to(piece.len().min(length - block.len())));
                if block.len() == length {
                    self.arrived(*at, size, block.split().freeze())
                        .await
                        .map_err(Broken::Refused)?;
                    *at += 1;
                }
            }
        }
        if (*at * BLOCK).min(size) < download.range.end {
            let text = "fewer bytes than were announced".into();
            return Err(Broken::Body(StoreError::BadAnswer(text)));
        }
        if *at < end {
            // What is left lies behind the end of the object.
            self.fail(&StoreError::BadAnswer("the object is shorter than was known".into()).into());
        }
        Ok(())
    }

    async fn next(&self, download: &mut Download) -> Result<Option<Bytes>, StoreError> {
        let next = tokio::time::timeout(self.flights.timeout, download.body.next()).await;
        let next = next.map_err(|_| StoreError::Deadline)?.transpose()?;
        if let Some(bytes) = &next {
            self.flights.speed.carried(bytes.len() as u64);
        }
        Ok(next)
    }

    async fn arrived(&self, block: u64, size: u64, bytes: Bytes) -> Result<(), StoreError> {
        let kept = Arc::clone(&self.flights.kept);
        let (object, copy) = (self.object.clone(), bytes.clone());
        let put = blocking(move || kept.put(&object, size, block, &copy));
        put.await.map_err(|_| StoreError::Disk(libc::EIO))?;
        self.passed(block + 1, Some((block, bytes)));
        Ok(())
    }

    fn left(&self) -> Range<u64> {
        let mut runs = self.flights.runs.lock();
        let run = runs.by_id(&self.object, self.id);
        run.map_or(0..0, |run| run.left.clone())
    }

    /// All before `next` are kept: their waiters are served.
    fn passed(&self, next: u64, bytes: Option<(u64, Bytes)>) {
        let served: Vec<_> = {
            let mut runs = self.flights.runs.lock();
            let Some(run) = runs.by_id(&self.object, self.id) else {
                return;
            };
            run.left.start = next.min(run.left.end);
            run.waiters
                .extract_if(.., |(block, _)| *block < next)
                .collect()
        };
        for (block, waiter) in served {
            let own = bytes.as_ref().filter(|(arrived, _)| *arrived == block);
            // Who went away needs nothing.
            drop(waiter.send(Ok(own.map(|(_, bytes)| bytes.clone()))));
        }
    }

    /// The run is over: nobody joins it any more, and all who wait get the error.
    fn fail(&self, error: &ReadError) {
        let waiters = {
            let mut runs = self.flights.runs.lock();
            runs.by_id(&self.object, self.id).map(|run| {
                run.left.start = run.left.end;
                std::mem::take(&mut run.waiters)
            })
        };
        for (_, waiter) in waiters.into_iter().flatten() {
            drop(waiter.send(Err(error.clone())));
        }
    }
}

/// Whether the answer is of this version and of the asked range.
fn check(download: &Download, object: &ObjectId, asked: &Range<u64>) -> Result<(), StoreError> {
    if download.meta.id.etag != object.etag {
        return Err(StoreError::Stale);
    }
    let expected = asked.start..asked.end.min(download.meta.size);
    if download.range != expected || expected.is_empty() {
        let text = format!("{:?} instead of {expected:?}", download.range);
        return Err(StoreError::BadAnswer(text));
    }
    Ok(())
}
