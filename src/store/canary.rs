//! The canary pair: two small objects that the bucket's policy treats in opposite ways. One may be
//! read only by what comes through the VPC endpoint, the other only by what does not. That the same
//! credentials read the first and are refused the second is S3's own word that this very way leads
//! through the endpoint (`packaging/aws/kryptonfs.yaml` has the policy).
//!
//! Invariant: asking is two GetObject at most, of objects of a few bytes; nothing is repeated.

use super::{Download, ObjectStore, Payload, StoreError};
use crate::types::{Headers, ObjectKey, Precondition};

/// Readable only through the endpoint. A full key: the pair is the bucket's, not a prefix's.
pub const INSIDE: &str = ".kryptonfs-canary/inside";
/// Readable only elsewhere.
pub const OUTSIDE: &str = ".kryptonfs-canary/outside";
/// No canary is longer.
const BODY_MAX: usize = 4096;

/// What S3 said of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It leads through the endpoint.
    Closed,
    /// It does not: one line.
    Open(String),
    /// Both are refused, which says nothing of the way: one line.
    Unproven(String),
    /// There is no such pair: one line.
    Unset(String),
    /// No answer: nothing is known.
    Unknown(StoreError),
}

/// How a canary answered.
enum Said {
    Read,
    Refused(String),
    Absent,
}

async fn said(bucket: &dyn ObjectStore, key: &str) -> Result<Said, StoreError> {
    match bucket.get(&ObjectKey::new(key), None, None).await {
        Ok(download) => read(download).await.map(|()| Said::Read),
        Err(StoreError::AccessDenied(why)) => Ok(Said::Refused(why)),
        Err(StoreError::NotFound) => Ok(Said::Absent),
        Err(error) => Err(error),
    }
}

/// To its end, so that the connection can carry the next request.
async fn read(mut download: Download) -> Result<(), StoreError> {
    let mut length = 0;
    while let Some(piece) = download.body.next().await {
        length += piece?.len();
        if length > BODY_MAX {
            return Err(StoreError::BadAnswer("a canary of many bytes".to_owned()));
        }
    }
    Ok(())
}

/// Asks S3 for both. `bucket` is the whole bucket.
pub async fn ask(bucket: &dyn ObjectStore) -> Proof {
    let inside = match said(bucket, INSIDE).await {
        Ok(Said::Absent) => return unset(INSIDE),
        Ok(said) => said,
        Err(error) => return Proof::Unknown(error),
    };
    let outside = match said(bucket, OUTSIDE).await {
        Ok(Said::Absent) => return unset(OUTSIDE),
        Ok(said) => said,
        Err(error) => return Proof::Unknown(error),
    };
    match (inside, outside) {
        (Said::Read, Said::Refused(_)) => Proof::Closed,
        (Said::Refused(why), Said::Read) => Proof::Open(format!(
            "S3 takes this way for one that is not through the endpoint ({INSIDE}: {why})"
        )),
        (Said::Read, _) => Proof::Open(format!(
            "{OUTSIDE} was read, which must be refused to what comes through the endpoint"
        )),
        (Said::Refused(why), _) => Proof::Unproven(format!(
            "both canaries are refused ({why}): they are not there, or the role may not read them, or \
             this way is not through the endpoint"
        )),
        (Said::Absent, _) => unset(INSIDE),
    }
}

fn unset(key: &str) -> Proof {
    Proof::Unset(format!("there is no {key}"))
}

/// Puts both, where they are not yet.
///
/// # Errors
/// The first that cannot be put.
pub async fn set_up(bucket: &dyn ObjectStore) -> Result<(), StoreError> {
    for key in [INSIDE, OUTSIDE] {
        let payload = Payload::of(format!("{key}\n").into());
        let headers = Headers::default();
        let key = ObjectKey::new(key);
        let put = bucket.put(&key, &payload, &headers, &Precondition::IfAbsent);
        match put.await {
            Ok(_) | Err(StoreError::Precondition) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Op;
    use super::super::fault::{Fault, Kind};
    use super::super::twin::Twin;
    use super::*;

    /// A bucket that refuses the first or the second read.
    async fn asked(set_up: bool, refused: &[u64]) -> (Proof, u64) {
        let twin = Twin::new();
        if set_up {
            super::set_up(&twin).await.unwrap();
        }
        let before = twin.counts();
        let (store, fault) = Fault::over(Arc::new(twin.clone()));
        for nth in refused {
            let denied = StoreError::AccessDenied("denied".to_owned());
            fault.on(Op::Get, *nth, Kind::Before(denied));
        }
        let proof = ask(&*store).await;
        (
            proof,
            twin.counts().since(&before).of(Op::Get) + refused.len() as u64,
        )
    }

    #[tokio::test]
    async fn only_reading_the_one_and_being_refused_the_other_is_closed_and_costs_two_requests() {
        assert_eq!(asked(true, &[2]).await, (Proof::Closed, 2));
        let (open, _) = asked(true, &[1]).await;
        assert!(
            matches!(&open, Proof::Open(why) if why.contains("not through the endpoint")),
            "{open:?}"
        );
        let (open, _) = asked(true, &[]).await;
        assert!(
            matches!(&open, Proof::Open(why) if why.contains("outside was read")),
            "{open:?}"
        );
        let (open, _) = asked(true, &[1, 2]).await;
        assert!(
            matches!(&open, Proof::Unproven(why) if why.contains("both")),
            "{open:?}"
        );
    }

    #[tokio::test]
    async fn without_a_pair_it_says_so_and_silence_is_no_answer() {
        let (unset, requests) = asked(false, &[]).await;
        assert!(matches!(unset, Proof::Unset(_)), "{unset:?}");
        assert_eq!(requests, 1);
        let (store, fault) = Fault::over(Arc::new(Twin::new()));
        fault.link_down(true);
        assert!(matches!(
            ask(&*store).await,
            Proof::Unknown(StoreError::Link(_))
        ));
    }

    #[tokio::test]
    async fn what_was_set_up_is_left_as_it_is() {
        let twin = Twin::new();
        let older = twin.put_behind(INSIDE, "an older one", Headers::default());
        set_up(&twin).await.unwrap();
        set_up(&twin).await.unwrap();
        assert_eq!(twin.object(INSIDE).unwrap().1.id.etag, older);
        assert_eq!(twin.keys(), [INSIDE, OUTSIDE]);
    }
}
