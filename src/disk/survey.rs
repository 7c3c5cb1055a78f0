//! A folder's disk, looked at from outside: room, whether it is memory, how fast it flushes.
//!
//! Invariant: nothing is left behind, and nothing that is there is opened.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::statfs;
use nix::sys::statvfs::statvfs;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::private::is_memory;

/// As much as a small file and its record in the log.
const WRITTEN: usize = 64 << 10;
/// The middle one counts.
const FLUSHES: usize = 3;
/// Where a file without a name cannot be made (vfat, some overlays): one with this name, for a moment.
const NAME: &str = ".kryptonfs-survey";

/// What was seen.
#[derive(Debug)]
pub struct Survey {
    /// The folder, or the nearest one above it that is there.
    pub there: PathBuf,
    /// What may still be used, in bytes.
    pub free: u64,
    /// tmpfs or ramfs: gone with the power.
    pub in_memory: bool,
    /// How long a flush of a small write takes; an error if nothing can be written there.
    pub flush: io::Result<Duration>,
}

/// Looks at the disk that `dir` is on, or will be on once it is made. Blocking.
///
/// # Errors
/// If not even its room is told.
pub fn survey(dir: &Path) -> io::Result<Survey> {
    let dir = std::path::absolute(dir)?;
    let there = dir.ancestors().find(|dir| dir.is_dir());
    let there = there.unwrap_or(Path::new("/")).to_owned();
    let room = statvfs(&there)?;
    Ok(Survey {
        free: room.blocks_available() * room.fragment_size(),
        in_memory: is_memory(&statfs(&there)?),
        flush: flush(&there),
        there,
    })
}

fn flush(there: &Path) -> io::Result<Duration> {
    let mut file = nameless(there)?;
    let mut times = Vec::with_capacity(FLUSHES);
    for _ in 0..FLUSHES {
        file.write_all(&[0x5A; WRITTEN])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[FLUSHES / 2])
}

/// A new file that nobody sees.
fn nameless(there: &Path) -> io::Result<std::fs::File> {
    let mode = Mode::from_bits_truncate(0o600);
    let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
    match open(there, flags, mode) {
        Ok(fd) => Ok(fd.into()),
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT) => named(there, mode),
        Err(errno) => Err(errno.into()),
    }
}

fn named(there: &Path, mode: Mode) -> io::Result<std::fs::File> {
    let folder = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = open(there, folder, Mode::empty())?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let name = format!("{NAME}-{}", std::process::id());
    let file = openat(folder.as_fd(), name.as_str(), flags, mode)?;
    unlinkat(folder.as_fd(), name.as_str(), UnlinkatFlags::NoRemoveDir)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_on_the_disk_of_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        let seen = survey(&dir.path().join("a/b")).unwrap();
        assert_eq!(seen.there, dir.path());
        assert!(seen.free > 0);
        seen.flush.unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn memory_is_told_from_a_disk() {
        assert!(survey(Path::new("/dev/shm/kryptonfs")).unwrap().in_memory);
        let target = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(!survey(target).unwrap().in_memory);
    }

    #[test]
    fn where_no_nameless_file_can_be_made_one_goes_by_a_name_for_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let mode = Mode::from_bits_truncate(0o600);
        named(dir.path(), mode).unwrap().write_all(b"x").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
