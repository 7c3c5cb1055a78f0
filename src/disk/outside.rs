//! Folders that are not ours alone: a spool that is only looked at, and where an export goes.
//!
//! Invariants: nothing is reached through a symlink below the folder that was named; what is there
//! is neither changed nor replaced.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, open, openat, renameat2};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::symlinkat;

use super::{Dir, Disk, Step};

impl Dir {
    /// Opens a folder as it is, whosesoever it is.
    ///
    /// # Errors
    /// Of the disk.
    pub fn as_it_is(disk: &Disk, path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self {
            fd: open(path, flags, Mode::empty())?.into(),
            path: path.to_path_buf(),
            disk: disk.clone(),
        })
    }

    /// The folder `name` in here as it is.
    ///
    /// # Errors
    /// `NotFound`; of the disk.
    pub fn below(&self, name: &str) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Self {
            fd: openat(self.fd.as_fd(), name, flags, Mode::empty())?.into(),
            path: self.path(name),
            disk: self.disk.clone(),
        })
    }

    /// The folder `name` in here, made if it is absent (durable after `flush`).
    ///
    /// # Errors
    /// Of the disk.
    pub fn made_below(&self, name: &str) -> io::Result<Self> {
        match self.below(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.step(&Step::MakeDir(&self.path(name)))?;
                let mode = Mode::from_bits_truncate(0o755);
                match mkdirat(self.fd.as_fd(), name, mode) {
                    Ok(()) | Err(Errno::EEXIST) => self.below(name),
                    Err(errno) => Err(errno.into()),
                }
            }
            opened => opened,
        }
    }

    /// Whether something is called `name`, and if so whether it is a regular file.
    ///
    /// # Errors
    /// Of the disk.
    pub fn has(&self, name: &str) -> io::Result<Option<bool>> {
        match fstatat(self.fd.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
                Ok(Some(kind == SFlag::S_IFREG))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes `from` in here `to`, if nothing is called that. Durable after `flush`.
    ///
    /// # Errors
    /// `AlreadyExists`; of the disk.
    pub fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let step = Step::Rename(&self.path(from), &self.path(to));
        self.disk.step(&step)?;
        let fd = self.fd.as_fd();
        Ok(renameat2(fd, from, fd, to, RenameFlags::RENAME_NOREPLACE)?)
    }

    /// Makes a symbolic link, if nothing is called `name`. Durable after `flush`.
    ///
    /// # Errors
    /// `AlreadyExists`; of the disk.
    pub fn symlink(&self, target: &str, name: &str) -> io::Result<()> {
        self.disk.step(&Step::Create(&self.path(name)))?;
        Ok(symlinkat(target, self.fd.as_fd(), name)?)
    }

    /// Where the symbolic link `name` points to.
    ///
    /// # Errors
    /// `InvalidInput` if it is none; of the disk.
    pub fn link_target(&self, name: &str) -> io::Result<std::ffi::OsString> {
        Ok(nix::fcntl::readlinkat(self.fd.as_fd(), name)?)
    }

    /// Sets the permission bits of the folder itself.
    ///
    /// # Errors
    /// Of the disk.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fchmod(&self.fd, Mode::from_bits_truncate(mode))?)
    }

    /// Whether a process holds the lock on `name` in here. Nothing is locked beyond the question.
    ///
    /// # Errors
    /// `NotFound`; of the disk.
    pub fn is_locked(&self, name: &str) -> io::Result<bool> {
        Ok(!self.open(name)?.try_lock_shared()?)
    }
}
