//! The ground under log, spool and cache: the only place that flushes, renames, links, allocates,
//! makes folders and locks. Everything blocks; from a task, go through `blocking`.
//!
//! Invariants:
//! - folders are made 0700 and files 0600, and neither is ever reached through a symlink at its
//!   last component (`O_NOFOLLOW`); new files are new (`O_EXCL`);
//! - everything below a `Dir` is named relative to its open descriptor, so a folder that is
//!   swapped behind our back changes nothing;
//! - each step is first shown to the watch of its `Disk` (tests: fail it, record it, stop there),
//!   and each flush is counted.

mod file;
mod outside;
mod private;
mod survey;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use crate::seeded::{self, Bug};

pub use file::File;
pub use private::NotPrivate;
pub use survey::{Survey, survey};

/// Runs `work` where blocking is allowed. A panic in it goes on in the caller.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is being torn down cancels: this task ends with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// One step that changes the disk, as the watch sees it: before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A folder is made.
    MakeDir(&'a Path),
    /// A file is made.
    Create(&'a Path),
    /// Bytes are written.
    Write {
        /// To which file.
        path: &'a Path,
        /// Where in it.
        offset: u64,
        /// What.
        data: &'a [u8],
    },
    /// A file's bytes and length are flushed to the device.
    Flush(&'a Path),
    /// A folder's entries are flushed to the device.
    FlushDir(&'a Path),
    /// Room is set aside for the first so many bytes.
    Allocate(&'a Path, u64),
    /// The file gets this length.
    Truncate(&'a Path, u64),
    /// The first becomes the second.
    Rename(&'a Path, &'a Path),
    /// The first is also called the second.
    Link(&'a Path, &'a Path),
    /// A name goes.
    Remove(&'a Path),
}

/// Is shown each step before it is done; an error is answered in the step's place.
pub type Watch = dyn Fn(&Step<'_>) -> io::Result<()> + Send + Sync;

/// A handle that counts flushes. Clones count together.
#[derive(Clone, Default)]
pub struct Disk {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    flushes: AtomicU64,
    dir_flushes: AtomicU64,
    watch: Option<Box<Watch>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("flushes", &self.flushes())
            .field("dir_flushes", &self.dir_flushes())
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// A handle whose steps are shown to `watch` first.
    #[must_use]
    pub fn watched(watch: Box<Watch>) -> Self {
        let shared = Shared {
            watch: Some(watch),
            ..Shared::default()
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Flushes of files so far (failed ones too).
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.shared.flushes.load(Ordering::Relaxed)
    }

    /// Flushes of folders so far (failed ones too).
    #[must_use]
    pub fn dir_flushes(&self) -> u64 {
        self.shared.dir_flushes.load(Ordering::Relaxed)
    }

    fn step(&self, step: &Step<'_>) -> io::Result<()> {
        match step {
            Step::Flush(_) => self.shared.flushes.fetch_add(1, Ordering::Relaxed),
            Step::FlushDir(_) => self.shared.dir_flushes.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        self.shared.watch.as_ref().map_or(Ok(()), |see| see(step))
    }
}

/// An open folder of ours.
#[derive(Debug)]
pub struct Dir {
    fd: std::fs::File,
    path: PathBuf,
    disk: Disk,
}

impl Dir {
    /// Where an entry is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The handle it was opened with.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// A new file, for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`; of the disk.
    pub fn create(&self, name: &str) -> io::Result<File> {
        self.disk.step(&Step::Create(&self.path(name)))?;
        self.file(
            name,
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL,
            Mode::from_bits_truncate(0o600),
        )
    }

    /// An existing file, for reading.
    ///
    /// # Errors
    /// `NotFound`; of the disk.
    pub fn open(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlag::O_RDONLY, Mode::empty())
    }

    /// An existing file, for reading and writing.
    ///
    /// # Errors
    /// `NotFound`; of the disk.
    pub fn open_to_write(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlag::O_RDWR, Mode::empty())
    }

    /// A file made if absent and locked for this process while the answer lives; `None`: somebody
    /// else has it.
    ///
    /// # Errors
    /// Of the disk.
    pub fn lock(&self, name: &str) -> io::Result<Option<File>> {
        let mode = Mode::from_bits_truncate(0o600);
        let file = self.file(name, OFlag::O_RDWR | OFlag::O_CREAT, mode)?;
        Ok(file.try_lock()?.then_some(file))
    }

    fn file(&self, name: &str, flags: OFlag, mode: Mode) -> io::Result<File> {
        let fd = openat(
            self.fd.as_fd(),
            name,
            flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            mode,
        )?;
        Ok(File::new(fd.into(), self.path(name), self.disk.clone()))
    }

    /// All entries, sorted; names that are not UTF-8 are shown lossily (none of ours is).
    ///
    /// # Errors
    /// Of the disk.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut dir = nix::dir::Dir::openat(
            self.fd.as_fd(),
            ".",
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let mut all = Vec::new();
        for entry in dir.iter() {
            let entry = entry?;
            let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
            all.push(OsString::from(name).to_string_lossy().into_owned());
        }
        all.retain(|name| name != "." && name != "..");
        all.sort();
        Ok(all)
    }

    /// Makes `from` here `to` there. Durable after both folders are flushed.
    ///
    /// # Errors
    /// Of the disk.
    pub fn rename(&self, from: &str, there: &Self, to: &str) -> io::Result<()> {
        let step = Step::Rename(&self.path(from), &there.path(to));
        self.disk.step(&step)?;
        Ok(renameat(self.fd.as_fd(), from, there.fd.as_fd(), to)?)
    }

    /// Gives `from` here the second name `to` there.
    ///
    /// # Errors
    /// `AlreadyExists`; `EXDEV` on another file system; of the disk.
    pub fn link(&self, from: &str, there: &Self, to: &str) -> io::Result<()> {
        let step = Step::Link(&self.path(from), &there.path(to));
        self.disk.step(&step)?;
        Ok(linkat(
            self.fd.as_fd(),
            from,
            there.fd.as_fd(),
            to,
            AtFlags::empty(),
        )?)
    }

    /// Removes a file. That it is gone already is success.
    ///
    /// # Errors
    /// Of the disk.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.step(&Step::Remove(&self.path(name)))?;
        match unlinkat(self.fd.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::errno::Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes entries made, renamed and removed so far durable.
    ///
    /// # Errors
    /// Of the disk.
    pub fn flush(&self) -> io::Result<()> {
        self.disk.step(&Step::FlushDir(&self.path))?;
        self.fd.sync_all()
    }

    /// Makes `name` hold `content`, durably: a reader finds the old or the new, never a part.
    ///
    /// # Errors
    /// Of the disk.
    pub fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let tmp = format!("{name}.tmp");
        self.remove(&tmp)?;
        let file = self.create(&tmp)?;
        file.write_all_at(content, 0)?;
        if !seeded::is(Bug::RenamedBeforeData) {
            file.flush()?;
        }
        self.rename(&tmp, self, name)?;
        self.flush()
    }

    /// The whole of a file.
    ///
    /// # Errors
    /// `NotFound`; of the disk.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.open(name)?.read_all()
    }

    /// Bytes free for us on the file system.
    ///
    /// # Errors
    /// Of the disk.
    pub fn free(&self) -> io::Result<u64> {
        let stat = nix::sys::statvfs::fstatvfs(&self.fd)?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }
}

#[cfg(test)]
mod tests;
