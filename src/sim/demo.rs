//! `kryptonfs demo`: the simulated cloud, a real mount of its bucket, and a tour that is carried out
//! for real, each step with what it put on the wire.
//!
//! Invariants:
//! - the numbers are the cloud's, counted at its socket; nothing is told that was not done;
//! - the mount is touched by child processes only, never by a thread that serves it;
//! - whatever ends it, what was written is sent (or kept in the spool) and nothing stays mounted.

mod look;
mod ports;
mod tour;

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

use super::{Cloud, CloudConfig};
use crate::config::{Config, ConfigError, Given};
use crate::daemon::{Daemon, Failure, Mounted, Sink, harden, log_to, runtime, shut_down};
use look::Onlooker;
use tour::Tour;

const BUCKET: &str = "demo";
const DIR: &str = "kryptonfs-demo";
/// How long the end waits for what is unsent.
const DRAIN: Duration = Duration::from_secs(60);

/// Where the demo keeps its things.
#[derive(Clone, Debug)]
struct Places {
    mountpoint: PathBuf,
    /// The bucket and the cloud's certificates.
    cloud: PathBuf,
    /// Spool, cache and the files that are copied in.
    device: PathBuf,
}

impl Places {
    fn below(dir: Option<PathBuf>) -> io::Result<Self> {
        let mountpoint = std::path::absolute(dir.unwrap_or_else(|| DIR.into()))?;
        let beside = |ending: &str| {
            let mut name = mountpoint.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        Ok(Self {
            cloud: beside(".cloud"),
            device: beside(".device"),
            mountpoint,
        })
    }
}

/// Runs the demo. 0 if the tour went as told, 1 otherwise.
#[must_use]
pub fn run(dir: Option<PathBuf>, tour_only: bool) -> ExitCode {
    let runtime = match harden().and_then(|()| runtime()) {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("kryptonfs demo: {error}");
            return ExitCode::from(1);
        }
    };
    let done = runtime.block_on(demo(dir, tour_only));
    shut_down(runtime);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kryptonfs demo: {error}");
            ExitCode::from(1)
        }
    }
}

/// Why the demo did not go as told: one line.
#[derive(Clone, Debug)]
struct Failed(String);

impl Failed {
    fn because(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Failed {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::because(error)
    }
}

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self::because(error)
    }
}

impl From<Failure> for Failed {
    fn from(error: Failure) -> Self {
        Self::because(error)
    }
}

async fn demo(dir: Option<PathBuf>, tour_only: bool) -> Result<(), Failed> {
    log_to(Sink::Stderr, LevelFilter::WARN);
    let places = Places::below(dir)?;
    match fs::create_dir_all(&places.mountpoint) {
        // Also what a demo that died left mounted there, which mounting again takes away; whatever
        // else is no directory is refused by it in words.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            let dir = places.mountpoint.display();
            return Err(Failed::because(format!("{dir}: {error}")));
        }
        Ok(()) | Err(_) => {}
    }
    let cloud = start_cloud(&places.cloud).await?;
    tell_cloud(&cloud)?;
    let mounted = Daemon::mount(config(&cloud, &places)?, &places.mountpoint).await?;
    say(&format!(
        "\nmounted {} at {}",
        mounted.source(),
        mounted.dir().display()
    ))?;
    let toured = tour_and_stay(&cloud, &mounted, &places, tour_only).await;
    let ended = end(mounted, &places).await;
    cloud.stop().await;
    toured.and(ended)
}

/// On the ports of the last time if they are free, so that what its spool still holds finds its way.
async fn start_cloud(dir: &Path) -> io::Result<Cloud> {
    let config = CloudConfig {
        buckets: vec![BUCKET.to_owned()],
        ..CloudConfig::new(dir.to_owned())
    };
    let again = CloudConfig {
        ports: ports::remembered(dir),
        ..config.clone()
    };
    let cloud = match Cloud::start(again).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Cloud::start(config).await?,
        other => other?,
    };
    ports::remember(dir, &cloud)?;
    Ok(cloud)
}

fn tell_cloud(cloud: &Cloud) -> io::Result<()> {
    say("kryptonfs demo: a simulated cloud on this machine, nothing leaves it.")?;
    say(&format!(
        "   S3       {}  bucket {BUCKET}, region {}",
        cloud.s3_url(),
        cloud.region()
    ))?;
    say(&format!("   Krypton  {}", cloud.krypton_url()))?;
    say(&format!("   Cognito  {}", cloud.cognito_url()))
}

fn config(cloud: &Cloud, places: &Places) -> Result<Config, Failed> {
    let ca_file = cloud.ca_file().ok_or("the cloud has no certificate")?;
    let path = |path: &Path| {
        let text = path.to_str().ok_or("the demo needs a path in UTF-8")?;
        Ok::<_, Failed>(text.to_owned())
    };
    let options = [
        ("region", cloud.region().to_owned()),
        ("endpoint_url", cloud.s3_url().to_owned()),
        ("krypton_url", cloud.krypton_url().to_owned()),
        ("cognito_url", cloud.cognito_url().to_owned()),
        ("ca_file", path(ca_file)?),
        ("interface", "lo".to_owned()),
        ("spool_dir", path(&places.device.join("spool"))?),
        ("cache_dir", path(&places.device.join("cache"))?),
    ];
    let given: Vec<_> = options
        .iter()
        .map(|(key, value)| Given::new(key, value))
        .collect();
    // No file of this machine's has a say in the demo.
    Ok(Config::with_etc(
        &format!("s3://{BUCKET}"),
        &given,
        &places.device,
    )?)
}

async fn tour_and_stay(
    cloud: &Cloud,
    mounted: &Mounted,
    places: &Places,
    tour_only: bool,
) -> Result<(), Failed> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let tour = Tour {
        cloud,
        mounted,
        places,
        onlooker: Onlooker::new(cloud)?,
    };
    let story = async {
        tour.run().await?;
        if tour_only {
            return Ok(());
        }
        say("\nIt is yours now, in another terminal:")?;
        say(&format!("   cd {}", mounted.dir().display()))?;
        say(&format!("   kryptonfs status {}", mounted.dir().display()))?;
        say("Ctrl-C sends what is unsent, unmounts and ends.")?;
        mounted.ended().await;
        Ok(())
    };
    tokio::select! {
        told = story => told,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

/// Sends what is unsent, unmounts, says where things are.
async fn end(mounted: Mounted, places: &Places) -> Result<(), Failed> {
    let drained = mounted.drain(DRAIN).await;
    mounted.unmount().await?;
    say("\nunmounted.")?;
    say(&format!("   the bucket: {}", places.cloud.display()))?;
    say(&format!(
        "   the device's spool and cache: {}",
        places.device.display()
    ))?;
    if drained {
        say(
            "All that was written is in the bucket. The folders can be removed, or used by the next demo.",
        )?;
        return Ok(());
    }
    Err(Failed::because(
        "not all was sent; what is left is in the spool, for the next demo",
    ))
}

/// A line for the reader. Nobody reading is no reason to end.
fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
