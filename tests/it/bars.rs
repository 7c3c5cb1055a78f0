//! The exact bars: how many requests and bytes each thing may cost, counted at the socket of the
//! simulated cloud, and again by a relay that knows nothing of S3; and how much memory it may take.
//!
//! Each case runs on a warm connection: `Bench::new` has sent and read something before.

mod listing;
mod removing;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::harness::cloud::{Delta, Tally};
use crate::harness::relay::Wire;
use crate::harness::tree::sha256;
use crate::harness::{Mount, Server, World, eventually, long, noise, shell, try_shell};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// VmHWM.
const MEMORY_MAX: u64 = 64 * MIB;
/// The large file of the bars.
const LARGE: u64 = 256 * MIB;

/// A mount whose connection is warm, and the counters around it.
struct Bench {
    world: World,
    mount: Mount,
}

/// Both counters, and what they say came since an earlier reading.
type Reading = ((Tally, Wire), Cost);

/// What one case cost.
#[derive(Debug)]
struct Cost {
    cloud: Delta,
    wire: Wire,
}

impl Cost {
    fn up(&self) -> u64 {
        self.cloud.up
    }

    fn down(&self) -> u64 {
        self.cloud.down
    }

    /// Exactly these requests, by S3's names.
    fn is(&self, wanted: &[(&str, u64)]) {
        let wanted: std::collections::BTreeMap<_, _> = wanted
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        assert_eq!(self.cloud.operations, wanted, "{self:?}");
    }

    fn at_most(&self, requests: u64) {
        assert!(self.cloud.all_requests() <= requests, "{self:?}");
    }
}

impl Bench {
    fn new(name: &str) -> Self {
        Self::with(name, &[], |_| ())
    }

    /// `prepare` fills the bucket before it is mounted.
    fn with(name: &str, options: &[(&str, &str)], prepare: impl FnOnce(&World)) -> Self {
        let world = World::new(Server::Sim, name);
        prepare(&world);
        world.client.put(&world.key("warm/up"), b"w");
        let mut spec = world.spec();
        for (key, value) in options {
            spec = spec.with(key, value);
        }
        let bench = Self {
            mount: spec.mount(),
            world,
        };
        bench.warm_up();
        bench
    }

    fn warm_up(&self) {
        shell(self.mount.dir(), "cat warm/up; echo again > warm/up");
        self.mount.drain();
    }

    /// Counts what `work` and the drain after it cost; checks the memory.
    fn cost(&self, work: impl FnOnce(&Path)) -> Cost {
        let before = self.read_counters(None);
        work(self.mount.dir());
        self.mount.drain();
        let cost = self.read_counters(Some(&before)).1;
        self.check_memory();
        cost
    }

    /// Both counters, and what came since an earlier reading, once the one at the server's socket
    /// and the one on the way have seen the same bytes since then.
    fn read_counters(&self, earlier: Option<&Reading>) -> Reading {
        let what = "the server's counter and the relay's agree";
        eventually(what, Duration::from_secs(20), || {
            let (cloud, wire) = (self.world.cloud.counts(), self.world.relay.wire());
            let (first, from) =
                earlier.map_or((&cloud, wire), |earlier| (&earlier.0.0, earlier.0.1));
            let cost = Cost {
                cloud: cloud.since(first),
                wire: wire.since(from),
            };
            let agree = (cost.cloud.up, cost.cloud.down) == (cost.wire.up, cost.wire.down);
            agree.then_some(((cloud, wire), cost))
        })
    }

    fn check_memory(&self) {
        let peak = self.mount.peak_memory();
        assert!(peak <= MEMORY_MAX, "VmHWM {} KiB", peak / KIB);
    }

    /// The same device again, with its spool and cache; kernel pages gone.
    fn remount(self) -> Self {
        let bench = Self {
            mount: self.mount.unmount().mount(),
            world: self.world,
        };
        bench.warm_up();
        bench
    }
}

fn run(script: &str) -> impl FnOnce(&Path) {
    let script = script.to_owned();
    move |dir| {
        shell(dir, &script);
    }
}

/// Writes as `dd` does, and never holds it all.
fn write_large(path: &Path, seed: u64) {
    let block = noise(seed, 1 << 20);
    let mut file = fs::File::create(path).unwrap();
    for number in 0..LARGE / MIB {
        file.write_all(&number.to_le_bytes()).unwrap();
        file.write_all(&block[8..]).unwrap();
    }
    drop(file);
}

/// `cmp` reads both; the kernel's pages are no help.
fn same(dir: &Path, name: &str, other: &Path) {
    shell(dir, &format!("cmp '{name}' '{}'", other.display()));
}

#[test]
fn a_new_4_kib_file_in_a_listed_directory_is_one_put() {
    let bench = Bench::new("new");
    shell(bench.mount.dir(), "ls -l . warm");
    let cost = bench.cost(|dir| fs::write(dir.join("new"), noise(1, 4096)).unwrap());
    cost.is(&[("PutObject", 1)]);
    assert!(
        cost.up() < 4096 + 4 * KIB && cost.down() < 2 * KIB,
        "{cost:?}"
    );
    let cost = bench.cost(|dir| fs::write(dir.join("warm/new"), noise(2, 4096)).unwrap());
    cost.is(&[("PutObject", 1)]);
}

/// At most two requests, and 6 KB beyond the data.
fn never_listed(what: &str, cost: &Cost, data: u64) {
    assert!(cost.cloud.all_requests() <= 2, "{what}: {cost:?}");
    let beyond = (cost.up() + cost.down()).saturating_sub(data);
    assert!(
        beyond <= 6000,
        "{what}: {beyond} bytes beyond the data: {cost:?}"
    );
}

fn huge(name: &str, options: &[(&str, &str)]) -> Bench {
    let bench = Bench::with(name, options, |world| {
        world.cloud.load(&world.key("huge/n"), 100_000);
    });
    shell(bench.mount.dir(), "test -d huge");
    bench
}

#[test]
fn creating_in_an_unknown_directory_of_100_000_objects_never_lists_it() {
    let bench = huge("huge", &[]);
    let cost = bench.cost(|dir| fs::write(dir.join("huge/new"), noise(1, 4096)).unwrap());
    never_listed("create", &cost, 4096);
    never_listed("absent", &bench.cost(run("test ! -e huge/absent")), 0);
    never_listed("there", &bench.cost(run("test -e huge/n012345")), 0);
    let size = bench.world.client.get(&bench.world.key("huge/new")).size;
    assert_eq!(size, 4096);
}

#[test]
fn creating_where_all_that_was_known_has_expired_never_lists_it() {
    let bench = huge("expired", &[("ttl", "1s")]);
    for round in 0..3_u64 {
        std::thread::sleep(Duration::from_millis(1500));
        let name = format!("huge/new{round}");
        let cost = bench.cost(|dir| fs::write(dir.join(&name), noise(round, 4096)).unwrap());
        never_listed(&name, &cost, 4096);
        assert_eq!(bench.world.client.get(&bench.world.key(&name)).size, 4096);
    }
}

#[test]
fn a_file_now_and_then_into_a_listed_directory_of_10_000_is_one_put_each_and_no_question() {
    // For an hour a file a minute, each after the ttl: here the minute is shorter.
    let (ttl, pause) = match long() {
        false => ("100ms", Duration::from_millis(120)),
        true => ("10s", Duration::from_secs(11)),
    };
    let bench = Bench::with("camera", &[("ttl", ttl)], |world| {
        world.cloud.load(&world.key("huge/n"), 10_000);
    });
    let count = shell(bench.mount.dir(), "ls -f huge | wc -l");
    assert_eq!(count.trim(), "10002");
    let cost = bench.cost(|dir| {
        for number in 0..30_u64 {
            std::thread::sleep(pause);
            fs::write(dir.join(format!("huge/{number}.jpg")), noise(number, 4096)).unwrap();
        }
        let pause = pause.as_secs_f64();
        let script =
            format!("for i in $(seq 30 59); do sleep {pause}; echo $i > huge/$i.jpg; done");
        shell(dir, &script);
    });
    cost.is(&[("PutObject", 60)]);
    // Who looks is told what was made elsewhere all the same.
    bench
        .world
        .client
        .put(&bench.world.key("huge/theirs"), b"t");
    std::thread::sleep(pause);
    assert_eq!(fs::read(bench.mount.path("huge/theirs")).unwrap(), b"t");
}

#[test]
fn a_line_into_a_file_and_a_loop_into_a_file_are_one_put_each() {
    let bench = Bench::new("lines");
    shell(bench.mount.dir(), "ls -l");
    bench.cost(run("echo x > f")).is(&[("PutObject", 1)]);
    bench
        .cost(run("for i in $(seq 100); do date; done > g"))
        .is(&[("PutObject", 1)]);
    bench.cost(run("echo over > f")).is(&[("PutObject", 1)]);
}

#[test]
fn cp_of_1000_new_files_into_a_new_directory_is_1000_puts() {
    let bench = Bench::new("cp");
    let source = bench.world.local("many");
    for number in 0..1000_u64 {
        fs::write(source.join(number.to_string()), noise(number, 4096)).unwrap();
    }
    shell(bench.mount.dir(), "ls -l");
    let cost = bench.cost(|dir| {
        shell(dir, &format!("cp -r '{}' copied", source.display()));
    });
    assert!(cost.cloud.requests("PutObject") <= 1001, "{cost:?}");
    cost.at_most(1005);
    let objects = bench.world.client.keys(&bench.world.key("copied/"));
    assert_eq!(
        objects.iter().filter(|key| !key.ends_with('/')).count(),
        1000
    );
}

#[test]
fn what_did_not_last_is_not_sent_and_part_plus_rename_is_one_put() {
    let bench = Bench::with("temp", &[("linger", "60s")], |_| ());
    shell(bench.mount.dir(), "ls -l");
    bench
        .cost(run("echo x > t; rm t; mkdir d; echo y > d/f; rm -r d"))
        .is(&[]);
    bench
        .cost(run(
            "echo x > f.part; mv f.part f; chmod 640 f; touch -d @5 f",
        ))
        .is(&[("PutObject", 1)]);
    let seen = bench.world.client.get(&bench.world.key("f"));
    assert_eq!(
        (seen.body.as_slice(), seen.metadata["mtime"].as_str()),
        (&b"x\n"[..], "5")
    );
}

#[test]
fn ls_l_of_a_cold_directory_lists_and_heads_nothing() {
    let bench = Bench::with("ls", &[], |world| {
        world.cloud.load(&world.key("a/b/n"), 2500);
    });
    let depth = 3;
    let cost = bench.cost(|dir| {
        assert_eq!(shell(dir, "ls -l a/b | wc -l").trim(), "2501");
    });
    assert_eq!(cost.cloud.requests("HeadObject"), 0, "{cost:?}");
    assert!(
        cost.cloud.requests("ListObjectsV2") <= 3 + depth,
        "{cost:?}"
    );
    cost.at_most(3 + depth);
    bench
        .cost(run("ls -l a/b; stat a/b/n000007; find a/b -name '*99'"))
        .is(&[]);
    bench.cost(run("ls -l a")).is(&[("ListObjectsV2", 1)]);
    bench
        .cost(run("test ! -e a/b/absent; test ! -e a/nor-this"))
        .is(&[]);
}

#[test]
fn writing_256_mib_uploads_it_once_and_reading_it_back_downloads_nothing() {
    let bench = Bench::new("large");
    let plain = bench.world.local("plain").join("large");
    write_large(&plain, 5);
    shell(bench.mount.dir(), "ls -l");

    let cost = bench.cost(|dir| write_large(&dir.join("large"), 5));
    assert!(
        (LARGE..=LARGE / 100 * 101).contains(&cost.up()),
        "up {cost:?}"
    );
    assert_eq!(cost.cloud.requests("GetObject"), 0, "{cost:?}");
    let cost = bench.cost(|dir| same(dir, "large", &plain));
    assert_eq!((cost.down(), cost.cloud.all_requests()), (0, 0), "{cost:?}");

    // The kernel's pages are gone after a remount; ours are not.
    let bench = bench.remount();
    let cost = bench.cost(|dir| same(dir, "large", &plain));
    assert_eq!(cost.cloud.requests("GetObject"), 0, "{cost:?}");
    assert!(cost.down() < 8 * KIB, "{cost:?}");

    // Its attributes are known: this device wrote it.
    let cost = bench.cost(run("head -c 4096 /dev/urandom >> large"));
    append_is_small(&cost, 4);
    copy_and_compare(&bench, &plain);
}

fn append_is_small(cost: &Cost, requests: u64) {
    cost.at_most(requests);
    assert!(cost.up() < 16 * KIB && cost.down() < 8 * KIB, "{cost:?}");
}

/// `cp` of what is large, and its look from outside.
fn copy_and_compare(bench: &Bench, plain: &Path) {
    let cost = bench.cost(run("cp large copy"));
    cost.at_most(4);
    assert_eq!(cost.cloud.data_up, 0, "data was sent: {cost:?}");
    assert!(cost.up() + cost.down() < 16 * KIB, "{cost:?}");
    let (large, copy) = (
        bench.world.client.get(&bench.world.key("large")),
        bench.world.client.get(&bench.world.key("copy")),
    );
    assert_eq!((large.size, &large.sha256), (LARGE + 4096, &copy.sha256));
    shell(
        bench.mount.dir(),
        &format!("cmp -n {LARGE} copy '{}'", plain.display()),
    );
    bench.check_memory();
}

/// Fifty lines by fifty processes cost one upload of them: the file waits to grow, and `drain` (here),
/// a minute or a quarter more of it ends the wait.
#[test]
fn lines_appended_one_by_one_to_a_large_file_go_up_together() {
    let bench = Bench::with("lines", &[("append_max_age", "1h")], |world| {
        world.client.put(&world.key("d/log"), &noise(5, 6 << 20));
    });
    bench.cost(run("ls . d; echo first >> d/log"));
    let before = bench.world.cloud.counts();
    let cost = bench.cost(|dir| {
        let lines = "for i in $(seq 50); do echo 123456789 >> d/log; done; echo x > e";
        shell(dir, lines);
        // It was closed last: by now the lines would have been on their way.
        let puts = || {
            bench
                .world
                .cloud
                .counts()
                .since(&before)
                .requests("PutObject")
        };
        let has_other = || (puts() == 1).then_some(());
        eventually("the file beside it", Duration::from_secs(20), has_other);
    });
    cost.is(&[
        ("PutObject", 1),
        ("CreateMultipartUpload", 1),
        ("UploadPartCopy", 1),
        ("UploadPart", 1),
        ("CompleteMultipartUpload", 1),
    ]);
    assert_eq!(cost.cloud.data_up, 500 + 2, "{cost:?}");
    assert!(cost.up() + cost.down() < 20 * KIB, "{cost:?}");
    let log = bench.world.client.get(&bench.world.key("d/log"));
    let mut wanted = noise(5, 6 << 20);
    wanted.extend_from_slice(b"first\n");
    wanted.extend_from_slice(&b"123456789\n".repeat(50));
    assert_eq!(log.sha256, sha256(&wanted));
}

#[test]
fn a_foreign_256_mib_object_is_downloaded_once_and_appended_to_without_it() {
    let world_file = std::cell::RefCell::new(std::path::PathBuf::new());
    let bench = Bench::with("foreign", &[], |world| {
        let plain = world.local("plain").join("foreign");
        write_large(&plain, 6);
        world.client.put_file(&world.key("foreign"), &plain);
        world.client.put_file(&world.key("other"), &plain);
        *world_file.borrow_mut() = plain;
    });
    let plain = world_file.into_inner();
    shell(bench.mount.dir(), "ls -l");

    // Attributes unknown: a LIST does not carry them.
    let cost = bench.cost(run("head -c 4096 /dev/urandom >> other"));
    append_is_small(&cost, 5);
    // Known now, by the first append.
    let cost = bench.cost(run("head -c 4096 /dev/urandom >> other"));
    append_is_small(&cost, 4);
    let other = bench.world.client.head(&bench.world.key("other"));
    assert_eq!(other.size, LARGE + 8192);

    let cost = bench.cost(|dir| same(dir, "foreign", &plain));
    assert!(
        (LARGE..=LARGE / 100 * 101).contains(&cost.down()),
        "{cost:?}"
    );
    assert_eq!(cost.cloud.data_up, 0, "{cost:?}");
    let bench = bench.remount();
    let cost = bench.cost(|dir| same(dir, "foreign", &plain));
    assert_eq!(cost.cloud.data_down, 0, "{cost:?}");
    assert!(cost.down() < 8 * KIB, "{cost:?}");
}

#[test]
fn an_idle_mount_sends_nothing() {
    let bench = Bench::new("idle");
    shell(bench.mount.dir(), "ls -lR; echo x > f; cat f warm/up");
    bench.mount.drain();
    let idle = if long() {
        Duration::from_secs(600)
    } else {
        // Longer than the pool keeps a connection that nobody uses.
        Duration::from_secs(75)
    };
    let (cloud, wire) = (bench.world.cloud.counts(), bench.world.relay.wire());
    std::thread::sleep(idle);
    let cost = Cost {
        cloud: bench.world.cloud.counts().since(&cloud),
        wire: bench.world.relay.wire().since(wire),
    };
    assert_eq!(
        (cost.wire.up, cost.wire.down, cost.wire.connections),
        (0, 0, 0),
        "{cost:?}"
    );
    assert_eq!((cost.up(), cost.down()), (0, 0), "{cost:?}");
    assert_eq!(cost.cloud.issuer_bytes, 0, "Krypton was asked: {cost:?}");
    bench.check_memory();
}

#[test]
fn an_append_and_an_edit_of_a_small_file_are_one_put() {
    let bench = Bench::new("small");
    shell(bench.mount.dir(), "echo one > f");
    bench.mount.drain();
    bench.cost(run("echo two >> f")).is(&[("PutObject", 1)]);
    bench
        .cost(run(
            "printf X | dd of=f bs=1 seek=1 conv=notrunc status=none",
        ))
        .is(&[("PutObject", 1)]);
    assert_eq!(
        bench.world.client.get(&bench.world.key("f")).body,
        b"oXe\ntwo\n"
    );
}

#[test]
fn a_rename_of_a_sent_file_moves_no_data() {
    let bench = Bench::new("rename");
    let noise = noise(9, 1 << 20);
    fs::write(bench.mount.path("f"), &noise).unwrap();
    shell(bench.mount.dir(), "ls -l");
    bench.mount.drain();
    let cost = bench.cost(run("mv f g"));
    assert_eq!(
        (cost.cloud.data_up, cost.cloud.data_down),
        (0, 0),
        "{cost:?}"
    );
    // A copy that is published only if nobody else took the name, and the removal.
    cost.at_most(4);
    let gone = !bench.world.client.has(&bench.world.key("f"));
    let size = bench.world.client.head(&bench.world.key("g")).size;
    assert_eq!((gone, size), (true, 1 << 20));
}

#[test]
fn the_mount_answers_while_the_link_is_silent() {
    let bench = Bench::new("silent");
    shell(bench.mount.dir(), "ls -l; echo known > k; cat k");
    bench.mount.drain();
    bench.world.relay.silence();
    // Nothing of this waits for the network longer than stale_after (2 s) in all it asks once.
    let script =
        "timeout 10 bash -c 'ls -l; cat k; echo w > w; cat w; stat k; mkdir d; mv w d/w; rm k'";
    let output = try_shell(bench.mount.dir(), script);
    assert!(output.status.success(), "{output:?}");
    bench.world.relay.open();
    bench.mount.drain();
    eventually("the rename arrives", Duration::from_secs(60), || {
        bench
            .world
            .client
            .has(&bench.world.key("d/w"))
            .then_some(())
    });
    assert!(!bench.world.client.has(&bench.world.key("k")));
}
