//! The device itself: the disks of spool and cache, and what the kernel can do.

use std::path::Path;
use std::time::Duration;

use super::Doctor;
use super::report::Row;
use crate::disk::{self, Survey, survey};

/// An SD card takes some 10 ms; every close waits for one flush or two.
const SLOW: Duration = Duration::from_millis(500);
/// Reads of cached files need not pass the daemon since this kernel.
const PASSTHROUGH: (u32, u32) = (6, 9);
const DEVICE: &str = "/dev/fuse";

impl Doctor<'_> {
    /// Rows `kernel`, `spool`, `cache`.
    pub(super) async fn device(&mut self) {
        let (spool, cache) = (self.facts.spool.clone(), self.facts.cache.clone());
        let looking = disk::blocking(move || {
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
            let device = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(DEVICE);
            let kernel = kernel(release.unwrap_or_default().trim(), device.map(drop));
            (kernel, survey(&spool), survey(&cache))
        });
        let (kernel, spool, cache) = looking.await;
        self.add(kernel);
        let reserve = self.facts.disk_reserve;
        let row = folder("spool", &self.facts.spool, spool, reserve);
        self.add(row);
        let row = folder("cache", &self.facts.cache, cache, reserve);
        self.add(row);
    }
}

fn kernel(release: &str, device: std::io::Result<()>) -> Row {
    if let Err(error) = device {
        return Row::fail(
            "kernel",
            format!("Linux {release}; {DEVICE}: {error}"),
            "load the module (`modprobe fuse`), and let this user open the device (a container needs \
             `--device /dev/fuse`)",
        );
    }
    let mut numbers = release
        .split(['.', '-', '+'])
        .map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let passthrough = if version >= PASSTHROUGH {
        "it can pass reads through"
    } else {
        "it is older than 6.9, so each read passes the daemon"
    };
    Row::pass(
        "kernel",
        format!("Linux {release} with {DEVICE}; {passthrough}"),
    )
}

/// `reserve`: so much is left free, in bytes.
fn folder(check: &'static str, path: &Path, seen: std::io::Result<Survey>, reserve: u64) -> Row {
    let (option, path) = (format!("{check}_dir"), path.display());
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => {
            let cure = format!("name a folder on a disk that works by {option}=");
            return Row::fail(check, format!("{path}: {error}"), cure);
        }
    };
    let mib = seen.free >> 20;
    let flush = match &seen.flush {
        Ok(flush) => *flush,
        Err(error) => {
            let there = seen.there.display();
            return Row::fail(
                check,
                format!("{there} cannot be written: {error}"),
                format!("run this as the mount's user, or name a folder of that user by {option}="),
            );
        }
    };
    let text = format!(
        "{path}: {mib} MiB free, a flush takes {} ms",
        flush.as_millis()
    );
    if seen.free <= reserve {
        return Row::fail(
            check,
            format!("{text}; of them {} MiB are left alone", reserve >> 20),
            "make room, name a folder on a larger disk, or lower disk_reserve",
        );
    }
    if seen.in_memory {
        let cure = if check == "spool" {
            "what is not in S3 yet would be gone with the power: name a folder on a disk by spool_dir="
        } else {
            "it takes memory that programs need: name a folder on a disk by cache_dir="
        };
        return Row::warn(check, format!("{text}; it is memory (tmpfs)"), cure);
    }
    if flush > SLOW && check == "spool" {
        return Row::warn(
            check,
            text,
            "every close waits for it: an SD card that is worn or full does so; try another",
        );
    }
    Row::pass(check, text)
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    fn seen(free: u64, in_memory: bool, millis: u64) -> std::io::Result<Survey> {
        Ok(Survey {
            there: "/var/lib".into(),
            free,
            in_memory,
            flush: Ok(Duration::from_millis(millis)),
        })
    }

    #[test]
    fn a_disk_passes_or_says_what_is_wrong_with_it() {
        let row = |check, seen| folder(check, Path::new("/var/lib/kryptonfs"), seen, 64 << 20);
        assert_eq!(row("spool", seen(1 << 30, false, 8)).verdict, Verdict::Pass);
        let tmpfs = row("spool", seen(1 << 30, true, 0));
        assert_eq!(tmpfs.verdict, Verdict::Warn);
        assert!(tmpfs.cure.contains("power"), "{tmpfs:?}");
        assert_eq!(row("cache", seen(1 << 30, true, 0)).verdict, Verdict::Warn);
        assert_eq!(
            row("spool", seen(64 << 20, false, 8)).verdict,
            Verdict::Fail
        );
        assert_eq!(
            row("spool", seen(1 << 30, false, 900)).verdict,
            Verdict::Warn
        );
        let mut locked = seen(1 << 30, false, 8).unwrap();
        locked.flush = Err(std::io::ErrorKind::PermissionDenied.into());
        let row = row("spool", Ok(locked));
        assert!(
            row.verdict == Verdict::Fail && row.cure.contains("spool_dir="),
            "{row:?}"
        );
    }

    #[test]
    fn the_kernel_is_told_with_what_it_can_do() {
        let new = kernel("6.12.1-rpi", Ok(()));
        assert!(
            new.verdict == Verdict::Pass && new.seen.contains("can pass"),
            "{new:?}"
        );
        let old = kernel("5.10", Ok(()));
        assert!(
            old.verdict == Verdict::Pass && old.seen.contains("older"),
            "{old:?}"
        );
        let none = kernel("6.1", Err(std::io::ErrorKind::NotFound.into()));
        assert!(
            none.verdict == Verdict::Fail && none.cure.contains("modprobe"),
            "{none:?}"
        );
    }
}
