//! What is known of the bucket, kept over a restart: so that `ls` shows, without a link, what it
//! showed before. Losing it costs answers while the bucket is silent, never data.
//!
//! On disk: a file of records framed as those of the attribute memory, of `Kept`: whose listings
//! these are, then what changed, in the order in which it became known. Appended once a directory was
//! listed, before the log drops what the bucket acknowledged, and at the end; where nothing changed
//! nothing is written. Reading stops at the first record that is not whole. A file of which too much
//! is outdated is written anew beside and renamed.
//!
//! Invariants:
//! - what is read back is as old as can be: asked for again wherever the bucket answers;
//! - at most `room` bytes are in use, and twice that and `SLACK` on the disk; a directory that does
//!   not fit is left out, those not listed in this run go before one that was;
//! - lock order: the listings < the tree. Nothing is written under the tree's lock.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::fold::State;
use super::memory::{frame, unframe};
use super::remote::{Dir, Fact, Known, Remote, Slot};
use crate::log::{self, Binding};
use crate::types::{ETag, Name, RelPath, Seq};

/// Of the file; another one is like none.
const VERSION: u32 = 1;
/// About 40,000 names (250 B of memory each).
const ROOM_MAX: u64 = 3 << 20;
/// Outdated records below this are not worth writing anew.
const SLACK: u64 = 256 << 10;
/// Names told by one record.
const BATCH: usize = 1000;

/// A record.
#[derive(Debug, Serialize, Deserialize)]
enum Kept {
    /// The first: of which bucket it tells.
    Of(u32, Binding),
    /// A directory.
    Names(Told),
    /// A directory of which nothing is told any more.
    Left(String),
    /// All that the bucket acknowledged up to this position of the log is in the records so far.
    AsOf(Seq),
}

/// What is told of a directory.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    path: String,
    /// What was told of it before is void.
    anew: bool,
    /// All of its names are known.
    is_listed: bool,
    gone: Vec<String>,
    names: Vec<(String, Fact<Version>, Fact<Fact<Version>>)>,
}

type Version = (ETag, u64, i64);

/// The file.
#[derive(Debug)]
pub(super) struct Listings {
    path: PathBuf,
    binding: Binding,
    file: Option<File>,
    len: u64,
    room: u64,
    /// Since then directories are listed in this run.
    since: Instant,
    /// About how many bytes are in use for which directory.
    told: HashMap<RelPath, u64>,
    /// For which there is no room in this run.
    left_out: HashSet<RelPath>,
}

/// What was read back.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) remote: Remote,
    /// Results up to there are in it.
    pub(super) as_of: Seq,
}

impl Listings {
    /// Reads what is there; a file that cannot be read is like none. Nothing is written.
    #[must_use]
    pub(super) fn open(
        path: &Path,
        config: &log::Config,
        now: Instant,
        ttl: Duration,
    ) -> (Self, Before) {
        let mut listings = Self {
            path: path.into(),
            binding: config.binding.clone(),
            file: None,
            len: 0,
            room: (config.spool_max / 64).min(ROOM_MAX),
            since: now,
            told: HashMap::new(),
            left_out: HashSet::new(),
        };
        let old = now.checked_sub(ttl.saturating_add(Duration::from_secs(1)));
        let before = match (std::fs::read(path), old) {
            (Ok(bytes), Some(old)) => listings.load(&bytes, old),
            (Ok(_), None) => Before::default(),
            (Err(error), _) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("kept listings unreadable, starting anew: {error}");
                }
                Before::default()
            }
        };
        (listings, before)
    }

    /// Writes what is not written yet. Blocking.
    ///
    /// # Errors
    /// Of the disk; the next call writes all of it.
    pub(super) fn keep(&mut self, state: &Mutex<State>) -> io::Result<()> {
        if state.lock().remote.untold().is_none() {
            return Ok(());
        }
        let kept = match self.file.take() {
            Some(file) if self.len <= 2 * self.used() + SLACK => self.tell_all(file, state),
            _ => self.write_anew(state),
        };
        self.file = Some(kept?);
        Ok(())
    }

    /// Forgets all, also on the disk.
    ///
    /// # Errors
    /// Of the disk.
    pub(super) fn forget_all(&mut self) -> io::Result<()> {
        (self.file, self.len) = (None, 0);
        self.told.clear();
        self.left_out.clear();
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.told.values().sum()
    }

    fn write_anew(&mut self, state: &Mutex<State>) -> io::Result<File> {
        let fresh = self.path.with_extension("new");
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        self.len = 0;
        self.told.clear();
        state.lock().remote.tell_anew();
        let file = self.write(file, &Kept::Of(VERSION, self.binding.clone()))?;
        let file = self.tell_all(file, state)?;
        file.sync_data()?;
        std::fs::rename(&fresh, &self.path)?;
        Ok(file)
    }

    fn write(&mut self, mut file: File, record: &Kept) -> io::Result<File> {
        let payload = postcard::to_stdvec(record).map_err(io::Error::other)?;
        let frame = frame(&payload);
        file.write_all(&frame)?;
        self.len += frame.len() as u64;
        Ok(file)
    }

    fn tell_all(&mut self, mut file: File, state: &Mutex<State>) -> io::Result<File> {
        loop {
            let record = {
                let mut state = state.lock();
                match state.remote.untold().cloned() {
                    Some(path) => self.next(&mut state.remote, &path),
                    None => Some(Kept::AsOf(state.last)),
                }
            };
            let is_last = matches!(record, Some(Kept::AsOf(_)));
            if let Some(record) = record {
                file = self.write(file, &record)?;
            }
            if is_last {
                return Ok(file);
            }
        }
    }

    /// What is to be written next of the directory `path`; nothing, if it is left out.
    fn next(&mut self, remote: &mut Remote, path: &RelPath) -> Option<Kept> {
        if self.left_out.contains(path) {
            remote.is_told(path);
            return None;
        }
        let Some(cost) = remote.dir(path).map(|dir| cost(path, dir)) else {
            remote.is_told(path);
            return self.told.remove(path).map(|_| Kept::Left(path.to_string()));
        };
        let others = self.used() - self.told.get(path).copied().unwrap_or_default();
        if others + cost > self.room {
            return self.make_room(remote, path, cost);
        }
        self.told.insert(path.clone(), cost);
        let part = remote.tell(path, BATCH)?;
        let names = part.names.into_iter().map(|(name, file, dir)| {
            let dir = dir.map(|marker| marker.map(|known| version(*known)));
            (name.to_string(), file.map(version), dir)
        });
        Some(Kept::Names(Told {
            path: path.to_string(),
            anew: part.anew,
            is_listed: part.is_listed,
            names: names.collect(),
            gone: part.gone.iter().map(Name::to_string).collect(),
        }))
    }

    /// A directory goes for `path`: one that was not listed in this run, or that one itself.
    fn make_room(&mut self, remote: &mut Remote, path: &RelPath, cost: u64) -> Option<Kept> {
        let is_old = |other: &&RelPath| {
            let listed = remote.dir(other).and_then(|dir| dir.listed);
            *other != path && listed.is_none_or(|listed| listed < self.since)
        };
        let old = self.told.keys().find(is_old).cloned();
        if let Some(old) = old.filter(|_| cost <= self.room) {
            self.told.remove(&old);
            remote.leave_out(&old);
            return Some(Kept::Left(old.to_string()));
        }
        tracing::debug!(names = %path, "a listing is too large to be kept over a restart");
        remote.is_told(path);
        self.left_out.insert(path.clone());
        self.told.remove(path).map(|_| Kept::Left(path.to_string()))
    }

    fn load(&mut self, bytes: &[u8], at: Instant) -> Before {
        let (mut before, mut rest) = (Before::default(), bytes);
        let mut records = 0;
        while let Some((payload, more)) = unframe(rest) {
            let Ok(record) = postcard::from_bytes::<Kept>(payload) else {
                break;
            };
            let is_first = records == 0;
            match record {
                Kept::Of(version, binding)
                    if is_first && version == VERSION && binding == self.binding => {}
                _ if is_first => break,
                Kept::Of(..) => break,
                Kept::Names(told) => {
                    let Some(path) = read(told, &mut before.remote, at) else {
                        break;
                    };
                    self.told.insert(path, 0);
                }
                Kept::Left(path) => {
                    let Ok(path) = RelPath::new(&path) else { break };
                    before.remote.drop_kept(&path);
                    self.told.remove(&path);
                }
                Kept::AsOf(seq) => before.as_of = seq,
            }
            records += 1;
            rest = more;
        }
        for (path, bytes) in &mut self.told {
            *bytes = before.remote.dir(path).map_or(0, |dir| cost(path, dir));
        }
        self.len = (bytes.len() - rest.len()) as u64;
        if records > 0 {
            let file = self.continued();
            let warn = |error: &io::Error| {
                tracing::warn!("kept listings cannot be written, starting anew: {error}");
            };
            self.file = file.inspect_err(warn).ok();
        }
        before
    }

    /// The file, ready for another record behind those that are whole.
    fn continued(&self) -> io::Result<File> {
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        file.set_len(self.len)?;
        file.seek(SeekFrom::Start(self.len))?;
        Ok(file)
    }
}

/// About the bytes of a directory's records.
fn cost(path: &RelPath, dir: &Dir) -> u64 {
    let of_name = |(name, slot): (&Name, &Slot)| {
        let etag = slot
            .file
            .present()
            .map_or(0, |known| known.etag.as_str().len());
        name.as_str().len() + etag + 20
    };
    let names: usize = dir.names.iter().map(of_name).sum();
    (path.as_str().len() + 30 + names) as u64
}

fn version(known: Known) -> Version {
    (known.etag, known.size, known.modified)
}

fn known((etag, size, modified): Version) -> Known {
    Known {
        etag,
        size,
        modified,
        by: None,
    }
}

fn read(told: Told, remote: &mut Remote, at: Instant) -> Option<RelPath> {
    let path = RelPath::new(&told.path).ok()?;
    if told.anew {
        remote.drop_kept(&path);
    }
    for name in &told.gone {
        remote.drop_kept_name(&path, &Name::new(name).ok()?);
    }
    for (name, file, dir) in told.names {
        let name = Name::new(&name).ok()?;
        let slot = Slot {
            file: file.map(known),
            dir: dir.map(|marker| marker.map(|version| Box::new(known(version)))),
            checked: at,
            told: true,
        };
        remote.put_kept(&path, name, slot);
    }
    remote.put_listed(&path, told.is_listed.then_some(at));
    Some(path)
}

#[cfg(test)]
mod tests;
