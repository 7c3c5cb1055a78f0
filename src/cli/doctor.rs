//! `kryptonfs doctor`: each row as soon as it is known, or all of them as JSON.

use std::process::ExitCode;

use tracing::level_filters::LevelFilter;

use super::{fail, print};
use crate::config::{Config, Given};
use crate::daemon::{self, Failure, Sink};
use crate::doctor::{self, Facts, Report, Verdict};

/// What is wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Examining {
    /// As one line of JSON.
    pub json: bool,
    /// Put the canaries, where they are not.
    pub set_up_canary: bool,
    /// How far the way to S3 is followed.
    pub hops_max: u8,
}

/// Looks at each hop to the bucket. Exit 0: nothing failed, 1: something did (or wrong usage).
#[must_use]
pub fn doctor(source: &str, given: &[Given], how: Examining) -> ExitCode {
    let json = how.json;
    let examined = examined(source, given, how).and_then(|report| {
        let told = if json {
            report.json()
        } else {
            Ok(report.summary())
        };
        told.and_then(|text| print(&text)).map_err(Failure::Usage)?;
        Ok(report)
    });
    match examined {
        Ok(report) => ExitCode::from(u8::from(report.verdict == Verdict::Fail)),
        Err(failure) => fail(&failure),
    }
}

fn examined(source: &str, given: &[Given], how: Examining) -> Result<Report, Failure> {
    let config = Config::new(source, given).map_err(|error| Failure::Usage(error.to_string()))?;
    daemon::harden()
        .map_err(|error| Failure::Usage(format!("the process cannot be hardened: {error}")))?;
    // What is to be known is in the rows, unless more is wanted.
    if config.log_level > LevelFilter::INFO {
        daemon::log_to(Sink::Stderr, config.log_level);
    }
    let runtime = daemon::runtime()
        .map_err(|error| Failure::Usage(format!("no threads to be had: {error}")))?;
    let mut unsaid = None;
    let report = runtime.block_on(async {
        let parts = daemon::reach(&config)?;
        let mut tell = |row: &doctor::Row| {
            if !how.json && unsaid.is_none() {
                unsaid = print(&row.text()).err();
            }
        };
        Ok(doctor::examine(&parts, &facts(&config, how), &mut tell).await)
    });
    daemon::shut_down(runtime);
    match unsaid {
        Some(why) => Err(Failure::Usage(why)),
        None => report,
    }
}

fn facts(config: &Config, how: Examining) -> Facts {
    Facts {
        source: config.place.to_string(),
        bucket: config.place.bucket.clone(),
        prefix: config.place.prefix.clone(),
        is_rooted: config.s3.is_rooted,
        region: config.s3.region.clone(),
        s3_url: config.s3.url(),
        endpoint_url: config.s3.endpoint_url.clone(),
        krypton_url: config.creds.krypton_url.clone(),
        cognito_url: config.creds.cognito_url.clone(),
        interface: config.net.interface.clone(),
        public_probe: config.public_probe.clone(),
        is_checked: config.closed.is_some(),
        read_only: config.mount.read_only,
        spool: config.common_dir().to_owned(),
        cache: config.read.cache_dir.clone(),
        disk_reserve: config.log.disk_reserve,
        set_up_canary: how.set_up_canary,
        hops_max: how.hops_max,
    }
}
