//! How the kernel serves an open file: the one table of I/O modes.
//!
//! Sources: fuse_file_io_open in the kernel (fs/fuse/iomode.c), and what was measured on 6.18: an
//! inode is either cached or passed through at a time, and an open in the other mode is refused with
//! EIO; a direct handle is neither, unless it is passed through too; a handle that is passed through
//! and direct sends its reads and writes here, and counts as passed through.
//!
//! Invariants, for whatever opens meet:
//! - no open is refused by the kernel: what is cached stays cached, what is passed through stays so,
//!   until its last handle is gone;
//! - every write comes here: who may write is never given a file plainly passed through;
//! - without passthrough (switched off, or not allowed) all is cached.

use fuser::FopenFlags;

/// Whether handles are passed through: not yet. Until then all are cached.
const PASSTHROUGH: bool = false;

/// What a handle may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// `O_RDONLY`. `whole`: all bytes of its version are in one file of the cache.
    Read {
        /// See there.
        whole: bool,
    },
    /// `O_WRONLY`: it cannot be mapped.
    Write,
    /// `O_RDWR`: it may be mapped and written to by that, which only a cached handle shows.
    ReadWrite,
}

/// In which mode other handles of the inode are.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "without passthrough all are cached")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// There are none, or direct ones only.
    Neutral,
    /// One at least is cached.
    Cached,
    /// One at least is passed through.
    PassedThrough,
}

/// A mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// By the kernel's pages.
    Cached,
    /// Each call comes here.
    Direct,
    /// The kernel reads the backing file itself.
    PassedThrough,
    /// Passed through for the sake of the others; each read and write comes here.
    PassedThroughDirect,
}

impl Access {
    /// Of an open with these flags. `whole`: see there.
    fn of(flags: i32, whole: bool) -> Self {
        match flags & libc::O_ACCMODE {
            libc::O_RDONLY => Self::Read { whole },
            libc::O_WRONLY => Self::Write,
            _ => Self::ReadWrite,
        }
    }
}

/// What the kernel is told of a handle that is opened with these flags. `keep`: its pages are of the
/// version that is opened.
pub(super) fn fopen(flags: i32, keep: bool) -> FopenFlags {
    mode(Access::of(flags, false), Others::Cached, PASSTHROUGH).flags(keep)
}

/// The table. `passthrough`: the kernel has it and allows it.
fn mode(access: Access, others: Others, passthrough: bool) -> Mode {
    if !passthrough {
        return Mode::Cached;
    }
    match (access, others) {
        (Access::Read { whole: true }, Others::Neutral | Others::PassedThrough) => {
            Mode::PassedThrough
        }
        // A mapping of it is safe only by the kernel's pages.
        (Access::Read { whole: false }, Others::Neutral) => Mode::Cached,
        (Access::Read { whole: false }, Others::PassedThrough) => Mode::PassedThroughDirect,
        (Access::Read { .. }, Others::Cached) => Mode::Cached,
        (Access::Write, Others::Neutral | Others::PassedThrough) => Mode::PassedThroughDirect,
        (Access::Write, Others::Cached) => Mode::Direct,
        (Access::ReadWrite, Others::Neutral | Others::Cached) => Mode::Cached,
        (Access::ReadWrite, Others::PassedThrough) => Mode::PassedThroughDirect,
    }
}

impl Mode {
    /// What the kernel is told. `keep`: its pages are of the version that is opened. (With a file that
    /// is passed through it takes no other flag.)
    fn flags(self, keep: bool) -> FopenFlags {
        match self {
            Self::Cached if keep => FopenFlags::FOPEN_KEEP_CACHE,
            Self::Cached => FopenFlags::empty(),
            Self::Direct => FopenFlags::FOPEN_DIRECT_IO,
            Self::PassedThrough => FopenFlags::FOPEN_PASSTHROUGH,
            Self::PassedThroughDirect => {
                FopenFlags::FOPEN_PASSTHROUGH | FopenFlags::FOPEN_DIRECT_IO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Access; 4] = [
        Access::Read { whole: true },
        Access::Read { whole: false },
        Access::Write,
        Access::ReadWrite,
    ];

    /// What an inode is with one more handle; `None`: the kernel refuses.
    fn after(others: Others, mode: Mode) -> Option<Others> {
        match (others, mode) {
            (Others::Neutral | Others::Cached, Mode::Cached) => Some(Others::Cached),
            (Others::Neutral | Others::PassedThrough, Mode::PassedThrough)
            | (Others::Neutral | Others::PassedThrough, Mode::PassedThroughDirect) => {
                Some(Others::PassedThrough)
            }
            (Others::Neutral | Others::Cached, Mode::Direct) => Some(others),
            _ => None,
        }
    }

    #[test]
    fn no_sequence_of_opens_is_refused_by_the_kernel() {
        let mut todo = vec![(Others::Neutral, 0)];
        while let Some((others, depth)) = todo.pop() {
            for access in ALL {
                let mode = mode(access, others, true);
                let next = after(others, mode);
                let next = next.unwrap_or_else(|| panic!("{access:?} {others:?} {mode:?}"));
                if depth < 4 {
                    todo.push((next, depth + 1));
                }
            }
        }
    }

    #[test]
    fn whoever_may_write_writes_here() {
        for others in [Others::Neutral, Others::Cached, Others::PassedThrough] {
            for access in [Access::Write, Access::ReadWrite] {
                assert_ne!(mode(access, others, true), Mode::PassedThrough);
            }
        }
    }

    #[test]
    fn without_passthrough_all_is_cached() {
        for others in [Others::Neutral, Others::Cached, Others::PassedThrough] {
            for access in ALL {
                assert_eq!(mode(access, others, false), Mode::Cached);
            }
        }
    }

    #[test]
    fn pages_are_kept_only_where_the_version_is_the_one_the_kernel_knows() {
        assert_eq!(Mode::Cached.flags(true), FopenFlags::FOPEN_KEEP_CACHE);
        assert_eq!(Mode::Cached.flags(false), FopenFlags::empty());
    }

    #[test]
    fn what_is_passed_through_takes_no_flag_that_the_kernel_refuses_with_it() {
        let allowed = FopenFlags::FOPEN_PASSTHROUGH | FopenFlags::FOPEN_DIRECT_IO;
        for mode in [Mode::PassedThrough, Mode::PassedThroughDirect] {
            for keep in [false, true] {
                assert!(allowed.contains(mode.flags(keep)));
            }
        }
    }
}
