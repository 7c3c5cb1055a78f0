//! The POSIX verbs over tree, log and reader. No verb waits for the network longer than
//! `stale_after` for names, `read_timeout` for bytes.

mod error;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::types::{Kind, Time};

pub use error::FsError;

/// What a verb answers.
pub type Result<T> = std::result::Result<T, FsError>;

/// A kernel inode number; 1 is the root. Never reused in a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

/// A file or directory handle. Never reused in a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fh(pub u64);

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// How `statfs` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatfsMode {
    /// Huge and empty.
    Cloud,
    /// The spool's file system.
    Spool,
}

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Within it what is known is trusted.
    pub ttl: Duration,
    /// No name operation waits longer for the network.
    pub stale_after: Duration,
    /// Listing an unknown directory, or a cold read, waits at most so long.
    pub read_timeout: Duration,
    /// Shown where the object does not say.
    pub uid: u32,
    /// Shown where the object does not say.
    pub gid: u32,
    /// Permission bits of files that do not say.
    pub file_mode: u32,
    /// Permission bits of directories that do not say.
    pub dir_mode: u32,
    /// Bits taken off every file mode shown.
    pub fmask: u32,
    /// Bits taken off every directory mode shown.
    pub dmask: u32,
    /// `ro`.
    pub read_only: bool,
    /// Known objects a directory rename may carry.
    pub rename_limit: usize,
    /// How `statfs` answers.
    pub statfs: StatfsMode,
    /// Longest key below the prefix in bytes (1,024 less the prefix).
    pub key_max: usize,
    /// `close=uploaded`.
    pub close_uploaded: bool,
    /// `fsync=uploaded`.
    pub fsync_uploaded: bool,
    /// Waiting in close for the upload ends after this long without a sent byte.
    pub close_timeout: Duration,
    /// Waiting in close for the upload ends after this long.
    pub close_max: Duration,
    /// Give new objects a Content-Type by their name's ending.
    pub content_type_auto: bool,
}

/// What `stat` shows.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// Inode.
    pub ino: Ino,
    /// Bytes.
    pub size: u64,
    /// Kind.
    pub kind: Kind,
    /// Permission bits.
    pub perm: u16,
    /// Links: 1 for files, 2 for directories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// mtime; atime and ctime show the same.
    pub mtime: Time,
}

/// An entry of a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Its name's bytes (`.` and `..` too).
    pub name: Vec<u8>,
    /// Its inode (for readdirplus: counted as looked up, if not `.` or `..`).
    pub stat: Stat,
    /// Offset to hand back for the entry behind it.
    pub next: i64,
}

/// What `open` and `create` answer.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// The handle.
    pub fh: Fh,
    /// The kernel's pages of this inode are still right (`FOPEN_KEEP_CACHE`).
    pub keep_cache: bool,
}

/// A time for `setattr`.
#[derive(Clone, Copy, Debug)]
pub enum SetTime {
    /// This one.
    At(Time),
    /// The daemon's now.
    Now,
}

/// What `setattr` changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Truncate or extend.
    pub size: Option<u64>,
    /// mtime.
    pub mtime: Option<SetTime>,
    /// The handle it came by.
    pub fh: Option<Fh>,
}

/// Flags of rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameFlags {
    /// Replace what is there.
    Replace,
    /// `RENAME_NOREPLACE`.
    NoReplace,
    /// `RENAME_EXCHANGE`.
    Exchange,
}

/// What `statfs` answers, in blocks of 4 KiB.
#[derive(Clone, Copy, Debug)]
pub struct StatFs {
    /// All blocks.
    pub blocks: u64,
    /// Free ones.
    pub free: u64,
    /// Files, as many as can be.
    pub files: u64,
}

/// The file system. Every verb may be called from any task; none panics on any input.
#[derive(Debug)]
pub struct Fs;

#[allow(clippy::unused_async, missing_docs)]
impl Fs {
    pub async fn lookup(&self, _parent: Ino, _name: &[u8]) -> Result<Stat> {
        todo!()
    }
    pub fn forget(&self, _ino: Ino, _count: u64) {
        todo!()
    }
    pub async fn getattr(&self, _ino: Ino, _fh: Option<Fh>) -> Result<Stat> {
        todo!()
    }
    pub async fn setattr(&self, _ino: Ino, _change: SetAttr) -> Result<Stat> {
        todo!()
    }
    pub async fn readlink(&self, _ino: Ino) -> Result<Bytes> {
        todo!()
    }
    pub async fn mkdir(
        &self,
        _parent: Ino,
        _name: &[u8],
        _mode: u32,
        _caller: Caller,
    ) -> Result<Stat> {
        todo!()
    }
    pub async fn mknod(
        &self,
        _parent: Ino,
        _name: &[u8],
        _mode: u32,
        _caller: Caller,
    ) -> Result<Stat> {
        todo!()
    }
    pub async fn symlink(
        &self,
        _parent: Ino,
        _name: &[u8],
        _target: &[u8],
        _caller: Caller,
    ) -> Result<Stat> {
        todo!()
    }
    pub async fn unlink(&self, _parent: Ino, _name: &[u8]) -> Result<()> {
        todo!()
    }
    pub async fn rmdir(&self, _parent: Ino, _name: &[u8]) -> Result<()> {
        todo!()
    }
    pub async fn rename(
        &self,
        _from: (Ino, &[u8]),
        _to: (Ino, &[u8]),
        _flags: RenameFlags,
    ) -> Result<()> {
        todo!()
    }
    pub async fn open(&self, _ino: Ino, _flags: i32) -> Result<Opened> {
        todo!()
    }
    /// `mode` has the umask taken off already.
    pub async fn create(
        &self,
        _parent: Ino,
        _name: &[u8],
        _mode: u32,
        _flags: i32,
        _caller: Caller,
    ) -> Result<(Stat, Opened)> {
        todo!()
    }
    pub async fn read(&self, _ino: Ino, _fh: Fh, _offset: u64, _size: usize) -> Result<Bytes> {
        todo!()
    }
    pub async fn write(&self, _ino: Ino, _fh: Fh, _offset: u64, _data: Bytes) -> Result<u32> {
        todo!()
    }
    pub async fn flush(&self, _ino: Ino, _fh: Fh) -> Result<()> {
        todo!()
    }
    pub async fn fsync(&self, _ino: Ino, _fh: Fh) -> Result<()> {
        todo!()
    }
    pub async fn release(&self, _ino: Ino, _fh: Fh) -> Result<()> {
        todo!()
    }
    pub async fn opendir(&self, _ino: Ino) -> Result<Fh> {
        todo!()
    }
    /// Entries from `offset` on until `emit` answers false (no room: that entry comes again) or the
    /// end. `plus`: each emitted entry counts as looked up.
    pub async fn readdir(
        &self,
        _ino: Ino,
        _fh: Fh,
        _offset: i64,
        _plus: bool,
        _emit: &mut (dyn FnMut(&DirEntry) -> bool + Send),
    ) -> Result<()> {
        todo!()
    }
    pub fn releasedir(&self, _fh: Fh) {
        todo!()
    }
    pub async fn fsyncdir(&self, _ino: Ino) -> Result<()> {
        todo!()
    }
    pub fn statfs(&self) -> Result<StatFs> {
        todo!()
    }
    pub async fn getxattr(&self, _ino: Ino, _name: &[u8]) -> Result<Vec<u8>> {
        todo!()
    }
    /// Names, each ended by a NUL.
    pub async fn listxattr(&self, _ino: Ino) -> Result<Vec<u8>> {
        todo!()
    }
    pub async fn setxattr(
        &self,
        _ino: Ino,
        _name: &[u8],
        _value: &[u8],
        _flags: i32,
    ) -> Result<()> {
        todo!()
    }
    pub async fn removexattr(&self, _ino: Ino, _name: &[u8]) -> Result<()> {
        todo!()
    }
    pub async fn fallocate(
        &self,
        _ino: Ino,
        _fh: Fh,
        _offset: u64,
        _len: u64,
        _mode: i32,
    ) -> Result<()> {
        todo!()
    }
    pub async fn copy_file_range(
        &self,
        _from: (Ino, Fh, u64),
        _to: (Ino, Fh, u64),
        _len: u64,
    ) -> Result<u32> {
        todo!()
    }
    pub async fn lseek(&self, _ino: Ino, _fh: Fh, _offset: i64, _whence: i32) -> Result<i64> {
        todo!()
    }
    /// How long the kernel may trust what it was told of a name or of attributes.
    pub fn kernel_ttl(&self) -> Duration {
        todo!()
    }
}

/// What `Fs::new` stands on.
#[derive(Debug)]
pub struct Parts {
    /// The tree.
    pub tree: Arc<crate::tree::Tree>,
    /// The reader.
    pub reader: Arc<crate::read::Reader>,
    /// The store.
    pub store: Arc<dyn crate::store::ObjectStore>,
    /// The log.
    pub log: Arc<crate::log::Log>,
}

impl Fs {
    /// Builds the verbs. `uploaded` answers when a key has nothing pending any more up to a number
    /// (the drain's side of `close=uploaded`).
    pub fn new(_config: Config, _parts: Parts) -> Arc<Self> {
        todo!()
    }
}
