//! Where events go: stderr in the foreground, syslog (journald reads it as well) in the background.
//!
//! Invariants: only our own events are logged (those of the HTTP stack show signed headers); a mount
//! that is refused says one line on stderr, whatever happened before; nobody waits for a log.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

/// Bytes of events that are held back.
const HELD_MAX: usize = 64 << 10;
/// Where syslog listens.
const SYSLOG: &str = "/dev/log";

/// Where events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Lines on stderr.
    Stderr,
    /// syslog, or else stderr.
    System,
}

/// Changes the level of a log that is set up.
static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

fn ours(level: LevelFilter) -> Targets {
    Targets::new().with_target("kryptonfs", level)
}

/// Our own events of this level and above go to `sink`. The first call holds.
pub fn log_to(sink: Sink, level: LevelFilter) {
    let (filter, handle) = reload::Layer::new(ours(level));
    let set = tracing_subscriber::registry()
        .with(filter)
        .with(lines(sink))
        .try_init();
    if set.is_err() || LEVEL.set(handle).is_err() {
        tracing::debug!("the log is set up already");
    }
}

/// From now on, events of this level and above.
///
/// # Errors
/// One line, if no log is set up.
pub fn set_level(level: LevelFilter) -> Result<(), String> {
    let handle = LEVEL.get().ok_or("no log is set up")?;
    handle
        .reload(ours(level))
        .map_err(|error| error.to_string())
}

fn lines<S>(sink: Sink) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if sink == Sink::System
        && let Ok(syslog) = Syslog::connect(SYSLOG)
    {
        return Box::new(
            tracing_subscriber::fmt::layer()
                .with_writer(syslog)
                .with_target(false)
                .with_ansi(false)
                .with_level(false)
                .without_time(),
        );
    }
    Box::new(
        tracing_subscriber::fmt::layer()
            .with_writer(|| Stderr)
            .with_target(false),
    )
}

/// syslog of the old kind (RFC 3164, as its local socket takes it).
#[derive(Debug)]
struct Syslog(UnixDatagram);

impl Syslog {
    fn connect(path: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = SyslogLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        SyslogLine {
            socket: &self.0,
            severity: 6,
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        let severity = match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        SyslogLine {
            socket: &self.0,
            severity,
        }
    }
}

/// One event on its way to syslog; each write of the formatter is a whole line.
#[derive(Debug)]
struct SyslogLine<'a> {
    socket: &'a UnixDatagram,
    severity: u8,
}

impl Write for SyslogLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Facility 3: daemons.
        let mut text = format!(
            "<{}>kryptonfs[{}]: ",
            24 + self.severity,
            std::process::id()
        )
        .into_bytes();
        text.extend_from_slice(line.trim_ascii_end());
        self.socket.send(&text)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Events that wait for the mount to be made; `None`: they are written at once.
static HELD: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// Lines to stderr, when it is their time.
#[derive(Debug)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *HELD.lock() {
            Some(held) if held.len() + line.len() <= HELD_MAX => held.extend_from_slice(line),
            Some(_) => {}
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Holds events back: if the mount is refused, the refusal is the one line that is read.
pub fn hold_log() {
    HELD.lock().get_or_insert_default();
}

/// Writes what was held back, and all later events at once.
pub fn release_log() {
    if let Some(held) = HELD.lock().take()
        && let Err(error) = io::stderr().write_all(&held)
    {
        tracing::debug!(%error, "nobody reads stderr");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_bounded_and_let_go() {
        hold_log();
        let line = [b'x'; 1000];
        for _ in 0..HELD_MAX / line.len() + 5 {
            Stderr.write_all(&line).unwrap();
        }
        let held = HELD.lock().take().unwrap();
        assert_eq!(held.len(), HELD_MAX / line.len() * line.len());
        release_log();
        assert!(HELD.lock().is_none());
    }
}
