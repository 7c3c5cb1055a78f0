//! Credentials: where they come from (Krypton, perhaps with Cognito), and who keeps them.
//!
//! Invariants:
//! - no key is stored: a lease lives in memory, perhaps in a file there (`board`), is wiped when
//!   dropped, and has no `Debug` that shows it; no error text contains what a server sent with a secret in it;
//! - the end of a lease is measured on a clock that never jumps, from what the server said its own time
//!   is; the local time of day is never asked;
//! - no traffic, no requests: a lease is taken when somebody asks for one.

mod answer;
mod board;
mod cognito;
mod keeper;
mod krypton;
mod lease;
mod once;
mod words;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::SharedClock;
use crate::net::Net;

pub use board::Place;
pub use keeper::{Keeper, Source};
pub use krypton::Krypton;
pub use lease::Lease;
pub use once::Once;
pub(crate) use words::one_line;

use board::{Board, Wish};

/// How Krypton is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// For credentials; for tokens if Krypton has no such thing (404, 405).
    #[default]
    Auto,
    /// For credentials: Cognito is never contacted from here.
    Credentials,
    /// For an OpenID token, which Cognito then changes into credentials.
    Tokens,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "credentials" => Ok(Self::Credentials),
            "tokens" => Ok(Self::Tokens),
            _ => Err(format!("krypton={text}: say auto, credentials or tokens")),
        }
    }
}

/// Where credentials come from.
#[derive(Clone, Debug)]
pub struct Config {
    /// `krypton_url`.
    pub krypton_url: String,
    /// `krypton`.
    pub mode: Mode,
    /// `cognito_url`: instead of the region's public endpoint.
    pub cognito_url: Option<String>,
    /// Where the lease is shared with other processes; `None`: it is not.
    pub place: Option<Place>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            krypton_url: "https://krypton.soracom.io:8036".to_owned(),
            mode: Mode::default(),
            cognito_url: None,
            place: None,
        }
    }
}

/// Why there are no credentials.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CredsError {
    /// Not reachable, or not able just now: stay offline, it will pass.
    Silent(String),
    /// Krypton or Cognito said no, or a rule of ours does: fails a mount.
    Refused(String),
}

impl fmt::Display for CredsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(text) | Self::Refused(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for CredsError {}

/// A keeper over Krypton: what a mount uses. Nothing is sent before a lease is asked for.
///
/// # Errors
/// If `krypton_url` is no URL.
pub fn keeper(config: &Config, net: &Net, clock: SharedClock) -> Result<Keeper, CredsError> {
    let board = board(config, net, Arc::clone(&clock), Wish::Any)?;
    Ok(Keeper::over(board, clock))
}

/// One lease to give away: the shared one, or the one Krypton is asked for.
///
/// # Errors
/// If `krypton_url` is no URL, or there is none to be had.
pub async fn lease(config: &Config, net: &Net, clock: SharedClock) -> Result<Lease, CredsError> {
    let board = board(config, net, clock, Wish::Fresh)?;
    board.obtain(None).await.map_err(|failure| failure.error)
}

fn board(config: &Config, net: &Net, clock: SharedClock, wish: Wish) -> Result<Board, CredsError> {
    let krypton = Krypton::new(config, net, Arc::clone(&clock))?;
    Ok(Board::new(
        Arc::new(krypton),
        clock,
        wish,
        config.place.clone(),
    ))
}

/// Who gives out leases; asked for each attempt of a request.
#[async_trait]
pub trait Leases: Send + Sync + fmt::Debug {
    /// A lease that still holds.
    async fn lease(&self) -> Result<Arc<Lease>, CredsError>;
    /// S3 did not take the credentials with this id (`ExpiredToken` and the like): give out others.
    fn refused(&self, access_key_id: &str);
    /// The link is back: whoever asks next need not sit out the pause after the last failure.
    fn link_is_back(&self) {}
    /// How long the lease that is given out holds; `None`: there is none. Nothing is asked for.
    fn left(&self) -> Option<Duration> {
        None
    }
}
