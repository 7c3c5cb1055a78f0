//! The one table from what went wrong to what the application is told.
//!
//! Invariant: exhaustive, no wildcard arm: a new variant does not compile before it has an errno.

use fuser::Errno;

use crate::fs::FsError;

/// The errno of an error.
pub(super) fn errno(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotDir => Errno::ENOTDIR,
        FsError::IsDir => Errno::EISDIR,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::Invalid => Errno::EINVAL,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::NotUtf8 => Errno::EILSEQ,
        FsError::NotPermitted => Errno::EPERM,
        FsError::ReadOnly => Errno::EROFS,
        FsError::TooManyObjects => Errno::EXDEV,
        FsError::BadHandle => Errno::EBADF,
        FsError::Stale => Errno::ESTALE,
        FsError::Full => Errno::ENOSPC,
        FsError::TooBig => Errno::EFBIG,
        FsError::Denied => Errno::EACCES,
        FsError::Quota => Errno::EDQUOT,
        FsError::NoAttr => Errno::ENODATA,
        FsError::Range => Errno::ERANGE,
        FsError::NotSupported => Errno::EOPNOTSUPP,
        FsError::MetadataTooBig => Errno::E2BIG,
        FsError::NoSuchOffset => Errno::ENXIO,
        FsError::Unreachable => Errno::EIO,
        FsError::NotYet => Errno::ETIMEDOUT,
        FsError::Disk(errno) => Errno::from_i32(*errno),
        FsError::Store(_) => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    /// Each variant's place in `TABLE`; a new variant does not compile before it has one.
    fn place(error: &FsError) -> usize {
        match error {
            FsError::NotFound => 0,
            FsError::Exists => 1,
            FsError::NotDir => 2,
            FsError::IsDir => 3,
            FsError::NotEmpty => 4,
            FsError::Invalid => 5,
            FsError::NameTooLong => 6,
            FsError::NotUtf8 => 7,
            FsError::NotPermitted => 8,
            FsError::ReadOnly => 9,
            FsError::TooManyObjects => 10,
            FsError::BadHandle => 11,
            FsError::Stale => 12,
            FsError::Full => 13,
            FsError::TooBig => 14,
            FsError::Denied => 15,
            FsError::Quota => 16,
            FsError::NoAttr => 17,
            FsError::Range => 18,
            FsError::NotSupported => 19,
            FsError::MetadataTooBig => 20,
            FsError::NoSuchOffset => 21,
            FsError::Unreachable => 22,
            FsError::NotYet => 23,
            FsError::Disk(_) => 24,
            FsError::Store(_) => 25,
        }
    }

    const TABLE: [(FsError, i32); 26] = [
        (FsError::NotFound, libc::ENOENT),
        (FsError::Exists, libc::EEXIST),
        (FsError::NotDir, libc::ENOTDIR),
        (FsError::IsDir, libc::EISDIR),
        (FsError::NotEmpty, libc::ENOTEMPTY),
        (FsError::Invalid, libc::EINVAL),
        (FsError::NameTooLong, libc::ENAMETOOLONG),
        (FsError::NotUtf8, libc::EILSEQ),
        (FsError::NotPermitted, libc::EPERM),
        (FsError::ReadOnly, libc::EROFS),
        (FsError::TooManyObjects, libc::EXDEV),
        (FsError::BadHandle, libc::EBADF),
        (FsError::Stale, libc::ESTALE),
        (FsError::Full, libc::ENOSPC),
        (FsError::TooBig, libc::EFBIG),
        (FsError::Denied, libc::EACCES),
        (FsError::Quota, libc::EDQUOT),
        (FsError::NoAttr, libc::ENODATA),
        (FsError::Range, libc::ERANGE),
        (FsError::NotSupported, libc::EOPNOTSUPP),
        (FsError::MetadataTooBig, libc::E2BIG),
        (FsError::NoSuchOffset, libc::ENXIO),
        (FsError::Unreachable, libc::EIO),
        (FsError::NotYet, libc::ETIMEDOUT),
        (FsError::Disk(libc::EROFS), libc::EROFS),
        (FsError::Store(StoreError::NoSuchBucket), libc::EIO),
    ];

    #[test]
    fn every_error_has_the_errno_its_documentation_names() {
        for (at, (error, code)) in TABLE.iter().enumerate() {
            assert_eq!(place(error), at, "{error:?}");
            assert_eq!(errno(error).code(), *code, "{error:?}");
        }
    }

    #[test]
    fn a_disk_error_without_an_errno_is_an_io_error() {
        assert_eq!(errno(&FsError::Disk(0)).code(), libc::EIO);
    }
}
