//! The door: commands, exit codes, and what people read.
//!
//! Invariants: an error is one line on stderr that names cause and cure; exit 0: done, 1: wrong
//! usage or not done, 32: not mounted.

mod cancel;
mod control;
mod doctor;
mod drain;
mod export;
mod fetch;
mod helper;
#[cfg(feature = "manual")]
mod manual;
mod parse;
mod rescue;
mod show;
mod spool;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::config::{Config, Given, Issuing};
use crate::daemon::{self, Failure, Life, Sink, Status};

pub use cancel::cancel;
pub use doctor::{Examining, doctor};
pub use drain::drain;
pub use fetch::fetch;
pub use helper::Helper;
#[cfg(feature = "manual")]
pub use manual::manual;
pub use parse::{Wrong, parse};
pub use rescue::{export, retry};

/// Between two pictures of `status --watch`.
const WATCH: Duration = Duration::from_secs(1);

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Mount, as mount(8) asks for it.
    Helper(Helper),
    /// Mount in a process of its own, and start that again when it dies.
    Supervise {
        /// The program to start.
        program: PathBuf,
        /// The mountpoint.
        dir: PathBuf,
        /// What it is to be told.
        args: Vec<OsString>,
    },
    /// Mount, in the foreground.
    Mount {
        /// The bucket.
        source: String,
        /// The mountpoint.
        dir: PathBuf,
        /// Options, in the order they were given.
        given: Vec<Given>,
        /// How the process lives.
        life: Life,
    },
    /// How a mount is doing, or what is in a spool.
    Status {
        /// The mountpoint, or the folder of a spool.
        dir: PathBuf,
        /// What is told.
        how: Telling,
    },
    /// Change what a mount logs.
    LogLevel {
        /// The mountpoint.
        dir: PathBuf,
        /// As the option `log`.
        level: String,
    },
    /// Ask the bucket for paths now.
    Refresh {
        /// In mounts.
        paths: Vec<PathBuf>,
    },
    /// End all waits for the bucket.
    Cancel {
        /// The mountpoint.
        dir: PathBuf,
    },
    /// Try again what S3 refused for good.
    Retry {
        /// The mountpoint, or the folder of a spool.
        dir: PathBuf,
    },
    /// Copy what is unsent into a folder.
    Export {
        /// The mountpoint, or the folder of a spool.
        source: PathBuf,
        /// Where to.
        to: PathBuf,
        /// Only this name of the mount, and what is below it.
        path: Option<String>,
        /// Remove from the spool what was never closed and is now in the folder.
        remove: bool,
    },
    /// Bring files into the cache.
    Fetch {
        /// Files and directories in mounts.
        paths: Vec<PathBuf>,
    },
    /// Send all that is pending.
    Drain {
        /// The mountpoint.
        dir: PathBuf,
        /// How long to wait for it.
        timeout: Duration,
        /// Tell how far it is, each second, also where no terminal is.
        progress: bool,
    },
    /// Give credentials away.
    Credentials {
        /// The bucket whose configuration file is read, if any.
        source: Option<String>,
        /// Options, in the order they were given.
        given: Vec<Given>,
    },
    /// Look at each hop to the bucket.
    Doctor {
        /// The bucket.
        source: String,
        /// Options, in the order they were given.
        given: Vec<Given>,
        /// What is wanted of it.
        how: Examining,
    },
    /// The manual pages and the completion, for packages.
    #[cfg(feature = "manual")]
    Manual {
        /// Where they are written.
        dir: PathBuf,
    },
    /// The simulated cloud, a real mount, a tour. Carried out by `sim::demo`.
    #[cfg(feature = "sim")]
    Demo {
        /// Where to mount.
        dir: PathBuf,
        /// End after the tour.
        tour_only: bool,
    },
    /// The simulated cloud alone. Carried out by `sim`.
    #[cfg(feature = "sim")]
    Sim(SimArgs),
}

/// How a status is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// For people, once.
    Once,
    /// For people, again and again until it is interrupted.
    Watch,
    /// As one line of JSON.
    Json,
    /// Not at all: the exit code says it.
    Quiet,
}

/// What the simulated cloud is told.
#[cfg(feature = "sim")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimArgs {
    /// Where its storage is.
    pub dir: PathBuf,
    /// Buckets that are to be there.
    pub buckets: Vec<String>,
    /// Plain HTTP.
    pub http: bool,
    /// Its only region.
    pub region: Option<String>,
    /// A file with `ID:SECRET[:TOKEN]` for Krypton to hand out.
    pub fixed_keys: Option<PathBuf>,
    /// How long issued keys live.
    pub lease_life: Option<Duration>,
    /// Keys may touch only what lies under their identity.
    pub identity_policy: bool,
}

/// Mounts for mount(8), in the background.
#[must_use]
pub fn mount_helper(helper: &Helper) -> ExitCode {
    match helper::run(helper) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => fail(&failure),
    }
}

/// Stays as long as the mount does, and starts its daemon again when it dies.
#[must_use]
pub fn supervise(program: &Path, dir: &Path, args: &[OsString]) -> ExitCode {
    daemon::log_to(Sink::System, LevelFilter::INFO);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let code = runtime
        .map_err(|error| Failure::Mount(format!("no threads to be had: {error}")))
        .and_then(|runtime| runtime.block_on(daemon::supervise(program, args, dir)));
    match code {
        Ok(code) => ExitCode::from(code),
        Err(failure) => fail(&failure),
    }
}

/// Mounts and stays; the exit code is the process's.
#[must_use]
pub fn mount(source: &str, dir: &Path, given: &[Given], life: Life) -> ExitCode {
    match mounted(source, dir, given, life) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if life != Life::Foreground {
                tracing::error!("{failure}");
            }
            fail(&failure)
        }
    }
}

fn mounted(source: &str, dir: &Path, given: &[Given], life: Life) -> Result<(), Failure> {
    let config = Config::new(source, given).map_err(|error| Failure::Usage(error.to_string()))?;
    daemon::harden()
        .map_err(|error| Failure::Mount(format!("the process cannot be hardened: {error}")))?;
    let sink = match life {
        Life::Foreground => Sink::Stderr,
        Life::Worker { .. } => Sink::System,
    };
    daemon::log_names(config.log_names);
    daemon::log_to(sink, config.log_level);
    if sink == Sink::System || config.log_level <= LevelFilter::INFO {
        daemon::hold_log();
    }
    let runtime = daemon::runtime()
        .map_err(|error| Failure::Mount(format!("no threads to be had: {error}")))?;
    let reread = || Config::new(source, given).map_err(|error| error.to_string());
    let done = runtime.block_on(daemon::run(config, dir, life, reread));
    daemon::shut_down(runtime);
    done
}

/// Prints credentials as a `credential_process` does: nothing but them on stdout.
#[must_use]
pub fn credentials(source: Option<&str>, given: &[Given]) -> ExitCode {
    let issued = Issuing::new(source, given).map_err(|error| Failure::Usage(error.to_string()));
    let printed = issued.and_then(|config| {
        daemon::harden()
            .map_err(|error| Failure::Usage(format!("the process cannot be hardened: {error}")))?;
        // stderr is shown to whoever asks: one line, unless more is wanted.
        if config.log_level > LevelFilter::INFO {
            daemon::log_to(Sink::Stderr, config.log_level);
        }
        let runtime = daemon::runtime()
            .map_err(|error| Failure::Usage(format!("no threads to be had: {error}")))?;
        let printed = runtime.block_on(daemon::credentials(&config));
        daemon::shut_down(runtime);
        print(&printed?).map_err(Failure::Usage)
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

/// Asks a mount how it is doing. Quietly: exit 0 all is sent, 1 something waits, 2 trouble.
#[must_use]
pub fn status(dir: &Path, how: Telling) -> ExitCode {
    match how {
        Telling::Quiet => quiet_status(dir),
        Telling::Watch => loop {
            // Home, the text, then clear what an older, longer one left below.
            let told = status_of(dir)
                .and_then(|status| print(&format!("\x1b[H{}\x1b[J", show::status(&status))));
            if let Err(line) = told {
                return done(Err(line));
            }
            std::thread::sleep(WATCH);
        },
        Telling::Json | Telling::Once => done(status_of(dir).and_then(|status| {
            let text = if how == Telling::Json {
                let line = serde_json::to_string(&status).map_err(|error| error.to_string())?;
                line + "\n"
            } else {
                show::status(&status)
            };
            print(&text)
        })),
    }
}

/// Of a mount, or of a spool that is not mounted.
fn status_of(dir: &Path) -> Result<Status, String> {
    if daemon::is_mount(dir)? {
        control::status(dir)
    } else {
        spool::status(dir)
    }
}

fn quiet_status(dir: &Path) -> ExitCode {
    match status_of(dir) {
        Ok(status) if status.in_trouble() => ExitCode::from(2),
        Ok(status) => ExitCode::from(u8::from(status.pending > 0)),
        Err(line) => {
            eprintln!("kryptonfs: {line}");
            ExitCode::from(2)
        }
    }
}

/// Has the bucket asked for each path now, whatever is known of it; exit 0: it answered for all.
#[must_use]
pub fn refresh(paths: &[PathBuf]) -> ExitCode {
    done(paths.iter().try_for_each(|path| control::refresh(path)))
}

/// Changes what a mount logs, until its options are read again.
#[must_use]
pub fn log_level(dir: &Path, level: &str) -> ExitCode {
    done(control::log_level(dir, level))
}

/// Tells what is wrong with the command line, or the help that was asked for.
#[must_use]
pub fn wrong(wrong: &Wrong) -> ExitCode {
    match wrong {
        Wrong::Help(text) => done(print(text)),
        Wrong::Usage(line) => fail(&Failure::Usage(line.clone())),
    }
}

fn done(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => fail(&Failure::Usage(line)),
    }
}

fn print(text: &str) -> Result<(), String> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("stdout: {error}"))
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("kryptonfs: {failure}");
    match failure {
        Failure::Usage(_) => ExitCode::from(1),
        Failure::Mount(_) => ExitCode::from(32),
    }
}
