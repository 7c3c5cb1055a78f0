//! What an SDK error means for the caller.
//!
//! Invariant: a decision is made by S3's code, else by the status; texts are for people. An answer
//! that S3 would not give (a portal's page, a proxy's) is never taken for one.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::super::StoreError;
use super::wire::NoLease;
use super::words;
use crate::creds::one_line;

/// A failed request, and whether a second one may fare better.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    pub(super) doubt: Option<Doubt>,
}

/// What the server may have against the request's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It says that the lease is over.
    Lease,
    /// It may mean that, or that the key is not allowed to do this.
    Suspicion,
    /// Our clock is wrong.
    Clock,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, doubt: None }
    }
}

/// What the request was, where that changes what a status means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// GetObject: 412 is `Stale`.
    Get,
    /// HeadObject: its errors have no body, so no code.
    Head,
    /// PutObject: 412 and `NoSuchKey` (of an `If-Match`) are `Precondition`.
    Put,
    /// CopyObject: 412 and `NoSuchKey` are the source's.
    Copy,
    /// UploadPart, ListParts, AbortMultipartUpload: 404 is `NoSuchUpload`.
    Upload,
    /// UploadPartCopy: as `Copy`, but another 404 is `NoSuchUpload`.
    UploadCopy,
    /// CompleteMultipartUpload: as `Put`, but another 404 is `NoSuchUpload`.
    Complete,
    /// Any other.
    Other,
}

/// Of a server's code that is shown, in characters.
const CODE_MAX: usize = 64;
/// Of a server's text that is shown: the reason stands at the end of it.
const SAID_MAX: usize = 600;

/// The innermost cause, as text: the outer ones only say that something failed.
pub(super) fn cause(error: &(dyn Error + 'static)) -> String {
    chain(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn source<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        (*error).source()
    }
    std::iter::successors(Some(error), source)
}

/// Reads an SDK error.
pub(super) fn failure<E>(error: SdkError<E>, role: Role) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if let SdkError::ServiceError(refusal) = &error {
        let (code, text) = (refusal.err().code(), refusal.err().message());
        return refused(code, text, refusal.raw(), role);
    }
    if let Some(none) = chain(&error).find_map(|error| error.downcast_ref::<NoLease>()) {
        return StoreError::NoCredentials(none.to_string()).into();
    }
    let text = one_line(&cause(&error), SAID_MAX);
    let error = match error {
        SdkError::ConstructionFailure(_) => StoreError::Invalid(text),
        SdkError::ResponseError(_) => StoreError::BadAnswer(text),
        _ => StoreError::Link(text),
    };
    error.into()
}

pub(super) fn refused(
    code: Option<&str>,
    text: Option<&str>,
    answer: &HttpResponse,
    role: Role,
) -> Failure {
    let status = answer.status().as_u16();
    let said = |text: Option<&str>| match (code, text) {
        (Some(code), Some(text)) => words::with_cure(Some(code), saying(code, text)),
        (Some(said), None) | (None, Some(said)) => words::with_cure(code, one_line(said, SAID_MAX)),
        (None, None) if (role, status) == (Role::Head, 403) => words::bare(),
        (None, None) => format!("status {status}"),
    };
    let error = match (code, status) {
        (Some("NoSuchKey"), _) if matches!(role, Role::Put | Role::Complete) => {
            StoreError::Precondition
        }
        // Ceph's word for an upload that is gone.
        (Some("NoSuchKey"), _) if role == Role::Upload => StoreError::NoSuchUpload,
        (Some("PreconditionFailed"), _) | (None, 412) => match role {
            Role::Get | Role::Head | Role::Copy | Role::UploadCopy => StoreError::Stale,
            Role::Put | Role::Upload | Role::Complete | Role::Other => StoreError::Precondition,
        },
        _ => code
            .and_then(|code| by_code(code, &said(text)))
            .unwrap_or_else(|| by_status(status, said(text), role)),
    };
    let error = match error {
        StoreError::WrongRegion(None) => StoreError::WrongRegion(region(answer)),
        other => other,
    };
    let doubt = doubt(code, status, role);
    Failure { error, doubt }
}

/// What a server said, for people. Some say a token back, or a name without end.
pub(super) fn saying(code: &str, text: &str) -> String {
    let (code, text) = (one_line(code, CODE_MAX), one_line(text, SAID_MAX));
    format!("{code}: {text}")
}

fn doubt(code: Option<&str>, status: u16, role: Role) -> Option<Doubt> {
    match (code, status) {
        (Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired"), _) => Some(Doubt::Lease),
        (Some("RequestTimeTooSkewed" | "RequestExpired"), _) => Some(Doubt::Clock),
        (Some("InvalidAccessKeyId"), _) => Some(Doubt::Suspicion),
        (None, 400 | 403) if role == Role::Head => Some(Doubt::Suspicion),
        _ => None,
    }
}

/// The region that an answer names: in a header, or in the body.
pub(super) fn region(answer: &HttpResponse) -> Option<String> {
    let header = answer.headers().get("x-amz-bucket-region");
    let named = header.or_else(|| {
        let body = std::str::from_utf8(answer.body().bytes()?).ok()?;
        let (_, rest) = body.split_once("<Region>")?;
        rest.split_once("</Region>").map(|(region, _)| region)
    });
    let is_region = |name: &&str| {
        let mut letters = name.bytes();
        (1..=32).contains(&name.len())
            && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    named.filter(is_region).map(str::to_owned)
}

/// By S3's code. `None`: the code says no more than the status.
pub(super) fn by_code(code: &str, said: &str) -> Option<StoreError> {
    let said = || said.to_owned();
    Some(match code {
        "NoSuchKey" | "NoSuchVersion" => StoreError::NotFound,
        "NoSuchUpload" => StoreError::NoSuchUpload,
        "NoSuchBucket" => StoreError::NoSuchBucket,
        "NotModified" => StoreError::NotModified,
        "PreconditionFailed" => StoreError::Precondition,
        "ConditionalRequestConflict" | "OperationAborted" => StoreError::Conflict,
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "Redirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => StoreError::WrongRegion(None),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "MethodNotAllowed" => {
            StoreError::AccessDenied(said())
        }
        "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "RequestTimeTooSkewed"
        | "RequestExpired" => StoreError::Credentials(said()),
        "QuotaExceeded" | "InsufficientStorage" | "InsufficientCapacity" => {
            StoreError::Quota(said())
        }
        "InvalidObjectState" => StoreError::Archived,
        "NotImplemented" => StoreError::NotImplemented(said()),
        "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
            StoreError::BadDigest
        }
        "SlowDown"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "InternalError" => StoreError::Throttled,
        "RequestTimeout" | "IncompleteBody" => StoreError::Link(said()),
        _ => return None,
    })
}

fn by_status(status: u16, said: String, role: Role) -> StoreError {
    match status {
        304 => StoreError::NotModified,
        301 | 302 | 307 | 308 => StoreError::WrongRegion(None),
        401 => StoreError::Credentials(said),
        403 => StoreError::AccessDenied(said),
        404 => match role {
            Role::Upload | Role::UploadCopy | Role::Complete => StoreError::NoSuchUpload,
            Role::Get | Role::Head | Role::Put | Role::Copy | Role::Other => StoreError::NotFound,
        },
        408 => StoreError::Link(said),
        409 => StoreError::Conflict,
        429 => StoreError::Throttled,
        400..500 => StoreError::Invalid(said),
        501 => StoreError::NotImplemented(said),
        507 => StoreError::Quota(said),
        500..600 => StoreError::Throttled,
        _ => StoreError::BadAnswer(said),
    }
}
