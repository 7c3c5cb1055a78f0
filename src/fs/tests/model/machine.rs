//! The real thing: the verbs over a log on a disk, a drain, a bucket, and the hand that cuts the
//! link or the power.
//!
//! Invariants: nothing is sent but while a drain is asked for, so a sequence ends the same each time;
//! each run of the daemon has a runtime of its own, so a kill ends all of its tasks wherever they
//! wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::super::device::{Cut as Left, Device, Event, Recorder};
use super::super::{Config, TTL, World, start_apart};
use super::action::Cut;
use super::look::{self, Seen};
use crate::store::layer::{Layer, Layered};
use crate::store::twin::Twin;
use crate::store::{Op, StoreError};
use crate::tree::Pending;
use crate::types::Want;

const SPOOL: u64 = 16 << 20;
/// Nothing here takes as long.
const LIMIT: Duration = Duration::from_secs(120);

/// What follows a number of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaks {
    /// No other goes through.
    Silent,
    /// Nor does the answer to the last one.
    AnswerLost,
    /// The credentials have expired.
    Refused,
}

/// What the link does.
#[derive(Debug, Default)]
struct Link {
    /// A drain may send.
    sends: bool,
    /// So many requests go through.
    left: Option<(u32, Breaks)>,
    is_down: bool,
}

/// A way over the link.
#[derive(Clone, Debug, Default)]
struct Gate {
    link: Arc<Mutex<Link>>,
    broke: Arc<Notify>,
    /// It is not the drain's.
    looks: bool,
}

fn no_link() -> StoreError {
    StoreError::Link("the link is down".to_owned())
}

#[async_trait::async_trait]
impl Layer for Gate {
    type Held = bool;

    async fn before(&self, _: Op, _: u64) -> crate::store::Result<bool> {
        let mut link = self.link.lock();
        if link.is_down {
            return Err(no_link());
        }
        if self.looks {
            return Ok(false);
        }
        if !link.sends {
            return Err(no_link());
        }
        match &mut link.left {
            None => Ok(false),
            Some((0, Breaks::Refused)) => Err(StoreError::Credentials("ExpiredToken".to_owned())),
            Some((0, _)) => Err(no_link()),
            Some((left, how)) => {
                *left -= 1;
                if *left > 0 {
                    return Ok(false);
                }
                self.broke.notify_one();
                Ok(*how == Breaks::AnswerLost)
            }
        }
    }

    fn after(&self, is_lost: &bool, _: Op, _: Option<&StoreError>) -> crate::store::Result<()> {
        if *is_lost { Err(no_link()) } else { Ok(()) }
    }
}

/// How a request budget ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Drained,
    Broke,
}

/// One run of the daemon.
struct Running {
    runtime: Runtime,
    world: World,
}

/// The device, and the bucket.
pub(super) struct Machine {
    pub(super) twin: Arc<Twin>,
    gate: Gate,
    dir: tempfile::TempDir,
    /// What is done to the disk, if the power may be cut.
    recorder: Option<Recorder>,
    run: Option<Running>,
}

/// A folder in memory, where there is one: flushes cost nothing there.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok());
    made.flatten()
        .unwrap_or_else(|| tempfile::tempdir().unwrap())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

impl Machine {
    pub(super) fn new(loses_power: bool) -> Self {
        let mut machine = Self {
            twin: Arc::new(Twin::new()),
            gate: Gate::default(),
            dir: folder(),
            recorder: loses_power.then(Recorder::default),
            run: None,
        };
        machine.start();
        machine
    }

    fn start(&mut self) {
        let runtime = runtime();
        let path = self.dir.path();
        let gate = self.gate.clone();
        let record = |recorder: &Recorder| recorder.disk(path, |_| None);
        let disk = self.recorder.as_ref().map(record).unwrap_or_default();
        let way = |looks| {
            let gate = Gate {
                looks,
                ..gate.clone()
            };
            Arc::new(Layered::new(Arc::clone(&self.twin) as _, Arc::new(gate))) as _
        };
        let stores = (way(true), way(false));
        let set = |config: &mut Config| {
            config.attrs_exact = true;
            // Nobody gives up because the machine is slow.
            (config.stale_after, config.read_timeout) = (LIMIT, LIMIT);
        };
        let (fs, drain) =
            runtime.block_on(async { start_apart(&disk, stores, path, (TTL, SPOOL), set) });
        fs.ask_link(Arc::new(move || gate.link.lock().is_down));
        let world = World {
            fs,
            drain,
            twin: Arc::clone(&self.twin),
            // The folder is the machine's, which outlives the run.
            dir: folder(),
        };
        self.run = Some(Running { runtime, world });
    }

    /// Does something to the running daemon.
    pub(super) fn on<T>(&self, work: impl AsyncFnOnce(&World) -> T) -> T {
        let Running { runtime, world } = self.run.as_ref().unwrap();
        runtime.block_on(async {
            let done = tokio::time::timeout(LIMIT, work(world));
            done.await.expect("an operation hangs")
        })
    }

    /// All files in the bucket.
    pub(super) fn bucket(&self) -> Vec<(String, Vec<u8>)> {
        let keys = self
            .twin
            .keys()
            .into_iter()
            .filter(|key| !key.ends_with('/'));
        let bytes = |key: &String| self.twin.object(key).map(|(bytes, _)| bytes.to_vec());
        keys.filter_map(|key| bytes(&key).map(|bytes| (key, bytes)))
            .collect()
    }

    /// `ttl` passes: what is known is asked for again.
    pub(super) fn age(&self) {
        self.on(async |world| world.fs.tree.age());
    }

    /// Sends all that can be.
    pub(super) fn drain(&self) {
        assert_eq!(self.send(None), End::Drained);
    }

    /// Sends until the link breaks, and lets those in flight fail.
    pub(super) fn break_off(&self, after: u32, how: Breaks) {
        self.send(Some((after, how)));
        self.on(async |world| {
            while world.drain.status().in_flight > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        self.close_link();
    }

    fn send(&self, left: Option<(u32, Breaks)>) -> End {
        // It may have broken before in the moment in which all was sent.
        let _ = self.gate.broke.notified().now_or_never();
        *self.gate.link.lock() = Link {
            sends: true,
            left,
            is_down: false,
        };
        let end = self.on(async |world| {
            world.drain.hurry();
            tokio::select! {
                is_done = world.drain.drained() => {
                    assert!(is_done, "the drain has ended");
                    End::Drained
                }
                () = idle(world) => End::Drained,
                () = self.gate.broke.notified() => End::Broke,
            }
        });
        if end == End::Drained {
            self.close_link();
        }
        end
    }

    /// What is known has to do then; nobody waits for the bucket.
    pub(super) fn set_link(&self, is_down: bool) {
        self.gate.link.lock().is_down = is_down;
    }

    fn close_link(&self) {
        *self.gate.link.lock() = Link::default();
    }

    /// Ends the run after so many requests of a drain, and starts another.
    pub(super) fn restart(&mut self, after: u32, cut: Cut) {
        if after > 0 {
            self.send(Some((after, Breaks::Silent)));
        }
        let Running { runtime, world } = self.run.take().unwrap();
        if cut == Cut::Stop {
            runtime.block_on(world.drain.stop());
            world.fs.tree.keep_listings();
        }
        drop((world, runtime));
        self.close_link();
        if let Cut::Power(seed, keeps) = cut {
            self.cut_power(seed, keeps);
        }
        self.start();
    }

    /// Ends the run in good order, for good.
    pub(super) fn stop(&mut self) {
        let Running { runtime, world } = self.run.take().unwrap();
        runtime.block_on(world.drain.stop());
    }

    /// What a device sees that has never seen the bucket.
    pub(super) fn strangers_view(&self) -> Seen {
        let mut other = Self {
            twin: Arc::clone(&self.twin),
            gate: Gate::default(),
            dir: folder(),
            recorder: None,
            run: None,
        };
        other.start();
        other.on(look::visible)
    }

    fn cut_power(&mut self, seed: u64, keeps: bool) {
        let Some(recorder) = &self.recorder else {
            return;
        };
        let after = folder();
        let left = if seed.is_multiple_of(2) {
            Left::Power
        } else {
            Left::Torn(seed)
        };
        Device::after(&recorder.all()).put_into(after.path(), left);
        for kept in ["cache", "spool/memory", "spool/listings"] {
            let (old, new) = (self.dir.path().join(kept), after.path().join(kept));
            if keeps && old.exists() && new.parent().is_some_and(Path::exists) {
                std::fs::rename(old, new).unwrap();
            }
        }
        self.dir = after;
        self.recorder = Some(recorder_of(self.dir.path()));
    }
}

/// Waits until nothing is left but what a writer holds. (`drained` would wait another second for the
/// release that follows a close.)
async fn idle(world: &World) {
    let is_held = |entry: &Pending| entry.held || matches!(entry.want, Want::Open { .. });
    let is_done = || {
        world.drain.status().in_flight == 0
            && world
                .fs
                .tree
                .pending(|all| all.in_order().all(|(_, entry)| is_held(entry)))
    };
    while !is_done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One that begins with what is there.
fn recorder_of(root: &Path) -> Recorder {
    let recorder = Recorder::default();
    let mut todo = vec![PathBuf::from("spool")];
    while let Some(dir) = todo.pop() {
        if !root.join(&dir).is_dir() {
            continue;
        }
        recorder.push(Event::MakeDir(dir.clone()));
        for entry in std::fs::read_dir(root.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            if root.join(&path).is_dir() {
                todo.push(path);
                continue;
            }
            let bytes = std::fs::read(root.join(&path)).unwrap();
            recorder.push(Event::Create(path.clone()));
            recorder.push(Event::Write(path.clone(), 0, bytes));
            recorder.push(Event::Flush(path));
        }
        recorder.push(Event::FlushDir(dir));
    }
    recorder
}
