//! Where a mount's control socket is: known from its mountpoint alone, without touching the mount,
//! which may hang.
//!
//! Invariant: a socket lies in a folder that belongs to the mount's user and that nobody else can
//! enter, so neither side can be led to another's.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::fuse::mounts::{self, Mount};

/// Symlinks that are followed to a mountpoint.
const LINKS_MAX: usize = 8;

/// Where sockets of a user's mounts may be, best first.
fn folders(owner: u32) -> Vec<PathBuf> {
    let own = PathBuf::from(format!("/tmp/kryptonfs-{owner}"));
    if owner == 0 {
        vec!["/run/kryptonfs".into(), own]
    } else {
        vec![own]
    }
}

fn file(dir: &Path) -> String {
    let bytes = dir.as_os_str().as_encoded_bytes();
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
    format!("{sum:016x}.sock")
}

/// The socket's place for a new mount at `dir`; its folder is made.
pub(super) fn place(dir: &Path) -> io::Result<PathBuf> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for folder in folders(geteuid().as_raw()) {
        match private(&folder) {
            Ok(()) => return Ok(folder.join(file(dir))),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Makes the folder if it is absent, and makes sure it is ours alone.
fn private(folder: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    belongs(folder, geteuid().as_raw())
}

fn belongs(folder: &Path, owner: u32) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(folder)?;
    if meta.is_dir() && meta.uid() == owner && meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} is not private to user {owner}: remove it",
        folder.display()
    )))
}

/// The socket of the mount that `dir` is at or in.
///
/// # Errors
/// One line, if there is no such mount, or its socket is not to be trusted.
pub fn find(dir: &Path) -> Result<PathBuf, String> {
    let absent = || {
        format!(
            "{} is not a kryptonfs mount: `findmnt -t {}` lists them",
            dir.display(),
            mounts::FS_TYPE
        )
    };
    let all = mounts::ours().map_err(|error| format!("/proc cannot be read: {error}"))?;
    let mount = mount_of(&all, dir).ok_or_else(absent)?;
    for folder in folders(mount.owner) {
        let socket = folder.join(file(&mount.dir));
        if std::fs::symlink_metadata(&socket).is_ok() {
            belongs(&folder, mount.owner).map_err(|error| error.to_string())?;
            return Ok(socket);
        }
    }
    Err(format!(
        "the daemon of {} does not listen: it died, or belongs to another user; unmount with `umount -l {}`",
        mount.dir.display(),
        mount.dir.display()
    ))
}

/// Looks at nothing inside of a mount: the last component is not followed before the mount table was
/// asked, and the folder it is in is resolved only if it is in no mount of ours.
fn mount_of<'a>(all: &'a [Mount], dir: &Path) -> Option<&'a Mount> {
    let mut path = std::path::absolute(dir).ok()?;
    for _ in 0..LINKS_MAX {
        if let Some(mount) = mounts::containing(all, &path) {
            return Some(mount);
        }
        let name = path.file_name()?.to_owned();
        let real = path.parent()?.canonicalize().ok()?.join(name);
        if let Some(mount) = mounts::containing(all, &real) {
            return Some(mount);
        }
        let target = std::fs::read_link(&real).ok()?;
        path = real.parent()?.join(target);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn mount(dir: &Path) -> Mount {
        Mount {
            dir: dir.to_owned(),
            source: "s3://b/".into(),
            owner: geteuid().as_raw(),
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
            assert_eq!(mount_of(&all, &base.join(path)), Some(&all[0]), "{path}");
        }
        assert_eq!(mount_of(&all, &base), None);
        assert_eq!(mount_of(&all, &base.join("mnt2")), None);
    }

    #[test]
    fn a_circle_of_symlinks_ends() {
        let temp = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("b", temp.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", temp.path().join("b")).unwrap();
        assert_eq!(mount_of(&[], &temp.path().join("a")), None);
    }

    #[test]
    fn what_is_not_mounted_is_told_in_one_line() {
        let temp = tempfile::tempdir().unwrap();
        let line = find(temp.path()).unwrap_err();
        assert!(line.contains("is not a kryptonfs mount") && !line.contains('\n'));
    }

    #[test]
    fn a_folder_that_others_can_enter_is_not_used() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("run");
        private(&folder).unwrap();
        private(&folder).unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&folder, open).unwrap();
        assert!(private(&folder).is_err());
        std::os::unix::fs::symlink(temp.path(), temp.path().join("link")).unwrap();
        assert!(private(&temp.path().join("link")).is_err());
    }

    #[test]
    fn socket_paths_fit_into_an_address() {
        for folder in folders(u32::MAX).into_iter().chain(folders(0)) {
            let path = folder.join(file(Path::new("/some/where")));
            assert!(path.as_os_str().len() < 108);
        }
    }
}
