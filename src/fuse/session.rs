//! Mounts, and ends it: the mountpoint is made ready, the kernel is asked, two threads listen.
//!
//! Invariants:
//! - there is no half mount: a session exists once the kernel has answered through it;
//! - a mountpoint left over by a daemon that died is detached, never mounted over; and only when the
//!   next one is ready, so that nobody meets the bare directory meanwhile.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, MountOption, SessionACL, SessionUnmounter};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::adapter::Adapter;
use super::mounts;
use super::notify::{Forget, Notify};
use super::serve::{Deadlines, Serve};
use crate::fs::{Forgetter, Fs};

/// Threads that read requests: one can copy a large write while the other goes on.
const THREADS: usize = 2;
/// Dead mounts on top of each other that are cleaned up.
const STALE_MAX: usize = 8;
/// How long the kernel may take to answer through a new mount.
const ANSWER: Duration = Duration::from_secs(10);

/// How to mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the mount table shows as the source.
    pub source: String,
    /// `ro`.
    pub read_only: bool,
    /// `noexec`.
    pub no_exec: bool,
    /// Users other than the one who mounts may enter.
    pub allow_other: bool,
    /// A dead mount there that had become read-only makes this one so.
    pub as_before: bool,
    /// When operations are given up.
    pub deadlines: Deadlines,
}

/// Why there is no mount. `Display` is one line: cause and cure.
#[derive(Debug)]
pub enum MountError {
    /// There is no such directory.
    Absent(PathBuf),
    /// It is something else.
    NotDirectory(PathBuf),
    /// One of ours is mounted there.
    Mounted(PathBuf),
    /// No `/dev/fuse`, or not for us.
    Device(io::Error),
    /// Not root, and no fusermount3.
    NoHelper,
    /// Not root, and `user_allow_other` is not set.
    AllowOther,
    /// Anything else.
    Other(PathBuf, String),
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(dir) => {
                let dir = dir.display();
                write!(f, "{dir} does not exist: make it with `mkdir -p {dir}`")
            }
            Self::NotDirectory(dir) => {
                write!(f, "{} is not a directory: name one", dir.display())
            }
            Self::Mounted(dir) => {
                let dir = dir.display();
                write!(f, "{dir} is mounted already: end it with `umount {dir}`")
            }
            Self::Device(error) => write!(
                f,
                "/dev/fuse cannot be opened ({error}): load it with `modprobe fuse` and let this user read and write it"
            ),
            Self::NoHelper => write!(
                f,
                "mounting as a user needs fusermount3: install it with `apt-get install fuse3`, or mount as root"
            ),
            Self::AllowOther => write!(
                f,
                "allow_other as a user needs the line user_allow_other in /etc/fuse.conf: add it, or leave allow_other out"
            ),
            Self::Other(dir, why) => write!(f, "cannot mount at {}: {why}", dir.display()),
        }
    }
}

impl std::error::Error for MountError {}

/// Looks whether `dir` can be mounted on, and answers its real path. What a dead daemon left there
/// stays until `Session::mount`. Blocking.
///
/// # Errors
/// See `MountError`.
pub fn prepare(dir: &Path) -> Result<PathBuf, MountError> {
    let other = |error: io::Error| MountError::Other(dir.into(), error.to_string());
    let ours = mounts::ours().map_err(other)?;
    if is_dead(dir) {
        let dead = mounts::around(&ours, dir).map(|mount| mount.dir.clone());
        return dead.map_or_else(|| std::path::absolute(dir).map_err(other), Ok);
    }
    let real = look(dir)?;
    if ours.iter().any(|mount| mount.dir == real) {
        return Err(MountError::Mounted(real));
    }
    Ok(real)
}

/// Makes sure that there is a directory, and warns of what is in it.
fn look(dir: &Path) -> Result<PathBuf, MountError> {
    let other = |error: io::Error| MountError::Other(dir.into(), error.to_string());
    let meta = std::fs::metadata(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::Absent(dir.into()),
        io::ErrorKind::NotADirectory => MountError::NotDirectory(dir.into()),
        _ => other(error),
    })?;
    if !meta.is_dir() {
        return Err(MountError::NotDirectory(dir.into()));
    }
    let real = dir.canonicalize().map_err(other)?;
    if std::fs::read_dir(&real).map_err(other)?.next().is_some() {
        tracing::warn!(dir = %real.display(), "not empty: what lies in it is hidden while mounted");
    }
    Ok(real)
}

/// Whether the daemon of what is mounted at `dir` has died. Only `statfs` tells for sure: the kernel
/// answers `stat` from what the dead one told it.
fn is_dead(dir: &Path) -> bool {
    matches!(
        nix::sys::statvfs::statvfs(dir),
        Err(Errno::ENOTCONN | Errno::ECONNABORTED)
    )
}

/// Detaches what dead daemons left at `dir`.
///
/// # Errors
/// If the kernel refuses.
pub fn take_away(dir: &Path) -> io::Result<()> {
    clean_up(dir).map(drop)
}

/// Detaches mounts whose daemon has died; answers whether there were any.
fn clean_up(dir: &Path) -> io::Result<bool> {
    for cleaned in 0..STALE_MAX {
        if !is_dead(dir) {
            return Ok(cleaned > 0);
        }
        detach(dir)?;
        tracing::warn!(dir = %dir.display(), "a mount whose daemon had died was cleaned up");
    }
    Ok(true)
}

/// Takes a mount out of sight; whoever still uses it keeps it until they are done.
fn detach(dir: &Path) -> io::Result<()> {
    match umount2(dir, MntFlags::MNT_DETACH) {
        Err(Errno::EPERM) => {
            let done = Command::new("fusermount3").arg("-uz").arg(dir).output()?;
            if done.status.success() {
                Ok(())
            } else {
                let said = String::from_utf8_lossy(&done.stderr);
                Err(io::Error::other(said.trim().to_owned()))
            }
        }
        done => Ok(done?),
    }
}

/// What an unmount left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The session ends now.
    Nothing,
    /// Somebody has files open: the session ends with them.
    InUse,
}

/// How the file system asks the kernel to forget names, as long as the mount lives.
fn forgetter(notify: &Arc<Notify>) -> Forgetter {
    let notify = Arc::downgrade(notify);
    Forgetter(Arc::new(move |parent, name| {
        if let Some(notify) = notify.upgrade() {
            notify.forget(Forget::Entry(parent, name.to_vec()));
        }
    }))
}

/// A mount that answers. Dropping it does not unmount.
#[derive(Debug)]
pub struct Session {
    dir: PathBuf,
    unmounter: Arc<Mutex<SessionUnmounter>>,
    ended: watch::Receiver<bool>,
    idle: mpsc::Receiver<()>,
    notify: Arc<Notify>,
}

impl Session {
    /// Mounts `fs` at `dir` (as `prepare` answered it). Blocking until the kernel answers; `runtime`
    /// must have another thread to work on.
    ///
    /// # Errors
    /// See `MountError`; nothing is mounted then.
    pub fn mount(
        fs: Arc<Fs>,
        dir: &Path,
        options: &Options,
        runtime: &Handle,
    ) -> Result<Self, MountError> {
        let other = |error: io::Error| MountError::Other(dir.into(), error.to_string());
        let (serve, idle) = Serve::new(runtime.clone(), options.deadlines);
        let of_names = Arc::clone(&fs);
        let adapter = Adapter { fs, serve };
        let config = config(options, was_read_only(dir) && options.as_before);
        if clean_up(dir).map_err(other)? {
            look(dir)?;
        }
        let mut session =
            fuser::Session::new(adapter, dir, &config).map_err(|error| refused(dir, error))?;
        let unmounter = Arc::new(Mutex::new(session.unmount_callable()));
        let notify = Arc::new(Notify::start(session.notifier()).map_err(other)?);
        of_names.forget_by(forgetter(&notify));
        drop(of_names);
        let (end, ended) = watch::channel(false);
        std::thread::Builder::new()
            .name("kryptonfs-fuse".into())
            .spawn(move || {
                if let Err(error) = session.run() {
                    tracing::error!(%error, "the kernel's requests cannot be read any more");
                }
                end.send_replace(true);
            })
            .map_err(other)?;
        let session = Self {
            dir: dir.into(),
            unmounter,
            ended,
            idle,
            notify,
        };
        if let Err(why) = answers(dir) {
            unmount(&session.unmounter, dir).map_err(other)?;
            return Err(MountError::Other(dir.into(), why));
        }
        Ok(session)
    }

    /// Where.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Tells the kernel what to forget.
    #[must_use]
    pub fn notify(&self) -> &Notify {
        &self.notify
    }

    /// Waits until the mount has ended, by us or from outside.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error says that the thread is gone, which is the end as well.
        let _gone = ended.wait_for(|ended| *ended).await;
    }

    /// Unmounts; where somebody still uses it, takes it out of sight (`Left::InUse`).
    ///
    /// # Errors
    /// If the kernel refuses even that.
    pub async fn unmount(&self) -> io::Result<Left> {
        let (unmounter, dir) = (Arc::clone(&self.unmounter), self.dir.clone());
        let (told, heard) = tokio::sync::oneshot::channel();
        // A thread of its own: those of the runtime may all wait for the disk.
        std::thread::Builder::new()
            .name("kryptonfs-umount".into())
            .spawn(move || told.send(unmount(&unmounter, &dir)))?;
        heard.await.map_err(io::Error::other)?
    }

    /// Waits until the last request is answered, but not longer than `patience`. Only after the end.
    /// Answers whether all were.
    pub async fn idle(&mut self, patience: Duration) -> bool {
        let gone = self.idle.recv();
        tokio::time::timeout(patience, gone).await.is_ok()
    }
}

fn unmount(unmounter: &Mutex<SessionUnmounter>, dir: &Path) -> io::Result<Left> {
    match unmounter.lock().unmount() {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            detach(dir).map(|()| Left::InUse)
        }
        answer => answer.map(|()| Left::Nothing),
    }
}

/// One request through the new mount that needs nothing but the daemon.
fn answers(dir: &Path) -> Result<(), String> {
    let (told, heard) = std::sync::mpsc::channel();
    let dir = dir.to_owned();
    std::thread::spawn(move || told.send(nix::sys::statvfs::statvfs(&dir).map(|_| ())));
    match heard.recv_timeout(ANSWER) {
        Ok(answer) => answer.map_err(|errno| format!("the new mount does not answer: {errno}")),
        Err(_) => Err("the new mount does not answer".into()),
    }
}

/// Whether what is mounted at `dir` refuses writes.
fn was_read_only(dir: &Path) -> bool {
    let all = mounts::ours().unwrap_or_default();
    let top = all.iter().rev().find(|mount| mount.dir == dir);
    top.is_some_and(|mount| mount.read_only)
}

fn config(options: &Options, read_only: bool) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(source_text(
            &options.source,
            nix::unistd::geteuid().is_root(),
        )),
        // fuser hands `Subtype` to fusermount3 only; so it reaches the kernel as root as well.
        MountOption::CUSTOM("subtype=kryptonfs".into()),
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::DefaultPermissions,
    ];
    if options.read_only || read_only {
        config.mount_options.push(MountOption::RO);
    }
    if options.no_exec {
        config.mount_options.push(MountOption::NoExec);
    }
    if options.allow_other {
        config.acl = SessionACL::All;
    }
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    config
}

/// fusermount3 takes a list with commas, mount(2) the plain text.
fn source_text(source: &str, root: bool) -> String {
    if root {
        source.to_owned()
    } else {
        source.replace('\\', "\\\\").replace(',', "\\,")
    }
}

/// fuser tells neither what it tried to open nor what it tried to run: so the device is tried here.
fn refused(dir: &Path, error: io::Error) -> MountError {
    let device = || File::options().read(true).write(true).open("/dev/fuse");
    match error.kind() {
        io::ErrorKind::PermissionDenied if error.to_string().contains("user_allow_other") => {
            MountError::AllowOther
        }
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => match device() {
            Ok(_) => MountError::NoHelper,
            Err(error) => MountError::Device(error),
        },
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or("the kernel refuses");
            MountError::Other(dir.into(), line.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_mountpoint_says_how_to_make_it() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent");
        let error = prepare(&absent).unwrap_err();
        assert!(matches!(error, MountError::Absent(_)));
        assert!(error.to_string().contains("mkdir -p"));
    }

    #[test]
    fn a_file_is_no_mountpoint() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path().to_owned(), file.path().join("below")] {
            assert!(matches!(
                prepare(&path).unwrap_err(),
                MountError::NotDirectory(_)
            ));
        }
    }

    #[test]
    fn a_mountpoint_is_answered_by_its_real_path() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        assert_eq!(prepare(&dir.path().join("link")).unwrap(), real);
    }

    #[test]
    fn errors_are_one_line() {
        let dir = PathBuf::from("/mnt");
        let all = [
            MountError::Absent(dir.clone()),
            MountError::NotDirectory(dir.clone()),
            MountError::Mounted(dir.clone()),
            MountError::Device(io::ErrorKind::NotFound.into()),
            MountError::NoHelper,
            MountError::AllowOther,
            refused(&dir, io::Error::other("first line\nsecond line")),
        ];
        for error in all {
            assert!(!error.to_string().contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn a_source_with_a_comma_reaches_the_mount_table_whole() {
        assert_eq!(source_text("s3://b/a,b", true), "s3://b/a,b");
        assert_eq!(source_text("s3://b/a,b", false), "s3://b/a\\,b");
    }
}
