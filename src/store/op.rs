//! The operations of the port as values, for what counts, limits, bounds or breaks them.

use std::fmt;

/// One operation of `ObjectStore`, by S3's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// GetObject.
    Get,
    /// HeadObject.
    Head,
    /// ListObjectsV2.
    List,
    /// PutObject.
    Put,
    /// CreateMultipartUpload.
    CreateMultipart,
    /// UploadPart.
    UploadPart,
    /// UploadPartCopy.
    CopyPart,
    /// CompleteMultipartUpload.
    Complete,
    /// AbortMultipartUpload.
    Abort,
    /// ListParts.
    ListParts,
    /// CopyObject.
    Copy,
    /// DeleteObject.
    Delete,
    /// DeleteObjects.
    DeleteBatch,
}

/// What bounds an operation's time and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A short question with a short answer.
    Meta,
    /// A short question whose answer may take minutes: the server works on it, or it is long.
    Work,
    /// Carries data to S3.
    Up,
    /// Carries data from S3.
    Down,
}

impl Op {
    /// Every operation, in the order of the enum.
    pub const ALL: [Self; 13] = [
        Self::Get,
        Self::Head,
        Self::List,
        Self::Put,
        Self::CreateMultipart,
        Self::UploadPart,
        Self::CopyPart,
        Self::Complete,
        Self::Abort,
        Self::ListParts,
        Self::Copy,
        Self::Delete,
        Self::DeleteBatch,
    ];

    /// S3's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GetObject",
            Self::Head => "HeadObject",
            Self::List => "ListObjectsV2",
            Self::Put => "PutObject",
            Self::CreateMultipart => "CreateMultipartUpload",
            Self::UploadPart => "UploadPart",
            Self::CopyPart => "UploadPartCopy",
            Self::Complete => "CompleteMultipartUpload",
            Self::Abort => "AbortMultipartUpload",
            Self::ListParts => "ListParts",
            Self::Copy => "CopyObject",
            Self::Delete => "DeleteObject",
            Self::DeleteBatch => "DeleteObjects",
        }
    }

    /// Its class.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Get => Class::Down,
            Self::Put | Self::UploadPart => Class::Up,
            Self::Complete | Self::Copy | Self::CopyPart | Self::List | Self::ListParts => {
                Class::Work
            }
            Self::Head | Self::CreateMultipart | Self::Abort | Self::Delete | Self::DeleteBatch => {
                Class::Meta
            }
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
