//! The POSIX verbs over tree, log and reader.
//!
//! Invariants:
//! - no verb waits for the network longer than `stale_after` for what is known, `read_timeout` for
//!   what is not; changes never wait for it (but `close=uploaded`, bounded by its own options);
//! - a name change answers once its record is flushed, in every mode;
//! - LOCK ORDER: an open file's lock < the table of names < the tree < leaf locks (handles,
//!   flights). All are plain mutexes; none is held across an await or a flush.

mod attr;
mod cost;
mod dir;
mod draft;
mod error;
mod exact;
mod file;
mod handle;
mod inode;
mod intent;
mod io;
mod learn;
mod mime;
mod names;
mod open;
mod opener;
mod paging;
mod pattern;
mod pin;
mod read;
mod refresh;
mod rename;
mod seal;
mod times;
mod unclosed;
mod waits;
mod xattr;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::log::Log;
use crate::read::{IsDown, Reader};
use crate::store::ObjectStore;
use crate::tree::Tree;
use crate::types::{Attrs, Kind, Time};

use handle::Handles;
use inode::Table;
use learn::Learner;
use waits::Waits;

pub use error::FsError;
pub use pattern::Pattern;
pub use pin::Pinned;

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
    /// Process.
    pub pid: u32,
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
    /// A file that stays open is sealed so often, if it changed.
    pub upload_open: Duration,
    /// Small bytes of an open file leave memory for a data file when nothing was written so long.
    pub unwritten_after: Duration,
    /// Give new objects a Content-Type by their name's ending.
    pub content_type_auto: bool,
    /// `attrs=exact`: what a listing does not tell is asked for before it is shown.
    pub attrs_exact: bool,
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
    /// Links: 1 for what is no directory; for a directory 2 and one for each directory in it, or 1
    /// (by custom: not counted) where they are not all known or too many to count.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Time,
    /// What utimensat(2) set it to here, else mtime. Reading does not move it.
    pub atime: Time,
    /// Last change of content, attributes or name, as far as it was made here; else mtime.
    pub ctime: Time,
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
    /// atime: kept on this device, while the inode is.
    pub atime: Option<SetTime>,
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

/// What `Fs::new` stands on.
#[derive(Debug)]
pub struct Parts {
    /// The tree.
    pub tree: Arc<Tree>,
    /// The reader.
    pub reader: Arc<Reader>,
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The log.
    pub log: Arc<Log>,
    /// What tells a slow link from a silent one, and restarts the timer of a close that waits.
    pub progress: Progress,
}

/// What a `Forgetter` calls.
pub type Forget = dyn Fn(Ino, &[u8]) + Send + Sync;

/// Asks the kernel to forget a name in a directory. Never waits.
#[derive(Clone)]
pub struct Forgetter(pub Arc<Forget>);

impl std::fmt::Debug for Forgetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forgetter")
    }
}

/// Tells how many bytes were sent and received so far.
#[derive(Clone)]
pub struct Progress(pub Arc<dyn Fn() -> (u64, u64) + Send + Sync>);

impl Progress {
    fn sent(&self) -> u64 {
        (self.0)().0
    }

    fn received(&self) -> u64 {
        (self.0)().1
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Progress({:?})", (self.0)())
    }
}

/// The file system. Every verb may be called from any task; none panics on any input.
#[derive(Debug)]
pub struct Fs {
    config: Config,
    tree: Arc<Tree>,
    reader: Arc<Reader>,
    log: Arc<Log>,
    learner: Arc<Learner>,
    names: Mutex<Table>,
    handles: Handles,
    root: Mutex<Attrs>,
    /// Bytes in the buffers of drafts.
    buffered: AtomicUsize,
    progress: Progress,
    waits: Arc<Waits>,
    forgetter: OnceLock<Forgetter>,
}

impl Fs {
    /// Builds the verbs.
    #[must_use]
    pub fn new(config: Config, parts: Parts) -> Arc<Self> {
        let Parts {
            tree,
            reader,
            store,
            log,
            progress,
        } = parts;
        let waits = Arc::new(Waits::default());
        let learner = Learner::new(
            Arc::clone(&tree),
            store,
            Arc::clone(&waits),
            (config.stale_after, config.read_timeout, config.ttl),
            progress.clone(),
        );
        let root = Attrs {
            kind: Kind::Dir,
            ..Attrs::default()
        };
        Arc::new(Self {
            config,
            tree,
            reader,
            log,
            learner,
            names: Mutex::new(Table::new()),
            handles: Handles::default(),
            root: Mutex::new(root),
            buffered: AtomicUsize::new(0),
            progress,
            waits,
            forgetter: OnceLock::new(),
        })
    }

    /// Ends all waits for the bucket: reads fail with `EIO`, names show what is known, a close
    /// that waits answers `ETIMEDOUT`. Answers how many waited. What is being sent goes on.
    pub fn end_waits(&self) -> usize {
        self.waits.end_all()
    }

    /// Has `is_down` asked before a question: where it says so, nobody waits for the bucket.
    pub fn ask_link(&self, is_down: Arc<IsDown>) {
        self.learner.ask_link(Arc::clone(&is_down));
        self.reader.ask_link(is_down);
    }

    /// Has the kernel asked to forget names when it keeps too many inodes here. The first caller stays.
    pub fn forget_by(&self, forgetter: Forgetter) {
        if self.forgetter.set(forgetter).is_err() {
            tracing::debug!("the kernel is asked by somebody else already");
        }
    }

    /// Keeps the number of inodes in bounds: to be called when one came.
    fn relieve(&self) {
        if let Some(forgetter) = self.forgetter.get() {
            let names = self.names.lock().crowded_out();
            for (parent, name) in names {
                (forgetter.0)(parent, name.as_str().as_bytes());
            }
        }
    }

    /// How long the kernel may trust what it was told of a name or of attributes.
    #[must_use]
    pub fn kernel_ttl(&self) -> Duration {
        self.config.ttl.min(KERNEL_TTL)
    }

    /// Answers given with what was known before, since the bucket was silent.
    #[must_use]
    pub fn stale_answers(&self) -> u64 {
        self.learner.stale()
    }

    /// The bucket did not answer when the mount was made: nobody waits for it now.
    pub fn starts_offline(&self) {
        self.learner.silent();
    }

    /// The kernel drops `count` references to an inode.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.names.lock().forget(ino, count);
    }

    /// `statfs`.
    ///
    /// # Errors
    /// None now.
    pub fn statfs(&self) -> Result<StatFs> {
        let files = 1 << 40;
        Ok(match self.config.statfs {
            StatfsMode::Cloud => StatFs {
                blocks: 1 << 40,
                free: 1 << 40,
                files,
            },
            StatfsMode::Spool => {
                let (used, cap) = self.log.spool().usage();
                StatFs {
                    blocks: cap / BLOCK,
                    free: cap.saturating_sub(used) / BLOCK,
                    files,
                }
            }
        })
    }

    /// All that was acknowledged is durable already; this flushes what was not, for `fsync` of a
    /// directory.
    ///
    /// # Errors
    /// Of the disk.
    pub async fn fsyncdir(&self, _ino: Ino) -> Result<()> {
        Ok(self.log.flushed(self.tree.now()).await?)
    }

    fn must_be_writable(&self) -> Result<()> {
        if self.config.read_only {
            Err(FsError::ReadOnly)
        } else {
            Ok(())
        }
    }
}

/// Attributes and names are cheap to ask for, so the kernel does so at least once a second.
const KERNEL_TTL: Duration = Duration::from_secs(1);
/// The unit of `StatFs`.
const BLOCK: u64 = 4096;

fn clock() -> Time {
    let since = crate::clock::wall()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Time {
        secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos(),
    }
}

#[cfg(test)]
mod tests;
