//! Writes of whole objects: conditions, races, payloads, copies, deletes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use kryptonfs::store::{Payload, ReadFrames, StoreError};
use kryptonfs::types::{ETag, Precondition};

use super::kit::{Kit, MIB, headers, key, keys, noise, other_version};

pub(super) async fn a_conditional_put_sees_what_is_there(kit: &Kit) {
    let refused = Err(StoreError::Precondition);
    let absent = || Precondition::IfAbsent;
    let first = kit.put_when("put/a", "1", absent()).await.unwrap();
    if kit.caps.put_if_absent {
        assert_eq!(kit.put_when("put/a", "2", absent()).await, refused);
        assert_eq!(kit.bytes("put/a").await, "1");
    }
    if kit.caps.put_if_match {
        let of = |etag: &ETag| Precondition::IfMatch(etag.clone());
        let second = kit.put_when("put/a", "3", of(&first)).await.unwrap();
        assert_eq!(kit.put_when("put/a", "4", of(&first)).await, refused);
        assert_eq!(kit.bytes("put/a").await, "3");
        kit.delete("put/a", None).await.unwrap();
        assert_eq!(kit.put_when("put/a", "5", of(&second)).await, refused);
        assert!(kit.is_absent("put/a").await);
    }
}

pub(super) async fn of_racing_creates_one_wins(kit: &Kit) {
    if !kit.caps.put_if_absent {
        return;
    }
    let racers = (0..8_u32).map(|racer| {
        let kit = kit.clone();
        tokio::spawn(async move {
            let bytes = noise(1000, racer + 100);
            let payload = Payload::of(bytes.clone());
            let at = "race/a";
            loop {
                let put = kit.put_as(at, payload.clone(), headers(&[]), Precondition::IfAbsent);
                match put.await {
                    Ok(_) => return Some(bytes),
                    Err(StoreError::Precondition) => return None,
                    Err(StoreError::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    let mut winners = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        winners.extend(racer.await.unwrap());
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(kit.bytes("race/a").await, winners[0]);
}

/// A source on "disk" that breaks behind `breaks_at`.
struct Disk {
    bytes: Bytes,
    breaks_at: u64,
}

impl ReadFrames for Disk {
    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        assert!(len <= 256 << 10, "a frame of {len} bytes");
        if offset + len as u64 > self.breaks_at {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.bytes.read(offset, len)
    }
}

fn on_disk(bytes: &Bytes, breaks_at: u64) -> Payload {
    let disk = Disk {
        bytes: bytes.clone(),
        breaks_at,
    };
    Payload {
        source: Arc::new(disk),
        ..Payload::of(bytes.clone())
    }
}

pub(super) async fn a_payload_is_read_in_frames(kit: &Kit) {
    let bytes = noise(3 * MIB + 17, 3);
    let payload = on_disk(&bytes, u64::MAX);
    let put = kit.put_as("frames/a", payload, headers(&[]), Precondition::None);
    put.await.unwrap();
    assert_eq!(kit.bytes("frames/a").await, bytes);
}

pub(super) async fn damaged_bytes_are_refused(kit: &Kit) {
    if !kit.caps.checksums {
        return;
    }
    let damaged = Payload {
        crc64: 1,
        ..Payload::of("damaged".into())
    };
    let put = kit.put_as(
        "damaged/a",
        damaged.clone(),
        headers(&[]),
        Precondition::None,
    );
    let error = put.await.unwrap_err();
    assert_eq!(error, StoreError::BadDigest);
    assert!(kit.is_absent("damaged/a").await);
    let upload = kit.create("damaged/b").await;
    let part = kit.part_of("damaged/b", &upload, 1, &damaged);
    assert_eq!(part.await, Err(StoreError::BadDigest));
    kit.abort("damaged/b", &upload).await;
}

pub(super) async fn a_failing_disk_is_told_from_a_failing_link(kit: &Kit) {
    let payload = on_disk(&noise(MIB, 4), 600_000);
    let put = kit.put_as("disk/a", payload, headers(&[]), Precondition::None);
    assert_eq!(put.await, Err(StoreError::Disk(libc::EIO)));
    assert!(kit.is_absent("disk/a").await);
}

pub(super) async fn a_copy_takes_new_metadata(kit: &Kit) {
    let payload = Payload::of("content".into());
    let (old, new) = (
        headers(&[("mode", "1"), ("gone", "x")]),
        headers(&[("mode", "日")]),
    );
    let put = kit.put_as("copy/a b", payload, old.clone(), Precondition::None);
    let source = put.await.unwrap().id;
    let copied = kit.copy(&source, "copy/c d", new.clone()).await.unwrap();
    assert_eq!(kit.bytes("copy/c d").await, "content");
    let head = kit.head("copy/c d").await;
    assert_eq!(head.id, copied.id);
    assert_eq!(head.headers.unwrap().metadata, new.metadata);
    assert_eq!(kit.metadata("copy/a b").await, old.metadata);
}

pub(super) async fn a_copy_onto_itself_changes_metadata(kit: &Kit) {
    let source = kit.put("self/a", "content").await.id;
    let new = headers(&[("mode", "33261")]);
    let copied = kit.copy(&source, "self/a", new.clone()).await.unwrap();
    assert_eq!(kit.bytes("self/a").await, "content");
    let head = kit.head("self/a").await;
    assert_eq!(head.id, copied.id);
    assert_eq!(head.headers.unwrap().metadata, new.metadata);
}

pub(super) async fn a_copy_of_another_version_is_stale(kit: &Kit) {
    if !kit.caps.copy_if_match {
        return;
    }
    let source = other_version(&kit.put("stale-copy/a", "a").await.id);
    let copied = kit.copy(&source, "stale-copy/b", headers(&[])).await;
    assert_eq!(copied, Err(StoreError::Stale));
    assert!(kit.is_absent("stale-copy/b").await);
}

pub(super) async fn a_delete_may_be_repeated(kit: &Kit) {
    kit.put("delete/a", "x").await;
    kit.delete("delete/a", None).await.unwrap();
    assert!(kit.is_absent("delete/a").await);
    kit.delete("delete/a", None).await.unwrap();
}

pub(super) async fn a_conditional_delete_sees_what_is_there(kit: &Kit) {
    if !kit.caps.delete_if_match {
        return;
    }
    let at = key("delete-if/a");
    let old = kit.put("delete-if/a", "old").await.id.etag;
    let new = kit.put("delete-if/a", "new").await.id.etag;
    let deleted = kit.store.delete(&at, Some(&old)).await;
    assert_eq!(deleted, Err(StoreError::Precondition));
    assert_eq!(kit.bytes("delete-if/a").await, "new");
    kit.store.delete(&at, Some(&new)).await.unwrap();
    assert!(kit.is_absent("delete-if/a").await);
    kit.store.delete(&at, Some(&new)).await.unwrap();
}

pub(super) async fn a_batch_deletes_what_it_names(kit: &Kit) {
    for at in ["batch/a", "batch/b", "batch/c"] {
        kit.put(at, "x").await;
    }
    let named = ["batch/a", "batch/c", "batch/absent"].map(|at| (key(at), None));
    let refused = kit.store.delete_batch(&named).await.unwrap();
    assert_eq!(refused, []);
    assert_eq!(keys(&kit.page("batch/", false).await), ["batch/b"]);
    assert_eq!(kit.store.delete_batch(&[]).await.unwrap(), []);
}

pub(super) async fn a_conditional_batch_sees_what_is_there(kit: &Kit) {
    if !kit.caps.batch_if_match {
        return;
    }
    let old = kit.put("batch-if/a", "old").await.id.etag;
    let new = kit.put("batch-if/a", "new").await.id.etag;
    let other = kit.put("batch-if/b", "other").await.id.etag;
    let of = |at: &str, etag: &ETag| (key(at), Some(etag.clone()));
    let named = [
        of("batch-if/a", &old),
        of("batch-if/b", &other),
        of("batch-if/absent", &other),
    ];
    let mut refused = kit.store.delete_batch(&named).await.unwrap();
    // Of what is absent either is said: it does not match, or it is gone as was wanted.
    refused.retain(|(at, _)| *at != key("batch-if/absent"));
    assert_eq!(refused, [(key("batch-if/a"), StoreError::Precondition)]);
    assert_eq!(kit.bytes("batch-if/a").await, "new");
    assert!(kit.is_absent("batch-if/b").await);
    let named = [of("batch-if/a", &new)];
    assert_eq!(kit.store.delete_batch(&named).await.unwrap(), []);
    assert!(kit.is_absent("batch-if/a").await);
}
