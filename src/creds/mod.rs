//! Leases: credentials with an end. (A stand-in until the branch that owns this module is merged.)

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use zeroize::Zeroizing;

/// Credentials with an end.
pub struct Lease {
    /// Public part.
    pub access_key_id: String,
    /// Secret part.
    pub secret_key: Zeroizing<String>,
    /// Of temporary credentials.
    pub session_token: Option<Zeroizing<String>>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({})", self.access_key_id)
    }
}

/// Why there is no lease.
#[derive(Clone, Debug)]
pub enum CredsError {
    /// Nobody answered.
    Silent(String),
    /// Somebody said no.
    Refused(String),
}

impl fmt::Display for CredsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(text) | Self::Refused(text) => f.write_str(text),
        }
    }
}

/// Where leases come from.
#[async_trait]
pub trait Leases: Send + Sync + fmt::Debug {
    /// The lease to sign with now.
    async fn lease(&self) -> Result<Arc<Lease>, CredsError>;
    /// The server refused this key: get another before its end.
    fn refused(&self, access_key_id: &str);
}
