//! The verbs of a multipart upload.

use std::sync::Arc;

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, CopyPartResult,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, ListPartsInput, ListPartsOutput,
    StorageClass, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::super::blob::Content;
use super::super::bucket::Object;
use super::super::checks::{Algorithm, Sums};
use super::super::flow::{blocking, receive};
use super::super::multipart::{Completion, Creation, MIN_PART, Named, Part, number};
use super::shared::{
    MAX_SINGLE, Source, attributes, caller, claim, condition, count, encryption, etag, kind,
    length, show_checksum, timestamp, with_trailer,
};
use super::{Answer, Cabinet};

pub(super) fn create(
    cabinet: &Cabinet,
    req: S3Request<CreateMultipartUploadInput>,
) -> Answer<CreateMultipartUploadOutput> {
    let input = req.input;
    let attributes = attributes(&req.headers)?;
    let algorithm = match input.checksum_algorithm.as_ref() {
        None => None,
        Some(name) => Some(
            Algorithm::named(name.as_str())
                .ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm is not known."))?,
        ),
    };
    let kind = input.checksum_type.as_ref().map(ChecksumType::as_str);
    let composite = match (algorithm, kind) {
        (None | Some(Algorithm::Crc64Nvme), Some(ChecksumType::COMPOSITE))
        | (Some(Algorithm::Sha1 | Algorithm::Sha256), Some(ChecksumType::FULL_OBJECT)) => {
            return Err(s3_error!(
                InvalidRequest,
                "The checksum type cannot be used with the checksum algorithm."
            ));
        }
        (None | Some(Algorithm::Crc64Nvme), _) | (_, Some(ChecksumType::FULL_OBJECT)) => false,
        _ => true,
    };
    let encryption = encryption(&attributes);
    let creation = Creation {
        key: input.key.clone(),
        attributes,
        algorithm,
        composite,
    };
    let id = cabinet.store.create_upload(&input.bucket, creation)?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type: input.checksum_type,
        server_side_encryption: Some(encryption),
        ..CreateMultipartUploadOutput::default()
    }))
}

pub(super) async fn part(
    cabinet: &Cabinet,
    req: S3Request<UploadPartInput>,
) -> Answer<UploadPartOutput> {
    let input = req.input;
    let number = number(input.part_number)?;
    if input
        .content_length
        .is_some_and(|len| len > length(MAX_SINGLE))
    {
        return Err(s3_error!(EntityTooLarge));
    }
    let store = &cabinet.store;
    let wanted = store.upload(&input.bucket, &input.key, &input.upload_id, |upload| {
        upload.what.algorithm
    })?;
    let claim = claim(&req.headers)?;
    let claimed = claim.algorithm();
    if let (Some(wanted), Some(claimed)) = (wanted, claimed)
        && wanted != claimed
    {
        return Err(s3_error!(
            InvalidRequest,
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            wanted.name(),
            claimed.name()
        ));
    }
    let (content, sums) = receive(&store.blobs, input.body, claimed.or(wanted)).await?;
    with_trailer(claim, req.trailing_headers.as_ref())?.verify(&sums)?;
    let part = Part::new(content, sums);
    let part = store.put_part(&input.bucket, &input.upload_id, number, part)?;
    let mut output = UploadPartOutput {
        e_tag: Some(etag(&part.etag())),
        ..UploadPartOutput::default()
    };
    show_checksum!(output, part.checksum);
    Ok(S3Response::new(output))
}

pub(super) async fn part_copy(
    cabinet: &Cabinet,
    req: S3Request<UploadPartCopyInput>,
) -> Answer<UploadPartCopyOutput> {
    let input = req.input;
    let number = number(input.part_number)?;
    let store = &cabinet.store;
    let algorithm = store.upload(&input.bucket, &input.key, &input.upload_id, |upload| {
        upload.what.algorithm
    })?;
    let source = Source {
        from: input.copy_source,
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
    };
    let source = cabinet.source(&source, &caller(&req.extensions))?;
    let content = match &input.copy_source_range {
        None => source.content.clone(),
        Some(range) => ranged(&source, range)?,
    };
    if content.len() > MAX_SINGLE {
        return Err(s3_error!(
            InvalidRequest,
            "The specified copy source is larger than the maximum allowable size for a copy source."
        ));
    }
    let sums = sums_of(&source, &content, algorithm).await?;
    let part = Part::new(content, sums);
    let part = store.put_part(&input.bucket, &input.upload_id, number, part)?;
    let mut result = CopyPartResult {
        e_tag: Some(etag(&part.etag())),
        last_modified: Some(timestamp(part.modified)),
        ..CopyPartResult::default()
    };
    show_checksum!(result, part.checksum);
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(result),
        ..UploadPartCopyOutput::default()
    }))
}

/// The bytes that `x-amz-copy-source-range` names.
fn ranged(source: &Object, range: &str) -> S3Result<Content> {
    let invalid = || {
        s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first \
             and last are the zero-based offsets of the first and last bytes to copy"
        )
    };
    let bounds = range.strip_prefix("bytes=").ok_or_else(invalid)?;
    let (first, last) = bounds.split_once('-').ok_or_else(invalid)?;
    let first: u64 = first.parse().map_err(|_| invalid())?;
    let last: u64 = last.parse().map_err(|_| invalid())?;
    if source.size <= MIN_PART {
        return Err(s3_error!(
            InvalidRequest,
            "A range can be copied only of a source object that is larger than 5 MiB"
        ));
    }
    if first > last || last >= source.size {
        return Err(s3_error!(
            InvalidArgument,
            "Range specified is not valid for source object of size: {}",
            source.size
        ));
    }
    Ok(source.content.cut(&(first..last + 1)))
}

async fn sums_of(
    source: &Arc<Object>,
    content: &Content,
    algorithm: Option<Algorithm>,
) -> S3Result<Sums> {
    let wanted = algorithm.unwrap_or(Algorithm::Crc64Nvme);
    let known = content.len() == source.size
        && source.checksum.algorithm == wanted
        && !source.checksum.composite;
    if known && let Some(md5) = source.md5() {
        return Ok(Sums {
            len: source.size,
            md5,
            crc64: source.crc64,
            checksum: source.checksum.clone(),
        });
    }
    let content = content.clone();
    blocking(move || content.sum(algorithm)).await
}

/// The checksum in one of five fields of a request.
macro_rules! named_checksum {
    ($from:expr) => {
        [
            (Algorithm::Crc32, &$from.checksum_crc32),
            (Algorithm::Crc32c, &$from.checksum_crc32c),
            (Algorithm::Crc64Nvme, &$from.checksum_crc64nvme),
            (Algorithm::Sha1, &$from.checksum_sha1),
            (Algorithm::Sha256, &$from.checksum_sha256),
        ]
        .into_iter()
        .find_map(|(algorithm, value)| Some((algorithm, value.clone()?)))
    };
}

pub(super) fn complete(
    cabinet: &Cabinet,
    req: S3Request<CompleteMultipartUploadInput>,
) -> Answer<CompleteMultipartUploadOutput> {
    let input = req.input;
    let named = |part: &CompletedPart| Named {
        number: part.part_number.unwrap_or(0),
        etag: part
            .e_tag
            .as_ref()
            .map_or_else(String::new, |etag| etag.value().to_owned()),
        checksum: named_checksum!(part),
    };
    let parts = input.multipart_upload.as_ref();
    let parts = parts.and_then(|upload| upload.parts.as_ref());
    let completion = Completion {
        parts: parts.map_or_else(Vec::new, |parts| parts.iter().map(named).collect()),
        size: input
            .mpu_object_size
            .and_then(|size| u64::try_from(size).ok()),
        checksum: named_checksum!(input),
        when: condition(&req.headers, cabinet.honours.complete)?,
    };
    let object =
        cabinet
            .store
            .complete(&input.bucket, &input.key, &input.upload_id, &completion)?;
    let mut output = CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, input.key)),
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: Some(etag(&object.etag)),
        checksum_type: Some(kind(&object.checksum)),
        server_side_encryption: Some(encryption(&object.attributes)),
        ..CompleteMultipartUploadOutput::default()
    };
    show_checksum!(output, object.checksum);
    Ok(S3Response::new(output))
}

pub(super) fn abort(
    cabinet: &Cabinet,
    req: S3Request<AbortMultipartUploadInput>,
) -> Answer<AbortMultipartUploadOutput> {
    let input = req.input;
    cabinet
        .store
        .abort(&input.bucket, &input.key, &input.upload_id)?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

pub(super) fn parts(cabinet: &Cabinet, req: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
    let input = req.input;
    let max = input.max_parts.unwrap_or(1000).clamp(0, 1000);
    let marker = input.part_number_marker.unwrap_or(0);
    let store = &cabinet.store;
    let (what, all) = store.upload(&input.bucket, &input.key, &input.upload_id, |upload| {
        let parts = upload.parts.iter();
        let parts = parts.filter(|(number, _)| i32::from(**number) > marker);
        let parts: Vec<_> = parts
            .map(|(number, part)| (*number, Arc::clone(part)))
            .collect();
        (upload.what.clone(), parts)
    })?;
    let shown = usize::try_from(max).unwrap_or(0).min(all.len());
    let truncated = shown < all.len();
    let parts: Vec<_> = all[..shown]
        .iter()
        .map(|(number, part)| shown_part(*number, part))
        .collect();
    let class = what.attributes.storage_class;
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        max_parts: Some(max),
        part_number_marker: Some(marker),
        next_part_number_marker: parts.last().and_then(|part| part.part_number),
        is_truncated: Some(truncated),
        storage_class: Some(StorageClass::from(
            class.unwrap_or_else(|| "STANDARD".to_owned()),
        )),
        checksum_algorithm: what
            .algorithm
            .map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name())),
        parts: Some(parts),
        ..ListPartsOutput::default()
    }))
}

fn shown_part(number: u16, part: &Part) -> s3s::dto::Part {
    let mut shown = s3s::dto::Part {
        part_number: Some(count(usize::from(number))),
        e_tag: Some(etag(&part.etag())),
        size: Some(length(part.content.len())),
        last_modified: Some(timestamp(part.modified)),
        ..s3s::dto::Part::default()
    };
    show_checksum!(shown, part.checksum);
    shown
}
