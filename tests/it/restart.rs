//! Crashes, outages and leases that end: what was acknowledged arrives, whole, once.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kryptonfs::sim::Expiration;

use crate::harness::cloud::{Refusal, Service};
use crate::harness::tree::{Look, assert_same, read_tree, sha256};
use crate::harness::{Holder, Server, World, eventually, noise, shell, try_shell};

const SOON: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

#[test]
fn what_is_pending_at_a_kill_is_sent_after_the_restart() {
    for server in [Server::Sim, Server::Seaweed, Server::Radosgw] {
        let world = World::new(server, "kill");
        let mount = world.spec().mount();
        shell(
            mount.dir(),
            "mkdir sent; echo before > sent/a; echo gone > sent/b; ls -lR",
        );
        mount.drain();
        world.relay.silence();
        let large = noise(7, 20 * MIB);
        fs::write(mount.path("large"), &large).unwrap();
        shell(
            mount.dir(),
            "for i in $(seq 50); do echo $i > f$i; done; echo more >> sent/a; rm sent/b
             mkdir d; echo x > d/x; mv d e; ln -s e l; chmod 600 f1; touch -d @7 f2; rm f50",
        );
        let tree = read_tree(mount.dir());
        // What entries made of a directory's mtime is kept while the kernel knows it, not longer.
        let keeps = |name: &str| tree.get(name).is_none_or(|node| node.kind != 'd');
        let spec = mount.kill();
        world.relay.open();
        let mount = spec.mount();
        assert_same(
            "after the kill",
            &read_tree(mount.dir()),
            &tree,
            Look::ALL,
            keeps,
        );
        mount.drain();
        assert_same(
            "after the drain",
            &read_tree(mount.dir()),
            &tree,
            Look::ALL,
            keeps,
        );
        assert_eq!(world.client.get(&world.key("large")).sha256, sha256(&large));
        assert_eq!(
            world.client.get(&world.key("sent/a")).body,
            b"before\nmore\n"
        );
        assert!(!world.client.has(&world.key("sent/b")) && !world.client.has(&world.key("f50")));
        assert_eq!(world.client.get(&world.key("e/x")).body, b"x\n");
        assert_eq!(world.client.head(&world.key("f2")).metadata["mtime"], "7");
        // Of a Create whose answer the kill took nobody can tell that it was ours.
        let left = world.client.uploads();
        assert!(
            left.iter().all(|key| *key == world.key("large")),
            "{left:?}"
        );
        let conflicts = world.client.keys(&world.key(""));
        assert!(
            !conflicts.iter().any(|key| key.contains(".conflict-")),
            "{conflicts:?}"
        );
    }
}

/// The kill falls at many moments of the same work; all that a shell was told is kept.
#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let world = World::new(Server::Sim, "kills");
    let mut spec = world.spec().with("linger", "50ms");
    let acknowledged = world.work.path().join("acknowledged");
    for round in 0..8_u32 {
        let mount = spec.mount();
        let script = format!(
            "for i in $(seq 1000); do echo {round}-$i > {round}-$i.part && mv {round}-$i.part {round}-$i \
             && echo {round}-$i >> '{}'; done",
            acknowledged.display()
        );
        let mut writer = Command::new("bash")
            .args(["-c", &script])
            .current_dir(mount.dir())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let enough = 15 + 10 * round as usize;
        eventually("some are acknowledged", SOON, || {
            let lines = fs::read_to_string(&acknowledged).unwrap_or_default();
            let prefix = format!("{round}-");
            let count = lines
                .lines()
                .filter(|line| line.starts_with(&prefix))
                .count();
            (count >= enough).then_some(())
        });
        spec = mount.kill();
        writer.kill().unwrap();
        writer.wait().unwrap();
    }
    let mount = spec.mount();
    mount.drain();
    for name in fs::read_to_string(&acknowledged).unwrap().lines() {
        let seen = world.client.get(&world.key(name));
        assert_eq!(seen.body, format!("{name}\n").as_bytes(), "{name}");
    }
    for key in world.client.keys(&world.key("")) {
        assert!(!key.contains(".conflict-"), "{key}");
    }
}

#[test]
fn an_object_appears_whole_or_not_at_all() {
    let world = World::new(Server::Sim, "whole");
    let mount = world.spec().mount();
    let large = noise(8, 24 * MIB);
    // Parts travel; the upload cannot be completed.
    world
        .cloud
        .refuse("CompleteMultipartUpload", 503, "SlowDown", Refusal::Always);
    fs::write(mount.path("large"), &large).unwrap();
    eventually("parts were sent", SOON, || {
        (!world.client.uploads().is_empty()).then_some(())
    });
    assert!(!world.client.has(&world.key("large")));
    let spec = mount.kill();
    world.cloud.clear_faults();
    let mount = spec.mount();
    mount.drain();
    let seen = world.client.get(&world.key("large"));
    assert_eq!(seen.sha256, sha256(&large));
    assert_eq!(fs::read(mount.path("large")).unwrap(), large);
}

/// What had arrived is not sent again: at most what was on its way at the kill, two parts at a time.
#[test]
fn a_kill_in_mid_upload_sends_no_part_again_that_arrived() {
    const SIZE: usize = 44 * MIB;
    const PART: usize = 8 * MIB;
    let world = World::new(Server::Sim, "resume");
    let spec = world.spec().with("part_size", "8MiB");
    let spec = spec.with("upload_concurrency", "2");
    let mount = spec.mount();
    let before = world.cloud.counts();
    let large = noise(11, SIZE);
    // However fast it is: it cannot end before the kill.
    world
        .cloud
        .refuse("CompleteMultipartUpload", 503, "SlowDown", Refusal::Always);
    fs::write(mount.path("large"), &large).unwrap();
    eventually("two parts arrived", SOON, || {
        (world.cloud.counts().since(&before).data_up as usize > 2 * PART).then_some(())
    });
    let spec = mount.kill();
    world.cloud.clear_faults();
    let mount = spec.mount();
    mount.drain();
    assert_eq!(world.client.get(&world.key("large")).sha256, sha256(&large));
    let all = world.cloud.counts().since(&before);
    assert_eq!(all.requests("CreateMultipartUpload"), 1);
    assert!(all.data_up as usize <= SIZE + 2 * PART, "{}", all.data_up);
    assert_eq!(world.client.uploads(), Vec::<String>::new());
}

#[test]
fn what_was_never_closed_is_not_published_after_a_crash() {
    let world = World::new(Server::Sim, "torn");
    let mount = world.spec().mount();
    let mut writer = Holder::new(mount.dir());
    writer.write("torn", "torn", "half a sentence, and the");
    writer.write("synced", "synced", "said and kept");
    writer.run("os.fsync(synced.fileno()); synced.write(b', but this not')");
    let spec = mount.kill();
    drop(writer);
    let mount = spec.mount();
    mount.drain();
    assert!(!world.client.has(&world.key("torn")));
    assert_eq!(
        world.client.get(&world.key("synced")).body,
        b"said and kept"
    );
}

#[test]
fn writes_go_on_while_the_link_is_down_and_arrive_when_it_is_up() {
    for server in [Server::Sim, Server::Seaweed] {
        let world = World::new(server, "down");
        let mount = world.spec().mount();
        shell(mount.dir(), "echo known > known; mkdir d; ls -lR");
        mount.drain();
        for (round, down) in [true, false].into_iter().enumerate() {
            if down {
                world.relay.silence();
            } else {
                world.relay.refuse();
            }
            let began = Instant::now();
            let script = format!(
                "timeout 25 bash -c 'for i in 1 2 3 4 5; do echo {round}$i > d/{round}$i; done; cat known d/{round}1; \
                 ls d; echo {round} >> log; mv d/{round}5 d/{round}moved; stat known'"
            );
            let output = try_shell(mount.dir(), &script);
            assert!(
                output.status.success(),
                "{output:?} after {:?}",
                began.elapsed()
            );
            world.relay.open();
            eventually("the last one arrives", 2 * SOON, || {
                let key = world.key(&format!("d/{round}moved"));
                world.client.has(&key).then_some(())
            });
        }
        mount.drain();
        assert_eq!(world.client.get(&world.key("log")).body, b"0\n1\n");
        assert_eq!(world.client.get(&world.key("d/03")).body, b"03\n");
        assert!(!world.client.has(&world.key("d/05")));
    }
}

#[test]
fn an_expired_token_is_renewed_once_and_the_request_repeated() {
    let world = World::new(Server::Sim, "expired");
    let mount = world.spec().mount();
    shell(mount.dir(), "echo one > f");
    mount.drain();
    let before = world.cloud.counts();
    world.cloud.expire_keys();
    shell(mount.dir(), "echo two > g");
    mount.drain();
    let since = world.cloud.counts().since(&before);
    assert_eq!((since.failed, since.krypton), (1, 1), "{since:?}");
    // The client's own keys have ended with the others.
    let client = crate::harness::Client::start(&crate::harness::Access {
        keys: world.cloud.keys(),
        ..world.access.clone()
    });
    assert_eq!(client.get(&world.key("g")).body, b"two\n");
}

#[test]
fn a_token_that_ends_during_a_large_upload_does_not_break_it() {
    let world = World::new(Server::Sim, "midway");
    let mount = world.spec().mount();
    shell(mount.dir(), "ls -l");
    let large = noise(9, 48 * MIB);
    world
        .cloud
        .refuse("UploadPart", 403, "ExpiredToken", Refusal::Times(2));
    fs::write(mount.path("large"), &large).unwrap();
    mount.drain();
    assert_eq!(world.client.get(&world.key("large")).sha256, sha256(&large));
}

#[test]
fn short_leases_are_refreshed_by_traffic_and_never_run_out() {
    let world = World::new(Server::Sim, "short");
    world.cloud.set_lease_life(Duration::from_secs(6));
    let mount = world.spec().with("linger", "0s").mount();
    let before = world.cloud.counts();
    let until = Instant::now() + Duration::from_secs(20);
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        fs::write(mount.path(&format!("f{number}")), "x").unwrap();
        mount.drain();
    }
    let since = world.cloud.counts().since(&before);
    assert_eq!(since.failed, 0, "a lease ran out: {since:?}");
    assert!((3..=12).contains(&since.krypton), "{since:?}");
    let keys = world.client.keys(&world.key("f"));
    assert_eq!(keys.len(), number);
}

#[test]
fn every_form_of_expiration_is_understood() {
    for form in [
        Expiration::EpochMillis,
        Expiration::EpochSeconds,
        Expiration::Iso8601,
        Expiration::Absent,
    ] {
        let world = World::new(Server::Sim, "expiration");
        world.cloud.set_expiration(form);
        let before = world.cloud.counts();
        let mount = world.spec().mount();
        shell(mount.dir(), "echo x > f; ls");
        mount.drain();
        shell(mount.dir(), "echo y > g");
        mount.drain();
        assert!(world.client.has(&world.key("g")), "{form:?}");
        let since = world.cloud.counts().since(&before);
        assert_eq!(since.krypton, 1, "one lease serves all: {form:?} {since:?}");
    }
}

#[test]
fn tokens_are_changed_into_keys_by_cognito() {
    let world = World::new(Server::Sim, "cognito");
    let spec = world
        .spec()
        .with("krypton", "tokens")
        .with("cognito_url", &world.cloud.cognito_url());
    let mount = spec.mount();
    shell(mount.dir(), "echo x > f");
    mount.drain();
    assert_eq!(world.client.get(&world.key("f")).body, b"x\n");
    world.cloud.expire_keys();
    shell(mount.dir(), "echo y > g");
    mount.drain();
}

#[test]
fn krypton_that_is_away_for_a_while_delays_and_loses_nothing() {
    let world = World::new(Server::Sim, "kryptonaway");
    let mount = world.spec().mount();
    shell(mount.dir(), "echo x > f; ls -l");
    mount.drain();
    world.cloud.expire_keys();
    world.cloud.silence(Service::Krypton, true);
    let output = try_shell(mount.dir(), "timeout 10 bash -c 'echo y > g; cat g f; ls'");
    assert!(output.status.success(), "{output:?}");
    world.cloud.silence(Service::Krypton, false);
    mount.drain();
    assert_eq!(fs::read(mount.path("g")).unwrap(), b"y\n");
}

#[test]
fn an_answer_that_was_lost_makes_neither_a_conflict_nor_a_second_object() {
    let world = World::new(Server::Sim, "lost");
    let mount = world.spec().mount();
    shell(mount.dir(), "echo old > replaced");
    mount.drain();
    for operation in [
        "PutObject",
        "CompleteMultipartUpload",
        "DeleteObject",
        "CopyObject",
    ] {
        world.cloud.lose_answer(operation);
    }
    fs::write(mount.path("large"), noise(4, 10 * MIB)).unwrap();
    shell(
        mount.dir(),
        "echo new > replaced; echo n > created; mv created moved",
    );
    mount.drain();
    shell(mount.dir(), "mv moved again; rm replaced");
    mount.drain();
    let keys = world.client.keys(&world.key(""));
    let names: Vec<_> = keys
        .iter()
        .map(|key| key.rsplit('/').next().unwrap())
        .collect();
    let files: Vec<_> = names.into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(files, ["again", "large"]);
    assert_eq!(world.client.get(&world.key("again")).body, b"n\n");
    assert_eq!(
        world.client.get(&world.key("large")).sha256,
        sha256(&noise(4, 10 * MIB))
    );
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let world = World::new(Server::Sim, "busy");
    let mount = world.spec().mount();
    for operation in [
        "PutObject",
        "UploadPart",
        "CompleteMultipartUpload",
        "ListObjectsV2",
    ] {
        world
            .cloud
            .refuse(operation, 503, "SlowDown", Refusal::Times(2));
    }
    let large = noise(5, 17 * MIB);
    fs::write(mount.path("large"), &large).unwrap();
    shell(mount.dir(), "ls; echo x > f");
    mount.drain();
    assert_eq!(world.client.get(&world.key("large")).sha256, sha256(&large));
    assert_eq!(world.client.get(&world.key("f")).body, b"x\n");
}

#[test]
fn a_broken_download_is_continued_and_never_serves_wrong_bytes() {
    let world = World::new(Server::Sim, "broken");
    let large = noise(6, 12 * MIB);
    let file = world.work.path().join("file");
    fs::write(&file, &large).unwrap();
    world.client.put_file(&world.key("large"), &file);
    world.cloud.truncate_answer("GetObject", 100_000);
    let mount = world.spec().mount();
    assert_eq!(
        sha256(&fs::read(mount.path("large")).unwrap()),
        sha256(&large)
    );
}

#[test]
fn a_version_that_was_replaced_elsewhere_is_never_overwritten_by_an_append() {
    let world = World::new(Server::Sim, "conflict");
    let mount = world.spec().mount();
    shell(mount.dir(), "echo base > f; cat f");
    mount.drain();
    world.client.put(&world.key("f"), b"a stranger's\n");
    world.relay.silence();
    shell(mount.dir(), "echo ours >> f");
    world.relay.open();
    mount.drain();
    let root = world.key("");
    let objects = world.client.tree(&root);
    let of = |wanted: &[u8]| objects.iter().find(|object| object.body == wanted);
    let stranger = of(b"a stranger's\n").expect("the newer one is kept");
    assert_eq!(stranger.key, world.key("f"));
    let ours = of(b"base\nours\n").expect("ours is kept beside it");
    assert!(
        ours.key.starts_with(&world.key("f.conflict-")),
        "{}",
        ours.key
    );
}

#[test]
fn an_unmount_never_waits_for_the_network() {
    let world = World::new(Server::Sim, "umount");
    let mount = world.spec().mount();
    world.relay.silence();
    shell(mount.dir(), "echo later > f");
    let began = Instant::now();
    let spec = mount.unmount();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    world.relay.open();
    let mount = spec.mount();
    mount.drain();
    assert_eq!(world.client.get(&world.key("f")).body, b"later\n");
}

#[test]
fn umount_by_another_hand_ends_the_daemon_in_order() {
    let world = World::new(Server::Sim, "umount8");
    let mut mount = world.spec().mount();
    shell(mount.dir(), "echo x > f");
    shell(
        world.work.path(),
        &format!("umount '{}'", mount.dir().display()),
    );
    eventually("the daemon ends", SOON, || {
        (!mount.is_alive()).then_some(())
    });
    let spec = mount.spec().clone();
    drop(mount);
    let mount = spec.mount();
    mount.drain();
    assert_eq!(world.client.get(&world.key("f")).body, b"x\n");
}

#[test]
fn status_tells_the_queue_its_oldest_and_the_last_error() {
    let world = World::new(Server::Sim, "status");
    let mount = world.spec().mount();
    shell(mount.dir(), "echo x > f; echo y > g");
    mount.drain();
    let quiet = mount.status();
    world
        .cloud
        .refuse("PutObject", 503, "SlowDown", Refusal::Always);
    shell(mount.dir(), "echo later > waiting");
    let busy = eventually("the error is told", SOON, || {
        let status = mount.status();
        status.contains("slow down").then_some(status)
    });
    assert_ne!(busy, quiet);
    world.cloud.clear_faults();
    mount.drain();
}
