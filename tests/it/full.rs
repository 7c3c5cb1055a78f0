//! A device without room: who is told so and when, what still works, and that the caps hold.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::harness::tree::sha256;
use crate::harness::{Mount, Server, World, eventually, noise};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

/// A file system of its own below the world's folder (unmounted with it).
fn tmpfs(world: &World, size: u64) -> PathBuf {
    let dir = world.local("disk");
    let made = Command::new("mount")
        .args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={size},mode=700"),
            "tmpfs",
        ])
        .arg(&dir)
        .status()
        .unwrap();
    assert!(made.success(), "a tmpfs cannot be mounted");
    dir
}

/// Bytes that the files of a folder occupy. What goes meanwhile counts as nothing.
/// A file that the cache shares with the spool is the spool's until that lets go of it.
fn occupied(dir: &Path) -> u64 {
    let is_cache = dir.components().any(|part| part.as_os_str() == "cache");
    let mut all = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => all += occupied(&entry.path()),
            Ok(meta) if is_cache && meta.nlink() > 1 => {}
            Ok(meta) => all += meta.blocks() * 512,
            Err(_) => {}
        }
    }
    all
}

/// Looks at folders again and again, and keeps the largest seen of each.
struct Watch {
    ends: Arc<AtomicBool>,
    largest: Arc<Vec<AtomicU64>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn on(dirs: Vec<PathBuf>) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let largest: Arc<Vec<_>> = Arc::new(dirs.iter().map(|_| AtomicU64::new(0)).collect());
        let thread = std::thread::spawn({
            let (ends, largest) = (Arc::clone(&ends), Arc::clone(&largest));
            move || {
                while !ends.load(Ordering::SeqCst) {
                    for (dir, largest) in dirs.iter().zip(&*largest) {
                        largest.fetch_max(occupied(dir), Ordering::SeqCst);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self {
            ends,
            largest,
            thread: Some(thread),
        }
    }

    fn seen(mut self) -> Vec<u64> {
        self.ends.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        let seen = self.largest.iter();
        seen.map(|largest| largest.load(Ordering::SeqCst)).collect()
    }
}

/// Writes a file and makes it durable. Only open and write may say that there is no room.
fn store(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all().expect("what was written is taken");
    Ok(())
}

/// Stores files of `len` bytes until there is no room. Answers the sums of what was taken.
fn fill(mount: &Mount, prefix: &str, len: usize) -> Vec<(String, String)> {
    let mut taken = Vec::new();
    loop {
        let name = format!("{prefix}{:04}", taken.len());
        let bytes = noise(taken.len() as u64, len);
        match store(&mount.path(&name), &bytes) {
            Ok(()) => taken.push((name, sha256(&bytes))),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
                // A name could be made, and not all of its bytes be written.
                let _ = fs::remove_file(mount.path(&name));
                return taken;
            }
        }
    }
}

#[test]
fn a_full_spool_says_so_at_open_or_write_and_then_removes_moves_and_drains() {
    const CAPS: [u64; 2] = [12 * MIB, 4 * MIB];
    let world = World::new(Server::Sim, "full");
    let disk = tmpfs(&world, 32 * MIB);
    let mut spec = world.spec();
    (spec.spool, spec.cache) = (disk.join("spool"), disk.join("cache"));
    let [spool, cache] = CAPS.map(|cap| cap.to_string());
    let spec = spec
        .with("spool_max", &spool)
        .with("cache_max", &cache)
        .with("disk_reserve", "1MiB")
        .with("linger", "0s");
    let mount = spec.mount();
    let watch = Watch::on(vec![spec.spool.clone(), spec.cache.clone()]);
    for (round, len) in [20_000, 1 << 20].into_iter().enumerate() {
        world.relay.silence();
        let prefix = format!("r{round}-");
        let mut taken = fill(&mount, &prefix, len);
        assert!(
            taken.len() as u64 * len as u64 > CAPS[0] / 2,
            "{}",
            taken.len()
        );
        let (gone, _) = taken.pop().unwrap();
        fs::remove_file(mount.path(&gone)).unwrap();
        let (moved, sum) = taken.pop().unwrap();
        let name = format!("{prefix}moved");
        fs::rename(mount.path(&moved), mount.path(&name)).unwrap();
        taken.push((name, sum));
        world.relay.open();
        mount.drain();
        for (name, sum) in &taken {
            assert_eq!(world.client.get(&world.key(name)).sha256, *sum, "{name}");
        }
        for name in [&gone, &moved] {
            assert!(!world.client.has(&world.key(name)), "{name}");
        }
        eventually("there is room again", SOON, || {
            store(&mount.path("after"), &noise(9, len)).ok()
        });
        mount.drain();
    }
    for (seen, cap) in watch.seen().into_iter().zip(CAPS) {
        assert!(0 < seen && seen <= cap, "{seen} of {cap}");
    }
}

#[test]
fn a_spool_that_was_full_at_a_kill_is_emptied_after_the_restart() {
    let world = World::new(Server::Sim, "full-kill");
    let disk = tmpfs(&world, 24 * MIB);
    let mut spec = world.spec();
    (spec.spool, spec.cache) = (disk.join("spool"), disk.join("cache"));
    let spec = spec
        .with("spool_max", "8MiB")
        .with("cache_max", "2MiB")
        .with("disk_reserve", "1MiB");
    let mount = spec.mount();
    world.relay.silence();
    let taken = fill(&mount, "f", 30_000);
    let spec = mount.kill();
    let mount = spec.mount();
    fs::remove_file(mount.path(&taken[0].0)).unwrap();
    world.relay.open();
    mount.drain();
    for (name, sum) in &taken[1..] {
        assert_eq!(world.client.get(&world.key(name)).sha256, *sum, "{name}");
    }
    assert!(!world.client.has(&world.key(&taken[0].0)));
}

#[test]
fn so_much_of_the_disk_stays_free_as_was_asked_for() {
    const RESERVE: u64 = 8 * MIB;
    let world = World::new(Server::Sim, "reserve");
    let disk = tmpfs(&world, 40 * MIB);
    let mut spec = world.spec();
    (spec.spool, spec.cache) = (disk.join("spool"), disk.join("cache"));
    let spec = spec
        .with("spool_max", "80MiB")
        .with("cache_max", "40MiB")
        .with("disk_reserve", &RESERVE.to_string());
    let mount = spec.mount();
    let free = || {
        let stat = nix::sys::statvfs::statvfs(&disk).unwrap();
        stat.blocks_available() * stat.fragment_size()
    };
    world.relay.silence();
    let taken = fill(&mount, "f", 1 << 20);
    assert!(taken.len() > 4, "{}", taken.len());
    assert!(free() >= RESERVE, "{}", free());
    // Names go all the same.
    for (name, _) in &taken[..2] {
        fs::remove_file(mount.path(name)).unwrap();
    }
    world.relay.open();
    mount.drain();
    assert!(free() >= RESERVE, "{}", free());
    // What was sent is in the cache now, and gives way.
    for (name, sum) in &taken[2..] {
        assert_eq!(sha256(&fs::read(mount.path(name)).unwrap()), *sum, "{name}");
    }
    assert!(free() >= RESERVE, "{}", free());
}
