//! What is to go wrong, on command.
//!
//! Invariants:
//! - nothing goes wrong by itself; a fault hits exactly the requests it names, in their order of
//!   arrival, and a request is hit by at most one (the first that matches);
//! - a delay or a silence never outlives the simulation.

use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::count::Service;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The operation it hits (`PutObject`, ..., `Krypton`, `Cognito`); `*`: any of S3's.
    pub operation: String,
    /// Only requests whose key (or path) contains this.
    #[serde(default)]
    pub key: Option<String>,
    /// So many matching requests pass first.
    #[serde(default)]
    pub skip: u64,
    /// So many are hit then.
    #[serde(default = "once")]
    pub times: u64,
    /// What happens to them.
    pub action: Action,
}

fn once() -> u64 {
    1
}

impl Fault {
    /// The next request of that operation.
    #[must_use]
    pub fn next(operation: &str, action: Action) -> Self {
        Self {
            operation: operation.to_owned(),
            key: None,
            skip: 0,
            times: 1,
            action,
        }
    }

    /// Every request of that operation, until told otherwise.
    #[must_use]
    pub fn every(operation: &str, action: Action) -> Self {
        Self {
            times: u64::MAX,
            ..Self::next(operation, action)
        }
    }

    /// Refuses the next request with a status and a code of S3 (Krypton, Cognito).
    #[must_use]
    pub fn refuse(operation: &str, status: u16, code: &str) -> Self {
        let action = Action::Answer {
            status,
            code: code.to_owned(),
            message: String::new(),
        };
        Self::next(operation, action)
    }

    fn matches(&self, operation: &str, target: &str) -> bool {
        let named = match self.operation.as_str() {
            "*" => !matches!(operation, "Krypton" | "Cognito"),
            name => name == operation,
        };
        named && self.key.as_ref().is_none_or(|key| target.contains(key))
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is not processed, but answered with this error in the service's own format.
    Answer {
        /// HTTP status.
        status: u16,
        /// `SlowDown`, `ExpiredToken`, ...
        code: String,
        /// For people.
        #[serde(default)]
        message: String,
    },
    /// It is not processed, but answered with this.
    Raw {
        /// HTTP status.
        status: u16,
        /// Header names and values.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// As it is.
        #[serde(default)]
        body: String,
    },
    /// It is processed after so many milliseconds.
    Delay(u64),
    /// It is processed, and answered after so many milliseconds.
    LateAnswer(u64),
    /// The connection ends before it is processed.
    DropBefore,
    /// It is processed, and the connection ends instead of an answer.
    DropAfter,
    /// The connection ends after so many bytes of the answer's body.
    Truncate(u64),
    /// The answer's body stops after so many bytes, for that long (then it goes on) or for good.
    Stall {
        /// Bytes that come before.
        after: u64,
        /// Milliseconds; `None`: until the client gives up.
        #[serde(default)]
        for_ms: Option<u64>,
    },
    /// It is processed; the answer carries this header instead of its own (`etag`,
    /// `content-range`, `x-amz-checksum-crc64nvme`, ...).
    Header {
        /// In lower case.
        name: String,
        /// `None`: the header is taken away.
        #[serde(default)]
        value: Option<String>,
    },
    /// One byte of the answer's body, at this offset, is another one.
    Corrupt(u64),
    /// It is processed; the answer's body is endless instead of its own.
    Endless,
}

/// How Krypton writes `expiration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiration {
    /// A whole number of milliseconds since 1970.
    #[default]
    EpochMillis,
    /// A whole number of seconds since 1970.
    EpochSeconds,
    /// `2026-01-01T00:00:00.000Z`.
    Iso8601,
    /// Not at all.
    Absent,
}

/// One command, as the control endpoint takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Adds a fault.
    Fault(Fault),
    /// Takes all faults away and ends all silences.
    Clear,
    /// Nothing is accepted, read or written on that listener, until told otherwise.
    Silence {
        /// Which.
        service: Service,
        /// Begins or ends.
        on: bool,
    },
    /// Ends every connection there is now.
    Cut,
    /// Ends all keys and tokens issued so far.
    ExpireKeys,
    /// Life of the keys issued from now on, in milliseconds.
    LeaseLife(u64),
    /// How Krypton writes `expiration` from now on.
    Expiration(Expiration),
}

/// The faults that are commanded.
#[derive(Debug)]
pub struct Faults {
    planned: Mutex<Vec<Fault>>,
    expiration: Mutex<Expiration>,
    lease_life: Mutex<Duration>,
    silences: [watch::Sender<bool>; 3],
    cut: watch::Sender<u64>,
}

impl Faults {
    pub(super) fn new(lease_life: Duration) -> Self {
        Self {
            planned: Mutex::default(),
            expiration: Mutex::default(),
            lease_life: Mutex::new(lease_life),
            silences: [(); 3].map(|()| watch::Sender::new(false)),
            cut: watch::Sender::new(0),
        }
    }

    /// Adds a fault behind those that are there. One that hits no request is none.
    pub fn add(&self, fault: Fault) {
        if fault.times > 0 {
            self.planned.lock().push(fault);
        }
    }

    /// Takes all faults away, ends all silences, and lets Krypton write `expiration` as usual.
    pub fn clear(&self) {
        self.planned.lock().clear();
        *self.expiration.lock() = Expiration::default();
        for silence in &self.silences {
            silence.send_replace(false);
        }
    }

    /// The faults that have not been used up.
    #[must_use]
    pub fn planned(&self) -> Vec<Fault> {
        self.planned.lock().clone()
    }

    /// Nothing is accepted, read or written on that listener while it is on.
    pub fn silence(&self, service: Service, on: bool) {
        self.silence_of(service).send_replace(on);
    }

    /// Ends every connection there is now.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Life of the keys issued from now on.
    pub fn set_lease_life(&self, life: Duration) {
        *self.lease_life.lock() = life;
    }

    /// How Krypton writes `expiration` from now on.
    pub fn set_expiration(&self, expiration: Expiration) {
        *self.expiration.lock() = expiration;
    }

    pub(super) fn lease_life(&self) -> Duration {
        *self.lease_life.lock()
    }

    pub(super) fn expiration(&self) -> Expiration {
        *self.expiration.lock()
    }

    fn silence_of(&self, service: Service) -> &watch::Sender<bool> {
        match service {
            Service::S3 => &self.silences[0],
            Service::Krypton => &self.silences[1],
            Service::Cognito => &self.silences[2],
        }
    }

    pub(super) fn watch_silence(&self, service: Service) -> watch::Receiver<bool> {
        self.silence_of(service).subscribe()
    }

    pub(super) fn watch_cut(&self) -> watch::Receiver<u64> {
        self.cut.subscribe()
    }

    /// What is to happen to a request that has arrived.
    pub(super) fn strike(&self, operation: &str, target: &str) -> Option<Action> {
        let mut planned = self.planned.lock();
        let mut hit = None;
        for fault in planned.iter_mut() {
            if !fault.matches(operation, target) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if hit.is_none() {
                fault.times -= 1;
                hit = Some(fault.action.clone());
            }
        }
        planned.retain(|fault| fault.times > 0);
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults() -> Faults {
        Faults::new(Duration::from_secs(1))
    }

    #[test]
    fn a_fault_hits_the_requests_it_names_and_no_other() {
        let faults = faults();
        faults.add(Fault {
            skip: 1,
            times: 2,
            key: Some("a".to_owned()),
            ..Fault::next("PutObject", Action::DropBefore)
        });
        let hit = |operation, key| faults.strike(operation, key).is_some();
        assert!(!hit("GetObject", "a"));
        assert!(!hit("PutObject", "b"));
        assert!(!hit("PutObject", "a1"));
        assert!(hit("PutObject", "a2"));
        assert!(hit("PutObject", "xa"));
        assert!(!hit("PutObject", "a4"));
        assert_eq!(faults.planned(), []);
    }

    #[test]
    fn any_operation_means_any_of_s3() {
        let faults = faults();
        faults.add(Fault::every("*", Action::DropAfter));
        assert_eq!(faults.strike("Krypton", ""), None);
        assert_eq!(faults.strike("HeadObject", ""), Some(Action::DropAfter));
    }

    #[test]
    fn the_first_of_two_faults_hits_and_the_second_waits() {
        let faults = faults();
        faults.add(Fault::next("HeadObject", Action::DropAfter));
        faults.add(Fault::next("HeadObject", Action::DropBefore));
        assert_eq!(faults.strike("HeadObject", ""), Some(Action::DropAfter));
        assert_eq!(faults.strike("HeadObject", ""), Some(Action::DropBefore));
        assert_eq!(faults.strike("HeadObject", ""), None);
    }

    #[test]
    fn commands_are_read_as_the_notes_say() {
        let text = r#"[
            {"fault": {"operation": "PutObject", "action":
                {"answer": {"status": 503, "code": "SlowDown"}}}},
            {"fault": {"operation": "GetObject", "times": 3, "action": {"truncate": 10}}},
            {"silence": {"service": "s3", "on": true}},
            {"expiration": "iso8601"}, {"lease_life": 500}, "expire_keys", "cut", "clear"
        ]"#;
        let commands: Vec<Command> = serde_json::from_str(text).unwrap();
        let refuse = Fault::refuse("PutObject", 503, "SlowDown");
        assert_eq!(commands[0], Command::Fault(refuse));
        assert_eq!(commands.len(), 8);
    }
}
