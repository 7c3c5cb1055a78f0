//! Whose spool it is: the lock, the `binding` file, and what to do when it is somebody else's.
//!
//! `binding` is JSON, written whole before anything else is in the spool and replaced whole:
//! `{"version":2,"endpoint":..,"bucket":..,"prefix":..,"identity":TEXT|null,"mount":HEX,"salt":HEX,
//! "machine":HEX|null}`. `mount` and `salt` are random; `machine` is a checksum of the salt and
//! `/etc/machine-id`; `identity` (since version 2) is the Cognito identity of the credentials that what is
//! in the spool is sent with, not known before the first.
//!
//! `lock` is text: the daemon's pid, the kernel's boot id, and, once all that was appended is flushed
//! and nothing more will be, `clean`.
//!
//! Invariants:
//! - one daemon at a time has a spool: `lock` is locked (flock) while anything of it is alive;
//! - what is unsent is never sent to another bucket than the one it was written for: a spool that
//!   holds anything is refused for another binding, an empty one is bound anew;
//! - a copy on another machine gets another mount id, so that two devices never stamp alike. Our
//!   own echoes from before are strangers' then: a conflict copy at worst, nothing lost.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::frame::Salt;
use super::recover::{Event, Survey};
use super::spool::{Folders, file_name, number_of};
use super::{Binding, LogError, Record};
use crate::disk::{self, Dir, Disk};
use crate::seeded::{self, Bug};
use crate::types::{Base, MountId, RelKey, Seq, Want};

const VERSION: u32 = 2;
pub(super) const FILE: &str = "binding";
pub(super) const LOCK: &str = "lock";
const CLEAN: &str = "clean";

/// A spool that is ours.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) mount: MountId,
    pub(super) salt: Salt,
    /// What was learnt before.
    pub(super) learnt: Learnt,
    /// What is in its log.
    pub(super) survey: Survey,
    /// What the user should know.
    pub(super) notes: Vec<String>,
}

/// What nobody says at a mount, and a start without a link has to know.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Learnt {
    /// With whose credentials it is sent.
    #[serde(default)]
    pub(super) identity: Option<Arc<str>>,
    /// The bucket's region.
    #[serde(default)]
    pub(super) region: Option<Arc<str>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OnDisk {
    version: u32,
    #[serde(flatten)]
    binding: Binding,
    #[serde(flatten)]
    learnt: Learnt,
    mount: String,
    salt: String,
    machine: Option<String>,
}

/// How the run before this one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastRun {
    /// All it appended was flushed; or the machine was started since, so that what is read is read
    /// from the device.
    Settled,
    /// Since the machine was started, with what was not flushed, or could not be.
    Unclean,
}

#[derive(Debug, Deserialize)]
struct Versioned {
    version: u32,
}

/// Opens the folders of the spool in `dir` and locks it.
pub(super) fn open(disk: &Disk, dir: &Path) -> Result<(Folders, disk::File, LastRun), LogError> {
    let root = Dir::private(disk, dir)?;
    let Some(lock) = root.lock(LOCK)? else {
        return Err(LogError::Busy(pid(&root)?));
    };
    let boot = boot_id();
    let last_run = last_run(&lock.read_all()?, &boot);
    lock.truncate(0)?;
    lock.write_all_at(format!("{}\n{boot}\n", std::process::id()).as_bytes(), 0)?;
    let folders = Folders {
        log: root.private_below("log")?,
        data: root.private_below("data")?,
        aside: root.private_below("aside")?,
        partial: root.private_below("partial")?,
        root,
    };
    folders.root.flush()?;
    Ok((folders, lock, last_run))
}

/// Who has the lock, as far as it says.
pub(super) fn pid(root: &Dir) -> std::io::Result<Option<u32>> {
    let text = root.read(LOCK)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().next().and_then(|pid| pid.parse().ok()))
}

fn last_run(lock: &[u8], boot: &str) -> LastRun {
    let text = String::from_utf8_lossy(lock);
    let mut lines = text.lines().skip(1);
    match (lines.next(), lines.next()) {
        (Some(before), _) if before != boot && !boot.is_empty() => LastRun::Settled,
        (_, Some(CLEAN)) => LastRun::Settled,
        _ => LastRun::Unclean,
    }
}

/// Notes in the lock that nothing was left unflushed.
pub(super) fn says_clean(lock: &disk::File) -> std::io::Result<()> {
    lock.write_all_at(format!("{CLEAN}\n").as_bytes(), lock.len()?)
}

/// What the kernel calls this start of the machine; empty where it does not say.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Makes sure that the spool is `wanted`'s on the machine called `machine`.
pub(super) fn bind(
    folders: &Folders,
    wanted: &Binding,
    machine: Option<&str>,
) -> Result<Bound, LogError> {
    let bound = read(&folders.root)?;
    let salt = bound
        .as_ref()
        .and_then(|bound| number(&bound.salt))
        .map(Salt);
    let survey = Survey::of(&folders.log, salt)?;
    let Some(bound) = bound else {
        return adopt(folders, wanted, machine, survey);
    };
    let (Some(mount), Some(salt)) = (number(&bound.mount), salt) else {
        return Err(unreadable(&folders.root));
    };
    if bound.binding != *wanted {
        let held = Held::of(folders, &survey)?;
        if !held.is_nothing() && !seeded::is(Bug::ForeignSpoolTaken) {
            return Err(LogError::Foreign(held.way_out(folders, &bound.binding)));
        }
        for number in survey.segments.iter().chain(&survey.blank) {
            folders.log.remove(&file_name(*number))?;
        }
        folders.log.flush()?;
        return fresh(folders, wanted, machine);
    }
    let mut notes = Vec::new();
    let mut mount = MountId(mount);
    let here = machine.map(|machine| machine_sum(salt, machine));
    if here.is_some() && bound.machine.is_some() && here != bound.machine {
        let new = MountId(random()?);
        notes.push(format!(
            "the spool was made on another machine as {mount}: it is {new} from now on"
        ));
        mount = new;
    }
    if !notes.is_empty() || (here.is_some() && bound.machine.is_none()) {
        let learnt = bound.learnt.clone();
        write(folders, wanted, learnt, (mount, salt), machine)?;
    }
    Ok(Bound {
        mount,
        salt,
        learnt: bound.learnt,
        survey,
        notes,
    })
}

/// The binding file is not there: a new spool, or one whose owner said it is `wanted`'s by
/// removing the file.
fn adopt(
    folders: &Folders,
    wanted: &Binding,
    machine: Option<&str>,
    survey: Survey,
) -> Result<Bound, LogError> {
    let Some((mount, salt)) = survey.identity else {
        let mut bound = fresh(folders, wanted, machine)?;
        bound.survey = survey;
        return Ok(bound);
    };
    write(folders, wanted, Learnt::default(), (mount, salt), machine)?;
    Ok(Bound {
        mount,
        salt,
        learnt: Learnt::default(),
        survey,
        notes: vec!["the spool had no binding: what is in it goes where it is mounted now".into()],
    })
}

fn fresh(folders: &Folders, wanted: &Binding, machine: Option<&str>) -> Result<Bound, LogError> {
    let (mount, salt) = (MountId(random()?), Salt(random()?));
    write(folders, wanted, Learnt::default(), (mount, salt), machine)?;
    Ok(Bound {
        mount,
        salt,
        learnt: Learnt::default(),
        survey: Survey::default(),
        notes: Vec::new(),
    })
}

/// Whose a spool is.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) binding: Binding,
    pub(super) identity: Option<Arc<str>>,
    pub(super) mount: MountId,
    pub(super) salt: Salt,
}

/// Whose the spool in `root` is; `None`: it does not say.
pub(super) fn of(root: &Dir) -> Result<Option<Owner>, LogError> {
    let Some(bound) = read(root)? else {
        return Ok(None);
    };
    let numbers = number(&bound.mount).zip(number(&bound.salt));
    let (mount, salt) = numbers.ok_or_else(|| unreadable(root))?;
    Ok(Some(Owner {
        binding: bound.binding,
        identity: bound.learnt.identity,
        mount: MountId(mount),
        salt: Salt(salt),
    }))
}

fn read(root: &Dir) -> Result<Option<OnDisk>, LogError> {
    let bytes = match root.read(FILE) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    match serde_json::from_slice::<Versioned>(&bytes) {
        Ok(Versioned { version }) if version > VERSION => return Err(LogError::Newer(version)),
        _ => {}
    }
    let read = serde_json::from_slice(&bytes).map_err(|_| unreadable(root))?;
    Ok(Some(read))
}

fn write(
    folders: &Folders,
    binding: &Binding,
    learnt: Learnt,
    (mount, salt): (MountId, Salt),
    machine: Option<&str>,
) -> Result<(), LogError> {
    let on_disk = OnDisk {
        version: VERSION,
        binding: binding.clone(),
        learnt,
        mount: mount.to_string(),
        salt: format!("{:016x}", salt.0),
        machine: machine.map(|machine| machine_sum(salt, machine)),
    };
    put(&folders.root, &on_disk)
}

fn put(root: &Dir, on_disk: &OnDisk) -> Result<(), LogError> {
    let mut json = serde_json::to_vec_pretty(on_disk).map_err(std::io::Error::from)?;
    json.push(b'\n');
    Ok(root.replace(FILE, &json)?)
}

/// Notes in the spool in `root` what was learnt.
pub(super) fn note(root: &Dir, learnt: &Learnt) -> Result<(), LogError> {
    let mut on_disk = read(root)?.ok_or_else(|| unreadable(root))?;
    on_disk.version = VERSION;
    on_disk.learnt = learnt.clone();
    put(root, &on_disk)
}

fn unreadable(root: &Dir) -> LogError {
    let path = root.path(FILE);
    let path = path.display();
    LogError::Foreign(format!(
        "{path} cannot be read, so nobody knows where the data beside it was to go. If it was \
         written for what is being mounted now, remove {path} and mount again; else move the \
         folder away"
    ))
}

/// What a spool holds that is not in its bucket.
#[derive(Debug, Default)]
struct Held {
    changes: usize,
    unreadable: usize,
    data_files: usize,
}

impl Held {
    fn of(folders: &Folders, survey: &Survey) -> Result<Self, LogError> {
        let mut held = Self::default();
        let mut unsent = Unsent::default();
        survey.walk(&folders.log, &mut |event| {
            match event {
                Event::Record(seq, record) => unsent.apply(seq, &record),
                Event::Damaged(_) | Event::Torn(_) | Event::Missing(..) => held.unreadable += 1,
                Event::End { .. } => {}
            }
            Ok(())
        })?;
        held.changes = unsent.0.len();
        for name in folders.data.names()? {
            if number_of(&name).is_some() && !folders.data.open(&name)?.is_empty()? {
                held.data_files += 1;
            }
        }
        Ok(held)
    }

    fn is_nothing(&self) -> bool {
        self.changes + self.unreadable + self.data_files == 0
    }

    fn way_out(&self, folders: &Folders, of: &Binding) -> String {
        let dir = folders.root.path("");
        format!(
            "{} holds {} unsent changes, {} data files and {} unreadable pieces of s3://{}/{} at \
             {}. Mount it as that and let it drain (`kryptonfs drain`), or name another \
             spool_dir, or move the folder away",
            dir.display(),
            self.changes,
            self.data_files,
            self.unreadable,
            of.bucket,
            of.prefix,
            of.endpoint,
        )
    }
}

/// For each key that is not as wanted yet, the number of the change that wants it.
#[derive(Debug, Default)]
struct Unsent(BTreeMap<RelKey, Seq>);

impl Unsent {
    fn apply(&mut self, seq: Seq, record: &Record) {
        match record {
            Record::Set(changes) => {
                for change in changes {
                    if (&change.want, &change.base) == (&Want::Gone, &Base::Absent) {
                        self.0.remove(&change.key);
                    } else {
                        let number = change.number.unwrap_or(seq);
                        self.0.insert(change.key.clone(), number);
                    }
                }
            }
            Record::Sent { key, number, .. } | Record::Removed { key, number } => {
                if self.0.get(key).is_some_and(|wanted| wanted <= number) {
                    self.0.remove(key);
                }
            }
            Record::Conflict {
                key,
                number,
                aside: Some(aside),
                ..
            } => {
                if self.0.get(key).is_some_and(|wanted| wanted <= number) {
                    self.0.remove(key);
                    self.0.insert(aside.clone(), *number);
                }
            }
            Record::Conflict { .. }
            | Record::Begun { .. }
            | Record::Staged { .. }
            | Record::Dead { .. }
            | Record::Uploading { .. }
            | Record::UploadBegun { .. }
            | Record::UploadLeft { .. }
            | Record::UploadEnded { .. }
            | Record::Retry
            | Record::Rerooted
            | Record::Draft { .. } => {}
        }
    }
}

/// The machine's own name for itself, if it has one.
pub(super) fn machine_id() -> Option<String> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = id.trim();
    (id.len() == 32).then(|| id.to_owned())
}

fn machine_sum(salt: Salt, machine: &str) -> String {
    let mut bytes = salt.0.to_le_bytes().to_vec();
    bytes.extend_from_slice(machine.as_bytes());
    format!("{:016x}", crc_fast::crc64_nvme(&bytes))
}

fn number(hex: &str) -> Option<u64> {
    u64::from_str_radix(hex, 16).ok()
}

fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests;
