//! What is visible: fold(remote snapshot, pending log). One lock; memory order is log order.
//!
//! Invariants:
//! - a change is checked, appended and applied in one step under the lock (`change`, `record`), so
//!   that what is visible is always what the log says, and a task dropped at any await leaves
//!   nothing half done;
//! - nothing in here waits: not for the network (it does not know it), not for a flush. Only
//!   `compact`, on a blocking thread, flushes;
//! - lock order: the caller's (inode, names) < that of the kept listings < this one < leaf locks of
//!   log and spool.

mod compact;
mod fold;
mod guard;
mod inspect;
mod large;
mod listings;
mod memory;
mod mend;
mod pending;
mod recover;
mod remote;
mod reroot;
mod sources;
mod streams;
mod told;
mod uploads;
mod view;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::disk::Disk;
use crate::log::{self, Change, Log, Need, Record};
use crate::seeded::{self, Bug};
use crate::types::{Attrs, Extents, FileNo, ObjectId, ObjectMeta, RelKey, RelPath, Seq, Want};

pub use crate::log::LogError;
pub use fold::SHARED_MIN;
use fold::State;
pub use guard::{Asked, Pin};
pub use inspect::{Inspection, Place, Unclosed, is_spool};
pub use large::NAMES_MAX;
use listings::Listings;
use memory::Memory;
pub use pending::{Pending, PendingMap, Staged, Uploading};
pub use remote::Known;
pub use streams::Stream;
pub use view::{Content, Freshness, Node, Seen, View};

/// The tree.
#[derive(Debug)]
pub struct Tree {
    log: Arc<Log>,
    ttl: Duration,
    state: Mutex<State>,
    listings: Mutex<Listings>,
    /// What is offered to be sent early; a leaf lock.
    streams: Mutex<Vec<Stream>>,
    changed: watch::Sender<u64>,
}

/// What a start found.
#[derive(Debug)]
pub struct Opened {
    /// The tree.
    pub tree: Arc<Tree>,
    /// The log beneath it.
    pub log: Arc<Log>,
    /// Names whose writers had neither closed nor fsynced: their bytes are kept aside.
    pub partials: Vec<String>,
    /// Names that had been made and neither closed nor fsynced, and nothing of them had reached the
    /// device.
    pub lost: Vec<String>,
}

impl Tree {
    /// Opens the log, folds it, and sets aside what was never sealed. `memory`: the file of the
    /// attribute memory; the kept listings lie beside it.
    ///
    /// # Errors
    /// Of the log.
    pub fn open(config: log::Config, memory: &Path, ttl: Duration) -> Result<Opened, LogError> {
        Self::open_on(Disk::default(), &config, memory, ttl)
    }

    /// As `open`, on a disk that is watched.
    ///
    /// # Errors
    /// Of the log.
    pub fn open_on(
        disk: Disk,
        config: &log::Config,
        memory: &Path,
        ttl: Duration,
    ) -> Result<Opened, LogError> {
        // The log makes the folder that the memory lies in, so records are kept until it has.
        let mut records = Vec::new();
        let log = Log::open_on(disk, config, &mut |seq, record| records.push((seq, record)))?;
        Self::folded(log, records, config, memory, ttl)
    }

    fn folded(
        log: Arc<Log>,
        records: Vec<(Seq, Record)>,
        config: &log::Config,
        memory: &Path,
        ttl: Duration,
    ) -> Result<Opened, LogError> {
        let now = now();
        let mut state = State::new(Memory::open(memory));
        let path = memory.with_file_name("listings");
        let (listings, before) = Listings::open(&path, config, now, ttl);
        // Results of the log older than the listings do not undo them.
        state.remote.asking(Seq(0));
        for (seq, record) in records {
            state.apply(seq, record, now);
        }
        let results = std::mem::take(&mut state.remote);
        state.remote = results.over(before.remote, before.as_of, now);
        let recover::Unclosed { partials, lost } =
            recover::close_open_entries(&mut state, &log, now)?;
        let tree = Arc::new(Self {
            log: Arc::clone(&log),
            ttl,
            state: Mutex::new(state),
            listings: Mutex::new(listings),
            streams: Mutex::default(),
            changed: watch::channel(0).0,
        });
        Ok(Opened {
            tree,
            log,
            partials,
            lost,
        })
    }

    /// Looks at what is visible. No I/O and no waiting inside.
    pub fn view<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        let state = self.state.lock();
        look(&View::new(&state, now(), self.ttl))
    }

    /// Decides on changes, appends and applies them in one step. `decide` answers the changes and
    /// their inline bytes; no changes: nothing is appended. Durable after `log.flushed` of the
    /// answer. Names that go or move may use the reserve of the spool; what is new may not.
    ///
    /// # Errors
    /// Of `decide`, of the log.
    pub fn change<E: From<LogError>>(
        &self,
        decide: impl FnOnce(&View<'_>) -> Result<(Vec<Change>, Vec<u8>), E>,
    ) -> Result<Seq, E> {
        self.change_for(Need::Growth, decide)
    }

    /// As `change`, for a record that is needed for `need` at least.
    ///
    /// # Errors
    /// Of `decide`, of the log.
    pub fn change_for<E: From<LogError>>(
        &self,
        need: Need,
        decide: impl FnOnce(&View<'_>) -> Result<(Vec<Change>, Vec<u8>), E>,
    ) -> Result<Seq, E> {
        let mut state = self.state.lock();
        let (mut changes, inline) = decide(&View::new(&state, now(), self.ttl))?;
        if changes.is_empty() {
            return Ok(state.last);
        }
        let is_gone = |change: &Change| change.want == Want::Gone;
        for change in changes.iter_mut().filter(|change| is_gone(change)) {
            if let Some(seen) = state
                .pending
                .get(&change.key)
                .and_then(|old| old.seen.clone())
            {
                change.base = seen;
            }
        }
        let need = match need {
            Need::Growth if changes.iter().any(is_gone) => Need::Shrink,
            need => need,
        };
        let appended = self.log.append(Record::Set(changes), &inline, need);
        let done = appended.map(|(seq, record)| {
            state.apply(seq, record, now());
            seq
        });
        drop(state);
        // Also when the log is full: whoever can make room looks whether there is any.
        self.awake();
        Ok(done?)
    }

    /// Looks at what is pending, under the lock: no I/O and no waiting inside.
    pub fn pending<T>(&self, look: impl FnOnce(&PendingMap) -> T) -> T {
        look(&self.state.lock().pending)
    }

    /// Appends one of the drain's records and applies it. `Sent`, `Removed` and so on of a change
    /// that was superseded meanwhile only teach the base. Not flushed.
    ///
    /// # Errors
    /// Of the log.
    pub fn record(&self, record: Record) -> Result<Seq, LogError> {
        self.append(self.state.lock(), record)
    }

    /// The same of what was begun when the root had changed `roots` times. `None`: it has changed
    /// since, so that what the record says is of another folder; nothing is appended.
    ///
    /// # Errors
    /// Of the log.
    pub fn record_in(&self, roots: u64, record: Record) -> Result<Option<Seq>, LogError> {
        let state = self.state.lock();
        if state.roots != roots {
            return Ok(None);
        }
        self.append(state, record).map(Some)
    }

    fn append(&self, mut state: MutexGuard<'_, State>, record: Record) -> Result<Seq, LogError> {
        let (seq, record) = self.log.append(record, &[], Need::Drain)?;
        state.apply(seq, record, now());
        drop(state);
        self.awake();
        Ok(seq)
    }

    /// How often the root has changed in this run.
    #[must_use]
    pub fn roots(&self) -> u64 {
        self.state.lock().roots
    }

    /// Appends what is worth knowing after a crash and changes nothing that is visible or wanted.
    /// Not flushed.
    ///
    /// # Errors
    /// Of the log.
    pub fn note(&self, record: Record) -> Result<(), LogError> {
        let mut state = self.state.lock();
        let (seq, record) = self.log.append(record, &[], Need::Growth)?;
        state.apply(seq, record, now());
        Ok(())
    }

    /// `ttl` has passed for all that is known of the bucket.
    #[cfg(test)]
    pub(crate) fn age(&self) {
        let old = now().checked_sub(self.ttl + std::time::Duration::from_secs(1));
        if let Some(old) = old {
            self.state.lock().remote.age(old);
        }
    }

    /// What is known of the bucket at and below `path` counts as old, so that whoever asks next has the
    /// bucket asked.
    pub fn doubt(&self, path: &RelPath) {
        let old = now().checked_sub(self.ttl + std::time::Duration::from_secs(1));
        if let Some(old) = old {
            self.state.lock().remote.doubt(path, old);
        }
    }

    /// Awakes when something became pending, settled, or ready earlier than it was.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether a writer has the file at `path` open.
    pub fn hold(&self, path: &RelPath, is_held: bool) {
        let key = RelKey::file(path);
        self.state
            .lock()
            .pending
            .edit(&key, |entry| entry.set_held(is_held, now()));
        if !is_held {
            self.awake();
        }
    }

    /// Somebody waits for the change at `key`: it is sent without linger, even while held.
    pub fn urge(&self, key: &RelKey) {
        self.state
            .lock()
            .pending
            .edit(key, |entry| (entry.urgent, entry.held) = (true, false));
        self.awake();
    }

    /// Whether the change `number` at `key` is in the bucket or was superseded.
    pub fn is_settled(&self, key: &RelKey, number: Seq) -> bool {
        self.state
            .lock()
            .pending
            .get(key)
            .is_none_or(|entry| entry.number > number)
    }

    /// Attributes remembered of a version (own and learnt), for filling what a generation inherits.
    pub fn remembered(&self, object: &ObjectId) -> Option<Attrs> {
        self.view(|view| view.remembered(object))
    }

    /// `extents`, with bytes of versions that an upload of ours replaced named by where they are
    /// now. Pieces of the spool stay.
    pub fn led(&self, extents: &Extents) -> Extents {
        self.state.lock().led(extents)
    }

    /// The version believed to be at a key.
    pub fn known(&self, key: &RelKey) -> Option<ObjectMeta> {
        self.view(|view| Some(view.known(key)?.meta(key)))
    }

    /// Begins a question to the bucket.
    pub fn ask(&self) -> Asked<'_> {
        let mut state = self.state.lock();
        let seq = state.last;
        state.remote.asking(seq);
        Asked {
            tree: self,
            seq,
            started: now(),
        }
    }

    /// The position a question to the bucket is asked at.
    pub fn now(&self) -> Seq {
        self.state.lock().last
    }

    /// What HEAD told of a key (`None`: absent) as of `asked`.
    pub fn learn(&self, key: &RelKey, meta: Option<&ObjectMeta>, asked: Seq) {
        let mut state = self.state.lock();
        if !state.remote.is_of_this_root(asked) {
            return;
        }
        if let Some(ObjectMeta {
            id,
            headers: Some(headers),
            ..
        }) = meta
        {
            state
                .memory
                .put(key, &id.etag, &Attrs::from_headers(headers, key.is_dir()));
        }
        state.remote.head(key, meta.map(Known::from), asked, now());
    }

    /// What an answer told of the attributes of a version, if that is the one believed to be there.
    pub fn remember(&self, meta: &ObjectMeta) {
        let Some((key, headers)) = RelKey::parse(meta.id.key.as_str()).zip(meta.headers.as_ref())
        else {
            return;
        };
        let mut state = self.state.lock();
        if state
            .remote
            .known(&key)
            .is_some_and(|known| known.etag == meta.id.etag)
        {
            let attrs = Attrs::from_headers(headers, key.is_dir());
            state.memory.put(&key, &meta.id.etag, &attrs);
        }
    }

    /// That a directory made here has nothing in it.
    pub fn learn_empty(&self, path: &RelPath) {
        self.state.lock().remote.empty_dir(path, now());
    }

    /// Data files that neither a pending generation nor a draft names any more: the caller removes
    /// them, once all it recorded is flushed.
    pub fn unreferenced(&self) -> Vec<FileNo> {
        let spool = self.log.spool();
        let files = spool.files();
        let mut state = self.state.lock();
        let free: Vec<_> = files
            .into_iter()
            .filter(|file| {
                !state.pending.names(*file)
                    && (!state.pins.contains_key(file) || seeded::is(Bug::OpenDataRemoved))
                    && !spool.has_writer(*file)
            })
            .collect();
        for file in &free {
            state.forget_sent(*file);
        }
        free
    }

    /// Keeps the data files of `extents` while the answer lives. Called inside of nothing.
    pub fn pin(self: &Arc<Self>, extents: &Extents) -> Pin {
        let files: Vec<_> = extents.files().into_iter().collect();
        let mut state = self.state.lock();
        for file in &files {
            *state.pins.entry(*file).or_default() += 1;
        }
        drop(state);
        Pin {
            tree: Arc::clone(self),
            files,
        }
    }

    /// Whether the visible directory at `path` would vanish from the bucket once its last pending
    /// removals are sent, as it has no marker (so that the drain asks and makes one).
    pub fn is_bare_dir(&self, path: &RelPath) -> bool {
        if path.is_root() {
            return false;
        }
        let state = self.state.lock();
        let key = RelKey::dir(path);
        let marker = state.remote.known(&key).is_some() || state.pending.get(&key).is_some();
        let is_known = state
            .remote
            .slot(path)
            .is_some_and(|slot| slot.dir.present().is_some());
        let is_empty = View::new(&state, now(), self.ttl).is_empty(path);
        is_known && !marker && is_empty
    }

    /// Keys that cannot be shown as names.
    pub fn hidden(&self) -> u64 {
        self.state.lock().remote.hidden()
    }

    /// Keeps over a restart what is known of the bucket. Blocking. Where that fails it is said, and
    /// tried again by the next call: losing it costs answers while the bucket is silent.
    pub fn keep_listings(&self) {
        if let Err(error) = self.listings.lock().keep(&self.state) {
            tracing::warn!("what is known of the bucket cannot be kept over a restart: {error}");
        }
    }

    /// Monotonic time, for `Pending::since`.
    pub fn clock(&self) -> Instant {
        now()
    }

    /// Uploads of ours that were begun and that nothing names any more, but were not aborted yet.
    #[must_use]
    pub fn unwanted_uploads(&self) -> Vec<(RelKey, String)> {
        let state = self.state.lock();
        state.uploads.unwanted(&state.pending)
    }

    fn awake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

/// Monotonic, and under a test's control where its runtime's clock is paused.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
