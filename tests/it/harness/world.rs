//! A bucket somewhere, keys for it, and all that a test needs beside the mount.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::servers::{self, Running};
use super::{Access, Client, Keys, Relay, Spec, TestCloud, WorkDir};

/// Which server holds the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Sim,
    Seaweed,
    Radosgw,
}

/// One test's world. Keys reach the mount only by Krypton, which the simulated cloud plays.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) cloud: TestCloud,
    /// Between the mount and S3.
    pub(crate) relay: Relay,
    pub(crate) client: Client,
    pub(crate) access: Access,
    pub(crate) work: WorkDir,
    prefix: String,
    fixed: Option<Keys>,
}

impl World {
    /// A new bucket on that server.
    pub(crate) fn new(server: Server, name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let work = WorkDir::new(name);
        let bucket = format!("it-{}-{number}", std::process::id());
        let (cloud, access, relay, fixed) = match server {
            Server::Sim => {
                let cloud = TestCloud::start(&work.dir("cloud"), &bucket, None);
                let access = Access {
                    endpoint: cloud.s3_url(),
                    region: cloud.region(),
                    bucket,
                    ca_file: Some(cloud.ca_file()),
                    keys: cloud.keys(),
                };
                let relay = Relay::start(cloud.s3_address());
                (cloud, access, relay, None)
            }
            Server::Seaweed => real(servers::seaweed(), bucket, &work, |running, _| {
                running.keys.clone()
            }),
            Server::Radosgw => real(servers::radosgw(), bucket, &work, |_, client| {
                client.assume_role(servers::ROLE)
            }),
        };
        let client = Client::start(&access);
        client.create_bucket();
        Self {
            server,
            cloud,
            relay,
            client,
            access,
            work,
            prefix: "pre/fix".into(),
            fixed,
        }
    }

    /// What a mount of this world's bucket is started with.
    pub(crate) fn spec(&self) -> Spec {
        let scheme = if self.server == Server::Sim {
            "https"
        } else {
            "http"
        };
        Spec {
            source: format!("s3://{}/{}", self.access.bucket, self.prefix),
            region: self.access.region.clone(),
            endpoint: format!("{scheme}://{}", self.relay.address()),
            krypton: self.cloud.krypton_url(),
            ca_file: self.cloud.ca_file(),
            dir: self.work.dir("mnt"),
            spool: self.work.path().join("spool"),
            cache: self.work.path().join("cache"),
            options: vec![("network".into(), "open".into())],
            log: self.work.path().join("mount.log"),
        }
    }

    /// The same place as seen by another device: nothing remembered.
    pub(crate) fn second_device(&self) -> Spec {
        Spec {
            dir: self.work.dir("mnt2"),
            spool: self.work.path().join("spool2"),
            cache: self.work.path().join("cache2"),
            log: self.work.path().join("mount2.log"),
            ..self.spec()
        }
    }

    /// The keys that Krypton hands to the mount, if they are fixed ones.
    pub(crate) fn fixed_keys(&self) -> Option<&Keys> {
        self.fixed.as_ref()
    }

    /// The key of a name in the mount.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// A folder beside the mount.
    pub(crate) fn local(&self, name: &str) -> PathBuf {
        self.work.dir(name)
    }
}

/// A world on a real server; `keys` says which keys Krypton hands to the mount.
fn real(
    running: &Running,
    bucket: String,
    work: &WorkDir,
    keys: impl Fn(&Running, &Client) -> Keys,
) -> (TestCloud, Access, Relay, Option<Keys>) {
    let access = Access {
        endpoint: running.url(),
        region: servers::REGION.into(),
        bucket,
        ca_file: None,
        keys: running.keys.clone(),
    };
    let fixed = keys(running, &Client::start(&access));
    let cloud = TestCloud::start(&work.dir("cloud"), "unused", Some(&fixed));
    (cloud, access, Relay::start(running.address), Some(fixed))
}
