//! The client of a mount's control socket.

use std::path::Path;
use std::time::Duration;

use super::show;
use crate::daemon::{self, Ask, Say, Status};

/// The daemon answers at once, or it hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// A large directory on a slow link; the daemon gives up before.
const REFRESH: Duration = Duration::from_secs(660);

pub(super) fn status(dir: &Path) -> Result<Status, String> {
    match ask(dir, &Ask::Status, PATIENCE)? {
        Say::Status(status) => Ok(*status),
        other => Err(unexpected(other)),
    }
}

pub(super) fn log_level(dir: &Path, level: &str) -> Result<(), String> {
    let level = level.to_owned();
    match ask(dir, &Ask::LogLevel { level }, PATIENCE)? {
        Say::Done => Ok(()),
        other => Err(unexpected(other)),
    }
}

/// `Ok`: everything is in S3.
pub(super) fn drain(dir: &Path, timeout: Duration) -> Result<(), String> {
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    match ask(dir, &Ask::Drain { timeout_ms }, timeout + PATIENCE)? {
        Say::Drained(status) if status.refused.is_empty() => Ok(()),
        Say::Drained(status) | Say::Left(status) => Err(show::unsent(&status)),
        other => Err(unexpected(other)),
    }
}

/// The bucket was asked for `path`.
pub(super) fn refresh(path: &Path) -> Result<(), String> {
    let name = daemon::inside(path)?;
    match ask(path, &Ask::Refresh { path: name }, REFRESH)? {
        Say::Done => Ok(()),
        other => Err(unexpected(other)),
    }
}

/// How many waits were ended.
pub(super) fn cancel(dir: &Path) -> Result<usize, String> {
    match ask(dir, &Ask::Cancel, PATIENCE)? {
        Say::Cancelled(waits) => Ok(waits),
        other => Err(unexpected(other)),
    }
}

fn ask(dir: &Path, question: &Ask, patience: Duration) -> Result<Say, String> {
    let socket = daemon::find(dir)?;
    daemon::ask(&socket, question, patience).map_err(|error| {
        format!(
            "the daemon of {} does not answer ({error}): try again, or unmount with `umount -l {}`",
            dir.display(),
            dir.display()
        )
    })
}

/// Asks behind a socket that was found.
pub(super) fn told(socket: &Path, question: &Ask) -> Result<Say, String> {
    daemon::ask(socket, question, PATIENCE)
        .map_err(|error| format!("the daemon does not answer ({error}): try again"))
}

pub(super) fn unexpected(said: Say) -> String {
    match said {
        Say::Error(text) => format!("the daemon says: {text}"),
        Say::Status(_)
        | Say::Drained(_)
        | Say::Left(_)
        | Say::Cancelled(_)
        | Say::Retried(_)
        | Say::Discarded(_)
        | Say::Done => "the daemon answers another question: it is of another version".into(),
    }
}
