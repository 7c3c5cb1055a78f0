//! Buckets, and what is in them.

use std::sync::Arc;

use s3s::dto::{
    Bucket, BucketLocationConstraint, ChecksumAlgorithm, CommonPrefix, CreateBucketInput,
    CreateBucketOutput, EncodingType, GetBucketLocationInput, GetBucketLocationOutput,
    HeadBucketInput, HeadBucketOutput, ListBucketsInput, ListBucketsOutput,
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsV2Input, ListObjectsV2Output,
    MultipartUpload, ObjectStorageClass, Owner, StorageClass,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::super::bucket::Object;
use super::super::list::{self, Item, Place, Query};
use super::shared::{count, etag, kind, length, timestamp};
use super::{Answer, Cabinet};

/// The most that a page shows.
const PAGE: i32 = 1000;

/// How many a page may show.
fn limit(asked: Option<i32>) -> S3Result<usize> {
    let asked = asked.unwrap_or(PAGE).min(PAGE);
    usize::try_from(asked).map_err(|_| s3_error!(InvalidArgument, "Not a number of entries."))
}

/// How names are written: as they are, or encoded.
struct Spelling(bool);

impl Spelling {
    fn of(asked: Option<&EncodingType>) -> S3Result<Self> {
        match asked.map(EncodingType::as_str) {
            None => Ok(Self(false)),
            Some(EncodingType::URL) => Ok(Self(true)),
            Some(_) => Err(s3_error!(
                InvalidArgument,
                "Invalid Encoding Method specified in Request"
            )),
        }
    }

    fn of_text(&self, text: &str) -> String {
        if self.0 {
            list::encode(text)
        } else {
            text.to_owned()
        }
    }
}

pub(super) fn objects(
    cabinet: &Cabinet,
    req: S3Request<ListObjectsV2Input>,
) -> Answer<ListObjectsV2Output> {
    let input = req.input;
    let max = limit(input.max_keys)?;
    let spelling = Spelling::of(input.encoding_type.as_ref())?;
    let place = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => Place::of_token(token).ok_or_else(|| {
            s3_error!(
                InvalidArgument,
                "The continuation token provided is incorrect"
            )
        })?,
        (None, Some(after)) => Place::Key(after.clone()),
        (None, None) => Place::Start,
    };
    let query = Query {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone().filter(|text| !text.is_empty()),
        from: place,
        max,
    };
    let page = cabinet.store.list(&input.bucket, &query)?;
    let owner = input.fetch_owner == Some(true);
    let shown = count(page.items.len());
    let (mut contents, mut prefixes) = (Vec::new(), Vec::new());
    for item in page.items {
        match item {
            Item::Key(key, object) => contents.push(entry(spelling.of_text(&key), &object, owner)),
            Item::Prefix(prefix) => prefixes.push(CommonPrefix {
                prefix: Some(spelling.of_text(&prefix)),
            }),
        }
    }
    let spelled = |text: Option<String>| text.map(|text| spelling.of_text(&text));
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(spelling.of_text(&query.prefix)),
        delimiter: spelled(input.delimiter),
        start_after: spelled(input.start_after),
        encoding_type: input.encoding_type,
        max_keys: Some(count(max)),
        key_count: Some(shown),
        is_truncated: Some(page.next.is_some()),
        continuation_token: input.continuation_token,
        next_continuation_token: page.next.map(|place| place.token()),
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        request_charged: None,
    }))
}

fn entry(key: String, object: &Arc<Object>, owner: bool) -> s3s::dto::Object {
    let class = object.attributes.storage_class.clone();
    let class = class.unwrap_or_else(|| "STANDARD".to_owned());
    let algorithm = ChecksumAlgorithm::from_static(object.checksum.algorithm.name());
    s3s::dto::Object {
        key: Some(key),
        e_tag: Some(etag(&object.etag)),
        size: Some(length(object.size)),
        last_modified: Some(timestamp(object.modified)),
        storage_class: Some(ObjectStorageClass::from(class)),
        checksum_algorithm: Some(vec![algorithm]),
        checksum_type: Some(kind(&object.checksum)),
        owner: owner.then(|| Owner {
            display_name: None,
            id: Some("0".repeat(64)),
        }),
        restore_status: None,
    }
}

pub(super) fn uploads(
    cabinet: &Cabinet,
    req: S3Request<ListMultipartUploadsInput>,
) -> Answer<ListMultipartUploadsOutput> {
    let input = req.input;
    if input
        .delimiter
        .as_ref()
        .is_some_and(|text| !text.is_empty())
    {
        return Err(s3_error!(NotImplemented, "No delimiter for uploads."));
    }
    let max = limit(input.max_uploads)?;
    let spelling = Spelling::of(input.encoding_type.as_ref())?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let mut all = cabinet.store.uploads(&input.bucket, &prefix)?;
    if let Some(marker) = &input.key_marker {
        let id = input.upload_id_marker.as_deref();
        // The uploads of the marker's key go on behind the marker's id, if one is given.
        let at = all
            .iter()
            .position(|(key, upload, _)| key == marker && Some(&**upload) == id);
        match at {
            Some(at) => drop(all.drain(..=at)),
            None => all.retain(|(key, _, _)| key > marker),
        }
    }
    let truncated = all.len() > max;
    all.truncate(max);
    let last = all.last().filter(|_| truncated);
    let (next_key, next_id) = last
        .map(|(key, id, _)| (spelling.of_text(key), id.clone()))
        .unzip();
    let uploads = all.iter().map(|(key, id, what)| {
        let class = what.attributes.storage_class.clone();
        MultipartUpload {
            key: Some(spelling.of_text(key)),
            upload_id: Some(id.clone()),
            initiated: Some(timestamp(what.initiated)),
            storage_class: Some(StorageClass::from(
                class.unwrap_or_else(|| "STANDARD".to_owned()),
            )),
            ..MultipartUpload::default()
        }
    });
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket.clone()),
        prefix: input.prefix.map(|text| spelling.of_text(&text)),
        key_marker: input.key_marker.map(|text| spelling.of_text(&text)),
        upload_id_marker: input.upload_id_marker,
        encoding_type: input.encoding_type,
        max_uploads: Some(count(max)),
        is_truncated: Some(truncated),
        next_key_marker: next_key,
        next_upload_id_marker: next_id,
        uploads: Some(uploads.collect()),
        ..ListMultipartUploadsOutput::default()
    }))
}

pub(super) fn buckets(
    cabinet: &Cabinet,
    _: S3Request<ListBucketsInput>,
) -> Answer<ListBucketsOutput> {
    let buckets = cabinet.store.buckets().into_iter();
    let buckets = buckets.map(|(name, created)| Bucket {
        name: Some(name),
        creation_date: Some(timestamp(created)),
        bucket_region: Some(cabinet.region.clone()),
    });
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets.collect()),
        ..ListBucketsOutput::default()
    }))
}

pub(super) fn head_bucket(
    cabinet: &Cabinet,
    req: S3Request<HeadBucketInput>,
) -> Answer<HeadBucketOutput> {
    cabinet.store.check_bucket(&req.input.bucket)?;
    Ok(S3Response::new(HeadBucketOutput {
        bucket_region: Some(cabinet.region.clone()),
        ..HeadBucketOutput::default()
    }))
}

pub(super) fn create_bucket(
    cabinet: &Cabinet,
    req: S3Request<CreateBucketInput>,
) -> Answer<CreateBucketOutput> {
    let bucket = req.input.bucket;
    if !cabinet.store.create_bucket(&bucket)? {
        return Err(s3_error!(
            BucketAlreadyOwnedByYou,
            "Your previous request to create the named bucket succeeded and you already own it."
        ));
    }
    Ok(S3Response::new(CreateBucketOutput {
        location: Some(format!("/{bucket}")),
    }))
}

pub(super) fn location(
    cabinet: &Cabinet,
    req: S3Request<GetBucketLocationInput>,
) -> Answer<GetBucketLocationOutput> {
    cabinet.store.check_bucket(&req.input.bucket)?;
    let region = cabinet.region.clone();
    Ok(S3Response::new(GetBucketLocationOutput {
        location_constraint: (region != "us-east-1")
            .then(|| BucketLocationConstraint::from(region)),
    }))
}
