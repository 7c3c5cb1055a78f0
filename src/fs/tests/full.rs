//! A spool with no room: who is told so, and when; what still works; what makes room again.

use super::*;

const CAP: u64 = 1 << 20;

fn small_world(cap: u64) -> World {
    let (twin, dir) = (Arc::new(Twin::new()), tempfile::tempdir().unwrap());
    let (fs, drain) = start_on(
        &Disk::default(),
        Arc::clone(&twin) as _,
        dir.path(),
        (TTL, cap),
        |_| (),
    );
    World {
        fs,
        twin,
        drain,
        dir,
    }
}

fn content(name: &str, len: usize) -> Vec<u8> {
    name.bytes().cycle().take(len).collect()
}

impl World {
    /// Opens, writes and closes. `Err`: open or write said so. The close of what was taken never
    /// does.
    async fn store(&self, name: &str, len: usize) -> Result<()> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
        let (ino, fh) = self.open(name, flags).await?;
        let mut done = Ok(());
        for (at, piece) in (0..).step_by(4000).zip(content(name, len).chunks(4000)) {
            done = done.and(self.write(ino, fh, at, piece).await);
        }
        let closed = self.close(ino, fh).await;
        assert_eq!(closed, Ok(()), "{name}: what was written is sealed");
        self.stays_within(CAP);
        done
    }

    /// Stores until there is no room; answers the names that were taken whole.
    async fn fill(&self, prefix: &str, len: usize) -> Vec<String> {
        let mut taken = Vec::new();
        for i in 0.. {
            let name = format!("{prefix}{i}");
            match self.store(&name, len).await {
                Ok(()) => taken.push(name),
                Err(error) => {
                    assert_eq!(error, FsError::Full);
                    // Where the name could still be made, it is left with what fitted.
                    if self.at(&name).await.is_ok() {
                        self.remove(&name).await;
                    }
                    return taken;
                }
            }
        }
        unreachable!()
    }

    /// As a kernel does it, which then forgets the inode.
    async fn remove(&self, name: &str) {
        let ino = self.at(name).await.unwrap().ino;
        self.unlink(name).await.unwrap();
        self.fs.forget(ino, u64::MAX);
    }

    fn stays_within(&self, cap: u64) {
        let (used, max) = self.fs.log.spool().usage();
        assert_eq!(max, cap);
        assert!(used <= cap, "{used} of {cap}");
        let mut on_disk = 0;
        let mut todo = vec![self.dir.path().join("spool")];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                // What goes meanwhile takes nothing.
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() {
                    todo.push(entry.path());
                } else {
                    use std::os::unix::fs::MetadataExt as _;
                    on_disk += meta.blocks() * 512;
                }
            }
        }
        assert!(on_disk <= cap, "{on_disk} of {cap} on the disk");
    }

    /// Waits until a file of `len` bytes is taken.
    async fn takes_again(&self, name: &str, len: usize) {
        let again = async {
            while self.store(name, len).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let again = tokio::time::timeout(Duration::from_secs(60), again).await;
        assert!(again.is_ok(), "{:?}", self.fs.log.spool().usage());
    }
}

#[tokio::test]
async fn a_full_spool_still_moves_and_removes_names_and_all_it_took_arrives() {
    for len in [4096, 60, 100_000] {
        let world = small_world(CAP);
        let mut taken = world.fill("f", len).await;
        assert!(taken.len() > 4, "{len}: {}", taken.len());
        let gone = taken.pop().unwrap();
        world.unlink(&gone).await.unwrap();
        let moved = taken.pop().unwrap();
        world.rename(&moved, "moved").await.unwrap();
        world.stays_within(CAP);
        world.drain().await;
        world.stays_within(CAP);
        for name in taken {
            let sent = world.twin.object(&name).unwrap().0;
            assert_eq!(sent, content(&name, len), "{name}");
        }
        let sent = world.twin.object("moved").unwrap().0;
        assert_eq!(sent, content(&moved, len));
        assert!(world.twin.object(&gone).is_none());
        world.takes_again("after", len).await;
    }
}

#[tokio::test]
async fn what_is_removed_makes_room_again_while_nothing_is_sent() {
    for len in [4096, 100_000] {
        let world = small_world(CAP);
        let mut taken = world.fill("f", len).await;
        for _ in 0..3 {
            for name in &taken {
                world.remove(name).await;
            }
            taken.truncate(4.max(taken.len() * 9 / 10));
            for name in &taken {
                world.takes_again(name, len).await;
            }
        }
        assert_eq!(world.twin.counts().of(Op::Put), 0);
    }
}

#[tokio::test]
async fn a_file_is_emptied_where_nothing_can_be_added() {
    let world = small_world(CAP);
    let taken = world.fill("f", 100_000).await;
    let (ino, fh) = world
        .open(&taken[0], libc::O_WRONLY | libc::O_TRUNC)
        .await
        .unwrap();
    world.close(ino, fh).await.unwrap();
    assert_eq!(world.at(&taken[0]).await.unwrap().size, 0);
    world.takes_again("after", 50_000).await;
}

#[tokio::test]
async fn many_open_files_are_all_closed_well_once_their_bytes_were_taken() {
    for len in [3000, 40_000] {
        let world = small_world(CAP);
        let mut open = Vec::new();
        let flags = libc::O_WRONLY | libc::O_CREAT;
        let refused = loop {
            let name = format!("f{}", open.len());
            match world.open(&name, flags).await {
                Ok((ino, fh)) => {
                    let written = world.write(ino, fh, 0, &content(&name, len)).await;
                    open.push((name, ino, fh, written.is_ok()));
                    if let Err(error) = written {
                        break error;
                    }
                }
                Err(error) => break error,
            }
        };
        assert_eq!(refused, FsError::Full);
        assert!(open.len() > 8, "{}", open.len());
        for (name, ino, fh, _) in &open {
            assert_eq!(world.close(*ino, *fh).await, Ok(()), "{name}");
        }
        world.stays_within(CAP);
        world.drain().await;
        for (name, .., is_written) in open {
            let expected = content(&name, if is_written { len } else { 0 });
            assert_eq!(world.twin.object(&name).unwrap().0, expected);
        }
    }
}

#[tokio::test]
async fn a_spool_whose_cap_was_lowered_takes_nothing_new_and_is_emptied() {
    let world = small_world(8 << 20);
    for i in 0..300 {
        let name = format!("f{i}");
        world.put(&name, &content(&name, 4096)).await.unwrap();
    }
    let World {
        fs,
        twin,
        drain,
        dir,
    } = world;
    drain.stop().await;
    drop((fs, drain));
    let (fs, drain) = start_on(
        &Disk::default(),
        Arc::clone(&twin) as _,
        dir.path(),
        (TTL, CAP),
        |_| (),
    );
    let world = World {
        fs,
        twin,
        drain,
        dir,
    };
    let refused = world.open("new", libc::O_WRONLY | libc::O_CREAT).await;
    assert_eq!(refused.unwrap_err(), FsError::Full);
    world.unlink("f0").await.unwrap();
    world.drain().await;
    for i in 1..300 {
        let name = format!("f{i}");
        assert_eq!(world.twin.object(&name).unwrap().0, content(&name, 4096));
    }
    world.takes_again("new", 4096).await;
}
