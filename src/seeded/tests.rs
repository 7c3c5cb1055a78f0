//! Each bug of the list is put in, and the test that has to catch it is run: by this same program,
//! started once for each bug, told by its environment which one.

#![allow(
    clippy::unwrap_used,
    reason = "tests, which clippy does not see behind a feature"
)]

use std::collections::BTreeSet;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::{ALL, Bug};

/// Names the bug to a program that is to have it.
const VARIABLE: &str = "KRYPTONFS_SEEDED_BUG";
/// A test that hangs has caught nothing.
const LONGEST: Duration = Duration::from_secs(300);
/// Programs at a time.
const AT_ONCE: usize = 2;

/// The bug this program has.
pub(super) fn chosen() -> Option<Bug> {
    static CHOSEN: OnceLock<Option<Bug>> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok()?;
        let found = ALL.iter().find(|(bug, ..)| format!("{bug:?}") == name);
        found.map(|(bug, ..)| *bug)
    })
}

/// What this program says when it runs just this test with `bug` in it; `None`: it hangs.
fn run(test: &str, bug: Option<Bug>) -> Option<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--test-threads=1"]);
    // What is random is the same each time, and what failed on purpose is not kept to be tried again.
    command.env("PROPTEST_RNG_SEED", "1");
    command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
    command.env("PROPTEST_MAX_SHRINK_ITERS", "0");
    command.env_remove("PROPTEST_CASES").env_remove(VARIABLE);
    if let Some(bug) = bug {
        command.env(VARIABLE, format!("{bug:?}"));
    }
    let mut said = tempfile::tempfile().unwrap();
    let out = said.try_clone().unwrap();
    // A test that fails leaves the processes it started: they are in its group.
    let started = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(Stdio::null());
    let mut child = started.process_group(0).spawn().unwrap();
    let group = Pid::from_raw(child.id().try_into().unwrap());
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    let is_running = || waitid(Id::Pid(group), ended).unwrap() == WaitStatus::StillAlive;
    let end = Instant::now() + LONGEST;
    while is_running() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    let hangs = is_running();
    killpg(group, Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    let mut text = Vec::new();
    said.rewind().unwrap();
    said.read_to_end(&mut text).unwrap();
    (!hangs).then(|| String::from_utf8_lossy(&text).into_owned())
}

/// Why the test failed, in its words, where it has this bug; nothing where it has none. An error if
/// it did otherwise.
fn outcome(test: &str, bug: Option<Bug>) -> Result<String, String> {
    let said = run(test, bug).ok_or("it hangs")?;
    let expected = match bug {
        Some(_) => "test result: FAILED. 0 passed; 1 failed;",
        None => "test result: ok. 1 passed; 0 failed;",
    };
    if !said.contains(expected) {
        return Err(said);
    }
    let mut lines = said.lines();
    let place = lines.find(|line| line.contains("panicked at "));
    let why = lines.find(|line| !line.trim().is_empty()).or(place);
    let why = why.filter(|_| bug.is_some()).unwrap_or_default();
    Ok(why.trim().chars().take(100).collect())
}

#[test]
fn each_seeded_bug_is_caught_by_its_test_which_passes_without_it() {
    let tests: BTreeSet<_> = ALL.iter().map(|(.., test)| *test).collect();
    let without = tests.into_iter().map(|test| (test, None));
    let with = ALL.iter().map(|(bug, _, test)| (*test, Some(*bug)));
    let all: Vec<_> = without.chain(with).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mine = std::iter::from_fn(|| {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (test, bug) = *all.get(at)?;
            Some((at, outcome(test, bug)))
        });
        mine.collect::<Vec<_>>()
    };
    let mut done: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| worker.join().unwrap());
        done.flatten().collect()
    });
    done.sort_by_key(|(at, _)| *at);
    let bugs = done.split_off(all.len() - ALL.len());
    for (at, outcome) in done {
        let (test, _) = all[at];
        assert!(outcome.is_ok(), "{test} without a bug: {outcome:?}");
    }
    let mut missed = Vec::new();
    for ((bug, what, test), (_, outcome)) in ALL.iter().zip(bugs) {
        println!("{bug:?}:{what}\n    {test}");
        match outcome {
            Ok(why) => println!("    caught: {why}"),
            Err(said) => {
                println!("    NOT CAUGHT: {said}");
                missed.push(bug);
            }
        }
    }
    println!("{} bugs, {} not caught", ALL.len(), missed.len());
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
