//! Refusals at mount: one line that names cause and cure, the right exit code, nothing mounted.
//! Silence is no refusal. Keys that no file system can show harm nobody.

mod hostile;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::cloud::{Refusal, Service};
use crate::harness::mount::{Refused, detach};
use crate::harness::world::Issue;
use crate::harness::{Keys, Server, Spec, World, eventually, mounts_below, shell, try_shell};

const USAGE: i32 = 1;
const FAILED: i32 = 32;

/// Refused with `code` in one line that holds each of `words`; nothing is mounted.
fn is_refused(spec: &Spec, code: i32, words: &[&str]) {
    let refused = spec.refused();
    let line = refused.line(code).to_owned();
    for word in words {
        assert!(
            line.to_lowercase().contains(&word.to_lowercase()),
            "{word:?} is not in {line:?}"
        );
    }
    assert!(mounts_below(&spec.dir).is_empty(), "half a mount: {line}");
}

#[test]
fn an_absent_bucket_fails_the_mount() {
    let world = World::new(Server::Sim, "nobucket");
    let mut spec = world.spec();
    spec.source = "s3://there-is-no-such-bucket".into();
    is_refused(&spec, FAILED, &["there-is-no-such-bucket", "bucket"]);
}

#[test]
fn an_absent_bucket_on_real_servers_fails_the_mount() {
    for server in [Server::Seaweed, Server::Radosgw] {
        let world = World::new(server, "nobucket");
        let mut spec = world.spec();
        spec.source = "s3://there-is-no-such-bucket".into();
        is_refused(&spec, FAILED, &["there-is-no-such-bucket"]);
    }
}

#[test]
fn keys_that_s3_does_not_know_fail_the_mount() {
    let wrong = Keys {
        access_key: "AKIAWRONG".into(),
        secret_key: "wrong".into(),
        session_token: None,
    };
    let world = World::with_keys(Server::Sim, "denied", Issue::Stranger(wrong.clone()));
    is_refused(&world.spec(), FAILED, &["InvalidAccessKeyId"]);
    let world = World::with_keys(Server::Seaweed, "denied", Issue::Stranger(wrong));
    is_refused(&world.spec(), FAILED, &["credentials"]);
}

#[test]
fn krypton_that_refuses_fails_the_mount() {
    let world = World::new(Server::Sim, "nokrypton");
    world
        .cloud
        .refuse("Krypton", 403, "AUM0001", Refusal::Always);
    is_refused(&world.spec(), FAILED, &["krypton"]);
}

#[test]
fn a_denied_listing_fails_the_mount() {
    let world = World::new(Server::Sim, "denied");
    world
        .cloud
        .refuse("*", 403, "AccessDenied", Refusal::Always);
    is_refused(&world.spec(), FAILED, &["AccessDenied"]);
}

#[test]
fn the_wrong_region_fails_the_mount_and_the_right_one_is_named() {
    let world = World::new(Server::Sim, "region");
    let right = world.access.region.clone();
    let mut spec = world.spec();
    spec.region = "eu-north-1".into();
    assert_ne!(spec.region, right);
    is_refused(&spec, FAILED, &["region", &right]);
}

#[test]
fn an_unknown_option_names_its_nearest() {
    let world = World::new(Server::Sim, "option");
    is_refused(
        &world.spec().with("cache_dri", "/x"),
        USAGE,
        &["cache_dri", "cache_dir"],
    );
    is_refused(
        &world.spec().with("close", "sometimes"),
        USAGE,
        &["close", "sometimes"],
    );
    is_refused(&world.spec().with("ttl", "soon"), USAGE, &["ttl", "soon"]);
    is_refused(&world.spec().with("cache_max", "-3"), USAGE, &["cache_max"]);
}

#[test]
fn a_bad_command_line_is_usage() {
    let world = World::new(Server::Sim, "usage");
    let mut spec = world.spec();
    spec.source = "http://not-a-bucket/".into();
    is_refused(&spec, USAGE, &["s3://"]);
    for args in [&["mount"][..], &["mount", "s3://b"], &["frobnicate"], &[]] {
        let refused = Refused::of(args);
        assert_eq!(refused.code, Some(USAGE), "{args:?}: {refused:?}");
        assert!(!refused.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn without_an_interface_it_refuses_unless_network_open_is_said() {
    let world = World::new(Server::Sim, "closed");
    let mut spec = world.spec();
    spec.options.retain(|(name, _)| name != "network");
    is_refused(&spec, USAGE, &["interface", "network=open"]);
    let mount = spec.with("interface", "lo").mount();
    shell(mount.dir(), "echo x > f");
    mount.drain();
    assert!(world.client.has(&world.key("f")));
}

#[test]
fn plain_http_beyond_loopback_needs_an_open_network() {
    let world = World::new(Server::Sim, "http");
    let mut spec = world.spec().with("interface", "lo");
    spec.options.retain(|(name, _)| name != "network");
    spec.endpoint = "http://s3.example.com".into();
    is_refused(&spec, USAGE, &["http"]);
}

#[test]
fn a_mountpoint_that_is_absent_or_a_file_is_refused() {
    let world = World::new(Server::Sim, "point");
    let mut spec = world.spec();
    spec.dir = world.work.path().join("absent");
    is_refused(&spec, USAGE, &["absent"]);
    let file = world.work.path().join("file");
    fs::write(&file, "").unwrap();
    spec.dir = file;
    is_refused(&spec, USAGE, &["directory"]);
}

#[test]
fn a_mountpoint_that_is_not_empty_is_a_warning() {
    let world = World::new(Server::Sim, "notempty");
    let spec = world.spec();
    fs::write(spec.dir.join("under"), "x").unwrap();
    let mount = spec.mount();
    assert_eq!(shell(mount.dir(), "ls -A"), "");
    assert!(mount.log().contains("not empty"), "{}", mount.log());
    let told = mount.status();
    assert!(
        told.contains("covered     under (under the mount"),
        "{told}"
    );
    let spec = mount.unmount();
    assert_eq!(fs::read(spec.dir.join("under")).unwrap(), b"x");
}

#[test]
fn a_stale_mount_is_cleaned_up() {
    let world = World::new(Server::Sim, "stale");
    let mount = world.spec().mount();
    shell(mount.dir(), "echo x > f");
    let spec = mount.kill();
    let error = fs::read_dir(&spec.dir).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    let mount = spec.mount();
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"x\n");
    assert_eq!(mounts_below(mount.dir()).len(), 1, "one mount, not two");
}

#[test]
fn a_second_mount_on_a_live_mountpoint_is_refused() {
    let world = World::new(Server::Sim, "twice");
    let mount = world.spec().mount();
    let mut spec = world.second_device();
    spec.dir = mount.dir().to_owned();
    let refused = spec.refused();
    refused.line(FAILED);
    assert_eq!(mounts_below(mount.dir()).len(), 1);
    shell(mount.dir(), "echo still here > f; cat f");
}

#[test]
fn a_second_daemon_on_the_same_spool_is_refused() {
    let world = World::new(Server::Sim, "spool");
    let mount = world.spec().mount();
    let mut spec = world.second_device();
    spec.spool = mount.spec().spool.clone();
    is_refused(&spec, FAILED, &["spool"]);
    shell(mount.dir(), "echo unharmed > f; cat f");
    mount.drain();
    assert!(world.client.has(&world.key("f")));
}

#[test]
fn a_spool_of_another_bucket_is_refused_and_kept() {
    let world = World::new(Server::Sim, "foreign");
    let other = World::new(Server::Sim, "foreign");
    world.relay.silence();
    let mount = world.spec().mount();
    shell(mount.dir(), "echo pending > f");
    let first = mount.unmount();
    let second = other.spec().mount().unmount();
    // Each bucket has a folder of its own; somebody moved one to the other's place.
    let (ours, theirs) = (spool_folder(&first), spool_folder(&second));
    fs::remove_dir_all(&theirs).unwrap();
    fs::rename(&ours, &theirs).unwrap();
    is_refused(&second, FAILED, &["spool"]);
    fs::rename(&theirs, &ours).unwrap();
    world.relay.open();
    let mount = first.mount();
    mount.drain();
    assert_eq!(world.client.get(&world.key("f")).body, b"pending\n");
}

/// The one folder in the spool of a mount that was there.
fn spool_folder(spec: &Spec) -> PathBuf {
    let entries = fs::read_dir(&spec.spool).unwrap().flatten();
    // What is kept of the clock lies beside it.
    let spools = entries.map(|entry| entry.path());
    let spools: Vec<_> = spools.filter(|path| path.join("log").is_dir()).collect();
    assert_eq!(spools.len(), 1, "{spools:?}");
    spools[0].clone()
}

#[test]
fn a_spool_that_cannot_be_written_is_refused() {
    let world = World::new(Server::Sim, "rospool");
    let mut spec = world.spec();
    // Root writes through mode bits, so the folder is on a read-only file system.
    let place = world.local("ro");
    shell(&place, "mount -t tmpfs -o ro,size=1m none .");
    spec.spool = place.join("spool");
    is_refused(&spec, FAILED, &["spool"]);
    detach(&place);
    spec.spool = world.work.path().join("a-file");
    fs::write(&spec.spool, "").unwrap();
    is_refused(&spec, FAILED, &["spool"]);
}

#[test]
fn a_spool_that_others_could_write_is_refused() {
    let world = World::new(Server::Sim, "unsafe");
    let spec = world.spec().mount().unmount();
    let folder = spool_folder(&spec);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    is_refused(&spec, FAILED, &["spool"]);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let elsewhere = world.work.path().join("elsewhere");
    fs::rename(&folder, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &folder).unwrap();
    is_refused(&spec, FAILED, &["spool"]);
    fs::remove_file(&folder).unwrap();
    fs::rename(&elsewhere, &folder).unwrap();
    spec.mount();
}

/// Mounts offline; writes; once `restore` has run, all arrives.
fn mounts_offline(world: &World, spec: &Spec, restore: impl FnOnce()) {
    let began = Instant::now();
    let mount = spec.mount();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    // Nothing is known of the bucket, so each new name may wait `stale_after`, but no longer.
    for command in [
        "echo offline > f",
        "cat f",
        "mkdir d",
        "echo deep > d/first",
        "mv d/first d/g",
        "cat d/g",
        "echo more >> f",
        "ln -s f l",
        "chmod 600 f",
        "rm l",
    ] {
        let output = try_shell(mount.dir(), &format!("timeout 10 bash -c '{command}'"));
        assert!(
            output.status.success(),
            "{command}: {output:?}\n{}",
            mount.log()
        );
    }
    restore();
    eventually(
        "what was written offline arrives",
        Duration::from_secs(120),
        || (world.client.has(&world.key("f")) && world.client.has(&world.key("d/g"))).then_some(()),
    );
    mount.drain();
    assert_eq!(world.client.get(&world.key("f")).body, b"offline\nmore\n");
    assert!(!world.client.has(&world.key("d/first")) && !world.client.has(&world.key("l")));
    mount.unmount();
}

#[test]
fn a_silent_link_mounts_offline() {
    let world = World::new(Server::Sim, "offline");
    world.relay.silence();
    mounts_offline(&world, &world.spec(), || world.relay.open());
}

#[test]
fn a_server_that_refuses_connections_mounts_offline() {
    let world = World::new(Server::Sim, "offline");
    world.relay.refuse();
    mounts_offline(&world, &world.spec(), || world.relay.open());
}

#[test]
fn a_silent_krypton_mounts_offline() {
    let world = World::new(Server::Sim, "offline");
    world.cloud.silence(Service::Krypton, true);
    mounts_offline(&world, &world.spec(), || {
        world.cloud.silence(Service::Krypton, false)
    });
}

#[test]
fn krypton_that_is_out_of_order_mounts_offline() {
    let world = World::new(Server::Sim, "offline");
    world
        .cloud
        .refuse("Krypton", 503, "Unavailable", Refusal::Always);
    mounts_offline(&world, &world.spec(), || world.cloud.clear_faults());
}

#[test]
fn a_name_that_cannot_be_resolved_mounts_offline() {
    let world = World::new(Server::Sim, "offline");
    let mut spec = world.spec();
    spec.krypton = "https://krypton.invalid:8036".into();
    let mount = spec.mount();
    shell(mount.dir(), "echo kept > f; cat f");
    mount.unmount();
}

#[test]
fn status_and_drain_of_what_is_not_mounted_fail_in_one_line() {
    let world = World::new(Server::Sim, "notmounted");
    let place = world.local("nothing");
    for verb in ["status", "drain"] {
        let refused = Refused::of(&[verb, &place.display().to_string()]);
        assert_ne!(refused.code, Some(0), "{refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    }
}

#[test]
fn no_secret_is_in_the_arguments_the_environment_or_the_log() {
    let keys = Keys {
        access_key: "CANARYKEY".into(),
        secret_key: "canarysecretcanarysecret".into(),
        session_token: Some("canarytokencanarytoken".into()),
    };
    let world = World::with_keys(Server::Sim, "secrets", Issue::Fixed(keys.clone()));
    let mount = world.spec().with("log", "debug").mount();
    shell(mount.dir(), "echo x > f; cat f");
    mount.drain();
    let spec = mount.unmount();
    let folder = world.work.path();
    for canary in [&keys.secret_key, keys.session_token.as_ref().unwrap()] {
        for place in [&spec.log, &spec.spool, &spec.cache] {
            assert!(!holds(place, canary), "{canary} in {}", place.display());
        }
    }
    assert!(holds(folder, "f"), "grep works");
}

fn holds(place: &Path, text: &str) -> bool {
    let found = Command::new("grep")
        .args(["-rqaF", text])
        .arg(place)
        .status();
    found.unwrap().success()
}
