//! A simulated cloud on loopback: S3 over TLS with its own authority, SORACOM Krypton and Amazon
//! Cognito, for the demo and the tests.
//!
//! Invariants:
//! - the protocol is `s3s`'s; what it says, the storage does as S3 does, down to ETags, checksums,
//!   preconditions and the 5 MiB rules;
//! - every request and every byte of the wire is counted, exactly;
//! - it goes wrong only on command ([`Faults`]);
//! - it imports nothing of the rest of the house, so that it cannot share its mistakes.

mod answer;
mod auth;
mod blob;
mod body;
mod bucket;
mod checks;
mod cognito;
mod config;
mod control;
mod count;
pub mod demo;
mod faults;
mod flow;
mod front;
mod journal;
mod krypton;
mod list;
mod multipart;
mod random;
mod reload;
mod s3;
mod serve;
mod site;
mod tls;
mod verb;
mod wire;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use auth::{Key, Keys};
use bucket::Store;
use count::Counter;
use front::{Front, Role};
use s3::Cabinet;
use wire::Listener;

pub use config::{CloudConfig, FixedKeys, Honours, Ports};
pub use count::{Counts, Logged, OperationCount, Service, WireCount};
pub use faults::{Action, Command, Expiration, Fault, Faults};
pub use serve::{ServeOptions, serve};
pub use site::{Block, Deny, Site};

/// Life of keys that are issued for a client beside the mount.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the listeners share.
struct Shared {
    store: Arc<Store>,
    keys: Arc<Keys>,
    faults: Arc<Faults>,
    counter: Arc<Counter>,
    region: String,
    identity: Mutex<String>,
    fixed: Option<FixedKeys>,
    site: Site,
}

impl Shared {
    /// Of the SIM that is in the device.
    fn identity(&self) -> String {
        self.identity.lock().clone()
    }

    /// Keys for the device.
    fn lease(&self, life: Duration) -> io::Result<Key> {
        match &self.fixed {
            None => self.keys.issue(Some(&self.identity()), life),
            Some(fixed) => Ok(Key {
                access_key_id: fixed.access_key_id.clone(),
                secret_key: fixed.secret_key.clone(),
                session_token: fixed.session_token.clone(),
                expires: Some(SystemTime::now() + life),
                identity: None,
            }),
        }
    }
}

/// Where the services are.
#[derive(Debug)]
struct Urls {
    s3: String,
    krypton: String,
    cognito: String,
    control: String,
}

/// A running cloud. Dropped, it ends at once; [`Cloud::stop`] ends it in order.
pub struct Cloud {
    shared: Arc<Shared>,
    urls: Urls,
    ca_file: Option<PathBuf>,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud")
            .field("urls", &self.urls)
            .finish_non_exhaustive()
    }
}

impl Cloud {
    /// Starts all of it.
    ///
    /// # Errors
    /// Of the disk, of the sockets, and of a storage that is not one.
    pub async fn start(config: CloudConfig) -> io::Result<Self> {
        std::fs::create_dir_all(&config.dir)?;
        let store = Arc::new(Store::open(&config.dir)?);
        for bucket in &config.buckets {
            if !s3s::path::check_bucket_name(bucket) {
                let message = format!("not a name for a bucket: {bucket}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            store.create_bucket(bucket).map_err(io::Error::other)?;
        }
        let keys = Arc::new(Keys::new());
        if let Some(fixed) = &config.fixed_keys {
            keys.accept_fixed(fixed);
        }
        let cabinet = Cabinet {
            store: Arc::clone(&store),
            honours: config.honours,
            region: config.region.clone(),
        };
        let service = s3::service(cabinet, &keys, config.identity_prefix_policy);
        let identity = identity(&config.dir, &config.region)?;
        let tls = config
            .tls
            .then(|| tls::prepare(&config.dir, &config.site.names));
        let tls = tls.transpose()?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            store,
            keys,
            faults: Arc::new(Faults::new(config.lease_life)),
            counter: Arc::default(),
            region: config.region,
            identity: Mutex::new(identity),
            fixed: config.fixed_keys,
            site: config.site,
        });
        let mut opening = Opening {
            shared: Arc::clone(&shared),
            tls: tls.as_ref().map(|tls| tls.acceptor.clone()),
            stopped,
            listeners: JoinSet::new(),
        };
        let ports = config.ports.unwrap_or_default();
        let urls = Urls {
            s3: opening.open(Role::S3(Box::new(service)), ports.s3).await?,
            krypton: opening.open(Role::Krypton, ports.krypton).await?,
            cognito: opening.open(Role::Cognito, ports.cognito).await?,
            control: opening.open(Role::Control, ports.control).await?,
        };
        Ok(Self {
            shared,
            urls,
            ca_file: tls.map(|tls| tls.ca_file),
            stop,
            listeners: opening.listeners,
        })
    }

    /// Where S3 is.
    #[must_use]
    pub fn s3_url(&self) -> &str {
        &self.urls.s3
    }

    /// Where Krypton is.
    #[must_use]
    pub fn krypton_url(&self) -> &str {
        &self.urls.krypton
    }

    /// Where Cognito is.
    #[must_use]
    pub fn cognito_url(&self) -> &str {
        &self.urls.cognito
    }

    /// Where the control endpoint is; always plain HTTP.
    #[must_use]
    pub fn control_url(&self) -> &str {
        &self.urls.control
    }

    /// The authority to trust; `None` without TLS.
    #[must_use]
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// The only region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.shared.region
    }

    /// The identity of the device, the same as long as the directory is, and the SIM.
    #[must_use]
    pub fn identity_id(&self) -> String {
        self.shared.identity()
    }

    /// Puts the SIM with that identity into the device; what was issued before holds to its end.
    pub fn insert_sim(&self, identity: &str) {
        identity.clone_into(&mut self.shared.identity.lock());
    }

    /// All that was counted since the start or the last reset.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counter.counts()
    }

    /// Begins to count anew.
    pub fn reset_counts(&self) {
        self.shared.counter.reset();
    }

    /// The last requests, oldest first.
    #[must_use]
    pub fn log(&self) -> Vec<Logged> {
        self.shared.counter.log()
    }

    /// What is to go wrong.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Keys for an independent client, which may do everything for a day.
    ///
    /// # Errors
    /// If the kernel has no random bytes.
    pub fn issue_keys(&self) -> io::Result<FixedKeys> {
        self.shared.keys.issue(None, DAY).map(FixedKeys::of)
    }

    /// Ends all keys and tokens that were issued so far.
    pub fn expire_keys(&self) {
        self.shared.keys.expire_all();
    }

    /// Ends the keys and tokens that Krypton and Cognito issued so far.
    pub fn expire_leases(&self) {
        self.shared.keys.expire_leases();
    }

    /// Puts many small objects, without a request; answers how many.
    ///
    /// # Errors
    /// If the bucket is not there, and of the disk.
    pub fn seed(
        &self,
        bucket: &str,
        objects: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> io::Result<u64> {
        self.shared.store.seed(bucket, objects.into_iter())
    }

    /// What is in an object, without a request. Blocks.
    ///
    /// # Errors
    /// If it is not there, and of the disk.
    pub fn content(&self, bucket: &str, key: &str) -> io::Result<Vec<u8>> {
        let object = self.shared.store.get(bucket, key);
        object.map_err(io::Error::other)?.content.bytes()
    }

    /// Ends it: no more is accepted, what is under way gets a moment to finish.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.listeners.join_next().await.is_some() {}
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // What is stored stays, whoever still holds it.
        self.shared.store.blobs.close();
    }
}

struct Opening {
    shared: Arc<Shared>,
    tls: Option<tokio_rustls::TlsAcceptor>,
    stopped: watch::Receiver<bool>,
    listeners: JoinSet<()>,
}

impl Opening {
    /// Opens a listener, and answers its URL.
    async fn open(&mut self, role: Role, port: u16) -> io::Result<String> {
        let tls = match role {
            Role::Control => None,
            _ => self.tls.clone(),
        };
        let made = &self.shared.site;
        let made = match role {
            Role::S3(_) => made.s3.as_ref(),
            Role::Krypton => made.krypton.as_ref(),
            Role::Cognito => made.cognito.as_ref(),
            Role::Control => None,
        };
        let tcp = site::listener(made, port).await?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", tcp.local_addr()?);
        let shared = Arc::clone(&self.shared);
        let listener = Listener {
            tcp,
            tls,
            front: Arc::new(Front { role, shared }),
            stop: self.stopped.clone(),
        };
        self.listeners.spawn(listener.serve());
        Ok(url)
    }
}

/// The device's identity in this directory.
fn identity(dir: &Path, region: &str) -> io::Result<String> {
    let file = dir.join("identity");
    match std::fs::read_to_string(&file) {
        Ok(uuid) => Ok(format!("{region}:{uuid}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let uuid = random::uuid()?;
            std::fs::write(&file, &uuid)?;
            Ok(format!("{region}:{uuid}"))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
