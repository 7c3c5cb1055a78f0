//! The bytes of any extent: from the spool, from the cache, or fetched once.
//!
//! Invariants:
//! - bytes of a version are only ever those of that version (`If-Match`, and the answer's ETag is
//!   looked at): a version that is gone is `Stale`, never another one's bytes;
//! - a block is fetched at most once while there is room to keep it: by one run for all who want
//!   it (`flight`), ahead of who reads in sequence (`window`), not at all if it was written here
//!   (`adopt`);
//! - no read waits longer than `read_timeout` for the next byte; what needs no network does not
//!   wait for it;
//! - memory: `kept` (8 MiB, only if the disk takes nothing), one block for each run in flight
//!   (`flight`), and what the callers asked for.
//!
//! A read is one hop to the blocking pool where all is local; else a second part waits for the
//! blocks that were missing.

mod adopt;
mod flight;
mod kept;
mod window;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::cache::{self, BLOCK, Cache, Pin};
use crate::log::Spool;
use crate::store::{ObjectStore, StoreError};
use crate::types::{Extent, Extents, FileNo, ObjectId, Source};
use flight::{Arrival, Flights, Span};
pub use flight::{IsDown, Tell};
use kept::Kept;
use window::{History, earned};

/// Runs ahead of one handle.
const RUNS_AHEAD: usize = 2;
/// So much is fetched ahead while nothing can be kept on disk.
const AHEAD_IN_MEMORY: u64 = 1 << 20;
/// A handle holds so many versions: those it read last. (More than one only where a file is made of
/// pieces of several.)
const PINS_MAX: usize = 8;
/// So often a block that was said to be kept is looked for before it is fetched regardless.
const LOOKS_MAX: usize = 3;

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// A read that needs the network fails after this long without a byte.
    pub read_timeout: Duration,
    /// At most so many bytes ahead of a sequential reader; 0: what is asked for, and no more.
    pub readahead_max: u64,
    /// The cache's folder and cap.
    pub cache_dir: PathBuf,
    /// Hard cap of the cache in bytes.
    pub cache_max: u64,
    /// So many bytes stay free on the file system.
    pub disk_reserve: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            read_timeout: Duration::from_secs(30),
            readahead_max: 4 << 20,
            cache_dir: "/var/cache/kryptonfs".into(),
            cache_max: 1 << 30,
            disk_reserve: 128 << 20,
        }
    }
}

/// Why bytes cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The version is gone from the bucket and not in the cache: `ESTALE`.
    Stale,
    /// Not reachable in time: `EIO`.
    Store(StoreError),
    /// The local disk failed: errno.
    Disk(i32),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Stale | StoreError::NotFound => Self::Stale,
            other => Self::Store(other),
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale => write!(f, "this version is gone from the bucket"),
            Self::Store(error) => error.fmt(f),
            Self::Disk(errno) => write!(f, "local disk: {}", io::Error::from_raw_os_error(*errno)),
        }
    }
}

impl std::error::Error for ReadError {}

/// How one handle has read so far: decides what to fetch ahead, and holds what it reads against
/// eviction.
#[derive(Debug)]
pub struct Window {
    /// Leaf lock.
    history: Mutex<History>,
    /// One permit for each run ahead.
    runs: Arc<Semaphore>,
    pins: Arc<Pins>,
}

/// What one handle has read last, held against eviction as long as the handle lives.
#[derive(Debug, Default)]
struct Pins(Mutex<VecDeque<Pin>>);

impl Pins {
    /// Holds the versions that `pieces` are made of.
    fn hold(&self, cache: &Arc<Cache>, pieces: &[Result<Extent, Range<u64>>]) {
        let mut pins = self.0.lock();
        for piece in pieces.iter().flatten() {
            let Source::Remote { object, .. } = &piece.from else {
                continue;
            };
            if pins.iter().any(|pin| pin.is_of(object)) {
                continue;
            }
            if pins.len() == PINS_MAX {
                pins.pop_front();
            }
            pins.push_back(cache.pin(object));
        }
    }
}

/// A version that is held against eviction while this lives.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "it works by being there")] Pin);

impl Default for Window {
    fn default() -> Self {
        Self {
            history: Mutex::default(),
            runs: Arc::new(Semaphore::new(RUNS_AHEAD)),
            pins: Arc::default(),
        }
    }
}

impl Window {
    /// For reads of the same handle that say nothing of what it will read next.
    #[must_use]
    pub fn aside(&self) -> Self {
        Self {
            pins: Arc::clone(&self.pins),
            ..Self::default()
        }
    }

    /// What to fetch ahead, with the permit for it.
    fn on_read(
        &self,
        read: &Range<u64>,
        len: u64,
        max: u64,
    ) -> Option<(Range<u64>, OwnedSemaphorePermit)> {
        let mut history = self.history.lock();
        let range = history.on_read(read.start, read.end - read.start, len, max);
        if range.is_empty() {
            return None;
        }
        let permit = Arc::clone(&self.runs).try_acquire_owned().ok()?;
        history.asked(range.end);
        Some((range, permit))
    }
}

/// What to fetch ahead, and the permit that is held until it is there.
#[derive(Debug, Default)]
struct Ahead {
    spans: Vec<Span>,
    permit: Option<Arc<OwnedSemaphorePermit>>,
}

type Waiting = oneshot::Receiver<Arrival>;

/// The spool, as far as reading needs it.
trait LocalBytes: Send + Sync + fmt::Debug {
    /// `len` bytes of a data file or segment. Blocking.
    fn read_at(&self, file: FileNo, offset: u64, len: usize) -> io::Result<Bytes>;
    /// Where a data file is.
    fn path(&self, file: FileNo) -> PathBuf;
}

impl LocalBytes for Spool {
    fn read_at(&self, file: FileNo, offset: u64, len: usize) -> io::Result<Bytes> {
        Self::read_at(self, file, offset, len)
    }
    fn path(&self, file: FileNo) -> PathBuf {
        Self::path(self, file)
    }
}

/// Reads.
#[derive(Debug)]
pub struct Reader {
    readahead_max: u64,
    local: Arc<dyn LocalBytes>,
    kept: Arc<Kept>,
    flights: Arc<Flights>,
}

/// A part of a read that has to be fetched: `bytes` of `block`, to be put `at` in the answer.
#[derive(Clone, Debug)]
struct Missing {
    object: ObjectId,
    block: u64,
    bytes: Range<usize>,
    at: usize,
}

impl Reader {
    /// Opens the cache (its scan goes on in the background) and answers a reader over it.
    #[must_use]
    pub fn new(config: Config, store: Arc<dyn ObjectStore>, spool: Arc<Spool>) -> Arc<Self> {
        Self::over(config, store, spool)
    }

    fn over(config: Config, store: Arc<dyn ObjectStore>, local: Arc<dyn LocalBytes>) -> Arc<Self> {
        let cache = Cache::open(&cache::Config {
            dir: config.cache_dir,
            max: config.cache_max,
            reserve: config.disk_reserve,
        });
        let kept = Arc::new(Kept::new(cache));
        let flights = Flights::new(store, Arc::clone(&kept), config.read_timeout);
        Arc::new(Self {
            readahead_max: config.readahead_max,
            local,
            kept,
            flights: Arc::new(flights),
        })
    }

    /// `size` bytes from `offset` of a file with these extents and length; fewer at its end.
    ///
    /// # Errors
    /// See `ReadError`.
    pub async fn read_at(
        &self,
        extents: &Extents,
        len: u64,
        offset: u64,
        size: usize,
        window: &Window,
    ) -> Result<Bytes, ReadError> {
        let range = offset..len.min(offset.saturating_add(size as u64));
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let pieces = extents.cover(range.start, range.end);
        let (local, kept) = (Arc::clone(&self.local), Arc::clone(&self.kept));
        let pins = Arc::clone(&window.pins);
        let filled = blocking(move || {
            pins.hold(&kept.cache, &pieces);
            let look = |object: &ObjectId, block| kept.get(object, block);
            fill(&*local, &look, &pieces, range.start)
        });
        let (mut buffer, missing) = filled.await??;
        let ahead = self.ahead(
            extents,
            len,
            &(offset..offset + buffer.len() as u64),
            window,
        );
        let waits = self.join(&missing, &ahead, false);
        self.start(&ahead);
        let missing = await_blocks(missing, waits, &mut buffer).await?;
        self.look_again(missing, &mut buffer).await?;
        Ok(buffer.freeze())
    }

    /// Has `tell` called with the metadata that each GET brings along. The first caller stays.
    pub fn tell(&self, tell: Arc<Tell>) {
        if self.flights.heard.0.set(tell).is_err() {
            tracing::debug!("metadata of downloads is told to somebody else already");
        }
    }

    /// Has `is_down` asked before each request: where it says so, a cold read fails at once. The
    /// first caller stays.
    pub fn ask_link(&self, is_down: Arc<IsDown>) {
        if self.flights.link.0.set(is_down).is_err() {
            tracing::debug!("the link is asked for by somebody else already");
        }
    }

    /// Bytes in the cache, and its cap.
    #[must_use]
    pub fn cache_usage(&self) -> (u64, u64) {
        self.kept.cache.usage()
    }

    /// Whether `start..end` of these extents can be read without the network. Looks at the disk.
    #[must_use]
    pub fn is_local(&self, extents: &Extents, start: u64, end: u64) -> bool {
        let pieces = extents.cover(start, end);
        pieces.into_iter().flatten().all(|piece| match &piece.from {
            Source::Local { .. } => true,
            Source::Remote { object, offset } => self.kept.has(object, *offset..offset + piece.len),
        })
    }

    /// Holds a version against eviction, also if nothing of it is here yet.
    #[must_use]
    pub fn hold(&self, object: &ObjectId) -> Hold {
        Hold(self.kept.cache.pin(object))
    }

    fn ahead(&self, extents: &Extents, len: u64, read: &Range<u64>, window: &Window) -> Ahead {
        let max = earned(self.readahead_max, self.flights.speed.rate());
        let max = if self.kept.stores() {
            max
        } else {
            max.min(AHEAD_IN_MEMORY)
        };
        let Some((range, permit)) = window.on_read(read, len, max) else {
            return Ahead::default();
        };
        let pieces = extents.cover(range.start, range.end);
        let spans = pieces.into_iter().flatten().filter_map(|piece| {
            let Source::Remote { object, offset } = piece.from else {
                return None;
            };
            // The block in which this read ended was asked for by it.
            let first = if piece.at == range.start {
                offset.div_ceil(BLOCK)
            } else {
                offset / BLOCK
            };
            let blocks = first..(offset + piece.len).div_ceil(BLOCK);
            (!blocks.is_empty()).then_some(Span { object, blocks })
        });
        Ahead {
            spans: spans.collect(),
            permit: Some(Arc::new(permit)),
        }
    }

    /// Asks for what is missing: a receiver for each.
    fn join(&self, missing: &[Missing], ahead: &Ahead, forced: bool) -> Vec<Waiting> {
        let in_order = |a: &Missing, b: &Missing| a.object == b.object && a.block <= b.block;
        let groups = missing.chunk_by(in_order).flat_map(|group| {
            let object = &group[0].object;
            let blocks: Vec<u64> = group.iter().map(|one| one.block).collect();
            let more = ahead.spans.iter().find(|span| span.object == *object);
            self.flights.join(object, &blocks, more, forced)
        });
        groups.collect()
    }

    fn start(&self, ahead: &Ahead) {
        for (span, permit) in ahead.spans.iter().zip(ahead.permit.iter().cycle()) {
            self.flights.ahead(span, permit);
        }
    }

    /// For blocks that arrived while nobody was told: they are kept now, or fetched again.
    async fn look_again(
        &self,
        mut missing: Vec<Missing>,
        buffer: &mut BytesMut,
    ) -> Result<(), ReadError> {
        for look in 1..=LOOKS_MAX {
            if missing.is_empty() {
                return Ok(());
            }
            let kept = Arc::clone(&self.kept);
            let looked = blocking(move || {
                let found = |one: Missing| (kept.get(&one.object, one.block), one);
                missing.into_iter().map(found).collect::<Vec<_>>()
            });
            let mut still = Vec::new();
            for (found, one) in looked.await? {
                match found {
                    Some(bytes) => one.place(&bytes, buffer)?,
                    None => still.push(one),
                }
            }
            let waits = self.join(&still, &Ahead::default(), look == LOOKS_MAX);
            missing = await_blocks(still, waits, buffer).await?;
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(ReadError::Disk(libc::EIO))
    }
}

impl Missing {
    fn place(&self, block: &[u8], buffer: &mut [u8]) -> Result<(), ReadError> {
        let Some(bytes) = block.get(self.bytes.clone()) else {
            let text = "the object is shorter than was known".into();
            return Err(StoreError::BadAnswer(text).into());
        };
        buffer[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// Puts what arrives where it belongs; answers what has to be looked for again.
async fn await_blocks(
    missing: Vec<Missing>,
    waits: Vec<Waiting>,
    buffer: &mut BytesMut,
) -> Result<Vec<Missing>, ReadError> {
    let mut again = Vec::new();
    for (one, wait) in missing.into_iter().zip(waits) {
        match wait.await {
            Ok(Ok(Some(bytes))) => one.place(&bytes, buffer)?,
            Ok(Err(error)) => return Err(error),
            Ok(Ok(None)) | Err(_) => again.push(one),
        }
    }
    Ok(again)
}

/// The bytes of `pieces`, the first of which begins at `start`, and what of them is missing.
/// Blocking.
fn fill(
    local: &dyn LocalBytes,
    look: &dyn Fn(&ObjectId, u64) -> Option<Bytes>,
    pieces: &[Result<Extent, Range<u64>>],
    start: u64,
) -> Result<(BytesMut, Vec<Missing>), ReadError> {
    let end = pieces.last().map_or(start, |last| match last {
        Ok(piece) => piece.end(),
        Err(gap) => gap.end,
    });
    let mut buffer = BytesMut::zeroed(to_usize(end - start)?);
    let mut missing = Vec::new();
    for piece in pieces.iter().flatten() {
        let (at, len) = (to_usize(piece.at - start)?, to_usize(piece.len)?);
        match &piece.from {
            Source::Local { file, offset } => {
                let bytes = local.read_at(*file, *offset, len)?;
                if bytes.len() != len {
                    return Err(ReadError::Disk(libc::EIO));
                }
                buffer[at..at + len].copy_from_slice(&bytes);
            }
            Source::Remote { object, offset } => {
                for one in parts(object, *offset, piece.len, at) {
                    match look(object, one.block) {
                        Some(bytes) => one.place(&bytes, &mut buffer)?,
                        None => missing.push(one),
                    }
                }
            }
        }
    }
    Ok((buffer, missing))
}

/// `len` bytes of a version from `offset` on, block by block.
fn parts(
    object: &ObjectId,
    offset: u64,
    len: u64,
    at: usize,
) -> impl Iterator<Item = Missing> + '_ {
    let end = offset + len;
    (offset / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let first = block * BLOCK;
        let (from, to) = (offset.max(first), end.min(first + BLOCK));
        // Within a block and within a buffer: both fit.
        let small = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Missing {
            object: object.clone(),
            block,
            bytes: small(from - first)..small(to - first),
            at: at + small(from - offset),
        }
    })
}

fn to_usize(n: u64) -> Result<usize, ReadError> {
    usize::try_from(n).map_err(|_| ReadError::Disk(libc::EINVAL))
}

/// Runs `work` on the blocking pool. A panic there is an I/O error here.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReadError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ReadError::Disk(libc::EIO))
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
