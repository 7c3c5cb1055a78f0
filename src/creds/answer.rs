//! What Krypton answers. The parser takes every form that has been seen or documented.
//!
//! Invariant: an answer is shown as text only where it cannot hold credentials; a redirect, a page
//! of HTML or any other content is a refusal that says what was seen.

#[cfg(test)]
mod tests;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap};
use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use super::CredsError;
use super::words::{self, shown};
use crate::net::Answer;

/// The server's own time.
pub(super) fn date(headers: &HeaderMap) -> Option<DateTime> {
    let text = headers.get(DATE)?.to_str().ok()?;
    DateTime::from_str(text, Format::HttpDate).ok()
}

/// What an answer that is not 200 means.
pub(super) fn refusal(answer: &Answer) -> CredsError {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let said = match serde_json::from_slice::<Said>(&answer.body) {
        Ok(said) if !(said.code.is_empty() && said.message.is_empty()) => {
            shown(format!("{} {}", said.code, said.message).as_bytes())
        }
        _ => shown(&answer.body),
    };
    let status = answer.status.as_u16();
    let text = format!(
        "Krypton answered {status}: {said}; {}",
        words::krypton(status, &said)
    );
    let passes = answer.status.is_server_error() || matches!(status, 408 | 429);
    if passes {
        CredsError::Silent(text)
    } else {
        CredsError::Refused(text)
    }
}

/// What a 200 was that is not what was asked for. JSON is not shown: it may hold a secret.
fn unexpected(answer: &Answer, wanted: &str) -> CredsError {
    let kind = answer
        .headers
        .get(CONTENT_TYPE)
        .map_or("no content-type", |kind| {
            kind.to_str().unwrap_or("an unreadable content-type")
        });
    let kind = shown(kind.as_bytes());
    let text = match answer.body.trim_ascii_start().first() {
        Some(b'<') => format!(": {}", shown(&answer.body)),
        _ => String::new(),
    };
    CredsError::Refused(format!(
        "Krypton answered without {wanted} ({kind}, {} bytes){text}; check krypton_url, and that \
         nothing on the way answers in its place",
        answer.body.len()
    ))
}

/// What Krypton issued.
pub(super) struct Issued {
    pub(super) access_key_id: String,
    pub(super) secret_key: Zeroizing<String>,
    pub(super) session_token: Option<Zeroizing<String>>,
    pub(super) identity: Option<String>,
    pub(super) end: Option<DateTime>,
}

pub(super) fn read_credentials(answer: &Answer) -> Result<Issued, CredsError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        identity_id: Option<String>,
        credentials: Option<Credentials>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Credentials {
        access_key_id: Option<String>,
        secret_key: Option<Secret>,
        session_token: Option<Secret>,
        expiration: Option<Expiration>,
    }
    // Its error text might quote the answer.
    let body: Body = serde_json::from_slice(&answer.body)
        .map_err(|_| unexpected(answer, "readable credentials"))?;
    let credentials = body
        .credentials
        .ok_or_else(|| unexpected(answer, "credentials"))?;
    let present = |secret: Option<Secret>| secret.map(|s| s.0).filter(|s| !s.is_empty());
    let end = match credentials.expiration {
        None => None,
        Some(end) => {
            let end = end
                .read()
                .ok_or_else(|| unexpected(answer, "a readable expiration"))?;
            Some(end)
        }
    };
    Ok(Issued {
        access_key_id: credentials
            .access_key_id
            .filter(|id| !id.is_empty())
            .ok_or_else(|| unexpected(answer, "credentials.accessKeyId"))?,
        secret_key: present(credentials.secret_key)
            .ok_or_else(|| unexpected(answer, "credentials.secretKey"))?,
        session_token: present(credentials.session_token),
        identity: body.identity_id.filter(|id| !id.is_empty()),
        end,
    })
}

/// A string that is wiped when dropped.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Secret(Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// What Cognito changes into credentials.
pub(super) struct Token {
    pub(super) region: String,
    pub(super) identity: String,
    pub(super) token: Zeroizing<String>,
}

pub(super) fn read_token(answer: &Answer) -> Result<Token, CredsError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        region: Option<String>,
        identity_id: Option<String>,
        token: Option<Secret>,
    }
    let body: Body =
        serde_json::from_slice(&answer.body).map_err(|_| unexpected(answer, "a readable token"))?;
    let identity = body
        .identity_id
        .ok_or_else(|| unexpected(answer, "identityId"))?;
    let token = body.token.ok_or_else(|| unexpected(answer, "token"))?.0;
    let region = match body.region.filter(|region| !region.is_empty()) {
        Some(region) => region,
        None => match identity.split_once(':') {
            Some((region, _)) if !region.is_empty() => region.to_owned(),
            _ => return Err(unexpected(answer, "region")),
        },
    };
    Ok(Token {
        region,
        identity,
        token,
    })
}

/// Krypton's documents disagree on the type, so all are taken.
#[derive(Deserialize)]
#[serde(untagged)]
enum Expiration {
    Integer(i64),
    Float(f64),
    Text(String),
    Other(IgnoredAny),
}

/// Beyond it a number is milliseconds: as seconds it would be the year 33658.
const MILLIS_FROM: i64 = 1_000_000_000_000;

impl Expiration {
    fn read(&self) -> Option<DateTime> {
        match self {
            Self::Integer(millis) if *millis >= MILLIS_FROM => Some(DateTime::from_millis(*millis)),
            Self::Integer(seconds) => Some(DateTime::from_secs(*seconds)),
            #[allow(clippy::cast_precision_loss)] // 10^12 is exact
            Self::Float(number) if *number >= MILLIS_FROM as f64 => {
                Some(DateTime::from_secs_f64(*number / 1000.0))
            }
            Self::Float(seconds) => Some(DateTime::from_secs_f64(*seconds)),
            Self::Text(text) => {
                if let Ok(number) = text.trim().parse::<i64>() {
                    return Self::Integer(number).read();
                }
                iso_8601(text.trim())
            }
            Self::Other(IgnoredAny) => None,
        }
    }
}

/// With a fraction or without; with `Z`, an offset (`+09:00`, `+0900`) or neither (then UTC).
fn iso_8601(text: &str) -> Option<DateTime> {
    let text = text.replacen(' ', "T", 1);
    let (date, time) = text.split_once(['T', 't'])?;
    let zone = time.find(['Z', 'z', '+', '-']).map(|at| time.split_at(at));
    let (time, zone) = zone.unwrap_or((time, "Z"));
    let zone = match zone.as_bytes() {
        [b'Z' | b'z'] => "Z".to_owned(),
        [_, _, _, b':', _, _] => zone.to_owned(),
        [_, _, _, _, _] => format!("{}:{}", zone.get(..3)?, zone.get(3..)?),
        _ => return None,
    };
    DateTime::from_str(&format!("{date}T{time}{zone}"), Format::DateTimeWithOffset).ok()
}
