//! A device's life in short: several writers do all that is done to files while the link and S3 fail
//! again and again, beside a model of what must be there. Here a few faults (about 10 s);
//! with `KRYPTONFS_LONG=1` twenty minutes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::cloud::Refusal;
use crate::harness::relay::Relay;
use crate::harness::tree::sha256;
use crate::harness::{Holder, Mount, Server, TestCloud, World, eventually, long, noise};

const MIB: u64 = 1 << 20;
const PEAK_MAX: u64 = 64 * MIB;
const SOON: Duration = Duration::from_secs(180);
const WRITERS: u64 = 4;
/// At least, and until the last of the faults.
const STEPS: u64 = 100;
const TURNS: u64 = 6;
/// Between two steps: more than this a narrow link never carries.
const PAUSE: Duration = Duration::from_millis(40);
const LONG: Duration = Duration::from_secs(20 * 60);
/// What a mount may have open more than when it had just begun, however long it runs: 64 versions in the
/// cache (two each), 64 data files, connections.
const DESCRIPTORS: usize = 128 + 64 + 16;

/// What one writer did in its directory, and what must be there by now.
struct Writer {
    top: PathBuf,
    /// The directory its files are in, which changes its name.
    inner: u64,
    random: u64,
    files: BTreeMap<String, Vec<u8>>,
}

impl Writer {
    fn new(mount: &Path, number: u64) -> Self {
        let this = Self {
            top: mount.join(format!("w{number}")),
            inner: 0,
            random: number * 7919 + 1,
            files: BTreeMap::new(),
        };
        fs::create_dir_all(this.dir()).unwrap();
        this
    }

    fn dir(&self) -> PathBuf {
        self.top.join(format!("d{}", self.inner))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    /// A name that is in use, if one is; else any.
    fn known(&mut self) -> String {
        let at = usize::try_from(self.below(self.files.len().max(1) as u64)).unwrap();
        let known = self.files.keys().nth(at).cloned();
        known.unwrap_or_else(|| "f0".into())
    }

    fn noise(&mut self, most: u64) -> Vec<u8> {
        let len = usize::try_from(self.below(most)).unwrap();
        noise(self.random, len)
    }

    fn step(&mut self) {
        match self.below(20) {
            0..6 => {
                let (name, bytes) = (format!("f{}", self.below(24)), self.noise(200_000));
                fs::write(self.dir().join(&name), &bytes).unwrap();
                self.files.insert(name, bytes);
            }
            6 if self.below(4) == 0 => {
                let bytes = self.noise(12 * MIB);
                fs::write(self.dir().join("large"), &bytes).unwrap();
                self.files.insert("large".into(), bytes);
            }
            6..9 => self.append(),
            9..11 => self.write_within(),
            11 => self.truncate(),
            12 | 13 => self.rename(),
            14 => {
                let name = self.known();
                if self.files.remove(&name).is_some() {
                    fs::remove_file(self.dir().join(&name)).unwrap();
                }
            }
            15 if self.below(4) == 0 => {
                let before = self.dir();
                self.inner += 1;
                fs::rename(before, self.dir()).unwrap();
            }
            _ => {
                let name = self.known();
                self.check(&name);
            }
        }
    }

    fn append(&mut self) {
        let (name, bytes) = (self.known(), self.noise(20_000));
        let path = self.dir().join(&name);
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.unwrap().write_all(&bytes).unwrap();
        self.files.entry(name).or_default().extend(bytes);
    }

    fn write_within(&mut self) {
        let (name, bytes) = (self.known(), self.noise(30_000));
        let Some(len) = self.files.get(&name).map(Vec::len) else {
            return;
        };
        let at = usize::try_from(self.below(len as u64 + 1)).unwrap();
        let path = self.dir().join(&name);
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&bytes, at as u64).unwrap();
        drop(file);
        let known = self.files.entry(name).or_default();
        known.resize(len.max(at + bytes.len()), 0);
        known[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    fn truncate(&mut self) {
        let (name, len) = (self.known(), self.below(250_000));
        if let Some(known) = self.files.get_mut(&name) {
            known.resize(usize::try_from(len).unwrap(), 0);
            let path = self.dir().join(&name);
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(len).unwrap();
        }
    }

    fn rename(&mut self) {
        let (from, to) = (self.known(), format!("f{}", self.below(24)));
        if let Some(bytes) = self.files.remove(&from) {
            let dir = self.dir();
            fs::rename(dir.join(&from), dir.join(&to)).unwrap();
            self.files.insert(to, bytes);
        }
    }

    /// The link may just be down, and the file not in the cache; or its object is just being moved: that
    /// is an error, and no mismatch.
    fn check(&self, name: &str) {
        let path = self.dir().join(name);
        let read = eventually("it can be read", SOON, || match fs::read(&path) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::ESTALE)) => {
                println!("{}: {error}", path.display());
                None
            }
            read => Some(read),
        });
        match self.files.get(name) {
            Some(known) => assert!(read.unwrap() == *known, "{} differs", path.display()),
            None => assert!(read.is_err(), "{} is there", path.display()),
        }
    }
}

/// The link falls silent, breaks, S3 is busy or slow, in turn; `over` when that was often enough.
fn fail_now_and_then(relay: &Relay, cloud: &TestCloud, over: &AtomicBool) {
    let begun = Instant::now();
    let nap = |millis| thread::sleep(Duration::from_millis(millis));
    for turn in 1.. {
        match turn % 4 {
            0 => {
                relay.silence();
                nap(1500);
            }
            1 => {
                relay.refuse();
                nap(300);
            }
            2 => {
                for operation in ["PutObject", "UploadPart", "CompleteMultipartUpload"] {
                    cloud.refuse(operation, 503, "SlowDown", Refusal::Times(3));
                }
            }
            _ => cloud.delay("PutObject", Duration::from_millis(200)),
        }
        relay.open();
        nap(700);
        cloud.clear_faults();
        if turn >= TURNS && !(long() && begun.elapsed() < LONG) {
            return over.store(true, Ordering::Relaxed);
        }
    }
}

fn descriptors(mount: &Mount) -> usize {
    let dir = format!("/proc/{}/fd", mount.pid());
    fs::read_dir(dir).unwrap().count()
}

/// What must be in the bucket of all the writers' files.
fn all_is_there(world: &World, writers: &[Writer]) {
    let mut wanted = BTreeMap::new();
    for writer in writers {
        let top = writer.top.file_name().unwrap().to_str().unwrap();
        for (name, bytes) in &writer.files {
            let name = format!("{top}/d{}/{name}", writer.inner);
            wanted.insert(world.key(&name), sha256(bytes));
        }
    }
    let objects = world.client.tree(&world.key("w")).into_iter();
    let files = objects.filter(|object| !object.key.ends_with('/'));
    let there: BTreeMap<_, _> = files.map(|object| (object.key, object.sha256)).collect();
    assert!(
        there == wanted,
        "the bucket has other objects: {there:?} {wanted:?}"
    );
}

#[test]
fn a_mixed_load_with_faults_mismatches_nothing_and_stays_small() {
    let world = World::new(Server::Sim, "soak");
    let spec = world.spec().with("linger", "0s").with("part_size", "5MiB");
    let mount = spec.with("cache_max", "16MiB").mount();
    let mut writers: Vec<_> = (0..WRITERS).map(|n| Writer::new(mount.dir(), n)).collect();
    mount.drain();
    let (begun, at_first) = (Instant::now(), descriptors(&mount));
    let over = AtomicBool::new(false);
    let (relay, cloud) = (&world.relay, &world.cloud);
    thread::scope(|scope| {
        scope.spawn(|| fail_now_and_then(relay, cloud, &over));
        let busy = writers.iter_mut().map(|writer| {
            scope.spawn(|| {
                let mut steps = 0;
                while steps < STEPS || !over.load(Ordering::Relaxed) {
                    writer.step();
                    thread::sleep(PAUSE);
                    steps += 1;
                }
                steps
            })
        });
        let busy: Vec<_> = busy.collect();
        let steps: Vec<_> = busy.into_iter().map(|thread| thread.join()).collect();
        let steps: u64 = steps.into_iter().map(Result::unwrap).sum();
        println!("{steps} steps in {} s", begun.elapsed().as_secs());
    });
    mount.drain();
    for writer in &writers {
        for number in 0..24 {
            writer.check(&format!("f{number}"));
        }
        writer.check("large");
    }
    all_is_there(&world, &writers);
    let (peak, now) = (mount.peak_memory(), descriptors(&mount));
    println!(
        "VmHWM {} KiB, descriptors {at_first}, then {now}",
        peak >> 10
    );
    assert!(peak <= PEAK_MAX, "VmHWM {peak}");
    eventually("descriptors are given back", SOON, || {
        (descriptors(&mount) <= at_first + DESCRIPTORS).then_some(())
    });
    let status = mount.status_json();
    for list in ["refused", "conflicts", "partials", "set_aside"] {
        assert_eq!(status[list], serde_json::json!([]), "{list}: {status}");
    }
}

#[test]
fn sixty_four_writers_at_once_write_what_they_mean() {
    let world = World::new(Server::Sim, "writers");
    let mount = world.spec().with("linger", "0s").mount();
    let body = |number: u64| noise(number + 1, 150_000);
    thread::scope(|scope| {
        for number in 0..64 {
            let path = mount.path(&format!("w{number}"));
            scope.spawn(move || {
                let mut file = File::create(&path).unwrap();
                for piece in body(number).chunks(10_000) {
                    file.write_all(piece).unwrap();
                }
                drop(file);
                assert!(fs::read(&path).unwrap() == body(number), "{number}");
            });
        }
    });
    mount.drain();
    let there = world.client.tree(&world.key("w"));
    assert_eq!(there.len(), 64);
    for object in there {
        let number = object.key.rsplit('w').next().unwrap().parse().unwrap();
        assert_eq!(object.sha256, sha256(&body(number)), "{number}");
    }
    let peak = mount.peak_memory();
    assert!(peak <= PEAK_MAX, "VmHWM {peak}");
}

#[test]
fn ten_thousand_files_are_open_at_once_and_each_reads_its_own() {
    let world = World::new(Server::Sim, "open");
    for number in 0..100 {
        let body = format!("file {number}");
        world
            .client
            .put(&world.key(&format!("f{number}")), body.as_bytes());
    }
    let mount = world.spec().mount();
    let at_first = descriptors(&mount);
    let mut holder = Holder::new(mount.dir());
    holder.run("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (11_000, 11_000))");
    holder.run("files = [os.open(f'f{n % 100}', os.O_RDONLY) for n in range(10_000)]");
    holder.run("wrong = [n for n, fd in enumerate(files) if os.pread(fd, 99, 0) != f'file {n % 100}'.encode()]");
    holder.run("assert_none = {} if not wrong else os.open('/wrong', os.O_RDONLY)");
    // And there is room for more.
    holder.write("new", "new", "written meanwhile");
    let peak = mount.peak_memory();
    println!(
        "VmHWM {} KiB, descriptors {} then {}",
        peak >> 10,
        at_first,
        descriptors(&mount)
    );
    assert!(peak <= PEAK_MAX, "VmHWM {peak}");
    holder.run("new.close(); [os.close(fd) for fd in files]");
    mount.drain();
    assert_eq!(
        world.client.get(&world.key("new")).body,
        b"written meanwhile"
    );
    eventually("descriptors are given back", SOON, || {
        (descriptors(&mount) <= at_first + DESCRIPTORS).then_some(())
    });
}
