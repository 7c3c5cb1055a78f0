//! Why the log cannot go on: each variant is something its caller does.

use std::fmt;
use std::io;

use crate::disk::NotPrivate;

/// Why the log cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// Another daemon has it open (its pid if known).
    Busy(Option<u32>),
    /// It belongs to another binding and has unsent data; the text says what to do.
    Foreign(String),
    /// Written by a newer kryptonfs.
    Newer(u32),
    /// Owner, mode or kind of the folder is wrong; the text says what to do.
    Unsafe(String),
    /// No room: `ENOSPC`.
    Full,
    /// The disk failed with this errno. After a failed flush everything later fails with it.
    Disk(i32),
}

impl LogError {
    pub(super) fn of(error: &io::Error) -> Self {
        match errno(error) {
            libc::ENOSPC | libc::EDQUOT => Self::Full,
            errno => Self::Disk(errno),
        }
    }
}

/// The errno of an error of the disk.
pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> Self {
        Self::of(&error)
    }
}

impl From<NotPrivate> for LogError {
    fn from(error: NotPrivate) -> Self {
        match error {
            NotPrivate::Unsafe(text) => Self::Unsafe(text),
            NotPrivate::Io(error) => error.into(),
        }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(Some(pid)) => write!(f, "the spool is in use by process {pid}"),
            Self::Busy(None) => f.write_str("the spool is in use by another process"),
            Self::Foreign(text) | Self::Unsafe(text) => f.write_str(text),
            Self::Newer(version) => write!(
                f,
                "the spool was written by a newer kryptonfs (format {version}): use that one"
            ),
            Self::Full => f.write_str("no room on the device"),
            Self::Disk(errno) => {
                let error = io::Error::from_raw_os_error(*errno);
                write!(f, "the device failed: {error}")
            }
        }
    }
}

impl std::error::Error for LogError {}
