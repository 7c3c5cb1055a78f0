//! Where sockets come from: each is bound before it is used, or it is not made.
//!
//! Invariant: with an interface, every socket is bound to it (`SO_BINDTODEVICE`) and, with a source
//! address, to that too. The address alone would not do: routing goes by the destination, and a
//! packet with the SIM's source address leaves by whatever link is the better route.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpSocket, UdpSocket};

/// What every socket is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bound {
    /// `interface`.
    pub(super) interface: Option<String>,
    /// `source_address`.
    pub(super) source: Option<IpAddr>,
}

impl Bound {
    /// Whether `to` is of the kind of the source address.
    pub(super) fn reaches(&self, to: IpAddr) -> bool {
        self.source
            .is_none_or(|from| from.is_ipv4() == to.is_ipv4())
    }

    /// A socket for a connection to `to`.
    pub(super) fn tcp(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        let socket = match to {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(interface) = &self.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        Ok(socket)
    }

    /// A socket for questions to `to` alone: the kernel picks the port at random, and lets only
    /// what comes from there in.
    pub(super) async fn udp(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let from = self.source.filter(|_| self.reaches(to.ip())).unwrap_or(any);
        let socket = UdpSocket::bind((from, 0)).await?;
        if let Some(interface) = &self.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        socket.connect(to).await?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{getsockopt, sockopt};

    use super::*;

    #[tokio::test]
    async fn both_kinds_are_bound_to_the_interface_and_leave_from_the_source_address() {
        let bound = Bound {
            interface: Some("lo".to_owned()),
            source: Some(IpAddr::from([127, 0, 0, 9])),
        };
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        let tcp = bound.tcp(to).unwrap();
        assert_eq!(tcp.local_addr().unwrap().ip(), IpAddr::from([127, 0, 0, 9]));
        let device = getsockopt(&tcp, sockopt::BindToDevice).unwrap();
        assert_eq!(device.to_string_lossy().trim_end_matches('\0'), "lo");
        let udp = bound.udp(to).await.unwrap();
        assert_eq!(udp.local_addr().unwrap().ip(), IpAddr::from([127, 0, 0, 9]));
        let device = getsockopt(&udp, sockopt::BindToDevice).unwrap();
        assert_eq!(device.to_string_lossy().trim_end_matches('\0'), "lo");
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_gives_no_socket() {
        let bound = Bound {
            interface: Some("kfs-none0".to_owned()),
            source: None,
        };
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(
            bound.tcp(to).unwrap_err().raw_os_error(),
            Some(libc::ENODEV)
        );
        assert_eq!(
            bound.udp(to).await.unwrap_err().raw_os_error(),
            Some(libc::ENODEV)
        );
    }
}
