//! How the cloud is to be.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::auth::Key;
use super::site::Site;

/// Keys that were made elsewhere, or that are handed to a client.
#[derive(Clone, PartialEq, Eq)]
pub struct FixedKeys {
    /// Public.
    pub access_key_id: String,
    /// Secret.
    pub secret_key: String,
    /// Secret; temporary keys have one.
    pub session_token: Option<String>,
}

impl fmt::Debug for FixedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FixedKeys({})", self.access_key_id)
    }
}

impl FromStr for FixedKeys {
    type Err = String;

    /// Of `ID:SECRET` or `ID:SECRET:TOKEN`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().filter(|part| !part.is_empty());
        match (part(), part(), part()) {
            (Some(id), Some(secret), token) => Ok(Self {
                access_key_id: id.to_owned(),
                secret_key: secret.to_owned(),
                session_token: token.map(str::to_owned),
            }),
            _ => Err("keys are written ID:SECRET or ID:SECRET:TOKEN".to_owned()),
        }
    }
}

impl FixedKeys {
    pub(super) fn of(key: Key) -> Self {
        Self {
            access_key_id: key.access_key_id,
            secret_key: key.secret_key,
            session_token: key.session_token,
        }
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "access_key_id": self.access_key_id,
            "secret_key": self.secret_key,
            "session_token": self.session_token,
        })
    }
}

/// Which conditions are honoured. What is not is not refused either, but ignored, as some servers
/// do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Honours {
    /// Of PutObject.
    pub put: bool,
    /// Of CompleteMultipartUpload.
    pub complete: bool,
    /// Of CopyObject, on what it writes to.
    pub copy: bool,
    /// Of CopyObject and UploadPartCopy, on their source.
    pub copy_source: bool,
    /// Of DeleteObject and DeleteObjects.
    pub delete: bool,
    /// Of GetObject and HeadObject.
    pub get: bool,
    /// An absent key is 404; otherwise 403, as S3 answers a caller who may not list.
    pub not_found: bool,
}

impl Default for Honours {
    fn default() -> Self {
        Self {
            put: true,
            complete: true,
            copy: true,
            copy_source: true,
            delete: true,
            get: true,
            not_found: true,
        }
    }
}

impl Honours {
    /// Those of a server that knows no conditional writes (Garage, for one).
    #[must_use]
    pub fn no_writes() -> Self {
        Self {
            put: false,
            complete: false,
            copy: false,
            delete: false,
            ..Self::default()
        }
    }
}

/// Ports that are wanted; 0: any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Of S3.
    pub s3: u16,
    /// Of Krypton.
    pub krypton: u16,
    /// Of Cognito.
    pub cognito: u16,
    /// Of the control endpoint.
    pub control: u16,
}

/// How the cloud is to be.
#[derive(Clone, Debug)]
pub struct CloudConfig {
    /// Where the storage is. A cloud that starts where one was finds what that had.
    pub dir: PathBuf,
    /// TLS; otherwise plain HTTP.
    pub tls: bool,
    /// Buckets that are to be there.
    pub buckets: Vec<String>,
    /// The only region.
    pub region: String,
    /// How long issued keys live.
    pub lease_life: Duration,
    /// What Krypton and Cognito hand out instead of keys of their own.
    pub fixed_keys: Option<FixedKeys>,
    /// Keys of an identity may touch only what lies under `<identityId>/`.
    pub identity_prefix_policy: bool,
    /// Which conditions are honoured.
    pub honours: Honours,
    /// Ports; `None`: any.
    pub ports: Option<Ports>,
    /// Its place in the network.
    pub site: Site,
}

impl CloudConfig {
    /// One bucket `demo` in `ap-northeast-1`, TLS, keys for an hour, everything honoured.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            tls: true,
            buckets: vec!["demo".to_owned()],
            region: "ap-northeast-1".to_owned(),
            lease_life: Duration::from_secs(3600),
            fixed_keys: None,
            identity_prefix_policy: false,
            honours: Honours::default(),
            ports: None,
            site: Site::default(),
        }
    }
}
