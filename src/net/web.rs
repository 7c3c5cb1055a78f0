//! Plain web calls (Krypton, the metadata service): reqwest's requests and bodies, carried by our
//! own dialler. reqwest's client would open sockets itself and cannot be given a connector; this
//! way interface, allow list (literals too), TLS, and the meter hold here as they do for the SDK.
//!
//! Invariants: no proxy, no redirect is followed, and each call is bounded in time and in size.

use std::fmt;
use std::time::Duration;

use hyper_util::client::legacy::Client;
use reqwest::header::HeaderMap;
use reqwest::{Body, Request, Response, StatusCode};
use zeroize::Zeroizing;

use super::dial::{Trouble, trouble};
use super::time::Time;
use super::tls::Connector;

/// Makes web calls.
#[derive(Clone, Debug)]
pub struct Web {
    client: Client<Connector, Body>,
    time: Time,
}

/// The whole answer.
pub struct Answer {
    /// Of any kind: it is for the caller to judge.
    pub status: StatusCode,
    /// As they came.
    pub headers: HeaderMap,
    /// Wiped when dropped: it may hold a secret.
    pub body: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} B)", self.status, self.body.len())
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebError {
    /// A rule of ours forbids the call, or it is none; it will not pass.
    Forbidden(String),
    /// Not reachable, or not in time.
    Silent(String),
    /// What answered does not speak HTTP, or says too much.
    Unreadable(String),
}

impl fmt::Display for WebError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(text) | Self::Silent(text) | Self::Unreadable(text) => {
                f.write_str(text)
            }
        }
    }
}

impl std::error::Error for WebError {}

impl Web {
    pub(super) fn new(connector: &Connector, time: Time) -> Self {
        Self {
            client: connector.client(),
            time,
        }
    }

    /// Sends the request and reads the whole answer, at most `size_max` bytes, within `patience`.
    ///
    /// # Errors
    /// If there is no whole answer; any status is an answer.
    pub async fn call(
        &self,
        request: Request,
        size_max: usize,
        patience: Duration,
    ) -> Result<Answer, WebError> {
        let host = request.url().host_str().unwrap_or_default().to_owned();
        match tokio::time::timeout(patience, self.exchange(request, size_max)).await {
            Ok(answer) => answer,
            Err(_) => Err(WebError::Silent(format!(
                "{host}: no whole answer in {} s",
                patience.as_secs()
            ))),
        }
    }

    async fn exchange(&self, request: Request, size_max: usize) -> Result<Answer, WebError> {
        let host = request.url().host_str().unwrap_or_default().to_owned();
        let request: http::Request<Body> = request
            .try_into()
            .map_err(|error: reqwest::Error| WebError::Forbidden(format!("{host}: {error}")))?;
        let uri = request.uri().clone();
        let response = match self.client.request(request).await {
            Ok(response) => Response::from(response.map(Body::wrap)),
            Err(error) => {
                let (kind, text) = trouble(&error);
                return Err(match kind {
                    Trouble::Forbidden => WebError::Forbidden(text),
                    Trouble::TimedOut | Trouble::Link => WebError::Silent(text),
                    Trouble::Protocol => WebError::Unreadable(format!("{host}: {text}")),
                });
            }
        };
        let (status, headers) = (response.status(), response.headers().clone());
        self.time.hear(&uri, &headers);
        let body = read(response, size_max, &host).await?;
        Ok(Answer {
            status,
            headers,
            body,
        })
    }
}

async fn read(
    mut response: Response,
    size_max: usize,
    host: &str,
) -> Result<Zeroizing<Vec<u8>>, WebError> {
    // Made large enough once: growing would leave copies of a secret behind.
    let mut body = Zeroizing::new(Vec::with_capacity(size_max));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > size_max => {
                let text = format!("{host}: the answer is longer than {size_max} bytes");
                return Err(WebError::Unreadable(text));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(_) => {
                return Err(WebError::Silent(format!("{host}: the answer broke off")));
            }
        }
    }
}
