//! Folders that nobody else can read, write or swap.
//!
//! Invariant: a `Dir` that is handed out is a folder (not a symlink), owned by our effective user,
//! with mode 0700, and no folder above it can be changed by everybody.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{FsType, Statfs, TMPFS_MAGIC, fstatfs, statfs};
use nix::unistd::geteuid;

use super::{Dir, Disk, Step};

/// ramfs; nix does not name it.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Why a folder is not used.
#[derive(Debug)]
pub enum NotPrivate {
    /// Others could read or change it; the text says what to do.
    Unsafe(String),
    /// The disk failed.
    Io(io::Error),
}

impl From<io::Error> for NotPrivate {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<nix::errno::Errno> for NotPrivate {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl Dir {
    /// Opens the private folder `path`; it and what is missing above it is made, durably. Modes
    /// that let others read are tightened, modes that let others write are refused.
    ///
    /// # Errors
    /// See `NotPrivate`.
    pub fn private(disk: &Disk, path: &Path) -> Result<Self, NotPrivate> {
        let path = std::path::absolute(path)?;
        make_all(disk, &path)?;
        for above in path.ancestors().skip(1) {
            let mode = std::fs::metadata(above)?.mode();
            if mode & 0o002 != 0 && mode & 0o1000 == 0 {
                return Err(unsafe_because(
                    above,
                    "everybody can change it",
                    "chmod o-w",
                ));
            }
        }
        let fd = match open(&path, folder(), Mode::empty()) {
            Ok(fd) => fd.into(),
            Err(errno) => return Err(not_a_folder(&path, errno)),
        };
        Self::checked(fd, &path, disk)
    }

    /// As `private`, but only where the file system is memory; `None`: it is not, and nothing was
    /// made.
    ///
    /// # Errors
    /// See `NotPrivate`.
    pub fn private_in_memory(disk: &Disk, path: &Path) -> Result<Option<Self>, NotPrivate> {
        let path = std::path::absolute(path)?;
        let there = path.ancestors().find(|at| at.exists());
        if !is_memory(&statfs(there.unwrap_or(&path))?) {
            return Ok(None);
        }
        let dir = Self::private(disk, &path)?;
        // It may have been made meanwhile, as something else.
        Ok(is_memory(&fstatfs(&dir.fd)?).then_some(dir))
    }

    /// Opens the private folder `name` in here; it is made if absent (durable after `flush`).
    ///
    /// # Errors
    /// See `NotPrivate`.
    pub fn private_below(&self, name: &str) -> Result<Self, NotPrivate> {
        let path = self.path(name);
        let opened = match openat(self.fd.as_fd(), name, folder(), Mode::empty()) {
            Err(nix::errno::Errno::ENOENT) => {
                self.disk.step(&Step::MakeDir(&path))?;
                mkdirat(self.fd.as_fd(), name, Mode::from_bits_truncate(0o700))?;
                openat(self.fd.as_fd(), name, folder(), Mode::empty())
            }
            opened => opened,
        };
        match opened {
            Ok(fd) => Self::checked(fd.into(), &path, &self.disk),
            Err(errno) => Err(not_a_folder(&path, errno)),
        }
    }

    fn checked(fd: std::fs::File, path: &Path, disk: &Disk) -> Result<Self, NotPrivate> {
        let found = fd.metadata()?;
        if found.uid() != geteuid().as_raw() {
            let why = format!("it belongs to user {}", found.uid());
            return Err(unsafe_because(
                path,
                &why,
                "chown it to the mount's user, or move",
            ));
        }
        if found.mode() & 0o022 != 0 {
            return Err(unsafe_because(
                path,
                "others can write to it",
                "look for what is not yours in it, then chmod 700",
            ));
        }
        if found.mode() & 0o7777 != 0o700 {
            fd.set_permissions(std::fs::Permissions::from_mode(0o700))?;
        }
        Ok(Self {
            fd,
            path: path.to_path_buf(),
            disk: disk.clone(),
        })
    }
}

pub(super) fn is_memory(found: &Statfs) -> bool {
    [TMPFS_MAGIC, RAMFS_MAGIC].contains(&found.filesystem_type())
}

fn folder() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

fn unsafe_because(path: &Path, why: &str, cure: &str) -> NotPrivate {
    let path = path.display();
    NotPrivate::Unsafe(format!("{path} is not used: {why}. {cure} {path}"))
}

fn not_a_folder(path: &Path, errno: nix::errno::Errno) -> NotPrivate {
    match errno {
        nix::errno::Errno::ELOOP | nix::errno::Errno::ENOTDIR => unsafe_because(
            path,
            "it is a symlink or not a folder",
            "name the folder itself, or move",
        ),
        other => other.into(),
    }
}

fn make_all(disk: &Disk, path: &Path) -> io::Result<()> {
    let is_missing = |at: &Path| match std::fs::symlink_metadata(at) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    };
    let mut missing = Vec::new();
    for at in path.ancestors() {
        if !is_missing(at)? {
            break;
        }
        missing.push(at);
    }
    for at in missing.into_iter().rev() {
        disk.step(&Step::MakeDir(at))?;
        match std::fs::DirBuilder::new().mode(0o700).create(at) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(above) = at.parent() {
            disk.step(&Step::FlushDir(above))?;
            std::fs::File::open(above)?.sync_all()?;
        }
    }
    Ok(())
}
