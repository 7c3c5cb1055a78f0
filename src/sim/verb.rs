//! The name of the operation of a request, before anybody has looked into it.

use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

/// S3's name of the operation, and `bucket/key`.
pub(super) fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> (&'static str, String) {
    let path = uri.path().trim_start_matches('/');
    let target = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let query = uri.query().unwrap_or_default();
    let asked = |name: &str| {
        let mut pairs = query.split('&');
        pairs.any(|pair| pair.split('=').next() == Some(name))
    };
    let copies = headers.contains_key("x-amz-copy-source");
    let operation = match path.split_once('/') {
        Some((_, key)) if !key.is_empty() => object(method, copies, asked),
        _ if path.is_empty() => root(method),
        _ => bucket(method, query, asked),
    };
    (operation, target)
}

const OTHER: &str = "Other";

fn root(method: &Method) -> &'static str {
    match *method {
        Method::GET => "ListBuckets",
        _ => OTHER,
    }
}

fn bucket(method: &Method, query: &str, asked: impl Fn(&str) -> bool) -> &'static str {
    match *method {
        Method::HEAD => "HeadBucket",
        Method::GET if asked("location") => "GetBucketLocation",
        Method::GET if asked("uploads") => "ListMultipartUploads",
        Method::GET if query.split('&').any(|pair| pair == "list-type=2") => "ListObjectsV2",
        Method::POST if asked("delete") => "DeleteObjects",
        Method::PUT if query.is_empty() || query.starts_with("x-id=") => "CreateBucket",
        _ => OTHER,
    }
}

fn object(method: &Method, copies: bool, asked: impl Fn(&str) -> bool) -> &'static str {
    let other = [
        "acl",
        "tagging",
        "attributes",
        "retention",
        "legal-hold",
        "torrent",
    ];
    if other.iter().any(|name| asked(name)) {
        return OTHER;
    }
    match (method, asked("uploadId")) {
        (&Method::HEAD, _) => "HeadObject",
        (&Method::GET, true) => "ListParts",
        (&Method::GET, false) => "GetObject",
        (&Method::PUT, true) if copies => "UploadPartCopy",
        (&Method::PUT, true) => "UploadPart",
        (&Method::PUT, false) if copies => "CopyObject",
        (&Method::PUT, false) => "PutObject",
        (&Method::POST, true) => "CompleteMultipartUpload",
        (&Method::POST, false) if asked("uploads") => "CreateMultipartUpload",
        (&Method::DELETE, true) => "AbortMultipartUpload",
        (&Method::DELETE, false) => "DeleteObject",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(method: &str, uri: &str) -> &'static str {
        let method = method.parse().unwrap();
        of(&method, &uri.parse().unwrap(), &HeaderMap::new()).0
    }

    #[test]
    fn every_operation_has_its_name() {
        for (method, uri, wanted) in [
            ("GET", "/", "ListBuckets"),
            ("GET", "/b?list-type=2&prefix=x", "ListObjectsV2"),
            ("GET", "/b/?uploads", "ListMultipartUploads"),
            ("GET", "/b?location", "GetBucketLocation"),
            ("HEAD", "/b", "HeadBucket"),
            ("PUT", "/b", "CreateBucket"),
            ("POST", "/b?delete", "DeleteObjects"),
            ("GET", "/b?policy", "Other"),
            ("PUT", "/b/k?x-id=PutObject", "PutObject"),
            ("GET", "/b/k", "GetObject"),
            ("HEAD", "/b//", "HeadObject"),
            ("DELETE", "/b/k", "DeleteObject"),
            ("POST", "/b/k?uploads", "CreateMultipartUpload"),
            ("PUT", "/b/k?partNumber=1&uploadId=u", "UploadPart"),
            ("GET", "/b/k?uploadId=u", "ListParts"),
            ("POST", "/b/k?uploadId=u", "CompleteMultipartUpload"),
            ("DELETE", "/b/k?uploadId=u", "AbortMultipartUpload"),
            ("GET", "/b/k?tagging", "Other"),
        ] {
            assert_eq!(name(method, uri), wanted, "{method} {uri}");
        }
    }

    #[test]
    fn a_copy_source_makes_a_copy() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-copy-source", "b/k".parse().unwrap());
        let of = |uri: &str| of(&Method::PUT, &uri.parse().unwrap(), &headers);
        assert_eq!(of("/b/a%20b"), ("CopyObject", "b/a b".to_owned()));
        assert_eq!(of("/b/k?partNumber=1&uploadId=u").0, "UploadPartCopy");
    }
}
