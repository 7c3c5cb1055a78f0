//! What cures a refusal of S3, for people. Nothing is decided by these words.

/// S3's codes.
const CODES: &[(&str, &str)] = &[
    (
        "ExpiredToken",
        "the credentials are over; new ones are asked for",
    ),
    (
        "TokenRefreshRequired",
        "the credentials are over; new ones are asked for",
    ),
    (
        "InvalidToken",
        "the session token is not of this server: check krypton_url and endpoint_url",
    ),
    (
        "InvalidAccessKeyId",
        "the key is revoked, or of another server or partition: check krypton_url, endpoint_url and \
         the identity pool in the Krypton setting of the SIM's group",
    ),
    (
        "SignatureDoesNotMatch",
        "the secret is not the key's, or something on the way changes requests: check krypton_url and \
         endpoint_url",
    ),
    (
        "RequestTimeTooSkewed",
        "the clock of this device is wrong: set it, or see that ntp= can be reached",
    ),
    (
        "RequestExpired",
        "the clock of this device is wrong: set it, or see that ntp= can be reached",
    ),
];

/// Words by which S3 says whose policy refused.
const POLICIES: &[(&str, &str)] = &[
    (
        "explicit deny in a resource-based policy",
        "the bucket's policy forbids it; if that lets in one VPC endpoint only, this request came by \
         another way: check interface= and the route to S3",
    ),
    (
        "no resource-based policy allows",
        "the bucket's policy must allow it to the role of the identity pool",
    ),
    (
        "VPC endpoint policy",
        "it came through the VPC endpoint, whose policy must allow it",
    ),
    (
        "no identity-based policy allows",
        "the role of the identity pool for authenticated identities must allow it",
    ),
    (
        "explicit deny in an identity-based policy",
        "a policy of the role of the identity pool forbids it",
    ),
    (
        "no session policy allows",
        "the identity pool narrows the role too much: look at its access controls",
    ),
    (
        "service control policy",
        "a policy of the AWS organization forbids it",
    ),
];

/// The answer to a HEAD has no body, so no reason.
const BARE: &str = "status 403 without a reason, as a HEAD gets it: s3:GetObject there must be allowed, \
                    and s3:ListBucket too, as without it S3 answers so for what does not exist";

/// What S3 said, with its cure if there is a known one.
pub(super) fn with_cure(code: Option<&str>, said: String) -> String {
    let by_code = CODES.iter().find(|(known, _)| code == Some(known));
    let by_policy = || POLICIES.iter().find(|(words, _)| said.contains(words));
    match by_code.or_else(by_policy) {
        Some((_, cure)) => format!("{said}; {cure}"),
        None => said,
    }
}

/// What a 403 without a body says.
pub(super) fn bare() -> String {
    BARE.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_that_refuses_is_told_apart() {
        let user = "AccessDenied: User: arn:aws:sts::1:assumed-role/Field/CognitoIdentityCredentials \
                    is not authorized to perform: s3:PutObject on resource: \"arn:aws:s3:::b/k\"";
        for (why, cure) in [
            (
                "with an explicit deny in a resource-based policy",
                "by another way",
            ),
            (
                "because no VPC endpoint policy allows the s3:PutObject action",
                "endpoint, whose",
            ),
            (
                "with an explicit deny in a VPC endpoint policy",
                "endpoint, whose",
            ),
            (
                "because no identity-based policy allows the s3:PutObject action",
                "role of the",
            ),
            (
                "because no session policy allows the s3:PutObject action",
                "access controls",
            ),
        ] {
            let line = with_cure(Some("AccessDenied"), format!("{user} {why}"));
            assert!(line.contains(why) && line.contains(cure), "{line}");
        }
        let plain = "AccessDenied: Access Denied".to_owned();
        assert_eq!(with_cure(Some("AccessDenied"), plain.clone()), plain);
    }

    #[test]
    fn each_code_of_bad_credentials_has_a_cure() {
        for (code, word) in [
            ("ExpiredToken", "over"),
            ("InvalidToken", "session token"),
            ("InvalidAccessKeyId", "revoked"),
            ("SignatureDoesNotMatch", "secret"),
            ("RequestTimeTooSkewed", "clock"),
        ] {
            let line = with_cure(Some(code), code.to_owned());
            assert!(line.starts_with(code) && line.contains(word), "{line}");
        }
    }
}
