//! What the log holds: one kind of record from the kernel's side (`Set`), a few from the drain's.
//!
//! Invariant: applying a record twice changes nothing that applying it once did not, and a record
//! alone says what it means: nothing is looked up in the bucket to understand it.

use serde::{Deserialize, Serialize};

use crate::types::{Base, FileNo, Headers, ObjectId, ObjectMeta, RelKey, Seq, Want};

/// One key's new wanted state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which key.
    pub key: RelKey,
    /// What it is wanted to be.
    pub want: Want,
    /// What the bucket is believed to hold there.
    pub base: Base,
    /// The generation's number; `None`: this record's own position. Named when a generation moves
    /// to another segment (compaction), so that its stamp stays the same.
    pub number: Option<Seq>,
}

/// Why S3 refuses a change for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// `AccessDenied` and the like: `EACCES`.
    Denied(String),
    /// Quota: `EDQUOT`.
    Quota(String),
    /// The request is invalid for this server: `EIO`.
    Invalid(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied(text) => write!(f, "access denied: {text}"),
            Self::Quota(text) => write!(f, "quota exceeded: {text}"),
            Self::Invalid(text) => write!(f, "refused as invalid: {text}"),
        }
    }
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Every change made through the mount: create, seal, mkdir, symlink, chmod, unlink, rmdir,
    /// rename of a file or of a directory. All of it or nothing.
    Set(Vec<Change>),
    /// A request that may publish generation `number` at `key` is about to be sent. Appended, not
    /// flushed: it lies before whatever is acknowledged after it.
    Begun {
        /// Where.
        key: RelKey,
        /// Which generation (or, for a removal, which change).
        number: Seq,
    },
    /// The parts of generation `number` are in S3 under `upload`: only Complete is left. Flushed
    /// before anything that replaces what the parts were copied from is sent.
    Staged {
        /// Where.
        key: RelKey,
        /// Which generation.
        number: Seq,
        /// The multipart upload.
        upload: String,
        /// Number and ETag of each part.
        parts: Vec<(u16, String)>,
    },
    /// S3 acknowledged generation `number` at `key`.
    Sent {
        /// Where.
        key: RelKey,
        /// Which.
        number: Seq,
        /// The version it became.
        object: Box<SentObject>,
    },
    /// S3 acknowledged that nothing is at `key` any more, as change `number` wanted.
    Removed {
        /// Where.
        key: RelKey,
        /// Which change.
        number: Seq,
    },
    /// Somebody else's version was met at `key`: it is the new base. What was wanted there is
    /// from now on wanted at `aside` instead (`None`: it stays wanted here, over the new base).
    Conflict {
        /// Where.
        key: RelKey,
        /// Which change met it.
        number: Seq,
        /// What the bucket holds there now.
        base: Base,
        /// The sibling's key.
        aside: Option<RelKey>,
    },
    /// S3 refuses change `number` at `key` for good.
    Dead {
        /// Where.
        key: RelKey,
        /// Which.
        number: Seq,
        /// Why.
        reason: Refusal,
    },
    /// Dead changes are to be tried again (`kryptonfs retry`).
    Retry,
    /// The multipart upload that is to become generation `number` at `key` has begun. Flushed before
    /// its first part is sent: after a crash it is continued with the parts S3 has, or aborted.
    /// Since version 2; since version 4 `UploadBegun` says more.
    Uploading {
        /// Where.
        key: RelKey,
        /// Which generation.
        number: Seq,
        /// The multipart upload.
        upload: String,
    },
    /// The data file `file` is written for what is at `key`, and all of it before `sealed` is what a
    /// generation named or has been overwritten: what lies behind was neither closed nor fsynced,
    /// and is set aside after a crash. Since version 2.
    Draft {
        /// For which name.
        key: RelKey,
        /// The data file.
        file: FileNo,
        /// How far nothing is lost without it.
        sealed: u64,
    },
    /// The mount's root is another folder of the bucket from here on (another SIM's, `prefix=identity`): what
    /// the bucket held, and what was begun there, was in the one before. Since version 3.
    Rerooted,
    /// As `Uploading`. Since version 4.
    UploadBegun {
        /// Where.
        key: RelKey,
        /// Which generation it is to become.
        number: Seq,
        /// The multipart upload.
        upload: String,
        /// Bytes of its parts, as they were planned: it is continued with such.
        part: u64,
        /// The number in its stamp, which is fixed when it begins.
        stamp: Seq,
    },
    /// A multipart upload to `key` that was begun and that no pending change names: said anew by
    /// compaction, as it is still to be aborted. Since version 4.
    UploadLeft {
        /// Where.
        key: RelKey,
        /// The multipart upload.
        upload: String,
    },
    /// A multipart upload was aborted. Since version 4.
    UploadEnded {
        /// The multipart upload.
        upload: String,
    },
}

/// A version as a `Sent` record keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentObject {
    /// Key and ETag.
    pub id: ObjectId,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970 by the server's clock.
    pub modified: i64,
    /// The metadata sent with it.
    pub headers: Headers,
}

impl From<SentObject> for ObjectMeta {
    fn from(sent: SentObject) -> Self {
        Self {
            id: sent.id,
            size: sent.size,
            modified: sent.modified,
            headers: Some(sent.headers),
        }
    }
}
