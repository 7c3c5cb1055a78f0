//! Names to addresses, without leaving the interface.
//!
//! Order: literals, pins (`resolve=`), `localhost`, the cache, then servers. `getaddrinfo` is bound
//! to nothing (it asks by whatever link routing prefers), so it is used only where no interface and
//! no server is named and the network is open; else this stub asks the servers of `dns=`, or those
//! of resolv.conf, over a socket bound to the interface.
//!
//! Invariants: a server outside of `allow=` is not asked; a lookup ends (`ROUNDS` x servers x
//! `PATIENCE`); one lookup is in flight at a time and the others find its answer in the cache.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use super::dns::{self, Answer, Family};
use super::meter::Meter;
use super::rules::Rules;
use super::{Config, Network};
use crate::clock::SharedClock;

/// How long one server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(3);
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
    servers: Vec<SocketAddr>,
    resolv_conf: PathBuf,
    /// Whether the system's resolver may be asked.
    system: bool,
    interface: Option<String>,
    source: Option<IpAddr>,
    rules: Arc<Rules>,
    meter: Arc<Meter>,
    clock: SharedClock,
    cache: Mutex<LruCache<String, Known>>,
    flight: Semaphore,
}

impl Resolver {
    pub(super) fn new(
        config: &Config,
        rules: Arc<Rules>,
        meter: Arc<Meter>,
        clock: SharedClock,
    ) -> Self {
        let open = config.network == Network::Open;
        Self {
            pins: config.resolve.clone(),
            servers: config.dns.clone(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            system: open && config.interface.is_none() && config.dns.is_empty(),
            interface: config.interface.clone(),
            source: config.source_address,
            rules,
            meter,
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
        let families: &[Family] = match self.source {
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
            let failed = match self.exchange(host, family, *server).await {
                Ok(Answer::Addresses(addresses, ttl)) => return Ok((addresses, ttl)),
                Ok(Answer::NoSuchName) => {
                    let text = format!("{host}: no such name, says {server}");
                    return Err(ResolveError::Failed(text));
                }
                Ok(Answer::Failed(code)) => format!("{server} failed (code {code})"),
                Err(error) => format!("{server}: {error}"),
            };
            why = failed;
        }
        Err(ResolveError::Failed(format!(
            "{host} is not resolved: {why}"
        )))
    }

    /// One question to one server, from a socket of its own: the kernel picks the port at random.
    async fn exchange(&self, host: &str, family: Family, server: SocketAddr) -> io::Result<Answer> {
        let question = dns::question(random_id()?, host, family)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a host name"))?;
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let from = self
            .source
            .filter(|source| source.is_ipv4() == server.is_ipv4())
            .unwrap_or(any);
        let socket = UdpSocket::bind((from, 0)).await?;
        if let Some(interface) = &self.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        socket.connect(server).await?;
        self.meter.sent(socket.send(&question).await?);
        let answer = async {
            let mut packet = [0; dns::PACKET_MAX];
            loop {
                let length = socket.recv(&mut packet).await?;
                self.meter.received(length);
                if let Some(answer) = dns::parse(&packet[..length], &question) {
                    return Ok(answer);
                }
            }
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
        }
    }

    async fn servers(&self) -> Result<Vec<SocketAddr>, ResolveError> {
        let mut servers = self.servers.clone();
        if servers.is_empty() {
            // Read at each lookup: the link may have come up since, with other servers.
            let text = tokio::fs::read_to_string(&self.resolv_conf)
                .await
                .map_err(|error| {
                    let path = self.resolv_conf.display();
                    ResolveError::Failed(format!(
                        "no DNS server ({path}: {error}); say dns=ADDRESS"
                    ))
                })?;
            servers = nameservers(&text);
        }
        servers.truncate(SERVERS_MAX);
        let mut refusal = None;
        servers.retain(|server| {
            let refused = self.rules.refusal(server.ip(), false);
            let allowed = refused.is_none();
            refusal = refusal.take().or(refused);
            allowed
        });
        match refusal {
            Some(refusal) if servers.is_empty() => Err(ResolveError::Forbidden(format!(
                "DNS server {refusal}; add it there, or pin names with resolve="
            ))),
            None if servers.is_empty() => Err(ResolveError::Failed(format!(
                "no DNS server in {}; say dns=ADDRESS",
                self.resolv_conf.display()
            ))),
            _ => Ok(servers),
        }
    }
}

/// The `nameserver` lines of a resolv.conf.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().map(str::split_whitespace);
    lines
        .filter_map(|mut words| match words.next() {
            Some("nameserver") => words.next()?.parse::<IpAddr>().ok(),
            _ => None,
        })
        .map(|server| SocketAddr::new(server, 53))
        .collect()
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

/// Not to be guessed by whoever would like to answer in the server's place.
fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    let provider = rustls::crypto::ring::default_provider();
    let filled = provider.secure_random.fill(&mut bytes);
    filled.map_err(|_| io::Error::other("no random bytes"))?;
    Ok(u16::from_be_bytes(bytes))
}
