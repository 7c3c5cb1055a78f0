//! `kryptonfs refresh`: what is known is asked for anew, long before its time is over.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::mount::BINARY;
use crate::harness::{Server, World};

fn refresh(paths: &[&Path]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("refresh").args(paths).output().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_directory_that_is_refreshed_shows_what_others_changed_at_the_price_of_one_listing() {
    let world = World::new(Server::Sim, "refreshed");
    let put = |name: &str, body: &str| world.client.put(&world.key(name), body.as_bytes());
    put("d/kept", "kept");
    put("d/changed", "old");
    put("d/removed", "removed");
    put("other/kept", "kept");
    let mount = world.spec().with("ttl", "1h").mount();
    let (d, other) = (mount.path("d"), mount.path("other"));
    assert_eq!(names(&d), ["changed", "kept", "removed"]);
    assert_eq!(names(&other), ["kept"]);
    assert_eq!(fs::read(d.join("changed")).unwrap(), b"old");
    put("d/changed", "new and longer");
    put("d/new", "new");
    put("other/new", "new");
    world.client.delete(&world.key("d/removed"));
    assert_eq!(names(&d), ["changed", "kept", "removed"], "it is trusted");

    let before = mount.status_json()["requests"].as_u64().unwrap();
    let output = refresh(&[&d]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(names(&d), ["changed", "kept", "new"]);
    assert!(!d.join("removed").exists());
    let after = mount.status_json()["requests"].as_u64().unwrap();
    assert_eq!(after - before, 1, "the listing");
    assert_eq!(fs::read(d.join("changed")).unwrap(), b"new and longer");
    assert_eq!(names(&other), ["kept"], "nobody asked for that");

    // All below the root counts as old: it is asked for when somebody looks there.
    let output = refresh(&[mount.dir()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(names(&other), ["kept", "new"]);
}

#[test]
fn a_file_and_a_name_that_was_not_there_are_refreshed_by_name() {
    let world = World::new(Server::Sim, "refresh-file");
    let put = |name: &str, body: &str| world.client.put(&world.key(name), body.as_bytes());
    put("f", "old");
    let mount = world.spec().with("ttl", "1h").mount();
    assert_eq!(names(mount.dir()), ["f"]);
    let (f, new) = (mount.path("f"), mount.path("new"));
    assert_eq!(fs::read(&f).unwrap(), b"old");
    assert!(!new.exists());
    put("f", "changed");
    put("new", "new");
    assert!(!new.exists(), "it is trusted");
    let output = refresh(&[&f, &new]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(&f).unwrap(), b"changed");
    assert_eq!(fs::read(&new).unwrap(), b"new");

    // What was written here is what it is, whatever the bucket says.
    world.relay.silence();
    fs::write(&f, "mine").unwrap();
    let output = refresh(&[&f]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(&f).unwrap(), b"mine");
    world.relay.open();
}

#[test]
fn a_refresh_while_the_bucket_is_silent_says_so_and_loses_nothing_that_is_known() {
    let world = World::new(Server::Sim, "refresh-silent");
    world.client.put(&world.key("d/f"), b"text");
    let spec = world.spec().with("ttl", "1h").with("read_timeout", "1s");
    let mount = spec.with("stale_after", "200ms").mount();
    let d = mount.path("d");
    assert_eq!(fs::read(d.join("f")).unwrap(), b"text");
    assert_eq!(names(&d), ["f"]);
    world.relay.silence();
    let output = refresh(&[&d]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("the bucket is silent") && said.lines().count() == 1,
        "{said}"
    );
    assert_eq!(names(&d), ["f"]);
    assert_eq!(fs::read(d.join("f")).unwrap(), b"text");
    world.relay.open();

    let output = refresh(&[Path::new("/")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/ is in no kryptonfs mount"), "{said}");
}
