//! The small parent of a mount that fstab asked for: it tells when the mount answers, and starts the
//! daemon again when that dies.
//!
//! Invariants: a mount that was never made is not tried again; one that somebody took away is not
//! brought back; the dead daemon's mount stays until the next one is ready to take its place, so
//! programs meet an error (`ENOTCONN`), and where the file system can make a directory immutable, what
//! they create in the moment between the two fails instead of falling into the bare directory.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal as Kind};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{Failure, process};
use crate::fuse::{self, Bare, mounts};

/// The first wait before a daemon that died is started again; doubled with each death.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A daemon that lived so long did not die of its start.
const LIVED: Duration = Duration::from_secs(60);

/// Starts the daemon `program args` for `dir` and stays until it ends for good. What it says on stdout
/// the first time, that it is mounted, is passed on. Answers the exit code.
///
/// # Errors
/// If no process or signal is to be had.
pub async fn supervise(program: &Path, args: &[OsString], dir: &Path) -> Result<u8, Failure> {
    let other = |error: std::io::Error| Failure::Mount(format!("no daemon to be had: {error}"));
    let mut signals = Signals::new().map_err(other)?;
    let bare = Bare::open(dir);
    let mut life = start(program, args, false).map_err(other)?;
    let mut outcome = live(&mut life, &mut signals, announce)
        .await
        .map_err(other)?;
    if !outcome.mounted {
        return Ok(code(outcome.status));
    }
    let dir = &real(dir);
    let mut pause = PAUSE;
    let mut lost = false;
    loop {
        if outcome.asked || outcome.status.success() {
            return Ok(code(outcome.status));
        }
        if !lost && !is_mounted(dir) {
            tracing::warn!(dir = %dir.display(), "the daemon died, and its mount was taken away");
            return Ok(code(outcome.status));
        }
        if outcome.lived >= LIVED {
            pause = PAUSE;
        }
        tracing::error!(
            dir = %dir.display(), status = %outcome.status, ?pause,
            "the daemon died; it is started again"
        );
        if signals.end_within(pause).await {
            fuse::take_away(dir).map_err(other)?;
            return Ok(0);
        }
        pause = (pause * 2).min(PAUSE_MAX);
        // Who finds it gone now took it away himself; who finds it gone later may have met the next
        // daemon's death just between the old mount and the new one.
        if !lost && !is_mounted(dir) {
            return Ok(0);
        }
        // Between the old mount and the new one the directory lies bare for a moment.
        closed_off(bare.as_ref(), Bare::close_off);
        life = start(program, args, true).map_err(other)?;
        let again = live(&mut life, &mut signals, |_| {
            closed_off(bare.as_ref(), Bare::give_back);
        });
        outcome = again.await.map_err(other)?;
        if !outcome.mounted {
            closed_off(bare.as_ref(), Bare::give_back);
        }
        lost = !is_mounted(dir);
    }
}

fn closed_off(bare: Option<&Bare>, how: impl Fn(&Bare) -> std::io::Result<()>) {
    if let Some(Err(error)) = bare.map(how) {
        tracing::debug!(%error, "the bare directory cannot be closed off while the daemon is started");
    }
}

/// The mount's place as the mount table has it.
fn real(dir: &Path) -> PathBuf {
    let all = mounts::ours().unwrap_or_default();
    mounts::around(&all, dir).map_or_else(|| dir.to_owned(), |mount| mount.dir.clone())
}

/// Whether one of ours, dead or alive, is mounted there.
fn is_mounted(dir: &Path) -> bool {
    mounts::ours().is_ok_and(|all| all.iter().any(|mount| mount.dir == dir))
}

/// A daemon, and the line it says once it is mounted.
#[derive(Debug)]
struct Life {
    child: Child,
    line: mpsc::Receiver<String>,
    since: Instant,
}

/// How a life ended.
#[derive(Debug)]
struct Outcome {
    status: ExitStatus,
    /// It had mounted.
    mounted: bool,
    /// We had been asked to end.
    asked: bool,
    lived: Duration,
}

fn start(program: &Path, args: &[OsString], again: bool) -> std::io::Result<Life> {
    let mut command = Command::new(program);
    command.arg0("kryptonfs").arg("mount").arg("--worker");
    if again {
        command.arg("--again");
    }
    let mut child = command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let (tell, line) = mpsc::channel(1);
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut text = String::new();
            let read = BufReader::new(stdout).read_line(&mut text);
            if read.is_ok_and(|bytes| bytes > 0) {
                // Nobody hears it: the daemon has ended already.
                let _gone = tell.blocking_send(text);
            }
        });
    }
    Ok(Life {
        child,
        line,
        since: Instant::now(),
    })
}

/// Waits for the end of a daemon; hands signals on to it.
async fn live(
    life: &mut Life,
    signals: &mut Signals,
    announce: impl Fn(&str),
) -> std::io::Result<Outcome> {
    let (mut mounted, mut asked, mut silent) = (false, false, false);
    loop {
        tokio::select! {
            biased;
            line = life.line.recv(), if !silent => {
                silent = true;
                if let Some(line) = line {
                    mounted = true;
                    announce(&line);
                }
            }
            kind = signals.next() => match kind {
                Kind::SIGCHLD => {}
                kind => {
                    asked |= kind != Kind::SIGHUP;
                    let pid = i32::try_from(life.child.id()).map_err(std::io::Error::other)?;
                    // It may have ended meanwhile; then there is nobody to tell.
                    let _gone = signal::kill(Pid::from_raw(pid), kind);
                }
            },
        }
        // Its line is read first: a daemon that mounted and died at once did mount.
        if silent && let Some(status) = life.child.try_wait()? {
            return Ok(Outcome {
                status,
                mounted,
                asked,
                lived: life.since.elapsed(),
            });
        }
    }
}

/// Tells whoever waits for the mount, and lets go of him.
fn announce(line: &str) {
    let mut out = std::io::stdout();
    let told = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = told.and_then(|()| process::leave_terminal()) {
        tracing::warn!(%error, "whoever mounted may go on waiting");
    }
}

fn code(status: ExitStatus) -> u8 {
    match status.code() {
        Some(code) => u8::try_from(code).unwrap_or(32),
        None => {
            let signal = status.signal().unwrap_or_default();
            tracing::error!(signal, "the daemon was killed");
            32
        }
    }
}

/// What the supervisor hears.
#[derive(Debug)]
struct Signals {
    child: Signal,
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Kind {
        tokio::select! {
            _ = self.child.recv() => Kind::SIGCHLD,
            _ = self.hangup.recv() => Kind::SIGHUP,
            _ = self.interrupt.recv() => Kind::SIGINT,
            _ = self.terminate.recv() => Kind::SIGTERM,
        }
    }

    /// Whether we are asked to end within `pause`.
    async fn end_within(&mut self, pause: Duration) -> bool {
        let asked = async {
            loop {
                if matches!(self.next().await, Kind::SIGINT | Kind::SIGTERM) {
                    return;
                }
            }
        };
        tokio::time::timeout(pause, asked).await.is_ok()
    }
}

/// Starts a supervisor for the daemon `args` in a process of its own, and waits until the mount answers
/// or is refused. Answers the exit code; what went wrong was said on stderr then. Blocking.
///
/// # Errors
/// If no process is to be had.
pub fn in_background(args: &[OsString], dir: &Path) -> std::io::Result<u8> {
    let program = program()?;
    let mut child = Command::new(&program)
        .arg0("kryptonfs")
        .arg("supervise")
        .arg(&program)
        .arg(dir)
        .arg("--")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if line.is_empty() {
        return Ok(code(child.wait()?));
    }
    Ok(0)
}

/// This program, under the name it has in the process list; in another mount namespace, by itself.
fn program() -> std::io::Result<PathBuf> {
    let named = std::env::current_exe()?;
    if named.exists() {
        return Ok(named);
    }
    Ok("/proc/self/exe".into())
}
