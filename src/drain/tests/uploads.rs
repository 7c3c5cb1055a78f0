//! Uploads in parts: broken off, continued, unwanted.

use super::world::{MIB, World, key, no_link};
use super::*;
use crate::log::Record;
use crate::store::Op;
use crate::store::fault::Kind;
use crate::store::{ObjectStore as _, Payload};
use crate::types::{Headers, ObjectKey, STAMP_KEY, Stamp};

#[tokio::test]
async fn a_broken_upload_continues_with_the_parts_it_has() {
    let world = World::new();
    world.write_large("a", 40 * MIB);
    world.fault.on(Op::UploadPart, 3, Kind::Before(no_link()));
    world.drained().await;
    assert_eq!(world.bytes("a").len() as u64, 40 * MIB);
    assert_eq!(world.count(Op::CreateMultipart), 1);
    assert_eq!(world.count(Op::UploadPart), 5, "each part went once");
    assert_eq!(world.drain.status().resent_bytes, 8 * MIB);
    assert_eq!(world.twin.uploads(), 0);
    assert_eq!(world.log.spool().files(), Vec::new());
}

/// Cut off with two of five parts in S3.
async fn cut_off_in_mid_upload() -> World {
    // One at a time, however fast this machine is found to be.
    let world = World::of(
        Op::UploadPart,
        Config {
            concurrency: 1,
            ..World::settings()
        },
    );
    world.write_large("a", 40 * MIB);
    world.log.flushed(world.tree.now()).await.unwrap();
    world.drain.hurry();
    world.gate.comes().await;
    world.gate.lets_pass(2);
    world.gate.comes().await;
    // The third is on its way when the first two have arrived.
    world.gate.comes().await;
    assert_eq!(world.count(Op::UploadPart), 2);
    let world = world.reboot().await;
    assert_eq!(world.count(Op::UploadPart), 2);
    world
}

#[tokio::test]
async fn a_restart_in_mid_upload_sends_no_part_again_that_arrived() {
    let world = cut_off_in_mid_upload().await;
    world.drained().await;
    assert_eq!(world.bytes("a").len() as u64, 40 * MIB);
    assert_eq!(world.count(Op::CreateMultipart), 1);
    assert_eq!(world.count(Op::ListParts), 1);
    assert_eq!(world.count(Op::UploadPart), 5, "each part went once");
    assert_eq!(world.twin.uploads(), 0);
}

#[tokio::test]
async fn an_upload_that_a_restart_finds_unwanted_is_aborted() {
    let world = cut_off_in_mid_upload().await;
    assert_eq!(world.twin.uploads(), 1);
    world.write("a", b"something else");
    world.drained().await;
    assert_eq!(world.bytes("a"), b"something else");
    for _ in 0..600 {
        if world.twin.uploads() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the upload is left");
}

#[tokio::test]
async fn a_part_that_is_not_what_would_be_sent_is_sent() {
    let world = cut_off_in_mid_upload().await;
    world.twin.spoil_parts();
    world.drained().await;
    let byte = |i: u64| u8::try_from(i % 251).unwrap();
    assert!(world.bytes("a").into_iter().eq((0..40 * MIB).map(byte)));
    assert_eq!(world.count(Op::UploadPart), 7);
}

#[tokio::test]
async fn an_upload_that_broke_off_is_not_continued_with_other_bytes() {
    let world = World::new();
    world.write_large("a", 40 * MIB);
    world.fault.on(Op::UploadPart, 3, Kind::Before(no_link()));
    world.drain.hurry();
    let mut failed = world.drain.answer.clone();
    while world.drain.status().last_error.is_none() {
        failed.changed().await.unwrap();
    }
    let len = usize::try_from(40 * MIB).unwrap();
    world.write_spooled("a", &vec![7; len]);
    world.drained().await;
    assert!(world.bytes("a") == vec![7; len]);
    assert_eq!(world.twin.uploads(), 0, "the broken one is aborted");
}

#[tokio::test]
async fn the_id_of_an_upload_is_durable_before_a_part_of_it_is_sent() {
    let world = World::gated(Op::CreateMultipart);
    world.write_large("a", 17 * MIB);
    world.fault.on(Op::UploadPart, 1, Kind::Before(no_link()));
    world.drain.hurry();
    world.gate.comes().await;
    let before = world.log.disk().flushes();
    world.gate.lets_pass(9);
    let mut failed = world.drain.answer.clone();
    while world.drain.status().last_error.is_none() {
        failed.changed().await.unwrap();
    }
    assert!(world.log.disk().flushes() > before);
    world.drained().await;
}

#[tokio::test]
async fn a_lost_answer_to_complete_is_recognized() {
    let world = World::new();
    world.write_large("a", 17 * MIB);
    world.fault.on(Op::Complete, 1, Kind::After(no_link()));
    world.drained().await;
    assert_eq!(world.count(Op::CreateMultipart), 1);
    assert_eq!(world.count(Op::UploadPart), 3);
    assert_eq!(world.drain.status().conflicts, 0);
}

#[tokio::test]
async fn what_was_staged_before_a_reboot_only_wants_complete() {
    let world = World::gated(Op::ListParts);
    world.write_large("a", 17 * MIB);
    let denied = Kind::Before(no_link());
    world.fault.on(Op::Complete, 1, denied);
    world.drain.hurry();
    let mut changed = world.tree.changed();
    let is_staged = |all: &crate::tree::PendingMap| {
        all.get(&key("a"))
            .is_some_and(|entry| entry.staged.is_some())
    };
    while !world.tree.pending(is_staged) || world.fault.pending() > 0 {
        changed.changed().await.unwrap();
    }
    let world = world.reboot().await;
    world.drained().await;
    assert_eq!(world.bytes("a").len() as u64, 17 * MIB);
    assert_eq!(world.count(Op::CreateMultipart), 1);
    assert_eq!(world.count(Op::UploadPart), 3);
    assert_eq!(world.twin.uploads(), 0);
}

#[tokio::test]
async fn an_upload_that_nobody_wants_any_more_is_aborted() {
    let world = World::gated(Op::UploadPart);
    world.write_large("a", 40 * MIB);
    world.drain.hurry();
    world.gate.comes().await;
    world.set("a", Want::Gone, &[]);
    world.gate.lets_pass(99);
    world.drained().await;
    assert_eq!(world.twin.keys(), Vec::<String>::new());
    assert_eq!(world.twin.uploads(), 0);
    assert!(world.count(Op::UploadPart) <= 2, "only what was in flight");
}

#[tokio::test]
async fn an_upload_that_is_continued_keeps_the_size_of_its_parts() {
    let mut world = cut_off_in_mid_upload().await;
    world.settings.part_size = None;
    let world = world.reboot().await;
    world.drained().await;
    assert_eq!(world.bytes("a").len() as u64, 40 * MIB);
    assert_eq!(world.count(Op::CreateMultipart), 1);
    assert_eq!(world.count(Op::UploadPart), 5, "each part went once");
}

#[tokio::test]
async fn over_a_link_that_was_not_measured_one_part_of_five_mib_goes_at_a_time() {
    let settings = Config {
        part_size: None,
        ..World::settings()
    };
    let world = World::of(Op::UploadPart, settings);
    world.write_large("a", 12 * MIB);
    world.drain.hurry();
    world.gate.comes().await;
    assert!(!world.gate.has_come(), "one at a time");
    world.gate.lets_pass(99);
    world.drained().await;
    assert_eq!(world.bytes("a").len() as u64, 12 * MIB);
    let counts = world.twin.counts();
    assert_eq!((counts.of(Op::UploadPart), counts.total()), (3, 5));
}

#[tokio::test]
async fn what_s3_damaged_is_found_at_complete_and_sent_once_more() {
    let world = World::gated(Op::Complete);
    world.write_large("a", 17 * MIB);
    world.drain.hurry();
    world.gate.comes().await;
    world.twin.damage_parts();
    world.gate.lets_pass(9);
    world.drained().await;
    let byte = |i: u64| u8::try_from(i % 251).unwrap();
    assert!(world.bytes("a").into_iter().eq((0..17 * MIB).map(byte)));
    assert_eq!(world.refused(), Vec::new());
    assert_eq!(world.count(Op::UploadPart), 6);
    assert_eq!(world.drain.status().resent_bytes, 17 * MIB);
    assert_eq!(world.twin.uploads(), 0);
}

#[tokio::test]
async fn what_s3_will_never_complete_is_parked_after_the_second_try() {
    let world = World::new();
    world.write_large("a", 17 * MIB);
    let never = || StoreError::Invalid("InvalidPart".into());
    world.fault.on(Op::Complete, 1, Kind::Before(never()));
    world.fault.on(Op::Complete, 2, Kind::Before(never()));
    world.drained().await;
    assert_eq!(world.refused().len(), 1);
    assert_eq!(world.twin.uploads(), 0);
    world.tree.record(Record::Retry).unwrap();
    world.drained().await;
    assert_eq!(world.bytes("a").len() as u64, 17 * MIB);
}

#[tokio::test]
async fn parts_of_what_came_another_way_before_a_crash_are_aborted() {
    let world = World::new();
    world.write("a", b"x");
    let number = world.tree.pending(|all| all.get(&key("a")).unwrap().number);
    // Put whole, and the answer lost; then staged by a run that did not know.
    let stamp = Stamp {
        mount: world.log.mount_id(),
        number,
    };
    let metadata = [(STAMP_KEY.to_owned(), stamp.to_string())];
    let headers = Headers {
        metadata: metadata.into(),
        ..Headers::default()
    };
    world.twin.put_behind("a", "x", headers.clone());
    let at = ObjectKey::from(&key("a"));
    let upload = world.twin.create_multipart(&at, &headers).await.unwrap();
    let payload = Payload::of("x".into());
    let done = world
        .twin
        .upload_part(&at, &upload, 1, &payload)
        .await
        .unwrap();
    let upload = upload.0.to_string();
    let (part, stamp) = (8 * MIB, number);
    for record in [
        Record::UploadBegun {
            key: key("a"),
            number,
            upload: upload.clone(),
            part,
            stamp,
        },
        Record::Staged {
            key: key("a"),
            number,
            upload,
            parts: vec![(1, done.etag.as_str().into())],
        },
    ] {
        world.tree.record(record).unwrap();
    }
    world.drained().await;
    assert_eq!((world.bytes("a"), world.count(Op::Put)), (b"x".into(), 0));
    assert_eq!(world.twin.uploads(), 0);
    assert_eq!(world.count(Op::Abort), 1);
}
