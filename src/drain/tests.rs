//! The whole drain over the real tree, log and reader, against the bucket's twin with scripted
//! faults. Nothing here waits for luck: a test goes on when what it waits for has happened.

mod ahead;
mod conflicts;
mod dirs;
mod faults;
mod matrix;
mod removals;
mod rerooted;
mod uploads;
mod world;

use super::*;
use crate::log::Record;
use crate::store::fault::Kind;
use crate::store::{Op, StoreError};
use crate::types::{Attrs, Base, Extents, Headers, ObjectId, ObjectKey, STAMP_KEY, Stamp};
use world::{MIB, World, inline, key, no_link};

#[tokio::test]
async fn a_new_file_is_one_request_and_carries_who_wrote_it() {
    let world = World::new();
    let number = world.write("d/a", b"hello");
    world.drained().await;
    assert_eq!(world.bytes("d/a"), b"hello");
    let mount = world.log.mount_id();
    let stamp = crate::types::Stamp { mount, number }.to_string();
    assert_eq!(world.metadata("d/a", "kryptonfs"), Some(stamp));
    assert_eq!(world.twin.counts().total(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_recognized_and_nothing_is_sent_twice() {
    let world = World::new();
    world.write("a", b"hello");
    world.fault.on(Op::Put, 1, Kind::After(no_link()));
    world.drained().await;
    assert_eq!(world.drain.status().conflicts, 0);
    let asked = (world.count(Op::Put), world.count(Op::Head));
    assert_eq!(asked, (2, 1), "the repeated PUT was refused");
    assert_eq!(world.twin.keys(), ["a"]);
}

/// A power cut took the record that says it was sent, and the cache, after its source had been removed.
#[tokio::test]
async fn what_was_sent_is_recognized_also_where_what_it_was_made_of_is_gone() {
    let world = World::new();
    world.twin.put_behind("a", "one", Headers::default());
    world.append("a", b" two");
    world.rename("a", "c");
    let number = world.tree.pending(|all| all.get(&key("c")).unwrap().number);
    let mount = world.log.mount_id();
    let mut stamped = Headers::default();
    let stamp = Stamp { mount, number }.to_string();
    stamped.metadata.insert(STAMP_KEY.into(), stamp);
    world.twin.put_behind("c", "one two", stamped);
    world.twin.delete_behind("a");
    world.drained().await;
    assert_eq!(world.refused(), Vec::new());
    assert_eq!(
        (world.count(Op::Put), world.bytes("c")),
        (0, b"one two".to_vec())
    );
    assert_eq!(
        (world.twin.keys(), world.drain.status().conflicts),
        (vec!["c".to_owned()], 0)
    );
}

#[tokio::test]
async fn a_lost_answer_is_no_conflict_for_the_generation_after_it() {
    let world = World::gated(Op::Put);
    world.write("a", b"one");
    world.fault.on(Op::Put, 1, Kind::After(no_link()));
    world.drain.hurry();
    world.gate.comes().await;
    world.append("a", b" two");
    world.gate.lets_pass(9);
    world.drained().await;
    assert_eq!(world.bytes("a"), b"one two");
    assert_eq!(world.drain.status().conflicts, 0);
    assert_eq!(world.twin.keys(), ["a"]);
}

#[tokio::test]
async fn a_file_that_is_appended_to_while_it_is_sent_ends_with_all_bytes() {
    let world = World::gated(Op::Put);
    world.twin.put_behind("log", "old\n", Headers::default());
    world.append("log", b"one\n");
    world.drain.hurry();
    world.gate.comes().await;
    world.append("log", b"two\n");
    world.gate.lets_pass(9);
    world.drained().await;
    assert_eq!(world.refused(), Vec::new());
    assert_eq!(world.bytes("log"), b"old\none\ntwo\n");
    assert_eq!(world.drain.status().conflicts, 0);
}

#[tokio::test]
async fn a_large_file_that_is_appended_to_while_it_is_sent_ends_with_all_bytes() {
    let world = World::gated(Op::Complete);
    let len = usize::try_from(9 * MIB).unwrap();
    let old = vec![7; len];
    world
        .twin
        .put_behind("log", old.clone(), Headers::default());
    world.append("log", b"one\n");
    world.drain.hurry();
    world.gate.comes().await;
    world.append("log", b"two\n");
    world.gate.lets_pass(9);
    world.drained().await;
    assert_eq!(world.refused(), Vec::new());
    assert_eq!(world.bytes("log"), [&old[..], b"one\ntwo\n"].concat());
    assert_eq!(world.count(Op::Get), 0, "nothing was downloaded");
}

#[tokio::test]
async fn what_s3_refuses_is_parked_and_the_rest_goes_on() {
    let world = World::new();
    world.write("a", b"1");
    world.write("b", b"2");
    let denied = StoreError::AccessDenied("not yours".into());
    world.fault.on(Op::Put, 1, Kind::Before(denied));
    world.drained().await;
    assert_eq!(world.twin.keys(), ["b"]);
    assert_eq!(world.refused().len(), 1);
    world.tree.record(Record::Retry).unwrap();
    world.drained().await;
    assert_eq!(world.twin.keys(), ["a", "b"]);
}

#[tokio::test]
async fn what_says_that_a_refused_file_is_done_is_not_seen_before_it() {
    let world = World::new();
    for at in ["x.csv", "x.done", "y.csv", "y.done"] {
        world.write(at, b"1");
    }
    let denied = StoreError::AccessDenied("not yours".into());
    world.fault.on(Op::Put, 1, Kind::Before(denied));
    world.drained().await;
    assert_eq!(world.twin.keys(), ["y.csv", "y.done"]);
    assert_eq!(world.refused().len(), 1);
    // Written anew it is sent, and what waited for it after that.
    world.write("x.csv", b"2");
    world.write("x.done", b"2");
    world.drained().await;
    assert_eq!(world.twin.keys(), ["x.csv", "x.done", "y.csv", "y.done"]);
}

#[tokio::test]
async fn a_number_that_a_power_cut_could_take_back_is_not_sent() {
    let world = World::gated(Op::Put);
    let before = world.log.disk().flushes();
    world.write("a", b"x");
    world.drain.hurry();
    world.gate.comes().await;
    assert!(world.log.disk().flushes() > before, "the record is flushed");
    world.gate.lets_pass(9);
    world.drained().await;
}

#[tokio::test]
async fn a_generation_that_was_sent_is_the_base_of_the_one_that_superseded_it() {
    let world = World::gated(Op::Put);
    world.write("a", b"one");
    world.drain.hurry();
    world.gate.comes().await;
    world.write("a", b"two");
    world.gate.lets_pass(1);
    world.gate.comes().await;
    let first = world.twin.object("a").map(|(_, meta)| meta.id);
    let base = |all: &crate::tree::PendingMap| all.get(&key("a")).map(|entry| entry.base.clone());
    assert_eq!(world.tree.pending(base), Some(Base::of(first.as_ref())));
    world.gate.lets_pass(9);
    world.drained().await;
    assert_eq!(world.bytes("a"), b"two");
}

#[tokio::test]
async fn an_answer_from_before_a_file_was_sent_does_not_undo_it() {
    let world = World::new();
    world.write("a", b"x");
    let asked = world.tree.ask();
    world.drained().await;
    asked.head(&key("a"), None);
    assert!(world.tree.known(&key("a")).is_some());
}

#[tokio::test]
async fn names_that_change_places_leave_no_upload_behind() {
    let world = World::new();
    world.twin.put_behind("a", "A", Headers::default());
    world.twin.put_behind("b", "B", Headers::default());
    world.rename("a", "t");
    world.rename("b", "a");
    world.rename("t", "b");
    world.drained().await;
    assert_eq!(
        (world.bytes("a"), world.bytes("b")),
        (b"B".to_vec(), b"A".to_vec())
    );
    assert_eq!(world.twin.keys(), ["a", "b"]);
    assert_eq!(world.twin.uploads(), 0);
    assert_eq!(world.count(Op::Get), 0);
}

#[tokio::test]
async fn a_server_that_refuses_if_match_is_asked_first_from_then_on() {
    let world = World::new();
    world.twin.put_behind("a", "old", Headers::default());
    world.write("a", b"new");
    world
        .fault
        .on(Op::Put, 1, Kind::Before(StoreError::Precondition));
    world.drained().await;
    assert_eq!(world.bytes("a"), b"new");
    let status = world.drain.status();
    assert!(!status.caps.if_match);
    assert_eq!((status.caps.unguarded, status.conflicts), (1, 0));
    // A stranger's version is still seen, by asking.
    world.append("a", b"er");
    world.twin.put_behind("a", "theirs", Headers::default());
    world.drained().await;
    assert_eq!(world.bytes("a"), b"theirs");
}

#[tokio::test]
async fn a_link_that_is_down_gets_one_probe_and_all_is_sent_when_it_is_back() {
    let world = World::new();
    world.fault.link_down(true);
    for i in 0..20 {
        world.write(&format!("{i}/f"), b"x");
    }
    world.drain.hurry();
    let mut failed = world.drain.answer.clone();
    while world.drain.status().last_error.is_none() {
        failed.changed().await.unwrap();
    }
    world.fault.link_down(false);
    world.drained().await;
    assert_eq!(world.twin.keys().len(), 20);
    assert_eq!(world.count(Op::Put), 20);
}

#[tokio::test]
async fn unknown_attributes_are_those_of_the_version_it_was_built_on() {
    let world = World::new();
    let mut headers = Headers {
        content_type: Some("image/png".into()),
        ..Headers::default()
    };
    headers.metadata.insert("camera".into(), "7".into());
    let etag = world.twin.put_behind("a", vec![1; 9 << 20], headers);
    let id = ObjectId {
        key: ObjectKey::new("a"),
        etag,
    };
    let mut extents = Extents::whole(id, 9 * MIB);
    extents.put(inline(9 * MIB, b"tail"));
    world.object("a", extents, 9 * MIB + 4, Attrs::default(), b"tail");
    world.drained().await;
    let headers = world.twin.object("a").unwrap().1.headers.unwrap();
    assert_eq!(headers.content_type.as_deref(), Some("image/png"));
    assert_eq!(headers.metadata["camera"], "7");
    let counts = world.twin.counts();
    assert_eq!((counts.total(), counts.of(Op::Head)), (5, 1), "{counts:?}");
}

#[tokio::test]
async fn stopping_leaves_what_is_not_sent_to_the_next_start() {
    let world = World::new();
    world.write("a", b"x");
    let world = world.reboot().await;
    assert_eq!(world.twin.counts().total(), 0);
    world.drained().await;
    assert_eq!(world.twin.keys(), ["a"]);
    assert!(!stopped(&world).await, "a stopped drain says so");
}

async fn stopped(world: &World) -> bool {
    world.drain.stop().await;
    world.drain.drained().await
}
