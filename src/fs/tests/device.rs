//! A device in memory: what a run did to its disk and to its bucket, step by step, and what is left
//! of it when the run ends before any of them.
//!
//! Invariants of what is left:
//! - a kill leaves all that was done (the kernel has it); a power cut leaves what was flushed, and
//!   of the rest what the device happened to write: nothing, or any sectors of a file, and of each
//!   folder's entries those up to any moment (file systems keep their order);
//! - a flush that failed has lost what it was to write: the kernel takes it for clean, so that a
//!   later flush succeeds and writes none of it, unless it was written again;
//! - the bucket is as it was: requests answered before are in it, later ones are not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, Step};
use crate::store::layer::Layer;
use crate::store::twin::Twin;
use crate::store::{Op, StoreError};

const SECTOR: usize = 512;

/// One thing that was done, in order. Paths begin below the run's folder.
#[derive(Clone, Debug)]
pub(super) enum Event {
    MakeDir(PathBuf),
    Create(PathBuf),
    Write(PathBuf, usize, Vec<u8>),
    Flush(PathBuf),
    FlushDir(PathBuf),
    /// A flush of a file or a folder that failed.
    FlushFailed(PathBuf),
    Allocate(PathBuf, usize),
    Truncate(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Remove(PathBuf),
    /// A request is sent.
    Sends(Op),
    /// It was carried out; the bucket is this then. (Whether its answer arrived, nobody can tell.)
    Sent(Op, Twin),
    /// An operation of the scenario was acknowledged.
    Acknowledged,
}

/// Records what is done. Clones record together.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder {
    events: Arc<Mutex<Vec<Event>>>,
}

impl Recorder {
    /// A disk whose steps below `root` are recorded. `fails` is asked first: whether the step with
    /// this number fails.
    pub(super) fn disk(
        &self,
        root: &Path,
        fails: impl Fn(usize) -> Option<i32> + Send + Sync + 'static,
    ) -> Disk {
        let (events, root) = (Arc::clone(&self.events), root.to_path_buf());
        let count = Mutex::new(0);
        Disk::watched(Box::new(move |step| {
            let below = |path: &Path| {
                let path = path.strip_prefix(&root).ok()?;
                (!path.as_os_str().is_empty()).then(|| path.to_path_buf())
            };
            let Some(event) = of_step(step, &below) else {
                return Ok(());
            };
            let mut count = count.lock();
            *count += 1;
            if let Some(errno) = fails(*count - 1) {
                if let Event::Flush(path) | Event::FlushDir(path) = event {
                    events.lock().push(Event::FlushFailed(path));
                }
                return Err(io::Error::from_raw_os_error(errno));
            }
            events.lock().push(event);
            Ok(())
        }))
    }

    pub(super) fn push(&self, event: Event) {
        self.events.lock().push(event);
    }

    pub(super) fn all(&self) -> Vec<Event> {
        self.events.lock().clone()
    }
}

fn of_step(step: &Step<'_>, below: &dyn Fn(&Path) -> Option<PathBuf>) -> Option<Event> {
    let size = |len: u64| usize::try_from(len).unwrap();
    Some(match step {
        Step::MakeDir(path) => Event::MakeDir(below(path)?),
        Step::Create(path) => Event::Create(below(path)?),
        Step::Write { path, offset, data } => {
            Event::Write(below(path)?, size(*offset), data.to_vec())
        }
        Step::Flush(path) => Event::Flush(below(path)?),
        Step::FlushDir(path) => Event::FlushDir(below(path)?),
        Step::Allocate(path, len) => Event::Allocate(below(path)?, size(*len)),
        Step::Truncate(path, len) => Event::Truncate(below(path)?, size(*len)),
        Step::Rename(from, to) => Event::Rename(below(from)?, below(to)?),
        Step::Link(from, to) => Event::Link(below(from)?, below(to)?),
        Step::Remove(path) => Event::Remove(below(path)?),
    })
}

/// Records the requests to a bucket.
pub(super) struct Requests(pub(super) Recorder, pub(super) Twin);

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Requests")
    }
}

#[async_trait::async_trait]
impl Layer for Requests {
    type Held = ();

    async fn before(&self, op: Op, _up: u64) -> crate::store::Result<()> {
        self.0.push(Event::Sends(op));
        Ok(())
    }

    fn after(&self, _: &(), op: Op, _: Option<&StoreError>) -> crate::store::Result<()> {
        self.0.push(Event::Sent(op, self.1.fork()));
        Ok(())
    }
}

/// What the end of the run leaves of what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// All: the process was killed, the machine runs on.
    Kill,
    /// Nothing.
    Power,
    /// Something, as this seed says.
    Torn(u64),
}

struct Toss(u64);

impl Toss {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn heads(&mut self) -> bool {
        !self.next().is_multiple_of(3)
    }
}

#[derive(Default)]
struct File {
    flushed: Vec<u8>,
    cached: Vec<u8>,
    /// Sectors that the kernel takes for clean and the device never got.
    lost: BTreeSet<usize>,
}

impl File {
    fn sectors(at: usize, len: usize) -> std::ops::Range<usize> {
        at / SECTOR..(at + len).div_ceil(SECTOR)
    }

    fn flush(&mut self) {
        let old = std::mem::replace(&mut self.flushed, self.cached.clone());
        for sector in &self.lost {
            let at = sector * SECTOR;
            for (index, byte) in self.flushed.iter_mut().enumerate().skip(at).take(SECTOR) {
                *byte = old.get(index).copied().unwrap_or_default();
            }
        }
    }

    fn fail_to_flush(&mut self) {
        let same = |at: usize| self.flushed.get(at) == self.cached.get(at);
        let dirty = (0..self.cached.len()).filter(|at| !same(*at));
        self.lost.extend(dirty.map(|at| at / SECTOR));
    }
}

enum Entry {
    Is(PathBuf, usize),
    Moves(PathBuf, PathBuf),
    Goes(PathBuf),
}

impl Entry {
    fn folders(&self) -> Vec<&Path> {
        let all = match self {
            Self::Is(path, _) | Self::Goes(path) => vec![path],
            Self::Moves(from, to) => vec![from, to],
        };
        all.into_iter().filter_map(|path| path.parent()).collect()
    }
}

/// The device and the kernel's memory of it.
#[derive(Default)]
pub(super) struct Device {
    dirs: BTreeSet<PathBuf>,
    files: Vec<File>,
    /// As the kernel has them.
    names: BTreeMap<PathBuf, usize>,
    /// In order, and whether they were flushed.
    entries: Vec<(Entry, bool)>,
    bucket: Option<Twin>,
    /// How many operations were acknowledged.
    pub(super) acknowledged: usize,
}

impl Device {
    pub(super) fn after(events: &[Event]) -> Self {
        let mut device = Self::default();
        events.iter().for_each(|event| device.see(event));
        device
    }

    fn file(&mut self, path: &Path) -> &mut File {
        // The lock is made without a step: it holds nothing that is needed.
        if !self.names.contains_key(path) && path.ends_with("lock") {
            self.make(path);
        }
        let number = self.names.get(path).copied();
        // A file that is written to after its name has gone leaves nothing.
        let number = number.unwrap_or_else(|| {
            self.files.push(File::default());
            self.files.len() - 1
        });
        &mut self.files[number]
    }

    fn make(&mut self, path: &Path) {
        self.files.push(File::default());
        let number = self.files.len() - 1;
        self.names.insert(path.into(), number);
        self.entries.push((Entry::Is(path.into(), number), false));
    }

    fn see(&mut self, event: &Event) {
        match event {
            Event::MakeDir(path) => drop(self.dirs.insert(path.clone())),
            Event::Create(path) => self.make(path),
            Event::Write(path, at, data) => {
                let file = self.file(path);
                let end = file.cached.len().max(at + data.len());
                file.cached.resize(end, 0);
                file.cached[*at..at + data.len()].copy_from_slice(data);
                let written = File::sectors(*at, data.len());
                file.lost.retain(|sector| !written.contains(sector));
            }
            Event::Allocate(path, len) => {
                let file = self.file(path);
                file.cached.resize(file.cached.len().max(*len), 0);
            }
            Event::Truncate(path, len) => self.file(path).cached.resize(*len, 0),
            Event::Flush(path) => self.file(path).flush(),
            Event::FlushDir(dir) => {
                for (entry, is_flushed) in &mut self.entries {
                    *is_flushed |= entry.folders().contains(&dir.as_path());
                }
            }
            Event::FlushFailed(path) if self.dirs.contains(path) => {}
            Event::FlushFailed(path) => self.file(path).fail_to_flush(),
            Event::Rename(from, to) => {
                if let Some(number) = self.names.remove(from) {
                    self.names.insert(to.clone(), number);
                    self.entries
                        .push((Entry::Moves(from.clone(), to.clone()), false));
                }
            }
            Event::Link(from, to) => {
                if let Some(number) = self.names.get(from).copied() {
                    self.names.insert(to.clone(), number);
                    self.entries.push((Entry::Is(to.clone(), number), false));
                }
            }
            Event::Remove(path) => {
                if self.names.remove(path).is_some() {
                    self.entries.push((Entry::Goes(path.clone()), false));
                }
            }
            Event::Sent(_, bucket) => self.bucket = Some(bucket.clone()),
            Event::Acknowledged => self.acknowledged += 1,
            Event::Sends(_) => {}
        }
    }

    /// The bucket as it is now; requests to it change nothing of the record.
    pub(super) fn bucket(&self) -> Twin {
        self.bucket.as_ref().map_or_else(Twin::new, Twin::fork)
    }

    /// Puts into the empty folder `root` what `cut` leaves.
    pub(super) fn put_into(&self, root: &Path, cut: Cut) {
        let mut toss = Toss(match cut {
            Cut::Torn(seed) => seed | 1,
            Cut::Kill | Cut::Power => 1,
        });
        for dir in &self.dirs {
            use std::os::unix::fs::DirBuilderExt as _;
            let mut builder = std::fs::DirBuilder::new();
            builder
                .mode(0o700)
                .recursive(true)
                .create(root.join(dir))
                .unwrap();
        }
        for (path, number) in self.left_names(cut, &mut toss) {
            let File {
                flushed, cached, ..
            } = &self.files[number];
            let bytes = match cut {
                Cut::Kill => cached.clone(),
                Cut::Power => flushed.clone(),
                Cut::Torn(_) => torn(flushed, cached, &mut toss),
            };
            std::fs::write(root.join(path), bytes).unwrap();
        }
    }

    fn left_names(&self, cut: Cut, toss: &mut Toss) -> BTreeMap<PathBuf, usize> {
        if cut == Cut::Kill {
            return self.names.clone();
        }
        // In which folders nothing more was written.
        let mut ended: BTreeSet<&Path> = BTreeSet::new();
        let mut names = BTreeMap::new();
        for (entry, is_flushed) in &self.entries {
            let is_kept = matches!(cut, Cut::Torn(_)) && toss.heads();
            let folders = entry.folders();
            if !is_flushed && (!is_kept || folders.iter().any(|dir| ended.contains(dir))) {
                ended.extend(folders);
                continue;
            }
            match entry {
                Entry::Is(path, number) => drop(names.insert(path.clone(), *number)),
                Entry::Moves(from, to) => {
                    if let Some(number) = names.remove(from) {
                        names.insert(to.clone(), number);
                    }
                }
                Entry::Goes(path) => drop(names.remove(path)),
            }
        }
        names
    }
}

fn torn(flushed: &[u8], cached: &[u8], toss: &mut Toss) -> Vec<u8> {
    let mut left = flushed.to_vec();
    let len = if toss.heads() {
        cached.len()
    } else {
        flushed.len()
    };
    left.resize(len, 0);
    for (old, new) in left.chunks_mut(SECTOR).zip(cached.chunks(SECTOR)) {
        if toss.heads() {
            let len = old.len().min(new.len());
            old[..len].copy_from_slice(&new[..len]);
        }
    }
    left
}
