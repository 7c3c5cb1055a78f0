//! Real S3 servers on loopback, each started when first asked for, at most once in a process:
//! SeaweedFS (from PyPI) and Ceph's radosgw (Debian's packages).
//!
//! Invariant: they are children of one thread that lives as long as the process, with a death
//! signal, so that nothing of them stays behind, however the tests end.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::client::Keys;
use super::{eventually, own_folder};

const ACCESS_KEY: &str = "labkey";
const SECRET_KEY: &str = "labsecretlabsecret";
/// The region both believe to be in.
pub(crate) const REGION: &str = "us-east-1";
/// Whose the keys of both are.
pub(crate) const USER: &str = "lab";
const START_LIMIT: Duration = Duration::from_secs(120);

/// A server that answers.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) keys: Keys,
}

impl Running {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Python with boto3, made by `tests/prepare`.
pub(crate) fn python() -> PathBuf {
    venv("python")
}

/// The AWS CLI, made by `tests/prepare`.
pub(crate) fn aws() -> PathBuf {
    venv("aws")
}

/// A crate's program, made by `tests/prepare`.
pub(crate) fn tool(program: &str) -> PathBuf {
    venv("python");
    target().join("test-servers/tools/bin").join(program)
}

/// A program of the Python environment, which is made if it is not there.
pub(crate) fn venv(program: &str) -> PathBuf {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prepare");
        let status = Command::new(script)
            .env("CARGO_TARGET_DIR", target())
            .status();
        let status = status.expect("tests/prepare starts");
        assert!(status.success(), "tests/prepare failed: {status}");
    });
    target().join("test-servers/venv/bin").join(program)
}

fn target() -> &'static Path {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    parent.expect("the target directory")
}

/// SeaweedFS: everything conditional, all checksums; its key space is a tree.
pub(crate) fn seaweed() -> &'static Running {
    static SERVER: OnceLock<Running> = OnceLock::new();
    SERVER.get_or_init(start_seaweed)
}

fn start_seaweed() -> Running {
    let dir = own_folder().join("seaweed");
    fs::create_dir_all(&dir).unwrap();
    let port = free_port(7000, &[0, 1000, 1001, 1002, 10_000, 11_000, 11_001, 11_002]);
    let identity = serde_json::json!({"identities": [{
        "name": USER,
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }]});
    let config = dir.join("s3.json");
    fs::write(&config, identity.to_string()).unwrap();
    let shown = dir.display();
    let mut command = Command::new(venv("weed"));
    command.arg(format!("-logdir={shown}")).arg("server");
    command.args([
        format!("-dir={shown}"),
        "-ip=127.0.0.1".into(),
        "-ip.bind=127.0.0.1".into(),
        "-master.telemetry=false".into(),
        // Each bucket reserves several: on a small disk there must be room for all of them.
        "-master.volumeSizeLimitMB=128".into(),
        "-volume.max=0".into(),
        "-volume.preStopSeconds=0".into(),
        "-volume.minFreeSpace=1".into(),
        format!("-master.port={}", port + 1000),
        format!("-volume.port={}", port + 1001),
        "-filer".into(),
        format!("-filer.port={}", port + 1002),
        format!("-filer.localSocket={shown}/filer.sock"),
        "-s3".into(),
        format!("-s3.port={port}"),
        "-s3.port.iceberg=0".into(),
        "-s3.port.lance=0".into(),
        format!("-s3.config={}", config.display()),
        "-s3.iam=false".into(),
    ]);
    keep(command, &dir.join("weed.out"));
    let running = Running {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        keys: fixed_keys(),
    };
    wait_until_writable("SeaweedFS", &running);
    running
}

/// Ceph's radosgw with its STS: a flat key space, session tokens really verified.
pub(crate) fn radosgw() -> &'static Running {
    static SERVER: OnceLock<Running> = OnceLock::new();
    SERVER.get_or_init(start_radosgw)
}

fn start_radosgw() -> Running {
    let dir = own_folder().join("radosgw");
    for name in ["mon", "osd0", "run", "rgw"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    let port = free_port(13_000, &[0, 1]);
    let config = dir.join("ceph.conf");
    fs::write(&config, ceph_conf(&dir, port)).unwrap();
    let keyring = dir.join("keyring");
    let ceph = Ceph { config, dir };
    let key = keyring.display();
    let all = "--cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'";
    ceph.run(&format!(
        "ceph-authtool --create-keyring {key} --gen-key -n mon. --cap mon 'allow *'
         ceph-authtool {key} --gen-key -n client.admin {all}
         ceph-authtool {key} --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
         chmod 600 {key}
         monmaptool --create --fsid $(ceph-conf --lookup fsid) --addv a [v2:127.0.0.1:{mon}] monmap
         ceph-mon --mkfs -i a --monmap monmap --keyring {key}",
        mon = port + 1
    ));
    ceph.keep("ceph-mon", &["-i", "a", "-f"]);
    ceph.wait("timeout 5 ceph -s");
    ceph.run(
        "U=$(cat /proc/sys/kernel/random/uuid)
         ceph osd new $U 0
         ceph-osd -i 0 --mkfs --osd-uuid $U",
    );
    ceph.keep("ceph-osd", &["-i", "0", "-f"]);
    ceph.wait("ceph osd stat | grep -q '1 up'");
    ceph.run(&format!(
        "radosgw-admin user create --uid={USER} --display-name={USER} --caps=user-policy=* \
         --access-key={ACCESS_KEY} --secret-key={SECRET_KEY}"
    ));
    ceph.keep("radosgw", &["-n", "client.admin", "--foreground"]);
    let running = Running {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        keys: fixed_keys(),
    };
    wait_until_writable("radosgw", &running);
    running
}

/// One node, its data in memory.
fn ceph_conf(dir: &Path, port: u16) -> String {
    let fsid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    let d = dir.display();
    let mon = port + 1;
    format!(
        "[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {d}/keyring
run dir = {d}/run
log file = {d}/$name.log
admin socket = {d}/run/$name.asok
pid file = {d}/run/$name.pid
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
osd crush chooseleaf type = 0
ms bind ipv6 = false
mon data = {d}/mon
osd data = {d}/osd0
osd journal = {d}/osd0/journal
osd objectstore = memstore
memstore device bytes = 2147483648
osd op num shards = 2
mon data avail warn = 1
mon data avail crit = 1
mon osd full ratio = .97
rgw data = {d}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 64
rgw enable usage log = false
rgw enable ops log = false
rgw gc obj min wait = 10
rgw gc processor period = 10
rgw run sync thread = false
rgw s3 auth use sts = true
rgw sts key = labstskeylabsts1
rgw max chunk size = 4194304
"
    )
}

/// The programs of one Ceph node.
struct Ceph {
    config: PathBuf,
    dir: PathBuf,
}

impl Ceph {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("CEPH_CONF", &self.config)
            .current_dir(&self.dir);
        command
    }

    fn run(&self, script: &str) {
        let output = self.command("bash").args(["-ec", script]).output().unwrap();
        assert!(
            output.status.success(),
            "starting radosgw (Debian's radosgw, ceph-mon, ceph-osd, ceph-common; .ci/run installs \
             them): {script}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn wait(&self, script: &str) {
        eventually(script, START_LIMIT, || {
            let output = self.command("bash").args(["-c", script]).output().unwrap();
            output.status.success().then_some(())
        });
    }

    fn keep(&self, program: &str, args: &[&str]) {
        let mut command = self.command(program);
        command.args(args);
        keep(command, &self.dir.join(format!("{program}.out")));
    }
}

fn fixed_keys() -> Keys {
    Keys {
        access_key: ACCESS_KEY.into(),
        secret_key: SECRET_KEY.into(),
        session_token: None,
    }
}

/// A base port all of whose `offsets` are free, from `from` on.
fn free_port(from: u16, offsets: &[u16]) -> u16 {
    let shift = u16::try_from(std::process::id() % 500).unwrap_or(0) * 4;
    let mut tries = (0..2000)
        .step_by(4)
        .map(|step| from + (shift + step) % 2000);
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    tries
        .find(|base| offsets.iter().all(|offset| free(base + offset)))
        .expect("free ports")
}

/// Starts a program that lives as long as this process.
fn keep(mut command: Command, output: &Path) {
    let log = fs::File::create(output).unwrap();
    command.stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    die_with_parent(&mut command);
    let (answer, started) = channel();
    let job: Job = Box::new(move || {
        let _ = answer.send(command.spawn().map(drop));
    });
    let keeper = KEEPER.get_or_init(start_keeper);
    keeper.lock().unwrap().send(job).expect("the keeper lives");
    let result = started.recv().expect("the keeper answers");
    result.unwrap_or_else(|error| panic!("{}: {error}", output.display()));
}

type Job = Box<dyn FnOnce() + Send>;
static KEEPER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();

/// The death signal comes when the thread that started a child ends, so one thread starts them all.
fn start_keeper() -> Mutex<Sender<Job>> {
    let (jobs, inbox) = channel::<Job>();
    std::thread::spawn(move || inbox.into_iter().for_each(|job| job()));
    Mutex::new(jobs)
}

/// Has the kernel kill the child when the thread that starts it ends.
pub(crate) fn die_with_parent(command: &mut Command) {
    #[allow(unsafe_code)]
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(Into::into)
        });
    }
}

/// Waits until a bucket can be made and written.
fn wait_until_writable(name: &str, running: &Running) {
    let script = "import sys,boto3
from botocore.config import Config
s=boto3.client('s3',endpoint_url=sys.argv[1],region_name=sys.argv[2],aws_access_key_id=sys.argv[3],
 aws_secret_access_key=sys.argv[4],config=Config(retries={'max_attempts':1},connect_timeout=2,read_timeout=5))
try: s.create_bucket(Bucket='probe-of-start')
except s.exceptions.ClientError: pass
s.put_object(Bucket='probe-of-start',Key='k',Body=b'x')";
    eventually(&format!("{name} takes a PUT"), START_LIMIT, || {
        let output = Command::new(python())
            .args(["-c", script, &running.url(), REGION])
            .args([ACCESS_KEY, SECRET_KEY])
            .output()
            .expect("python starts");
        output.status.success().then_some(())
    });
}
