//! The append-only log and the spool it names: every acknowledged change, durable, in order.

mod record;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::types::{FileNo, MountId, Seq};

pub use record::{Change, Record, Refusal, SentObject};

/// Whose spool it is. A spool with unsent data is refused for another binding.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Binding {
    /// Endpoint and region as given.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The prefix (`""`, or with a trailing `/`).
    pub prefix: String,
}

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of this mount's spool; made 0700 if absent.
    pub dir: PathBuf,
    /// Whose it is.
    pub binding: Binding,
    /// At most so many bytes of data files and log.
    pub spool_max: u64,
    /// So many bytes stay free on the file system.
    pub disk_reserve: u64,
}

/// Why the log cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// Another daemon has it open (its pid if known).
    Busy(Option<u32>),
    /// It belongs to another binding and has unsent data; the text says what to do.
    Foreign(String),
    /// Written by a newer kryptonfs.
    Newer(u32),
    /// Owner, mode or kind of the folder is wrong; the text says what to do.
    Unsafe(String),
    /// No room: `ENOSPC`.
    Full,
    /// The disk failed with this errno. After a failed flush everything later fails with it.
    Disk(i32),
}

/// The log. Cheap calls lock a leaf mutex; only `flushed` waits for the disk.
#[derive(Debug)]
pub struct Log;

impl Log {
    /// Locks the folder, checks whose it is, replays what is in it (each record with its inline
    /// data placed), cuts a torn tail off, sets the unreadable aside.
    ///
    /// # Errors
    /// See `LogError`.
    pub fn open(
        _config: Config,
        _replay: &mut dyn FnMut(Seq, Record),
    ) -> Result<Arc<Self>, LogError> {
        todo!()
    }

    /// Appends `record` with `inline`, the bytes its `FileNo::INLINE` extents name by offset.
    /// Answers its position and the record with those extents placed in the segment. The bytes can
    /// be read at once; they are durable after `flushed(seq)`.
    ///
    /// # Errors
    /// `Full`, `Disk`. Nothing is appended then.
    pub fn append(&self, _record: Record, _inline: &[u8]) -> Result<(Seq, Record), LogError> {
        todo!()
    }

    /// Waits until all up to `seq` is durable; concurrent callers share a flush.
    ///
    /// # Errors
    /// `Disk`, for ever, once a flush failed.
    pub async fn flushed(&self, _seq: Seq) -> Result<(), LogError> {
        todo!()
    }

    /// Starts a new segment and answers its number: what is appended from now on lies there.
    ///
    /// # Errors
    /// `Full`, `Disk`.
    pub fn rotate(&self) -> Result<FileNo, LogError> {
        todo!()
    }

    /// Removes all segments before `segment`. The caller has made sure that nothing in them is
    /// needed any more and that what replaces them is flushed.
    ///
    /// # Errors
    /// `Disk`.
    pub fn drop_before(&self, _segment: FileNo) -> Result<(), LogError> {
        todo!()
    }

    /// Bytes of all segments in use.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// This spool's identity.
    pub fn mount_id(&self) -> MountId {
        todo!()
    }

    /// The data files (and the segments, for reading).
    pub fn spool(&self) -> &Arc<Spool> {
        todo!()
    }

    /// What was found unreadable and set aside at start, in words.
    pub fn set_aside(&self) -> Vec<String> {
        todo!()
    }
}

/// The data files.
#[derive(Debug)]
pub struct Spool;

impl Spool {
    /// A new data file for one draft. It is already in the directory durably (made in advance).
    ///
    /// # Errors
    /// `ENOSPC` at `spool_max` or `disk_reserve`.
    pub fn create(&self) -> std::io::Result<DataFile> {
        todo!()
    }

    /// `len` bytes of a data file or segment from `offset` on; zeros for holes in the file, an
    /// error (`UnexpectedEof`) behind its end. Blocking.
    ///
    /// # Errors
    /// Of the disk.
    pub fn read_at(&self, _file: FileNo, _offset: u64, _len: usize) -> std::io::Result<Bytes> {
        todo!()
    }

    /// Where a data file is (to be hard-linked into the cache).
    pub fn path(&self, _file: FileNo) -> PathBuf {
        todo!()
    }

    /// Whether a draft still writes to it (a `DataFile` of it is alive).
    pub fn has_writer(&self, _file: FileNo) -> bool {
        todo!()
    }

    /// Removes a data file that no generation names.
    ///
    /// # Errors
    /// Of the disk.
    pub fn remove(&self, _file: FileNo) -> std::io::Result<()> {
        todo!()
    }

    /// All data files there are (without those made in advance).
    pub fn files(&self) -> Vec<FileNo> {
        todo!()
    }

    /// Keeps a data file under `partial/` with a note of the name it was written for.
    ///
    /// # Errors
    /// Of the disk.
    pub fn set_aside(&self, _file: FileNo, _name: &str) -> std::io::Result<()> {
        todo!()
    }

    /// What lies under `partial/`: name it was written for, bytes.
    pub fn partials(&self) -> Vec<(String, u64)> {
        todo!()
    }

    /// Bytes of data files and log, and the cap.
    pub fn usage(&self) -> (u64, u64) {
        todo!()
    }
}

/// A data file being written. Write-once from seal to seal: the caller never overwrites what a
/// sealed generation names.
#[derive(Debug)]
pub struct DataFile;

impl DataFile {
    /// Its number.
    pub fn number(&self) -> FileNo {
        todo!()
    }
    /// Writes all of `data` at `offset`. Blocking (page cache).
    ///
    /// # Errors
    /// `ENOSPC` at `spool_max` or `disk_reserve`; of the disk.
    pub fn write_at(&self, _data: &[u8], _offset: u64) -> std::io::Result<()> {
        todo!()
    }
    /// fdatasync. After a failure every later flush of this file fails too. Blocking.
    ///
    /// # Errors
    /// Of the disk.
    pub fn flush(&self) -> std::io::Result<()> {
        todo!()
    }
}
