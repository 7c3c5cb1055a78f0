//! Krypton over the line: the SIM's data session is what authenticates, so the request holds no
//! secret. What it answers is read in `answer`.
//!
//! Invariants: one call is one request, nothing is retried here; no redirect is followed.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, StatusCode, Url};

use super::answer::{self, date, read_credentials, read_token};
use super::keeper::Source;
use super::lease::term;
use super::{Config, CredsError, Lease, Mode, cognito};
use crate::clock::SharedClock;
use crate::net::{Answer, Net, WebError};

const CREDENTIALS: &str = "/v1/provisioning/aws/cognito/credentials";
const TOKENS: &str = "/v1/provisioning/aws/cognito/open_id_tokens";
/// For a whole call; the connect has its own, shorter time.
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_MAX: usize = 64 * 1024;

/// Gets leases from Krypton.
#[derive(Debug)]
pub struct Krypton {
    net: Net,
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
        let base = Url::parse(&config.krypton_url).ok().filter(|url| {
            let named = url.username().is_empty() && url.password().is_none();
            matches!(url.scheme(), "http" | "https") && url.has_host() && named
        });
        // The text is not repeated: somebody may have put a password into it.
        let wrong =
            || CredsError::Refused("krypton_url is no URL: say https://HOST:PORT".to_owned());
        let base = base.ok_or_else(wrong)?;
        let url = |path: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
            url
        };
        Ok(Self {
            net: net.clone(),
            clock,
            credentials: url(CREDENTIALS),
            tokens: url(TOKENS),
            mode: config.mode,
            cognito_url: config.cognito_url.clone(),
            only_tokens: AtomicBool::new(false),
        })
    }

    /// Whether Cognito is asked from here: by `krypton=tokens`, or as this Krypton (so far as it was
    /// asked) gives tokens only.
    #[must_use]
    pub fn asks_cognito(&self) -> bool {
        self.mode == Mode::Tokens || self.only_tokens.load(Ordering::Relaxed)
    }

    async fn by_credentials(&self) -> Result<Lease, Refusal> {
        let asked = self.clock.boot();
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
        let called = self.net.web().call(request, ANSWER_MAX, PATIENCE).await;
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
            error: answer::refusal(&answer),
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
