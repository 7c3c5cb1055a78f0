//! What answers is not trusted: whatever it says is read or refused, in one bounded line.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::HeaderValue;

use super::super::Lease;
use super::super::lease::term;
use super::*;

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
/// Pieces at which readers break.
const PIECES: [&[u8]; 14] = [
    b"9223372036854775807",
    b"-9223372036854775808",
    b"1e308",
    b"-1e308",
    b"1000000000000",
    b"\"+262143-12-31T23:59:60Z\"",
    b"\"0000-00-00T00:00:00+99:99\"",
    b"\"T+\"",
    b"null",
    b"[[[[[[[[",
    b"\\ud800",
    b"\xff\xfe",
    "\u{20ac}".as_bytes(),
    b"\r\n\x1b[31m",
];

/// Random numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }
}

fn mutated(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = SEEDS[dice.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(6) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            2 if !bytes.is_empty() => bytes[at] = dice.below(256).to_le_bytes()[0],
            3 => {
                let end = (at + dice.below(30)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let end = (at + dice.below(30)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                // In place of what stands there, a number perhaps.
                let end = (at + dice.below(20)).min(bytes.len());
                let piece = PIECES[dice.below(PIECES.len())];
                bytes.splice(at..end, piece.iter().copied());
            }
        }
    }
    bytes
}

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
            body: Zeroizing::new(mutated(&mut dice)),
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
