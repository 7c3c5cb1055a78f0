//! `kryptonfs fetch`: what it brings into the cache, and what it says where it cannot.

use std::fs;
use std::process::{Command, Output};

use crate::harness::mount::BINARY;
use crate::harness::{Server, World, noise, shell};

fn fetch(paths: &[&std::path::Path]) -> Output {
    Command::new(BINARY)
        .arg("fetch")
        .args(paths)
        .output()
        .unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_was_fetched_is_read_without_data_from_the_bucket_also_after_a_remount() {
    let world = World::new(Server::Sim, "fetch");
    let bodies = [noise(1, 3 << 20), noise(2, 70_000), Vec::new()];
    for (name, body) in ["d/large", "d/sub/small", "empty"].iter().zip(&bodies) {
        world.client.put(&world.key(name), body);
    }
    let mount = world.spec().with("ttl", "1h").mount();
    let output = fetch(&[&mount.path("d"), &mount.path("empty")]);
    assert!(output.status.success(), "{output:?}");
    let line = said(&output.stdout);
    assert!(
        line.starts_with("fetched 3.0 MiB of 3.0 MiB, 3 of 3 files"),
        "{line}"
    );
    let mount = mount.unmount().mount();
    let before = world.cloud.counts();
    assert!(fs::read(mount.path("d/large")).unwrap() == bodies[0]);
    assert!(fs::read(mount.path("d/sub/small")).unwrap() == bodies[1]);
    assert_eq!(world.cloud.counts().since(&before).data_down, 0);
}

#[test]
fn what_cannot_be_fetched_is_told_by_name_and_the_rest_is_fetched() {
    let world = World::new(Server::Sim, "unfetched");
    world.client.put(&world.key("a"), b"cold");
    world.client.put(&world.key("b"), b"warm");
    let mount = world
        .spec()
        .with("ttl", "1h")
        .with("read_timeout", "1s")
        .mount();
    shell(mount.dir(), "ls; cat b");
    world.relay.silence();
    let output = fetch(&[&mount.path("a"), &mount.path("b")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (line, why) = (said(&output.stdout), said(&output.stderr));
    assert!(
        line.starts_with("fetched 4 B of 8 B, 1 of 2 files"),
        "{line}"
    );
    assert!(why.contains("/a: ") && !why.contains("/b: "), "{why}");
    world.relay.open();
    let elsewhere = fetch(&[world.work.path()]);
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(said(&elsewhere.stderr).contains("is not a kryptonfs mount"));
}
