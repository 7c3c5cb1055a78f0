//! A machine of its own, as far as mount(8) sees: private mounts, processes and `/run`, with
//! `mount.kryptonfs` in `/sbin`.
//!
//! Invariant: all of it ends with the script that ran in it, its daemons and mounts as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::mount::{BINARY, Spec};

/// Where the room's mountpoints are: everybody may enter there.
pub(crate) const DIR: &str = "/run/s3";

const PRELUDE: &str = r#"
mount --make-rprivate /
sbin=$(readlink -f /sbin)
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/real /run/sbin /run/s3 /run/lock
mount --bind "$sbin" /run/real
for program in /run/real/*; do ln -s "$program" /run/sbin/; done
ln -s "$BINARY" /run/sbin/mount.kryptonfs
ln -s "$BINARY" /run/sbin/mount.fuse.kryptonfs
mount --bind /run/sbin "$sbin"
daemons() { ps -e -o pid=,args= | sed -n 's/^ *\([0-9]*\) kryptonfs mount .*/\1/p'; }
supervisors() { ps -e -o pid=,args= | sed -n 's/^ *\([0-9]*\) kryptonfs supervise .*/\1/p'; }
until_true() { for _ in $(seq 600); do if "$@"; then return 0; fi; sleep 0.1; done; echo "never: $*" >&2; return 1; }
nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
alone() { test -z "$(daemons)$(supervisors)"; }
"#;

/// A machine with an fstab.
#[derive(Debug)]
pub(crate) struct Room {
    dir: PathBuf,
    fstab: PathBuf,
}

impl Room {
    /// With these lines as its fstab.
    pub(crate) fn new(dir: &Path, fstab: &[String]) -> Self {
        let file = dir.join("fstab");
        fs::write(&file, fstab.join("\n") + "\n").unwrap();
        Self {
            dir: dir.to_owned(),
            fstab: file,
        }
    }

    /// Runs a script there. `$FSTAB` is its fstab, `$S3` the mountpoint.
    pub(crate) fn run(&self, script: &str) -> Output {
        Command::new("timeout")
            .args(["-k", "5", "240", "unshare", "--mount", "--pid", "--fork"])
            .args([
                "--kill-child",
                "--mount-proc",
                "bash",
                "-euo",
                "pipefail",
                "-c",
            ])
            .arg(format!("{PRELUDE}\n{script}"))
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("LC_ALL", "C.UTF-8")
            .env("BINARY", BINARY)
            .env("FSTAB", &self.fstab)
            .env("S3", DIR)
            .output()
            .expect("timeout and unshare are there")
    }

    /// The same; panics if it fails.
    pub(crate) fn does(&self, script: &str) -> String {
        let output = self.run(script);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{}: {script}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }
}

impl Spec {
    /// A line of fstab for it, at `DIR`: its type, its source as it is to be written, more options.
    pub(crate) fn fstab(&self, kind: &str, source: &str, more: &str) -> String {
        let shown = |path: &Path| path.display().to_string().replace(' ', "\\040");
        let mut options = vec![
            format!("region={}", self.region),
            format!("endpoint_url={}", self.endpoint),
            format!("krypton-url={}", self.krypton),
            format!("ca_file={}", shown(&self.ca_file)),
            format!("spool_dir={}", shown(&self.spool)),
            format!("cache_dir={}", shown(&self.cache)),
        ];
        options.extend(
            self.options
                .iter()
                .map(|(key, value)| format!("{key}={value}")),
        );
        if !more.is_empty() {
            options.push(more.to_owned());
        }
        format!("{source} {DIR} {kind} {} 0 0", options.join(","))
    }
}
