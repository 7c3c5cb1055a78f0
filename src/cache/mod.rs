//! Blocks of versions on disk: losing them costs time, never data.
//!
//! Invariants:
//! - a block is keyed by version (`ObjectId`), so it may be useless, never wrong; what is not
//!   whole on disk (`file`) is a miss;
//! - nothing here fails a caller: a folder that is absent, read-only, full, foreign or in use by
//!   another daemon makes everything a miss, said once in the log;
//! - the files take at most `max` bytes of disk, and `reserve` stays free on the file system;
//!   above either the version used longest ago goes, what was used once first (`evict`), never
//!   one that is pinned;
//! - no file that has a second name elsewhere (a spool file adopted by hard link) is written to.
//!
//! `DIR/blocks/` (0700) holds the files of `file`, `N.tmp` while one is made, and `lock`, held
//! as long as this process lives. The index is rebuilt from it at open (`scan`); until that is
//! done lookups find files by their name, and new blocks may take an eighth of `max`.
//!
//! All calls block on the disk: they belong on the blocking pool. The lock (a leaf) is held while
//! files are opened, named and unnamed, never while blocks are read, written or copied.

mod evict;
mod file;
mod scan;
mod take;

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use lru::LruCache;
use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;

use crate::seeded::{self, Bug};
use crate::types::ObjectId;
use evict::{Index, VERSIONS_MAX};
pub use take::Hands;

use file::{Name, Version, block_len, blocks_of, private};

/// The fixed piece of a version that is fetched, kept and checked as one.
pub const BLOCK: u64 = 32 * 1024;

/// So many versions are kept open (two descriptors each).
const OPEN_MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// What a block may take beside its own bytes: a new index file, a node of the file system.
const OVERHEAD: u64 = 8192;
/// The free space is asked for once in so many writes.
const SAMPLE_EVERY: u32 = 64;
/// So many versions go for one write before it is given up, where the disk is full for others.
const EVICT_MAX: usize = 16;
/// A folder of at most so many versions is looked at before `open` returns.
const SCAN_AT_ONCE: usize = 1024;

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder. One mount, one folder.
    pub dir: PathBuf,
    /// Hard cap in bytes of disk.
    pub max: u64,
    /// So many bytes stay free on the file system.
    pub reserve: u64,
}

/// The cache.
#[derive(Debug)]
pub struct Cache {
    /// `None`: it cannot be used, everything is a miss.
    on: Option<Folder>,
    warned: AtomicBool,
}

#[derive(Debug)]
struct Folder {
    dir: PathBuf,
    max: u64,
    reserve: u64,
    temps: AtomicU64,
    state: Mutex<State>,
    _lock: Flock<fs::File>,
}

/// Guarded by `Folder::state`.
#[derive(Debug)]
struct State {
    index: Index,
    /// A subset of what the index has, and what it does not know yet.
    open: LruCache<Name, Arc<Version>>,
    /// Whether the index knows all that was there at open.
    scanned: bool,
    free: u64,
    /// Writes until the free space is asked for again.
    sample_in: u32,
}

/// Holds a version against eviction.
#[derive(Debug)]
pub struct Pin {
    cache: Arc<Cache>,
    name: Name,
}

impl Pin {
    /// Whether it holds this version.
    #[must_use]
    pub fn is_of(&self, object: &ObjectId) -> bool {
        self.name == Name::of(object)
    }
}

/// A version as it was when it was taken hold of; readable also when its name is gone.
#[derive(Debug)]
pub struct Held(Arc<Version>);

impl Held {
    /// A block of it, if it is there and whole.
    #[must_use]
    pub fn get(&self, block: u64) -> Option<Bytes> {
        self.0.get(block)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(on) = &self.cache.on {
            on.state.lock().index.unpin(self.name);
        }
    }
}

impl Cache {
    /// Opens the folder; a large one goes on being looked at in the background.
    #[must_use]
    pub fn open(config: &Config) -> Arc<Self> {
        let opened = Folder::open(config);
        let (on, names) = match opened {
            Ok((folder, names)) => (Some(folder), names),
            Err(error) => {
                tracing::warn!(dir = %config.dir.display(), %error, "no cache: blocks are not kept");
                (None, Vec::new())
            }
        };
        let cache = Arc::new(Self {
            on,
            warned: AtomicBool::new(false),
        });
        if names.len() <= SCAN_AT_ONCE {
            cache.scan(&names);
        } else {
            cache.scan_in_background(names);
        }
        cache
    }

    fn scan(&self, names: &[Name]) {
        if let Some(on) = &self.on {
            let found = names.iter().map(|name| scan::look(&on.dir, *name));
            on.learn(found.collect());
        }
    }

    fn scan_in_background(self: &Arc<Self>, names: Vec<Name>) {
        let cache = Arc::downgrade(self);
        let work = move || {
            let Some(dir) = cache
                .upgrade()
                .and_then(|all| all.on.as_ref().map(|on| on.dir.clone()))
            else {
                return;
            };
            let mut found = Vec::with_capacity(names.len());
            for name in names {
                if cache.strong_count() == 0 {
                    return;
                }
                found.push(scan::look(&dir, name));
            }
            if let Some(on) = cache.upgrade().as_ref().and_then(|all| all.on.as_ref()) {
                on.learn(found);
            }
        };
        let thread = std::thread::Builder::new().name("cache-scan".into());
        if let Err(error) = thread.spawn(work) {
            tracing::warn!(%error, "the cache cannot be scanned: most of it stays unused");
        }
    }

    /// A block of a version, if it is there and whole.
    #[must_use]
    pub fn get(&self, object: &ObjectId, block: u64) -> Option<Bytes> {
        self.hold(object)?.get(block)
    }

    /// Takes hold of a version; it counts as used now.
    #[must_use]
    pub fn hold(&self, object: &ObjectId) -> Option<Held> {
        let on = self.on.as_ref()?;
        let found = on.find(&mut on.state.lock(), object);
        self.said(found).flatten().map(Held)
    }

    /// Keeps a block of a version of `size` bytes. `false`: it could not be kept.
    pub fn put(&self, object: &ObjectId, size: u64, block: u64, bytes: &[u8]) -> bool {
        let Some(on) = &self.on else {
            return false;
        };
        let fits = !bytes.is_empty() && bytes.len() == block_len(size, block);
        fits && self.said(on.put(object, size, block, bytes)) == Some(true)
    }

    /// Those of the blocks that are not there, in runs.
    #[must_use]
    pub fn missing(&self, object: &ObjectId, blocks: Range<u64>) -> Vec<Range<u64>> {
        let present = self.hold(object).map_or_else(Vec::new, |held| {
            let end = blocks.end.min(blocks_of(held.0.size));
            held.0.present(blocks.start..end.max(blocks.start))
        });
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (block, i) in blocks.zip(0..) {
            match runs.last_mut() {
                _ if present.get(i) == Some(&true) => {}
                Some(run) if run.end == block => run.end += 1,
                _ => runs.push(block..block + 1),
            }
        }
        runs
    }

    /// Whether bytes `range` of a version are said to be there.
    #[must_use]
    pub fn has(&self, object: &ObjectId, range: Range<u64>) -> bool {
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        let Some(held) = self.hold(object) else {
            return range.is_empty();
        };
        let step = usize::try_from(BLOCK).unwrap_or(1);
        blocks.clone().step_by(step).all(|first| {
            let chunk = first..blocks.end.min(first + BLOCK);
            held.0.present(chunk).into_iter().all(|is| is)
        })
    }

    /// Drops a version.
    pub fn forget(&self, object: &ObjectId) {
        if let Some(on) = &self.on {
            self.said(on.discard(&mut on.state.lock(), Name::of(object)));
        }
    }

    /// Holds a version, present or not, against eviction. A handle does so once: what is there
    /// already is used again now.
    #[must_use]
    pub fn pin(self: &Arc<Self>, object: &ObjectId) -> Pin {
        let name = Name::of(object);
        if let Some(on) = &self.on {
            on.state.lock().index.pin(name);
        }
        Pin {
            cache: Arc::clone(self),
            name,
        }
    }

    /// Bytes of disk in use, and the cap.
    #[must_use]
    pub fn usage(&self) -> (u64, u64) {
        let used = |on: &Folder| (on.state.lock().index.total(), on.max);
        self.on.as_ref().map_or((0, 0), used)
    }

    /// Says once that the disk fails; the caller goes on without.
    fn said<T>(&self, result: io::Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the cache fails: blocks are not kept");
                }
            })
            .ok()
    }
}

impl Folder {
    fn open(config: &Config) -> io::Result<(Self, Vec<Name>)> {
        let dir = config.dir.join("blocks");
        let mut make = fs::DirBuilder::new();
        make.recursive(true).mode(0o700).create(&dir)?;
        check_owner(&dir)?;
        let file = private().create(true).open(dir.join("lock"))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        let names = scan::names(&dir)?;
        let folder = Self {
            dir,
            max: config.max,
            reserve: config.reserve,
            temps: AtomicU64::new(0),
            state: Mutex::new(State {
                index: Index::new(config.max),
                open: LruCache::new(OPEN_MAX),
                scanned: false,
                free: 0,
                sample_in: 0,
            }),
            _lock: lock,
        };
        Ok((folder, names))
    }

    /// What the scan found enters the index, as older than all that was used since.
    fn learn(&self, mut found: Vec<scan::Found>) {
        found.sort_unstable_by_key(|one| std::cmp::Reverse(one.used));
        let mut state = self.state.lock();
        for one in found {
            if state.index.contains(one.name) {
                continue;
            }
            state.index.set_oldest(one.name, one.bytes);
            if one.used.is_none() {
                self.discard_quietly(&mut state, one.name);
            }
        }
        state.scanned = true;
        self.has_cap(&mut state, None, 0);
    }

    /// The version, if it is there; what is there instead of it goes.
    fn find(&self, state: &mut State, object: &ObjectId) -> io::Result<Option<Arc<Version>>> {
        let name = Name::of(object);
        if let Some(version) = state.open.get(&name) {
            if version.object == *object && !version.is_retired() {
                let version = Arc::clone(version);
                state.index.touch(name);
                return Ok(Some(version));
            }
            state.open.pop(&name);
        }
        match Version::open(&self.dir, name, object) {
            Ok(Some(version)) => Ok(Some(self.enter(state, name, version))),
            Ok(None) => self.discard(state, name).map(|()| None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn enter(&self, state: &mut State, name: Name, version: Version) -> Arc<Version> {
        let version = Arc::new(version);
        state.index.set(name, version.allocated());
        state.open.put(name, Arc::clone(&version));
        version
    }

    fn put(&self, object: &ObjectId, size: u64, block: u64, bytes: &[u8]) -> io::Result<bool> {
        let name = Name::of(object);
        let Some(mut version) = self.writable(name, object, size, bytes.len() as u64)? else {
            return Ok(false);
        };
        if !self.write(name, &version, block, bytes)? {
            let Some(own) = self.unshare(name, &version)? else {
                return Ok(false);
            };
            version = own;
            if !self.write(name, &version, block, bytes)? {
                return Ok(false);
            }
        }
        let mut state = self.state.lock();
        if state.index.contains(name) && !version.is_retired() {
            state.index.set(name, version.allocated());
        }
        Ok(true)
    }

    /// Writes a block. `false`: the data file is somebody else's too, with other bytes there.
    fn write(&self, name: Name, version: &Version, block: u64, bytes: &[u8]) -> io::Result<bool> {
        if version.is_linked() && !seeded::is(Bug::SpoolWrittenThrough) {
            // Under the lock nobody takes our name away, so that only the other one is left.
            let _state = self.state.lock();
            if !version.is_only(&name.dat(&self.dir)) {
                return version.note(block, bytes);
            }
            return version.put(block, bytes).map(|()| true);
        }
        version.put(block, bytes).map(|()| true)
    }

    fn writable(
        &self,
        name: Name,
        object: &ObjectId,
        size: u64,
        incoming: u64,
    ) -> io::Result<Option<Arc<Version>>> {
        let state = &mut *self.state.lock();
        if !self.make_room(state, Some(name), incoming + OVERHEAD) {
            return Ok(None);
        }
        if let Some(version) = self.find(state, object)?
            && version.size == size
        {
            return Ok(Some(version));
        }
        self.discard(state, name)?;
        let version = Version::create(&self.dir, name, object, size)?;
        Ok(Some(self.enter(state, name, version)))
    }

    /// Makes room for `incoming` more bytes of `keep`. `false`: there is none.
    fn make_room(&self, state: &mut State, keep: Option<Name>, incoming: u64) -> bool {
        self.has_cap(state, keep, incoming) && self.has_reserve(state, keep, incoming)
    }

    fn has_cap(&self, state: &mut State, keep: Option<Name>, incoming: u64) -> bool {
        let cap = if state.scanned {
            self.max
        } else {
            self.max / 8
        };
        if incoming > cap {
            return false;
        }
        let is_new = keep.is_some_and(|name| !state.index.contains(name));
        while state.index.total() + incoming > cap
            || state.index.count() + usize::from(is_new) > VERSIONS_MAX
        {
            let Some(victim) = state.index.victim(keep) else {
                return false;
            };
            self.discard_quietly(state, victim);
        }
        true
    }

    fn has_reserve(&self, state: &mut State, keep: Option<Name>, incoming: u64) -> bool {
        for _ in 0..EVICT_MAX {
            if state.sample_in == 0 {
                state.free = free_bytes(&self.dir);
                state.sample_in = SAMPLE_EVERY;
            }
            if state.free >= self.reserve.saturating_add(incoming) {
                state.free -= incoming;
                state.sample_in -= 1;
                return true;
            }
            state.sample_in = 0;
            let Some(victim) = state.index.victim(keep) else {
                return false;
            };
            self.discard_quietly(state, victim);
        }
        false
    }

    /// Takes both names away, the entries' first: a data file without them is nothing.
    fn discard(&self, state: &mut State, name: Name) -> io::Result<()> {
        if let Some(version) = state.open.pop(&name) {
            version.retire();
        }
        state.index.remove(name);
        remove(&name.idx(&self.dir))?;
        remove(&name.dat(&self.dir))
    }

    fn discard_quietly(&self, state: &mut State, name: Name) {
        if let Err(error) = self.discard(state, name) {
            tracing::debug!(%error, "a file of the cache cannot be removed");
        }
    }

    fn temp(&self) -> PathBuf {
        let number = self.temps.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{number}.{}", scan::UNFINISHED))
    }
}

/// Somebody else who could write here could make us show wrong bytes.
fn check_owner(dir: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(dir)?;
    let is_ours = meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o077 == 0;
    if meta.is_dir() && is_ours {
        return Ok(());
    }
    Err(io::Error::other("the folder must be ours alone (0700)"))
}

// The types are narrower where a word has 32 bits.
#[allow(clippy::useless_conversion)]
fn free_bytes(dir: &Path) -> u64 {
    nix::sys::statvfs::statvfs(dir).map_or(0, |fs| {
        u64::from(fs.blocks_available()).saturating_mul(u64::from(fs.fragment_size()))
    })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
