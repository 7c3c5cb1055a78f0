//! What a process that mounts does to itself, once, before any thread starts.
//!
//! Invariants: no core dump and no other user's debugger sees a secret; what it makes is private;
//! memory that was freed goes back to the system; only our own events are logged (those of the HTTP
//! stack show signed headers).

use std::io::{self, Write as _};
use std::time::Duration;

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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
/// Bytes of events that are held back.
const HELD_MAX: usize = 64 << 10;
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

/// Events that wait for the mount to be made; `None`: they are written at once.
static HELD: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// Where events go.
#[derive(Debug)]
struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *HELD.lock() {
            Some(held) if held.len() + line.len() <= HELD_MAX => held.extend_from_slice(line),
            Some(_) => {}
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Holds events back: if the mount is refused, the refusal is the one line that is read.
pub fn hold_log() {
    HELD.lock().get_or_insert_default();
}

/// Writes what was held back, and all later events at once.
pub fn release_log() {
    if let Some(held) = HELD.lock().take()
        && let Err(error) = io::stderr().write_all(&held)
    {
        tracing::debug!(%error, "nobody reads stderr");
    }
}

/// Our own events of this level and above go to stderr. The first call holds.
pub fn log_to_stderr(level: LevelFilter) {
    let ours = Targets::new().with_target("kryptonfs", level);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| Stderr)
        .with_target(false);
    let set = tracing_subscriber::registry()
        .with(lines)
        .with(ours)
        .try_init();
    if set.is_err() {
        tracing::debug!("the log has a level already");
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_bounded_and_let_go() {
        hold_log();
        let line = [b'x'; 1000];
        for _ in 0..HELD_MAX / line.len() + 5 {
            Stderr.write_all(&line).unwrap();
        }
        let held = HELD.lock().take().unwrap();
        assert_eq!(held.len(), HELD_MAX / line.len() * line.len());
        release_log();
        assert!(HELD.lock().is_none());
    }
}
