//! The verbs on one object, and the deletion of many.

use std::sync::Arc;

use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, DeleteObjectInput, DeleteObjectOutput,
    DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETagCondition, Error, GetObjectInput,
    GetObjectOutput, HeadObjectInput, HeadObjectOutput, MetadataDirective, PutObjectInput,
    PutObjectOutput, Range, StorageClass, TaggingDirective, Timestamp,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::super::bucket::{Attributes, Condition, Object, matches, precondition_failed};
use super::super::checks::{Checksum, Sums};
use super::super::flow::{Outgoing, blocking, receive};
use super::shared::{
    MAX_SINGLE, Source, attributes, caller, claim, condition, encoded_metadata, encryption, etag,
    kind, length, show_checksum, timestamp, with_metadata, with_trailer,
};
use super::{Answer, Cabinet};

pub(super) async fn put(
    cabinet: &Cabinet,
    req: S3Request<PutObjectInput>,
) -> Answer<PutObjectOutput> {
    let input = req.input;
    cabinet.store.check_bucket(&input.bucket)?;
    if input
        .content_length
        .is_some_and(|len| len > length(MAX_SINGLE))
    {
        return Err(s3_error!(EntityTooLarge));
    }
    let attributes = attributes(&req.headers)?;
    let claim = claim(&req.headers)?;
    let when = condition(&req.headers, cabinet.honours.put)?;
    let (content, sums) = receive(&cabinet.store.blobs, input.body, claim.algorithm()).await?;
    with_trailer(claim, req.trailing_headers.as_ref())?.verify(&sums)?;
    let object = Object::single(content, sums, attributes);
    let object = cabinet
        .store
        .put(&input.bucket, &input.key, object, &when)?;
    let mut output = PutObjectOutput {
        e_tag: Some(etag(&object.etag)),
        checksum_type: Some(kind(&object.checksum)),
        server_side_encryption: Some(encryption(&object.attributes)),
        ..PutObjectOutput::default()
    };
    show_checksum!(output, object.checksum);
    Ok(S3Response::new(output))
}

/// The conditions of a read.
struct Reading {
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    if_modified_since: Option<Timestamp>,
    if_unmodified_since: Option<Timestamp>,
}

impl Reading {
    fn check(&self, object: &Object) -> S3Result {
        let modified = timestamp(object.modified);
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(wanted), _) if !matches(wanted, &object.etag) => {
                return Err(precondition_failed("If-Match"));
            }
            (None, Some(since)) if modified > *since => {
                return Err(precondition_failed("If-Unmodified-Since"));
            }
            _ => {}
        }
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(known), _) if matches(known, &object.etag) => Err(not_modified(object)?),
            (None, Some(since)) if modified <= *since => Err(not_modified(object)?),
            _ => Ok(()),
        }
    }
}

fn not_modified(object: &Object) -> S3Result<S3Error> {
    let mut headers = http::HeaderMap::new();
    let value = format!("\"{}\"", object.etag).parse();
    headers.insert(http::header::ETAG, value.map_err(S3Error::internal_error)?);
    let mut answer = S3Error::new(S3ErrorCode::NotModified);
    answer.set_headers(headers);
    Ok(answer)
}

pub(super) fn get(cabinet: &Cabinet, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
    let input = req.input;
    if input.part_number.is_some() {
        return Err(s3_error!(NotImplemented, "No reading by part number."));
    }
    let object = cabinet.find(&input.bucket, &input.key)?;
    if cabinet.honours.get {
        let reading = Reading {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        reading.check(&object)?;
    }
    let (content, range) = match input.range {
        None => (object.content.clone(), None),
        Some(range) => {
            let range = cut(range, object.size)?;
            let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, object.size);
            (object.content.cut(&range), Some(shown))
        }
    };
    let attributes = &object.attributes;
    let mut output = GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: Some(length(content.len())),
        body: Some(Outgoing::of(&content)),
        e_tag: Some(etag(&object.etag)),
        last_modified: Some(timestamp(object.modified)),
        content_type: Some(content_type(attributes)),
        content_encoding: attributes.content_encoding.clone(),
        content_disposition: attributes.content_disposition.clone(),
        content_language: attributes.content_language.clone(),
        cache_control: attributes.cache_control.clone(),
        storage_class: attributes.storage_class.clone().map(StorageClass::from),
        server_side_encryption: Some(encryption(attributes)),
        tag_count: tag_count(attributes),
        metadata: Some(encoded_metadata(attributes)),
        ..GetObjectOutput::default()
    };
    // Of the whole object, so not with a part of it.
    if input.checksum_mode.is_some() && range.is_none() {
        show_checksum!(output, object.checksum);
        output.checksum_type = Some(kind(&object.checksum));
    }
    output.content_range = range;
    with_metadata(output, attributes)
}

fn cut(range: Range, size: u64) -> S3Result<std::ops::Range<u64>> {
    let cut = range.check(size).ok().filter(|cut| !cut.is_empty());
    cut.ok_or_else(|| {
        let mut refusal = s3_error!(InvalidRange, "The requested range is not satisfiable");
        let mut headers = http::HeaderMap::new();
        if let Ok(value) = format!("bytes */{size}").parse() {
            headers.insert(http::header::CONTENT_RANGE, value);
        }
        refusal.set_headers(headers);
        refusal
    })
}

fn content_type(attributes: &Attributes) -> String {
    let named = attributes.content_type.clone();
    named.unwrap_or_else(|| "binary/octet-stream".to_owned())
}

fn tag_count(attributes: &Attributes) -> Option<i32> {
    let tagging = attributes.tagging.as_ref()?;
    Some(super::shared::count(tagging.split('&').count()))
}

pub(super) fn head(cabinet: &Cabinet, req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
    let input = req.input;
    if input.part_number.is_some() || input.range.is_some() {
        return Err(s3_error!(NotImplemented, "No looking at a piece."));
    }
    let object = cabinet.find(&input.bucket, &input.key)?;
    if cabinet.honours.get {
        let reading = Reading {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        reading.check(&object)?;
    }
    let attributes = &object.attributes;
    let mut output = HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: Some(length(object.size)),
        e_tag: Some(etag(&object.etag)),
        last_modified: Some(timestamp(object.modified)),
        content_type: Some(content_type(attributes)),
        content_encoding: attributes.content_encoding.clone(),
        content_disposition: attributes.content_disposition.clone(),
        content_language: attributes.content_language.clone(),
        cache_control: attributes.cache_control.clone(),
        storage_class: attributes.storage_class.clone().map(StorageClass::from),
        server_side_encryption: Some(encryption(attributes)),
        metadata: Some(encoded_metadata(attributes)),
        ..HeadObjectOutput::default()
    };
    if input.checksum_mode.is_some() {
        show_checksum!(output, object.checksum);
        output.checksum_type = Some(kind(&object.checksum));
    }
    with_metadata(output, attributes)
}

pub(super) async fn copy(
    cabinet: &Cabinet,
    req: S3Request<CopyObjectInput>,
) -> Answer<CopyObjectOutput> {
    let input = req.input;
    let replaces = |directive: Option<&str>| directive == Some("REPLACE");
    let replace = replaces(
        input
            .metadata_directive
            .as_ref()
            .map(MetadataDirective::as_str),
    );
    let retag = replaces(
        input
            .tagging_directive
            .as_ref()
            .map(TaggingDirective::as_str),
    );
    let itself = matches!(&input.copy_source, s3s::dto::CopySource::Bucket { bucket, key, .. }
        if **bucket == *input.bucket && **key == *input.key);
    let source = Source {
        from: input.copy_source,
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
    };
    let source = cabinet.source(&source, &caller(&req.extensions))?;
    if source.size > MAX_SINGLE {
        return Err(s3_error!(
            InvalidRequest,
            "The specified copy source is larger than the maximum allowable size for a copy source."
        ));
    }
    let asked = attributes(&req.headers)?;
    if itself && !replace && asked.storage_class == source.attributes.storage_class {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself \
             without changing the object's metadata, storage class, website redirect location or \
             encryption attributes."
        ));
    }
    let when = condition(&req.headers, cabinet.honours.copy)?;
    let kept = if replace { &asked } else { &source.attributes };
    let tagged = if retag { &asked } else { &source.attributes };
    let attributes = Attributes {
        storage_class: asked.storage_class.clone(),
        encryption: asked.encryption.clone(),
        tagging: tagged.tagging.clone(),
        ..kept.clone()
    };
    let sums = sums_of(&source).await?;
    let object = Object::single(source.content.clone(), sums, attributes);
    let object = cabinet
        .store
        .put(&input.bucket, &input.key, object, &when)?;
    let mut result = CopyObjectResult {
        e_tag: Some(etag(&object.etag)),
        last_modified: Some(timestamp(object.modified)),
        checksum_type: Some(kind(&object.checksum)),
        ..CopyObjectResult::default()
    };
    show_checksum!(result, object.checksum);
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(result),
        server_side_encryption: Some(encryption(&object.attributes)),
        ..CopyObjectOutput::default()
    }))
}

/// The checksums of the bytes of an object, read only where its own do not tell.
async fn sums_of(source: &Arc<Object>) -> S3Result<Sums> {
    if let Some(md5) = source.md5() {
        let whole = (!source.checksum.composite).then(|| source.checksum.clone());
        return Ok(Sums {
            len: source.size,
            md5,
            crc64: source.crc64,
            checksum: whole.unwrap_or_else(|| Checksum::crc64(source.crc64)),
        });
    }
    let source = Arc::clone(source);
    blocking(move || source.content.sum(None)).await
}

pub(super) fn delete(
    cabinet: &Cabinet,
    req: S3Request<DeleteObjectInput>,
) -> Answer<DeleteObjectOutput> {
    let when = condition(&req.headers, cabinet.honours.delete)?;
    let when = Condition {
        if_none_match: None,
        ..when
    };
    cabinet
        .store
        .delete(&req.input.bucket, &req.input.key, &when)?;
    Ok(S3Response::new(DeleteObjectOutput::default()))
}

pub(super) fn delete_many(
    cabinet: &Cabinet,
    req: S3Request<DeleteObjectsInput>,
) -> Answer<DeleteObjectsOutput> {
    let input = req.input;
    cabinet.store.check_bucket(&input.bucket)?;
    let claimed = req
        .headers
        .keys()
        .any(|name| name == "content-md5" || name.as_str().starts_with("x-amz-checksum-"));
    if !claimed && req.trailing_headers.is_none() {
        return Err(s3_error!(
            InvalidRequest,
            "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"
        ));
    }
    if input.delete.objects.len() > 1000 {
        return Err(s3_error!(MalformedXML));
    }
    let caller = caller(&req.extensions);
    let quiet = input.delete.quiet.unwrap_or(false);
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for object in input.delete.objects {
        let if_match = object.e_tag.filter(|_| cabinet.honours.delete);
        let when = Condition {
            if_match: if_match.map(ETagCondition::ETag),
            if_none_match: None,
        };
        let done = caller
            .may_touch(&object.key)
            .and_then(|()| cabinet.store.delete(&input.bucket, &object.key, &when));
        match done {
            Ok(()) => deleted.push(DeletedObject {
                key: Some(object.key),
                ..DeletedObject::default()
            }),
            Err(error) => errors.push(Error {
                key: Some(object.key),
                code: Some(error.code().as_str().to_owned()),
                message: error.message().map(str::to_owned),
                version_id: None,
            }),
        }
    }
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: (!quiet).then_some(deleted),
        errors: Some(errors),
        ..DeleteObjectsOutput::default()
    }))
}
