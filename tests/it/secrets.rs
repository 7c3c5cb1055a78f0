//! Nothing tells a secret: not the log at any level, not `status`, not the process list, not a core,
//! not a file but those in memory. Canaries are planted in all that Krypton, Cognito and S3 say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::cloud::Raw;
use crate::harness::mount::BINARY;
use crate::harness::world::Issue;
use crate::harness::{Keys, Mount, Server, TestCloud, World, eventually, noise, shell, try_shell};

const LIMIT: Duration = Duration::from_secs(60);
const ID: &str = "ASIACANARY0123456789";
const SECRET: &str = "CanarySecretKey/wJalrXUtnFEMI+K7MDENG0bPx";
const SESSION: &str = "CanarySessionToken/FwoGZXIvYXdzEBYaDKJ0x1x2y3z4AbCdEf==";
const OPEN_ID: &str = "CanaryOpenIdToken0.eyJzdWIiOiJhcC1ub3J0aGVhc3QtMTEifQ.Sl9CAnArY1";

/// The name of the canary that is in `bytes`.
fn found(bytes: &[u8]) -> Option<&'static str> {
    let has = |canary: &str| {
        let start = &canary.as_bytes()[..20];
        bytes.windows(start.len()).any(|piece| piece == start)
    };
    [SECRET, SESSION, OPEN_ID]
        .into_iter()
        .find(|canary| has(canary))
}

fn none_in(what: &str, bytes: &[u8]) {
    let told = found(bytes);
    assert_eq!(told, None, "{what}: {}", String::from_utf8_lossy(bytes));
}

/// Files below `dir`, not through links.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => todo.push(entry.path()),
                Ok(kind) if kind.is_file() => all.push(entry.path()),
                _ => {}
            }
        }
    }
    all
}

fn is_in_memory(path: &Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
}

/// Where the mount could have written, but for the cloud's own storage and what is mounted.
fn written(world: &World, mount: &Mount) -> Vec<PathBuf> {
    let spec = mount.spec();
    let lease = ["/run/kryptonfs", "/dev/shm/kryptonfs-0", "/tmp/kryptonfs-0"];
    let mut dirs: Vec<PathBuf> = lease.iter().map(PathBuf::from).collect();
    dirs.extend([spec.spool.clone(), spec.cache.clone()]);
    let mut all: Vec<_> = dirs.iter().flat_map(|dir| files(dir)).collect();
    all.push(spec.log.clone());
    all.extend(
        world
            .work
            .path()
            .read_dir()
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_type().ok()?.is_file().then(|| entry.path())),
    );
    all
}

/// Nothing is told by the mount in any way there is. `shared`: its lease is in memory.
fn tells_nothing(world: &World, mount: &Mount, shared: bool) {
    none_in("the log", mount.log().as_bytes());
    none_in("status", mount.status().as_bytes());
    none_in("status --json", mount.status_json().to_string().as_bytes());
    let process = PathBuf::from(format!("/proc/{}", mount.pid()));
    for name in ["cmdline", "environ", "comm"] {
        none_in(name, &fs::read(process.join(name)).unwrap());
    }
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<_> = core.unwrap().split_whitespace().skip(4).take(2).collect();
    assert_eq!(core, ["0", "0"], "no core is written");
    // Files may go while it is looked (status 2 with a line of its own).
    let grep = Command::new("grep")
        .args([
            "-lsF",
            "-e",
            &SECRET[..20],
            "-e",
            &SESSION[..20],
            "-e",
            &OPEN_ID[..20],
            "--",
        ])
        .args(written(world, mount))
        .output()
        .unwrap();
    let telling = String::from_utf8(grep.stdout).unwrap();
    let is_lease = |path: &&str| path.ends_with(".lease") && is_in_memory(Path::new(path));
    let (leases, others): (Vec<_>, Vec<_>) = telling.lines().partition(is_lease);
    assert_eq!(others, [""; 0], "on the disk");
    if shared {
        assert!(
            !leases.is_empty(),
            "the canaries were planted, and looked for"
        );
    }
}

fn answer(cloud: &TestCloud, operation: &str, (status, kind): (u16, &str), body: &str, times: u64) {
    let headers = [("content-type", kind)];
    let raw = Raw {
        status,
        headers: &headers,
        body,
    };
    cloud.answer(operation, &raw, 0, times);
}

/// An error of S3 that says all it was told back, as some servers do.
fn told_back(code: &str) -> String {
    format!(
        "<Error><Code>{code}</Code><Message>{SECRET} and {SESSION} are no good, nor {OPEN_ID}</Message>\
         <Token-0>{SESSION}</Token-0><Region>{SECRET}</Region></Error>"
    )
}

fn work(mount: &Mount) {
    shell(
        mount.dir(),
        "mkdir d; echo 1 > d/a; cat d/a; mv d/a b; ln -s b c; chmod 600 b; ls -lR; rm c",
    );
    fs::write(mount.path("large"), noise(1, 9 << 20)).unwrap();
}

#[test]
fn no_secret_is_told_by_log_status_process_core_or_disk() {
    let keys = Keys {
        access_key: ID.into(),
        secret_key: SECRET.into(),
        session_token: Some(SESSION.into()),
    };
    let world = World::with_keys(Server::Sim, "secrets", Issue::Fixed(keys));
    let cloud = &world.cloud;
    let spec = world.spec().with("log", "trace").with("linger", "100ms");
    let mount = spec.mount();
    work(&mount);
    mount.drain();
    tells_nothing(&world, &mount, true);

    // Whatever is refused, in whatever words.
    let xml = "application/xml";
    for (operation, status, code) in [
        ("ListObjectsV2", 301, "PermanentRedirect"),
        ("HeadObject", 403, "InvalidToken"),
        ("PutObject", 403, "AccessDenied"),
    ] {
        answer(cloud, operation, (status, xml), &told_back(code), 1);
    }
    fs::write(mount.path("refused"), "1").unwrap();
    let told = |what: &str| {
        eventually(what, LIMIT, || mount.log().contains(what).then_some(()));
    };
    eventually("S3 refuses it", LIMIT, || {
        mount.status().contains("AccessDenied").then_some(())
    });
    tells_nothing(&world, &mount, true);
    let names = try_shell(mount.dir(), "ls d nothing; cat b");
    none_in("ls", &names.stderr);
    answer(
        cloud,
        "PutObject",
        (403, xml),
        &told_back("SignatureDoesNotMatch"),
        1,
    );
    let retried = Command::new(BINARY).arg("retry").arg(mount.dir()).output();
    none_in("retry", &retried.unwrap().stderr);
    told("SignatureDoesNotMatch");
    answer(
        cloud,
        "PutObject",
        (400, xml),
        &told_back("ExpiredToken"),
        1,
    );
    answer(
        cloud,
        "Krypton",
        (403, "application/json"),
        &answer_of_krypton(),
        1,
    );
    told("Krypton answered 403");
    tells_nothing(&world, &mount, false);
    cloud.clear_faults();
    mount.drain();
    tells_nothing(&world, &mount, true);

    // It is ended as a debugger's prey would be, and leaves no core.
    assert!(!mount.abort(), "a core was written");
}

/// Krypton's answer with credentials, under a status that says no.
fn answer_of_krypton() -> String {
    let credentials = json!({
        "accessKeyId": ID, "secretKey": SECRET, "sessionToken": SESSION,
    });
    json!({ "identityId": "r:0", "message": OPEN_ID, "credentials": credentials }).to_string()
}

#[test]
fn no_token_is_told_by_the_way_over_cognito() {
    let keys = Keys {
        access_key: ID.into(),
        secret_key: SECRET.into(),
        session_token: Some(SESSION.into()),
    };
    let world = World::with_keys(Server::Sim, "secrets-token", Issue::Fixed(keys));
    let cloud = &world.cloud;
    let region = cloud.region();
    let token = json!({ "region": region, "identityId": cloud.identity(), "token": OPEN_ID });
    let credentials = json!({ "AccessKeyId": ID, "SecretKey": SECRET, "SessionToken": SESSION });
    let lease = json!({ "IdentityId": cloud.identity(), "Credentials": credentials });
    let refused = json!({
        "__type": "NotAuthorizedException",
        "message": format!("Invalid login token {OPEN_ID}, {SESSION}"),
    });
    answer(
        cloud,
        "Krypton",
        (200, "application/json"),
        &token.to_string(),
        u64::MAX,
    );
    answer(
        cloud,
        "Cognito",
        (400, "application/x-amz-json-1.1"),
        &refused.to_string(),
        2,
    );
    answer(
        cloud,
        "Cognito",
        (200, "application/x-amz-json-1.1"),
        &lease.to_string(),
        u64::MAX,
    );
    let spec = world.spec().with("log", "trace").with("linger", "100ms");
    let spec = spec
        .with("krypton", "tokens")
        .with("cognito_url", &cloud.cognito_url());
    let refused = spec.refused();
    assert!(
        refused.stderr.contains("NotAuthorizedException"),
        "{refused:?}"
    );
    none_in("a refused mount", refused.stderr.as_bytes());
    // The no is remembered for a while for all who ask so; this one asks otherwise.
    let mount = spec
        .with("cognito_url", &format!("{}/", cloud.cognito_url()))
        .mount();
    work(&mount);
    mount.drain();
    tells_nothing(&world, &mount, true);
}
