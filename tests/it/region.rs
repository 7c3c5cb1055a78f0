//! A mount that was not told the bucket's region: the bucket is asked for it, once.

use std::fs;

use serde_json::json;

use crate::harness::cloud::{Raw, Tally};
use crate::harness::{Server, Spec, World};

/// Where the bucket is not, and no signature is taken.
const ELSEWHERE: &str = "eu-west-1";

fn without_region(world: &World) -> Spec {
    assert_ne!(world.access.region, ELSEWHERE);
    assert_ne!(world.access.region, "us-east-1", "what is signed for first");
    Spec {
        region: String::new(),
        ..world.spec()
    }
}

/// HeadBucket, and all of S3's requests that were refused, since `start`.
fn asked(world: &World, start: &Tally) -> (u64, u64) {
    let since = world.cloud.counts().since(start);
    (since.requests("HeadBucket"), since.failed)
}

#[test]
fn it_is_learnt_by_one_request_that_no_restart_repeats() {
    let world = World::new(Server::Sim, "learnt");
    let (spec, start) = (without_region(&world), world.cloud.counts());
    let mount = spec.mount();
    fs::write(mount.path("f"), "1").unwrap();
    mount.drain();
    assert_eq!(world.client.get(&world.key("f")).body, b"1");
    // The question itself, signed for the first region there was, is the one that is refused.
    assert_eq!(asked(&world, &start), (1, 1));
    let log = mount.log();
    assert!(
        log.contains(&format!("is in region {}", world.access.region)),
        "{log}"
    );
    let mount = mount.unmount().mount();
    fs::write(mount.path("f"), "2").unwrap();
    mount.drain();
    let mount = mount.kill().mount();
    fs::write(mount.path("f"), "3").unwrap();
    mount.drain();
    assert_eq!(world.client.get(&world.key("f")).body, b"3");
    assert_eq!(asked(&world, &start), (1, 1));
    // Who says it finds the same spool, and asks nobody.
    let mount = Spec {
        region: world.access.region.clone(),
        ..mount.unmount()
    };
    let mount = mount.mount();
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"3");
    assert_eq!(asked(&world, &start), (1, 1));
}

#[test]
fn the_region_krypton_names_is_nobodys_but_its_own() {
    let world = World::new(Server::Sim, "kryptons");
    let keys = world.cloud.keys();
    let body = json!({
        "region": ELSEWHERE,
        "identityId": format!("{ELSEWHERE}:01234567-89ab-cdef-0123-456789abcdef"),
        "credentials": {
            "accessKeyId": keys.access_key,
            "secretKey": keys.secret_key,
            "sessionToken": keys.session_token,
        },
    });
    let answer = Raw {
        status: 200,
        headers: &[("content-type", "application/json")],
        body: &body.to_string(),
    };
    world.cloud.answer("Krypton", &answer, 0, u64::MAX);
    let start = world.cloud.counts();
    let mount = without_region(&world).mount();
    fs::write(mount.path("f"), "1").unwrap();
    mount.drain();
    assert_eq!(world.client.get(&world.key("f")).body, b"1");
    let identity = mount.status_json()["identity"].clone();
    assert!(
        identity.as_str().unwrap().starts_with(ELSEWHERE),
        "{identity}"
    );
    assert_eq!(asked(&world, &start), (1, 1));
}

#[test]
fn a_first_start_without_a_link_queues_until_it_can_be_learnt() {
    let world = World::new(Server::Sim, "first");
    let (spec, start) = (without_region(&world), world.cloud.counts());
    world.relay.refuse();
    let mount = spec.mount();
    let log = mount.log();
    assert!(
        log.contains("mounted offline") && log.contains("region=NAME"),
        "{log}"
    );
    fs::write(mount.path("first"), "1").unwrap();
    let mount = mount.unmount().mount();
    assert_eq!(fs::read(mount.path("first")).unwrap(), b"1");
    assert_eq!(asked(&world, &start), (0, 0));
    world.relay.open();
    mount.drain();
    assert_eq!(world.client.get(&world.key("first")).body, b"1");
    assert_eq!(asked(&world, &start), (1, 1));
    // And another one without a link knows it.
    let spec = mount.unmount();
    world.relay.refuse();
    let mount = spec.mount();
    let log = mount.log();
    assert!(log.contains("mounted offline"), "{log}");
    fs::write(mount.path("second"), "2").unwrap();
    world.relay.open();
    mount.drain();
    assert_eq!(world.client.get(&world.key("second")).body, b"2");
    assert_eq!(asked(&world, &start), (1, 1));
}
