//! The whole drain over the real tree, log and reader, against the bucket's twin with scripted
//! faults. Nothing here waits for luck: a test goes on when what it waits for has happened.

mod conflicts;
mod removals;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::*;
use crate::log::{self, Binding, Change, LogError, Record};
use crate::store::fault::{Fault, Kind};
use crate::store::layer::{Layer, Layered};
use crate::store::twin::Twin;
use crate::store::{Op, Result as StoreResult, StoreError};
use crate::types::{
    Attrs, Base, Extents, FileNo, Generation, Headers, Kind as NodeKind, ObjectId, ObjectKey,
    RelKey, Seq, Time,
};

const MIB: u64 = 1 << 20;

/// Holds back every request of one kind until it is let through.
#[derive(Debug)]
struct Gate {
    op: Op,
    came: Semaphore,
    may_pass: Semaphore,
}

#[async_trait]
impl Layer for Gate {
    type Held = ();

    async fn before(&self, op: Op, _up: u64) -> StoreResult<()> {
        if op == self.op {
            self.came.add_permits(1);
            self.may_pass.acquire().await.unwrap().forget();
        }
        Ok(())
    }
}

impl Gate {
    async fn comes(&self) {
        self.came.acquire().await.unwrap().forget();
    }

    fn lets_pass(&self, requests: usize) {
        self.may_pass.add_permits(requests);
    }
}

struct World {
    twin: Twin,
    fault: Arc<Fault>,
    gate: Arc<Gate>,
    tree: Arc<Tree>,
    log: Arc<Log>,
    drain: Handle,
    settings: Config,
    dir: tempfile::TempDir,
}

fn no_link() -> StoreError {
    StoreError::Link("no answer".into())
}

fn key(text: &str) -> RelKey {
    RelKey::parse(text).unwrap()
}

fn attrs(mode: u32) -> Attrs {
    let time = Time { secs: 1, nanos: 0 };
    Attrs::new(NodeKind::File, mode, 1, 2, time)
}

fn start(twin: &Twin, gated: Op, settings: &Config, dir: tempfile::TempDir) -> World {
    let spool = dir.path().join("spool");
    let config = log::Config {
        dir: spool.clone(),
        binding: Binding {
            endpoint: "twin".into(),
            bucket: "b".into(),
            prefix: String::new(),
        },
        spool_max: 1 << 30,
        disk_reserve: 0,
    };
    let ttl = Duration::from_secs(60);
    let opened = Tree::open(config, &spool.join("memory"), ttl).unwrap();
    let gate = Arc::new(Gate {
        op: gated,
        came: Semaphore::new(0),
        may_pass: Semaphore::new(0),
    });
    let store = Layered::new(Arc::new(twin.clone()), Arc::clone(&gate));
    let (store, fault) = Fault::over(Arc::new(store));
    let read = crate::read::Config {
        cache_dir: dir.path().join("cache"),
        disk_reserve: 0,
        ..Default::default()
    };
    let store: Arc<dyn ObjectStore> = store;
    let reader = Reader::new(read, Arc::clone(&store), Arc::clone(opened.log.spool()));
    let (tree, log) = (opened.tree, opened.log);
    let drain = super::start(
        Arc::clone(&tree),
        Arc::clone(&log),
        reader,
        store,
        settings.clone(),
    );
    World {
        twin: twin.clone(),
        fault,
        gate,
        tree,
        log,
        drain,
        settings: settings.clone(),
        dir,
    }
}

impl World {
    fn new() -> Self {
        // Nothing in these tests lists keys' parts: the gate stands open.
        Self::gated(Op::ListParts)
    }

    fn gated(op: Op) -> Self {
        Self::with(op, ConflictPolicy::LastWriter)
    }

    fn with(op: Op, conflict: ConflictPolicy) -> Self {
        let settings = Config {
            linger: Duration::from_secs(3600),
            conflict,
            ..Config::default()
        };
        let dir = tempfile::tempdir().unwrap();
        start(&Twin::new(), op, &settings, dir)
    }

    async fn reboot(self) -> Self {
        self.drain.stop().await;
        let Self {
            twin,
            fault,
            gate,
            tree,
            log,
            drain,
            settings,
            dir,
        } = self;
        drop((fault, gate, tree, log, drain));
        start(&twin, Op::ListParts, &settings, dir)
    }

    /// What the mount would show at a key: its extents and length.
    fn visible(&self, at: &str) -> (Extents, u64) {
        let pending = self.tree.pending(|all| {
            let entry = all.get(&key(at))?;
            let generation = entry.generation()?;
            Some((generation.extents.clone(), generation.len))
        });
        pending.unwrap_or_else(|| {
            let (bytes, meta) = self.twin.object(at).unwrap();
            let len = bytes.len() as u64;
            (Extents::whole(meta.id, len), len)
        })
    }

    fn base(&self, at: &str) -> Base {
        let pending = self
            .tree
            .pending(|all| all.get(&key(at)).map(|entry| entry.base.clone()));
        pending.unwrap_or_else(|| {
            let there = self.twin.object(at);
            Base::of(there.as_ref().map(|(_, meta)| &meta.id))
        })
    }

    fn set(&self, at: &str, want: Want, inline: &[u8]) -> Seq {
        let change = Change {
            key: key(at),
            want,
            base: self.base(at),
            number: None,
        };
        let inline = inline.to_vec();
        let change = || Ok::<_, LogError>((vec![change], inline));
        self.tree.change(|_| change()).unwrap()
    }

    fn object(&self, at: &str, extents: Extents, len: u64, attrs: Attrs, inline: &[u8]) -> Seq {
        let generation = Generation {
            extents,
            len,
            attrs,
        };
        self.set(at, Want::Object(Arc::new(generation)), inline)
    }

    fn write(&self, at: &str, bytes: &[u8]) -> Seq {
        let mut extents = Extents::default();
        extents.put(inline(0, bytes));
        self.object(at, extents, bytes.len() as u64, attrs(0o644), bytes)
    }

    fn append(&self, at: &str, bytes: &[u8]) -> Seq {
        let (mut extents, len) = self.visible(at);
        extents.put(inline(len, bytes));
        self.object(at, extents, len + bytes.len() as u64, attrs(0o644), bytes)
    }

    fn chmod(&self, at: &str, mode: u32) -> Seq {
        let (extents, len) = self.visible(at);
        self.object(at, extents, len, attrs(mode), &[])
    }

    fn rename(&self, from: &str, to: &str) {
        let (extents, len) = self.visible(from);
        let generation = Generation {
            extents,
            len,
            attrs: attrs(0o644),
        };
        let change = |at: &str, want| Change {
            key: key(at),
            want,
            base: self.base(at),
            number: None,
        };
        let changes = vec![
            change(to, Want::Object(Arc::new(generation))),
            change(from, Want::Gone),
        ];
        let changes = || Ok::<_, LogError>((changes, Vec::new()));
        self.tree.change(|_| changes()).unwrap();
    }

    /// A large new file, in a data file of the spool.
    fn write_large(&self, at: &str, len: u64) {
        let file = self.log.spool().create().unwrap();
        let byte = |i: u64| u8::try_from(i % 251).unwrap();
        let bytes: Vec<u8> = (0..len).map(byte).collect();
        file.write_at(&bytes, 0).unwrap();
        file.flush().unwrap();
        let mut extents = Extents::default();
        extents.put(Extent {
            at: 0,
            len,
            from: Source::Local {
                file: file.number(),
                offset: 0,
            },
        });
        self.object(at, extents, len, attrs(0o644), &[]);
    }

    async fn drained(&self) {
        self.drain.hurry();
        let drained = tokio::time::timeout(Duration::from_secs(60), self.drain.drained());
        let pending = || {
            self.tree.pending(|all| {
                let shown = |(key, entry)| format!("{key}: {entry:?}");
                all.in_order().map(shown).collect::<Vec<_>>()
            })
        };
        let done = drained.await;
        assert_eq!(done, Ok(true), "{:?} {:?}", self.drain.status(), pending());
        assert_eq!(self.fault.pending(), 0, "every fault happened");
    }

    fn bytes(&self, at: &str) -> Vec<u8> {
        self.twin.object(at).unwrap().0.to_vec()
    }

    fn metadata(&self, at: &str, name: &str) -> Option<String> {
        let headers = self.twin.object(at).unwrap().1.headers.unwrap();
        headers.metadata.get(name).cloned()
    }

    fn count(&self, op: Op) -> u64 {
        self.twin.counts().of(op)
    }

    fn refused(&self) -> Vec<(String, String)> {
        self.drain.status().refused
    }
}

fn inline(at: u64, bytes: &[u8]) -> Extent {
    Extent {
        at,
        len: bytes.len() as u64,
        from: Source::Local {
            file: FileNo::INLINE,
            offset: 0,
        },
    }
}

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
