//! Reading while the bucket is silent, or says no.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::cloud::Refusal;
use crate::harness::mount::BINARY;
use crate::harness::{Mount, Server, Spec, World, eventually, noise, shell};

const SOON: Duration = Duration::from_secs(60);

/// Reads a file in a process of its own, which ends with the errno of that.
fn reader(mount: &Mount, name: &str) -> Child {
    let script = "import sys
try: open(sys.argv[1], 'rb').read()
except OSError as e: sys.exit(e.errno)";
    Command::new("python3")
        .args(["-c", script, name])
        .current_dir(mount.dir())
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

fn errno(mut child: Child) -> i32 {
    let status = eventually("the reader ends", SOON, || child.try_wait().unwrap());
    status.code().unwrap()
}

/// A mount that has read `cached` and not `cold`, and what is in them.
fn mount(world: &World, options: &[(&str, &str)]) -> (Mount, [Vec<u8>; 2]) {
    let bodies = [noise(5, 300_000), noise(6, 300_000)];
    world.client.put(&world.key("cached"), &bodies[0]);
    world.client.put(&world.key("cold"), &bodies[1]);
    let mut spec = world.spec();
    for (key, value) in options {
        spec = spec.with(key, value);
    }
    let mount = spec.mount();
    shell(mount.dir(), "ls -l; cat cached > /dev/null");
    (mount, bodies)
}

#[test]
fn cached_files_are_read_past_their_ttl_while_the_bucket_is_silent_and_that_is_counted() {
    let world = World::new(Server::Sim, "offline");
    let (mount, [cached, _]) = mount(&world, &[("ttl", "0s"), ("stale_after", "200ms")]);
    let stale = || mount.status_json()["stale_answers"].as_u64().unwrap();
    let before = stale();
    world.relay.silence();
    assert!(fs::read(mount.path("cached")).unwrap() == cached);
    assert!(stale() > before);
    world.relay.open();
}

#[test]
fn a_cold_read_fails_with_eio_after_read_timeout_while_the_bucket_is_silent() {
    let world = World::new(Server::Sim, "cold");
    let (mount, [_, cold]) = mount(&world, &[("read_timeout", "2s"), ("ttl", "1h")]);
    world.relay.silence();
    assert_eq!(errno(reader(&mount, "cold")), libc::EIO);
    world.relay.open();
    eventually("it can be read", SOON, || {
        (errno(reader(&mount, "cold")) == 0).then_some(())
    });
    assert!(fs::read(mount.path("cold")).unwrap() == cold);
}

#[test]
fn cancel_ends_a_cold_read_that_would_wait_long() {
    let world = World::new(Server::Sim, "cancel");
    let (mount, [cached, cold]) = mount(&world, &[("read_timeout", "1h"), ("ttl", "1h")]);
    world.relay.silence();
    let mut child = reader(&mount, "cold");
    // Again until the reader waits: before, there is nothing to be ended.
    let status = eventually("the reader ends", SOON, || {
        let mut cancel = Command::new(BINARY);
        let done = cancel.arg("cancel").arg(mount.dir()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success() && said.ends_with("ended\n"),
            "{done:?}"
        );
        child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(libc::EIO));
    assert!(fs::read(mount.path("cached")).unwrap() == cached);
    world.relay.open();
    assert!(fs::read(mount.path("cold")).unwrap() == cold);
}

#[test]
fn an_archived_object_is_an_io_error_and_one_line_that_says_why() {
    let world = World::new(Server::Sim, "glacier");
    let (mount, [cached, cold]) = mount(&world, &[]);
    let status = 403;
    world
        .cloud
        .refuse("GetObject", status, "InvalidObjectState", Refusal::Always);
    assert_eq!(errno(reader(&mount, "cold")), libc::EIO);
    let log = mount.log();
    assert!(log.contains("archived; restore it first"), "{log}");
    assert!(fs::read(mount.path("cached")).unwrap() == cached);
    world.cloud.clear_faults();
    assert!(fs::read(mount.path("cold")).unwrap() == cold);
}

/// What is seen of the mount: names, sizes and times of files, and what was read.
fn seen(mount: &Mount) -> String {
    shell(
        mount.dir(),
        "ls; ls -l --time-style=+%s cached cold d; cat d/f000042 cached | sha256sum",
    )
}

#[test]
fn what_was_listed_and_read_is_there_after_a_restart_without_a_link() {
    for end in [Mount::kill as fn(Mount) -> Spec, Mount::unmount] {
        let world = World::new(Server::Sim, "snapshot");
        world.cloud.load(&world.key("d/f"), 1200);
        world.cloud.load(&world.key("unknown/f"), 3);
        let (mount, [cached, _]) = mount(&world, &[]);
        shell(
            mount.dir(),
            "ls d > /dev/null; echo mine > d/mine; rm d/f000001",
        );
        mount.drain();
        let before = seen(&mount);
        let spec = end(mount);
        world.relay.silence();
        let mount = spec.mount();
        let after = seen(&mount);
        let news: Vec<_> = after
            .lines()
            .filter(|line| !before.contains(line))
            .collect();
        assert!(
            after == before,
            "{news:?} is new, {} were lines",
            before.lines().count()
        );
        assert!(fs::read(mount.path("cached")).unwrap() == cached);
        assert!(mount.status_json()["stale_answers"].as_u64().unwrap() > 0);
        let unknown = fs::read_dir(mount.path("unknown")).unwrap().next();
        let error = unknown.unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        // What was made elsewhere meanwhile is seen once the link is back.
        world.relay.open();
        world.client.put(&world.key("d/elsewhere"), b"e");
        eventually("it is asked for again", SOON, || {
            let names = shell(mount.dir(), "ls d");
            names.lines().any(|name| name == "elsewhere").then_some(())
        });
    }
}
