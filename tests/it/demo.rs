//! The first thing a newcomer runs.

use std::process::{Command, Stdio};

use crate::harness::mount::BINARY;
use crate::harness::servers::die_with_parent;
use crate::harness::{WorkDir, eventually, mounts_below};

fn demo(work: &WorkDir) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "120", BINARY, "demo"]);
    command.arg(work.path().join("here"));
    command.current_dir(work.path()).env_clear();
    command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    command
}

#[test]
fn the_tour_runs_narrates_what_it_cost_and_leaves_nothing_mounted() {
    let work = WorkDir::new("demo");
    for _ in 0..2 {
        let output = demo(&work).arg("--tour-only").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        for word in [
            "https://127.0.0.1",
            "$ cp ",
            "$ ls -l",
            ">>",
            "PutObject",
            "mode=",
        ] {
            assert!(text.contains(word), "{word:?} is not in:\n{text}");
        }
        assert!(mounts_below(work.path()).is_empty());
    }
}

#[test]
fn after_the_tour_it_stays_until_ctrl_c_and_drains() {
    let work = WorkDir::new("demo");
    let child = demo(&work).stdout(Stdio::piped()).spawn().unwrap();
    let dir = work.path().join("here");
    let minute = std::time::Duration::from_secs(60);
    // The last thing of the tour, then it is ours.
    eventually("the tour's end", minute, || {
        dir.join("copy.bin").exists().then_some(())
    });
    std::fs::write(dir.join("mine.txt"), "played with").unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    // `timeout` hands it on.
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(mounts_below(work.path()).is_empty());
    assert!(text.contains("here.cloud"), "where things are: {text}");
}

#[test]
fn a_demo_that_was_killed_is_followed_by_one_that_sends_what_it_left() {
    let work = WorkDir::new("demo-killed");
    let dir = work.path().join("here");
    let mut killed = Command::new(BINARY);
    killed.arg("demo").arg(&dir).stdout(Stdio::null());
    die_with_parent(&mut killed);
    let mut killed = killed.spawn().unwrap();
    let minute = std::time::Duration::from_secs(60);
    eventually("the tour's end", minute, || {
        dir.join("copy.bin").exists().then_some(())
    });
    std::fs::write(dir.join("mine.txt"), "kept").unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(
        !mounts_below(work.path()).is_empty(),
        "dead, and in the way"
    );
    let output = demo(&work).arg("--tour-only").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("mine.txt"), "{shown}");
    assert!(mounts_below(work.path()).is_empty());
}

#[test]
fn a_place_that_is_no_directory_is_refused_in_words() {
    let work = WorkDir::new("demo-file");
    std::fs::write(work.path().join("here"), "a file").unwrap();
    let output = demo(&work).arg("--tour-only").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not a directory"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
