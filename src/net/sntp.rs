//! Asks what time it is, where the clock cannot be believed (SNTP, RFC 4330): one datagram each way,
//! by the interface. `ntp.soracom.io` answers from inside the network.
//!
//! Invariants: only the answer to our own question counts (its nonce is repeated); it is asked at
//! most once in `APART`, and never where the clock is believable.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Mutex;

use super::link::Link;
use super::meter::Meter;
use super::resolve::Resolver;
use super::rules::Rules;
use super::socket::Bound;
use crate::clock::Clock as _;
use crate::clock::believed::{Believed, Teacher};

const PATIENCE: Duration = Duration::from_secs(3);
/// Between two questions that were of no use.
const APART: Duration = Duration::from_secs(60);
const PORT: u16 = 123;
const PACKET: usize = 48;
/// Servers of one name that are asked.
const SERVERS_MAX: usize = 3;
/// From 1900 to 1970, in seconds.
const TO_UNIX: u64 = 2_208_988_800;
/// Where the name of SORACOM's server leads, should no DNS server answer.
const SORACOM: (&str, IpAddr) = (
    "ntp.soracom.io",
    IpAddr::V4(std::net::Ipv4Addr::new(100, 127, 0, 123)),
);

/// A question: version 4, client, and a nonce where the time of sending would be.
fn question(nonce: [u8; 8]) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[0] = 0x23;
    packet[40..].copy_from_slice(&nonce);
    packet
}

/// The time in an answer to the question with this nonce; `None`: it is none.
fn answer(packet: &[u8], nonce: [u8; 8]) -> Option<SystemTime> {
    let packet = packet.get(..PACKET)?;
    let (leap, mode, stratum) = (packet[0] >> 6, packet[0] & 0x07, packet[1]);
    let is_answer = mode == 4 && leap != 3 && (1..=15).contains(&stratum);
    if !is_answer || packet[24..32] != nonce {
        return None;
    }
    let word = |at: usize| {
        let bytes: [u8; 4] = packet[at..at + 4].try_into().unwrap_or_default();
        u64::from(u32::from_be_bytes(bytes))
    };
    let (seconds, fraction) = (word(40), word(44));
    // The count starts again in 2036: what is below its half is of the next round.
    let since_1900 = if seconds < 1 << 31 {
        seconds + (1 << 32)
    } else {
        seconds
    };
    let nanos = (fraction * 1_000_000_000) >> 32;
    let since = Duration::from_secs(since_1900.checked_sub(TO_UNIX)?);
    Some(UNIX_EPOCH + since + Duration::from_nanos(nanos))
}

/// Who is asked, and what was learnt goes where.
#[derive(Debug)]
pub(super) struct Sntp {
    /// A name or an address, and the port; `None`: nobody is asked.
    pub(super) server: Option<(String, u16)>,
    pub(super) bound: Bound,
    pub(super) rules: Arc<Rules>,
    pub(super) meter: Arc<Meter>,
    pub(super) link: Arc<Link>,
    pub(super) clock: Arc<Believed>,
    last: Mutex<Option<Instant>>,
}

/// `HOST`, `HOST:PORT`, an address, or one with a port.
fn parsed(server: &str) -> (String, u16) {
    if let Ok(both) = server.parse::<SocketAddr>() {
        return (both.ip().to_string(), both.port());
    }
    let parts = server.rsplit_once(':');
    match parts.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) if !host.contains(':') => (host.to_owned(), port),
        _ => (server.to_owned(), PORT),
    }
}

impl Sntp {
    pub(super) fn new(
        server: Option<String>,
        bound: Bound,
        rules: Arc<Rules>,
        meter: Arc<Meter>,
        link: Arc<Link>,
        clock: Arc<Believed>,
    ) -> Self {
        Self {
            server: server.as_deref().map(parsed),
            bound,
            rules,
            meter,
            link,
            clock,
            last: Mutex::new(None),
        }
    }

    /// Has the clock learn the time, unless that was tried just now. Whether it did.
    pub(super) async fn teach(&self, resolver: &Resolver) -> bool {
        let Some((server, port)) = &self.server else {
            return false;
        };
        // Who comes meanwhile waits for the outcome.
        let mut last = self.last.lock().await;
        let now = self.clock.mono();
        if last.is_some_and(|last| now < last + APART) {
            return false;
        }
        *last = Some(now);
        let mut addresses = match resolver.lookup(server).await {
            Ok(addresses) => addresses,
            Err(_) if server.eq_ignore_ascii_case(SORACOM.0) => vec![SORACOM.1],
            Err(error) => {
                tracing::warn!("the time is not known, and {error}");
                return false;
            }
        };
        addresses.truncate(SERVERS_MAX);
        for address in addresses {
            match self.ask(SocketAddr::new(address, *port)).await {
                Ok(time) if self.clock.learn(time, Teacher::Sntp) => {
                    tracing::info!("the time was learnt from {server} ({address})");
                    return true;
                }
                Ok(_) => tracing::warn!("{server} ({address}) tells a time that cannot be"),
                Err(error) => {
                    tracing::warn!("{server} ({address}) does not tell the time: {error}")
                }
            }
        }
        false
    }

    /// The time by this server.
    async fn ask(&self, server: SocketAddr) -> io::Result<SystemTime> {
        if let Some(refusal) = self.rules.refusal("", server.ip(), false) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal));
        }
        let mut nonce = [0; 8];
        let provider = rustls::crypto::ring::default_provider();
        let filled = provider.secure_random.fill(&mut nonce);
        filled.map_err(|_| io::Error::other("no random bytes"))?;
        let socket = self.bound.udp(server).await?;
        let asked = self.clock.mono();
        self.meter.sent(socket.send(&question(nonce)).await?);
        let hearing = async {
            let mut packet = [0; 256];
            loop {
                let length = socket.recv(&mut packet).await?;
                self.meter.received(length);
                if let Some(time) = answer(&packet[..length], nonce) {
                    return Ok(time + (self.clock.mono() - asked) / 2);
                }
            }
        };
        if let Ok(heard) = tokio::time::timeout(PATIENCE, hearing).await {
            return heard;
        }
        if let Ok(socket) = socket.as_fd().try_clone_to_owned() {
            self.link.bury_question(socket);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: [u8; 8] = *b"question";

    /// What a server answers to `asked` at `time` (before 2036).
    pub(in crate::net) fn told(asked: &[u8], time: SystemTime) -> Vec<u8> {
        let since = time.duration_since(UNIX_EPOCH).unwrap();
        let mut packet = vec![0; PACKET];
        packet[0] = 0x24;
        packet[1] = 2;
        packet[24..32].copy_from_slice(&asked[40..48]);
        let seconds = u32::try_from(since.as_secs() + TO_UNIX).unwrap();
        packet[40..44].copy_from_slice(&seconds.to_be_bytes());
        let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
        packet[44..].copy_from_slice(&u32::try_from(fraction).unwrap().to_be_bytes());
        packet
    }

    #[test]
    fn the_time_of_an_answer_is_read_also_after_2036() {
        let time = UNIX_EPOCH + Duration::from_millis(1_900_000_000_500);
        let packet = told(&question(NONCE), time);
        assert_eq!(answer(&packet, NONCE), Some(time));
        let mut later = packet;
        later[40..].copy_from_slice(&[0, 0, 0, 9, 0, 0, 0, 0]);
        let wrapped = UNIX_EPOCH + Duration::from_secs((1 << 32) - TO_UNIX + 9);
        assert_eq!(answer(&later, NONCE), Some(wrapped));
    }

    #[test]
    fn a_server_is_named_with_its_port_or_without() {
        for (text, host, port) in [
            ("ntp.soracom.io", "ntp.soracom.io", 123),
            ("ntp.test:1123", "ntp.test", 1123),
            ("100.127.0.123", "100.127.0.123", 123),
            ("[fd00::1]:9", "fd00::1", 9),
            ("fd00::1", "fd00::1", 123),
        ] {
            assert_eq!(parsed(text), (host.to_owned(), port));
        }
    }

    #[test]
    fn what_is_no_answer_to_our_question_is_not_believed() {
        let time = UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let good = told(&question(NONCE), time);
        assert_eq!(answer(&good, *b"another!"), None);
        assert_eq!(answer(&good[..47], NONCE), None);
        for (at, byte) in [(0, 0x23), (0, 0xE4), (1, 0), (1, 16)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(answer(&bad, NONCE), None, "byte {at}: {byte:#x}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]
        #[test]
        fn any_bytes_are_survived(packet in proptest::collection::vec(any::<u8>(), 0..80)) {
            let nonce = packet.get(24..32).and_then(|bytes| bytes.try_into().ok());
            if let Some(time) = answer(&packet, nonce.unwrap_or(NONCE)) {
                prop_assert!(time >= UNIX_EPOCH - Duration::from_secs(86_400 * 800));
            }
        }
    }
}
