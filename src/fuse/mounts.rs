//! What is mounted where, from `/proc/self/mountinfo`: asking the mount itself would hang when its
//! daemon does.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// The type our mounts have.
pub const FS_TYPE: &str = "fuse.kryptonfs";

/// One of our mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub dir: PathBuf,
    /// What, as shown in the mount table.
    pub source: String,
    /// The user whose daemon it is.
    pub owner: u32,
}

/// All mounts of ours, oldest first.
///
/// # Errors
/// If `/proc` is not there.
pub fn ours() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The mount that `path` (absolute) is at or in.
#[must_use]
pub fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let inside = mounts.iter().filter(|mount| path.starts_with(&mount.dir));
    inside.max_by_key(|mount| mount.dir.as_os_str().len())
}

/// Lines of ours; others and malformed ones are passed over.
fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// `id parent dev root DIR options [tags] - TYPE SOURCE superoptions`.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    if *fields.get(dash + 1)? != FS_TYPE.as_bytes() {
        return None;
    }
    let options = String::from_utf8_lossy(fields.get(dash + 3)?);
    let owner = options
        .split(',')
        .find_map(|option| option.strip_prefix("user_id="))
        .and_then(|id| id.parse().ok());
    Some(Mount {
        dir: OsString::from_vec(unescape(fields.get(4)?)).into(),
        source: String::from_utf8_lossy(&unescape(fields.get(dash + 2)?)).into_owned(),
        owner: owner.unwrap_or(0),
    })
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
90 22 0:55 / /mnt/a\\040b rw,nosuid,nodev shared:9 master:2 - fuse.kryptonfs s3://bucket/pre\\134fix rw,user_id=1000,group_id=1000,default_permissions\n\
91 22 0:56 / /mnt/a\\040b/in rw - fuse.kryptonfs s3://other rw,user_id=0\n\
broken line\n";

    #[test]
    fn only_our_mounts_are_seen_with_their_names_unescaped() {
        let mounts = parse(TABLE);
        assert_eq!(
            mounts,
            [
                Mount {
                    dir: "/mnt/a b".into(),
                    source: "s3://bucket/pre\\fix".into(),
                    owner: 1000
                },
                Mount {
                    dir: "/mnt/a b/in".into(),
                    source: "s3://other".into(),
                    owner: 0
                },
            ]
        );
    }

    #[test]
    fn a_path_belongs_to_the_innermost_mount_around_it() {
        let mounts = parse(TABLE);
        let at = |path: &str| containing(&mounts, Path::new(path)).map(|m| m.source.clone());
        assert_eq!(at("/mnt/a b/x/y"), Some("s3://bucket/pre\\fix".into()));
        assert_eq!(at("/mnt/a b/in/x"), Some("s3://other".into()));
        assert_eq!(at("/mnt/a bc"), None);
    }
}
