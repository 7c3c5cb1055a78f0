//! The network: the only module that opens sockets. The SDK, web calls and the resolver get their
//! connections, addresses, TLS roots and timeouts from here.
//!
//! Invariants:
//! - closed means closed: with `network=closed` every socket (TCP and DNS) is bound to the named
//!   interface and goes to an allowed address; there is no fallback, no proxy, no environment;
//! - nothing here retries a request: a failed dial is an answer for the caller;
//! - a missing interface or a link that is down is no error at start: it may come later.

mod ask;
#[cfg(test)]
pub(crate) mod broken;
mod buried;
mod dial;
mod dns;
mod ground;
mod link;
mod meter;
mod path;
mod quiet;
mod resolve;
mod route;
mod rules;
mod sdk;
mod servers;
mod sntp;
mod socket;
mod steps;
#[cfg(test)]
pub(crate) mod stub;
#[cfg(test)]
mod tests;
mod time;
mod tls;
mod web;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use crate::clock::SharedClock;
use crate::clock::believed::Believed;
use dial::{Dialer, Way};
use resolve::Resolver;
use rules::Rules;
use sntp::Sntp;
use socket::Bound;
use time::Time;
use tls::Connector;

pub use ground::Ground;
pub use link::{History, Link, LinkState};
pub use meter::{Meter, Totals};
pub use path::Hop;
pub use route::Route;
pub use rules::{Cidr, CidrError};
pub use steps::{Filled, Found, Server, Steps};
pub use web::{Answer, Web, WebError};

/// Whether the network beyond the interface counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Nothing leaves but by the named interface; plain http only on loopback.
    #[default]
    Closed,
    /// Routing decides where no interface is named; plain http is allowed.
    Open,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "closed" => Ok(Self::Closed),
            "open" => Ok(Self::Open),
            _ => Err(format!("network={text}: say closed or open")),
        }
    }
}

/// How to reach the world.
#[derive(Clone, Debug)]
pub struct Config {
    /// `network`.
    pub network: Network,
    /// `interface`: all sockets are bound to it.
    pub interface: Option<String>,
    /// `source_address`: all sockets leave from it.
    pub source_address: Option<IpAddr>,
    /// `dns`: servers to ask instead of those learnt from the link.
    pub dns: Vec<SocketAddr>,
    /// `resolve`: names whose addresses are not asked for. One name may have several.
    pub resolve: Vec<(String, IpAddr)>,
    /// `allow`: what may be dialled; empty: every address.
    pub allow: Vec<Cidr>,
    /// `ntp`: asked for the time where the clock cannot be believed; `None`: nobody is.
    pub ntp: Option<String>,
    /// `ca_file`: trust exactly these certificates (PEM) instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How long resolving and connecting may take.
    pub connect_timeout: Duration,
    /// How long sent bytes may stay unacknowledged before the connection is given up.
    pub user_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: Network::default(),
            interface: None,
            source_address: None,
            dns: Vec::new(),
            resolve: Vec::new(),
            allow: Vec::new(),
            ntp: None,
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            user_timeout: Duration::from_secs(60),
        }
    }
}

impl Config {
    fn bound(&self) -> Bound {
        Bound {
            interface: self.interface.clone(),
            source: self.source_address,
        }
    }
}

/// Why there is no `Net`: one line with the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetError {
    /// `network=closed`, but closed to what?
    NoInterface,
    /// No interface can have that name.
    InterfaceName(String),
    /// `ca_file` cannot be used.
    CaFile(PathBuf, String),
    /// TLS cannot be set up at all.
    Tls(String),
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface => write!(
                f,
                "network=closed needs the link to keep to: say interface=NAME or network=open"
            ),
            Self::InterfaceName(name) => write!(
                f,
                "interface={name:?} is not the name of an interface; `ip link` lists them"
            ),
            Self::CaFile(path, why) => write!(
                f,
                "ca_file={}: {why}; name a PEM file of CA certificates",
                path.display()
            ),
            Self::Tls(why) => write!(f, "TLS cannot be set up: {why}"),
        }
    }
}

impl std::error::Error for NetError {}

/// The network. Cheap to clone; all clones share pools, meter and link.
#[derive(Clone, Debug)]
pub struct Net {
    http: SharedHttpClient,
    web: Web,
    steps: Steps,
    time: Time,
    meter: Arc<Meter>,
    link: Arc<Link>,
}

impl Net {
    /// Builds it, with the clock of this process; nothing is sent.
    ///
    /// # Errors
    /// If the configuration cannot hold: see `NetError`.
    pub fn new(config: &Config) -> Result<Self, NetError> {
        Self::with_clock(config, Believed::of_process())
    }

    /// The same with another clock, which learns from what is heard.
    ///
    /// # Errors
    /// As `new`.
    pub fn with_clock(config: &Config, believed: Arc<Believed>) -> Result<Self, NetError> {
        if let Some(interface) = &config.interface {
            check_interface_name(interface)?;
        } else if config.network == Network::Closed {
            return Err(NetError::NoInterface);
        }
        let time = Time(Arc::clone(&believed));
        let tls = tls::client_config(config.ca_file.as_deref(), &time)?;
        let clock: SharedClock = Arc::<Believed>::clone(&believed);
        let meter = Arc::new(Meter::default());
        let link = Arc::new(Link::new(config.interface.clone(), Arc::clone(&clock)));
        let rules = Arc::new(Rules {
            network: config.network,
            allow: config.allow.clone(),
        });
        let resolver = Resolver::new(
            config,
            Arc::clone(&rules),
            Arc::clone(&meter),
            Arc::clone(&link),
            clock,
        );
        let sntp = Sntp::new(
            config.ntp.clone(),
            config.bound(),
            Arc::clone(&rules),
            Arc::clone(&meter),
            Arc::clone(&link),
            believed,
        );
        let dialer = Dialer::new(Way {
            bound: config.bound(),
            connect_timeout: config.connect_timeout,
            user_timeout: config.user_timeout,
            resolver,
            sntp,
            rules,
            meter: Arc::clone(&meter),
            link: Arc::clone(&link),
        });
        let connector = Connector::new(dialer, tls);
        Ok(Self {
            http: sdk::http_client(&connector, time.clone()),
            web: Web::new(&connector, time.clone()),
            steps: Steps(connector),
            time,
            meter,
            link,
        })
    }

    /// The HTTP client for an SDK client.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        self.http.clone()
    }

    /// The base for an SDK client: our HTTP client, no region, no credentials, no retries, no timeouts.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        sdk::config(self.http_client(), self.time.clone())
    }

    /// For calls that are not AWS's.
    #[must_use]
    pub fn web(&self) -> Web {
        self.web.clone()
    }

    /// The steps of a connection, one by one.
    #[must_use]
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// What has passed.
    #[must_use]
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// The link.
    #[must_use]
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

/// By the kernel's rule (`dev_valid_name`), so that sysfs is never asked for another file.
fn check_interface_name(name: &str) -> Result<(), NetError> {
    let forbidden = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(forbidden)
    {
        return Err(NetError::InterfaceName(name.to_owned()));
    }
    Ok(())
}
