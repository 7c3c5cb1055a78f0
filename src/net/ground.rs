//! What a connection stands on: the interface it is bound to and the address it has there.
//!
//! The kernel keeps TCP connections when their interface goes away or gets another address, until
//! they time out after minutes; here they end at once. A change is noticed by a netlink socket,
//! which only wakes: what is so now is asked for anew each time, so that a lost message does not
//! matter.
//!
//! Invariant: `Ground::holds` is false only for a connection that cannot carry anything any more.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// An interface as the kernel has it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// Another one after it was re-created under the same name; `None`: it is not there.
    pub index: Option<u32>,
    /// Not taken down by anybody. (A carrier that is lost for a moment is no reason to drop what
    /// TCP would carry on with.)
    pub up: bool,
    /// Those it has.
    pub addresses: BTreeSet<IpAddr>,
}

impl Ground {
    /// What the kernel says of this interface.
    ///
    /// # Errors
    /// If it says nothing at all.
    pub(super) fn look(interface: &str) -> io::Result<Self> {
        let mut ground = Self {
            index: if_nametoindex(interface).ok(),
            ..Self::default()
        };
        for one in getifaddrs()?.filter(|one| one.interface_name == interface) {
            ground.up |= one.flags.contains(InterfaceFlags::IFF_UP);
            let Some(address) = one.address else {
                continue;
            };
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip()));
            ground.addresses.extend(v4.or(v6));
        }
        Ok(ground)
    }

    /// Whether what was begun on `begun` from `local` still stands.
    pub(super) fn holds(&self, begun: &Self, local: IpAddr) -> bool {
        // An address that was not the interface's own (loopback to a foreign one) says nothing.
        let had_it = begun.addresses.contains(&local);
        self.up
            && self.index.is_some()
            && self.index == begun.index
            && (!had_it || self.addresses.contains(&local))
    }
}

/// The flags of an interface in the network namespace of this process (sysfs shows that of whoever
/// mounted it); `None`: there is none of that name.
pub(super) fn flags(interface: &str) -> io::Result<Option<InterfaceFlags>> {
    let mut all = getifaddrs()?.filter(|one| one.interface_name == interface);
    Ok(all.next().map(|one| one.flags))
}

/// A netlink socket that hears of every change of links and addresses.
fn listen() -> io::Result<AsyncFd<OwnedFd>> {
    let heard = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
    let groups = u32::try_from(groups).unwrap_or_default();
    bind(heard.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    // SAFETY: the descriptor is owned by what it is registered in, which hands it out only to read.
    #[allow(unsafe_code)]
    let registered = unsafe { AsyncFd::register_with_interest(heard, Interest::READABLE) };
    Ok(registered?)
}

/// Tells what is so now, if that is news.
pub(super) fn tell(told: &watch::Sender<Option<Ground>>, ground: &Ground) {
    told.send_if_modified(|known| {
        let news = known.as_ref() != Some(ground);
        if news {
            *known = Some(ground.clone());
        }
        news
    });
}

/// Keeps `told` as the kernel has it, until nobody listens or the kernel says no more.
pub(super) async fn follow(interface: String, told: watch::Sender<Option<Ground>>) {
    let heard = match listen() {
        Ok(heard) => heard,
        Err(error) => {
            tracing::warn!("changes of {interface} are noticed only by silence: {error}");
            return;
        }
    };
    loop {
        // First: something may have changed before anybody listened.
        match Ground::look(&interface) {
            Ok(ground) => tell(&told, &ground),
            Err(error) => tracing::debug!("{interface} cannot be looked at: {error}"),
        }
        let Ok(mut ready) = heard.readable().await else {
            return;
        };
        let mut words = [0; 8192];
        // What it says is not read: an overrun (ENOBUFS) wakes as well as a message.
        while recv(heard.as_raw_fd(), &mut words, MsgFlags::MSG_DONTWAIT).is_ok() {}
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground(index: u32, up: bool, addresses: &[&str]) -> Ground {
        Ground {
            index: Some(index),
            up,
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn loopback_is_seen_with_its_address() {
        let lo = Ground::look("lo").unwrap();
        assert!(lo.up && lo.index.is_some());
        assert!(lo.addresses.contains(&IpAddr::from([127, 0, 0, 1])));
        assert_eq!(Ground::look("kfs-none0").unwrap(), Ground::default());
    }

    #[test]
    fn a_connection_stands_until_interface_or_address_go_or_change() {
        let local = IpAddr::from([10, 0, 0, 1]);
        let begun = ground(3, true, &["10.0.0.1", "fe80::1"]);
        assert!(begun.holds(&begun, local));
        let another = ground(3, true, &["10.0.0.1", "fe80::2", "10.0.0.7"]);
        assert!(another.holds(&begun, local), "others' addresses may come");
        for gone in [
            ground(3, false, &["10.0.0.1"]),
            ground(4, true, &["10.0.0.1"]),
            ground(3, true, &["10.0.0.2"]),
            Ground::default(),
        ] {
            assert!(!gone.holds(&begun, local), "{gone:?}");
        }
    }

    #[test]
    fn an_address_that_was_never_the_interfaces_own_is_not_missed() {
        let begun = ground(1, true, &["127.0.0.1"]);
        assert!(begun.holds(&begun, IpAddr::from([10, 0, 0, 1])));
    }
}
