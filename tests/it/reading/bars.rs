//! What reading may cost, counted at the simulated cloud's socket.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::cloud::Delta;
use crate::harness::{Mount, Server, World, eventually, long, noise, shell};

const MIB: u64 = 1 << 20;
/// What is fetched, kept and checked as one.
const BLOCK: u64 = 32 << 10;
/// Beside a block: the answer's headers and TLS.
const AROUND: u64 = 2 << 10;

/// What `work` cost, once nothing is fetched any more.
fn cost(world: &World, work: impl FnOnce()) -> Delta {
    let before = world.cloud.counts();
    work();
    let mut last = world.cloud.counts().since(&before).down;
    let what = "what is fetched ahead has come";
    eventually(what, Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(300));
        let now = world.cloud.counts().since(&before).down;
        let is_quiet = now == last;
        last = now;
        is_quiet.then_some(())
    });
    world.cloud.counts().since(&before)
}

/// An object `foreign` that nobody here wrote, and the same as a plain file.
fn foreign(world: &World, size: u64) -> PathBuf {
    let plain = world.local("plain").join("foreign");
    let block = noise(6, 1 << 20);
    let mut file = fs::File::create(&plain).unwrap();
    for number in 0..size / MIB {
        file.write_all(&number.to_le_bytes()).unwrap();
        file.write_all(&block[8..]).unwrap();
    }
    world.client.put_file(&world.key("foreign"), &plain);
    plain
}

/// Reads 4 KiB at each of `offsets`, and compares.
fn read_at(dir: &Path, plain: &Path, offsets: impl Iterator<Item = u64>) {
    let mut file = fs::File::open(dir.join("foreign")).unwrap();
    let mut right = fs::File::open(plain).unwrap();
    let (mut found, mut wanted) = ([0; 4096], [0; 4096]);
    for offset in offsets {
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.read_exact(&mut found).unwrap();
        right.seek(SeekFrom::Start(offset)).unwrap();
        right.read_exact(&mut wanted).unwrap();
        assert!(found == wanted, "at {offset}");
    }
}

#[test]
fn a_random_read_of_4_kib_fetches_at_most_32_kib_with_and_without_prefetch() {
    let world = World::new(Server::Sim, "random");
    let size = if long() { 1024 * MIB } else { 256 * MIB };
    let plain = foreign(&world, size);
    for prefetch in ["on", "off"] {
        let mut spec = world.spec().with("prefetch", prefetch);
        spec.cache = world.work.path().join(format!("cache-{prefetch}"));
        let mount = spec.mount();
        shell(mount.dir(), "ls -l");
        let reads = 500;
        // Through the whole file, no two beside each other.
        let pages = size / 4096;
        let offsets = (1..=reads).map(|n| n * 40_503 % pages * 4096);
        let cost = cost(&world, || read_at(mount.dir(), &plain, offsets));
        assert!(cost.data_down <= reads * BLOCK, "{prefetch}: {cost:?}");
        let around = reads * (BLOCK + AROUND);
        assert!(cost.down <= around, "{prefetch}: {cost:?}");
        assert!(cost.requests("GetObject") <= reads, "{prefetch}: {cost:?}");
        mount.unmount();
    }
}

#[test]
fn without_prefetch_only_the_blocks_that_were_asked_for_are_fetched() {
    let world = World::new(Server::Sim, "noahead");
    world.client.put(&world.key("foreign"), &noise(3, 4 << 20));
    let mount = world.spec().with("prefetch", "off").mount();
    shell(mount.dir(), "ls -l");
    // The kernel reads ahead too, unless it is told not to.
    let script = "import os
f = os.open('foreign', os.O_RDONLY)
os.posix_fadvise(f, 0, 0, os.POSIX_FADV_RANDOM)
for n in range(64): os.pread(f, 4096, n * 4096)";
    let run = || {
        let mut python = Command::new("python3");
        let done = python.args(["-c", script]).current_dir(mount.dir());
        assert!(done.status().unwrap().success());
    };
    let cost = cost(&world, run);
    let asked = 64 * 4096;
    assert_eq!(cost.data_down, asked, "64 pages in sequence: {cost:?}");
}

#[test]
fn a_cached_file_is_read_again_after_a_remount_without_a_byte_of_data() {
    let world = World::new(Server::Sim, "reread");
    foreign(&world, if long() { 1024 * MIB } else { 64 * MIB });
    let mount = world.spec().with("cache_max", "2GiB").mount();
    let read = |mount: &Mount| shell(mount.dir(), "sha256sum < foreign");
    let first = read(&mount);
    let mount = mount.unmount().mount();
    let mut second = String::new();
    let cost = cost(&world, || second = read(&mount));
    assert_eq!(first, second);
    let data = (cost.data_down, cost.requests("GetObject"));
    assert_eq!(data, (0, 0), "{cost:?}");
}

#[test]
fn a_thousand_cached_small_files_are_read_again_for_a_listing() {
    let world = World::new(Server::Sim, "many");
    world.cloud.load(&world.key("many/n"), 1000);
    let mount = world.spec().with("ttl", "1h").mount();
    let sum = |mount: &Mount| shell(mount.dir(), "cat many/* | sha256sum");
    let mut before = String::new();
    let cold = cost(&world, || before = sum(&mount));
    assert_eq!(cold.requests("GetObject"), 1000, "{cold:?}");
    assert_eq!(cold.requests("HeadObject"), 0, "{cold:?}");
    assert!(cold.all_requests() <= 1000 + 3, "{cold:?}");
    // Nothing that was known of the bucket is trusted after a restart: as past the ttl.
    let mount = mount.unmount().mount();
    let mut after = String::new();
    let again = cost(&world, || after = sum(&mount));
    assert_eq!(before, after);
    let depth = 2;
    assert!(again.all_requests() <= 1 + depth, "{again:?}");
    assert_eq!(again.data_down, 0, "{again:?}");
}

#[test]
fn those_who_read_small_files_in_parallel_have_eight_requests_in_flight_at_least() {
    let world = World::new(Server::Sim, "parallel");
    world.cloud.load(&world.key("many/n"), 16);
    let mount = world.spec().with("ttl", "1h").mount();
    shell(mount.dir(), "ls many");
    world.cloud.delay("GetObject", Duration::from_secs(300));
    let before = world.cloud.counts();
    let cat = |number: usize| {
        let mut cat = Command::new("cat");
        let path = mount.path(&format!("many/n{number:06}"));
        let cat = cat.arg(path).stdout(Stdio::null()).stderr(Stdio::null());
        cat.spawn().unwrap()
    };
    let readers: Vec<Child> = (0..16).map(cat).collect();
    let what = "eight requests, of which none is answered";
    let delta = eventually(what, Duration::from_secs(20), || {
        let delta = world.cloud.counts().since(&before);
        (delta.requests("GetObject") >= 8).then_some(delta)
    });
    assert_eq!(delta.data_down, 0, "{delta:?}");
    drop(mount.kill());
    for mut reader in readers {
        assert!(!reader.wait().unwrap().success());
    }
    world.cloud.clear_faults();
}
