//! Random sequences of what a user does to files and names, and of what happens to the device,
//! carried out on the real verbs over the twin and on a reference that knows nothing of how they
//! work (`model/reference.rs`).
//!
//! After each step: every call answers as the reference does; the tree, its bytes, modes and times
//! are the reference's. After a crash: what was acknowledged, and nothing else. At any moment: an
//! object in the bucket is whole, and was acknowledged under its name. After a drain: the bucket is
//! the tree, and the log is empty; a device that knows nothing shows it again.
//!
//! The sequences of the suite are the same in each run. `PROPTEST_CASES` asks for more of them,
//! `KRYPTONFS_LONG=1` for many others, from a seed that is told; `KRYPTONFS_SEED` for those of one.
//! What was shrunk stays in `model/regressions.rs`.

mod action;
mod look;
mod machine;
mod node;
mod reference;
mod regressions;
mod stranger;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use proptest::strategy::{Strategy, ValueTree as _};
use proptest::test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner};
use tokio::time::Instant;

use super::*;
use action::{Action, Cut, Flags, SCRATCH, SLOTS};
use look::{assert_same, visible, wanted};
use machine::{Breaks, Machine};
use node::{Body, DIR_MODE, Node};
use reference::Reference;

/// The machine and its reference, in step.
struct Pair {
    machine: Machine,
    model: Reference,
    held: [Option<(Ino, Fh)>; SLOTS + 1],
    /// What somebody else wrote or removed and our side has not seen.
    theirs: BTreeMap<String, Option<Vec<u8>>>,
    /// How much they wrote.
    count: u32,
    is_down: bool,
}

impl World {
    /// As the kernel opens a name.
    async fn open_at(&self, path: &str, flags: Flags) -> Result<(Ino, Fh)> {
        let (dir, name) = self.parent(path).await?;
        let bits = flags.bits();
        if flags.create {
            let (stat, opened) = self.fs.create(dir, name, 0o644, bits, ME).await?;
            return Ok((stat.ino, opened.fh));
        }
        let ino = self.fs.lookup(dir, name).await?.ino;
        Ok((ino, self.fs.open(ino, bits, ME).await?.fh))
    }

    /// As the kernel walks to a name.
    async fn dir_of<'a>(&self, path: &'a str) -> Result<(Ino, &'a [u8])> {
        let (dir, name) = self.parent(path).await?;
        match self.fs.getattr(dir, None).await?.kind {
            Kind::Dir => Ok((dir, name)),
            _ => Err(FsError::NotDir),
        }
    }

    async fn set(&self, path: &str, change: SetAttr) -> Result<()> {
        let ino = self.at(path).await?.ino;
        self.fs.setattr(ino, change).await.map(|_| ())
    }

    /// `upload_open` has passed for an open file.
    async fn snapshot(&self, fh: Fh) {
        let file = self.fs.handles.file(fh).unwrap().file;
        let later = Instant::now() + Duration::from_secs(7200);
        self.fs.look_after(&file, later).await;
    }
}

impl Flags {
    fn bits(self) -> i32 {
        let access = match (self.read, self.write) {
            (true, true) => libc::O_RDWR,
            (false, true) => libc::O_WRONLY,
            (_, false) => libc::O_RDONLY,
        };
        let all = [
            (self.create, libc::O_CREAT),
            (self.exclusive, libc::O_EXCL),
            (self.truncate, libc::O_TRUNC),
            (self.append, libc::O_APPEND),
        ];
        all.into_iter()
            .filter(|(is, _)| *is)
            .fold(access, |bits, (_, bit)| bits | bit)
    }
}

impl Pair {
    fn new(actions: &[Action]) -> Self {
        let cuts = |action: &Action| matches!(action, Action::Reboot(_, Cut::Power(..)));
        Self {
            machine: Machine::new(actions.iter().any(cuts)),
            model: Reference::default(),
            held: [None; SLOTS + 1],
            theirs: BTreeMap::new(),
            count: 0,
            is_down: false,
        }
    }

    fn step(&mut self, action: &Action) {
        match *action {
            Action::Put(path, bytes) => {
                if self.open(SCRATCH, path, Flags::PUT) {
                    self.write(SCRATCH, 0, &bytes.all());
                    self.close(SCRATCH);
                }
            }
            Action::Append(path, bytes) => {
                if self.open(SCRATCH, path, Flags::APPEND) {
                    self.write(SCRATCH, 0, &bytes.all());
                    self.close(SCRATCH);
                }
            }
            Action::Open(slot, path, flags) => {
                self.close(slot);
                self.open(slot, path, flags);
            }
            Action::Drain => self.drain(),
            Action::BreakOff(after, true) => self.break_off(after, Breaks::AnswerLost),
            Action::BreakOff(after, false) => self.break_off(after, Breaks::Silent),
            Action::Expire(after) => self.break_off(after, Breaks::Refused),
            Action::Reboot(after, cut) => self.restart(after, cut),
            Action::RemotePut(path) => self.remote_put(path),
            Action::RemoteDelete(path) => self.remote_delete(path),
            Action::Link { is_down } => self.set_link(is_down),
            Action::Write(slot, ..)
            | Action::Cut(slot, ..)
            | Action::Read(slot)
            | Action::Fsync(slot)
            | Action::Flush(slot)
            | Action::Close(slot)
            | Action::CopyRange((slot, _), ..)
            | Action::Snapshot(slot) => self.step_open(slot, action),
            _ => self.step_names(action),
        }
    }

    /// Whether it is open then.
    fn open(&mut self, slot: usize, path: &str, flags: Flags) -> bool {
        let is_link = |node: &Node| matches!(node.body, Body::Link(_));
        if self.model.at(path).is_some_and(is_link) && !flags.exclusive {
            // The kernel goes where it leads.
            return false;
        }
        let wanted = self.model.open(path, flags, slot);
        let done = self
            .machine
            .on(async |world| world.open_at(path, flags).await);
        assert_eq!(
            done.as_ref().map(|_| ()),
            wanted.as_ref().copied(),
            "open {path}"
        );
        self.held[slot] = done.ok();
        self.held[slot].is_some()
    }

    fn write(&mut self, slot: usize, at: usize, bytes: &[u8]) {
        let (Some((ino, fh)), Some(handle)) = (self.held[slot], self.model.handle(slot)) else {
            return;
        };
        if !handle.flags.write || bytes.is_empty() {
            return;
        }
        let len = self.model.open_bytes(slot).len();
        let at = if handle.flags.append { len } else { at };
        self.machine.on(async |world| {
            let size = world.fs.getattr(ino, Some(fh)).await.unwrap().size;
            assert_eq!(size, len as u64, "what fstat shows");
            world.write(ino, fh, at as u64, bytes).await.unwrap();
        });
        self.model.write(slot, at, bytes);
    }

    fn close(&mut self, slot: usize) {
        if let Some((ino, fh)) = self.held[slot].take() {
            self.machine
                .on(async |world| world.close(ino, fh).await.unwrap());
            self.model.close(slot);
        }
    }

    fn step_open(&mut self, slot: usize, action: &Action) {
        let (Some((ino, fh)), Some(handle)) = (self.held[slot], self.model.handle(slot)) else {
            return;
        };
        match *action {
            Action::Write(_, at, bytes) => self.write(slot, at, &bytes.all()),
            Action::Cut(_, len) if handle.flags.write => {
                let change = SetAttr {
                    size: Some(len as u64),
                    fh: Some(fh),
                    ..SetAttr::default()
                };
                self.machine
                    .on(async |world| world.fs.setattr(ino, change).await.unwrap());
                self.model.cut(slot, len);
            }
            Action::Read(_) if handle.flags.read => self.read(slot),
            Action::Fsync(_) => {
                self.machine
                    .on(async |world| world.fs.fsync(ino, fh).await.unwrap());
                self.model.fsync(slot);
            }
            Action::Flush(_) => {
                self.machine
                    .on(async |world| world.fs.flush(ino, fh, ME.pid).await.unwrap());
                self.model.flush(slot);
            }
            Action::Close(_) => self.close(slot),
            Action::CopyRange((_, from), (to, at), len) => self.copy((slot, from), (to, at), len),
            Action::Snapshot(_) if self.model.is_unsealed(slot) => {
                self.machine.on(async |world| world.snapshot(fh).await);
                self.model.fsync(slot);
            }
            _ => {}
        }
    }

    fn read(&self, slot: usize) {
        let Some((ino, fh)) = self.held[slot] else {
            return;
        };
        let read = self
            .machine
            .on(async |world| world.fs.read(ino, fh, 0, 1 << 20).await);
        let wanted = self.model.open_bytes(slot);
        assert!(read.unwrap()[..] == *wanted, "what is read by a handle");
    }

    fn copy(&mut self, from: (usize, usize), to: (usize, usize), len: usize) {
        let (Some(source), Some(target)) = (self.model.handle(from.0), self.model.handle(to.0))
        else {
            return;
        };
        let is_named = |slot: usize| self.model.path_of(slot).is_some();
        if !source.flags.read || !target.flags.write || !is_named(from.0) || !is_named(to.0) {
            return;
        }
        let (Some((_, a)), Some((_, b))) = (self.held[from.0], self.held[to.0]) else {
            return;
        };
        let (from_at, to_at) = ((a, from.1 as u64), (b, to.1 as u64));
        let copied = self
            .machine
            .on(async |world| world.fs.copy_file_range(from_at, to_at, len as u64).await);
        let wanted = self.model.copy(from, to, len);
        assert_eq!(copied.map(|copied| copied as usize), wanted, "bytes copied");
    }

    fn step_names(&mut self, action: &Action) {
        let model = &mut self.model;
        let (done, wanted) = match *action {
            Action::Rename(from, to, flags) => {
                if from == to && flags != RenameFlags::Replace {
                    // The kernel answers.
                    return;
                }
                let done = self.machine.on(async |world| {
                    let (from, to) = (world.dir_of(from).await?, world.dir_of(to).await?);
                    world.fs.rename(from, to, flags).await
                });
                (done, model.rename(from, to, flags))
            }
            Action::Unlink(path) => {
                let done = self.machine.on(async |world| world.unlink(path).await);
                (done, model.remove(path, false))
            }
            Action::Rmdir(path) => {
                let done = self.machine.on(async |world| {
                    let (dir, name) = world.parent(path).await?;
                    // As the kernel does.
                    if world.fs.lookup(dir, name).await?.kind != Kind::Dir {
                        return Err(FsError::NotDir);
                    }
                    world.fs.rmdir(dir, name).await
                });
                (done, model.remove(path, true))
            }
            _ => return self.step_making(action),
        };
        assert_eq!(done, wanted, "{action:?}");
    }

    fn step_making(&mut self, action: &Action) {
        let model = &mut self.model;
        let (done, wanted) = match *action {
            Action::Mkdir(path) => {
                let done = self.machine.on(async |world| world.mkdir(path).await);
                (done, model.make(path, Body::Dir, DIR_MODE).map(drop))
            }
            Action::Symlink(path, target) => {
                let done = self.machine.on(async |world| {
                    let (dir, name) = world.parent(path).await?;
                    world
                        .fs
                        .symlink(dir, name, target.as_bytes(), ME)
                        .await
                        .map(|_| ())
                });
                (
                    done,
                    model.make(path, Body::Link(target.into()), 0o777).map(drop),
                )
            }
            _ => return self.step_attrs(action),
        };
        assert_eq!(done, wanted, "{action:?}");
    }

    fn step_attrs(&mut self, action: &Action) {
        let model = &mut self.model;
        let (done, wanted) = match *action {
            Action::Truncate(path, len) => {
                if model
                    .at(path)
                    .is_some_and(|node| matches!(node.body, Body::Link(_)))
                {
                    return;
                }
                let change = SetAttr {
                    size: Some(len as u64),
                    ..SetAttr::default()
                };
                let done = self.machine.on(async |world| world.set(path, change).await);
                (done, model.truncate(path, len))
            }
            Action::Chmod(path, mode) => {
                let change = SetAttr {
                    mode: Some(mode),
                    ..SetAttr::default()
                };
                let done = self.machine.on(async |world| world.set(path, change).await);
                (done, model.set(path, |node| node.mode = mode))
            }
            Action::Utimens(path, secs) => {
                let mtime = Some(SetTime::At(Time { secs, nanos: 0 }));
                let change = SetAttr {
                    mtime,
                    ..SetAttr::default()
                };
                let done = self.machine.on(async |world| world.set(path, change).await);
                (done, model.set(path, |node| node.mtime = Some(secs)))
            }
            _ => return,
        };
        assert_eq!(done, wanted, "{action:?}");
    }

    fn drain(&mut self) {
        if self.is_down {
            return;
        }
        self.close_disputed();
        self.machine.drain();
        self.machine.age();
        self.settle(&self.machine.on(visible), &"after a drain");
        if self.model.has_writers() {
            self.model.unsettled();
            return;
        }
        assert_eq!(self.theirs, BTreeMap::new(), "not settled by a drain");
        let pending = self.machine.on(async |world| world.pending());
        assert_eq!(pending, Vec::<String>::new(), "after a drain");
        let bytes = |body: &Body| match body {
            Body::File(bytes) | Body::Link(bytes) => Some(bytes.clone()),
            Body::Dir => None,
        };
        let files = self.model.all();
        let files = files.filter_map(|(path, node)| Some((path.to_owned(), bytes(&node.body)?)));
        let (wanted, there) = (files.collect::<Vec<_>>(), self.machine.bucket());
        assert!(
            there == wanted,
            "the bucket: {}\nnot: {}",
            look::brief(&there),
            look::brief(&wanted)
        );
        self.model.settled();
    }

    fn break_off(&mut self, after: u32, how: Breaks) {
        if self.is_down {
            return;
        }
        self.close_disputed();
        self.machine.break_off(after, how);
        self.machine.age();
        self.model.unsettled();
        self.settle(&self.machine.on(visible), &"after a drain broke off");
    }

    /// Whoever starts again has a link.
    fn restart(&mut self, after: u32, cut: Cut) {
        let after = if self.is_down { 0 } else { after };
        if after > 0 {
            self.close_disputed();
            self.model.unsettled();
        }
        self.machine.restart(after, cut);
        self.is_down = false;
        self.held = [None; SLOTS + 1];
        let doubtful = self.model.crash();
        if after > 0 && matches!(cut, Cut::Power(_, false)) {
            // What a file is made of may have been replaced by a request of ours whose answer was
            // lost in the cut, and the cache with it: it is found out when it is sent.
            self.machine.drain();
        }
        let seen = self.machine.on(visible);
        for path in doubtful {
            let there = self.machine.twin.object(&path);
            let Some((shown, (bytes, _))) = seen.get(&path).zip(there) else {
                continue;
            };
            if shown.bytes() == Some(&bytes[..]) {
                self.model.appears(&path, shown.body.clone(), shown.mode);
            }
        }
        if after == 0 {
            self.merge();
        }
        self.settle(&seen, &"after a restart");
        self.merge();
    }

    fn check(&self, when: &dyn std::fmt::Display) {
        let seen = self.machine.on(visible);
        assert_same(&seen, &wanted(&self.model), when);
        for (key, bytes) in self.machine.bucket() {
            let (len, is_whole) = (bytes.len(), self.was_acknowledged(&key, &bytes));
            assert!(
                is_whole,
                "{when}: {key} ({len} B) in the bucket was never acknowledged so"
            );
        }
    }

    /// All that is open is closed, sent, and seen by a device that knows nothing.
    fn end(mut self) {
        (0..SLOTS).for_each(|slot| self.close(slot));
        self.set_link(false);
        self.check(&"all closed");
        self.restart(0, Cut::Kill);
        self.check(&"after a kill");
        self.drain();
        self.check(&"all sent");
        self.machine.stop();
        assert_eq!(self.machine.twin.half_sent(), 0, "an upload is left behind");
        assert_same(
            &self.machine.strangers_view(),
            &wanted(&self.model),
            &"elsewhere",
        );
    }
}

/// Carries a sequence out on both.
fn run(actions: &[Action]) {
    let mut pair = Pair::new(actions);
    for (index, action) in actions.iter().enumerate() {
        if pair.is_in_the_way(action) {
            continue;
        }
        pair.step(action);
        pair.check(&format_args!("after step {index}, {action:?}"));
    }
    pair.end();
}

fn fails(actions: &[Action]) -> bool {
    std::panic::catch_unwind(AssertUnwindSafe(|| run(actions))).is_err()
}

/// What is left of a sequence that fails without all that it fails without.
fn shrunk(mut actions: Vec<Action>) -> Vec<Action> {
    let mut chunk = actions.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < actions.len() {
            let mut fewer = actions.clone();
            fewer.drain(at..fewer.len().min(at + chunk));
            if fails(&fewer) {
                actions = fewer;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    actions
}

fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `cases` sequences, the same each time.
fn run_many(cases: u64, sequences: &impl Strategy<Value = Vec<Action>>) {
    let is_long = told("KRYPTONFS_LONG").is_some_and(|long| long != 0);
    let now = std::time::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
        .as_secs();
    let seed = told("KRYPTONFS_SEED").unwrap_or(if is_long { now } else { 0 });
    let cases = if is_long { cases * 10 } else { cases };
    for case in 0..told("PROPTEST_CASES").unwrap_or(cases) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&case.to_le_bytes());
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Cases::default(), random);
        let actions = sequences.new_tree(&mut runner).unwrap().current();
        if fails(&actions) {
            let actions = shrunk(actions);
            let lines: Vec<_> = actions
                .iter()
                .map(|action| format!("{action:?},"))
                .collect();
            println!(
                "KRYPTONFS_SEED={seed}, case {case}, shrunk:\n{}",
                lines.join("\n")
            );
            run(&actions);
            panic!("case {case} of KRYPTONFS_SEED={seed} failed and now does not");
        }
    }
}

#[test]
fn any_sequence_of_operations_crashes_and_drains_equals_the_model() {
    run_many(1400, &action::alone());
}

#[test]
fn any_sequence_with_strangers_and_a_link_that_fails_loses_nothing_and_ends_the_same() {
    run_many(600, &action::in_company());
}
