//! `kryptonfs doctor` against the simulated cloud: all well, and each thing that can be wrong.

use serde_json::Value;

use crate::harness::cloud::Refusal;
use crate::harness::{Server, Spec, World};

/// What it said.
struct Told {
    code: Option<i32>,
    report: Value,
}

fn examined(spec: &Spec) -> Told {
    let output = spec.command(&["doctor", &spec.source, "--json"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{output:?}");
    Told {
        code: output.status.code(),
        report: serde_json::from_str(&text).expect("one line of JSON"),
    }
}

impl Told {
    fn rows(&self) -> &[Value] {
        self.report["rows"].as_array().unwrap()
    }

    fn row(&self, check: &str) -> &Value {
        let mut rows = self.rows().iter();
        let row = rows.find(|row| row["check"] == check);
        row.unwrap_or_else(|| panic!("{check}: {:#}", self.report))
    }

    /// The row ended like this, and says all these words.
    fn says(&self, check: &str, verdict: &str, words: &[&str]) {
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

#[test]
fn on_a_healthy_way_every_row_passes_and_the_exit_code_is_0() {
    let world = World::new(Server::Sim, "doctor-healthy");
    let spec = closed(&world);
    let before = world.cloud.counts();
    let told = examined(&spec);
    for row in told.rows() {
        assert_eq!(row["verdict"], "pass", "{row}");
        assert!(row["do"].as_str().unwrap().is_empty(), "{row}");
    }
    assert_eq!(told.code, Some(0));
    assert_eq!(told.report["version"], 1);
    assert_eq!(told.report["verdict"], "pass");
    assert_eq!(told.report["source"], spec.source.as_str());
    assert_eq!(world.cloud.counts().since(&before).krypton, 1);

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
}

#[test]
fn what_only_should_be_known_warns_and_the_exit_code_is_0() {
    let world = World::new(Server::Sim, "doctor-warns");
    let told = examined(&world.spec());
    told.says("interface", "warn", &["interface=", "network=open"]);
    assert_eq!(
        (told.code, &told.report["verdict"]),
        (Some(0), &"warn".into())
    );
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
