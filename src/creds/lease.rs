//! A lease: credentials with an end.
//!
//! Invariant: its times are since the machine was started, so that they mean the same in each
//! process and no setting of a clock and no sleep moves them.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// No lease is believed to live longer (STS's own maximum is 36 hours).
const LIFE_MAX: Duration = Duration::from_secs(36 * 3600);
/// A lease is given up this much before its end, or a tenth of its life if that is shorter: a
/// request that is signed now arrives later.
const MARGIN: Duration = Duration::from_secs(10);
/// A lease with a long life gets its successor this much before its end: what reads
/// `kryptonfs credentials` wants 15 minutes.
const AHEAD: Duration = Duration::from_secs(20 * 60);
/// What reads `kryptonfs credentials` looks for other ones when less is left.
const READER: Duration = Duration::from_secs(15 * 60);
/// What a lease is believed to live if nobody said.
const LIFE_UNTOLD: Duration = Duration::from_secs(15 * 60);

/// Temporary credentials. The secrets are wiped when it is dropped. It is serialized for a file in
/// memory, and for nothing else.
#[derive(Clone, Deserialize, Serialize)]
pub struct Lease {
    /// Not secret.
    pub access_key_id: String,
    /// The key that signs.
    #[serde(with = "secret")]
    pub secret_key: Zeroizing<String>,
    /// Absent on some S3-compatible stores.
    #[serde(with = "secret::maybe")]
    pub session_token: Option<Zeroizing<String>>,
    /// The Cognito identity, `region:guid`.
    pub identity: Option<String>,
    obtained: Duration,
    expires: Duration,
    /// The end in the server's time, for those who must be told a date.
    end: SystemTime,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("access_key_id", &self.access_key_id)
            .field("secret_key", &"(secret)")
            .field(
                "session_token",
                &self.session_token.as_ref().map(|_| "(secret)"),
            )
            .field("identity", &self.identity)
            .field("life", &(self.expires - self.obtained))
            .finish()
    }
}

/// Until when credentials hold, from what the server said: its time now (`Date`) and the end, both
/// its own, so that the clock of this device does not matter. What it did not say is taken for a
/// short life. `None`: they are over already.
pub(super) fn term(
    end: Option<DateTime>,
    date: Option<DateTime>,
    wall: SystemTime,
) -> Option<(Duration, SystemTime)> {
    let time = |at: DateTime| SystemTime::try_from(at).ok();
    let (end, date) = (end.and_then(time), date.and_then(time));
    match (end, date) {
        (Some(end), Some(date)) => {
            let life = end
                .duration_since(date)
                .ok()
                .filter(|life| !life.is_zero())?;
            Some((life.min(LIFE_MAX), end.min(date + LIFE_MAX)))
        }
        (Some(end), None) => Some((LIFE_UNTOLD, end)),
        (None, date) => Some((LIFE_UNTOLD, date.unwrap_or(wall) + LIFE_UNTOLD)),
    }
}

impl Lease {
    /// Credentials that were asked for at `obtained` (`Clock::boot`) and live for `life` from then
    /// on; `end` is the same in the time of day, as the issuer said it.
    #[must_use]
    pub fn new(
        access_key_id: String,
        secret_key: Zeroizing<String>,
        session_token: Option<Zeroizing<String>>,
        obtained: Duration,
        life: Duration,
        end: SystemTime,
    ) -> Self {
        Self {
            access_key_id,
            secret_key,
            session_token,
            identity: None,
            obtained,
            expires: obtained + life.min(LIFE_MAX),
            end,
        }
    }

    /// Whether it may still be handed out.
    #[must_use]
    pub fn holds(&self, now: Duration) -> bool {
        let life = self.expires - self.obtained;
        now + MARGIN.min(life / 10) < self.expires
    }

    /// Whether whoever uses it now has a successor fetched: half its life is over, and no more than
    /// `AHEAD` is left.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        let life = self.expires - self.obtained;
        now + AHEAD.min(life / 2) >= self.expires
    }

    /// How long it holds.
    #[must_use]
    pub fn left(&self, now: Duration) -> Duration {
        self.expires.saturating_sub(now)
    }

    /// Whether it may be handed to a reader that wants `READER`.
    #[must_use]
    pub(super) fn has_time_for_a_reader(&self, now: Duration) -> bool {
        now + READER < self.expires
    }

    /// As a `credential_process` prints it. `Expiration` is always there: without it the reader
    /// would take the credentials for everlasting.
    #[must_use]
    pub fn to_credential_process(&self) -> Zeroizing<String> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Printed<'a> {
            version: u32,
            access_key_id: &'a str,
            secret_access_key: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            session_token: Option<&'a str>,
            expiration: &'a str,
        }
        // Whole seconds, cut: some readers know no fraction.
        let seconds = self
            .end
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = i64::try_from(seconds.as_secs()).unwrap_or(i64::MAX);
        let expiration = DateTime::from_secs(seconds).fmt(Format::DateTime);
        let printed = Printed {
            version: 1,
            access_key_id: &self.access_key_id,
            secret_access_key: &self.secret_key,
            session_token: self.session_token.as_ref().map(|token| token.as_str()),
            expiration: expiration.as_deref().unwrap_or("1970-01-01T00:00:00Z"),
        };
        Zeroizing::new(serde_json::to_string(&printed).expect("strings and a number are JSON"))
    }
}

/// Secrets as JSON, for a file in memory; they are wiped when dropped.
mod secret {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(
        secret: &Zeroizing<String>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(from).map(Zeroizing::new)
    }

    pub(super) mod maybe {
        use super::{Deserialize, Deserializer, Serializer, Zeroizing};

        pub(in super::super) fn serialize<S: Serializer>(
            secret: &Option<Zeroizing<String>>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match secret {
                Some(secret) => to.serialize_some(secret.as_str()),
                None => to.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Zeroizing<String>>, D::Error> {
            Ok(Option::<String>::deserialize(from)?.map(Zeroizing::new))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    fn lease(life: Duration) -> Lease {
        Lease::new(
            "ASIAEXAMPLE".to_owned(),
            Zeroizing::new("s3cr3t-key".to_owned()),
            Some(Zeroizing::new("s3cr3t-token".to_owned())),
            START,
            life,
            SystemTime::UNIX_EPOCH + Duration::from_millis(1_549_701_554_701),
        )
    }

    #[test]
    fn it_holds_to_its_end_but_for_a_margin() {
        let lease = lease(Duration::from_secs(3600));
        let start = lease.obtained;
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(lease.holds(start) && !lease.is_due(start));
        assert!(lease.holds(after(3589)));
        assert!(!lease.holds(after(3590)));
        assert!(!lease.is_due(after(2399)));
        assert!(lease.is_due(after(2400)));
    }

    #[test]
    fn a_short_life_has_a_short_margin() {
        let lease = lease(Duration::from_secs(8));
        assert!(lease.holds(lease.obtained + Duration::from_secs(7)));
        assert!(!lease.holds(lease.obtained + Duration::from_millis(7200)));
    }

    #[test]
    fn a_lease_that_is_not_due_has_15_minutes_left_if_it_lives_half_an_hour() {
        for minutes in [30, 31, 45, 60, 12 * 60] {
            let lease = lease(Duration::from_secs(minutes * 60));
            let left = |now: Duration| lease.expires - now;
            let last = (0..minutes * 60)
                .map(|second| START + Duration::from_secs(second))
                .rfind(|now| !lease.is_due(*now));
            assert!(
                left(last.unwrap()) > Duration::from_secs(15 * 60),
                "{minutes}"
            );
        }
        let short = lease(Duration::from_secs(900));
        assert!(!short.is_due(START + Duration::from_secs(449)));
        assert!(short.is_due(START + Duration::from_secs(450)));
    }

    #[test]
    fn a_life_beyond_all_reason_is_cut() {
        let lease = lease(Duration::MAX);
        assert!(!lease.holds(lease.obtained + LIFE_MAX));
    }

    #[test]
    fn the_life_is_the_difference_of_two_times_of_the_server() {
        let at = |seconds| Some(DateTime::from_secs(seconds));
        let wall = SystemTime::UNIX_EPOCH;
        let life = |end, date| term(end, date, wall).map(|(life, _)| life.as_secs());
        assert_eq!(life(at(1_549_701_554), at(1_549_697_954)), Some(3600));
        assert_eq!(life(at(1_549_701_554), at(1_549_701_554)), None, "over");
        assert_eq!(life(at(1_549_701_554), at(1_549_701_555)), None, "over");
        assert_eq!(life(at(1_549_701_554), None), Some(900));
        assert_eq!(life(None, at(1_549_701_554)), Some(900));
        assert_eq!(life(None, None), Some(900));
        assert_eq!(life(at(99_999_999_999), at(0)), Some(36 * 3600));
        let (_, end) = term(None, at(1000), wall).unwrap();
        assert_eq!(end, SystemTime::UNIX_EPOCH + Duration::from_secs(1900));
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", lease(Duration::from_secs(60)));
        assert!(
            text.contains("ASIAEXAMPLE") && !text.contains("s3cr3t"),
            "{text}"
        );
    }

    #[test]
    fn credential_process_gets_the_contract_word_for_word() {
        let mut lease = lease(Duration::from_secs(60));
        assert_eq!(
            lease.to_credential_process().as_str(),
            r#"{"Version":1,"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"s3cr3t-key","SessionToken":"s3cr3t-token","Expiration":"2019-02-09T08:39:14Z"}"#
        );
        lease.session_token = None;
        assert_eq!(
            lease.to_credential_process().as_str(),
            r#"{"Version":1,"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"s3cr3t-key","Expiration":"2019-02-09T08:39:14Z"}"#
        );
    }
}
