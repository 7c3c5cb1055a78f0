//! Tells systemd how the service is (sd_notify(3)): ready, stopping, alive, a line of status.
//!
//! Invariant: without `NOTIFY_SOCKET` nothing is sent, and nothing but systemd's two variables is read
//! from the environment; a manager that does not listen delays nobody.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager.
#[derive(Debug)]
pub(super) struct Manager {
    socket: UnixDatagram,
    /// It wants to hear of us so often.
    pub(super) watchdog: Option<Duration>,
}

impl Manager {
    /// The one that started this process, if it wants to hear.
    pub(super) fn of_this_process() -> Option<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET")?;
        let variable = |key| {
            let text = std::env::var(key).ok()?;
            text.parse::<u64>().ok()
        };
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = variable("WATCHDOG_USEC").filter(|_| ours);
        match Self::connect(&name.into_vec()) {
            Ok(socket) => Some(Self {
                socket,
                watchdog: watchdog.map(Duration::from_micros),
            }),
            Err(error) => {
                tracing::warn!(%error, "the service manager cannot be told how things are");
                None
            }
        }
    }

    fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
        let address = match name.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn tell(&self, what: &str) {
        if let Err(error) = self.socket.send(what.as_bytes()) {
            tracing::debug!(%error, what, "the service manager does not listen");
        }
    }

    /// The mount answers.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// Still here, and so.
    pub(super) fn alive(&self, status: &str) {
        self.tell(&format!("WATCHDOG=1\nSTATUS={}", one_line(status)));
    }

    /// On the way out.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }
}

/// A status is one line: the rest would be taken for other words.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(name: &[u8], listener: &UnixDatagram) -> String {
        let manager = Manager {
            socket: Manager::connect(name).unwrap(),
            watchdog: None,
        };
        manager.ready("a\nREADY=0");
        manager.alive("b");
        manager.stopping();
        let mut all = String::new();
        for _ in 0..3 {
            let mut bytes = [0; 200];
            let len = listener.recv(&mut bytes).unwrap();
            all += std::str::from_utf8(&bytes[..len]).unwrap();
            all += ";";
        }
        all
    }

    #[test]
    fn the_manager_hears_by_a_path_and_by_an_abstract_name() {
        let want = "READY=1\nSTATUS=a READY=0;WATCHDOG=1\nSTATUS=b;STOPPING=1;";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixDatagram::bind(&path).unwrap();
        assert_eq!(heard(path.as_os_str().as_bytes(), &listener), want);
        let name = format!("kryptonfs-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        assert_eq!(heard(format!("@{name}").as_bytes(), &listener), want);
    }
}
