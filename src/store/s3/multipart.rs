//! Uploads in parts.
//!
//! An upload asks for one CRC-64/NVME over the whole object, so a server that knows it checks each
//! part's, and joins them at Complete by itself.

use std::ops::Range;

use aws_sdk_s3::operation::list_parts::ListPartsOutput;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::super::{Op, PartDone, Payload, Result, StoreError, UploadId, whole_crc64};
use super::body::framed;
use super::error::{Failure, Role, failure};
use super::headers::described;
use super::object::{crc_header, range_header};
use super::{S3Store, conditions, etag, signed};
use crate::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

/// Parts, and where the next page of them begins.
pub(super) type PartsPage = (Vec<PartDone>, Option<String>);

/// S3's own limit.
const PARTS_MAX: usize = 10_000;

fn crc_of(header: Option<&str>) -> Option<u64> {
    let bytes = BASE64_STANDARD.decode(header?).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// The same parts, completed again, make no other object.
fn completing(failure: Failure) -> Failure {
    match failure.error {
        StoreError::BadDigest => Failure {
            error: StoreError::Invalid("what S3 has is not what was sent".to_owned()),
            ..failure
        },
        error => Failure { error, ..failure },
    }
}

fn bad(text: &str) -> Failure {
    StoreError::BadAnswer(text.to_owned()).into()
}

impl S3Store {
    pub(super) async fn create_upload(
        &self,
        key: &ObjectKey,
        headers: &Headers,
    ) -> Result<UploadId> {
        self.call(Op::CreateMultipart, |client, seen| async move {
            let request = described!(client.create_multipart_upload(), headers)
                .bucket(&self.bucket)
                .key(key.as_str())
                .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
                .checksum_type(ChecksumType::FullObject);
            let output = request.customize().interceptor(seen).send().await;
            let output = output.map_err(|error| failure(error, Role::Other))?;
            let id = output.upload_id().filter(|id| !id.is_empty());
            id.map(|id| UploadId(id.into()))
                .ok_or_else(|| bad("no upload id"))
        })
        .await
    }

    pub(super) async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        payload: &Payload,
    ) -> Result<PartDone> {
        self.call(Op::UploadPart, |client, seen| async move {
            let (body, fault) = framed(payload);
            let request = client
                .upload_part()
                .bucket(&self.bucket)
                .key(key.as_str())
                .upload_id(&*upload.0)
                .part_number(i32::from(number))
                .content_length(signed(payload.len)?)
                .checksum_crc64_nvme(crc_header(payload.crc64))
                .body(body);
            let request = request.customize().disable_payload_signing();
            let output = request.interceptor(seen).send().await;
            let output = output.map_err(|error| {
                let failure = failure(error, Role::Upload);
                Failure {
                    error: fault.or(failure.error),
                    ..failure
                }
            })?;
            Ok(PartDone {
                number,
                etag: etag(output.e_tag())?,
                crc64: Some(payload.crc64),
                size: Some(payload.len),
            })
        })
        .await
    }

    pub(super) async fn put_part_copy(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        source: &ObjectId,
        range: Option<Range<u64>>,
    ) -> Result<PartDone> {
        let range = range.as_ref();
        self.call(Op::CopyPart, |client, seen| async move {
            let request = client
                .upload_part_copy()
                .bucket(&self.bucket)
                .key(key.as_str())
                .upload_id(&*upload.0)
                .part_number(i32::from(number))
                .copy_source(self.copy_source(source))
                .copy_source_if_match(source.etag.quoted())
                .set_copy_source_range(range.map(range_header).transpose()?);
            let output = request.customize().interceptor(seen).send().await;
            let output = output.map_err(|error| failure(error, Role::UploadCopy))?;
            let result = output.copy_part_result();
            let crc64 = result.and_then(|result| result.checksum_crc64_nvme());
            Ok(PartDone {
                number,
                etag: etag(result.and_then(|result| result.e_tag()))?,
                crc64: crc_of(crc64),
                size: range.map(|range| range.end - range.start),
            })
        })
        .await
    }

    /// `modified` is the time of the answer; S3 itself dates such an object by its CreateMultipartUpload.
    pub(super) async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartDone],
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        let named = parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(i32::from(part.number))
                .e_tag(part.etag.quoted())
                .build()
        });
        let named = CompletedMultipartUpload::builder().set_parts(Some(named.collect()));
        let named = &named.build();
        let whole = &whole_crc64(parts).map(crc_header);
        let (tag, modified) = self
            .call(Op::Complete, |client, seen| async move {
                let (if_match, if_none_match) = conditions(when);
                let request = client
                    .complete_multipart_upload()
                    .bucket(&self.bucket)
                    .key(key.as_str())
                    .upload_id(&*upload.0)
                    .multipart_upload(named.clone())
                    .set_checksum_crc64_nvme(whole.clone())
                    .set_if_match(if_match)
                    .set_if_none_match(if_none_match);
                let output = request.customize().interceptor(seen.clone()).send().await;
                let output = output.map_err(|error| completing(failure(error, Role::Complete)))?;
                Ok((output.e_tag().map(ETag::new), seen.date()))
            })
            .await?;
        let sizes: Option<Vec<u64>> = parts.iter().map(|part| part.size).collect();
        match (tag.filter(|tag| !tag.as_str().is_empty()), sizes) {
            (Some(etag), Some(sizes)) => Ok(ObjectMeta {
                id: ObjectId {
                    key: key.clone(),
                    etag,
                },
                size: sizes.iter().sum(),
                modified,
                headers: None,
            }),
            _ => self.head_object(key, None).await,
        }
    }

    pub(super) async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<()> {
        let answer = self.call(Op::Abort, |client, seen| async move {
            let request = client
                .abort_multipart_upload()
                .bucket(&self.bucket)
                .key(key.as_str())
                .upload_id(&*upload.0);
            let output = request.customize().interceptor(seen).send().await;
            let output = output.map_err(|error| failure(error, Role::Upload));
            output.map(|_| ())
        });
        match answer.await {
            Err(StoreError::NoSuchUpload) => Ok(()),
            answer => answer,
        }
    }

    pub(super) async fn parts_of(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<Vec<PartDone>> {
        let mut parts: Vec<PartDone> = Vec::new();
        let mut marker = None;
        loop {
            let (page, next) = self.page_of_parts(key, upload, marker.as_deref()).await?;
            let grew = !page.is_empty();
            parts.extend(page);
            if parts.len() > PARTS_MAX {
                return Err(StoreError::BadAnswer(
                    "more parts than an upload has".into(),
                ));
            }
            if next.is_none() || !grew {
                break;
            }
            marker = next;
        }
        parts.sort_unstable_by_key(|part| part.number);
        Ok(parts)
    }

    async fn page_of_parts(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        marker: Option<&str>,
    ) -> Result<(Vec<PartDone>, Option<String>)> {
        self.call(Op::ListParts, |client, seen| async move {
            let request = client
                .list_parts()
                .bucket(&self.bucket)
                .key(key.as_str())
                .upload_id(&*upload.0)
                .set_part_number_marker(marker.map(str::to_owned));
            let output = request.customize().interceptor(seen).send().await;
            let output = output.map_err(|error| failure(error, Role::Upload))?;
            page(&output)
        })
        .await
    }
}

/// What an answer to ListParts says, and where the next one begins.
pub(super) fn page(output: &ListPartsOutput) -> std::result::Result<PartsPage, Failure> {
    let parts = output.parts().iter().map(|part| {
        let number = part.part_number().and_then(|at| u16::try_from(at).ok());
        Ok(PartDone {
            number: number.ok_or_else(|| bad("a part without a number"))?,
            etag: etag(part.e_tag())?,
            crc64: crc_of(part.checksum_crc64_nvme()),
            size: part.size().and_then(|size| u64::try_from(size).ok()),
        })
    });
    let parts = parts.collect::<std::result::Result<_, Failure>>()?;
    let next = output.next_part_number_marker().map(str::to_owned);
    Ok((parts, next.filter(|_| output.is_truncated() == Some(true))))
}
