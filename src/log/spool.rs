//! The data files: bytes of drafts too large for the log, written once, named by generations.
//!
//! ```text
//! data/NUMBER          a data file (16 hex digits); an empty one was made in advance
//! partial/NUMBER       a data file with bytes that no seal named, kept for the user (a second name of
//!                      data/NUMBER where a generation names other bytes of it)
//! partial/NUMBER.json  {"version":1,"name":"..."}: what it was written for; flushed before the
//!                      data file is moved there, so that there is never a data file without one
//! ```
//!
//! Invariants:
//! - segments and data files draw their numbers from one counter, which starts above every number
//!   found in a name or a record, so a number never means two files;
//! - a data file is in its flushed folder before it is handed out: its own flush is all it needs;
//! - once a flush of a data file failed, it is never said to be clean again;
//! - at most `OPEN_MAX` files are held open for reading.

mod data;
mod early;
mod pool;
mod promise;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::boot::{KeptAside, kept_aside};
use super::room::{Need, Room};
use crate::disk::{self, Dir};
use crate::types::FileNo;

pub use data::DataFile;
pub use early::Early;
pub use promise::Promise;

const OPEN_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");
const NOTE_VERSION: u32 = 1;

/// The data files.
#[derive(Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    pool: pool::Pool,
}

/// What the log, the data files being written and the spool hold together.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) folders: Folders,
    pub(super) room: Room,
    /// The next number to give out.
    numbers: AtomicU64,
    segments: Mutex<BTreeSet<FileNo>>,
    files: Mutex<BTreeMap<FileNo, Entry>>,
    open: Mutex<LruCache<FileNo, Arc<disk::File>>>,
    /// Locked while anything of the spool is alive.
    lock: disk::File,
}

/// The folders of a spool.
#[derive(Debug)]
pub(super) struct Folders {
    pub(super) root: Dir,
    pub(super) log: Dir,
    pub(super) data: Dir,
    pub(super) aside: Dir,
    pub(super) partial: Dir,
}

/// What is known of a data file.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Bytes taken for it.
    taken: u64,
    has_writer: bool,
    /// Its name is gone, a writer still holds it.
    is_removed: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    version: u32,
    name: String,
}

/// A data file that is kept under `partial/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its number.
    pub file: FileNo,
    /// What it was written for; `None`: that cannot be read.
    pub name: Option<String>,
    /// Bytes.
    pub len: u64,
}

/// What is kept in a folder called `partial/`.
pub(super) fn kept_partials(partial: &Dir) -> io::Result<Vec<Kept>> {
    let names = partial.names()?;
    let kept = names
        .iter()
        .filter_map(|name| Some((name, number_of(name)?)));
    let kept = kept.map(|(name, file)| {
        let note = partial.read(&format!("{name}.json")).ok();
        let note = note.and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
        let len = partial.open(name).and_then(|file| file.len());
        Kept {
            file,
            name: note.map(|note| note.name),
            len: len.unwrap_or(0),
        }
    });
    Ok(kept.collect())
}

/// The name of a file of the spool.
pub(super) fn file_name(number: FileNo) -> String {
    format!("{:016x}", number.0)
}

/// The number in such a name.
pub(super) fn number_of(name: &str) -> Option<FileNo> {
    let number = FileNo(u64::from_str_radix(name, 16).ok()?);
    (file_name(number) == name && number != FileNo::INLINE).then_some(number)
}

impl Shared {
    pub(super) fn new(folders: Folders, room: Room, lock: disk::File) -> Self {
        Self {
            folders,
            room,
            numbers: AtomicU64::new(1),
            segments: Mutex::default(),
            files: Mutex::default(),
            open: Mutex::new(LruCache::new(OPEN_MAX)),
            lock,
        }
    }

    pub(super) fn next_number(&self) -> FileNo {
        FileNo(self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    /// No number up to this one is given out from now on.
    pub(super) fn number_is_taken(&self, number: FileNo) {
        let next = number.0.saturating_add(1);
        self.numbers.fetch_max(next, Ordering::Relaxed);
    }

    /// All that was appended is flushed: the next start need not doubt what it reads.
    pub(super) fn ends_clean(&self) {
        if let Err(error) = super::bind::says_clean(&self.lock) {
            tracing::debug!(%error, "the next start will write the log's end anew");
        }
    }

    pub(super) fn segment_begins(&self, number: FileNo) {
        self.segments.lock().insert(number);
    }

    /// Removes a segment. Durable after its folder is flushed.
    pub(super) fn remove_segment(&self, number: FileNo) -> io::Result<()> {
        self.folders.log.remove(&file_name(number))?;
        self.segments.lock().remove(&number);
        self.open.lock().pop(&number);
        Ok(())
    }

    fn opened(&self, number: FileNo) -> io::Result<Arc<disk::File>> {
        let is_segment = self.segments.lock().contains(&number);
        let folder = if is_segment {
            &self.folders.log
        } else {
            &self.folders.data
        };
        // Opened under the lock: a file removed meanwhile is either not found or not kept.
        let mut open = self.open.lock();
        if let Some(file) = open.get(&number) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(folder.open(&file_name(number))?);
        open.put(number, Arc::clone(&file));
        Ok(file)
    }
}

impl Spool {
    /// Takes stock of `data/` and `partial/`. Empty data files are dropped: they were made in
    /// advance, or their bytes were never flushed.
    pub(super) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let folders = &shared.folders;
        for name in folders.data.names()? {
            let Some(number) = number_of(&name) else {
                continue;
            };
            shared.number_is_taken(number);
            let file = folders.data.open(&name)?;
            if file.is_empty()? {
                folders.data.remove(&name)?;
                continue;
            }
            let taken = file.occupied()?;
            shared.room.take_anyway(taken);
            let entry = Entry {
                taken,
                ..Entry::default()
            };
            shared.files.lock().insert(number, entry);
        }
        for name in folders.partial.names()? {
            if let Some(number) = number_of(&name) {
                shared.number_is_taken(number);
            }
        }
        for kept in [&folders.partial, &folders.aside] {
            for name in kept.names()? {
                shared.room.take_anyway(kept.open(&name)?.occupied()?);
            }
        }
        Ok(Self {
            shared,
            pool: pool::Pool::default(),
        })
    }

    /// Its folder.
    pub(super) fn root(&self) -> &Dir {
        &self.shared.folders.root
    }

    /// Makes data files in advance.
    pub(super) fn fill_pool(&self) -> io::Result<()> {
        self.pool.fill(&self.shared)
    }

    /// A new data file for one draft. It is already in the directory durably (made in advance).
    ///
    /// # Errors
    /// `ENOSPC` at `spool_max` or `disk_reserve`.
    pub fn create(&self) -> io::Result<DataFile> {
        self.shared.room.check()?;
        let (number, file) = self.pool.take(&self.shared)?;
        let entry = Entry {
            has_writer: true,
            ..Entry::default()
        };
        self.shared.files.lock().insert(number, entry);
        Ok(DataFile::new(number, file, Arc::clone(&self.shared)))
    }

    /// Room in the log for a record that will be needed later, of `len` bytes with all that rides in
    /// it. It is there while the answer lives.
    ///
    /// # Errors
    /// `ENOSPC` at `spool_max` or `disk_reserve`.
    pub fn promise(&self, len: u64, need: Need) -> io::Result<Promise> {
        let mut promise = Promise::new(Arc::clone(&self.shared));
        promise.grow_to(len, need)?;
        Ok(promise)
    }

    /// Whether so little room is left that what can be dropped should be.
    pub fn is_short(&self) -> bool {
        self.shared.room.is_short()
    }

    /// The usual size of a segment: compaction needs no more than this beside what it drops.
    pub fn unit(&self) -> u64 {
        self.shared.room.unit()
    }

    /// `len` bytes of a data file or segment from `offset` on; zeros for holes in the file, an
    /// error (`UnexpectedEof`) behind its end. Blocking.
    ///
    /// # Errors
    /// Of the disk; `NotFound` once the file is removed.
    pub fn read_at(&self, file: FileNo, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        self.shared
            .opened(file)?
            .read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    /// Where a data file is (to be hard-linked into the cache).
    pub fn path(&self, file: FileNo) -> PathBuf {
        self.shared.folders.data.path(&file_name(file))
    }

    /// Whether it is a segment of the log rather than a data file: segments go with compaction.
    pub fn is_segment(&self, file: FileNo) -> bool {
        self.shared.segments.lock().contains(&file)
    }

    /// Whether a draft still writes to it (a `DataFile` of it is alive).
    pub fn has_writer(&self, file: FileNo) -> bool {
        let files = self.shared.files.lock();
        files.get(&file).is_some_and(|entry| entry.has_writer)
    }

    /// Removes a data file that no generation names. That it is gone already is success. Not
    /// flushed: after a power cut it may be there again.
    ///
    /// # Errors
    /// Of the disk.
    pub fn remove(&self, file: FileNo) -> io::Result<()> {
        self.shared.folders.data.remove(&file_name(file))?;
        self.shared.open.lock().pop(&file);
        let mut files = self.shared.files.lock();
        let Some(entry) = files.get_mut(&file) else {
            return Ok(());
        };
        entry.is_removed = true;
        if !entry.has_writer {
            self.shared.room.give(entry.taken);
            files.remove(&file);
        }
        Ok(())
    }

    /// All data files there are (without those made in advance).
    pub fn files(&self) -> Vec<FileNo> {
        let files = self.shared.files.lock();
        let present = files.iter().filter(|(_, entry)| !entry.is_removed);
        present.map(|(number, _)| *number).collect()
    }

    /// The bytes of a data file, with those that no generation names.
    ///
    /// # Errors
    /// Of the disk.
    pub fn len(&self, file: FileNo) -> io::Result<u64> {
        self.shared.opened(file)?.len()
    }

    /// As `set_aside`, but the data file stays where generations name it: it gets a second name.
    ///
    /// # Errors
    /// Of the disk.
    pub fn also_aside(&self, file: FileNo, name: &str) -> io::Result<()> {
        let Folders { data, partial, .. } = &self.shared.folders;
        let number = file_name(file);
        data.open_to_write(&number)?.flush()?;
        self.note(&number, name)?;
        match data.link(&number, partial, &number) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done.and_then(|()| partial.flush()),
        }
    }

    fn note(&self, number: &str, name: &str) -> io::Result<()> {
        let note = Note {
            version: NOTE_VERSION,
            name: name.into(),
        };
        let partial = &self.shared.folders.partial;
        partial.replace(&format!("{number}.json"), &serde_json::to_vec(&note)?)
    }

    /// Keeps a data file under `partial/` with a note of the name it was written for. That there
    /// is none (nothing was written, or it is kept already) is success.
    ///
    /// # Errors
    /// Of the disk.
    pub fn set_aside(&self, file: FileNo, name: &str) -> io::Result<()> {
        let Folders { data, partial, .. } = &self.shared.folders;
        let number = file_name(file);
        let opened = match data.open_to_write(&number) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        opened.flush()?;
        self.note(&number, name)?;
        data.rename(&number, partial, &number)?;
        partial.flush()?;
        data.flush()?;
        self.shared.open.lock().pop(&file);
        // What is taken for it stays taken: it still lies in the spool.
        self.shared.files.lock().remove(&file);
        Ok(())
    }

    /// What lies under `partial/`: name it was written for, bytes. What cannot be read is listed
    /// by its number.
    pub fn partials(&self) -> Vec<(String, u64)> {
        let kept = kept_partials(&self.shared.folders.partial).unwrap_or_else(|error| {
            tracing::warn!(%error, "the partial files cannot be listed");
            Vec::new()
        });
        let told = kept.into_iter().map(|kept| {
            let name = kept.name.unwrap_or_else(|| file_name(kept.file));
            (name, kept.len)
        });
        told.collect()
    }

    /// Removes a partial, durably. `false`: there is none.
    ///
    /// # Errors
    /// Of the disk.
    pub fn discard(&self, file: FileNo) -> io::Result<bool> {
        let Folders { data, partial, .. } = &self.shared.folders;
        let number = file_name(file);
        let taken = match partial.open(&number) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?.occupied()?,
        };
        partial.remove(&number)?;
        partial.remove(&format!("{number}.json"))?;
        partial.flush()?;
        // Where it was a second name, its bytes are still there.
        if data.has(&number)?.is_none() {
            self.shared.room.give(taken);
        }
        Ok(true)
    }

    /// What `aside/` keeps.
    pub(super) fn kept_aside(&self) -> Vec<KeptAside> {
        kept_aside(&self.shared.folders.aside).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was set aside cannot be listed");
            Vec::new()
        })
    }

    /// Removes what `aside/` keeps as `name`, durably. `false`: there is no such thing, or the next
    /// start would find it again, as the segment it was found in is still there.
    ///
    /// # Errors
    /// Of the disk.
    pub fn discard_aside(&self, name: &str) -> io::Result<bool> {
        let Folders { log, aside, .. } = &self.shared.folders;
        let segment = name.split('-').next().unwrap_or_default();
        let stays = name.ends_with(".damaged") && log.has(segment)?.is_some();
        if stays || self.kept_aside().iter().all(|kept| kept.name != name) {
            return Ok(false);
        }
        let taken = aside.open(name)?.occupied()?;
        aside.remove(name)?;
        aside.flush()?;
        self.shared.room.give(taken);
        Ok(true)
    }

    /// Bytes of data files, partials and log, and the cap.
    pub fn usage(&self) -> (u64, u64) {
        self.shared.room.usage()
    }
}

#[cfg(test)]
mod tests;
