//! What is visible: fold(remote snapshot, pending log). One lock; memory order is log order.
//!
//! Invariants:
//! - a change is checked, appended and applied in one step under the lock (`change`, `record`), so
//!   that what is visible is always what the log says, and a task dropped at any await leaves
//!   nothing half done;
//! - nothing in here waits: not for the network (it does not know it), not for a flush. Only
//!   `compact`, on a blocking thread, flushes;
//! - lock order: the caller's (inode, names) < this one < leaf locks of log and spool.

mod fold;
mod memory;
mod pending;
mod remote;
mod view;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::log::{self, Change, Log, LogError, Record};
use crate::store::ListPage;
use crate::types::{
    Attrs, Extents, FileNo, ObjectId, ObjectMeta, RelKey, RelPath, Seq, Source, Want,
};

pub use fold::SHARED_MIN;
use fold::State;
use memory::Memory;
pub use pending::{Pending, PendingMap};
pub use remote::Known;
pub use view::{Content, Freshness, Node, Seen, View};

/// A log that is longer than this is rewritten when most of it is settled.
const COMPACT_AT: u64 = 4 << 20;

/// The tree.
#[derive(Debug)]
pub struct Tree {
    log: Arc<Log>,
    ttl: Duration,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// A question to the bucket that is under way: own results after it win over its answer.
#[derive(Debug)]
pub struct Asked<'a> {
    tree: &'a Tree,
    seq: Seq,
    started: Instant,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.tree.state.lock().remote.answered(self.seq);
    }
}

/// Data files that a draft reads from: they stay while this lives.
#[derive(Debug)]
pub struct Pin {
    tree: Arc<Tree>,
    files: Vec<FileNo>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.tree.state.lock();
        for file in &self.files {
            if let Some(count) = state.pins.get_mut(file) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(file);
                }
            }
        }
    }
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
}

impl Tree {
    /// Opens the log, folds it, and sets aside what was never sealed. `memory`: the file of the
    /// attribute memory.
    ///
    /// # Errors
    /// Of the log.
    pub fn open(config: log::Config, memory: &Path, ttl: Duration) -> Result<Opened, LogError> {
        let now = now();
        // The log makes the folder that the memory lies in, so records are kept until it has.
        let mut records = Vec::new();
        let log = Log::open(config, &mut |seq, record| records.push((seq, record)))?;
        let mut state = State::new(Memory::open(memory));
        for (seq, record) in records {
            state.apply(seq, record, now);
        }
        let partials = close_open_entries(&mut state, &log, now)?;
        let tree = Arc::new(Self {
            log: Arc::clone(&log),
            ttl,
            state: Mutex::new(state),
            changed: watch::channel(0).0,
        });
        Ok(Opened {
            tree,
            log,
            partials,
        })
    }

    /// Looks at what is visible. No I/O and no waiting inside.
    pub fn view<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        let state = self.state.lock();
        look(&View::new(&state, now(), self.ttl))
    }

    /// Decides on changes, appends and applies them in one step. `decide` answers the changes and
    /// their inline bytes; no changes: nothing is appended. Durable after `log.flushed` of the
    /// answer.
    ///
    /// # Errors
    /// Of `decide`, of the log.
    pub fn change<E: From<LogError>>(
        &self,
        decide: impl FnOnce(&View<'_>) -> Result<(Vec<Change>, Vec<u8>), E>,
    ) -> Result<Seq, E> {
        let mut state = self.state.lock();
        let (changes, inline) = decide(&View::new(&state, now(), self.ttl))?;
        if changes.is_empty() {
            return Ok(state.last);
        }
        let (seq, record) = self.log.append(Record::Set(changes), &inline)?;
        state.apply(seq, record, now());
        drop(state);
        self.awake();
        Ok(seq)
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
        let mut state = self.state.lock();
        let (seq, record) = self.log.append(record, &[])?;
        state.apply(seq, record, now());
        drop(state);
        self.awake();
        Ok(seq)
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
            .edit(&key, |entry| entry.held = is_held);
        if !is_held {
            self.awake();
        }
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
                    && !state.pins.contains_key(file)
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

    /// Monotonic time, for `Pending::since`.
    pub fn clock(&self) -> Instant {
        now()
    }

    /// Keeps the log small: starts a new segment when little of the old ones is needed, and writes
    /// into it again what is. Blocking; call it on a blocking thread of a runtime.
    ///
    /// # Errors
    /// Of the log.
    pub fn compact(&self) -> Result<(), LogError> {
        let mut state = self.state.lock();
        let live: u64 = state
            .pending
            .in_order()
            .map(|(_, entry)| live_bytes(entry))
            .sum();
        if self.log.size() < COMPACT_AT.max(live.saturating_mul(2)) {
            return Ok(());
        }
        let segment = self.log.rotate()?;
        let entries: Vec<(RelKey, Pending)> = state
            .pending
            .in_order()
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect();
        let data: HashSet<FileNo> = self.log.spool().files().into_iter().collect();
        let mut last = state.last;
        for (key, entry) in entries {
            for (record, inline) in self.rewritten(&key, &entry, &data)? {
                let (seq, record) = self.log.append(record, &inline)?;
                if let Record::Set(_) = &record {
                    let since = entry.since;
                    state.apply(seq, record, since);
                } else {
                    state.apply(seq, record, now());
                }
                last = seq;
            }
            state.pending.edit(&key, |now| now.held = entry.held);
        }
        let memory = state.memory.file();
        drop(state);
        if let Some(memory) = memory {
            memory
                .sync_data()
                .map_err(|e| LogError::Disk(e.raw_os_error().unwrap_or(libc::EIO)))?;
        }
        tokio::runtime::Handle::current().block_on(self.log.flushed(last))?;
        self.log.drop_before(segment)
    }

    /// The records that say anew what a pending entry is.
    fn rewritten(
        &self,
        key: &RelKey,
        entry: &Pending,
        data: &HashSet<FileNo>,
    ) -> Result<Vec<(Record, Vec<u8>)>, LogError> {
        let (want, inline) = self.inlined(&entry.want, data)?;
        let set = |want| {
            let (key, base, number) = (key.clone(), entry.base.clone(), Some(entry.number));
            Record::Set(vec![Change {
                key,
                want,
                base,
                number,
            }])
        };
        let mut records = Vec::new();
        if entry.over_gone {
            records.push((set(Want::Gone), Vec::new()));
        }
        records.push((set(want), inline));
        let (key, number) = (key.clone(), entry.number);
        if entry.begun {
            records.push((
                Record::Begun {
                    key: key.clone(),
                    number,
                },
                Vec::new(),
            ));
        }
        if let Some((number, upload, parts)) = entry.staged.clone() {
            let key = key.clone();
            records.push((
                Record::Staged {
                    key,
                    number,
                    upload,
                    parts,
                },
                Vec::new(),
            ));
        }
        if let Some(reason) = entry.dead.clone() {
            records.push((
                Record::Dead {
                    key,
                    number,
                    reason,
                },
                Vec::new(),
            ));
        }
        Ok(records)
    }

    /// A generation's bytes in old segments, taken along.
    fn inlined(&self, want: &Want, data: &HashSet<FileNo>) -> Result<(Want, Vec<u8>), LogError> {
        let Want::Object(generation) = want else {
            return Ok((want.clone(), Vec::new()));
        };
        let spool = self.log.spool();
        let (mut inline, mut failed) = (Vec::new(), None);
        let extents = generation.extents.map(|extent| {
            let Source::Local { file, offset } = extent.from else {
                return vec![extent.clone()];
            };
            if data.contains(&file) {
                return vec![extent.clone()];
            }
            match spool.read_at(
                file,
                offset,
                usize::try_from(extent.len).unwrap_or(usize::MAX),
            ) {
                Ok(bytes) => {
                    let offset = inline.len() as u64;
                    inline.extend_from_slice(&bytes);
                    let from = Source::Local {
                        file: FileNo::INLINE,
                        offset,
                    };
                    vec![crate::types::Extent {
                        from,
                        ..extent.clone()
                    }]
                }
                Err(error) => {
                    failed = error.raw_os_error().or(Some(libc::EIO));
                    Vec::new()
                }
            }
        });
        match failed {
            Some(errno) => Err(LogError::Disk(errno)),
            None => {
                let moved = crate::types::Generation {
                    extents,
                    ..(**generation).clone()
                };
                Ok((Want::Object(Arc::new(moved)), inline))
            }
        }
    }

    fn awake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Asked<'_> {
    /// The position it was asked at.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// A page of a listing of `path` has come.
    pub fn page(&self, path: &RelPath, page: &ListPage) {
        self.tree
            .state
            .lock()
            .remote
            .page(path, page, self.seq, now());
    }

    /// The last page has come.
    pub fn listed(&self, path: &RelPath) {
        self.tree.state.lock().remote.listed(path, self.started);
    }

    /// A page of a recursive listing has come.
    pub fn deep_page(&self, path: &RelPath, page: &ListPage) {
        self.tree
            .state
            .lock()
            .remote
            .deep_page(path, page, self.seq, now());
    }

    /// Its last page has come.
    pub fn deep_listed(&self, path: &RelPath) {
        self.tree
            .state
            .lock()
            .remote
            .deep_listed(path, self.started);
    }

    /// A short listing of the keys that begin with `path` has come. Answers whether it decided.
    #[must_use]
    pub fn probed(&self, path: &RelPath, page: &ListPage) -> bool {
        self.tree
            .state
            .lock()
            .remote
            .probed(path, page, self.seq, now())
    }

    /// Whether a key below the directory `path` exists.
    pub fn dir_probed(&self, path: &RelPath, is_there: bool) {
        self.tree
            .state
            .lock()
            .remote
            .dir_probed(path, is_there, self.seq, now());
    }

    /// A HEAD's answer.
    pub fn head(&self, key: &RelKey, meta: Option<&ObjectMeta>) {
        self.tree.learn(key, meta, self.seq);
    }
}

/// Monotonic, and under a test's control where its runtime's clock is paused.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn live_bytes(entry: &Pending) -> u64 {
    let inline = entry.generation().map_or(0, |generation| {
        let small = generation
            .extents
            .iter()
            .filter(|extent| extent.len < SHARED_MIN);
        small.map(|extent| extent.len).sum()
    });
    inline + 512
}

/// After a crash: names that were created and never sealed are not there; their bytes are set aside.
/// Data files that no record names are such bytes too, or are empty.
fn close_open_entries(
    state: &mut State,
    log: &Arc<Log>,
    now: Instant,
) -> Result<Vec<String>, LogError> {
    let failed = |error: std::io::Error| LogError::Disk(error.raw_os_error().unwrap_or(libc::EIO));
    let spool = log.spool();
    let mut partials = Vec::new();
    let open: Vec<(RelKey, Pending)> = state
        .pending
        .in_order()
        .filter(|(_, entry)| matches!(entry.want, Want::Open { .. }))
        .map(|(key, entry)| (key.clone(), entry.clone()))
        .collect();
    for (key, entry) in open {
        if let Want::Open {
            file: Some(file), ..
        } = entry.want
            && spool.files().contains(&file)
        {
            spool.set_aside(file, key.as_str()).map_err(failed)?;
            partials.push(key.to_string());
        }
        state.pending.take(&key);
        if entry.over_gone {
            let gone = Pending {
                want: Want::Gone,
                since: now,
                over_gone: false,
                ..entry
            };
            state.pending.put(key, gone);
        }
    }
    for file in spool.files() {
        if state.pending.names(file) {
            continue;
        }
        if state.ever_named.contains(&file) {
            spool.remove(file).map_err(failed)?;
            state.forget_sent(file);
        } else {
            spool.set_aside(file, "").map_err(failed)?;
            partials.push(format!("data file {}", file.0));
        }
    }
    Ok(partials)
}

#[cfg(test)]
mod tests;
