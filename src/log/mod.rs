//! The append-only log and the spool it names: every acknowledged change, durable, in order.
//!
//! ```text
//! DIR/lock       who runs, and whether it ended clean; locked      bind.rs
//! DIR/binding    whose spool it is                                 bind.rs
//! DIR/log/       segments: frames of records, small files inline   frame.rs, commit.rs
//! DIR/data/      data files: bytes of larger files                 spool.rs
//! DIR/aside/     what could not be read, kept: SEGMENT-OFFSET-LENGTH.damaged or .torn (hex)
//! DIR/memory, DIR/listings  what the tree remembers of the bucket    tree/memory.rs, tree/listings.rs
//! DIR/partial/   data files no seal named, kept                    spool.rs
//! ```
//!
//! Invariants:
//! - acknowledged = `flushed` answered. Data a record names in a data file is flushed before the
//!   record is appended, so a record on the disk never names bytes that are not;
//! - a position (`Seq`) and a number (`FileNo`) are never given out twice in the life of a spool;
//! - nothing that cannot be read is deleted: it is copied to `aside/` first and reported;
//! - reading the log back changes nothing that reading it once did not.

mod bind;
mod boot;
mod commit;
mod error;
mod frame;
mod place;
mod reading;
mod record;
mod recover;
mod room;
mod segment;
mod spool;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::types::{FileNo, MountId, Seq};

use bind::Learnt;
use commit::Commit;
use error::errno;

pub use boot::KeptAside;
pub use commit::Closed;
pub use error::LogError;
pub use reading::{DataSeen, Piece, Reading};
pub use record::{Change, Record, Refusal, SentObject};
pub use room::Need;
pub use spool::{DataFile, Early, Kept, Promise, Spool};

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

impl Config {
    /// Of the spool in `dir`, as what it is bound to, and uncapped.
    ///
    /// # Errors
    /// `Foreign` if it does not say; of the disk.
    pub fn of(dir: &Path) -> Result<Self, LogError> {
        boot::config_of(dir)
    }
}

/// The log. Cheap calls lock a leaf mutex; only `flushed` waits for the disk.
#[derive(Debug)]
pub struct Log {
    commit: Commit,
    spool: Arc<Spool>,
    disk: Disk,
    mount: MountId,
    /// With whose credentials it is sent, to which region; a leaf lock.
    learnt: Mutex<Learnt>,
    /// Held while `binding` is written, by one at a time.
    binding: Mutex<()>,
    notes: Vec<String>,
}

impl Log {
    /// Locks the folder, checks whose it is, replays what is in it (each record with its inline
    /// data placed), cuts a torn tail off, sets the unreadable aside. Blocking.
    ///
    /// # Errors
    /// See `LogError`.
    pub fn open(
        config: Config,
        replay: &mut dyn FnMut(Seq, Record),
    ) -> Result<Arc<Self>, LogError> {
        Self::open_on(Disk::default(), &config, replay)
    }

    /// As `open`, to make a note in a spool that may be another machine's. Blocking.
    ///
    /// # Errors
    /// See `LogError`.
    pub fn reopen(
        config: &Config,
        replay: &mut dyn FnMut(Seq, Record),
    ) -> Result<Arc<Self>, LogError> {
        boot::reopen(config, replay).map(Arc::new)
    }

    /// As `open`, on a disk that is watched.
    ///
    /// # Errors
    /// See `LogError`.
    pub fn open_on(
        disk: Disk,
        config: &Config,
        replay: &mut dyn FnMut(Seq, Record),
    ) -> Result<Arc<Self>, LogError> {
        boot::open(disk, config, replay).map(Arc::new)
    }

    /// Appends `record`, which is for `need`, with `inline`, the bytes its `FileNo::INLINE` extents name by offset.
    /// Answers its position and the record with those extents placed in the segment. The bytes can
    /// be read at once; they are durable after `flushed(seq)`.
    ///
    /// # Errors
    /// `Full`, `Disk` (`EFBIG`: over 16 MiB; `EINVAL`: an inline extent outside of `inline`).
    /// Nothing is appended then.
    pub fn append(
        &self,
        record: Record,
        inline: &[u8],
        need: Need,
    ) -> Result<(Seq, Record), LogError> {
        if !place::fits(&record, inline.len() as u64) {
            return Err(LogError::Disk(libc::EINVAL));
        }
        let bytes = postcard::to_stdvec(&record).map_err(|_| LogError::Disk(libc::EINVAL))?;
        let frame = frame::Unplaced::new(&bytes, inline).ok_or(LogError::Disk(libc::EFBIG))?;
        let (seq, segment, at) = self.commit.append(frame, need)?;
        Ok((seq, place::placed(record, segment, at)))
    }

    /// Waits until all up to `seq` is durable; concurrent callers share a flush.
    ///
    /// # Errors
    /// `Disk`, for ever, once a flush failed (for what was not durable before).
    pub async fn flushed(&self, seq: Seq) -> Result<(), LogError> {
        self.commit.flushed(seq).await
    }

    /// Starts a new segment and answers its number: what is appended from now on lies there.
    #[cfg(test)]
    pub(crate) fn rotate(&self) -> Result<FileNo, LogError> {
        self.commit.rotate()
    }

    /// Removes all segments before `segment` (never the current one). The caller has made sure
    /// that nothing in them is needed any more and that what replaces them is flushed. Blocking.
    ///
    /// # Errors
    /// `Disk`.
    pub fn drop_before(&self, segment: FileNo) -> Result<(), LogError> {
        self.commit.drop_before(segment)
    }

    /// The segments before the current one, oldest first.
    pub fn closed(&self) -> Vec<Closed> {
        self.commit.closed()
    }

    /// Bytes of all segments in use.
    pub fn size(&self) -> u64 {
        self.commit.size()
    }

    /// This spool's identity.
    pub fn mount_id(&self) -> MountId {
        self.mount
    }

    /// The Cognito identity with whose credentials what is in here is sent, as far as it is known.
    #[must_use]
    pub fn identity(&self) -> Option<Arc<str>> {
        self.learnt.lock().identity.clone()
    }

    /// The bucket's region, if it was learnt from it.
    #[must_use]
    pub fn region(&self) -> Option<Arc<str>> {
        self.learnt.lock().region.clone()
    }

    /// Binds the spool to `identity`, durably once this answers; where there is no room for it, only until
    /// the end of this run: what would make room is sent with it. Blocking.
    ///
    /// # Errors
    /// `Disk`; it is bound as before then, until the next start at least.
    pub fn bind_to(&self, identity: &str) -> Result<(), LogError> {
        self.note(&|learnt| learnt.identity = Some(identity.into()))
    }

    /// Notes the bucket's region, as `bind_to` does whose it is. Blocking.
    ///
    /// # Errors
    /// `Disk`; it is as before then, until the next start at least.
    pub fn learn_region(&self, region: &str) -> Result<(), LogError> {
        self.note(&|learnt| learnt.region = Some(region.into()))
    }

    fn note(&self, set: &dyn Fn(&mut Learnt)) -> Result<(), LogError> {
        let _one = self.binding.lock();
        let mut learnt = self.learnt.lock().clone();
        set(&mut learnt);
        match bind::note(self.spool.root(), &learnt) {
            Err(LogError::Full) => {
                tracing::warn!(
                    "no room on the device to note whose the credentials are and where the bucket is"
                );
            }
            done => done?,
        }
        *self.learnt.lock() = learnt;
        Ok(())
    }

    /// The data files (and the segments, for reading).
    pub fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    /// The disk it is on, which counts the flushes.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// What was found unreadable and set aside, at this start or an earlier one, in words.
    pub fn set_aside(&self) -> Vec<String> {
        let mut told = self.notes.clone();
        told.extend(self.spool.kept_aside().into_iter().map(|kept| kept.told));
        told
    }
}

#[cfg(test)]
mod tests;
