//! Between fuser's values and those of `fs`. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, Request, TimeOrNow};

use crate::fs::{Caller, Ino, RenameFlags, SetTime, Stat};
use crate::types::{Kind, Time};

/// What `stat` shows as the best size of requests: stdio and cp make their buffers so large, which
/// is 32 times fewer requests than the default of 4 KiB.
const BLOCK: u32 = 128 << 10;

pub(super) fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

pub(super) fn name(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
    }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::Char(_) => FileType::CharDevice,
        Kind::Block(_) => FileType::BlockDevice,
    }
}

/// What mknod(2) is to make: `mode` with the file type. `None`: nothing that it can make (`EINVAL`).
pub(super) fn node_kind(mode: u32, device: u32) -> Option<Kind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(Kind::File),
        libc::S_IFIFO => Some(Kind::Fifo),
        libc::S_IFSOCK => Some(Kind::Socket),
        libc::S_IFCHR => Some(Kind::Char(device)),
        libc::S_IFBLK => Some(Kind::Block(device)),
        _ => None,
    }
}

pub(super) fn attr(stat: &Stat) -> FileAttr {
    let device = match stat.kind {
        Kind::Char(device) | Kind::Block(device) => device,
        Kind::File | Kind::Dir | Kind::Symlink | Kind::Fifo | Kind::Socket => 0,
    };
    FileAttr {
        ino: INodeNo(stat.ino.0),
        size: stat.size,
        blocks: stat.size.div_ceil(512),
        atime: system_time(stat.atime),
        mtime: system_time(stat.mtime),
        ctime: system_time(stat.ctime),
        crtime: system_time(stat.mtime),
        kind: file_type(stat.kind),
        perm: stat.perm,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: device,
        blksize: BLOCK,
        flags: 0,
    }
}

/// A time too far away (metadata may claim anything) shows as 1970.
fn system_time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let second = if time.secs < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(time.nanos.into())))
        .unwrap_or(UNIX_EPOCH)
}

/// fuser 0.18 reads a time before 1970 as `-(|secs| + nanos)` where the kernel means
/// `-|secs| + nanos`; so both parts come back as the kernel sent them.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    let TimeOrNow::SpecificTime(time) = time else {
        return SetTime::Now;
    };
    let (secs, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            since.subsec_nanos(),
        ),
        Err(before) => {
            let before = before.duration();
            (
                0i64.saturating_sub_unsigned(before.as_secs()),
                before.subsec_nanos(),
            )
        }
    };
    SetTime::At(Time { secs, nanos })
}

/// `None`: a combination that no file system knows (`EINVAL`).
pub(super) fn rename_flags(flags: fuser::RenameFlags) -> Option<RenameFlags> {
    if flags.is_empty() {
        Some(RenameFlags::Replace)
    } else if flags == fuser::RenameFlags::RENAME_NOREPLACE {
        Some(RenameFlags::NoReplace)
    } else if flags == fuser::RenameFlags::RENAME_EXCHANGE {
        Some(RenameFlags::Exchange)
    } else {
        None
    }
}

/// Whether a handle opened so can have nothing to commit, so that closing it needs no request.
pub(super) fn never_writes(flags: i32) -> bool {
    flags & libc::O_ACCMODE == libc::O_RDONLY && flags & libc::O_TRUNC == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(secs: i64, nanos: u32) -> Stat {
        let time = Time { secs, nanos };
        Stat {
            ino: Ino(5),
            size: 513,
            kind: Kind::File,
            perm: 0o640,
            nlink: 1,
            uid: 7,
            gid: 8,
            mtime: time,
            atime: time,
            ctime: time,
        }
    }

    #[test]
    fn times_on_both_sides_of_1970_are_shown() {
        assert_eq!(attr(&stat(1, 5)).mtime, UNIX_EPOCH + Duration::new(1, 5),);
        assert_eq!(
            attr(&stat(-2, 800_000_000)).mtime,
            UNIX_EPOCH - Duration::new(1, 200_000_000),
        );
    }

    #[test]
    fn a_time_beyond_all_reason_is_shown_and_does_not_panic() {
        for secs in [i64::MIN, i64::MAX] {
            let _shown = attr(&stat(secs, 999_999_999));
        }
    }

    #[test]
    fn a_time_set_before_1970_is_what_the_kernel_sent() {
        // What fuser makes of the kernel's (-2 s, 800 ms).
        let read = UNIX_EPOCH - Duration::new(2, 800_000_000);
        let SetTime::At(time) = set_time(TimeOrNow::SpecificTime(read)) else {
            panic!("not a time");
        };
        assert_eq!((time.secs, time.nanos), (-2, 800_000_000));
    }

    #[test]
    fn a_device_shows_its_number_and_mknod_gives_it() {
        let device = node_kind(libc::S_IFCHR | 0o600, 0x0103).unwrap();
        let shown = attr(&Stat {
            kind: device,
            ..stat(0, 0)
        });
        assert_eq!((shown.kind, shown.rdev), (FileType::CharDevice, 0x0103));
        assert_eq!(node_kind(0o644, 0), Some(Kind::File));
        assert_eq!(node_kind(libc::S_IFDIR | 0o755, 0), None);
    }

    #[test]
    fn blocks_are_rounded_up() {
        assert_eq!(attr(&stat(0, 0)).blocks, 2);
    }

    #[test]
    fn only_the_known_rename_flags_pass() {
        use fuser::RenameFlags as F;
        assert_eq!(rename_flags(F::empty()), Some(RenameFlags::Replace));
        assert_eq!(
            rename_flags(F::RENAME_NOREPLACE),
            Some(RenameFlags::NoReplace)
        );
        assert_eq!(
            rename_flags(F::RENAME_EXCHANGE),
            Some(RenameFlags::Exchange)
        );
        assert_eq!(rename_flags(F::RENAME_EXCHANGE | F::RENAME_NOREPLACE), None);
        assert_eq!(rename_flags(F::RENAME_WHITEOUT), None);
    }

    #[test]
    fn a_read_only_open_that_truncates_still_has_something_to_commit() {
        assert!(never_writes(libc::O_RDONLY | libc::O_NOATIME));
        assert!(!never_writes(libc::O_RDONLY | libc::O_TRUNC));
        assert!(!never_writes(libc::O_WRONLY));
        assert!(!never_writes(libc::O_RDWR));
    }
}
