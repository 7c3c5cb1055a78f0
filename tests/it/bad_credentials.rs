//! Every way in which credentials can be bad, at every moment: at the mount, in the middle of an
//! upload, in the middle of a read, while nothing happens. Each row says what the application sees,
//! what the log says, and how it ends; after the cure everything is in the bucket.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::cloud::{Raw, Service};
use crate::harness::mount::BINARY;
use crate::harness::world::level;
use crate::harness::{Mount, Spec, TestCloud, WorkDir, clock, eventually, noise};

const LIMIT: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;
/// Between two questions to Krypton that fail there is this at least.
const APART: Duration = Duration::from_secs(5);

/// What is wrong.
#[derive(Clone, Copy, Debug)]
enum Cause {
    /// S3 answers so, once at each operation or as long as it lasts.
    S3(
        bool,
        u16,
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
    ),
    /// The clock of the device is so many seconds ahead of everybody's, or behind it.
    Off(i64),
    /// Krypton answers so.
    Krypton(u16, &'static str),
    /// Krypton does not answer at all.
    Silence,
    /// Cognito answers with this status and `__type`.
    Cognito(u16, &'static str),
}

/// What a mount does that is started meanwhile; the words stand in its one line or its log.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// It works.
    Fine,
    /// Exit code 32 and one line.
    Refused(&'static [&'static str]),
    /// It mounts, and what is written waits.
    Offline(&'static [&'static str]),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    cause: Cause,
    start: Start,
    /// In the log of a mount that is at work; none: it goes on without a word.
    log: &'static [&'static str],
    /// A read of what is not in the cache.
    read: Option<i32>,
    /// It is refused for good, so that somebody has to say `kryptonfs retry`.
    dead: bool,
}

const OK: Option<i32> = None;
const EIO: Option<i32> = Some(libc::EIO);
const EACCES: Option<i32> = Some(libc::EACCES);

const fn row(cause: Cause, start: Start, log: &'static [&'static str], read: Option<i32>) -> Row {
    let dead = false;
    Row {
        cause,
        start,
        log,
        read,
        dead,
    }
}

use Cause::{Cognito, Krypton, Off, S3, Silence};
use Start::{Fine, Offline, Refused};

const MINUTE: i64 = 60;
const YEAR: i64 = 365 * 86400;
const NO_POLICY: &str = "no identity-based policy allows the action";

#[rustfmt::skip]
const BY_S3: &[Row] = &[
    // Over: a new lease, and nobody notices.
    row(S3(false, 400, "ExpiredToken", "over", &[]), Fine, &[], OK),
    // Revoked.
    row(S3(true, 403, "InvalidAccessKeyId", "none", &[]), Refused(&["InvalidAccessKeyId", "the key is revoked"]), &["InvalidAccessKeyId", "the key is revoked"], EIO),
    row(S3(true, 400, "InvalidToken", "none", &[]), Refused(&["InvalidToken", "check krypton_url"]), &["InvalidToken", "the session token is not of this server"], EIO),
    row(S3(true, 403, "SignatureDoesNotMatch", "none", &[]), Refused(&["SignatureDoesNotMatch"]), &["SignatureDoesNotMatch", "the secret is not the key's"], EIO),
    // The wrong region.
    row(S3(true, 400, "AuthorizationHeaderMalformed", "region", &[("x-amz-bucket-region", "eu-west-1")]), Refused(&["say region=eu-west-1"]), &["the bucket is in region eu-west-1"], EIO),
    // The role of the wrong pool.
    Row { dead: true, ..row(S3(true, 403, "AccessDenied", NO_POLICY, &[]), Refused(&["the role of the identity pool", "s3:ListBucket"]), &["refused for good", "the role of the identity pool"], EACCES) },
    // A clock that is 20 minutes or 10 years off: the server's time is learnt from its refusal.
    row(Off(20 * MINUTE), Fine, &[], OK),
    row(Off(-20 * MINUTE), Fine, &[], OK),
    row(Off(10 * YEAR), Fine, &[], OK),
    row(Off(-10 * YEAR), Fine, &[], OK),
    row(S3(false, 403, "RequestTimeTooSkewed", "skew", &[]), Fine, &[], OK),
    // One that stays wrong.
    row(S3(true, 403, "RequestTimeTooSkewed", "skew", &[]), Refused(&["the clock of this device is wrong"]), &["the clock of this device is wrong"], EIO),
];

const SAYS: &str = r#"{"code":"KRY0001","message":"it says so"}"#;

#[rustfmt::skip]
const BY_KRYPTON: &[Row] = &[
    row(Krypton(400, SAYS), Refused(&["Krypton answered 400", "setting of the SIM's group is incomplete"]), &["Krypton answered 400"], EIO),
    row(Krypton(401, SAYS), Refused(&["Krypton answered 401", "the line is not known"]), &["Krypton answered 401"], EIO),
    row(Krypton(403, SAYS), Refused(&["Krypton answered 403", "this SIM may not"]), &["Krypton answered 403"], EIO),
    row(Krypton(404, SAYS), Refused(&["Krypton answered 404", "there is no such service for this SIM"]), &["Krypton answered 404"], EIO),
    row(Krypton(429, SAYS), Offline(&["Krypton answered 429", "asked too often"]), &["Krypton answered 429"], EIO),
    row(Krypton(500, SAYS), Offline(&["Krypton answered 500", "in trouble"]), &["Krypton answered 500"], EIO),
    row(Krypton(200, "<html>Log in</html>"), Refused(&["without readable credentials", "check krypton_url"]), &["without readable credentials"], EIO),
    row(Krypton(200, r#"{"credentials":{}}"#), Refused(&["without credentials.accessKeyId"]), &["without credentials.accessKeyId"], EIO),
    // It gives up after a minute only; a reader does not wait so long, and nothing is lost.
    row(Silence, Offline(&["no answer in 5 s"]), &[], EIO),
];

#[rustfmt::skip]
const BY_COGNITO: &[Row] = &[
    row(Cognito(400, "ResourceNotFoundException"), Refused(&["the identity or its pool is gone"]), &["ResourceNotFoundException"], EIO),
    row(Cognito(409, "ResourceConflictException"), Refused(&["another identity of the pool"]), &["ResourceConflictException"], EIO),
    row(Cognito(400, "NotAuthorizedException"), Refused(&["the token is not accepted"]), &["NotAuthorizedException"], EIO),
    row(Cognito(400, "InvalidParameterException"), Refused(&["not one Cognito can have"]), &["InvalidParameterException"], EIO),
    row(Cognito(400, "InvalidIdentityPoolConfigurationException"), Refused(&["has no role"]), &["InvalidIdentityPoolConfigurationException"], EIO),
    row(Cognito(400, "SomethingNewException"), Refused(&["check cognito_url"]), &["SomethingNewException"], EIO),
    row(Cognito(429, "TooManyRequestsException"), Offline(&["Cognito is asked too often"]), &["TooManyRequestsException"], EIO),
    row(Cognito(500, "InternalErrorException"), Offline(&["Cognito is in trouble"]), &["InternalErrorException"], EIO),
    row(Cognito(400, "ExternalServiceException"), Offline(&["the login provider behind Cognito"]), &["ExternalServiceException"], EIO),
];

/// A cloud, and mounts of its bucket.
struct Bench {
    work: WorkDir,
    cloud: TestCloud,
    row: Row,
}

impl Bench {
    fn new(name: &str, row: Row) -> Self {
        let work = WorkDir::new(name);
        let cloud = TestCloud::start(&work.dir("cloud"), "bucket", None);
        cloud.insert("pre/big", noise(1, 3 * MIB));
        Self { work, cloud, row }
    }

    /// `time`: leases are shared, and what failed is not asked again for a while, by those who trust
    /// the same file: each mount gets one of its own.
    fn spec(&self, time: u32) -> Spec {
        let ca_file = self.work.path().join(format!("ca-{time}.pem"));
        let text = fs::read_to_string(self.cloud.ca_file()).unwrap();
        fs::write(&ca_file, format!("{text}# {time}\n")).unwrap();
        let tokens = matches!(self.row.cause, Cognito(..));
        let options = [
            ("network", "open"),
            ("log", &level()),
            ("ntp", "none"),
            ("linger", "100ms"),
            ("prefetch", "off"),
            ("read_timeout", "2s"),
            ("multipart_threshold", "5MiB"),
            ("part_size", "5MiB"),
            ("krypton", if tokens { "tokens" } else { "credentials" }),
            ("cognito_url", &self.cloud.cognito_url()),
        ];
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Spec {
            source: "s3://bucket/pre".into(),
            region: self.cloud.region(),
            endpoint: self.cloud.s3_url(),
            krypton: self.cloud.krypton_url(),
            ca_file,
            dir: self.work.dir("mnt"),
            spool: self.work.path().join("spool"),
            cache: self.work.path().join("cache"),
            options: options.into_iter().map(own).collect(),
            log: self.work.path().join(format!("mount-{time}.log")),
            space: None,
            env: match self.row.cause {
                Off(seconds) => clock::off(self.work.path(), seconds),
                _ => Vec::new(),
            },
        }
    }

    /// From now on it is wrong: at these operations of S3, or where the next lease is asked for.
    fn strike(&self, operation: &str, skip: u64) {
        let cloud = &self.cloud;
        let s3 = |always: bool, status: u16, code: &str, text: &str, headers: &[(&str, &str)]| {
            let mut all = vec![("content-type", "application/xml")];
            all.extend(headers);
            let body = format!("<Error><Code>{code}</Code><Message>{text}</Message></Error>");
            let times = if always { u64::MAX } else { 1 };
            let raw = Raw {
                status,
                headers: &all,
                body: &body,
            };
            cloud.answer(operation, &raw, skip, times);
        };
        let json = [("content-type", "application/json")];
        let issuer = |name: &str, status: u16, body: &str| {
            let raw = Raw {
                status,
                headers: &json,
                body,
            };
            cloud.answer(name, &raw, 0, u64::MAX);
            s3(false, 400, "ExpiredToken", "over", &[]);
        };
        match self.row.cause {
            S3(always, status, code, text, headers) => s3(always, status, code, text, headers),
            Krypton(status, body) => issuer("Krypton", status, body),
            Cognito(status, code) => {
                let body = format!(r#"{{"__type":"{code}","message":"it says so"}}"#);
                issuer("Cognito", status, &body);
            }
            // From the first mount on.
            Off(_) => {}
            Silence => {
                cloud.silence(Service::Krypton, true);
                s3(false, 400, "ExpiredToken", "over", &[]);
            }
        }
    }

    fn is_of_s3(&self) -> bool {
        matches!(self.row.cause, S3(..) | Off(_))
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.cloud.content(&format!("pre/{name}"))
    }
}

fn contains_all(text: &str, words: &[&str]) -> bool {
    words.iter().all(|word| text.contains(word))
}

/// It is wrong when the mount starts.
fn at_the_mount(bench: &Bench) {
    bench.strike("*", 0);
    let spec = bench.spec(1);
    match bench.row.start {
        Refused(words) => {
            let refused = spec.refused();
            let line = refused.line(32);
            assert!(contains_all(line, words), "{line}");
        }
        Offline(words) => {
            let mount = spec.mount();
            let log = mount.log();
            assert!(
                log.contains("mounted offline") && contains_all(&log, words),
                "{log}"
            );
            fs::write(mount.path("first"), "1").unwrap();
            mount.unmount();
        }
        Fine => {
            let mount = spec.mount();
            let log = mount.log();
            assert!(!log.contains("Token") && !log.contains("clock"), "{log}");
            fs::write(mount.path("first"), "1").unwrap();
            mount.unmount();
        }
    }
    bench.cloud.clear_faults();
}

/// It goes wrong while nothing happens: nothing happens.
fn idle(bench: &Bench, mount: &Mount) {
    bench.strike("*", 0);
    // What was under way before may still end.
    eventually("nothing happens", LIMIT, || {
        let (before, log) = (bench.cloud.counts(), mount.log());
        std::thread::sleep(Duration::from_millis(300));
        let since = bench.cloud.counts().since(&before);
        let is_idle = (since.all_requests(), since.krypton) == (0, 0) && mount.log() == log;
        is_idle.then_some(())
    });
    bench.cloud.clear_faults();
}

fn read(file: &File, at: usize) -> Result<Vec<u8>, Option<i32>> {
    let mut bytes = vec![0; 4096];
    let read = file.read_exact_at(&mut bytes, at as u64);
    read.map_err(|error: io::Error| error.raw_os_error())?;
    Ok(bytes)
}

/// It goes wrong between two parts of an upload, and under a reader.
fn at_work(bench: &Bench, mount: &Mount, big: &[u8], up: &[u8]) {
    let file = File::open(mount.path("big")).unwrap();
    assert_eq!(read(&file, 0).unwrap(), big[..4096]);
    let (before, begun) = (bench.cloud.counts(), Instant::now());
    bench.strike("UploadPart", 1);
    fs::write(mount.path("up"), up).unwrap();
    if !bench.row.log.is_empty() {
        eventually("it is said", LIMIT, || {
            let log = mount.log();
            let mut lines = log.lines();
            lines
                .any(|line| contains_all(line, bench.row.log))
                .then_some(())
        });
    } else if !matches!(bench.row.cause, Off(_)) {
        eventually("it is met", LIMIT, || {
            (bench.cloud.counts().since(&before).failed > 0).then_some(())
        });
    }
    if bench.is_of_s3() {
        bench.strike("GetObject", 0);
    }
    let seen = read(&file, 2 * MIB);
    match bench.row.read {
        None => assert_eq!(seen.unwrap(), big[2 * MIB..2 * MIB + 4096]),
        errno => assert_eq!(seen.unwrap_err(), errno),
    }
    // Here it goes on; but where S3 refuses for good, who writes is told.
    let written = fs::write(mount.path("small"), "2");
    if bench.row.dead {
        assert_eq!(written.unwrap_err().raw_os_error(), EACCES);
    } else {
        written.unwrap();
        assert_eq!(fs::read(mount.path("small")).unwrap(), b"2");
    }
    assert_eq!(fs::read(mount.path("first")).unwrap(), b"1");
    assert!(fs::read_dir(mount.dir()).unwrap().count() >= 3);
    let since = bench.cloud.counts().since(&before);
    let most = 2 + begun.elapsed().as_secs() / APART.as_secs();
    assert!(since.krypton <= 2 * most, "{since:?}");
    // Cured.
    bench.cloud.clear_faults();
    if bench.row.dead {
        let retried = Command::new(BINARY).arg("retry").arg(mount.dir()).output();
        assert!(retried.unwrap().status.success());
        eventually("it may be written again", LIMIT, || {
            fs::write(mount.path("small"), "2").ok()
        });
    }
    eventually("everything arrives", LIMIT, || {
        mount.try_drain(Duration::from_secs(2)).then_some(())
    });
    let read = eventually("it can be read again", LIMIT, || read(&file, 2 * MIB).ok());
    assert_eq!(read, big[2 * MIB..2 * MIB + 4096]);
}

fn live_through(name: &str, row: Row) {
    let (big, up) = (noise(1, 3 * MIB), noise(2, 5 * MIB + 70_000));
    let bench = Bench::new(name, row);
    at_the_mount(&bench);
    let mount = bench.spec(2).mount();
    fs::write(mount.path("first"), "1").unwrap();
    mount.drain();
    // On a busy machine it may have been mounted before the bucket had answered.
    eventually("the bucket is seen", LIMIT, || {
        (fs::read_dir(mount.dir()).unwrap().count() == 2).then_some(())
    });
    idle(&bench, &mount);
    at_work(&bench, &mount, &big, &up);
    assert_eq!(bench.bytes("first").as_deref(), Some(&b"1"[..]));
    assert_eq!(bench.bytes("small").as_deref(), Some(&b"2"[..]));
    assert!(
        bench.bytes("up").as_ref() == Some(&up),
        "the upload is whole"
    );
    assert_eq!(mount.status_json()["pending"], 0);
}

/// Each row in a thread of its own, as nearly all of the time is waited.
fn all(name: &str, rows: &[Row]) {
    std::thread::scope(|scope| {
        let threads: Vec<_> = rows
            .iter()
            .enumerate()
            .map(|(at, row)| {
                let name = format!("{name}-{at}");
                let live = move || live_through(&name, *row);
                (row, scope.spawn(live))
            })
            .collect();
        for (row, thread) in threads {
            assert!(thread.join().is_ok(), "{row:?}");
        }
    });
}

#[test]
fn whatever_s3_thinks_of_the_credentials_is_said_and_nothing_is_lost() {
    all("bad-s3", BY_S3);
}

#[test]
fn whatever_krypton_answers_is_said_and_nothing_is_lost() {
    all("bad-krypton", BY_KRYPTON);
}

#[test]
fn whatever_cognito_answers_is_said_and_nothing_is_lost() {
    all("bad-cognito", BY_COGNITO);
}

/// What is known is told and read past its time, whatever is thought of the credentials; it is counted.
fn known_past_its_time(name: &str, row: Row) {
    let bench = Bench::new(name, row);
    let mount = bench.spec(1).with("ttl", "0s").mount();
    fs::write(mount.path("first"), "1").unwrap();
    mount.drain();
    let names = || {
        let names = fs::read_dir(mount.dir())?;
        let names = names.map(|name| Ok(name?.file_name().into_string().unwrap()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok::<_, io::Error>(names)
    };
    eventually("the bucket is seen", LIMIT, || {
        (names().ok()? == ["big", "first"]).then_some(())
    });
    bench.strike("*", 0);
    let stale = || mount.status_json()["stale_answers"].as_u64().unwrap();
    let before = stale();
    assert_eq!(fs::metadata(mount.path("first")).unwrap().len(), 1);
    assert_eq!(fs::metadata(mount.path("big")).unwrap().len(), 3 << 20);
    assert_eq!(names().unwrap(), ["big", "first"]);
    assert_eq!(fs::read(mount.path("first")).unwrap(), b"1");
    assert!(stale() > before, "{before}");
    bench.cloud.insert("pre/other", b"3".to_vec());
    bench.cloud.clear_faults();
    let other = eventually("it answers again", LIMIT, || {
        fs::read(mount.path("other")).ok()
    });
    assert_eq!(other, b"3");
}

#[test]
fn what_is_known_is_told_past_its_time_while_the_credentials_are_refused() {
    let is_refused = |row: &&Row| matches!(row.start, Refused(_)) && !row.dead;
    let rows = BY_S3.iter().chain(&BY_KRYPTON[..1]).filter(is_refused);
    std::thread::scope(|scope| {
        for (at, row) in rows.enumerate() {
            scope.spawn(move || known_past_its_time(&format!("bad-known-{at}"), *row));
        }
    });
}

#[test]
fn a_krypton_with_another_ones_certificate_is_not_believed_and_nothing_is_lost() {
    let row = row(Krypton(200, ""), Fine, &[], OK);
    let bench = Bench::new("bad-name", row);
    let port = bench
        .cloud
        .krypton_url()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let mut wrong = bench.spec(1).with("resolve", "krypton.example=127.0.0.1");
    wrong.krypton = format!("https://krypton.example:{port}");
    let before = bench.cloud.counts();
    let mount = wrong.mount();
    fs::write(mount.path("first"), "1").unwrap();
    assert!(!mount.try_drain(Duration::from_secs(1)));
    let log = mount.log();
    assert!(
        contains_all(&log, &["mounted offline", "krypton.example", "certificate"]),
        "{log}"
    );
    assert!(fs::read(mount.path("big")).is_err());
    assert_eq!(fs::read(mount.path("first")).unwrap(), b"1");
    let since = bench.cloud.counts().since(&before);
    assert_eq!((since.krypton, since.all_requests()), (0, 0), "{since:?}");
    mount.unmount();
    let mount = bench.spec(2).mount();
    mount.drain();
    assert_eq!(bench.bytes("first").as_deref(), Some(&b"1"[..]));
    assert_eq!(fs::read(mount.path("big")).unwrap(), noise(1, 3 * MIB));
}
