//! The simulated cloud inside the test's own process, with a runtime of its own (a test thread
//! blocks in system calls on the mount, so it never runs the cloud).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kryptonfs::sim::{Action, Cloud, CloudConfig, Counts, Expiration, Fault, FixedKeys, Site};
use tokio::runtime::Runtime;

use super::Keys;

pub(crate) use kryptonfs::sim::Service;

/// An answer as it is, whatever was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a> {
    pub(crate) status: u16,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a str,
}

/// A cloud with one bucket.
#[derive(Debug)]
pub(crate) struct TestCloud {
    cloud: Option<Cloud>,
    runtime: Runtime,
    bucket: String,
}

/// How often a refusal comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Times(u64),
    Always,
}

impl TestCloud {
    /// `keys`: what Krypton hands out instead of keys of its own.
    pub(crate) fn start(dir: &Path, bucket: &str, keys: Option<&Keys>) -> Self {
        Self::at(dir, bucket, keys, Site::default())
    }

    /// The same in another place of the network.
    pub(crate) fn at(dir: &Path, bucket: &str, keys: Option<&Keys>, site: Site) -> Self {
        Self::with(CloudConfig {
            buckets: vec![bucket.to_owned()],
            fixed_keys: keys.map(|keys| FixedKeys {
                access_key_id: keys.access_key.clone(),
                secret_key: keys.secret_key.clone(),
                session_token: keys.session_token.clone(),
            }),
            site,
            ..CloudConfig::new(dir.to_owned())
        })
    }

    /// Each SIM may touch only what lies under the name of its identity.
    pub(crate) fn of_identities(dir: &Path, bucket: &str) -> Self {
        Self::with(CloudConfig {
            buckets: vec![bucket.to_owned()],
            identity_prefix_policy: true,
            ..CloudConfig::new(dir.to_owned())
        })
    }

    fn with(config: CloudConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let bucket = config.buckets[0].clone();
        let cloud = runtime.block_on(Cloud::start(config)).expect("the cloud");
        Self {
            cloud: Some(cloud),
            runtime,
            bucket,
        }
    }

    fn cloud(&self) -> &Cloud {
        self.cloud.as_ref().expect("it runs until it is dropped")
    }

    pub(crate) fn s3_url(&self) -> String {
        self.cloud().s3_url().to_owned()
    }

    pub(crate) fn s3_address(&self) -> SocketAddr {
        let url = self.cloud().s3_url();
        let host = url.split("://").nth(1).expect("a URL");
        host.trim_end_matches('/').parse().expect("an address")
    }

    pub(crate) fn krypton_url(&self) -> String {
        self.cloud().krypton_url().to_owned()
    }

    pub(crate) fn cognito_url(&self) -> String {
        self.cloud().cognito_url().to_owned()
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.cloud().ca_file().expect("TLS").to_owned()
    }

    pub(crate) fn region(&self) -> String {
        self.cloud().region().to_owned()
    }

    /// For a client beside the mount.
    pub(crate) fn keys(&self) -> Keys {
        let keys = self.cloud().issue_keys().unwrap();
        Keys {
            access_key: keys.access_key_id,
            secret_key: keys.secret_key,
            session_token: keys.session_token,
        }
    }

    pub(crate) fn counts(&self) -> Tally {
        Tally(self.cloud().counts())
    }

    /// `count` objects `prefix` + six digits of eight bytes, without a request.
    pub(crate) fn load(&self, prefix: &str, count: usize) {
        let objects = (0..count).map(|number| {
            let name = format!("{prefix}{number:06}");
            (name, format!("{number:07}\n").into_bytes())
        });
        let made = self.cloud().seed(&self.bucket, objects).unwrap();
        assert_eq!(made, count as u64);
    }

    /// An object, without a request (and so whatever the policy says).
    pub(crate) fn seed(&self, key: &str, body: &[u8]) {
        let object = (key.to_owned(), body.to_vec());
        let made = self.cloud().seed(&self.bucket, [object]);
        assert_eq!(made.unwrap(), 1);
    }

    /// An operation (`*`: any of S3's) is answered with an error.
    pub(crate) fn refuse(&self, operation: &str, status: u16, code: &str, how: Refusal) {
        let times = match how {
            Refusal::Times(times) => times,
            Refusal::Always => u64::MAX,
        };
        self.cloud().faults().add(Fault {
            times,
            ..Fault::refuse(operation, status, code)
        });
    }

    /// Only requests whose key holds this are answered so, from now on.
    pub(crate) fn refuse_key(&self, operation: &str, key: &str, status: u16, code: &str) {
        self.cloud().faults().add(Fault {
            times: u64::MAX,
            key: Some(key.to_owned()),
            ..Fault::refuse(operation, status, code)
        });
    }

    /// So many requests of that operation are answered so, after `skip` that are not.
    pub(crate) fn answer(&self, operation: &str, answer: &Raw<'_>, skip: u64, times: u64) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let action = Action::Raw {
            status: answer.status,
            headers: answer.headers.iter().map(own).collect(),
            body: answer.body.into(),
        };
        self.cloud().faults().add(Fault {
            skip,
            times,
            ..Fault::next(operation, action)
        });
    }

    /// One object, without a request.
    pub(crate) fn insert(&self, key: &str, bytes: Vec<u8>) {
        let made = self.cloud().seed(&self.bucket, [(key.to_owned(), bytes)]);
        assert_eq!(made.unwrap(), 1);
    }

    /// What is in an object, without a request.
    pub(crate) fn content(&self, key: &str) -> Option<Vec<u8>> {
        self.cloud().content(&self.bucket, key).ok()
    }

    /// The next request of that operation is carried out, but its answer is lost.
    pub(crate) fn lose_answer(&self, operation: &str) {
        let fault = Fault::next(operation, Action::DropAfter);
        self.cloud().faults().add(fault);
    }

    /// The body of the next answer of that operation ends early.
    pub(crate) fn truncate_answer(&self, operation: &str, after: u64) {
        let fault = Fault::next(operation, Action::Truncate(after));
        self.cloud().faults().add(fault);
    }

    /// Requests of that operation are carried out after so long, from now on.
    pub(crate) fn delay(&self, operation: &str, by: Duration) {
        let by = u64::try_from(by.as_millis()).expect("not for ages");
        let fault = Fault::every(operation, Action::Delay(by));
        self.cloud().faults().add(fault);
    }

    pub(crate) fn clear_faults(&self) {
        self.cloud().faults().clear();
    }

    /// Nothing is read or written on that listener.
    pub(crate) fn silence(&self, service: Service, on: bool) {
        self.cloud().faults().silence(service, on);
    }

    /// Ends all keys issued so far, also the client's.
    pub(crate) fn expire_keys(&self) {
        self.cloud().expire_keys();
    }

    /// Ends all keys that the device got so far.
    pub(crate) fn expire_leases(&self) {
        self.cloud().expire_leases();
    }

    /// Of the SIM in the device.
    pub(crate) fn identity(&self) -> String {
        self.cloud().identity_id()
    }

    /// Puts another SIM into the device.
    pub(crate) fn insert_sim(&self, identity: &str) {
        self.cloud().insert_sim(identity);
    }

    pub(crate) fn set_lease_life(&self, life: Duration) {
        self.cloud().faults().set_lease_life(life);
    }

    pub(crate) fn set_expiration(&self, form: Expiration) {
        self.cloud().faults().set_expiration(form);
    }
}

impl Drop for TestCloud {
    fn drop(&mut self) {
        if let Some(cloud) = self.cloud.take() {
            // Whoever still talks to it after that is cut off with the runtime.
            let stop = async { tokio::time::timeout(Duration::from_secs(5), cloud.stop()).await };
            let _ = self.runtime.block_on(stop);
        }
    }
}

/// A reading of the counters.
#[derive(Clone, Debug)]
pub(crate) struct Tally(Counts);

/// What came between two readings.
#[derive(Clone, Debug)]
pub(crate) struct Delta {
    /// Requests by S3's names of the operations; those that came.
    pub(crate) operations: BTreeMap<String, u64>,
    /// Bytes the server read at its socket.
    pub(crate) up: u64,
    /// Bytes it wrote.
    pub(crate) down: u64,
    /// Bodies of PutObject and UploadPart.
    pub(crate) data_up: u64,
    /// Bodies of GetObject's answers.
    pub(crate) data_down: u64,
    /// Bytes at Krypton's and Cognito's sockets.
    pub(crate) issuer_bytes: u64,
    /// Requests to Krypton.
    pub(crate) krypton: u64,
    /// Requests to S3 that were answered with an error.
    pub(crate) failed: u64,
}

impl Tally {
    pub(crate) fn since(&self, earlier: &Self) -> Delta {
        let (now, then) = (&self.0, &earlier.0);
        let mut operations = BTreeMap::new();
        let (mut data_up, mut data_down, mut failed) = (0, 0, 0);
        for (name, count) in &now.operations {
            let before = then.operations.get(name).copied().unwrap_or_default();
            let requests = count.requests - before.requests;
            if requests > 0 && !["Krypton", "Cognito"].contains(&name.as_str()) {
                operations.insert(name.clone(), requests);
                failed += count.failed - before.failed;
            }
            if ["PutObject", "UploadPart"].contains(&name.as_str()) {
                data_up += count.payload_in - before.payload_in;
            }
            if name == "GetObject" {
                data_down += count.payload_out - before.payload_out;
            }
        }
        let bytes = |counts: &Counts| {
            let (krypton, cognito) = (counts.krypton, counts.cognito);
            krypton.received + krypton.sent + cognito.received + cognito.sent
        };
        Delta {
            operations,
            up: now.s3.received - then.s3.received,
            down: now.s3.sent - then.s3.sent,
            data_up,
            data_down,
            issuer_bytes: bytes(now) - bytes(then),
            krypton: now.requests("Krypton") - then.requests("Krypton"),
            failed,
        }
    }
}

impl Delta {
    /// Of one operation.
    pub(crate) fn requests(&self, operation: &str) -> u64 {
        self.operations.get(operation).copied().unwrap_or(0)
    }

    /// Of all of S3's.
    pub(crate) fn all_requests(&self) -> u64 {
        self.operations.values().sum()
    }
}
