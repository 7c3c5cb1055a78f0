//! The believed time, for those who check certificates and sign; and what their answers teach.
//!
//! Invariant: the `Date` of an answer is learnt only if it came over TLS, whose certificate was
//! verified before.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_async::time::TimeSource;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use http::header::DATE;
use http::uri::Scheme;
use http::{HeaderMap, Uri};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::clock::Clock as _;
use crate::clock::believed::{Believed, Teacher};

/// The clock of a `Net`.
#[derive(Clone, Debug)]
pub(super) struct Time(pub(super) Arc<Believed>);

impl Time {
    /// Learns from the head of an answer to a request for `uri`.
    pub(super) fn hear(&self, uri: &Uri, headers: &HeaderMap) {
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return;
        }
        let text = headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = text.and_then(|text| DateTime::from_str(text, Format::HttpDate).ok());
        // It was cut to the second, so half a second more is nearer, on average.
        let said = date.and_then(|date| SystemTime::try_from(date).ok());
        if let Some(said) = said {
            self.0
                .learn(said + Duration::from_millis(500), Teacher::Verified);
        }
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.wall().duration_since(UNIX_EPOCH);
        since.ok().map(UnixTime::since_unix_epoch)
    }
}

impl TimeSource for Time {
    fn now(&self) -> SystemTime {
        self.0.wall()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SharedClock};

    #[test]
    fn the_date_of_a_verified_answer_is_learnt_and_no_others() {
        let system: SharedClock = ManualClock::at(UNIX_EPOCH);
        let time = Time(Arc::new(Believed::over(system, UNIX_EPOCH)));
        let mut headers = HeaderMap::new();
        headers.insert(DATE, "Fri, 03 Jan 2031 04:05:06 GMT".parse().unwrap());
        time.hear(&"http://s3.test/x".parse().unwrap(), &headers);
        time.hear(&"/x".parse().unwrap(), &headers);
        assert!(time.0.to_keep().is_none());
        time.hear(&"https://s3.test/x".parse().unwrap(), &headers);
        let kept = time.0.to_keep().unwrap();
        let since = kept.duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(since.as_secs(), 1_925_179_506);
        assert_eq!(time.current_time().unwrap().as_secs(), 1_925_179_506);
        headers.insert(DATE, "soon".parse().unwrap());
        time.hear(&"https://s3.test/x".parse().unwrap(), &headers);
        assert_eq!(time.0.to_keep(), Some(kept));
    }
}
