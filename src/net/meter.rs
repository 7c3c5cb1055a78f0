//! Counts what passes our sockets: bytes as the TCP socket takes and gives them (behind TLS), the
//! payload of DNS packets, and connections opened. IP and TCP headers are not in it.

use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper_util::client::legacy::connect::{Connected, Connection};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::link::Footing;

/// The counters of one `Net`. They only grow.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicU64,
    /// Milliseconds from `started` to the last byte, plus one; 0: none yet.
    last: AtomicU64,
    recent: Mutex<Recent>,
}

/// What a `Meter` has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes handed to sockets.
    pub up: u64,
    /// Bytes that came out of sockets.
    pub down: u64,
    /// TCP connections opened.
    pub connections: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            last: AtomicU64::new(0),
            recent: Mutex::default(),
        }
    }
}

impl Meter {
    /// What has been counted so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            up: self.up.load(Ordering::Relaxed),
            down: self.down.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
        }
    }

    /// How long ago the last byte passed; `None`: none has.
    #[must_use]
    pub fn quiet_for(&self) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(
            self.started
                .elapsed()
                .saturating_sub(Duration::from_millis(last)),
        )
    }

    /// Bytes that sockets took in a second, of late; 0: none.
    #[must_use]
    pub fn rate_up(&self) -> u64 {
        self.recent.lock().rate(self.started.elapsed().as_secs())
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
        let second = self.started.elapsed().as_secs();
        self.recent.lock().add(second, bytes as u64);
        self.touch(bytes);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
        self.touch(bytes);
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    fn touch(&self, bytes: usize) {
        if bytes > 0 {
            let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
            self.last.fetch_max(millis + 1, Ordering::Relaxed);
        }
    }
}

/// So many seconds are of late. On a slow line a socket takes a buffer of many KiB at once and then
/// nothing for seconds.
const LATE: usize = 30;

/// Bytes by the second, of the last ones.
#[derive(Debug, Default)]
struct Recent([(u64, u64); LATE]);

impl Recent {
    fn add(&mut self, second: u64, bytes: u64) {
        let slots = LATE as u64;
        let Ok(at) = usize::try_from(second % slots) else {
            return;
        };
        match &mut self.0[at] {
            (then, sum) if *then == second => *sum += bytes,
            slot => *slot = (second, bytes),
        }
    }

    /// From the first second of late in which something passed until now.
    fn rate(&self, now: u64) -> u64 {
        let is_late = |(then, bytes): &&(u64, u64)| *bytes > 0 && then + LATE as u64 > now;
        let late = || self.0.iter().filter(is_late);
        let first = late().map(|(then, _)| *then).min();
        let bytes: u64 = late().map(|(_, bytes)| bytes).sum();
        first.map_or(0, |first| bytes / (now - first + 1))
    }
}

/// A TCP connection that counts what passes, and ends when it has nothing to stand on any more.
#[derive(Debug)]
pub(super) struct Metered {
    tcp: TcpStream,
    meter: Arc<Meter>,
    footing: Option<Footing>,
}

impl Metered {
    pub(super) fn new(tcp: TcpStream, meter: Arc<Meter>, footing: Option<Footing>) -> Self {
        meter.connected();
        Self {
            tcp,
            meter,
            footing,
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match &mut self.footing {
            Some(footing) => footing.check(cx),
            None => Ok(()),
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if let Some(footing) = &self.footing {
            footing.leave(|| self.tcp.as_fd().try_clone_to_owned());
        }
    }
}

impl Connection for Metered {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(cx, buf);
        self.meter.received(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let polled = Pin::new(&mut self.tcp).poll_write(cx, buf);
        if let Poll::Ready(Ok(taken)) = polled {
            self.meter.sent(taken);
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let polled = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(taken)) = polled {
            self.meter.sent(taken);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds_from_the_first_byte_of_them() {
        let mut recent = Recent::default();
        assert_eq!(recent.rate(5), 0);
        recent.add(7, 400);
        recent.add(7, 600);
        assert_eq!(recent.rate(7), 1000, "one second");
        assert_eq!(recent.rate(10), 250, "of four");
        recent.add(30, 200);
        assert_eq!(recent.rate(36), 1200 / 30);
        assert_eq!(recent.rate(37), 200 / 8, "the first is no more of late");
        recent.add(37, 80);
        assert_eq!(recent.rate(37), 280 / 8, "in the place of the first");
        assert_eq!(recent.rate(100), 0);
    }
}
