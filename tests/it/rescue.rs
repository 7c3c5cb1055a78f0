//! What is in a spool is seen and rescued where there is no mount: the daemon is killed, and the
//! real binary looks at the folder it left.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::harness::cloud::Refusal;
use crate::harness::mount::{BINARY, Spec, detach};
use crate::harness::tree::sha256;
use crate::harness::{Holder, Mount, Server, World, eventually, noise, shell};

const SOON: Duration = Duration::from_secs(120);

/// Runs the binary; exit code, stdout and stderr.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output: Output = Command::new("timeout")
        .args(["-k", "1", "120", BINARY])
        .args(args)
        .output()
        .expect("timeout is there");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Runs it; stdout, if it ends well.
fn told(args: &[&str]) -> String {
    let (code, stdout, stderr) = run(args);
    assert_eq!(code, Some(0), "{args:?}: {stdout}{stderr}");
    stdout
}

/// Every file below `dir`: its bytes, mode, and when it was changed.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32, i64, i64)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let bytes = if meta.is_dir() {
            all.extend(snapshot(&path));
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        let seen = (bytes, meta.mode(), meta.ctime(), meta.ctime_nsec());
        all.insert(path, seen);
    }
    all
}

/// Kills the daemon and takes away what it left mounted.
fn killed(mount: Mount, holder: Holder) -> Spec {
    let spec = mount.kill();
    drop(holder);
    detach(&spec.dir);
    spec
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn read(path: PathBuf) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is told of the spool that the test below makes.
fn tells_all(spool: &str, source: &str) {
    let status = told(&["status", spool]);
    for part in ["not mounted", source, "d/log (97.6 KiB)", "at least"] {
        assert!(status.contains(part), "{part} is not in {status}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&told(&["status", "--json", spool])).unwrap();
    assert_eq!(json["unmounted"], true);
    let bytes = 200_000 + 5 + 7 + 9;
    assert_eq!(json["pending_bytes"], bytes, "{json}");
    assert_eq!(json["partials"][0]["bytes"], 100_000, "{json}");
    assert_eq!(
        run(&["status", "-q", spool]).0,
        Some(2),
        "somebody has to look"
    );
}

fn has_the_attributes(to: &Path) {
    let meta = fs::metadata(to.join("d/large")).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o640);
    assert_eq!(
        (meta.mtime(), meta.mtime_nsec()),
        (1_577_934_245, 500_000_000)
    );
    let mode = fs::metadata(to.join("d")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o750);
    let link = fs::read_link(to.join("link")).unwrap();
    assert_eq!(link, Path::new("d/large"));
}

/// What was built on the bucket: our bytes at their place, and a word about the rest, which is
/// answered.
fn ranges_of_base(to: &Path) -> serde_json::Value {
    assert!(!to.join("base").exists());
    let ranges = read(to.join("base.ranges"));
    assert_eq!(ranges.len(), 300_009);
    assert_eq!(&ranges[300_000..], b" and more");
    assert!(ranges[..300_000].iter().all(|byte| *byte == 0));
    let manifest: serde_json::Value =
        serde_json::from_slice(&read(to.join("base.ranges.json"))).unwrap();
    let [theirs, ours] = &manifest["ranges"].as_array().unwrap()[..] else {
        panic!("{manifest}")
    };
    assert_eq!(
        (&theirs["from"], &theirs["len"]),
        (&"bucket".into(), &300_000.into())
    );
    assert_eq!(
        (&ours["from"], &ours["at"]),
        (&"here".into(), &300_000.into())
    );
    manifest
}

#[test]
fn what_a_killed_daemon_left_is_told_and_exported_from_its_spool_which_stays_as_it_is() {
    let world = World::new(Server::Sim, "rescue");
    let (base, large) = (noise(1, 300_000), noise(2, 200_000));
    world.client.put(&world.key("base"), &base);
    let mount = world.spec().with("linger", "1h").mount();
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/large"), &large).unwrap();
    shell(
        mount.dir(),
        "printf small > small; chmod 640 d/large; touch -d '2020-01-02 03:04:05.5 UTC' d/large; \
         ln -s d/large link; printf ' and more' >> base; chmod 750 d",
    );
    let mut holder = Holder::new(mount.dir());
    holder.write("log", "d/log", "");
    holder.run("log.write(b'l' * 100_000)");
    let spec = killed(mount, holder);
    let spool = shown(&spec.spool);

    let before = snapshot(&spec.spool);
    tells_all(spool, &spec.source);
    let to = world.work.path().join("out");
    let wrote = told(&["export", spool, shown(&to)]);
    assert_eq!(read(to.join("small")), b"small");
    assert_eq!(read(to.join("d/large")), large);
    has_the_attributes(&to);
    let partial = only(&to.join("d"), "log.partial-");
    assert_eq!(read(partial), [b'l'; 100_000]);

    let manifest = ranges_of_base(&to);
    assert_eq!(manifest["bucket"], world.access.bucket.as_str());
    assert!(wrote.contains("base.ranges.json"), "{wrote}");
    assert_eq!(
        snapshot(&spec.spool),
        before,
        "nothing in the spool was touched"
    );

    // Again: all is there. Where something else is, it stays.
    assert!(told(&["export", spool, shown(&to)]).contains("there already"));
    fs::write(to.join("small"), "mine").unwrap();
    let (code, _, stderr) = run(&["export", spool, shown(&to)]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("small: something else is there"),
        "{stderr}"
    );
    assert_eq!(read(to.join("small")), b"mine");
    // One entry.
    let one = world.work.path().join("one");
    told(&["export", spool, shown(&one), "d/large"]);
    assert_eq!(read(one.join("d/large")), large);
    assert_eq!(fs::read_dir(&one).unwrap().count(), 1);
    let (code, _, stderr) = run(&["export", spool, shown(&one), "d/lar"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(snapshot(&spec.spool), before);

    // The spool is as good as before.
    let mount = spec.with("linger", "0s").mount();
    mount.drain();
    let appended = [&base[..], b" and more"].concat();
    for (name, bytes) in [("d/large", large), ("base", appended)] {
        assert_eq!(world.client.get(&world.key(name)).sha256, sha256(&bytes));
    }
}

/// The one entry of `dir` whose name begins so.
fn only(dir: &Path, prefix: &str) -> PathBuf {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut found = names.filter(|entry| entry.file_name().to_str().unwrap().starts_with(prefix));
    let one = found.next().expect(prefix).path();
    assert!(found.next().is_none(), "more than one {prefix}");
    one
}

#[test]
fn export_remove_lets_go_of_what_was_never_closed_and_of_nothing_else() {
    let world = World::new(Server::Sim, "remove");
    let mount = world.spec().with("linger", "1h").mount();
    fs::write(mount.path("closed"), "closed").unwrap();
    let mut holder = Holder::new(mount.dir());
    holder.write("synced", "synced", "kept");
    holder.run(
        "synced.write(b'k' * 90_000); os.fsync(synced.fileno()); synced.write(b'lost' * 9_000)",
    );
    let spec = killed(mount, holder);
    let spool = shown(&spec.spool);
    let to = world.work.path().join("out");
    let said = told(&["export", "--remove", spool, shown(&to)]);
    assert!(said.contains("1 removed"), "{said}");
    assert_eq!(
        read(only(&to, "synced.partial-")).len(),
        4 + 90_000 + 36_000
    );
    assert_eq!(run(&["status", "-q", spool]).0, Some(1), "the rest waits");

    // What is mounted lets go of it by its daemon.
    let mount = spec.mount();
    assert!(!mount.status().contains("partial"), "{}", mount.status());
    let mut holder = Holder::new(mount.dir());
    holder.write("open", "open", "");
    holder.run("open.write(b'o' * 50_000)");
    let mount = killed(mount, holder).mount();
    assert!(
        mount.status().contains("open (48.8 KiB)"),
        "{}",
        mount.status()
    );
    let said = told(&["export", shown(mount.dir()), shown(&to), "open", "--remove"]);
    assert!(said.contains("1 removed"), "{said}");
    assert_eq!(read(only(&to, "open.partial-")), [b'o'; 50_000]);
    assert!(!mount.status().contains("partial"), "{}", mount.status());
    mount.drain();
    assert_eq!(world.client.get(&world.key("closed")).body, b"closed");
    let synced = [&b"kept"[..], &[b'k'; 90_000]].concat();
    let seen = world.client.get(&world.key("synced"));
    assert_eq!(seen.sha256, sha256(&synced));
}

#[test]
fn the_status_of_a_spool_that_is_mounted_is_its_daemons() {
    let world = World::new(Server::Sim, "mounted");
    let mount = world.spec().with("linger", "1h").mount();
    fs::write(mount.path("f"), "text").unwrap();
    let spec = mount.spec().clone();
    let status = told(&["status", shown(&spec.spool)]);
    assert!(status.contains(shown(mount.dir())), "{status}");
    assert!(status.contains("being sent"), "{status}");
    let to = world.work.path().join("out");
    told(&["export", shown(mount.dir()), shown(&to)]);
    assert_eq!(read(to.join("f")), b"text");
    let (code, _, stderr) = run(&["status", shown(world.work.path())]);
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
}

#[test]
fn what_s3_refused_is_tried_again_when_somebody_says_so_with_and_without_a_mount() {
    let world = World::new(Server::Sim, "retry");
    let refuse = || {
        let cloud = &world.cloud;
        cloud.refuse("PutObject", 403, "AccessDenied", Refusal::Always);
    };
    let refused = |mount: &Mount| {
        eventually("it is refused", SOON, || {
            let refused = mount.status_json()["refused"].clone();
            (refused.as_array().unwrap().len() == 1).then_some(())
        });
    };
    let mount = world.spec().with("linger", "0s").mount();
    refuse();
    fs::write(mount.path("f"), "text").unwrap();
    refused(&mount);
    world.cloud.clear_faults();
    let said = told(&["retry", shown(mount.dir())]);
    assert!(said.starts_with("1 refused change "), "{said}");
    mount.drain();
    assert_eq!(world.client.get(&world.key("f")).body, b"text");

    refuse();
    fs::write(mount.path("g"), "more").unwrap();
    refused(&mount);
    let spec = mount.unmount();
    world.cloud.clear_faults();
    let spool = shown(&spec.spool);
    assert!(told(&["status", spool]).contains("refused     g: access denied"));
    assert!(told(&["retry", spool]).starts_with("1 refused change "));
    assert!(told(&["retry", spool]).starts_with("0 refused changes "));
    assert_eq!(run(&["status", "-q", spool]).0, Some(1));
    let mount = spec.mount();
    mount.drain();
    assert_eq!(world.client.get(&world.key("g")).body, b"more");
}
