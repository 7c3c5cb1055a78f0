//! Krypton over the line: the SIM's data session is what authenticates, so the request holds no
//! secret. The parser takes every form of answer that has been seen or documented.
//!
//! Invariants: an answer is read as text only where it cannot hold credentials; a redirect, a page
//! of HTML or any other content is a refusal that says what was seen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue};
use reqwest::{Method, Request, StatusCode, Url};
use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use super::keeper::Source;
use super::lease::term;
use super::{Config, CredsError, Lease, Mode, cognito};
use crate::clock::SharedClock;
use crate::net::{Answer, Net, Web, WebError};

const CREDENTIALS: &str = "/v1/provisioning/aws/cognito/credentials";
const TOKENS: &str = "/v1/provisioning/aws/cognito/open_id_tokens";
/// For a whole call; the connect has its own, shorter time.
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_MAX: usize = 64 * 1024;
/// Of a server's text shown to people.
const SHOWN_MAX: usize = 200;

/// Gets leases from Krypton.
#[derive(Debug)]
pub struct Krypton {
    net: Net,
    web: Web,
    clock: SharedClock,
    credentials: Url,
    tokens: Url,
    mode: Mode,
    cognito_url: Option<String>,
    /// `Auto` has learnt that this Krypton gives tokens only.
    only_tokens: AtomicBool,
}

impl Krypton {
    /// Of this configuration; nothing is sent.
    ///
    /// # Errors
    /// If `krypton_url` is no URL.
    pub fn new(config: &Config, net: &Net, clock: SharedClock) -> Result<Self, CredsError> {
        let base = config.krypton_url.trim_end_matches('/');
        let url = |path: &str| {
            let url = Url::parse(&format!("{base}{path}")).ok();
            url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
                .ok_or_else(|| {
                    let text = format!("krypton_url={base}: say https://HOST:PORT");
                    CredsError::Refused(text)
                })
        };
        Ok(Self {
            net: net.clone(),
            web: net.web(),
            clock,
            credentials: url(CREDENTIALS)?,
            tokens: url(TOKENS)?,
            mode: config.mode,
            cognito_url: config.cognito_url.clone(),
            only_tokens: AtomicBool::new(false),
        })
    }

    async fn by_credentials(&self) -> Result<Lease, Refusal> {
        let asked = self.clock.mono();
        let answer = self.post(&self.credentials).await?;
        let issued = read_credentials(&answer)?;
        let date = date(&answer.headers);
        let (life, end) = term(issued.end, date, self.clock.wall()).ok_or_else(|| {
            CredsError::Refused("Krypton gave credentials that are over already".to_owned())
        })?;
        let mut lease = Lease::new(
            issued.access_key_id,
            issued.secret_key,
            issued.session_token,
            asked,
            life,
            end,
        );
        lease.identity = issued.identity;
        Ok(lease)
    }

    async fn by_tokens(&self) -> Result<Lease, CredsError> {
        let mut again = true;
        loop {
            let answer = self.post(&self.tokens).await?;
            let token = read_token(&answer)?;
            let exchanged =
                cognito::exchange(&self.net, self.cognito_url.as_deref(), &token, &self.clock);
            match exchanged.await {
                // The token may have grown old on the way: a new one, once.
                Err(cognito::Error::BadToken(_)) if again => again = false,
                Ok(lease) => return Ok(lease),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn post(&self, url: &Url) -> Result<Answer, Refusal> {
        let mut request = Request::new(Method::POST, url.clone());
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        *request.body_mut() = Some("{}".into());
        let called = self.web.call(request, ANSWER_MAX, PATIENCE).await;
        let answer = called.map_err(|error| match error {
            WebError::Silent(text) => CredsError::Silent(format!("Krypton: {text}")),
            WebError::Forbidden(text) | WebError::Unreadable(text) => {
                CredsError::Refused(format!("Krypton: {text}"))
            }
        })?;
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        Err(Refusal {
            absent: matches!(answer.status.as_u16(), 404 | 405),
            error: refusal(&answer),
        })
    }
}

#[async_trait]
impl Source for Krypton {
    async fn obtain(&self) -> Result<Lease, CredsError> {
        let only_tokens = self.mode == Mode::Auto && self.only_tokens.load(Ordering::Relaxed);
        if self.mode == Mode::Tokens || only_tokens {
            return self.by_tokens().await;
        }
        match self.by_credentials().await {
            Ok(lease) => Ok(lease),
            Err(refusal) if refusal.absent && self.mode == Mode::Auto => {
                let lease = self.by_tokens().await?;
                self.only_tokens.store(true, Ordering::Relaxed);
                Ok(lease)
            }
            Err(refusal) => Err(refusal.error),
        }
    }
}

/// A failed call, and whether it says that Krypton has no such thing at all.
#[derive(Debug)]
struct Refusal {
    absent: bool,
    error: CredsError,
}

impl From<CredsError> for Refusal {
    fn from(error: CredsError) -> Self {
        Self {
            absent: false,
            error,
        }
    }
}

impl From<Refusal> for CredsError {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

/// The server's own time.
pub(super) fn date(headers: &HeaderMap) -> Option<DateTime> {
    let text = headers.get(DATE)?.to_str().ok()?;
    DateTime::from_str(text, Format::HttpDate).ok()
}

/// What an answer that is not 200 means.
fn refusal(answer: &Answer) -> CredsError {
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
    let text = format!("Krypton answered {}: {said}", answer.status.as_u16());
    let passes = answer.status.is_server_error() || matches!(answer.status.as_u16(), 408 | 429);
    if passes {
        CredsError::Silent(text)
    } else {
        CredsError::Refused(text)
    }
}

/// A server's text for people: one line, bounded, and nothing at all if it may hold a secret.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let lower = text.to_ascii_lowercase();
    if ["secret", "token\"", "accesskey"]
        .iter()
        .any(|word| lower.contains(word))
    {
        return "(not shown)".to_owned();
    }
    let line: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .collect();
    let line = line
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    if line.is_empty() {
        return "(nothing)".to_owned();
    }
    line.chars().take(SHOWN_MAX).collect()
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
        "Krypton answered without {wanted} ({kind}, {} bytes){text}",
        answer.body.len()
    ))
}

/// What Krypton issued.
struct Issued {
    access_key_id: String,
    secret_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
    identity: Option<String>,
    end: Option<DateTime>,
}

fn read_credentials(answer: &Answer) -> Result<Issued, CredsError> {
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
pub(super) struct Secret(pub(super) Zeroizing<String>);

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

fn read_token(answer: &Answer) -> Result<Token, CredsError> {
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
