//! The bucket: is it there, in which region, may it be listed.

use std::time::Duration;

use super::Doctor;
use super::report::Row;
use crate::store::{self, ListRequest, StoreError};

/// One key is listed.
const PATIENCE: Duration = Duration::from_secs(60);

impl Doctor<'_> {
    /// Rows `bucket`, `region`, `list`, by one request.
    pub(super) async fn bucket(&mut self) {
        let rest = ["bucket", "region", "list"];
        let before = [
            "interface",
            "dns",
            "tcp",
            "tls",
            "mtu",
            "krypton",
            "cognito",
        ];
        if let Some(failed) = self.failed(&before) {
            self.skip(&rest, failed);
            return;
        }
        let request = ListRequest {
            max_keys: 1,
            ..ListRequest::default()
        };
        let listing = tokio::time::timeout(PATIENCE, self.parts.mount.list(&request)).await;
        let listed = listing.unwrap_or(Err(StoreError::Deadline)).map(drop);
        let mut rows = rows(&self.facts.bucket, &listed);
        let endpoint = self.facts.endpoint_url.as_deref().and_then(region_of);
        let learnt = self.parts.region.region();
        let given = self.facts.region.as_deref();
        if let Some(row) = region_row(endpoint, given, learnt.as_deref(), listed.is_ok()) {
            rows[1] = row;
        }
        for row in rows {
            self.add(row);
        }
    }
}

/// The region in the name of one of Amazon's endpoints.
fn region_of(url: &str) -> Option<&str> {
    let (_, host) = url.split_once("://")?;
    let host = host.split(['/', ':']).next()?;
    let host = host.strip_suffix(".cn").unwrap_or(host);
    let host = host.strip_suffix(".amazonaws.com")?;
    let host = host.strip_suffix(".vpce").unwrap_or(host);
    let (before, region) = host.rsplit_once('.')?;
    let is_s3 = before == "s3" || before.ends_with(".s3");
    is_s3.then_some(region)
}

/// The endpoint's region against the one that is signed for: it was given, or the bucket told it.
fn region_row(
    endpoint: Option<&str>,
    given: Option<&str>,
    learnt: Option<&str>,
    is_listed: bool,
) -> Option<Row> {
    let region = given.or(learnt);
    let whose = match (given, learnt) {
        (Some(region), _) => format!("region={region}"),
        (None, Some(region)) => format!("the bucket in {region}"),
        (None, None) => "no region is told".to_owned(),
    };
    match (endpoint, region) {
        (Some(named), Some(region)) if named != region => Some(Row::fail(
            "region",
            format!("endpoint_url is in {named}, but {whose}"),
            "say the bucket's region for both: an endpoint reaches no other",
        )),
        (_, Some(region)) if is_listed => {
            let by = match given {
                Some(_) => "S3 there took the request",
                None => "as the bucket itself says",
            };
            Some(Row::pass(
                "region",
                format!("{region}, as the path's: {by}"),
            ))
        }
        (_, None) if is_listed => Some(Row::pass(
            "region",
            "the server names none, and takes what is signed for us-east-1",
        )),
        _ => None,
    }
}

/// The bucket is in another region.
fn elsewhere(seen: String, region: Option<&str>) -> Row {
    let name = region.unwrap_or("NAME");
    Row::fail(
        "region",
        seen,
        format!(
            "say region={name}; a gateway endpoint reaches buckets of its own region only, so the path \
             must end there too"
        ),
    )
}

/// The three rows by what a listing answered.
fn rows(bucket: &str, listed: &store::Result<()>) -> [Row; 3] {
    let Err(error) = listed else {
        return [
            Row::pass("bucket", format!("{bucket} is there")),
            Row::skip("region", "not told"),
            Row::pass("list", "the prefix can be listed"),
        ];
    };
    let unknown = |check| Row::skip(check, "not known: see the other rows of the bucket");
    let seen = error.to_string();
    match error {
        StoreError::NoSuchBucket | StoreError::NotFound => [
            Row::fail(
                "bucket",
                format!("there is no bucket {bucket}"),
                "check its name, region and endpoint_url",
            ),
            unknown("region"),
            unknown("list"),
        ],
        StoreError::WrongRegion(region) => [
            Row::pass("bucket", format!("{bucket} is there")),
            elsewhere(seen, region.as_deref()),
            unknown("list"),
        ],
        StoreError::AccessDenied(why) => {
            let (said, cure) = why.rsplit_once("; ").unwrap_or((
                why,
                "s3:ListBucket must be allowed there by the role, the bucket's policy and the \
                 endpoint's; a role for prefixes of identities needs the mount to be in its own",
            ));
            [
                unknown("bucket"),
                unknown("region"),
                Row::fail("list", said, cure),
            ]
        }
        StoreError::Credentials(why) => {
            let (said, cure) = why.rsplit_once("; ").unwrap_or((
                why,
                "the credentials are of another account or server: check krypton_url and endpoint_url",
            ));
            [
                Row::fail(
                    "bucket",
                    format!("S3 does not take the credentials: {said}"),
                    cure,
                ),
                unknown("region"),
                unknown("list"),
            ]
        }
        _ => [
            Row::fail(
                "bucket",
                seen,
                "what answers may not be S3, or is in trouble: check endpoint_url, and run this again",
            ),
            unknown("region"),
            unknown("list"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    fn verdicts(listed: store::Result<()>) -> [Verdict; 3] {
        rows("b", &listed).map(|row| row.verdict)
    }

    #[test]
    fn each_answer_to_a_listing_is_told_in_the_row_it_is_of() {
        use Verdict::{Fail, Pass, Skip};
        assert_eq!(verdicts(Err(StoreError::NoSuchBucket)), [Fail, Skip, Skip]);
        let region = StoreError::WrongRegion(Some("eu-north-1".into()));
        let all = rows("b", &Err(region));
        assert_eq!(all[1].verdict, Fail);
        assert!(all[1].cure.contains("region=eu-north-1"), "{all:?}");
        let denied = StoreError::AccessDenied("AccessDenied: no".into());
        let all = rows("b", &Err(denied));
        assert_eq!((all[0].verdict, all[2].verdict), (Skip, Fail));
        assert!(all[2].cure.contains("s3:ListBucket"), "{all:?}");
        assert_eq!(
            verdicts(Err(StoreError::Link("x".into()))),
            [Fail, Skip, Skip]
        );
        assert_eq!(verdicts(Ok(()))[0], Pass);
    }

    #[test]
    fn a_region_that_was_learnt_is_told_as_the_buckets_and_held_against_the_endpoints() {
        let (tokyo, oregon) = (Some("ap-northeast-1"), Some("us-west-2"));
        let learnt = region_row(tokyo, None, tokyo, true).unwrap();
        assert_eq!(learnt.verdict, Verdict::Pass);
        assert!(
            learnt.seen.contains("as the bucket itself says"),
            "{learnt:?}"
        );
        let given = region_row(None, tokyo, None, true).unwrap();
        assert!(given.seen.contains("S3 there took"), "{given:?}");
        for (given, learnt, word) in [
            (oregon, None, "region=us-west-2"),
            (None, oregon, "the bucket in us-west-2"),
        ] {
            let apart = region_row(tokyo, given, learnt, false).unwrap();
            assert_eq!(apart.verdict, Verdict::Fail);
            assert!(apart.seen.contains(word), "{apart:?}");
        }
        let unnamed = region_row(None, None, None, true).unwrap();
        assert!(unnamed.seen.contains("names none"), "{unnamed:?}");
        // What the listing said then stands.
        assert_eq!(region_row(None, tokyo, None, false), None);
    }

    #[test]
    fn the_region_is_read_off_amazons_names() {
        for (url, region) in [
            (
                "https://s3.ap-northeast-1.amazonaws.com",
                Some("ap-northeast-1"),
            ),
            (
                "https://bucket.vpce-1-2.s3.eu-west-1.vpce.amazonaws.com/",
                Some("eu-west-1"),
            ),
            ("https://s3.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("https://127.0.0.1:9000", None),
            ("https://s3.example.com", None),
        ] {
            assert_eq!(region_of(url), region, "{url}");
        }
    }
}
