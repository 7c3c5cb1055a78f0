//! Checksums as S3 counts them: MD5 and CRC-64/NVME of everything, the client's own algorithm
//! beside them, and how those of the parts make that of the object.
//!
//! Invariants:
//! - what a client sent as a checksum is compared before its bytes become an object or a part;
//! - a whole-object CRC of a multipart object equals the CRC of its bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use s3s::crypto::{Checksum as _, Md5, Sha1, Sha256};
use s3s::{S3Result, s3_error};
use serde::{Deserialize, Serialize};

/// A checksum algorithm of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    /// S3's name of it, as in `x-amz-sdk-checksum-algorithm`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// By S3's name, in either case (`x-amz-checksum-crc32` has it in lower case).
    pub(super) fn named(name: &str) -> Option<Self> {
        [
            Self::Crc32,
            Self::Crc32c,
            Self::Crc64Nvme,
            Self::Sha1,
            Self::Sha256,
        ]
        .into_iter()
        .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// A CRC as its bytes on the wire.
    fn crc_bytes(self, value: u64) -> Vec<u8> {
        let bytes = value.to_be_bytes();
        match self {
            Self::Crc64Nvme => bytes.to_vec(),
            _ => bytes[4..].to_vec(),
        }
    }
}

/// A checksum as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksum {
    /// How it was made.
    pub(super) algorithm: Algorithm,
    /// Base64; `-N` behind it when it is one of the checksums of N parts.
    pub(super) value: String,
    /// Of the parts' checksums, not of the bytes.
    pub(super) composite: bool,
}

impl Checksum {
    fn whole(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let value = STANDARD.encode(bytes);
        Self {
            algorithm,
            value,
            composite: false,
        }
    }

    /// The CRC-64/NVME of a whole object.
    pub(super) fn crc64(value: u64) -> Self {
        Self::whole(Algorithm::Crc64Nvme, &value.to_be_bytes())
    }
}

/// What a body turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) len: u64,
    pub(super) md5: [u8; 16],
    pub(super) crc64: u64,
    /// By the algorithm that was asked for; CRC-64/NVME if none was.
    pub(super) checksum: Checksum,
}

/// Counts the checksums of a body that passes by.
pub(super) struct Summer {
    len: u64,
    md5: Md5,
    crc64: crc_fast::Digest,
    asked: Asked,
}

enum Asked {
    Crc64,
    Crc(Algorithm, Box<crc_fast::Digest>),
    Sha1(Box<Sha1>),
    Sha256(Box<Sha256>),
}

impl Summer {
    pub(super) fn new(asked: Option<Algorithm>) -> Self {
        let asked = match asked {
            None | Some(Algorithm::Crc64Nvme) => Asked::Crc64,
            Some(Algorithm::Sha1) => Asked::Sha1(Box::default()),
            Some(Algorithm::Sha256) => Asked::Sha256(Box::default()),
            Some(crc @ Algorithm::Crc32) => Asked::Crc(
                crc,
                Box::new(crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc)),
            ),
            Some(crc @ Algorithm::Crc32c) => Asked::Crc(
                crc,
                Box::new(crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi)),
            ),
        };
        Self {
            len: 0,
            md5: Md5::new(),
            crc64: crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme),
            asked,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.md5.update(bytes);
        self.crc64.update(bytes);
        match &mut self.asked {
            Asked::Crc64 => {}
            Asked::Crc(_, crc) => crc.update(bytes),
            Asked::Sha1(sha) => sha.update(bytes),
            Asked::Sha256(sha) => sha.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Sums {
        let crc64 = self.crc64.finalize();
        let checksum = match self.asked {
            Asked::Crc64 => Checksum::crc64(crc64),
            Asked::Crc(algorithm, crc) => {
                Checksum::whole(algorithm, &algorithm.crc_bytes(crc.finalize()))
            }
            Asked::Sha1(sha) => Checksum::whole(Algorithm::Sha1, &sha.finalize()),
            Asked::Sha256(sha) => Checksum::whole(Algorithm::Sha256, &sha.finalize()),
        };
        Sums {
            len: self.len,
            md5: self.md5.finalize(),
            crc64,
            checksum,
        }
    }
}

/// What the client said its body is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// `Content-MD5`.
    pub(super) md5: Option<String>,
    /// The algorithm it names, and the value if it is known before the body (not as a trailer).
    pub(super) checksum: Option<(Algorithm, Option<String>)>,
}

impl Claim {
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        self.checksum.as_ref().map(|(algorithm, _)| *algorithm)
    }

    /// Compares it with what came.
    pub(super) fn verify(&self, sums: &Sums) -> S3Result {
        if let Some(md5) = &self.md5 {
            let claimed = STANDARD.decode(md5).ok().filter(|bytes| bytes.len() == 16);
            let Some(claimed) = claimed else {
                return Err(s3_error!(
                    InvalidDigest,
                    "The Content-MD5 you specified is not valid."
                ));
            };
            if claimed != sums.md5 {
                return Err(s3_error!(
                    BadDigest,
                    "The Content-MD5 you specified did not match what we received."
                ));
            }
        }
        match &self.checksum {
            Some((algorithm, Some(value))) => same(*algorithm, value, &sums.checksum),
            _ => Ok(()),
        }
    }
}

/// Refuses with `BadDigest` when `claimed` is not `counted`.
pub(super) fn same(algorithm: Algorithm, claimed: &str, counted: &Checksum) -> S3Result {
    if algorithm == counted.algorithm && claimed == counted.value {
        return Ok(());
    }
    Err(s3_error!(
        BadDigest,
        "The {} you specified did not match the calculated checksum.",
        algorithm.name()
    ))
}

/// One part, as far as its checksums go.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartSum<'a> {
    pub(super) len: u64,
    pub(super) md5: [u8; 16],
    pub(super) crc64: u64,
    pub(super) checksum: &'a Checksum,
}

/// The ETag of a multipart object: the MD5 of the parts' MD5s, and their number.
pub(super) fn multipart_etag(parts: &[PartSum<'_>]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(&part.md5);
    }
    format!("{}-{}", hex(&md5.finalize()), parts.len())
}

/// The CRC-64/NVME of the object that the parts make.
pub(super) fn joined_crc64(parts: &[PartSum<'_>]) -> u64 {
    let mut parts = parts.iter();
    let first = parts.next().map_or(0, |part| part.crc64);
    parts.fold(first, |crc, part| {
        crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, crc, part.crc64, part.len)
    })
}

/// The checksum of the object that the parts make, by the upload's algorithm and kind. `None` if
/// a part has none by it, or if there is none of that kind (a SHA of the whole).
pub(super) fn joined(
    parts: &[PartSum<'_>],
    algorithm: Algorithm,
    composite: bool,
) -> Option<Checksum> {
    let mut values = Vec::with_capacity(parts.len());
    for part in parts {
        let own = part.checksum.algorithm == algorithm && !part.checksum.composite;
        let value = STANDARD.decode(&part.checksum.value).ok();
        values.push((value.filter(|_| own)?, part.len));
    }
    if composite {
        let all: Vec<u8> = values.iter().flat_map(|(value, _)| value.clone()).collect();
        let mut summer = Summer::new(Some(algorithm));
        summer.update(&all);
        let mut checksum = summer.finish().checksum;
        checksum.value = format!("{}-{}", checksum.value, parts.len());
        checksum.composite = true;
        return Some(checksum);
    }
    let crc = algorithm.crc()?;
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0_u64, |value, byte| (value << 8) | u64::from(*byte))
    };
    let mut values = values.iter();
    let first = values.next().map_or(0, |(value, _)| number(value));
    let whole = values.fold(first, |whole, (value, len)| {
        crc_fast::checksum_combine(crc, whole, number(value), *len)
    });
    Some(Checksum::whole(algorithm, &algorithm.crc_bytes(whole)))
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(bytes: &[u8], algorithm: Option<Algorithm>) -> Sums {
        let mut summer = Summer::new(algorithm);
        summer.update(bytes);
        summer.finish()
    }

    fn part(sums: &Sums) -> PartSum<'_> {
        PartSum {
            len: sums.len,
            md5: sums.md5,
            crc64: sums.crc64,
            checksum: &sums.checksum,
        }
    }

    #[test]
    fn the_check_values_of_the_catalogues_come_out() {
        let of = |algorithm| sums(b"123456789", Some(algorithm)).checksum.value;
        assert_eq!(
            of(Algorithm::Crc32),
            STANDARD.encode(0xcbf4_3926_u32.to_be_bytes())
        );
        assert_eq!(
            of(Algorithm::Crc32c),
            STANDARD.encode(0xe306_9283_u32.to_be_bytes())
        );
        assert_eq!(
            of(Algorithm::Crc64Nvme),
            STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_be_bytes())
        );
        assert_eq!(
            hex(&sums(b"", None).md5),
            "d41d8cd98f00b204e9800998ecf8427e"
        );
    }

    #[test]
    fn joining_parts_gives_the_crc_of_the_whole() {
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let (a, b, c) = (
                sums(b"hello", Some(algorithm)),
                sums(b", ", Some(algorithm)),
                sums(b"world", Some(algorithm)),
            );
            let whole = sums(b"hello, world", Some(algorithm));
            let parts = [part(&a), part(&b), part(&c)];
            assert_eq!(joined(&parts, algorithm, false), Some(whole.checksum));
            assert_eq!(joined_crc64(&parts), whole.crc64);
        }
    }

    #[test]
    fn a_composite_checksum_is_that_of_the_parts_checksums_and_names_their_number() {
        let a = sums(b"hello", Some(Algorithm::Sha256));
        let composite = joined(&[part(&a)], Algorithm::Sha256, true).unwrap();
        let inner = STANDARD.decode(&a.checksum.value).unwrap();
        let outer = sums(&inner, Some(Algorithm::Sha256)).checksum.value;
        assert_eq!(composite.value, format!("{outer}-1"));
        assert!(composite.composite);
        assert_eq!(joined(&[part(&a)], Algorithm::Sha256, false), None);
    }

    #[test]
    fn a_wrong_claim_is_a_bad_digest() {
        let sums = sums(b"hello", Some(Algorithm::Crc32));
        let claim = |md5: Option<String>, value: Option<&str>| Claim {
            md5,
            checksum: Some((Algorithm::Crc32, value.map(str::to_owned))),
        };
        let right = STANDARD.encode(sums.md5);
        assert!(
            claim(Some(right), Some(&sums.checksum.value))
                .verify(&sums)
                .is_ok()
        );
        let wrong_md5 = claim(Some(STANDARD.encode([0; 16])), None).verify(&sums);
        assert_eq!(wrong_md5.unwrap_err().code(), &s3s::S3ErrorCode::BadDigest);
        let wrong_crc = claim(None, Some("AAAAAA==")).verify(&sums);
        assert_eq!(wrong_crc.unwrap_err().code(), &s3s::S3ErrorCode::BadDigest);
        let no_md5 = claim(Some("x".to_owned()), None).verify(&sums);
        assert_eq!(no_md5.unwrap_err().code(), &s3s::S3ErrorCode::InvalidDigest);
    }
}
