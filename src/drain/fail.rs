//! Why a job did not get through, as what the loop does about it.

use std::fmt;

use crate::log::{LogError, Refusal};
use crate::read::ReadError;
use crate::store::StoreError;

/// A job's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fail {
    /// Of a request.
    Store(StoreError),
    /// The log takes no records.
    Log(LogError),
    /// The spool cannot be read: errno.
    Disk(i32),
    /// A version that the content is made of is in the bucket no more.
    SourceGone,
    /// The mount's root is another folder since the job began.
    Moved,
}

impl Fail {
    /// Whether other changes would fail the same way: all wait.
    pub(super) fn is_for_all(&self) -> bool {
        match self {
            Self::Store(error) => {
                error.is_silence()
                    || matches!(
                        error,
                        StoreError::NoSuchBucket
                            | StoreError::WrongRegion(_)
                            | StoreError::Credentials(_)
                    )
            }
            Self::Log(_) => true,
            Self::Disk(_) | Self::SourceGone | Self::Moved => false,
        }
    }

    /// Why this change will never get through, if it is so.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Store(StoreError::AccessDenied(text)) => Some(Refusal::Denied(text.clone())),
            Self::Store(StoreError::Quota(text)) => Some(Refusal::Quota(text.clone())),
            Self::Store(error) if error.is_refusal() || *error == StoreError::Archived => {
                Some(Refusal::Invalid(error.to_string()))
            }
            Self::SourceGone => Some(Refusal::Invalid(self.to_string())),
            Self::Store(_) | Self::Log(_) | Self::Disk(_) | Self::Moved => None,
        }
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Log(LogError::Full) => write!(f, "the spool is full"),
            Self::Log(LogError::Disk(errno)) | Self::Disk(errno) => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(f, "local disk: {error}")
            }
            Self::Log(error) => write!(f, "the log: {error:?}"),
            Self::Moved => write!(f, "the mount has another root since"),
            Self::SourceGone => write!(
                f,
                "a version that its content is made of was replaced or removed by somebody else, \
                 and is not in the cache"
            ),
        }
    }
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Disk(errno) => Self::Disk(errno),
            error => Self::Store(error),
        }
    }
}

impl From<LogError> for Fail {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<ReadError> for Fail {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Stale => Self::SourceGone,
            ReadError::Store(error) => error.into(),
            ReadError::Disk(errno) => Self::Disk(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_s3_refuses_for_good_names_its_reason_and_nothing_else_does() {
        let denied = Fail::from(StoreError::AccessDenied("no".into()));
        assert_eq!(denied.refusal(), Some(Refusal::Denied("no".into())));
        let quota = Fail::from(StoreError::Quota("full".into()));
        assert_eq!(quota.refusal(), Some(Refusal::Quota("full".into())));
        assert!(Fail::SourceGone.refusal().is_some());
        assert!(Fail::from(StoreError::Archived).refusal().is_some());
        assert_eq!(Fail::from(StoreError::Conflict).refusal(), None);
        assert_eq!(Fail::Disk(libc::EIO).refusal(), None);
    }

    #[test]
    fn a_link_that_is_down_stops_all_and_a_damaged_answer_only_its_key() {
        assert!(Fail::from(StoreError::Link("reset".into())).is_for_all());
        assert!(Fail::from(StoreError::Credentials("expired".into())).is_for_all());
        assert!(!Fail::from(StoreError::BadDigest).is_for_all());
    }
}
