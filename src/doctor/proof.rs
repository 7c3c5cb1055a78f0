//! Whether the path is closed, by S3's own word and by what cannot be reached; and what is left of
//! uploads that nobody ended.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Doctor;
use super::report::Row;
use crate::clock::Clock as _;
use crate::net::Server;
use crate::store::canary::{self, Proof};
use crate::store::{self, Begun, StoreError};

/// Two GetObject, or one page of uploads.
const PATIENCE: Duration = Duration::from_secs(60);
/// A mount continues an upload after weeks without a link, but that is rare.
const OLD: Duration = Duration::from_secs(7 * 86_400);
const POLICY: &str = "packaging/aws/kryptonfs.yaml, OnlyThroughTheEndpoint and \
                      OutsideCanaryNeverThroughTheEndpoint";

impl Doctor<'_> {
    /// Row `uploads`.
    pub(super) async fn uploads(&mut self) {
        let prefix = self.prefix().await;
        let asking = self.parts.uploads.begun(&prefix);
        let begun = tokio::time::timeout(PATIENCE, asking).await;
        let begun = begun.unwrap_or(Err(StoreError::Deadline));
        let row = uploads(begun, self.parts.clock.wall());
        self.add(row);
    }

    /// Of the keys below the mount.
    async fn prefix(&self) -> String {
        let prefix = &self.facts.prefix;
        let lease = self.parts.leases.lease().await.ok();
        match lease.as_ref().and_then(|lease| lease.identity.as_ref()) {
            Some(identity) if self.facts.is_rooted => format!("{prefix}{identity}/"),
            _ => prefix.clone(),
        }
    }

    /// Row `setup`: puts the canaries.
    pub(super) async fn set_up(&mut self) {
        let putting = canary::set_up(&*self.parts.bucket);
        let put = tokio::time::timeout(PATIENCE, putting).await;
        let put = put.unwrap_or(Err(StoreError::Deadline));
        let row = set_up(&self.facts.bucket, put);
        self.add(row);
    }

    /// Row `canary`.
    pub(super) async fn canary(&mut self) {
        let asking = canary::ask(&*self.parts.bucket);
        let proof = tokio::time::timeout(PATIENCE, asking).await;
        let proof = proof.unwrap_or(Proof::Unknown(StoreError::Deadline));
        let row = proven(proof, self.facts.interface.is_some(), self.facts.is_checked);
        self.add(row);
    }

    /// Row `public`.
    pub(super) async fn public(&mut self) {
        let Some(host) = &self.facts.public_probe else {
            self.add(Row::skip("public", "no public_probe= is named"));
            return;
        };
        let Some(server) = Server::of(&format!("https://{host}")) else {
            let seen = format!("public_probe={host} is no host");
            self.add(Row::fail(
                "public",
                seen,
                "say HOST or HOST:PORT, such as 8.8.8.8:443",
            ));
            return;
        };
        let steps = self.parts.net.steps().clone();
        let row = match steps.resolve(&server.host).await {
            Err(why) => Row::pass("public", format!("not even its name is known: {why}")),
            Ok(found) => match steps.permitted(&server, &found.addresses) {
                Err(why) => Row::skip(
                    "public",
                    format!("not tried, as our own rules forbid it: {why}"),
                ),
                Ok(permitted) => match permitted.first() {
                    Some(to) => public(&server, *to, steps.reaches(&server, *to).await),
                    None => return,
                },
            },
        };
        self.add(row);
    }
}

fn uploads(begun: store::Result<Begun>, now: SystemTime) -> Row {
    let check = "uploads";
    let begun = match begun {
        Ok(begun) => begun,
        Err(StoreError::AccessDenied(_) | StoreError::NotImplemented(_)) => {
            let seen = "the role may not count them (s3:ListBucketMultipartUploads), and need not: the \
                        bucket's lifecycle rule ends those that nobody does";
            return Row::skip(check, seen);
        }
        Err(error) => return Row::skip(check, format!("not counted: {error}")),
    };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let limit = now.saturating_sub(OLD).as_secs();
    let old = begun
        .at
        .iter()
        .filter(|at| **at > 0 && u64::try_from(**at).is_ok_and(|at| at < limit));
    let old = old.count();
    let more = if begun.more { " or more" } else { "" };
    let seen = format!(
        "{}{more} are under way, {old} of them since over a week",
        begun.at.len()
    );
    if old > 0 {
        return Row::warn(
            check,
            seen,
            "their parts are billed until somebody ends them: let a lifecycle rule of the bucket do so \
             (AbortIncompleteMultipartUpload after 30 days)",
        );
    }
    Row::pass(check, seen)
}

fn set_up(bucket: &str, put: store::Result<()>) -> Row {
    let keys = [canary::INSIDE, canary::OUTSIDE];
    match put {
        Ok(()) => Row::pass(
            "setup",
            format!(
                "{} are there; the policy that they need: {POLICY}",
                keys.join(" and ")
            ),
        ),
        Err(error) => {
            let commands =
                keys.map(|key| format!("`aws s3api put-object --bucket {bucket} --key {key}`"));
            Row::fail(
                "setup",
                format!("the canaries are not put: {error}"),
                format!(
                    "once, from an administrator's machine: {}",
                    commands.join(" and ")
                ),
            )
        }
    }
}

/// `is_checked`: mounts ask for the proof too (`closed_check`).
fn proven(proof: Proof, has_interface: bool, is_checked: bool) -> Row {
    let check = "canary";
    match proof {
        Proof::Closed => Row::pass(
            check,
            "S3 itself says that this way leads through the VPC endpoint: `inside` was read, `outside` \
             was refused",
        ),
        // With closed_check= nothing would be sent.
        Proof::Unproven(why) if !is_checked => Row::warn(
            check,
            format!("not proven: {why}"),
            format!("put them (`--setup-canary`), and let the role read them: {POLICY}"),
        ),
        Proof::Open(why) | Proof::Unproven(why) => Row::fail(
            check,
            why,
            format!(
                "redirection must lead to the Gate Peer, its NAT to the VPC, and the VPC's route table to \
                 the endpoint; the policy must be that of {POLICY}"
            ),
        ),
        Proof::Unset(why) => {
            let cure = format!("`kryptonfs doctor --setup-canary`, and the policy of {POLICY}");
            if is_checked {
                return Row::fail(check, format!("{why}, and closed_check= needs it"), cure);
            }
            if has_interface {
                return Row::warn(check, format!("not proven: {why}"), cure);
            }
            Row::skip(check, format!("nothing to prove without interface=; {why}"))
        }
        Proof::Unknown(error) => Row::fail(check, error.to_string(), "run this again"),
    }
}

fn public(server: &Server, to: IpAddr, reached: io::Result<bool>) -> Row {
    match reached {
        Ok(false) => Row::pass("public", format!("nobody answers at {to}, as it should be")),
        Ok(true) => Row::fail(
            "public",
            format!("{server} ({to}) answers by the interface: the path is not closed"),
            "turn the VPG's Internet gateway off, or deny 0.0.0.0/0 by its routing filter; a NAT at the \
             Gate Peer must forward to the endpoint only",
        ),
        Err(error) => Row::skip("public", format!("{to} is not tried: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn uploads_of_over_a_week_are_a_warning_and_those_not_counted_are_none() {
        let now = UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let row = |at: &[i64]| {
            let at = at.iter().map(|ago| 1_900_000_000 - ago).collect();
            uploads(Ok(Begun { at, more: false }), now)
        };
        assert_eq!(row(&[]).verdict, Verdict::Pass);
        assert_eq!(row(&[3600]).verdict, Verdict::Pass);
        let old = row(&[3600, 8 * 86_400]);
        assert_eq!(old.verdict, Verdict::Warn);
        assert!(old.seen.starts_with("2 are under way, 1 of"), "{old:?}");
        let denied = Err(StoreError::AccessDenied("no".into()));
        assert_eq!(uploads(denied, now).verdict, Verdict::Skip);
    }

    #[test]
    fn the_proof_passes_only_by_s3s_own_word() {
        let verdict = |proof, interface, checked| proven(proof, interface, checked).verdict;
        assert_eq!(verdict(Proof::Closed, true, true), Verdict::Pass);
        let open = || Proof::Open("no".into());
        assert_eq!(verdict(open(), true, false), Verdict::Fail);
        let unproven = || Proof::Unproven("both".into());
        assert_eq!(verdict(unproven(), true, false), Verdict::Warn);
        assert_eq!(verdict(unproven(), true, true), Verdict::Fail);
        let unset = || Proof::Unset("none".into());
        assert_eq!(verdict(unset(), true, false), Verdict::Warn);
        assert_eq!(verdict(unset(), false, false), Verdict::Skip);
        assert_eq!(verdict(unset(), true, true), Verdict::Fail);
        let unknown = Proof::Unknown(StoreError::Deadline);
        assert_eq!(verdict(unknown, true, true), Verdict::Fail);
    }

    #[test]
    fn a_public_host_must_not_answer() {
        let server = Server::of("https://8.8.8.8").unwrap();
        let to = IpAddr::from([8, 8, 8, 8]);
        let answers = public(&server, to, Ok(true));
        assert_eq!(answers.verdict, Verdict::Fail);
        assert!(answers.seen.contains("8.8.8.8:443"), "{answers:?}");
        assert_eq!(public(&server, to, Ok(false)).verdict, Verdict::Pass);
    }

    #[test]
    fn who_may_not_put_the_canaries_is_told_how_an_administrator_does() {
        let row = set_up("b", Err(StoreError::AccessDenied("no".into())));
        assert_eq!(row.verdict, Verdict::Fail);
        assert!(
            row.cure
                .contains("--bucket b --key .kryptonfs-canary/inside"),
            "{row:?}"
        );
        assert_eq!(set_up("b", Ok(())).verdict, Verdict::Pass);
    }
}
