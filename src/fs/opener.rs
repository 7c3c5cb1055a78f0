//! Who opened a file, so that a close by a process that only inherited it is told from the opener's.
//!
//! The kernel names the *thread* that calls (`fuse_in_header.pid`); threads of one process are one
//! opener, so threads are looked up in `/proc/TID/status` (`Tgid`). That is done only for files open
//! for writing, and for a close only where another thread than the one that opened it asks.

/// The opener of a handle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opener {
    thread: u32,
    /// Its process; `None`: not known (of another namespace, or it may not write).
    process: Option<u32>,
}

impl Opener {
    pub(super) fn new(thread: u32, may_write: bool) -> Self {
        let process = if may_write { process_of(thread) } else { None };
        Self { thread, process }
    }

    /// Whether the call comes from another process while the opener's is still alive. In doubt it
    /// does not: a close is then taken for the opener's.
    pub(super) fn is_another(&self, thread: u32) -> bool {
        if thread == self.thread {
            return false;
        }
        let (Some(opener), Some(caller)) = (self.process, process_of(thread)) else {
            return false;
        };
        opener != caller && process_of(opener) == Some(opener)
    }
}

/// The process of a thread, if it is alive and can be seen from here.
fn process_of(thread: u32) -> Option<u32> {
    if thread == 0 {
        return None;
    }
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = |name| status.lines().find_map(|line| line.strip_prefix(name));
    let is_dead = line("State:").is_some_and(|state| state.trim_start().starts_with(['Z', 'X']));
    let group = line("Tgid:")?.trim().parse().ok()?;
    (!is_dead).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn threads_of_a_process_are_one_opener_and_a_child_is_another() {
        let me = nix::unistd::gettid().as_raw().unsigned_abs();
        let opener = Opener::new(me, true);
        let (told, heard) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            told.send(nix::unistd::gettid().as_raw().unsigned_abs())
                .unwrap();
            std::thread::park();
        });
        assert!(!opener.is_another(heard.recv().unwrap()));
        thread.thread().unpark();
        thread.join().unwrap();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert!(opener.is_another(child.id()));
        let by_child = Opener::new(child.id(), true);
        assert!(by_child.is_another(me));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            !by_child.is_another(me),
            "the opener is gone: who closes last closes it"
        );
    }

    #[test]
    fn who_cannot_be_seen_is_taken_for_the_opener() {
        let me = std::process::id();
        assert!(!Opener::new(0, true).is_another(me));
        assert!(!Opener::new(me, true).is_another(0));
        assert!(!Opener::new(me, false).is_another(1));
    }
}
