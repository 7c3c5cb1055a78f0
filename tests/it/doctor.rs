//! `kryptonfs doctor` against the simulated cloud: all well, and each thing that can be wrong.

use serde_json::Value;

use crate::harness::cloud::Refusal;
use crate::harness::{Server, Spec, World};

const INSIDE: &str = ".kryptonfs-canary/inside";
const OUTSIDE: &str = ".kryptonfs-canary/outside";

/// What it said.
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) report: Value,
}

fn examined(spec: &Spec) -> Told {
    Told::of(spec)
}

impl Told {
    /// Of that place with those options, where its mount would run.
    pub(crate) fn of(spec: &Spec) -> Self {
        let output = spec.command(&["doctor", &spec.source, "--json"]);
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{output:?}");
        Self {
            code: output.status.code(),
            report: serde_json::from_str(&text).expect("one line of JSON"),
        }
    }

    fn rows(&self) -> &[Value] {
        self.report["rows"].as_array().unwrap()
    }

    fn row(&self, check: &str) -> &Value {
        let mut rows = self.rows().iter();
        let row = rows.find(|row| row["check"] == check);
        row.unwrap_or_else(|| panic!("{check}: {:#}", self.report))
    }

    /// The row ended like this, and says all these words.
    pub(crate) fn says(&self, check: &str, verdict: &str, words: &[&str]) {
        let row = self.row(check);
        assert_eq!(row["verdict"], verdict, "{check}: {:#}", self.report);
        let text = format!("{} {}", row["seen"], row["do"]);
        for word in words {
            assert!(text.contains(word), "{check} without {word:?}: {text}");
        }
    }
}

/// As on a device: closed, by the interface.
fn closed(world: &World) -> Spec {
    let spec = world.spec().with("network", "closed");
    spec.with("interface", "lo")
}

/// The canaries are there, and the way is through the endpoint.
fn proven(world: &World) {
    for key in [INSIDE, OUTSIDE] {
        world.client.put(key, b"");
    }
    world
        .cloud
        .refuse_key("GetObject", OUTSIDE, 403, "AccessDenied");
}

#[test]
fn on_a_healthy_way_every_row_passes_and_the_exit_code_is_0() {
    let world = World::new(Server::Sim, "doctor-healthy");
    proven(&world);
    world.client.put("pre/fix/theirs", b"bytes");
    let keys = world.client.keys("");
    // Its name is not known here.
    let spec = closed(&world)
        .with("dns", "127.0.0.1:1")
        .with("public_probe", "www.example.com");
    let before = world.cloud.counts();
    let told = examined(&spec);
    let since = world.cloud.counts().since(&before);
    let operation = |name: &str| since.operations.get(name).copied().unwrap_or_default();
    for (name, count) in [
        ("ListObjectsV2", 1),
        ("PutObject", 3),
        ("GetObject", 3),
        ("CopyObject", 1),
        ("CreateMultipartUpload", 2),
        ("UploadPart", 1),
        ("ListParts", 1),
        ("CompleteMultipartUpload", 1),
        ("AbortMultipartUpload", 1),
        ("DeleteObject", 4),
        ("ListMultipartUploads", 1),
    ] {
        assert_eq!(operation(name), count, "{name}: {since:?}");
    }
    assert_eq!(world.client.keys(""), keys, "the bucket is as before");
    for row in told.rows() {
        assert_eq!(row["verdict"], "pass", "{row}");
        assert!(row["do"].as_str().unwrap().is_empty(), "{row}");
    }
    assert_eq!(told.code, Some(0));
    assert_eq!(told.report["version"], 1);
    assert_eq!(told.report["verdict"], "pass");
    assert_eq!(told.report["source"], spec.source.as_str());
    assert_eq!(since.krypton, 1);

    let output = spec.command(&["doctor", &spec.source]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), told.rows().len() + 1, "{text}");
    assert!(
        text.contains("PASS  tls") && output.stderr.is_empty(),
        "{text}"
    );
}

#[test]
fn each_thing_that_is_wrong_fails_its_own_row_with_its_cure() {
    let world = World::new(Server::Sim, "doctor-wrong");
    let spec = closed(&world);
    let fails = |spec: &Spec, check: &str, words: &[&str]| {
        let told = examined(spec);
        told.says(check, "fail", words);
        assert_eq!(
            (told.code, &told.report["verdict"]),
            (Some(1), &"fail".into())
        );
        let failed = told.rows().iter().filter(|row| row["verdict"] == "fail");
        assert_eq!(failed.count(), 1, "{check}: {:#}", told.report);
        told
    };
    let absent = spec.clone().with("interface", "kfs-none0");
    let told = fails(&absent, "interface", &["kfs-none0", "ip link"]);
    told.says("bucket", "skip", &["interface"]);

    let mut nameless = spec.clone();
    nameless.endpoint = "https://s3.nowhere.invalid".into();
    let nameless = nameless.with("dns", "127.0.0.1:1");
    fails(&nameless, "dns", &["s3.nowhere.invalid", "100.127.0.53"]);

    let ruled = spec.clone().with("allow", "10.0.0.0/8");
    let told = examined(&ruled);
    told.says("dns", "fail", &["allow="]);

    let mut stranger = spec.clone();
    stranger.endpoint = world
        .cloud
        .s3_url()
        .replace("127.0.0.1", "s3.elsewhere.test");
    let stranger = stranger.with("resolve", "s3.elsewhere.test=127.0.0.1");
    fails(&stranger, "tls", &["s3.elsewhere.test", "endpoint_url"]);

    let mut bucket = spec.clone();
    bucket.source = "s3://nobodys-bucket/p".into();
    fails(&bucket, "bucket", &["nobodys-bucket", "name"]);

    let mut region = spec.clone();
    region.region = "eu-north-1".into();
    fails(&region, "region", &["region=ap-northeast-1"]);

    let cloud = &world.cloud;
    cloud.refuse("Krypton", 403, "KRY0403", Refusal::Always);
    let told = fails(&spec, "krypton", &["403", "enable Krypton"]);
    told.says("lease", "skip", &["krypton"]);
    cloud.clear_faults();
    cloud.refuse("ListObjectsV2", 403, "AccessDenied", Refusal::Always);
    fails(&spec, "list", &["s3:ListBucket"]);
    cloud.clear_faults();

    let public = spec
        .clone()
        .with("public_probe", &world.relay.address().to_string());
    fails(&public, "public", &["Internet gateway"]);
}

#[test]
fn each_right_that_is_denied_fails_its_own_row_and_nothing_is_left() {
    let world = World::new(Server::Sim, "doctor-rights");
    world.client.put("pre/fix/theirs", b"bytes");
    let (spec, keys) = (closed(&world), world.client.keys(""));
    for (operation, check, action) in [
        ("PutObject", "put", "s3:PutObject"),
        ("GetObject", "get", "s3:GetObject"),
        ("CopyObject", "copy", "s3:GetObject"),
        (
            "AbortMultipartUpload",
            "multipart",
            "s3:AbortMultipartUpload",
        ),
        ("ListParts", "multipart", "s3:ListMultipartUploadParts"),
    ] {
        world
            .cloud
            .refuse_key(operation, ".kryptonfs-doctor-", 403, "AccessDenied");
        let told = examined(&spec);
        told.says(check, "fail", &[action, "AccessDenied"]);
        assert_eq!(told.code, Some(1));
        world.cloud.clear_faults();
        assert_eq!(world.client.keys(""), keys, "{operation}");
    }
    world
        .cloud
        .refuse("DeleteObject", 403, "AccessDenied", Refusal::Always);
    let told = examined(&spec);
    told.says(
        "delete",
        "fail",
        &["s3:DeleteObject", "left there", ".kryptonfs-doctor-"],
    );
}

#[test]
fn the_canaries_are_set_up_once_and_tell_a_closed_path_from_an_open_one() {
    let world = World::new(Server::Sim, "doctor-canary");
    let spec = closed(&world);
    let told = examined(&spec);
    told.says("canary", "warn", &["not proven", "--setup-canary"]);
    assert_eq!(told.code, Some(0));

    let set_up = |code, verdict, words: &[&str]| {
        let output = spec.command(&["doctor", &spec.source, "--json", "--setup-canary"]);
        let report = serde_json::from_slice(&output.stdout).unwrap();
        let told = Told {
            code: output.status.code(),
            report,
        };
        told.says("setup", verdict, words);
        assert_eq!(told.code, Some(code));
    };
    world
        .cloud
        .refuse_key("PutObject", ".kryptonfs-canary/", 403, "AccessDenied");
    set_up(1, "fail", &["administrator", "aws s3api put-object"]);
    world.cloud.clear_faults();
    // No policy is there yet, so both can be read.
    set_up(1, "pass", &["packaging/aws/kryptonfs.yaml"]);
    world.client.put(INSIDE, b"another body");
    assert_eq!(world.client.keys(".kryptonfs-canary/"), [INSIDE, OUTSIDE]);
    examined(&spec).says("canary", "fail", &["outside was read", "route table"]);

    world
        .cloud
        .refuse_key("GetObject", OUTSIDE, 403, "AccessDenied");
    set_up(0, "pass", &[]);
    examined(&spec).says("canary", "pass", &["VPC endpoint"]);
    let body = world.client.get(INSIDE).body;
    assert_eq!(body, b"another body", "it was left as it was");

    world.cloud.clear_faults();
    world
        .cloud
        .refuse_key("GetObject", INSIDE, 403, "AccessDenied");
    examined(&spec).says("canary", "fail", &["not through the endpoint"]);
}

#[test]
fn beside_a_mount_with_unsent_data_nothing_of_it_is_touched() {
    let world = World::new(Server::Sim, "doctor-beside");
    let spec = closed(&world).with("linger", "1h");
    let mount = spec.mount();
    std::fs::write(mount.path("unsent"), b"bytes").unwrap();
    let files = || crate::harness::shell(&spec.spool, "find . -type f | sort | xargs md5sum");
    let before = (files(), mount.status_json()["pending"].clone());
    let told = examined(&spec);
    assert_eq!(told.code, Some(0), "{:#}", told.report);
    told.says("spool", "pass", &[]);
    assert_eq!((files(), mount.status_json()["pending"].clone()), before);
    assert_eq!(std::fs::read(mount.path("unsent")).unwrap(), b"bytes");
}

#[test]
fn what_only_should_be_known_warns_and_the_exit_code_is_0() {
    let world = World::new(Server::Sim, "doctor-warns");
    let told = examined(&world.spec());
    told.says("interface", "warn", &["interface=", "network=open"]);
    told.says("canary", "skip", &["interface="]);
    told.says("public", "skip", &["public_probe="]);
    assert_eq!(
        (told.code, &told.report["verdict"]),
        (Some(0), &"warn".into())
    );
}

#[test]
fn a_spool_in_memory_warns_and_a_read_only_mount_writes_nothing() {
    let world = World::new(Server::Sim, "doctor-disks");
    let mut spec = closed(&world).with("ro", "true");
    let memory = format!("/dev/shm/kryptonfs-doctor-{}", std::process::id());
    spec.spool = memory.clone().into();
    let before = world.cloud.counts();
    let told = examined(&spec);
    told.says("spool", "warn", &["tmpfs", "power"]);
    told.says("put", "skip", &["ro"]);
    assert_eq!(world.cloud.counts().since(&before).data_up, 0);
    assert!(!std::path::Path::new(&memory).exists(), "it is not made");
    let full = closed(&world).with("disk_reserve", "1000TiB");
    examined(&full).says("cache", "fail", &["disk_reserve"]);
}

#[test]
fn with_prefix_identity_all_rows_look_at_the_identitys_own_folder() {
    let world = World::of_identities("doctor-identity");
    world.client.put(&world.key("theirs"), b"bytes");
    let keys = world.client.keys(&world.key(""));
    let told = examined(&closed(&world));
    for check in [
        "list",
        "put",
        "get",
        "copy",
        "multipart",
        "delete",
        "uploads",
    ] {
        told.says(check, "pass", &[]);
    }
    // The role of this bucket may not read them.
    told.says("canary", "warn", &["both canaries are refused"]);
    assert_eq!(told.code, Some(0), "{:#}", told.report);
    assert_eq!(world.client.keys(&world.key("")), keys);
}

/// No row fails: what the server ignores is a warning; and the bucket is as before.
fn well_with(server: Server) {
    let world = World::new(server, "doctor-servers");
    world.client.put(&world.key("theirs"), b"bytes");
    let keys = world.client.keys("");
    let told = examined(&world.spec());
    assert_eq!(told.code, Some(0), "{:#}", told.report);
    for check in ["list", "put", "get", "copy", "multipart", "delete", "mtu"] {
        told.says(check, "pass", &[]);
    }
    let row = told.row("preconditions");
    assert!(
        row["verdict"] == "pass" || row["verdict"] == "warn",
        "{row}"
    );
    assert_eq!(world.client.keys(""), keys);
    assert!(world.client.uploads().is_empty());
}

#[test]
fn with_seaweed_no_row_fails_and_the_bucket_is_as_before() {
    well_with(Server::Seaweed);
}

#[test]
fn with_radosgw_no_row_fails_and_the_bucket_is_as_before() {
    well_with(Server::Radosgw);
}

#[test]
fn a_bad_option_is_one_line_on_stderr() {
    let world = World::new(Server::Sim, "doctor-usage");
    let spec = world.spec().with("network", "closed");
    let output = spec.command(&["doctor", &spec.source]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(
        line.contains("interface=") && line.lines().count() == 1,
        "{line}"
    );
    assert!(output.stdout.is_empty());
}
