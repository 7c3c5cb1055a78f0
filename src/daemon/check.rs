//! One question to the bucket before the mount: a definite no fails it, silence does not.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Place;
use crate::creds::{CredsError, Leases};
use crate::store::{self, ListRequest, ObjectStore, StoreError};

/// No mount waits longer for the network.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where something waits to be sent, its reader is not kept longer from it.
const PATIENCE_PENDING: Duration = Duration::from_secs(1);

/// What the bucket said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It can be listed.
    Fine,
    /// Nobody answers: mount all the same.
    Offline(String),
    /// It will not work: do not mount. One line with the cure.
    Refused(String),
}

/// Takes a lease and lists one key. `is_pending`: something waits to be sent.
pub(super) async fn bucket(
    place: &Place,
    store: &Arc<dyn ObjectStore>,
    leases: &Arc<dyn Leases>,
    is_pending: bool,
) -> Verdict {
    let patience = if is_pending {
        PATIENCE_PENDING
    } else {
        PATIENCE
    };
    let asking = async {
        match leases.lease().await {
            Err(CredsError::Silent(why)) => return Verdict::Offline(why),
            Err(CredsError::Refused(why)) => return no_lease(&why),
            Ok(_) => {}
        }
        let request = ListRequest {
            max_keys: 1,
            ..ListRequest::default()
        };
        verdict(place, store.list(&request).await.map(drop))
    };
    match tokio::time::timeout(patience, asking).await {
        Ok(verdict) => verdict,
        Err(_) => Verdict::Offline(format!("no answer in {} s", patience.as_secs())),
    }
}

fn no_lease(why: &str) -> Verdict {
    Verdict::Refused(format!("no credentials: {why}"))
}

fn verdict(place: &Place, answer: store::Result<()>) -> Verdict {
    let Err(error) = answer else {
        return Verdict::Fine;
    };
    let bucket = &place.bucket;
    match &error {
        StoreError::NoSuchBucket | StoreError::NotFound => Verdict::Refused(format!(
            "there is no bucket {bucket}: check its name, region and endpoint_url"
        )),
        StoreError::WrongRegion(Some(region)) => Verdict::Refused(format!(
            "the bucket {bucket} is in another region: say region={region}"
        )),
        StoreError::WrongRegion(None) => Verdict::Refused(format!(
            "the bucket {bucket} is in another region: say region=NAME"
        )),
        StoreError::AccessDenied(why) => Verdict::Refused(format!(
            "{place} may not be listed ({why}): s3:ListBucket there must be allowed by the role, the \
             bucket's policy and the VPC endpoint's"
        )),
        StoreError::Credentials(why) => {
            Verdict::Refused(format!("S3 does not take the credentials: {why}"))
        }
        StoreError::Invalid(why) | StoreError::NotImplemented(why) | StoreError::Quota(why) => {
            Verdict::Refused(format!(
                "the server cannot list {place} ({why}): check endpoint_url, path_style and region"
            ))
        }
        StoreError::NoCredentials(_)
        | StoreError::NotModified
        | StoreError::Stale
        | StoreError::Precondition
        | StoreError::Conflict
        | StoreError::NoSuchUpload
        | StoreError::Archived
        | StoreError::BadDigest
        | StoreError::Throttled
        | StoreError::Link(_)
        | StoreError::NotClosed(_)
        | StoreError::Deadline
        | StoreError::Disk(_)
        | StoreError::BadAnswer(_) => Verdict::Offline(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::creds::Lease;
    use crate::store::twin::Twin;

    fn said(answer: store::Result<()>) -> Verdict {
        verdict(&Place::parse("s3://bucket/pre").unwrap(), answer)
    }

    #[test]
    fn a_definite_no_is_refused_with_its_cure() {
        for (error, words) in [
            (StoreError::NoSuchBucket, ["bucket", "name"]),
            (
                StoreError::WrongRegion(Some("eu-north-1".into())),
                ["region=eu-north-1", "bucket"],
            ),
            (StoreError::WrongRegion(None), ["region=", "bucket"]),
            (
                StoreError::AccessDenied("AccessDenied: no".into()),
                ["AccessDenied", "s3:ListBucket"],
            ),
            (
                StoreError::Credentials("InvalidAccessKeyId: no".into()),
                ["InvalidAccessKeyId", "credentials"],
            ),
            (StoreError::Invalid("400".into()), ["endpoint_url", "400"]),
        ] {
            let Verdict::Refused(line) = said(Err(error.clone())) else {
                panic!("{error:?} is no refusal");
            };
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
            assert!(!line.contains('\n'));
        }
        let Verdict::Refused(line) = no_lease("Krypton says AUM0001") else {
            panic!("no refusal");
        };
        assert_eq!(line, "no credentials: Krypton says AUM0001");
    }

    /// Krypton, behind a link that swallows everything.
    #[derive(Debug)]
    struct Swallowed;

    #[async_trait::async_trait]
    impl Leases for Swallowed {
        async fn lease(&self) -> Result<Arc<Lease>, CredsError> {
            std::future::pending().await
        }

        fn refused(&self, _access_key_id: &str) {}
    }

    #[tokio::test]
    async fn a_silent_link_keeps_nobody_for_long_from_what_waits_to_be_sent() {
        let place = Place::parse("s3://bucket/pre").unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(Twin::new());
        let leases: Arc<dyn Leases> = Arc::new(Swallowed);
        let verdict = bucket(&place, &store, &leases, true).await;
        assert_eq!(verdict, Verdict::Offline("no answer in 1 s".into()));
    }

    #[test]
    fn silence_and_what_passes_mounts_offline() {
        for error in [
            StoreError::Link("refused".into()),
            StoreError::NotClosed("outside was read".into()),
            StoreError::Deadline,
            StoreError::NoCredentials("silent".into()),
            StoreError::Throttled,
            StoreError::BadAnswer("a portal's page".into()),
        ] {
            assert!(matches!(said(Err(error)), Verdict::Offline(_)));
        }
        assert_eq!(said(Ok(())), Verdict::Fine);
    }
}
