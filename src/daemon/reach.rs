//! The way to the bucket without a mount: what `kryptonfs doctor` looks at.

use std::sync::Arc;

use async_trait::async_trait;

use super::Failure;
use super::time::Keeping;
use crate::clock::believed::Believed;
use crate::config::Config;
use crate::creds::{Krypton, Leases, Once};
use crate::doctor::Parts;
use crate::net::Net;
use crate::store::prefix::Prefix;
use crate::store::region::{Forgetful, RegionMemory};
use crate::store::rooted::{Root, Rooted};
use crate::store::s3::S3Store;
use crate::store::{self, ObjectStore, StoreError};

/// The folder of the identity that the lease is of.
#[derive(Debug)]
struct Own(Arc<dyn Leases>);

#[async_trait]
impl Root for Own {
    async fn root(&self) -> store::Result<String> {
        let none = |why: String| StoreError::NoCredentials(why);
        let lease = self
            .0
            .lease()
            .await
            .map_err(|error| none(error.to_string()))?;
        let identity = lease.identity.clone();
        identity.ok_or_else(|| {
            none("Krypton names no identity, so prefix=identity has no folder".to_owned())
        })
    }
}

/// The parts, made as for a mount; but the lease is asked for anew and shared with nobody, one call is
/// one request, and spool and cache are not opened. Nothing is sent.
///
/// # Errors
/// One line.
pub fn reach(config: &Config) -> Result<Parts, Failure> {
    let clock = Believed::of_process();
    Keeping::look(&config.common_dir().join("clock"), &clock);
    let net = Net::new(&config.net).map_err(|error| Failure::Usage(error.to_string()))?;
    let shared = Arc::<Believed>::clone(&clock);
    let krypton = Krypton::new(&config.creds, &net, shared);
    let krypton = Arc::new(krypton.map_err(|error| Failure::Usage(error.to_string()))?);
    let source = Arc::<Krypton>::clone(&krypton);
    let leases: Arc<dyn Leases> = Arc::new(Once::new(source));
    let region = Arc::<Forgetful>::default();
    let s3 = Arc::new(S3Store::new(
        &config.s3,
        net.http_client(),
        &net.sdk_config(),
        Arc::clone(&leases),
        Arc::clone(&region) as Arc<dyn RegionMemory>,
    ));
    let bucket: Arc<dyn ObjectStore> = Arc::<S3Store>::clone(&s3);
    let below: Arc<dyn ObjectStore> = Prefix::over(Arc::clone(&bucket), &config.place.prefix);
    let mount = if config.s3.is_rooted {
        Rooted::over(below, Arc::new(Own(Arc::clone(&leases))))
    } else {
        below
    };
    Ok(Parts {
        net,
        clock,
        krypton,
        leases,
        mount,
        bucket,
        region,
        uploads: s3,
    })
}
