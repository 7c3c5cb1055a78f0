//! The hops to a server, as traceroute shows them: connections that are begun with a small TTL (IPv6:
//! hop limit), and the ICMP message of the router where it ran out, read from the socket's error queue
//! (`IP_RECVERR`, since Linux 5.8 also of a SYN). No raw socket and no right is needed, and what lets S3's own
//! traffic pass (TCP to its port) lets this pass too.
//!
//! Invariants: bound as all is; a hop ends by `PATIENCE`; a socket that was given up stays out of use
//! for a while, so that a late answer to it leaves by no other link.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, connect, getsockopt, recvmsg, setsockopt,
    sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::link::Link;
use super::socket::Bound;

/// A hop that answers does so within the time that S3 itself takes.
const PATIENCE: Duration = Duration::from_secs(1);
/// Long enough for two repeats of a packet that was lost.
const REACHED_WITHIN: Duration = Duration::from_secs(5);
/// As packets have it usually.
const TTL: u8 = 64;
/// "Time exceeded" of ICMP, and of ICMPv6.
const TIME_EXCEEDED: (u8, u8) = (11, 3);

/// What became of the packet with one TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// This router let it go no further.
    Router(IpAddr, Duration),
    /// Nobody said anything.
    Silent,
    /// The server answered (also with a refusal).
    Server(Duration),
    /// Somebody said that there is no way on, or the kernel found no neighbour.
    End(Option<IpAddr>),
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router(address, took) => write!(f, "{address} ({} ms)", took.as_millis()),
            Self::Silent => f.write_str("*"),
            Self::Server(took) => write!(f, "S3 ({} ms)", took.as_millis()),
            Self::End(Some(address)) => write!(f, "{address} says there is no way"),
            Self::End(None) => f.write_str("no way"),
        }
    }
}

/// The hops to `to`, the first first, at most `hops_max`: up to the server, or where the way ends.
pub(super) async fn trace(
    bound: &Bound,
    link: &Link,
    to: SocketAddr,
    hops_max: u8,
) -> io::Result<Vec<Hop>> {
    let mut hops = Vec::new();
    for ttl in 1..=hops_max {
        let hop = probe(bound, link, to, ttl, PATIENCE).await?;
        hops.push(hop);
        if matches!(hop, Hop::Server(_) | Hop::End(_)) {
            break;
        }
    }
    Ok(hops)
}

/// Whether anybody answers at `to`, if only by refusing.
pub(super) async fn reaches(bound: &Bound, link: &Link, to: SocketAddr) -> io::Result<bool> {
    let hop = probe(bound, link, to, TTL, REACHED_WITHIN).await?;
    Ok(matches!(hop, Hop::Server(_)))
}

async fn probe(
    bound: &Bound,
    link: &Link,
    to: SocketAddr,
    ttl: u8,
    patience: Duration,
) -> io::Result<Hop> {
    let socket = bound.tcp(to)?;
    let hops = i32::from(ttl);
    if to.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        setsockopt(&socket, sockopt::Ipv4Ttl, &hops)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        setsockopt(&socket, sockopt::Ipv6Ttl, &hops)?;
    }
    let begun = Instant::now();
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) => return Ok(Hop::Server(begun.elapsed())),
        Err(Errno::EINPROGRESS) => {}
        Err(Errno::ECONNREFUSED) => return Ok(Hop::Server(begun.elapsed())),
        Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH) => return Ok(Hop::End(None)),
        Err(errno) => return Err(errno.into()),
    }
    let socket = socket.as_fd().try_clone_to_owned()?;
    // SAFETY: the descriptor is owned by what it is registered in, which hands it out only to look.
    #[allow(unsafe_code)]
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::WRITABLE) };
    let socket = socket?;
    if tokio::time::timeout(patience, socket.writable())
        .await
        .is_err()
    {
        link.bury_question(socket.into_inner());
        return Ok(Hop::Silent);
    }
    outcome(socket.get_ref(), begun.elapsed())
}

fn outcome(socket: &OwnedFd, took: Duration) -> io::Result<Hop> {
    let error = getsockopt(socket, sockopt::SocketError)?;
    match Errno::from_raw(error) {
        _ if error == 0 => Ok(Hop::Server(took)),
        Errno::ECONNREFUSED => Ok(Hop::Server(took)),
        Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ETIMEDOUT => {
            Ok(match complaint(socket) {
                Some((address, true)) => Hop::Router(address, took),
                Some((address, false)) => Hop::End(Some(address)),
                None => Hop::End(None),
            })
        }
        errno => Err(errno.into()),
    }
}

/// Who complained by ICMP, and whether it was that the hops ran out.
fn complaint(socket: &OwnedFd) -> Option<(IpAddr, bool)> {
    let (mut quoted, mut space) = ([0; 512], vec![0; 512]);
    let mut parts = [IoSliceMut::new(&mut quoted)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
    let mut all = message.cmsgs().ok()?;
    all.find_map(|one| match one {
        ControlMessageOwned::Ipv4RecvErr(error, Some(from)) => {
            let address = Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr));
            Some((address.into(), error.ee_type == TIME_EXCEEDED.0))
        }
        ControlMessageOwned::Ipv6RecvErr(error, Some(from)) => {
            let address = Ipv6Addr::from(from.sin6_addr.s6_addr);
            Some((address.into(), error.ee_type == TIME_EXCEEDED.1))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::clock::SystemClock;

    fn bound() -> (Bound, Link) {
        let bound = Bound {
            interface: Some("lo".to_owned()),
            source: None,
        };
        (
            bound,
            Link::new(Some("lo".to_owned()), SystemClock::shared()),
        )
    }

    #[tokio::test]
    async fn on_loopback_the_first_hop_is_the_server_also_if_it_refuses() {
        let (bound, link) = bound();
        for local in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            let Ok(listener) = TcpListener::bind((local, 0)) else {
                assert!(local.is_ipv6(), "loopback of IPv4 is always there");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            for port in [port, 1] {
                let to = SocketAddr::new(local, port);
                let hops = trace(&bound, &link, to, 5).await.unwrap();
                assert!(matches!(hops[..], [Hop::Server(_)]), "{hops:?}");
                assert!(reaches(&bound, &link, to).await.unwrap());
            }
        }
    }

    #[test]
    fn hops_are_shown_as_traceroute_shows_them() {
        let took = Duration::from_millis(35);
        let shown = |hop: Hop| hop.to_string();
        let router = Hop::Router(IpAddr::from([10, 10, 0, 254]), took);
        assert_eq!(shown(router), "10.10.0.254 (35 ms)");
        assert_eq!(shown(Hop::Silent), "*");
        assert_eq!(shown(Hop::Server(took)), "S3 (35 ms)");
        assert_eq!(shown(Hop::End(None)), "no way");
    }
}
