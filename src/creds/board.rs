//! The lease of the device, for all processes of this user that ask the same issuer: a file.
//!
//! `NAME.lease` in a private folder is JSON:
//! `{"version":1,"boot":ID,"known":{"lease":{..}|null,"failed":{..}|null}}`. Who asks the issuer holds the
//! file's lock (flock) from before it looks until it has written what came. It is a cache: what
//! cannot be read counts for nothing.
//!
//! Invariants:
//! - a secret is written only where the file system is memory (tmpfs); where there is none, or
//!   nothing is to be shared, the same is kept in the process;
//! - all times are since the machine was started, and a file of another start counts for nothing;
//! - a failure is shared too: all wait before the issuer is asked again.

#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::keeper::Source;
use super::{CredsError, Lease};
use crate::clock::SharedClock;
use crate::disk::{Dir, Disk, File, NotPrivate, blocking};

const VERSION: u32 = 1;
const ENDING: &str = ".lease";
/// Between failures, with jitter: the least and the most.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// How often a process that waits for another one's request looks again.
const STEP: Duration = Duration::from_millis(20);
/// A request takes no longer than this: two to Krypton and one to Cognito.
const REQUEST_MAX: Duration = Duration::from_secs(200);

/// Where a lease is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Folders, best first: the first that lies in memory is used.
    pub folders: Vec<PathBuf>,
    /// The file's name without its ending: another one for another issuer.
    pub name: String,
}

/// Which lease is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Any that holds: whoever gets it sees to its successor.
    Any,
    /// One that is not due, as it is given away; one that holds if there is no other.
    Fresh,
}

/// The lease that is to have a successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Old {
    pub(super) access_key_id: String,
    /// S3 does not take it.
    pub(super) refused: bool,
}

/// Why there is no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) error: CredsError,
    /// The issuer is not asked again before.
    pub(super) until: Duration,
}

#[derive(Clone, Deserialize, Serialize)]
struct Failed {
    error: CredsError,
    /// The issuer is left alone until then.
    until_ms: u64,
    /// So many in a row.
    failures: u32,
}

impl Failed {
    fn until(&self) -> Duration {
        Duration::from_millis(self.until_ms)
    }
}

/// What is known of an issuer.
#[derive(Clone, Default, Deserialize, Serialize)]
struct Known {
    lease: Option<Lease>,
    failed: Option<Failed>,
}

impl Known {
    fn is_over(&self, now: Duration) -> bool {
        let holds = self.lease.as_ref().is_some_and(|lease| lease.holds(now));
        let rests = self.failed.as_ref().is_some_and(|it| now < it.until());
        !holds && !rests
    }
}

#[derive(Deserialize, Serialize)]
struct Content {
    version: u32,
    /// What the kernel calls this start of the machine.
    boot: String,
    known: Known,
}

/// Asks the source, unless somebody has.
pub(super) struct Board {
    source: Arc<dyn Source>,
    clock: SharedClock,
    wish: Wish,
    place: Option<Place>,
    /// Where nothing is shared.
    own: Mutex<Known>,
    /// The next one does not sit out the pause after a failure.
    hurried: AtomicBool,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board")
            .field("wish", &self.wish)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Board {
    pub(super) fn new(
        source: Arc<dyn Source>,
        clock: SharedClock,
        wish: Wish,
        place: Option<Place>,
    ) -> Self {
        Self {
            source,
            clock,
            wish,
            place,
            own: Mutex::default(),
            hurried: AtomicBool::new(false),
        }
    }

    /// The link is back: a failure before counts for nothing.
    pub(super) fn hurry(&self) {
        self.hurried.store(true, Ordering::Relaxed);
    }

    /// A lease, other than `old`. Ends in bounded time. One at a time in this process.
    pub(super) async fn obtain(&self, old: Option<&Old>) -> Result<Lease, Failure> {
        let place = self.place.clone();
        let shared = match place {
            Some(place) => blocking(move || Shared::open(&place)).await,
            None => None,
        };
        let Some(shared) = shared.map(Arc::new) else {
            return self.alone(old).await;
        };
        let begun = self.clock.boot();
        while self.clock.boot() < begun + REQUEST_MAX {
            let at = Arc::clone(&shared);
            let (locked, known) = match blocking(move || at.look()).await {
                Ok(seen) => seen,
                Err(error) => {
                    tracing::debug!(%error, "the lease is not shared");
                    break;
                }
            };
            if let Some(file) = locked {
                let (outcome, known) = self.ask(known, old).await;
                let now = self.clock.boot();
                let at = Arc::clone(&shared);
                blocking(move || at.write(&file, known, now)).await;
                return outcome;
            }
            // Somebody asks just now; what there is may do meanwhile.
            if let Some(lease) = self.there(&known, old)
                && lease.has_time_for_a_reader(self.clock.boot())
            {
                return Ok(lease);
            }
            tokio::time::sleep(STEP).await;
        }
        self.alone(old).await
    }

    async fn alone(&self, old: Option<&Old>) -> Result<Lease, Failure> {
        let known = self.own.lock().clone();
        let (outcome, known) = self.ask(known, old).await;
        if let Some(known) = known {
            *self.own.lock() = known;
        }
        outcome
    }

    /// The lease that is known, if it is of use.
    fn there(&self, known: &Known, old: Option<&Old>) -> Option<Lease> {
        let now = self.clock.boot();
        let lease = known.lease.as_ref().filter(|lease| lease.holds(now))?;
        let is_old = old.is_some_and(|old| old.access_key_id == lease.access_key_id);
        (!is_old).then(|| lease.clone())
    }

    /// The outcome, and what is known now if that is news.
    async fn ask(
        &self,
        mut known: Known,
        old: Option<&Old>,
    ) -> (Result<Lease, Failure>, Option<Known>) {
        let there = self.there(&known, old);
        let now = self.clock.boot();
        if let Some(lease) = &there
            && (self.wish == Wish::Any || !lease.is_due(now))
        {
            return (Ok(lease.clone()), None);
        }
        let hurried = self.hurried.swap(false, Ordering::Relaxed);
        if let Some(failed) = &known.failed
            && now < failed.until()
            && !hurried
        {
            let failure = Failure {
                error: failed.error.clone(),
                until: failed.until(),
            };
            return (there.ok_or(failure), None);
        }
        match self.source.obtain().await {
            Ok(lease) => {
                let known = Known {
                    lease: Some(lease.clone()),
                    failed: None,
                };
                (Ok(lease), Some(known))
            }
            Err(error) => {
                if old.is_some_and(|old| old.refused) && there.is_none() {
                    known.lease = None;
                }
                let before = known.failed.as_ref().map_or(0, |failed| failed.failures);
                let failures = before.saturating_add(1);
                let until = self.clock.boot() + pause(failures, random());
                known.failed = Some(Failed {
                    error: error.clone(),
                    until_ms: u64::try_from(until.as_millis()).unwrap_or(u64::MAX),
                    failures,
                });
                (there.ok_or(Failure { error, until }), Some(known))
            }
        }
    }
}

/// The folder in memory, and the file's name.
struct Shared {
    dir: Dir,
    name: String,
    boot: String,
}

impl Shared {
    /// `None`: no folder lies in memory and is ours alone.
    fn open(place: &Place) -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let open = |folder: &PathBuf| match Dir::private_in_memory(&Disk::default(), folder) {
            Ok(dir) => dir,
            Err(why) => {
                let why = match why {
                    NotPrivate::Unsafe(why) => why,
                    NotPrivate::Io(error) => error.to_string(),
                };
                tracing::debug!("no lease is shared in {}: {why}", folder.display());
                None
            }
        };
        Some(Self {
            dir: place.folders.iter().find_map(open)?,
            name: format!("{}{ENDING}", place.name),
            boot: boot.trim().to_owned(),
        })
    }

    /// The file, if nobody else has it, and what it says.
    fn look(&self) -> io::Result<(Option<File>, Known)> {
        let file = loop {
            match self.dir.lock(&self.name)? {
                // Somebody swept it away meanwhile.
                Some(file) if !file.is_named()? => {}
                other => break other,
            }
        };
        let known = match &file {
            Some(file) => self.read(file)?,
            None => self.read(&self.dir.open(&self.name)?)?,
        };
        Ok((file, known))
    }

    fn read(&self, file: &File) -> io::Result<Known> {
        let bytes = Zeroizing::new(file.read_all()?);
        // Empty, half written, of another version: nothing is known.
        let content = serde_json::from_slice::<Content>(&bytes).ok();
        let content = content.filter(|it| it.version == VERSION && it.boot == self.boot);
        Ok(content.map(|content| content.known).unwrap_or_default())
    }

    /// Writes what is news, and lets the file go.
    fn write(&self, file: &File, known: Option<Known>, now: Duration) {
        let Some(known) = known else { return };
        let content = Content {
            version: VERSION,
            boot: self.boot.clone(),
            known,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(16 << 10));
        let written = serde_json::to_writer(&mut *bytes, &content)
            .map_err(io::Error::from)
            .and_then(|()| file.truncate(0))
            .and_then(|()| file.write_all_at(&bytes, 0))
            .and_then(|()| self.sweep(now));
        if let Err(error) = written {
            tracing::debug!(%error, "the lease is not shared");
        }
    }

    /// Removes what other issuers left that is over.
    fn sweep(&self, now: Duration) -> io::Result<()> {
        for name in self.dir.names()? {
            if name == self.name || !name.ends_with(ENDING) {
                continue;
            }
            if let Some(file) = self.dir.lock(&name)?
                && file.is_named()?
                && self.read(&file)?.is_over(now)
            {
                self.dir.remove(&name)?;
            }
        }
        Ok(())
    }
}

/// How long the source is left alone after so many failures; `random` is 0 to 1.
fn pause(failures: u32, random: f64) -> Duration {
    let (least, most) = BACKOFF;
    let doubled = least.saturating_mul(2u32.saturating_pow(failures));
    least + (doubled.min(most) - least).mul_f64(random.clamp(0.0, 1.0))
}

/// 0 to 1, other on each device and each time: `RandomState` is seeded by the kernel.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(0u8);
    f64::from((bits >> 32) as u32) / f64::from(u32::MAX)
}
