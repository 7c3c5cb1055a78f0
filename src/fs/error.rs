//! Why an operation fails, as the application is to be told. `fuse/errno.rs` maps each variant to
//! one errno, exhaustively.

use crate::log::LogError;
use crate::read::ReadError;
use crate::store::StoreError;
use crate::types::NameError;

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FsError {
    /// `ENOENT`.
    NotFound,
    /// `EEXIST`.
    Exists,
    /// `ENOTDIR`.
    NotDir,
    /// `EISDIR`.
    IsDir,
    /// `ENOTEMPTY`.
    NotEmpty,
    /// `EINVAL`.
    Invalid,
    /// `ENAMETOOLONG`: the component or the key.
    NameTooLong,
    /// `EILSEQ`: S3 keys are UTF-8.
    NotUtf8,
    /// `EPERM`: hard links, device nodes.
    NotPermitted,
    /// `EROFS`.
    ReadOnly,
    /// `EXDEV`: a directory with more than `rename_limit` objects.
    TooManyObjects,
    /// `EBADF`.
    BadHandle,
    /// `ESTALE`: the version is gone and not cached.
    Stale,
    /// `ENOSPC`: spool or disk.
    Full,
    /// `EFBIG`.
    TooBig,
    /// `EACCES`: S3 refuses changes here.
    Denied,
    /// `EDQUOT`.
    Quota,
    /// `ENODATA`: no such extended attribute.
    NoAttr,
    /// `ERANGE`.
    Range,
    /// `EOPNOTSUPP`.
    NotSupported,
    /// `E2BIG`: over the 2 KiB of metadata that S3 keeps with an object.
    MetadataTooBig,
    /// `ENXIO` of lseek.
    NoSuchOffset,
    /// `EIO`: the bucket could not be asked in time.
    Unreachable,
    /// `ETIMEDOUT`: not yet uploaded, never lost.
    NotYet,
    /// The local disk's errno.
    Disk(i32),
    /// `EIO`: the bucket's answer, kept for the log line.
    Store(StoreError),
}

impl From<NameError> for FsError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Invalid => Self::Invalid,
            NameError::TooLong => Self::NameTooLong,
            NameError::NotUtf8 => Self::NotUtf8,
        }
    }
}

impl From<LogError> for FsError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full => Self::Full,
            LogError::Disk(errno) => Self::Disk(errno),
            LogError::Busy(_) | LogError::Foreign(_) | LogError::Newer(_) | LogError::Unsafe(_) => {
                Self::Disk(libc::EIO)
            }
        }
    }
}

impl From<ReadError> for FsError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Stale => Self::Stale,
            ReadError::Disk(errno) => Self::Disk(errno),
            ReadError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound,
            StoreError::Stale => Self::Stale,
            StoreError::AccessDenied(_) => Self::Denied,
            StoreError::Quota(_) => Self::Quota,
            other if other.is_silence() => Self::Unreachable,
            other => Self::Store(other),
        }
    }
}

impl From<std::io::Error> for FsError {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC) => Self::Full,
            Some(errno) => Self::Disk(errno),
            None => Self::Disk(libc::EIO),
        }
    }
}
