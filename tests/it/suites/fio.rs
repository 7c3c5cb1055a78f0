//! `fio` (Debian's): every block carries a checksum, verified at once, after a reopen, and after a
//! remount that reads what is in the bucket.

use std::path::Path;
use std::process::Command;

use super::within;
use crate::harness::{Mount, Server, World};

/// Name, pattern, and what else.
type Job = (&'static str, &'static str, &'static [&'static str]);

/// Sequential and random, small and odd blocks, flushed, direct, several writers.
const JOBS: [Job; 8] = [
    ("seq1m", "write", &["--bs=1m", "--size=16m"]),
    ("seq4k", "write", &["--bs=4k", "--size=2m"]),
    ("rand4k", "randwrite", &["--bs=4k", "--size=2m"]),
    ("rand64k", "randwrite", &["--bs=64k", "--size=8m"]),
    ("odd", "write", &["--bs=7777", "--size=7769223"]),
    ("fsync", "write", &["--bs=64k", "--size=4m", "--fsync=16"]),
    ("direct", "write", &["--bs=128k", "--size=8m", "--direct=1"]),
    ("jobs4", "write", &["--bs=64k", "--size=4m", "--numjobs=4"]),
];

fn fio(dir: &Path, (name, pattern, options): Job, how: &str) {
    let mut command = Command::new("fio");
    command.arg(format!("--name={name}"));
    command.arg(format!("--directory={}", dir.display()));
    command.arg(format!("--rw={pattern}"));
    command.args([
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
    ]);
    command.args([
        "--ioengine=psync",
        "--thread",
        "--randrepeat=1",
        "--randseed=7",
    ]);
    command.args(["--fallocate=none", "--output-format=terse", how]);
    command.args(options);
    let output = within(300, &command);
    assert!(output.status.success(), "{name} {how}: {output:?}");
}

fn verify_all(mount: &Mount) {
    for job in JOBS {
        fio(mount.dir(), job, "--verify_only=1");
    }
}

#[test]
fn fio_verifies_every_block_at_once_after_a_reopen_and_after_a_remount() {
    let world = World::new(Server::Sim, "fio");
    let mount = world.spec().mount();
    for job in JOBS {
        fio(mount.dir(), job, "--do_verify=1");
    }
    verify_all(&mount);
    mount.drain();
    drop(mount);
    // Nothing of it is on this device.
    let mount = world.second_device().mount();
    verify_all(&mount);
    println!("fio: {} jobs verified three times", JOBS.len());
}
