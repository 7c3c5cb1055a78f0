//! The control socket: one line of JSON asks, one line answers.
//!
//! ```text
//! "status"                       -> {"status":{...}}
//! {"drain":{"timeout_ms":1000}}  -> {"drained":{...}} | {"left":{...}}
//! "cancel"                       -> {"cancelled":3}
//! {"log_level":{"level":"debug"}} -> "done"
//! "retry"                        -> {"retried":2}
//! {"refresh":{"path":"a/b"}}      -> "done"
//! {"discard":{"partials":[7],"aside":[]}} -> {"discarded":1}
//! anything else                  -> {"error":"..."}
//! ```
//!
//! Invariants: only the mount's user and root are answered (the socket's mode says so, and the peer's
//! credentials are asked for); a line is bounded, and so are callers at
//! once and their time to ask; the socket is removed by the mount that made it, and by no other.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::status::Status;

/// Longest question.
const QUESTION: u64 = 4 << 10;
/// Longest answer.
const ANSWER: u64 = 16 << 20;
/// Callers at once.
const CALLERS: usize = 8;
/// A caller has so long to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// How are things?
    Status,
    /// Send everything now, and tell when it is done.
    Drain {
        /// How long to wait for that.
        timeout_ms: u64,
    },
    /// End all waits for the bucket now.
    Cancel,
    /// Try again what S3 refused for good.
    Retry,
    /// Ask the bucket for this now, whatever is known of it.
    Refresh {
        /// Below the mount, without a slash at either end; empty: the root.
        path: String,
    },
    /// Let go of what was never closed or could not be read.
    Discard {
        /// Data files under `partial/`.
        partials: Vec<u64>,
        /// Files under `aside/`.
        aside: Vec<String>,
    },
    /// Log so much from now on.
    LogLevel {
        /// As the option `log`.
        level: String,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Say {
    /// So.
    Status(Box<Status>),
    /// Everything is in S3.
    Drained(Box<Status>),
    /// This is left.
    Left(Box<Status>),
    /// So many waits were ended.
    Cancelled(usize),
    /// So many changes are tried again.
    Retried(usize),
    /// So many files are gone.
    Discarded(usize),
    /// It is done.
    Done,
    /// That was no question.
    Error(String),
}

/// Who knows the answers.
#[async_trait]
pub(super) trait Knows: Send + Sync + 'static {
    /// How things are.
    fn status(&self) -> Status;
    /// Hurries, and waits until nothing is pending; false: not within `timeout`.
    async fn drained(&self, timeout: Duration) -> bool;
    /// Ends all waits for the bucket; how many there were.
    fn cancel(&self) -> usize;
    /// Tries again what S3 refused for good; how many changes.
    async fn retry(&self) -> Result<usize, String>;
    /// Asks the bucket for `path` now; in bounded time.
    async fn refresh(&self, path: &str) -> Result<(), String>;
    /// Lets go of partials and of what was set aside; how many were there.
    async fn discard(&self, partials: &[u64], aside: &[String]) -> Result<usize, String>;
}

/// Listens as long as it lives.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
    inode: u64,
    task: tokio::task::JoinHandle<()>,
}

impl Control {
    /// Listens at `path`; what a dead daemon left there is replaced.
    pub(super) fn listen(path: PathBuf, who: Arc<dyn Knows>) -> io::Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let inode = std::fs::symlink_metadata(&path)?.ino();
        let task = tokio::spawn(serve(listener, who));
        Ok(Self { path, inode, task })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket stays behind");
        }
    }
}

async fn serve(listener: UnixListener, who: Arc<dyn Knows>) {
    let callers = Arc::new(Semaphore::new(CALLERS));
    while let Ok(permit) = Arc::clone(&callers).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let who = Arc::clone(&who);
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &*who).await {
                        tracing::debug!(%error, "a caller of the control socket left");
                    }
                    drop(permit);
                });
            }
            // Out of descriptors: it passes.
            Err(error) => {
                tracing::warn!(%error, "the control socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: tokio::net::UnixStream, who: &dyn Knows) -> io::Result<()> {
    let caller = stream.peer_cred()?.uid();
    if caller != 0 && caller != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other(format!("user {caller} may not ask")));
    }
    let (asks, mut hears) = stream.into_split();
    let mut line = String::new();
    let mut asks = tokio::io::BufReader::new(asks.take(QUESTION));
    tokio::time::timeout(PATIENCE, asks.read_line(&mut line)).await??;
    let mut answer = serde_json::to_vec(&say(&line, who).await)?;
    answer.push(b'\n');
    tokio::time::timeout(PATIENCE, hears.write_all(&answer)).await?
}

async fn say(line: &str, who: &dyn Knows) -> Say {
    match serde_json::from_str(line) {
        Ok(Ask::Status) => Say::Status(Box::new(who.status())),
        Ok(Ask::Drain { timeout_ms }) => {
            let drained = who.drained(Duration::from_millis(timeout_ms)).await;
            let status = Box::new(who.status());
            if drained {
                Say::Drained(status)
            } else {
                Say::Left(status)
            }
        }
        Ok(Ask::Cancel) => Say::Cancelled(who.cancel()),
        Ok(Ask::Retry) => who.retry().await.map_or_else(Say::Error, Say::Retried),
        Ok(Ask::Refresh { path }) => match who.refresh(&path).await {
            Ok(()) => Say::Done,
            Err(why) => Say::Error(why),
        },
        Ok(Ask::Discard { partials, aside }) => {
            let gone = who.discard(&partials, &aside).await;
            gone.map_or_else(Say::Error, Say::Discarded)
        }
        Ok(Ask::LogLevel { level }) => match set_log_level(&level) {
            Ok(()) => Say::Done,
            Err(why) => Say::Error(why),
        },
        Err(error) => Say::Error(format!("not understood: {error}")),
    }
}

fn set_log_level(level: &str) -> Result<(), String> {
    let parsed = level.parse();
    super::set_level(parsed.map_err(|_| {
        format!("{level:?} is no level: say off, error, warn, info, debug or trace")
    })?)
}

/// Asks the daemon behind `socket`. Blocking, at most `patience`.
///
/// # Errors
/// If nobody answers.
pub fn ask(socket: &Path, ask: &Ask, patience: Duration) -> io::Result<Say> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut question = serde_json::to_vec(ask)?;
    question.push(b'\n');
    stream.write_all(&question)?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER)).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fake {
        empty: bool,
    }

    #[async_trait]
    impl Knows for Fake {
        fn status(&self) -> Status {
            Status {
                source: "s3://b/\n\"日本".into(),
                pending: u64::from(!self.empty),
                ..Status::default()
            }
        }
        async fn drained(&self, timeout: Duration) -> bool {
            assert_eq!(timeout, Duration::from_millis(1500));
            self.empty
        }
        fn cancel(&self) -> usize {
            3
        }
        async fn retry(&self) -> Result<usize, String> {
            Ok(2)
        }
        async fn refresh(&self, path: &str) -> Result<(), String> {
            assert_eq!(path, "a/b");
            Ok(())
        }
        async fn discard(&self, partials: &[u64], aside: &[String]) -> Result<usize, String> {
            assert_eq!(
                (partials, aside),
                (&[7][..], &["1-2-3.torn".to_owned()][..])
            );
            Err("the disk".into())
        }
    }

    async fn asked(who: Fake, question: Ask) -> Say {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let control = Control::listen(path.clone(), Arc::new(who)).unwrap();
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let at = path.clone();
        let asking = move || ask(&at, &question, Duration::from_secs(60)).unwrap();
        let said = tokio::task::spawn_blocking(asking).await.unwrap();
        drop(control);
        assert!(!path.exists());
        said
    }

    #[tokio::test]
    async fn a_question_and_its_answer_survive_the_socket() {
        let who = Fake { empty: true };
        let status = Box::new(who.status());
        assert_eq!(asked(who, Ask::Status).await, Say::Status(status));
    }

    #[tokio::test]
    async fn a_drain_tells_whether_all_went() {
        let drain = Ask::Drain { timeout_ms: 1500 };
        let done = asked(Fake { empty: true }, drain.clone()).await;
        assert!(matches!(done, Say::Drained(_)));
        let left = asked(Fake { empty: false }, drain).await;
        assert!(matches!(left, Say::Left(status) if status.pending == 1));
    }

    #[tokio::test]
    async fn a_cancel_tells_how_many_waits_it_ended() {
        let said = asked(Fake { empty: true }, Ask::Cancel).await;
        assert_eq!(said, Say::Cancelled(3));
    }

    #[tokio::test]
    async fn a_retry_tells_how_many_and_a_failure_tells_why() {
        let said = asked(Fake { empty: true }, Ask::Retry).await;
        assert_eq!(said, Say::Retried(2));
        let discard = Ask::Discard {
            partials: vec![7],
            aside: vec!["1-2-3.torn".into()],
        };
        let said = asked(Fake { empty: true }, discard).await;
        assert_eq!(said, Say::Error("the disk".into()));
    }

    #[tokio::test]
    async fn a_refresh_is_done_when_the_bucket_was_asked() {
        let refresh = Ask::Refresh { path: "a/b".into() };
        assert_eq!(asked(Fake { empty: true }, refresh).await, Say::Done);
    }

    #[tokio::test]
    async fn what_is_no_question_is_said_so() {
        let who = Fake { empty: true };
        for line in ["", "{}", "{\"status\"", "{\"drain\":{}}", "[[[["] {
            assert!(matches!(say(line, &who).await, Say::Error(_)), "{line}");
        }
    }

    #[tokio::test]
    async fn what_a_dead_daemon_left_is_replaced_and_another_ones_socket_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "left behind").unwrap();
        let who = || Arc::new(Fake { empty: true });
        let first = Control::listen(path.clone(), who()).unwrap();
        let second = Control::listen(path.clone(), who()).unwrap();
        drop(first);
        assert!(path.exists(), "the second one's");
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn the_lines_are_what_the_head_of_this_file_says() {
        let line = |ask: &Ask| serde_json::to_string(ask).unwrap();
        assert_eq!(
            line(&Ask::Drain { timeout_ms: 1000 }),
            "{\"drain\":{\"timeout_ms\":1000}}"
        );
        assert_eq!(line(&Ask::Status), "\"status\"");
    }
}
