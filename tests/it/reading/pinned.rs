//! `pin=`: files that are kept whole in the cache.

use std::fs;
use std::time::Duration;

use crate::harness::{Mount, Server, World, eventually, noise, shell};

const LEN: usize = 100_000;

fn seed(world: &World, name: &str, seed: u64) {
    world.cloud.insert(&world.key(name), noise(seed, LEN));
}

fn is_said(mount: &Mount, what: &str) {
    eventually(what, Duration::from_secs(60), || {
        mount.log().contains(what).then_some(())
    });
}

#[test]
fn pinned_files_are_fetched_by_themselves_and_read_without_a_link() {
    let world = World::new(Server::Sim, "pinned");
    for (at, name) in [
        "conf/a.json",
        "conf/b.json",
        "conf/c.txt",
        "deep/x/y/m",
        "other/z",
    ]
    .iter()
    .enumerate()
    {
        seed(&world, name, at as u64);
    }
    let pins = |spec: crate::harness::Spec| {
        let mut spec = spec.with("ttl", "1h").with("read_timeout", "1s");
        for pattern in ["conf/*.json", "deep/**"] {
            spec.options.push(("pin".into(), pattern.into()));
        }
        spec
    };
    let before = world.cloud.counts();
    let mount = pins(world.spec()).mount();
    is_said(&mount, "pinned files are in the cache files=3 bytes=300000");
    let delta = world.cloud.counts().since(&before);
    assert_eq!(delta.data_down, 3 * LEN as u64, "{delta:?}");
    let asked = (delta.requests("GetObject"), delta.requests("HeadObject"));
    assert_eq!(asked, (3, 0), "{delta:?}");
    // The start's, two names (the root is not listed for them), four directories.
    assert!(delta.requests("ListObjectsV2") <= 7, "{delta:?}");
    world.relay.silence();
    for (name, at) in [("conf/a.json", 0), ("conf/b.json", 1), ("deep/x/y/m", 3)] {
        assert!(
            fs::read(mount.path(name)).unwrap() == noise(at, LEN),
            "{name}"
        );
    }
    // What is here stays, and a restart without a link fetches nothing.
    world.relay.open();
    let before = world.cloud.counts();
    let mount = mount.unmount().mount();
    is_said(
        &mount,
        "pinned files are in the cache files=3 bytes=300000 fetched=0",
    );
    let delta = world.cloud.counts().since(&before);
    assert_eq!(delta.data_down, 0, "{delta:?}");
}

#[test]
fn pinned_files_that_changed_are_fetched_again_and_do_not_give_way_to_others() {
    let world = World::new(Server::Sim, "pinned2");
    seed(&world, "keep/a", 1);
    for number in 0..20 {
        seed(&world, &format!("rest/{number}"), 100 + number);
    }
    let spec = world.spec().with("pin", "keep/*").with("pin_every", "1s");
    let spec = spec.with("ttl", "1s").with("cache_max", "1MiB");
    let mount = spec.with("disk_reserve", "1MiB").mount();
    is_said(&mount, "files=1 bytes=100000 fetched=100000");
    seed(&world, "keep/a", 2);
    seed(&world, "keep/b", 3);
    is_said(&mount, "files=2 bytes=200000 fetched=200000");
    // Twice what the cache holds.
    shell(mount.dir(), "cat rest/* > /dev/null");
    let before = world.cloud.counts();
    for (name, at) in [("keep/a", 2), ("keep/b", 3)] {
        assert!(
            fs::read(mount.path(name)).unwrap() == noise(at, LEN),
            "{name}"
        );
    }
    let delta = world.cloud.counts().since(&before);
    assert_eq!(delta.requests("GetObject"), 0, "{delta:?}");
    // More than half of the cache is not taken.
    for number in 0..6 {
        seed(&world, &format!("keep/c{number}"), 10 + number);
    }
    is_said(&mount, "3 pinned files do not fit into half of the cache");
}
