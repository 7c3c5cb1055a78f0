//! `metrics=FILE`: what `status` counts, as Prometheus text in a file, as the textfile collector of
//! node_exporter reads it.
//!
//! Invariants: a reader meets a whole file or none; no name of an object is in it; no socket is opened
//! for it; what cannot be written is said once and stops nothing; at the end the file goes, so that
//! nobody takes what was for what is.

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::status::Status;
use crate::disk::blocking;

/// Between two writings.
const PERIOD: Duration = Duration::from_secs(15);

/// A disk that hangs does not keep a mount from ending.
const END_MAX: Duration = Duration::from_secs(1);

/// Writes as long as it lives.
#[derive(Debug)]
pub(super) struct Metrics {
    file: PathBuf,
    task: JoinHandle<()>,
    /// Whether it has ended; held while the file is written.
    ended: Arc<Mutex<bool>>,
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.task.abort();
        match self.ended.try_lock_for(END_MAX) {
            Some(mut ended) => *ended = true,
            None => tracing::warn!("the metrics file is still being written"),
        }
        if let Err(error) = std::fs::remove_file(&self.file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the metrics file stays behind");
        }
    }
}

impl Metrics {
    /// Begins to write what `status` answers; must be called inside of a runtime.
    pub(super) fn begin(file: PathBuf, status: impl Fn() -> Status + Send + 'static) -> Self {
        let to = file.clone();
        let ended = Arc::<Mutex<bool>>::default();
        let has_ended = Arc::clone(&ended);
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(PERIOD);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut fails = false;
            loop {
                tick.tick().await;
                let (to, text) = (to.clone(), text(&status()));
                let ended = Arc::clone(&has_ended);
                let written = blocking(move || match *ended.lock() {
                    true => Ok(()),
                    false => write(&to, &text),
                })
                .await;
                match &written {
                    Err(error) if !fails => {
                        tracing::warn!(%error, "the metrics cannot be written");
                    }
                    _ => {}
                }
                fails = written.is_err();
            }
        });
        Self { file, task, ended }
    }
}

/// In the place of what is there, in one step. It is read by another user.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    // The collector reads `*.prom` only.
    let unfinished = file.with_file_name(format!(".{}.new", name.to_string_lossy()));
    std::fs::write(&unfinished, text)?;
    std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o644))?;
    std::fs::rename(&unfinished, file)
}

/// One figure: its name, whether it only grows, what it is, its value.
type Figure = (&'static str, bool, &'static str, u64);

fn figures(status: &Status) -> Vec<Figure> {
    let mut all = queue(status);
    all.extend(left(status));
    all.extend(rest(status));
    all
}

const fn gauge(name: &'static str, help: &'static str, value: u64) -> Figure {
    (name, false, help, value)
}

const fn total(name: &'static str, help: &'static str, value: u64) -> Figure {
    (name, true, help, value)
}

fn queue(status: &Status) -> Vec<Figure> {
    let oldest = status.oldest_seconds.unwrap_or_default();
    vec![
        gauge(
            "pending_changes",
            "Changes that are not in S3 yet",
            status.pending,
        ),
        gauge(
            "pending_files",
            "Those of them that are files",
            status.pending_files,
        ),
        gauge("pending_bytes", "Their bytes", status.pending_bytes),
        gauge(
            "oldest_pending_seconds",
            "How long the oldest of them has waited",
            oldest,
        ),
        gauge("in_flight", "Changes that are being sent", status.in_flight),
    ]
}

/// What somebody may have to look at. Lists of names are told to 100.
fn left(status: &Status) -> Vec<Figure> {
    let is = u64::from;
    let count = |list: usize| list as u64;
    let refused = count(status.refused.len());
    let conflicts = count(status.conflicts.len());
    let partials = count(status.partials.len());
    let aside = count(status.set_aside.len());
    let covered = count(status.covered.len());
    let (stopped, trouble) = (is(status.stopped.is_some()), is(status.in_trouble()));
    vec![
        gauge("refused", "Changes S3 refuses for good (to 100)", refused),
        gauge(
            "conflicts",
            "Conflict copies not in S3 yet (to 100)",
            conflicts,
        ),
        gauge(
            "partials",
            "Files never closed before a crash (to 100)",
            partials,
        ),
        gauge(
            "set_aside",
            "Pieces of the spool that could not be read",
            aside,
        ),
        gauge(
            "covered",
            "Names in the directory under the mount (to 100)",
            covered,
        ),
        gauge(
            "stopped",
            "1: nothing is sent before somebody decides",
            stopped,
        ),
        gauge(
            "trouble",
            "1: status -q exits with 2, somebody has to look",
            trouble,
        ),
    ]
}

fn rest(status: &Status) -> Vec<Figure> {
    let mut all = vec![
        gauge("spool_bytes", "Bytes in the spool", status.spool_bytes),
        gauge("spool_max_bytes", "Its cap", status.spool_max),
        gauge("cache_bytes", "Bytes in the cache", status.cache_bytes),
        gauge("cache_max_bytes", "Its cap", status.cache_max),
        gauge("mounted_seconds", "Since the mount", status.mounted_seconds),
        total(
            "sent_bytes_total",
            "Bytes handed to sockets",
            status.sent_bytes,
        ),
        total(
            "received_bytes_total",
            "Bytes from sockets",
            status.received_bytes,
        ),
        total("requests_total", "Requests to S3", status.requests),
        total(
            "stale_answers_total",
            "Answers from memory, as the bucket was silent",
            status.stale_answers,
        ),
    ];
    let link = status.link_up.map(u64::from);
    all.extend(link.map(|up| gauge("link_up", "1: the interface is there and up", up)));
    let lease = status.lease_seconds;
    all.extend(lease.map(|left| gauge("lease_seconds", "How long the credentials hold", left)));
    all
}

/// The exposition format of Prometheus, version 0.0.4.
fn text(status: &Status) -> String {
    let labels = format!(
        "source=\"{}\",dir=\"{}\"",
        escaped(&status.source),
        escaped(&status.dir)
    );
    let mut text = String::new();
    for (name, grows, help, value) in figures(status) {
        let kind = if grows { "counter" } else { "gauge" };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "# HELP kryptonfs_{name} {help}.\n# TYPE kryptonfs_{name} {kind}\nkryptonfs_{name}{{{labels}}} {value}\n"
        );
    }
    text
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            source: "s3://b/\"p\\".into(),
            dir: "/mnt/a\nb".into(),
            pending: 3,
            sent_bytes: 4_000_000_000_000,
            link_up: Some(false),
            ..Status::default()
        }
    }

    #[test]
    fn each_figure_has_its_help_its_type_and_one_line() {
        let text = text(&status());
        let labels = "{source=\"s3://b/\\\"p\\\\\",dir=\"/mnt/a\\nb\"}";
        assert!(
            text.contains(&format!("\nkryptonfs_pending_changes{labels} 3\n"))
                || text.starts_with("# HELP kryptonfs_pending_changes")
        );
        assert!(text.contains(&format!(
            "\nkryptonfs_sent_bytes_total{labels} 4000000000000\n"
        )));
        assert!(text.contains("# TYPE kryptonfs_sent_bytes_total counter\n"));
        assert!(text.contains(&format!("kryptonfs_link_up{labels} 0\n")));
        assert!(!text.contains("lease"), "there is none");
        let lines: Vec<_> = text.lines().collect();
        for three in lines.chunks(3) {
            let name = three[2].split('{').next().unwrap();
            assert!(
                three[0].starts_with(&format!("# HELP {name} ")),
                "{three:?}"
            );
            assert!(
                three[1].starts_with(&format!("# TYPE {name} ")),
                "{three:?}"
            );
        }
    }

    #[test]
    fn the_file_is_replaced_whole_and_others_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kryptonfs.prom");
        for text in ["long and old", "new"] {
            write(&file, text).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write(&dir.path().join("absent/f"), "x").is_err());
    }

    #[tokio::test]
    async fn it_is_written_at_once_and_gone_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kryptonfs.prom");
        let metrics = Metrics::begin(file.clone(), status);
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(metrics);
        assert!(!file.exists());
    }
}
