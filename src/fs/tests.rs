//! The verbs over the twin: no kernel, no network.

mod basics;
mod crash;
mod device;
mod dirs;
mod exact;
mod full;
mod model;
mod paging;
mod sent;
mod shared;
mod unclosed;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::disk::Disk;
use crate::drain;
use crate::log::{self, Binding};
use crate::store::Op;
use crate::store::fault::Fault;
use crate::store::twin::Twin;
use crate::tree::Tree;
use crate::types::Headers;

const TTL: Duration = Duration::from_secs(60);
const ME: Caller = Caller {
    uid: 7,
    gid: 8,
    pid: 9,
};

pub(super) struct World {
    pub(super) fs: Arc<Fs>,
    pub(super) twin: Arc<Twin>,
    pub(super) drain: drain::Handle,
    pub(super) dir: tempfile::TempDir,
}

fn config() -> Config {
    Config {
        ttl: Duration::from_secs(60),
        stale_after: Duration::from_secs(2),
        read_timeout: Duration::from_secs(30),
        uid: 0,
        gid: 0,
        file_mode: 0o644,
        dir_mode: 0o755,
        fmask: 0,
        dmask: 0,
        read_only: false,
        rename_limit: 1000,
        statfs: StatfsMode::Cloud,
        key_max: 1024,
        close_uploaded: false,
        fsync_uploaded: false,
        close_timeout: Duration::from_secs(60),
        close_max: Duration::from_secs(3600),
        upload_open: Duration::from_secs(3600),
        unwritten_after: Duration::from_secs(1800),
        content_type_auto: true,
        attrs_exact: false,
    }
}

fn log_config(spool: &std::path::Path) -> log::Config {
    let binding = Binding {
        endpoint: "twin".into(),
        bucket: "b".into(),
        prefix: String::new(),
    };
    log::Config {
        dir: spool.to_owned(),
        binding,
        spool_max: 1 << 30,
        disk_reserve: 0,
    }
}

fn start(twin: &Arc<Twin>, dir: &std::path::Path, ttl: Duration) -> (Arc<Fs>, drain::Handle) {
    start_over(Arc::clone(twin) as _, dir, ttl)
}

fn start_over(
    store: Arc<dyn ObjectStore>,
    dir: &std::path::Path,
    ttl: Duration,
) -> (Arc<Fs>, drain::Handle) {
    start_with(store, dir, ttl, |_| ())
}

fn start_with(
    store: Arc<dyn ObjectStore>,
    dir: &std::path::Path,
    ttl: Duration,
    set: impl FnOnce(&mut Config),
) -> (Arc<Fs>, drain::Handle) {
    start_on(&Disk::default(), store, dir, (ttl, 1 << 30), set)
}

/// As `start`, on a disk that is watched; `(ttl, spool_max)`.
fn start_on(
    disk: &Disk,
    store: Arc<dyn ObjectStore>,
    dir: &std::path::Path,
    limits: (Duration, u64),
    set: impl FnOnce(&mut Config),
) -> (Arc<Fs>, drain::Handle) {
    start_apart(disk, (Arc::clone(&store), store), dir, limits, set)
}

/// As `start_on`, with a way to the bucket for those who look and another for the drain.
fn start_apart(
    disk: &Disk,
    (store, to_send): (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>),
    dir: &std::path::Path,
    (ttl, spool_max): (Duration, u64),
    set: impl FnOnce(&mut Config),
) -> (Arc<Fs>, drain::Handle) {
    let spool = dir.join("spool");
    let log = log::Config {
        spool_max,
        ..log_config(&spool)
    };
    let opened = Tree::open_on(disk.clone(), &log, &spool.join("memory"), ttl).unwrap();
    let read = crate::read::Config {
        cache_dir: dir.join("cache"),
        disk_reserve: 0,
        ..Default::default()
    };
    let reader = Reader::new(read, Arc::clone(&store), Arc::clone(opened.log.spool()));
    let progress = Progress(Arc::new(|| (0, 0)));
    let (tree, log) = (opened.tree, opened.log);
    let settings = drain::Config {
        linger: Duration::from_secs(3600),
        ..Default::default()
    };
    let drain = drain::start(
        Arc::clone(&tree),
        Arc::clone(&log),
        Arc::clone(&reader),
        to_send,
        settings,
    );
    let mut config = config();
    set(&mut config);
    (
        Fs::new(
            config,
            Parts {
                tree,
                reader,
                store,
                log,
                progress,
            },
        ),
        drain,
    )
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_ttl(TTL)
    }

    fn with_ttl(ttl: Duration) -> Self {
        let (twin, dir) = (Arc::new(Twin::new()), tempfile::tempdir().unwrap());
        let (fs, drain) = start(&twin, dir.path(), ttl);
        Self {
            fs,
            twin,
            drain,
            dir,
        }
    }

    /// One whose store fails on command.
    pub(super) fn faulty() -> (Self, Arc<Fault>) {
        Self::faulty_with(TTL)
    }

    fn faulty_with(ttl: Duration) -> (Self, Arc<Fault>) {
        let (twin, dir) = (Arc::new(Twin::new()), tempfile::tempdir().unwrap());
        let (store, fault) = Fault::over(Arc::clone(&twin) as _);
        let (fs, drain) = start_over(store, dir.path(), ttl);
        let world = Self {
            fs,
            twin,
            drain,
            dir,
        };
        (world, fault)
    }

    /// All that is not on the disk is lost. (What was written to it is not: see `log/tests`.)
    pub(super) async fn reboot(self) -> Self {
        let Self {
            fs,
            twin,
            drain,
            dir,
        } = self;
        drain.stop().await;
        drop((fs, drain));
        let (fs, drain) = start(&twin, dir.path(), TTL);
        Self {
            fs,
            twin,
            drain,
            dir,
        }
    }

    pub(super) async fn drain(&self) {
        self.drain.hurry();
        let done = tokio::time::timeout(Duration::from_secs(60), self.drain.drained()).await;
        assert_eq!(
            done,
            Ok(true),
            "{:?} {:?}",
            self.drain.status(),
            self.pending()
        );
    }

    pub(super) fn pending(&self) -> Vec<String> {
        self.fs
            .tree
            .pending(|all| all.in_order().map(|(k, e)| format!("{k}: {e:?}")).collect())
    }

    async fn at(&self, path: &str) -> Result<Stat> {
        let mut ino = Ino(1);
        let mut stat = self.fs.getattr(ino, None).await?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            stat = self.fs.lookup(ino, name.as_bytes()).await?;
            ino = stat.ino;
        }
        Ok(stat)
    }

    async fn parent<'a>(&self, path: &'a str) -> Result<(Ino, &'a [u8])> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.at(dir).await?.ino, name.as_bytes()))
    }

    pub(super) async fn put(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let (ino, fh) = self
            .open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)
            .await?;
        self.write(ino, fh, 0, bytes).await?;
        self.close(ino, fh).await
    }

    async fn open(&self, path: &str, flags: i32) -> Result<(Ino, Fh)> {
        match self.at(path).await {
            Ok(stat) => Ok((stat.ino, self.fs.open(stat.ino, flags, ME).await?.fh)),
            Err(FsError::NotFound) if flags & libc::O_CREAT != 0 => {
                let (dir, name) = self.parent(path).await?;
                let (stat, opened) = self.fs.create(dir, name, 0o644, flags, ME).await?;
                Ok((stat.ino, opened.fh))
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&self, ino: Ino, fh: Fh, at: u64, bytes: &[u8]) -> Result<()> {
        self.fs
            .write(ino, fh, at, Bytes::copy_from_slice(bytes))
            .await
            .map(|_| ())
    }

    async fn close(&self, ino: Ino, fh: Fh) -> Result<()> {
        let flushed = self.fs.flush(ino, fh, ME.pid).await;
        self.fs.release(ino, fh).await?;
        flushed
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>> {
        let (ino, fh) = self.open(path, libc::O_RDONLY).await?;
        let read = self
            .fs
            .read(ino, fh, 0, 1 << 20)
            .await
            .map(|bytes| bytes.to_vec());
        self.close(ino, fh).await?;
        read
    }

    async fn names(&self, path: &str) -> Result<Vec<String>> {
        let fh = self.fs.opendir(self.at(path).await?.ino).await?;
        let names = self.read_names(fh).await;
        self.fs.releasedir(fh);
        let mut names = names?;
        names.sort();
        Ok(names)
    }

    /// All but the dots, from the start, by as many calls as it takes.
    async fn read_names(&self, fh: Fh) -> Result<Vec<String>> {
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let before = offset;
            let mut emit = |entry: &DirEntry| {
                names.push(String::from_utf8_lossy(&entry.name).into_owned());
                offset = entry.next;
                true
            };
            self.fs.readdir(fh, before, false, &mut emit).await?;
            if offset == before {
                return Ok(names.split_off(2));
            }
        }
    }

    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.parent(from).await?, self.parent(to).await?);
        self.fs.rename(from, to, RenameFlags::Replace).await
    }

    async fn unlink(&self, path: &str) -> Result<()> {
        let (dir, name) = self.parent(path).await?;
        self.fs.unlink(dir, name).await
    }

    async fn mkdir(&self, path: &str) -> Result<()> {
        let (dir, name) = self.parent(path).await?;
        self.fs.mkdir(dir, name, 0o755, ME).await.map(|_| ())
    }
}

#[tokio::test]
async fn what_was_written_is_read_back_before_and_after_a_reboot() {
    let world = World::new();
    world.put("small", b"hello").await.unwrap();
    let large: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    world.put("large", &large).await.unwrap();
    assert_eq!(world.get("small").await.unwrap(), b"hello");
    assert_eq!(world.get("large").await.unwrap(), large);
    let world = world.reboot().await;
    assert_eq!(world.get("small").await.unwrap(), b"hello");
    assert_eq!(world.get("large").await.unwrap(), large);
    assert_eq!(world.at("large").await.unwrap().size, 200_000);
    assert_eq!(world.names("").await.unwrap(), ["large", "small"]);
}

#[tokio::test]
async fn an_append_to_a_foreign_object_keeps_its_bytes_by_reference() {
    let world = World::new();
    world.twin.put_behind("f", "foreign", Headers::default());
    let (ino, fh) = world
        .open("f", libc::O_WRONLY | libc::O_APPEND)
        .await
        .unwrap();
    world.write(ino, fh, 7, b"+mine").await.unwrap();
    world.close(ino, fh).await.unwrap();
    assert_eq!(
        world.twin.counts().of(Op::Get),
        0,
        "nothing was read to append"
    );
    assert_eq!(world.get("f").await.unwrap(), b"foreign+mine");
}

#[tokio::test]
async fn overwrites_truncates_and_holes_are_as_on_a_local_disk() {
    let world = World::new();
    let (ino, fh) = world.open("f", libc::O_RDWR | libc::O_CREAT).await.unwrap();
    world.write(ino, fh, 0, b"0123456789").await.unwrap();
    world.write(ino, fh, 3, b"abc").await.unwrap();
    world.write(ino, fh, 100_000, b"end").await.unwrap();
    let size = |size| SetAttr {
        size: Some(size),
        fh: Some(fh),
        ..SetAttr::default()
    };
    world.fs.setattr(ino, size(5)).await.unwrap();
    world.fs.setattr(ino, size(8)).await.unwrap();
    assert_eq!(
        &world.fs.read(ino, fh, 0, 100).await.unwrap()[..],
        b"012ab\0\0\0"
    );
    world.close(ino, fh).await.unwrap();
    assert_eq!(world.get("f").await.unwrap(), b"012ab\0\0\0");
    let ino = world.at("f").await.unwrap().ino;
    world
        .fs
        .setattr(
            ino,
            SetAttr {
                size: Some(2),
                ..SetAttr::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(world.reboot().await.get("f").await.unwrap(), b"01");
}

#[tokio::test]
async fn a_renamed_directory_is_readable_at_once_with_sent_and_unsent_files_in_it() {
    let world = World::new();
    world
        .twin
        .put_behind("d/sub/old", "remote", Headers::default());
    world.put("d/new", b"local").await.unwrap();
    world.rename("d", "e").await.unwrap();
    assert_eq!(world.get("e/new").await.unwrap(), b"local");
    assert_eq!(world.get("e/sub/old").await.unwrap(), b"remote");
    assert_eq!(world.at("d").await.unwrap_err(), FsError::NotFound);
    let world = world.reboot().await;
    assert_eq!(world.names("").await.unwrap(), ["e"]);
    assert_eq!(world.names("e").await.unwrap(), ["new", "sub"]);
    assert_eq!(world.get("e/sub/old").await.unwrap(), b"remote");
}

#[tokio::test]
async fn an_unlinked_open_file_stays_readable_and_its_name_can_be_made_again() {
    let world = World::new();
    world.put("f", b"first").await.unwrap();
    let (ino, fh) = world.open("f", libc::O_RDONLY).await.unwrap();
    world.unlink("f").await.unwrap();
    assert_eq!(world.at("f").await.unwrap_err(), FsError::NotFound);
    world.put("f", b"second").await.unwrap();
    assert_eq!(&world.fs.read(ino, fh, 0, 100).await.unwrap()[..], b"first");
    assert_eq!(world.get("f").await.unwrap(), b"second");
    world.close(ino, fh).await.unwrap();
}

#[tokio::test]
async fn a_rename_over_an_open_file_leaves_its_reader_the_old_bytes() {
    let world = World::new();
    world.put("a", b"new").await.unwrap();
    world.put("b", b"old").await.unwrap();
    let (ino, fh) = world.open("b", libc::O_RDONLY).await.unwrap();
    world.rename("a", "b").await.unwrap();
    assert_eq!(&world.fs.read(ino, fh, 0, 100).await.unwrap()[..], b"old");
    assert_eq!(world.get("b").await.unwrap(), b"new");
}
