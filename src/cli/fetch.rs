//! `kryptonfs fetch`: brings files of a mount into the cache, by reading them through it.
//!
//! Invariants: the names are walked twice, first for the total, so nothing is held for each of them;
//! symlinks are not followed; what fails is told, one line each, and the rest goes on.

use std::fs::{File, Metadata};
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use super::{control, done, print, show};
use crate::daemon;

/// How much is read at once.
const STEP: usize = 1 << 20;
/// Between two pictures of the progress.
const TELL: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    files: u64,
    bytes: u64,
    failed: u64,
}

/// Reads all files at and below `paths`, which are in mounts of ours; exit 0: all of them.
#[must_use]
pub fn fetch(paths: &[PathBuf]) -> ExitCode {
    done(fetched(paths))
}

fn fetched(paths: &[PathBuf]) -> Result<(), String> {
    for path in paths {
        // Says what is the matter if it is in none.
        daemon::find(path)?;
    }
    let mut total = Tally::default();
    for path in paths {
        walk(path, &mut |file| {
            if let Ok((_, meta)) = file {
                total.files += 1;
                total.bytes += meta.len();
            }
        });
    }
    for path in paths {
        warn_of_cache(path, total.bytes);
    }
    let mut progress = Progress::new(total);
    for path in paths {
        walk(path, &mut |file| match file {
            Ok((path, _)) => progress.fetch(&path),
            Err((path, error)) => progress.failed(&path, &error),
        });
    }
    progress.end()
}

/// What is too much for the cache drives itself out of it.
fn warn_of_cache(path: &Path, bytes: u64) {
    if let Ok(status) = control::status(path)
        && bytes > status.cache_max
    {
        eprintln!(
            "kryptonfs: {} is more than the cache holds ({}): not all of it will stay; say a larger cache_max",
            show::bytes(bytes),
            show::bytes(status.cache_max)
        );
    }
}

type Found = Result<(PathBuf, Metadata), (PathBuf, io::Error)>;

/// Each regular file at or below `path`.
fn walk(path: &Path, each: &mut dyn FnMut(Found)) {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_file() => each(Ok((path.to_owned(), meta))),
        Ok(meta) if meta.is_dir() => match path.read_dir() {
            Ok(entries) => {
                for entry in entries {
                    match entry {
                        Ok(entry) => walk(&entry.path(), each),
                        Err(error) => each(Err((path.to_owned(), error))),
                    }
                }
            }
            Err(error) => each(Err((path.to_owned(), error))),
        },
        Ok(_) => {}
        Err(error) => each(Err((path.to_owned(), error))),
    }
}

/// What is done of what is to do.
struct Progress {
    total: Tally,
    now: Tally,
    /// Where somebody looks: when it was last told.
    told: Option<Instant>,
    step: Vec<u8>,
}

impl Progress {
    fn new(total: Tally) -> Self {
        Self {
            total,
            now: Tally::default(),
            told: io::stderr().is_terminal().then(Instant::now),
            step: vec![0; STEP],
        }
    }

    fn fetch(&mut self, path: &Path) {
        match self.read(path) {
            Ok(()) => self.now.files += 1,
            Err(error) => self.failed(path, &error),
        }
    }

    fn read(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        // Pages that the kernel still has would answer in the place of the cache.
        fadvise(&file, 0, None, Advice::DontNeed)?;
        loop {
            match file.read(&mut self.step) {
                Ok(0) => return Ok(()),
                Ok(more) => self.now.bytes += more as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.tell();
        }
    }

    fn failed(&mut self, path: &Path, error: &io::Error) {
        self.now.failed += 1;
        eprintln!(
            "kryptonfs: {}: {error}",
            show::plain(&path.to_string_lossy())
        );
    }

    fn tell(&mut self) {
        if self.told.is_some_and(|told| told.elapsed() >= TELL) {
            eprint!("\r{}\x1b[K", self.line());
            self.told = Some(Instant::now());
        }
    }

    fn line(&self) -> String {
        let (now, total) = (self.now, self.total);
        let (bytes, of) = (show::bytes(now.bytes), show::bytes(total.bytes));
        format!("{bytes} of {of}, {} of {} files", now.files, total.files)
    }

    fn end(self) -> Result<(), String> {
        if self.told.is_some() {
            eprint!("\r\x1b[K");
        }
        print(&format!("fetched {}\n", self.line()))?;
        match self.now.failed {
            0 => Ok(()),
            failed => Err(format!(
                "{failed} files or directories could not be fetched: see above; `kryptonfs status` says how the link is"
            )),
        }
    }
}
