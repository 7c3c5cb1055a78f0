//! What the tests stand on: a simulated cloud, real servers, real mounts of the real binary, an
//! independent S3 client, an independent wire counter.
//!
//! Invariants: all that is made lies in a folder of this process under the target directory; every
//! process that is started ends with this one; nothing stays mounted.

pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod cloud;
pub(crate) mod field;
pub(crate) mod gate;
pub(crate) mod holder;
pub(crate) mod mount;
pub(crate) mod names;
pub(crate) mod relay;
pub(crate) mod room;
pub(crate) mod servers;
pub(crate) mod tree;
pub(crate) mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) use client::{Access, Client, Keys, Object};
pub(crate) use cloud::TestCloud;
pub(crate) use gate::{Blow, Call, Gate, Strike};
pub(crate) use holder::Holder;
pub(crate) use mount::{Mount, Spec};
pub(crate) use relay::Relay;
pub(crate) use world::{Server, World};

/// A folder of a test, removed at its end (kept if it failed).
#[derive(Debug)]
pub(crate) struct WorkDir(PathBuf);

impl WorkDir {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let path = own_folder().join(format!("{number}-{name}"));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a folder in it.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.0.display());
        } else {
            remove_unmounted(&self.0);
        }
    }
}

/// The folder of this process; folders of processes that ended are cleared first.
fn own_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix("it-"));
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                remove_unmounted(&entry.path());
            }
        }
        root.join(format!("it-{}", std::process::id()))
    })
}

/// Removes a folder, never through a mount.
fn remove_unmounted(path: &Path) {
    for mount in mounts_below(path) {
        let _ = Command::new("umount").arg("-l").arg(&mount).status();
    }
    if mounts_below(path).is_empty() {
        let _ = fs::remove_dir_all(path);
    }
}

/// Where something is mounted at `path` or below it.
pub(crate) fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let places = table.lines().filter_map(|line| line.split(' ').nth(1));
    let mut found: Vec<PathBuf> = places
        .map(|place| PathBuf::from(place.replace("\\040", " ")))
        .filter(|place| place.starts_with(path))
        .collect();
    found.reverse();
    found
}

/// Runs a shell script in `dir`; panics if it fails.
pub(crate) fn shell(dir: &Path, script: &str) -> String {
    let output = try_shell(dir, script);
    assert!(
        output.status.success(),
        "in {}: {script}\n{}: {}{}",
        dir.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a shell script in `dir`, with an environment that does not depend on who runs the tests.
pub(crate) fn try_shell(dir: &Path, script: &str) -> Output {
    Command::new("timeout")
        .args(["-k", "5", "300", "bash", "-euo", "pipefail", "-c", script])
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", own_folder())
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .output()
        .expect("timeout and bash are there")
}

/// Asks until `answer` is there; panics, saying what was waited for, when it takes too long.
pub(crate) fn eventually<T>(
    what: &str,
    limit: Duration,
    mut answer: impl FnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = answer() {
            return found;
        }
        assert!(Instant::now() < until, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `len` bytes that do not compress and differ by `seed`.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Whether the suites that take long are asked for.
pub(crate) fn long() -> bool {
    std::env::var_os("KRYPTONFS_LONG").is_some_and(|value| value != "0")
}
