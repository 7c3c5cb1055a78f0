//! Files that are sent while they are being written.

use std::sync::Arc;

use super::world::{MIB, World, attrs, key, no_link};
use super::*;
use crate::log::DataFile;
use crate::store::Op;
use crate::store::fault::Kind;
use crate::types::{Extent, Source};

/// A file that is being written from the front on.
struct Writing<'a> {
    world: &'a World,
    at: &'a str,
    data: Arc<DataFile>,
    len: u64,
}

fn byte(i: u64) -> u8 {
    u8::try_from(i % 251).unwrap()
}

impl World {
    fn creates<'a>(&'a self, at: &'a str) -> Writing<'a> {
        let attrs = Box::new(attrs(0o600));
        self.set(at, Want::Open { attrs, file: None }, &[]);
        let data = Arc::new(self.log.spool().create().unwrap());
        let written = Record::Draft {
            key: key(at),
            file: data.number(),
            sealed: 0,
        };
        self.tree.note(written).unwrap();
        let len = 0;
        Writing {
            world: self,
            at,
            data,
            len,
        }
    }

    async fn has_sent(&self, parts: u64) {
        self.waits(|| self.count(Op::UploadPart) >= parts).await;
    }

    async fn waits(&self, until: impl Fn() -> bool) {
        for _ in 0..6000 {
            if until() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?} {:?}", self.drain.status(), self.twin.counts());
    }

    fn is_whole(&self, at: &str, len: u64) {
        assert!(self.bytes(at).into_iter().eq((0..len).map(byte)), "{at}");
    }
}

impl Writing<'_> {
    /// So long it is now, and all of it but a MiB is offered.
    fn grows_to(&mut self, len: u64) {
        let bytes: Vec<u8> = (self.len..len).map(byte).collect();
        self.data.write_at(&bytes, self.len).unwrap();
        self.len = len;
        let key = key(self.at);
        self.world.tree.offer(key, &self.data, len - MIB);
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        extents.put(Extent {
            at: 0,
            len: self.len,
            from: Source::Local {
                file: self.data.number(),
                offset: 0,
            },
        });
        extents
    }

    fn closes(self) -> crate::types::Seq {
        self.data.flush().unwrap();
        self.world.tree.withdraw(self.data.number());
        let extents = self.extents();
        self.world
            .object(self.at, extents, self.len, attrs(0o644), &[])
    }
}

#[tokio::test]
async fn parts_go_while_a_file_is_written_and_its_close_leaves_the_last_part_and_complete() {
    let world = World::new();
    let mut file = world.creates("d/a");
    file.grows_to(33 * MIB);
    world.has_sent(4).await;
    assert_eq!(world.twin.keys(), Vec::<String>::new(), "nothing shows");
    file.grows_to(40 * MIB);
    let number = file.closes();
    world.drained().await;
    world.is_whole("d/a", 40 * MIB);
    let counts = world.twin.counts();
    let sent = (counts.of(Op::CreateMultipart), counts.of(Op::UploadPart));
    assert_eq!(sent, (1, 5), "each part went once");
    // The attributes of the close follow by one copy of the object onto itself.
    assert_eq!((counts.of(Op::Copy), counts.total()), (1, 8), "{counts:?}");
    let mount = world.log.mount_id();
    let stamp = Stamp { mount, number }.to_string();
    assert_eq!(world.metadata("d/a", "kryptonfs"), Some(stamp));
    let mode = world.metadata("d/a", "mode").unwrap();
    assert_eq!(mode, (libc::S_IFREG | 0o644).to_string());
    let status = world.drain.status();
    assert_eq!((status.resent_bytes, status.conflicts), (0, 0));
    assert_eq!(world.twin.uploads(), 0);
    assert_eq!(world.log.spool().files(), Vec::new());
}

#[tokio::test]
async fn a_range_that_is_written_again_is_sent_again_under_its_number() {
    for (with, again) in [(b'?', 1), (byte(9 * MIB), 0)] {
        let world = World::new();
        let mut file = world.creates("a");
        file.grows_to(33 * MIB);
        world.has_sent(4).await;
        // In the second part; the same byte makes no difference.
        file.data.write_at(&[with], 9 * MIB).unwrap();
        file.closes();
        world.drained().await;
        let mut expected: Vec<u8> = (0..33 * MIB).map(byte).collect();
        expected[usize::try_from(9 * MIB).unwrap()] = with;
        assert!(world.bytes("a") == expected);
        assert_eq!(world.count(Op::UploadPart), 5 + again);
        assert_eq!(world.drain.status().resent_bytes, again * 8 * MIB);
        assert_eq!(world.count(Op::CreateMultipart), 1);
    }
}

#[tokio::test]
async fn what_is_removed_before_it_is_closed_costs_the_parts_of_one_file_in_its_directory() {
    let world = World::new();
    let mut file = world.creates("d/a");
    file.grows_to(33 * MIB);
    world.has_sent(4).await;
    world.set("d/a", Want::Gone, &[]);
    world.drained().await;
    world.waits(|| world.twin.uploads() == 0).await;
    assert_eq!(world.twin.keys(), Vec::<String>::new());
    assert_eq!(world.drain.status().resent_bytes, 32 * MIB);
    let (mut again, mut other) = (world.creates("d/b"), world.creates("e/b"));
    again.grows_to(33 * MIB);
    other.grows_to(33 * MIB);
    world.has_sent(8).await;
    again.closes();
    other.closes();
    world.drained().await;
    world.is_whole("d/b", 33 * MIB);
    world.is_whole("e/b", 33 * MIB);
    assert_eq!(world.count(Op::Copy), 1, "only one of them went early");
}

#[tokio::test]
async fn what_is_renamed_before_it_is_closed_is_sent_under_its_new_name() {
    let world = World::new();
    let mut file = world.creates("a");
    file.grows_to(33 * MIB);
    world.has_sent(4).await;
    let attrs_now = Box::new(attrs(0o600));
    world.set(
        "b",
        Want::Open {
            attrs: attrs_now,
            file: None,
        },
        &[],
    );
    world.set("a", Want::Gone, &[]);
    let file = Writing { at: "b", ..file };
    file.closes();
    world.drained().await;
    world.waits(|| world.twin.uploads() == 0).await;
    world.is_whole("b", 33 * MIB);
    assert_eq!(world.twin.keys(), ["b"]);
    assert_eq!(world.drain.status().resent_bytes, 32 * MIB);
}

#[tokio::test]
async fn a_temporary_name_and_a_file_that_may_stay_small_are_not_sent_early() {
    let world = World::new();
    let mut temporary = world.creates("a.tmp");
    temporary.grows_to(33 * MIB);
    let mut small = world.creates("b");
    small.grows_to(16 * MIB);
    let mut large = world.creates("c");
    large.grows_to(33 * MIB);
    world.has_sent(4).await;
    assert_eq!(world.count(Op::CreateMultipart), 1);
    large.closes();
    world.drained().await;
    assert_eq!(world.twin.keys(), ["c"]);
}

#[tokio::test]
async fn a_crash_while_a_file_is_written_leaves_no_upload_and_publishes_nothing() {
    let world = World::new();
    let mut file = world.creates("a");
    file.grows_to(33 * MIB);
    world.has_sent(4).await;
    world.log.flushed(world.tree.now()).await.unwrap();
    drop(file);
    let world = world.reboot().await;
    world.waits(|| world.twin.uploads() == 0).await;
    world.drained().await;
    assert_eq!(world.twin.keys(), Vec::<String>::new());
    assert_eq!(world.log.spool().partials(), [("a".to_owned(), 33 * MIB)]);
    world.log.flushed(world.tree.now()).await.unwrap();
    let world = world.reboot().await;
    world.write("z", b"z");
    world.drained().await;
    assert_eq!(world.count(Op::Abort), 1, "it is known to be aborted");
}

#[tokio::test]
async fn a_crash_after_the_close_sends_no_part_again() {
    let world = World::gated(Op::Complete);
    let mut file = world.creates("a");
    file.grows_to(33 * MIB);
    world.has_sent(4).await;
    file.closes();
    world.log.flushed(world.tree.now()).await.unwrap();
    let world = world.reboot().await;
    world.drained().await;
    world.is_whole("a", 33 * MIB);
    assert_eq!(world.count(Op::CreateMultipart), 1);
    assert_eq!(world.count(Op::UploadPart), 5, "each part went once");
    assert_eq!(world.drain.status().conflicts, 0);
    assert_eq!(world.twin.uploads(), 0);
}

#[tokio::test]
async fn a_lost_answer_to_the_complete_of_an_early_upload_is_recognized() {
    let world = World::new();
    let mut file = world.creates("a");
    file.grows_to(33 * MIB);
    world.has_sent(4).await;
    world.fault.on(Op::Complete, 1, Kind::After(no_link()));
    let number = file.closes();
    world.drained().await;
    world.is_whole("a", 33 * MIB);
    assert_eq!(world.count(Op::UploadPart), 5, "each part went once");
    let mount = world.log.mount_id();
    let stamp = Stamp { mount, number }.to_string();
    assert_eq!(world.metadata("a", "kryptonfs"), Some(stamp));
    let status = world.drain.status();
    assert_eq!((status.resent_bytes, status.conflicts), (0, 0));
    assert_eq!(world.twin.uploads(), 0);
}

#[tokio::test]
async fn a_stranger_who_was_faster_costs_no_part_and_loses_nothing_here() {
    for conflict in [ConflictPolicy::LastWriter, ConflictPolicy::KeepBoth] {
        let world = World::with(Op::ListParts, conflict);
        world.gate.lets_pass(99);
        let mut file = world.creates("a");
        file.grows_to(33 * MIB);
        world.has_sent(4).await;
        world.twin.put_behind("a", "theirs", Headers::default());
        file.closes();
        world.drained().await;
        world.waits(|| world.twin.uploads() == 0).await;
        assert_eq!(world.drain.status().conflicts, 1);
        let keys = world.twin.keys();
        if conflict == ConflictPolicy::LastWriter {
            world.is_whole("a", 33 * MIB);
            assert_eq!((keys.len(), world.count(Op::UploadPart)), (1, 5));
        } else {
            assert_eq!(world.bytes("a"), b"theirs");
            assert_eq!(keys.len(), 2, "{keys:?}");
            world.is_whole(&keys[1], 33 * MIB);
        }
    }
}

#[tokio::test]
async fn what_is_changed_between_its_close_and_its_upload_keeps_the_parts_it_has() {
    let world = World::new();
    let mut file = world.creates("a");
    file.grows_to(33 * MIB);
    world.has_sent(4).await;
    file.closes();
    world.chmod("a", 0o600);
    world.append("a", b"tail");
    world.drained().await;
    let bytes = world.bytes("a");
    let len = usize::try_from(33 * MIB).unwrap();
    assert!(bytes[len..] == *b"tail" && bytes[..len].iter().copied().eq((0..33 * MIB).map(byte)));
    assert_eq!(world.count(Op::CreateMultipart), 1);
    assert_eq!(world.count(Op::UploadPart), 5, "each part went once");
    assert_eq!(world.count(Op::Get), 0);
}

#[tokio::test]
async fn an_early_upload_that_s3_forgot_is_made_once_more_and_no_sooner_than_at_the_close() {
    let world = World::new();
    let mut file = world.creates("a");
    file.grows_to(25 * MIB);
    world.has_sent(3).await;
    world.twin.forget_uploads();
    file.grows_to(33 * MIB);
    world.waits(|| world.count(Op::Abort) == 1).await;
    file.grows_to(41 * MIB);
    file.closes();
    world.drained().await;
    world.is_whole("a", 41 * MIB);
    assert_eq!(world.count(Op::CreateMultipart), 2);
    assert_eq!(world.twin.uploads(), 0);
}
