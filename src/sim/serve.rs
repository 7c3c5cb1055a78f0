//! The simulated cloud as a process of its own, for tests in other languages.

use std::io;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Cloud, CloudConfig, FixedKeys};

/// What `kryptonfs sim` is told.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where the storage is.
    pub dir: PathBuf,
    /// Buckets that are to be there.
    pub buckets: Vec<String>,
    /// Plain HTTP instead of TLS.
    pub http: bool,
    /// The only region.
    pub region: String,
    /// What Krypton hands out instead of keys of its own.
    pub fixed_keys: Option<FixedKeys>,
    /// How long issued keys live.
    pub lease_life: Duration,
    /// Keys of an identity may touch only what lies under it.
    pub identity_policy: bool,
}

impl ServeOptions {
    /// With the defaults of [`CloudConfig`].
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        let config = CloudConfig::new(dir);
        Self {
            dir: config.dir,
            buckets: config.buckets,
            http: !config.tls,
            region: config.region,
            fixed_keys: config.fixed_keys,
            lease_life: config.lease_life,
            identity_policy: config.identity_prefix_policy,
        }
    }
}

/// Runs the cloud until SIGTERM or SIGINT. What there is to know is printed as one JSON line:
/// `s3_url`, `krypton_url`, `cognito_url`, `control_url`, `ca_file` (null with plain HTTP),
/// `region`, `buckets`, `identity_id`, `access_key_id`, `secret_key`, `session_token`, `pid`.
///
/// # Errors
/// Of the disk and of the sockets.
pub async fn serve(options: ServeOptions) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let buckets = options.buckets.clone();
    let cloud = Cloud::start(CloudConfig {
        buckets: options.buckets,
        tls: !options.http,
        region: options.region.clone(),
        fixed_keys: options.fixed_keys,
        lease_life: options.lease_life,
        identity_prefix_policy: options.identity_policy,
        ..CloudConfig::new(options.dir)
    })
    .await?;
    let keys = cloud.issue_keys()?;
    let line = json!({
        "s3_url": cloud.s3_url(),
        "krypton_url": cloud.krypton_url(),
        "cognito_url": cloud.cognito_url(),
        "control_url": cloud.control_url(),
        "ca_file": cloud.ca_file(),
        "region": options.region,
        "buckets": buckets,
        "identity_id": cloud.identity_id(),
        "access_key_id": keys.access_key_id,
        "secret_key": keys.secret_key,
        "session_token": keys.session_token,
        "pid": std::process::id(),
    });
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    drop(out);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    cloud.stop().await;
    Ok(())
}
