//! A bucket somewhere, keys for it, and all that a test needs beside the mount.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::servers::{self, Running};
use super::{Access, Client, Keys, Relay, Spec, TestCloud, WorkDir};

/// Where below the bucket the mounts of the tests are.
const PREFIX: &str = "pre/fix";

/// Which server holds the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Sim,
    Seaweed,
    Radosgw,
}

/// Which keys Krypton hands to the mount.
#[derive(Clone, Debug)]
pub(crate) enum Issue {
    /// Good ones of the server's own.
    Own,
    /// These, and the simulated S3 takes them.
    Fixed(Keys),
    /// These, which S3 has never heard of.
    Stranger(Keys),
}

/// One test's world. Keys reach the mount only by Krypton, which a simulated cloud plays.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) server: Server,
    /// S3, unless a real server plays it; and Krypton.
    pub(crate) cloud: TestCloud,
    /// Between the mount and S3.
    pub(crate) relay: Relay,
    pub(crate) client: Client,
    pub(crate) access: Access,
    pub(crate) work: WorkDir,
    /// Krypton, where it is not the same cloud.
    issuer: Option<TestCloud>,
    ca_file: PathBuf,
    prefix: String,
    /// The prefix is the identity of the SIM, and the mounts are told so.
    is_rooted: bool,
}

impl World {
    /// A new bucket on that server.
    pub(crate) fn new(server: Server, name: &str) -> Self {
        Self::with_keys(server, name, Issue::Own)
    }

    /// The same, but Krypton hands out what `issue` says.
    pub(crate) fn with_keys(server: Server, name: &str, issue: Issue) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let work = WorkDir::new(name);
        let bucket = format!("it-{}-{number}", std::process::id());
        let mut world = match server {
            Server::Sim => simulated(work, bucket, issue),
            Server::Seaweed => real(servers::seaweed(), server, work, bucket, issue),
            Server::Radosgw => real(servers::radosgw(), server, work, bucket, issue),
        };
        world.client.create_bucket();
        if server == Server::Seaweed {
            // It makes room for a new bucket with its first object, and may refuse it meanwhile.
            super::eventually(
                "a new bucket takes an object",
                Duration::from_secs(60),
                || world.client.try_put("probe", b"p").ok(),
            );
            world.client.delete("probe");
        }
        world.ca_file = world.bundle();
        world
    }

    /// A bucket in which each SIM has a folder called as its identity, and nothing else.
    pub(crate) fn of_identities(name: &str) -> Self {
        let work = WorkDir::new(name);
        let bucket = format!("it-{}-{name}", std::process::id());
        let cloud = TestCloud::of_identities(&work.dir("cloud"), &bucket);
        let mut world = around(work, bucket, cloud, None);
        world.prefix = world.cloud.identity();
        world.is_rooted = true;
        world.client.create_bucket();
        world.ca_file = world.bundle();
        world
    }

    /// All authorities of this world in one file.
    fn bundle(&self) -> PathBuf {
        let clouds = std::iter::once(&self.cloud).chain(&self.issuer);
        let texts: Vec<_> = clouds
            .map(|cloud| std::fs::read_to_string(cloud.ca_file()).unwrap())
            .collect();
        let path = self.work.path().join("ca.pem");
        std::fs::write(&path, texts.join("\n")).unwrap();
        path
    }

    /// Who plays Krypton.
    pub(crate) fn issuer(&self) -> &TestCloud {
        self.issuer.as_ref().unwrap_or(&self.cloud)
    }

    /// What a mount of this world's bucket is started with.
    pub(crate) fn spec(&self) -> Spec {
        let scheme = if self.server == Server::Sim {
            "https"
        } else {
            "http"
        };
        let (place, root) = if self.is_rooted {
            ("", "identity")
        } else {
            (self.prefix.as_str(), "none")
        };
        Spec {
            source: format!("s3://{}/{place}", self.access.bucket),
            region: self.access.region.clone(),
            endpoint: format!("{scheme}://{}", self.relay.address()),
            krypton: self.issuer().krypton_url(),
            ca_file: self.ca_file.clone(),
            dir: self.work.dir("mnt"),
            spool: self.work.path().join("spool"),
            cache: self.work.path().join("cache"),
            options: vec![
                ("network".into(), "open".into()),
                ("log".into(), level()),
                ("prefix".into(), root.into()),
            ],
            log: self.work.path().join("mount.log"),
            space: None,
            env: Vec::new(),
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

    /// The key of a name in the mount.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// A folder beside the mount.
    pub(crate) fn local(&self, name: &str) -> PathBuf {
        self.work.dir(name)
    }
}

/// What the mounts log; `KRYPTONFS_TEST_LOG=debug` shows more when a test fails.
pub(crate) fn level() -> String {
    std::env::var("KRYPTONFS_TEST_LOG").unwrap_or_else(|_| "info".into())
}

fn simulated(work: WorkDir, bucket: String, issue: Issue) -> World {
    let (fixed, stranger) = match &issue {
        Issue::Own => (None, None),
        Issue::Fixed(keys) => (Some(keys), None),
        Issue::Stranger(keys) => (None, Some(keys)),
    };
    let cloud = TestCloud::start(&work.dir("cloud"), &bucket, fixed);
    let issuer = stranger.map(|keys| TestCloud::start(&work.dir("issuer"), "unused", Some(keys)));
    around(work, bucket, cloud, issuer)
}

fn around(work: WorkDir, bucket: String, cloud: TestCloud, issuer: Option<TestCloud>) -> World {
    let access = Access {
        endpoint: cloud.s3_url(),
        region: cloud.region(),
        bucket,
        ca_file: Some(cloud.ca_file()),
        keys: cloud.keys(),
    };
    World {
        server: Server::Sim,
        relay: Relay::start(cloud.s3_address()),
        client: Client::start(&access),
        issuer,
        ca_file: PathBuf::new(),
        prefix: PREFIX.into(),
        is_rooted: false,
        cloud,
        access,
        work,
    }
}

fn real(running: &Running, server: Server, work: WorkDir, bucket: String, issue: Issue) -> World {
    let access = Access {
        endpoint: running.url(),
        region: servers::REGION.into(),
        bucket,
        ca_file: None,
        keys: running.keys.clone(),
    };
    let client = Client::start(&access);
    let keys = match (issue, server) {
        (Issue::Fixed(keys) | Issue::Stranger(keys), _) => keys,
        // A session token that the server verifies.
        (Issue::Own, Server::Radosgw) => client.session_keys(),
        (Issue::Own, _) => running.keys.clone(),
    };
    World {
        server,
        cloud: TestCloud::start(&work.dir("cloud"), "unused", Some(&keys)),
        relay: Relay::start(running.address),
        issuer: None,
        ca_file: PathBuf::new(),
        prefix: PREFIX.into(),
        is_rooted: false,
        client,
        access,
        work,
    }
}
