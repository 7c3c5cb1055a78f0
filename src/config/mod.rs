//! One table of options, three spellings, one validated `Config` made of each module's own.
//!
//! Invariants: what is wrong is found here, before anything is opened or sent, and said in one line
//! with its cure; below this nothing knows the name of an option.

mod build;
mod disk;
mod line;
mod place;
mod sources;
pub mod table;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::{creds, drain, fs, log, net, read, store};

pub use line::{Given, join_options, mount_words, split_options};
pub use place::Place;

/// Reads a time as options are written (`30s`, `5m`).
///
/// # Errors
/// Says what would be right.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    values::time(text)
}

/// Where `BUCKET.toml` is looked for.
pub const ETC: &str = "/etc/kryptonfs";

/// What is wrong with the options: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    fn new(line: String) -> Self {
        Self(line)
    }

    /// The same, saying where.
    fn within(self, origin: &str) -> Self {
        Self(format!("{origin}{}", self.0))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// How the kernel is asked to mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountConfig {
    /// `ro`.
    pub read_only: bool,
    /// `noexec`.
    pub no_exec: bool,
    /// `allow_other`.
    pub allow_other: bool,
}

/// Everything a mount needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The place as it was typed: what the mount table shows, so that fstab's line is known again.
    pub source: String,
    /// Which bucket, and what part of it.
    pub place: Place,
    /// The network.
    pub net: net::Config,
    /// Credentials.
    pub creds: creds::Config,
    /// `new_identity=send`.
    pub send_as_new: bool,
    /// The bucket.
    pub s3: store::s3::Config,
    /// The log and the spool.
    pub log: log::Config,
    /// Reading and the cache.
    pub read: read::Config,
    /// The verbs.
    pub fs: fs::Config,
    /// Sending.
    pub drain: drain::Config,
    /// The kernel's side.
    pub mount: MountConfig,
    /// `closed_check`; `None`: off.
    pub closed: Option<store::closed::Config>,
    /// `public_probe`: HOST or HOST:PORT.
    pub public_probe: Option<String>,
    /// Which files are kept in the cache.
    pub pins: PinConfig,
    /// `log`.
    pub log_level: LevelFilter,
    /// `protect_dir`.
    pub protect_dir: bool,
    /// `log_paths`.
    pub log_names: bool,
    /// `metrics`; `None`: nobody reads any.
    pub metrics: Option<PathBuf>,
}

/// `pin` and `pin_every`.
#[derive(Clone, Debug)]
pub struct PinConfig {
    /// Files that match.
    pub patterns: Vec<fs::Pattern>,
    /// How often the bucket is asked.
    pub every: Duration,
}

/// What is needed to give credentials away.
#[derive(Clone, Debug)]
pub struct Issuing {
    /// The network.
    pub net: net::Config,
    /// Credentials.
    pub creds: creds::Config,
    /// `spool_dir`: what the mounts of this device share.
    pub common_dir: PathBuf,
    /// `log`.
    pub log_level: LevelFilter,
}

impl Issuing {
    /// Validates what was given, together with the configuration file: `config=FILE`, or that of
    /// the bucket of `source`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(source: Option<&str>, given: &[Given]) -> Result<Self, ConfigError> {
        let place = source.map(Place::parse).transpose()?;
        let bucket = place.as_ref().map(|place| place.bucket.as_str());
        build::issuing(&sources::Settings::merged(given, bucket, Path::new(ETC))?)
    }
}

impl Config {
    /// Validates what was given for `source`, together with the configuration file.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(source: &str, given: &[Given]) -> Result<Self, ConfigError> {
        Self::with_etc(source, given, Path::new(ETC))
    }

    /// The same, with the files in another place than `/etc/kryptonfs`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn with_etc(source: &str, given: &[Given], etc: &Path) -> Result<Self, ConfigError> {
        let place = Place::parse(source)?;
        let settings = sources::Settings::merged(given, Some(&place.bucket), etc)?;
        build::config(source, place, &settings)
    }
}

#[cfg(test)]
mod tests;
