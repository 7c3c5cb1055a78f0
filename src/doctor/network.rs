//! From the interface to a TLS handshake with S3.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::Doctor;
use super::report::Row;
use crate::net::{Found, Ground, Route, Server};

impl Doctor<'_> {
    /// Rows `interface`, `dns`, `route`, `tcp`, `path`, `tls`, `mtu`.
    pub(super) async fn network(&mut self) {
        let steps = self.parts.net.steps().clone();
        let row = match steps.ground() {
            Ok(ground) => interface(self.facts.interface.as_deref(), ground.as_ref()),
            Err(error) => Row::warn(
                "interface",
                format!("the kernel does not tell of it: {error}"),
                "see that the sandbox of this process allows netlink",
            ),
        };
        self.add(row);
        let rest = ["dns", "route", "tcp", "path", "tls", "mtu"];
        if self.report.has_failed("interface") {
            self.skip(&rest, "interface");
            return;
        }
        let Some(server) = self.s3() else {
            let url = &self.facts.s3_url;
            self.add(Row::fail(
                "dns",
                format!("{url} is no URL"),
                "check endpoint_url",
            ));
            self.skip(&rest[1..], "dns");
            return;
        };
        let Some(addresses) = self.names(&server).await else {
            self.skip(&rest[1..], "dns");
            return;
        };
        let ways: Vec<_> = addresses
            .iter()
            .map(|address| {
                let (ours, theirs) = (steps.route(*address), steps.route_of_the_system(*address));
                (*address, ours.ok().flatten(), theirs.ok().flatten())
            })
            .collect();
        let row = route(self.facts.interface.as_deref(), &ways);
        self.add(row);
        let dialled = steps.connect(&server).await;
        self.add(tcp(&server, dialled));
        self.path(&server, &addresses).await;
        if self.report.has_failed("tcp") {
            self.skip(&["tls", "mtu"], "tcp");
            return;
        }
        let row = if server.tls {
            tls(&server, steps.shake_hands(&server).await)
        } else {
            Row::skip("tls", format!("{server} speaks plain http"))
        };
        self.add(row);
        if self.report.has_failed("tls") {
            self.skip(&["mtu"], "tls");
        } else {
            self.mtu(&server, &addresses).await;
        }
    }

    /// Row `dns`, of S3 and Krypton: the addresses of S3 that may be dialled.
    async fn names(&mut self, server: &Server) -> Option<Vec<IpAddr>> {
        let steps = self.parts.net.steps().clone();
        let mut seen = Vec::new();
        let krypton = Server::of(&self.facts.krypton_url);
        let servers = [Some(server.clone()), krypton];
        let mut addresses = None;
        for server in servers.iter().flatten() {
            let found = steps.resolve(&server.host).await;
            let found = found.and_then(|found| {
                let permitted = steps.permitted(server, &found.addresses)?;
                Ok((found, permitted))
            });
            match found {
                Ok((found, permitted)) => {
                    seen.push(answers(&server.host, &found));
                    addresses = addresses.or(Some(permitted));
                }
                Err(why) => {
                    self.add(unresolved(&why));
                    return None;
                }
            }
        }
        self.add(Row::pass("dns", seen.join("; ")));
        addresses
    }
}

/// What the SIM's line gives: SORACOM's own range, and what a router's DHCP gives instead.
fn interface(name: Option<&str>, ground: Option<&Ground>) -> Row {
    let (Some(name), Some(ground)) = (name, ground) else {
        return Row::warn(
            "interface",
            "none is named: routing decides by which link requests leave",
            "say interface=NAME, the SIM's: with network=open nothing keeps them on the closed path",
        );
    };
    if ground.index.is_none() {
        return Row::fail(
            "interface",
            format!("there is no interface {name}"),
            "`ip link` lists them: plug the modem in, bring its connection up, or name another",
        );
    }
    if !ground.up {
        let cure = format!("bring it up: `ip link set {name} up`, or the modem's connection");
        return Row::fail("interface", format!("{name} is down"), cure);
    }
    let v4 = ground.addresses.iter().filter_map(|address| match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    let v4: Vec<Ipv4Addr> = v4.collect();
    let listed: Vec<_> = ground.addresses.iter().map(ToString::to_string).collect();
    let seen = format!("{name} is up with {}", listed.join(", "));
    if ground.addresses.is_empty() {
        return Row::fail(
            "interface",
            format!("{name} is up, but has no address"),
            "the SIM's session is not there: check APN and the SIM's status in the SORACOM console",
        );
    }
    if v4.iter().copied().any(is_of_a_router) {
        return Row::warn(
            "interface",
            format!("{seen}: the private address of a router's network, not of a SIM"),
            "if the SIM is in that router, all it serves may use the SIM, and what the router does \
             with packets is not seen from here; else name the SIM's own interface",
        );
    }
    Row::pass("interface", seen)
}

/// RFC 1918 but for 10.128.0.0/9, the usual range of a VPG's devices (it can be another one).
fn is_of_a_router(v4: Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    v4.is_private() && !(a == 10 && b >= 128)
}

fn answers(host: &str, found: &Found) -> String {
    let addresses: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
    let addresses = addresses.join(", ");
    if host == addresses {
        return format!("{host} is {}", found.origin);
    }
    format!("{host} is {addresses}, {}", found.origin)
}

fn unresolved(why: &str) -> Row {
    let cure = if why.contains("no such name") {
        "check region and endpoint_url; a private name is known only to a DNS server in the VPC (dns=)"
    } else if why.contains("allow=") || why.contains("resolve=") || why.contains("dns=") {
        "do what it says"
    } else {
        "the DNS server must be reachable by the interface: SORACOM's are 100.127.0.53 and \
         100.127.1.53 (dns=); or pin the name with resolve="
    };
    Row::fail("dns", why, cure)
}

fn by(route: &Route) -> String {
    let interface = route.interface.as_deref().unwrap_or("several links");
    match route.gateway {
        Some(gateway) => format!("{interface} via {gateway}"),
        None => interface.to_owned(),
    }
}

type Way = (IpAddr, Option<Route>, Option<Route>);

/// Of each address: the interface's own way, and the way without our binding.
fn route(interface: Option<&str>, ways: &[Way]) -> Row {
    let lacks = ways.iter().find(|(_, ours, _)| ours.is_none());
    if let Some((address, ..)) = lacks {
        let name = interface.unwrap_or("any interface");
        let cure = match interface {
            Some(name) => format!(
                "add one that others are preferred to: `ip route add default dev {name} metric 700`"
            ),
            None => "bring the link up".to_owned(),
        };
        return Row::fail("route", format!("no route to {address} by {name}"), cure);
    }
    let mut seen: Vec<String> = Vec::new();
    for (address, ours, theirs) in ways {
        let (Some(ours), theirs) = (ours, theirs.as_ref()) else {
            continue;
        };
        let other = theirs.filter(|theirs| theirs.interface != ours.interface);
        let without = match other {
            Some(other) => format!(" (without interface= it would leave by {})", by(other)),
            None => String::new(),
        };
        seen.push(format!("{address} by {}{without}", by(ours)));
    }
    Row::pass("route", seen.join("; "))
}

fn tcp(server: &Server, dialled: Result<Duration, String>) -> Row {
    match dialled {
        Ok(took) => Row::pass(
            "tcp",
            format!("{server} answers in {} ms", took.as_millis()),
        ),
        Err(why) => Row::fail(
            "tcp",
            why,
            "row path shows how far packets come: redirection to the Gate Peer, its NAT and the route \
             to the S3 endpoint must all be there",
        ),
    }
}

fn tls(server: &Server, shaken: Result<Duration, String>) -> Row {
    match shaken {
        Ok(took) => Row::pass(
            "tls",
            format!("{server} has a good certificate, {} ms", took.as_millis()),
        ),
        Err(why) => {
            let cure = cure_of_tls(&why);
            Row::fail("tls", format!("{server}: {why}"), cure)
        }
    }
}

fn cure_of_tls(why: &str) -> &'static str {
    if why.contains("not valid for name") || why.contains("NotValidForName") {
        "what answers is not who was meant, or its certificate has other names: check endpoint_url, \
         path_style and resolve="
    } else if why.contains("UnknownIssuer") || why.contains("BadSignature") {
        "something answers in its place, or its authority is not known here: install ca-certificates, \
         or name its authority by ca_file="
    } else if why.contains("expired") || why.contains("not valid yet") || why.contains("Expired") {
        "the clock of this device may be wrong: see row clock"
    } else {
        "something between answers in its place, or large packets are lost: see rows path and mtu"
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    fn ground(up: bool, addresses: &[&str]) -> Ground {
        Ground {
            index: Some(3),
            up,
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    fn verdict(ground: &Ground) -> Verdict {
        interface(Some("wwan0"), Some(ground)).verdict
    }

    #[test]
    fn an_interface_passes_with_a_sims_address_and_warns_with_a_routers() {
        assert_eq!(verdict(&ground(true, &["10.128.0.2"])), Verdict::Pass);
        assert_eq!(verdict(&ground(true, &["127.0.0.1", "::1"])), Verdict::Pass);
        assert_eq!(verdict(&ground(true, &["192.168.1.7"])), Verdict::Warn);
        assert_eq!(verdict(&ground(true, &["10.0.0.5"])), Verdict::Warn);
        assert_eq!(verdict(&ground(false, &["10.128.0.2"])), Verdict::Fail);
        assert_eq!(verdict(&ground(true, &[])), Verdict::Fail);
        let absent = interface(Some("wwan0"), Some(&Ground::default()));
        assert_eq!(absent.verdict, Verdict::Fail);
        assert!(absent.cure.contains("ip link"), "{absent:?}");
        assert_eq!(interface(None, None).verdict, Verdict::Warn);
    }

    #[test]
    fn a_route_says_where_packets_would_go_without_the_binding() {
        let way = |interface: &str, gateway: Option<&str>| Route {
            interface: Some(interface.into()),
            gateway: gateway.map(|ip| ip.parse().unwrap()),
        };
        let s3 = IpAddr::from([52, 219, 68, 63]);
        let ours = Some(way("wwan0", None));
        let theirs = Some(way("eth0", Some("192.168.1.1")));
        let row = route(Some("wwan0"), &[(s3, ours.clone(), theirs.clone())]);
        assert_eq!(row.verdict, Verdict::Pass);
        let want =
            "52.219.68.63 by wwan0 (without interface= it would leave by eth0 via 192.168.1.1)";
        assert_eq!(row.seen, want);
        let row = route(Some("wwan0"), &[(s3, ours.clone(), ours)]);
        assert_eq!(row.seen, "52.219.68.63 by wwan0");
        let row = route(Some("wwan0"), &[(s3, None, theirs)]);
        assert_eq!(row.verdict, Verdict::Fail);
        assert!(row.cure.contains("dev wwan0"), "{row:?}");
    }

    #[test]
    fn each_trouble_with_a_certificate_has_its_cure() {
        for (why, word) in [
            ("invalid peer certificate: UnknownIssuer", "ca_file"),
            (
                "invalid peer certificate: certificate not valid for name \"a\"",
                "endpoint_url",
            ),
            (
                "invalid peer certificate: certificate expired: verification",
                "clock",
            ),
            ("received corrupt message", "mtu"),
        ] {
            let server = Server::of("https://a").unwrap();
            let row = tls(&server, Err(why.into()));
            assert!(
                row.verdict == Verdict::Fail && row.cure.contains(word),
                "{row:?}"
            );
        }
    }
}
