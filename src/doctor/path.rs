//! The hops on the way, and whether large packets make it.

use std::net::IpAddr;

use super::Doctor;
use super::report::Row;
use crate::net::{Filled, Hop, Server};

impl Doctor<'_> {
    /// Row `path`; row `tcp` is known already.
    pub(super) async fn path(&mut self, server: &Server, addresses: &[IpAddr]) {
        let Some(to) = addresses.first().copied() else {
            return;
        };
        let steps = self.parts.net.steps();
        let traced = steps.trace(server, to, self.facts.hops_max).await;
        let row = match traced {
            Ok(hops) => path(to, &hops, self.report.has_failed("tcp")),
            Err(error) => Row::skip("path", format!("{to} is not traced: {error}")),
        };
        self.add(row);
    }

    /// Row `mtu`.
    pub(super) async fn mtu(&mut self, server: &Server, addresses: &[IpAddr]) {
        let Some(to) = addresses.first().copied() else {
            return;
        };
        let filled = self.parts.net.steps().fill_packets(server, to).await;
        let row = mtu(self.facts.interface.as_deref(), filled);
        self.add(row);
    }
}

fn path(to: IpAddr, hops: &[Hop], is_unreached: bool) -> Row {
    let shown: Vec<_> = hops.iter().map(ToString::to_string).collect();
    let shown = shown.join(", ");
    if let Some(Hop::Server(_)) = hops.last() {
        return Row::pass("path", format!("{to} at hop {}: {shown}", hops.len()));
    }
    if !is_unreached {
        // Middle hops of the closed network say nothing; that is no fault.
        let seen = format!("{to} is more than {} hops away: {shown}", hops.len());
        return Row::pass("path", seen);
    }
    let last = hops.iter().rev().find_map(|hop| match hop {
        Hop::Router(address, _) => Some(*address),
        Hop::Silent | Hop::Server(_) | Hop::End(_) => None,
    });
    let cure = match last {
        Some(last) => format!(
            "packets come as far as {last}: look at what is behind it (redirection, the Gate Peer's \
             VXLAN, forwarding and NAT, the VPC's route to the endpoint)"
        ),
        None => "no router answers at all: look at the SIM's session first".to_owned(),
    };
    Row::warn("path", format!("{to} is not reached: {shown}"), cure)
}

/// `None`: no answer came in time.
fn mtu(interface: Option<&str>, filled: Result<Option<Filled>, String>) -> Row {
    match filled {
        Ok(Some(Filled { mtu, took })) => {
            let size = mtu.map_or("full size".to_owned(), |mtu| format!("{mtu} bytes"));
            let seen = format!("packets of {size} pass, {} ms", took.as_millis());
            Row::pass("mtu", seen)
        }
        Err(why) => Row::skip("mtu", format!("not told, the server hung up: {why}")),
        Ok(None) => {
            let name = interface.unwrap_or("IFACE");
            Row::fail(
                "mtu",
                "small packets pass, those of full size get no answer",
                format!(
                    "make them smaller: `ip link set {name} mtu 1400` (or ipLinkMtu of the SIM's group), \
                     and clamp TCP's segment size at the Gate Peer"
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::report::Verdict;
    use super::*;

    const TOOK: Duration = Duration::from_millis(35);

    #[test]
    fn the_articles_traceroute_is_shown_and_its_silent_hops_are_no_fault() {
        let to = IpAddr::from([52, 219, 68, 63]);
        let first = Hop::Router(IpAddr::from([10, 10, 0, 254]), TOOK);
        let hops = [&[first][..], &[Hop::Silent; 7], &[Hop::Server(TOOK)]].concat();
        let row = path(to, &hops, false);
        assert_eq!(row.verdict, Verdict::Pass);
        let want = "52.219.68.63 at hop 9: 10.10.0.254 (35 ms), *, *, *, *, *, *, *, S3 (35 ms)";
        assert_eq!(row.seen, want);
        let row = path(to, &hops[..4], false);
        assert!(
            row.verdict == Verdict::Pass && row.seen.contains("more than 4"),
            "{row:?}"
        );
    }

    #[test]
    fn a_way_that_ends_names_the_last_router_that_answered() {
        let to = IpAddr::from([52, 219, 68, 63]);
        let first = Hop::Router(IpAddr::from([10, 128, 0, 1]), TOOK);
        let row = path(to, &[first, Hop::Silent], true);
        assert_eq!(row.verdict, Verdict::Warn);
        assert!(row.cure.contains("10.128.0.1"), "{row:?}");
        let row = path(to, &[Hop::End(None)], true);
        assert!(row.cure.contains("SIM"), "{row:?}");
    }

    #[test]
    fn large_packets_that_are_lost_fail_with_a_smaller_mtu_as_the_cure() {
        let filled = Filled {
            mtu: Some(1400),
            took: TOOK,
        };
        assert_eq!(
            mtu(None, Ok(Some(filled))).seen,
            "packets of 1400 bytes pass, 35 ms"
        );
        let row = mtu(Some("wwan0"), Ok(None));
        assert!(
            row.verdict == Verdict::Fail && row.cure.contains("wwan0 mtu 1400"),
            "{row:?}"
        );
        assert_eq!(mtu(None, Err("reset".into())).verdict, Verdict::Skip);
    }
}
