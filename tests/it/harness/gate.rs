//! A gate before the system calls by which a mount changes something: each waits there until it is
//! let through, answered with an error in its place, or the process is killed before it.
//!
//! The kernel brings them here (seccomp's user notification). Not strace's injection: that counts the
//! calls of each thread by itself, and the mount has a dozen, so "the n-th" would be many.
//!
//! Invariants:
//! - calls are counted over all threads, in the order in which they are let through;
//! - only calls on the spool, the cache, a socket or `/dev/fuse` count;
//! - nothing of this process is ever killed or answered with an error.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    /// Bytes or the length of a file of the spool or the cache.
    Write,
    /// fsync or fdatasync.
    Flush,
    Rename,
    /// A name is made or goes.
    Name,
    /// Bytes on a socket.
    Send,
    /// Bytes to `/dev/fuse`: an application is answered.
    Answer,
}

impl Call {
    /// Whether the disk can refuse it.
    fn is_of_disk(self) -> bool {
        !matches!(self, Self::Send | Self::Answer)
    }
}

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The process is killed before it.
    Kill,
    /// It is not carried out and fails with this; only those of the disk are counted.
    Fail(i32),
}

/// Which call is struck, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    /// From 0 on, since it was armed.
    pub(crate) at: usize,
    pub(crate) blow: Blow,
}

#[derive(Debug, Default)]
struct State {
    strike: Option<Strike>,
    counts: BTreeMap<Call, usize>,
    struck: Option<(Call, String)>,
}

/// The gate of one process; the process ends with it.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Arc<Mutex<State>>,
    /// To the one thread whose children pass the gate.
    commands: Sender<Command>,
    children: Receiver<io::Result<Child>>,
}

impl Gate {
    /// One for a process that keeps its files below `roots`.
    pub(crate) fn new(roots: &[&Path]) -> Self {
        let roots: Vec<PathBuf> = roots.iter().map(|root| root.to_path_buf()).collect();
        let state = Arc::new(Mutex::new(State::default()));
        let (commands, inbox) = channel::<Command>();
        let (outbox, children) = channel();
        let (listeners, listener) = channel();
        std::thread::spawn(move || {
            let Ok(()) = listeners.send(filtered()) else {
                return;
            };
            for mut command in inbox {
                if outbox.send(command.spawn()).is_err() {
                    return;
                }
            }
        });
        let listener = listener.recv().expect("the thread answers");
        let listener = listener.expect("seccomp's user notification (Linux 5.5)");
        let keeper = Keeper {
            state: Arc::clone(&state),
            roots,
            listener,
        };
        std::thread::spawn(move || keeper.run());
        Self {
            state,
            commands,
            children,
        }
    }

    /// Starts the process.
    pub(crate) fn spawn(&self, command: Command) -> io::Result<Child> {
        self.commands.send(command).expect("the thread listens");
        self.children.recv().expect("the thread answers")
    }

    /// Counts from here on.
    pub(crate) fn arm(&self, strike: Strike) {
        *self.state.lock().unwrap() = State {
            strike: Some(strike),
            ..State::default()
        };
    }

    /// The call that was struck, and on what.
    pub(crate) fn struck(&self) -> Option<(Call, String)> {
        self.state.lock().unwrap().struck.clone()
    }

    /// What was let through since it was armed.
    pub(crate) fn counts(&self) -> BTreeMap<Call, usize> {
        self.state.lock().unwrap().counts.clone()
    }
}

/// Answers the kernel.
struct Keeper {
    state: Arc<Mutex<State>>,
    roots: Vec<PathBuf>,
    listener: OwnedFd,
}

impl Keeper {
    /// Until no process passes the gate any more.
    fn run(&self) {
        while let Some(notice) = next(&self.listener) {
            let error = match self.judge(&notice) {
                Some((process, Blow::Kill)) => {
                    // It never comes back from the call. That it is gone already is as good.
                    let _ = kill(process, Signal::SIGKILL);
                    continue;
                }
                Some((_, Blow::Fail(errno))) => Some(errno),
                None => None,
            };
            answer(&self.listener, notice.id, error);
        }
    }

    fn judge(&self, notice: &libc::seccomp_notif) -> Option<(Pid, Blow)> {
        let process = process_of(notice.pid).filter(|process| *process != Pid::this())?;
        let (call, place) = self.look(notice)?;
        let mut state = self.state.lock().unwrap();
        let strike = state.strike?;
        if !call.is_of_disk() && strike.blow != Blow::Kill {
            return None;
        }
        let count: usize = state.counts.values().sum();
        if count == strike.at && state.struck.is_none() {
            state.struck = Some((call, place));
            return Some((process, strike.blow));
        }
        *state.counts.entry(call).or_default() += 1;
        None
    }

    /// What a call does, and to what; `None`: nothing that is kept or sent.
    fn look(&self, notice: &libc::seccomp_notif) -> Option<(Call, String)> {
        let arguments = notice.data.args;
        let link = |descriptor: u64| {
            // An int: the upper half of the register is not its business.
            let descriptor = i32::try_from(descriptor & 0xFFFF_FFFF).ok()?;
            let link = format!("/proc/{}/fd/{descriptor}", notice.pid);
            std::fs::read_link(link).ok()
        };
        let path = link(arguments[0])?;
        let place = path.display().to_string();
        if place.starts_with("socket:") {
            return Some((Call::Send, place));
        }
        if place == "/dev/fuse" {
            return Some((Call::Answer, place));
        }
        if !self.roots.iter().any(|root| path.starts_with(root)) {
            return None;
        }
        let call = match i64::from(notice.data.nr) {
            libc::SYS_fsync | libc::SYS_fdatasync => Call::Flush,
            libc::SYS_renameat | libc::SYS_renameat2 => Call::Rename,
            libc::SYS_unlinkat | libc::SYS_linkat | libc::SYS_mkdirat => Call::Name,
            libc::SYS_openat if arguments[2] & libc::O_CREAT as u64 != 0 => Call::Name,
            libc::SYS_openat => return None,
            _ => Call::Write,
        };
        Some((call, place))
    }
}

/// The process a thread belongs to.
fn process_of(thread: u32) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line?.trim().parse().ok().map(Pid::from_raw)
}

/// The calls that come to the gate.
const CALLS: [libc::c_long; 16] = [
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_openat,
];

/// From now on these calls of this thread and of its children wait for whoever holds the answer.
fn filtered() -> io::Result<OwnedFd> {
    let step = |code: u32, k: u32, yes: usize| libc::sock_filter {
        code: u16::try_from(code).expect("a small code"),
        jt: u8::try_from(yes).expect("a short program"),
        jf: 0,
        k,
    };
    // The number of the call, compared with one after the other.
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (index, call) in CALLS.into_iter().enumerate() {
        let call = u32::try_from(call).expect("a small number");
        let to_the_end = CALLS.len() - index;
        program.push(step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            call,
            to_the_end,
        ));
    }
    program.push(step(libc::BPF_RET, libc::SECCOMP_RET_ALLOW, 0));
    program.push(step(libc::BPF_RET, libc::SECCOMP_RET_USER_NOTIF, 0));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("a short program"),
        filter: program.as_mut_ptr(),
    };
    #[allow(unsafe_code)]
    // SAFETY: the program outlives the call, which copies it; the answer is a descriptor of ours.
    unsafe {
        let descriptor = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const filter,
        );
        let descriptor = i32::try_from(descriptor).expect("a small number");
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// `_IOWR('!', number, T)`.
fn request<T>(number: u64) -> libc::Ioctl {
    let size = size_of::<T>() as u64;
    (3 << 30 | size << 16 | u64::from(b'!') << 8 | number) as libc::Ioctl
}

/// The next call at the gate; `None`: nobody is left who could make one.
fn next(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    loop {
        let mut poll = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        #[allow(unsafe_code)]
        // SAFETY: one structure that lives through the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, -1) };
        if ready == 1 && poll.revents & libc::POLLIN == 0 {
            return None;
        }
        #[allow(unsafe_code)]
        // SAFETY: all zeros is a notice, and what the kernel wants to be handed.
        let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        let receive = request::<libc::seccomp_notif>(0);
        #[allow(unsafe_code)]
        // SAFETY: the structure is the one this request fills.
        let got = unsafe { libc::ioctl(listener.as_raw_fd(), receive, &raw mut notice) };
        if got == 0 {
            return Some(notice);
        }
        // Interrupted, or who waited was killed meanwhile.
        let error = io::Error::last_os_error().raw_os_error();
        assert!(
            matches!(error, Some(libc::EINTR | libc::ENOENT)),
            "{error:?}"
        );
    }
}

fn answer(listener: &OwnedFd, id: u64, error: Option<i32>) {
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: -error.unwrap_or(0),
        flags: match error {
            None => u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).expect("a flag"),
            Some(_) => 0,
        },
    };
    let send = request::<libc::seccomp_notif_resp>(1);
    #[allow(unsafe_code)]
    // SAFETY: the structure is the one this request reads.
    let sent = unsafe { libc::ioctl(listener.as_raw_fd(), send, &raw mut answer) };
    // Who waited may have been killed meanwhile.
    let error = io::Error::last_os_error();
    assert!(
        sent == 0 || error.raw_os_error() == Some(libc::ENOENT),
        "{error}"
    );
}
