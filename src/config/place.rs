//! The first word of the command: which bucket, and what part of it.

use std::fmt;

use super::ConfigError;
use crate::types::RelPath;

/// A bucket, or one prefix of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bucket's name.
    pub bucket: String,
    /// Empty, or ends with `/`.
    pub prefix: String,
}

impl Place {
    /// Reads `bucket`, `bucket:/prefix` or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// If it is none of them, or names what cannot be a bucket or a folder.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let (bucket, prefix) = match text.strip_prefix("s3://") {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None if text.contains("://") => ("", ""),
            None => text.split_once(":/").unwrap_or((text, "")),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if bucket.is_empty() || bucket.len() > 255 || !bucket.chars().all(allowed) {
            return Err(ConfigError::new(format!(
                "{text:?} is not a bucket: say bucket, bucket:/prefix or s3://bucket/prefix"
            )));
        }
        let prefix = prefix.trim_matches('/');
        let path = RelPath::new(prefix).map_err(|_| {
            ConfigError::new(format!(
                "{prefix:?} cannot be mounted: its parts must be plain names, without //, . or .."
            ))
        })?;
        // Room for at least one name of the longest kind.
        if path.as_str().len() > 700 {
            return Err(ConfigError::new(
                "the prefix is longer than 700 bytes: mount a shorter one".into(),
            ));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: path.dir_prefix(),
        })
    }

    /// The name of this mount's folder in the spool and in the cache: readable, and another one for
    /// another endpoint or prefix.
    #[must_use]
    pub fn folder(&self, endpoint: &str) -> String {
        let whole = format!("{endpoint}\n{}\n{}", self.bucket, self.prefix);
        let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, whole.as_bytes());
        format!("{}-{sum:08x}", self.bucket)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        match self.prefix.trim_end_matches('/') {
            "" => Ok(()),
            prefix => write!(f, "/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_mean_the_same() {
        let place = Place {
            bucket: "my.bucket".into(),
            prefix: "a/b c/".into(),
        };
        for text in [
            "my.bucket:/a/b c",
            "s3://my.bucket/a/b c",
            "s3://my.bucket/a/b c/",
        ] {
            assert_eq!(Place::parse(text).unwrap(), place, "{text}");
        }
        assert_eq!(place.to_string(), "s3://my.bucket/a/b c");
    }

    #[test]
    fn a_bucket_alone_is_all_of_it() {
        for text in ["bucket", "bucket:/", "s3://bucket", "s3://bucket/"] {
            let place = Place::parse(text).unwrap();
            assert_eq!(
                (place.bucket.as_str(), place.prefix.as_str()),
                ("bucket", "")
            );
            assert_eq!(place.to_string(), "s3://bucket");
        }
    }

    #[test]
    fn what_is_no_bucket_is_refused() {
        for text in [
            "",
            "s3://",
            "/mnt/x",
            "a b",
            "s3:///x",
            "https://x/y",
            "b:/a//b",
            "b:/..",
        ] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
        assert!(Place::parse(&format!("b:/{}", "x/".repeat(400))).is_err());
    }

    #[test]
    fn folders_differ_by_endpoint_and_prefix() {
        let whole = Place::parse("b").unwrap();
        let part = Place::parse("b:/p").unwrap();
        assert!(whole.folder("e").starts_with("b-"));
        assert_ne!(whole.folder("e"), part.folder("e"));
        assert_ne!(whole.folder("e"), whole.folder("f"));
    }
}
