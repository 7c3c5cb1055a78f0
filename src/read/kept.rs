//! Where fetched blocks are kept: the cache on disk, or, for those it could not take, a little
//! memory (`RECENT_MAX` blocks), so that reading works the same when the disk is full.
//!
//! All calls block on the disk.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::cache::{BLOCK, Cache};
use crate::types::ObjectId;

/// 8 MiB.
const RECENT_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The cache, and beside it what it could not take.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) cache: Arc<Cache>,
    /// Leaf lock.
    recent: Mutex<LruCache<(ObjectId, u64), Bytes>>,
    stores: AtomicBool,
}

impl Kept {
    pub(super) fn new(cache: Arc<Cache>) -> Self {
        Self {
            cache,
            recent: Mutex::new(LruCache::new(RECENT_MAX)),
            stores: AtomicBool::new(true),
        }
    }

    /// Whether the cache took the last block.
    pub(super) fn stores(&self) -> bool {
        self.stores.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self, object: &ObjectId, block: u64) -> Option<Bytes> {
        let found = self.recent(object, block);
        found.or_else(|| self.cache.get(object, block))
    }

    pub(super) fn put(&self, object: &ObjectId, size: u64, block: u64, bytes: &Bytes) {
        let stored = self.cache.put(object, size, block, bytes);
        self.stores.store(stored, Ordering::Relaxed);
        if !stored {
            let key = (object.clone(), block);
            self.recent.lock().put(key, bytes.clone());
        }
    }

    /// The first run of blocks that are not there; empty at the end if all are.
    pub(super) fn first_missing(&self, object: &ObjectId, blocks: Range<u64>) -> Range<u64> {
        let end = blocks.end;
        for run in self.cache.missing(object, blocks) {
            let is_recent = |block: &u64| self.recent(object, *block).is_some();
            let Some(first) = run.clone().find(|block| !is_recent(block)) else {
                continue;
            };
            let last = (first..run.end).find(is_recent).unwrap_or(run.end);
            return first..last;
        }
        end..end
    }

    /// Whether bytes `range` of a version are there.
    pub(super) fn has(&self, object: &ObjectId, range: Range<u64>) -> bool {
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        self.cache.has(object, range)
            || (blocks.clone().count() <= RECENT_MAX.get()
                && self.first_missing(object, blocks).is_empty())
    }

    fn recent(&self, object: &ObjectId, block: u64) -> Option<Bytes> {
        let mut recent = self.recent.lock();
        if recent.is_empty() {
            return None;
        }
        recent.get(&(object.clone(), block)).cloned()
    }
}
