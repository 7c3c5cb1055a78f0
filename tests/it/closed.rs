//! `closed_check`: nothing but the check is sent while S3 does not say that the path is closed.

use std::fs;
use std::time::Duration;

use crate::harness::{Mount, Server, Spec, World, eventually};

const INSIDE: &str = ".kryptonfs-canary/inside";
const OUTSIDE: &str = ".kryptonfs-canary/outside";
const LIMIT: Duration = Duration::from_secs(60);

/// A bucket with canaries, and a mount that asks them.
fn checked(name: &str, when: &str) -> (World, Spec) {
    let world = World::new(Server::Sim, name);
    for key in [INSIDE, OUTSIDE] {
        world.client.put(key, b"");
    }
    let spec = world
        .spec()
        .with("network", "closed")
        .with("interface", "lo");
    (world, spec.with("closed_check", when).with("linger", "0s"))
}

/// S3 refuses this canary from now on, and no other.
fn refuse(world: &World, key: &str) {
    world.cloud.clear_faults();
    world
        .cloud
        .refuse_key("GetObject", key, 403, "AccessDenied");
}

/// What `status` says of it, and why nothing is sent.
fn closed(mount: &Mount) -> (String, Option<String>) {
    let status = mount.status_json();
    let text = |name: &str| status[name].as_str().map(str::to_owned);
    (text("closed").unwrap(), text("stopped"))
}

#[test]
fn a_proven_mount_costs_two_small_requests_more_and_none_while_it_is_idle() {
    let (world, spec) = checked("closed-proven", "mount");
    refuse(&world, OUTSIDE);
    let before = world.cloud.counts();
    let mount = spec.mount();
    fs::write(mount.path("a"), b"a").unwrap();
    mount.drain();
    let since = world.cloud.counts().since(&before);
    let operations: Vec<_> = since.operations.into_iter().collect();
    // The listings are those of the mount itself, and of the directory that is written to.
    let want = [("GetObject", 2), ("ListObjectsV2", 2), ("PutObject", 1)];
    assert_eq!(
        operations,
        want.map(|(name, count)| (name.to_owned(), count))
    );
    let (text, stopped) = closed(&mount);
    assert!(text.starts_with("proven"), "{text}");
    assert_eq!(stopped, None);
    assert!(
        mount.status().contains("closed      proven"),
        "{}",
        mount.status()
    );
}

#[test]
fn without_the_proof_nothing_else_is_sent_what_is_written_stays_and_follows_by_itself() {
    let (world, spec) = checked("closed-open", "mount");
    // The way is not through the endpoint: `outside` can be read.
    let before = world.cloud.counts();
    let mount = spec.mount();
    fs::write(mount.path("kept"), b"kept on the device").unwrap();
    assert_eq!(fs::read(mount.path("kept")).unwrap(), b"kept on the device");
    assert!(fs::read(mount.path("unknown")).is_err());
    assert!(!mount.try_drain(Duration::from_secs(2)));
    let since = world.cloud.counts().since(&before);
    let others: Vec<_> = since
        .operations
        .keys()
        .filter(|name| *name != "GetObject")
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!((since.data_up, since.operations["GetObject"] % 2), (0, 0));

    let (text, stopped) = closed(&mount);
    assert!(text.starts_with("NOT PROVEN"), "{text}");
    let why = stopped.expect("it is said");
    assert!(why.contains(OUTSIDE), "{why}");
    assert_eq!(mount.status_json()["pending"], 1);
    assert!(mount.status().contains("stopped "), "{}", mount.status());

    refuse(&world, OUTSIDE);
    mount.drain();
    assert_eq!(
        world.client.get(&world.key("kept")).body,
        b"kept on the device"
    );
    assert_eq!(closed(&mount).1, None);
}

#[test]
fn a_bucket_without_canaries_is_told_what_to_do_and_works_where_nobody_asks() {
    let world = World::new(Server::Sim, "closed-unset");
    let spec = world.spec().with("linger", "0s");
    let mount = spec.clone().with("closed_check", "periodic").mount();
    fs::write(mount.path("a"), b"a").unwrap();
    eventually("it is asked", LIMIT, || {
        closed(&mount).1?.contains("--setup-canary").then_some(())
    });
    mount.unmount();
    let mount = spec.mount();
    mount.drain();
    assert_eq!(world.client.get(&world.key("a")).body, b"a");
    assert_eq!(closed(&mount), (String::new(), None));
}
