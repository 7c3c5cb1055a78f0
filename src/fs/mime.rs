//! Content types by a name's ending, for `content_type=auto`: the ones that devices in the field
//! write and browsers and S3 consoles show. Anything else is left to S3's own default.

use crate::types::Name;

const BY_ENDING: [(&str, &str); 31] = [
    ("avi", "video/x-msvideo"),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("csv", "text/csv"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("heic", "image/heic"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("json", "application/json"),
    ("log", "text/plain"),
    ("md", "text/markdown"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("ogg", "audio/ogg"),
    ("parquet", "application/vnd.apache.parquet"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("txt", "text/plain"),
    ("wav", "audio/wav"),
    ("webp", "image/webp"),
    ("xml", "application/xml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// The type of a file of this name, if its ending tells.
pub(super) fn content_type(name: &Name) -> Option<&'static str> {
    let (stem, ending) = name.as_str().rsplit_once('.')?;
    let ending = ending.to_ascii_lowercase();
    let at = BY_ENDING
        .binary_search_by(|(known, _)| (*known).cmp(ending.as_str()))
        .ok()?;
    (!stem.is_empty()).then_some(BY_ENDING[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_known_in_any_case_and_hidden_files_have_none() {
        let of = |name| content_type(&Name::new(name).unwrap());
        assert_eq!(of("a.b.JPG"), Some("image/jpeg"));
        assert_eq!((of(".log"), of("log"), of("x.unknown")), (None, None, None));
        assert!(BY_ENDING.is_sorted(), "searched by halves");
    }
}
