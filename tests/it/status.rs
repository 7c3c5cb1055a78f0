//! What a mount tells of its link, its credentials and its queue, and how a drain tells its progress.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::mount::BINARY;
use crate::harness::tree::sha256;
use crate::harness::{Mount, Server, World, eventually, noise};

/// Far more than it takes on a machine that does other things as well.
const SOON: Duration = Duration::from_secs(120);

/// A mount one of whose files is half sent: the link went silent.
fn half_sent(world: &World) -> (Mount, Vec<u8>) {
    let spec = world.spec().with("linger", "0s");
    let mut spec = spec
        .with("interface", "lo")
        .with("multipart_threshold", "64MiB");
    spec.options.retain(|(key, _)| key != "network");
    let mount = spec.mount();
    let large = noise(5, 24 << 20);
    world.relay.silence_after(2 << 20);
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/large"), &large).unwrap();
    (mount, large)
}

#[test]
fn link_lease_queue_and_files_in_flight_are_told_while_s3_hangs() {
    let world = World::new(Server::Sim, "told");
    let (mount, large) = half_sent(&world);
    let json = eventually("it is in flight", SOON, || {
        let json = mount.status_json();
        let sent = json["sending"][0]["sent"].as_u64().unwrap_or_default();
        (sent > 1 << 20 && json["rate"].as_u64().unwrap() > 0).then_some(json)
    });
    let one = &json["sending"][0];
    assert_eq!(one["name"], "d/large", "{json}");
    assert_eq!(one["bytes"], large.len(), "{json}");
    let sent = one["sent"].as_u64().unwrap();
    assert!(sent < large.len() as u64, "{json}");
    assert_eq!(json["interface"], "lo", "{json}");
    let addresses = json["addresses"].as_array().unwrap();
    assert!(addresses.contains(&"127.0.0.1".into()), "{json}");
    assert!(json["lease_seconds"].as_u64().unwrap() > 60, "{json}");
    assert_eq!(json["pending_files"], 1, "{json}");
    assert_eq!(json["pending_bytes"], large.len(), "{json}");
    assert!(json["eta_seconds"].as_u64().unwrap() > 0, "{json}");
    eventually("it is told to people", SOON, || {
        let text = mount.status();
        let parts = [
            "address     lo: 127.0.0.1",
            "lease       ends in",
            "% of 24.0 MiB  d/large",
        ];
        parts.iter().all(|part| text.contains(part)).then_some(())
    });
    world.relay.open();
    mount.drain();
    let json = mount.status_json();
    assert_eq!(
        (&json["pending"], &json["pending_files"]),
        (&0.into(), &0.into())
    );
    assert_eq!(json["sending"], serde_json::json!([]));
    let there = world.client.get(&world.key("d/large")).sha256;
    assert_eq!(there, sha256(&large));
}

/// Runs `drain` with these, and what it said on stderr.
fn drained(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(BINARY)
        .arg("drain")
        .args(args)
        .arg(dir)
        .stdout(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn a_drain_tells_what_is_left_as_it_goes_and_why_it_did_not_end() {
    let world = World::new(Server::Sim, "progress");
    let (mount, large) = half_sent(&world);
    let (code, said) = drained(mount.dir(), &["--progress", "--timeout", "4s"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("changes left, 1 of them files, "), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.contains("not all is sent: "), "{said}");
    world.relay.open();
    let (code, said) = drained(mount.dir(), &[]);
    assert_eq!((code, said.as_str()), (Some(0), ""), "nobody looks");
    let there = world.client.get(&world.key("d/large")).sha256;
    assert_eq!(there, sha256(&large));
}
