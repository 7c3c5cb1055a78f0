//! The verbs together with the drain: what reaches the bucket, and by how many requests.

use super::*;
use crate::store::StoreError;
use crate::store::fault::Kind;
use crate::types::RelKey;

const APPEND: i32 = libc::O_RDWR | libc::O_APPEND;

#[tokio::test]
async fn what_was_written_is_in_the_bucket_after_the_drain_with_its_metadata() {
    let world = World::new();
    world.put("a.txt", b"hello").await.unwrap();
    world.mkdir("d").await.unwrap();
    world.put("d/large", &vec![3u8; 200_000]).await.unwrap();
    world.drain().await;
    assert_eq!(world.twin.keys(), ["a.txt", "d/", "d/large"]);
    let (bytes, meta) = world.twin.object("a.txt").unwrap();
    let headers = meta.headers.unwrap();
    assert_eq!(&bytes[..], b"hello");
    assert_eq!(headers.content_type.as_deref(), Some("text/plain"));
    assert_eq!(headers.metadata["mode"], "33188");
    assert_eq!(world.pending(), Vec::<String>::new());
    assert_eq!(world.twin.counts().of(Op::Put), 3);
    assert_eq!(world.get("d/large").await.unwrap(), vec![3u8; 200_000]);
    assert_eq!(
        world.twin.counts().of(Op::Get),
        0,
        "what was written here is not fetched"
    );
    assert_eq!(world.fs.log.spool().files(), Vec::new());
    let world = world.reboot().await;
    assert_eq!(world.get("d/large").await.unwrap(), vec![3u8; 200_000]);
    assert_eq!(world.twin.counts().of(Op::Get), 0, "nor after a reboot");
    assert_eq!(
        world.at("a.txt").await.unwrap().uid,
        7,
        "remembered without a HEAD"
    );
}

#[tokio::test]
async fn created_and_removed_before_it_was_sent_is_no_request_and_renamed_is_one() {
    let world = World::new();
    world.names("").await.unwrap();
    let before = world.twin.counts();
    world.put("gone", b"x").await.unwrap();
    world.unlink("gone").await.unwrap();
    world.put("f.part", b"x").await.unwrap();
    world.rename("f.part", "f").await.unwrap();
    world.drain().await;
    let counts = world.twin.counts().since(&before);
    assert_eq!((counts.of(Op::Put), counts.total()), (1, 1));
    assert_eq!(world.twin.keys(), ["f"]);
}

#[tokio::test]
async fn names_that_change_places_keep_their_bytes() {
    let world = World::new();
    world.twin.put_behind("a", "A", Headers::default());
    world.twin.put_behind("b", "B", Headers::default());
    world.rename("a", "t").await.unwrap();
    world.rename("b", "a").await.unwrap();
    world.rename("t", "b").await.unwrap();
    world.drain().await;
    assert_eq!(world.twin.keys(), ["a", "b"]);
    assert_eq!(&world.twin.object("a").unwrap().0[..], b"B");
    assert_eq!(&world.twin.object("b").unwrap().0[..], b"A");
}

#[tokio::test]
async fn a_large_object_is_appended_to_without_being_moved() {
    let world = World::new();
    world
        .twin
        .put_behind("big", vec![5u8; 9 << 20], Headers::default());
    let (ino, fh) = world
        .open("big", libc::O_WRONLY | libc::O_APPEND)
        .await
        .unwrap();
    let before = world.twin.counts();
    world.write(ino, fh, 9 << 20, &[6; 4096]).await.unwrap();
    world.close(ino, fh).await.unwrap();
    world.drain().await;
    let counts = world.twin.counts().since(&before);
    assert_eq!(counts.of(Op::Get), 0);
    assert!(counts.total() <= 5, "{counts:?}");
    let (bytes, _) = world.twin.object("big").unwrap();
    assert_eq!(
        (bytes.len(), bytes[0], bytes[9 << 20]),
        ((9 << 20) + 4096, 5, 6)
    );
}

#[tokio::test]
async fn an_emptied_directory_without_a_marker_stays() {
    let world = World::new();
    world.twin.put_behind("d/f", "x", Headers::default());
    world.unlink("d/f").await.unwrap();
    world.drain().await;
    assert_eq!(world.twin.keys(), ["d/"]);
}

#[tokio::test]
async fn what_keeps_changing_is_unsent_since_its_first_close_and_no_later() {
    let world = World::new();
    let unsent = |world: &World| {
        let key = crate::types::RelKey::parse("log").unwrap();
        world
            .fs
            .tree
            .pending(|all| all.get(&key).map(|entry| (entry.unsent_since, entry.held)))
    };
    world.put("log", b"1").await.unwrap();
    let first = unsent(&world).unwrap();
    assert!(!first.1, "a closed file is held by nobody");
    for _ in 0..3 {
        world.put("log", b"2").await.unwrap();
    }
    assert_eq!(unsent(&world).unwrap().0, first.0);
}

#[tokio::test]
async fn a_file_that_is_again_what_it_was_is_appended_to_by_reference() {
    let world = World::new();
    let bytes = vec![5u8; 9 << 20];
    for round in 0..2 {
        world.put("big", &bytes).await.unwrap();
        world.drain().await;
        let before = world.twin.counts();
        let (ino, fh) = world
            .open("big", libc::O_WRONLY | libc::O_APPEND)
            .await
            .unwrap();
        world.write(ino, fh, 9 << 20, b"tail").await.unwrap();
        world.close(ino, fh).await.unwrap();
        world.drain().await;
        let counts = world.twin.counts().since(&before);
        assert!(counts.up < 1 << 20, "round {round}: {counts:?}");
        world.unlink("big").await.unwrap();
        world.drain().await;
    }
}

/// An object of 9 MiB that somebody else made, with an append of ours that S3 has carried out, but
/// whose answer was lost: until `let_go` nothing says that it arrived.
async fn appended_with_a_lost_answer() -> (World, Arc<Fault>, Ino, Fh) {
    let (world, fault) = World::faulty();
    let all = vec![5u8; 9 << 20];
    world.twin.put_behind("big", all, Headers::default());
    let (ino, fh) = world.open("big", APPEND).await.unwrap();
    world.write(ino, fh, 9 << 20, b"tail").await.unwrap();
    world.fs.flush(ino, fh, ME.pid).await.unwrap();
    let lost = StoreError::Link("the answer was lost".into());
    fault.on(Op::Complete, 1, Kind::After(lost));
    // The first HEAD asks for the metadata that the new version inherits.
    fault.on(Op::Head, 2, Kind::Hold);
    (world, fault, ino, fh)
}

async fn until_appended(world: &World) {
    world.drain.hurry();
    while world.twin.object("big").unwrap().0.len() == 9 << 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads while nothing says yet that the append arrived; then that is let through.
async fn read_meanwhile(world: &World, fault: &Fault, ino: Ino, fh: Fh) -> Bytes {
    let failed = || world.twin.counts().failed(Op::Get);
    let before = failed();
    let mut read = std::pin::pin!(world.fs.read(ino, fh, 1 << 20, 4096));
    while failed() == before {
        tokio::select! {
            early = &mut read => panic!("it had to wait: {early:?}"),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    while fault.pending() > 0 {
        tokio::select! {
            early = &mut read => panic!("it had to wait: {early:?}"),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    loop {
        fault.let_go();
        tokio::select! {
            bytes = &mut read => return bytes.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
}

#[tokio::test]
async fn a_read_of_what_our_own_upload_replaced_waits_for_its_answer() {
    let (world, fault, ino, fh) = appended_with_a_lost_answer().await;
    world.close(ino, fh).await.unwrap();
    let (ino, fh) = world.open("big", libc::O_RDONLY).await.unwrap();
    until_appended(&world).await;
    let bytes = read_meanwhile(&world, &fault, ino, fh).await;
    assert_eq!(bytes, vec![5u8; 4096]);
    world.close(ino, fh).await.unwrap();
}

#[tokio::test]
async fn a_draft_over_a_version_that_our_own_upload_replaced_is_read_from_the_new_one() {
    let (world, fault, ino, fh) = appended_with_a_lost_answer().await;
    world.write(ino, fh, (9 << 20) + 4, b" more").await.unwrap();
    let key = RelKey::parse("big").unwrap();
    world.fs.tree.urge(&key);
    until_appended(&world).await;
    let bytes = read_meanwhile(&world, &fault, ino, fh).await;
    assert_eq!(bytes, vec![5u8; 4096]);
    world.close(ino, fh).await.unwrap();
    world.drain().await;
    let (bytes, _) = world.twin.object("big").unwrap();
    assert_eq!(&bytes[9 << 20..], b"tail more");
}

#[tokio::test]
async fn a_read_of_what_is_nowhere_but_in_parts_waits_until_they_are_completed() {
    let done = tokio::time::timeout(Duration::from_secs(60), read_while_in_parts()).await;
    done.expect("nothing is in parts only");
}

async fn read_while_in_parts() {
    let (world, fault) = World::faulty();
    world.twin.put_behind("a", "A", Headers::default());
    world.twin.put_behind("b", "B", Headers::default());
    for (from, to) in [("a", "t"), ("b", "a"), ("t", "b")] {
        world.rename(from, to).await.unwrap();
    }
    fault.on(Op::Complete, 2, Kind::Hold);
    world.drain.hurry();
    let is_there = |key: &str, bytes: &[u8]| &world.twin.object(key).unwrap().0[..] == bytes;
    let (in_parts, wanted) = loop {
        match (is_there("a", b"B"), is_there("b", b"A")) {
            (true, _) => break ("b", b"A"),
            (_, true) => break ("a", b"B"),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let mut read = std::pin::pin!(world.get(in_parts));
    while world.twin.counts().failed(Op::Get) == 0 || fault.pending() > 0 {
        tokio::select! {
            early = &mut read => panic!("it had to wait: {early:?}"),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    let bytes = loop {
        fault.let_go();
        tokio::select! {
            bytes = &mut read => break bytes.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    };
    assert_eq!(bytes, wanted);
}

#[tokio::test]
async fn a_version_that_somebody_else_replaced_is_stale_at_once() {
    let world = World::new();
    let all = vec![5u8; 9 << 20];
    world.twin.put_behind("big", all, Headers::default());
    let (ino, fh) = world.open("big", libc::O_RDONLY).await.unwrap();
    world.twin.put_behind("big", "theirs", Headers::default());
    let read = world.fs.read(ino, fh, 1 << 20, 4096).await;
    assert_eq!(read, Err(FsError::Stale));
    assert_eq!(world.twin.counts().of(Op::Get), 1);
    world.close(ino, fh).await.unwrap();
}

#[tokio::test]
async fn what_somebody_keeps_in_the_marker_of_a_directory_outlives_a_chmod() {
    let world = World::new();
    let kept = vec![7u8; 100];
    world
        .twin
        .put_behind("d/", kept.clone(), Headers::default());
    world.twin.put_behind("d/f", "x", Headers::default());
    assert_eq!(world.names("d").await.unwrap(), ["f"]);
    for mode in [0o700, 0o711] {
        let ino = world.at("d").await.unwrap().ino;
        let change = SetAttr {
            mode: Some(mode),
            ..SetAttr::default()
        };
        world.fs.setattr(ino, change).await.unwrap();
    }
    world.drain().await;
    let (bytes, meta) = world.twin.object("d/").unwrap();
    assert_eq!(bytes, kept);
    assert_eq!(meta.headers.unwrap().metadata["mode"], "16841");
    world.rename("d", "e").await.unwrap();
    world.drain().await;
    assert_eq!(world.twin.object("e/").unwrap().0, kept);
    assert_eq!(world.at("e").await.unwrap().size, 0);
}
