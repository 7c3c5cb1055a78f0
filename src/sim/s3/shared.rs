//! What several verbs need: headers to values, values to headers.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::dto::{CopySource, ETag, ETagCondition, Metadata, ServerSideEncryption, Timestamp};
use s3s::{S3Error, S3Response, S3Result, TrailingHeaders, s3_error};

use super::super::auth::Caller;
use super::super::bucket::{Attributes, Condition, Object, matches, precondition_failed};
use super::super::checks::{Algorithm, Checksum, Claim};
use super::Cabinet;

/// The largest body of a PUT or a part, and the largest source of a copy in one.
pub(super) const MAX_SINGLE: u64 = 5 << 30;

/// The most bytes of user metadata.
const MAX_METADATA: usize = 2048;

const METADATA: &str = "x-amz-meta-";
const CHECKSUM: &str = "x-amz-checksum-";

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (!value.is_empty()).then(|| value.to_owned())
}

/// What a request says of the object that it makes.
pub(super) fn attributes(headers: &HeaderMap) -> S3Result<Attributes> {
    let metadata: BTreeMap<_, _> = headers.iter().filter_map(sent_metadata).collect();
    let weight: usize = metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    if weight > MAX_METADATA {
        return Err(s3_error!(
            MetadataTooLarge,
            "Your metadata headers exceed the maximum allowed metadata size"
        ));
    }
    let encoding = header(headers, "content-encoding").map(|encoding| {
        let kept = encoding.split(',').map(str::trim);
        let kept: Vec<&str> = kept.filter(|one| *one != "aws-chunked").collect();
        kept.join(", ")
    });
    let class = header(headers, "x-amz-storage-class");
    Ok(Attributes {
        content_type: header(headers, "content-type"),
        content_encoding: encoding.filter(|encoding| !encoding.is_empty()),
        content_disposition: header(headers, "content-disposition"),
        content_language: header(headers, "content-language"),
        cache_control: header(headers, "cache-control"),
        storage_class: class.filter(|class| class != "STANDARD"),
        encryption: header(headers, "x-amz-server-side-encryption"),
        tagging: header(headers, "x-amz-tagging"),
        metadata,
    })
}

/// A header of user metadata as it came: `s3s` would have it decoded.
fn sent_metadata((name, value): (&HeaderName, &HeaderValue)) -> Option<(String, String)> {
    let name = name.as_str().strip_prefix(METADATA)?;
    let value = std::str::from_utf8(value.as_bytes()).ok()?;
    (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

/// The user metadata of an answer that S3 encodes: what is not ASCII.
pub(super) fn encoded_metadata(attributes: &Attributes) -> Metadata {
    let all = attributes.metadata.iter();
    let all = all.filter(|(_, value)| !value.is_ascii());
    all.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// An answer whose other user metadata is what was sent, byte for byte.
pub(super) fn with_metadata<T>(output: T, attributes: &Attributes) -> S3Result<S3Response<T>> {
    let mut answer = S3Response::new(output);
    for (name, value) in attributes.metadata.iter() {
        if value.is_ascii() {
            let name = format!("{METADATA}{name}").parse::<HeaderName>();
            let value = HeaderValue::from_str(value);
            answer.headers.insert(
                name.map_err(S3Error::internal_error)?,
                value.map_err(S3Error::internal_error)?,
            );
        }
    }
    Ok(answer)
}

/// What a request says of its body.
pub(super) fn claim(headers: &HeaderMap) -> S3Result<Claim> {
    let md5 = header(headers, "content-md5");
    let mut sent = headers.iter().filter_map(|(name, value)| {
        let algorithm = Algorithm::named(name.as_str().strip_prefix(CHECKSUM)?)?;
        Some((algorithm, Some(value.to_str().ok()?.to_owned())))
    });
    if let Some(checksum) = sent.next() {
        if sent.next().is_some() {
            return Err(s3_error!(
                InvalidRequest,
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
            ));
        }
        let checksum = Some(checksum);
        return Ok(Claim { md5, checksum });
    }
    let trailer = header(headers, "x-amz-trailer");
    let trailing = trailer.and_then(|name| Algorithm::named(name.trim().strip_prefix(CHECKSUM)?));
    if trailing.is_none() && headers.contains_key("x-amz-sdk-checksum-algorithm") {
        return Err(s3_error!(
            InvalidRequest,
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or \
             x-amz-trailer headers were found."
        ));
    }
    let checksum = trailing.map(|algorithm| (algorithm, None));
    Ok(Claim { md5, checksum })
}

/// The claim with what came behind the body.
pub(super) fn with_trailer(mut claim: Claim, trailer: Option<&TrailingHeaders>) -> S3Result<Claim> {
    if let Some((algorithm, value @ None)) = &mut claim.checksum {
        let name = format!("{CHECKSUM}{}", algorithm.name().to_ascii_lowercase());
        let read = trailer.and_then(|trailer| trailer.read(|headers| header(headers, &name)));
        *value = read.flatten();
        if value.is_none() {
            return Err(s3_error!(
                InvalidRequest,
                "The request contained trailing data that was not well-formed."
            ));
        }
    }
    Ok(claim)
}

/// The condition on what is written to, of the request's own headers.
pub(super) fn condition(headers: &HeaderMap, honoured: bool) -> S3Result<Condition> {
    if !honoured {
        return Ok(Condition::default());
    }
    let read = |name: &str| match header(headers, name) {
        None => Ok(None),
        Some(value) => value
            .parse::<ETagCondition>()
            .map(Some)
            .map_err(|_| s3_error!(InvalidArgument, "Not an ETag in {name}")),
    };
    Ok(Condition {
        if_match: read("if-match")?,
        if_none_match: read("if-none-match")?,
    })
}

/// Whom a request is from.
pub(super) fn caller(extensions: &http::Extensions) -> Caller {
    extensions.get::<Caller>().cloned().unwrap_or_default()
}

/// What a copy demands of its source.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) from: CopySource,
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
}

impl Cabinet {
    /// An object; absent ones are denied to who may not know.
    pub(super) fn find(&self, bucket: &str, key: &str) -> S3Result<std::sync::Arc<Object>> {
        let found = self.store.get(bucket, key);
        match found {
            Err(error)
                if !self.honours.not_found && *error.code() == s3s::S3ErrorCode::NoSuchKey =>
            {
                Err(s3_error!(AccessDenied, "Access Denied"))
            }
            found => found,
        }
    }

    /// The source of a copy, if it is as demanded and the caller may read it.
    pub(super) fn source(
        &self,
        wanted: &Source,
        caller: &Caller,
    ) -> S3Result<std::sync::Arc<Object>> {
        let CopySource::Bucket { bucket, key, .. } = &wanted.from else {
            return Err(s3_error!(NotImplemented, "Only buckets are copied from."));
        };
        caller.may_touch(key)?;
        let object = self.find(bucket, key)?;
        if !self.honours.copy_source {
            return Ok(object);
        }
        if let Some(condition) = &wanted.if_match
            && !matches(condition, &object.etag)
        {
            return Err(precondition_failed("x-amz-copy-source-If-Match"));
        }
        if let Some(condition) = &wanted.if_none_match
            && matches(condition, &object.etag)
        {
            return Err(precondition_failed("x-amz-copy-source-If-None-Match"));
        }
        Ok(object)
    }
}

/// Seconds since 1970 as `s3s` has them.
pub(super) fn timestamp(seconds: i64) -> Timestamp {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Timestamp::from(UNIX_EPOCH + since)
}

/// A length as `s3s` has it.
pub(super) fn length(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// A count as `s3s` has it.
pub(super) fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) fn etag(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

/// The encryption that is always said to be used, as S3 does.
pub(super) fn encryption(attributes: &Attributes) -> ServerSideEncryption {
    let named = attributes.encryption.clone();
    ServerSideEncryption::from(named.unwrap_or_else(|| "AES256".to_owned()))
}

/// `FULL_OBJECT` or `COMPOSITE`.
pub(super) fn kind(checksum: &Checksum) -> s3s::dto::ChecksumType {
    s3s::dto::ChecksumType::from_static(if checksum.composite {
        s3s::dto::ChecksumType::COMPOSITE
    } else {
        s3s::dto::ChecksumType::FULL_OBJECT
    })
}

/// Puts a checksum into the field of an output that is named after its algorithm.
macro_rules! show_checksum {
    ($output:expr, $checksum:expr) => {{
        let value = Some($checksum.value.clone());
        match $checksum.algorithm {
            $crate::sim::checks::Algorithm::Crc32 => $output.checksum_crc32 = value,
            $crate::sim::checks::Algorithm::Crc32c => $output.checksum_crc32c = value,
            $crate::sim::checks::Algorithm::Crc64Nvme => $output.checksum_crc64nvme = value,
            $crate::sim::checks::Algorithm::Sha1 => $output.checksum_sha1 = value,
            $crate::sim::checks::Algorithm::Sha256 => $output.checksum_sha256 = value,
        }
    }};
}
pub(super) use show_checksum;
