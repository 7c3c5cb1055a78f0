//! A mount as a service: what systemd is told, what signals do, and the unit itself.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::mount::{BINARY, Spec, detach};
use crate::harness::servers::die_with_parent;
use crate::harness::{Holder, Server, WorkDir, World, eventually, mounts_below};

/// Far more than it takes on a machine that does other things as well.
const SOON: Duration = Duration::from_secs(180);

/// A mount that was started as systemd starts one.
struct Service {
    child: Child,
    manager: UnixDatagram,
    spec: Spec,
}

impl Service {
    fn start(world: &World, spec: Spec) -> Self {
        let socket = world.work.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(SOON)).unwrap();
        let log = fs::File::create(&spec.log).unwrap();
        let mut command = Command::new(BINARY);
        command
            .args(spec.args())
            .env_clear()
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "600000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        die_with_parent(&mut command);
        let child = command.spawn().unwrap();
        Self {
            child,
            manager,
            spec,
        }
    }

    /// What it tells next that has `word` in it.
    fn tells(&self, word: &str) -> String {
        loop {
            let mut bytes = [0; 4096];
            let len = self.manager.recv(&mut bytes).expect(word);
            let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
            if text.contains(word) {
                return text;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        detach(&self.spec.dir);
    }
}

#[test]
fn systemd_hears_of_the_mount_its_queue_and_its_end() {
    let world = World::new(Server::Sim, "notify");
    let mut service = Service::start(&world, world.spec());
    assert!(service.tells("READY=1").contains("STATUS=all is sent"));
    assert!(
        !mounts_below(&service.spec.dir).is_empty(),
        "ready, so mounted"
    );
    world.relay.silence();
    fs::write(service.spec.dir.join("f"), "x").unwrap();
    service.tells("WATCHDOG=1\nSTATUS=1 changes wait to be sent");
    // S3 hangs, and it leaves all the same; what is unsent is sent after the next mount.
    service.signal(Signal::SIGTERM);
    service.tells("STOPPING=1");
    let status = eventually("it leaves", SOON, || service.child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    assert!(mounts_below(&service.spec.dir).is_empty());
    world.relay.open();
    let mount = world.spec().mount();
    mount.drain();
    assert_eq!(world.client.get(&world.key("f")).body, b"x");
}

/// Without a close, and with nobody who closes it.
#[test]
fn a_signal_to_end_keeps_what_is_open_and_unwritten_and_publishes_none_of_it() {
    let world = World::new(Server::Sim, "end-open");
    let mut service = Service::start(&world, world.spec());
    service.tells("READY=1");
    world.relay.silence();
    let dir = service.spec.dir.clone();
    let mut holder = Holder::new(&dir);
    holder.write("small", "small", "a line");
    holder.write("large", "large", "");
    holder.run("large.write(b'l' * 100_000)");
    fs::write(dir.join("closed"), "closed").unwrap();
    let begun = Instant::now();
    service.signal(Signal::SIGTERM);
    service.tells("STOPPING=1");
    let status = eventually("it leaves", SOON, || service.child.try_wait().unwrap());
    println!("it left after {} ms", begun.elapsed().as_millis());
    assert!(status.success(), "{status}");
    assert!(mounts_below(&dir).is_empty());
    drop(holder);
    world.relay.open();
    let mount = world.spec().mount();
    mount.drain();
    let told = mount.status();
    for part in ["small (6 B)", "large (97.6 KiB)"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert_eq!(world.client.get(&world.key("closed")).body, b"closed");
    assert!(!world.client.has(&world.key("small")) && !world.client.has(&world.key("large")));
}

#[test]
fn a_hangup_reads_the_options_again() {
    let world = World::new(Server::Sim, "hangup");
    let file = world.work.path().join("options.toml");
    fs::write(&file, "log = 'warn'\n").unwrap();
    let mut spec = world.spec().with("config", &file.display().to_string());
    spec.options.retain(|(key, _)| key != "log");
    let service = Service::start(&world, spec);
    service.tells("READY=1");
    let log = || fs::read_to_string(&service.spec.log).unwrap();
    let says = |word: &str| eventually(word, SOON, || log().contains(word).then_some(()));
    assert!(!log().contains("mounted"), "quiet: {}", log());
    fs::write(&file, "log = 'nonsense'\n").unwrap();
    service.signal(Signal::SIGHUP);
    says("nothing is changed");
    fs::write(&file, "log = 'info'\n").unwrap();
    service.signal(Signal::SIGHUP);
    // Said at `info`, which was not shown before.
    says("options read again");
    assert!(!mounts_below(&service.spec.dir).is_empty(), "still mounted");
}

#[test]
fn the_exit_code_of_a_quiet_status_is_enough_for_a_script() {
    let world = World::new(Server::Sim, "quiet");
    let mut service = Service::start(&world, world.spec());
    service.tells("READY=1");
    let dir = service.spec.dir.clone();
    let run = |args: &[&str]| {
        let output = Command::new(BINARY).args(args).arg(&dir).output().unwrap();
        let said = output.stdout.len() + output.stderr.len();
        (output.status.code(), said)
    };
    let quiet = || run(&["status", "-q"]);
    assert_eq!(quiet(), (Some(0), 0));
    world.relay.silence();
    fs::write(dir.join("f"), "x").unwrap();
    assert_eq!(quiet(), (Some(1), 0), "something waits, and S3 hangs");
    world.relay.open();
    assert_eq!(run(&["drain"]).0, Some(0));
    assert_eq!(quiet(), (Some(0), 0));
    service.child.kill().unwrap();
    service.child.wait().unwrap();
    let (code, said) = quiet();
    assert_eq!(code, Some(2), "nobody answers");
    assert!(said > 0, "and why");
}

#[test]
fn what_is_logged_is_changed_by_a_verb() {
    let world = World::new(Server::Sim, "log-level");
    let service = Service::start(&world, world.spec().with("log", "error"));
    service.tells("READY=1");
    let set = |level: &str| {
        let mut command = Command::new(BINARY);
        command.arg("log-level").arg(&service.spec.dir).arg(level);
        command.output().unwrap()
    };
    let refused = set("loud");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("say off, error"));
    assert!(set("info").status.success());
    service.signal(Signal::SIGTERM);
    service.tells("STOPPING=1");
}

#[test]
fn systemd_finds_no_fault_with_the_unit_and_calls_it_protected() {
    let work = WorkDir::new("unit");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd/kryptonfs@.service");
    let text = fs::read_to_string(source).unwrap();
    let unit = work.path().join("kryptonfs@mnt-s3.service");
    fs::write(&unit, text.replace("/usr/bin/kryptonfs", BINARY)).unwrap();
    for args in [
        &["verify", "--man=no"][..],
        // "4.8 OK": the rest would hide the mount from everybody else.
        &["security", "--offline=true", "--threshold=50"],
    ] {
        let output = Command::new("systemd-analyze")
            .args(args)
            .arg(&unit)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        if args[0] == "verify" {
            assert!(output.stderr.is_empty(), "{output:?}");
        }
    }
    // One of these would hide the mount: each makes a mount namespace.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let key = line.split('=').next().unwrap_or_default();
        let hides = [
            "Protect",
            "Private",
            "ReadWrite",
            "ReadOnly",
            "Inaccessible",
            "DynamicUser",
        ];
        assert!(!hides.iter().any(|word| key.starts_with(word)), "{line}");
    }
}
