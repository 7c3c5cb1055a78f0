//! Several handles, and others in the bucket, at the same file at once.

use std::task::Poll;

use super::*;
use crate::types::{RelKey, RelPath};

const RW: i32 = libc::O_RDWR | libc::O_CREAT;

async fn poll_once<F: Future>(work: F) {
    let mut work = std::pin::pin!(work);
    let first = std::future::poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
    assert!(first.is_pending(), "it had to wait for something");
}

#[tokio::test]
async fn data_that_is_not_flushed_yet_is_no_hole() {
    let world = World::new();
    let (ino, fh) = world.open("f", RW).await.unwrap();
    world.write(ino, fh, 4096, b"bytes").await.unwrap();
    let seek = |at, whence| world.fs.lseek(ino, fh, at, whence);
    assert_eq!(seek(0, libc::SEEK_DATA).await.unwrap(), 4096);
    assert_eq!(seek(0, libc::SEEK_HOLE).await.unwrap(), 0);
    assert_eq!(seek(4096, libc::SEEK_HOLE).await.unwrap(), 4101);
    world.close(ino, fh).await.unwrap();
}

#[tokio::test]
async fn bytes_of_a_file_without_a_name_are_not_copied_by_reference() {
    let world = World::new();
    let (from, source) = world.open("temp", RW).await.unwrap();
    world.write(from, source, 0, b"precious").await.unwrap();
    world.unlink("temp").await.unwrap();
    let (to, target) = world.open("copy", RW).await.unwrap();
    let copy = world.fs.copy_file_range((source, 0), (target, 0), 8).await;
    assert_eq!(
        copy,
        Err(FsError::NotSupported),
        "the kernel reads and writes them instead"
    );
    world.close(from, source).await.unwrap();
    world.close(to, target).await.unwrap();
}

#[tokio::test]
async fn small_bytes_are_copied_from_the_middle_of_a_file_to_the_middle_of_another() {
    let world = World::new();
    world.put("from", b"0123456789").await.unwrap();
    world.put("to", b"abcdefghij").await.unwrap();
    let (from, source) = world.open("from", libc::O_RDONLY).await.unwrap();
    let (to, target) = world.open("to", libc::O_RDWR).await.unwrap();
    let copied = world.fs.copy_file_range((source, 3), (target, 5), 4).await;
    assert_eq!(copied, Ok(4));
    world.close(from, source).await.unwrap();
    world.close(to, target).await.unwrap();
    assert_eq!(world.reboot().await.get("to").await.unwrap(), b"abcde3456j");
}

#[tokio::test]
async fn what_is_written_here_keeps_its_name_when_the_object_changes_elsewhere() {
    let world = World::with_ttl(Duration::ZERO);
    world.twin.put_behind("f", "one", Headers::default());
    assert_eq!(
        world.get("f").await.unwrap(),
        b"one",
        "so that it is cached"
    );
    let (ino, fh) = world.open("f", libc::O_RDWR).await.unwrap();
    world.write(ino, fh, 3, b"+mine").await.unwrap();
    world.twin.put_behind("f", "other", Headers::default());
    assert_eq!(world.at("f").await.unwrap().ino, ino);
    assert_eq!(world.get("f").await.unwrap(), b"one+mine");
    world.close(ino, fh).await.unwrap();
    world.drain().await;
    let keys = world.twin.keys();
    let aside = keys.iter().find(|key| key.starts_with("f.conflict-"));
    let bytes = |key: &str| world.twin.object(key).unwrap().0;
    assert_eq!(bytes("f"), "other", "the newer one stays");
    assert_eq!(bytes(aside.unwrap()), "one+mine");
}

#[tokio::test]
async fn a_file_open_for_writing_is_not_parted_from_its_name() {
    let world = World::with_ttl(Duration::ZERO);
    world.twin.put_behind("f", "one", Headers::default());
    assert_eq!(
        world.get("f").await.unwrap(),
        b"one",
        "so that it is cached"
    );
    let (ino, fh) = world.open("f", libc::O_RDWR).await.unwrap();
    world.twin.put_behind("f", "longer", Headers::default());
    let stat = world.at("f").await.unwrap();
    assert_eq!((stat.ino, stat.size), (ino, 3), "as its handles have it");
    assert_eq!(world.get("f").await.unwrap(), b"one");
    world.write(ino, fh, 3, b"+mine").await.unwrap();
    world.close(ino, fh).await.unwrap();
    assert_eq!(world.pending().len(), 1, "it is on its way to the bucket");
}

#[tokio::test]
async fn what_is_written_here_is_not_lost_when_its_object_vanished_and_its_name_is_made_again() {
    let world = World::with_ttl(Duration::ZERO);
    world.twin.put_behind("f", "one", Headers::default());
    assert_eq!(
        world.get("f").await.unwrap(),
        b"one",
        "so that it is cached"
    );
    let (ino, fh) = world.open("f", libc::O_RDWR).await.unwrap();
    world.write(ino, fh, 3, b"+mine").await.unwrap();
    world.twin.delete_behind("f");
    let (dir, name) = world.parent("f").await.unwrap();
    let (stat, opened) = world.fs.create(dir, name, 0o644, RW, ME).await.unwrap();
    assert_eq!(stat.ino, ino);
    assert_eq!(
        &world.fs.read(ino, opened.fh, 3, 100).await.unwrap()[..],
        b"+mine"
    );
    world.close(ino, opened.fh).await.unwrap();
    world.close(ino, fh).await.unwrap();
    world.drain().await;
    let objects = world.twin.keys().into_iter();
    let mut bytes = objects.map(|key| world.twin.object(&key).unwrap().0);
    assert!(bytes.any(|bytes| bytes.ends_with(b"+mine")));
}

#[tokio::test]
async fn a_reader_of_a_file_without_a_name_keeps_the_bytes_when_its_writer_closes() {
    let world = World::new();
    let (ino, writer) = world.open("f", RW).await.unwrap();
    world.write(ino, writer, 0, &[7; 100_000]).await.unwrap();
    let (_, reader) = world.open("f", libc::O_RDONLY).await.unwrap();
    world.unlink("f").await.unwrap();
    world.close(ino, writer).await.unwrap();
    assert_eq!(world.fs.tree.unreferenced(), []);
    let read = world.fs.read(ino, reader, 0, 100_000).await.unwrap();
    assert_eq!(read, vec![7; 100_000]);
    world.close(ino, reader).await.unwrap();
    assert_eq!(world.fs.tree.unreferenced().len(), 1);
}

#[tokio::test]
async fn a_close_that_is_given_up_is_done_all_the_same() {
    let world = World::new();
    let (ino, fh) = world.open("f", RW).await.unwrap();
    world.write(ino, fh, 0, &[7; 100_000]).await.unwrap();
    poll_once(world.fs.release(ino, fh)).await;
    let key = RelKey::file(&RelPath::new("f").unwrap());
    let is_closed = || {
        world.fs.tree.pending(|all| {
            let entry = all.get(&key).unwrap();
            entry.generation().is_some() && !entry.held
        })
    };
    let mut changed = world.fs.tree.changed();
    while !is_closed() {
        let woken = tokio::time::timeout(Duration::from_secs(60), changed.changed()).await;
        woken.expect("it is closed at some time").unwrap();
    }
    assert_eq!(world.get("f").await.unwrap(), vec![7; 100_000]);
}

#[tokio::test]
async fn a_truncate_that_is_given_up_leaves_nobody_in_the_file() {
    let world = World::new();
    world.put("f", &[7; 100_000]).await.unwrap();
    let ino = world.at("f").await.unwrap().ino;
    let change = SetAttr {
        size: Some(50_000),
        ..SetAttr::default()
    };
    poll_once(world.fs.setattr(ino, change)).await;
    while world.fs.names.lock().open_file(ino).is_some() {
        tokio::task::yield_now().await;
    }
    let world = world.reboot().await;
    assert_eq!(world.at("f").await.unwrap().size, 50_000);
}

#[tokio::test]
async fn a_chmod_by_a_handle_without_a_name_is_shown() {
    let world = World::new();
    world.put("f", b"x").await.unwrap();
    let (ino, fh) = world.open("f", libc::O_RDONLY).await.unwrap();
    world.unlink("f").await.unwrap();
    let change = SetAttr {
        mode: Some(0o600),
        fh: Some(fh),
        ..SetAttr::default()
    };
    assert_eq!(world.fs.setattr(ino, change).await.unwrap().perm, 0o600);
    world.close(ino, fh).await.unwrap();
}

#[tokio::test]
async fn a_name_that_is_too_long_is_told_from_one_that_is_not_there() {
    let world = World::new();
    let long = [b'x'; 256];
    let looked = world.fs.lookup(Ino(1), &long).await.unwrap_err();
    assert_eq!(looked, FsError::NameTooLong);
    let looked = world.fs.lookup(Ino(1), &long[..255]).await.unwrap_err();
    assert_eq!(looked, FsError::NotFound);
    let looked = world.fs.lookup(Ino(1), b"\xff").await.unwrap_err();
    assert_eq!(looked, FsError::NotFound);
}

#[tokio::test]
async fn a_file_that_was_looked_up_can_be_opened_though_its_name_was_replaced_meanwhile() {
    let world = World::new();
    world.put("new", b"new").await.unwrap();
    world.put("f", &[7; 100_000]).await.unwrap();
    let ino = world.at("f").await.unwrap().ino;
    world.rename("new", "f").await.unwrap();
    let fh = world.fs.open(ino, libc::O_RDONLY, ME).await.unwrap().fh;
    assert_eq!(world.fs.tree.unreferenced(), []);
    assert_eq!(world.fs.getattr(ino, None).await.unwrap().nlink, 0);
    let read = world.fs.read(ino, fh, 0, 100_000).await.unwrap();
    assert_eq!(read, vec![7; 100_000]);
    world.close(ino, fh).await.unwrap();
    world.fs.forget(ino, u64::MAX);
    assert_eq!(world.fs.tree.unreferenced().len(), 1);
}

#[tokio::test]
async fn a_size_is_not_shown_as_it_was_before_a_seal_that_came_in_between() {
    let world = World::new();
    world.put("f", b"short").await.unwrap();
    let path = RelPath::new("f").unwrap();
    let before = world.fs.tree.view(|view| names::here(view, &path)).unwrap();
    world.put("f", b"longer than it was").await.unwrap();
    let ino = world.at("f").await.unwrap().ino;
    assert_eq!(world.fs.stat(ino, &path, &before).size, 18);
}

#[tokio::test]
async fn a_directory_that_is_wholly_known_is_renamed_while_the_bucket_is_silent() {
    let world = World::with_ttl(Duration::ZERO);
    world.mkdir("d").await.unwrap();
    world.put("d/f", b"x").await.unwrap();
    world.twin.put_behind("unknown/f", "x", Headers::default());
    world.at("unknown").await.unwrap();
    world.fs.starts_offline();
    world.rename("d", "e").await.unwrap();
    assert_eq!(world.names("e").await.unwrap(), ["f"]);
    let unknown = world.rename("unknown", "known").await;
    assert_eq!(unknown, Err(FsError::Unreachable));
}

#[tokio::test]
async fn a_truncate_does_not_vouch_for_pages_that_the_kernel_has_from_before() {
    let world = World::with_ttl(Duration::ZERO);
    world.twin.put_behind("f", "one", Headers::default());
    assert_eq!(world.get("f").await.unwrap(), b"one");
    world.twin.put_behind("f", "two", Headers::default());
    let ino = world.at("f").await.unwrap().ino;
    // A truncate under way, as it is before it ends.
    let file = world.fs.enter(ino, true).unwrap();
    world.fs.cut(&file, 2).await.unwrap();
    let first = world.fs.open(ino, libc::O_RDONLY, ME).await.unwrap();
    let second = world.fs.open(ino, libc::O_RDONLY, ME).await.unwrap();
    assert_eq!((first.keep_cache, second.keep_cache), (false, true));
    world.fs.leave(file, true).await.unwrap();
    for fh in [first.fh, second.fh] {
        world.close(ino, fh).await.unwrap();
    }
    assert_eq!(world.get("f").await.unwrap(), b"tw");
}
