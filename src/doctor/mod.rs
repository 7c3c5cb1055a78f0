//! `kryptonfs doctor`: looks at each hop from the interface to the bucket as a mount would go it, and
//! says of each what was seen and what to do.
//!
//! Invariants:
//! - it needs no mount and disturbs none: neither spool, cache nor shared lease is opened;
//! - everything goes by `net`, as all else: bound to the interface, its resolver, its rules;
//! - it ends: each step has its deadline, and what cannot work after a failure is not tried;
//! - what it puts into the bucket it takes away again, and it says so where it cannot.

mod bucket;
mod disks;
mod keys;
mod network;
mod path;
mod proof;
mod report;
mod rights;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::believed::Believed;
use crate::creds::{Krypton, Leases};
use crate::net::{Net, Server};
use crate::store::region::RegionMemory;
use crate::store::{ObjectStore, Uploads};

pub use report::{Report, Row, Verdict};

/// What is looked at: the parts of a mount, made as for one.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The network.
    pub net: Net,
    /// The clock of this process.
    pub clock: Arc<Believed>,
    /// Who issues credentials.
    pub krypton: Arc<Krypton>,
    /// Its lease, for all requests here.
    pub leases: Arc<dyn Leases>,
    /// The whole bucket, one request a call.
    pub bucket: Arc<dyn ObjectStore>,
    /// What a mount sees of it.
    pub mount: Arc<dyn ObjectStore>,
    /// Where the bucket is, once it was asked.
    pub region: Arc<dyn RegionMemory>,
    /// Uploads that were begun there.
    pub uploads: Arc<dyn Uploads>,
}

/// What is known before anything is looked at.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `s3://bucket/prefix`.
    pub source: String,
    /// The bucket's name.
    pub bucket: String,
    /// Empty, or ends with `/`.
    pub prefix: String,
    /// The mount is the identity's own folder below it (`prefix=identity`).
    pub is_rooted: bool,
    /// `region`, if it is given.
    pub region: Option<String>,
    /// Where S3 is, as a URL.
    pub s3_url: String,
    /// `endpoint_url`, if it is given.
    pub endpoint_url: Option<String>,
    /// `krypton_url`.
    pub krypton_url: String,
    /// `cognito_url`, if it is given.
    pub cognito_url: Option<String>,
    /// `interface`, if one is named.
    pub interface: Option<String>,
    /// `public_probe`: what must not be reached by the interface.
    pub public_probe: Option<String>,
    /// Mounts have the canaries asked (`closed_check`).
    pub is_checked: bool,
    /// `ro`.
    pub read_only: bool,
    /// `spool_dir`.
    pub spool: PathBuf,
    /// `cache_dir`.
    pub cache: PathBuf,
    /// `disk_reserve`, in bytes.
    pub disk_reserve: u64,
    /// Put the canaries, where they are not.
    pub set_up_canary: bool,
    /// How far the way is followed.
    pub hops_max: u8,
}

/// Rows that need a bucket that answers.
const BEHIND: [&str; 9] = [
    "put",
    "get",
    "copy",
    "multipart",
    "preconditions",
    "delete",
    "uploads",
    "canary",
    "public",
];

/// Somebody is told each row as soon as it is known.
pub type Tell<'a> = &'a mut (dyn FnMut(&Row) + Send);

/// One examination under way.
struct Doctor<'a> {
    parts: &'a Parts,
    facts: &'a Facts,
    report: Report,
    tell: Tell<'a>,
}

impl fmt::Debug for Doctor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Doctor({})", self.facts.source)
    }
}

/// Looks at everything, in the order of the path.
pub async fn examine(parts: &Parts, facts: &Facts, tell: Tell<'_>) -> Report {
    let mut doctor = Doctor {
        parts,
        facts,
        report: Report::new(&facts.source),
        tell,
    };
    doctor.device().await;
    doctor.network().await;
    doctor.keys().await;
    doctor.bucket().await;
    let before = [
        "interface",
        "dns",
        "tcp",
        "tls",
        "mtu",
        "krypton",
        "cognito",
        "bucket",
        "region",
    ];
    match doctor.failed(&before) {
        Some(failed) => doctor.skip(&BEHIND, failed),
        None => {
            doctor.rights().await;
            doctor.uploads().await;
            if facts.set_up_canary {
                doctor.set_up().await;
            }
            doctor.canary().await;
            doctor.public().await;
        }
    }
    doctor.report
}

impl Doctor<'_> {
    fn add(&mut self, row: Row) {
        (self.tell)(&row);
        self.report.add(row);
    }

    /// Adds a row for each of these that says which failed row keeps it from being looked at.
    fn skip(&mut self, checks: &[&'static str], because: &str) {
        for check in checks {
            self.add(Row::skip(check, format!("not looked at: {because} failed")));
        }
    }

    /// The first of these rows that failed.
    fn failed(&self, checks: &[&'static str]) -> Option<&'static str> {
        let mut checks = checks.iter();
        checks.find(|check| self.report.has_failed(check)).copied()
    }

    /// S3 as it is dialled.
    fn s3(&self) -> Option<Server> {
        Server::of(&self.facts.s3_url)
    }
}
