//! The folder an export goes to.
//!
//! Invariants:
//! - nothing that is there is replaced, and no symlink in it is followed: names come from a spool
//!   that may be anybody's;
//! - a file appears under its name whole and flushed, or not at all.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::disk::{Dir, Disk, File};
use crate::types::{Attrs, Name, RelPath, Time};

/// Bytes copied at once.
const CHUNK: usize = 256 << 10;
/// What is shown of a file that does not say.
const MODE: u32 = 0o644;
/// Bits that are kept: what runs as somebody else does so only where it was made.
const MODE_MASK: u32 = 0o777;

/// The folder.
#[derive(Debug)]
pub(super) struct Target {
    root: Dir,
}

/// A run of bytes of a file that is written.
#[derive(Debug)]
pub(super) struct Run<'a> {
    /// Where in it.
    pub(super) at: u64,
    /// How many.
    pub(super) len: u64,
    /// Where they are.
    pub(super) from: &'a File,
    /// Where there.
    pub(super) offset: u64,
}

/// How a file came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It was written.
    Written,
    /// It was there, with the same bytes.
    There,
}

/// What is shown of a file beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) mode: u32,
    pub(super) modified: SystemTime,
}

impl Look {
    /// As attributes have it.
    pub(super) fn of(attrs: &Attrs) -> Self {
        Self {
            mode: attrs.mode.unwrap_or(MODE) & MODE_MASK,
            modified: attrs.mtime.map_or_else(SystemTime::now, system_time),
        }
    }
}

fn system_time(time: Time) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let secs = Duration::from_secs(time.secs.unsigned_abs());
    let whole = if time.secs < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(secs)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(secs)
    };
    let exact = whole.and_then(|whole| whole.checked_add(nanos));
    exact.unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Target {
    /// Opens the folder, made if it is absent.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        if let Some(above) = std::path::absolute(path)?.parent() {
            Dir::as_it_is(&Disk::default(), above)?.flush()?;
        }
        let root = Dir::as_it_is(&Disk::default(), path)?;
        Ok(Self { root })
    }

    /// The folder a path is in, made with all above it, and its name there.
    fn place(&self, path: &RelPath) -> io::Result<(Dir, Name)> {
        let name = path.name().ok_or(io::ErrorKind::InvalidInput)?;
        let above = path.parent().unwrap_or_else(RelPath::root);
        Ok((self.made(&above)?, name))
    }

    fn made(&self, path: &RelPath) -> io::Result<Dir> {
        let mut dir = self.root.below(".")?;
        for name in path.as_str().split('/').filter(|name| !name.is_empty()) {
            let below = dir.made_below(name)?;
            dir.flush()?;
            dir = below;
        }
        Ok(dir)
    }

    /// Makes the folder at `path`, and gives it permissions.
    pub(super) fn folder(&self, path: &RelPath, mode: Option<u32>) -> io::Result<()> {
        let dir = self.made(path)?;
        if let Some(mode) = mode {
            dir.set_mode(mode & MODE_MASK)?;
        }
        dir.flush()
    }

    /// Writes a file of `len` bytes; what no run covers is zeros.
    pub(super) fn file(
        &self,
        path: &RelPath,
        len: u64,
        runs: &[Run<'_>],
        look: Look,
    ) -> io::Result<Put> {
        self.put(path, look, |file| fill(file, len, runs))
    }

    /// Writes a file that is text.
    pub(super) fn text(&self, path: &RelPath, text: &str) -> io::Result<Put> {
        let look = Look {
            mode: MODE,
            modified: SystemTime::now(),
        };
        self.put(path, look, |file| file.write_all_at(text.as_bytes(), 0))
    }

    fn put(
        &self,
        path: &RelPath,
        look: Look,
        fill: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<Put> {
        let (dir, name) = self.place(path)?;
        let (name, temporary) = (
            name.as_str(),
            format!(".kryptonfs-export-{}", std::process::id()),
        );
        if dir.has(name)? == Some(false) {
            return Err(taken());
        }
        dir.remove(&temporary)?;
        let file = dir.create(&temporary)?;
        let done = fill(&file).and_then(|()| match dir.has(name)? {
            Some(true) if is_same(&file, &dir.open(name)?)? => Ok(Put::There),
            Some(_) => Err(taken()),
            None => {
                file.set_attrs(look.mode, look.modified)?;
                file.flush_all()?;
                dir.rename_new(&temporary, name)?;
                dir.flush()?;
                Ok(Put::Written)
            }
        });
        if !matches!(done, Ok(Put::Written)) {
            dir.remove(&temporary)?;
        }
        done
    }

    /// Makes a symbolic link.
    pub(super) fn symlink(&self, path: &RelPath, target: &str) -> io::Result<Put> {
        let (dir, name) = self.place(path)?;
        if dir.has(name.as_str())?.is_some() {
            let is_same = dir.link_target(name.as_str()).is_ok_and(|at| at == target);
            return is_same.then_some(Put::There).ok_or_else(taken);
        }
        dir.symlink(target, name.as_str())?;
        dir.flush()?;
        Ok(Put::Written)
    }
}

fn taken() -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        "something else is there: move it away, or export to another folder",
    )
}

/// Zeros are left out: what is not written reads as zeros and takes no room.
fn fill(file: &File, len: u64, runs: &[Run<'_>]) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    for run in runs {
        let mut done = 0;
        while done < run.len {
            let now = usize::try_from(run.len - done).map_or(CHUNK, |left| left.min(CHUNK));
            let chunk = &mut bytes[..now];
            run.from.read_exact_at(chunk, run.offset + done)?;
            if chunk.iter().any(|byte| *byte != 0) {
                file.write_all_at(chunk, run.at + done)?;
            }
            done += now as u64;
        }
    }
    file.truncate(len)
}

fn is_same(a: &File, b: &File) -> io::Result<bool> {
    let len = a.len()?;
    if b.len()? != len {
        return Ok(false);
    }
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < len {
        let now = usize::try_from(len - at).map_or(CHUNK, |left| left.min(CHUNK));
        a.read_exact_at(&mut one[..now], at)?;
        b.read_exact_at(&mut other[..now], at)?;
        if one[..now] != other[..now] {
            return Ok(false);
        }
        at += now as u64;
    }
    Ok(true)
}
