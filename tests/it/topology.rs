//! The article's network, and that nothing of ours ever leaves it: Air, VPG, Junction Redirection,
//! VXLAN, the Gate Peer's NAT, S3 behind a VPC endpoint, all in network namespaces.

use std::fs;
use std::time::Duration;

use crate::doctor::Told;
use crate::harness::field::{Field, Lacks, Leaks, S3};
use crate::harness::{Mount, eventually, noise};

/// Writes a file and waits until an independent client inside of the VPC sees it.
fn arrives(field: &Field, mount: &Mount, name: &str, bytes: &[u8]) {
    fs::write(mount.path(name), bytes).unwrap();
    mount.drain();
    seen(field, name, bytes);
}

fn seen(field: &Field, name: &str, bytes: &[u8]) {
    let object = field.client.get(&format!("device/{name}"));
    assert_eq!(object.size, bytes.len() as u64, "{name}");
    let head = bytes.len().min(object.body.len());
    assert!(object.body[..head] == bytes[..head], "{name}");
}

/// Nothing left by `eth0`, and the counters that say so do count.
fn nothing_leaked(field: &Field) {
    assert_eq!(field.leaks(), Leaks::NONE);
    // An unbound question and an unbound connection: the Internet answers both.
    let s3 = S3.1;
    let question =
        r"printf '\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x01\x00\x01'";
    assert!(field.device_can(&format!("{question} >/dev/udp/8.8.8.8/53")));
    assert!(field.device_can(&format!("exec 3<>/dev/tcp/{s3}/443")));
    let leaks = field.leaks();
    assert!(leaks.packets.iter().all(|count| *count >= 3), "{leaks:?}");
    assert_eq!(leaks.questions, [1, 1], "{leaks:?}");
    assert!(leaks.frames >= 3, "{leaks:?}");
}

#[test]
fn a_mount_writes_and_reads_through_the_articles_network_and_by_no_other_way() {
    let field = Field::new("topology", Lacks::Nothing);
    let mount = field.spec().mount();
    arrives(&field, &mount, "small.txt", b"over the closed network\n");
    let large = noise(1, 9 << 20);
    arrives(&field, &mount, "large.bin", &large);

    field.client.put("device/from-afar.bin", &noise(2, 300_000));
    assert_eq!(
        fs::read(mount.path("from-afar.bin")).unwrap(),
        noise(2, 300_000)
    );
    let names = field.run("ip -n $peer -s -d link show dev vxlan0");
    assert!(names.contains("vxlan id 10"), "{names}");
    assert!(
        field.names.questions() > 0,
        "names are asked on the SIM's side"
    );
    nothing_leaked(&field);
}

#[test]
fn doctor_and_credentials_see_the_whole_way_and_send_nothing_by_another_link() {
    let field = Field::new("doctor", Lacks::Nothing);
    for key in ["inside", "outside"] {
        field.cloud.seed(&format!(".kryptonfs-canary/{key}"), b"");
    }
    let spec = field.spec();
    let told = Told::of(&spec);
    let (s3, way) = (
        S3.1.to_string(),
        "without interface= it would leave by eth0 via 192.168.1.1",
    );
    told.says("interface", "pass", &["wwan0", "10.128.0.2"]);
    told.says(
        "dns",
        "pass",
        &[S3.0, &s3, "100.127.0.53:53", "krypton.soracom.io"],
    );
    told.says("route", "pass", &[&s3, "wwan0", way]);
    told.says(
        "path",
        "pass",
        &[&s3, "at hop 3", "10.128.0.1 ", "10.128.0.254 "],
    );
    told.says("mtu", "pass", &["1400 bytes"]);
    told.says("krypton", "pass", &["krypton.soracom.io:8036"]);
    told.says("canary", "pass", &["VPC endpoint"]);
    assert_eq!(told.code, Some(0), "{:#}", told.report);
    assert!(spec.command(&["credentials"]).status.success());

    let tokens = Told::of(&spec.clone().with("krypton", "tokens"));
    tokens.says("krypton", "pass", &["OpenID token"]);
    tokens.says("cognito", "pass", &["172.31.0.20", "inside"]);
    // Nobody translates what leaves the VPC, so nothing comes back; until somebody does.
    let public = spec.clone().with("public_probe", "8.8.8.8");
    Told::of(&public).says("public", "pass", &["8.8.8.8"]);
    field.run("ip -n $net route add 172.31.0.0/16 via 198.51.100.2");
    let told = Told::of(&public);
    told.says("public", "fail", &["8.8.8.8:443", "Internet gateway"]);
    assert_eq!(told.code, Some(1));
    // Large packets are lost on the way, and nobody says so.
    field.run("small");
    let told = Told::of(&spec);
    told.says("tls", "pass", &[]);
    told.says("mtu", "fail", &["wwan0 mtu 1400"]);
    told.says("list", "skip", &["mtu"]);

    field.run("sim_down");
    let told = Told::of(&spec);
    told.says("interface", "fail", &["wwan0 is down"]);
    assert_eq!(told.code, Some(1));
    // Another issuer than the one whose lease the device still has.
    let away = spec.with("krypton", "tokens");
    assert!(!away.command(&["credentials"]).status.success());
    field.run("ip -n $dev link set wwan0 name wwan9");
    Told::of(&away).says("interface", "fail", &["no interface wwan0"]);
    nothing_leaked(&field);
}

#[test]
fn without_nat_at_the_gate_peer_s3_refuses() {
    let field = Field::new("no-nat", Lacks::Nat);
    let refused = field.spec().refused();
    let line = refused.line(32);
    assert!(
        line.contains("explicit deny in a resource-based policy"),
        "{line}"
    );
    let told = Told::of(&field.spec());
    told.says("path", "pass", &["at hop 3"]);
    told.says(
        "list",
        "fail",
        &["explicit deny in a resource-based policy", "interface="],
    );
    told.says("canary", "warn", &["not proven", "through the endpoint"]);
    // Translated, the same device is let in.
    field.run("nat");
    let mount = field.spec().mount();
    arrives(&field, &mount, "small.txt", b"translated\n");
    nothing_leaked(&field);
}

#[test]
fn a_mount_that_insists_on_the_proof_stops_when_the_path_opens_and_goes_on_when_it_is_closed() {
    let field = Field::new("insists", Lacks::Nothing);
    for key in ["inside", "outside"] {
        field.cloud.seed(&format!(".kryptonfs-canary/{key}"), b"");
    }
    let mount = field.spec().with("closed_check", "mount").mount();
    arrives(&field, &mount, "first.txt", b"through the endpoint\n");
    let stopped = || mount.status_json()["stopped"].as_str().map(str::to_owned);
    assert_eq!(stopped(), None);

    // Back from an outage, packets go to the Internet, where S3 answers too.
    field.run("sim_down; ip -n $air rule del iif ue lookup 100; sim_up");
    let before = field.cloud.counts();
    fs::write(mount.path("kept.txt"), b"kept\n").unwrap();
    let why = eventually("it stops", Duration::from_secs(60), &stopped);
    assert!(why.contains("through the endpoint"), "{why}");
    let since = field.cloud.counts().since(&before);
    assert!(
        since.operations.keys().all(|name| name == "GetObject"),
        "{since:?}"
    );

    field.run("sim_down; ip -n $air rule add iif ue lookup 100; sim_up");
    mount.drain();
    seen(&field, "kept.txt", b"kept\n");
    assert_eq!(stopped(), None);
    nothing_leaked(&field);
}

#[test]
fn without_redirection_s3_refuses() {
    let field = Field::new("no-redirection", Lacks::Redirection);
    let refused = field.spec().refused();
    let line = refused.line(32);
    assert!(
        line.contains("explicit deny in a resource-based policy"),
        "{line}"
    );
    nothing_leaked(&field);
}

#[test]
fn krypton_answers_on_the_sims_side_and_only_its_address() {
    let field = Field::new("krypton", Lacks::Nothing);
    let krypton = "exec 3<>/dev/tcp/54.250.252.67/8036";
    assert!(!field.device_can(krypton), "by eth0, the better way");
    let on_peer = format!("! on $peer bash -c '{krypton}'");
    field.run(&on_peer);
    // Another SIM's address on the same line.
    field.run("ip -n $dev addr add 10.128.0.3/32 dev wwan0");
    let stranger = field.spec().with("source_address", "10.128.0.3");
    let refused = stranger.refused();
    let line = refused.line(32);
    assert!(
        line.contains("Krypton") && line.contains("No such line"),
        "{line}"
    );
    field.spec().mount().unmount();
}

#[test]
fn an_outage_a_flap_an_expiry_and_a_start_in_the_dark_send_nothing_by_the_other_link() {
    let mut field = Field::new("outage", Lacks::Nothing);
    let mount = field.spec().mount();
    arrives(&field, &mount, "before.txt", b"before\n");

    // The keys end.
    field.expire_keys();
    let before = field.cloud.counts();
    arrives(&field, &mount, "expired.txt", b"with new keys\n");
    assert!(field.cloud.counts().since(&before).krypton >= 1);

    // An outage, with the link lost in the middle of an upload.
    let during = noise(3, 9 << 20);
    fs::write(mount.path("during.bin"), &during).unwrap();
    field.run("sim_down");
    fs::write(mount.path("outage.txt"), b"written in the dark\n").unwrap();
    assert_eq!(fs::read(mount.path("before.txt")).unwrap(), b"before\n");
    assert!(fs::read_dir(mount.dir()).unwrap().count() >= 4);

    // Flaps, with the keys ended meanwhile.
    for _ in 0..3 {
        field.run("sim_up; sim_down");
    }
    field.expire_keys();
    let spec = mount.unmount();

    // A start in the dark.
    let mount = spec.mount();
    fs::write(mount.path("started.txt"), b"after a start in the dark\n").unwrap();
    assert_eq!(field.leaks(), Leaks::NONE);
    field.run("sim_up");
    mount.drain();
    seen(&field, "during.bin", &during);
    seen(&field, "outage.txt", b"written in the dark\n");
    seen(&field, "started.txt", b"after a start in the dark\n");
    nothing_leaked(&field);
}
