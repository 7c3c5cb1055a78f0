//! What answers is not trusted: whatever it says is read or refused, in one bounded line.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::HeaderValue;

use super::super::Lease;
use super::super::lease::term;
use super::*;
use crate::net::broken::Dice;

const INPUTS: usize = 100_000;
/// Answers as they should be, and near misses.
const SEEDS: [&str; 6] = [
    r#"{"identityId":"ap-northeast-1:0-1","region":"ap-northeast-1","credentials":{"accessKeyId":"ASIAX","secretKey":"k","sessionToken":"t","expiration":1549701554701}}"#,
    r#"{"credentials":{"accessKeyId":"ASIAX","secretKey":"k","expiration":"2019-02-09T17:39:14.701+0900"}}"#,
    r#"{"credentials":{"accessKeyId":"ASIAX","secretKey":"k","expiration":1549701554.5}}"#,
    r#"{"region":"ap-northeast-1","identityId":"ap-northeast-1:0-1","token":"eyJh.eyJp.c2ln"}"#,
    r#"{"code":"KRY0001","message":"no such group"}"#,
    "<html><title>Log in</title></html>",
];
fn is_one_bounded_line(error: &CredsError) {
    let text = error.to_string();
    assert!(text.chars().count() < 700, "{text:?}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

#[test]
fn a_hundred_thousand_broken_answers_are_read_or_refused_in_one_line() {
    let mut dice = Dice(0x5EED_CAFE_F00D_0001);
    let mut read = 0;
    for _ in 0..INPUTS {
        let mut headers = HeaderMap::new();
        if dice.below(2) == 0 {
            let date = HeaderValue::from_static("Sat, 09 Feb 2019 07:39:14 GMT");
            headers.insert(DATE, date);
        }
        let answer = Answer {
            status: StatusCode::OK,
            headers,
            body: Zeroizing::new(dice.broken(&SEEDS)),
        };
        is_one_bounded_line(&refusal(&answer));
        if let Err(error) = read_token(&answer) {
            is_one_bounded_line(&error);
        }
        let issued = match read_credentials(&answer) {
            Ok(issued) => issued,
            Err(error) => {
                is_one_bounded_line(&error);
                continue;
            }
        };
        read += 1;
        let times = term(issued.end, date(&answer.headers), SystemTime::UNIX_EPOCH);
        let Some((life, end)) = times else { continue };
        let now = Duration::from_secs(9);
        let (id, key) = (issued.access_key_id, issued.secret_key);
        let lease = Lease::new(id, key, issued.session_token, now, life, end);
        assert!(lease.holds(now) || life.is_zero(), "{life:?}");
        let printed = lease.to_credential_process();
        let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let end = printed["Expiration"].as_str().unwrap();
        DateTime::from_str(end, Format::DateTime).unwrap();
    }
    assert!(read > INPUTS / 100, "only {read} were read at all");
}
