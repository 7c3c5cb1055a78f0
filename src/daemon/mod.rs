//! The composition root: builds all below, mounts, listens for control, and ends in order.
//!
//! Invariants:
//! - a mount is whole or not at all: the spool is locked and the bucket has not said no before the
//!   kernel is asked, and the drain starts after it answered;
//! - the end waits for the disk, never for the network beyond `STOP`; what is unsent stays in the log.

mod build;
mod check;
mod control;
mod credentials;
mod identity;
mod link;
mod logging;
mod metrics;
mod notify;
mod pins;
mod process;
mod reach;
mod region;
mod registry;
mod service;
mod status;
mod supervise;
mod time;
mod told;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::runtime::Handle;

use crate::clock::believed::Believed;
use crate::config::Config;
use crate::drain;
use crate::fs::FsError;
use crate::fuse::{self, Deadlines, Left, MountError, Options, Session};
use crate::store::closed::Closed as Gate;
use crate::types::RelPath;
use build::{Core, World};
use check::Verdict;
use control::{Control, Knows};
use metrics::Metrics;

pub use control::{Ask, Say, ask};
pub use credentials::credentials;
pub use logging::{Sink, hold_log, log_names, log_to, release_log, set_level};
pub use process::{harden, runtime, shut_down};
pub use reach::reach;
pub use registry::{find, inside, is_mount, sockets};
pub use service::run;
pub use status::{LastError, Partial, Refused, Sending, Status, ago, lasting};
pub use supervise::{in_background, supervise};

/// How long the mountpoint may take to be looked at (it may lie on a network file system).
const LOOK: Duration = Duration::from_secs(10);
/// How long the kernel's last requests may take once nobody uses the mount any more.
const REST: Duration = Duration::from_secs(1);
/// How long those who still use it may take to close what is open (they may have been told to end as we
/// were, at a shutdown).
const CLOSING: Duration = Duration::from_millis(1500);
/// How long it may take to make what is not closed durable.
const KEEPING: Duration = Duration::from_secs(2);
/// How long the drain may take to stop.
const STOP: Duration = Duration::from_secs(2);
/// How long the last flush may take at the end: only a disk that hangs takes longer.
const LAST: Duration = Duration::from_secs(10);
/// A mount ends within this, where the disk does not hang.
const END: Duration = Duration::from_secs(5);
const _: () = {
    let rests = REST.as_millis() * 2;
    let closes = CLOSING.as_millis() + KEEPING.as_millis();
    assert!(
        rests < END.as_millis() && closes < END.as_millis() && STOP.as_millis() < END.as_millis()
    );
};
/// What an operation may take beyond what it waits for.
const SLACK: Duration = Duration::from_secs(10);
/// Writes and closes that wait for the disk only.
const DISK: Duration = Duration::from_secs(120);

/// A large directory on a slow link.
const REFRESH: Duration = Duration::from_secs(600);
const SILENT: &str = "the bucket is silent: what is known is still shown, and asked for anew when it answers; \
                      `kryptonfs status` says how the link is";

/// Why there is no mount: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What was asked for cannot be: exit 1.
    Usage(String),
    /// It could not be done: exit 32.
    Mount(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(line) | Self::Mount(line) => f.write_str(line),
        }
    }
}

impl std::error::Error for Failure {}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let line = error.to_string();
        match error {
            MountError::Absent(_) | MountError::NotDirectory(_) => Self::Usage(line),
            MountError::Mounted(_)
            | MountError::Device(_)
            | MountError::NoHelper
            | MountError::AllowOther
            | MountError::Other(..) => Self::Mount(line),
        }
    }
}

/// How a mount's process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Started by hand, or by a service manager.
    Foreground,
    /// Started by a supervisor.
    Worker {
        /// In the place of one that died: the bucket is not asked before, the link may be down.
        again: bool,
    },
}

/// Makes mounts.
#[derive(Clone, Copy, Debug)]
pub struct Daemon;

impl Daemon {
    /// Mounts what `config` says at `dir`, in this process. Needs a runtime of several threads.
    ///
    /// # Errors
    /// One line; nothing is mounted then.
    pub async fn mount(config: Config, dir: &Path) -> Result<Mounted, Failure> {
        Self::start(config, dir, Life::Foreground).await
    }

    async fn start(config: Config, dir: &Path, life: Life) -> Result<Mounted, Failure> {
        let again = life == Life::Worker { again: true };
        let dir = ready(dir).await?;
        let protects = config.protect_dir && !again;
        let under = dir.clone();
        let covered = apart(move || covers(&under, protects)).await?;
        if let Some(key) = config.folder_within(&dir) {
            return Err(Failure::Usage(format!(
                "{key} lies inside of {}: name one outside",
                dir.display()
            )));
        }
        let clock = Believed::of_process();
        let time = time::Keeping::start(&config.common_dir().join("clock"), &clock);
        let world = build::world(&config)?;
        let (config, world, core) = apart(move || {
            let core = build::core(&config, &world)?;
            Ok::<_, Failure>((config, world, core))
        })
        .await??;
        if !again {
            checked(&config, &world, &core).await?;
        }
        let options = options(&config, again);
        let (fs, runtime) = (Arc::clone(&core.fs), Handle::current());
        let at = dir.clone();
        let mounting = apart(move || Session::mount(fs, &at, &options, &runtime));
        let session = mounting.await??;
        let drain = build::drain(&config, &world, &core);
        let watcher = link::watch(world.net.link(), &world.leases, &drain);
        let pins = pins::keep(&core.fs, &config.pins);
        let inner = Arc::new(Inner {
            source: config.place.to_string(),
            dir,
            since: Instant::now(),
            spool: config.log.dir.clone(),
            covered,
            interface: config.net.interface.clone(),
            world,
            core,
            drain,
        });
        let control = registry::place(&inner.dir)
            .and_then(|path| Control::listen(path, Arc::clone(&inner) as Arc<dyn Knows>));
        let control = control
            .inspect_err(
                |error| tracing::warn!(%error, "no control socket: status and drain will not work"),
            )
            .ok();
        let metrics = config.metrics.map(|file| {
            let told = Arc::clone(&inner);
            Metrics::begin(file, move || told.status())
        });
        Ok(Mounted {
            session,
            control,
            metrics,
            inner,
            _watcher: watcher,
            _pins: pins,
            time,
        })
    }
}

/// Asks the bucket whether it is to be had: what refuses for good fails the mount, silence does not.
async fn checked(config: &Config, world: &World, core: &Core) -> Result<(), Failure> {
    let is_pending = core.tree.pending(|all| all.count() > 0);
    match check::bucket(&config.place, &world.once, &world.leases, is_pending).await {
        Verdict::Fine => Ok(()),
        Verdict::Offline(why) => {
            tracing::warn!(%why, "mounted offline");
            core.fs.starts_offline();
            Ok(())
        }
        Verdict::Refused(line) => Err(Failure::Mount(line)),
    }
}

/// Looks at the mountpoint, but not for ever.
async fn ready(dir: &Path) -> Result<PathBuf, Failure> {
    let at = dir.to_owned();
    let looking = apart(move || fuse::prepare(&at));
    match tokio::time::timeout(LOOK, looking).await {
        Ok(answer) => Ok(answer??),
        Err(_) => Err(Failure::Mount(format!(
            "{} does not answer: what is mounted there or above hangs",
            dir.display()
        ))),
    }
}

/// Protects the bare directory, if it is to be; answers what lies in it, which the mount will hide.
fn covers(dir: &Path, protects: bool) -> Vec<String> {
    if protects {
        let closed_off = fuse::Bare::open(dir)
            .ok_or_else(|| std::io::ErrorKind::Unsupported.into())
            .and_then(|bare| bare.close_off());
        if let Err(error) = closed_off {
            tracing::warn!(%error, dir = %dir.display(), "protect_dir: the directory cannot be made immutable");
        }
    }
    // What a dead daemon left there is an error; then it is not known.
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.take(told::NAMES_MAX).collect()
}

/// Runs blocking work on a thread of its own: the runtime's few may all wait for the disk.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let (told, heard) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("kryptonfs-apart".into());
    thread
        .spawn(move || {
            // Who asked may have given up waiting; then there is nobody to tell.
            let _gone = told.send(work());
        })
        .map_err(|error| Failure::Mount(format!("no thread to be had: {error}")))?;
    heard
        .await
        .map_err(|_| Failure::Mount("a thread ended before its work did".into()))
}

fn options(config: &Config, again: bool) -> Options {
    let fs = &config.fs;
    let waits = fs.close_uploaded || fs.fsync_uploaded;
    Options {
        source: config.source.clone(),
        read_only: config.mount.read_only,
        no_exec: config.mount.no_exec,
        allow_other: config.mount.allow_other,
        as_before: again,
        deadlines: Deadlines {
            names: fs.stale_after.max(fs.read_timeout) + SLACK,
            read: fs.read_timeout * 2 + Duration::from_secs(60),
            write: DISK,
            close: if waits { fs.close_max + DISK } else { DISK },
        },
    }
}

/// A mount that answers.
#[derive(Debug)]
pub struct Mounted {
    session: Session,
    control: Option<Control>,
    metrics: Option<Metrics>,
    inner: Arc<Inner>,
    _watcher: link::Watcher,
    _pins: pins::Keeping,
    time: time::Keeping,
}

impl Mounted {
    /// The mountpoint's real path.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.session.dir()
    }

    /// `s3://bucket/prefix`.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// How things are.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// Sends everything now, and waits until nothing is pending; false: not within `timeout`.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.inner.drained(timeout).await
    }

    /// Waits until somebody unmounts it.
    pub async fn ended(&self) {
        self.session.ended().await;
    }

    /// Unmounts (out of sight, if somebody still uses it), stops sending, flushes.
    ///
    /// # Errors
    /// One line, if the mount could not be taken away or the log not be flushed.
    pub async fn unmount(mut self) -> Result<(), Failure> {
        drop((self.control.take(), self.metrics.take()));
        let unmounted = self.session.unmount().await;
        let core = &self.inner.core;
        let is_left = matches!(unmounted, Ok(Left::Nothing));
        let stopping = tokio::time::timeout(STOP, self.inner.drain.stop());
        let ((), stopped) = tokio::join!(leave(&mut self.session, core, is_left), stopping);
        if stopped.is_err() {
            tracing::warn!("a request is cut short; what it carried is sent after the next mount");
        }
        let flushed = tokio::time::timeout(LAST, core.log.flushed(core.tree.now())).await;
        let left = self.inner.drain.status();
        if left.waiting > 0 {
            tracing::info!(
                changes = left.waiting,
                bytes = left.waiting_bytes,
                "sent after the next mount"
            );
        }
        let (time, tree) = (self.time, Arc::clone(&core.tree));
        apart(move || {
            tree.keep_listings();
            time.end();
        })
        .await?;
        unmounted.map_err(|error| {
            Failure::Mount(format!(
                "{} cannot be unmounted: {error}",
                self.session.dir().display()
            ))
        })?;
        match flushed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::Mount(format!(
                "the log cannot be flushed: {error}"
            ))),
            Err(_) => Err(Failure::Mount(
                "the log cannot be flushed: the disk hangs".into(),
            )),
        }
    }
}

/// Waits for the last requests. Who still uses the mount gets a moment to close what is open there;
/// what is not closed then is kept.
async fn leave(session: &mut Session, core: &Core, is_left: bool) {
    if is_left {
        let ended = tokio::time::timeout(REST, session.ended()).await;
        if ended.is_err() || !session.idle(REST).await {
            tracing::warn!("some requests are cut short");
        }
        return;
    }
    if tokio::time::timeout(CLOSING, session.ended()).await.is_ok() {
        return;
    }
    tracing::warn!("still in use: what is open there is cut off when this process ends");
    match tokio::time::timeout(KEEPING, core.fs.keep_all_unclosed()).await {
        Ok(Ok(0)) => {}
        Ok(Ok(files)) => tracing::warn!(files, "not closed, their bytes are kept aside"),
        Ok(Err(error)) => tracing::error!(?error, "bytes that were not closed are not all kept"),
        Err(_) => tracing::error!("bytes that were not closed are not all kept: the disk is slow"),
    }
}

#[derive(Debug)]
struct Inner {
    source: String,
    dir: PathBuf,
    since: Instant,
    spool: PathBuf,
    /// Names in the directory under the mount.
    covered: Vec<String>,
    interface: Option<String>,
    world: World,
    core: Core,
    drain: drain::Handle,
}

#[async_trait]
impl Knows for Inner {
    fn status(&self) -> Status {
        told::status(self)
    }

    fn cancel(&self) -> usize {
        self.core.fs.end_waits()
    }

    async fn retry(&self) -> Result<usize, String> {
        let retried = self.core.tree.retry().await;
        // What the bucket refused it may take now, whatever rests.
        self.drain.wake();
        retried.map_err(|error| error.to_string())
    }

    async fn refresh(&self, path: &str) -> Result<(), String> {
        let path = RelPath::new(path)
            .map_err(|_| format!("{path:?} is no name in the mount: say it without . and .."))?;
        let asked = tokio::time::timeout(REFRESH, self.core.fs.refresh(&path)).await;
        match asked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(FsError::Unreachable)) | Err(_) => Err(SILENT.into()),
            Ok(Err(error)) => Err(format!("the bucket does not tell: {error:?}")),
        }
    }

    async fn discard(&self, partials: &[u64], aside: &[String]) -> Result<usize, String> {
        let discarded = self.core.tree.discard_all(partials, aside).await;
        discarded.map_err(|error| error.to_string())
    }

    async fn drained(&self, timeout: Duration) -> bool {
        self.drain.hurry();
        let drained = tokio::time::timeout(timeout, self.drain.drained()).await;
        // `Ok(false)`: the mount ended before.
        matches!(drained, Ok(true))
    }
}
