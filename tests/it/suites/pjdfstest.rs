//! `pjdfstest` (the Rust crate): what POSIX says of names, attributes, permissions and times.
//!
//! Paths of up to `PATH_MAX` are among its cases, and a key holds 1024 bytes: those cases run on a
//! mountpoint that is as deep as that leaves it. All others run on a short one, as the path of a
//! socket has 108 bytes at most.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::within;
use crate::harness::servers::tool;
use crate::harness::{Server, World};

const CONFIG: &str = r#"
[features]
posix_fallocate = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.05
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
"#;

/// Cases that fail, and why: each makes a hard link, and S3 has one key for each object (`EPERM`).
/// What passes must leave this list.
const FROZEN: [(&str, &[&str]); 7] = [
    ("unlink::unchanged_ctime_failed", ALL),
    ("unlink::update_ctime_success", ALL),
    ("link::remove_link", ALL),
    ("link::share_metadata", ALL),
    ("link::changed_ctime_success", ALL),
    ("rename::preserve_metadata", ALL),
    ("rename::to_multiply_linked", ALL),
];
const ALL: &[&str] = &["regular", "fifo", "socket", "char", "block"];
/// How many have to pass.
const PASS_MIN: usize = 340;
/// Where the tests work: so deep that a path of `PATH_MAX` leaves the bucket keys of 1024 bytes.
const DEPTH: usize = 3300;

fn deep(mut dir: PathBuf) -> PathBuf {
    while dir.as_os_str().len() < DEPTH {
        let left = DEPTH - dir.as_os_str().len();
        dir.push("d".repeat(left.clamp(2, 201) - 1));
    }
    dir
}

/// What became of each case: `ok`, `FAILED` or `skipped`, and what it said.
type Outcome = BTreeMap<String, (String, String)>;

fn run(world: &World, dir: PathBuf, filter: &[&str]) -> Outcome {
    let mut spec = world.spec();
    fs::create_dir_all(&dir).unwrap();
    spec.dir = dir;
    let mount = spec.mount();
    let dir = mount.path("t");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let config = world.work.path().join("pjdfstest.toml");
    fs::write(&config, CONFIG).unwrap();
    let mut command = Command::new(tool("pjdfstest"));
    command.arg("-c").arg(&config).arg("-p").arg(&dir);
    let output = within(600, command.args(filter));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines().peekable();
    let mut outcome = Outcome::new();
    while let Some(line) = lines.next() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let [case, how @ ("ok" | "FAILED" | "skipped")] = words[..] {
            let said = lines.peek().unwrap_or(&"").trim();
            outcome.insert(case.into(), (how.into(), said.into()));
        }
    }
    fs::remove_dir_all(dir).unwrap();
    outcome
}

#[test]
fn pjdfstest_passes_all_but_what_needs_hard_links() {
    let world = World::new(Server::Sim, "pjdfstest");
    let short = tempfile::tempdir().unwrap();
    let mut outcome = run(&world, short.path().join("m"), &[]);
    let long = deep(world.work.path().join("deep"));
    outcome.extend(run(&world, long, &["enametoolong_path"]));
    let ended = |wanted: &str| -> BTreeSet<String> {
        let those = outcome.iter().filter(|(_, (how, _))| how == wanted);
        those.map(|(case, _)| case.clone()).collect()
    };
    let (passed, failed, skipped) = (ended("ok"), ended("FAILED"), ended("skipped"));
    println!(
        "pjdfstest: {} passed, {} failed, {} skipped by the suite",
        passed.len(),
        failed.len(),
        skipped.len()
    );
    let frozen: BTreeSet<String> = FROZEN
        .iter()
        .flat_map(|(case, kinds)| kinds.iter().map(move |kind| format!("{case}::{kind}")))
        .collect();
    let why = |case: &String| format!("{case}: {}", outcome[case].1);
    let new: Vec<String> = failed.difference(&frozen).map(why).collect();
    assert!(new.is_empty(), "{}", new.join("\n"));
    let mended: Vec<_> = frozen.difference(&failed).collect();
    assert!(mended.is_empty(), "not in the list any more: {mended:?}");
    assert!(passed.len() >= PASS_MIN, "only {} passed", passed.len());
}
