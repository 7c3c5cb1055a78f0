//! A spool read from outside, as it lies there: nothing is written, made or kept locked, so it can
//! be one of another machine, on a card that is read-only, or one that a daemon is using.
//!
//! Invariants:
//! - what is read is what the next start would read (`Survey::walk`), at one moment of a log that
//!   may go on meanwhile: it is read anew until no segment came or went while it was read;
//! - nothing that is read is trusted: it may be anybody's card.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::boot::{self, KeptAside};
use super::frame::Salt;
use super::recover::{Event, Survey};
use super::spool::{Kept, file_name, kept_partials, number_of};
use super::{Binding, LogError, Record, bind};
use crate::disk::{self, Dir, Disk};
use crate::types::{FileNo, MountId, Seq};

/// A log that is written to is read anew so often.
const TRIES: usize = 20;

/// A spool as it lies there.
#[derive(Debug)]
pub struct Reading {
    path: PathBuf,
    log: Option<Dir>,
    data: Option<Dir>,
    aside: Option<Dir>,
    partial: Option<Dir>,
    owner: Option<bind::Owner>,
    /// The process that has it, as far as it says.
    in_use: Option<Option<u32>>,
    segments: Vec<Segment>,
    unreadable: Vec<Piece>,
    /// Positions between which there is nothing.
    missing: Vec<(Seq, Seq)>,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    number: FileNo,
    /// Behind its last position.
    end: Seq,
    /// When it was written to last.
    modified: SystemTime,
}

/// Bytes of the log that are no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What the next start keeps it as.
    pub name: String,
    /// In which segment.
    pub segment: FileNo,
    /// Where in it.
    pub at: u64,
    /// How many bytes.
    pub len: u64,
}

/// A data file.
#[derive(Clone, Copy, Debug)]
pub struct DataSeen {
    /// Its number.
    pub file: FileNo,
    /// Its length in bytes.
    pub len: u64,
    /// When it was written to last.
    pub modified: SystemTime,
}

impl Reading {
    /// Whether `path` looks like the folder of a spool.
    #[must_use]
    pub fn is_spool(path: &Path) -> bool {
        let is_dir = |name: &str| path.join(name).is_dir();
        is_dir("log") && (path.join(bind::FILE).is_file() || is_dir("data"))
    }

    /// Reads the spool in `path`, and its records in order. Blocking.
    ///
    /// # Errors
    /// `Newer`; `Busy` if it changes faster than it can be read; of the disk.
    pub fn of(path: &Path) -> Result<(Self, Vec<(Seq, Record)>), LogError> {
        let root = Dir::as_it_is(&Disk::default(), path)?;
        let below = |name: &str| found(root.below(name));
        let owner = bind::of(&root)?;
        let salt = owner.as_ref().map(|owner| owner.salt);
        let in_use = match found(root.is_locked(bind::LOCK))? {
            Some(true) => Some(bind::pid(&root)?),
            Some(false) | None => None,
        };
        let mut reading = Self {
            path: path.to_path_buf(),
            log: below("log")?,
            data: below("data")?,
            aside: below("aside")?,
            partial: below("partial")?,
            owner,
            in_use,
            segments: Vec::new(),
            unreadable: Vec::new(),
            missing: Vec::new(),
        };
        let records = reading.read(salt)?;
        Ok((reading, records))
    }

    fn read(&mut self, salt: Option<Salt>) -> Result<Vec<(Seq, Record)>, LogError> {
        let Some(log) = self.log.take() else {
            return Ok(Vec::new());
        };
        let mut why = LogError::Busy(self.in_use.flatten());
        for _ in 0..TRIES {
            let before = log.names()?;
            let once = self.read_once(&log, salt);
            let is_as_it_was = log.names()? == before;
            match once {
                Ok(records) if is_as_it_was => {
                    self.log = Some(log);
                    return Ok(records);
                }
                Ok(_) => {}
                // It was removed, or cut where it is full, while it was read.
                Err(error @ LogError::Disk(_)) if !is_as_it_was || self.in_use.is_some() => {
                    why = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(why)
    }

    fn read_once(&mut self, log: &Dir, salt: Option<Salt>) -> Result<Vec<(Seq, Record)>, LogError> {
        let survey = Survey::of(log, salt)?;
        let (mut records, mut ends) = (Vec::new(), Vec::new());
        let (mut unreadable, mut missing) = (Vec::new(), Vec::new());
        // The end of a log that is being written to is not torn, but not yet whole.
        let keeps_torn = self.in_use.is_none();
        survey.walk(log, &mut |event| {
            match event {
                Event::Record(seq, record) => records.push((seq, record)),
                Event::Damaged(bytes) => unreadable.push(Piece::of(&bytes, "damaged")),
                Event::Torn(bytes) if keeps_torn => unreadable.push(Piece::of(&bytes, "torn")),
                Event::Torn(_) => {}
                Event::Missing(after, before) => missing.push((after, before)),
                Event::End { segment, end, .. } => ends.push((segment, end)),
            }
            Ok(())
        })?;
        (self.unreadable, self.missing) = (unreadable, missing);
        self.segments.clear();
        for (number, end) in ends {
            let modified = log.open(&file_name(number))?.modified()?;
            self.segments.push(Segment {
                number,
                end,
                modified,
            });
        }
        Ok(records)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is and its identity, if it says so.
    #[must_use]
    pub fn binding(&self) -> Option<(&Binding, MountId)> {
        let owner = self.owner.as_ref()?;
        Some((&owner.binding, owner.mount))
    }

    /// With whose credentials what is in it is sent, if that is known.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        self.owner.as_ref()?.identity.as_deref()
    }

    /// Whether a process has it, and which, as far as it says.
    #[must_use]
    pub fn in_use(&self) -> Option<Option<u32>> {
        self.in_use
    }

    /// What is in the log, no record, and not under `aside/` yet.
    ///
    /// # Errors
    /// Of the disk.
    pub fn unreadable(&self) -> io::Result<Vec<Piece>> {
        let kept = self.aside()?;
        let is_kept = |piece: &&Piece| kept.iter().any(|kept| kept.name == piece.name);
        let new = self.unreadable.iter().filter(|piece| !is_kept(piece));
        Ok(new.cloned().collect())
    }

    /// All that cannot be read, kept aside or not yet, in words.
    ///
    /// # Errors
    /// Of the disk.
    pub fn set_aside(&self) -> io::Result<Vec<String>> {
        let mut told: Vec<_> = self.aside()?.into_iter().map(|kept| kept.told).collect();
        let new = self.unreadable()?;
        told.extend(new.iter().filter_map(|piece| boot::what_it_is(&piece.name)));
        told.extend(self.missing.iter().map(boot::is_missing));
        Ok(told)
    }

    /// The log was written to at this time, or later, when it got to `position`.
    #[must_use]
    pub fn written(&self, position: Seq) -> Option<SystemTime> {
        let at = self
            .segments
            .partition_point(|segment| segment.end <= position);
        self.segments.get(at).map(|segment| segment.modified)
    }

    /// A data file or segment, for reading.
    ///
    /// # Errors
    /// `NotFound`; of the disk.
    pub fn open(&self, file: FileNo) -> io::Result<disk::File> {
        let is_segment = self.segments.iter().any(|segment| segment.number == file);
        let folder = if is_segment { &self.log } else { &self.data };
        opened(folder.as_ref(), &file_name(file))
    }

    /// A partial, for reading.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_partial(&self, file: FileNo) -> io::Result<disk::File> {
        opened(self.partial.as_ref(), &file_name(file))
    }

    /// What is kept of the log under `name`, for reading.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_aside(&self, name: &str) -> io::Result<disk::File> {
        opened(self.aside.as_ref(), name)
    }

    /// The data files that hold anything.
    ///
    /// # Errors
    /// Of the disk.
    pub fn data_files(&self) -> io::Result<Vec<DataSeen>> {
        let Some(data) = &self.data else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        for file in data.names()?.iter().filter_map(|name| number_of(name)) {
            // One that was sent meanwhile is gone.
            if let Some(opened) = found(data.open(&file_name(file)))? {
                let (len, modified) = (opened.len()?, opened.modified()?);
                if len > 0 {
                    all.push(DataSeen {
                        file,
                        len,
                        modified,
                    });
                }
            }
        }
        Ok(all)
    }

    /// What is kept under `partial/`.
    ///
    /// # Errors
    /// Of the disk.
    pub fn partials(&self) -> io::Result<Vec<Kept>> {
        self.partial.as_ref().map_or(Ok(Vec::new()), kept_partials)
    }

    /// What is kept under `aside/`.
    ///
    /// # Errors
    /// Of the disk.
    pub fn aside(&self) -> io::Result<Vec<KeptAside>> {
        self.aside.as_ref().map_or(Ok(Vec::new()), boot::kept_aside)
    }

    /// Bytes it occupies.
    ///
    /// # Errors
    /// Of the disk.
    pub fn occupied(&self) -> io::Result<u64> {
        let mut sum = 0;
        let folders = [&self.log, &self.data, &self.aside, &self.partial];
        for folder in folders.into_iter().flatten() {
            for name in folder.names()? {
                if let Some(file) = found(folder.open(&name))? {
                    sum += file.occupied()?;
                }
            }
        }
        Ok(sum)
    }
}

impl Piece {
    fn of(bytes: &super::recover::Unreadable<'_>, kind: &str) -> Self {
        Self {
            name: boot::aside_name(bytes, kind),
            segment: bytes.segment,
            at: bytes.at,
            len: bytes.bytes.len() as u64,
        }
    }
}

fn opened(folder: Option<&Dir>, name: &str) -> io::Result<disk::File> {
    folder
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?
        .open(name)
}

/// `None` for what is not there.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
