//! The clock, Krypton, Cognito and the lease.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::Doctor;
use super::report::Row;
use crate::clock::Clock as _;
use crate::creds::{CredsError, Lease};
use crate::net::Server;

/// The system's clock is taken for right if it is this near.
const NEAR: Duration = Duration::from_secs(60);
/// What reads `kryptonfs credentials` wants as much.
const SHORT: Duration = Duration::from_secs(15 * 60);

impl Doctor<'_> {
    /// Rows `krypton`, `cognito`, `lease`, `clock`.
    pub(super) async fn keys(&mut self) {
        let rest = ["krypton", "cognito", "lease"];
        if self.report.has_failed("interface") {
            self.skip(&rest, "interface");
        } else {
            let lease = self.parts.leases.lease().await;
            let asks_cognito = self.parts.krypton.asks_cognito();
            let lease = match lease {
                Ok(lease) => {
                    let flow = if asks_cognito {
                        "an OpenID token, which Cognito changes into credentials"
                    } else {
                        "credentials"
                    };
                    let server = &self.facts.krypton_url;
                    self.add(Row::pass("krypton", format!("{server} gave {flow}")));
                    Some(lease)
                }
                Err(error) => {
                    self.add(no_lease(&error));
                    None
                }
            };
            if let Some(lease) = lease {
                self.cognito(asks_cognito, lease.identity.as_deref()).await;
                let now = self.parts.clock.boot();
                self.add(lease_row(&lease, now));
            } else {
                let which = ["krypton", "cognito"]
                    .into_iter()
                    .find(|row| self.report.has_failed(row));
                let missing: Vec<_> = rest
                    .into_iter()
                    .filter(|check| self.report.rows.iter().all(|row| row.check != *check))
                    .collect();
                self.skip(&missing, which.unwrap_or("krypton"));
            }
        }
        let clock = &self.parts.clock;
        let row = clock_row(clock.is_believable(), clock.to_keep(), SystemTime::now());
        self.add(row);
    }

    /// Whether the leg to Cognito leaves the closed path.
    async fn cognito(&mut self, is_asked: bool, identity: Option<&str>) {
        if !is_asked {
            let seen = "not asked from here: Krypton asks it";
            self.add(Row::pass("cognito", seen));
            return;
        }
        let region = identity.and_then(|identity| identity.split_once(':'));
        let region = match region {
            Some((region, _)) => region,
            None => self.facts.region.as_deref().unwrap_or("us-east-1"),
        };
        let public = format!("https://cognito-identity.{region}.amazonaws.com");
        let url = self.facts.cognito_url.as_deref().unwrap_or(&public);
        let Some(server) = Server::of(url) else {
            self.add(Row::fail(
                "cognito",
                format!("{url} is no URL"),
                "check cognito_url",
            ));
            return;
        };
        let found = self.parts.net.steps().resolve(&server.host).await;
        let row = match found {
            Ok(found) => cognito_row(&server.host, &found.addresses),
            Err(why) => Row::warn("cognito", why, "it was there a moment ago: run this again"),
        };
        self.add(row);
    }
}

fn no_lease(error: &CredsError) -> Row {
    let (said, silent) = match error {
        CredsError::Silent(said) => (said, true),
        CredsError::Refused(said) => (said, false),
    };
    let check = if said.starts_with("Cognito") {
        "cognito"
    } else {
        "krypton"
    };
    // A refusal names its cure behind what was said.
    if let Some((seen, cure)) = said.rsplit_once("; ") {
        return Row::fail(check, seen, cure);
    }
    let cure = match (check, silent) {
        ("cognito", true) => {
            "Cognito must be reachable by the interface: make an interface endpoint for it and name it \
             by cognito_url=, or say krypton=credentials, so that Krypton asks it"
        }
        (_, true) => {
            "Krypton must be reachable by the interface: check that the SIM's session is there, \
             krypton_url, and allow="
        }
        (_, false) => "check krypton_url and the Krypton setting of the SIM's group",
    };
    Row::fail(check, said, cure)
}

fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || v4.is_loopback() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback(),
    }
}

fn cognito_row(host: &str, addresses: &[IpAddr]) -> Row {
    let listed: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let listed = listed.join(", ");
    if addresses.iter().copied().all(is_inside) {
        let seen = format!("{host} answers at {listed}: inside, by an interface endpoint");
        return Row::pass("cognito", seen);
    }
    Row::warn(
        "cognito",
        format!("{host} answers at {listed}: public, so this leg may leave the closed network"),
        "make an interface endpoint for Cognito in the VPC and name it by cognito_url=, or say \
         krypton=credentials",
    )
}

fn lease_row(lease: &Lease, now: Duration) -> Row {
    let left = lease.left(now);
    let whose = match &lease.identity {
        Some(identity) => format!("of {identity}, "),
        None => String::new(),
    };
    let seen = format!("{whose}{} min left", left.as_secs() / 60);
    if left < SHORT {
        return Row::warn(
            "lease",
            seen,
            "credentials that end so soon are asked for often: let the role's sessions last an hour",
        );
    }
    Row::pass("lease", seen)
}

/// `heard`: the time by a peer whose certificate was verified.
fn clock_row(is_believable: bool, heard: Option<SystemTime>, system: SystemTime) -> Row {
    let Some(heard) = heard else {
        if is_believable {
            let seen = "it may be right; nobody was reached who could tell";
            return Row::skip("clock", seen);
        }
        return Row::fail(
            "clock",
            "the device's clock is wrong, and nobody was reached who could tell the time",
            "set it, or let ntp= (ntp.soracom.io) be reached by the interface",
        );
    };
    let off = heard
        .duration_since(system)
        .or_else(|_| system.duration_since(heard));
    let off = off.unwrap_or_default();
    if off < NEAR {
        return Row::pass("clock", format!("right to {} s", off.as_secs().max(1)));
    }
    Row::warn(
        "clock",
        format!("{} s off, by the Date of a verified answer", off.as_secs()),
        "requests are signed with the right time all the same; set the clock for everything else",
    )
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn the_clock_is_judged_by_what_a_verified_peer_said() {
        let now = SystemTime::now();
        let late = now + Duration::from_secs(1200);
        assert_eq!(clock_row(true, Some(now), now).verdict, Verdict::Pass);
        for (heard, system) in [(late, now), (now, late)] {
            let row = clock_row(true, Some(heard), system);
            assert_eq!(row.verdict, Verdict::Warn);
            assert!(row.seen.starts_with("1200 s"), "{row:?}");
        }
        assert_eq!(clock_row(true, None, now).verdict, Verdict::Skip);
        assert_eq!(clock_row(false, None, now).verdict, Verdict::Fail);
    }

    #[test]
    fn the_leg_to_cognito_is_closed_where_its_addresses_are_private() {
        let verdict = |ips: &[&str]| {
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            cognito_row("cognito-identity.x", &ips).verdict
        };
        assert_eq!(verdict(&["172.31.0.20"]), Verdict::Pass);
        assert_eq!(verdict(&["100.64.3.4", "10.1.1.1"]), Verdict::Pass);
        assert_eq!(verdict(&["10.1.1.1", "54.1.2.3"]), Verdict::Warn);
    }

    #[test]
    fn a_refusal_is_told_with_its_cure_and_the_row_that_it_is_of() {
        let refused = CredsError::Refused("Krypton: 403 KRY: no; enable Krypton".into());
        let row = no_lease(&refused);
        assert_eq!(
            (row.check, row.cure.as_str()),
            ("krypton", "enable Krypton")
        );
        let silent = CredsError::Silent("Cognito: not reached".into());
        let row = no_lease(&silent);
        assert_eq!((row.check, row.verdict), ("cognito", Verdict::Fail));
        assert!(row.cure.contains("interface endpoint"), "{row:?}");
    }

    #[test]
    fn a_lease_with_little_time_left_is_a_warning() {
        let lease = |minutes: u64| {
            let life = Duration::from_secs(minutes * 60);
            let secret = Zeroizing::new("s".to_owned());
            let zero = Duration::ZERO;
            Lease::new(
                "id".into(),
                secret,
                None,
                zero,
                life,
                SystemTime::UNIX_EPOCH,
            )
        };
        assert_eq!(lease_row(&lease(60), Duration::ZERO).verdict, Verdict::Pass);
        assert_eq!(lease_row(&lease(5), Duration::ZERO).verdict, Verdict::Warn);
    }
}
