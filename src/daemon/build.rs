//! Builds the house from the ground up. The only file that knows how each module is made.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::Failure;
use super::identity::{Identity, Rules};
use super::region::Region;
use crate::clock::believed::Believed;
use crate::config::Config;
use crate::creds::{self, Leases};
use crate::drain;
use crate::fs::{Fs, Parts, Progress};
use crate::log::{Log, LogError};
use crate::net::Net;
use crate::read::Reader;
use crate::store::ObjectStore;
use crate::store::closed::{self, Closed};
use crate::store::counted::{Counted, Counters};
use crate::store::limit::{self, Limit};
use crate::store::prefix::Prefix;
use crate::store::region::RegionMemory;
use crate::store::retry::{self, Retry};
use crate::store::rooted::{Root, Rooted};
use crate::store::s3::S3Store;
use crate::tree::{Opened, Tree};

/// What speaks with the world.
#[derive(Debug)]
pub(super) struct World {
    pub(super) net: Net,
    pub(super) leases: Arc<dyn Leases>,
    /// What gives them out.
    pub(super) identity: Arc<Identity>,
    /// Where the bucket is, if it was not said.
    region: Arc<Region>,
    pub(super) counters: Arc<Counters>,
    /// Whether the bucket was seen to keep versions.
    pub(super) versioned: Arc<AtomicBool>,
    /// `closed_check`, if it is on.
    pub(super) closed: Option<Closed>,
    /// One request a call: for the question before the mount.
    pub(super) once: Arc<dyn ObjectStore>,
    /// With limits and repeats: for all else.
    pub(super) store: Arc<dyn ObjectStore>,
}

/// What knows the files.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) log: Arc<Log>,
    pub(super) tree: Arc<Tree>,
    pub(super) reader: Arc<Reader>,
    pub(super) fs: Arc<Fs>,
    /// Names the last end left without any of their bytes.
    pub(super) lost: Vec<String>,
}

/// The network, credentials, the bucket. Nothing is sent. Must be called inside of a runtime.
pub(super) fn world(config: &Config) -> Result<World, Failure> {
    let net = Net::new(&config.net).map_err(|error| Failure::Mount(error.to_string()))?;
    let keeper = creds::keeper(&config.creds, &net, Believed::of_process())
        .map_err(|error| Failure::Mount(error.to_string()))?;
    let identity = Identity::over(
        Arc::new(keeper),
        Rules {
            send_as_new: config.send_as_new,
            is_root: config.s3.is_rooted,
        },
    );
    let leases: Arc<dyn Leases> = Arc::clone(&identity) as Arc<dyn Leases>;
    let counters = Arc::new(Counters::default());
    let region = Arc::<Region>::default();
    let s3 = S3Store::new(
        &config.s3,
        net.http_client(),
        &net.sdk_config(),
        Arc::clone(&leases),
        Arc::clone(&region) as Arc<dyn RegionMemory>,
    );
    let versioned = s3.versioned();
    let counted = Counted::over(Arc::new(s3), Arc::clone(&counters));
    let closed = config
        .closed
        .map(|when| gate(when, Arc::clone(&counted) as Arc<dyn ObjectStore>, &net));
    let bucket: Arc<dyn ObjectStore> = match &closed {
        Some(closed) => closed.store(),
        None => counted,
    };
    let below: Arc<dyn ObjectStore> = Prefix::over(bucket, &config.place.prefix);
    let once = if config.s3.is_rooted {
        Rooted::over(below, Arc::clone(&identity) as Arc<dyn Root>)
    } else {
        below
    };
    let limits = limit::Config {
        up: config.drain.concurrency,
        ..limit::Config::default()
    };
    let limited = Limit::over(Arc::clone(&once), &limits);
    let store = Retry::over(limited, retry::Config::default());
    Ok(World {
        net,
        leases,
        identity,
        region,
        counters,
        versioned,
        closed,
        once,
        store,
    })
}

/// Must be called inside of a runtime.
fn gate(when: closed::Config, bucket: Arc<dyn ObjectStore>, net: &Net) -> Closed {
    let footing = super::link::count(net.link());
    Closed::new(bucket, when, Believed::of_process(), Box::new(footing))
}

/// `umount` returns before the daemon behind it has ended: the next mount waits for it so long.
const ENDING_MAX: Duration = Duration::from_secs(10);
const ENDING_STEP: Duration = Duration::from_millis(50);

fn open_tree(config: &Config, memory: &Path) -> Result<Opened, LogError> {
    let until = Instant::now() + ENDING_MAX;
    loop {
        match Tree::open(config.log.clone(), memory, config.fs.ttl) {
            Err(LogError::Busy(_)) if Instant::now() < until => std::thread::sleep(ENDING_STEP),
            done => return done,
        }
    }
}

/// The spool is locked and read back, the cache opened. Blocking.
pub(super) fn core(config: &Config, world: &World) -> Result<Core, Failure> {
    not_a_link("spool_dir", &config.log.dir)?;
    not_a_link("cache_dir", &config.read.cache_dir)?;
    let memory = config.log.dir.join("memory");
    let opened = open_tree(config, &memory).map_err(|error| {
        let dir = config.log.dir.display();
        Failure::Mount(format!("the spool {dir} cannot be used: {error}"))
    })?;
    let Opened {
        tree,
        log,
        partials,
        lost,
    } = opened;
    for name in &partials {
        tracing::warn!(%name, "not closed before the last end, its bytes are kept aside");
    }
    for name in &lost {
        tracing::warn!(
            %name,
            "not closed before the last end, none of its bytes was on the device"
        );
    }
    world.identity.opened(&log, &tree);
    world.region.opened(&log);
    let store = Arc::clone(&world.store);
    let spool = Arc::clone(log.spool());
    let reader = Reader::new(config.read.clone(), Arc::clone(&store), spool);
    let learns = Arc::clone(&tree);
    reader.tell(Arc::new(move |meta| learns.remember(meta)));
    let meter = Arc::clone(world.net.meter());
    let progress = Progress(Arc::new(move || (meter.totals().up, meter.totals().down)));
    let fs = Fs::new(
        config.fs.clone(),
        Parts {
            tree: Arc::clone(&tree),
            reader: Arc::clone(&reader),
            store,
            log: Arc::clone(&log),
            progress,
        },
    );
    let link = Arc::clone(world.net.link());
    fs.ask_link(Arc::new(move || link.is_known_down()));
    Ok(Core {
        log,
        tree,
        reader,
        fs,
        lost,
    })
}

/// Starts sending.
pub(super) fn drain(config: &Config, world: &World, core: &Core) -> drain::Handle {
    drain::start(
        Arc::clone(&core.tree),
        Arc::clone(&core.log),
        Arc::clone(&core.reader),
        Arc::clone(&world.store),
        config.drain.clone(),
    )
}

/// The folder that was named (ours is one below it) must be one: who can swap a symlink could swap
/// the spool.
fn not_a_link(key: &str, ours: &Path) -> Result<(), Failure> {
    let Some(named) = ours.parent() else {
        return Ok(());
    };
    match std::fs::symlink_metadata(named) {
        Ok(meta) if meta.is_symlink() => Err(Failure::Mount(format!(
            "{key}={} is a symlink: name the folder itself",
            named.display()
        ))),
        // If it is absent or cannot be looked at, that is found when it is made.
        _ => Ok(()),
    }
}
