//! Files that nobody closes, through a real mount. Their writers are processes of their own
//! (`harness/holder.rs` says why).

use std::fs;
use std::time::Duration;

use crate::harness::{Holder, Server, World, eventually};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn bytes_of_a_killed_mount_that_were_never_closed_are_listed_and_never_published() {
    let world = World::new(Server::Sim, "unclosed");
    let mount = world.spec().mount();
    let mut writer = Holder::new(mount.dir());
    writer.write("large", "large", "");
    writer.run("large.write(b'l' * 100_000)");
    writer.write("small", "small", "a line");
    writer.write("synced", "synced", "said and kept");
    writer.run("os.fsync(synced.fileno()); synced.write(b', but this not' * 5_000)");
    // The small one leaves memory when nobody writes for a while.
    eventually("the small one is written out", SOON, || {
        let data = fs::read_dir(own(&world)).unwrap();
        let mut found = false;
        for file in data.flatten() {
            found |= fs::read(file.path()).is_ok_and(|bytes| bytes == b"a line");
        }
        found.then_some(())
    });
    let spec = mount.kill();
    drop(writer);
    let mount = spec.mount();
    mount.drain();
    let status = mount.status();
    for told in ["large (97.6 KiB)", "small (6 B)", "synced (68.3 KiB)"] {
        assert!(status.contains(told), "{told} is not in {status}");
    }
    assert!(!world.client.has(&world.key("large")) && !world.client.has(&world.key("small")));
    let seen = world.client.get(&world.key("synced"));
    assert_eq!(seen.body, b"said and kept");
    assert!(!mount.path("large").exists() && !mount.path("small").exists());
}

/// The folder of the data files, below `spool_dir`.
fn own(world: &World) -> std::path::PathBuf {
    let spool = world.spec().spool;
    let entries = fs::read_dir(&spool).unwrap().flatten();
    let all = entries.map(|entry| entry.path().join("data"));
    let found: Vec<_> = all.filter(|data| data.is_dir()).collect();
    assert_eq!(found.len(), 1, "one spool");
    found[0].clone()
}

/// `{ a; b; } > f`: every command closes `f` at its end; only the shell's close is the writer's.
#[test]
fn a_crash_between_two_commands_of_a_redirected_group_publishes_no_half_of_it() {
    let world = World::new(Server::Sim, "group");
    let mount = world.spec().mount();
    let mut shell = Holder::new(mount.dir());
    shell.write("file", "report", "");
    shell.run("import subprocess; subprocess.run(['echo', 'first half'], stdout=file, check=True)");
    let spec = mount.kill();
    drop(shell);
    let mount = spec.mount();
    mount.drain();
    assert!(!world.client.has(&world.key("report")));
    let status = mount.status();
    assert!(status.contains("report (11 B)"), "{status}");
    // Without a crash it is one file, published once it is closed.
    let script = "{ echo first; echo second | cat; } > whole";
    crate::harness::shell(mount.dir(), script);
    mount.drain();
    assert_eq!(
        world.client.get(&world.key("whole")).body,
        b"first\nsecond\n"
    );
}

#[test]
fn a_log_that_is_never_closed_is_uploaded_every_upload_open() {
    let world = World::new(Server::Sim, "logger");
    let spec = world.spec().with("upload_open", "2s").with("linger", "0s");
    let mount = spec.mount();
    let mut logger = Holder::new(mount.dir());
    logger.write("log", "log", "one\n");
    let in_bucket = |wanted: &[u8]| {
        let key = world.key("log");
        (world.client.has(&key) && world.client.get(&key).body == wanted).then_some(())
    };
    eventually("the first line", SOON, || in_bucket(b"one\n"));
    logger.run("log.write(b'two\\n')");
    eventually("the second line", SOON, || in_bucket(b"one\ntwo\n"));
    logger.run("os.fsync(log.fileno()); log.write(b'three\\n'); log.close()");
    mount.drain();
    assert_eq!(
        world.client.get(&world.key("log")).body,
        b"one\ntwo\nthree\n"
    );
}

/// The writer counts up in the first block, then in the second, in place: at any moment they are
/// alike, or the first is one ahead.
#[test]
fn what_is_uploaded_of_a_file_that_is_rewritten_in_place_is_of_one_moment() {
    const SECOND: usize = 40_960;
    let world = World::new(Server::Sim, "moment");
    let spec = world.spec().with("upload_open", "1s").with("linger", "0s");
    let mount = spec.mount();
    let mut writer = Holder::new(mount.dir());
    writer.run("import threading; db = open('db', 'wb', buffering=0); go = True");
    writer.run(
        "exec('def work():\\n n = 0\\n while go:\\n  n += 1\\n  for at in (0, 40960):\\n   \
         os.pwrite(db.fileno(), b\"%08d\" % n, at)')",
    );
    writer.run("thread = threading.Thread(target=work); thread.start()");
    let mut seen = std::collections::BTreeSet::new();
    let key = world.key("db");
    eventually("three snapshots", 5 * SOON, || {
        if world.client.has(&key) {
            let body = world.client.get(&key).body;
            let count = |at: usize| {
                let digits = body
                    .get(at..at + 8)
                    .map_or("0".into(), String::from_utf8_lossy);
                digits.parse::<u64>().unwrap()
            };
            let (first, second) = (count(0), count(SECOND));
            assert!(first == second || first == second + 1, "{first} {second}");
            seen.insert(first);
        }
        (seen.len() >= 3).then_some(())
    });
    writer.run("go = False; thread.join(); db.close()");
}
