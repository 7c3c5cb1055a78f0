//! What S3 calls things: keys, ETags, a version of an object, its metadata, preconditions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A key of an object, relative to the mount's prefix. At most 1,024 bytes with the prefix.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey(pub Arc<str>);

/// An entity tag, opaque, without its quotes. Equal tags of one key mean the same bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ETag(pub Arc<str>);

/// One version of an object: what a cache block, a `Remote` extent and a precondition name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId {
    /// The key.
    pub key: ObjectKey,
    /// The version's tag.
    pub etag: ETag,
}

/// Server-side encryption asked for a new object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sse {
    /// `AES256` (SSE-S3).
    S3,
    /// `aws:kms`, with the key's id if not the account's default.
    Kms(Option<String>),
}

/// System and user metadata of an object, as sent with PUT and as HEAD answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `x-amz-storage-class`; `None` is `STANDARD`.
    pub storage_class: Option<String>,
    /// Server-side encryption.
    pub sse: Option<Sse>,
    /// User metadata: names in lower case, without the `x-amz-meta-` before them.
    pub metadata: BTreeMap<String, String>,
}

/// What HEAD, GET or a finished PUT tell of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Key and ETag.
    pub id: ObjectId,
    /// Length in bytes.
    pub size: u64,
    /// `Last-Modified` in seconds since 1970 (S3 has no finer).
    pub modified: i64,
    /// The metadata; `None` where only a listing was seen.
    pub headers: Option<Headers>,
}

/// What must hold at the key for a write to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing is asked.
    None,
    /// `If-None-Match: *`: no object has this key.
    IfAbsent,
    /// `If-Match`: this version is there.
    IfMatch(ETag),
}

impl ObjectKey {
    /// From text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ETag {
    /// Whether the version was made by CompleteMultipartUpload: S3 ends its tag with `-` and how many
    /// parts it has.
    #[must_use]
    pub fn is_of_parts(&self) -> bool {
        let parts = self.0.rsplit_once('-').map(|(_, parts)| parts);
        parts.is_some_and(|parts| parts.parse::<u32>().is_ok())
    }

    /// Takes the quotes off as servers send them.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim_matches('"').into())
    }
    /// With quotes, as a header wants it.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
    /// Without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&super::RelKey> for ObjectKey {
    fn from(key: &super::RelKey) -> Self {
        Self::new(key.as_str())
    }
}

macro_rules! shown {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    )*};
}
shown!(ObjectKey, ETag);
