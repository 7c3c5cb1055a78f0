//! Where in a network the cloud stands: sockets that were made elsewhere (in another network
//! namespace, say), the names in its certificate, and what it refuses by where a request comes from.
//!
//! Invariant: a request is judged by the address that its connection really comes from, as a
//! gateway endpoint and a SIM's line are.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::str::FromStr;
use std::sync::Arc;

/// A block of IPv4 addresses, as `10.128.0.0/9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    base: u32,
    mask: u32,
}

impl FromStr for Block {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a block of addresses such as 10.128.0.0/9");
        let (base, bits) = text.split_once('/').ok_or_else(wrong)?;
        let base: std::net::Ipv4Addr = base.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().map_err(|_| wrong())?;
        let host_bits = 32_u32.checked_sub(bits).ok_or_else(wrong)?;
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        let base = base.to_bits() & mask;
        Ok(Self { base, mask })
    }
}

impl Block {
    fn contains(self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => v4.to_bits() & self.mask == self.base,
            IpAddr::V6(_) => false,
        }
    }
}

/// What a bucket's policy denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deny {
    /// What lies below it, as `/bucket/key`; `/` is all.
    pub below: String,
    /// Whom: those inside of the VPC, or those outside.
    pub inside: bool,
}

/// The cloud's place in a network. By default: on loopback, open to all.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Where S3 listens.
    pub s3: Option<Arc<TcpListener>>,
    /// Where Krypton listens.
    pub krypton: Option<Arc<TcpListener>>,
    /// Where Cognito listens.
    pub cognito: Option<Arc<TcpListener>>,
    /// Names for the certificate, beside those of loopback.
    pub names: Vec<String>,
    /// The addresses of the VPC whose endpoint S3 has.
    pub vpc: Vec<Block>,
    /// The policy of the buckets.
    pub denies: Vec<Deny>,
    /// The addresses of the SIMs that Krypton knows; empty: everybody.
    pub sims: Vec<Block>,
}

impl Site {
    /// Whether a request for `path` from there is denied by the policy.
    pub(super) fn denies(&self, path: &str, from: IpAddr) -> bool {
        let inside = self.vpc.iter().any(|block| block.contains(from));
        let mut denies = self.denies.iter();
        denies.any(|deny| deny.inside == inside && path.starts_with(&deny.below))
    }

    /// Whether Krypton knows whose line that is.
    pub(super) fn knows(&self, from: IpAddr) -> bool {
        self.sims.is_empty() || self.sims.iter().any(|sim| sim.contains(from))
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// The socket that was made elsewhere, or one of our own on loopback.
pub(super) async fn listener(
    made: Option<&Arc<TcpListener>>,
    port: u16,
) -> io::Result<tokio::net::TcpListener> {
    match made {
        Some(made) => {
            let own = made.try_clone()?;
            own.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(own)
        }
        None => {
            let loopback = SocketAddr::from(([127, 0, 0, 1], port));
            tokio::net::TcpListener::bind(loopback).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_holds_what_begins_as_it_does() {
        let block: Block = "10.128.0.0/9".parse().unwrap();
        assert!(block.contains(ip("10.128.0.2")) && block.contains(ip("::ffff:10.255.0.1")));
        assert!(!block.contains(ip("10.127.0.2")) && !block.contains(ip("::1")));
        let all: Block = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(ip("8.8.8.8")));
        for wrong in ["10.0.0.0", "10.0.0.0/33", "x/8"] {
            assert!(wrong.parse::<Block>().is_err());
        }
    }

    #[test]
    fn a_policy_denies_by_place_and_key() {
        let deny = |below: &str, inside| Deny {
            below: below.into(),
            inside,
        };
        let site = Site {
            vpc: vec!["172.31.0.0/16".parse().unwrap()],
            denies: vec![deny("/b/closed/", false), deny("/b/open/", true)],
            sims: vec!["10.128.0.2/32".parse().unwrap()],
            ..Site::default()
        };
        let (inside, outside) = (ip("172.31.0.9"), ip("10.128.0.2"));
        assert!(!site.denies("/b/closed/x", inside) && site.denies("/b/closed/x", outside));
        assert!(site.denies("/b/open/x", inside) && !site.denies("/b/open/x", outside));
        assert!(!site.denies("/b/x", inside) && !site.denies("/b/x", outside));
        assert!(site.knows(outside) && !site.knows(inside));
        assert!(Site::default().knows(inside));
    }
}
