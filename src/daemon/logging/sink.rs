//! Where lines are written: journald with a field for each, syslog, stderr.
//!
//! Invariant: nobody waits for a log. A line that a full socket does not take is lost.

use std::io;
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{UnixAddr, getpeername};
use parking_lot::Mutex;
use tracing::Level;

use super::words::Words;

/// Where journald takes entries (systemd's "Native Journal Protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";
/// What stderr is connected to when journald reads it.
const JOURNAL_STDOUT: &str = "/run/systemd/journal/stdout";
/// Where syslog listens.
const SYSLOG: &str = "/dev/log";
const STDERR: i32 = 2;
/// Facility 3: daemons.
const FACILITY: u8 = 3;

/// Takes lines.
#[derive(Debug)]
pub(super) enum Sink {
    /// journald.
    Journal(UnixDatagram),
    /// syslog of the old kind (RFC 3164, as its local socket takes it).
    Syslog(UnixDatagram),
    /// stderr.
    Stderr,
}

impl Sink {
    /// The system's log, or stderr where there is none.
    pub(super) fn system() -> Self {
        let journal = || connect(JOURNAL).map(Self::Journal);
        let syslog = || connect(SYSLOG).map(Self::Syslog);
        journal().or_else(|_| syslog()).unwrap_or(Self::Stderr)
    }

    /// stderr; if it is journald that reads it, journald itself.
    pub(super) fn stderr() -> Self {
        let peer = getpeername::<UnixAddr>(STDERR).ok();
        let is_journal =
            peer.is_some_and(|at| at.path().is_some_and(|at| at.as_os_str() == JOURNAL_STDOUT));
        let journal = is_journal.then(|| connect(JOURNAL).ok()).flatten();
        journal.map_or(Self::Stderr, Self::Journal)
    }

    pub(super) fn write(&self, level: Level, words: &Words) {
        let (socket, entry) = match self {
            Self::Journal(socket) => (socket, journal_entry(level, words)),
            Self::Syslog(socket) => {
                let priority = FACILITY * 8 + severity(level);
                let (pid, line) = (std::process::id(), words.line());
                (
                    socket,
                    format!("<{priority}>kryptonfs[{pid}]: {line}").into_bytes(),
                )
            }
            Self::Stderr => {
                super::to_stderr(level, words);
                return;
            }
        };
        // There is nobody who could be told.
        let _lost = socket.send(&entry);
    }
}

fn connect(path: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// `NAME=value` lines; no value has a line break (see `words`).
fn journal_entry(level: Level, words: &Words) -> Vec<u8> {
    let mut entry = format!(
        "MESSAGE={}\nPRIORITY={}\nSYSLOG_FACILITY={FACILITY}\nSYSLOG_IDENTIFIER=kryptonfs\n",
        words.line(),
        severity(level)
    );
    for (name, value) in &words.fields {
        let name: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect();
        entry += &format!("KRYPTONFS_{name}={value}\n");
    }
    entry.into_bytes()
}

/// Bytes of lines that are held back.
const HELD_MAX: usize = 64 << 10;

/// Lines that wait for the mount to be made; `None`: they are written at once.
#[derive(Debug)]
pub(super) struct Held(Mutex<Option<Vec<u8>>>);

impl Held {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(super) fn begin(&self) {
        self.0.lock().get_or_insert_default();
    }

    /// What was held back, and nothing is any more.
    pub(super) fn end(&self) -> Option<Vec<u8>> {
        self.0.lock().take()
    }

    /// Keeps it back if it is to be; whether it was (or did not fit).
    pub(super) fn takes(&self, line: &[u8]) -> bool {
        match &mut *self.0.lock() {
            Some(held) => {
                if held.len() + line.len() <= HELD_MAX {
                    held.extend_from_slice(line);
                }
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words {
            message: "refused".into(),
            fields: vec![("key", "a/b".into()), ("error", "AccessDenied".into())],
        }
    }

    /// What a sink writes into a socket.
    fn written(sink: impl FnOnce(UnixDatagram) -> Sink) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listening = UnixDatagram::bind(&path).unwrap();
        let socket = connect(path.to_str().unwrap()).unwrap();
        sink(socket).write(Level::WARN, &words());
        let mut bytes = [0; 1024];
        let len = listening.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    #[test]
    fn journald_gets_a_field_for_each_and_the_whole_line_as_the_message() {
        assert_eq!(
            written(Sink::Journal),
            "MESSAGE=refused key=a/b error=AccessDenied\nPRIORITY=4\nSYSLOG_FACILITY=3\n\
             SYSLOG_IDENTIFIER=kryptonfs\nKRYPTONFS_KEY=a/b\nKRYPTONFS_ERROR=AccessDenied\n"
        );
    }

    #[test]
    fn syslog_gets_one_line() {
        let pid = std::process::id();
        let line = format!("<28>kryptonfs[{pid}]: refused key=a/b error=AccessDenied");
        assert_eq!(written(Sink::Syslog), line);
    }

    #[test]
    fn what_is_held_back_is_bounded_and_let_go() {
        let held = Held::new();
        assert!(!held.takes(b"at once"));
        held.begin();
        let line = [b'x'; 1000];
        for _ in 0..HELD_MAX / line.len() + 5 {
            assert!(held.takes(&line));
        }
        assert_eq!(
            held.end().unwrap().len(),
            HELD_MAX / line.len() * line.len()
        );
        assert!(!held.takes(&line));
    }
}
