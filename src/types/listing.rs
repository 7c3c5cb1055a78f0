//! What a listing of the bucket tells.

use super::ETag;

/// One key of a listing. The key is as S3 holds it: it need not be a path (`RelKey`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key, relative.
    pub key: String,
    /// The version.
    pub etag: ETag,
    /// In bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
    /// `StorageClass`, if named.
    pub storage_class: Option<String>,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// In the server's order (bytes, on a flat key space).
    pub objects: Vec<Listed>,
    /// Each ends with `/`, relative.
    pub prefixes: Vec<String>,
    /// Token of the next page; `None`: this is the last.
    pub next: Option<String>,
    /// Keys that are not UTF-8 or otherwise not to be had as text: hidden and counted.
    pub unreadable: u64,
}
