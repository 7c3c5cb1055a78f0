//! What a process that mounts does to itself, once, before any thread starts.
//!
//! Invariants: no core dump and no other user's debugger sees a secret; what it makes is private;
//! memory that was freed goes back to the system.

use std::fs::File;
use std::io;
use std::time::Duration;

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use tokio::runtime::{Builder, Runtime};

/// Threads that run tasks.
const WORKERS: usize = 2;
/// Threads that wait for the disk.
const BLOCKING: usize = 8;
/// A stack is only as much memory as was ever used of it; unoptimized code uses much.
const STACK: usize = if cfg!(debug_assertions) {
    2 << 20
} else {
    512 << 10
};
/// How long the end waits for threads that hang on the disk.
const LAST: Duration = Duration::from_secs(2);

/// Hardens the process.
///
/// # Errors
/// If the kernel refuses.
pub fn harden() -> io::Result<()> {
    set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    bound_memory();
    end_with_the_session();
    Ok(())
}

/// glibc keeps an arena for each thread and gives little back: with its defaults the peak is twice
/// what is used.
#[cfg(target_env = "gnu")]
fn bound_memory() {
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 2),
        (libc::M_TRIM_THRESHOLD, 128 << 10),
        // Setting it keeps it: else it grows with the first large buffer that is freed.
        (libc::M_MMAP_THRESHOLD, 128 << 10),
    ] {
        // SAFETY: mallopt takes two integers and touches only the allocator's own parameters, under
        // its own lock.
        #[allow(unsafe_code)]
        let taken = unsafe { libc::mallopt(parameter, value) };
        debug_assert_eq!(taken, 1, "mallopt({parameter})");
    }
}

#[cfg(not(target_env = "gnu"))]
fn bound_memory() {}

/// A panic on a thread of fuser (0.18 panics on times that are out of range) leaves its caller in
/// the kernel for ever. A dead daemon does not: its callers get an error, what was acknowledged is
/// in the log, and the next start cleans up.
fn end_with_the_session() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("fuser-"))
        {
            std::process::abort();
        }
    }));
}

/// Lets go of the terminal and of whoever waits for this process's output. Where there is no terminal
/// (systemd), the process group stays: by it autofs knows whom it waits for.
///
/// # Errors
/// If `/dev/null` or a descriptor is not to be had.
pub(super) fn leave_terminal() -> io::Result<()> {
    if File::open("/dev/tty").is_ok() {
        setsid()?;
    }
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    // Nothing that is mounted elsewhere is kept busy.
    std::env::set_current_dir("/")
}

/// The runtime a mount runs on.
///
/// # Errors
/// If the kernel gives no threads.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
}

/// Ends it, without waiting for threads that do not come back.
pub fn shut_down(runtime: Runtime) {
    runtime.shutdown_timeout(LAST);
}
