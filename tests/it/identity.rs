//! The SIM as the key: what was written under its identity goes nowhere else.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::harness::cloud::Refusal;
use crate::harness::{Mount, Server, World, eventually, noise, shell};

const LIMIT: Duration = Duration::from_secs(60);
const OTHER: &str = "ap-northeast-1:0e0e0e0e-0000-4000-8000-00000000beef";

/// The lease of the SIM that was in the device has ended, and another SIM is in it.
fn swap(world: &World, sim: &str) {
    world.cloud.insert_sim(sim);
    world.cloud.expire_leases();
}

/// Neither Krypton nor S3 can be reached.
fn down(world: &World) {
    let cloud = &world.cloud;
    cloud.refuse("Krypton", 503, "KRY0503", Refusal::Always);
    world.relay.refuse();
}

fn up(world: &World) {
    world.cloud.clear_faults();
    world.relay.open();
}

fn stopped(mount: &Mount) -> Option<String> {
    let stopped = &mount.status_json()["stopped"];
    stopped.as_str().map(str::to_owned)
}

#[test]
fn what_waits_is_kept_from_another_sim_until_somebody_decides() {
    let world = World::new(Server::Sim, "identity-swap");
    let own = world.cloud.identity();
    let spec = world.spec().with("linger", "1h");
    let mount = spec.mount();
    fs::write(mount.path("first"), "1").unwrap();
    mount.drain();
    assert_eq!(mount.status_json()["identity"], own.as_str());

    // Nobody asks the bucket before something waits: else the spool would be an empty one.
    fs::write(mount.path("second"), "2").unwrap();
    swap(&world, OTHER);
    let before = world.cloud.counts();
    assert!(!mount.try_drain(Duration::from_secs(2)));
    let why = eventually("it stops", LIMIT, || stopped(&mount));
    for part in [&own, OTHER, "new_identity=send", "kryptonfs export"] {
        assert!(why.contains(part), "{part} in {why}");
    }
    assert!(mount.log().contains(&why), "{}", mount.log());
    assert!(
        mount
            .status()
            .contains("stopped     the SIM is another one")
    );
    assert_eq!(
        fs::read(mount.path("second")).unwrap(),
        b"2",
        "it goes on here"
    );
    fs::write(mount.path("third"), "3").unwrap();
    assert!(!mount.try_drain(Duration::from_secs(2)));
    let since = world.cloud.counts().since(&before);
    assert_eq!(
        since.all_requests(),
        since.failed,
        "only the old keys were tried"
    );

    // It knows whose it is, before and after a restart, and lets nobody wait.
    let spec = mount.unmount();
    let mount = spec.mount();
    assert!(stopped(&mount).is_some_and(|why| why.contains(&own)));
    assert!(!mount.try_drain(Duration::from_secs(1)));
    assert_eq!(fs::read(mount.path("third")).unwrap(), b"3");

    // The old SIM is back.
    let spec = mount.unmount();
    swap(&world, &own);
    let mount = spec.mount();
    mount.drain();
    assert_eq!(stopped(&mount), None);
    assert_eq!(world.client.get(&world.key("second")).body, b"2");
    assert_eq!(world.client.get(&world.key("third")).body, b"3");
}

#[test]
fn it_is_sent_as_the_new_one_where_the_user_says_so_and_an_empty_spool_goes_with_the_sim() {
    let world = World::new(Server::Sim, "identity-send");
    let spec = world.spec().with("linger", "1h");
    let mount = spec.mount();
    fs::write(mount.path("first"), "1").unwrap();
    mount.drain();

    // Nothing waits: the new SIM is as good as the old one.
    let spec = mount.unmount();
    swap(&world, OTHER);
    let mount = spec.mount();
    fs::write(mount.path("second"), "2").unwrap();
    mount.drain();
    assert_eq!(mount.status_json()["identity"], OTHER);

    let third = OTHER.replace("beef", "cafe");
    fs::write(mount.path("third"), "3").unwrap();
    let spec = mount.unmount();
    swap(&world, &third);
    let mount = spec.mount();
    eventually("it stops", LIMIT, || stopped(&mount));
    let spec = mount.unmount().with("new_identity", "send");
    let mount = spec.mount();
    mount.drain();
    assert_eq!(mount.status_json()["identity"], third.as_str());
    for name in ["first", "second", "third"] {
        assert!(world.client.has(&world.key(name)), "{name}");
    }
}

#[test]
fn the_mount_is_rooted_at_the_identity_and_asks_for_nothing_outside_of_it() {
    let world = World::of_identities("identity-root");
    world.client.put("elsewhere", b"not ours");
    world.client.put(&world.key("there"), b"ours");
    let spec = world.spec().with("linger", "100ms").with("ttl", "1s");
    let mount = spec.mount();
    let before = world.cloud.counts();
    shell(
        mount.dir(),
        "test \"$(ls)\" = there; test \"$(cat there)\" = ours; mkdir d; echo 1 > 'd/a:b c'; \
         cp there copy; echo more >> there; mv 'd/a:b c' d/moved; rm copy; sync",
    );
    // Long enough to be carried out by copies of parts in the bucket.
    let large = noise(7, 12 << 20);
    fs::write(mount.path("large"), &large).unwrap();
    mount.drain();
    shell(
        mount.dir(),
        "cp large twin; echo end >> large; mv twin d/twin",
    );
    mount.drain();
    let keys = world.client.keys("");
    let own: Vec<_> = ["d/", "d/moved", "d/twin", "large", "there"]
        .iter()
        .map(|name| world.key(name))
        .collect();
    let all: Vec<_> = own
        .iter()
        .map(String::as_str)
        .chain(["elsewhere"])
        .collect();
    assert_eq!(keys, all);
    assert_eq!(world.client.get(&world.key("there")).body, b"oursmore\n");
    assert_eq!(
        world.client.get(&world.key("d/twin")).size,
        large.len() as u64
    );
    let since = world.cloud.counts().since(&before);
    assert_eq!(since.failed, 0, "{since:?}");
    assert!(
        since.requests("UploadPartCopy") + since.requests("CopyObject") > 0,
        "{since:?}"
    );
    assert_eq!(
        mount.status_json()["identity"],
        world.cloud.identity().as_str()
    );
}

#[test]
fn the_first_start_without_a_link_queues_below_a_root_that_is_not_known_yet() {
    let world = World::of_identities("identity-first");
    world.client.put(&world.key("there"), b"ours");
    down(&world);
    let spec = world.spec().with("linger", "100ms").with("ttl", "1s");
    let mount = spec.mount();
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/a"), "1").unwrap();
    assert_eq!(mount.status_json()["identity"], Value::Null);
    let spec = mount.unmount();
    let mount = spec.mount();
    assert_eq!(fs::read(mount.path("d/a")).unwrap(), b"1");
    let before = world.cloud.counts();
    up(&world);
    mount.drain();
    assert_eq!(world.client.get(&world.key("d/a")).body, b"1");
    eventually("the bucket is seen", LIMIT, || {
        fs::read(mount.path("there")).ok()
    });
    let since = world.cloud.counts().since(&before);
    assert_eq!(since.failed, 0, "{since:?}");

    // A start without a link knows whose it is, and what it knew.
    let names = shell(mount.dir(), "ls");
    let spec = mount.unmount();
    down(&world);
    let mount = spec.mount();
    assert_eq!(
        mount.status_json()["identity"],
        world.cloud.identity().as_str()
    );
    assert_eq!(shell(mount.dir(), "ls"), names);
}

#[test]
fn a_clean_mount_moves_to_the_root_of_another_sim_and_shows_nothing_of_the_old_one() {
    let world = World::of_identities("identity-moved");
    world.client.put(&format!("{OTHER}/theirs"), b"2");
    let spec = world.spec().with("linger", "100ms").with("ttl", "1s");
    let mount = spec.mount();
    shell(
        mount.dir(),
        "mkdir d; echo 1 > d/mine; echo 1 > mine; ls -R",
    );
    mount.drain();
    swap(&world, OTHER);
    eventually("the other root", LIMIT, || {
        (shell(mount.dir(), "ls") == "theirs\n").then_some(())
    });
    // The kernel may still believe in a name of the old root: what creates it does so here.
    fs::write(mount.path("mine"), "2").unwrap();
    for name in ["d/mine", "d"] {
        eventually("the kernel knows it no more", LIMIT, || {
            fs::metadata(mount.path(name)).is_err().then_some(())
        });
    }
    mount.drain();
    assert_eq!(
        world.client.get(&world.key("mine")).body,
        b"1\n",
        "as it was"
    );
    assert_eq!(world.client.get(&format!("{OTHER}/mine")).body, b"2");
    assert_eq!(world.client.keys(OTHER).len(), 2);

    // Also after a restart without a link.
    let spec = mount.unmount();
    down(&world);
    let mount = spec.mount();
    assert_eq!(shell(mount.dir(), "ls"), "mine\ntheirs\n");
    assert_eq!(mount.status_json()["identity"], OTHER);
}

#[test]
fn a_name_the_kernel_remembers_of_the_old_root_can_be_made_in_the_new_one() {
    let world = World::of_identities("identity-remade");
    let spec = world.spec().with("linger", "100ms").with("ttl", "1h");
    let mount = spec.mount();
    fs::write(mount.path("mine"), "1").unwrap();
    mount.drain();
    swap(&world, OTHER);
    let mut asked = 0..;
    eventually("the other root", LIMIT, || {
        // Each of a name that nobody has asked for yet.
        let _absent = fs::metadata(mount.path(&format!("absent-{}", asked.next()?)));
        (mount.status_json()["identity"] == OTHER).then_some(())
    });
    fs::write(mount.path("mine"), "2").unwrap();
    mount.drain();
    assert_eq!(world.client.get(&world.key("mine")).body, b"1");
    assert_eq!(world.client.get(&format!("{OTHER}/mine")).body, b"2");
    assert_eq!(fs::read(mount.path("mine")).unwrap(), b"2");
}

#[test]
fn what_waits_for_one_root_goes_to_no_other_but_where_the_user_says_so() {
    let world = World::of_identities("identity-kept");
    let spec = world.spec().with("linger", "1h").with("ttl", "1s");
    let mount = spec.mount();
    shell(mount.dir(), "echo 1 > sent; echo 1 > grown; echo 1 > moved");
    mount.drain();
    shell(
        mount.dir(),
        "echo 2 > kept; mkdir d; rm sent; echo 2 >> grown; mv moved d/moved; chmod 600 d/moved",
    );
    swap(&world, OTHER);
    assert!(!mount.try_drain(Duration::from_secs(1)));
    eventually("it stops", LIMIT, || stopped(&mount));
    assert_eq!(fs::read(mount.path("kept")).unwrap(), b"2\n");
    assert!(!mount.try_drain(Duration::from_secs(1)));
    assert_eq!(world.client.keys(OTHER), [""; 0]);

    let spec = mount.unmount().with("new_identity", "send");
    let mount = spec.mount();
    mount.drain();
    let names = ["d/", "d/moved", "grown", "kept"].map(|name| format!("{OTHER}/{name}"));
    assert_eq!(world.client.keys(OTHER), names);
    assert_eq!(world.client.get(&names[1]).body, b"1\n");
    assert_eq!(
        world.client.get(&names[2]).body,
        b"1\n2\n",
        "built on what the cache has"
    );
    assert!(world.client.has(&world.key("sent")), "that of the old SIM");
}
