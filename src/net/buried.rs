//! Sockets that are done with but not closed yet.
//!
//! When the kernel has closed a socket it forgets what that was bound to. A segment or a datagram
//! that comes late is then answered (RST, "port unreachable") by the best route, which is not the
//! SIM's: measured, 40 bytes each on the other link. So a connection that lost its interface, and a
//! question that got no answer, stay open out of use, where the kernel still knows their way:
//! - a connection is reset once the link has proved itself by a new one: its RST goes by the
//!   interface and ends the peer's side;
//! - a question just grows old.
//!
//! Invariants: at most `COUNT_MAX` are kept, none for longer than `AGE_MAX`.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;

/// Kept at once.
const COUNT_MAX: usize = 64;
/// Peers give up a connection after a quarter of an hour.
const AGE_MAX: Duration = Duration::from_secs(20 * 60);
/// No server answers a question after that.
const QUESTION_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct One {
    socket: OwnedFd,
    until: Instant,
    connection: bool,
}

/// The sockets of one `Net`.
#[derive(Debug, Default)]
pub(super) struct Buried(Mutex<Vec<One>>);

impl Buried {
    /// A connection whose interface went away or changed.
    pub(super) fn connection(&self, socket: OwnedFd) {
        let age = u32::try_from(AGE_MAX.as_millis()).unwrap_or(u32::MAX);
        // Else the kernel closes it by itself. If it does not take that, nothing worse happens.
        let kept = setsockopt(&socket, sockopt::TcpUserTimeout, &age)
            .and_then(|()| setsockopt(&socket, sockopt::KeepAlive, &false));
        if let Err(error) = kept {
            tracing::debug!("a dropped connection may be closed early: {error}");
        }
        self.add(socket, AGE_MAX, true);
    }

    /// The socket of a question that was given up.
    pub(super) fn question(&self, socket: OwnedFd) {
        self.add(socket, QUESTION_MAX, false);
    }

    fn add(&self, socket: OwnedFd, age: Duration, connection: bool) {
        let now = Instant::now();
        let mut all = self.0.lock();
        all.retain(|one| now < one.until);
        if all.len() >= COUNT_MAX {
            all.remove(0);
        }
        all.push(One {
            socket,
            until: now + age,
            connection,
        });
    }

    /// A connection has just been made through the interface: the old ones can be ended by it.
    pub(super) fn link_is_proven(&self, interface: &str) {
        let now = Instant::now();
        self.0.lock().retain(|one| {
            if one.connection {
                end(&one.socket, interface);
            }
            !one.connection && now < one.until
        });
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }
}

/// Makes its close a reset that leaves by the interface, also if that was re-created meanwhile.
fn end(socket: &OwnedFd, interface: &str) {
    let abort = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let ended = setsockopt(socket, sockopt::Linger, &abort)
        // Another index under the same name; needs CAP_NET_RAW, and is of use only then.
        .and_then(|()| setsockopt(socket, sockopt::BindToDevice, &OsString::from(interface)));
    if let Err(error) = ended {
        tracing::debug!("a dropped connection is closed without a word: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_buried_connection_stays_open_until_the_link_is_proven_and_is_reset_then() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let buried = Buried::default();
        buried.connection(ours.into());
        let quiet = theirs.read(&mut [0]).unwrap_err();
        assert_eq!(quiet.kind(), std::io::ErrorKind::WouldBlock);
        theirs.set_nonblocking(false).unwrap();
        buried.link_is_proven("lo");
        let reset = theirs.read(&mut [0]).unwrap_err();
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(buried.count(), 0);
    }

    #[test]
    fn a_buried_question_outlasts_that_and_there_is_an_end_to_how_many() {
        let buried = Buried::default();
        for _ in 0..COUNT_MAX + 9 {
            buried.question(UdpSocket::bind("127.0.0.1:0").unwrap().into());
        }
        assert_eq!(buried.count(), COUNT_MAX);
        buried.link_is_proven("lo");
        assert_eq!(buried.count(), COUNT_MAX);
    }
}
