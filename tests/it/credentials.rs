//! `kryptonfs credentials`, as the AWS CLI and boto3 use it by `credential_process`.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::harness::mount::BINARY;
use crate::harness::servers::{aws, python};
use crate::harness::{Server, World, eventually, shell};

const LIMIT: Duration = Duration::from_secs(120);

/// A configuration file for the world's Krypton, and one of the AWS tools that names it.
struct Device {
    world: World,
    options: PathBuf,
    aws: PathBuf,
}

impl Device {
    fn new(name: &str) -> Self {
        let world = World::new(Server::Sim, name);
        let spec = world.spec();
        let options = world.work.path().join("field.toml");
        let ca = spec.ca_file.display();
        let text = format!(
            "network = 'open'\nkrypton_url = '{}'\nca_file = '{ca}'\nregion = '{}'\nlinger = '1s'\n",
            spec.krypton, spec.region
        );
        fs::write(&options, text).unwrap();
        let aws = world.work.path().join("aws-config");
        let text = format!(
            "[profile field]\ncredential_process = {BINARY} credentials --config {}\nregion = {}\n\
             endpoint_url = {}\nca_bundle = {ca}\ns3 =\n  addressing_style = path\n",
            options.display(),
            spec.region,
            world.cloud.s3_url(),
        );
        fs::write(&aws, text).unwrap();
        Self {
            world,
            options,
            aws,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["-k", "1", "300", BINARY, "credentials", "--config"])
            .arg(&self.options)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn told(&self) -> Value {
        told(self.command().output().unwrap())
    }

    /// Runs a shell script with the profile.
    fn with_profile(&self, script: &str) -> String {
        let config = self.aws.display();
        let before = format!(
            "export AWS_CONFIG_FILE={config} AWS_SHARED_CREDENTIALS_FILE=/dev/null \
             AWS_PROFILE=field AWS_EC2_METADATA_DISABLED=true AWS_PAGER="
        );
        shell(self.world.work.path(), &format!("{before}\n{script}"))
    }
}

fn told(output: Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON and nothing else")
}

fn seconds(expiration: &Value) -> u64 {
    let text = expiration.as_str().expect("always there");
    let command = Command::new("date")
        .args(["-u", "+%s", "-d", text])
        .output();
    let told = command.unwrap();
    assert!(text.ends_with('Z') && told.status.success(), "{text}");
    String::from_utf8(told.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn the_aws_cli_and_boto3_show_the_prefixes_and_fifty_calls_are_one_request_to_krypton() {
    let device = Device::new("credentials-aws");
    let (cloud, bucket) = (&device.world.cloud, &device.world.access.bucket);
    device.world.client.put("camera/1.jpg", b"picture");
    device.world.client.put("log/1.txt", b"line");
    let before = cloud.counts();

    let aws = aws();
    let listed = device.with_profile(&format!("{} s3 ls s3://{bucket}/", aws.display()));
    let lines: Vec<_> = listed.lines().map(str::trim).collect();
    assert_eq!(lines, ["PRE camera/", "PRE log/"]);
    let script = format!(
        "import boto3; c = boto3.client('s3'); \
         a = c.list_objects_v2(Bucket='{bucket}', Delimiter='/'); \
         print(*[p['Prefix'] for p in a['CommonPrefixes']])"
    );
    let listed = device.with_profile(&format!("{} -c \"{script}\"", python().display()));
    assert_eq!(listed.trim(), "camera/ log/");

    let first = device.told();
    for _ in 0..49 {
        assert_eq!(device.told(), first);
    }
    let since = cloud.counts().since(&before);
    assert_eq!((since.krypton, since.failed), (1, 0), "{since:?}");

    assert_eq!(first["Version"], 1, "a number");
    let mut keys: Vec<_> = first.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "AccessKeyId",
            "Expiration",
            "SecretAccessKey",
            "SessionToken",
            "Version"
        ]
    );
    assert!(seconds(&first["Expiration"]) > now() + 15 * 60);
}

#[test]
fn a_mount_and_whoever_asks_beside_it_use_one_lease() {
    let device = Device::new("credentials-shared");
    let before = device.world.cloud.counts();
    let mount = device.world.spec().mount();
    fs::write(mount.path("a"), "a").unwrap();
    mount.drain();
    let asked = device.told();
    let spec = mount.unmount();
    let mount = spec.mount();
    fs::write(mount.path("b"), "b").unwrap();
    mount.drain();
    assert_eq!(device.told(), asked);
    let since = device.world.cloud.counts().since(&before);
    assert_eq!(since.krypton, 1, "{since:?}");
}

#[test]
fn a_hundred_at_expiry_are_one_request_to_krypton() {
    let device = Device::new("credentials-expiry");
    let cloud = &device.world.cloud;
    cloud.set_lease_life(Duration::from_secs(3));
    let first = device.told();
    // The end is the server's, and it runs by the clock of this machine.
    let end = seconds(&first["Expiration"]) + 2;
    eventually("the lease is over", LIMIT, || (now() > end).then_some(()));
    cloud.set_lease_life(Duration::from_secs(3600));
    let before = cloud.counts();
    let all: Vec<Child> = (0..100)
        .map(|_| device.command().spawn().unwrap())
        .collect();
    let mut seen: Vec<_> = all
        .into_iter()
        .map(|child| told(child.wait_with_output().unwrap()))
        .collect();
    seen.dedup();
    assert_eq!(seen.len(), 1, "one lease for all");
    assert_ne!(seen[0]["AccessKeyId"], first["AccessKeyId"]);
    let since = cloud.counts().since(&before);
    assert_eq!(since.krypton, 1, "{since:?}");
}

#[test]
fn without_credentials_there_is_one_line_on_stderr_and_nothing_on_stdout() {
    let device = Device::new("credentials-refused");
    let cloud = &device.world.cloud;
    cloud.refuse(
        "Krypton",
        403,
        "KRY0403",
        crate::harness::cloud::Refusal::Always,
    );
    let before = cloud.counts();
    for _ in 0..3 {
        let output = device.command().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(
            line.starts_with("kryptonfs: no credentials: Krypton"),
            "{line}"
        );
        assert!(line.contains("403") && line.lines().count() == 1, "{line}");
    }
    let since = cloud.counts().since(&before);
    assert!((1..=3).contains(&since.krypton), "{since:?}");

    let mut command = Command::new(BINARY);
    let closed = command.args(["credentials", "bucket"]).output().unwrap();
    let line = String::from_utf8(closed.stderr).unwrap();
    assert!(line.contains("interface="), "{line}");
    assert_eq!(closed.status.code(), Some(1));
}
