//! Listings.
//!
//! Keys are asked for percent-encoded, as XML cannot carry every character. The SDK leaves them so;
//! they are decoded here, if the server says that it encoded them.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{EncodingType, Object};
use percent_encoding::percent_decode_str;

use super::super::{ListPage, ListRequest, Listed, Op, Result, StoreError, UNMADE};
use super::error::{Failure, Role, failure};
use super::{S3Store, etag};

/// A key as it is in the bucket; `None` if it is not UTF-8.
fn decoded(key: &str, encoded: bool) -> Option<String> {
    if !encoded {
        return Some(key.to_owned());
    }
    // As in a form: `+` is a blank, a plus comes as `%2B`.
    let key = key.replace('+', " ");
    let text = percent_decode_str(&key).decode_utf8().ok()?;
    Some(text.into_owned())
}

fn listed(object: &Object, key: String) -> std::result::Result<Listed, Failure> {
    let size = object.size().and_then(|size| u64::try_from(size).ok());
    let tag = object
        .e_tag()
        .filter(|tag| !tag.trim_matches('"').is_empty());
    // HEAD says it, a listing shows nothing in its place.
    let unmade = (key.ends_with('/') && size.unwrap_or(0) == 0).then_some(UNMADE);
    let class = object.storage_class().map(|class| class.as_str());
    Ok(Listed {
        key,
        etag: etag(tag.or(unmade))?,
        size: size
            .or(unmade.map(|_| 0))
            .ok_or_else(|| StoreError::BadAnswer("a listing without sizes".to_owned()))?,
        modified: object.last_modified().map_or(0, DateTime::secs),
        storage_class: class
            .filter(|class| *class != "STANDARD")
            .map(str::to_owned),
    })
}

impl S3Store {
    pub(super) async fn list_page(&self, request: &ListRequest) -> Result<ListPage> {
        self.call(Op::List, |client, seen| async move {
            let list = client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(&request.prefix)
                .set_delimiter(request.delimited.then(|| "/".to_owned()))
                .set_start_after(request.start_after.clone())
                .set_continuation_token(request.continuation.clone())
                .max_keys(i32::from(request.max_keys.clamp(1, 1000)))
                .encoding_type(EncodingType::Url);
            let output = list.customize().interceptor(seen).send().await;
            page(&output.map_err(|error| failure(error, Role::Other))?)
        })
        .await
    }
}

/// What an answer to ListObjectsV2 says.
pub(super) fn page(output: &ListObjectsV2Output) -> std::result::Result<ListPage, Failure> {
    let encoded = output.encoding_type() == Some(&EncodingType::Url);
    let next = output.next_continuation_token().map(str::to_owned);
    let mut page = ListPage {
        next: next.filter(|_| output.is_truncated() == Some(true)),
        ..ListPage::default()
    };
    for object in output.contents() {
        match object.key().and_then(|key| decoded(key, encoded)) {
            Some(key) => page.objects.push(listed(object, key)?),
            None => page.unreadable += 1,
        }
    }
    for prefix in output.common_prefixes() {
        match prefix.prefix().and_then(|key| decoded(key, encoded)) {
            Some(prefix) => page.prefixes.push(prefix),
            None => page.unreadable += 1,
        }
    }
    Ok(page)
}
