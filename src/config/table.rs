//! The one table of options: every key, what its value may be, its default, one line for people.
//!
//! Invariants: an option that is here does something; a default parses as its own kind; the three
//! spellings (`-o`, TOML, `--long`) and the help are read off this table.

use super::ConfigError;
use super::values;
use crate::fs::Pattern;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text; the empty default means none.
    Text,
    /// An absolute or relative path.
    Path,
    /// `http://` or `https://` and a host.
    Url,
    /// Bytes: `8MiB`, `8M`, `8388608`.
    Size,
    /// Bytes, or `auto`.
    SizeOrAuto,
    /// `30s`, `5m`, `1h`, `2d`, `500ms`.
    Time,
    /// A time, or `auto`.
    TimeOrAuto,
    /// A whole number.
    Count,
    /// `true`, `false`, or the bare key.
    Flag,
    /// `true`, `false`, the bare key, or `auto`.
    FlagOrAuto,
    /// Permission bits, octal.
    Bits,
    /// A user's number or name; `auto`: who mounts.
    User,
    /// A group's number or name; `auto`: of who mounts.
    Group,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Addresses of servers, maybe with a port; several: give it again.
    Addresses,
    /// One address, or none.
    Address,
    /// `NAME=ADDRESS`; several: give it again.
    Hosts,
    /// Blocks of addresses (`10.0.0.0/8`); several: give it again.
    Blocks,
    /// Paths below the mount, with `*`, `?`, `[...]` and `**`; several: give it again.
    Patterns,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Its name, with `_`.
    pub key: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// As text; empty: none.
    pub default: &'static str,
    /// One line for people.
    pub doc: &'static str,
}

impl Kind {
    /// Whether the bare key means `true`.
    #[must_use]
    pub fn is_flag(self) -> bool {
        matches!(self, Self::Flag | Self::FlagOrAuto)
    }

    /// Whether a second value is added to the first rather than put in its place.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(
            self,
            Self::Addresses | Self::Hosts | Self::Blocks | Self::Patterns
        )
    }

    /// What a value looks like, for the help.
    #[must_use]
    pub fn shape(self) -> String {
        match self {
            Self::Text => "TEXT".into(),
            Self::Path => "PATH".into(),
            Self::Url => "URL".into(),
            Self::Size | Self::SizeOrAuto => "SIZE".into(),
            Self::Time | Self::TimeOrAuto => "TIME".into(),
            Self::Count => "N".into(),
            Self::Flag => "true|false".into(),
            Self::FlagOrAuto => "true|false|auto".into(),
            Self::Bits => "OCTAL".into(),
            Self::User => "USER".into(),
            Self::Group => "GROUP".into(),
            Self::Word(words) => words.join("|"),
            Self::Addresses | Self::Address => "ADDRESS".into(),
            Self::Hosts => "NAME=ADDRESS".into(),
            Self::Blocks => "BLOCK".into(),
            Self::Patterns => "PATTERN".into(),
        }
    }

    /// Checks a value; the error says what would be right.
    ///
    /// # Errors
    /// If it is not of this kind.
    pub fn check(self, text: &str) -> Result<(), String> {
        let auto = text == "auto";
        match self {
            Self::Text | Self::Path => Ok(()),
            Self::Url => values::url(text).map(drop),
            Self::Size => values::size(text).map(drop),
            Self::SizeOrAuto => {
                if auto {
                    Ok(())
                } else {
                    values::size(text).map(drop)
                }
            }
            Self::Time => values::time(text).map(drop),
            Self::TimeOrAuto if auto => Ok(()),
            Self::TimeOrAuto => values::time(text).map(drop),
            Self::Count => values::count(text).map(drop),
            Self::Flag => values::flag(text).map(drop),
            Self::FlagOrAuto => {
                if auto {
                    Ok(())
                } else {
                    values::flag(text).map(drop)
                }
            }
            Self::Bits => values::bits(text).map(drop),
            Self::User => {
                if auto {
                    Ok(())
                } else {
                    values::user(text).map(drop)
                }
            }
            Self::Group => {
                if auto {
                    Ok(())
                } else {
                    values::group(text).map(drop)
                }
            }
            Self::Word(words) => values::word(text, words).map(drop),
            Self::Addresses => values::server(text).map(drop),
            Self::Address => values::address(text).map(drop),
            Self::Hosts => values::host(text).map(drop),
            Self::Blocks => values::block(text).map(drop),
            Self::Patterns => text.parse::<Pattern>().map(drop),
        }
    }
}

const fn opt(key: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Opt {
    Opt {
        key,
        kind,
        default,
        doc,
    }
}

use Kind::{
    Address, Addresses, Bits, Blocks, Count, Flag, FlagOrAuto, Group, Hosts, Path, Patterns, Size,
    SizeOrAuto, Text, Time, TimeOrAuto, Url, User, Word,
};

/// All options, in the order of the help.
#[rustfmt::skip]
pub static TABLE: &[Opt] = &[
    opt("region", Text, "", "the bucket's region; without it, the bucket is asked once"),
    opt("endpoint_url", Url, "", "another S3 server or VPC endpoint than the region's own"),
    opt("path_style", FlagOrAuto, "auto", "bucket in the path of the URL; auto: where endpoint_url is not Amazon's regional one"),
    opt("ca_file", Path, "", "trust exactly the CA certificates in this PEM file"),

    opt("krypton_url", Url, "https://krypton.soracom.io:8036", "where credentials for this SIM are issued"),
    opt("krypton", Word(&["auto", "credentials", "tokens"]), "auto", "ask Krypton for credentials, or for a token that Cognito changes into some"),
    opt("cognito_url", Url, "", "another Cognito endpoint than the region's own"),
    opt("prefix", Word(&["none", "identity"]), "none", "identity: the mount is rooted at the folder called as the SIM's Cognito identity"),
    opt("new_identity", Word(&["refuse", "send"]), "refuse", "what was written under another SIM's identity and is unsent: kept until somebody decides, or sent under the new one"),

    opt("network", Word(&["closed", "open"]), "closed", "closed: nothing leaves but by interface; open: routing decides"),
    opt("interface", Text, "", "the network interface of the SIM, such as wwan0"),
    opt("source_address", Address, "", "the address all connections leave from"),
    opt("dns", Addresses, "", "ask this name server instead of those learnt with the link"),
    opt("resolve", Hosts, "", "this name has this address: do not ask"),
    opt("allow", Blocks, "", "only addresses in these blocks are ever connected to"),
    opt("ntp", Text, "ntp.soracom.io", "asked for the time, where the clock of the device cannot be right; none: nobody is asked"),
    opt("closed_check", Word(&["off", "mount", "periodic"]), "off", "send nothing unless S3 says by its canaries that the path is closed: at mount and at each new address; periodic: each hour too"),
    opt("public_probe", Text, "", "a public HOST or HOST:PORT that `kryptonfs doctor` must not reach by the interface"),

    opt("close", Word(&["spooled", "uploaded"]), "spooled", "close() returns once the file is safe on the device, or in S3"),
    opt("close_timeout", Time, "60s", "close=uploaded gives up after so long without progress"),
    opt("close_max", Time, "1h", "close=uploaded gives up after so long"),
    opt("fsync", Word(&["spooled", "uploaded"]), "spooled", "fsync() returns once the file is safe on the device, or in S3"),
    opt("upload_open", Time, "5m", "files that stay open are uploaded so often, if they changed"),
    opt("linger", Time, "2s", "an upload waits so long for the chmod, touch or rename that often follows"),
    opt("append_max_age", TimeOrAuto, "auto", "a file that keeps growing is sent again after this long, or once it grew by a quarter; auto: 1h where S3 needs the whole again (up to 5 MiB), else 1m"),
    opt("order", Word(&["dir", "none"]), "dir", "dir: objects of a directory appear in the order their files were closed"),
    opt("conflict", Word(&["last-writer", "keep-both"]), "last-writer", "when a file that was replaced here was changed elsewhere"),
    opt("conflict_prefix", Text, "", "folder of the mount that NAME.conflict-... go to, at their own path [beside the file]"),

    opt("spool_dir", Path, "", "what is not in S3 yet [/var/lib/kryptonfs; not root: ~/.local/state/kryptonfs]"),
    opt("spool_max", SizeOrAuto, "auto", "cap of the spool; auto: 80 % of what is free at the start"),
    opt("cache_dir", Path, "", "copies of what is in S3 [/var/cache/kryptonfs; not root: ~/.cache/kryptonfs]"),
    opt("cache_max", SizeOrAuto, "auto", "cap of the cache; auto: 1 GiB, or 10 % of the disk if that is less"),
    opt("disk_reserve", Size, "64MiB", "so much of the disk is left free"),

    opt("ttl", Time, "60s", "what is known of the bucket is trusted so long"),
    opt("stale_after", Time, "2s", "names and attributes wait so long for the network, then show what is known"),
    opt("attrs", Word(&["lazy", "exact"]), "lazy", "modes, owners and times of objects written elsewhere: learnt when opened, or asked for (2.4 KB each)"),
    opt("read_timeout", Time, "30s", "a read, or a listing of an unknown directory, fails after so long without a byte"),
    opt("prefetch", Word(&["on", "off"]), "on", "on: fetch ahead of a sequential reader; off: only what is asked for"),
    opt("pin", Patterns, "", "files kept whole in the cache, such as conf/*.json or models/**: at most half of it"),
    opt("pin_every", Time, "1h", "how often pinned files are looked for in the bucket, and fetched if they changed"),
    opt("readahead_max", Size, "4MiB", "fetch at most so much ahead of a sequential reader"),

    opt("part_size", SizeOrAuto, "auto", "size of the parts of multipart uploads; auto: by the link, 5MiB while it is slow"),
    opt("multipart_threshold", Size, "8MiB", "larger files are uploaded in parts"),
    opt("upload_concurrency", Count, "4", "uploads at once, and parts on their way; one part while the link is slow"),

    opt("uid", User, "auto", "owner shown where the object does not say"),
    opt("gid", Group, "auto", "group shown where the object does not say"),
    opt("umask", Bits, "000", "permission bits taken off all that is shown"),
    opt("fmask", Bits, "", "the same for files only [umask]"),
    opt("dmask", Bits, "", "the same for directories only [umask]"),
    opt("file_mode", Bits, "0644", "permissions of files that do not say"),
    opt("dir_mode", Bits, "0755", "permissions of directories that do not say"),
    opt("allow_other", FlagOrAuto, "auto", "other users may enter; auto: when root mounts"),
    opt("ro", Flag, "false", "read-only"),
    opt("noexec", Flag, "false", "programs on the mount cannot be run"),
    opt("protect_dir", Flag, "false", "the bare directory is made immutable, so that nothing falls into it while nothing is mounted"),
    opt("rename_limit", Count, "1000", "a directory with more objects is not renamed (EXDEV, so mv copies)"),
    opt("statfs", Word(&["cloud", "spool"]), "cloud", "df shows a huge empty disk, or the spool's"),

    opt("storage_class", Text, "", "of new objects, such as STANDARD_IA"),
    opt("sse", Word(&["none", "AES256", "aws:kms"]), "none", "server-side encryption asked for new objects"),
    opt("sse_kms_key_id", Text, "", "the key for sse=aws:kms, if not the account's default"),
    opt("content_type", Word(&["auto", "none"]), "auto", "auto: new objects get a Content-Type by their name"),

    opt("log", Word(&["off", "error", "warn", "info", "debug", "trace"]), "info", "what is written to stderr, or to the journal; object names only from debug on, but those of files that a crash broke off"),
    opt("log_paths", Word(&["on", "off"]), "on", "off: no object name in the log, at any level"),
    opt("metrics", Path, "", "write what `status` counts into this file each 15 s, as Prometheus text for node_exporter's textfile collector"),
];

/// The option of that name; `-` and `_` are alike.
///
/// # Errors
/// Names the nearest one.
pub fn find(name: &str) -> Result<&'static Opt, ConfigError> {
    let key = name.replace('-', "_");
    TABLE.iter().find(|opt| opt.key == key).ok_or_else(|| {
        let hint = match nearest(&key) {
            Some(known) => format!("did you mean {known}?"),
            None => "`kryptonfs mount --help` lists them".into(),
        };
        ConfigError::new(format!("unknown option {name:?}: {hint}"))
    })
}

/// The key that is most like `name`, if any is.
fn nearest(name: &str) -> Option<&'static str> {
    let known = TABLE.iter().map(|opt| opt.key).chain(["config"]);
    let (distance, key) = known
        .map(|key| (values::distance(name, key), key))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + name.len() / 4).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_of_its_own_kind() {
        for opt in TABLE.iter().filter(|opt| !opt.default.is_empty()) {
            assert_eq!(opt.kind.check(opt.default), Ok(()), "{}", opt.key);
        }
    }

    #[test]
    fn every_key_is_named_once_and_documented_in_one_line() {
        for (at, opt) in TABLE.iter().enumerate() {
            assert!(TABLE[..at].iter().all(|other| other.key != opt.key));
            assert!(
                !opt.doc.is_empty() && !opt.doc.contains('\n'),
                "{}",
                opt.key
            );
            assert!(opt.key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }

    #[test]
    fn dashes_and_underscores_are_alike() {
        assert_eq!(find("endpoint-url").unwrap().key, "endpoint_url");
        assert_eq!(find("endpoint_url").unwrap().key, "endpoint_url");
    }

    #[test]
    fn an_unknown_option_names_the_nearest() {
        let hint = |name: &str| find(name).unwrap_err().to_string();
        assert!(hint("regoin").contains("did you mean region?"));
        assert!(hint("cache-maxx").contains("did you mean cache_max?"));
        assert!(hint("configg").contains("did you mean config?"));
        assert!(hint("something_else_entirely").contains("--help"));
    }
}
