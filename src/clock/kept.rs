//! The last believed time, on disk: one line, `SECONDS CHECKSUM`. A device without a battery for
//! its clock starts from there instead of from 1970.
//!
//! Invariants: what cannot be read whole is no time; it is written seldom (`EVERY`), for it costs a
//! flush.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::disk::{Dir, Disk, NotPrivate};

const NAME: &str = "time";
/// Between two writes.
pub const EVERY: Duration = Duration::from_secs(3600);

/// Where it is kept.
#[derive(Debug)]
pub struct Kept(Dir);

fn line(seconds: u64) -> String {
    let text = seconds.to_string();
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, text.as_bytes());
    format!("{text} {sum:08x}\n")
}

fn seconds(text: &str) -> Option<u64> {
    let seconds = text.split(' ').next()?.parse().ok()?;
    (line(seconds) == text).then_some(seconds)
}

impl Kept {
    /// In this folder, which is made if it is absent.
    ///
    /// # Errors
    /// If it cannot be, or is open to others.
    pub fn open(folder: &Path) -> Result<Self, NotPrivate> {
        Dir::private(&Disk::default(), folder).map(Self)
    }

    /// What was kept, if anything.
    #[must_use]
    pub fn read(&self) -> Option<SystemTime> {
        let bytes = self.0.read(NAME).ok()?;
        let seconds = seconds(std::str::from_utf8(&bytes).ok()?)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }

    /// Keeps `time`. Blocks for a flush.
    ///
    /// # Errors
    /// Of the disk.
    pub fn write(&self, time: SystemTime) -> io::Result<()> {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.replace(NAME, line(since.as_secs()).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(&dir.path().join("clock")).unwrap();
        assert_eq!(kept.read(), None);
        for seconds in [1_800_000_000, 1_800_003_600] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            kept.write(time).unwrap();
            assert_eq!(kept.read(), Some(time));
        }
    }

    #[test]
    fn what_is_not_whole_is_no_time() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("clock");
        let kept = Kept::open(&folder).unwrap();
        let whole = line(1_800_000_000);
        let flipped = whole.replace('8', "9");
        for text in [
            "",
            "1800000000",
            &whole[..12],
            &flipped,
            "x y\n",
            "\u{0}\u{0}",
        ] {
            std::fs::write(folder.join(NAME), text).unwrap();
            assert_eq!(kept.read(), None, "{text:?}");
        }
        std::fs::write(folder.join(NAME), line(u64::MAX)).unwrap();
        assert_eq!(kept.read(), None);
    }
}
