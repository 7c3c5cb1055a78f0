//! The bytes of any extent: from the spool, from the cache, or fetched once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::store::{ObjectStore, StoreError};
use crate::types::{Extents, ObjectId};

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// A read that needs the network fails after this long without a byte.
    pub read_timeout: Duration,
    /// At most so many bytes ahead of a sequential reader.
    pub readahead_max: u64,
    /// The cache's folder and cap.
    pub cache_dir: std::path::PathBuf,
    /// Hard cap of the cache in bytes.
    pub cache_max: u64,
    /// So many bytes stay free on the file system.
    pub disk_reserve: u64,
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

/// How one handle has read so far: decides what to fetch ahead.
#[derive(Debug, Default)]
pub struct Window(parking_lot::Mutex<u64>);

/// Reads.
#[derive(Debug)]
pub struct Reader;

impl Reader {
    /// Opens the cache (its scan goes on in the background) and answers a reader over it.
    pub fn new(
        _config: Config,
        _store: Arc<dyn ObjectStore>,
        _spool: Arc<crate::log::Spool>,
    ) -> Arc<Self> {
        todo!()
    }

    /// `size` bytes from `offset` of a file with these extents and length; fewer at its end.
    ///
    /// # Errors
    /// See `ReadError`.
    pub async fn read_at(
        &self,
        _extents: &Extents,
        _len: u64,
        _offset: u64,
        _size: usize,
        _window: &Window,
    ) -> Result<Bytes, ReadError> {
        todo!()
    }

    /// What was just acknowledged as `object` enters the cache: a data file by hard link where its
    /// bytes stand at their own offsets, the base's blocks by changing hands, the rest by a copy.
    /// Never fails the caller: what cannot be kept is simply not cached.
    pub async fn adopt(&self, _extents: &Extents, _object: &ObjectId, _size: u64) {
        todo!()
    }

    /// Whether `start..end` of these extents can be read without the network.
    pub fn is_local(&self, _extents: &Extents, _start: u64, _end: u64) -> bool {
        todo!()
    }
}
