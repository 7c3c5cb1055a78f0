//! Names to addresses, without leaving the interface.
//!
//! Order: literals, pins (`resolve=`), `localhost`, the cache, then servers. `getaddrinfo` is bound
//! to nothing (it asks by whatever link routing prefers), so it is used only where no interface and
//! no server is named and the network is open; else this stub asks the servers of `dns=`, or those
//! learnt from the link (`servers`), over sockets bound to the interface (`ask`).
//!
//! The messages are hickory's (`dns`); why not its resolver too: with our sockets under it (a
//! `RuntimeProvider`) it would do the same, for 13 more crates (a second cache, a second timer), and
//! it closes a socket when it gives a question up, after which the kernel answers what comes late by
//! another link (see `buried`). What is left to write without it is `ask`, which is small.
//!
//! Invariants: a server outside of `allow=` is not asked; a lookup ends (`ROUNDS` x servers x
//! `ask::PATIENCE`); one lookup is in flight at a time and the others find its answer in the cache.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::ask::Asker;
use super::dns::{Answer, Family};
use super::link::Link;
use super::meter::Meter;
use super::rules::Rules;
use super::servers::Servers;
use super::{Config, Network};
use crate::clock::SharedClock;

/// How often each server is asked.
const ROUNDS: u32 = 2;
/// Servers asked at most.
const SERVERS_MAX: usize = 3;
/// Names remembered.
const CACHE_MAX: usize = 64;
/// S3 answers with a TTL of seconds: asking again within a minute would cost more than it tells. An
/// address that cannot be connected to is forgotten at once.
const TTL: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResolveError {
    /// A rule of ours forbids asking.
    Forbidden(String),
    /// Nobody answered, or the answer was that there is none.
    Failed(String),
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ResolveError {}

#[derive(Debug)]
struct Known {
    addresses: Vec<IpAddr>,
    until: Instant,
}

/// The resolver of one `Net`.
#[derive(Debug)]
pub(super) struct Resolver {
    pins: Vec<(String, IpAddr)>,
    servers: Servers,
    /// Whether the system's resolver may be asked.
    system: bool,
    asker: Asker,
    rules: Arc<Rules>,
    clock: SharedClock,
    cache: Mutex<LruCache<String, Known>>,
    flight: Semaphore,
}

impl Resolver {
    pub(super) fn new(
        config: &Config,
        rules: Arc<Rules>,
        meter: Arc<Meter>,
        link: Arc<Link>,
        clock: SharedClock,
    ) -> Self {
        let open = config.network == Network::Open;
        Self {
            pins: config.resolve.clone(),
            servers: Servers::new(config.dns.clone(), config.interface.clone()),
            system: open && config.interface.is_none() && config.dns.is_empty(),
            asker: Asker {
                bound: config.bound(),
                meter,
                link,
            },
            rules,
            clock,
            cache: Mutex::new(LruCache::new(
                NonZeroUsize::new(CACHE_MAX).unwrap_or(NonZeroUsize::MIN),
            )),
            flight: Semaphore::new(1),
        }
    }

    /// The addresses of `host` (brackets of an IPv6 literal taken off), at least one.
    pub(super) async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Some(addresses) = self.without_asking(host) {
            return Ok(addresses);
        }
        if self.system {
            return system(host).await;
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let failed = |_| ResolveError::Failed("the resolver is closed".to_owned());
        let _permit = self.flight.acquire().await.map_err(failed)?;
        if let Some(addresses) = self.remembered(&host) {
            return Ok(addresses);
        }
        let (addresses, ttl) = self.ask(&host).await?;
        let known = Known {
            addresses: addresses.clone(),
            until: self.clock.mono() + ttl.clamp(TTL.0, TTL.1),
        };
        self.cache.lock().put(host, known);
        Ok(addresses)
    }

    /// None of the addresses could be connected to: the next lookup asks again.
    pub(super) fn forget(&self, host: &str) {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.cache.lock().pop(&host);
    }

    /// Where the addresses of `host` come from, for people.
    pub(super) async fn origin(&self, host: &str) -> String {
        if host.parse::<IpAddr>().is_ok() {
            return "given as an address".to_owned();
        }
        if self.without_asking(host).is_some() {
            return "not asked for: pinned, or this machine".to_owned();
        }
        if self.system {
            return "by the system's resolver (network=open)".to_owned();
        }
        let servers = self.servers().await.unwrap_or_default();
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        let whose = if self.servers.are_told() {
            "dns="
        } else {
            "learnt with the link"
        };
        format!("by {} ({whose})", servers.join(", "))
    }

    fn without_asking(&self, host: &str) -> Option<Vec<IpAddr>> {
        if let Ok(literal) = host.parse::<IpAddr>() {
            return Some(vec![literal]);
        }
        let host = host.trim_end_matches('.');
        let mut pins = self
            .pins
            .iter()
            .filter(|pin| pin.0.eq_ignore_ascii_case(host))
            .peekable();
        if pins.peek().is_some() {
            return Some(pins.map(|pin| pin.1).collect());
        }
        host.eq_ignore_ascii_case("localhost")
            .then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
    }

    fn remembered(&self, host: &str) -> Option<Vec<IpAddr>> {
        let mut cache = self.cache.lock();
        let known = cache.get(host)?;
        (self.clock.mono() < known.until).then(|| known.addresses.clone())
    }

    /// Asks for IPv4 addresses, and only if there are none for IPv6 ones: a second question for
    /// each name would be paid for by the byte, and the closed path is IPv4.
    async fn ask(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
        let servers = self.servers().await?;
        let families: &[Family] = match self.asker.bound.source {
            Some(IpAddr::V4(_)) => &[Family::V4],
            Some(IpAddr::V6(_)) => &[Family::V6],
            None => &[Family::V4, Family::V6],
        };
        for family in families {
            let (addresses, ttl) = self.ask_for(host, *family, &servers).await?;
            if !addresses.is_empty() {
                return Ok((addresses, ttl));
            }
        }
        Err(ResolveError::Failed(format!("{host} has no address")))
    }

    async fn ask_for(
        &self,
        host: &str,
        family: Family,
        servers: &[SocketAddr],
    ) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
        let mut why = String::new();
        for server in (0..ROUNDS).flat_map(|_| servers) {
            let failed = match self.asker.ask(host, family, *server).await {
                Ok(Answer::Addresses(addresses, ttl)) => return Ok((addresses, ttl)),
                Ok(Answer::NoSuchName) => {
                    let text = format!("{host}: no such name, says {server}");
                    return Err(ResolveError::Failed(text));
                }
                Ok(Answer::Truncated) => format!("{server} has no whole answer over TCP"),
                Ok(Answer::Failed(code)) => format!("{server} failed (code {code})"),
                Err(error) => format!("{server}: {error}"),
            };
            why = failed;
        }
        Err(ResolveError::Failed(format!(
            "{host} is not resolved: {why}"
        )))
    }

    async fn servers(&self) -> Result<Vec<SocketAddr>, ResolveError> {
        let known = self.servers.clone();
        let found = tokio::task::spawn_blocking(move || known.now()).await;
        let mut servers = found.unwrap_or_default();
        servers.truncate(SERVERS_MAX);
        let mut refusal = None;
        servers.retain(|server| {
            let refused = self.rules.refusal("", server.ip(), false);
            let allowed = refused.is_none();
            refusal = refusal.take().or(refused);
            allowed
        });
        match refusal {
            Some(refusal) if servers.is_empty() => Err(ResolveError::Forbidden(format!(
                "DNS server {refusal}; add it there, or pin names with resolve="
            ))),
            None if servers.is_empty() => Err(ResolveError::Failed(
                "no DNS server is known for the link; say dns=ADDRESS".to_owned(),
            )),
            _ => Ok(servers),
        }
    }
}

async fn system(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let failed =
        |error: io::Error| ResolveError::Failed(format!("{host} is not resolved: {error}"));
    let found = tokio::net::lookup_host((host, 0)).await.map_err(failed)?;
    let addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    if addresses.is_empty() {
        return Err(ResolveError::Failed(format!("{host} has no address")));
    }
    Ok(addresses)
}
