//! The directory under a mount: what is written there while nothing is mounted reaches nobody.
//!
//! Invariant: the immutable flag (chattr(1)'s `i`) is only ever set on the directory itself; mounting on
//! such a directory works, creating in it fails with `EPERM` for root as well.

use std::fs::File;
use std::io;
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// A directory that is to be covered by a mount.
#[derive(Debug)]
pub struct Bare {
    dir: File,
    /// Those it had when it was closed off.
    before: Mutex<Option<IFlags>>,
}

impl Bare {
    /// Opens `dir` while nothing is mounted there. `None`: it cannot be opened, or its file system (or
    /// this user) cannot make a directory immutable.
    #[must_use]
    pub fn open(dir: &Path) -> Option<Self> {
        let dir = File::open(dir).ok()?;
        ioctl_getflags(&dir).ok()?;
        Some(Self {
            dir,
            before: Mutex::new(None),
        })
    }

    /// Nothing can be created in it from now on.
    ///
    /// # Errors
    /// If the file system or the kernel refuses.
    pub fn close_off(&self) -> io::Result<()> {
        let flags = ioctl_getflags(&self.dir)?;
        *self.before.lock() = Some(flags);
        Ok(ioctl_setflags(&self.dir, flags | IFlags::IMMUTABLE)?)
    }

    /// As it was when it was closed off.
    ///
    /// # Errors
    /// If the file system or the kernel refuses.
    pub fn give_back(&self) -> io::Result<()> {
        match self.before.lock().take() {
            Some(flags) => Ok(ioctl_setflags(&self.dir, flags)?),
            None => Ok(()),
        }
    }
}
