//! What a system call in which the kernel looks a name up is about to do there.
//!
//! FUSE tells of `open(path, O_CREAT)` by a LOOKUP that looks like any other, then a CREATE. Who
//! makes a file anew whatever is there (`O_CREAT | O_TRUNC`, and not `O_EXCL`) need not be told what
//! somebody else put there since the directory was listed, so the bucket need not be asked, which
//! would be a listing for each new file of a directory that was listed longer ago than `ttl`.
//! The kernel names the thread that calls, and `/proc/TID/syscall` the call it is in, with its
//! arguments; `/proc/TID/mem` has the path. For both the daemon must be allowed to trace the thread
//! (`CAP_SYS_PTRACE`, or the same user); where it is not, or in doubt, the bucket is asked.
//!
//! Invariant: the answer is yes only where the name is the last component of the path, and no other
//! one is called the same: what an `open` only passes through is asked for as ever.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use crate::types::Name;

/// A thread that has sent its question may not sleep yet, and is looked at again then: after this
/// long, then twice as long, for at most two seconds.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const WAITS: u32 = 11;
/// Linux's longest path.
const PATH_MAX: usize = 4096;
/// Memory is read up to the end of a page, as the next one may not be there.
const PAGE: u64 = 4096;

/// A call that opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    /// Where its path lies.
    path: u64,
    flags: i32,
}

/// Whether `thread` is in the middle of making `name` anew, whatever is there.
pub(super) async fn makes_anew(thread: u32, name: &Name) -> bool {
    let Some(call) = call_of(thread).await else {
        return false;
    };
    overwrites(call.flags) && path_of(thread, call.path).is_some_and(|path| ends_in(&path, name))
}

/// Whether what a file holds before it is opened with these flags does not matter.
pub(super) fn overwrites(flags: i32) -> bool {
    flags & libc::O_CREAT != 0 && flags & libc::O_TRUNC != 0 && flags & libc::O_EXCL == 0
}

async fn call_of(thread: u32) -> Option<Call> {
    if thread == 0 {
        return None;
    }
    let mut wait = FIRST_WAIT;
    for _ in 0..WAITS {
        let text = std::fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
        if text.trim_end() != "running" {
            return call(&text);
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    None
}

/// The number of the call and its arguments, hexadecimal.
fn call(text: &str) -> Option<Call> {
    let mut words = text.split_ascii_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let argument = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let arguments: Vec<u64> = words.map_while(argument).collect();
    let (path, flags) = match number {
        _ if number == libc::SYS_openat => (1, Some(2)),
        #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
        _ if number == libc::SYS_open => (0, Some(1)),
        #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
        _ if number == libc::SYS_creat => (0, None),
        _ => return None,
    };
    let flags = match flags {
        // An int: the upper half of its register is anything.
        Some(at) => i32::from_ne_bytes(low(*arguments.get(at)?).to_ne_bytes()),
        None => libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC,
    };
    let path = *arguments.get(path)?;
    Some(Call { path, flags })
}

fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default()
}

fn path_of(thread: u32, mut at: u64) -> Option<Vec<u8>> {
    let memory = File::open(format!("/proc/{thread}/mem")).ok()?;
    let mut path = Vec::new();
    while path.len() < PATH_MAX {
        let len = usize::try_from(PAGE - at % PAGE).ok()?;
        let mut piece = vec![0; len];
        memory.read_exact_at(&mut piece, at).ok()?;
        if let Some(end) = piece.iter().position(|byte| *byte == 0) {
            path.extend(&piece[..end]);
            return Some(path);
        }
        path.extend(piece);
        at = at.checked_add(len as u64)?;
    }
    None
}

fn ends_in(path: &[u8], name: &Name) -> bool {
    let name = name.as_str().as_bytes();
    let mut same = path.split(|byte| *byte == b'/').rev();
    same.next() == Some(name) && !same.any(|other| other == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_call_is_read_with_its_flags_and_the_place_of_its_path() {
        let number = libc::SYS_openat;
        let text =
            format!("{number} 0xffffff9c 0x7f00 0xdead00000241 0x1b6 0x0 0x0 0x7ffe 0x7fda\n");
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
        let path = 0x7f00;
        assert_eq!(call(&text), Some(Call { path, flags }));
        assert!(overwrites(flags));
        for other in [
            "running\n",
            "-1 0x7ffe 0x7fda\n",
            "",
            "0 0x3 0x7f00 0x20000\n",
        ] {
            assert_eq!(call(other), None, "{other:?}");
        }
    }

    #[test]
    fn who_must_be_told_what_is_there_does_not_overwrite() {
        let new = libc::O_WRONLY | libc::O_CREAT;
        for flags in [libc::O_RDONLY, libc::O_TRUNC, new, new | libc::O_APPEND] {
            assert!(!overwrites(flags), "{flags:o}");
        }
        assert!(!overwrites(new | libc::O_TRUNC | libc::O_EXCL));
    }

    #[test]
    fn only_the_last_name_of_a_path_is_made() {
        let makes = |path: &str, text: &str| ends_in(path.as_bytes(), &name(text));
        assert!(makes("f", "f") && makes("/m/d/f", "f") && makes("..//f", "f"));
        assert!(!makes("d/f", "d") && !makes("x/x", "x") && !makes("f/", "f") && !makes("", "f"));
    }

    /// A child that is kept inside an `open` of a pipe.
    struct Opening(Child);

    impl Opening {
        fn new(dir: &std::path::Path, script: &str) -> Self {
            nix::unistd::mkfifo(&dir.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
            let mut command = Command::new("sh");
            let child = command.args(["-c", script]).current_dir(dir).spawn();
            Self(child.unwrap())
        }

        /// Whether it is seen to make the file anew, once it has come so far.
        async fn makes_anew(&self) -> bool {
            let id = self.0.id();
            for _ in 0..1500 {
                let path = call_of(id).await.and_then(|call| path_of(id, call.path));
                if path.is_some_and(|path| path.ends_with(b"pipe")) {
                    return makes_anew(id, &name("pipe")).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("it never opens the pipe");
        }
    }

    impl Drop for Opening {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn a_process_that_makes_a_file_anew_is_told_from_one_that_reads_or_appends() {
        let scripts = [
            ("exec 3> pipe", true),
            ("exec 3< pipe", false),
            ("exec 3>> ./pipe", false),
        ];
        for (script, wanted) in scripts {
            let dir = tempfile::tempdir().unwrap();
            let opening = Opening::new(dir.path(), script);
            assert_eq!(opening.makes_anew().await, wanted, "{script}");
        }
        assert!(!makes_anew(0, &name("pipe")).await);
    }
}
