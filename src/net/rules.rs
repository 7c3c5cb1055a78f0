//! What may be dialled, as a pure function of the address that is really dialled.
//!
//! Invariant: the check is on the address handed to `connect` or `sendto`, after every lookup and
//! also for literals, so neither a resolver nor a URL can lead around it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::Network;

/// A block of addresses, as `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    bits: u8,
}

/// Not a block of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrError(String);

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a block of addresses; say 10.0.0.0/8, fd00::/8 or one address",
            self.0
        )
    }
}

impl std::error::Error for CidrError {}

/// An IPv4 address in IPv6 clothes is that IPv4 address.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn widen(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

impl Cidr {
    /// Whether the address is in the block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (base, width) = widen(self.base);
        let (other, other_width) = widen(plain(address));
        let host_bits = u32::from(width - self.bits);
        width == other_width
            && base.checked_shr(host_bits).unwrap_or(0) == other.checked_shr(host_bits).unwrap_or(0)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let wrong = || CidrError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let width = widen(base).1;
        let bits = match bits {
            Some(bits) => bits.trim().parse().map_err(|_| wrong())?,
            None => width,
        };
        if bits > width {
            return Err(wrong());
        }
        Ok(Self { base, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// The rules of one `Net`.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) network: Network,
    pub(super) allow: Vec<Cidr>,
}

impl Rules {
    /// Why this address of `host` must not be dialled; `plain_http`: what is said there is not
    /// encrypted.
    pub(super) fn refusal(&self, host: &str, address: IpAddr, plain_http: bool) -> Option<String> {
        if !self.allow.is_empty() && !self.allow.iter().any(|block| block.contains(address)) {
            return Some(format!("{address} is outside allow="));
        }
        if plain_http && self.network == Network::Closed && !plain(address).is_loopback() {
            return Some(format!(
                "plain http to {address} is refused; use https, or say network=open"
            ));
        }
        if is_interface_endpoint(host) && !is_private(plain(address)) {
            return Some(format!(
                "{address} is a public address, but an interface endpoint has private ones only; \
                 check the DNS server, or pin its addresses with resolve="
            ));
        }
        None
    }
}

/// Whether the name is that of a VPC interface endpoint (`vpce-...` of any AWS partition). Its
/// answers come from public DNS, but name addresses inside of the VPC.
fn is_interface_endpoint(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let amazon = [".vpce.amazonaws.com", ".vpce.amazonaws.com.cn"];
    amazon.iter().any(|ending| host.ends_with(ending))
}

/// RFC 1918, RFC 6598 (a VPG's own) and unique local IPv6.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_contains_its_addresses_and_no_others() {
        assert!(cidr("100.127.0.0/16").contains(ip("100.127.255.1")));
        assert!(!cidr("100.127.0.0/16").contains(ip("100.128.0.1")));
        assert!(cidr("10.1.2.3").contains(ip("10.1.2.3")));
        assert!(!cidr("10.1.2.3").contains(ip("10.1.2.4")));
        assert!(cidr("0.0.0.0/0").contains(ip("203.0.113.9")));
        assert!(!cidr("0.0.0.0/0").contains(ip("2001:db8::1")));
        assert!(cidr("::/0").contains(ip("2001:db8::1")));
        assert!(cidr("fd00::/8").contains(ip("fd12::1")));
        assert!(!cidr("fd00::/8").contains(ip("fe80::1")));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_judged_as_ipv4() {
        assert!(cidr("10.0.0.0/8").contains(ip("::ffff:10.9.9.9")));
        assert!(!cidr("::/0").contains(ip("::ffff:10.9.9.9")));
    }

    #[test]
    fn what_is_not_a_block_is_refused_with_an_example() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "example.com",
            "10.0.0.0/",
        ] {
            let error = text.parse::<Cidr>().unwrap_err().to_string();
            assert!(error.contains("10.0.0.0/8"), "{error}");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_or_an_open_network() {
        let closed = Rules {
            network: Network::Closed,
            allow: vec![],
        };
        assert!(closed.refusal("s3.test", ip("127.0.0.1"), true).is_none());
        assert!(closed.refusal("s3.test", ip("::1"), true).is_none());
        assert!(closed.refusal("s3.test", ip("10.0.0.1"), true).is_some());
        assert!(closed.refusal("s3.test", ip("10.0.0.1"), false).is_none());
        let open = Rules {
            network: Network::Open,
            allow: vec![],
        };
        assert!(open.refusal("s3.test", ip("10.0.0.1"), true).is_none());
    }

    #[test]
    fn an_address_outside_of_allow_is_refused_whatever_the_network() {
        for network in [Network::Closed, Network::Open] {
            let rules = Rules {
                network,
                allow: vec![cidr("10.0.0.0/8"), cidr("fd00::/8")],
            };
            assert!(rules.refusal("s3.test", ip("10.2.3.4"), false).is_none());
            assert!(rules.refusal("s3.test", ip("fd00::4"), false).is_none());
            assert!(rules.refusal("s3.test", ip("127.0.0.1"), false).is_some());
            assert!(rules.refusal("s3.test", ip("8.8.8.8"), false).is_some());
        }
    }

    #[test]
    fn an_interface_endpoint_has_private_addresses_only() {
        let rules = Rules {
            network: Network::Closed,
            allow: vec![],
        };
        let endpoint = "bucket.vpce-1a2b-5e6f.s3.ap-northeast-1.vpce.amazonaws.com";
        for inside in [
            "10.1.2.3",
            "172.16.0.9",
            "192.168.7.7",
            "100.64.0.1",
            "fd00::1",
        ] {
            assert_eq!(rules.refusal(endpoint, ip(inside), false), None, "{inside}");
        }
        for outside in ["52.219.68.63", "100.128.0.1", "2600::1"] {
            let why = rules.refusal(endpoint, ip(outside), false).unwrap();
            assert!(why.contains("interface endpoint"), "{why}");
            let regional = "s3.ap-northeast-1.amazonaws.com";
            assert_eq!(rules.refusal(regional, ip(outside), false), None);
        }
    }
}
