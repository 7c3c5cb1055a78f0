//! A spool that is not mounted, or that somebody else has: what a start would find in it.
//!
//! Invariant: the disk is only read. What the records mean is said by `fold` and `recover`, as
//! ever.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::disk;
use crate::log::{Binding, LogError, Reading};
use crate::types::{Attrs, Base, FileNo, MountId, RelKey, Want};

use super::fold::State;
use super::memory::Memory;
use super::pending::{Pending, PendingMap};
use super::{now, recover};

/// What is in a spool.
#[derive(Debug)]
pub struct Inspection {
    reading: Reading,
    state: State,
    unclosed: Vec<Unclosed>,
    lost: Vec<String>,
}

/// Bytes that were neither closed nor fsynced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclosed {
    /// The name they were written for, if that is known.
    pub name: Option<String>,
    /// The data file.
    pub file: FileNo,
    /// Bytes of it.
    pub len: u64,
    /// Where it is.
    pub place: Place,
}

/// Where bytes are that were never closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Set aside by a start.
    Partial,
    /// Where it was written: there was no start since.
    Data,
}

impl Inspection {
    /// Looks at the spool in the folder `path`. Blocking.
    ///
    /// # Errors
    /// `Newer`; of the disk.
    pub fn of(path: &Path) -> Result<Self, LogError> {
        let (reading, records) = Reading::of(path)?;
        let mut state = State::new(Memory::at_rest(&path.join("memory")));
        let now = now();
        for (seq, record) in records {
            state.apply(seq, record, now);
        }
        let kept = reading.partials()?.into_iter().map(|kept| Unclosed {
            name: kept.name.filter(|name| !name.is_empty()),
            file: kept.file,
            len: kept.len,
            place: Place::Partial,
        });
        let mut unclosed: Vec<_> = kept.collect();
        let mut lost = Vec::new();
        // What a daemon has open is not left behind.
        if reading.in_use().is_none() {
            let files = reading.data_files()?;
            let files = files.iter().map(|seen| (seen.file, seen.len)).collect();
            let left = recover::left(&state, files);
            for left in left.into_iter().filter(|left| left.is_unsealed) {
                if unclosed.iter().all(|known| known.file != left.file) {
                    unclosed.push(Unclosed {
                        len: reading.open(left.file)?.len()?,
                        name: Some(left.name).filter(|name| !name.is_empty()),
                        file: left.file,
                        place: Place::Data,
                    });
                }
            }
            let open = state.pending.in_order();
            let open = open.filter(|(_, entry)| matches!(entry.want, Want::Open { .. }));
            lost.extend(open.map(|(key, _)| key.to_string()));
            lost.retain(|name| unclosed.iter().all(|kept| kept.name.as_ref() != Some(name)));
        }
        Ok(Self {
            reading,
            state,
            unclosed,
            lost,
        })
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.reading.path()
    }

    /// Whose it is, if it says so.
    #[must_use]
    pub fn binding(&self) -> Option<&Binding> {
        self.reading.binding().map(|(binding, _)| binding)
    }

    /// With whose credentials what is in it is sent, if that is known.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        self.reading.identity()
    }

    /// Whether a process has it, and which, as far as it says.
    #[must_use]
    pub fn in_use(&self) -> Option<Option<u32>> {
        self.reading.in_use()
    }

    /// What is wanted and not yet so.
    #[must_use]
    pub fn pending(&self) -> &PendingMap {
        &self.state.pending
    }

    /// What was written beside somebody else's version and is unsent.
    #[must_use]
    pub fn conflicts(&self) -> Vec<&RelKey> {
        let mount = self.reading.binding().map(|(_, mount)| mount);
        mount.map_or(Vec::new(), |mount: MountId| {
            self.state.pending.conflicts(mount)
        })
    }

    /// Bytes of files that nobody closed.
    #[must_use]
    pub fn unclosed(&self) -> &[Unclosed] {
        &self.unclosed
    }

    /// Names that were made and neither closed nor fsynced, with none of their bytes on the device.
    #[must_use]
    pub fn lost(&self) -> &[String] {
        &self.lost
    }

    /// How long the oldest change has waited at least: the log keeps no times, its files do.
    #[must_use]
    pub fn oldest(&self, now: SystemTime) -> Option<Duration> {
        let waiting =
            self.state.pending.in_order().filter(|(_, entry)| {
                entry.dead.is_none() && !matches!(entry.want, Want::Open { .. })
            });
        let ages = waiting.map(|(_, entry)| {
            let written = self.reading.written(entry.position)?;
            now.duration_since(written).ok()
        });
        ages.max().map(Option::unwrap_or_default)
    }

    /// The log as it lies there.
    #[must_use]
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The attributes of what is wanted at `key`, filled from what is remembered of the version
    /// it was built on.
    #[must_use]
    pub fn attrs(&self, key: &RelKey, entry: &Pending) -> Option<Attrs> {
        let attrs = entry.generation()?.attrs.clone();
        let base = match &entry.base {
            Base::Version(etag) => self.state.memory.get(key, etag),
            Base::Absent => None,
        };
        Some(match base {
            Some(base) => attrs.over(&base),
            None => attrs,
        })
    }

    /// The bytes of a file of the spool, for reading.
    ///
    /// # Errors
    /// `NotFound` if it was sent meanwhile; of the disk.
    pub fn open(&self, file: FileNo) -> io::Result<disk::File> {
        self.reading.open(file)
    }

    /// The bytes of what was never closed, for reading.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_unclosed(&self, unclosed: &Unclosed) -> io::Result<disk::File> {
        match unclosed.place {
            Place::Partial => self.reading.open_partial(unclosed.file),
            Place::Data => self.reading.open(unclosed.file),
        }
    }
}

/// Whether `path` looks like the folder of a spool.
#[must_use]
pub fn is_spool(path: &Path) -> bool {
    Reading::is_spool(path)
}
