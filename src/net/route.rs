//! Which way the kernel would send packets: asked of the kernel itself (rtnetlink, `RTM_GETROUTE`,
//! as `ip route get` asks). Nothing is sent to anybody.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// Answer with the entry of the routing table, and not with what is made up where there is none
/// (`RTM_F_FIB_MATCH` of linux/rtnetlink.h): a packet bound to an interface without a route is sent
/// as if everybody was its neighbour.
const FIB_MATCH: u32 = 0x2000;
const HEADER: usize = 16;
const ROUTE: usize = 12;

/// The kernel's way to an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Packets leave by it.
    pub interface: Option<String>,
    /// The next hop, if it is not the address itself.
    pub gateway: Option<IpAddr>,
}

/// The route to `address` as routing alone decides, or that of an interface; `None`: there is none.
pub(super) fn to(address: IpAddr, by: Option<&str>) -> io::Result<Option<Route>> {
    let index = by.map(if_nametoindex).transpose()?;
    let question = question(address, index);
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(kernel.as_raw_fd(), &question, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    // It has answered before `send` returns.
    let length = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    match parse(&answer[..length]) {
        Ok(found) => Ok(Some(Route {
            interface: found.index.and_then(name),
            gateway: found.gateway,
        })),
        Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ESRCH) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn name(index: u32) -> Option<String> {
    if_indextoname(index).ok()?.into_string().ok()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn question(address: IpAddr, index: Option<u32>) -> Vec<u8> {
    let octets = octets(address);
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let bits = u8::try_from(octets.len() * 8).unwrap_or(u8::MAX);
    let flags = if index.is_some() { FIB_MATCH } else { 0 };
    let mut message = vec![0; HEADER];
    message.extend_from_slice(&[u8::try_from(family).unwrap_or(0), bits, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(&flags.to_ne_bytes());
    attribute(&mut message, libc::RTA_DST, &octets);
    if let Some(index) = index {
        attribute(&mut message, libc::RTA_OIF, &index.to_ne_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&libc::RTM_GETROUTE.to_ne_bytes());
    let request = u16::try_from(libc::NLM_F_REQUEST).unwrap_or(1);
    message[6..8].copy_from_slice(&request.to_ne_bytes());
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, data: &[u8]) {
    let length = u16::try_from(4 + data.len()).unwrap_or(u16::MAX);
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(data);
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    index: Option<u32>,
    gateway: Option<IpAddr>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(two.try_into().ok()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(i32::from_ne_bytes(four.try_into().ok()?))
}

fn address(data: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(data) {
        return Some(IpAddr::from(v4));
    }
    Some(IpAddr::from(<[u8; 16]>::try_from(data).ok()?))
}

fn parse(message: &[u8]) -> Result<Found, Errno> {
    match u16_at(message, 4) {
        Some(libc::RTM_NEWROUTE) => Ok(found(message)),
        Some(kind) if i32::from(kind) == libc::NLMSG_ERROR => {
            let code = i32_at(message, HEADER).unwrap_or(0);
            Err(Errno::from_raw(code.saturating_neg()))
        }
        _ => Err(Errno::EBADMSG),
    }
}

fn found(message: &[u8]) -> Found {
    let mut found = Found::default();
    let mut at = HEADER + ROUTE;
    while let (Some(length), Some(kind)) = (u16_at(message, at), u16_at(message, at + 2)) {
        let length = usize::from(length);
        let Some(data) = message.get(at + 4..at + length) else {
            break;
        };
        match kind {
            libc::RTA_OIF => found.index = i32_at(data, 0).and_then(|index| index.try_into().ok()),
            libc::RTA_GATEWAY => found.gateway = address(data),
            _ => {}
        }
        at += length.next_multiple_of(4).max(4);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_by_loopback_and_through_no_gateway() {
        let lo = Route {
            interface: Some("lo".into()),
            gateway: None,
        };
        let here = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(to(here, None).unwrap(), Some(lo.clone()));
        assert_eq!(to(here, Some("lo")).unwrap(), Some(lo));
    }

    #[test]
    fn an_interface_without_a_route_there_is_no_way() {
        let far = IpAddr::from([203, 0, 113, 9]);
        assert_eq!(to(far, Some("lo")).unwrap(), None);
        let absent = to(far, Some("kfs-none0")).unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn an_answer_cut_anywhere_is_survived() {
        let mut message = question(IpAddr::from([10, 0, 0, 1]), Some(3));
        message[4..6].copy_from_slice(&libc::RTM_NEWROUTE.to_ne_bytes());
        let whole = parse(&message).unwrap();
        assert_eq!(whole.index, Some(3));
        for end in 0..message.len() {
            // Less is found, or nothing; never a panic.
            let _ = parse(&message[..end]);
        }
        message[HEADER + ROUTE..HEADER + ROUTE + 2].copy_from_slice(&0_u16.to_ne_bytes());
        let _ = parse(&message);
    }
}
