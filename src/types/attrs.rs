//! What travels with an object beside its bytes, and its form in the object's metadata.
//!
//! The form is s3fs's (so that s3fs reads what we write and the reverse): user metadata `mode`
//! (decimal `st_mode` with the file type), `uid`, `gid`, `mtime` (seconds, maybe with a fraction;
//! rclone writes the same name in the same form), `xattr` (percent-encoded JSON of base64 values);
//! a directory is the key with a trailing `/` and the type `application/x-directory`. What is ours:
//! `rdev`, the decimal `st_rdev` of a device (s3fs writes the node, but not which device it is).
//!
//! Invariant: a field that is `None` is not known and is not written: metadata that others wrote
//! and we do not understand is kept in `headers` and sent again.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::Headers;

/// What kind of node a name is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    #[default]
    File,
    /// A directory.
    Dir,
    /// A symbolic link; its content is the target.
    Symlink,
    /// A named pipe: the kernel serves it, the object is no more than its name.
    Fifo,
    /// The name of a socket, as `Fifo`.
    Socket,
    /// A character device, as `Fifo`; its `st_rdev`.
    Char(u32),
    /// A block device, as `Fifo`; its `st_rdev`.
    Block(u32),
}

/// Seconds and nanoseconds since 1970.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time {
    /// Whole seconds; negative before 1970.
    pub secs: i64,
    /// 0..1_000_000_000.
    pub nanos: u32,
}

/// The attributes of a file, directory or symlink. `None`: not known (shown as the default).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attrs {
    /// What it is.
    pub kind: Kind,
    /// Permission bits (0o7777).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last change of the content.
    pub mtime: Option<Time>,
    /// Extended attributes; `None`: not known.
    pub xattrs: Option<BTreeMap<String, Vec<u8>>>,
    /// All other metadata of the object; `None`: not known, so that before the object is replaced
    /// the version it was built on must be asked for them.
    pub headers: Option<Headers>,
}

const MODE: &str = "mode";
const UID: &str = "uid";
const GID: &str = "gid";
const MTIME: &str = "mtime";
const XATTR: &str = "xattr";
const RDEV: &str = "rdev";
const OURS: [&str; 6] = [MODE, UID, GID, MTIME, XATTR, RDEV];
/// What s3fs and others give a directory's marker.
const DIRECTORY_TYPE: &str = "application/x-directory";
const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFREG: u32 = 0o100_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFSOCK: u32 = 0o140_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;
/// What s3fs leaves as it is when it encodes the JSON of the extended attributes.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

impl Attrs {
    /// Of something made here: nothing remains unknown.
    #[must_use]
    pub fn new(kind: Kind, mode: u32, uid: u32, gid: u32, mtime: Time) -> Self {
        Self {
            kind,
            mode: Some(mode & 0o7777),
            uid: Some(uid),
            gid: Some(gid),
            mtime: Some(mtime),
            xattrs: Some(BTreeMap::new()),
            headers: Some(Headers::default()),
        }
    }

    /// Whether all that the object carries is known, so that it can be replaced without a HEAD.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.headers.is_some()
    }

    /// What is unknown here is taken from `base` (the version this was built on).
    #[must_use]
    pub fn over(self, base: &Self) -> Self {
        Self {
            kind: self.kind,
            mode: self.mode.or(base.mode),
            uid: self.uid.or(base.uid),
            gid: self.gid.or(base.gid),
            mtime: self.mtime.or(base.mtime),
            xattrs: self.xattrs.or_else(|| base.xattrs.clone()),
            headers: self.headers.or_else(|| base.headers.clone()),
        }
    }

    /// The metadata to send. The stamp is the caller's to add.
    #[must_use]
    pub fn to_headers(&self) -> Headers {
        let mut headers = self.headers.clone().unwrap_or_default();
        if self.kind == Kind::Dir {
            headers.content_type = Some(DIRECTORY_TYPE.into());
        }
        let mut put = |name: &str, value: Option<String>| {
            value.and_then(|value| headers.metadata.insert(name.into(), value));
        };
        put(
            MODE,
            self.mode
                .map(|mode| (mode | type_bits(self.kind)).to_string()),
        );
        put(UID, self.uid.map(|id| id.to_string()));
        put(GID, self.gid.map(|id| id.to_string()));
        put(MTIME, self.mtime.map(format_time));
        if let Kind::Char(device) | Kind::Block(device) = self.kind {
            put(RDEV, Some(device.to_string()));
        }
        let xattrs = self.xattrs.as_ref().filter(|all| !all.is_empty());
        put(XATTR, xattrs.map(encode_xattrs));
        headers
    }

    /// Reads the metadata of an object with the key `a/b` or `a/b/`.
    #[must_use]
    pub fn from_headers(headers: &Headers, is_dir_key: bool) -> Self {
        let of = |name: &str| headers.metadata.get(name).map(|value| value.trim());
        let number = |name: &str| of(name).and_then(|value| value.parse::<u32>().ok());
        let mode = number(MODE);
        let kind = match mode.map(|mode| mode & S_IFMT) {
            _ if is_dir_key => Kind::Dir,
            Some(S_IFLNK) => Kind::Symlink,
            Some(S_IFIFO) => Kind::Fifo,
            Some(S_IFSOCK) => Kind::Socket,
            Some(S_IFCHR) => Kind::Char(number(RDEV).unwrap_or_default()),
            Some(S_IFBLK) => Kind::Block(number(RDEV).unwrap_or_default()),
            _ => Kind::File,
        };
        let mut rest = headers.clone();
        rest.metadata
            .retain(|name, _| !OURS.contains(&name.as_str()));
        Self {
            kind,
            mode: mode.map(|mode| mode & 0o7777),
            uid: number(UID),
            gid: number(GID),
            mtime: of(MTIME).and_then(parse_time),
            xattrs: Some(of(XATTR).and_then(decode_xattrs).unwrap_or_default()),
            headers: Some(rest),
        }
    }
}

fn type_bits(kind: Kind) -> u32 {
    match kind {
        Kind::File => S_IFREG,
        Kind::Dir => S_IFDIR,
        Kind::Symlink => S_IFLNK,
        Kind::Fifo => S_IFIFO,
        Kind::Socket => S_IFSOCK,
        Kind::Char(_) => S_IFCHR,
        Kind::Block(_) => S_IFBLK,
    }
}

/// Seconds, with a fraction of nine digits where there is one. Before 1970 the fraction still
/// counts forward from the whole second, as s3fs and `struct timespec` have it.
fn format_time(time: Time) -> String {
    if time.nanos == 0 {
        time.secs.to_string()
    } else {
        format!("{}.{:09}", time.secs, time.nanos)
    }
}

fn parse_time(text: &str) -> Option<Time> {
    let (secs, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().take(9).collect();
    let nanos = if digits.is_empty() {
        0
    } else {
        format!("{digits:0<9}").parse().ok()?
    };
    Some(Time {
        secs: secs.parse().ok()?,
        nanos,
    })
}

fn encode_xattrs(all: &BTreeMap<String, Vec<u8>>) -> String {
    let pairs: BTreeMap<_, _> = all
        .iter()
        .map(|(name, value)| (name, STANDARD.encode(value)))
        .collect();
    let json = serde_json::to_string(&pairs).unwrap_or_default();
    utf8_percent_encode(&json, PLAIN).to_string()
}

fn decode_xattrs(text: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let json = percent_decode_str(text).decode_utf8().ok()?;
    let pairs: BTreeMap<String, String> = serde_json::from_str(&json).ok()?;
    pairs
        .into_iter()
        .map(|(name, value)| Some((name, STANDARD.decode(value).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Attrs {
        let mut attrs = Attrs::new(
            Kind::File,
            0o640,
            7,
            8,
            Time {
                secs: 1_600_000_000,
                nanos: 5,
            },
        );
        attrs.xattrs = Some(BTreeMap::from([("user.k".into(), vec![0, 255])]));
        attrs
    }

    #[test]
    fn the_metadata_is_what_s3fs_writes() {
        let headers = sample().to_headers();
        let shown: Vec<_> = headers
            .metadata
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(
            shown,
            [
                "gid=8",
                "mode=33184",
                "mtime=1600000000.000000005",
                "uid=7",
                "xattr=%7B%22user.k%22%3A%22AP8%3D%22%7D"
            ]
        );
    }

    #[test]
    fn what_a_foreign_writer_left_is_kept_and_unknown_fields_stay_unwritten() {
        let mut headers = Headers {
            content_type: Some("image/png".into()),
            ..Headers::default()
        };
        headers.metadata.insert("camera".into(), "7".into());
        let attrs = Attrs::from_headers(&headers, false);
        assert_eq!(attrs.mode, None);
        assert_eq!(attrs.to_headers(), headers);
    }

    #[test]
    fn attributes_of_an_unknown_base_are_filled_from_it_later() {
        let unknown = Attrs {
            mtime: Some(Time { secs: 9, nanos: 0 }),
            ..Attrs::default()
        };
        let merged = unknown.over(&sample());
        assert_eq!(
            (merged.mode, merged.mtime.map(|t| t.secs)),
            (Some(0o640), Some(9))
        );
        assert!(merged.is_complete());
    }

    #[test]
    fn rclone_and_garbage_times_are_read_or_ignored() {
        assert_eq!(
            parse_time("1600000000.5"),
            Some(Time {
                secs: 1_600_000_000,
                nanos: 500_000_000
            })
        );
        assert_eq!(parse_time("-1"), Some(Time { secs: -1, nanos: 0 }));
        assert_eq!(parse_time("yesterday"), None);
        assert_eq!(parse_time("1.x"), None);
    }

    proptest! {
        #[test]
        fn attributes_survive_the_metadata(
            mode in 0u32..0o10000, uid: u32, gid: u32, secs: i32, nanos in 0u32..1_000_000_000,
            kind in prop::sample::select(vec![
                Kind::File, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::Char(0x0105), Kind::Block(7)
            ]),
            value in prop::collection::vec(any::<u8>(), 0..20)
        ) {
            let mut attrs = Attrs::new(kind, mode, uid, gid, Time { secs: secs.into(), nanos });
            attrs.xattrs = Some(BTreeMap::from([("user.日".into(), value)]));
            prop_assert_eq!(Attrs::from_headers(&attrs.to_headers(), false), attrs);
        }
    }
}
