//! Crashes: a run is cut off at every step of the protocol, or at any moment between two; what it
//! acknowledged is there after a recovery, and after a second one.
//!
//! The oracle is a map of names to bytes, kept beside the run: after a cut it is what was
//! acknowledged, or that with the operation that was under way, never anything else.

mod cost;
mod faults;
mod order;
mod scenarios;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::device::{Cut, Device, Event, Recorder, Requests};
use super::*;
use crate::store::layer::Layered;
use scenarios::{Do, Names, bytes, oracle, scenarios};
use steps::{QUESTIONS, STEPS, step_of};

/// A segment of the log is 512 KiB then.
const CAP: u64 = 16 << 20;

/// A run that is recorded.
struct Run {
    recorder: Recorder,
    twin: Twin,
    dir: tempfile::TempDir,
    world: Option<World>,
}

fn world_on(disk: &Disk, twin: &Twin, recorder: Option<&Recorder>, dir: &Path) -> World {
    let mut store: Arc<dyn ObjectStore> = Arc::new(twin.clone());
    if let Some(recorder) = recorder {
        let layer = Requests(recorder.clone(), twin.clone());
        store = Arc::new(Layered::new(store, Arc::new(layer)));
    }
    let (fs, drain) = start_on(disk, store, dir, (TTL, CAP), |_| ());
    World {
        fs,
        twin: Arc::new(twin.clone()),
        drain,
        // The folder is the run's, which outlives the world.
        dir: tempfile::tempdir().unwrap(),
    }
}

/// Stops it without a word: nothing of it runs any more.
async fn stop(world: World) {
    let World { fs, drain, .. } = world;
    drain.stop().await;
    let log = Arc::downgrade(&fs.log);
    drop((fs, drain));
    while log.strong_count() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Run {
    fn new(fails: impl Fn(usize) -> Option<i32> + Send + Sync + 'static) -> Self {
        let (recorder, twin) = (Recorder::default(), Twin::new());
        let dir = tempfile::tempdir().unwrap();
        let disk = recorder.disk(dir.path(), fails);
        let world = world_on(&disk, &twin, Some(&recorder), dir.path());
        Self {
            recorder,
            twin,
            dir,
            world: Some(world),
        }
    }

    fn world(&self) -> &World {
        self.world.as_ref().unwrap()
    }

    async fn carry_out(&mut self, this: &Do) -> Result<()> {
        let world = self.world();
        match this {
            Do::Put(name, new) => {
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
                let (ino, fh) = world.open(name, flags).await?;
                world.write(ino, fh, 0, new).await?;
                return self.close(ino, fh).await;
            }
            Do::Append(name, new) => {
                let end = world.at(name).await?.size;
                let (ino, fh) = world.open(name, libc::O_WRONLY | libc::O_APPEND).await?;
                let written = world.write(ino, fh, end, new).await;
                return written.and(self.close(ino, fh).await);
            }
            Do::Sync(name, at, new) => {
                let (ino, fh) = world.open(name, libc::O_RDWR).await?;
                let written = world.write(ino, fh, *at, new).await;
                let synced = written.and(world.fs.fsync(ino, fh).await);
                if synced.is_ok() {
                    self.recorder.push(Event::Acknowledged);
                }
                let more = synced.and(world.write(ino, fh, 0, b"end").await);
                more.and(world.close(ino, fh).await)?;
            }
            Do::Rename(from, to) => world.rename(from, to).await?,
            Do::MakeDir(name) => world.mkdir(name).await?,
            Do::Unlink(name) => world.unlink(name).await?,
            Do::Leave(name, new) => {
                let (ino, fh) = world.open(name, libc::O_WRONLY | libc::O_CREAT).await?;
                world.write(ino, fh, 0, new).await?;
            }
            Do::Chmod(name) => {
                let mode = SetAttr {
                    mode: Some(0o600),
                    ..SetAttr::default()
                };
                world.fs.setattr(world.at(name).await?.ino, mode).await?;
            }
            Do::Send => world.drain().await,
            Do::Compact => {
                world.fs.log.rotate()?;
                let tree = Arc::clone(&world.fs.tree);
                tokio::task::spawn_blocking(move || tree.drop_oldest(0))
                    .await
                    .unwrap()?;
            }
            Do::Restart => {
                // Not flushed, so that the next start has to doubt what it reads.
                world.fs.tree.record(log::Record::Retry)?;
                self.restart(|_| None).await;
            }
        }
        self.recorder.push(Event::Acknowledged);
        Ok(())
    }

    /// It is acknowledged once it is flushed: nobody waits for the release that follows.
    async fn close(&self, ino: Ino, fh: Fh) -> Result<()> {
        let world = self.world();
        let flushed = world.fs.flush(ino, fh, ME.pid).await;
        if flushed.is_ok() {
            self.recorder.push(Event::Acknowledged);
        }
        world.fs.release(ino, fh).await?;
        flushed
    }

    async fn restart(&mut self, fails: impl Fn(usize) -> Option<i32> + Send + Sync + 'static) {
        if let Some(world) = self.world.take() {
            stop(world).await;
        }
        let disk = self.recorder.disk(self.dir.path(), fails);
        let world = world_on(&disk, &self.twin, Some(&self.recorder), self.dir.path());
        self.world = Some(world);
    }
}

async fn recorded(all: &[Do]) -> Vec<Event> {
    let mut run = Run::new(|_| None);
    for this in all {
        run.carry_out(this).await.unwrap();
    }
    stop(run.world.take().unwrap()).await;
    run.recorder.all()
}

async fn whole(world: &World, path: &str) -> Result<Vec<u8>> {
    let (ino, fh) = world.open(path, libc::O_RDONLY).await?;
    let mut all = Vec::new();
    let read = loop {
        match world.fs.read(ino, fh, all.len() as u64, 1 << 20).await {
            Ok(more) if more.is_empty() => break Ok(all),
            Ok(more) => all.extend_from_slice(&more),
            Err(error) => break Err(error),
        }
    };
    world.close(ino, fh).await?;
    read
}

/// All names of a mount, with their bytes.
async fn seen(what: &str, world: &World) -> Names {
    let mut found = Names::new();
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        for name in world.names(&dir).await.unwrap() {
            let path = if dir.is_empty() {
                name
            } else {
                format!("{dir}/{name}")
            };
            if world.at(&path).await.unwrap().kind == Kind::Dir {
                found.insert(path.clone(), None);
                todo.push(path);
            } else {
                let mut bytes = whole(world, &path).await;
                if bytes == Err(FsError::Stale) {
                    // What it was made of was replaced by a request of ours whose answer was lost in
                    // the cut (and the cache, which nobody promised to keep, with it): it is found
                    // out when it is sent.
                    world.drain().await;
                    bytes = whole(world, &path).await;
                }
                found.insert(
                    path.clone(),
                    Some(bytes.unwrap_or_else(|error| panic!("{what}: {path}: {error:?}"))),
                );
            }
        }
    }
    found
}

fn shown(tree: &Names) -> String {
    let one = |(name, bytes): (&String, &Option<Vec<u8>>)| match bytes {
        Some(bytes) => format!(
            "{name}: {} bytes, {:?}",
            bytes.len(),
            &bytes[..bytes.len().min(4)]
        ),
        None => format!("{name}/"),
    };
    tree.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Recovers from what a cut leaves, and again, and sends it.
async fn recover(what: &str, events: &[Event], cut: Cut, states: &[Names]) {
    let device = Device::after(events);
    let dir = tempfile::tempdir().unwrap();
    device.put_into(dir.path(), cut);
    let twin = device.bucket();
    let done = device.acknowledged;
    let allowed = &states[done..states.len().min(done + 2)];
    let mut before = None;
    for _ in 0..2 {
        let world = world_on(&Disk::default(), &twin, None, dir.path());
        let found = seen(what, &world).await;
        assert!(
            allowed.contains(&found),
            "{what}: found {}\nexpected {}",
            shown(&found),
            allowed
                .iter()
                .map(shown)
                .collect::<Vec<_>>()
                .join("\nor       ")
        );
        stop(world).await;
        let first = before.get_or_insert_with(|| found.clone());
        assert_eq!(
            shown(first),
            shown(&found),
            "{what}: a second recovery differs"
        );
    }
    let world = world_on(&Disk::default(), &twin, None, dir.path());
    world.drain().await;
    stop(world).await;
    let sent = twin.keys().into_iter().filter(|key| !key.ends_with('/'));
    let sent: Names = sent
        .map(|key| (key.clone(), Some(twin.object(&key).unwrap().0.to_vec())))
        .collect();
    let mut files = before.unwrap_or_default();
    files.retain(|_, bytes| bytes.is_some());
    assert_eq!(shown(&sent), shown(&files), "{what}: the bucket");
    assert!(sent == files, "{what}: the bucket's bytes");
    // An upload's id is in the log before its first part is sent: an empty one may be left of a cut,
    // and of the ends of the recoveries here.
    assert_eq!(twin.half_sent(), 0, "{what}: something half sent is left");
}

fn is_long() -> bool {
    std::env::var_os("KRYPTONFS_LONG").is_some_and(|value| value != "0")
}

#[tokio::test]
async fn a_run_cut_off_before_and_after_each_step_of_the_protocol_keeps_what_it_acknowledged() {
    let listed: BTreeSet<String> = STEPS.iter().map(|(step, _)| (*step).to_owned()).collect();
    let mut met = BTreeSet::new();
    for (name, all) in scenarios() {
        let events = recorded(&all).await;
        let states = oracle(&all);
        let mut here = BTreeSet::new();
        for (at, event) in events.iter().enumerate() {
            let Some(step) = step_of(event).filter(|step| !QUESTIONS.contains(&&**step)) else {
                continue;
            };
            assert!(
                listed.contains(&step),
                "{name}: {step} is not in the table: {event:?}"
            );
            // A request is two moments: it is sent, and it was carried out.
            let moment = (step.clone(), matches!(event, Event::Sent(..)));
            let is_new = met.insert(moment.clone());
            if here.insert(moment) && (is_new || is_long()) {
                for cut in [Cut::Kill, Cut::Power] {
                    let before = format!("{name}: {cut:?} before {step}");
                    recover(&before, &events[..at], cut, &states).await;
                    let after = format!("{name}: {cut:?} after {step}");
                    recover(&after, &events[..=at], cut, &states).await;
                }
            }
        }
    }
    let met: BTreeSet<String> = met.into_iter().map(|(step, _)| step).collect();
    let never: Vec<_> = listed.difference(&met).collect();
    assert!(never.is_empty(), "in the table, and never done: {never:?}");
}

#[tokio::test]
async fn a_power_cut_at_any_moment_loses_nothing_acknowledged_and_tears_nothing() {
    for (name, all) in scenarios() {
        let events = recorded(&all).await;
        let states = oracle(&all);
        let step = if is_long() {
            1
        } else {
            1 + events.len() / if name == "send in parts" { 6 } else { 14 }
        };
        for cut in (0..=events.len()).step_by(step) {
            let seed = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(cut as u64 + 1);
            for how in [Cut::Power, Cut::Torn(seed), Cut::Torn(seed.rotate_left(17))] {
                let what = format!("{name}: {how:?} at {cut} of {}", events.len());
                recover(&what, &events[..cut], how, &states).await;
            }
        }
    }
}

#[tokio::test]
async fn what_was_sent_out_of_a_directory_before_its_marker_is_seen_after_a_kill() {
    let all = [
        Do::MakeDir("d"),
        Do::Put("d/a", bytes(1, 700)),
        Do::Put("d/b", bytes(2, 70_000)),
        Do::Send,
    ];
    let events = recorded(&all).await;
    let is_sent = |event: &Event| matches!(event, Event::Sent(Op::Put, _));
    let first = events.iter().position(is_sent).unwrap();
    for cut in first..=events.len() {
        let what = format!("cut at {cut} of {}", events.len());
        recover(&what, &events[..cut], Cut::Kill, &oracle(&all)).await;
    }
}

/// What is written to a segment or a data file goes behind what was written before: flash wears
/// where a block is written again and again.
#[tokio::test]
async fn no_place_of_the_log_or_of_a_data_file_is_written_twice() {
    for (name, all) in scenarios() {
        // An edit in place of what was never sealed may overwrite it: that is the user's doing.
        let mut ends: BTreeMap<std::path::PathBuf, usize> = BTreeMap::new();
        for event in recorded(&all).await {
            match event {
                Event::Write(path, at, data) if !path.ends_with("lock") => {
                    let end = ends.entry(path.clone()).or_default();
                    assert!(
                        at >= *end,
                        "{name}: {} at {at}, written up to {end}",
                        path.display()
                    );
                    *end = at + data.len();
                }
                Event::Create(path) => drop(ends.remove(&path)),
                _ => {}
            }
        }
    }
}
