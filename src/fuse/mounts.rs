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
    /// Whether the kernel refuses writes there.
    pub read_only: bool,
}

/// Symlinks that are followed to a mountpoint.
const LINKS_MAX: usize = 8;

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

/// The mount that `dir` is at or in, by way of symlinks as well. Looks at nothing inside of a mount,
/// which may hang or be dead: the last component is not followed before the mount table was asked,
/// and the folder it is in is resolved only if it is in no mount of ours.
#[must_use]
pub fn around<'a>(all: &'a [Mount], dir: &Path) -> Option<&'a Mount> {
    place(all, dir).map(|(mount, _)| mount)
}

/// As `around`, and the absolute path by which `dir` is in it.
#[must_use]
pub fn place<'a>(all: &'a [Mount], dir: &Path) -> Option<(&'a Mount, PathBuf)> {
    let mut path = std::path::absolute(dir).ok()?;
    for _ in 0..LINKS_MAX {
        if let Some(mount) = containing(all, &path) {
            return Some((mount, path));
        }
        let name = path.file_name()?.to_owned();
        let real = path.parent()?.canonicalize().ok()?.join(name);
        if let Some(mount) = containing(all, &real) {
            return Some((mount, real));
        }
        let target = std::fs::read_link(&real).ok()?;
        path = real.parent()?.join(target);
    }
    None
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
        read_only: [*fields.get(5)?, *fields.get(dash + 3)?]
            .iter()
            .any(|options| {
                options
                    .split(|byte| *byte == b',')
                    .any(|word| word == b"ro")
            }),
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
91 22 0:56 / /mnt/a\\040b/in rw - fuse.kryptonfs s3://other ro,user_id=0\n\
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
                    owner: 1000,
                    read_only: false
                },
                Mount {
                    dir: "/mnt/a b/in".into(),
                    source: "s3://other".into(),
                    owner: 0,
                    read_only: true
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

    fn mount(dir: &Path) -> Mount {
        Mount {
            dir: dir.to_owned(),
            source: "s3://b/".into(),
            owner: 0,
            read_only: false,
        }
    }

    #[test]
    fn a_mount_is_found_by_itself_by_what_is_in_it_and_by_a_symlink() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        let dir = base.join("mnt");
        std::fs::create_dir(&dir).unwrap();
        let all = [mount(&dir)];
        std::os::unix::fs::symlink("mnt", base.join("link")).unwrap();
        std::os::unix::fs::symlink(base.join("link"), base.join("link2")).unwrap();
        for path in ["mnt", "mnt/below/it", "link", "link2"] {
            assert_eq!(around(&all, &base.join(path)), Some(&all[0]), "{path}");
        }
        assert_eq!(around(&all, &base), None);
        assert_eq!(around(&all, &base.join("mnt2")), None);
    }

    #[test]
    fn a_circle_of_symlinks_ends() {
        let temp = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("b", temp.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", temp.path().join("b")).unwrap();
        assert_eq!(around(&[], &temp.path().join("a")), None);
    }
}
