//! One object: GET, HEAD, PUT, copy, delete.

use std::ops::Range;

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{Delete, MetadataDirective, ObjectIdentifier};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::{CopyRequest, Download, Op, Payload, Result, StoreError};
use super::body::{Arriving, framed};
use super::error::{Failure, Role, by_code, failure, saying};
use super::headers::{described, headers_of};
use super::{S3Store, conditions, etag, signed};
use crate::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

/// All but what a URL's path may hold bare; a `+` would be read as a blank by some servers.
const COPY_SOURCE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// A CRC as the header wants it: eight bytes, the high one first.
pub(super) fn crc_header(crc64: u64) -> String {
    BASE64_STANDARD.encode(crc64.to_be_bytes())
}

/// A range as the header wants it.
pub(super) fn range_header(range: &Range<u64>) -> std::result::Result<String, Failure> {
    if range.is_empty() {
        return Err(StoreError::Invalid("an empty range".to_owned()).into());
    }
    Ok(format!("bytes={}-{}", range.start, range.end - 1))
}

/// `bytes 0-9/100`
fn content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let end = last.parse::<u64>().ok()?.checked_add(1)?;
    Some((first.parse().ok()?..end, size.parse().ok()?))
}

/// Which bytes an answer carries, and how many the object has.
fn arrived(
    asked: Option<&Range<u64>>,
    length: Option<i64>,
    range: Option<&str>,
) -> std::result::Result<(Range<u64>, u64), Failure> {
    let bad = |text: &str| Failure::from(StoreError::BadAnswer(text.to_owned()));
    let length = length.and_then(|length| u64::try_from(length).ok());
    let length = length.ok_or_else(|| bad("no Content-Length"))?;
    let (got, size) = match range {
        Some(text) => content_range(text).ok_or_else(|| bad("a broken Content-Range"))?,
        None => (0..length, length),
    };
    let wanted = asked.map_or(0..size, |asked| asked.start..asked.end.min(size));
    if got != wanted || got.end - got.start != length {
        return Err(bad("another range than asked for"));
    }
    Ok((got, size))
}

fn meta(
    key: &ObjectKey,
    tag: Option<&str>,
    size: u64,
    modified: Option<&DateTime>,
    headers: Headers,
) -> std::result::Result<ObjectMeta, Failure> {
    Ok(ObjectMeta {
        id: ObjectId {
            key: key.clone(),
            etag: etag(tag)?,
        },
        size,
        modified: modified.map_or(0, DateTime::secs),
        headers: Some(headers),
    })
}

impl S3Store {
    /// `x-amz-copy-source`.
    pub(super) fn copy_source(&self, source: &ObjectId) -> String {
        let key = utf8_percent_encode(source.key.as_str(), COPY_SOURCE);
        format!("{}/{key}", self.bucket)
    }

    pub(super) async fn get_object(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
    ) -> Result<Download> {
        let range = range.as_ref();
        self.call(Op::Get, |client, seen| async move {
            let request = client
                .get_object()
                .bucket(&self.bucket)
                .key(key.as_str())
                .set_range(range.map(range_header).transpose()?)
                .set_if_match(if_match.map(ETag::quoted));
            let output = request.customize().interceptor(seen).send().await;
            let output = output.map_err(|error| failure(error, Role::Get))?;
            let (got, size) = arrived(range, output.content_length(), output.content_range())?;
            let headers = headers_of!(output);
            let meta = meta(key, output.e_tag(), size, output.last_modified(), headers)?;
            let body = Arriving {
                stream: output.body,
                left: got.end - got.start,
            };
            Ok(Download {
                meta,
                range: got,
                body: Box::new(body),
            })
        })
        .await
    }

    pub(super) async fn head_object(
        &self,
        key: &ObjectKey,
        unless: Option<&ETag>,
    ) -> Result<ObjectMeta> {
        self.call(Op::Head, |client, seen| async move {
            let request = client
                .head_object()
                .bucket(&self.bucket)
                .key(key.as_str())
                .set_if_none_match(unless.map(ETag::quoted));
            let output = request.customize().interceptor(seen).send().await;
            let output = output.map_err(|error| failure(error, Role::Head))?;
            let (_, size) = arrived(None, output.content_length(), None)?;
            let headers = headers_of!(output);
            meta(key, output.e_tag(), size, output.last_modified(), headers)
        })
        .await
    }

    pub(super) async fn put_object(
        &self,
        key: &ObjectKey,
        payload: &Payload,
        headers: &Headers,
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        self.call(Op::Put, |client, seen| async move {
            let (if_match, if_none_match) = conditions(when);
            let (body, fault) = framed(payload);
            let request = described!(client.put_object(), headers)
                .bucket(&self.bucket)
                .key(key.as_str())
                .content_length(signed(payload.len)?)
                .checksum_crc64_nvme(crc_header(payload.crc64))
                .set_if_match(if_match)
                .set_if_none_match(if_none_match)
                .body(body);
            // The checksum guards the bytes; a signature over them would cost a pass, or chunks.
            let request = request.customize().disable_payload_signing();
            let output = request.interceptor(seen.clone()).send().await;
            let output = output.map_err(|error| {
                let failure = failure(error, Role::Put);
                Failure {
                    error: fault.or(failure.error),
                    ..failure
                }
            })?;
            let date = DateTime::from_secs(seen.date());
            meta(
                key,
                output.e_tag(),
                payload.len,
                Some(&date),
                headers.clone(),
            )
        })
        .await
    }

    pub(super) async fn copy_object(&self, request: &CopyRequest) -> Result<ObjectMeta> {
        self.call(Op::Copy, |client, seen| async move {
            let copy = described!(client.copy_object(), &request.headers)
                .bucket(&self.bucket)
                .key(request.key.as_str())
                .copy_source(self.copy_source(&request.source))
                .copy_source_if_match(request.source.etag.quoted())
                .metadata_directive(MetadataDirective::Replace);
            let output = copy.customize().interceptor(seen).send().await;
            let output = output.map_err(|error| failure(error, Role::Copy))?;
            let result = output.copy_object_result();
            let tag = result.and_then(|result| result.e_tag());
            let modified = result.and_then(|result| result.last_modified());
            meta(&request.key, tag, 0, modified, request.headers.clone())
        })
        .await
    }

    pub(super) async fn delete_object(
        &self,
        key: &ObjectKey,
        if_match: Option<&ETag>,
    ) -> Result<()> {
        let answer = self.call(Op::Delete, |client, seen| async move {
            let request = client
                .delete_object()
                .bucket(&self.bucket)
                .key(key.as_str())
                .set_if_match(if_match.map(ETag::quoted));
            let output = request.customize().interceptor(seen).send().await;
            let output = output.map_err(|error| failure(error, Role::Other));
            output.map(|_| ())
        });
        match answer.await {
            Err(StoreError::NotFound) => Ok(()),
            // An absent key does not match either, but is what was wanted.
            Err(StoreError::Precondition) => match self.head_object(key, None).await {
                Err(StoreError::NotFound) => Ok(()),
                _ => Err(StoreError::Precondition),
            },
            answer => answer,
        }
    }

    pub(super) async fn delete_objects(
        &self,
        keys: &[(ObjectKey, Option<ETag>)],
    ) -> Result<Vec<(ObjectKey, StoreError)>> {
        // XML cannot carry control characters: such keys go one by one.
        let is_odd = |key: &ObjectKey| key.as_str().contains(|letter: char| letter < ' ');
        let mut refused = Vec::new();
        for (key, if_match) in keys.iter().filter(|(key, _)| is_odd(key)) {
            if let Err(error) = self.delete_object(key, if_match.as_ref()).await {
                refused.push((key.clone(), error));
            }
        }
        let rest: Vec<_> = keys.iter().filter(|(key, _)| !is_odd(key)).collect();
        if !rest.is_empty() {
            refused.extend(self.delete_in_one(&rest).await?);
        }
        Ok(refused)
    }

    async fn delete_in_one(
        &self,
        keys: &[&(ObjectKey, Option<ETag>)],
    ) -> Result<Vec<(ObjectKey, StoreError)>> {
        self.call(Op::DeleteBatch, |client, seen| async move {
            let named = keys.iter().map(|(key, if_match)| {
                let named = ObjectIdentifier::builder().key(key.as_str());
                let named = named.set_e_tag(if_match.as_ref().map(ETag::quoted)).build();
                named.map_err(|error| StoreError::Invalid(error.to_string()))
            });
            let delete = Delete::builder()
                .set_objects(Some(named.collect::<Result<_>>()?))
                .quiet(true)
                .build()
                .map_err(|error| StoreError::Invalid(error.to_string()))?;
            let request = client.delete_objects().bucket(&self.bucket);
            let request = request.delete(delete).customize().interceptor(seen);
            let output = request.send().await;
            let output = output.map_err(|error| failure(error, Role::Other))?;
            let refused = output.errors().iter().filter_map(|error| {
                let code = error.code().unwrap_or_default();
                let said = saying(code, error.message().unwrap_or_default());
                let reason = by_code(code, &said).unwrap_or(StoreError::Invalid(said));
                let key = ObjectKey::new(error.key()?);
                (reason != StoreError::NotFound).then_some((key, reason))
            });
            Ok(refused.collect())
        })
        .await
    }
}
