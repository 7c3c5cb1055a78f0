//! What went over the wire, exactly: requests by operation, bytes at the socket, and a log of the
//! last requests.
//!
//! Invariants:
//! - bytes are those of the TCP socket, TLS included; the payload of an operation is that of its
//!   HTTP bodies;
//! - whoever has seen an answer finds it counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

/// Requests that the log remembers.
const LOGGED: usize = 4096;

/// Of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCount {
    /// Requests whose head has arrived.
    pub requests: u64,
    /// Of those, answered with a status of 400 or more, or not at all.
    pub failed: u64,
    /// Bytes of their bodies.
    pub payload_in: u64,
    /// Bytes of the bodies of their answers.
    pub payload_out: u64,
}

/// Of one listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireCount {
    /// Connections accepted.
    pub connections: u64,
    /// Bytes read from sockets.
    pub received: u64,
    /// Bytes written to sockets.
    pub sent: u64,
}

/// All that was counted since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// By S3's name of the operation; `Krypton` and `Cognito` for theirs.
    pub operations: BTreeMap<String, OperationCount>,
    /// At the S3 listener.
    pub s3: WireCount,
    /// At the Krypton listener.
    pub krypton: WireCount,
    /// At the Cognito listener.
    pub cognito: WireCount,
}

impl Counts {
    /// Requests of that operation.
    #[must_use]
    pub fn requests(&self, operation: &str) -> u64 {
        self.operations
            .get(operation)
            .map_or(0, |count| count.requests)
    }

    /// Requests of all operations on S3.
    #[must_use]
    pub fn s3_requests(&self) -> u64 {
        let s3 = self.operations.iter();
        s3.filter(|(name, _)| !matches!(name.as_str(), "Krypton" | "Cognito"))
            .map(|(_, count)| count.requests)
            .sum()
    }
}

/// One request in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// Counted from the start of the simulation.
    pub number: u64,
    /// As in [`Counts`].
    pub operation: String,
    /// Bucket and key, or the path.
    pub target: String,
    /// 0: not answered (yet).
    pub status: u16,
    /// Bytes of its body so far.
    pub payload_in: u64,
    /// Bytes of its answer's body so far.
    pub payload_out: u64,
    /// What was done to it on command, if anything.
    pub fault: Option<String>,
}

/// The listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// The buckets.
    S3,
    /// The issuer of credentials.
    Krypton,
    /// The exchange of tokens for credentials.
    Cognito,
}

/// The socket counters of one listener.
#[derive(Debug, Default)]
pub(super) struct Wire {
    connections: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// Held shared around a write and its count, so that a count waits for the writes under way.
    writing: RwLock<()>,
}

impl Wire {
    pub(super) fn accepted(&self) {
        self.connections.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Writes, and counts what it says was written, as one.
    pub(super) fn send<T>(&self, write: impl FnOnce() -> T, sent: impl FnOnce(&T) -> u64) -> T {
        let _under_way = self.writing.read();
        let written = write();
        self.sent.fetch_add(sent(&written), Ordering::SeqCst);
        written
    }

    fn count(&self) -> WireCount {
        let _no_write = self.writing.write();
        WireCount {
            connections: self.connections.load(Ordering::SeqCst),
            received: self.received.load(Ordering::SeqCst),
            sent: self.sent.load(Ordering::SeqCst),
        }
    }
}

#[derive(Debug, Default)]
struct Requests {
    operations: BTreeMap<String, OperationCount>,
    log: VecDeque<Logged>,
    next: u64,
    epoch: u64,
}

/// A request that is being counted.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    number: u64,
    epoch: u64,
    operation: &'static str,
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) s3: Wire,
    pub(super) krypton: Wire,
    pub(super) cognito: Wire,
    /// What was counted before the last reset.
    zero: Mutex<[WireCount; 3]>,
    requests: Mutex<Requests>,
}

impl Counter {
    pub(super) fn wire(&self, service: Service) -> &Wire {
        match service {
            Service::S3 => &self.s3,
            Service::Krypton => &self.krypton,
            Service::Cognito => &self.cognito,
        }
    }

    fn wires(&self) -> [WireCount; 3] {
        [self.s3.count(), self.krypton.count(), self.cognito.count()]
    }

    pub(super) fn counts(&self) -> Counts {
        let [s3, krypton, cognito] = self.wires();
        let zero = *self.zero.lock();
        let since = |count: WireCount, zero: WireCount| WireCount {
            connections: count.connections - zero.connections,
            received: count.received - zero.received,
            sent: count.sent - zero.sent,
        };
        Counts {
            operations: self.requests.lock().operations.clone(),
            s3: since(s3, zero[0]),
            krypton: since(krypton, zero[1]),
            cognito: since(cognito, zero[2]),
        }
    }

    /// Begins to count anew. What is under way counts for what was.
    pub(super) fn reset(&self) {
        *self.zero.lock() = self.wires();
        let mut requests = self.requests.lock();
        requests.operations.clear();
        requests.epoch += 1;
    }

    pub(super) fn log(&self) -> Vec<Logged> {
        self.requests.lock().log.iter().cloned().collect()
    }

    /// A request's head has arrived.
    pub(super) fn begin(&self, operation: &'static str, target: String) -> Ticket {
        let mut requests = self.requests.lock();
        let number = requests.next;
        requests.next += 1;
        let count = requests.operations.entry(operation.to_owned()).or_default();
        count.requests += 1;
        if requests.log.len() == LOGGED {
            requests.log.pop_front();
        }
        requests.log.push_back(Logged {
            number,
            operation: operation.to_owned(),
            target,
            ..Logged::default()
        });
        Ticket {
            number,
            epoch: requests.epoch,
            operation,
        }
    }

    fn update(
        &self,
        ticket: &Ticket,
        count: impl FnOnce(&mut OperationCount),
        log: impl FnOnce(&mut Logged),
    ) {
        let mut requests = self.requests.lock();
        if requests.epoch == ticket.epoch {
            count(
                requests
                    .operations
                    .entry(ticket.operation.to_owned())
                    .or_default(),
            );
        }
        let first = requests.log.front().map_or(0, |logged| logged.number);
        let at = ticket.number.checked_sub(first);
        let at = at.and_then(|at| usize::try_from(at).ok());
        if let Some(logged) = at.and_then(|at| requests.log.get_mut(at)) {
            log(logged);
        }
    }

    /// It is answered; `None`: it will not be.
    pub(super) fn answered(&self, ticket: &Ticket, status: Option<u16>) {
        let failed = status.is_none_or(|status| status >= 400);
        self.update(
            ticket,
            |count| count.failed += u64::from(failed),
            |logged| logged.status = status.unwrap_or(0),
        );
    }

    pub(super) fn payload_in(&self, ticket: &Ticket, bytes: u64) {
        self.update(
            ticket,
            |count| count.payload_in += bytes,
            |logged| logged.payload_in += bytes,
        );
    }

    pub(super) fn payload_out(&self, ticket: &Ticket, bytes: u64) {
        self.update(
            ticket,
            |count| count.payload_out += bytes,
            |logged| logged.payload_out += bytes,
        );
    }

    pub(super) fn fault(&self, ticket: &Ticket, fault: String) {
        self.update(ticket, |_| {}, |logged| logged.fault = Some(fault));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_before_a_reset_is_not_counted_after_it() {
        let counter = Counter::default();
        let old = counter.begin("GetObject", "b/k".to_owned());
        counter.payload_out(&old, 5);
        assert_eq!(counter.counts().requests("GetObject"), 1);
        counter.reset();
        counter.payload_out(&old, 7);
        counter.answered(&old, Some(500));
        assert_eq!(counter.counts(), Counts::default());
        let logged = counter.log().pop().unwrap();
        assert_eq!((logged.payload_out, logged.status), (12, 500));
    }

    #[test]
    fn a_reset_takes_the_socket_bytes_to_zero() {
        let counter = Counter::default();
        counter.s3.accepted();
        counter.s3.received(10);
        counter.s3.send(|| 3_u64, |sent| *sent);
        let wire = counter.counts().s3;
        assert_eq!((wire.connections, wire.received, wire.sent), (1, 10, 3));
        counter.reset();
        assert_eq!(counter.counts().s3, WireCount::default());
    }

    #[test]
    fn the_log_is_bounded_and_an_old_ticket_does_not_write_into_another() {
        let counter = Counter::default();
        let first = counter.begin("PutObject", String::new());
        for _ in 0..LOGGED {
            counter.begin("GetObject", String::new());
        }
        counter.payload_in(&first, 9);
        let log = counter.log();
        assert_eq!(log.len(), LOGGED);
        assert!(log.iter().all(|logged| logged.payload_in == 0));
        assert_eq!(counter.counts().operations["PutObject"].payload_in, 9);
    }

    #[test]
    fn s3_requests_leave_the_issuers_out() {
        let counter = Counter::default();
        for operation in ["PutObject", "Krypton", "Cognito", "HeadObject"] {
            counter.begin(operation, String::new());
        }
        assert_eq!(counter.counts().s3_requests(), 2);
    }
}
