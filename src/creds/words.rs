//! What a refusal means and what cures it, for people. Nothing is decided by these words.
//!
//! Invariant: of what a server says, nothing is shown that may be a secret or a key (`shown`).

/// Of a server's text shown to people.
const SHOWN_MAX: usize = 200;
const HIDDEN: &str = "(not shown)";

/// What to do when Krypton answers with this status; `said` is what it says beside it.
pub(super) fn krypton(status: u16, said: &str) -> &'static str {
    // It asks Cognito itself, and may pass on what that says.
    if let Some(cure) = COGNITO
        .iter()
        .find_map(|(code, cure)| said.contains(code).then_some(cure))
    {
        return cure;
    }
    match status {
        300..=399 => "redirects are not followed: check krypton_url, and what answers in its place",
        400 => {
            "the Amazon Cognito setting of the SIM's group is incomplete or wrong: check its region, \
             identity pool, provider name and credentials in the SORACOM console"
        }
        401 => {
            "the line is not known: this must leave by the SIM itself; check interface= and that the \
             SIM is active"
        }
        403 => {
            "this SIM may not: in the SORACOM console, enable Krypton for the SIM's group and fill in \
             its Amazon Cognito setting"
        }
        404 | 405 => {
            "there is no such service for this SIM: enable Krypton with Amazon Cognito in the SIM's \
             group, and check krypton_url"
        }
        408 => "it waited too long for the request; it is asked again",
        429 => {
            "it is asked too often, by this device or others of the group; it is asked again later"
        }
        500..=599 => "it, or the Cognito behind it, is in trouble; it is asked again later",
        _ => "nothing Krypton is known to answer: check krypton_url",
    }
}

/// Cognito's errors by their `__type`.
const COGNITO: &[(&str, &str)] = &[
    (
        "InvalidIdentityPoolConfigurationException",
        "the identity pool has no role for authenticated identities, or may not assume it: attach one \
         that trusts cognito-identity.amazonaws.com for this pool",
    ),
    (
        "ResourceNotFoundException",
        "the identity or its pool is gone, or in another region: check the identity pool in the \
         Krypton setting of the SIM's group, and cognito_url",
    ),
    (
        "ResourceConflictException",
        "this SIM's login belongs to another identity of the pool: unlink one of them",
    ),
    (
        "NotAuthorizedException",
        "the token is not accepted: the identity pool and the developer provider's name in the Krypton \
         setting of the SIM's group must be the pool's own",
    ),
    (
        "InvalidParameterException",
        "the identity is not one Cognito can have: check the Krypton setting of the SIM's group",
    ),
    (
        "TooManyRequestsException",
        "Cognito is asked too often; it is asked again later",
    ),
    (
        "ExternalServiceException",
        "the login provider behind Cognito fails; it is asked again later",
    ),
    (
        "InternalErrorException",
        "Cognito is in trouble; it is asked again later",
    ),
];

/// What to do when Cognito answers with this `__type` (perhaps with a namespace before it).
pub(super) fn cognito(code: &str) -> &'static str {
    let known = COGNITO.iter().find(|(known, _)| code.ends_with(known));
    known.map_or(
        "check cognito_url and the identity pool in the Krypton setting of the SIM's group",
        |(_, cure)| cure,
    )
}

/// A server's text for people: one line, bounded, nothing at all if it speaks of a secret, and no word
/// that may be a key, a secret or a token.
pub(super) fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let lower = text.to_ascii_lowercase();
    let telling = ["secret", "token\"", "accesskey"];
    if telling.iter().any(|word| lower.contains(word)) {
        return HIDDEN.to_owned();
    }
    let line = one_line(&text, SHOWN_MAX);
    if line.is_empty() {
        return "(nothing)".to_owned();
    }
    line
}

/// A server's text as one line of at most so many characters, in which no word may be a key, a secret or
/// a token.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    // Of a text without end no more is looked at than may be shown, and a word beyond.
    let looked_at = text.char_indices().nth(max.saturating_mul(4));
    let line = text[..looked_at.map_or(text.len(), |(at, _)| at)]
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .map(masked)
        .collect::<Vec<_>>()
        .join(" ");
    line.chars().take(max).collect()
}

/// A word with whatever in it may be a key masked.
fn masked(word: &str) -> String {
    let parts = word.split_inclusive(|c: char| !is_of_a_key(c));
    parts
        .map(|part| {
            let end = part.trim_end_matches(|c: char| !is_of_a_key(c));
            if may_be_a_key(end) {
                format!("{HIDDEN}{}", &part[end.len()..])
            } else {
                part.to_owned()
            }
        })
        .collect()
}

/// Letters of base64, base64url, hex and JWT.
fn is_of_a_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/_-.".contains(c)
}

/// Whether a run of such letters looks drawn by lot rather than written.
fn may_be_a_key(run: &str) -> bool {
    let count = |is: fn(&char) -> bool| run.chars().filter(is).count();
    let upper = count(char::is_ascii_uppercase);
    let digits = count(char::is_ascii_digit);
    let mut pieces = run.split(|c: char| !c.is_ascii_hexdigit());
    let hex = pieces.any(|piece| piece.len() >= 32);
    // The ids of keys, secrets and tokens mix digits and capitals; a code of an error has no digits
    // and few capitals; a GUID and the name of a host have no capitals.
    hex || (run.len() >= 16 && upper > 0 && (digits > 0 || upper * 5 >= run.len() * 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_and_each_type_has_words_of_its_own() {
        let statuses = [302, 400, 401, 403, 404, 408, 429, 500, 600];
        let mut words: Vec<_> = statuses.map(|status| krypton(status, "")).to_vec();
        words.extend(COGNITO.iter().map(|(code, _)| cognito(code)));
        words.push(cognito("SomethingNewException"));
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
        assert!(
            words
                .iter()
                .all(|line| !line.contains('\n') && !line.contains("  "))
        );
    }

    #[test]
    fn what_krypton_passes_on_of_cognito_is_told_as_cognitos() {
        let said = "KRY0001 ResourceNotFoundException: IdentityPool not found";
        assert_eq!(krypton(400, said), cognito("ResourceNotFoundException"));
        let spaced = "com.amazonaws.cognito#NotAuthorizedException";
        assert_eq!(cognito(spaced), cognito("NotAuthorizedException"));
    }

    #[test]
    fn nothing_that_may_be_a_key_is_shown() {
        let jwt = "eyJraWQiOiJhcC1ub3J0aGVhc3QtMTEiLCJ0eXAiOiJKV1MifQ.eyJzdWIiOiJhcC1-x.Sl9";
        for key in [
            "ASIAIOSFODNN7EXAMPLE",
            "ASIAABCDEFGHIJKLMNOP",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "wJalrXUtnFEMIdKrMDENGabPxRfiCYEXAMPLEKEY",
            "FwoGZXIvYXdzEBYaDKJ/+x1x==",
            "0123456789abcdef0123456789abcdef",
            jwt,
        ] {
            for text in [
                format!("Invalid login: {key}."),
                format!("<b>{key}</b>"),
                format!("{{\"x\":\"{key}\"}}"),
                key.to_owned(),
            ] {
                let line = shown(text.as_bytes());
                assert!(line.contains(HIDDEN), "{text}: {line}");
                assert!(!line.contains(&key[..12]), "{text}: {line}");
            }
        }
    }

    #[test]
    fn what_people_need_is_shown() {
        for text in [
            "InvalidIdentityPoolConfigurationException: no role",
            "Identity 'ap-northeast-1:1b4e28ba-2fa1-11d2-883f-0016d3cca427' not found.",
            "KRY0001 no such group",
            "cognito-identity.ap-northeast-1.amazonaws.com is not there",
            "arn:aws:iam::123456789012:role/FieldDeviceRole may not be assumed",
            "<html> <title>Log in</title>",
        ] {
            assert_eq!(shown(text.as_bytes()), text);
        }
    }
}
