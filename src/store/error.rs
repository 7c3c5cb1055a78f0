//! Why a store call failed, as what the caller should do about it.

use std::fmt;

/// A failed call. `Clone`, so that all waiters of one flight get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No such key (404). On CompleteMultipartUpload and parts see `NoSuchUpload`.
    NotFound,
    /// 304: the version named by `unless` is still the one.
    NotModified,
    /// 412 of a read or a copy's source: another version is there now.
    Stale,
    /// 412 of a write: its precondition does not hold.
    Precondition,
    /// 409: a conditional write met another one in flight; repeat.
    Conflict,
    /// 404 on an upload id: start the upload again, after asking whether it was completed.
    NoSuchUpload,
    /// No such bucket: refuse the mount, or wait if mounted.
    NoSuchBucket,
    /// The bucket is in another region (301, 400 `AuthorizationHeaderMalformed`), named if told.
    WrongRegion(Option<String>),
    /// 403 of a kind that will not pass: the text is S3's, for people.
    AccessDenied(String),
    /// The credentials were refused (`ExpiredToken`, `InvalidAccessKeyId`, `SignatureDoesNotMatch`…).
    Credentials(String),
    /// No credentials could be had (Krypton absent or refusing).
    NoCredentials(String),
    /// 507, quota exceeded and the like.
    Quota(String),
    /// The object is archived (`InvalidObjectState`).
    Archived,
    /// 400 and the like: the same request will fail again.
    Invalid(String),
    /// The server lacks the operation or the header (501).
    NotImplemented(String),
    /// The checksum or the digest did not match: send the same bytes again.
    BadDigest,
    /// 429, 503 `SlowDown`, 500: try again later.
    Throttled,
    /// No answer: connect, reset, timeout, name not resolved, address not allowed. Try again when the link is back.
    Link(String),
    /// Nothing was sent, as the path is not proven closed (`closed_check`): why.
    NotClosed(String),
    /// The total deadline of the call passed.
    Deadline,
    /// Reading the payload from the local disk failed: `errno`.
    Disk(i32),
    /// The answer was not what S3 sends (wrong length, wrong range, no ETag).
    BadAnswer(String),
}

impl StoreError {
    /// Whether the same request may succeed when repeated soon.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Conflict | Self::BadDigest | Self::Throttled | Self::Link(_) | Self::BadAnswer(_)
        )
    }

    /// Whether it says that S3 (or Krypton) could not be reached, or may not be, rather than what S3
    /// said.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Link(_)
                | Self::NotClosed(_)
                | Self::Deadline
                | Self::NoCredentials(_)
                | Self::Throttled
        )
    }

    /// Whether it speaks of who asked or of the way, and not of what was asked for: what was known of
    /// that before still stands.
    #[must_use]
    pub fn is_beside_the_question(&self) -> bool {
        self.is_silence()
            || matches!(
                self,
                Self::Credentials(_)
                    | Self::WrongRegion(_)
                    | Self::NoSuchBucket
                    | Self::BadAnswer(_)
            )
    }

    /// Whether S3 refuses the change for good: the entry is parked.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::AccessDenied(_) | Self::Quota(_) | Self::Invalid(_) | Self::NotImplemented(_)
        )
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => write!(f, "no such object"),
            Self::NotModified => write!(f, "not modified"),
            Self::Stale => write!(f, "another version is there now"),
            Self::Precondition => write!(f, "the object was changed by somebody else"),
            Self::Conflict => write!(f, "another conditional write is in flight"),
            Self::NoSuchUpload => write!(f, "no such upload"),
            Self::NoSuchBucket => write!(f, "no such bucket"),
            Self::WrongRegion(Some(region)) => write!(f, "the bucket is in region {region}"),
            Self::WrongRegion(None) => write!(f, "the bucket is in another region"),
            Self::AccessDenied(text) => write!(f, "access denied: {text}"),
            Self::Credentials(text) => write!(f, "credentials refused: {text}"),
            Self::NoCredentials(text) => write!(f, "no credentials: {text}"),
            Self::Quota(text) => write!(f, "quota exceeded: {text}"),
            Self::Archived => write!(f, "the object is archived; restore it first"),
            Self::Invalid(text) => write!(f, "refused as invalid: {text}"),
            Self::NotImplemented(text) => write!(f, "the server lacks it: {text}"),
            Self::BadDigest => write!(f, "the bytes arrived damaged"),
            Self::Throttled => write!(f, "the server asks to slow down (SlowDown or the like)"),
            Self::Link(text) => write!(f, "no answer: {text}"),
            Self::NotClosed(why) => {
                write!(
                    f,
                    "nothing is sent, as the path is not proven closed: {why}"
                )
            }
            Self::Deadline => write!(f, "no answer in time"),
            Self::Disk(errno) => {
                write!(
                    f,
                    "local disk: {}",
                    std::io::Error::from_raw_os_error(*errno)
                )
            }
            Self::BadAnswer(text) => write!(f, "not an answer of S3: {text}"),
        }
    }
}

impl std::error::Error for StoreError {}
