//! An open file of ours, with its path for the watch.

use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{FallocateFlags, fallocate};

use super::{Disk, Step};

/// An open file.
#[derive(Debug)]
pub struct File {
    file: std::fs::File,
    path: PathBuf,
    disk: Disk,
}

impl File {
    pub(super) fn new(file: std::fs::File, path: PathBuf, disk: Disk) -> Self {
        Self { file, path, disk }
    }

    /// The name it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all of `data` at `offset` (to the page cache).
    ///
    /// # Errors
    /// Of the disk; part of it may have been written then.
    pub fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.disk.step(&Step::Write {
            path: &self.path,
            offset,
            data,
        })?;
        self.file.write_all_at(data, offset)
    }

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` behind the end; of the disk.
    pub fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    /// All of it.
    ///
    /// # Errors
    /// Of the disk.
    pub fn read_all(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut all = vec![0; len];
        self.read_exact_at(&mut all, 0)?;
        Ok(all)
    }

    /// Makes bytes and length durable (fdatasync).
    ///
    /// # Errors
    /// Of the disk. What was to be flushed may be lost then: asking again proves nothing.
    pub fn flush(&self) -> io::Result<()> {
        self.disk.step(&Step::Flush(&self.path))?;
        self.file.sync_data()
    }

    /// Sets room aside for the first `len` bytes; new ones read as zeros.
    ///
    /// # Errors
    /// `ENOSPC`; of the disk.
    pub fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.step(&Step::Allocate(&self.path, len))?;
        let len = i64::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Err(nix::errno::Errno::EOPNOTSUPP) => self.write_zeros(len.unsigned_abs()),
            done => Ok(done?),
        }
    }

    /// What `allocate` does where the file system cannot.
    fn write_zeros(&self, len: u64) -> io::Result<()> {
        let zeros = vec![0; 64 << 10];
        let mut at = self.len()?;
        while at < len {
            let now = (len - at).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..now as usize], at)?;
            at += now;
        }
        Ok(())
    }

    /// Gives it this length.
    ///
    /// # Errors
    /// Of the disk.
    pub fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.step(&Step::Truncate(&self.path, len))?;
        self.file.set_len(len)
    }

    /// Its length.
    ///
    /// # Errors
    /// Of the disk.
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// Of the disk.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The bytes it occupies on the device.
    ///
    /// # Errors
    /// Of the disk.
    pub fn occupied(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks().saturating_mul(512))
    }

    /// Whether it still has a name.
    ///
    /// # Errors
    /// Of the disk.
    pub fn is_named(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() > 0)
    }

    /// When its content was changed last.
    ///
    /// # Errors
    /// Of the disk.
    pub fn modified(&self) -> io::Result<SystemTime> {
        self.file.metadata()?.modified()
    }

    /// Sets permission bits and the time of the last change.
    ///
    /// # Errors
    /// Of the disk.
    pub fn set_attrs(&self, mode: u32, modified: SystemTime) -> io::Result<()> {
        self.file
            .set_permissions(std::fs::Permissions::from_mode(mode))?;
        self.file.set_modified(modified)
    }

    /// Makes bytes, length and attributes durable (fsync).
    ///
    /// # Errors
    /// As `flush`.
    pub fn flush_all(&self) -> io::Result<()> {
        self.disk.step(&Step::Flush(&self.path))?;
        self.file.sync_all()
    }

    pub(super) fn try_lock_shared(&self) -> io::Result<bool> {
        match self.file.try_lock_shared() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub(super) fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
