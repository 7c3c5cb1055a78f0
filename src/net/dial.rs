//! The dialler: the one place that opens TCP connections.
//!
//! Invariants:
//! - with an interface, a socket is bound to it (`SO_BINDTODEVICE`) before it is used; a source
//!   address alone would not keep packets from leaving by another link;
//! - the rules are asked for the address that is dialled, whether it was looked up or literal;
//! - resolving and connecting together end by `connect_timeout`; a dead path is noticed by
//!   `TCP_USER_TIMEOUT` instead of after a quarter of an hour of retransmissions.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower_service::Service;

use super::link::Link;
use super::meter::{Meter, Metered};
use super::resolve::{ResolveError, Resolver};
use super::rules::Rules;
use super::sntp::Sntp;
use super::socket::Bound;

/// Keepalive: first probe, seconds between probes, probes. The first comes later than the pool
/// keeps an idle connection: a probe is billed as a packet.
const KEEPALIVE: (u32, u32, u32) = (75, 10, 3);
/// About twice what 16 Mbit/s hold in 50 ms. More would only make progress hard to see and a
/// cancelled upload go on.
const SEND_BUFFER: u32 = 256 * 1024;
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;
pub(super) type Dialling<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DialError {
    /// A rule of ours forbids it; it will not pass.
    Forbidden(String),
    /// Not in time.
    TimedOut(String),
    /// Name not resolved, refused, unreachable, interface absent.
    Failed(String),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(text) | Self::TimedOut(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}

impl Error for DialError {}

/// What a dialler needs.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) bound: Bound,
    pub(super) connect_timeout: Duration,
    pub(super) user_timeout: Duration,
    pub(super) rules: Arc<Rules>,
    pub(super) resolver: Resolver,
    pub(super) sntp: Sntp,
    pub(super) meter: Arc<Meter>,
    pub(super) link: Arc<Link>,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Dialer(Arc<Way>);

impl Dialer {
    pub(super) fn new(way: Way) -> Self {
        Self(Arc::new(way))
    }

    pub(super) fn way(&self) -> &Way {
        &self.0
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.0.connect_timeout
    }

    /// Whether what is dated can be judged.
    pub(super) fn knows_the_time(&self) -> bool {
        self.0.sntp.clock.is_believable()
    }

    /// Asks what time it is; whether something was learnt.
    pub(super) async fn learn_the_time(&self) -> bool {
        self.0.sntp.teach(&self.0.resolver).await
    }

    /// A connection to where the URI points. The outcome is remembered in `Link`.
    pub(super) async fn dial(&self, uri: &Uri) -> Result<Metered, DialError> {
        let dialled = self.0.dial(uri).await;
        match &dialled {
            Ok(_) => self.0.link.dialled(),
            Err(error) => self.0.link.failed(&error.to_string()),
        }
        dialled
    }
}

impl Way {
    async fn dial(&self, uri: &Uri) -> Result<Metered, DialError> {
        let plain_http = uri.scheme() != Some(&http::uri::Scheme::HTTPS);
        let host = uri.host().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let port = uri.port_u16().unwrap_or(if plain_http { 80 } else { 443 });
        let deadline = Instant::now() + self.connect_timeout;

        let lookup = tokio::time::timeout_at(deadline, self.resolver.lookup(host));
        let addresses = match lookup.await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(ResolveError::Forbidden(why))) => return Err(DialError::Forbidden(why)),
            Ok(Err(ResolveError::Failed(why))) => return Err(DialError::Failed(why)),
            Err(_) => {
                let why = format!("{host} was not resolved in time");
                return Err(DialError::TimedOut(why));
            }
        };
        let addresses = self.permitted(host, &addresses, plain_http)?;
        let connected = self.connect_any(host, port, &addresses, deadline).await;
        if connected.is_err() {
            self.resolver.forget(host);
        }
        connected
    }

    /// Those that may be dialled, at least one.
    pub(super) fn permitted(
        &self,
        host: &str,
        addresses: &[IpAddr],
        plain_http: bool,
    ) -> Result<Vec<IpAddr>, DialError> {
        let mut refusal = None;
        let mut permitted = Vec::new();
        for address in addresses.iter().copied() {
            match self.rules.refusal(host, address, plain_http) {
                Some(why) => refusal = refusal.or(Some(why)),
                None if self.bound.reaches(address) => permitted.push(address),
                None => {}
            }
        }
        permitted.truncate(ADDRESSES_MAX);
        if !permitted.is_empty() {
            return Ok(permitted);
        }
        Err(DialError::Forbidden(match refusal {
            Some(why) => format!("{host}: {why}"),
            None => format!("{host} has no address of the kind of source_address="),
        }))
    }

    /// One address after the other, each with its share of the time that is left.
    async fn connect_any(
        &self,
        host: &str,
        port: u16,
        addresses: &[IpAddr],
        deadline: Instant,
    ) -> Result<Metered, DialError> {
        let mut error = DialError::Failed(format!("{host} has no address"));
        for (index, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let others = u32::try_from(addresses.len() - index).unwrap_or(1);
            let to = SocketAddr::new(*address, port);
            let way = match &self.bound.interface {
                Some(interface) => format!("{host} ({to}) by {interface}"),
                None => format!("{host} ({to})"),
            };
            error = match tokio::time::timeout(left / others, self.connect(to)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => DialError::Failed(format!("{way}: {error}")),
                Err(_) => DialError::TimedOut(format!("{way}: no answer in time")),
            };
        }
        Err(error)
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Metered> {
        let begun = self.link.begin();
        let tcp = self.connected(to).await?;
        let local = tcp.local_addr()?.ip();
        let footing = begun.and_then(|begun| self.link.stand(begun, local));
        Ok(Metered::new(tcp, Arc::clone(&self.meter), footing))
    }

    async fn connected(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.bound.tcp(to)?;
        socket.set_nodelay(true)?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.set_keepalive(true)?;
        let user_timeout = u32::try_from(self.user_timeout.as_millis()).unwrap_or(u32::MAX);
        setsockopt(&socket, sockopt::TcpKeepIdle, &KEEPALIVE.0)?;
        setsockopt(&socket, sockopt::TcpKeepInterval, &KEEPALIVE.1)?;
        setsockopt(&socket, sockopt::TcpKeepCount, &KEEPALIVE.2)?;
        setsockopt(&socket, sockopt::TcpUserTimeout, &user_timeout)?;
        socket.connect(to).await
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Metered>;
    type Error = DialError;
    type Future = Dialling<Self::Response, DialError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial(&uri).await.map(TokioIo::new) })
    }
}

/// What a failed exchange was, for whoever has to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A rule of ours.
    Forbidden,
    /// Not in time.
    TimedOut,
    /// The link, the peer or the connection between.
    Link,
    /// Our request or their answer was not HTTP.
    Protocol,
}

/// What went wrong in an exchange, and one line about it.
pub(super) fn trouble(error: &hyper_util::client::legacy::Error) -> (Trouble, String) {
    let mut connection = error.is_connect();
    let mut texts: Vec<String> = Vec::new();
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = next {
        if let Some(dial) = cause.downcast_ref::<DialError>() {
            let kind = match dial {
                DialError::Forbidden(_) => Trouble::Forbidden,
                DialError::TimedOut(_) => Trouble::TimedOut,
                DialError::Failed(_) => Trouble::Link,
            };
            return (kind, dial.to_string());
        }
        let broken = |hyper: &hyper::Error| {
            hyper.is_incomplete_message() || hyper.is_closed() || hyper.is_canceled()
        };
        connection |= cause.is::<io::Error>();
        connection |= cause.downcast_ref::<hyper::Error>().is_some_and(broken);
        let text = cause.to_string();
        if texts.iter().all(|before| !before.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    let kind = if connection {
        Trouble::Link
    } else {
        Trouble::Protocol
    };
    if texts.is_empty() {
        texts.push(error.to_string());
    }
    (kind, texts.join(": "))
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::TcpListener;

    use nix::sys::socket::getsockopt;

    use super::*;
    use crate::clock::SystemClock;
    use crate::clock::believed::Believed;
    use crate::net::Config;

    pub(in crate::net) fn way(interface: &str) -> Way {
        let config = Config {
            interface: Some(interface.to_owned()),
            ..Config::default()
        };
        let rules = Arc::new(Rules {
            network: config.network,
            allow: vec![],
        });
        let (meter, clock) = (Arc::<Meter>::default(), SystemClock::shared());
        let link = Arc::new(Link::new(config.interface.clone(), Arc::clone(&clock)));
        let sntp = Sntp::new(
            None,
            config.bound(),
            Arc::clone(&rules),
            Arc::clone(&meter),
            Arc::clone(&link),
            Believed::of_process(),
        );
        Way {
            sntp,
            bound: config.bound(),
            connect_timeout: config.connect_timeout,
            user_timeout: config.user_timeout,
            resolver: Resolver::new(
                &config,
                Arc::clone(&rules),
                Arc::clone(&meter),
                Arc::clone(&link),
                clock,
            ),
            rules,
            meter,
            link,
        }
    }

    #[tokio::test]
    async fn a_socket_is_bound_to_the_interface_and_notices_a_dead_path() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = way("lo")
            .connected(listener.local_addr().unwrap())
            .await
            .unwrap();
        let device = getsockopt(&tcp, sockopt::BindToDevice).unwrap();
        assert_eq!(device.to_string_lossy().trim_end_matches('\0'), "lo");
        assert_eq!(getsockopt(&tcp, sockopt::TcpUserTimeout).unwrap(), 60_000);
        assert_eq!(getsockopt(&tcp, sockopt::TcpKeepIdle).unwrap(), 75);
        assert_eq!(getsockopt(&tcp, sockopt::TcpKeepInterval).unwrap(), 10);
        assert_eq!(getsockopt(&tcp, sockopt::TcpKeepCount).unwrap(), 3);
        assert!(getsockopt(&tcp, sockopt::KeepAlive).unwrap());
        assert!(tcp.nodelay().unwrap());
        assert!(getsockopt(&tcp, sockopt::SndBuf).unwrap() <= 2 * SEND_BUFFER as usize);
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_is_no_way() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = way("kfs-none0");
        let error = way
            .connect(listener.local_addr().unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_is_dead() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut way = way("lo");
        let pins = ["127.0.0.2", "127.0.0.1"].map(|ip| ("s3.test".to_owned(), ip.parse().unwrap()));
        let config = Config {
            resolve: pins.to_vec(),
            ..Config::default()
        };
        let (rules, meter) = (Arc::clone(&way.rules), Arc::clone(&way.meter));
        let link = Arc::clone(&way.link);
        way.resolver = Resolver::new(&config, rules, meter, link, SystemClock::shared());
        let dialer = Dialer::new(way);
        let uri = format!("http://s3.test:{port}").parse().unwrap();
        dialer.dial(&uri).await.unwrap();
        assert!(dialer.0.link.history().last_ok.is_some());
    }
}
