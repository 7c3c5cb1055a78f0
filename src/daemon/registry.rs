//! Where a mount's control socket is: known from its mountpoint alone, without touching the mount,
//! which may hang.
//!
//! Invariant: a socket lies in a folder that belongs to the mount's user and that nobody else can
//! enter, so neither side can be led to another's.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::fuse::mounts;

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

/// Whether `dir` is at or in a mount of ours; the mount itself, which may hang, is not asked.
///
/// # Errors
/// One line.
pub fn is_mount(dir: &Path) -> Result<bool, String> {
    let all = mounts::ours().map_err(|error| format!("/proc cannot be read: {error}"))?;
    Ok(mounts::around(&all, dir).is_some())
}

/// The sockets of all mounts that this user may ask.
///
/// # Errors
/// One line.
pub fn sockets() -> Result<Vec<PathBuf>, String> {
    let all = mounts::ours().map_err(|error| format!("/proc cannot be read: {error}"))?;
    Ok(all
        .iter()
        .filter_map(|mount| socket_of(mount).ok()?)
        .collect())
}

fn socket_of(mount: &mounts::Mount) -> Result<Option<PathBuf>, String> {
    for folder in folders(mount.owner) {
        let socket = folder.join(file(&mount.dir));
        if std::fs::symlink_metadata(&socket).is_ok() {
            belongs(&folder, mount.owner).map_err(|error| error.to_string())?;
            return Ok(Some(socket));
        }
    }
    Ok(None)
}

/// The name of `path` in the mount that it is in; the mount itself, which may hang, is not asked.
///
/// # Errors
/// One line.
pub fn inside(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let all = mounts::ours().map_err(|error| format!("/proc cannot be read: {error}"))?;
    let (mount, at) =
        mounts::place(&all, path).ok_or_else(|| format!("{shown} is in no kryptonfs mount"))?;
    let name = at.strip_prefix(&mount.dir).ok().and_then(Path::to_str);
    let name = name.ok_or_else(|| format!("{shown}: names in the bucket are UTF-8"))?;
    Ok(name.to_owned())
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
    let mount = mounts::around(&all, dir).ok_or_else(absent)?;
    if let Some(socket) = socket_of(mount)? {
        return Ok(socket);
    }
    Err(format!(
        "the daemon of {} does not listen: it died, or belongs to another user; unmount with `umount -l {}`",
        mount.dir.display(),
        mount.dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

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
