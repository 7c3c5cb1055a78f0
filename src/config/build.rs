//! From settings to each module's `Config`, and the rules that bind several options.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{getegid, geteuid};
use tracing::level_filters::LevelFilter;

use super::sources::Settings;
use super::values;
use super::{Config, ConfigError, Issuing, MountConfig, PinConfig, Place, disk};
use crate::net::Network;
use crate::types::{RelPath, Sse};
use crate::{creds, drain, fs, log, net, read, store};

const MIB: u64 = 1 << 20;
/// What S3 allows as the size of a part that is not the last.
const PART: std::ops::RangeInclusive<u64> = 5 * MIB..=5 << 30;
/// The longest key S3 takes.
const KEY_MAX: usize = 1024;
/// The longest identity Cognito has (`IdentityId` of GetCredentialsForIdentity).
const IDENTITY_MAX: usize = 55;
/// What a spool is bound to in place of the identity's folder: no place can be called so.
const ROOT: &str = "{identity}//";
/// `closed_check=periodic`: two small requests an hour, and only with others.
const PROVEN_FOR: Duration = Duration::from_secs(3600);
/// Long enough that a file which is closed soon stays one record of the log.
const UNWRITTEN_AFTER: Duration = Duration::from_secs(5);

pub(super) fn config(source: &str, place: Place, s: &Settings) -> Result<Config, ConfigError> {
    let net = net_config(s)?;
    let s3 = s3_config(&place, s)?;
    let creds = creds_config(s, &net)?;
    check_urls(&creds, s3.endpoint_url.as_ref(), net.network)?;
    let mount = mount_config(s)?;
    let endpoint = endpoint(&s3);
    let folder = place.folder(&endpoint);
    let log = log_config(&place, endpoint, s)?;
    let read = read_config(&folder, log.disk_reserve, s)?;
    if log.dir == read.cache_dir {
        return fault("spool_dir and cache_dir are the same folder: name two");
    }
    Ok(Config {
        fs: fs_config(&place, s)?,
        drain: drain_config(&place, s)?,
        closed: match s.one("closed_check")? {
            Some("mount") => Some(store::closed::Config::of(None)),
            Some("periodic") => Some(store::closed::Config::of(Some(PROVEN_FOR))),
            _ => None,
        },
        public_probe: s.read("public_probe", text)?,
        log_level: log_level(s)?,
        protect_dir: s.must("protect_dir", values::flag)?,
        log_names: s.one("log_paths")? != Some("off"),
        metrics: s.read("metrics", |path| Ok(PathBuf::from(path)))?,
        source: source.to_owned(),
        place,
        net,
        creds,
        send_as_new: s.one("new_identity")? == Some("send"),
        s3,
        log,
        read,
        mount,
        pins: PinConfig {
            patterns: s.list("pin", str::parse)?,
            every: at_least_a_second(s, "pin_every")?,
        },
    })
}

/// What is needed to issue credentials: no bucket is.
pub(super) fn issuing(s: &Settings) -> Result<Issuing, ConfigError> {
    let net = net_config(s)?;
    let creds = creds_config(s, &net)?;
    check_urls(&creds, None, net.network)?;
    Ok(Issuing {
        net,
        creds,
        common_dir: spool_base(s)?,
        log_level: log_level(s)?,
    })
}

fn log_level(s: &Settings) -> Result<LevelFilter, ConfigError> {
    s.must("log", |text| {
        text.parse().map_err(|_| "no such level".into())
    })
}

fn check_urls(
    creds: &creds::Config,
    endpoint_url: Option<&String>,
    network: Network,
) -> Result<(), ConfigError> {
    for (key, url) in [
        ("endpoint_url", endpoint_url),
        ("krypton_url", Some(&creds.krypton_url)),
        ("cognito_url", creds.cognito_url.as_ref()),
    ] {
        url.map_or(Ok(()), |url| check_plain_http(key, url, network))?;
    }
    Ok(())
}

fn fault<T>(line: &str) -> Result<T, ConfigError> {
    Err(ConfigError::new(line.to_owned()))
}

fn text(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

fn net_config(s: &Settings) -> Result<net::Config, ConfigError> {
    let config = net::Config {
        network: s.must("network", |text| text.parse())?,
        interface: s.read("interface", text)?,
        source_address: s.read("source_address", values::address)?,
        dns: s.list("dns", values::server)?,
        resolve: s.list("resolve", values::host)?,
        allow: s.list("allow", values::block)?,
        ntp: s.read("ntp", text)?.filter(|server| server != "none"),
        ca_file: s.read("ca_file", |path| Ok(PathBuf::from(path)))?,
        ..net::Config::default()
    };
    if config.network == Network::Closed && config.interface.is_none() {
        return fault(
            "network=closed needs the link to keep to: say interface=NAME (the SIM's, e.g. wwan0) or network=open",
        );
    }
    Ok(config)
}

fn s3_config(place: &Place, s: &Settings) -> Result<store::s3::Config, ConfigError> {
    let endpoint_url = s.read("endpoint_url", text)?;
    let region = s.read("region", text)?;
    let is_name = |text: &String| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !region.as_ref().is_none_or(is_name) {
        return fault("region is not a name of a region: say one such as ap-northeast-1");
    }
    let path_style = s
        .unless_auto("path_style", values::flag)?
        .unwrap_or_else(|| endpoint_url.as_deref().is_some_and(wants_path));
    Ok(store::s3::Config {
        bucket: place.bucket.clone(),
        region,
        endpoint_url,
        path_style,
        is_rooted: is_rooted(s)?,
    })
}

/// The host, if it is one of Amazon's.
fn amazon(url: &str) -> Option<String> {
    let host = values::url(url).ok()?.host.to_ascii_lowercase();
    let endings = [".amazonaws.com", ".amazonaws.com.cn"];
    endings
        .iter()
        .any(|ending| host.ends_with(ending))
        .then_some(host)
}

/// Whether a bucket's name cannot stand before the host: another server's certificate does not
/// cover that, and neither does that of an interface endpoint (`bucket.vpce-...`).
fn wants_path(url: &str) -> bool {
    amazon(url).is_none_or(|host| host.contains(".vpce."))
}

/// What a spool is bound to. Not the region: a bucket's name is one bucket's in all of Amazon's
/// regions (China's are apart), and who learnt the region and names it later finds what waits.
fn endpoint(s3: &store::s3::Config) -> String {
    let in_china = |region: &String| region.starts_with("cn-");
    match (&s3.endpoint_url, &s3.region) {
        (Some(url), _) => url.trim_end_matches('/').to_ascii_lowercase(),
        (None, Some(region)) if in_china(region) => "s3.cn".to_owned(),
        (None, _) => "s3".to_owned(),
    }
}

fn creds_config(s: &Settings, net: &net::Config) -> Result<creds::Config, ConfigError> {
    let mut config = creds::Config {
        krypton_url: s.must("krypton_url", text)?,
        mode: s.must("krypton", |text| text.parse())?,
        cognito_url: s.read("cognito_url", text)?,
        place: None,
    };
    config.place = Some(creds::Place {
        folders: disk::in_memory(),
        name: issuer(&config, net),
    });
    Ok(config)
}

/// Who issues a lease, by which line, trusted by which authorities: whoever says the same of all
/// that shares it.
fn issuer(creds: &creds::Config, net: &net::Config) -> String {
    // If it cannot be read, there will be no network that could use it.
    let trusted = net.ca_file.as_ref().map(std::fs::read);
    let whole = format!(
        "{}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        creds.krypton_url.trim_end_matches('/'),
        creds.mode,
        creds.cognito_url,
        net.interface,
        net.source_address,
        trusted.map(|read| read.unwrap_or_default()),
    );
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, whole.as_bytes());
    format!("{sum:016x}")
}

fn check_plain_http(key: &str, url: &str, network: Network) -> Result<(), ConfigError> {
    let server = values::url(url).map_err(|why| ConfigError::new(format!("{key}: {why}")))?;
    if server.tls || network == Network::Open || server.is_loopback() {
        return Ok(());
    }
    fault(&format!(
        "{key} is plain http, which anybody on the way can read: say https:// or network=open"
    ))
}

fn folder(s: &Settings, key: &str, system: &str, home: &str) -> Result<PathBuf, ConfigError> {
    let dir = match s.one(key)? {
        Some(path) => PathBuf::from(path),
        None => disk::default_dir(key, system, home)?,
    };
    std::path::absolute(&dir).map_err(|error| ConfigError::new(format!("{key}: {error}")))
}

fn spool_base(s: &Settings) -> Result<PathBuf, ConfigError> {
    folder(
        s,
        "spool_dir",
        "/var/lib/kryptonfs",
        ".local/state/kryptonfs",
    )
}

/// Whether the root of the mount is the identity's folder, below the prefix of the place.
fn is_rooted(s: &Settings) -> Result<bool, ConfigError> {
    Ok(s.one("prefix")? == Some("identity"))
}

fn log_config(place: &Place, endpoint: String, s: &Settings) -> Result<log::Config, ConfigError> {
    let dir = spool_base(s)?.join(place.folder(&endpoint));
    let spool_max = match s.unless_auto("spool_max", values::size)? {
        Some(bytes) => bytes,
        None => disk::spool_max(&dir)?,
    };
    let root = if is_rooted(s)? { ROOT } else { "" };
    Ok(log::Config {
        dir,
        binding: log::Binding {
            endpoint,
            bucket: place.bucket.clone(),
            prefix: format!("{}{root}", place.prefix),
        },
        spool_max,
        disk_reserve: s.must("disk_reserve", values::size)?,
    })
}

fn read_config(name: &str, reserve: u64, s: &Settings) -> Result<read::Config, ConfigError> {
    let base = folder(s, "cache_dir", "/var/cache/kryptonfs", ".cache/kryptonfs")?;
    let cache_dir = base.join(name);
    let cache_max = match s.unless_auto("cache_max", values::size)? {
        Some(bytes) => bytes,
        None => disk::cache_max(&cache_dir)?,
    };
    let readahead_max = s.must("readahead_max", values::size)?;
    // Memory is promised to stay under 64 MiB.
    if readahead_max > 32 * MIB {
        return fault("readahead_max is larger than 32MiB: say less");
    }
    Ok(read::Config {
        read_timeout: at_least_a_second(s, "read_timeout")?,
        readahead_max: match s.one("prefetch")? {
            Some("off") => 0,
            _ => readahead_max,
        },
        cache_dir,
        cache_max,
        disk_reserve: reserve,
    })
}

fn at_least_a_second(s: &Settings, key: &str) -> Result<Duration, ConfigError> {
    let time = s.must(key, values::time)?;
    if time < Duration::from_secs(1) {
        return fault(&format!("{key} is less than a second: say 1s or more"));
    }
    Ok(time)
}

fn mount_config(s: &Settings) -> Result<MountConfig, ConfigError> {
    Ok(MountConfig {
        read_only: s.must("ro", values::flag)?,
        no_exec: s.must("noexec", values::flag)?,
        allow_other: s
            .unless_auto("allow_other", values::flag)?
            .unwrap_or_else(|| geteuid().is_root()),
    })
}

fn fs_config(place: &Place, s: &Settings) -> Result<fs::Config, ConfigError> {
    let umask = s.must("umask", values::bits)?;
    let is = |key: &str, word: &str| Ok::<_, ConfigError>(s.one(key)? == Some(word));
    let uid = s.unless_auto("uid", values::user)?;
    let gid = s.unless_auto("gid", values::group)?;
    let rename_limit = s.must("rename_limit", values::count)?;
    Ok(fs::Config {
        ttl: s.must("ttl", values::time)?,
        stale_after: s.must("stale_after", values::time)?,
        read_timeout: at_least_a_second(s, "read_timeout")?,
        uid: uid.unwrap_or_else(|| geteuid().as_raw()),
        gid: gid.unwrap_or_else(|| getegid().as_raw()),
        file_mode: s.must("file_mode", values::bits)?,
        dir_mode: s.must("dir_mode", values::bits)?,
        fmask: s.read("fmask", values::bits)?.unwrap_or(umask),
        dmask: s.read("dmask", values::bits)?.unwrap_or(umask),
        read_only: s.must("ro", values::flag)?,
        rename_limit: usize::try_from(rename_limit).unwrap_or(usize::MAX),
        statfs: if is("statfs", "spool")? {
            fs::StatfsMode::Spool
        } else {
            fs::StatfsMode::Cloud
        },
        key_max: key_max(place, s)?,
        close_uploaded: is("close", "uploaded")?,
        fsync_uploaded: is("fsync", "uploaded")?,
        close_timeout: at_least_a_second(s, "close_timeout")?,
        close_max: at_least_a_second(s, "close_max")?,
        upload_open: at_least_a_second(s, "upload_open")?,
        unwritten_after: UNWRITTEN_AFTER,
        content_type_auto: is("content_type", "auto")?,
        attrs_exact: is("attrs", "exact")?,
    })
}

fn aside(place: &Place, s: &Settings) -> Result<drain::AsideRules, ConfigError> {
    let folder = s.read("conflict_prefix", |text| {
        let path = RelPath::new(text.trim_matches('/'));
        let path = path.ok().filter(|path| !path.is_root());
        path.ok_or_else(|| {
            "it is no folder of the mount: say e.g. conflicts or lost/conflicts".into()
        })
    })?;
    Ok(drain::AsideRules {
        folder,
        key_max: key_max(place, s)?,
    })
}

/// Bytes of a key below what the mount puts before it.
fn key_max(place: &Place, s: &Settings) -> Result<usize, ConfigError> {
    let root = if is_rooted(s)? { IDENTITY_MAX + 1 } else { 0 };
    Ok(KEY_MAX.saturating_sub(place.prefix.len() + root))
}

fn drain_config(place: &Place, s: &Settings) -> Result<drain::Config, ConfigError> {
    let part_size = s.unless_auto("part_size", values::size)?;
    if part_size.is_some_and(|size| !PART.contains(&size)) {
        return fault("part_size is not what S3 takes: say 5MiB to 5GiB, or auto");
    }
    let multipart_threshold = s.must("multipart_threshold", values::size)?;
    if !PART.contains(&multipart_threshold) {
        return fault("multipart_threshold is not what S3 takes: say 5MiB to 5GiB");
    }
    let upload_concurrency = s.must("upload_concurrency", values::count)?;
    if !(1..=16).contains(&upload_concurrency) {
        return fault("upload_concurrency is out of range: say 1 to 16");
    }
    let key = s.read("sse_kms_key_id", text)?;
    let sse = match (s.one("sse")?, key) {
        (Some("aws:kms"), key) => Some(Sse::Kms(key)),
        (_, Some(_)) => return fault("sse_kms_key_id needs sse=aws:kms: say both"),
        (Some("AES256"), None) => Some(Sse::S3),
        _ => None,
    };
    Ok(drain::Config {
        linger: s.must("linger", values::time)?,
        append_max_age: s.unless_auto("append_max_age", values::time)?,
        upload_open: at_least_a_second(s, "upload_open")?,
        order: match s.one("order")? {
            Some("none") => drain::Order::None,
            _ => drain::Order::Dir,
        },
        conflict: match s.one("conflict")? {
            Some("keep-both") => drain::ConflictPolicy::KeepBoth,
            _ => drain::ConflictPolicy::LastWriter,
        },
        aside: aside(place, s)?,
        part_size,
        multipart_threshold,
        concurrency: usize::try_from(upload_concurrency).unwrap_or(1),
        storage_class: s.read("storage_class", text)?,
        sse,
    })
}

impl Config {
    /// What the mounts of this device share: the folder that `spool_dir` names.
    pub(crate) fn common_dir(&self) -> &Path {
        self.log.dir.parent().unwrap_or(&self.log.dir)
    }

    /// Whether a folder of ours lies in what will be hidden by the mount.
    pub(crate) fn folder_within(&self, dir: &Path) -> Option<&'static str> {
        if self.log.dir.starts_with(dir) {
            Some("spool_dir")
        } else if self.read.cache_dir.starts_with(dir) {
            Some("cache_dir")
        } else {
            None
        }
    }
}
