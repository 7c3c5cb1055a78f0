//! A TCP relay on loopback between a mount and a server: an independent wire counter, and a link
//! that can be cut.
//!
//! Invariant: it knows nothing of HTTP or TLS; what it counts is what went over the socket.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const OPEN: u8 = 0;
const SILENT: u8 = 1;
const REFUSE: u8 = 2;
/// How often a held-back connection looks whether the link is up again.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Shared {
    mode: AtomicU8,
    /// When so many bytes have gone up, it goes silent by itself.
    enough: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicU64,
}

/// The relay; it runs until the test process ends.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    /// Bytes from the mount.
    pub(crate) up: u64,
    /// Bytes to the mount.
    pub(crate) down: u64,
    /// Connections made.
    pub(crate) connections: u64,
}

impl Relay {
    /// Starts one before `target` on a port of its own.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the relay");
        let address = listener.local_addr().expect("the relay's address");
        let shared = Arc::new(Shared {
            mode: AtomicU8::new(OPEN),
            enough: AtomicU64::new(u64::MAX),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let relay = Self {
            address,
            shared: Arc::clone(&shared),
        };
        thread::spawn(move || {
            for incoming in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || carry(incoming, target, &shared));
            }
        });
        relay
    }

    /// Where the mount is to connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What went through so far.
    pub(crate) fn wire(&self) -> Wire {
        Wire {
            up: self.shared.up.load(Ordering::SeqCst),
            down: self.shared.down.load(Ordering::SeqCst),
            connections: self.shared.connections.load(Ordering::SeqCst),
        }
    }

    /// The link works.
    pub(crate) fn open(&self) {
        self.shared.mode.store(OPEN, Ordering::SeqCst);
    }

    /// The link is down as a radio link is: everything is held back, nothing is answered.
    pub(crate) fn silence(&self) {
        self.shared.mode.store(SILENT, Ordering::SeqCst);
    }

    /// The same, by itself, as soon as `more` bytes have gone up.
    pub(crate) fn silence_after(&self, more: u64) {
        let up = self.shared.up.load(Ordering::SeqCst);
        self.shared.enough.store(up + more, Ordering::SeqCst);
    }

    /// Every connection, old or new, is closed at once.
    pub(crate) fn refuse(&self) {
        self.shared.mode.store(REFUSE, Ordering::SeqCst);
    }
}

impl Wire {
    /// What came after `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            up: self.up - earlier.up,
            down: self.down - earlier.down,
            connections: self.connections - earlier.connections,
        }
    }
}

fn carry(near: TcpStream, target: SocketAddr, shared: &Arc<Shared>) {
    shared.connections.fetch_add(1, Ordering::SeqCst);
    if !passable(shared) {
        return;
    }
    let Ok(far) = TcpStream::connect(target) else {
        return;
    };
    let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    let back = Arc::clone(shared);
    let downward = thread::spawn(move || pump(&far_too, &near_too, &back, &back.down));
    pump(&near, &far, shared, &shared.up);
    let _ = downward.join();
}

/// Waits while the link is silent; whether it may be used then. A link silent for ten minutes is lost.
fn passable(shared: &Shared) -> bool {
    let until = Instant::now() + Duration::from_secs(600);
    loop {
        match shared.mode.load(Ordering::SeqCst) {
            OPEN => return true,
            SILENT if Instant::now() < until => thread::sleep(LOOK),
            _ => return false,
        }
    }
}

fn pump(from: &TcpStream, to: &TcpStream, shared: &Shared, counter: &AtomicU64) {
    let (mut from, mut to) = (from, to);
    let mut buffer = vec![0; 64 << 10];
    // A read that ends now and then, so that a refused link also closes idle connections.
    let _ = from.set_read_timeout(Some(Duration::from_millis(200)));
    loop {
        if shared.mode.load(Ordering::SeqCst) == REFUSE {
            break;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if !passable(shared) {
                    break;
                }
                // Before it is passed on, so that whoever has the answer finds it counted.
                counter.fetch_add(count as u64, Ordering::SeqCst);
                if shared.up.load(Ordering::SeqCst) >= shared.enough.load(Ordering::SeqCst) {
                    shared.enough.store(u64::MAX, Ordering::SeqCst);
                    shared.mode.store(SILENT, Ordering::SeqCst);
                }
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
