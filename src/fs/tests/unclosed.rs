//! Files that nobody closes: across crashes, and while they stay open. The clock is handed in.

use tokio::time::Instant;

use super::super::file::OpenFile;
use super::*;
use crate::tree::{Inspection, Place};

const RW: i32 = libc::O_RDWR | libc::O_CREAT;
/// As `super::config` has it.
const PERIOD: Duration = Duration::from_secs(3600);

impl World {
    fn file(&self, fh: Fh) -> Arc<OpenFile> {
        self.fs.handles.file(fh).unwrap().file
    }

    fn partials(&self) -> Vec<(String, u64)> {
        self.fs.log.spool().partials()
    }

    /// Has the watch look at an open file as if it were `after` the start.
    async fn look(&self, fh: Fh, start: Instant, after: Duration) -> Option<Instant> {
        self.fs.look_after(&self.file(fh), start + after).await
    }

    fn sealed(&self, path: &str) -> bool {
        self.fs.tree.pending(|all| {
            let key = crate::types::RelKey::parse(path).unwrap();
            all.get(&key)
                .is_some_and(|entry| entry.generation().is_some())
        })
    }
}

fn partial(name: &str, bytes: u64) -> Vec<(String, u64)> {
    vec![(name.to_owned(), bytes)]
}

#[tokio::test]
async fn bytes_of_a_file_that_was_never_closed_are_kept_under_its_name() {
    let world = World::new();
    let (ino, fh) = world.open("logfile", RW).await.unwrap();
    world.write(ino, fh, 0, &[7; 100_000]).await.unwrap();
    let world = world.reboot().await;
    assert_eq!(world.at("logfile").await.unwrap_err(), FsError::NotFound);
    assert_eq!(world.partials(), partial("logfile", 100_000));
    let world = world.reboot().await;
    assert_eq!(world.partials(), partial("logfile", 100_000), "once");
    world.drain().await;
    assert_eq!(world.twin.keys(), Vec::<String>::new(), "never published");
}

#[tokio::test]
async fn a_rename_of_an_open_file_renames_what_a_crash_leaves_of_it() {
    let world = World::new();
    let (ino, fh) = world.open("old", RW).await.unwrap();
    world.write(ino, fh, 0, &[7; 100_000]).await.unwrap();
    world.rename("old", "new").await.unwrap();
    let world = world.reboot().await;
    assert_eq!(world.partials(), partial("new", 100_000));
}

#[tokio::test]
async fn a_rename_of_a_directory_renames_what_a_crash_leaves_of_files_open_in_it() {
    let world = World::new();
    world.mkdir("old").await.unwrap();
    world.mkdir("old/sub").await.unwrap();
    let (ino, fh) = world.open("old/sub/f", RW).await.unwrap();
    world.write(ino, fh, 0, &[7; 100_000]).await.unwrap();
    let (ino, fh) = world.open("older", RW).await.unwrap();
    world.write(ino, fh, 0, &[8; 90_000]).await.unwrap();
    world.rename("old", "new").await.unwrap();
    world.rename("new/sub", "new/below").await.unwrap();
    let world = world.reboot().await;
    let mut partials = world.partials();
    partials.sort();
    let expected = [("new/below/f", 100_000), ("older", 90_000)];
    assert_eq!(partials, expected.map(|(name, len)| (name.to_owned(), len)));
}

#[tokio::test]
async fn an_exchange_of_two_open_files_exchanges_what_a_crash_leaves_of_them() {
    let world = World::new();
    for (name, len) in [("a", 100_000), ("b", 90_000)] {
        let (ino, fh) = world.open(name, RW).await.unwrap();
        world.write(ino, fh, 0, &vec![7; len]).await.unwrap();
    }
    let (a, b) = (world.parent("a").await, world.parent("b").await);
    let exchanged = world
        .fs
        .rename(a.unwrap(), b.unwrap(), RenameFlags::Exchange);
    exchanged.await.unwrap();
    let world = world.reboot().await;
    let mut partials = world.partials();
    partials.sort();
    let expected = [("a", 90_000), ("b", 100_000)];
    assert_eq!(partials, expected.map(|(name, len)| (name.to_owned(), len)));
}

#[tokio::test]
async fn what_was_fsynced_is_under_its_name_and_what_came_after_it_is_kept_aside() {
    let world = World::new();
    let (ino, fh) = world.open("f", RW).await.unwrap();
    world.write(ino, fh, 0, &[7; 100_000]).await.unwrap();
    world.fs.fsync(ino, fh).await.unwrap();
    world.write(ino, fh, 100_000, &[8; 5_000]).await.unwrap();
    let world = world.reboot().await;
    assert_eq!(world.get("f").await.unwrap(), [7; 100_000]);
    assert_eq!(world.partials(), partial("f", 105_000));
    world.drain().await;
    assert_eq!(&world.twin.object("f").unwrap().0[..], [7; 100_000]);
    let world = world.reboot().await;
    assert_eq!(
        world.partials(),
        partial("f", 105_000),
        "as long as nobody takes it"
    );
    assert_eq!(world.get("f").await.unwrap(), [7; 100_000]);
}

#[tokio::test]
async fn what_a_crash_left_is_seen_in_the_spool_before_the_next_start_and_after_it() {
    let world = World::new();
    world.put("closed", &[6; 70_000]).await.unwrap();
    let (ino, fh) = world.open("large", RW).await.unwrap();
    world.write(ino, fh, 0, &[7; 100_000]).await.unwrap();
    let (ino, fh) = world.open("synced", RW).await.unwrap();
    world.write(ino, fh, 0, &[8; 90_000]).await.unwrap();
    world.fs.fsync(ino, fh).await.unwrap();
    world.write(ino, fh, 90_000, &[9; 10]).await.unwrap();
    let (ino, fh) = world.open("small", RW).await.unwrap();
    world.write(ino, fh, 0, b"in memory").await.unwrap();
    world.fs.fsyncdir(Ino(1)).await.unwrap();
    let World {
        fs,
        drain,
        dir,
        twin,
    } = world;
    drain.stop().await;
    drop((fs, drain));
    let spool = dir.path().join("spool");
    let seen = |place| {
        let inspection = Inspection::of(&spool).unwrap();
        let unclosed = inspection.unclosed().iter().map(|unclosed| {
            assert_eq!(unclosed.place, place);
            (unclosed.name.clone().unwrap(), unclosed.len)
        });
        let mut unclosed: Vec<_> = unclosed.collect();
        unclosed.sort();
        let pending = inspection.pending().in_order();
        let pending = pending.filter(|(_, entry)| entry.generation().is_some());
        let keys: Vec<_> = pending.map(|(key, _)| key.to_string()).collect();
        (unclosed, inspection.lost().to_vec(), keys)
    };
    let (unclosed, lost, pending) = seen(Place::Data);
    let expected = [("large", 100_000), ("synced", 90_010)];
    assert_eq!(unclosed, expected.map(|(name, len)| (name.to_owned(), len)));
    assert_eq!(
        (lost, &pending[..]),
        (
            vec!["small".into()],
            &["closed".to_owned(), "synced".to_owned()][..]
        )
    );
    let (fs, drain) = start(&twin, dir.path(), TTL);
    drain.stop().await;
    drop((fs, drain));
    assert_eq!(seen(Place::Partial).0, unclosed);
}

#[tokio::test]
async fn what_is_let_go_of_is_not_found_again_and_what_was_fsynced_stays() {
    let world = World::new();
    let (ino, fh) = world.open("large", RW).await.unwrap();
    world.write(ino, fh, 0, &[7; 100_000]).await.unwrap();
    let (ino, fh) = world.open("synced", RW).await.unwrap();
    world.write(ino, fh, 0, &[8; 90_000]).await.unwrap();
    world.fs.fsync(ino, fh).await.unwrap();
    world.write(ino, fh, 90_000, &[9; 10]).await.unwrap();
    let world = world.reboot().await;
    assert_eq!(world.partials().len(), 2);
    let inspection = Inspection::of(&world.dir.path().join("spool")).unwrap();
    let files: Vec<_> = inspection.unclosed().iter().map(|one| one.file.0).collect();
    let gone = world.fs.tree.discard_all(&files, &[]).await.unwrap();
    assert_eq!((gone, world.partials()), (2, vec![]));
    assert_eq!(world.fs.tree.discard_all(&files, &[]).await.unwrap(), 0);
    let world = world.reboot().await;
    assert_eq!(world.partials(), []);
    assert_eq!(world.get("synced").await.unwrap(), [8; 90_000]);
    world.drain().await;
    assert_eq!(world.twin.keys(), ["synced"]);
}

#[tokio::test]
async fn what_was_closed_leaves_no_partial_however_it_was_written() {
    let world = World::new();
    let (ino, fh) = world.open("cut", RW).await.unwrap();
    world.write(ino, fh, 0, &[7; 100_000]).await.unwrap();
    let cut = SetAttr {
        size: Some(10),
        fh: Some(fh),
        ..SetAttr::default()
    };
    world.fs.setattr(ino, cut).await.unwrap();
    world.close(ino, fh).await.unwrap();
    let (ino, fh) = world.open("over", RW).await.unwrap();
    world.write(ino, fh, 0, &[7; 100_000]).await.unwrap();
    world.fs.fsync(ino, fh).await.unwrap();
    world.write(ino, fh, 0, &[8; 100_000]).await.unwrap();
    world.write(ino, fh, 50_000, &[9; 50_000]).await.unwrap();
    world.close(ino, fh).await.unwrap();
    let world = world.reboot().await;
    assert_eq!(world.partials(), []);
    assert_eq!(world.get("cut").await.unwrap(), [7; 10]);
    assert_eq!(world.get("over").await.unwrap()[50_000..], [9; 50_000]);
}

#[tokio::test]
async fn small_bytes_leave_memory_when_nobody_writes_for_a_while() {
    let world = World::new();
    let (ino, fh) = world.open("f", RW).await.unwrap();
    let start = Instant::now();
    world.write(ino, fh, 0, b"a line").await.unwrap();
    let idle = world.fs.config.unwritten_after;
    assert!(world.look(fh, start, idle / 2).await.is_some());
    let flushes = world.fs.log.disk().flushes();
    world
        .look(fh, start, idle + Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(
        world.fs.log.disk().flushes(),
        flushes,
        "the kernel writes it back"
    );
    assert_eq!(world.fs.read(ino, fh, 0, 99).await.unwrap(), "a line");
    world.write(ino, fh, 6, b", and more").await.unwrap();
    let world = world.reboot().await;
    assert_eq!(world.partials(), partial("f", 16));
}

#[tokio::test]
async fn a_name_that_was_made_and_never_written_out_is_told_after_a_crash() {
    let world = World::new();
    let (ino, fh) = world.open("f", RW).await.unwrap();
    world.write(ino, fh, 0, b"in memory").await.unwrap();
    // What the kernel writes back of itself.
    world.fs.fsyncdir(Ino(1)).await.unwrap();
    let World {
        fs,
        drain,
        dir,
        twin,
    } = world;
    drain.stop().await;
    drop((fs, drain));
    let spool = dir.path().join("spool");
    let opened = Tree::open(log_config(&spool), &spool.join("memory"), TTL).unwrap();
    assert_eq!(
        (opened.partials, opened.lost),
        (vec![], vec!["f".to_owned()])
    );
    assert_eq!(twin.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn the_close_of_a_process_that_inherited_the_file_keeps_its_bytes_and_publishes_nothing() {
    let world = World::new();
    let (dir, name) = world.parent("f").await.unwrap();
    let opener = Caller {
        pid: std::process::id(),
        ..ME
    };
    let made = world.fs.create(dir, name, 0o644, RW, opener).await;
    let (stat, opened) = made.unwrap();
    world.write(stat.ino, opened.fh, 0, b"first").await.unwrap();
    let mut child = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    let flushes = world.fs.log.disk().flushes();
    world
        .fs
        .flush(stat.ino, opened.fh, child.id())
        .await
        .unwrap();
    assert!(world.fs.log.disk().flushes() > flushes, "it is durable");
    assert!(!world.sealed("f"));
    world
        .write(stat.ino, opened.fh, 5, b"second")
        .await
        .unwrap();
    let flushed = world.fs.flush(stat.ino, opened.fh, std::process::id());
    flushed.await.unwrap();
    assert!(world.sealed("f"), "the opener closed it");
    world
        .write(stat.ino, opened.fh, 11, b"third")
        .await
        .unwrap();
    world
        .fs
        .flush(stat.ino, opened.fh, child.id())
        .await
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let world = world.reboot().await;
    assert_eq!(world.get("f").await.unwrap(), b"firstsecond");
    assert_eq!(world.partials(), partial("f", 16));
}

#[tokio::test]
async fn the_last_close_makes_a_generation_by_whomever_it_is() {
    let world = World::new();
    let (dir, name) = world.parent("f").await.unwrap();
    let opener = Caller {
        pid: std::process::id(),
        ..ME
    };
    let made = world.fs.create(dir, name, 0o644, RW, opener).await;
    let (stat, opened) = made.unwrap();
    world.write(stat.ino, opened.fh, 0, b"all").await.unwrap();
    let mut child = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    world
        .fs
        .flush(stat.ino, opened.fh, child.id())
        .await
        .unwrap();
    world.fs.release(stat.ino, opened.fh).await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let world = world.reboot().await;
    assert_eq!(world.get("f").await.unwrap(), b"all");
    assert_eq!(world.partials(), []);
}

#[tokio::test]
async fn a_file_that_stays_open_is_sealed_at_a_quiet_moment_after_upload_open() {
    let world = World::new();
    let (ino, fh) = world.open("f", RW).await.unwrap();
    let start = Instant::now();
    world.write(ino, fh, 0, b"one").await.unwrap();
    let next = world.look(fh, start, PERIOD / 2).await.unwrap();
    assert!(!world.sealed("f") && next <= start + PERIOD + Duration::from_secs(60));
    let just_due = PERIOD + Duration::from_secs(2);
    world.write(ino, fh, 3, b"two").await.unwrap();
    world.look(fh, start, just_due).await.unwrap();
    assert!(!world.sealed("f"), "it was written to since the last look");
    let next = world
        .look(fh, start, just_due + Duration::from_secs(2))
        .await;
    assert!(
        world.sealed("f") && next.is_none(),
        "nothing is left to watch"
    );
    world.drain().await;
    assert_eq!(world.twin.object("f").unwrap().0, "onetwo", "still open");
    world.write(ino, fh, 6, b"three").await.unwrap();
    world.close(ino, fh).await.unwrap();
    world.drain().await;
    assert_eq!(world.twin.object("f").unwrap().0, "onetwothree");
}

#[tokio::test]
async fn a_file_that_never_rests_is_sealed_all_the_same() {
    let world = World::new();
    let (ino, fh) = world.open("f", RW).await.unwrap();
    let start = Instant::now();
    world.write(ino, fh, 0, b"x").await.unwrap();
    world.look(fh, start, PERIOD / 4).await.unwrap();
    let mut looks = 1;
    while !world.sealed("f") {
        world.write(ino, fh, looks, b"x").await.unwrap();
        looks += 1;
        let after = PERIOD + Duration::from_secs(2 + looks);
        world.look(fh, start, after).await;
        assert!(looks < 60, "never");
    }
    assert!(looks > 5, "a quiet moment was waited for");
    world.close(ino, fh).await.unwrap();
}

/// The writer fills the file with one letter after the other, in place; a snapshot is one letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_file_that_is_rewritten_in_place_shows_one_moment() {
    for size in [1000, 100_000] {
        let world = World::new();
        let (ino, fh) = world.open("f", RW).await.unwrap();
        for round in 0..40_u8 {
            let letter = b'a' + round % 26;
            let fill = vec![letter; size];
            let file = world.file(fh);
            let (written, sealed) =
                tokio::join!(world.write(ino, fh, 0, &fill), world.fs.seal(&file));
            written.unwrap();
            sealed.unwrap();
            // What was sealed is what a reboot would find, however the file went on.
            let generation = world.fs.tree.pending(|all| {
                let key = crate::types::RelKey::parse("f").unwrap();
                all.get(&key).and_then(|entry| entry.generation().cloned())
            });
            let Some(generation) = generation else {
                continue;
            };
            let once = crate::read::Window::default();
            let read = || async {
                let (reader, len) = (&world.fs.reader, generation.len);
                let read = reader.read_at(&generation.extents, len, 0, size, &once);
                read.await.unwrap()
            };
            let bytes = read().await;
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "torn");
            world.write(ino, fh, 0, &vec![b'!'; size]).await.unwrap();
            assert!(read().await == bytes, "overwritten");
            world.write(ino, fh, 0, &fill).await.unwrap();
        }
        world.close(ino, fh).await.unwrap();
    }
}
