//! Opening a spool: lock, bind, read the log back, set the unreadable aside, go on behind it.
//!
//! Invariants:
//! - each step can be cut off and done again. The torn tail is copied and flushed before it is cut;
//!   it is cut and flushed before a new segment says that all before it is settled; an empty segment
//!   goes only after the new one has taken over its first position;
//! - what was appended and not known to be flushed may be read back from the kernel's memory after
//!   a flush of it failed, and no later flush would say so. Where that can be (the last run ended
//!   unclean since the machine was started), such a segment is written anew, its frames checked,
//!   and takes the old one's name, before anything in it passes for durable.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::bind::{self, Bound, LastRun};
use super::commit::{Closed, Commit, LEAD, Start};
use super::recover::{Event, Survey, Unreadable};
use super::room::Room;
use super::spool::{Folders, Shared, Spool, file_name, number_of};
use super::{Config, Log, LogError, Record, place};
use crate::disk::{Dir, Disk};
use crate::seeded::{self, Bug};
use crate::types::{FileNo, Seq};

const CAPACITY_MAX: u64 = 4 << 20;
const CAPACITY_MIN: u64 = 64 << 10;
/// Where only a note is made, what is there is not capped.
const UNCAPPED: u64 = 1 << 60;

pub(super) fn open(
    disk: Disk,
    config: &Config,
    replay: &mut dyn FnMut(Seq, Record),
) -> Result<Log, LogError> {
    open_on(disk, config, bind::machine_id().as_deref(), replay)
}

/// Of the spool in `dir`, as what it is bound to.
pub(super) fn config_of(dir: &Path) -> Result<Config, LogError> {
    let owner = bind::of(&Dir::as_it_is(&Disk::default(), dir)?)?.ok_or_else(|| {
        let dir = dir.display();
        LogError::Foreign(format!("{dir} does not say whose it is: mount it once"))
    })?;
    Ok(Config {
        dir: dir.to_path_buf(),
        binding: owner.binding,
        spool_max: UNCAPPED,
        disk_reserve: 0,
    })
}

/// Opens a spool that stays its machine's, whichever this one is: so that its stamps stay its own.
pub(super) fn reopen(
    config: &Config,
    replay: &mut dyn FnMut(Seq, Record),
) -> Result<Log, LogError> {
    open_on(Disk::default(), config, None, replay)
}

fn open_on(
    disk: Disk,
    config: &Config,
    machine: Option<&str>,
    replay: &mut dyn FnMut(Seq, Record),
) -> Result<Log, LogError> {
    let (folders, lock, last_run) = bind::open(&disk, &config.dir)?;
    let bound = bind::bind(&folders, &config.binding, machine)?;
    let capacity = (config.spool_max / 32).clamp(CAPACITY_MIN, CAPACITY_MAX) / 4096 * 4096;
    let room = Room::new(
        folders.root.private_below("data")?,
        config.spool_max,
        capacity,
        config.disk_reserve,
    );
    let shared = Arc::new(Shared::new(folders, room, lock));
    let spool = Spool::new(Arc::clone(&shared))?;
    let mut found = read_back(&shared, &bound.survey, last_run, replay)?;
    shared.room.is_opened();
    let Bound {
        mount,
        salt,
        learnt,
        survey,
        mut notes,
    } = bound;
    notes.append(&mut found.notes);
    let start = Start {
        mount,
        salt,
        first: found.next,
        closed: found.used,
        blank: survey.blank,
    };
    let commit = Commit::start(&shared, start)?;
    for number in found.empty.iter().chain(&survey.unfinished) {
        shared.folders.log.remove(&file_name(*number))?;
    }
    kept_aside(&shared.folders.aside)?;
    if let Err(error) = spool.fill_pool() {
        tracing::warn!(%error, "data files cannot be made in advance");
    }
    Ok(Log {
        commit,
        spool: Arc::new(spool),
        disk,
        mount,
        learnt: Mutex::new(learnt),
        binding: Mutex::new(()),
        notes,
    })
}

#[derive(Debug, Default)]
struct ReadBack {
    /// Segments that stay.
    used: Vec<Closed>,
    /// Segments that hold nothing.
    empty: Vec<FileNo>,
    /// The next position to give out.
    next: Seq,
    notes: Vec<String>,
}

fn read_back(
    shared: &Shared,
    survey: &Survey,
    last_run: LastRun,
    replay: &mut dyn FnMut(Seq, Record),
) -> Result<ReadBack, LogError> {
    let Folders { log, aside, .. } = &shared.folders;
    let mut found = ReadBack::default();
    let mut ends = Vec::new();
    for name in log.names()?.iter().filter(|name| name.ends_with(".tmp")) {
        log.remove(name)?;
    }
    for number in survey
        .segments
        .iter()
        .chain(&survey.blank)
        .chain(&survey.unfinished)
    {
        shared.number_is_taken(*number);
    }
    let last = survey.walk(log, &mut |event| {
        match event {
            Event::Record(seq, record) => {
                shared.number_is_taken(place::highest_file(&record));
                replay(seq, record);
            }
            Event::Damaged(bytes) => keep(aside, &bytes, "damaged")?,
            Event::Torn(bytes) => keep(aside, &bytes, "torn")?,
            Event::Missing(after, before) => found.notes.push(is_missing(&(after, before))),
            Event::End {
                segment,
                bytes,
                is_used,
                is_fresh,
                end,
            } => {
                let (number, len) = (segment, bytes.len() as u64);
                let is_doubtful = last_run == LastRun::Unclean;
                if is_used && is_fresh && is_doubtful && !seeded::is(Bug::FailedFlushNotMended) {
                    log.replace(&file_name(segment), bytes)?;
                }
                ends.push((Closed { number, end, len }, is_used));
            }
        }
        Ok(())
    })?;
    for (closed, is_used) in ends {
        let segment = log.open_to_write(&file_name(closed.number))?;
        if segment.len()? > closed.len {
            segment.truncate(closed.len)?;
            segment.flush()?;
        }
        if is_used {
            shared.segment_begins(closed.number);
            shared.room.take_anyway(closed.len);
            found.used.push(closed);
        } else {
            found.empty.push(closed.number);
        }
    }
    found.next = Seq(if survey.segments.is_empty() {
        1
    } else if seeded::is(Bug::PositionGivenTwice) {
        last.0 + 1
    } else {
        last.0.saturating_add(LEAD + 1)
    });
    Ok(found)
}

/// That positions are missing, in words.
pub(super) fn is_missing((after, before): &(Seq, Seq)) -> String {
    let (after, before) = (after.0, before.0);
    format!("the log has nothing between positions {after} and {before}")
}

/// What `aside/` keeps bytes of the log as.
pub(super) fn aside_name(bytes: &Unreadable<'_>, kind: &str) -> String {
    let segment = file_name(bytes.segment);
    format!("{segment}-{:x}-{:x}.{kind}", bytes.at, bytes.bytes.len())
}

/// Copies bytes to `aside/`, durably. Damage is met at every start: its copy is made once. A torn
/// tail is met again only if it could not be cut, so nobody knows whether its copy is durable.
fn keep(aside: &Dir, bytes: &Unreadable<'_>, kind: &str) -> io::Result<()> {
    let name = aside_name(bytes, kind);
    match aside.open(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(_) if kind == "damaged" => Ok(()),
        _ => aside.replace(&name, bytes.bytes),
    }
}

/// Bytes of the log that `aside/` keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAside {
    /// The file's name there.
    pub name: String,
    /// What it is, in words.
    pub told: String,
}

pub(super) fn kept_aside(aside: &Dir) -> io::Result<Vec<KeptAside>> {
    let names = aside.names()?.into_iter();
    let told = names.filter_map(|name| {
        let path = aside.path(&name);
        let told = format!("{}; kept as {}", what_it_is(&name)?, path.display());
        Some(KeptAside { name, told })
    });
    Ok(told.collect())
}

/// What `aside/` keeps as `name`, in words.
pub(super) fn what_it_is(name: &str) -> Option<String> {
    let (place, kind) = name.rsplit_once('.')?;
    let mut parts = place.split('-');
    let segment = number_of(parts.next()?)?.0;
    let at = u64::from_str_radix(parts.next()?, 16).ok()?;
    let len = u64::from_str_radix(parts.next()?, 16).ok()?;
    let why = match kind {
        "torn" => "the end of what was being written when the power went",
        "damaged" => "damaged",
        _ => return None,
    };
    Some(format!(
        "segment {segment} of the log, {len} bytes at {at}: {why}"
    ))
}
