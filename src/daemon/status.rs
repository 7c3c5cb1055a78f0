//! What a mount tells of itself: one value, made by the daemon, sent over the control socket as JSON,
//! shown by `kryptonfs status`.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::net::{History, LinkState};
use crate::store::closed::Standing;

/// The state of a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `s3://bucket/prefix`.
    pub source: String,
    /// The mountpoint.
    pub dir: String,
    /// Of the daemon.
    pub pid: u32,
    /// Since when.
    pub mounted_seconds: u64,
    /// The interface and the last dial, in words.
    pub link: String,
    /// Changes that are not in S3 yet.
    pub pending: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// How long the oldest of them has waited.
    pub oldest_seconds: Option<u64>,
    /// Changes that are being sent now.
    pub in_flight: u64,
    /// Changes S3 refuses for good.
    pub refused: Vec<Refused>,
    /// What went wrong last.
    pub last_error: Option<LastError>,
    /// Bytes of files that were never closed before a crash: kept, not published.
    pub partials: Vec<Partial>,
    /// Names that were made before a crash and neither closed nor fsynced, and none of whose bytes
    /// had left memory: they are not there any more.
    #[serde(default)]
    pub lost: Vec<String>,
    /// What could not be read in the spool and was kept aside.
    pub set_aside: Vec<String>,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// Its cap.
    pub spool_max: u64,
    /// Bytes in the cache.
    pub cache_bytes: u64,
    /// Its cap.
    pub cache_max: u64,
    /// Bytes handed to sockets since the mount.
    pub sent_bytes: u64,
    /// Bytes that came out of sockets since the mount.
    pub received_bytes: u64,
    /// Requests to S3 since the mount.
    pub requests: u64,
    /// The folder of its spool.
    #[serde(default)]
    pub spool: String,
    /// It is no mount, but what lies in a spool: nothing is known but what is unsent.
    #[serde(default)]
    pub unmounted: bool,
    /// Of a spool: some process has it, and does not answer.
    #[serde(default)]
    pub in_use: bool,
    /// What was written here beside a version that somebody else wrote, and is not in S3 yet.
    #[serde(default)]
    pub conflicts: Vec<String>,
    /// Answers given with what was known before, since the bucket was silent.
    #[serde(default)]
    pub stale_answers: u64,
    /// The Cognito identity that what is in the spool is sent with, as far as it is known.
    #[serde(default)]
    pub identity: Option<String>,
    /// Why nothing is sent before somebody decides.
    #[serde(default)]
    pub stopped: Option<String>,
    /// Whether the path is proven closed, in words; empty: nobody asks (`closed_check=off`).
    #[serde(default)]
    pub closed: String,
    /// The interface everything goes through.
    #[serde(default)]
    pub interface: Option<String>,
    /// Whether it is there and up; `None`: none is named, or the kernel does not say.
    #[serde(default)]
    pub link_up: Option<bool>,
    /// The addresses it has now.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// How long the credentials hold; `None`: there are none just now.
    #[serde(default)]
    pub lease_seconds: Option<u64>,
    /// Names that lie in the directory under the mount: not seen while it is there, and never sent.
    #[serde(default)]
    pub covered: Vec<String>,
    /// Those of the pending changes that are contents of files.
    #[serde(default)]
    pub pending_files: u64,
    /// Contents that are being sent.
    #[serde(default)]
    pub sending: Vec<Sending>,
    /// Bytes that went up in a second, of late.
    #[serde(default)]
    pub rate: u64,
    /// When all is sent, if that goes on as of late.
    #[serde(default)]
    pub eta_seconds: Option<u64>,
    /// Bytes of what was sent in vain since the mount: its request failed, or nothing came of it.
    #[serde(default)]
    pub resent_bytes: u64,
    /// The bucket keeps versions: each upload of what is there already is billed as one more.
    #[serde(default)]
    pub versioned: bool,
}

impl Status {
    /// Whether somebody has to look: S3 refuses something for good, bytes were set aside, or nothing
    /// is sent.
    #[must_use]
    pub fn in_trouble(&self) -> bool {
        self.stopped.is_some()
            || !self.refused.is_empty()
            || !self.set_aside.is_empty()
            || !self.partials.is_empty()
    }
}

/// A change S3 refuses for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its name below the mount.
    pub name: String,
    /// What S3 said.
    pub why: String,
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// In words.
    pub text: String,
    /// How long ago.
    pub seconds_ago: u64,
}

/// A content on its way to S3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// Its name below the mount.
    pub name: String,
    /// Bytes of it that go over the line.
    pub bytes: u64,
    /// Those that went.
    pub sent: u64,
}

/// Seconds until `pending` bytes are sent, of which those of `sending` that went are gone already.
pub(super) fn eta(pending: u64, sending: &[Sending], rate: u64) -> Option<u64> {
    let went: u64 = sending.iter().map(|one| one.sent).sum();
    let left = pending.saturating_sub(went);
    (rate > 0 && pending > 0).then(|| left.div_ceil(rate.max(1)))
}

/// Bytes of a file that was never closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// The name it was written for.
    pub name: String,
    /// How many.
    pub bytes: u64,
}

/// The link in words, from what is known without sending anything.
pub(super) fn link_in_words(
    interface: Option<&str>,
    state: LinkState,
    history: &History,
    now: Instant,
) -> String {
    let name = interface.unwrap_or("the network");
    let ago = |then: Instant| ago(now.saturating_duration_since(then));
    match state {
        LinkState::Absent => return format!("down: there is no interface {name}"),
        LinkState::Down => return format!("down: {name} is down"),
        LinkState::Up | LinkState::Unknown => {}
    }
    match (history.last_ok, &history.last_error) {
        (ok, Some((failed, why))) if ok.is_none_or(|ok| ok < *failed) => {
            format!("no answer {}: {why}", ago(*failed))
        }
        (Some(ok), _) => format!("up: last connected {}", ago(ok)),
        (None, _) => "not used yet".to_owned(),
    }
}

/// What `closed_check` knows; `None`: it is off.
#[derive(Debug)]
pub(super) struct Closed(pub(super) Option<Standing>);

impl Closed {
    /// Why nothing is sent.
    pub(super) fn stops(&self) -> Option<String> {
        match &self.0 {
            Some(Standing::Stopped(why, _)) => {
                Some(format!("the path is not proven closed: {why}"))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => Ok(()),
            Some(Standing::Unknown) => write!(f, "not asked yet: the next request asks first"),
            Some(Standing::Proven(age)) => write!(f, "proven {}, by S3's own word", ago(*age)),
            Some(Standing::Stopped(_, age)) => write!(f, "NOT PROVEN, asked {}", ago(*age)),
        }
    }
}

/// `just now`, `5 s ago`, `3 min ago`, `2 h ago`, `4 d ago`.
#[must_use]
pub fn ago(age: Duration) -> String {
    match age.as_secs() {
        0 => "just now".to_owned(),
        seconds => format!("{} ago", lasting(seconds)),
    }
}

/// `5 s`, `3 min`, `2 h`, `4 d`.
#[must_use]
pub fn lasting(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_told_by_the_interface_first_and_then_by_the_last_dial() {
        let now = Instant::now();
        let before = now.checked_sub(Duration::from_secs(30)).unwrap();
        let told = |state, last_ok, last_error: Option<Instant>| {
            let last_error = last_error.map(|at| (at, "refused".to_owned()));
            let history = History {
                last_ok,
                last_error,
            };
            link_in_words(Some("wwan0"), state, &history, now)
        };
        assert!(told(LinkState::Down, Some(now), None).contains("wwan0 is down"));
        assert!(told(LinkState::Absent, None, None).contains("no interface wwan0"));
        assert_eq!(told(LinkState::Up, None, None), "not used yet");
        assert_eq!(
            told(LinkState::Up, Some(before), None),
            "up: last connected 30 s ago"
        );
        assert_eq!(
            told(LinkState::Up, Some(before), Some(now)),
            "no answer just now: refused"
        );
        assert!(told(LinkState::Unknown, Some(now), Some(before)).starts_with("up"));
    }

    #[test]
    fn the_end_is_told_from_what_is_left_and_the_speed_of_late() {
        let sending = |sent| Sending {
            name: "f".into(),
            bytes: 600,
            sent,
        };
        assert_eq!(eta(1000, &[sending(100), sending(400)], 10), Some(50));
        assert_eq!(eta(1000, &[], 0), None, "nothing moves");
        assert_eq!(eta(0, &[], 10), None, "nothing waits");
        assert_eq!(eta(100, &[sending(600)], 7), Some(0));
    }

    #[test]
    fn times_are_told_in_one_unit() {
        let told = [0, 5, 119, 120, 7_199, 7_200, 200_000].map(lasting);
        assert_eq!(
            told,
            ["0 s", "5 s", "119 s", "2 min", "119 min", "2 h", "2 d"]
        );
    }
}
