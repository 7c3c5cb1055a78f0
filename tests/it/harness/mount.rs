//! A mount of the real binary, as a process of its own.
//!
//! Invariants: a mount that is dropped is gone: its process killed by id, its mountpoint detached;
//! the process dies with the test that started it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::field::within;
use super::servers::die_with_parent;
use super::{Gate, eventually, mounts_below};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_kryptonfs");
const MOUNT_LIMIT: Duration = Duration::from_secs(30);
/// 256 MiB through a debug build on a busy machine.
const DRAIN_LIMIT: Duration = Duration::from_secs(240);

/// What a mount is started with.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// `s3://bucket/prefix`.
    pub(crate) source: String,
    /// Empty: it is not said.
    pub(crate) region: String,
    pub(crate) endpoint: String,
    pub(crate) krypton: String,
    pub(crate) ca_file: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) spool: PathBuf,
    pub(crate) cache: PathBuf,
    /// `-o` options beside these; later ones win.
    pub(crate) options: Vec<(String, String)>,
    /// Where stderr goes.
    pub(crate) log: PathBuf,
    /// The network namespace it runs in, if not the tests' own.
    pub(crate) space: Option<String>,
    /// Its environment beside the usual.
    pub(crate) env: Vec<(String, String)>,
}

impl Spec {
    /// The same with one more option.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.options.retain(|(known, _)| known != name);
        self.options.push((name.into(), value.into()));
        self
    }

    /// The command line, without the program.
    pub(crate) fn args(&self) -> Vec<String> {
        let place = vec!["mount".into(), self.source.clone(), shown(&self.dir)];
        [place, self.said()].concat()
    }

    /// The options as they are said.
    fn said(&self) -> Vec<String> {
        let mut options = vec![
            ("ca_file".to_owned(), shown(&self.ca_file)),
            ("spool_dir".to_owned(), shown(&self.spool)),
            ("cache_dir".to_owned(), shown(&self.cache)),
        ];
        options.extend(self.options.iter().cloned());
        let joined: Vec<_> = options.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut said = vec![
            "--endpoint-url".into(),
            self.endpoint.clone(),
            "--krypton-url".into(),
            self.krypton.clone(),
            "-o".into(),
            joined.join(","),
        ];
        if !self.region.is_empty() {
            said.extend(["--region".into(), self.region.clone()]);
        }
        said
    }

    /// Another command of the binary that takes these options, where the mount would run; at most
    /// two minutes.
    pub(crate) fn command(&self, words: &[&str]) -> Output {
        let program = self.program();
        Command::new("timeout")
            .args(["-k", "1", "120"])
            .arg(program.get_program())
            .args(program.get_args())
            .args(words)
            .args(self.said())
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .stdin(Stdio::null())
            .output()
            .expect("timeout is there")
    }

    /// Mounts, and waits until it is said to be mounted.
    pub(crate) fn mount(&self) -> Mount {
        Mount::start(self.clone(), None).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same behind a gate, which has to live as long; an error if it ends before it is mounted.
    pub(crate) fn try_mount(&self, gate: &Gate) -> Result<Mount, String> {
        Mount::start(self.clone(), Some(gate))
    }

    /// Runs a mount that is expected to end by itself within a minute.
    pub(crate) fn refused(&self) -> Refused {
        let args = self.args();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        Refused::ended(self.program(), &args)
    }

    /// The binary where it is to run.
    fn program(&self) -> Command {
        match &self.space {
            None => Command::new(BINARY),
            Some(space) => {
                let mut command = within(space);
                command.arg(BINARY);
                command
            }
        }
    }
}

/// How a command that was to fail ended.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

impl Refused {
    /// Runs the binary with `args`; panics if it is still there after 60 s.
    pub(crate) fn of(args: &[&str]) -> Self {
        Self::ended(Command::new(BINARY), args)
    }

    fn ended(program: Command, args: &[&str]) -> Self {
        let output = Command::new("timeout")
            .args(["-k", "1", "60"])
            .arg(program.get_program())
            .args(program.get_args())
            .args(args)
            .output()
            .expect("timeout is there");
        let refused = Self {
            code: output.status.code(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert_ne!(
            refused.code,
            Some(124),
            "still there: {args:?}\n{refused:?}"
        );
        refused
    }

    /// The one line on stderr; panics if it is not exactly one, or if the exit code is another.
    pub(crate) fn line(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        let lines: Vec<_> = self.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "one line on stderr: {self:?}");
        lines[0]
    }
}

/// A live mount.
#[derive(Debug)]
pub(crate) struct Mount {
    spec: Spec,
    child: Child,
    /// Lines of its stdout.
    lines: Receiver<String>,
}

impl Mount {
    fn start(spec: Spec, gate: Option<&Gate>) -> Result<Self, String> {
        // Not the mountpoint: it is made with the spec, and may be a stale mount now.
        for dir in [&spec.spool, &spec.cache] {
            fs::create_dir_all(dir).unwrap();
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&spec.log)
            .unwrap();
        let mut command = spec.program();
        command
            .args(spec.args())
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("RUST_BACKTRACE", "1")
            .envs(spec.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        die_with_parent(&mut command);
        let child = match gate {
            Some(gate) => gate.spawn(command),
            None => command.spawn(),
        };
        let mut child = child.expect("the binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("its stdout"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut mount = Self { spec, child, lines };
        mount.await_mounted()?;
        Ok(mount)
    }

    fn await_mounted(&mut self) -> Result<(), String> {
        let until = Instant::now() + MOUNT_LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.starts_with("mounted") => return Ok(()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    panic!("not mounted within {MOUNT_LIMIT:?}: {}", self.log())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait();
                    return Err(format!("the mount ended with {status:?}: {}", self.log()));
                }
            }
        }
    }

    /// What it said on stderr.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.spec.log).unwrap_or_default()
    }

    /// The mountpoint.
    pub(crate) fn dir(&self) -> &Path {
        &self.spec.dir
    }

    /// A name in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.spec.dir.join(name)
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Whether the process still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until nothing is pending, the process has ended, or `limit` has passed; whether
    /// nothing is pending.
    pub(crate) fn try_drain(&self, limit: Duration) -> bool {
        self.control("drain", limit).status.success()
    }

    /// Waits until nothing is pending.
    pub(crate) fn drain(&self) {
        let output = self.control("drain", DRAIN_LIMIT);
        assert!(
            output.status.success(),
            "drain: {output:?}\n{}\n{}",
            self.status(),
            self.log()
        );
    }

    /// What `kryptonfs status` prints.
    pub(crate) fn status(&self) -> String {
        let output = self.control("status", Duration::from_secs(20));
        assert!(
            output.status.success(),
            "status: {output:?}\n{}",
            self.log()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What `kryptonfs status --json` prints.
    pub(crate) fn status_json(&self) -> serde_json::Value {
        let output = Command::new("timeout")
            .args(["-k", "1", "20", BINARY, "status", "--json"])
            .arg(&self.spec.dir)
            .output()
            .expect("timeout is there");
        serde_json::from_slice(&output.stdout).expect("one line of JSON")
    }

    fn control(&self, verb: &str, limit: Duration) -> Output {
        Command::new("timeout")
            .args(["-k", "1", &limit.as_secs().to_string(), BINARY, verb])
            .arg(&self.spec.dir)
            .output()
            .expect("timeout is there")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGABRT; whether a core was dumped.
    pub(crate) fn abort(mut self) -> bool {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGABRT).unwrap();
        self.child.wait().expect("it ends").core_dumped()
    }

    /// Peak resident memory of the process so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("the mount's process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok())
            .expect("VmHWM")
            * 1024
    }

    /// A line of the process's /proc/PID/io, in bytes.
    pub(crate) fn io(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/io", self.child.id());
        let text = fs::read_to_string(path).expect("the mount's process");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.strip_prefix(": "));
        value
            .and_then(|value| value.parse().ok())
            .expect("a line of it")
    }

    /// SIGKILL; the stale mountpoint stays, as after a crash.
    pub(crate) fn kill(mut self) -> Spec {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("it ends");
        let spec = self.spec.clone();
        std::mem::forget(self);
        spec
    }

    /// SIGTERM: unmounts without waiting for the network; exit code 0.
    pub(crate) fn unmount(mut self) -> Spec {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = eventually("the mount ends", Duration::from_secs(30), || {
            self.child.try_wait().unwrap()
        });
        assert!(status.success(), "{status}: {}", self.log());
        assert!(mounts_below(&self.spec.dir).is_empty(), "still mounted");
        self.spec.clone()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            eprintln!("the mount's last words:\n{}", tail.join("\n"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        detach(&self.spec.dir);
    }
}

/// Takes away what a killed mount left.
pub(crate) fn detach(dir: &Path) {
    for mount in mounts_below(dir) {
        let _ = Command::new("umount").arg("-l").arg(mount).status();
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
