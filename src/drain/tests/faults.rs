//! One request fails, in each way it can: what was wanted arrives, whole, once, and nothing of it is
//! left behind. The requests are the drain's own, without the repeats that stand below it.

use futures_util::future::join_all;

use super::world::{MIB, World, no_link};
use super::*;
use crate::store::Op;
use crate::store::fault::Kind;

const LARGE: u64 = 6 * MIB;
const OLD: u64 = 9 * MIB;

/// The ways, as a server or a link has them.
fn kinds(op: Op) -> Vec<(&'static str, Kind)> {
    let credentials = || StoreError::Credentials("ExpiredToken".into());
    let portal = || StoreError::BadAnswer("a portal".into());
    let mut all = vec![
        ("reset", Kind::Before(no_link())),
        ("503", Kind::Before(StoreError::Throttled)),
        ("409", Kind::Before(StoreError::Conflict)),
        ("damaged", Kind::Before(StoreError::BadDigest)),
        ("portal", Kind::Before(portal())),
        ("no answer in time", Kind::Before(StoreError::Deadline)),
        ("expired", Kind::Before(credentials())),
        ("lost after success", Kind::After(no_link())),
        ("garbage after success", Kind::After(portal())),
    ];
    if matches!(op, Op::UploadPart | Op::CopyPart | Op::Complete) {
        all.push(("no such upload", Kind::Before(StoreError::NoSuchUpload)));
    }
    if matches!(op, Op::Put | Op::Complete) {
        all.push(("412", Kind::Before(StoreError::Precondition)));
    }
    all
}

fn world() -> World {
    let settings = Config {
        part_size: Some(5 * MIB),
        multipart_threshold: 5 * MIB,
        ..World::settings()
    };
    let world = World::of(Op::ListParts, settings);
    world.gate.lets_pass(99);
    world
}

fn byte(i: u64) -> u8 {
    u8::try_from(i % 251).unwrap()
}

/// Wants what takes a request of `op`; what `a` is to hold then.
fn wants(world: &World, op: Op) -> Vec<u8> {
    match op {
        Op::CreateMultipart | Op::UploadPart | Op::Complete => {
            world.write_large("a", LARGE);
            (0..LARGE).map(byte).collect()
        }
        Op::CopyPart => {
            let old = vec![7; usize::try_from(OLD).unwrap()];
            world.twin.put_behind("a", old.clone(), Headers::default());
            world.append("a", b"tail");
            [&old[..], b"tail"].concat()
        }
        Op::Copy => {
            world.twin.put_behind("a", "old", Headers::default());
            world.chmod("a", 0o600);
            b"old".to_vec()
        }
        _ => {
            world.write("a", b"new");
            b"new".to_vec()
        }
    }
}

async fn runs(op: Op, name: &str, kind: Kind) {
    let world = world();
    let is_lost_create = op == Op::CreateMultipart && matches!(kind, Kind::After(_));
    let wanted = wants(&world, op);
    world.fault.on(op, 1, kind);
    world.drained().await;
    assert!(world.bytes("a") == wanted, "{op} {name}");
    assert_eq!(world.twin.keys(), ["a"], "{op} {name}");
    if op == Op::Copy {
        let mode = world.metadata("a", "mode").unwrap();
        assert_eq!(mode, (libc::S_IFREG | 0o600).to_string(), "{op} {name}");
    }
    let status = world.drain.status();
    assert_eq!(
        (status.refused, status.conflicts),
        (vec![], 0),
        "{op} {name}"
    );
    // Of a Create whose answer was lost nobody knows the id.
    let left = usize::from(is_lost_create);
    assert_eq!(world.twin.uploads(), left, "{op} {name}");
    assert_eq!(world.log.spool().files(), Vec::new(), "{op} {name}");
}

async fn each_way(op: Op) {
    let all = kinds(op).into_iter();
    join_all(all.map(|(name, kind)| runs(op, name, kind))).await;
}

#[tokio::test]
async fn a_put_that_fails_in_any_way_arrives_once() {
    each_way(Op::Put).await;
}

#[tokio::test]
async fn a_create_that_fails_in_any_way_is_made_again() {
    each_way(Op::CreateMultipart).await;
}

#[tokio::test]
async fn a_part_that_fails_in_any_way_is_sent_again() {
    each_way(Op::UploadPart).await;
}

#[tokio::test]
async fn a_copied_part_that_fails_in_any_way_is_copied_again() {
    each_way(Op::CopyPart).await;
}

#[tokio::test]
async fn a_complete_that_fails_in_any_way_is_told_from_one_that_did_not() {
    each_way(Op::Complete).await;
}

#[tokio::test]
async fn a_copy_that_fails_in_any_way_is_made_once() {
    each_way(Op::Copy).await;
}
